#ifndef CORE_DOMAIN_IDENTITY_PASSWORD_H
#define CORE_DOMAIN_IDENTITY_PASSWORD_H

#include "core/base/crypto.h"
#include "core/base/str.h"

#include <stdbool.h>

/* Password hashing off the loop (core/base/crypto.h says how), so many at once per process as PASSWORD_HASHES allows; a
 * bounded number wait, others are refused. */

enum { PASSWORD_LEAST = 12, PASSWORD_MOST = 1024 };

/* Waits. 0; -EBUSY: too many wait already (answer 429 with Retry-After); -ECANCELED. */
int password_hash(char out[CRYPTO_PASSWORD_SIZE], struct str password) MUST_USE;
/* `hash` absent: nobody has it; takes the same time, and it never fits. Errors as above. */
int password_check(struct str hash, struct str password, bool *fits) MUST_USE;

#endif
