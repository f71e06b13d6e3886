/* The record of changes: see audit.h. */
#include "core/domain/audit.h"

#include "core/base/config.h"
#include "core/run/fiber.h"

#include <errno.h>

enum { FORGET_AT_ONCE = 5000 };

static const struct pg_statement sql_add = {
    "audit_add", "INSERT INTO audit (actor, address, request_id, account_id, action, object) "
                 "VALUES (($1::text[])[1], nullif(($1::text[])[2], ''), nullif(($1::text[])[3], ''), "
                 "nullif($2::bigint, 0), $3::text, $4::text)"};
static const struct pg_statement sql_list = {
    "audit_list",
    "SELECT u.id, (extract(epoch FROM u.at) * 1000)::bigint, u.actor, u.account_id, a.name, u.action, u.object, "
    "u.address, u.request_id FROM audit u LEFT JOIN account a ON a.id = u.account_id "
    "WHERE ($1::bigint = 0 OR u.account_id = $1::bigint) AND ($2::text IS NULL OR u.action = $2::text) "
    "AND ($3::text IS NULL OR starts_with(u.action, $3::text)) AND ($4::text IS NULL OR u.object = $4::text) "
    "AND ($5::text IS NULL OR u.actor = $5::text) AND u.at >= to_timestamp($6::bigint / 1000.0) "
    "AND ($7::bigint = 0 OR u.id < $7::bigint) ORDER BY u.id DESC LIMIT $8::bigint"};
static const struct pg_statement sql_forget = {
    "audit_forget", "DELETE FROM audit WHERE id IN (SELECT id FROM audit "
                    "WHERE at < now() - $1::bigint * interval '1 day' ORDER BY at LIMIT $2::bigint)"};

const struct audit_who *audit_self(void)
{
    static const struct audit_who worker = {
        .fields = {{"worker", sizeof "worker" - 1}, {"", 0}, {"", 0}},
    };
    const struct audit_who *own = fiber_slot_get(FIBER_AUDIT);
    return own ? own : &worker;
}

void audit_set(const struct audit_who *who)
{
    fiber_slot_set(FIBER_AUDIT, (void *)(uintptr_t)who);
}

int audit_add(const char *action, int64_t account_id, struct str object)
{
    return pg_write(
        &sql_add, PG_VALUES(AUDIT_WHO, PG_INT(account_id), PG_TEXT(str_from(action)), PG_TEXT(object)), NULL);
}

int audit_list(struct arena *arena, const struct audit_filter *filter, struct audit_row **out, size_t *count)
{
    struct str action = filter->action;
    struct str prefix = STR_NONE;
    if (action.size >= 2 && memcmp(action.at + action.size - 2, ".*", 2) == 0) {
        prefix = str_of(action.at, action.size - 1);
        action = STR_NONE;
    }
    struct pg_rows *rows;
    int result = pg_read(&sql_list,
                         PG_VALUES(PG_INT(filter->account_id), PG_TEXT(action), PG_TEXT(prefix),
                                   PG_TEXT(filter->object), PG_TEXT(filter->actor), PG_INT(filter->since_ms),
                                   PG_INT(filter->cursor), PG_INT(filter->limit)),
                         &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct audit_row){
            .id = pg_i64(rows, i, 0),
            .at_ms = pg_i64(rows, i, 1),
            .actor = pg_text(arena, rows, i, 2),
            .account_id = pg_i64(rows, i, 3),
            .account = pg_text(arena, rows, i, 4),
            .action = pg_text(arena, rows, i, 5),
            .object = pg_text(arena, rows, i, 6),
            .address = pg_text(arena, rows, i, 7),
            .request_id = pg_text(arena, rows, i, 8),
        };
    pg_rows_free(rows);
    return 0;
}

int audit_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(config->audit_days), PG_INT(FORGET_AT_ONCE)),
                     FORGET_AT_ONCE);
}
