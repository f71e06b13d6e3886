#ifndef WAKEGATE_TEST_UNIT_SUPPORT_TLS_PEER_H
#define WAKEGATE_TEST_UNIT_SUPPORT_TLS_PEER_H

#include "proto/tls.h"

#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

/*
 * The other end for proto/tls.h: mbedTLS's client over two buffers, and certificates made to order. What can't fail but
 * by a mistake in the test aborts.
 */

/* ---- certificates ---- */

struct tls_order {
    mbedtls_ecp_group_id curve; /* 0: RSA */
    unsigned rsa_bits;          /* 0: 2048, one key for all */
    const char *names[3];       /* dNSNames */
    const char *until;          /* "20300101000000"; NULL: far off */
    unsigned key_usage;         /* 0: none said */
    const char *extended_usage; /* an OID's bytes; NULL: none said */
};

/* PEM, and NUL behind it. */
struct tls_made {
    struct buf chain;
    struct buf key;
};

void tls_made_order(struct tls_made *made, const struct tls_order *order);
/* By tls_make_certificate. */
void tls_made_for(struct tls_made *made, const char *name);
void tls_made_clear(struct tls_made *made);

/* A context for `count` certificates that are as they should be. */
struct tls_context *tls_context_of(const struct tls_made *made, size_t count, struct tls_context *old);

/* ---- the client ---- */

/* Zeroes: what mbedTLS would do, and every certificate is believed. */
struct tls_wish {
    mbedtls_ssl_protocol_version version; /* this one alone */
    const int *suites;
    const uint16_t *groups;
    const uint16_t *signatures;
    const char **protocols;
    const char *host;                   /* for SNI, and for the certificate if there is a root */
    const char *root;                   /* PEM that is trusted */
    const mbedtls_ssl_session *session; /* to be resumed */
    bool renegotiates;
};

struct tls_peer {
    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt root;
    struct buf in;
    size_t in_taken;
    struct buf out;
    int result; /* of mbedTLS's last call that was not WANT_READ */
    bool has_ticket;
    mbedtls_ssl_session ticket; /* the last */
};

void tls_peer_open(struct tls_peer *peer, const struct tls_wish *wish);
void tls_peer_close(struct tls_peer *peer);

/* Carries what each has for the other, to the server in pieces of `step` bytes, until neither has anything. The server's
 * handshake goes on with each piece; gives what tls_handshake gave last. */
int tls_peer_shake(struct tls_peer *peer, struct tls *session, size_t step);
/* What the server put out, to the client. */
void tls_peer_take(struct tls_peer *peer, struct tls *session);
/* What the client put out, to the server. */
void tls_peer_give(struct tls_peer *peer, struct tls *session);

void tls_peer_write(struct tls_peer *peer, const void *bytes, size_t size);
/* Adds all that can be read to `got`; tickets are kept. */
void tls_peer_read(struct tls_peer *peer, struct buf *got);
/* The alert that peer->result tells of; -1 when it was none. */
int tls_peer_alert(const struct tls_peer *peer);
/* The certificate the server sent. */
const mbedtls_x509_crt *tls_peer_certificate(const struct tls_peer *peer);

/* Handshake of a client that has this wish with `context`; gives the server's end and aborts if it fails. */
struct tls *tls_meet(struct tls_peer *peer, const struct tls_wish *wish, struct tls_context *context);

#endif
