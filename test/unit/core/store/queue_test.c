/* How jobs get into the queue, against a real Redis and PostgreSQL: one of a key, in time, rung, in the right lane. */
#include "core/store/queue.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/job.h"
#include "core/run/sync.h"
#include "core/store/redis.h"
#include "test/unit/support/services.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct services services;

static void set(const char *name, const char *value)
{
    char error[256];
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static int64_t sql(const char *text)
{
    return services_sql(&services, text);
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

static int64_t redis_number(const struct str *words, size_t count)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, words, count), 0);
    arena_clear(&arena);
    return reply.integer;
}
#define REDIS_NUMBER(...) redis_number(REDIS_ARGS(__VA_ARGS__))

static int64_t lane_length(const char *queue, unsigned lane)
{
    char key[QUEUE_KEY_SIZE];
    return REDIS_NUMBER(STR("XLEN"), queue_lane_key(key, queue, lane));
}

/* Entries of the queue; `lanes` gets the number of lanes that have some. */
static int64_t entries(const char *queue, unsigned *lanes)
{
    int64_t sum = 0;
    *lanes = 0;
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++) {
        int64_t length = lane_length(queue, lane);
        sum += length;
        *lanes += length > 0;
    }
    return sum;
}

static int64_t add(enum job_kind kind, const char *tenant, const char *key, uint64_t delay_ms)
{
    int64_t id = 0;
    assert_int_equal(queue_add(kind, str_from(tenant), str_from(key), STR_NONE, delay_ms, &id), 0);
    return id;
}

static void flush_redis(void)
{
    REDIS_NUMBER(STR("FLUSHALL"));
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
    set("REDIS_URL", services.redis_url);
    if (migrate_run(error, sizeof error)) {
        print_error("%s\n", error);
        return -1;
    }
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

static int defaults(void **state)
{
    (void)state;
    sql("TRUNCATE job");
    run(flush_redis);
    return 0;
}

/* ---- kinds ---- */

static void kinds_have_names_of_their_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOB_KINDS; i++) {
        enum job_kind kind;
        assert_int_equal(job_kind_of(str_from(job_policies[i].name), &kind), 0);
        assert_int_equal(kind, i);
    }
    enum job_kind kind;
    assert_int_equal(job_kind_of(STR("pin"), &kind), -EINVAL);
    assert_int_equal(job_kind_of(STR_NONE, &kind), -EINVAL);
}

static void the_default_lease_outlasts_every_time_limit(void **state)
{
    (void)state;
    for (unsigned i = 0; i < JOB_KINDS; i++)
        assert_true(job_policies[i].time_limit_ms() < (uint64_t)config->job_lease_s * 1000);
}

/* ---- one of a key ---- */

static void dedupe_body(void)
{
    int64_t first = add(JOB_PING, "a", "k", 0);
    assert_true(add(JOB_PING, "a", "k", 0) == first);
    assert_true(add(JOB_SCALE, "a", "k", 0) != first);
    assert_true(add(JOB_PING, "a", "other", 0) != first);
    assert_true(add(JOB_PING, "a", NULL, 0) != add(JOB_PING, "a", NULL, 0));
    assert_int_equal(sql("SELECT count(*) FROM job"), 5);
    /* one that runs does not stand for a new one: it may have read what has changed since */
    sql("UPDATE job SET state = 'running' WHERE kind = 'ping' AND key = 'k'");
    assert_true(add(JOB_PING, "a", "k", 0) != first);
    /* nor does a dead one */
    sql("UPDATE job SET state = 'dead' WHERE kind = 'ping' AND key = 'other'");
    add(JOB_PING, "a", "other", 0);
    assert_int_equal(sql("SELECT count(*) FROM job WHERE key = 'other'"), 2);
}

static void one_of_a_kind_and_key_is_queued(void **state)
{
    (void)state;
    run(dedupe_body);
}

static void earlier_body(void)
{
    int64_t id = add(JOB_PING, "a", "k", 60000);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE run_at > now() + interval '50 seconds' AND ring_at = run_at"), 1);
    assert_true(add(JOB_PING, "a", "k", 90000) == id);
    assert_int_equal(sql("SELECT count(*) FROM job WHERE run_at < now() + interval '61 seconds'"), 1);
    unsigned lanes;
    assert_int_equal(entries("ping", &lanes), 0); /* not rung before its time */
    assert_true(add(JOB_PING, "a", "k", 0) == id);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE run_at <= now() AND ring_at <= now() + interval '5 seconds'"), 1);
    assert_int_equal(entries("ping", &lanes), 1);
}

static void adding_again_brings_forward_and_never_puts_off(void **state)
{
    (void)state;
    run(earlier_body);
}

struct adders {
    struct group group;
    int64_t id;
    bool differ;
};

static void adder(void *arg)
{
    static const struct pg_statement in_transaction = {"test_add",
                                                       "SELECT job_add('ping', 'ping', 'a', 'k', NULL, 0)"};
    struct adders *adders = arg;
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &in_transaction, PG_NO_VALUES, &rows);
    int64_t id = result == 0 ? pg_i64(rows, 0, 0) : 0;
    assert_int_equal(pg_end(tx, result), 0);
    pg_rows_free(rows);
    adders->differ |= adders->id && adders->id != id;
    adders->id = id;
    group_done(&adders->group);
}

static void race_body(void)
{
    struct adders adders = {0};
    for (int i = 0; i < 100; i++) {
        group_add(&adders.group);
        fiber_start(loop_self(), "adder", adder, &adders);
    }
    assert_int_equal(group_wait(&adders.group, "adders", CLOCK_NEVER), 0);
    assert_false(adders.differ);
    assert_int_equal(sql("SELECT count(*) FROM job"), 1);
}

static void a_hundred_adders_at_once_make_one_job(void **state)
{
    (void)state;
    run(race_body);
}

static void a_job_is_added_by_the_statement_that_accepts_the_work(void **state)
{
    (void)state;
    assert_int_equal(
        sql("CREATE TABLE work (id bigint); WITH w AS (INSERT INTO work VALUES (1), (2), (2) RETURNING id) "
            "SELECT count(DISTINCT job_add('ping', 'ping', 'a', w.id::text, NULL, 0)) FROM w"),
        2);
    assert_int_equal(sql("SELECT count(*) FROM job"), 2);
    /* and is not there when that is rolled back */
    sql("BEGIN; SELECT job_add('ping', 'ping', 'a', 'never', NULL, 0); ROLLBACK");
    assert_int_equal(sql("SELECT count(*) FROM job WHERE key = 'never'"), 0);
    sql("DROP TABLE work");
}

/* ---- done ---- */

static void done_in_body(void)
{
    struct job job = {.kind = JOB_PING, .id = add(JOB_PING, "a", "k", 0), .fence = 1};
    struct pg_tx *tx;
    for (int i = 0; i < 2; i++) {
        /* queued, then running under another's fence */
        int64_t fenced = metric_read(M_JOBS_FENCED, JOB_PING);
        assert_int_equal(pg_begin(&tx), 0);
        assert_int_equal(pg_end(tx, queue_done_in(tx, &job)), -ESTALE);
        assert_false(job.finished);
        assert_int_equal(metric_read(M_JOBS_FENCED, JOB_PING), fenced + 1);
        sql("UPDATE job SET state = 'running', fence = 2");
    }
    job.fence = 2;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_end(tx, queue_done_in(tx, &job)), 0);
    assert_true(job.finished);
    assert_int_equal(sql("SELECT count(*) FROM job"), 0);
}

static void done_needs_the_lease(void **state)
{
    (void)state;
    run(done_in_body);
}

static void done_guards_the_statement_around_it(void **state)
{
    (void)state;
    sql("SELECT job_add('ping', 'ping', 'a', 'k', NULL, 0)");
    assert_int_equal(sql("CREATE TABLE effect (id bigint); INSERT INTO effect SELECT 1 WHERE job_done("
                         "(SELECT id FROM job), 1); SELECT count(*) FROM effect"),
                     0);
    sql("UPDATE job SET state = 'running', fence = 1");
    assert_int_equal(sql("INSERT INTO effect SELECT 1 WHERE job_done((SELECT id FROM job), 1); "
                         "SELECT count(*) FROM effect"),
                     1);
    assert_int_equal(sql("SELECT count(*) FROM job"), 0);
    sql("DROP TABLE effect");
}

/* ---- lanes ---- */

static void lanes_body(void)
{
    /* alone, a tenant's jobs spread over its two lanes evenly */
    for (int64_t id = 1; id <= 100; id++)
        queue_ring(JOB_PING, STR("tenant"), id);
    unsigned lanes;
    assert_int_equal(entries("ping", &lanes), 100);
    assert_int_equal(lanes, 2);
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++)
        assert_true(lane_length("ping", lane) == 0 || lane_length("ping", lane) == 50);
    /* many tenants use all lanes, none much more than another */
    flush_redis();
    for (int64_t id = 1; id <= 1600; id++) {
        char tenant[24];
        queue_ring(JOB_PING, str_of(tenant, format_u64(tenant, (uint64_t)id)), id);
    }
    assert_int_equal(entries("ping", &lanes), 1600);
    assert_int_equal(lanes, QUEUE_LANES);
    for (unsigned lane = 0; lane < QUEUE_LANES; lane++)
        assert_in_range(lane_length("ping", lane), 80, 120);
}

static void a_tenant_has_two_lanes_and_takes_the_shorter(void **state)
{
    (void)state;
    run(lanes_body);
}

static void volatile_body(void)
{
    int64_t added = metric_read(M_JOBS_ADDED, JOB_PING_VOLATILE);
    unsigned lanes;
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR("{}")), 0);
    assert_int_equal(entries("ping", &lanes), 2);
    assert_int_equal(metric_read(M_JOBS_ADDED, JOB_PING_VOLATILE), added + 2);
    REDIS_NUMBER(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), -EIO);
    REDIS_NUMBER(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    REDIS_NUMBER(STR("SCRIPT"), STR("FLUSH"));
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), 0);
    assert_int_equal(metric_read(M_JOBS_ADDED, JOB_PING_VOLATILE), added + 3);
    add(JOB_PING, "a", NULL, 0);
    assert_int_equal(entries("ping", &lanes), 4);
}

static void a_volatile_job_is_accepted_only_when_redis_has_it(void **state)
{
    (void)state;
    run(volatile_body);
}

static void away_body(void)
{
    services_redis_stop(&services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(queue_add_volatile(JOB_PING_VOLATILE, STR("a"), STR_NONE), -ENOTCONN);
    assert_true(add(JOB_PING, "a", NULL, 0) > 0);
    services_redis_start(&services);
}

static void a_durable_job_is_accepted_without_redis(void **state)
{
    (void)state;
    run(away_body);
}

/* ---- the operator's view ---- */

static void operator_body(void)
{
    struct arena arena;
    arena_init(&arena);
    sql("INSERT INTO job (kind, queue, tenant, key, run_at, ring_at, state, tries, crashes, last_error) "
        "SELECT 'ping', 'ping', 't', 'k' || i, now(), now(), 'dead', 3, 1, 'why' FROM generate_series(1, 3) AS i");
    add(JOB_SCALE, "a", "k1", 0);
    add(JOB_PING, "a", "k1", 0);
    struct job_row *rows;
    size_t count;
    assert_int_equal(job_list_dead(&arena, 0, 2, &rows, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(job_list_dead(&arena, rows[1].id, 2, &rows, &count), 0);
    assert_int_equal(count, 1);
    assert_true(str_equal(rows[0].key, STR("k3")) && str_equal(rows[0].last_error, STR("why")));
    assert_true(rows[0].created_ms > clock_wall_ms() - 60000 && rows[0].tries == 3 && rows[0].crashes == 1);

    struct job_count *counts;
    assert_int_equal(job_counts(&arena, &counts, &count), 0);
    assert_int_equal(count, 3);
    assert_true(str_equal(counts[0].kind, STR("ping")) && str_equal(counts[0].state, STR("dead")));
    assert_int_equal(counts[0].count, 3);

    /* k1 is queued already: the dead one is merged into it */
    assert_int_equal(job_redrive_kind(JOB_PING, &count), 0);
    assert_int_equal(count, 3);
    assert_int_equal(
        sql("SELECT count(*) FROM job WHERE kind = 'ping' AND state = 'queued' AND tries = 0 AND crashes = 0"),
        3);
    assert_int_equal(sql("SELECT count(*) FROM job WHERE state = 'dead'"), 0);
    assert_int_equal(job_redrive_kind(JOB_PING, &count), 0);
    assert_int_equal(count, 0);
    unsigned lanes;
    assert_int_equal(entries("ping", &lanes), 4);
    arena_clear(&arena);
}

static void an_operator_sees_and_redrives_dead_jobs(void **state)
{
    (void)state;
    run(operator_body);
}

#define TEST(name) cmocka_unit_test_setup(name, defaults)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(kinds_have_names_of_their_own),
        TEST(the_default_lease_outlasts_every_time_limit),
        TEST(one_of_a_kind_and_key_is_queued),
        TEST(adding_again_brings_forward_and_never_puts_off),
        TEST(a_hundred_adders_at_once_make_one_job),
        TEST(a_job_is_added_by_the_statement_that_accepts_the_work),
        TEST(done_needs_the_lease),
        TEST(done_guards_the_statement_around_it),
        TEST(a_tenant_has_two_lanes_and_takes_the_shorter),
        TEST(a_volatile_job_is_accepted_only_when_redis_has_it),
        TEST(a_durable_job_is_accepted_without_redis),
        TEST(an_operator_sees_and_redrives_dead_jobs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
