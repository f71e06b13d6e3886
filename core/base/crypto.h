#ifndef CORE_BASE_CRYPTO_H
#define CORE_BASE_CRYPTO_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>

/* The one place that knows libsodium, and mbedTLS for what libsodium has not. */

enum { CRYPTO_DIGEST_SIZE = 32, CRYPTO_KEY_SIZE = 32 };

/* Once, before any thread is started. */
void crypto_init(void);

void crypto_random(void *out, size_t size);

/* BLAKE2b-256, keyed unless `key` is NULL. */
void crypto_digest(unsigned char out[CRYPTO_DIGEST_SIZE], struct str message,
                   const unsigned char key[CRYPTO_KEY_SIZE]);

/* SHA-1, for WebSocket's opening handshake alone (RFC 6455 §4.2.2). Collisions can be made, which matters nothing
 * there: the answer only shows that the server understood the question, and guards no secret. */
void crypto_sha1(unsigned char out[20], struct str message);

/* SHA-256 and HMAC-SHA-256 (RFC 2104), for formats of others: JWT, PKCE, signed requests, webhooks. */
void crypto_sha256(unsigned char out[CRYPTO_DIGEST_SIZE], struct str message);
void crypto_hmac_sha256(unsigned char out[CRYPTO_DIGEST_SIZE], struct str key, struct str message);

/* Ed25519 (RFC 8032). The key pair is made from 32 bytes of seed. About 60 microseconds each. */
enum { CRYPTO_SIGNATURE_SIZE = 64, CRYPTO_SECRET_KEY_SIZE = 64, CRYPTO_PUBLIC_KEY_SIZE = 32 };
void crypto_ed25519_key(unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE],
                        unsigned char secret_key[CRYPTO_SECRET_KEY_SIZE],
                        const unsigned char seed[CRYPTO_KEY_SIZE]);
void crypto_ed25519_sign(unsigned char out[CRYPTO_SIGNATURE_SIZE], struct str message,
                         const unsigned char secret_key[CRYPTO_SECRET_KEY_SIZE]);
bool crypto_ed25519_verify(struct str signature, struct str message,
                           const unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE]);

/* AES-256-GCM (mbedTLS; NIST SP 800-38D). `out` gets a random nonce of 12 bytes, the ciphertext and a tag of 16: the size of
 * `plain` and CRYPTO_SEAL_EXTRA. `bound` is authenticated along with it. */
enum { CRYPTO_SEAL_EXTRA = 12 + 16 };
void crypto_seal(unsigned char *out, struct str plain, struct str bound,
                 const unsigned char key[CRYPTO_KEY_SIZE]);
/* `out` has room for the size of `sealed` less CRYPTO_SEAL_EXTRA. -EBADMSG: not sealed by this key with this `bound`. */
int crypto_unseal(unsigned char *out, struct str sealed, struct str bound,
                  const unsigned char key[CRYPTO_KEY_SIZE]) MUST_USE;

/* Argon2id (RFC 9106) with 19 MiB and two passes: some 20 ms and that much memory, so never on a loop (core/domain/identity/password.h
 * is for callers). The text holds salt and cost. */
enum { CRYPTO_PASSWORD_SIZE = 128 };
int crypto_password_hash(char out[CRYPTO_PASSWORD_SIZE], struct str password) MUST_USE; /* -ENOMEM */
bool crypto_password_fits(const char *hash, struct str password);

/* A subkey of the operator's secret for one purpose, so that one leaked use gives nothing to another. */
void crypto_derive(unsigned char out[CRYPTO_KEY_SIZE], struct str secret, const char *purpose);

/* In constant time; false when the sizes differ. */
bool crypto_equal(struct str a, struct str b);

/* Overwrites a secret in a way that the compiler keeps. */
void crypto_wipe(void *memory, size_t size);

#endif
