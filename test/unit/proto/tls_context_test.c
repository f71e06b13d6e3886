/*
 * Certificates: which files are taken, which of them a client is shown, and the one that is made for development.
 */
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "proto/tls.h"
#include "test/unit/support/tls_peer.h"

#include <errno.h>
#include <mbedtls/oid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int set_up(void **state)
{
    (void)state;
    crypto_init();
    return 0;
}

static void part(struct tls_peer *peer, struct tls *session)
{
    tls_peer_close(peer);
    tls_free(session);
}

/* ---- the choice ---- */

static size_t der_size(const struct tls_made *made, unsigned char out[4096])
{
    mbedtls_x509_crt parsed;
    mbedtls_x509_crt_init(&parsed);
    assert_int_equal(mbedtls_x509_crt_parse(&parsed, (unsigned char *)made->chain.at, made->chain.size + 1),
                     0);
    size_t size = parsed.raw.len;
    assert_true(size <= 4096);
    memcpy(out, parsed.raw.p, size);
    mbedtls_x509_crt_free(&parsed);
    return size;
}

static void assert_shown(struct tls_context *context, const struct tls_wish *wish,
                         const struct tls_made *expected)
{
    struct tls_peer peer;
    struct tls *session = tls_meet(&peer, wish, context);
    const mbedtls_x509_crt *shown = tls_peer_certificate(&peer);
    unsigned char der[4096];
    size_t size = der_size(expected, der);
    if (!shown || shown->raw.len != size || memcmp(shown->raw.p, der, size) != 0)
        fail_msg("another certificate is shown for %s", wish->host ? wish->host : "no name");
    part(&peer, session);
}

static void the_server_name_chooses_the_certificate(void **state)
{
    (void)state;
    enum { A, B, WILD_A, COUNT };
    const struct tls_order orders[COUNT] = {
        [A] = {.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test", "exact.wild.test"}},
        [B] = {.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"B.test", "b2.test", "*.b.test"}},
        [WILD_A] = {.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"*.a.test", "*.wild.test"}},
    };
    static const struct {
        const char *host;
        int expected;
    } rows[] = {
        {"a.test", A},
        {"b.test", B},
        {"b2.test", B},
        {"A.Test", A},
        {"b.TEST", B},
        {"x.a.test", WILD_A},
        {"X.A.TEST", WILD_A},
        {"x.b.test", B},
        {"x.wild.test", WILD_A},
        {"exact.wild.test", A}, /* though a wildcard has it too */
        {"x.y.a.test", A},
        {"x.y.b.test", A},
        {".b.test", A},
        {"b.test.", A},
        {"test", A},
        {"xb.test", A},
        {"wild.test", A},
        {"*.b.test", B},
        {"unknown", A},
        {NULL, A},
    };
    struct tls_made made[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        tls_made_order(&made[i], &orders[i]);
    struct tls_context *context = tls_context_of(made, COUNT, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_shown(context, &(struct tls_wish){.host = rows[i].host}, &made[rows[i].expected]);
    assert_shown(context, &(struct tls_wish){.host = "x.b.test", .version = MBEDTLS_SSL_VERSION_TLS1_2},
                 &made[B]);
    tls_context_unref(context);
    for (size_t i = 0; i < COUNT; i++)
        tls_made_clear(&made[i]);
}

static void of_two_kinds_the_client_gets_what_it_can_check(void **state)
{
    (void)state;
    static const uint16_t only_rsa[] = {MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA256,
                                        MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA256, MBEDTLS_TLS1_3_SIG_NONE};
    static const int rsa_suite[] = {MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, 0};
    struct tls_made made[2];
    tls_made_order(&made[0], &(struct tls_order){.names = {"a.test"}});
    tls_made_order(&made[1], &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test"}});
    struct tls_context *context = tls_context_of(made, 2, NULL);
    assert_shown(context, &(struct tls_wish){.host = "a.test"}, &made[1]);
    assert_shown(context, &(struct tls_wish){.host = "a.test", .signatures = only_rsa}, &made[0]);
    assert_shown(context, &(struct tls_wish){.host = "a.test", .version = MBEDTLS_SSL_VERSION_TLS1_2},
                 &made[1]);
    assert_shown(
        context,
        &(struct tls_wish){.host = "a.test", .version = MBEDTLS_SSL_VERSION_TLS1_2, .suites = rsa_suite},
        &made[0]);
    tls_context_unref(context);
    tls_made_clear(&made[0]);
    tls_made_clear(&made[1]);
}

static void each_kind_of_key_serves_both_versions(void **state)
{
    (void)state;
    static const mbedtls_ecp_group_id curves[] = {MBEDTLS_ECP_DP_NONE, MBEDTLS_ECP_DP_SECP256R1,
                                                  MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_SECP521R1};
    for (size_t i = 0; i < ARRAY_SIZE(curves); i++) {
        struct tls_made made;
        tls_made_order(&made, &(struct tls_order){.curve = curves[i], .names = {"a.test"}});
        struct tls_context *context = tls_context_of(&made, 1, NULL);
        assert_shown(context, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_2}, &made);
        assert_shown(context, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_3}, &made);
        tls_context_unref(context);
        tls_made_clear(&made);
    }
}

/* ---- files ---- */

static char *join(const char *a, const char *b)
{
    size_t size = strlen(a) + strlen(b) + 1;
    char *joined = mem_alloc(size);
    snprintf(joined, size, "%s%s", a, b);
    return joined;
}

/* `with` is what the error must begin with. */
static void assert_refused(const char *chain, const char *key, const char *with)
{
    const struct tls_certificate certificate = {str_from(chain), str_from(key), "/etc/c.pem", "/etc/k.pem"};
    struct tls_context *context = NULL;
    char error[300] = "";
    assert_int_equal(tls_context_new(&certificate, 1, NULL, &context, error, sizeof error), -EINVAL);
    assert_null(context);
    if (strncmp(error, with, strlen(with)) != 0 || strchr(error, '\n'))
        fail_msg("not \"%s\", but \"%s\"", with, error);
}

static void files_that_are_wrong_are_named(void **state)
{
    (void)state;
    struct tls_made good;
    struct tls_made other;
    struct tls_made made;
    tls_made_order(&good, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test"}});
    tls_made_order(&other, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test"}});

    assert_refused("", good.key.at, "/etc/c.pem: there is no PEM certificate in it");
    assert_refused("\x30\x82\x01\x02", good.key.at, "/etc/c.pem: there is no PEM certificate in it");
    assert_refused(good.key.at, good.key.at, "/etc/c.pem: there is no PEM certificate in it");
    assert_refused(good.chain.at, "", "/etc/k.pem: there is no PEM key in it");
    assert_refused(good.chain.at, good.chain.at, "/etc/k.pem: the private key can't be read (");
    assert_refused(good.chain.at, other.key.at,
                   "/etc/k.pem: the key does not belong to the certificate in /etc/c.pem");
    assert_refused("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", good.key.at,
                   "/etc/c.pem: the certificate can't be read (");
    assert_refused("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", good.key.at,
                   "/etc/c.pem: the certificate can't be read (");
    assert_refused(good.chain.at,
                   "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n",
                   "/etc/k.pem: the key is encrypted");
    assert_refused(good.chain.at,
                   "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                   "DEK-Info: AES-128-CBC,000102030405060708090A0B0C0D0E0F\n\n"
                   "AAAAAAAAAAAAAAAAAAAAAA==\n-----END EC PRIVATE KEY-----\n",
                   "/etc/k.pem: the key is encrypted");

    /* cut off, the first and the second; and in the wrong order */
    char *half = mem_strdup(good.chain.at);
    half[good.chain.size / 2] = 0;
    assert_refused(half, good.key.at, "/etc/c.pem: the certificate can't be read (");
    char *one_and_half = join(good.chain.at, half);
    assert_refused(one_and_half, good.key.at, "/etc/c.pem: only 1 of its 2 certificates can be read");
    char *wrong_order = join(other.chain.at, good.chain.at);
    assert_refused(wrong_order, good.key.at,
                   "/etc/c.pem: the certificate that /etc/k.pem belongs to must be the first in it");
    char *half_key = mem_strdup(good.key.at);
    half_key[good.key.size / 2] = 0;
    assert_refused(good.chain.at, half_key, "/etc/k.pem: the private key can't be read (");
    free(half);
    free(one_and_half);
    free(wrong_order);
    free(half_key);

    static const struct {
        struct tls_order order;
        const char *with;
    } rows[] = {
        {{.rsa_bits = 1024}, "/etc/k.pem: an RSA key of 1024 bits"},
        {{.curve = MBEDTLS_ECP_DP_SECP256K1}, "/etc/k.pem: an EC key, but not on P-256"},
        {{.curve = MBEDTLS_ECP_DP_SECP256R1, .extended_usage = MBEDTLS_OID_CLIENT_AUTH},
         "/etc/c.pem: its key usage"},
        {{.curve = MBEDTLS_ECP_DP_SECP256R1, .key_usage = MBEDTLS_X509_KU_KEY_CERT_SIGN},
         "/etc/c.pem: its key usage"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        tls_made_order(&made, &rows[i].order);
        assert_refused(made.chain.at, made.key.at, rows[i].with);
        tls_made_clear(&made);
    }
    tls_made_clear(&good);
    tls_made_clear(&other);
}

/* The error is of the second; nothing of the first is left behind. */
static void one_wrong_file_among_several_is_named(void **state)
{
    (void)state;
    struct tls_made good;
    tls_made_order(&good, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test"}});
    const struct tls_certificate certificates[] = {
        {buf_str(&good.chain), buf_str(&good.key), "1.pem", "1.key"},
        {buf_str(&good.chain), STR("none"), "2.pem", "2.key"},
    };
    struct tls_context *context = NULL;
    char error[100];
    assert_int_equal(tls_context_new(certificates, 2, NULL, &context, error, sizeof error), -EINVAL);
    assert_string_equal(error, "2.key: there is no PEM key in it");
    char small[10];
    assert_int_equal(tls_context_new(certificates, 2, NULL, &context, small, sizeof small), -EINVAL);
    assert_string_equal(small, "2.key: th");
    tls_made_clear(&good);
}

/* A file's text has no NUL behind it: none may be looked for. */
static void texts_need_no_nul_behind_them(void **state)
{
    (void)state;
    struct tls_made made;
    tls_made_order(&made, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test"}});
    char *chain = mem_alloc(made.chain.size);
    char *key = mem_alloc(made.key.size);
    memcpy(chain, made.chain.at, made.chain.size);
    memcpy(key, made.key.at, made.key.size);
    const struct tls_certificate certificate = {str_of(chain, made.chain.size), str_of(key, made.key.size),
                                                "c", "k"};
    struct tls_context *context = NULL;
    char error[100];
    assert_int_equal(tls_context_new(&certificate, 1, NULL, &context, error, sizeof error), 0);
    free(chain);
    free(key);
    assert_shown(context, &(struct tls_wish){0}, &made);
    tls_context_unref(context);
    tls_made_clear(&made);
}

static void an_expired_certificate_serves_and_says_so(void **state)
{
    (void)state;
    struct tls_made made[2];
    tls_made_order(&made[0],
                   &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .until = "20301231235959"});
    tls_made_order(&made[1],
                   &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .until = "20210302030405"});
    struct tls_context *context = tls_context_of(made, 1, NULL);
    assert_int_equal(tls_context_expires(context), 1924991999);
    tls_context_unref(context);
    context = tls_context_of(made, 2, NULL);
    assert_int_equal(tls_context_expires(context), 1614654245);
    assert_shown(context, &(struct tls_wish){0}, &made[0]);
    tls_context_unref(context);
    tls_made_clear(&made[0]);
    tls_made_clear(&made[1]);
}

/* ---- the made certificate ---- */

static bool believes(struct tls_context *context, const struct tls_made *root, const char *host)
{
    struct tls_peer peer;
    struct tls *session = tls_new(context);
    tls_peer_open(&peer, &(struct tls_wish){.host = host, .root = root->chain.at});
    bool believed = tls_peer_shake(&peer, session, SIZE_MAX) == 1 && peer.result == 0;
    part(&peer, session);
    return believed;
}

static void a_made_certificate_is_believed_for_its_names(void **state)
{
    (void)state;
    struct tls_made made;
    struct tls_made other;
    tls_made_for(&made, "dev.example.com");
    tls_made_for(&other, "dev.example.com");
    struct tls_context *context = tls_context_of(&made, 1, NULL);
    static const char *const its[] = {
        "dev.example.com", "vs-code-1.dev.example.com", "localhost", "x.localhost", "127.0.0.1", "::1"};
    static const char *const not_its[] = {"example.com", "a.b.dev.example.com", "127.0.0.2", "::2"};
    for (size_t i = 0; i < ARRAY_SIZE(its); i++)
        if (!believes(context, &made, its[i]))
            fail_msg("not believed for %s", its[i]);
    for (size_t i = 0; i < ARRAY_SIZE(not_its); i++)
        if (believes(context, &made, not_its[i]))
            fail_msg("believed for %s", not_its[i]);
    assert_false(believes(context, &other, "dev.example.com"));
    int64_t left = tls_context_expires(context) - clock_wall_s();
    assert_in_range(left, 365 * 86400 - 60, 365 * 86400 + 1);
    tls_context_unref(context);
    tls_made_clear(&made);
    tls_made_clear(&other);
}

static void a_made_certificate_is_what_browsers_take(void **state)
{
    (void)state;
    struct tls_made made[2];
    mbedtls_x509_crt parsed[2];
    for (size_t i = 0; i < 2; i++) {
        tls_made_for(&made[i], "localhost");
        mbedtls_x509_crt_init(&parsed[i]);
        assert_int_equal(
            mbedtls_x509_crt_parse(&parsed[i], (unsigned char *)made[i].chain.at, made[i].chain.size + 1), 0);
    }
    const mbedtls_x509_crt *leaf = &parsed[0];
    assert_int_equal(leaf->version, 3);
    assert_int_equal(mbedtls_x509_crt_get_ca_istrue(leaf), 0);
    assert_int_equal(leaf->serial.len, 16);
    assert_memory_not_equal(leaf->serial.p, parsed[1].serial.p, 16);
    size_t names = 0;
    for (const mbedtls_x509_sequence *each = &leaf->subject_alt_names; each; each = each->next)
        names++;
    assert_int_equal(names, 4); /* localhost stands there once */
    assert_int_equal(mbedtls_x509_crt_check_key_usage(leaf, MBEDTLS_X509_KU_DIGITAL_SIGNATURE), 0);
    assert_int_not_equal(mbedtls_x509_crt_check_key_usage(leaf, MBEDTLS_X509_KU_KEY_CERT_SIGN), 0);
    for (size_t i = 0; i < 2; i++) {
        mbedtls_x509_crt_free(&parsed[i]);
        tls_made_clear(&made[i]);
    }
}

static void a_certificate_is_made_for_host_names_only(void **state)
{
    (void)state;
    char longest[253];
    memset(longest, 'a', sizeof longest);
    longest[252] = 0;
    const char *const rows[] = {
        "", ".", ".a", "a.", "a..b", "a b", "a,CN=b", "a/b", "a\nb", "\xc3\xa9.test", longest};
    struct buf chain = {0};
    struct buf key = {0};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(tls_make_certificate(rows[i], &chain, &key), -EINVAL);
    assert_int_equal(chain.size + key.size, 0);
    longest[251] = 0;
    assert_int_equal(tls_make_certificate(longest, &chain, &key), 0);
    buf_clear(&chain);
    buf_clear(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_name_chooses_the_certificate),
        cmocka_unit_test(of_two_kinds_the_client_gets_what_it_can_check),
        cmocka_unit_test(each_kind_of_key_serves_both_versions),
        cmocka_unit_test(files_that_are_wrong_are_named),
        cmocka_unit_test(one_wrong_file_among_several_is_named),
        cmocka_unit_test(texts_need_no_nul_behind_them),
        cmocka_unit_test(an_expired_certificate_serves_and_says_so),
        cmocka_unit_test(a_made_certificate_is_believed_for_its_names),
        cmocka_unit_test(a_made_certificate_is_what_browsers_take),
        cmocka_unit_test(a_certificate_is_made_for_host_names_only),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
