/* Tokens: what is written is what another program makes, and what is forged, stale or odd is refused. */
#include "proto/jwt.h"

#include "core/base/base64.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECRET STR("a secret for tests, of forty characters.")
#define ISSUER STR("wakegate")
#define AUDIENCE STR("gpu")
enum { NOW = 1900000000 };

static struct jwt_key hs256;
static struct jwt_key eddsa;

static const struct jwt_claims example = {
    .issuer = {"wakegate", 8},
    .audience = {"gpu", 3},
    .subject = {"user_1", 6},
    .session = {"login_2", 7},
    .id = {"jti_3", 5},
    .issued_s = NOW,
    .not_before_s = NOW - 10,
    .expires_s = NOW + 900,
};

/* Made by another program from the same secret. */
#define PAYLOAD                                                                                              \
    "eyJpc3MiOiJ3YWtlZ2F0ZSIsImF1ZCI6ImdwdSIsInN1YiI6InVzZXJfMSIsInNpZCI6ImxvZ2luXzIiLCJqdGkiOiJqdGlfMyIs"   \
    "ImlhdCI6MTkwMDAwMDAwMCwibmJmIjoxODk5OTk5OTkwLCJleHAiOjE5MDAwMDA5MDB9"
#define HS256_TOKEN                                                                                          \
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZiNzg0NzQ1YjMwZGU4YWQifQ." PAYLOAD                        \
    ".FlOJA_-OJcJEwE5Gm8Bja-yNdoatBFu4LTvy850WzWA"
#define EDDSA_TOKEN                                                                                          \
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6IjU4Y2JhNGMzMjFiMzg1ZmQifQ." PAYLOAD                        \
    ".DM46lXvHLC6_2UhHGsJBHiCXV4YwYUQWFnU0RyFFQ-83on8E8sGpOSMR0Qj4TC_QMmZQjtnXVkzZtn-CJkpvBQ"

/* Reads from a block that ends with the token, with both keys; NULL when it is taken, else why not. */
static const char *refused_at(struct str token, int64_t now_s, struct arena *arena, struct jwt_claims *claims)
{
    const struct jwt_key keys[] = {hs256, eddsa};
    const char *why = NULL;
    char *exact = mem_alloc(token.size);
    if (token.size)
        memcpy(exact, token.at, token.size);
    int result = jwt_read(arena, str_of(exact, token.size), keys, 2, ISSUER, AUDIENCE, now_s, claims, &why);
    free(exact);
    assert_true(result == 0 ? why == NULL : result == -EACCES && why);
    return why;
}

static const char *refused(struct str token)
{
    struct jwt_claims claims;
    struct arena arena;
    arena_init(&arena);
    const char *why = refused_at(token, NOW, &arena, &claims);
    arena_clear(&arena);
    return why;
}

static void assert_refused(struct str token, const char *wanted)
{
    const char *why = refused(token);
    if (!why || strcmp(why, wanted) != 0)
        fail_msg("%s in place of %s: %.*s", why ? why : "taken", wanted, STR_ARG(token));
}

static void add_part(struct buf *out, const char *text)
{
    base64url_add(out, str_from(text));
}

/* A token of this text, signed by the key as its algorithm says. */
static struct buf signed_token(const struct jwt_key *key, const char *header, const char *payload)
{
    struct buf token = {0};
    unsigned char signature[CRYPTO_SIGNATURE_SIZE];
    size_t size = CRYPTO_SIGNATURE_SIZE;
    add_part(&token, header);
    buf_add_char(&token, '.');
    add_part(&token, payload);
    if (key->algorithm == JWT_HS256) {
        crypto_hmac_sha256(signature, str_of((const char *)key->secret, 32), buf_str(&token));
        size = CRYPTO_DIGEST_SIZE;
    } else {
        crypto_ed25519_sign(signature, buf_str(&token), key->secret);
    }
    buf_add_char(&token, '.');
    base64url_add(&token, str_of((const char *)signature, size));
    return token;
}

/* Of a header with %s for the key's id; `wanted` NULL: it is taken. */
static void check_header(const struct jwt_key *key, const char *format, const char *wanted)
{
    char header[512];
    const char *rest = strstr(format, "%s");
    snprintf(header, sizeof header, "%.*s%s%s", rest ? (int)(rest - format) : (int)strlen(format), format,
             rest ? key->kid : "", rest ? rest + 2 : "");
    struct buf token = signed_token(key, header,
                                    "{\"iss\":\"wakegate\",\"aud\":\"gpu\",\"sub\":\"user_1\","
                                    "\"iat\":1900000000,\"exp\":1900000900}");
    if (wanted)
        assert_refused(buf_str(&token), wanted);
    else if (refused(buf_str(&token)))
        fail_msg("refused: %s", header);
    buf_clear(&token);
}

static const char *claims_refused(const char *payload)
{
    char header[64];
    snprintf(header, sizeof header, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", hs256.kid);
    struct buf token = signed_token(&hs256, header, payload);
    const char *why = refused(buf_str(&token));
    buf_clear(&token);
    return why;
}

/* ---- what is right ---- */

static void assert_claims(const struct jwt_claims *read)
{
    assert_true(str_equal(read->issuer, example.issuer) && str_equal(read->audience, example.audience));
    assert_true(str_equal(read->subject, example.subject) && str_equal(read->session, example.session));
    assert_true(str_equal(read->id, example.id));
    assert_int_equal(read->issued_s, example.issued_s);
    assert_int_equal(read->not_before_s, example.not_before_s);
    assert_int_equal(read->expires_s, example.expires_s);
}

static void tokens_are_those_that_another_program_makes(void **state)
{
    const struct jwt_key *const keys[] = {&hs256, &eddsa};
    static const char *const tokens[] = {HS256_TOKEN, EDDSA_TOKEN};
    (void)state;
    assert_string_equal(hs256.kid, "fb784745b30de8ad");
    assert_string_equal(eddsa.kid, "58cba4c321b385fd");
    for (int i = 0; i < 2; i++) {
        struct buf token = {0};
        struct jwt_claims claims;
        struct arena arena;
        arena_init(&arena);
        buf_add_literal(&token, "Bearer ");
        jwt_write(&token, keys[i], &example);
        assert_true(str_equal(str_of(token.at + 7, token.size - 7), str_from(tokens[i])));
        assert_null(refused_at(str_from(tokens[i]), NOW, &arena, &claims));
        assert_claims(&claims);
        arena_clear(&arena);
        buf_clear(&token);
    }
}

static void what_is_not_said_is_absent(void **state)
{
    struct jwt_claims claims = {.issuer = ISSUER,
                                .audience = AUDIENCE,
                                .subject = STR("user_\"1\""),
                                .issued_s = NOW,
                                .expires_s = NOW + 1};
    struct jwt_claims read;
    struct buf token = {0};
    struct arena arena;
    (void)state;
    arena_init(&arena);
    jwt_write(&token, &eddsa, &claims);
    assert_null(refused_at(buf_str(&token), NOW, &arena, &read));
    assert_true(str_equal(read.subject, claims.subject));
    assert_null(read.session.at);
    assert_null(read.id.at);
    assert_int_equal(read.not_before_s, 0);
    arena_clear(&arena);
    buf_clear(&token);
}

static void keys_are_of_their_secret_and_algorithm(void **state)
{
    struct jwt_key key;
    (void)state;
    assert_int_equal(jwt_key_make(&key, "HS256", STR("another secret, as long as the first one")), 0);
    assert_string_not_equal(key.kid, hs256.kid);
    assert_memory_not_equal(key.secret, hs256.secret, 32);
    assert_memory_not_equal(eddsa.secret, hs256.secret, 32);
    static const char *const others[] = {"",      "none",  "hs256", "HS384", "HS512",
                                         "RS256", "ES256", "EDDSA", "EdDSA "};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        assert_int_equal(jwt_key_make(&key, others[i], SECRET), -EINVAL);
    jwt_key_clear(&key);
    for (size_t i = 0; i < sizeof key.secret; i++)
        assert_int_equal(key.secret[i], 0);
}

/* ---- forgeries ---- */

static void every_character_of_a_token_counts(void **state)
{
    static const char *const tokens[] = {HS256_TOKEN, EDDSA_TOKEN};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char text[512];
        size_t size = strlen(tokens[i]);
        memcpy(text, tokens[i], size + 1);
        for (size_t k = 0; k < size; k++) {
            text[k] = text[k] == 'A' ? 'B' : 'A';
            assert_non_null(refused(str_of(text, size)));
            text[k] = tokens[i][k];
        }
        for (size_t cut = 0; cut < size; cut++)
            assert_non_null(refused(str_of(text, cut)));
        assert_null(refused(str_of(text, size)));
    }
}

static void the_algorithm_is_that_of_the_key(void **state)
{
    (void)state;
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", NULL);
    check_header(&eddsa, "{\"alg\":\"EdDSA\",\"kid\":\"%s\"}", NULL);
    static const char *const others[] = {"none",  "None",  "NONE",  "",      "hs256",
                                         "HS384", "HS512", "RS256", "EdDSA", "Ed25519"};
    char header[128];
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"%%s\"}", others[i]);
        check_header(&hs256, header, "algorithm");
    }
    check_header(&eddsa, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", "algorithm");
    check_header(&hs256, "{\"kid\":\"%s\"}", "algorithm");
    check_header(&hs256, "{\"alg\":null,\"kid\":\"%s\"}", "algorithm");
    check_header(&hs256, "{\"alg\":256,\"kid\":\"%s\"}", "algorithm");
    check_header(&hs256, "{\"alg\":[\"HS256\"],\"kid\":\"%s\"}", "algorithm");
    check_header(&hs256, "{\"ALG\":\"HS256\",\"kid\":\"%s\"}", "algorithm");
    /* Without a signature at all. */
    assert_refused(STR("eyJhbGciOiJub25lIn0." PAYLOAD "."), "form");
    assert_refused(STR("eyJhbGciOiJub25lIn0." PAYLOAD), "form");
    assert_refused(STR("eyJhbGciOiJub25lIn0." PAYLOAD ".AA"), "key");
}

/* The public key is known to all: it must be no secret of another algorithm's. */
static void a_public_key_is_no_secret(void **state)
{
    struct jwt_key forged = {.algorithm = JWT_HS256};
    (void)state;
    memcpy(forged.secret, eddsa.public_key, 32);
    memcpy(forged.kid, eddsa.kid, sizeof forged.kid);
    check_header(&forged, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", "algorithm");
    check_header(&forged, "{\"alg\":\"EdDSA\",\"kid\":\"%s\"}", "signature");
    memcpy(forged.kid, hs256.kid, sizeof forged.kid);
    check_header(&forged, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", "signature");
    /* A key that the token brings along counts for nothing. */
    check_header(
        &forged,
        "{\"alg\":\"HS256\",\"kid\":\"%s\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AA\"},\"jku\":\"http://x\"}",
        "signature");
}

static void the_key_is_one_of_ours(void **state)
{
    struct jwt_key other;
    (void)state;
    assert_int_equal(jwt_key_make(&other, "HS256", STR("another secret, as long as the first one")), 0);
    check_header(&other, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\"}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"\"}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":null}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s \"}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"../../dev/null\"}", "key");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\\u0000\"}", "key");
    struct jwt_claims claims;
    struct arena arena;
    const char *why = NULL;
    arena_init(&arena);
    assert_int_equal(jwt_read(&arena, STR(HS256_TOKEN), NULL, 0, ISSUER, AUDIENCE, NOW, &claims, &why),
                     -EACCES);
    assert_string_equal(why, "key");
    assert_int_equal(jwt_read(&arena, STR(EDDSA_TOKEN), &hs256, 1, ISSUER, AUDIENCE, NOW, &claims, &why),
                     -EACCES);
    assert_string_equal(why, "key");
    arena_clear(&arena);
}

static void a_header_says_nothing_twice_and_nothing_critical(void **state)
{
    (void)state;
    check_header(&hs256, "{\"typ\":\"JWT\",\"alg\":\"HS256\",\"kid\":\"%s\"}", NULL);
    check_header(&hs256, " {\"alg\" : \"HS256\",\n\"kid\":\"%s\",\"cty\":\"x\"} ", NULL);
    check_header(&hs256, "{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"%s\"}", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"al\\u0067\":\"HS256\",\"kid\":\"%s\"}", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"kid\":\"x\"}", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"crit\":[\"b64\"],\"b64\":false}", "critical");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"crit\":[]}", "critical");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"crit\":null}", "critical");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", "type");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"typ\":\"\"}", "type");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"typ\":null}", "type");
    check_header(&hs256, "[]", "header");
    check_header(&hs256, "null", "header");
    check_header(&hs256, "\"HS256\"", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\"", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\"}x", "header");
    check_header(&hs256, "{\"alg\":\"HS256\",\"kid\":\"%s\",\"x\":\"\xff\"}", "header");
}

static void a_token_has_three_parts_of_plain_base64url(void **state)
{
    static const struct {
        const char *token;
        const char *why;
    } cases[] = {
        {"", "form"},
        {".", "form"},
        {"..", "form"},
        {"...", "form"},
        {"a.b", "form"},
        {HS256_TOKEN ".", "form"},
        {HS256_TOKEN ".AA", "form"},
        {"." HS256_TOKEN, "form"},
        {HS256_TOKEN "=", "signature"},
        {HS256_TOKEN "A", "signature"},
        {HS256_TOKEN "AA", "signature"},
        {HS256_TOKEN "\n", "signature"},
        {" " HS256_TOKEN, "header"},
        {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZiNzg0NzQ1YjMwZGU4YWQifQ==." PAYLOAD ".AA", "header"},
        {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZiNzg0NzQ1YjMwZGU4YWQifR." PAYLOAD ".AA", "header"},
        {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZiNzg0NzQ1YjMwZGU4YWQifQ." PAYLOAD ".A", "signature"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_refused(str_from(cases[i].token), cases[i].why);
    assert_refused(STR_NONE, "form");
    /* The last character has bits that no byte takes: another spelling of the same signature is none. */
    struct buf token = {0};
    buf_add_literal(&token, HS256_TOKEN);
    assert_int_equal(token.at[token.size - 1], 'A');
    token.at[token.size - 1] = 'B';
    assert_refused(buf_str(&token), "signature");
    /* The alphabet of plain base64. */
    token.size = 0;
    buf_add_literal(&token, HS256_TOKEN);
    *strchr(token.at, '_') = '/';
    assert_refused(buf_str(&token), "signature");
    buf_clear(&token);
}

static void a_token_that_is_too_long_is_not_looked_at(void **state)
{
    (void)state;
    char filler[JWT_MAX];
    char payload[JWT_MAX + 256];
    memset(filler, 'x', sizeof filler);
    /* The head of 85 and the signature of 43 with their dots leave so much, in steps of 4 characters to 3 bytes. */
    for (int size = 2900; size < 2960; size++) {
        snprintf(
            payload, sizeof payload,
            "{\"iss\":\"wakegate\",\"aud\":\"gpu\",\"sub\":\"%.*s\",\"iat\":1900000000,\"exp\":1900000900}",
            size, filler);
        char header[64];
        snprintf(header, sizeof header, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", hs256.kid);
        struct buf token = signed_token(&hs256, header, payload);
        const char *why = refused(buf_str(&token));
        assert_true(token.size > JWT_MAX ? why && strcmp(why, "form") == 0 : why == NULL);
        buf_clear(&token);
    }
}

/* ---- claims ---- */

#define NAMES "\"iss\":\"wakegate\",\"aud\":\"gpu\",\"sub\":\"user_1\""
#define TIMES "\"iat\":1900000000,\"exp\":1900000900"

static void assert_claims_refused(const char *payload, const char *wanted)
{
    const char *why = claims_refused(payload);
    if (wanted ? !why || strcmp(why, wanted) != 0 : why != NULL)
        fail_msg("%s in place of %s: %s", why ? why : "taken", wanted ? wanted : "taken", payload);
}

static void claims_are_ours_and_whole(void **state)
{
    static const struct {
        const char *payload;
        const char *why;
    } cases[] = {
        {"{" NAMES "," TIMES "}", NULL},
        {"{" NAMES "," TIMES ",\"sid\":\"s\",\"jti\":\"j\",\"more\":{\"of\":[1,2.5]}}", NULL},
        {"{\"aud\":\"gpu\",\"sub\":\"user_1\"," TIMES "}", "issuer"},
        {"{\"iss\":\"wakegat\",\"aud\":\"gpu\",\"sub\":\"user_1\"," TIMES "}", "issuer"},
        {"{\"iss\":\"wakegate.example\",\"aud\":\"gpu\",\"sub\":\"user_1\"," TIMES "}", "issuer"},
        {"{\"iss\":\"\",\"aud\":\"gpu\",\"sub\":\"user_1\"," TIMES "}", "issuer"},
        {"{\"iss\":\"wakegate\",\"sub\":\"user_1\"," TIMES "}", "audience"},
        {"{\"iss\":\"wakegate\",\"aud\":\"session\",\"sub\":\"user_1\"," TIMES "}", "audience"},
        {"{\"iss\":\"wakegate\",\"aud\":[\"gpu\"],\"sub\":\"user_1\"," TIMES "}", "claims"},
        {"{\"iss\":\"wakegate\",\"aud\":\"gpu\"," TIMES "}", "claims"},
        {"{\"iss\":\"wakegate\",\"aud\":\"gpu\",\"sub\":\"\"," TIMES "}", "claims"},
        {"{\"iss\":\"wakegate\",\"aud\":\"gpu\",\"sub\":1," TIMES "}", "claims"},
        {"{" NAMES "," TIMES ",\"sid\":null}", "claims"},
        {"{" NAMES "," TIMES ",\"jti\":7}", "claims"},
        {"{" NAMES "," TIMES ",\"sub\":\"user_2\"}", "claims"},
        {"{" NAMES "," TIMES ",\"s\\u0075b\":\"user_2\"}", "claims"},
        {"{" NAMES "," TIMES ",\"exp\":9999999999}", "claims"},
        {"{" NAMES ",\"iat\":1900000000}", "claims"},
        {"{" NAMES ",\"exp\":1900000900}", "claims"},
        {"[]", "claims"},
        {"", "form"},
        {"{", "claims"},
        {"{" NAMES "," TIMES "} ,", "claims"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_claims_refused(cases[i].payload, cases[i].why);
}

static void times_are_whole_numbers_of_seconds(void **state)
{
    static const char *const bad[] = {"null",
                                      "true",
                                      "\"1900000000\"",
                                      "1900000000.0",
                                      "1900000000.5",
                                      "1.9e9",
                                      "19E8",
                                      "-1",
                                      "9223372036854775808",
                                      "1e400",
                                      "99999999999999999999999999",
                                      "[1900000000]",
                                      "{}"};
    static const char *const members[] = {"iat", "nbf", "exp"};
    char payload[256];
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        for (size_t k = 0; k < ARRAY_SIZE(members); k++) {
            snprintf(payload, sizeof payload, "{" NAMES ",\"iat\":%s,\"nbf\":%s,\"exp\":%s}",
                     k == 0 ? bad[i] : "1900000000", k == 1 ? bad[i] : "1900000000",
                     k == 2 ? bad[i] : "1900000900");
            assert_claims_refused(payload, "claims");
        }
    assert_claims_refused("{" NAMES ",\"iat\":1900000000,\"exp\":9223372036854775807}", NULL);
    assert_claims_refused("{" NAMES ",\"iat\":9223372036854775807,\"exp\":9223372036854775807}", "not yet");
    assert_claims_refused("{" NAMES ",\"iat\":0,\"nbf\":9223372036854775807,\"exp\":9223372036854775807}",
                          "not yet");
    assert_claims_refused("{" NAMES ",\"iat\":0,\"exp\":0}", "expired");
    assert_claims_refused("{" NAMES ",\"iat\":0,\"nbf\":0,\"exp\":1900000900}", NULL);
}

static void a_time_is_met_to_the_second_with_the_leeway(void **state)
{
    (void)state;
    static const struct {
        int64_t iat;
        int64_t nbf;
        int64_t exp;
        const char *why;
    } cases[] = {
        {0, 0, NOW - JWT_LEEWAY_S - 1, "expired"},
        {0, 0, NOW - JWT_LEEWAY_S, "expired"},
        {0, 0, NOW - JWT_LEEWAY_S + 1, NULL},
        {0, NOW + JWT_LEEWAY_S - 1, NOW + 900, NULL},
        {0, NOW + JWT_LEEWAY_S, NOW + 900, NULL},
        {0, NOW + JWT_LEEWAY_S + 1, NOW + 900, "not yet"},
        {NOW + JWT_LEEWAY_S - 1, 0, NOW + 900, NULL},
        {NOW + JWT_LEEWAY_S, 0, NOW + 900, NULL},
        {NOW + JWT_LEEWAY_S + 1, 0, NOW + 900, "not yet"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct jwt_claims claims = example;
        struct buf token = {0};
        claims.issued_s = cases[i].iat;
        claims.not_before_s = cases[i].nbf;
        claims.expires_s = cases[i].exp;
        jwt_write(&token, i % 2 ? &hs256 : &eddsa, &claims);
        if (cases[i].why)
            assert_refused(buf_str(&token), cases[i].why);
        else
            assert_null(refused(buf_str(&token)));
        buf_clear(&token);
    }
}

int main(void)
{
    crypto_init();
    CHECK(jwt_key_make(&hs256, "HS256", SECRET) == 0);
    CHECK(jwt_key_make(&eddsa, "EdDSA", SECRET) == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_that_another_program_makes),
        cmocka_unit_test(what_is_not_said_is_absent),
        cmocka_unit_test(keys_are_of_their_secret_and_algorithm),
        cmocka_unit_test(every_character_of_a_token_counts),
        cmocka_unit_test(the_algorithm_is_that_of_the_key),
        cmocka_unit_test(a_public_key_is_no_secret),
        cmocka_unit_test(the_key_is_one_of_ours),
        cmocka_unit_test(a_header_says_nothing_twice_and_nothing_critical),
        cmocka_unit_test(a_token_has_three_parts_of_plain_base64url),
        cmocka_unit_test(a_token_that_is_too_long_is_not_looked_at),
        cmocka_unit_test(claims_are_ours_and_whole),
        cmocka_unit_test(times_are_whole_numbers_of_seconds),
        cmocka_unit_test(a_time_is_met_to_the_second_with_the_leeway),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
