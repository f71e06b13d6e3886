/*
 * What keeps the queue going by itself: the keeper shows that the jobs here are alive and takes over those whose
 * worker is not; the reconciler rings again what is due and was not heard. Every worker has both and none is the
 * leader: rows that one holds the others pass over.
 */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/store/pg.h"

#include <errno.h>
#include <stdlib.h>

enum {
    RETRY_MS = 1000, /* after a heartbeat that did not get through */
    DIRECT_MS = 20,  /* between two claims without rings while there is more */
    EXPIRE_MAX = 256
};

static const struct pg_statement extend_leases = {"job_extend", "SELECT job_extend($1, $2, $3)"};
static const struct pg_statement expire_leases = {
    "job_expire", "SELECT id, kind, tenant, key, outcome FROM job_expire($1)"};
static const struct pg_statement list_late = {"job_ring", "SELECT id, kind, tenant FROM job_ring($1)"};
static const struct pg_statement list_all_due = {"job_all_due",
                                                 "SELECT id, kind, tenant FROM job_all_due($1, $2)"};

/* ---- heartbeat ---- */

static int compare_ids(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a;
    int64_t second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

/* Gathers all that hold a lease. */
static size_t gather(struct pool *pool, int64_t *ids, int64_t *fences)
{
    struct link *heads[] = {&pool->running, &pool->settling};
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
        LIST_EACH (heads[i], item, after) {
            struct run *run = LIST_ENTRY(item, struct run, link);
            if (run->job.id == 0)
                continue;
            run->extended = true;
            ids[count] = run->job.id;
            fences[count++] = run->job.fence;
        }
    return count;
}

/* Ends the jobs that were asked for and are not among the `kept`, which are sorted. One that has ended its row by
 * itself, or waits for its end to be committed, has nothing to lose. */
static void cancel_lost(struct pool *pool, const int64_t *kept, size_t count)
{
    LIST_EACH (&pool->running, item, after) {
        struct run *run = LIST_ENTRY(item, struct run, link);
        if (!run->extended || !run->fiber || run->job.finished || run->lost ||
            bsearch(&run->job.id, kept, count, sizeof *kept, compare_ids))
            continue;
        run->lost = true;
        metric_add_slot(M_JOBS_FENCED, run->job.kind, 1);
        fiber_cancel(run->fiber);
    }
}

static int extend(struct pool *pool)
{
    struct arena arena;
    arena_init(&arena);
    int64_t *ids = arena_alloc(&arena, (pool->jobs.count + 1) * sizeof *ids);
    int64_t *fences = arena_alloc(&arena, (pool->jobs.count + 1) * sizeof *fences);
    size_t count = gather(pool, ids, fences);
    struct pg_rows *rows = NULL;
    int result = 0;
    if (count > 0)
        result =
            pg_write(&extend_leases,
                     PG_VALUES(PG_INTS(ids, count), PG_INTS(fences, count), PG_INT(pool->lease_ms)), &rows);
    if (count > 0 && result == 0) {
        size_t kept = pg_count(rows);
        for (size_t row = 0; row < kept; row++)
            ids[row] = pg_i64(rows, row, 0);
        qsort(ids, kept, sizeof *ids, compare_ids);
        cancel_lost(pool, ids, kept);
    }
    pg_rows_free(rows);
    LIST_EACH (&pool->running, item, after)
        LIST_ENTRY(item, struct run, link)->extended = false;
    arena_clear(&arena);
    return result;
}

void keeper_run(void *arg)
{
    struct pool *pool = arg;
    uint64_t pause_ms = pool->lease_ms / 3;
    uint64_t retry_ms = pause_ms < RETRY_MS ? pause_ms : RETRY_MS;
    int result = 0;
    while (fiber_sleep_ms(result ? retry_ms : jitter_ms(pause_ms * 4 / 5)) == 0) {
        ack_flush(&pool->ack_flush); /* what is left from when Redis was away */
        result = extend(pool);
        ack_heartbeat(pool);
        if (!pool->draining)
            ack_take_over(pool);
    }
    pool->keeper = NULL;
    group_done(&pool->helpers);
}

/* ---- reconciler ---- */

/* Rings the rows (id, kind, tenant). False when Redis does not take it. */
static bool ring_rows(const struct pg_rows *rows)
{
    struct arena arena;
    arena_init(&arena);
    struct queue_bell *bells = arena_alloc(&arena, (pg_count(rows) + 1) * sizeof *bells);
    size_t count = 0;
    for (size_t row = 0; row < pg_count(rows); row++)
        if (job_kind_of(pg_str(rows, row, 1), &bells[count].kind) == 0) {
            bells[count].tenant = pg_str(rows, row, 2);
            bells[count++].job_id = pg_i64(rows, row, 0);
        }
    int result = queue_ring_all(bells, count);
    if (result == 0)
        metric_add(M_JOBS_RERUNG, (int64_t)count);
    arena_clear(&arena);
    return result == 0;
}

static void ring_late(struct pool *pool)
{
    struct pg_rows *rows = NULL;
    int result = pg_write(&list_late, PG_VALUES(PG_INT(BATCH_MAX)), &rows);
    pool->deaf = result == 0 && !ring_rows(rows);
    pg_rows_free(rows);
}

/* Redis was emptied: rings every row that is due. */
static void ring_all_due(struct pool *pool)
{
    int64_t after = 0;
    size_t count = BATCH_MAX;
    bool rung = true;
    while (rung && count == BATCH_MAX && !pool->draining) {
        struct pg_rows *rows = NULL;
        rung = pg_read(&list_all_due, PG_VALUES(PG_INT(after), PG_INT(BATCH_MAX)), &rows) == 0;
        count = rung ? pg_count(rows) : 0;
        if (count)
            after = pg_i64(rows, count - 1, 0);
        rung = rung && ring_rows(rows);
        pg_rows_free(rows);
    }
    pool->rings_lost = !rung; /* then again in the next round */
}

static void expire(struct pool *pool)
{
    struct pg_rows *rows = NULL;
    int result = pg_write(&expire_leases, PG_VALUES(PG_INT(EXPIRE_MAX)), &rows);
    struct str *kinds = mem_alloc(EXPIRE_MAX * sizeof *kinds);
    struct str *keys = mem_alloc(EXPIRE_MAX * sizeof *keys);
    size_t keyed = 0;
    for (size_t row = 0; result == 0 && row < pg_count(rows); row++) {
        enum job_kind kind;
        bool dead = str_equal(pg_str(rows, row, 4), STR("dead"));
        bool known = job_kind_of(pg_str(rows, row, 1), &kind) == 0;
        if (known)
            metric_add_slot(M_JOBS_CRASHED, kind, 1);
        if (known && dead)
            metric_add_slot(M_JOBS_DEAD, kind, 1);
        log_write(dead ? LOG_ERROR : LOG_WARN, "job",
                  (const struct log_field[]){LOG_STR("kind", pg_str(rows, row, 1)),
                                             LOG_INT("id", pg_i64(rows, row, 0)),
                                             LOG_STR("tenant", pg_str(rows, row, 2)),
                                             LOG_STR("key", pg_str(rows, row, 3)),
                                             LOG_STR("outcome", pg_str(rows, row, 4)),
                                             LOG_TEXT("reason", "its lease ran out"),
                                             {.name = NULL}});
        if (!pg_is_null(rows, row, 3)) {
            kinds[keyed] = pg_str(rows, row, 1);
            keys[keyed++] = pg_str(rows, row, 3);
        } else if (known && !dead) {
            ring_later(pool, &(struct queue_bell){kind, pg_str(rows, row, 2), pg_i64(rows, row, 0)}, 1, 0);
        }
    }
    ring_followers(pool, kinds, keys, keyed);
    free(kinds);
    free(keys);
    pg_rows_free(rows);
}

/* Redis takes writes: it is there, and has memory left. */
static bool redis_takes_writes(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    int result = redis_call(redis_shared(), &reply, &arena, STR("SET"), STR("jobs:probe"), STR("1"),
                            STR("PX"), STR("1000"));
    arena_clear(&arena);
    return result == 0;
}

static void ring(struct pool *pool)
{
    if (pool->rings_lost)
        ring_all_due(pool);
    ring_late(pool);
}

/* One round. True when there is more to claim at once. */
static bool reconcile(struct pool *pool)
{
    expire(pool);
    if (!redis_is_up(pool->redis) || (pool->deaf && !redis_takes_writes()))
        pool->deaf = true;
    else
        ring(pool);
    return pool->deaf && claim_due(pool) > 0;
}

/* A wait that reconciler_wake ends. */
static int rest(struct pool *pool, uint64_t ms)
{
    struct wait wait = WAIT_INIT;
    pool->reconciler_waiter = &wait;
    int result = wait_for(&wait, "the next round", clock_in_ms(ms));
    pool->reconciler_waiter = NULL;
    return result == -ETIMEDOUT ? 0 : result;
}

void reconciler_run(void *arg)
{
    struct pool *pool = arg;
    while (!pool->draining) {
        bool more = reconcile(pool);
        uint64_t ms = more ? DIRECT_MS : jitter_ms((uint64_t)config->reconcile_ms);
        if (!pool->draining && rest(pool, ms))
            break;
    }
    group_done(&pool->helpers);
}

void reconciler_wake(struct pool *pool)
{
    if (pool->reconciler_waiter)
        wait_done(pool->reconciler_waiter, 0);
}
