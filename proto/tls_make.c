/* A self-signed certificate for development: the same thing a browser is told to trust and a test's client is given as
 * its root. It can't sign others. */
#include "proto/tls_internal.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"

#include <errno.h>
#include <mbedtls/asn1.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <time.h>

enum {
    NAME_MAX_SIZE = 253 - 2, /* RFC 1035 §2.3.4, with "*." before it */
    SERIAL_SIZE = 16,
    PEM_SIZE = 4096,
    SECONDS_A_DAY = 24 * 60 * 60,
};

/* No more than a host name's characters, so that nothing else gets into the certificate. */
static bool is_host_name(const char *name)
{
    size_t size = strlen(name);
    size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return size > 0 && size <= NAME_MAX_SIZE && good == size && name[0] != '.' && name[size - 1] != '.' &&
           !strstr(name, "..");
}

/* All errors of the library that are left are want of memory. */
static void must(int result)
{
    CHECK(result == 0);
}

static void make_key(mbedtls_pk_context *key)
{
    must(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)));
    must(mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), tls_random, NULL));
}

static void set_serial(mbedtls_x509write_cert *certificate)
{
    unsigned char serial[SERIAL_SIZE];
    crypto_random(serial, sizeof serial);
    serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of full length */
    must(mbedtls_x509write_crt_set_serial_raw(certificate, serial, sizeof serial));
}

static void format_time(char out[15], int64_t unix_s)
{
    time_t moment = (time_t)unix_s;
    struct tm parts;
    CHECK(gmtime_r(&moment, &parts) && strftime(out, 15, "%Y%m%d%H%M%S", &parts) == 14);
}

/* From an hour ago, for clocks that are behind ours. */
static void set_validity(mbedtls_x509write_cert *certificate)
{
    int64_t now = clock_wall_s();
    char from[15];
    char until[15];
    format_time(from, now - 3600);
    format_time(until, now + (int64_t)365 * SECONDS_A_DAY);
    must(mbedtls_x509write_crt_set_validity(certificate, from, until));
}

static void set_names(mbedtls_x509write_cert *certificate, const char *name)
{
    char own[NAME_MAX_SIZE + 1];
    char below[NAME_MAX_SIZE + 3];
    char localhost[] = "localhost";
    char below_localhost[] = "*.localhost";
    char ipv4[] = {127, 0, 0, 1};
    char ipv6[16] = {[15] = 1};
    snprintf(own, sizeof own, "%s", name);
    snprintf(below, sizeof below, "*.%s", name);
    struct {
        int kind;
        char *at;
        size_t size;
    } names[] = {
        {MBEDTLS_X509_SAN_DNS_NAME, own, strlen(own)},
        {MBEDTLS_X509_SAN_DNS_NAME, below, strlen(below)},
        {MBEDTLS_X509_SAN_DNS_NAME, localhost, strlen(localhost)},
        {MBEDTLS_X509_SAN_DNS_NAME, below_localhost, strlen(below_localhost)},
        {MBEDTLS_X509_SAN_IP_ADDRESS, ipv4, sizeof ipv4},
        {MBEDTLS_X509_SAN_IP_ADDRESS, ipv6, sizeof ipv6},
    };
    mbedtls_x509_san_list list[ARRAY_SIZE(names)] = {0};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        list[i].node.type = names[i].kind;
        list[i].node.san.unstructured_name.p = (unsigned char *)names[i].at;
        list[i].node.san.unstructured_name.len = names[i].size;
        list[i].next = i + 1 < ARRAY_SIZE(names) ? &list[i + 1] : NULL;
    }
    /* localhost is in it already */
    mbedtls_x509_san_list *first = str_equal_nocase(str_from(own), STR("localhost")) ? &list[2] : &list[0];
    must(mbedtls_x509write_crt_set_subject_alternative_name(certificate, first));
}

static void set_usage(mbedtls_x509write_cert *certificate)
{
    char server[] = MBEDTLS_OID_SERVER_AUTH;
    mbedtls_asn1_sequence usages = {
        .buf = {.tag = MBEDTLS_ASN1_OID, .len = sizeof server - 1, .p = (unsigned char *)server},
    };
    must(mbedtls_x509write_crt_set_basic_constraints(certificate, 0, -1));
    must(mbedtls_x509write_crt_set_key_usage(certificate, MBEDTLS_X509_KU_DIGITAL_SIGNATURE));
    must(mbedtls_x509write_crt_set_ext_key_usage(certificate, &usages));
    must(mbedtls_x509write_crt_set_subject_key_identifier(certificate));
    must(mbedtls_x509write_crt_set_authority_key_identifier(certificate));
}

int tls_make_certificate(const char *name, struct buf *chain, struct buf *key)
{
    if (!is_host_name(name))
        return -EINVAL;
    tls_start_library();
    mbedtls_pk_context pair;
    mbedtls_x509write_cert certificate;
    mbedtls_pk_init(&pair);
    mbedtls_x509write_crt_init(&certificate);
    make_key(&pair);
    mbedtls_x509write_crt_set_version(&certificate, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&certificate, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&certificate, &pair);
    mbedtls_x509write_crt_set_issuer_key(&certificate, &pair);
    must(mbedtls_x509write_crt_set_subject_name(&certificate, "CN=Wakegate development"));
    must(mbedtls_x509write_crt_set_issuer_name(&certificate, "CN=Wakegate development"));
    set_serial(&certificate);
    set_validity(&certificate);
    set_names(&certificate, name);
    set_usage(&certificate);
    unsigned char pem[PEM_SIZE];
    must(mbedtls_x509write_crt_pem(&certificate, pem, sizeof pem, tls_random, NULL));
    buf_add_text(chain, (const char *)pem);
    must(mbedtls_pk_write_key_pem(&pair, pem, sizeof pem));
    buf_add_text(key, (const char *)pem);
    crypto_wipe(pem, sizeof pem);
    mbedtls_x509write_crt_free(&certificate);
    mbedtls_pk_free(&pair);
    return 0;
}
