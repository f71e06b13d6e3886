/* The operator's view of the job queue, and the measure of its speed. */
#include "core/domain/instance/job.h"

#include "core/base/clock.h"
#include "core/domain/audit.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <errno.h>

enum { LOOK_MS = 10, PATIENCE_MS = 10000 };

static const struct pg_statement list_dead = {
    "job_list_dead",
    "SELECT id, kind, tenant, key, last_error, (extract(epoch FROM created_at) * 1000)::bigint, "
    "tries, crashes FROM job WHERE state = 'dead' AND id > $1 ORDER BY id LIMIT $2"};
static const struct pg_statement redrive_one = {
    "job_redrive",
    "WITH again AS (SELECT job.id, kind, tenant FROM job_redrive($1::bigint) AS one (id) JOIN job ON job.id = one.id)" AUDIT(
        "$2", "job.redrive", "again", "NULL::bigint", "again.id") "SELECT id, kind, tenant FROM again"};
static const struct pg_statement list_dead_of_kind = {
    "job_list_dead_of_kind",
    "SELECT id FROM job WHERE state = 'dead' AND kind = $1 AND id > $2 ORDER BY id LIMIT 500"};
static const struct pg_statement count_jobs = {
    "job_counts", "SELECT kind, state, count(*), extract(epoch FROM now() - min(created_at))::bigint "
                  "FROM job GROUP BY kind, state ORDER BY kind, state"};
static const struct pg_statement count_between = {
    "job_count_between",
    "SELECT count(*) FROM job WHERE id BETWEEN $1 AND $2 AND kind = 'ping' AND state <> 'dead'"};

/* ---- looking ---- */

static struct str text_at(struct arena *arena, const struct pg_rows *rows, size_t row, int column)
{
    return pg_is_null(rows, row, column) ? STR_NONE : arena_str(arena, pg_str(rows, row, column));
}

int job_list_dead(struct arena *arena, int64_t after, size_t limit, struct job_row **out, size_t *count)
{
    struct pg_rows *rows = NULL;
    int result = pg_read(&list_dead, PG_VALUES(PG_INT(after), PG_INT(limit)), &rows);
    *count = result == 0 ? pg_count(rows) : 0;
    *out = arena_alloc(arena, (*count + 1) * sizeof **out);
    for (size_t row = 0; row < *count; row++)
        (*out)[row] = (struct job_row){
            .id = pg_i64(rows, row, 0),
            .kind = text_at(arena, rows, row, 1),
            .tenant = text_at(arena, rows, row, 2),
            .key = text_at(arena, rows, row, 3),
            .last_error = text_at(arena, rows, row, 4),
            .created_ms = pg_i64(rows, row, 5),
            .tries = (unsigned)pg_i64(rows, row, 6),
            .crashes = (unsigned)pg_i64(rows, row, 7),
        };
    pg_rows_free(rows);
    return result;
}

int job_counts(struct arena *arena, struct job_count **out, size_t *count)
{
    struct pg_rows *rows = NULL;
    int result = pg_read(&count_jobs, PG_NO_VALUES, &rows);
    *count = result == 0 ? pg_count(rows) : 0;
    *out = arena_alloc(arena, (*count + 1) * sizeof **out);
    for (size_t row = 0; row < *count; row++)
        (*out)[row] = (struct job_count){
            .kind = text_at(arena, rows, row, 0),
            .state = text_at(arena, rows, row, 1),
            .count = pg_i64(rows, row, 2),
            .oldest_s = pg_i64(rows, row, 3),
        };
    pg_rows_free(rows);
    return result;
}

/* ---- once more ---- */

int job_redrive(int64_t id)
{
    struct pg_rows *rows = NULL;
    int result = pg_write(&redrive_one, PG_VALUES(PG_INT(id), AUDIT_WHO), &rows);
    if (result == 0 && pg_count(rows) == 0)
        result = -ENOENT;
    struct queue_bell bell = {0};
    if (result == 0 && job_kind_of(pg_str(rows, 0, 1), &bell.kind) == 0) {
        bell.job_id = pg_i64(rows, 0, 0);
        bell.tenant = pg_str(rows, 0, 2);
        int ignored = queue_ring_all(&bell, 1); /* else the reconciler rings it */
        (void)ignored;
    }
    pg_rows_free(rows);
    return result;
}

int job_redrive_kind(enum job_kind kind, size_t *count)
{
    int64_t after = 0;
    size_t found = 1;
    int result = 0;
    *count = 0;
    while (result == 0 && found > 0) {
        struct pg_rows *rows = NULL;
        result = pg_read(&list_dead_of_kind,
                         PG_VALUES(PG_TEXT(str_from(job_policies[kind].name)), PG_INT(after)), &rows);
        found = result == 0 ? pg_count(rows) : 0;
        for (size_t row = 0; row < found && (result == 0 || result == -ENOENT); row++) {
            after = pg_i64(rows, row, 0);
            result = job_redrive(after);
            *count += result == 0;
        }
        pg_rows_free(rows);
        if (result == -ENOENT) /* another was faster with the last one */
            result = 0;
    }
    return result;
}

/* ---- how fast ---- */

struct pinger {
    uint64_t left;    /* to be added */
    unsigned tenants; /* one for each fiber, so that all lanes are used */
    bool durable;
    int64_t first_id;
    int64_t last_id;
    int result;
    struct group fibers;
};

static int ping_one(struct pinger *pinger, struct str tenant)
{
    if (!pinger->durable)
        return queue_add_volatile(JOB_PING_VOLATILE, tenant, STR_NONE);
    int64_t id;
    int result = queue_add(JOB_PING, tenant, STR_NONE, STR_NONE, 0, &id);
    if (result)
        return result;
    if (!pinger->first_id || id < pinger->first_id)
        pinger->first_id = id;
    if (id > pinger->last_id)
        pinger->last_id = id;
    return 0;
}

static void ping_run(void *arg)
{
    struct pinger *pinger = arg;
    char digits[24];
    struct str tenant = str_of(digits, format_u64(digits, ++pinger->tenants));
    while (pinger->left > 0 && pinger->result == 0) {
        pinger->left--;
        int result = ping_one(pinger, tenant);
        if (result)
            pinger->result = result;
    }
    group_done(&pinger->fibers);
}

/* Rows that are not done yet. */
static int rows_left(const struct pinger *pinger, int64_t *left)
{
    struct pg_rows *rows = NULL;
    int result = pg_read(&count_between, PG_VALUES(PG_INT(pinger->first_id), PG_INT(pinger->last_id)), &rows);
    if (result == 0)
        *left = pg_i64(rows, 0, 0);
    pg_rows_free(rows);
    return result;
}

/* Entries that are not done yet: one is taken out of its lane when it is. */
static int entries_left(int64_t *left)
{
    struct arena arena;
    arena_init(&arena);
    char keys[QUEUE_LANES][QUEUE_KEY_SIZE];
    struct str words[QUEUE_LANES][2];
    struct redis_step steps[QUEUE_LANES] = {0};
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
        words[lane][0] = STR("XLEN");
        words[lane][1] = queue_lane_key(keys[lane], job_policies[JOB_PING_VOLATILE].queue, lane);
        steps[lane].args = words[lane];
        steps[lane].count = 2;
    }
    int result = redis_steps(redis_shared(), &arena, steps, QUEUE_LANES);
    *left = 0;
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
        if (result == 0)
            result = steps[lane].result;
        *left += steps[lane].reply.integer;
    }
    arena_clear(&arena);
    return result;
}

static int wait_until_done(const struct pinger *pinger)
{
    int64_t before = INT64_MAX;
    uint64_t patience_ns = clock_in_ms(PATIENCE_MS);
    for (;;) {
        int64_t left;
        int result = pinger->durable ? rows_left(pinger, &left) : entries_left(&left);
        if (result || left == 0)
            return result;
        if (left < before)
            patience_ns = clock_in_ms(PATIENCE_MS);
        before = left;
        if (clock_now_ns() > patience_ns)
            return -ETIMEDOUT;
        result = fiber_sleep_ms(LOOK_MS);
        if (result)
            return result;
    }
}

int job_ping(uint64_t count, bool durable, unsigned fibers, struct job_ping_times *times)
{
    struct pinger pinger = {.left = count, .durable = durable};
    uint64_t start_ns = clock_now_ns();
    for (unsigned i = 0; i < fibers; i++) {
        group_add(&pinger.fibers);
        fiber_start(loop_self(), "job ping", ping_run, &pinger);
    }
    fiber_hold(); /* the fibers use what stands on this one's stack */
    int result = group_wait(&pinger.fibers, "pings to be added", CLOCK_NEVER);
    fiber_release();
    times->added_ns = clock_now_ns() - start_ns;
    if (result == 0)
        result = pinger.result;
    if (result == 0 && count > 0)
        result = wait_until_done(&pinger);
    times->done_ns = clock_now_ns() - start_ns;
    return result;
}
