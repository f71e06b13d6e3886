/* What accounts have used: the rollup usage_day, which the statements that end calls add to (usage_add). */
#include "core/domain/money/ledger.h"
#include "core/store/pg.h"

#define BETWEEN "u.account_id = $1::bigint AND u.day BETWEEN $2::text::date AND $3::text::date"

static const struct pg_statement sql_usage = {
    "ledger_usage",
    "SELECT to_char(u.day, 'YYYY-MM-DD'), u.model, k.ref, u.key_id, u.calls, u.prompt_tokens, u.completion_tokens, "
    "money_text(u.cost) FROM usage_day u LEFT JOIN api_key k ON k.id = u.key_id WHERE " BETWEEN
    " AND ($4::text IS NULL OR (u.day, u.model, u.key_id) > ($4::text::date, $5::text, $6::bigint)) "
    "ORDER BY u.day, u.model, u.key_id LIMIT $7::bigint"};
static const struct pg_statement sql_total = {
    "ledger_usage_total",
    "SELECT coalesce(sum(u.calls), 0)::bigint, coalesce(sum(u.prompt_tokens), 0)::bigint, "
    "coalesce(sum(u.completion_tokens), 0)::bigint, money_text(coalesce(sum(u.cost), 0)) FROM usage_day u WHERE " BETWEEN};

int ledger_usage(struct arena *arena, int64_t account_id, struct str from, struct str to,
                 const struct ledger_use *after, int64_t limit, struct ledger_use **out, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(
        &sql_usage,
        PG_VALUES(PG_INT(account_id), PG_TEXT(from), PG_TEXT(to), PG_TEXT(after ? after->day : STR_NONE),
                  PG_TEXT(after ? after->model : STR_NONE), PG_INT(after ? after->key_id : 0), PG_INT(limit)),
        &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct ledger_use){
            .day = pg_text(arena, rows, i, 0),
            .model = pg_text(arena, rows, i, 1),
            .key = pg_text(arena, rows, i, 2),
            .key_id = pg_i64(rows, i, 3),
            .calls = pg_i64(rows, i, 4),
            .prompt_tokens = pg_i64(rows, i, 5),
            .completion_tokens = pg_i64(rows, i, 6),
            .cost = pg_text(arena, rows, i, 7),
        };
    pg_rows_free(rows);
    return 0;
}

int ledger_usage_total(struct arena *arena, int64_t account_id, struct str from, struct str to,
                       struct ledger_use *total)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_total, PG_VALUES(PG_INT(account_id), PG_TEXT(from), PG_TEXT(to)), &rows);
    if (result)
        return result;
    *total = (struct ledger_use){
        .calls = pg_i64(rows, 0, 0),
        .prompt_tokens = pg_i64(rows, 0, 1),
        .completion_tokens = pg_i64(rows, 0, 2),
        .cost = pg_text(arena, rows, 0, 3),
    };
    pg_rows_free(rows);
    return 0;
}
