/* The delivery lease and what is recorded under it: see message.h. */
#include "core/domain/event/event.h"
#include "core/domain/instance/internal.h"
#include "core/domain/instance/message_internal.h"

#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/fiber.h"
#include "core/store/bell.h"
#include "proto/json.h"

#include <errno.h>

enum { FAILURE_TEXT_MAX = 500 };

static const struct pg_statement sql_take = {
    "delivery_take",
    "UPDATE instance SET lease_fence = lease_fence + 1, lease_owner = NULL, version = version + 1, "
    "lease_until = now() + $2::bigint * interval '1 millisecond' "
    "WHERE id = $1::text AND state IN ('awake', 'draining') AND queued > 0 AND lease_until < now() "
    "AND deleted_at IS NULL RETURNING lease_fence, port"};
static const struct pg_statement sql_next = {
    "delivery_next", "SELECT id, text, answer, seq, tries + refused / 8, 0, 0, state FROM message "
                     "WHERE instance_id = $1::text AND state = 'queued' ORDER BY seq LIMIT 1"};
/* $1 instance, $2 fence, $3 message, $4 its state, $5 answer, $6 for how long the lease goes on (0: it ends) */
static const struct pg_statement sql_record = {
    "delivery_record",
    "WITH i AS (UPDATE instance SET queued = queued - 1, last_activity = now(), version = version + 1, "
    "lease_until = CASE WHEN $6::bigint > 0 AND queued > 1 THEN now() + $6::bigint * interval '1 millisecond' "
    "ELSE '-infinity' END WHERE id = $1::text AND lease_fence = $2::bigint RETURNING *), "
    "m AS (UPDATE message SET state = $4::text, answer = $5::text, delivered_at = now() "
    "WHERE id = $3::text AND state = 'queued' AND EXISTS (SELECT 1 FROM i) RETURNING notify) "
    "SELECT " INSTANCE_COLUMNS(
        "") ", CASE WHEN $6::bigint = 0 AND queued > 0 AND state = 'awake' THEN " JOB_ADD_DELIVER
            " END, (SELECT notify FROM m), CASE WHEN $4::text = 'delivered' AND deleted_at IS NULL AND EXISTS (SELECT FROM m) "
            "THEN event_add(account_id, surface, 'message.delivered', jsonb_build_object('uuid', id, 'user_id', user_id, "
            "'message_id', $3::text, 'delivered_at', event_time(now()))) END FROM i"};
static const struct pg_statement sql_no_answer = {
    "delivery_no_answer",
    "WITH i AS (UPDATE instance SET lease_until = '-infinity', version = version + 1 "
    "WHERE id = $1::text AND lease_fence = $2::bigint RETURNING *), "
    "m AS (UPDATE message SET tries = tries + $4::bigint::int, refused = refused + 1 - $4::bigint::int "
    "WHERE id = $3::text AND EXISTS (SELECT 1 FROM i)) "
    "SELECT " INSTANCE_COLUMNS("") ", " JOB_ADD_SCALE " FROM i"};

int64_t delivery_lease_ms(void)
{
    return config->pod_answer_ms + config->pg_timeout_ms + 5000;
}

int delivery_take(struct arena *arena, struct str instance_id, struct delivery *delivery)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_take, PG_VALUES(PG_TEXT(instance_id), PG_INT(delivery_lease_ms())), &rows);
    if (result)
        return result;
    bool taken = pg_count(rows) == 1;
    if (taken)
        *delivery = (struct delivery){
            .instance_id = arena_str(arena, instance_id),
            .fence = pg_i64(rows, 0, 0),
            .port = pg_i64(rows, 0, 1),
        };
    pg_rows_free(rows);
    return taken ? 0 : -ENOENT;
}

int delivery_next(struct arena *arena, const struct delivery *delivery, struct message *message)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_next, PG_VALUES(PG_TEXT(delivery->instance_id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        message_from_row(arena, rows, 0, message);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

struct ring {
    struct str address;
    struct str message_id;
};

static void ring(void *arg)
{
    const struct ring *bell = arg;
    bell_ring(bell->address, bell->message_id);
}

static int record(struct arena *arena, const struct delivery *delivery, struct message *message, bool keep,
                  int64_t *left)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_record,
                 PG_VALUES(PG_TEXT(delivery->instance_id), PG_INT(delivery->fence), PG_TEXT(message->id),
                           PG_TEXT(str_from(message_state_name(message->state))), PG_TEXT(message->answer),
                           PG_INT(keep ? delivery_lease_ms() : 0)),
                 &rows);
    if (result)
        return result;
    struct str notify = STR_NONE;
    if (pg_count(rows) == 1 && !pg_is_null(rows, 0, INSTANCE_COLUMN_COUNT + 1))
        notify = arena_str(arena, pg_str(rows, 0, INSTANCE_COLUMN_COUNT + 1));
    struct instance instance;
    result = instance_changed(arena, rows, JOB_DELIVER, &instance);
    if (result)
        return result == -ENOENT ? -ESTALE : result;
    *left = instance.queued;
    struct ring *bell = arena_alloc(arena, sizeof *bell);
    *bell = (struct ring){notify, message->id};
    pg_after_commit(ring, bell);
    event_added();
    return 0;
}

static int record_no_answer(struct arena *arena, const struct delivery *delivery,
                            const struct message *message, bool asked)
{
    struct pg_rows *rows;
    struct instance instance;
    int result = pg_write(&sql_no_answer,
                          PG_VALUES(PG_TEXT(delivery->instance_id), PG_INT(delivery->fence),
                                    PG_TEXT(message->id), PG_INT(asked)),
                          &rows);
    if (result)
        return result;
    result = instance_changed(arena, rows, JOB_SCALE, &instance);
    if (result)
        return result == -ENOENT ? -ESTALE : result;
    return -EAGAIN;
}

/* A failure as the JSON that stands where the pod's answer would. */
static struct str failure(struct arena *arena, const char *reason)
{
    struct buf text = {0};
    struct json_out out = json_out_to(&text);
    json_open(&out, '{');
    json_put_text(&out, "error", reason);
    json_close(&out, '}');
    struct str json = arena_str(arena, buf_str(&text));
    buf_clear(&text);
    return json;
}

/* A pod that has ended and not been missed yet refuses the connection: the message is not to blame for that, so eight of
 * those count as one try (delivery_next). */
static bool was_asked(const struct pod_answer *answer)
{
    return answer->result != -ECONNREFUSED;
}

/* What the pod says of its failure, if it says so in JSON. */
static struct str pod_failure(struct arena *arena, const struct pod_answer *answer)
{
    const char *error;
    struct str text = json_string(json_member(json_read(arena, answer->body, &error), "error"));
    if (text.size == 0 || text.size > FAILURE_TEXT_MAX || memchr(text.at, '\0', text.size))
        return failure(arena, arena_printf(arena, "the pod answered with status %d", answer->status));
    return failure(arena, arena_printf(arena, "%.*s", STR_ARG(text)));
}

/* What the answer makes of the message; false when it is to be tried again. */
static bool judge(struct arena *arena, const struct pod_answer *answer, struct message *message)
{
    const char *error;
    bool unreachable = answer->result != 0 && answer->result != -EMSGSIZE;
    if (unreachable || answer->status == 503) {
        if (message->tries + was_asked(answer) < MESSAGE_TRIES)
            return false;
        message->answer =
            failure(arena, arena_printf(arena, "the pod gave no answer in %d tries", MESSAGE_TRIES));
    } else if (answer->result == -EMSGSIZE) {
        message->answer = failure(arena, "the pod's answer was too large");
    } else if (answer->status < 200 || answer->status > 299) {
        message->answer = pod_failure(arena, answer);
    } else if (!json_read(arena, answer->body, &error)) {
        message->answer = failure(arena, "the pod's answer was not JSON");
    } else {
        message->answer = answer->body;
        message->state = MESSAGE_DELIVERED;
        return true;
    }
    message->state = MESSAGE_FAILED;
    return true;
}

int delivery_record(struct arena *arena, const struct delivery *delivery, struct message *message,
                    const struct pod_answer *answer, bool keep, int64_t *left)
{
    fiber_hold();
    int result;
    if (judge(arena, answer, message)) {
        result = record(arena, delivery, message, keep, left);
    } else {
        LOG(WARN, "a pod gave no answer", LOG_STR("instance", delivery->instance_id),
            LOG_STR("message", message->id), LOG_INT("tries", message->tries + 1),
            LOG_ERRNO(answer->result ? answer->result : -EBUSY));
        result = record_no_answer(arena, delivery, message, was_asked(answer));
    }
    fiber_release();
    return result;
}
