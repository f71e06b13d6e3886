/* What all sessions share: the rules of the handshake, the certificates and the choice among them, the ticket keys. */
#include "proto/tls_internal.h"

#include "core/base/crypto.h"

#include <errno.h>
#include <psa/crypto.h>
#include <stdlib.h>

/* Two, so that a browser that opens two connections at once later finds one for each. */
enum { CONTEXT_MAGIC = 0x746c7363, TICKETS_AFTER_HANDSHAKE = 2 };

/* TLS 1.2's suites take the order given here, TLS 1.3's (mbedTLS leaves no choice) the client's. EC before RSA: signing
 * costs a fraction. AES before ChaCha20: it is the faster one below a kilobyte, where most of our answers are. */
static const struct suite {
    int id;
    mbedtls_pk_type_t signer; /* the key it needs; MBEDTLS_PK_NONE: any */
} suites[] = {
    {MBEDTLS_TLS1_3_AES_128_GCM_SHA256, MBEDTLS_PK_NONE},
    {MBEDTLS_TLS1_3_AES_256_GCM_SHA384, MBEDTLS_PK_NONE},
    {MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256, MBEDTLS_PK_NONE},
    {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, MBEDTLS_PK_ECKEY},
    {MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, MBEDTLS_PK_ECKEY},
    {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_PK_ECKEY},
    {MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, MBEDTLS_PK_RSA},
    {MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, MBEDTLS_PK_RSA},
    {MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_PK_RSA},
};

/* By their cost in mbedTLS, where P-256 has a precomputed table and X25519 has none. TLS 1.2 takes the first that the
 * client knows, TLS 1.3 the first that the client has sent a share for, so nobody is asked to try again. */
static const uint16_t groups[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_NONE,
};

/* Those of RSA with PKCS #1 are for TLS 1.2 alone, where mbedTLS has no other. */
static const uint16_t signatures[] = {
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256, MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
    MBEDTLS_TLS1_3_SIG_ECDSA_SECP521R1_SHA512, MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA256,
    MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA384,    MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA512,
    MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA256,       MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA384,
    MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA512,       MBEDTLS_TLS1_3_SIG_NONE,
};

static const char *protocols[] = {"http/1.1", NULL};

struct tls_context {
    unsigned magic;
    size_t references;
    mbedtls_ssl_config config;
    struct tls_tickets *tickets;
    int suites[ARRAY_SIZE(suites) + 1]; /* those that our keys can sign for, then 0 */
    size_t count;
    struct tls_identity identities[];
};

int tls_random(void *unused, unsigned char *out, size_t size)
{
    (void)unused;
    crypto_random(out, size);
    return 0;
}

void tls_start_library(void)
{
    CHECK(psa_crypto_init() == PSA_SUCCESS);
}

/* ---- the choice of a certificate ---- */

/* Gives the handshake all that have the name, an EC and an RSA one perhaps: it takes what the client can check. */
static int offer_named(struct tls_context *context, mbedtls_ssl_context *handshake, struct str host,
                       bool by_wildcard, bool *found)
{
    for (size_t i = 0; i < context->count; i++) {
        struct tls_identity *identity = &context->identities[i];
        if (!tls_identity_has_name(identity, host, by_wildcard))
            continue;
        *found = true;
        int result = mbedtls_ssl_set_hs_own_cert(handshake, &identity->chain, &identity->key);
        if (result != 0)
            return result;
    }
    return 0;
}

/* Without an offer the handshake uses the first. */
static int choose_certificate(void *arg, mbedtls_ssl_context *handshake, const unsigned char *name,
                              size_t size)
{
    struct tls_context *context = arg;
    struct str host = str_of((const char *)name, size);
    bool found = false;
    int result = offer_named(context, handshake, host, false, &found);
    if (result == 0 && !found)
        result = offer_named(context, handshake, host, true, &found);
    return result;
}

/* ---- tickets ---- */

static int write_ticket(void *arg, const mbedtls_ssl_session *session, unsigned char *start,
                        const unsigned char *end, size_t *size, uint32_t *lifetime)
{
    const struct tls_context *context = arg;
    return mbedtls_ssl_ticket_write(tls_tickets_library(context->tickets), session, start, end, size,
                                    lifetime);
}

static bool has_suite(const struct tls_context *context, int id)
{
    for (const int *each = context->suites; *each; each++)
        if (*each == id)
            return true;
    return false;
}

/* mbedTLS resumes a TLS 1.2 session under the suite it would choose anew. When a reload has put an RSA key in an EC one's
 * place, that is another than the session's, and the client would break off: such a ticket is as good as expired. */
static int parse_ticket(void *arg, mbedtls_ssl_session *session, unsigned char *bytes, size_t size)
{
    const struct tls_context *context = arg;
    int result = mbedtls_ssl_ticket_parse(tls_tickets_library(context->tickets), session, bytes, size);
    if (result == 0 && !has_suite(context, mbedtls_ssl_session_get_ciphersuite_id(session)))
        result = MBEDTLS_ERR_SSL_SESSION_TICKET_EXPIRED;
    return result;
}

/* ---- making one ---- */

static bool has_signer(const struct tls_context *context, mbedtls_pk_type_t signer)
{
    for (size_t i = 0; i < context->count; i++)
        if (mbedtls_pk_get_type(&context->identities[i].key) == signer)
            return true;
    return signer == MBEDTLS_PK_NONE;
}

static void configure(struct tls_context *context)
{
    mbedtls_ssl_config *config = &context->config;
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
        if (has_signer(context, suites[i].signer))
            context->suites[count++] = suites[i].id;
    CHECK(mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM,
                                      MBEDTLS_SSL_PRESET_DEFAULT) == 0);
    mbedtls_ssl_conf_rng(config, tls_random, NULL);
    mbedtls_ssl_conf_min_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_3);
    mbedtls_ssl_conf_ciphersuites(config, context->suites);
    mbedtls_ssl_conf_preference_order(config, MBEDTLS_SSL_SRV_CIPHERSUITE_ORDER_SERVER);
    mbedtls_ssl_conf_groups(config, groups);
    mbedtls_ssl_conf_sig_algs(config, signatures);
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_NONE);
    CHECK(mbedtls_ssl_conf_alpn_protocols(config, protocols) == 0);
    /* A resumed TLS 1.3 session exchanges new keys too, or a stolen ticket key would open it. */
    mbedtls_ssl_conf_tls13_key_exchange_modes(config, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL);
    mbedtls_ssl_conf_session_tickets_cb(config, write_ticket, parse_ticket, context);
    mbedtls_ssl_conf_new_session_tickets(config, TICKETS_AFTER_HANDSHAKE);
    mbedtls_ssl_conf_sni(config, choose_certificate, context);
    CHECK(mbedtls_ssl_conf_own_cert(config, &context->identities[0].chain, &context->identities[0].key) == 0);
}

int tls_context_new(const struct tls_certificate *certificates, size_t count, struct tls_context *old,
                    struct tls_context **made, char *error, size_t error_size)
{
    CHECK(count > 0);
    tls_start_library();
    struct tls_context *context = mem_zalloc(sizeof *context + count * sizeof context->identities[0]);
    MAGIC_SET(context, CONTEXT_MAGIC);
    context->references = 1;
    context->count = count;
    mbedtls_ssl_config_init(&context->config);
    for (size_t i = 0; i < count; i++) {
        int result = tls_identity_read(&context->identities[i], &certificates[i], error, error_size);
        if (result < 0) {
            tls_context_unref(context);
            return result;
        }
    }
    context->tickets = old ? tls_tickets_ref(old->tickets) : tls_tickets_new();
    configure(context);
    *made = context;
    return 0;
}

struct tls_context *tls_context_ref(struct tls_context *context)
{
    MAGIC_CHECK(context, CONTEXT_MAGIC);
    __atomic_add_fetch(&context->references, 1, __ATOMIC_RELAXED);
    return context;
}

void tls_context_unref(struct tls_context *context)
{
    if (!context)
        return;
    MAGIC_CHECK(context, CONTEXT_MAGIC);
    if (__atomic_sub_fetch(&context->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mbedtls_ssl_config_free(&context->config);
    for (size_t i = 0; i < context->count; i++)
        tls_identity_clear(&context->identities[i]);
    tls_tickets_unref(context->tickets);
    MAGIC_CLEAR(context);
    free(context);
}

int64_t tls_context_expires(const struct tls_context *context)
{
    MAGIC_CHECK(context, CONTEXT_MAGIC);
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < context->count; i++) {
        int64_t end = tls_identity_expires(&context->identities[i]);
        if (end < first)
            first = end;
    }
    return first;
}

const mbedtls_ssl_config *tls_context_config(const struct tls_context *context)
{
    MAGIC_CHECK(context, CONTEXT_MAGIC);
    return &context->config;
}
