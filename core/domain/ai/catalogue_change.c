/* Rows of providers and models, as operators change them: see catalogue_change.h. */
#include "core/domain/ai/catalogue_change.h"

#include "core/domain/ai/catalogue_internal.h"
#include "core/domain/audit.h"
#include "core/domain/vault.h"

#include <errno.h>

/* One value each: what was given, or what the row has, or what a new row has by itself. */
static const struct pg_statement sql_save_provider = {
    "provider_save",
    "WITH i AS (INSERT INTO provider AS p (name, kind, base_url, api_key, max_in_flight, queue_calls, queue_bytes, "
    "queue_wait_ms, connect_ms, header_ms, idle_ms, total_ms, delay_ms, chunk_ms, fail_status, stall_after, "
    "answer_tokens, native_completions, enabled, ca) VALUES ($1::text, coalesce($2::text, $21::text), $3::text, $4::bytea, "
    "coalesce($5::bigint, 1024), coalesce($6::bigint, 10000), coalesce($7::bigint, 268435456), "
    "coalesce($8::bigint, 30000), coalesce($9::bigint, 5000), coalesce($10::bigint, 120000), "
    "coalesce($11::bigint, 60000), coalesce($12::bigint, 600000), coalesce($13::bigint, 0), coalesce($14::bigint, 0), "
    "coalesce($15::bigint, 0), coalesce($16::bigint, -1), coalesce($17::bigint, 0), coalesce($18::bigint, 0) = 1, "
    "coalesce($19::bigint, 1) = 1, nullif($22::text, '')) "
    "ON CONFLICT (name) DO UPDATE SET kind = coalesce($2::text, p.kind), base_url = coalesce($3::text, p.base_url), "
    "api_key = coalesce($4::bytea, p.api_key), max_in_flight = coalesce($5::bigint, p.max_in_flight), "
    "queue_calls = coalesce($6::bigint, p.queue_calls), queue_bytes = coalesce($7::bigint, p.queue_bytes), "
    "queue_wait_ms = coalesce($8::bigint, p.queue_wait_ms), connect_ms = coalesce($9::bigint, p.connect_ms), "
    "header_ms = coalesce($10::bigint, p.header_ms), idle_ms = coalesce($11::bigint, p.idle_ms), "
    "total_ms = coalesce($12::bigint, p.total_ms), delay_ms = coalesce($13::bigint, p.delay_ms), "
    "chunk_ms = coalesce($14::bigint, p.chunk_ms), fail_status = coalesce($15::bigint, p.fail_status), "
    "stall_after = coalesce($16::bigint, p.stall_after), answer_tokens = coalesce($17::bigint, p.answer_tokens), "
    "native_completions = coalesce($18::bigint = 1, p.native_completions), "
    "enabled = coalesce($19::bigint = 1, p.enabled), "
    "ca = CASE WHEN $22::text IS NULL THEN p.ca ELSE nullif($22::text, '') END RETURNING name)" AUDIT(
        "$20", "provider.set", "i", "NULL", "i.name") "SELECT FROM i"};
static const struct pg_statement sql_delete_provider = {
    "provider_delete", "WITH i AS (DELETE FROM provider WHERE name = $1::text RETURNING name)" AUDIT(
                           "$2", "provider.delete", "i", "NULL", "i.name") "SELECT FROM i"};
/* Routes are replaced as a whole. */
static const struct pg_statement sql_save_model = {
    "model_save",
    "WITH i AS (INSERT INTO model AS m (id, owned_by, price_in, price_out, price_cached, max_output, default_output, context, "
    "cache_seconds, cache_percent, enabled) VALUES ($1::text, coalesce($2::text, $13::text), $3::numeric / 1000000, "
    "$4::numeric / 1000000, $5::numeric / 1000000, $6::bigint, $7::bigint, $8::bigint, coalesce($9::bigint, 0), "
    "coalesce($10::bigint, 100), coalesce($11::bigint, 1) = 1) "
    "ON CONFLICT (id) DO UPDATE SET owned_by = coalesce($2::text, m.owned_by), "
    "price_in = coalesce($3::numeric / 1000000, m.price_in), price_out = coalesce($4::numeric / 1000000, m.price_out), "
    "price_cached = coalesce($5::numeric / 1000000, m.price_cached), max_output = coalesce($6::bigint, m.max_output), "
    "default_output = coalesce($7::bigint, m.default_output), context = coalesce($8::bigint, m.context), "
    "cache_seconds = coalesce($9::bigint, m.cache_seconds), cache_percent = coalesce($10::bigint, m.cache_percent), "
    "enabled = coalesce($11::bigint = 1, m.enabled) RETURNING id)" AUDIT("$12", "model.set", "i", "NULL",
                                                                         "i.id") "SELECT FROM i"};
static const struct pg_statement sql_drop_routes = {"model_drop_routes",
                                                    "DELETE FROM model_route WHERE model_id = $1::text"};
static const struct pg_statement sql_add_routes = {
    "model_add_routes",
    "INSERT INTO model_route (model_id, position, provider, upstream_model) "
    "SELECT $1::text, position, provider, upstream FROM unnest($2::text[], $3::text[]) WITH ORDINALITY "
    "AS route (provider, upstream, position)"};
static const struct pg_statement sql_delete_model = {
    "model_delete", "WITH i AS (DELETE FROM model WHERE id = $1::text RETURNING id)" AUDIT(
                        "$2", "model.delete", "i", "NULL", "i.id") "SELECT FROM i"};

static struct pg_value number(int64_t value)
{
    return value == CATALOGUE_KEEP ? PG_NULL : PG_INT(value);
}

/* Checks of the table are the only reason why such a statement fails. */
static int as_range(int result)
{
    return result == -EIO ? -ERANGE : result;
}

int provider_save(struct arena *arena, const struct provider_change *change)
{
    struct str sealed = STR_NONE;
    if (change->api_key.at)
        sealed = vault_seal(arena, change->api_key, "provider.api_key", change->name);
    enum provider_kind kind = PROVIDER_OPENAI;
    struct pg_value values[4 + PROVIDER_NUMBERS + 3] = {PG_TEXT(change->name), PG_TEXT(change->kind),
                                                        PG_TEXT(change->base_url),
                                                        sealed.at ? PG_BYTES(sealed) : PG_NULL};
    for (size_t i = 0; i < PROVIDER_NUMBERS; i++)
        values[4 + i] = number(change->numbers[i]);
    values[4 + PROVIDER_NUMBERS] = AUDIT_WHO;
    (void)provider_kind_find(change->name,
                             &kind); /* the names of the program's own are those of their kinds */
    values[4 + PROVIDER_NUMBERS + 1] = PG_TEXT(str_from(provider_kind_name(kind)));
    values[4 + PROVIDER_NUMBERS + 2] = PG_TEXT(change->ca);
    return as_range(pg_write(&sql_save_provider, values, ARRAY_SIZE(values), NULL));
}

static int save_model(struct pg_tx *tx, const struct model_change *change)
{
    const struct catalogue_known *known = catalogue_known_find(change->id);
    struct pg_value values[5 + MODEL_NUMBERS + 2] = {PG_TEXT(change->id), PG_TEXT(change->owned_by),
                                                     PG_TEXT(change->price_in), PG_TEXT(change->price_out),
                                                     PG_TEXT(change->price_cached)};
    for (size_t i = 0; i < MODEL_NUMBERS; i++)
        values[5 + i] = number(change->numbers[i]);
    values[5 + MODEL_NUMBERS] = AUDIT_WHO;
    values[5 + MODEL_NUMBERS + 1] = PG_TEXT(str_from(known ? known->owned_by : "operator"));
    int result = pg_query(tx, &sql_save_model, values, ARRAY_SIZE(values), NULL);
    if (result || change->route_count == 0)
        return result;
    result = pg_query(tx, &sql_drop_routes, PG_VALUES(PG_TEXT(change->id)), NULL);
    if (result)
        return result;
    return pg_query(tx, &sql_add_routes,
                    PG_VALUES(PG_TEXT(change->id), PG_TEXTS(change->providers, change->route_count),
                              PG_TEXTS(change->upstream_models, change->route_count)),
                    NULL);
}

int model_save(const struct model_change *change)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    if (result == 0)
        result = save_model(tx, change);
    return as_range(pg_end(tx, result));
}

static int delete_row(const struct pg_statement *statement, struct str name)
{
    struct pg_rows *rows;
    int result = pg_write(statement, PG_VALUES(PG_TEXT(name), AUDIT_WHO), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int provider_delete(struct str name)
{
    return delete_row(&sql_delete_provider, name);
}

int model_delete(struct str id)
{
    return delete_row(&sql_delete_model, id);
}
