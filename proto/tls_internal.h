#ifndef PROTO_TLS_INTERNAL_H
#define PROTO_TLS_INTERNAL_H

#include "proto/tls.h"

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>

/* What proto/tls*.c share; nobody else includes it. */

/* mbedTLS's own locks are what makes it right that sessions of many threads use one key, one ticket context and PSA's
 * key store. With them, everything else that sessions share is only read. */
#if !defined(MBEDTLS_THREADING_C) || !defined(MBEDTLS_THREADING_PTHREAD)
#error "mbedTLS must be built with MBEDTLS_THREADING_PTHREAD"
#endif

/* mbedTLS's source of random bytes: the kernel's, by core/base/crypto.h, which has no lock that threads meet at. */
int tls_random(void *unused, unsigned char *out, size_t size);

/* PSA (TLS 1.3's key exchange) must be started before its first use; does nothing when repeated, from any thread. */
void tls_start_library(void);

/* A certificate's chain, leaf first, and its key. Does not move in memory once read. */
struct tls_identity {
    mbedtls_x509_crt chain;
    mbedtls_pk_context key;
};

/* Reads and checks; `identity` is zeroed memory. After an error, too, tls_identity_clear. */
int tls_identity_read(struct tls_identity *identity, const struct tls_certificate *from, char *error,
                      size_t error_size) MUST_USE;
/* Safe on zeroed memory. */
void tls_identity_clear(struct tls_identity *identity);
/* Whether the leaf's dNSNames have the host: as it stands, or, if `by_wildcard`, as the one label for "*" (RFC 6125
 * §6.4.3). Any bytes may be in `host`. */
bool tls_identity_has_name(const struct tls_identity *identity, struct str host, bool by_wildcard);
/* When the leaf's validity ends, in unix seconds. */
int64_t tls_identity_expires(const struct tls_identity *identity);

/* Ticket keys: shared by a context and those that replace it, counted. */
struct tls_tickets;
struct tls_tickets *tls_tickets_new(void);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *tickets);
void tls_tickets_unref(struct tls_tickets *tickets);
/* It has a lock of its own. */
mbedtls_ssl_ticket_context *tls_tickets_library(struct tls_tickets *tickets);

const mbedtls_ssl_config *tls_context_config(const struct tls_context *context);

#endif
