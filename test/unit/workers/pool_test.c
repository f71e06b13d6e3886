/* The worker pool against a real Redis and PostgreSQL: every job is done, once, whatever breaks. */
#include "workers/pool.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/job.h"
#include "core/run/fiber.h"
#include "core/store/pg.h"
#include "core/store/redis.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"
#include "workers/ping.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct services services;

/* ---- a loop with both stores and what the jobs do ---- */

static void set(const char *name, const char *value)
{
    char error[256];
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

/* What the test at hand lets a job do, and what has happened so far. */
static job_run *behaviour;
static int started;
static int ended;
static int running;
static int running_most;
static bool go; /* what held jobs wait for */

static int behave(struct job *job)
{
    started++;
    if (++running > running_most)
        running_most = running;
    int result = behaviour(job);
    running--;
    ended++;
    return result;
}

static int do_nothing(struct job *job)
{
    (void)job;
    return 0;
}

static int wait_for_go(struct job *job)
{
    (void)job;
    while (!go) {
        int result = fiber_sleep_ms(1);
        if (result)
            return result;
    }
    return 0;
}

static struct pool *open_pool(void)
{
    static const struct job_handler handlers[] = {
        {JOB_SCALE, behave}, {JOB_DELIVER, behave}, {JOB_PING, behave}, {JOB_PING_VOLATILE, behave}};
    char error[256] = "";
    struct pool *pool = pool_open(loop_self(), handlers, ARRAY_SIZE(handlers), error, sizeof error);
    assert_string_equal(error, "");
    assert_non_null(pool);
    return pool;
}

static int64_t sql(const char *text)
{
    return services_sql(&services, text);
}

static void redis_words(const struct str *words, size_t count, struct redis_value *reply, struct arena *arena)
{
    assert_int_equal(redis_command(redis_shared(), reply, arena, words, count), 0);
}
#define REDIS_DO(reply_, arena_, ...) redis_words(REDIS_ARGS(__VA_ARGS__), reply_, arena_)

/* An integer answer. */
#define REDIS_NUMBER(number_, ...)                                                                           \
    do {                                                                                                     \
        struct arena arena_n_;                                                                               \
        struct redis_value reply_n_;                                                                         \
        arena_init(&arena_n_);                                                                               \
        REDIS_DO(&reply_n_, &arena_n_, __VA_ARGS__);                                                         \
        (number_) = reply_n_.integer;                                                                        \
        arena_clear(&arena_n_);                                                                              \
    } while (0)

/* Entries in all lanes of the queue of pings. */
static int64_t entries(void)
{
    int64_t sum = 0;
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
        char key[QUEUE_KEY_SIZE];
        int64_t length;
        REDIS_NUMBER(length, STR("XLEN"), queue_lane_key(key, "ping", lane));
        sum += length;
    }
    return sum;
}

static int64_t add(const char *tenant, const char *key, uint64_t delay_ms)
{
    int64_t id = 0;
    assert_int_equal(queue_add(JOB_PING, str_from(tenant), str_from(key), STR_NONE, delay_ms, &id), 0);
    assert_true(id > 0);
    return id;
}

static void with_stores(void *arg)
{
    void (**body)(void) = arg;
    char error[256] = "";
    assert_int_equal(redis_open_loop(loop_self(), error, sizeof error), 0);
    assert_int_equal(pg_open_loop(loop_self(), error, sizeof error), 0);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    assert_int_equal(pg_wait_ready(clock_in_ms(20000)), 0);
    (*body)();
    pg_close_loop(loop_self());
    redis_close_loop(loop_self());
}

static void run(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", with_stores, &body);
    loop_close(&loop);
}

static void flush_redis(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    REDIS_DO(&reply, &arena, STR("FLUSHALL"));
    arena_clear(&arena);
}

static int setup(void **state)
{
    (void)state;
    char error[512] = "";
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&services, SERVICES_POSTGRES | SERVICES_REDIS);
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    set("DATABASE_URL", services.database_url);
    if (migrate_run(error, sizeof error)) {
        print_error("%s\n", error);
        return -1;
    }
    queue_name_metrics();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    log_close();
    return 0;
}

/* Each test finds an empty queue and the same settings. */
static int defaults(void **state)
{
    (void)state;
    set("DATABASE_URL", services.database_url);
    set("REDIS_URL", services.redis_url);
    set("POD_READY_TIMEOUT_MS", "100");
    set("POD_STOP_TIMEOUT_MS", "100");
    set("POD_ANSWER_TIMEOUT_MS", "100");
    set("POD_CONNECT_TIMEOUT_MS", "10");
    set("JOB_LEASE_SECONDS", "11");
    set("WORKER_CONCURRENCY", "256");
    set("RECONCILE_MS", "100");
    sql("TRUNCATE job");
    run(flush_redis);
    behaviour = do_nothing;
    started = ended = running = running_most = 0;
    go = false;
    return 0;
}

/* ---- done ---- */

static void done_body(void)
{
    struct pool *pool = open_pool();
    add("a", "k", 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR("{\"x\": 1}")), 0);
    UNTIL(ended == 2);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    UNTIL(entries() == 0);
    pool_close(pool);
    assert_int_equal(started, 2);
}

static void a_job_is_run_once_and_leaves_nothing(void **state)
{
    (void)state;
    run(done_body);
}

static struct job seen;

static int look(struct job *job)
{
    seen = *job;
    assert_true(str_equal(job->tenant, STR("tenant of\r\n\"it\"")));
    assert_true(str_equal(job->payload, STR("{\"x\": [1, \"\\\"\"]}")));
    return 0;
}

static void fields_body(void)
{
    int64_t id;
    struct pool *pool = open_pool();
    behaviour = look;
    assert_int_equal(
        queue_add(JOB_SCALE, STR("tenant of\r\n\"it\""), STR("key"), STR("{\"x\":[1,\"\\\"\"]}"), 0, &id), 0);
    UNTIL(ended == 1);
    assert_int_equal(seen.kind, JOB_SCALE);
    assert_int_equal(seen.id, id);
    assert_int_equal(seen.fence, 1);
    assert_int_equal(
        queue_add_volatile(JOB_PING_VOLATILE, STR("tenant of\r\n\"it\""), STR("{\"x\": [1, \"\\\"\"]}")), 0);
    UNTIL(ended == 2);
    assert_int_equal(seen.id, 0);
    assert_null(seen.key.at);
    pool_close(pool);
}

static void a_job_is_given_what_was_added(void **state)
{
    (void)state;
    run(fields_body);
}

static void delay_body(void)
{
    struct pool *pool = open_pool();
    uint64_t before_ns = clock_now_ns();
    add("a", NULL, 300);
    UNTIL(ended == 1);
    assert_true(clock_now_ns() - before_ns >= 300 * CLOCK_MS);
    pool_close(pool);
}

static void a_delayed_job_waits_for_its_time(void **state)
{
    (void)state;
    run(delay_body);
}

/* ---- not done ---- */

static int fail_once(struct job *job)
{
    seen = *job;
    return job->tries == 0 ? job_fail(job, -EIO, "no %s", "luck") : 0;
}

static void retry_body(void)
{
    struct pool *pool = open_pool();
    behaviour = fail_once;
    uint64_t before_ns = clock_now_ns();
    add("a", "k", 0);
    UNTIL(ended == 1);
    UNTIL(sql("SELECT count(*) FROM job WHERE state = 'queued' AND tries = 1 AND last_error = 'no luck'") ==
              1 ||
          ended > 1);
    UNTIL(ended == 2);
    assert_true(clock_now_ns() - before_ns >= 75 * CLOCK_MS);
    assert_int_equal(seen.tries, 1);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void a_failed_try_is_repeated_after_a_pause(void **state)
{
    (void)state;
    run(retry_body);
}

static int fail_always(struct job *job)
{
    (void)job;
    return -EIO;
}

static void dead_body(void)
{
    struct pool *pool = open_pool();
    behaviour = fail_always;
    int64_t id = add("a", "k", 0);
    UNTIL(sql("SELECT count(*) FROM job WHERE state = 'dead'") == 1);
    assert_int_equal(ended, 3);
    struct arena arena;
    arena_init(&arena);
    struct job_row *rows;
    size_t count;
    assert_int_equal(job_list_dead(&arena, 0, 10, &rows, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(rows[0].id, id);
    assert_int_equal(rows[0].tries, 3);
    assert_true(str_equal(rows[0].last_error, str_from(strerror(EIO))));
    arena_clear(&arena);
    behaviour = do_nothing;
    assert_int_equal(job_redrive(id + 1), -ENOENT);
    assert_int_equal(job_redrive(id), 0);
    UNTIL(ended == 4);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void no_tries_left_is_dead_until_redriven(void **state)
{
    (void)state;
    run(dead_body);
}

static int not_now(struct job *job)
{
    seen = *job;
    return ended < 4 ? -EAGAIN : 0;
}

static void again_body(void)
{
    struct pool *pool = open_pool();
    behaviour = not_now;
    add("a", "k", 0);
    UNTIL(ended == 5);
    assert_int_equal(seen.tries, 0);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void not_now_counts_no_try(void **state)
{
    (void)state;
    run(again_body);
}

static void limit_body(void)
{
    struct pool *pool = open_pool();
    behaviour = wait_for_go;
    add("a", "k", 0);
    UNTIL(sql("SELECT count(*) FROM job WHERE tries = 1 AND last_error = 'not done within 1000 ms'") == 1);
    go = true;
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void the_time_limit_is_a_failed_try(void **state)
{
    (void)state;
    run(limit_body);
}

/* ---- keys ---- */

static void key_body(void)
{
    struct pool *pool = open_pool();
    struct pool *other = open_pool();
    behaviour = wait_for_go;
    int64_t first = add("a", "k", 0);
    UNTIL(started == 1);
    int64_t second = add("a", "k", 0);
    assert_true(second != first);
    assert_true(add("a", "k", 0) == second);
    UNTIL(entries() == 0); /* it was looked at, and is blocked */
    assert_int_equal(started, 1);
    uint64_t before_ns = clock_now_ns();
    go = true;
    UNTIL(ended == 2);
    assert_true(clock_now_ns() - before_ns < 4000 * CLOCK_MS); /* rung, not found late */
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    assert_int_equal(started, 2);
    assert_int_equal(running_most, 1);
    pool_close(pool);
    pool_close(other);
}

static void one_of_a_key_runs_and_the_next_follows_at_once(void **state)
{
    (void)state;
    run(key_body);
}

static int fail_on_go(struct job *job)
{
    seen = *job;
    if (job->tries)
        return 0;
    int result = wait_for_go(job);
    return result ? result : -EIO;
}

static void merge_body(void)
{
    struct pool *pool = open_pool();
    behaviour = fail_on_go;
    add("a", "k", 0);
    UNTIL(started == 1);
    int64_t second = add("a", "k", 0);
    go = true;
    UNTIL(ended == 2);
    assert_int_equal(seen.id, second);
    assert_int_equal(seen.tries, 1);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    assert_int_equal(started, 2);
    pool_close(pool);
}

static void a_failed_job_is_merged_into_the_queued_one_of_its_key(void **state)
{
    (void)state;
    run(merge_body);
}

/* ---- workers that die, leases that are lost ---- */

static int keep(struct job *job)
{
    seen = *job;
    return 0;
}

static void crash_body(void)
{
    behaviour = keep;
    sql("INSERT INTO job (kind, queue, tenant, key, run_at, ring_at, state, fence, crashes, lease_until, worker) VALUES "
        "('ping', 'ping', 'a', 'k', now(), now(), 'running', 7, 1, now() - interval '1 second', 'gone'), "
        "('ping', 'ping', 'a', 'killer', now(), now(), 'running', 7, 2, now() - interval '1 second', 'gone'), "
        "('ping', 'ping', 'a', 'alive', now(), now(), 'running', 7, 0, now() + interval '1 hour', 'other')");
    struct pool *pool = open_pool();
    UNTIL(ended == 1);
    assert_int_equal(seen.fence, 8);
    assert_int_equal(seen.crashes, 2);
    assert_int_equal(seen.tries, 0);
    UNTIL(sql("SELECT count(*) FROM job WHERE state = 'dead' AND key = 'killer' AND crashes = 3") == 1);
    UNTIL(sql("SELECT count(*) FROM job") == 2);
    pool_close(pool);
    assert_int_equal(started, 1);
}

static void a_lease_that_ran_out_is_taken_over_and_the_third_is_dead(void **state)
{
    (void)state;
    run(crash_body);
}

static int late_result;

static int done_in_transaction(struct job *job)
{
    int result = wait_for_go(job);
    struct pg_tx *tx = NULL;
    if (result == 0)
        result = pg_begin(&tx);
    if (result == 0)
        result = queue_done_in(tx, job);
    return late_result = pg_end(tx, result);
}

static void fence_body(void)
{
    struct pool *pool = open_pool();
    int64_t fenced = metric_read(M_JOBS_FENCED, JOB_PING);
    behaviour = wait_for_go;
    add("a", "plain", 0);
    UNTIL(started == 1);
    behaviour = done_in_transaction;
    add("a", "own", 0);
    UNTIL(started == 2);
    sql("UPDATE job SET fence = fence + 1, worker = 'other', lease_until = now() + interval '1 hour'");
    go = true;
    UNTIL(ended == 2);
    assert_int_equal(late_result, -ESTALE);
    UNTIL(metric_read(M_JOBS_FENCED, JOB_PING) == fenced + 2);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE state = 'running' AND worker = 'other' AND fence = 2"), 2);
    pool_close(pool);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE state = 'running' AND worker = 'other' AND fence = 2"), 2);
}

static void a_late_worker_changes_nothing(void **state)
{
    (void)state;
    run(fence_body);
}

static void own_done_body(void)
{
    struct pool *pool = open_pool();
    go = true;
    behaviour = done_in_transaction;
    add("a", "own", 0);
    UNTIL(ended == 1);
    assert_int_equal(late_result, 0);
    assert_int_equal(sql("SELECT count(*) FROM job"), 0);
    pool_close(pool);
}

static void a_job_may_end_its_row_with_its_effect(void **state)
{
    (void)state;
    run(own_done_body);
}

static int wait_long(struct job *job)
{
    int result = wait_for_go(job);
    late_result = result;
    return result;
}

static void heartbeat_body(void)
{
    int64_t id;
    struct pool *pool = open_pool();
    behaviour = wait_long;
    assert_int_equal(queue_add(JOB_SCALE, STR("a"), STR("kept"), STR_NONE, 0, &id), 0);
    assert_int_equal(queue_add(JOB_SCALE, STR("a"), STR("lost"), STR_NONE, 0, &id), 0);
    UNTIL(started == 2);
    sql("UPDATE job SET lease_until = now() + interval '5 seconds'");
    sql("UPDATE job SET fence = fence + 1, worker = 'other' WHERE key = 'lost'");
    uint64_t before_ns = clock_now_ns();
    UNTIL(ended == 1);
    assert_true(clock_now_ns() - before_ns < 8000 * CLOCK_MS); /* not by its time limit */
    assert_int_equal(late_result, -ECANCELED);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE key = 'kept' AND lease_until > now() + interval '6 seconds'"), 1);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE key = 'lost' AND worker = 'other' AND state = 'running'"), 1);
    go = true;
    UNTIL(sql("SELECT count(*) FROM job") == 1);
    pool_close(pool);
}

static void a_heartbeat_extends_leases_and_cancels_what_lost_its_own(void **state)
{
    (void)state;
    run(heartbeat_body);
}

static void ghost_reads(int count)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
        char key_text[QUEUE_KEY_SIZE];
        struct str key = queue_lane_key(key_text, "ping", lane);
        REDIS_DO(&reply, &arena, STR("XGROUP"), STR("CREATE"), key, QUEUE_GROUP, STR("0"), STR("MKSTREAM"));
        REDIS_DO(&reply, &arena, STR("XREADGROUP"), STR("GROUP"), QUEUE_GROUP, STR("ghost"), STR("STREAMS"),
                 key, STR(">"));
        if (reply.count == 0)
            continue;
        struct str id = reply.items[0].items[1].items[0].items[0].text;
        char digits[24];
        struct str tries = str_of(digits, format_u64(digits, (uint64_t)count));
        REDIS_DO(&reply, &arena, STR("XCLAIM"), key, QUEUE_GROUP, STR("ghost"), STR("0"), id, STR("IDLE"),
                 STR("60000"), STR("RETRYCOUNT"), tries, STR("JUSTID"));
    }
    arena_clear(&arena);
}

static void take_over_body(void)
{
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    ghost_reads(2);
    struct pool *pool = open_pool();
    UNTIL(ended == 1);
    UNTIL(entries() == 0);
    pool_close(pool);
}

static void a_volatile_job_of_a_dead_worker_is_taken_over(void **state)
{
    (void)state;
    run(take_over_body);
}

static void killer_body(void)
{
    int64_t dead = metric_read(M_JOBS_DEAD, JOB_PING_VOLATILE);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    ghost_reads(3);
    struct pool *pool = open_pool();
    UNTIL(entries() == 0);
    pool_close(pool);
    assert_int_equal(started, 0);
    assert_int_equal(metric_read(M_JOBS_DEAD, JOB_PING_VOLATILE), dead + 1);
}

static void a_volatile_job_that_killed_three_workers_is_dropped(void **state)
{
    (void)state;
    run(killer_body);
}

/* ---- Redis and PostgreSQL go ---- */

static int take_a_moment(struct job *job)
{
    (void)job;
    return fiber_sleep_ms(5);
}

static void flushall_body(void)
{
    set("WORKER_CONCURRENCY", "8");
    struct pool *pool = open_pool();
    behaviour = take_a_moment;
    for (int i = 0; i < 200; i++)
        add("a", NULL, 0);
    UNTIL(ended >= 20);
    /* so that they are not found for being late */
    sql("UPDATE job SET ring_at = now() + interval '1 hour' WHERE state = 'queued'");
    flush_redis();
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    assert_int_equal(ended, 200);
    add("a", NULL, 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    UNTIL(ended == 202);
    UNTIL(entries() == 0);
    pool_close(pool);
}

static void after_flushall_all_is_done_and_the_groups_are_back(void **state)
{
    (void)state;
    run(flushall_body);
}

static void redis_away_body(void)
{
    struct pool *pool = open_pool();
    add("a", NULL, 0);
    UNTIL(ended == 1);
    services_redis_stop(&services);
    UNTIL(!redis_is_up(redis_shared()));
    for (int i = 0; i < 20; i++)
        add("a", NULL, 0);
    UNTIL(ended == 21);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), -ENOTCONN);
    services_redis_start(&services);
    UNTIL(redis_is_up(redis_shared()));
    add("a", NULL, 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    UNTIL(ended == 23);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void without_redis_durable_jobs_go_on(void **state)
{
    (void)state;
    run(redis_away_body);
}

static void redis_full_body(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    struct pool *pool = open_pool();
    add("a", NULL, 0);
    UNTIL(ended == 1);
    REDIS_DO(&reply, &arena, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), -EIO);
    for (int i = 0; i < 20; i++)
        add("a", NULL, 0);
    UNTIL(ended == 21);
    REDIS_DO(&reply, &arena, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    UNTIL(ended == 22);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
    arena_clear(&arena);
}

static void when_redis_is_full_durable_jobs_go_on(void **state)
{
    (void)state;
    run(redis_full_body);
}

static void postgres_body(void)
{
    set("WORKER_CONCURRENCY", "16");
    struct pool *pool = open_pool();
    behaviour = take_a_moment;
    for (int i = 0; i < 300; i++)
        add("a", NULL, 0);
    UNTIL(ended >= 30);
    services_postgres_stop(&services);
    assert_int_equal(fiber_sleep_ms(200), 0);
    services_postgres_start(&services);
    assert_int_equal(pg_wait_ready(clock_in_ms(20000)), 0);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    assert_true(ended >= 300);
    assert_true(ended <= 300 + 16);
    pool_close(pool);
}

static void when_postgres_crashes_nothing_is_lost(void **state)
{
    (void)state;
    run(postgres_body);
}

/* ---- shares ---- */

static int a_left_when_b_done;
static int a_done;
static int b_done;

static int count_tenants(struct job *job)
{
    int result = fiber_sleep_ms(2);
    if (str_equal(job->tenant, STR("alpha")))
        a_done++;
    else if (++b_done == 10)
        a_left_when_b_done = 5000 - a_done;
    return result;
}

static void fairness_body(void)
{
    set("WORKER_CONCURRENCY", "32");
    behaviour = count_tenants;
    a_done = b_done = 0;
    sql("SELECT job_add('ping', 'ping', 'alpha', NULL, NULL, 0) FROM generate_series(1, 5000)");
    for (int64_t id = sql("SELECT min(id) FROM job"), last = id + 5000; id < last; id++)
        queue_ring(JOB_PING, STR("alpha"), id);
    struct pool *pool = open_pool();
    UNTIL(a_done > 100);
    for (int i = 0; i < 10; i++)
        add("beta", NULL, 0);
    UNTIL(b_done == 10);
    assert_true(a_left_when_b_done > 3000);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    assert_int_equal(a_done, 5000);
    pool_close(pool);
}

static void a_tenant_with_few_jobs_does_not_wait_for_one_with_many(void **state)
{
    (void)state;
    run(fairness_body);
}

static void slots_body(void)
{
    set("WORKER_CONCURRENCY", "3");
    behaviour = take_a_moment;
    for (int i = 0; i < 60; i++) {
        char tenant[16];
        snprintf(tenant, sizeof tenant, "t%d", i);
        add(tenant, NULL, 0);
        assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, str_from(tenant), STR_NONE), 0);
    }
    struct pool *pool = open_pool();
    UNTIL(ended == 120);
    assert_int_equal(running_most, 3);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(pool);
}

static void no_more_jobs_run_at_once_than_there_are_slots(void **state)
{
    (void)state;
    run(slots_body);
}

/* ---- leaving ---- */

static void drain_body(void)
{
    struct pool *pool = open_pool();
    behaviour = wait_for_go;
    add("a", "k", 0);
    add("b", NULL, 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR("1")), 0);
    UNTIL(started == 3);
    pool_drain(pool, clock_in_ms(20));
    assert_int_equal(ended, 3);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE state = 'queued' AND tries = 0 AND crashes = 0 AND run_at <= now()"),
        2);
    /* rung and put back; the sweep after the groups were made may have rung twice */
    assert_in_range(entries(), 3, 5);
    pool_close(pool);
    go = true;
    struct pool *next = open_pool();
    UNTIL(ended == 6);
    UNTIL(sql("SELECT count(*) FROM job") == 0);
    pool_close(next);
}

static void a_drain_gives_back_what_does_not_end_in_time(void **state)
{
    (void)state;
    run(drain_body);
}

static void drain_waits_body(void)
{
    struct pool *pool = open_pool();
    behaviour = take_a_moment;
    for (int i = 0; i < 10; i++)
        add("a", NULL, 0);
    UNTIL(started > 0);
    uint64_t before_ns = clock_now_ns();
    pool_drain(pool, clock_in_ms(20000));
    assert_true(clock_now_ns() - before_ns < 1500 * CLOCK_MS); /* the reader's block was ended */
    assert_int_equal(ended, started);
    assert_int_equal(sql("SELECT count(*) FROM job WHERE state = 'running'"), 0);
    assert_int_equal(sql("SELECT count(*) FROM job"), 10 - ended);
    pool_close(pool);
}

static void a_drain_lets_running_jobs_end(void **state)
{
    (void)state;
    run(drain_waits_body);
}

static void no_stores_body(void)
{
    struct pool *pool = open_pool();
    services_redis_stop(&services);
    services_postgres_stop(&services);
    uint64_t before_ns = clock_now_ns();
    pool_close(pool);
    assert_true(clock_now_ns() - before_ns < 15000 * CLOCK_MS);
    services_redis_start(&services);
    services_postgres_start(&services);
}

static void a_pool_closes_without_redis_and_postgres(void **state)
{
    (void)state;
    run(no_stores_body);
}

static void lease_body(void)
{
    static const struct job_handler handlers[] = {{JOB_SCALE, do_nothing}, {JOB_PING, do_nothing}};
    char error[256] = "";
    set("JOB_LEASE_SECONDS", "10");
    assert_null(pool_open(loop_self(), handlers, ARRAY_SIZE(handlers), error, sizeof error));
    assert_string_equal(
        error, "JOB_LEASE_SECONDS is 10, but must be above the time limit of a scale job, which is 10200 ms");
}

static void a_lease_shorter_than_a_time_limit_is_refused(void **state)
{
    (void)state;
    run(lease_body);
}

/* ---- speed ---- */

static void ping_body(void)
{
    struct job_ping_times times;
    static const struct job_handler handlers[] = {{JOB_PING, ping_run}, {JOB_PING_VOLATILE, ping_run}};
    char error[256] = "";
    struct pool *pool = pool_open(loop_self(), handlers, ARRAY_SIZE(handlers), error, sizeof error);
    assert_non_null(pool);
    assert_int_equal(job_ping(500, true, 50, &times), 0);
    assert_true(times.done_ns >= times.added_ns);
    assert_int_equal(sql("SELECT count(*) FROM job"), 0);
    assert_int_equal(job_ping(500, false, 50, &times), 0);
    assert_int_equal(entries(), 0);
    pool_close(pool);
}

static void a_ping_measures_to_the_last_job(void **state)
{
    (void)state;
    run(ping_body);
}

#define TEST(name) cmocka_unit_test_setup(name, defaults)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_run_once_and_leaves_nothing),
        TEST(a_job_is_given_what_was_added),
        TEST(a_delayed_job_waits_for_its_time),
        TEST(a_failed_try_is_repeated_after_a_pause),
        TEST(no_tries_left_is_dead_until_redriven),
        TEST(not_now_counts_no_try),
        TEST(the_time_limit_is_a_failed_try),
        TEST(one_of_a_key_runs_and_the_next_follows_at_once),
        TEST(a_failed_job_is_merged_into_the_queued_one_of_its_key),
        TEST(a_lease_that_ran_out_is_taken_over_and_the_third_is_dead),
        TEST(a_late_worker_changes_nothing),
        TEST(a_job_may_end_its_row_with_its_effect),
        TEST(a_heartbeat_extends_leases_and_cancels_what_lost_its_own),
        TEST(a_volatile_job_of_a_dead_worker_is_taken_over),
        TEST(a_volatile_job_that_killed_three_workers_is_dropped),
        TEST(after_flushall_all_is_done_and_the_groups_are_back),
        TEST(without_redis_durable_jobs_go_on),
        TEST(when_redis_is_full_durable_jobs_go_on),
        TEST(when_postgres_crashes_nothing_is_lost),
        TEST(a_tenant_with_few_jobs_does_not_wait_for_one_with_many),
        TEST(no_more_jobs_run_at_once_than_there_are_slots),
        TEST(a_drain_gives_back_what_does_not_end_in_time),
        TEST(a_drain_lets_running_jobs_end),
        TEST(a_pool_closes_without_redis_and_postgres),
        TEST(a_lease_shorter_than_a_time_limit_is_refused),
        TEST(a_ping_measures_to_the_last_job),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
