/* Messages: see message.h. */
#include "core/domain/instance/message.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/id.h"
#include "core/domain/instance/internal.h"
#include "core/domain/instance/message_internal.h"
#include "core/run/fiber.h"

#include <errno.h>

enum { SETTLE_PAUSE_MS = 50 };

#define MESSAGE_COLUMNS                                                                                      \
    "id, text, answer, seq, tries, " INSTANCE_MS("created_at") ", coalesce(" INSTANCE_MS(                    \
        "delivered_at") ", 0), state"

/* The lease is taken along when the pod is awake, nothing waits and nobody holds it: "direct". */
#define FREE "state = 'awake' AND desired = 1 AND queued = 0 AND lease_until < now()"
static const struct pg_statement sql_accept = {
    "message_accept",
    "WITH i AS (UPDATE instance SET desired = 1, woken = true, last_activity = now(), version = version + 1, "
    "queued = queued + 1, "
    "lease_fence = CASE WHEN " FREE " THEN lease_fence + 1 ELSE lease_fence END, "
    "lease_owner = CASE WHEN " FREE " THEN $3::text ELSE lease_owner END, "
    "lease_until = CASE WHEN " FREE
    " THEN now() + $6::bigint * interval '1 millisecond' ELSE lease_until END "
    "WHERE id = $1::text AND account_id = $2::bigint AND deleted_at IS NULL AND queued < $7::bigint "
    "AND NOT (state = 'failed' AND state_at > now() - $8::bigint * interval '1 second') RETURNING *), "
    "m AS (INSERT INTO message (id, instance_id, text, notify) SELECT $3::text, id, $4::text, $5::text FROM i) "
    "SELECT " INSTANCE_COLUMNS("") ", "
                                   "CASE WHEN state IN ('asleep', 'failed') THEN " JOB_ADD_SCALE
                                   " WHEN state = 'awake' AND lease_until < now() THEN " JOB_ADD_DELIVER
                                   " END, "
                                   "lease_owner IS NOT DISTINCT FROM $3::text FROM i"};
static const struct pg_statement sql_get = {"message_get",
                                            "SELECT " MESSAGE_COLUMNS " FROM message WHERE id = $1::text"};
static const struct pg_statement sql_list = {
    "message_list",
    "SELECT " MESSAGE_COLUMNS " FROM message WHERE instance_id = $1::text AND seq > $2::bigint "
    "ORDER BY seq LIMIT $3::bigint + 1"};

static const char *const state_names[] = {"queued", "delivered", "failed"};

const char *message_state_name(enum message_state state)
{
    return state_names[state];
}

void message_from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct message *message)
{
    *message = (struct message){
        .id = arena_str(arena, pg_str(rows, row, 0)),
        .text = arena_str(arena, pg_str(rows, row, 1)),
        .answer = pg_is_null(rows, row, 2) ? STR_NONE : arena_str(arena, pg_str(rows, row, 2)),
        .seq = pg_i64(rows, row, 3),
        .tries = pg_i64(rows, row, 4),
        .created_ms = pg_i64(rows, row, 5),
        .delivered_ms = pg_i64(rows, row, 6),
        .state = MESSAGE_QUEUED,
    };
    struct str state = pg_str(rows, row, 7);
    for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
        if (str_equal(state, str_from(state_names[i])))
            message->state = (enum message_state)i;
}

/* Why no row was changed. */
static int why_refused(struct arena *arena, int64_t account_id, struct str id)
{
    struct instance instance;
    int result = instance_load(arena, id, &instance);
    if (result)
        return result;
    if (instance.account_id != account_id || instance.deleted)
        return -ENOENT;
    return instance.queued >= INSTANCE_QUEUE_MAX ? -ENOSPC : -EBUSY;
}

/* The connection broke in the middle of the commit: once PostgreSQL is back, the row itself says what became of it. */
static int settle_unknown(struct arena *arena, struct str instance_id, struct str id,
                          struct accepted *accepted)
{
    uint64_t until_ns = clock_in_ms((uint64_t)config->pg_timeout_ms);
    struct message message;
    int result;
    do {
        result = message_get(arena, id, &message);
        if (result == 0)
            result = instance_load(arena, instance_id, &accepted->instance);
    } while (result && result != -ENOENT && clock_now_ns() < until_ns &&
             fiber_sleep_ms(SETTLE_PAUSE_MS) == 0);
    accepted->direct = false;
    return result == -ENOENT ? -ENOTCONN : result;
}

void message_new_id(char out[MESSAGE_ID_SIZE])
{
    memcpy(out, "msg_", 4);
    id_random(out + 4, 20);
}

int message_accept(struct arena *arena, int64_t account_id, struct str instance_id, struct str id,
                   struct str text, struct str notify, struct accepted *accepted)
{
    struct pg_rows *rows;
    /* The lease may come with it: a client that leaves now must not leave it with nobody. */
    fiber_hold();
    int result = pg_write(&sql_accept,
                          PG_VALUES(PG_TEXT(instance_id), PG_INT(account_id), PG_TEXT(id), PG_TEXT(text),
                                    PG_TEXT(notify), PG_INT(delivery_lease_ms()), PG_INT(INSTANCE_QUEUE_MAX),
                                    PG_INT(INSTANCE_FAILED_S)),
                          &rows);
    fiber_release();
    if (result == -ECONNRESET)
        return settle_unknown(arena, instance_id, id, accepted);
    if (result)
        return result;
    if (pg_count(rows) == 0) {
        pg_rows_free(rows);
        return why_refused(arena, account_id, instance_id);
    }
    accepted->direct = pg_bool(rows, 0, INSTANCE_COLUMN_COUNT + 1);
    bool awake = str_equal(pg_str(rows, 0, 13), STR("awake"));
    return instance_changed(arena, rows, awake ? JOB_DELIVER : JOB_SCALE, &accepted->instance);
}

int message_get(struct arena *arena, struct str id, struct message *message)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_TEXT(id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        message_from_row(arena, rows, 0, message);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int message_list(struct arena *arena, struct str instance_id, int64_t after, int64_t limit,
                 struct message **messages, size_t *count, int64_t *next)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_VALUES(PG_TEXT(instance_id), PG_INT(after), PG_INT(limit)), &rows);
    if (result)
        return result;
    size_t found = pg_count(rows);
    *count = found > (size_t)limit ? (size_t)limit : found;
    *messages = arena_alloc(arena, *count * sizeof **messages);
    for (size_t i = 0; i < *count; i++)
        message_from_row(arena, rows, i, &(*messages)[i]);
    *next = found > *count ? (*messages)[*count - 1].seq : 0;
    pg_rows_free(rows);
    return 0;
}
