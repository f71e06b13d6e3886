/* Webhook endpoints: see webhook.h. Their secrets are in webhook_secret.c. */
#include "core/domain/event/webhook_internal.h"

#include "core/base/config.h"
#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/vault.h"
#include "core/store/queue.h"

#include <errno.h>

const char *const webhook_surfaces[] = {"session", "inference", "provision", "gpu", NULL};

#define OF_ACCOUNT(account, ref)                                                                             \
    "w.ref = " ref "::text AND (" account "::bigint = 0 OR w.account_id = " account                          \
    "::bigint) AND w.deleted_at IS NULL"

static const struct pg_statement sql_create = {
    "webhook_create",
    "WITH w AS (INSERT INTO webhook_endpoint (account_id, ref, surface, url, description, events, surfaces, ordered, "
    "secret, enabled, disabled_reason, disabled_at) "
    "SELECT id, $2::text, $3::text, $4::text, coalesce($5::text, ''), $6::text[], nullif($7::text[], '{}'), "
    "coalesce($8::boolean, false), $9::bytea, coalesce($10::boolean, true), "
    "CASE WHEN NOT $10::boolean THEN 'owner' END, CASE WHEN NOT $10::boolean THEN now() END FROM account WHERE id = $1::bigint "
    "AND webhook_has_room(id, $11::bigint) RETURNING *)" AUDIT(
        "$12", "webhook.create", "w", "w.account_id",
        "w.ref") "SELECT " WEBHOOK_COLUMNS " FROM w JOIN account a ON a.id = w.account_id"};
static const struct pg_statement sql_get = {
    "webhook_get",
    "SELECT " WEBHOOK_COLUMNS
    " FROM webhook_endpoint w JOIN account a ON a.id = w.account_id WHERE " OF_ACCOUNT("$1", "$2")};
#define LISTED                                                                                               \
    "w.deleted_at IS NULL AND (NOT $4::boolean OR NOT w.enabled) "                                           \
    "AND ($2::bigint = 0 OR w.id < $2::bigint) ORDER BY w.id DESC LIMIT $3::bigint"
/* Two, for a plan that is good for all of one account's and for everybody's there is not. */
static const struct pg_statement sql_list = {"webhook_list",
                                             "SELECT " WEBHOOK_COLUMNS
                                             " FROM webhook_endpoint w JOIN account a ON a.id = w.account_id "
                                             "WHERE w.account_id = $1::bigint AND " LISTED};
static const struct pg_statement sql_list_all = {
    "webhook_list_all",
    "SELECT " WEBHOOK_COLUMNS " FROM webhook_endpoint w JOIN account a ON a.id = w.account_id "
    "WHERE $1::bigint = 0 AND " LISTED};
/* Who enables it lets it begin anew; whose will it was that it is disabled, $9 says. */
static const struct pg_statement sql_update = {
    "webhook_update",
    "WITH u AS (UPDATE webhook_endpoint w SET url = coalesce($3::text, url), "
    "description = coalesce($4::text, description), events = coalesce($5::text[], events), "
    "surfaces = CASE WHEN $6::text[] IS NULL THEN surfaces ELSE nullif($6::text[], '{}') END, "
    "ordered = coalesce($7::boolean, ordered), enabled = coalesce($8::boolean, enabled), "
    "disabled_reason = CASE WHEN $8::boolean THEN NULL "
    "WHEN NOT $8::boolean AND (enabled OR $9::text = 'operator') THEN $9::text ELSE disabled_reason END, "
    "disabled_at = CASE WHEN $8::boolean THEN NULL WHEN NOT $8::boolean AND enabled THEN now() ELSE disabled_at END, "
    "failures = CASE WHEN $8::boolean THEN 0 ELSE failures END, "
    "pauses = CASE WHEN $8::boolean THEN 0 ELSE pauses END, "
    "failing_since = CASE WHEN $8::boolean THEN NULL ELSE failing_since END, "
    "paused_until = CASE WHEN $8::boolean THEN NULL ELSE paused_until END, "
    "updated_at = now(), version = version + 1 "
    "WHERE " OF_ACCOUNT(
        "$1", "$2") " AND NOT ($8::boolean IS TRUE AND $1::bigint <> 0 "
                    "AND disabled_reason IS NOT DISTINCT FROM 'operator') RETURNING *)" AUDIT(
                        "$10", "webhook.update", "u", "u.account_id",
                        "u.ref") "SELECT " WEBHOOK_COLUMNS
                                 ", webhook_job(w.id, now()) FROM u w JOIN account a ON a.id = w.account_id"};
static const struct pg_statement sql_delete = {
    "webhook_delete",
    "WITH u AS (UPDATE webhook_endpoint w SET deleted_at = now(), updated_at = now(), version = version + 1 "
    "WHERE " OF_ACCOUNT("$1", "$2") " RETURNING *)" AUDIT("$3", "webhook.delete", "u", "u.account_id",
                                                          "u.ref") "SELECT 1 FROM u"};

/* ---- rows ---- */

void webhook_from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct webhook *webhook)
{
    *webhook = (struct webhook){
        .id = pg_i64(rows, row, 0),
        .ref = pg_text(arena, rows, row, 1),
        .account_id = pg_i64(rows, row, 2),
        .account = pg_text(arena, rows, row, 3),
        .url = pg_text(arena, rows, row, 4),
        .description = pg_text(arena, rows, row, 5),
        .events = pg_text(arena, rows, row, 6),
        .surfaces = pg_text(arena, rows, row, 7),
        .ordered = pg_bool(rows, row, 8),
        .enabled = pg_bool(rows, row, 9),
        .disabled_reason = pg_text(arena, rows, row, 10),
        .disabled_ms = pg_i64(rows, row, 11),
        .failing_since_ms = pg_i64(rows, row, 12),
        .paused_until_ms = pg_i64(rows, row, 13),
        .old_secret_until_ms = pg_i64(rows, row, 14),
        .created_ms = pg_i64(rows, row, 15),
        .updated_ms = pg_i64(rows, row, 16),
    };
}

void webhook_ring_job(const struct pg_rows *rows, size_t row, int column, int64_t account_id)
{
    char digits[24];
    if (pg_is_null(rows, row, column))
        return;
    queue_ring_committed(
        &(struct queue_bell){.kind = JOB_WEBHOOK,
                             .tenant = str_of(digits, format_u64(digits, (uint64_t)account_id)),
                             .job_id = pg_i64(rows, row, column)});
}

/* The one row; frees the rows. -ENOENT: there is none. */
static int take_one(struct arena *arena, struct pg_rows *rows, struct webhook *webhook)
{
    bool found = pg_count(rows) == 1;
    if (found)
        webhook_from_row(arena, rows, 0, webhook);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

/* ---- reading ---- */

int webhook_get(struct arena *arena, int64_t account_id, struct str ref, struct webhook *row)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_INT(account_id), PG_TEXT(ref)), &rows);
    return result ? result : take_one(arena, rows, row);
}

int webhook_list(struct arena *arena, int64_t account_id, bool disabled_only, int64_t cursor, int64_t limit,
                 struct webhook **out, size_t *count)
{
    struct pg_rows *rows;
    int result =
        pg_read(account_id ? &sql_list : &sql_list_all,
                PG_VALUES(PG_INT(account_id), PG_INT(cursor), PG_INT(limit), PG_BOOL(disabled_only)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        webhook_from_row(arena, rows, i, &(*out)[i]);
    pg_rows_free(rows);
    return 0;
}

/* ---- changes ---- */

static struct pg_value switch_value(const bool *value)
{
    return value ? PG_BOOL(*value) : PG_NULL;
}

static struct pg_value list_value(const struct str *texts, size_t count)
{
    return texts ? PG_TEXTS(texts, count) : PG_NULL;
}

int webhook_create(struct arena *arena, int64_t account_id, const char *surface,
                   const struct webhook_change *change, struct str *secret, struct webhook *row)
{
    char ref[WEBHOOK_REF_SIZE] = "we_";
    struct pg_rows *rows;
    id_random_base62(ref + 3, WEBHOOK_REF_SIZE - 4);
    if (!secret->at)
        *secret = webhook_secret_make(arena);
    int result =
        pg_write(&sql_create,
                 PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(ref)), PG_TEXT(str_from(surface)),
                           PG_TEXT(change->url), PG_TEXT(change->description),
                           list_value(change->events, change->event_count),
                           list_value(change->surfaces, change->surface_count), switch_value(change->ordered),
                           PG_BYTES(vault_seal(arena, *secret, WEBHOOK_SECRET_PLACE, str_from(ref))),
                           switch_value(change->enabled), PG_INT(config->webhook_endpoints), AUDIT_WHO),
                 &rows);
    if (result)
        return result;
    result = take_one(arena, rows, row);
    return result == -ENOENT ? -ENOSPC : result;
}

int webhook_update(struct arena *arena, int64_t account_id, struct str ref,
                   const struct webhook_change *change, struct webhook *row)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_update,
                 PG_VALUES(PG_INT(account_id), PG_TEXT(ref), PG_TEXT(change->url),
                           PG_TEXT(change->description), list_value(change->events, change->event_count),
                           list_value(change->surfaces, change->surface_count), switch_value(change->ordered),
                           switch_value(change->enabled),
                           PG_TEXT(account_id ? STR("owner") : STR("operator")), AUDIT_WHO),
                 &rows);
    if (result)
        return result;
    if (pg_count(rows) == 1)
        webhook_ring_job(rows, 0, WEBHOOK_COLUMN_COUNT, pg_i64(rows, 0, 2));
    result = take_one(arena, rows, row);
    if (result != -ENOENT)
        return result;
    /* There is one, and it was not changed: an operator has disabled it. */
    result = webhook_get(arena, account_id, ref, row);
    return result ? result : -EPERM;
}

int webhook_delete(int64_t account_id, struct str ref)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_delete, PG_VALUES(PG_INT(account_id), PG_TEXT(ref), AUDIT_WHO), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}
