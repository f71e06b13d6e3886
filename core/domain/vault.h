#ifndef CORE_DOMAIN_VAULT_H
#define CORE_DOMAIN_VAULT_H

#include "core/base/arena.h"
#include "core/base/crypto.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Secrets at rest. Data keys lie in table vault_key, wrapped (AES-256-GCM) under a key that is derived from ENCRYPTION_KEY; a
 * value is sealed (AES-256-GCM) under the newest 'seal' key, names that key, and is bound to the row it stands in:
 *
 *     version (1) ‖ key id (4, big endian) ‖ nonce (12) ‖ ciphertext ‖ tag (16)       bound to "table.column:row"
 *
 * The keys are one set for the process, read once at the start and again when a value names one that is not known. So
 * ENCRYPTION_KEY can be changed while servers run: vault_rotate wraps all data keys under the new one too, makes a new seal
 * key and seals every value anew; then servers are started again one after the other with the new ENCRYPTION_KEY, and
 * vault_forget removes what was wrapped under others.
 */

/* Reads the keys, and makes them in an empty database. Once per process, when PostgreSQL is there, before requests or jobs.
 * Waits. -EACCES: ENCRYPTION_KEY is not one that the database's keys are wrapped under; `error` gets a line. */
int vault_open(char *error, size_t error_size) MUST_USE;
void vault_close(void); /* wipes them; once, when no other thread is left */

/* Keys the hashes of what clients present: core/domain/secret.c. */
const unsigned char *vault_hash_key(void);

enum { VAULT_EXTRA = 1 + 4 + CRYPTO_SEAL_EXTRA };
/* Seals; the bytes are the arena's. `place` is "table.column", `row` what names the row and never changes. */
struct str vault_seal(struct arena *arena, struct str plain, const char *place, struct str row);
/* Opens; a NUL follows the bytes. May wait (an unknown key is looked up). -EBADMSG: it is not what stood in this row, or its key is gone; the errors
 * of pg_read. */
int vault_unseal(struct arena *arena, struct str sealed, const char *place, struct str row, struct str *plain)
    MUST_USE;

struct vault_rotation {
    int64_t values; /* that were sealed anew */
    int64_t keys;   /* that were wrapped under the new secret, the new seal key among them */
};
/*
 * What is sealed is told by a table in vault_rotate.c. Waits, for as long as it takes; may be repeated after it was
 * interrupted, and then goes on. -EINVAL: the new secret is too short or the old. -EBUSY: keys are wrapped under a third
 * one; that change comes to its end by vault_forget first.
 */
int vault_rotate(struct str new_encryption_key, struct vault_rotation *done) MUST_USE;
/* Seals anew what servers have sealed by older keys since, then removes wraps under any other than this process's
 * ENCRYPTION_KEY, and, once the newest seal key is a day old, the others if they seal nothing any more. Waits. */
int vault_forget(int64_t *removed) MUST_USE;

#endif
