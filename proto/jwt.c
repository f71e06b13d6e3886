/*
 * JSON Web Tokens of our own: see jwt.h. Nothing of a token is believed before its signature, but for what names the key; and
 * that is looked for only among our own keys, with the algorithm that each of them has.
 */
#include "proto/jwt.h"

#include "core/base/base64.h"
#include "core/base/escape.h"
#include "proto/json.h"

#include <errno.h>

enum { SECRET_SIZE = 32 /* HS256's */, SIGNATURE_MAX = CRYPTO_SIGNATURE_SIZE };

static const char *name_of(enum jwt_algorithm algorithm)
{
    switch (algorithm) {
    case JWT_HS256: return "HS256";
    case JWT_EDDSA: return "EdDSA";
    }
    UNREACHABLE();
}

/* ---- keys ---- */

static void name_key(struct jwt_key *key)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    if (key->algorithm == JWT_HS256)
        crypto_digest(digest, STR("jwt kid"), key->secret);
    else
        crypto_digest(digest, str_of((const char *)key->public_key, sizeof key->public_key), NULL);
    escape_hex(key->kid, digest, (sizeof key->kid - 1) / 2);
}

int jwt_key_make(struct jwt_key *key, const char *algorithm, struct str secret)
{
    *key = (struct jwt_key){.algorithm = JWT_HS256};
    if (strcmp(algorithm, name_of(JWT_HS256)) == 0) {
        crypto_derive(key->secret, secret, "jwt HS256");
    } else if (strcmp(algorithm, name_of(JWT_EDDSA)) == 0) {
        unsigned char seed[CRYPTO_KEY_SIZE];
        key->algorithm = JWT_EDDSA;
        crypto_derive(seed, secret, "jwt EdDSA");
        crypto_ed25519_key(key->public_key, key->secret, seed);
        crypto_wipe(seed, sizeof seed);
    } else {
        return -EINVAL;
    }
    name_key(key);
    return 0;
}

void jwt_key_clear(struct jwt_key *key)
{
    crypto_wipe(key, sizeof *key);
}

static struct str secret_of(const struct jwt_key *key)
{
    return str_of((const char *)key->secret, SECRET_SIZE);
}

static size_t sign(unsigned char out[SIGNATURE_MAX], const struct jwt_key *key, struct str message)
{
    switch (key->algorithm) {
    case JWT_HS256: crypto_hmac_sha256(out, secret_of(key), message); return CRYPTO_DIGEST_SIZE;
    case JWT_EDDSA: crypto_ed25519_sign(out, message, key->secret); return CRYPTO_SIGNATURE_SIZE;
    }
    UNREACHABLE();
}

static bool has_signed(const struct jwt_key *key, struct str message, struct str signature)
{
    unsigned char mac[CRYPTO_DIGEST_SIZE];
    switch (key->algorithm) {
    case JWT_HS256:
        crypto_hmac_sha256(mac, secret_of(key), message);
        return crypto_equal(signature, str_of((const char *)mac, sizeof mac));
    case JWT_EDDSA: return crypto_ed25519_verify(signature, message, key->public_key);
    }
    UNREACHABLE();
}

/* ---- writing ---- */

static void put_claim(struct json_out *out, const char *name, struct str value)
{
    if (value.at)
        json_put_str(out, name, value);
}

void jwt_write(struct buf *out, const struct jwt_key *key, const struct jwt_claims *claims)
{
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    unsigned char signature[SIGNATURE_MAX];
    size_t start = out->size;
    json_open(&json, '{');
    json_put_text(&json, "alg", name_of(key->algorithm));
    json_put_text(&json, "typ", "JWT");
    json_put_text(&json, "kid", key->kid);
    json_close(&json, '}');
    base64url_add(out, buf_str(&text));
    buf_add_char(out, '.');
    text.size = 0;
    json = json_out_to(&text);
    json_open(&json, '{');
    put_claim(&json, "iss", claims->issuer);
    put_claim(&json, "aud", claims->audience);
    put_claim(&json, "sub", claims->subject);
    put_claim(&json, "sid", claims->session);
    put_claim(&json, "jti", claims->id);
    json_put_int(&json, "iat", claims->issued_s);
    if (claims->not_before_s)
        json_put_int(&json, "nbf", claims->not_before_s);
    json_put_int(&json, "exp", claims->expires_s);
    json_close(&json, '}');
    base64url_add(out, buf_str(&text));
    buf_clear(&text);
    size_t size = sign(signature, key, str_of(out->at + start, out->size - start));
    buf_add_char(out, '.');
    base64url_add(out, str_of((const char *)signature, size));
}

/* ---- reading ---- */

static int refuse(const char **why, const char *word)
{
    *why = word;
    return -EACCES;
}

struct parts {
    struct str header;
    struct str payload;
    struct str signature;
    struct str signed_text; /* header and payload, with the dot */
};

static bool split(struct str token, struct parts *parts)
{
    struct str rest = token;
    if (token.size > JWT_MAX || !str_split(&rest, '.', &parts->header) ||
        !str_split(&rest, '.', &parts->payload))
        return false;
    parts->signature = rest;
    parts->signed_text = str_of(token.at, parts->header.size + 1 + parts->payload.size);
    return rest.at && parts->header.size && parts->payload.size && rest.size &&
           !memchr(rest.at, '.', rest.size);
}

/* The bytes of a part; absent when it is not base64url. */
static struct str decoded(struct arena *arena, struct str part)
{
    unsigned char *bytes = arena_alloc(arena, part.size * 3 / 4 + 1);
    int size = base64url_decode(bytes, part);
    return size < 0 ? STR_NONE : str_of((const char *)bytes, (size_t)size);
}

/* NULL when the part is no JSON object, or has a name twice. */
static const struct json *object_of(struct arena *arena, struct str part)
{
    const char *error;
    struct str text = decoded(arena, part);
    const struct json *object = text.at ? json_read(arena, text, &error) : NULL;
    return json_type_of(object) == JSON_OBJECT ? object : NULL;
}

static bool says(const struct json *object, const char *name, struct str value)
{
    struct str said = json_string(json_member(object, name));
    return said.at && value.at && str_equal(said, value);
}

/* The key that the header names. NULL, with the reason, when it is none of ours or is to be used otherwise. */
static const struct jwt_key *key_of(const struct json *header, const struct jwt_key *keys, size_t count,
                                    const char **why)
{
    const struct jwt_key *key = NULL;
    for (size_t i = 0; !key && i < count; i++)
        if (says(header, "kid", str_from(keys[i].kid)))
            key = &keys[i];
    if (!key)
        *why = "key";
    else if (!says(header, "alg", str_from(name_of(key->algorithm))))
        *why = "algorithm";
    else if (json_member(header, "typ") && !says(header, "typ", STR("JWT")))
        *why = "type";
    else if (json_member(header, "crit"))
        *why = "critical";
    else
        return key;
    return NULL;
}

/* A member that may be missing, but is a string if it is there. */
static bool text_of(const struct json *claims, const char *name, struct str *text)
{
    const struct json *member = json_member(claims, name);
    *text = json_string(member);
    return !member || text->at;
}

/* The same with a whole number of seconds since 1970; 0 when it is missing. */
static bool time_of(const struct json *claims, const char *name, int64_t *time_s)
{
    const struct json *member = json_member(claims, name);
    *time_s = 0;
    return !member || (json_to_i64(member, time_s) && *time_s >= 0);
}

static bool read_claims(const struct json *object, struct jwt_claims *claims)
{
    return text_of(object, "iss", &claims->issuer) && text_of(object, "aud", &claims->audience) &&
           text_of(object, "sub", &claims->subject) && text_of(object, "sid", &claims->session) &&
           text_of(object, "jti", &claims->id) && time_of(object, "iat", &claims->issued_s) &&
           time_of(object, "nbf", &claims->not_before_s) && time_of(object, "exp", &claims->expires_s) &&
           claims->subject.size > 0 && json_member(object, "iat") && json_member(object, "exp");
}

/* RFC 7519 §4.1: from nbf on, until before exp. */
static const char *wrong_with(const struct jwt_claims *claims, struct str issuer, struct str audience,
                              int64_t now_s)
{
    if (!claims->issuer.at || !str_equal(claims->issuer, issuer))
        return "issuer";
    if (!claims->audience.at || !str_equal(claims->audience, audience))
        return "audience";
    if (now_s - JWT_LEEWAY_S >= claims->expires_s)
        return "expired";
    if (now_s + JWT_LEEWAY_S < claims->not_before_s || now_s + JWT_LEEWAY_S < claims->issued_s)
        return "not yet";
    return NULL;
}

int jwt_read(struct arena *arena, struct str token, const struct jwt_key *keys, size_t key_count,
             struct str issuer, struct str audience, int64_t now_s, struct jwt_claims *claims,
             const char **why)
{
    struct parts parts;
    if (!split(token, &parts))
        return refuse(why, "form");
    const struct json *header = object_of(arena, parts.header);
    if (!header)
        return refuse(why, "header");
    const struct jwt_key *key = key_of(header, keys, key_count, why);
    if (!key)
        return -EACCES;
    struct str signature = decoded(arena, parts.signature);
    if (!signature.at || !has_signed(key, parts.signed_text, signature))
        return refuse(why, "signature");
    const struct json *object = object_of(arena, parts.payload);
    struct jwt_claims read;
    if (!object || !read_claims(object, &read))
        return refuse(why, "claims");
    const char *wrong = wrong_with(&read, issuer, audience, now_s);
    if (wrong)
        return refuse(why, wrong);
    *claims = read;
    return 0;
}
