/* The secrets that endpoints' deliveries are signed with. */
#include "core/domain/event/webhook_internal.h"

#include "core/base/base64.h"
#include "core/base/crypto.h"
#include "core/domain/audit.h"
#include "core/domain/vault.h"

#include <errno.h>

enum { SECRET_BYTES = 32 };

static const struct pg_statement sql_secret = {
    "webhook_secret", "SELECT secret, ref FROM webhook_endpoint WHERE ref = $2::text "
                      "AND ($1::bigint = 0 OR account_id = $1::bigint) AND deleted_at IS NULL"};
/* The secret that is exchanged must still be the one that was read. */
static const struct pg_statement sql_rotate = {
    "webhook_rotate",
    "WITH w AS (UPDATE webhook_endpoint SET secret = $4::bytea, old_secret = $5::bytea, "
    "old_secret_until = CASE WHEN $5::bytea IS NOT NULL THEN now() + $6::bigint * interval '1 second' END, "
    "updated_at = now(), version = version + 1 "
    "WHERE ref = $2::text AND ($1::bigint = 0 OR account_id = $1::bigint) AND deleted_at IS NULL "
    "AND secret = $3::bytea RETURNING *)" AUDIT("$7", "webhook.rotate_secret", "w", "w.account_id",
                                                "w.ref") "SELECT " WEBHOOK_COLUMNS
                                                         " FROM w JOIN account a ON a.id = w.account_id"};

struct str webhook_secret_make(struct arena *arena)
{
    unsigned char bytes[SECRET_BYTES];
    struct buf text = {0};
    crypto_random(bytes, sizeof bytes);
    buf_add_literal(&text, "whsec_");
    base64_add(&text, str_of((const char *)bytes, sizeof bytes));
    struct str secret = arena_str(arena, buf_str(&text));
    crypto_wipe(bytes, sizeof bytes);
    crypto_wipe(text.at, text.size);
    buf_clear(&text);
    return secret;
}

/* The one that signs now, as it lies there and opened. */
static int read_secret(struct arena *arena, int64_t account_id, struct str ref, struct str *sealed,
                       struct str *secret)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_secret, PG_VALUES(PG_INT(account_id), PG_TEXT(ref)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    *sealed = found ? pg_bytes(arena, rows, 0, 0) : STR_NONE;
    pg_rows_free(rows);
    return found ? vault_unseal(arena, *sealed, WEBHOOK_SECRET_PLACE, ref, secret) : -ENOENT;
}

int webhook_rotate(struct arena *arena, int64_t account_id, struct str ref, int64_t overlap_s,
                   struct str *secret, struct webhook *row)
{
    struct str sealed;
    struct str old;
    struct pg_rows *rows;
    int result = read_secret(arena, account_id, ref, &sealed, &old);
    if (result)
        return result;
    if (!secret->at)
        *secret = webhook_secret_make(arena);
    struct str kept = overlap_s ? vault_seal(arena, old, WEBHOOK_OLD_SECRET_PLACE, ref) : STR_NONE;
    result = pg_write(&sql_rotate,
                      PG_VALUES(PG_INT(account_id), PG_TEXT(ref), PG_BYTES(sealed),
                                PG_BYTES(vault_seal(arena, *secret, WEBHOOK_SECRET_PLACE, ref)),
                                kept.at ? PG_BYTES(kept) : PG_NULL, PG_INT(overlap_s), AUDIT_WHO),
                      &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        webhook_from_row(arena, rows, 0, row);
    pg_rows_free(rows);
    return found ? 0 : -EAGAIN;
}
