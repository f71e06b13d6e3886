#ifndef CORE_DOMAIN_IDENTITY_ACCOUNT_H
#define CORE_DOMAIN_IDENTITY_ACCOUNT_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* Accounts: who has keys, sessions, log-ins. */

enum { ACCOUNT_EMAIL_MAX = 254, ACCOUNT_ORGANIZATION_MAX = 200 };

struct account {
    int64_t id;
    struct str ref; /* "user_…": what clients see */
    struct str name;
    struct str email;        /* absent: made by an operator, can't log in */
    struct str organization; /* may be absent */
    struct str plans;        /* "inference=pro gpu=starter": those that were set */
    bool is_banned;
    struct str ban_reason;
    int64_t banned_until_ms; /* 0: for good */
    int64_t created_ms;
};

/* Lower case, one '@', a host with a dot or "localhost", printable ASCII, RFC 5321's lengths. The result is the arena's. False: it is
 * no address. */
bool account_email(struct arena *arena, struct str text, struct str *email);

/* Registers: `password_hash` as password_hash gives it. Its name is the e-mail address. Waits. -EEXIST: the address is taken. */
int account_register(struct arena *arena, struct str email, struct str organization, struct str password_hash,
                     struct account *account) MUST_USE;
/* Makes one of any name, with an address and a password to log in with, or without (absent). Waits. -EEXIST: the name or the
 * address is taken. */
int account_create(struct arena *arena, struct str name, struct str email, struct str organization,
                   struct str password_hash, struct account *account) MUST_USE;
/* Gives it another address. Waits. -EEXIST: it is taken; -ENOENT. */
int account_set_email(int64_t id, struct str email) MUST_USE;
/* Waits. -ENOENT. By name, e-mail address, ref ("user_…") or number. */
int account_find(struct arena *arena, struct str who, struct account *account) MUST_USE;
int account_get(struct arena *arena, int64_t id, struct account *account) MUST_USE;
/* For a login: absent hash when it has none. -ENOENT: nobody has the address. */
int account_password(struct arena *arena, struct str email, int64_t *id, struct str *password_hash) MUST_USE;
int account_set_password(int64_t id, struct str password_hash) MUST_USE;
/* Nobody else changes the account until the scope that is open ends; -ENOENT also when this is not its password's hash any more
 * (absent: whatever it is). Waits. */
int account_hold(int64_t id, struct str password_hash) MUST_USE;
/* All accounts, newest first, below `cursor` (0: from the start). Waits. */
int account_list(struct arena *arena, int64_t cursor, int64_t limit, struct account **accounts, size_t *count)
    MUST_USE;
/* The same of those that are banned now. */
int account_list_banned(struct arena *arena, int64_t cursor, int64_t limit, struct account **accounts,
                        size_t *count) MUST_USE;
/* Bans end at `until_ms` (0: never by themselves); everything the account has is refused within a second. Its pods go on until
 * instance_sleep_all. */
int account_ban(int64_t id, struct str reason, int64_t until_ms) MUST_USE;
int account_unban(int64_t id) MUST_USE;
/* SQL: whether the account `a` is banned now. */
#define ACCOUNT_IS_BANNED(a) "(" a ".banned_at IS NOT NULL AND coalesce(" a ".banned_until > now(), true))"

#endif
