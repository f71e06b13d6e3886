/* A TLS client and certificates for tests: see tls_peer.h. */
#include "test/unit/support/tls_peer.h"

#include "core/base/crypto.h"

#include <mbedtls/oid.h>
#include <mbedtls/rsa.h>
#include <psa/crypto.h>
#include <stdio.h>
#include <stdlib.h>

static int random_bytes(void *unused, unsigned char *out, size_t size)
{
    (void)unused;
    crypto_random(out, size);
    return 0;
}

/* ---- certificates ---- */

static void make_rsa_key(mbedtls_pk_context *key, unsigned bits)
{
    static char kept[4096]; /* making one takes a second */
    if (bits == 0 && kept[0]) {
        CHECK(mbedtls_pk_parse_key(key, (unsigned char *)kept, strlen(kept) + 1, NULL, 0, random_bytes,
                                   NULL) == 0);
        return;
    }
    CHECK(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_RSA)) == 0);
    CHECK(mbedtls_rsa_gen_key(mbedtls_pk_rsa(*key), random_bytes, NULL, bits ? bits : 2048, 65537) == 0);
    if (bits == 0)
        CHECK(mbedtls_pk_write_key_pem(key, (unsigned char *)kept, sizeof kept) == 0);
}

static void make_key(mbedtls_pk_context *key, const struct tls_order *order)
{
    mbedtls_pk_init(key);
    if (order->curve == MBEDTLS_ECP_DP_NONE) {
        make_rsa_key(key, order->rsa_bits);
        return;
    }
    CHECK(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0);
    CHECK(mbedtls_ecp_gen_key(order->curve, mbedtls_pk_ec(*key), random_bytes, NULL) == 0);
}

static void set_names(mbedtls_x509write_cert *certificate, const struct tls_order *order)
{
    mbedtls_x509_san_list list[ARRAY_SIZE(order->names)] = {0};
    size_t count = 0;
    for (; count < ARRAY_SIZE(list) && order->names[count]; count++) {
        list[count].node.type = MBEDTLS_X509_SAN_DNS_NAME;
        list[count].node.san.unstructured_name.p = (unsigned char *)mem_strdup(order->names[count]);
        list[count].node.san.unstructured_name.len = strlen(order->names[count]);
        if (count > 0)
            list[count - 1].next = &list[count];
    }
    if (count > 0)
        CHECK(mbedtls_x509write_crt_set_subject_alternative_name(certificate, list) == 0);
    for (size_t i = 0; i < count; i++)
        free(list[i].node.san.unstructured_name.p);
}

static void set_usage(mbedtls_x509write_cert *certificate, const struct tls_order *order)
{
    if (order->key_usage)
        CHECK(mbedtls_x509write_crt_set_key_usage(certificate, order->key_usage) == 0);
    if (!order->extended_usage)
        return;
    char *oid = mem_strdup(order->extended_usage);
    mbedtls_asn1_sequence usage = {
        .buf = {.tag = MBEDTLS_ASN1_OID, .len = strlen(oid), .p = (unsigned char *)oid}};
    CHECK(mbedtls_x509write_crt_set_ext_key_usage(certificate, &usage) == 0);
    free(oid);
}

void tls_made_order(struct tls_made *made, const struct tls_order *order)
{
    mbedtls_pk_context key;
    mbedtls_x509write_cert certificate;
    make_key(&key, order);
    mbedtls_x509write_crt_init(&certificate);
    mbedtls_x509write_crt_set_version(&certificate, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&certificate, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&certificate, &key);
    mbedtls_x509write_crt_set_issuer_key(&certificate, &key);
    unsigned char serial[8] = {1};
    CHECK(mbedtls_x509write_crt_set_serial_raw(&certificate, serial, sizeof serial) == 0);
    CHECK(mbedtls_x509write_crt_set_subject_name(&certificate, "CN=test") == 0);
    CHECK(mbedtls_x509write_crt_set_issuer_name(&certificate, "CN=test") == 0);
    CHECK(mbedtls_x509write_crt_set_validity(&certificate, "20200101000000",
                                             order->until ? order->until : "20490101000000") == 0);
    set_names(&certificate, order);
    set_usage(&certificate, order);
    unsigned char pem[4096];
    CHECK(mbedtls_x509write_crt_pem(&certificate, pem, sizeof pem, random_bytes, NULL) == 0);
    *made = (struct tls_made){0};
    buf_add(&made->chain, pem, strlen((char *)pem) + 1);
    CHECK(mbedtls_pk_write_key_pem(&key, pem, sizeof pem) == 0);
    buf_add(&made->key, pem, strlen((char *)pem) + 1);
    made->chain.size--;
    made->key.size--;
    mbedtls_x509write_crt_free(&certificate);
    mbedtls_pk_free(&key);
}

void tls_made_for(struct tls_made *made, const char *name)
{
    *made = (struct tls_made){0};
    CHECK(tls_make_certificate(name, &made->chain, &made->key) == 0);
    *buf_reserve(&made->chain, 1) = 0;
    *buf_reserve(&made->key, 1) = 0;
}

void tls_made_clear(struct tls_made *made)
{
    buf_clear(&made->chain);
    buf_clear(&made->key);
}

struct tls_context *tls_context_of(const struct tls_made *made, size_t count, struct tls_context *old)
{
    struct tls_certificate certificates[4];
    CHECK(count <= ARRAY_SIZE(certificates));
    for (size_t i = 0; i < count; i++)
        certificates[i] =
            (struct tls_certificate){buf_str(&made[i].chain), buf_str(&made[i].key), "chain.pem", "key.pem"};
    struct tls_context *context = NULL;
    char error[200] = "";
    if (tls_context_new(certificates, count, old, &context, error, sizeof error) != 0) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
    return context;
}

/* ---- the client ---- */

static int take_input(void *arg, unsigned char *out, size_t size)
{
    struct tls_peer *peer = arg;
    size_t left = peer->in.size - peer->in_taken;
    if (left == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    size_t taken = size < left ? size : left;
    memcpy(out, peer->in.at + peer->in_taken, taken);
    peer->in_taken += taken;
    return (int)taken;
}

static int add_output(void *arg, const unsigned char *bytes, size_t size)
{
    struct tls_peer *peer = arg;
    buf_add(&peer->out, bytes, size);
    return (int)size;
}

static void configure(struct tls_peer *peer, const struct tls_wish *wish)
{
    mbedtls_ssl_config *config = &peer->config;
    CHECK(psa_crypto_init() == PSA_SUCCESS);
    CHECK(mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                      MBEDTLS_SSL_PRESET_DEFAULT) == 0);
    mbedtls_ssl_conf_rng(config, random_bytes, NULL);
    mbedtls_ssl_conf_authmode(config, wish->root ? MBEDTLS_SSL_VERIFY_REQUIRED : MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(
        config, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
    if (wish->renegotiates)
        mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_ENABLED);
    if (wish->version) {
        mbedtls_ssl_conf_min_tls_version(config, wish->version);
        mbedtls_ssl_conf_max_tls_version(config, wish->version);
    }
    if (wish->suites)
        mbedtls_ssl_conf_ciphersuites(config, wish->suites);
    if (wish->groups)
        mbedtls_ssl_conf_groups(config, wish->groups);
    if (wish->signatures)
        mbedtls_ssl_conf_sig_algs(config, wish->signatures);
    if (wish->protocols)
        CHECK(mbedtls_ssl_conf_alpn_protocols(config, wish->protocols) == 0);
    if (wish->root) {
        const unsigned char *pem = (const unsigned char *)wish->root;
        CHECK(mbedtls_x509_crt_parse(&peer->root, pem, strlen(wish->root) + 1) == 0);
        mbedtls_ssl_conf_ca_chain(config, &peer->root, NULL);
    }
}

void tls_peer_open(struct tls_peer *peer, const struct tls_wish *wish)
{
    *peer = (struct tls_peer){0};
    mbedtls_ssl_config_init(&peer->config);
    mbedtls_ssl_init(&peer->ssl);
    mbedtls_x509_crt_init(&peer->root);
    mbedtls_ssl_session_init(&peer->ticket);
    configure(peer, wish);
    CHECK(mbedtls_ssl_setup(&peer->ssl, &peer->config) == 0);
    CHECK(mbedtls_ssl_set_hostname(&peer->ssl, wish->host) == 0);
    mbedtls_ssl_set_bio(&peer->ssl, peer, add_output, take_input, NULL);
    if (wish->session)
        CHECK(mbedtls_ssl_set_session(&peer->ssl, wish->session) == 0);
}

void tls_peer_close(struct tls_peer *peer)
{
    mbedtls_ssl_session_free(&peer->ticket);
    mbedtls_ssl_free(&peer->ssl);
    mbedtls_x509_crt_free(&peer->root);
    mbedtls_ssl_config_free(&peer->config);
    buf_clear(&peer->in);
    buf_clear(&peer->out);
}

static void move(struct buf *from, struct buf *to)
{
    buf_add(to, from->at, from->size);
    from->size = 0;
}

void tls_peer_take(struct tls_peer *peer, struct tls *session)
{
    buf_consume(&peer->in, peer->in_taken);
    peer->in_taken = 0;
    move(tls_output(session), &peer->in);
}

/* The server gets a heap block of exactly the size: a read past it is found. */
static void feed(struct tls *session, const char *bytes, size_t size)
{
    char *exact = mem_alloc(size);
    memcpy(exact, bytes, size);
    tls_feed(session, exact, size);
    free(exact);
}

void tls_peer_give(struct tls_peer *peer, struct tls *session)
{
    if (peer->out.size)
        feed(session, peer->out.at, peer->out.size);
    peer->out.size = 0;
}

int tls_peer_shake(struct tls_peer *peer, struct tls *session, size_t step)
{
    int server = 0;
    bool over = false;
    do {
        if (!over) {
            int result = mbedtls_ssl_handshake(&peer->ssl);
            over = result != MBEDTLS_ERR_SSL_WANT_READ;
            if (over)
                peer->result = result;
        }
        for (size_t at = 0; at < peer->out.size && server == 0; at += step) {
            size_t left = peer->out.size - at;
            feed(session, peer->out.at + at, left < step ? left : step);
            server = tls_handshake(session);
        }
        peer->out.size = 0;
        tls_peer_take(peer, session);
    } while (!over && peer->in.size);
    return server;
}

void tls_peer_write(struct tls_peer *peer, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    do {
        int result = mbedtls_ssl_write(&peer->ssl, at, size);
        CHECK(result >= 0);
        at += result;
        size -= (size_t)result;
    } while (size > 0);
}

static void keep_ticket(struct tls_peer *peer)
{
    mbedtls_ssl_session_free(&peer->ticket);
    mbedtls_ssl_session_init(&peer->ticket);
    CHECK(mbedtls_ssl_get_session(&peer->ssl, &peer->ticket) == 0);
    peer->has_ticket = true;
}

void tls_peer_read(struct tls_peer *peer, struct buf *got)
{
    unsigned char bytes[4096];
    for (;;) {
        int result = mbedtls_ssl_read(&peer->ssl, bytes, sizeof bytes);
        if (result > 0)
            buf_add(got, bytes, (size_t)result);
        else if (result == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
            keep_ticket(peer);
        else if (result == MBEDTLS_ERR_SSL_WANT_READ && peer->in_taken < peer->in.size)
            continue;
        else {
            if (result != MBEDTLS_ERR_SSL_WANT_READ)
                peer->result = result;
            break;
        }
    }
    if (mbedtls_ssl_get_version_number(&peer->ssl) == MBEDTLS_SSL_VERSION_TLS1_2 && !peer->has_ticket)
        keep_ticket(peer);
}

int tls_peer_alert(const struct tls_peer *peer)
{
    return peer->result == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE ? peer->ssl.MBEDTLS_PRIVATE(in_msg)[1] : -1;
}

const mbedtls_x509_crt *tls_peer_certificate(const struct tls_peer *peer)
{
    return mbedtls_ssl_get_peer_cert(&peer->ssl);
}

struct tls *tls_meet(struct tls_peer *peer, const struct tls_wish *wish, struct tls_context *context)
{
    struct tls *session = tls_new(context);
    tls_peer_open(peer, wish);
    int result = tls_peer_shake(peer, session, SIZE_MAX);
    if (result != 1 || peer->result != 0) {
        fprintf(stderr, "server: %d (%s), client: -0x%04x\n", result, tls_error_text(session),
                (unsigned)-peer->result);
        abort();
    }
    return session;
}
