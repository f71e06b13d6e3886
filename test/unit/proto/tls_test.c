/*
 * TLS sessions: what clients get, may do, and may not. The client is mbedTLS's; bytes go by memory.
 */
#include "proto/tls.h"

#include "core/base/crypto.h"
#include "test/unit/support/tls_peer.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const mbedtls_ssl_protocol_version versions[] = {MBEDTLS_SSL_VERSION_TLS1_2,
                                                        MBEDTLS_SSL_VERSION_TLS1_3};

static struct tls_made ec;  /* a.test, *.a.test */
static struct tls_made rsa; /* the same */
static struct tls_context *context;

static int set_up(void **state)
{
    (void)state;
    crypto_init();
    tls_made_order(&ec,
                   &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {"a.test", "*.a.test"}});
    tls_made_order(&rsa, &(struct tls_order){.names = {"a.test", "*.a.test"}});
    context = tls_context_of(&ec, 1, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tls_context_unref(context);
    tls_made_clear(&ec);
    tls_made_clear(&rsa);
    return 0;
}

static void part(struct tls_peer *peer, struct tls *session)
{
    tls_peer_close(peer);
    tls_free(session);
}

static void assert_reads(struct tls *session, const char *text)
{
    struct buf got = {0};
    char piece[7];
    ssize_t size;
    while ((size = tls_read(session, piece, sizeof piece)) > 0)
        buf_add(&got, piece, (size_t)size);
    assert_int_equal(size, 0);
    assert_int_equal(got.size, strlen(text));
    assert_memory_equal(got.at, text, got.size);
    buf_clear(&got);
}

static void assert_peer_reads(struct tls_peer *peer, const char *text)
{
    struct buf got = {0};
    tls_peer_read(peer, &got);
    assert_int_equal(got.size, strlen(text));
    assert_memory_equal(got.at, text, got.size);
    buf_clear(&got);
}

/* ---- the handshake ---- */

static void both_versions_shake_hands_and_talk(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 7, 100, SIZE_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(steps); k++) {
            struct tls_peer peer;
            tls_peer_open(&peer, &(struct tls_wish){.version = versions[i]});
            struct tls *session = tls_new(context);
            assert_int_equal(tls_peer_shake(&peer, session, steps[k]), 1);
            assert_int_equal(peer.result, 0);
            assert_int_equal(tls_handshake(session), 1);
            assert_string_equal(tls_version(session), i == 0 ? "TLSv1.2" : "TLSv1.3");
            assert_false(tls_resumed(session));
            assert_int_equal(tls_pending(session), 0);
            tls_peer_write(&peer, "from the client", 15);
            tls_peer_give(&peer, session);
            assert_reads(session, "from the client");
            assert_int_equal(tls_write(session, "from the server", 15), 0);
            tls_peer_take(&peer, session);
            assert_peer_reads(&peer, "from the server");
            part(&peer, session);
        }
    }
}

/* The client offers secp521r1's share, which we don't take. */
static void a_client_with_another_share_is_asked_again(void **state)
{
    (void)state;
    static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
    struct tls_peer peer;
    struct tls *session = tls_meet(
        &peer, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_3, .groups = groups, .host = "a.test"},
        context);
    part(&peer, session);
}

/* What comes with the last message of the handshake is kept for tls_read. */
static void bytes_behind_the_handshake_are_read(void **state)
{
    (void)state;
    struct tls_peer peer;
    tls_peer_open(&peer, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_3});
    struct tls *session = tls_new(context);
    assert_int_equal(mbedtls_ssl_handshake(&peer.ssl), MBEDTLS_ERR_SSL_WANT_READ);
    tls_peer_give(&peer, session);
    assert_int_equal(tls_handshake(session), 0);
    tls_peer_take(&peer, session);
    assert_int_equal(mbedtls_ssl_handshake(&peer.ssl), 0);
    tls_peer_write(&peer, "early", 5);
    tls_peer_give(&peer, session);
    assert_int_equal(tls_handshake(session), 1);
    assert_true(tls_pending(session) > 5);
    assert_reads(session, "early");
    assert_int_equal(tls_pending(session), 0);
    part(&peer, session);
}

/* A hello of TLS 1.2, with what it asks for changed: mbedTLS's client can't ask for less. */
static void old_versions_are_refused(void **state)
{
    (void)state;
    for (char minor = 0; minor < 3; minor++) {
        struct tls_peer peer;
        tls_peer_open(&peer, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_2});
        struct tls *session = tls_new(context);
        assert_int_equal(mbedtls_ssl_handshake(&peer.ssl), MBEDTLS_ERR_SSL_WANT_READ);
        peer.out.at[10] = minor; /* record header 5, message header 4, then 3 and this */
        tls_peer_give(&peer, session);
        assert_int_equal(tls_handshake(session), -EPROTO);
        struct buf *out = tls_output(session);
        assert_int_equal(out->size, 7);
        assert_int_equal(out->at[0], MBEDTLS_SSL_MSG_ALERT);
        assert_int_equal(out->at[5], MBEDTLS_SSL_ALERT_LEVEL_FATAL);
        assert_int_equal(out->at[6], MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION);
        part(&peer, session);
    }
}

static void assert_refused(const struct tls_wish *wish, struct tls_context *by, int alert)
{
    struct tls_peer peer;
    tls_peer_open(&peer, wish);
    struct tls *session = tls_new(by);
    assert_int_equal(tls_peer_shake(&peer, session, SIZE_MAX), -EPROTO);
    assert_int_equal(tls_peer_alert(&peer), alert);
    assert_string_not_equal(tls_error_text(session), "");
    assert_int_equal(tls_handshake(session), -EPROTO);
    assert_int_equal(tls_output(session)->size, 0);
    part(&peer, session);
}

static void suites_without_aead_or_forward_secrecy_are_refused(void **state)
{
    (void)state;
    static const int rows[] = {
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
        MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,   MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
        MBEDTLS_TLS_RSA_WITH_AES_128_GCM_SHA256,         MBEDTLS_TLS_RSA_WITH_AES_128_CBC_SHA,
        MBEDTLS_TLS_DHE_RSA_WITH_AES_128_GCM_SHA256,     MBEDTLS_TLS_ECDH_ECDSA_WITH_AES_128_GCM_SHA256,
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
    };
    struct tls_context *both = tls_context_of((struct tls_made[]){ec, rsa}, 2, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const int suites[] = {rows[i], 0};
        assert_refused(&(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_2, .suites = suites}, both,
                       MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
    }
    tls_context_unref(both);
}

static void each_of_our_suites_works(void **state)
{
    (void)state;
    static const int rows[] = {
        MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
        MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
        MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    };
    struct tls_context *both = tls_context_of((struct tls_made[]){ec, rsa}, 2, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const int suites[] = {rows[i], 0};
        struct tls_peer peer;
        const struct tls_wish wish = {.version = versions[i < 3], .suites = suites, .host = "a.test"};
        struct tls *session = tls_meet(&peer, &wish, both);
        assert_int_equal(mbedtls_ssl_get_ciphersuite_id_from_ssl(&peer.ssl), rows[i]);
        tls_peer_write(&peer, "x", 1);
        tls_peer_give(&peer, session);
        assert_reads(session, "x");
        part(&peer, session);
    }
    tls_context_unref(both);
}

static void weak_signatures_are_refused(void **state)
{
    (void)state;
    static const uint16_t sha1[] = {0x0203 /* ecdsa_sha1 */, 0x0201 /* rsa_pkcs1_sha1 */,
                                    MBEDTLS_TLS1_3_SIG_NONE};
    assert_refused(&(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_2, .signatures = sha1}, context,
                   MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
}

static void alpn_is_http_1_1_or_nothing(void **state)
{
    (void)state;
    static const char *http1[] = {"http/1.1", NULL};
    static const char *both[] = {"h2", "http/1.1", NULL};
    static const char *http2[] = {"h2", NULL};
    static const char *http0[] = {"http/1.0", "http/1.1x", NULL};
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        const struct {
            const char **offer;
            const char *chosen;
        } rows[] = {{NULL, NULL}, {http1, "http/1.1"}, {both, "http/1.1"}};
        for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
            struct tls_peer peer;
            struct tls *session = tls_meet(
                &peer, &(struct tls_wish){.version = versions[i], .protocols = rows[k].offer}, context);
            if (rows[k].chosen)
                assert_string_equal(mbedtls_ssl_get_alpn_protocol(&peer.ssl), rows[k].chosen);
            else
                assert_null(mbedtls_ssl_get_alpn_protocol(&peer.ssl));
            part(&peer, session);
        }
        assert_refused(&(struct tls_wish){.version = versions[i], .protocols = http2}, context,
                       MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL);
        assert_refused(&(struct tls_wish){.version = versions[i], .protocols = http0}, context,
                       MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL);
    }
}

/* ---- bytes ---- */

static void large_writes_and_reads_arrive_whole(void **state)
{
    (void)state;
    enum { SIZE = 300001 };
    char *sent = mem_alloc(SIZE);
    crypto_random(sent, SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        struct tls *session = tls_meet(&peer, &(struct tls_wish){.version = versions[i]}, context);
        struct buf got = {0};
        assert_int_equal(tls_write(session, sent, SIZE), 0);
        tls_peer_take(&peer, session);
        tls_peer_read(&peer, &got);
        assert_int_equal(got.size, SIZE);
        assert_memory_equal(got.at, sent, SIZE);
        tls_peer_write(&peer, sent, SIZE);
        /* in pieces that are no records */
        got.size = 0;
        char bytes[5000];
        for (size_t at = 0; at < peer.out.size; at += 3001) {
            size_t left = peer.out.size - at;
            tls_feed(session, peer.out.at + at, left < 3001 ? left : 3001);
            ssize_t size;
            while ((size = tls_read(session, bytes, sizeof bytes)) > 0)
                buf_add(&got, bytes, (size_t)size);
            assert_int_equal(size, 0);
        }
        assert_int_equal(got.size, SIZE);
        assert_memory_equal(got.at, sent, SIZE);
        buf_clear(&got);
        part(&peer, session);
    }
    free(sent);
}

static void writing_nothing_sends_nothing(void **state)
{
    (void)state;
    struct tls_peer peer;
    struct tls *session = tls_meet(&peer, &(struct tls_wish){0}, context);
    assert_int_equal(tls_write(session, "", 0), 0);
    assert_int_equal(tls_output(session)->size, 0);
    part(&peer, session);
}

/* mbedTLS stops at each of these as if it wanted more. */
static void what_is_behind_warnings_and_empty_records_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        struct tls *session = tls_meet(&peer, &(struct tls_wish){.version = versions[i]}, context);
        assert_int_equal(mbedtls_ssl_send_alert_message(&peer.ssl, MBEDTLS_SSL_ALERT_LEVEL_WARNING,
                                                        MBEDTLS_SSL_ALERT_MSG_USER_CANCELED),
                         0);
        tls_peer_write(&peer, "", 0);
        tls_peer_write(&peer, "", 0);
        tls_peer_write(&peer, "behind", 6);
        tls_peer_give(&peer, session);
        assert_reads(session, "behind");
        part(&peer, session);
    }
}

static void goodbyes_go_both_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        struct tls *session = tls_meet(&peer, &(struct tls_wish){.version = versions[i]}, context);
        char byte;
        tls_peer_write(&peer, "last", 4);
        assert_int_equal(mbedtls_ssl_close_notify(&peer.ssl), 0);
        tls_peer_give(&peer, session);
        char bytes[8];
        assert_int_equal(tls_read(session, bytes, sizeof bytes), 4);
        assert_int_equal(tls_read(session, &byte, 1), -ECONNRESET);
        assert_int_equal(tls_read(session, &byte, 1), -ECONNRESET);
        /* the other direction is still open */
        assert_int_equal(tls_write(session, "answer", 6), 0);
        tls_say_goodbye(session);
        size_t said = tls_output(session)->size;
        tls_say_goodbye(session);
        assert_int_equal(tls_output(session)->size, said);
        assert_int_equal(tls_write(session, "too late", 8), -EPROTO);
        tls_peer_take(&peer, session);
        assert_peer_reads(&peer, "answer");
        assert_int_equal(peer.result, MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
        part(&peer, session);
    }
}

static void a_goodbye_before_the_handshake_says_nothing(void **state)
{
    (void)state;
    struct tls *session = tls_new(context);
    tls_say_goodbye(session);
    assert_int_equal(tls_output(session)->size, 0);
    tls_free(session);
    tls_free(NULL);
}

/* ---- what is broken ---- */

#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        "" literal, sizeof(literal) - 1                                                                      \
    }

static void garbage_is_refused_with_an_alert(void **state)
{
    (void)state;
    static const struct str rows[] = {
        TEXT("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
        TEXT("\0\0\0\0\0\0\0\0\0\0"),
        TEXT("\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x00\x00\x04"), /* SSL 2's hello */
        TEXT("\x16\x03\x01\xff\xff\x01"),                                 /* too long a record */
        TEXT("\x16\x03\x01\x00\x00"),                                     /* an empty handshake record */
        TEXT("\x16\x03\x03\x00\x04\x02\x00\x00\x00"),                     /* ServerHello */
        TEXT("\x16\x03\x03\x00\x08\x01\x00\x00\x04\x03\x03\x00\x00"),     /* a hello that ends early */
        TEXT("\x17\x03\x03\x00\x05hello"),                                /* data without keys */
        TEXT("\x16\x02\x00\x00\x05\x01\x00\x00\x01\x00"),                 /* version 2 */
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct tls *session = tls_new(context);
        tls_feed(session, rows[i].at, rows[i].size);
        int result = tls_handshake(session);
        struct buf *out = tls_output(session);
        if (result != -EPROTO || out->size != 7 || out->at[0] != MBEDTLS_SSL_MSG_ALERT ||
            out->at[5] != MBEDTLS_SSL_ALERT_LEVEL_FATAL)
            fail_msg("row %zu: %d, %zu bytes out, \"%s\"", i, result, out->size, tls_error_text(session));
        assert_string_not_equal(tls_error_text(session), "");
        assert_int_equal(tls_handshake(session), -EPROTO);
        assert_int_equal(out->size, 7);
        tls_free(session);
    }
}

/* It is in pieces that might become one message. */
static void a_hello_of_16_mib_is_refused_early(void **state)
{
    (void)state;
    char record[5 + 1024] = {0x16, 3, 3, 4, 0, 1, (char)0xff, (char)0xff, (char)0xff};
    struct tls *session = tls_new(context);
    int result = 0;
    int records = 0;
    for (; result == 0 && records < 20; records++) {
        tls_feed(session, record, sizeof record);
        result = tls_handshake(session);
    }
    assert_int_equal(result, -EPROTO);
    assert_int_equal(tls_output(session)->size, 7);
    tls_free(session);
}

static void half_a_hello_waits_for_the_rest(void **state)
{
    (void)state;
    struct tls_peer peer;
    tls_peer_open(&peer, &(struct tls_wish){0});
    struct tls *session = tls_new(context);
    assert_int_equal(mbedtls_ssl_handshake(&peer.ssl), MBEDTLS_ERR_SSL_WANT_READ);
    tls_feed(session, peer.out.at, peer.out.size - 1);
    assert_int_equal(tls_handshake(session), 0);
    assert_int_equal(tls_handshake(session), 0);
    assert_int_equal(tls_output(session)->size, 0);
    part(&peer, session);
}

/* A hello may come in several records. */
static void a_hello_in_pieces_is_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        tls_peer_open(&peer, &(struct tls_wish){.version = versions[i]});
        struct tls *session = tls_new(context);
        assert_int_equal(mbedtls_ssl_handshake(&peer.ssl), MBEDTLS_ERR_SSL_WANT_READ);
        for (size_t at = 5; at < peer.out.size; at += 50) {
            size_t left = peer.out.size - at;
            size_t size = left < 50 ? left : 50;
            const char header[5] = {0x16, 3, 3, 0, (char)size};
            tls_feed(session, header, sizeof header);
            tls_feed(session, peer.out.at + at, size);
        }
        peer.out.size = 0;
        assert_int_equal(tls_handshake(session), 0);
        tls_peer_take(&peer, session);
        assert_int_equal(tls_peer_shake(&peer, session, SIZE_MAX), 1);
        part(&peer, session);
    }
}

static void a_changed_record_is_refused_with_an_alert(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        struct tls *session = tls_meet(&peer, &(struct tls_wish){.version = versions[i]}, context);
        char bytes[16];
        tls_peer_write(&peer, "genuine", 7);
        tls_feed(session, peer.out.at, peer.out.size - 1);
        assert_int_equal(tls_read(session, bytes, sizeof bytes), 0);
        char last = (char)(peer.out.at[peer.out.size - 1] ^ 1);
        tls_feed(session, &last, 1);
        assert_int_equal(tls_read(session, bytes, sizeof bytes), -EPROTO);
        assert_int_equal(tls_read(session, bytes, sizeof bytes), -EPROTO);
        assert_int_equal(tls_write(session, "x", 1), -EPROTO);
        assert_string_not_equal(tls_error_text(session), "");
        tls_peer_take(&peer, session);
        struct buf got = {0};
        tls_peer_read(&peer, &got);
        assert_int_equal(got.size, 0);
        assert_int_equal(tls_peer_alert(&peer), MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC);
        part(&peer, session);
    }
}

static void a_fatal_alert_ends_the_session_without_an_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        struct tls *session = tls_meet(&peer, &(struct tls_wish){.version = versions[i]}, context);
        assert_int_equal(mbedtls_ssl_send_alert_message(&peer.ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                                        MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR),
                         0);
        tls_peer_give(&peer, session);
        char byte;
        assert_int_equal(tls_read(session, &byte, 1), -EPROTO);
        assert_int_equal(tls_output(session)->size, 0);
        part(&peer, session);
    }
}

static void renegotiation_is_declined(void **state)
{
    (void)state;
    struct tls_peer peer;
    struct tls *session = tls_meet(
        &peer, &(struct tls_wish){.version = MBEDTLS_SSL_VERSION_TLS1_2, .renegotiates = true}, context);
    assert_int_equal(mbedtls_ssl_renegotiate(&peer.ssl), MBEDTLS_ERR_SSL_WANT_READ);
    tls_peer_give(&peer, session);
    char byte;
    assert_int_equal(tls_read(session, &byte, 1), 0);
    assert_true(tls_output(session)->size > 0);
    tls_peer_take(&peer, session);
    int result = mbedtls_ssl_renegotiate(&peer.ssl);
    assert_true(result < 0 && result != MBEDTLS_ERR_SSL_WANT_READ);
    part(&peer, session);
}

/* ---- tickets ---- */

/* A session of which the peer keeps the ticket. */
static void meet_for_ticket(struct tls_peer *peer, mbedtls_ssl_protocol_version version,
                            struct tls_context *with)
{
    struct tls *session = tls_meet(peer, &(struct tls_wish){.version = version, .host = "a.test"}, with);
    struct buf none = {0};
    tls_peer_read(peer, &none);
    assert_true(peer->has_ticket);
    tls_free(session);
}

static bool resumes(const struct tls_peer *before, struct tls_context *with)
{
    struct tls_peer peer;
    const struct tls_wish wish = {
        .version = mbedtls_ssl_get_version_number(&before->ssl),
        .host = "a.test",
        .session = &before->ticket,
    };
    struct tls *session = tls_meet(&peer, &wish, with);
    bool resumed = tls_resumed(session);
    assert_int_equal(tls_write(session, "hello", 5), 0);
    tls_peer_take(&peer, session);
    assert_peer_reads(&peer, "hello");
    part(&peer, session);
    return resumed;
}

static void tickets_resume(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        meet_for_ticket(&peer, versions[i], context);
        assert_true(resumes(&peer, context));
        assert_true(resumes(&peer, context));
        tls_peer_close(&peer);
    }
}

static void tickets_outlive_a_reload(void **state)
{
    (void)state;
    struct tls_made other;
    tls_made_order(&other, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP384R1, .names = {"a.test"}});
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_context *first = tls_context_of(&ec, 1, NULL);
        struct tls_context *second = tls_context_of(&other, 1, first);
        struct tls_context *stranger = tls_context_of(&ec, 1, NULL);
        struct tls_peer peer;
        meet_for_ticket(&peer, versions[i], first);
        tls_context_unref(first);
        assert_true(resumes(&peer, second));
        assert_false(resumes(&peer, stranger));
        tls_context_unref(second);
        tls_context_unref(stranger);
        tls_peer_close(&peer);
    }
    tls_made_clear(&other);
}

/* TLS 1.2's suite names the kind of key, so its ticket is no use with another; TLS 1.3's does not. */
static void another_kind_of_key_costs_a_full_handshake_at_most(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_context *second = tls_context_of(&rsa, 1, context);
        struct tls_peer peer;
        meet_for_ticket(&peer, versions[i], context);
        assert_int_equal(resumes(&peer, second), versions[i] == MBEDTLS_SSL_VERSION_TLS1_3);
        tls_context_unref(second);
        tls_peer_close(&peer);
    }
}

static void a_changed_ticket_costs_a_full_handshake(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct tls_peer peer;
        meet_for_ticket(&peer, versions[i], context);
        size_t size = peer.ticket.MBEDTLS_PRIVATE(ticket_len);
        const size_t places[] = {0, 5, 20, size / 2, size - 1};
        for (size_t k = 0; k < ARRAY_SIZE(places); k++) {
            unsigned char *byte = &peer.ticket.MBEDTLS_PRIVATE(ticket)[places[k]];
            *byte ^= 1;
            assert_false(resumes(&peer, context));
            *byte ^= 1;
        }
        assert_true(resumes(&peer, context));
        tls_peer_close(&peer);
    }
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 5 };

static void *meet_often(void *arg)
{
    struct tls_context *shared = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct tls_peer peer;
        struct tls_context *own = tls_context_ref(shared);
        meet_for_ticket(&peer, versions[i % 2], own);
        CHECK(resumes(&peer, own));
        tls_peer_close(&peer);
        tls_context_unref(own);
    }
    return NULL;
}

static void threads_share_a_context(void **state)
{
    (void)state;
    struct tls_context *both = tls_context_of((struct tls_made[]){rsa, ec}, 2, NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, meet_often, both), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    tls_context_unref(both);
}

static void a_session_keeps_its_context(void **state)
{
    (void)state;
    struct tls_context *own = tls_context_of(&ec, 1, NULL);
    struct tls_peer peer;
    tls_peer_open(&peer, &(struct tls_wish){0});
    struct tls *session = tls_new(own);
    tls_context_unref(own);
    assert_int_equal(tls_peer_shake(&peer, session, SIZE_MAX), 1);
    part(&peer, session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_shake_hands_and_talk),
        cmocka_unit_test(a_client_with_another_share_is_asked_again),
        cmocka_unit_test(bytes_behind_the_handshake_are_read),
        cmocka_unit_test(old_versions_are_refused),
        cmocka_unit_test(suites_without_aead_or_forward_secrecy_are_refused),
        cmocka_unit_test(each_of_our_suites_works),
        cmocka_unit_test(weak_signatures_are_refused),
        cmocka_unit_test(alpn_is_http_1_1_or_nothing),
        cmocka_unit_test(large_writes_and_reads_arrive_whole),
        cmocka_unit_test(writing_nothing_sends_nothing),
        cmocka_unit_test(what_is_behind_warnings_and_empty_records_is_read),
        cmocka_unit_test(goodbyes_go_both_ways),
        cmocka_unit_test(a_goodbye_before_the_handshake_says_nothing),
        cmocka_unit_test(garbage_is_refused_with_an_alert),
        cmocka_unit_test(a_hello_of_16_mib_is_refused_early),
        cmocka_unit_test(half_a_hello_waits_for_the_rest),
        cmocka_unit_test(a_hello_in_pieces_is_taken),
        cmocka_unit_test(a_changed_record_is_refused_with_an_alert),
        cmocka_unit_test(a_fatal_alert_ends_the_session_without_an_answer),
        cmocka_unit_test(renegotiation_is_declined),
        cmocka_unit_test(tickets_resume),
        cmocka_unit_test(tickets_outlive_a_reload),
        cmocka_unit_test(another_kind_of_key_costs_a_full_handshake_at_most),
        cmocka_unit_test(a_changed_ticket_costs_a_full_handshake),
        cmocka_unit_test(threads_share_a_context),
        cmocka_unit_test(a_session_keeps_its_context),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
