/*
 * Instances as the scale job and the sweeps see them. Each statement of the scale job first locks its own job's row
 * by id and fence: a worker whose lease was taken over finds none and changes nothing.
 */
#include "core/domain/instance/internal.h"

#include "core/base/config.h"
#include "core/domain/event/event.h"
#include "core/store/bell.h"

#include <errno.h>

/* $1 job, $2 fence, $3 instance: in every statement below that starts with it. */
#define MINE                                                                                                 \
    "WITH mine AS (SELECT 1 FROM job WHERE id = $1::bigint AND fence = $2::bigint AND state = 'running' FOR SHARE), "
#define CHANGE(assignments, condition)                                                                       \
    "i AS (UPDATE instance SET version = version + 1, " assignments                                          \
    " WHERE id = $3::text AND EXISTS (SELECT 1 FROM mine) AND " condition " RETURNING *) "
#define HIBERNATED EVENT_ADD("instance.hibernated", "hibernated_at")
#define NO_POD "port = NULL, pid = NULL, pid_started = NULL"

static const struct pg_statement sql_load = {
    "instance_load", "SELECT " INSTANCE_COLUMNS("") " FROM instance WHERE id = $1::text"};
static const struct pg_statement sql_next_port = {"instance_next_port",
                                                  "SELECT instance_next_port($1::bigint, $2::bigint)"};
static const struct pg_statement sql_to_waking = {
    "instance_to_waking",
    MINE CHANGE("state = 'waking', state_at = CASE WHEN state = 'waking' THEN state_at ELSE now() END, "
                "generation = generation + 1, port = $4::integer",
                "true") "SELECT " INSTANCE_COLUMNS("") ", NULL FROM i"};
/* Of a deleted one too: its pod is there, and the job goes on to end it. */
static const struct pg_statement sql_to_awake = {
    "instance_to_awake",
    MINE CHANGE(
        "state = 'awake', state_at = now(), last_activity = now(), fail_reason = NULL, "
        "pid = $4::bigint, pid_started = $5::bigint, port = $6::integer",
        "true") "SELECT " INSTANCE_COLUMNS("") ", CASE WHEN queued > 0 THEN " JOB_ADD_DELIVER " END, "
                                               "CASE WHEN desired = 1 THEN job_done($1::bigint, $2::bigint) END, "
                                               "CASE WHEN deleted_at IS NULL THEN " EVENT_ADD(
                                                   "instance.ready", "ready_at") " END FROM i"};
static const struct pg_statement sql_to_draining = {
    "instance_to_draining", MINE CHANGE("state = 'draining', state_at = now()",
                                        "desired = 0") "SELECT " INSTANCE_COLUMNS("") ", NULL FROM i"};
static const struct pg_statement sql_undrain = {
    "instance_undrain",
    MINE CHANGE("state = 'awake', state_at = now()", "desired = 1 AND state = 'draining'") //
    "SELECT " INSTANCE_COLUMNS("") ", CASE WHEN queued > 0 THEN " JOB_ADD_DELIVER " END FROM i"};
/* What was accepted and could not be delivered before the pod had to go wakes it again. */
static const struct pg_statement sql_to_asleep = {
    "instance_to_asleep",
    MINE "was AS (SELECT state FROM instance WHERE id = $3::text), " CHANGE(
        "state = 'asleep', state_at = now(), fail_reason = $4::text, lease_until = '-infinity', "
        "desired = CASE WHEN queued > 0 THEN 1 ELSE desired END, " NO_POD,
        "true") "SELECT " INSTANCE_COLUMNS("") ", NULL, "
                                               "CASE WHEN desired = 0 AND deleted_at IS NULL THEN job_done($1::bigint, $2::bigint) END, "
                                               "CASE WHEN (SELECT state FROM was) IN ('awake', 'draining') "
                                               "AND deleted_at IS NULL THEN " HIBERNATED " END FROM i"};
static const struct pg_statement sql_to_failed = {
    "instance_to_failed",
    MINE CHANGE("state = 'failed', desired = 0, state_at = now(), fail_reason = $4::text, " NO_POD, "true") //
    "SELECT " INSTANCE_COLUMNS("") ", NULL, job_done($1::bigint, $2::bigint) FROM i"};
static const struct pg_statement sql_remove = {
    "instance_remove", MINE "gone AS (DELETE FROM instance WHERE id = $3::text AND deleted_at IS NOT NULL "
                            "AND EXISTS (SELECT 1 FROM mine) RETURNING notify) "
                            "SELECT (SELECT notify FROM gone), job_done($1::bigint, $2::bigint)"};

static const struct pg_statement sql_pod_lost = {
    "instance_pod_lost",
    "WITH i AS (UPDATE instance SET state = 'asleep', state_at = now(), version = version + 1, "
    "lease_until = '-infinity', desired = CASE WHEN queued > 0 THEN 1 ELSE 0 END, " NO_POD
    " WHERE id = $1::text AND generation = $2::bigint AND state = 'awake' RETURNING *) "
    "SELECT " INSTANCE_COLUMNS("") ", CASE WHEN queued > 0 THEN " JOB_ADD_SCALE
                                   " END, CASE WHEN deleted_at IS NULL THEN " HIBERNATED " END FROM i"};

#define IS_IDLE                                                                                              \
    "state = 'awake' AND desired = 1 AND queued = 0 AND deleted_at IS NULL AND lease_until < now() "         \
    "AND last_activity < now() - $1::bigint * interval '1 second'"
static const struct pg_statement sql_idle = {
    "instance_idle",
    "SELECT " INSTANCE_COLUMNS("") " FROM instance WHERE " IS_IDLE " ORDER BY last_activity LIMIT 200"};
static const struct pg_statement sql_sleep_idle = {
    "instance_sleep_idle",
    "WITH idle AS (SELECT id FROM instance WHERE id = $2::text AND " IS_IDLE " FOR UPDATE SKIP LOCKED), "
    "i AS (UPDATE instance SET desired = 0, version = version + 1 "
    "WHERE id IN (SELECT id FROM idle) RETURNING *) "
    "SELECT " INSTANCE_COLUMNS("") ", " JOB_ADD_SCALE " FROM i"};
static const struct pg_statement sql_touch = {
    "instance_touch", "UPDATE instance SET last_activity = now(), version = version + 1 "
                      "WHERE id = $1::text AND state = 'awake' RETURNING " INSTANCE_COLUMNS("") ", NULL"};
static const struct pg_statement sql_look_after = {
    "instance_look_after",
    "SELECT " INSTANCE_COLUMNS(
        "") ", CASE WHEN state = 'awake' AND generation = $2::bigint THEN " JOB_ADD_SCALE
            " END FROM instance WHERE id = $1::text AND deleted_at IS NULL"};
/* A row that somebody else has locked is passed over: to wait for several, in whatever order others take them, would be
 * a deadlock in the making. */
static const struct pg_statement sql_was_active = {
    "instance_was_active",
    "WITH heard AS (SELECT * FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS heard (id, age_ms, number)), "
    "free AS (SELECT id FROM instance WHERE id = ANY ($1::text[]) AND state IN ('awake', 'draining') "
    "AND deleted_at IS NULL FOR NO KEY UPDATE SKIP LOCKED) "
    "UPDATE instance i SET version = i.version + 1, "
    "last_activity = greatest(i.last_activity, now() - age_ms * interval '1 millisecond') "
    "FROM heard JOIN free ON free.id = heard.id WHERE i.id = free.id RETURNING " INSTANCE_COLUMNS(
        "i.") ", number"};
static const struct pg_statement sql_with_pod = {
    "instance_with_pod",
    "SELECT " INSTANCE_COLUMNS("") " FROM instance WHERE state IN ('awake', 'waking', 'draining')"};

/* A scale job that died leaves its instance between two states: that is a failed instance. */
static const struct pg_statement sql_give_up = {
    "instance_give_up",
    "UPDATE instance i SET state = 'failed', desired = 0, state_at = now(), version = version + 1, "
    "fail_reason = 'its scale job was put aside as dead' "
    "WHERE (state IN ('waking', 'draining') OR (desired = 1 AND state = 'asleep')) AND deleted_at IS NULL "
    "AND EXISTS (SELECT 1 FROM job WHERE kind = 'scale' AND key = i.id AND job.state = 'dead') "
    "AND NOT EXISTS (SELECT 1 FROM job WHERE kind = 'scale' AND key = i.id AND job.state <> 'dead')"};
static const struct pg_statement sql_unscaled = {
    "instance_unscaled",
    "SELECT account_id, " JOB_ADD_SCALE " FROM instance i "
    "WHERE (state IN ('waking', 'draining') OR (desired = 1 AND state IN ('asleep', 'failed')) "
    "OR (queued > 0 AND state = 'asleep') "
    "OR (desired = 0 AND state = 'awake') OR deleted_at IS NOT NULL) "
    "AND NOT EXISTS (SELECT 1 FROM job WHERE kind = 'scale' AND key = i.id) LIMIT 500"};
static const struct pg_statement sql_undelivered = {
    "instance_undelivered",
    "SELECT account_id, " JOB_ADD_DELIVER " FROM instance i "
    "WHERE state = 'awake' AND queued > 0 AND lease_until < now() "
    "AND NOT EXISTS (SELECT 1 FROM job WHERE kind = 'deliver' AND key = i.id) LIMIT 500"};

int instance_load(struct arena *arena, struct str id, struct instance *instance)
{
    return instance_read(arena, &sql_load, PG_VALUES(PG_TEXT(id)), instance);
}

/* For statements whose columns are the instance's, a job that was added, and whether this job was ended. */
static int changed(struct job *job, struct pg_rows *rows, enum job_kind kind, struct instance *instance)
{
    bool ended = pg_count(rows) == 1 && pg_bool(rows, 0, INSTANCE_COLUMN_COUNT + 1);
    int result = instance_changed(job->arena, rows, kind, instance);
    if (result == -ENOENT)
        return -ESTALE;
    job->finished |= ended;
    if (result)
        return result;
    bell_announce(job->key);
    event_added();
    return 0;
}

int instance_next_port(int64_t first, int64_t last, int64_t *port)
{
    struct pg_rows *rows;
    /* It takes a number out of a sequence: repeated, it takes one more, and that is no harm. */
    int result = pg_read(&sql_next_port, PG_VALUES(PG_INT(first), PG_INT(last)), &rows);
    if (result)
        return result;
    *port = pg_i64(rows, 0, 0);
    pg_rows_free(rows);
    return 0;
}

int instance_to_waking(const struct job *job, int64_t port, struct instance *instance)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_to_waking,
                 PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key), PG_INT(port)), &rows);
    if (result)
        return result;
    result = instance_changed(job->arena, rows, JOB_SCALE, instance);
    return result == -ENOENT ? -ESTALE : result;
}

int instance_to_awake(struct job *job, int64_t pid, int64_t pid_started, int64_t port,
                      struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_to_awake,
                          PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key), PG_INT(pid),
                                    PG_INT(pid_started), PG_INT(port)),
                          &rows);
    return result ? result : changed(job, rows, JOB_DELIVER, instance);
}

int instance_to_draining(const struct job *job, struct instance *instance)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_to_draining, PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key)), &rows);
    if (result)
        return result;
    /* No row: the lease is lost, or somebody wants it awake after all. A look at the row tells. */
    result = instance_changed(job->arena, rows, JOB_SCALE, instance);
    return result == -ENOENT ? -EAGAIN : result;
}

int instance_undrain(const struct job *job, struct instance *instance)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_undrain, PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key)), &rows);
    if (result)
        return result;
    result = instance_changed(job->arena, rows, JOB_DELIVER, instance);
    if (result == 0)
        bell_announce(job->key);
    return result == -ENOENT ? -EAGAIN : result;
}

static int end_with_reason(const struct pg_statement *statement, struct job *job, struct str fail_reason,
                           struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_write(
        statement, PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key), PG_TEXT(fail_reason)),
        &rows);
    return result ? result : changed(job, rows, JOB_SCALE, instance);
}

int instance_to_asleep(struct job *job, struct str fail_reason, struct instance *instance)
{
    return end_with_reason(&sql_to_asleep, job, fail_reason, instance);
}

int instance_to_failed(struct job *job, struct str fail_reason, struct instance *instance)
{
    return end_with_reason(&sql_to_failed, job, fail_reason, instance);
}

int instance_remove(struct job *job)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_remove, PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_TEXT(job->key)), &rows);
    if (result)
        return result;
    bool mine = pg_bool(rows, 0, 1);
    job->finished |= mine;
    if (mine && !pg_is_null(rows, 0, 0))
        bell_ring(pg_str(rows, 0, 0), job->key);
    pg_rows_free(rows);
    return mine ? 0 : -ESTALE;
}

/* ---- visits ---- */

int instance_look_after(struct arena *arena, struct str id, int64_t generation, struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_look_after, PG_VALUES(PG_TEXT(id), PG_INT(generation)), &rows);
    return result ? result : instance_changed(arena, rows, JOB_SCALE, instance);
}

int instance_was_active(const struct str *ids, const int64_t *ages_ms, size_t count, bool *noted)
{
    struct pg_rows *rows;
    CHECK(count <= INSTANCE_ACTIVE_MAX);
    memset(noted, 0, count * sizeof *noted);
    int result = pg_write(&sql_was_active, PG_VALUES(PG_TEXTS(ids, count), PG_INTS(ages_ms, count)), &rows);
    if (result)
        return result;
    struct arena arena;
    arena_init(&arena);
    for (size_t i = 0; i < pg_count(rows); i++) {
        struct instance instance;
        instance_from_row(&arena, rows, i, &instance);
        instance_publish(&instance);
        noted[pg_i64(rows, i, INSTANCE_COLUMN_COUNT) - 1] = true;
    }
    arena_clear(&arena);
    pg_rows_free(rows);
    return 0;
}

/* ---- sweeps ---- */

/* Runs a statement that changes one instance and may add a scale job; no row is no error. */
static int sweep_one(const struct pg_statement *statement, const struct pg_value *values, size_t count)
{
    struct pg_rows *rows;
    int result = pg_write(statement, values, count, &rows);
    if (result)
        return result;
    struct arena arena;
    struct instance instance;
    arena_init(&arena);
    result = instance_changed(&arena, rows, JOB_SCALE, &instance);
    arena_clear(&arena);
    return result == -ENOENT ? 0 : result;
}

int instance_pod_lost(struct str id, int64_t generation)
{
    int result = sweep_one(&sql_pod_lost, PG_VALUES(PG_TEXT(id), PG_INT(generation)));
    if (result)
        return result;
    bell_announce(id);
    event_added();
    return 0;
}

int instance_sleep_idle(struct str id)
{
    return sweep_one(&sql_sleep_idle, PG_VALUES(PG_INT(config->idle_timeout_s), PG_TEXT(id)));
}

int instance_touch(struct str id)
{
    return sweep_one(&sql_touch, PG_VALUES(PG_TEXT(id)));
}

static int read_all(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
                    size_t value_count, struct instance **instances, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(statement, values, value_count, &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *instances = arena_alloc(arena, *count * sizeof **instances);
    for (size_t i = 0; i < *count; i++)
        instance_from_row(arena, rows, i, &(*instances)[i]);
    pg_rows_free(rows);
    return 0;
}

int instance_idle(struct arena *arena, struct instance **instances, size_t *count)
{
    return read_all(arena, &sql_idle, PG_VALUES(PG_INT(config->idle_timeout_s)), instances, count);
}

int instance_with_pod(struct arena *arena, struct instance **instances, size_t *count)
{
    return read_all(arena, &sql_with_pod, PG_NO_VALUES, instances, count);
}

static int ring_all(const struct pg_statement *statement, enum job_kind kind)
{
    struct pg_rows *rows;
    int result = pg_write(statement, PG_NO_VALUES, &rows);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows); i++)
        queue_ring(kind, pg_str(rows, i, 0), pg_i64(rows, i, 1));
    pg_rows_free(rows);
    return 0;
}

int instance_reconcile(void)
{
    int result = pg_write(&sql_give_up, PG_NO_VALUES, NULL);
    if (result == 0)
        result = ring_all(&sql_unscaled, JOB_SCALE);
    if (result == 0)
        result = ring_all(&sql_undelivered, JOB_DELIVER);
    return result;
}
