/* The worker pool's life, its slots, and the fiber in which a job runs. pool_internal.h says where the rest is. */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    POOL_MAGIC = 0x706f6f6c,
    GRACE_MS = 5000, /* for the ends of cancelled jobs to be committed */
};

uint64_t jitter_ms(uint64_t ms)
{
    uint64_t random;
    crypto_random(&random, sizeof random);
    return ms - ms / 4 + random % (ms / 2 + 1);
}

/* ---- slots ---- */

void pool_slots_free(struct pool *pool, size_t count)
{
    pool->free += (unsigned)count;
    if (count && pool->slot_waiter)
        wait_done(pool->slot_waiter, 0);
}

int pool_slot_wait(struct pool *pool)
{
    while (pool->free == 0 && !pool->draining) {
        struct wait wait = WAIT_INIT;
        pool->slot_waiter = &wait;
        int result = wait_for(&wait, "a free slot", CLOCK_NEVER);
        pool->slot_waiter = NULL;
        if (result)
            return result;
    }
    return pool->draining ? -ECANCELED : 0;
}

/* ---- one job ---- */

struct run *run_new(struct pool *pool, enum job_kind kind)
{
    struct run *run = mem_zalloc(sizeof *run);
    run->pool = pool;
    run->job.kind = kind;
    run->job.arena = &run->arena;
    arena_init(&run->arena);
    list_push_back(&pool->running, &run->link);
    group_add(&pool->jobs);
    return run;
}

int job_fail(struct job *job, int code, const char *format, ...)
{
    struct run *run = CONTAINER_OF(job, struct run, job);
    char reason[REASON_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    run->reason = arena_strdup(&run->arena, reason);
    return code;
}

uint64_t run_backoff_ms(const struct run *run)
{
    const struct job_policy *policy = &job_policies[run->job.kind];
    uint64_t ms = policy->backoff_ms;
    for (unsigned i = 0; i < run->job.tries && ms < policy->backoff_max_ms; i++)
        ms *= 2;
    return jitter_ms(ms < policy->backoff_max_ms ? ms : policy->backoff_max_ms);
}

static enum run_end end_of(struct run *run, int result, bool too_late)
{
    switch (result) {
    case 0: return RUN_DONE;
    case -EAGAIN: return RUN_AGAIN;
    case -ESTALE: return RUN_LOST;
    case -ECANCELED:
        if (run->lost)
            return RUN_LOST;
        if (run->canceled || !too_late)
            return RUN_GIVEN_BACK;
        job_fail(&run->job, 0, "not done within %llu ms",
                 (unsigned long long)job_policies[run->job.kind].time_limit_ms());
        return RUN_FAILED;
    default:
        if (!run->reason)
            run->reason = log_errno(result);
        return RUN_FAILED;
    }
}

static const char *const end_names[] = {
    [RUN_DONE] = "done",   [RUN_FAILED] = "failed", [RUN_AGAIN] = "not now", [RUN_GIVEN_BACK] = "given back",
    [RUN_LOST] = "fenced",
};

/* A volatile job has no row: its entry is taken out, or put back. */
static void end_volatile(struct run *run)
{
    struct pool *pool = run->pool;
    if (run->end == RUN_GIVEN_BACK)
        ack_give_back(run);
    else
        ack_add(pool, run->entry);
    run_finish(run, run->end == RUN_DONE || run->end == RUN_GIVEN_BACK ? end_names[run->end] : "dead");
}

static void run_main(void *arg)
{
    struct run *run = arg;
    enum job_kind kind = run->job.kind;
    run->started_ns = clock_now_ns();
    metric_add(M_JOBS_RUNNING, 1);
    metric_observe_us(M_JOB_WAIT_SECONDS, kind, run->waited_ms > 0 ? (uint64_t)run->waited_ms * 1000 : 0);
    uint64_t deadline_ns = clock_in_ms(job_policies[kind].time_limit_ms());
    fiber_set_deadline(deadline_ns);
    int result = run->pool->handlers[kind](&run->job);
    run->fiber = NULL;
    run->ended_ns = clock_now_ns();
    metric_add(M_JOBS_RUNNING, -1);
    metric_observe_us(M_JOB_SECONDS, kind, (run->ended_ns - run->started_ns) / 1000);
    run->end = end_of(run, result, run->ended_ns >= deadline_ns);
    fiber_hold();
    if (job_policies[kind].durable)
        settle_add(run);
    else
        end_volatile(run);
    fiber_release();
}

void run_start(struct run *run)
{
    struct pool *pool = run->pool;
    if (pool->draining && job_policies[run->job.kind].durable) {
        run->end = RUN_GIVEN_BACK;
        settle_add(run);
        return;
    }
    run->fiber = fiber_start(pool->loop, job_policies[run->job.kind].name, run_main, run);
    run->canceled = pool->draining;
    if (run->canceled)
        fiber_cancel(run->fiber);
}

static void log_end(const struct run *run, const char *outcome, enum log_level level)
{
    if (!log_enabled(level))
        return;
    const struct job *job = &run->job;
    log_write(level, "job",
              (const struct log_field[]){LOG_TEXT("kind", job_policies[job->kind].name),
                                         LOG_INT("id", job->id),
                                         LOG_STR("tenant", job->tenant),
                                         LOG_STR("key", job->key),
                                         LOG_TEXT("outcome", outcome),
                                         LOG_INT("tries", job->tries),
                                         LOG_INT("crashes", job->crashes),
                                         LOG_INT("waited_ms", run->waited_ms),
                                         LOG_INT("ms", (run->ended_ns - run->started_ns) / CLOCK_MS),
                                         LOG_TEXT("reason", run->reason ? run->reason : ""),
                                         {.name = NULL}});
}

void run_finish(struct run *run, const char *outcome)
{
    struct pool *pool = run->pool;
    enum job_kind kind = run->job.kind;
    enum log_level level = LOG_DEBUG;
    switch (run->end) {
    case RUN_DONE: metric_add_slot(M_JOBS_DONE, kind, 1); break;
    case RUN_FAILED:
    case RUN_LOST: level = LOG_WARN; break;
    case RUN_AGAIN:
    case RUN_GIVEN_BACK: break;
    }
    if (strcmp(outcome, "dead") == 0) {
        metric_add_slot(M_JOBS_DEAD, kind, 1);
        level = LOG_ERROR;
    } else if (run->end == RUN_FAILED) {
        metric_add_slot(M_JOBS_RETRIED, kind, 1);
    }
    log_end(run, outcome, level);
    list_remove(&run->link);
    arena_clear(&run->arena);
    free(run);
    pool_slots_free(pool, 1);
    group_done(&pool->jobs);
}

/* ---- life ---- */

static int check_handlers(const struct job_handler *handlers, size_t count, char *error, size_t error_size)
{
    for (size_t i = 0; i < count; i++) {
        const struct job_policy *policy = &job_policies[handlers[i].kind];
        uint64_t limit_ms = policy->time_limit_ms();
        if ((uint64_t)config->job_lease_s * 1000 > limit_ms)
            continue;
        snprintf(error, error_size,
                 "JOB_LEASE_SECONDS is %lld, but must be above the time limit of a %s job, which is %llu ms",
                 (long long)config->job_lease_s, policy->name, (unsigned long long)limit_ms);
        return -EINVAL;
    }
    return 0;
}

/* All lanes of the queues that the handlers' kinds use, each queue once. */
static void make_lanes(struct pool *pool, const struct job_handler *handlers, size_t count)
{
    pool->lanes = mem_zalloc(count * QUEUE_LANES * sizeof *pool->lanes);
    for (size_t i = 0; i < count; i++) {
        const char *queue = job_policies[handlers[i].kind].queue;
        bool known = false;
        for (size_t j = 0; j < i; j++)
            known |= strcmp(job_policies[handlers[j].kind].queue, queue) == 0;
        for (unsigned number = 0; !known && number < QUEUE_LANES; number++) {
            struct lane *lane = &pool->lanes[pool->lane_count++];
            lane->key = queue_lane_key(lane->key_text, queue, number);
        }
    }
}

/* host.pid.random: an operator finds the process, and one that starts again is another. */
static void make_name(struct pool *pool)
{
    char host[33] = "";
    unsigned char random[4];
    gethostname(host, sizeof host - 1);
    crypto_random(random, sizeof random);
    snprintf(pool->name, sizeof pool->name, "%s.%ld.%02x%02x%02x%02x", host, (long)getpid(), random[0],
             random[1], random[2], random[3]);
}

static struct fiber *start_helper(struct pool *pool, struct group *group, const char *name, fiber_run *run)
{
    group_add(group);
    return fiber_start(pool->loop, name, run, pool);
}

struct pool *pool_open(struct loop *loop, const struct job_handler *handlers, size_t count, char *error,
                       size_t error_size)
{
    if (check_handlers(handlers, count, error, error_size))
        return NULL;
    struct pool *pool = mem_zalloc(sizeof *pool);
    MAGIC_SET(pool, POOL_MAGIC);
    pool->loop = loop;
    pool->lease_ms = (uint64_t)config->job_lease_s * 1000;
    pool->slots = pool->free = (unsigned)config->worker_concurrency;
    pool->ack_flush.run = ack_flush;
    list_init(&pool->running);
    list_init(&pool->settling);
    list_init(&pool->laters);
    for (size_t i = 0; i < count; i++) {
        pool->handlers[handlers[i].kind] = handlers[i].run;
        if (job_policies[handlers[i].kind].durable)
            pool->kinds[pool->kind_count++] = str_from(job_policies[handlers[i].kind].name);
    }
    make_lanes(pool, handlers, count);
    make_name(pool);
    pool->redis = redis_open("jobs", READ_BLOCK_MS + (uint64_t)config->redis_timeout_ms);
    pool->reader = start_helper(pool, &pool->intake, "job reader", reader_run);
    start_helper(pool, &pool->helpers, "job settler", settle_run);
    pool->keeper = start_helper(pool, &pool->helpers, "job keeper", keeper_run);
    start_helper(pool, &pool->helpers, "job reconciler", reconciler_run);
    LOG(INFO, "worker pool open", LOG_TEXT("worker", pool->name), LOG_INT("slots", pool->free),
        LOG_INT("lanes", pool->lane_count));
    return pool;
}

static void cancel_running(struct pool *pool)
{
    LIST_EACH (&pool->running, item, after) {
        struct run *run = LIST_ENTRY(item, struct run, link);
        run->canceled = true;
        if (run->fiber)
            fiber_cancel(run->fiber);
    }
}

void pool_drain(struct pool *pool, uint64_t deadline_ns)
{
    MAGIC_CHECK(pool, POOL_MAGIC);
    CHECK(!pool->draining);
    fiber_hold();
    pool->draining = true;
    LOG(INFO, "worker pool drains", LOG_TEXT("worker", pool->name), LOG_INT("running", pool->jobs.count));
    reader_wake(pool);
    reconciler_wake(pool);
    if (pool->slot_waiter)
        wait_done(pool->slot_waiter, -ECANCELED);
    int result = group_wait(&pool->intake, "the pool's intake", CLOCK_NEVER);
    CHECK(result == 0);
    if (group_wait(&pool->jobs, "running jobs", deadline_ns)) {
        cancel_running(pool);
        result = group_wait(&pool->jobs, "cancelled jobs", clock_in_ms(GRACE_MS));
    }
    pool->abandoned = true;
    cancel_running(pool);
    ring_later_cancel(pool);
    settle_wake(pool);
    if (pool->keeper)
        fiber_cancel(pool->keeper);
    result = group_wait(&pool->jobs, "abandoned jobs", CLOCK_NEVER);
    CHECK(result == 0);
    result = group_wait(&pool->helpers, "the pool's helpers", CLOCK_NEVER);
    CHECK(result == 0);
    CHECK(pool->free == pool->slots);
    ack_leave(pool);
    pool->drained = true;
    fiber_release();
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    MAGIC_CHECK(pool, POOL_MAGIC);
    if (!pool->drained)
        pool_drain(pool, 0);
    loop_flush_forget(&pool->ack_flush);
    redis_close(pool->redis);
    for (size_t i = 0; i < pool->lane_count; i++)
        free(pool->lanes[i].acks);
    free(pool->lanes);
    MAGIC_CLEAR(pool);
    free(pool);
}
