#ifndef CORE_DOMAIN_IDENTITY_VERDICT_H
#define CORE_DOMAIN_IDENTITY_VERDICT_H

#include "core/base/crypto.h"
#include "core/domain/identity/principal.h"
#include "core/run/loop.h"

#include <stdbool.h>

/*
 * What a loop has learned of keys, log-ins and tokens, each kind in a loop slot of its own: by a keyed hash of what the client
 * presents, whose it is or that it is nobody's. It is believed for KEY_VERDICT_MS from the moment at which it was asked for, so what
 * was revoked counts nowhere a second later.
 */

enum { KEY_VERDICT_MS = 900 };

/* Asks a store. 0: `principal` is filled in; -EACCES: nobody's; other errors are not remembered. Waits. */
typedef int verdict_look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *arg,
                            struct principal *principal);

/* 0, -EACCES or an error of the look-up. Waits when it is not known: those who ask for the same meanwhile wait for one look-up. */
int verdict_find(enum loop_slot slot, const unsigned char hash[CRYPTO_DIGEST_SIZE], verdict_look_up *look_up,
                 const void *arg, struct principal *principal) MUST_USE;
bool verdict_is_known(enum loop_slot slot, const unsigned char hash[CRYPTO_DIGEST_SIZE]);
/* Frees the loop's verdicts, once no fiber asks any more. */
void verdict_close_loop(struct loop *loop, enum loop_slot slot);

#endif
