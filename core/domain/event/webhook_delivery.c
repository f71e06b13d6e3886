/* Deliveries, for the owner of an endpoint: see webhook_delivery.h. What sends them is webhook_drain.c. */
#include "core/domain/event/webhook_delivery.h"

#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/event/webhook_internal.h"

#include <errno.h>
#include <stdio.h>

enum {
    TEST_ID_SIZE = 27,
    REPLAY_AT_ONCE = 5000,
    CATCH_UP_AT_ONCE = 100000, /* events that are looked at; each time all that the endpoint has is hashed */
    LOOKED_MOST = 5000,        /* deliveries, in one request for those of a state */
    LOG_MOST = 200,            /* attempts of one that are shown, the newest */
    DELIVERY_COLUMN_COUNT = 12,
};

#define DELIVERY_COLUMNS                                                                                                                            \
    "d.id, w.ref, d.event_id, d.surface, d.name, "                                                                                                  \
    "CASE WHEN due.delivery_id IS NOT NULL THEN 'pending' WHEN last.ok THEN 'delivered' ELSE 'failed' END AS state, "                               \
    "coalesce(last.number, 0), "                                                                                                                    \
    "CASE WHEN w.enabled THEN " WEBHOOK_MS("greatest(due.next_at, CASE WHEN due.next_at IS NOT NULL THEN w.paused_until END)") " END, " WEBHOOK_MS( \
        "d.created_at") ", " WEBHOOK_MS("last.at") ", last.status, last.error"
#define DELIVERY_JOINS                                                                                       \
    " LEFT JOIN webhook_due due ON due.endpoint_id = d.endpoint_id AND due.delivery_id = d.id "              \
    "LEFT JOIN LATERAL "                                                                                     \
    "(SELECT * FROM webhook_attempt a WHERE a.delivery_id = d.id ORDER BY a.number DESC LIMIT 1) last ON true "

/* An endpoint's deliveries below a number, newest first. The order is written so that only the index on both can give it: by their
 * numbers alone those of all endpoints might be walked through. */
#define NEWEST(endpoint, below, most)                                                                        \
    "(SELECT id FROM webhook_delivery WHERE (endpoint_id, id) < (" endpoint "::bigint, " below               \
    "::bigint) AND endpoint_id >= " endpoint "::bigint ORDER BY endpoint_id DESC, id DESC LIMIT " most       \
    "::bigint)"
/* The deliveries of `one`, each found by its number, however many. */
#define OF_THESE                                                                                             \
    " AS one CROSS JOIN LATERAL (SELECT * FROM webhook_delivery WHERE id = one.id LIMIT 1) AS d "            \
    "JOIN webhook_endpoint w ON w.id = d.endpoint_id" DELIVERY_JOINS

static const struct pg_statement sql_list = {"webhook_deliveries",
                                             "SELECT " DELIVERY_COLUMNS " FROM " NEWEST("$1", "$2", "$3")
                                                 OF_THESE "ORDER BY d.id DESC"};
static const struct pg_statement sql_list_pending = {
    "webhook_deliveries_pending",
    "SELECT " DELIVERY_COLUMNS
    " FROM (SELECT delivery_id AS id FROM webhook_due WHERE endpoint_id = $1::bigint "
    "AND delivery_id < $2::bigint ORDER BY delivery_id DESC LIMIT $3::bigint)" OF_THESE "ORDER BY d.id DESC"};
/* No index knows what came of a delivery: some of the newest are looked at, and the last column is where the next request goes
 * on when that were not all. There is a row for it even when none of them is in that state. */
static const struct pg_statement sql_list_state = {
    "webhook_deliveries_state",
    "WITH looked AS MATERIALIZED " NEWEST(
        "$1", "$2",
        "$5") ", edge AS (SELECT CASE WHEN count(*) = $5::bigint THEN min(id) ELSE 0 END AS next FROM looked) "
              "SELECT found.*, edge.next FROM edge LEFT JOIN (SELECT * FROM (SELECT " DELIVERY_COLUMNS
              " FROM looked" OF_THESE
              "ORDER BY d.id DESC) AS shown WHERE shown.state = $4::text LIMIT $3::bigint) AS found ON true "
              "ORDER BY found.id DESC"};
/* One statement, so that the delivery and its attempts are of one moment: a row for each attempt, or one. */
static const struct pg_statement sql_get = {
    "webhook_delivery",
    "SELECT " DELIVERY_COLUMNS ", d.body, one.number, " WEBHOOK_MS(
        "one.at") ", coalesce(one.ms, -1), one.ok, one.status, one.error, one.answer "
                  "FROM webhook_delivery d JOIN webhook_endpoint w ON w.id = d.endpoint_id" DELIVERY_JOINS
                  "LEFT JOIN LATERAL (SELECT * FROM webhook_attempt a WHERE a.delivery_id = d.id "
                  "ORDER BY a.number DESC LIMIT $3::bigint) one ON true "
                  "WHERE d.id = $1::bigint AND w.account_id = $2::bigint AND w.deleted_at IS NULL "
                  "ORDER BY one.number"};
static const struct pg_statement sql_summary = {
    "webhook_summary",
    "WITH log AS MATERIALIZED (SELECT a.* FROM " NEWEST(
        "$1", "9223372036854775807",
        "$3") " AS one CROSS JOIN LATERAL (SELECT * FROM webhook_attempt WHERE delivery_id = one.id "
              "ORDER BY number DESC LIMIT $4::bigint) AS a), "
              "last AS (SELECT * FROM log ORDER BY at DESC, number DESC LIMIT 1) "
              "SELECT w.failures, (SELECT count(*) FROM (SELECT FROM webhook_due WHERE endpoint_id = $1::bigint "
              "ORDER BY delivery_id LIMIT $2::bigint) AS pending), (SELECT " WEBHOOK_MS(
                  "min(next_at)") " FROM webhook_due WHERE endpoint_id = $1::bigint), "
                                  "(SELECT count(*) FROM log), (SELECT count(*) FROM log WHERE NOT ok), "
                                  "(SELECT coalesce(max(ms), 0) FROM log), " WEBHOOK_MS(
                                      "last.at") ", last.status, last.error FROM webhook_endpoint w "
                                                 "LEFT JOIN last ON true WHERE w.id = $1::bigint"};
static const struct pg_statement sql_test = {
    "webhook_test",
    "WITH d AS (INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, object, body) "
    "SELECT $1::bigint, $2::text, $3::text, $4::text, webhook_object($5::jsonb), "
    "webhook_body($4::text, now(), $5::jsonb) RETURNING *), "
    "due AS (INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, endpoint_id, now() FROM d)" AUDIT(
        "$6", "webhook.test", "d", "$7::bigint", "$8::text") "SELECT id, webhook_wake(endpoint_id) FROM d"};
static const struct pg_statement sql_again = {
    "webhook_again", "WITH d AS (SELECT webhook_again($5::bigint, ARRAY[$1::bigint]) AS count)" AUDIT(
                         "$2", "webhook.replay", "d", "$3::bigint",
                         "$4::text") "SELECT count, webhook_wake($5::bigint) FROM d"};
static const struct pg_statement sql_replay = {
    "webhook_replay",
    "SELECT replayed, last FROM webhook_replay($1, to_timestamp($2::bigint / 1000.0), $3, $4, $5)"};
static const struct pg_statement sql_catch_up = {
    "webhook_catch_up",
    "SELECT added, last FROM webhook_catch_up($1, to_timestamp($2::bigint / 1000.0), $3, $4)"};
static const struct pg_statement sql_wake = {
    "webhook_wake",
    "WITH w AS (SELECT id, ref, account_id FROM webhook_endpoint WHERE id = $1::bigint)" AUDIT(
        "$2", "webhook.replay", "w", "w.account_id", "w.ref") "SELECT webhook_wake(id) FROM w"};

bool webhook_delivery_parse(struct str ref, int64_t *id)
{
    uint64_t number;
    if (!str_starts(ref, STR("dlv_")) || ref.size > 22 || ref.size == 4 || ref.at[4] == '0' ||
        !str_to_u64(str_of(ref.at + 4, ref.size - 4), &number))
        return false;
    *id = (int64_t)number;
    return number <= INT64_MAX;
}

/* ---- rows ---- */

static void from_row(struct arena *arena, const struct pg_rows *rows, size_t row,
                     struct webhook_delivery *delivery)
{
    *delivery = (struct webhook_delivery){
        .id = pg_i64(rows, row, 0),
        .webhook = pg_text(arena, rows, row, 1),
        .event_id = pg_text(arena, rows, row, 2),
        .surface = pg_text(arena, rows, row, 3),
        .event = pg_text(arena, rows, row, 4),
        .status = pg_text(arena, rows, row, 5),
        .attempts = pg_i64(rows, row, 6),
        .next_ms = pg_i64(rows, row, 7),
        .created_ms = pg_i64(rows, row, 8),
        .last_ms = pg_i64(rows, row, 9),
        .last_status = pg_i64(rows, row, 10),
        .last_error = pg_text(arena, rows, row, 11),
    };
    snprintf(delivery->ref, sizeof delivery->ref, "dlv_%lld", (long long)delivery->id);
}

static int read_list(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
                     size_t value_count, struct webhook_delivery **out, size_t *count, int64_t *looked_to)
{
    struct pg_rows *rows;
    int result = pg_read(statement, values, value_count, &rows);
    if (result)
        return result;
    bool with_edge = statement == &sql_list_state;
    *looked_to = with_edge ? pg_i64(rows, 0, DELIVERY_COLUMN_COUNT) : 0;
    *count = with_edge && pg_is_null(rows, 0, 0) ? 0 : pg_count(rows);
    *out = arena_alloc(arena, (*count + 1) * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        from_row(arena, rows, i, &(*out)[i]);
    pg_rows_free(rows);
    return 0;
}

int webhook_deliveries_list(struct arena *arena, int64_t account_id, struct str webhook, struct str status,
                            int64_t cursor, int64_t limit, struct webhook_delivery **out, size_t *count,
                            int64_t *next)
{
    struct webhook endpoint;
    const struct pg_statement *statement = &sql_list;
    int result = webhook_get(arena, account_id, webhook, &endpoint);
    if (result)
        return result;
    const struct pg_value values[] = {PG_INT(endpoint.id), PG_INT(cursor ? cursor : INT64_MAX),
                                      PG_INT(limit + 1), PG_TEXT(status), PG_INT(LOOKED_MOST)};
    size_t value_count = 3;
    if (str_equal(status, STR("pending"))) {
        statement = &sql_list_pending;
    } else if (status.at) {
        statement = &sql_list_state;
        value_count = ARRAY_SIZE(values);
    }
    result = read_list(arena, statement, values, value_count, out, count, next);
    if (result == 0 && *count > (size_t)limit) {
        *count = (size_t)limit;
        *next = (*out)[limit - 1].id;
    }
    return result;
}

static void read_attempts(struct arena *arena, const struct pg_rows *rows, struct webhook_delivery *delivery)
{
    size_t count = pg_is_null(rows, 0, 13) ? 0 : pg_count(rows);
    struct webhook_attempt *attempts = arena_alloc(arena, (count + 1) * sizeof *attempts);
    for (size_t i = 0; i < count; i++)
        attempts[i] = (struct webhook_attempt){
            .number = pg_i64(rows, i, 13),
            .at_ms = pg_i64(rows, i, 14),
            .took_ms = pg_i64(rows, i, 15),
            .ok = pg_bool(rows, i, 16),
            .status = pg_i64(rows, i, 17),
            .error = pg_text(arena, rows, i, 18),
            .answer = pg_text(arena, rows, i, 19),
        };
    delivery->log = attempts;
    delivery->log_count = count;
}

int webhook_delivery_get(struct arena *arena, int64_t account_id, int64_t id, struct webhook_delivery *row)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_INT(id), PG_INT(account_id), PG_INT(LOG_MOST)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) > 0;
    if (found) {
        from_row(arena, rows, 0, row);
        row->body = pg_text(arena, rows, 0, 12);
        read_attempts(arena, rows, row);
    }
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

/* ---- for operators ---- */

int webhook_summarize(struct arena *arena, int64_t webhook_id, struct webhook_summary *summary)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_summary,
                         PG_VALUES(PG_INT(webhook_id), PG_INT(WEBHOOK_SUMMARY_PENDING),
                                   PG_INT(WEBHOOK_SUMMARY_DELIVERIES), PG_INT(LOG_MOST)),
                         &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        *summary = (struct webhook_summary){
            .failures = pg_i64(rows, 0, 0),
            .pending = pg_i64(rows, 0, 1),
            .due_ms = pg_i64(rows, 0, 2),
            .attempts = pg_i64(rows, 0, 3),
            .failed = pg_i64(rows, 0, 4),
            .slowest_ms = pg_i64(rows, 0, 5),
            .last_ms = pg_i64(rows, 0, 6),
            .last_status = pg_i64(rows, 0, 7),
            .last_error = pg_text(arena, rows, 0, 8),
        };
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

/* ---- deliveries that are asked for ---- */

/* The endpoint, if something can be sent to it. */
static int find_enabled(struct arena *arena, int64_t account_id, struct str ref, struct webhook *endpoint)
{
    int result = webhook_get(arena, account_id, ref, endpoint);
    return result || endpoint->enabled ? result : -EBUSY;
}

int webhook_test(struct arena *arena, int64_t account_id, struct str webhook, struct str surface,
                 struct str event, struct str data, struct webhook_delivery *row)
{
    char id[TEST_ID_SIZE] = "evt_test";
    struct webhook endpoint;
    struct pg_rows *rows;
    int result = find_enabled(arena, account_id, webhook, &endpoint);
    if (result)
        return result;
    id_random_base62(id + 8, TEST_ID_SIZE - 9);
    result = pg_write(&sql_test,
                      PG_VALUES(PG_INT(endpoint.id), PG_TEXT(str_from(id)), PG_TEXT(surface), PG_TEXT(event),
                                PG_TEXT(data), AUDIT_WHO, PG_INT(account_id), PG_TEXT(webhook)),
                      &rows);
    if (result)
        return result;
    int64_t delivery_id = pg_i64(rows, 0, 0);
    webhook_ring_job(rows, 0, 1, account_id);
    pg_rows_free(rows);
    return webhook_delivery_get(arena, account_id, delivery_id, row);
}

int webhook_delivery_replay(struct arena *arena, int64_t account_id, int64_t id, struct webhook_delivery *row)
{
    struct webhook endpoint;
    struct pg_rows *rows;
    int result = webhook_delivery_get(arena, account_id, id, row);
    if (result == 0)
        result = find_enabled(arena, account_id, row->webhook, &endpoint);
    if (result == 0)
        result = pg_write(&sql_again,
                          PG_VALUES(PG_INT(id), AUDIT_WHO, PG_INT(account_id), PG_TEXT(str_from(row->ref)),
                                    PG_INT(endpoint.id)),
                          &rows);
    if (result)
        return result;
    webhook_ring_job(rows, 0, 1, account_id);
    pg_rows_free(rows);
    return webhook_delivery_get(arena, account_id, id, row);
}

/* A page in a transaction of its own: it takes its time, and no other write should wait for it. */
static int run_page(const struct pg_statement *statement, const struct pg_value *values, size_t value_count,
                    int64_t *count, int64_t *after)
{
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, statement, values, value_count, &rows);
    result = pg_end(tx, result);
    if (result == 0) {
        *count += pg_i64(rows, 0, 0);
        *after = pg_i64(rows, 0, 1); /* 0 for NULL */
    }
    pg_rows_free(rows);
    return result;
}

static int replay_old(int64_t endpoint_id, int64_t since_ms, bool failed_only, int64_t *count)
{
    int64_t after = 0;
    int result;
    do
        result = run_page(&sql_replay,
                          PG_VALUES(PG_INT(endpoint_id), PG_INT(since_ms), PG_BOOL(failed_only),
                                    PG_INT(after), PG_INT(REPLAY_AT_ONCE)),
                          count, &after);
    while (result == 0 && after);
    return result;
}

static int catch_up(int64_t endpoint_id, int64_t since_ms, int64_t *count)
{
    int64_t after = 0;
    int result;
    do
        result = run_page(
            &sql_catch_up,
            PG_VALUES(PG_INT(endpoint_id), PG_INT(since_ms), PG_INT(after), PG_INT(CATCH_UP_AT_ONCE)), count,
            &after);
    while (result == 0 && after);
    return result;
}

int webhook_replay_since(int64_t account_id, struct str webhook, int64_t since_ms, bool failed_only,
                         int64_t *count)
{
    struct arena arena;
    struct webhook endpoint;
    struct pg_rows *rows;
    *count = 0;
    arena_init(&arena);
    int result = find_enabled(&arena, account_id, webhook, &endpoint);
    arena_clear(&arena);
    if (result == 0)
        result = replay_old(endpoint.id, since_ms, failed_only, count);
    if (result == 0 && !failed_only)
        result = catch_up(endpoint.id, since_ms, count);
    if (result == 0)
        result = pg_write(&sql_wake, PG_VALUES(PG_INT(endpoint.id), AUDIT_WHO), &rows);
    if (result)
        return result;
    webhook_ring_job(rows, 0, 0, account_id);
    pg_rows_free(rows);
    return 0;
}
