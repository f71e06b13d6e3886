#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * TLS 1.3 and 1.2 for a server, by mbedTLS, without I/O: ciphertext goes in and comes out through buffers. AEAD suites
 * with forward secrecy only; session tickets; ALPN "http/1.1" (a client that offers others only is refused); the
 * certificate by SNI: the host's name among its dNSNames, or the one label that a "*" stands for. It is the only module
 * that knows mbedTLS's ssl and x509 parts: another library could stand behind this header.
 */

/* Certificates, keys and ticket keys. Immutable once made, shared by all threads, counted. */
struct tls_context;

/* PEM texts: a chain (leaf first) and its private key. */
struct tls_certificate {
    struct str chain;
    struct str key;
    const char *chain_name; /* for errors: the file */
    const char *key_name;
};

/*
 * The first certificate is the one for clients that name no host, or one that none of them has. `old`, unless NULL,
 * gives the ticket keys, so that a reload does not cost everyone a full handshake. An RSA and an EC certificate may have
 * the same names: the client's abilities decide. 0, or -EINVAL with one line in `error` that names the file and says what
 * is wrong with it (not PEM, a key that is encrypted or does not belong to the certificate …) and quotes no secret.
 * Validity in time is not looked at: an expired certificate is better than no server.
 */
int tls_context_new(const struct tls_certificate *certificates, size_t count, struct tls_context *old,
                    struct tls_context **context, char *error, size_t error_size) MUST_USE;
struct tls_context *tls_context_ref(struct tls_context *context);
void tls_context_unref(struct tls_context *context);
/* When the first of its certificates expires (or did), in unix seconds. */
int64_t tls_context_expires(const struct tls_context *context);

/* Whether it is PEM of certificates and of nothing else, at least one. 0, or -EINVAL with one line in `error` that says what is
 * wrong and begins with `name`. */
int tls_check_authorities(struct str pem, const char *name, char *error, size_t error_size) MUST_USE;

/* A self-signed certificate for `name`, "*.name", localhost, *.localhost, 127.0.0.1 and ::1, valid for a year, and its
 * P-256 key, as PEM. For development. 0, or -EINVAL for what is no host name. */
int tls_make_certificate(const char *name, struct buf *chain, struct buf *key) MUST_USE;

/* One session. Not shared; but each call may come from another thread than the last, with nothing at the same time. */
struct tls;
struct tls *tls_new(struct tls_context *context);
void tls_free(struct tls *session);

/* Ciphertext from the peer: copied, kept until tls_handshake or tls_read consumes it. */
void tls_feed(struct tls *session, const char *bytes, size_t size);
/* Bytes fed that were not consumed yet. */
size_t tls_pending(const struct tls *session);
/* What is to be sent to the peer: the caller takes it out (and sets its size to 0). */
struct buf *tls_output(struct tls *session);

/* Goes on with the handshake as far as the bytes fed allow. 1: done; 0: needs more from the peer; -EPROTO: failed, and
 * tls_output may hold an alert to send; tls_error_text says why. Costs 1.5 to 3 ms of CPU with an EC key and 4 with an RSA key; 1.2 to 2.5 when TLS 1.3 resumes,
 * which exchanges new keys all the same; less than 0.1 when TLS 1.2 does. */
int tls_handshake(struct tls *session) MUST_USE;

/* Decrypts up to `size` (> 0) bytes; after the handshake. > 0: so many, and there may be more, which tls_pending does not
 * count; 0: needs more from the peer; -ECONNRESET: the peer has said goodbye (close_notify), but may still listen;
 * -EPROTO: broken, tls_output may hold an alert. Never renegotiates, and knows no TLS 1.3 KeyUpdate: who sends one is cut
 * off. May add to tls_output. */
ssize_t tls_read(struct tls *session, char *out, size_t size) MUST_USE;
/* Encrypts all of it into tls_output; after the handshake. 0, or -EPROTO: broken, or goodbye is said. */
int tls_write(struct tls *session, const char *bytes, size_t size) MUST_USE;
/* Adds close_notify to the output, once; nothing when the session is not secure or broken. */
void tls_say_goodbye(struct tls *session);

/* For the log: why it failed, in mbedTLS's words; "TLSv1.3" or "TLSv1.2"; whether a ticket was used. */
const char *tls_error_text(const struct tls *session);
const char *tls_version(const struct tls *session);
bool tls_resumed(const struct tls *session);

#endif
