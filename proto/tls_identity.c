/* A certificate chain and its key: read from PEM, checked, and asked for the names in it. */
#include "proto/tls_internal.h"

#include "core/base/crypto.h"

#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RSA_BITS_MIN = 2048, LIBRARY_TEXT_SIZE = 160 };

struct report {
    char *text;
    size_t size;
};

static int refuse(struct report report, const char *name, const char *format, ...) PRINTF_LIKE(3, 4);

static int refuse(struct report report, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char what[300];
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(report.text, report.size, "%s: %s", name, what);
    return -EINVAL;
}

static const char *library_text(int result, char out[LIBRARY_TEXT_SIZE])
{
    mbedtls_strerror(result, out, LIBRARY_TEXT_SIZE);
    return out;
}

static size_t count_of(struct str text, struct str piece)
{
    size_t count = 0;
    const char *at = text.at;
    const char *end = text.at + text.size;
    while (text.size && (at = memmem(at, (size_t)(end - at), piece.at, piece.size))) {
        at += piece.size;
        count++;
    }
    return count;
}

/* mbedTLS knows PEM by the NUL behind it. */
static unsigned char *with_nul(struct str text)
{
    unsigned char *copy = mem_alloc(text.size + 1);
    if (text.size)
        memcpy(copy, text.at, text.size);
    copy[text.size] = 0;
    return copy;
}

static int read_chain(struct tls_identity *identity, const struct tls_certificate *from, struct report report)
{
    size_t begun = count_of(from->chain, STR("-----BEGIN CERTIFICATE-----"));
    if (begun == 0)
        return refuse(report, from->chain_name, "there is no PEM certificate in it");
    unsigned char *text = with_nul(from->chain);
    int result = mbedtls_x509_crt_parse(&identity->chain, text, from->chain.size + 1);
    free(text);
    char why[LIBRARY_TEXT_SIZE];
    if (result < 0)
        return refuse(report, from->chain_name, "the certificate can't be read (%s)",
                      library_text(result, why));
    /* mbedTLS takes what it can and ends in silence at a certificate without an end. */
    size_t whole = 0;
    for (const mbedtls_x509_crt *each = &identity->chain; each; each = each->next)
        whole++;
    if (whole < begun)
        return refuse(report, from->chain_name, "only %zu of its %zu certificates can be read", whole, begun);
    return 0;
}

int tls_check_authorities(struct str pem, const char *name, char *error, size_t error_size)
{
    struct report report = {error, error_size};
    struct tls_identity identity = {0};
    const struct tls_certificate from = {.chain = pem, .chain_name = name};
    if (count_of(pem, STR("-----BEGIN ")) != count_of(pem, STR("-----BEGIN CERTIFICATE-----")))
        return refuse(report, name, "there is something else in it than certificates");
    tls_start_library();
    mbedtls_x509_crt_init(&identity.chain);
    int result = read_chain(&identity, &from, report);
    mbedtls_x509_crt_free(&identity.chain);
    return result;
}

static int read_key(struct tls_identity *identity, const struct tls_certificate *from, struct report report)
{
    if (count_of(from->key, STR("-----BEGIN ")) == 0)
        return refuse(report, from->key_name, "there is no PEM key in it");
    unsigned char *text = with_nul(from->key);
    int result = mbedtls_pk_parse_key(&identity->key, text, from->key.size + 1, NULL, 0, tls_random, NULL);
    crypto_wipe(text, from->key.size + 1);
    free(text);
    if (result == MBEDTLS_ERR_PK_PASSWORD_REQUIRED || result == MBEDTLS_ERR_PEM_PASSWORD_REQUIRED)
        return refuse(report, from->key_name, "the key is encrypted; store it without a passphrase");
    char why[LIBRARY_TEXT_SIZE];
    if (result != 0)
        return refuse(report, from->key_name, "the private key can't be read (%s)",
                      library_text(result, why));
    return 0;
}

/* Keys that no client would take are found here and not in every handshake. */
static int check_key_kind(const struct tls_identity *identity, const char *key_name, struct report report)
{
    switch (mbedtls_pk_get_type(&identity->key)) {
    case MBEDTLS_PK_RSA:
        if (mbedtls_pk_get_bitlen(&identity->key) >= RSA_BITS_MIN)
            return 0;
        return refuse(report, key_name, "an RSA key of %zu bits; %d are the least that clients take",
                      mbedtls_pk_get_bitlen(&identity->key), RSA_BITS_MIN);
    case MBEDTLS_PK_ECKEY:
        switch (mbedtls_ecp_keypair_get_group_id(mbedtls_pk_ec(identity->key))) {
        case MBEDTLS_ECP_DP_SECP256R1:
        case MBEDTLS_ECP_DP_SECP384R1:
        case MBEDTLS_ECP_DP_SECP521R1: return 0;
        default: return refuse(report, key_name, "an EC key, but not on P-256, P-384 or P-521");
        }
    default: return refuse(report, key_name, "neither an RSA nor an EC key");
    }
}

static bool belongs(const mbedtls_x509_crt *certificate, const struct tls_identity *identity)
{
    return mbedtls_pk_check_pair(&certificate->pk, &identity->key, tls_random, NULL) == 0;
}

static int check_pair(const struct tls_identity *identity, const struct tls_certificate *from,
                      struct report report)
{
    if (belongs(&identity->chain, identity))
        return 0;
    for (const mbedtls_x509_crt *each = identity->chain.next; each; each = each->next)
        if (belongs(each, identity))
            return refuse(report, from->chain_name,
                          "the certificate that %s belongs to must be the first in it", from->key_name);
    return refuse(report, from->key_name, "the key does not belong to the certificate in %s",
                  from->chain_name);
}

/* mbedTLS never picks a certificate that it may not use so; every handshake would fail. */
static int check_usage(const struct tls_identity *identity, const char *chain_name, struct report report)
{
    if (mbedtls_x509_crt_check_key_usage(&identity->chain, MBEDTLS_X509_KU_DIGITAL_SIGNATURE) != 0 ||
        mbedtls_x509_crt_check_extended_key_usage(&identity->chain, MBEDTLS_OID_SERVER_AUTH,
                                                  MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH)) != 0)
        return refuse(report, chain_name, "its key usage does not allow a TLS server");
    return 0;
}

int tls_identity_read(struct tls_identity *identity, const struct tls_certificate *from, char *error,
                      size_t error_size)
{
    struct report report = {error, error_size};
    mbedtls_x509_crt_init(&identity->chain);
    mbedtls_pk_init(&identity->key);
    int result = read_chain(identity, from, report);
    if (result == 0)
        result = read_key(identity, from, report);
    if (result == 0)
        result = check_key_kind(identity, from->key_name, report);
    if (result == 0)
        result = check_pair(identity, from, report);
    if (result == 0)
        result = check_usage(identity, from->chain_name, report);
    return result;
}

void tls_identity_clear(struct tls_identity *identity)
{
    mbedtls_x509_crt_free(&identity->chain);
    mbedtls_pk_free(&identity->key); /* wipes it */
}

static bool covers(struct str wildcard, struct str host)
{
    if (!str_starts(wildcard, STR("*.")))
        return false;
    const char *dot = memchr(host.at, '.', host.size);
    if (!dot || dot == host.at)
        return false;
    struct str parent = str_of(dot, host.size - (size_t)(dot - host.at));
    return str_equal_nocase(parent, str_of(wildcard.at + 1, wildcard.size - 1));
}

bool tls_identity_has_name(const struct tls_identity *identity, struct str host, bool by_wildcard)
{
    const int kind = MBEDTLS_ASN1_TAG_CLASS_MASK | MBEDTLS_ASN1_TAG_VALUE_MASK;
    for (const mbedtls_x509_sequence *each = &identity->chain.subject_alt_names; each; each = each->next) {
        if ((each->buf.tag & kind) != (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_DNS_NAME))
            continue;
        struct str name = str_of((const char *)each->buf.p, each->buf.len);
        if (by_wildcard ? covers(name, host) : str_equal_nocase(name, host))
            return true;
    }
    return false;
}

int64_t tls_identity_expires(const struct tls_identity *identity)
{
    const mbedtls_x509_time *end = &identity->chain.valid_to;
    struct tm parts = {
        .tm_year = end->year - 1900,
        .tm_mon = end->mon - 1,
        .tm_mday = end->day,
        .tm_hour = end->hour,
        .tm_min = end->min,
        .tm_sec = end->sec,
    };
    return timegm(&parts);
}
