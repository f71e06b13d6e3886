#ifndef CORE_BASE_CRYPTO_H
#define CORE_BASE_CRYPTO_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>

/* The one place that knows libsodium. */

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

/* A subkey of the operator's secret for one purpose, so that one leaked use gives nothing to another. */
void crypto_derive(unsigned char out[CRYPTO_KEY_SIZE], struct str secret, const char *purpose);

/* In constant time; false when the sizes differ. */
bool crypto_equal(struct str a, struct str b);

/* Overwrites a secret in a way that the compiler keeps. */
void crypto_wipe(void *memory, size_t size);

#endif
