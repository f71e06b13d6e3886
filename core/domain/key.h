#ifndef CORE_DOMAIN_KEY_H
#define CORE_DOMAIN_KEY_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"
#include "core/store/pg.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Accounts and API keys. A key is a prefix, 43 characters of [0-9A-Za-z] (256 random bits) and a checksum of 6, so
 * that a mistyped or made-up key is refused without a look-up. Only its keyed hash is stored.
 */

enum { KEY_TEXT_MAX = 80, KEY_VERDICT_MS = 900 };

struct principal {
    int64_t account_id;
    int64_t key_id;
};

/*
 * Whose key is it? Waits, at most once per key, loop and KEY_VERDICT_MS: a revoked key is refused everywhere
 * within a second. 0; -EACCES: no such key, or revoked, expired or of another surface; -ENOTCONN and the other
 * errors of pg_read.
 */
int key_verify(struct str text, const char *surface, struct principal *principal) MUST_USE;

/* Frees the loop's verdicts. */
void key_close_loop(struct loop *loop);

struct key_row {
    int64_t id;
    struct str account;
    struct str surface;
    struct str name;
    struct str shown;
    struct str created_at;
    struct str revoked_at; /* absent while it holds */
};

/* Makes a key, and the account if there is none of that name. `text` is shown once and stored nowhere. Waits.
 * -EINVAL: no such surface. */
int key_create(const char *account, const char *surface, const char *name, char text[KEY_TEXT_MAX],
               int64_t *id) MUST_USE;
/* Waits. -ENOENT when there is no such key that holds. */
int key_revoke(int64_t id) MUST_USE;
/* All keys, newest first. Waits; rows live in the arena. */
int key_list(struct arena *arena, struct key_row **rows, size_t *count) MUST_USE;

#endif
