/* What becomes of an account's instances when it is banned. */
#include "core/domain/instance/internal.h"

#include "core/domain/audit.h"
#include "core/domain/identity/account.h"
#include "core/domain/identity/verdict.h"

#include <errno.h>

static const struct pg_statement sql_banned = {
    "instance_owner_banned",
    "SELECT " ACCOUNT_IS_BANNED(
        "a") " FROM instance i JOIN account a ON a.id = i.account_id WHERE i.id = $1::text"};
static const struct pg_statement sql_awake = {
    "instance_awake_of", "SELECT id FROM instance WHERE account_id = $1::bigint AND deleted_at IS NULL "
                         "AND (desired = 1 OR state IN ('awake', 'waking')) ORDER BY seq"};

static int look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *arg, struct principal *principal)
{
    const struct str *id = arg;
    struct pg_rows *rows;
    (void)hash;
    int result = pg_read(&sql_banned, PG_VALUES(PG_TEXT(*id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    *principal = (struct principal){.is_banned = found && pg_bool(rows, 0, 0)};
    pg_rows_free(rows);
    return found ? 0 : -EACCES;
}

int instance_owner_is_banned(struct str id, bool *banned)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct principal principal;
    crypto_digest(hash, id, NULL);
    int result = verdict_find(LOOP_OWNERS, hash, look_up, &id, &principal);
    *banned = result == 0 && principal.is_banned;
    return result == -EACCES ? -ENOENT : result;
}

void instance_owner_close_loop(struct loop *loop)
{
    verdict_close_loop(loop, LOOP_OWNERS);
}

int instance_sleep_all(struct arena *arena, int64_t account_id)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_awake, PG_VALUES(PG_INT(account_id)), &rows);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows) && result == 0; i++) {
        struct instance instance;
        result = instance_sleep(arena, account_id, pg_str(rows, i, 0), &instance);
        if (result == -ENOENT)
            result = 0; /* deleted meanwhile */
    }
    pg_rows_free(rows);
    return result;
}
