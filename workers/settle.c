/*
 * How durable jobs end. One fiber takes all that ended since it last looked and commits their ends: one statement
 * deletes what is done, one puts back or aside what is not. It repeats them until PostgreSQL has answered: both are
 * guarded by the fence, so that a repetition changes nothing.
 */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/store/pg.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PAUSE_MAX_MS = 1000,
    RING_LATER_MAX_MS = 2000, /* longer pauses are the reconciler's */
    LATERS_MAX = 1024
};

static const struct pg_statement end_done = {"job_done_all", "SELECT job_done_all($1, $2)"};
static const struct pg_statement end_other = {
    "job_return",
    "SELECT id, job_return(id, fence, delay_ms, failed::int, 0, aside = 1, nullif(reason, '')) "
    "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[]) "
    "AS run (id, fence, delay_ms, failed, aside, reason)"};
static const struct pg_statement list_followers = {"job_followers",
                                                   "SELECT id, kind, tenant FROM job_followers($1, $2)"};

/* What one statement ends. */
struct batch {
    struct pool *pool;
    struct arena arena;
    struct run *runs[BATCH_MAX];
    const char *outcomes[BATCH_MAX];
    int64_t ids[BATCH_MAX];
    int64_t fences[BATCH_MAX];
    int64_t delays_ms[BATCH_MAX];
    int64_t failed[BATCH_MAX];
    int64_t aside[BATCH_MAX];
    struct str reasons[BATCH_MAX];
    size_t count;
};

/* ---- rings ---- */

struct later {
    struct link link; /* in pool->laters while it waits for its time */
    struct pool *pool;
    struct fiber *fiber;
    struct arena arena;
    struct queue_bell *bells;
    size_t count;
    uint64_t delay_ms;
};

static void later_run(void *arg)
{
    struct later *later = arg;
    struct pool *pool = later->pool;
    int result = later->delay_ms ? fiber_sleep_ms(later->delay_ms) : 0;
    list_remove(&later->link);
    if (result == 0)
        result = queue_ring_all(later->bells, later->count);
    if (result && result != -ECANCELED)
        pool->deaf = true; /* the reconciler sees to the rows */
    arena_clear(&later->arena);
    free(later);
    pool->later_count--;
    group_done(&pool->helpers);
}

void ring_later(struct pool *pool, const struct queue_bell *bells, size_t count, uint64_t delay_ms)
{
    if (count == 0 || delay_ms > RING_LATER_MAX_MS || pool->later_count >= LATERS_MAX)
        return;
    struct later *later = mem_zalloc(sizeof *later);
    arena_init(&later->arena);
    later->pool = pool;
    later->count = count;
    later->delay_ms = delay_ms;
    later->bells = arena_alloc(&later->arena, count * sizeof *bells);
    for (size_t i = 0; i < count; i++) {
        later->bells[i] = bells[i];
        later->bells[i].tenant = arena_str(&later->arena, bells[i].tenant);
    }
    list_init(&later->link);
    pool->later_count++;
    group_add(&pool->helpers);
    later->fiber = fiber_start(pool->loop, "job ring", later_run, later);
    if (delay_ms)
        list_push_back(&pool->laters, &later->link);
}

void ring_later_cancel(struct pool *pool)
{
    LIST_EACH (&pool->laters, item, after)
        fiber_cancel(LIST_ENTRY(item, struct later, link)->fiber);
}

void ring_followers(struct pool *pool, const struct str *kinds, const struct str *keys, size_t count)
{
    if (count == 0)
        return;
    struct pg_rows *rows = NULL;
    int result = pg_read(&list_followers, PG_VALUES(PG_TEXTS(kinds, count), PG_TEXTS(keys, count)), &rows);
    struct queue_bell bells[BATCH_MAX / 8];
    size_t found = 0;
    for (size_t row = 0; result == 0 && row < pg_count(rows); row++) {
        if (job_kind_of(pg_str(rows, row, 1), &bells[found].kind))
            continue;
        bells[found].job_id = pg_i64(rows, row, 0);
        bells[found].tenant = pg_str(rows, row, 2);
        if (++found == ARRAY_SIZE(bells)) {
            ring_later(pool, bells, found, 0);
            found = 0;
        }
    }
    ring_later(pool, bells, found, 0);
    pg_rows_free(rows);
}

/* Whoever ended with a key makes room for the next one of that key. */
static void ring_behind(struct batch *batch)
{
    struct str *kinds = arena_alloc(&batch->arena, batch->count * sizeof *kinds);
    struct str *keys = arena_alloc(&batch->arena, batch->count * sizeof *keys);
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct job *job = &batch->runs[i]->job;
        if (!job->key.at)
            continue;
        kinds[count] = str_from(job_policies[job->kind].name);
        keys[count++] = job->key;
    }
    ring_followers(batch->pool, kinds, keys, count);
}

/* ---- statements ---- */

/* Repeats the statement until it was carried out, or the pool is abandoned. `unsure` tells that an earlier attempt
 * may have been. */
static int commit(struct pool *pool, const struct pg_statement *statement, const struct pg_value *values,
                  size_t count, struct pg_rows **rows, bool *unsure)
{
    *unsure = false;
    for (uint64_t pause_ms = 20;; pause_ms = pause_ms < PAUSE_MAX_MS / 2 ? 2 * pause_ms : PAUSE_MAX_MS) {
        int result = pg_write(statement, values, count, rows);
        if (result == 0 || pool->abandoned)
            return result;
        *unsure |= result == -ECONNRESET || result == -ETIMEDOUT;
        result = fiber_sleep_ms(jitter_ms(pause_ms));
        CHECK(result == 0);
    }
}

static void finish(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        run_finish(batch->runs[i], batch->outcomes[i]);
    arena_clear(&batch->arena);
    batch->count = 0;
}

static void count_lost(struct batch *batch, size_t i)
{
    batch->runs[i]->end = RUN_LOST;
    batch->outcomes[i] = "fenced";
    metric_add_slot(M_JOBS_FENCED, batch->runs[i]->job.kind, 1);
}

static int compare_ids(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a;
    int64_t second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

static void settle_done(struct batch *batch)
{
    struct pg_rows *rows = NULL;
    bool unsure;
    for (size_t i = 0; i < batch->count; i++)
        batch->outcomes[i] = "done";
    int result = commit(batch->pool, &end_done,
                        PG_VALUES(PG_INTS(batch->ids, batch->count), PG_INTS(batch->fences, batch->count)),
                        &rows, &unsure);
    size_t ended = result == 0 ? pg_count(rows) : 0;
    if (result == 0 && ended < batch->count && !unsure) {
        int64_t *found = arena_alloc(&batch->arena, (ended + 1) * sizeof *found);
        for (size_t row = 0; row < ended; row++)
            found[row] = pg_i64(rows, row, 0);
        qsort(found, ended, sizeof *found, compare_ids);
        for (size_t i = 0; i < batch->count; i++)
            if (!bsearch(&batch->ids[i], found, ended, sizeof *found, compare_ids))
                count_lost(batch, i);
    }
    pg_rows_free(rows);
}

/* What a run's end asks of job_return. */
static void describe(struct batch *batch, size_t i)
{
    struct run *run = batch->runs[i];
    const struct job_policy *policy = &job_policies[run->job.kind];
    bool failed = run->end == RUN_FAILED;
    bool pauses = failed || run->end == RUN_AGAIN;
    batch->failed[i] = failed;
    batch->aside[i] = failed && run->job.tries + 1 >= policy->tries;
    batch->delays_ms[i] = pauses ? (int64_t)run_backoff_ms(run) : 0;
    batch->reasons[i] = failed ? str_from(run->reason) : STR("");
}

static void take_outcome(struct batch *batch, size_t i, struct str outcome, bool unsure)
{
    static const char *const names[] = {"queued", "merged", "dead", "lost"};
    const struct run *run = batch->runs[i];
    size_t name = 0;
    while (!str_equal(outcome, str_from(names[name])))
        CHECK(++name < ARRAY_SIZE(names));
    batch->outcomes[i] = names[name];
    if (strcmp(names[name], "lost") == 0 && !unsure && !run->job.finished)
        count_lost(batch, i);
    struct queue_bell bell = {run->job.kind, run->job.tenant, run->job.id};
    if (strcmp(names[name], "queued") == 0 && (batch->delays_ms[i] || !run->job.key.at))
        ring_later(batch->pool, &bell, 1, (uint64_t)batch->delays_ms[i]);
}

static void settle_other(struct batch *batch)
{
    struct pg_rows *rows = NULL;
    bool unsure;
    for (size_t i = 0; i < batch->count; i++) {
        describe(batch, i);
        batch->outcomes[i] = "left to its lease";
    }
    int result =
        commit(batch->pool, &end_other,
               PG_VALUES(PG_INTS(batch->ids, batch->count), PG_INTS(batch->fences, batch->count),
                         PG_INTS(batch->delays_ms, batch->count), PG_INTS(batch->failed, batch->count),
                         PG_INTS(batch->aside, batch->count), PG_TEXTS(batch->reasons, batch->count)),
               &rows, &unsure);
    /* unnest keeps the order of the arrays */
    for (size_t i = 0; result == 0 && i < batch->count; i++) {
        CHECK(pg_i64(rows, i, 0) == batch->ids[i]);
        take_outcome(batch, i, pg_str(rows, i, 1), unsure);
    }
    pg_rows_free(rows);
}

/* ---- the settler ---- */

/* Why a run needs no statement of ours: its own has ended the row, or the row is another's. */
static const char *settled_already(const struct run *run)
{
    if (run->end == RUN_LOST)
        return "fenced";
    return run->end == RUN_DONE && run->job.finished ? "done" : NULL;
}

enum kind_of_end { END_ALREADY, END_DONE, END_OTHER, ENDS };

static enum kind_of_end kind_of_end(const struct run *run)
{
    if (settled_already(run))
        return END_ALREADY;
    return run->end == RUN_DONE ? END_DONE : END_OTHER;
}

/* Takes the runs that end in one way, up to BATCH_MAX. */
static void take(struct batch *batch, enum kind_of_end kind)
{
    LIST_EACH (&batch->pool->settling, item, after) {
        struct run *run = LIST_ENTRY(item, struct run, link);
        if (kind_of_end(run) != kind || batch->count == BATCH_MAX)
            continue;
        batch->runs[batch->count] = run;
        batch->ids[batch->count] = run->job.id;
        batch->fences[batch->count] = run->job.fence;
        batch->outcomes[batch->count++] = settled_already(run);
    }
}

static void settle(struct batch *batch)
{
    static void (*const settlers[ENDS])(struct batch *) = {
        [END_DONE] = settle_done, [END_OTHER] = settle_other};
    for (unsigned kind = 0; kind < ENDS; kind++) {
        take(batch, (enum kind_of_end)kind);
        if (batch->count == 0)
            continue;
        if (settlers[kind])
            settlers[kind](batch);
        ring_behind(batch);
        finish(batch);
    }
}

void settle_run(void *arg)
{
    struct pool *pool = arg;
    struct batch *batch = mem_zalloc(sizeof *batch);
    batch->pool = pool;
    arena_init(&batch->arena);
    fiber_hold(); /* only the pool ends it */
    while (!pool->abandoned || !list_empty(&pool->settling)) {
        if (!list_empty(&pool->settling)) {
            settle(batch);
            continue;
        }
        struct wait wait = WAIT_INIT;
        pool->settle_waiter = &wait;
        int result = wait_for(&wait, "jobs to end", CLOCK_NEVER);
        pool->settle_waiter = NULL;
        CHECK(result == 0);
    }
    fiber_release();
    free(batch);
    group_done(&pool->helpers);
}

void settle_wake(struct pool *pool)
{
    if (pool->settle_waiter)
        wait_done(pool->settle_waiter, 0);
}

void settle_add(struct run *run)
{
    struct pool *pool = run->pool;
    list_remove(&run->link);
    list_push_back(&pool->settling, &run->link);
    settle_wake(pool);
}
