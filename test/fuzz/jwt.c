/*
 * Tokens. The input is read as it stands, which only what we have signed survives; and its two lines are signed as header and
 * payload, so that what lies behind the signature is reached too. What is taken is ours and of its time.
 */
#include "core/base/base64.h"
#include "proto/jwt.h"
#include "test/fuzz/support.h"

#include <errno.h>
#include <stdlib.h>

#define ISSUER STR("wakegate")
#define AUDIENCE STR("gpu")
enum { NOW = 1900000000 };

static struct jwt_key keys[2];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct str secret = {"a secret for tests, of forty characters.", 40};
    (void)argc;
    (void)argv;
    crypto_init();
    CHECK(jwt_key_make(&keys[0], "HS256", secret) == 0 && jwt_key_make(&keys[1], "EdDSA", secret) == 0);
    return 0;
}

static bool reads(struct arena *arena, struct str token, struct jwt_claims *claims)
{
    const char *why = NULL;
    int result = jwt_read(arena, token, keys, ARRAY_SIZE(keys), ISSUER, AUDIENCE, NOW, claims, &why);
    CHECK(result == 0 || (result == -EACCES && why));
    return result == 0;
}

static void put_signed(struct buf *token, const struct jwt_key *key, struct str header, struct str payload)
{
    unsigned char signature[CRYPTO_SIGNATURE_SIZE];
    bool is_mac = key->algorithm == JWT_HS256;
    base64url_add(token, header);
    buf_add_char(token, '.');
    base64url_add(token, payload);
    if (is_mac)
        crypto_hmac_sha256(signature, str_of((const char *)key->secret, 32), buf_str(token));
    else
        crypto_ed25519_sign(signature, buf_str(token), key->secret);
    buf_add_char(token, '.');
    base64url_add(token,
                  str_of((const char *)signature, is_mac ? CRYPTO_DIGEST_SIZE : CRYPTO_SIGNATURE_SIZE));
}

/* Of a token that was taken. */
static void check_taken(struct arena *arena, struct str token, const struct jwt_claims *claims)
{
    CHECK(token.size <= JWT_MAX);
    CHECK(str_equal(claims->issuer, ISSUER) && str_equal(claims->audience, AUDIENCE));
    CHECK(claims->subject.size > 0 && str_is_utf8(claims->subject));
    CHECK(claims->expires_s > NOW - JWT_LEEWAY_S);
    CHECK(claims->issued_s >= 0 && claims->issued_s <= NOW + JWT_LEEWAY_S);
    CHECK(claims->not_before_s >= 0 && claims->not_before_s <= NOW + JWT_LEEWAY_S);
    /* Said by ourselves, it is the same; with another character it is none. */
    struct jwt_claims other = {0};
    struct buf text = {0};
    jwt_write(&text, &keys[0], claims);
    CHECK(text.size > JWT_MAX || reads(arena, buf_str(&text), &other));
    CHECK(text.size > JWT_MAX ||
          (str_equal(other.subject, claims->subject) && other.expires_s == claims->expires_s));
    text.size = 0;
    buf_add_str(&text, token);
    for (size_t i = 0; i < text.size; i += text.size / 8 + 1) {
        text.at[i] = token.at[i] == 'A' ? 'B' : 'A';
        CHECK(!reads(arena, buf_str(&text), &other));
        text.at[i] = token.at[i];
    }
    buf_clear(&text);
}

static void check_lines(struct arena *arena, struct str input)
{
    struct str payload = input;
    struct str header;
    if (!str_split(&payload, '\n', &header))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        struct jwt_claims claims;
        struct buf token = {0};
        put_signed(&token, &keys[i], header, payload);
        if (reads(arena, buf_str(&token), &claims))
            check_taken(arena, buf_str(&token), &claims);
        buf_clear(&token);
    }
}

/* A name of any bytes goes through, if it is text; and never makes more of a token than one claim. */
static void check_written(struct arena *arena, struct str input)
{
    struct jwt_claims claims = {.issuer = ISSUER,
                                .audience = AUDIENCE,
                                .subject = STR("user_1"),
                                .session = input,
                                .issued_s = NOW,
                                .expires_s = NOW + 900};
    struct jwt_claims read;
    struct buf token = {0};
    jwt_write(&token, &keys[0], &claims);
    CHECK(reads(arena, buf_str(&token), &read) == (token.size <= JWT_MAX));
    if (token.size <= JWT_MAX) {
        CHECK(str_equal(read.subject, claims.subject) && read.expires_s == claims.expires_s && !read.id.at);
        CHECK(!str_is_utf8(input) || str_equal(read.session, input));
    }
    buf_clear(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct arena arena;
    struct jwt_claims claims;
    arena_init(&arena);
    /* In a block of its own, that ends with the token. */
    char *exact = mem_alloc(size);
    if (size)
        memcpy(exact, bytes, size);
    if (reads(&arena, str_of(exact, size), &claims))
        check_taken(&arena, str_of(exact, size), &claims);
    check_lines(&arena, str_of(exact, size));
    check_written(&arena, str_of(exact, size));
    free(exact);
    arena_clear(&arena);
    return 0;
}
