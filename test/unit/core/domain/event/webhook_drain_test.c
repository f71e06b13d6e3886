/* What a webhook job claims, settles and leaves behind, and what an endpoint is found to have missed. */
#include "core/domain/event/webhook_drain.h"

#include "test/unit/core/domain/identity/fixture.h"

enum { ACCOUNT = 7, ENDPOINT = 1, FENCE = 3, MOST = 8 };

static struct webhook_target target;
static struct webhook_item *claimed;
static size_t claimed_count;

static int empty(void **state)
{
    target = (struct webhook_target){
        .id = ENDPOINT, .version = 1, .account_id = ACCOUNT, .ref = "we_test", .ordered = true};
    identity_sql("TRUNCATE webhook_endpoint, webhook_delivery, webhook_due, webhook_attempt, webhook_flight, "
                 "webhook_block, job, event, event_head, event_outbox RESTART IDENTITY CASCADE");
    int result = identity_fixture_empty(state);
    identity_sql(
        "INSERT INTO account (id, name, ref) OVERRIDING SYSTEM VALUE VALUES (%d, 'hooked', 'user_hooked'); "
        "INSERT INTO webhook_endpoint (account_id, ref, surface, url, events, secret, ordered) "
        "VALUES (%d, 'we_test', 'inference', 'https://example.com/', '{*}', '', true)",
        ACCOUNT, ACCOUNT);
    return result;
}

/* Deliveries 1 to `count`, due now; of object "a", "b", "a", "b", … */
static void add_deliveries(int count)
{
    identity_sql(
        "WITH d AS (INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, object, body) "
        "SELECT %d, 'evt_' || n, 'inference', 'job.failed', CASE WHEN n %% 2 = 1 THEN 'a' ELSE 'b' END, '{}' "
        "FROM generate_series(1, %d) AS n RETURNING id, endpoint_id) "
        "INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, endpoint_id, now() FROM d",
        ENDPOINT, count);
}

static struct job begin_job(void)
{
    struct job job = {.fence = FENCE};
    job.id =
        identity_sql("INSERT INTO job (kind, queue, tenant, key, state, run_at, ring_at, fence) "
                     "VALUES ('webhook', 'webhook', '%d', '%d', 'running', now(), now(), %d) RETURNING id",
                     ACCOUNT, ENDPOINT, FENCE);
    return job;
}

/* Whether the next claim is of these, in this order. */
static void claims(size_t count, const int64_t *ids)
{
    assert_int_equal(webhook_claim(&identity_arena, &target, NULL, 0, MOST, &claimed, &claimed_count), 0);
    assert_int_equal(claimed_count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(claimed[i].id, ids[i]);
}

static int settle(const struct job *job, struct webhook_item *item, enum webhook_verdict verdict)
{
    struct webhook_health health = {.failures = verdict == WEBHOOK_FAILED};
    bool failing;
    item->verdict = verdict;
    item->begun_ms = clock_wall_ms();
    item->status = verdict == WEBHOOK_FAILED ? 500 : 200;
    int result = webhook_settle(job, &target, &item, 1, &health, 0, &failing);
    assert_false(failing);
    return result;
}

/* ---- order ---- */

static void fail_and_look(void)
{
    struct job job = begin_job();
    add_deliveries(6);
    claims(6, (int64_t[]){1, 2, 3, 4, 5, 6});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_FAILED), 0);
    claims(3, (int64_t[]){2, 4, 6});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_DELIVERED), 0);
    claims(2, (int64_t[]){4, 6});
    /* Its time has come: it goes before all that was held back. */
    identity_sql("UPDATE webhook_due SET next_at = now() WHERE delivery_id = 1; "
                 "UPDATE webhook_block SET until = now()");
    claims(5, (int64_t[]){1, 3, 4, 5, 6});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_DELIVERED), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_block"), 0);
}

static void one_that_fails_holds_back_its_object_until_its_time(void **state)
{
    (void)state;
    identity_on_loop(fail_and_look);
}

static void fail_for_the_last_time(void)
{
    struct job job = begin_job();
    add_deliveries(4);
    claims(4, (int64_t[]){1, 2, 3, 4});
    claimed[0].tries = WEBHOOK_TRIES - 1;
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_FAILED), 0);
    claims(3, (int64_t[]){2, 3, 4});
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due WHERE delivery_id = 1"), 0);
}

static void one_that_has_no_try_left_holds_back_nothing(void **state)
{
    (void)state;
    identity_on_loop(fail_for_the_last_time);
}

static void stop_and_look(void)
{
    struct job job = begin_job();
    add_deliveries(2);
    claims(2, (int64_t[]){1, 2});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_STOPPED), 0);
    claims(2, (int64_t[]){1, 2});
    assert_int_equal(claimed[0].tries, 0);
    assert_int_equal(claimed[0].attempts, 1);
}

static void an_attempt_that_was_stopped_counts_as_no_try(void **state)
{
    (void)state;
    identity_on_loop(stop_and_look);
}

static void replay_what_is_held_back(void)
{
    struct job job = begin_job();
    add_deliveries(6);
    claims(6, (int64_t[]){1, 2, 3, 4, 5, 6});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_FAILED), 0);
    assert_int_equal(identity_sql("SELECT webhook_again(%d, '{5}')", ENDPOINT), 1);
    claims(6, (int64_t[]){1, 2, 3, 4, 5, 6});
    assert_int_equal(identity_sql("SELECT webhook_again(%d, '{5}')", ENDPOINT + 1), 0);
}

static void a_replay_frees_the_object_in_its_order(void **state)
{
    (void)state;
    identity_on_loop(replay_what_is_held_back);
}

/* The plan is made while nothing is there, as it is in a new installation. */
static void a_claim_reads_what_it_takes_however_much_waits(void **state)
{
    (void)state;
    for (int ordered = 0; ordered < 2; ordered++) {
        assert_int_equal(empty(state), 0);
        int64_t read = identity_sql(
            "DO $$ BEGIN FOR i IN 1..8 LOOP PERFORM webhook_claim(%d, 1, '{}', '{}', 100, %s); END LOOP; END $$; "
            "WITH d AS (INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, object, body) "
            "SELECT %d, 'evt_' || n, 'gpu', 'job.failed', n %% 50, '{}' FROM generate_series(1, 30000) AS n RETURNING id) "
            "INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, %d, now() FROM d; "
            "SELECT count(*) FROM webhook_claim(%d, 1, '{}', '{}', 100, %s); "
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables "
            "WHERE relname IN ('webhook_due', 'webhook_delivery')",
            ENDPOINT, ordered ? "true" : "false", ENDPOINT, ENDPOINT, ENDPOINT, ordered ? "true" : "false");
        assert_in_range(read, 100, 1000);
    }
}

static const char settle_a_hundred[] =
    "SELECT webhook_settle(%lld, %d, %d, array_agg(n), array_agg(1::bigint), array_agg(0::bigint), array_agg(1::bigint), "
    "array_agg(%d::bigint), array_agg(200::bigint), array_agg(NULL::text), array_agg(NULL::text), array_agg(%d::bigint), "
    "array_agg(0::bigint), 0, 0, 0, false, 1000) FROM generate_series(%d, %d) AS n; ";

static void add_settle(struct buf *sql, int64_t job_id, bool ok, int first)
{
    buf_add_text(sql, arena_printf(&identity_arena, settle_a_hundred, (long long)job_id, FENCE, ENDPOINT, ok,
                                   ok ? -1 : 5000, first, first + 99));
}

/* The plans are made and kept while three deliveries wait. */
static void a_settlement_reads_what_it_settles_however_much_waits(void **state)
{
    (void)state;
    struct buf sql = {0};
    arena_init(&identity_arena);
    add_deliveries(3);
    int64_t job_id = begin_job().id;
    buf_add_literal(&sql, "ANALYZE webhook_due; ");
    for (int i = 0; i < 8; i++)
        add_settle(&sql, job_id, i % 2, 1001);
    buf_add_literal(&sql, "INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) "
                          "SELECT n, 1, now() FROM generate_series(1001, 31000) AS n; "
                          "CREATE TEMPORARY TABLE before AS SELECT seq_tup_read + idx_tup_fetch AS count "
                          "FROM pg_stat_xact_user_tables WHERE relname = 'webhook_due'; ");
    add_settle(&sql, job_id, true, 2001);
    add_settle(&sql, job_id, false, 3001);
    buf_add_literal(
        &sql, "SELECT seq_tup_read + idx_tup_fetch - before.count FROM pg_stat_xact_user_tables, before "
              "WHERE relname = 'webhook_due'");
    buf_add_char(&sql, '\0');
    assert_in_range(identity_sql_text(sql.at), 100, 2000);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due WHERE tries = 1"), 100);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due WHERE delivery_id BETWEEN 2001 AND 2100"),
                     0);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due"), 3 + 30000 - 100);
    buf_clear(&sql);
    arena_clear(&identity_arena);
}

/* ---- fences, repetition ---- */

static void settle_what_is_anothers(void)
{
    struct job job = begin_job();
    add_deliveries(2);
    claims(2, (int64_t[]){1, 2});
    struct job stale = {.id = job.id, .fence = FENCE - 1};
    assert_int_equal(settle(&stale, &claimed[0], WEBHOOK_DELIVERED), -ESTALE);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_attempt WHERE ok"), 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due"), 2);
    assert_int_equal(webhook_end(&stale, &target), -ESTALE);
    assert_int_equal(identity_sql("SELECT count(*) FROM job WHERE state = 'running'"), 1);
}

static void who_has_lost_the_job_logs_and_changes_nothing(void **state)
{
    (void)state;
    identity_on_loop(settle_what_is_anothers);
}

static void settle_twice(void)
{
    struct job job = begin_job();
    add_deliveries(2);
    claims(2, (int64_t[]){1, 2});
    for (int i = 0; i < 2; i++)
        assert_int_equal(settle(&job, &claimed[0], WEBHOOK_FAILED), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_attempt"), 1);
    assert_int_equal(identity_sql("SELECT tries FROM webhook_due WHERE delivery_id = 1"), 1);
}

static void a_repetition_changes_nothing(void **state)
{
    (void)state;
    identity_on_loop(settle_twice);
}

static void die_with_some_in_hand(void)
{
    struct job job = begin_job();
    add_deliveries(3);
    claims(3, (int64_t[]){1, 2, 3});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_DELIVERED), 0);
    for (int i = 0; i < 2; i++) /* whoever takes over may die, too */
        assert_int_equal(webhook_take_over(&target), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_attempt WHERE ms IS NULL AND NOT ok"), 2);
    claims(2, (int64_t[]){2, 3});
    assert_int_equal(claimed[0].attempts, 1);
    assert_int_equal(claimed[0].tries, 0);
}

static void attempts_of_a_worker_that_died_are_logged_once(void **state)
{
    (void)state;
    identity_on_loop(die_with_some_in_hand);
}

/* ---- the next job ---- */

static int64_t next_job_in_ms(void)
{
    return identity_sql(
        "SELECT (extract(epoch FROM run_at - now()) * 1000)::bigint FROM job WHERE state = 'queued'");
}

static void end_with_some_left(void)
{
    struct job job = begin_job();
    add_deliveries(3);
    identity_sql("DELETE FROM webhook_due WHERE delivery_id = 2");
    claims(2, (int64_t[]){1, 3});
    assert_int_equal(settle(&job, &claimed[0], WEBHOOK_FAILED), 0);
    assert_int_equal(webhook_end(&job, &target), 0);
    assert_in_range(next_job_in_ms(), 3000, 6000); /* both are held back */

    identity_sql("DELETE FROM job");
    job = begin_job();
    add_deliveries(2); /* 4 and 5: of 5 nothing is held back, for it is of "b" */
    assert_int_equal(webhook_end(&job, &target), 0);
    assert_true(next_job_in_ms() <= 0);

    identity_sql("DELETE FROM job; DELETE FROM webhook_due; DELETE FROM webhook_block");
    job = begin_job();
    assert_int_equal(webhook_end(&job, &target), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM job"), 0);
}

static void the_next_job_comes_when_something_may_go(void **state)
{
    (void)state;
    identity_on_loop(end_with_some_left);
}

static void a_disabled_endpoint_has_no_job(void **state)
{
    (void)state;
    add_deliveries(2);
    identity_sql("UPDATE webhook_endpoint SET enabled = false");
    assert_int_equal(identity_sql("SELECT webhook_job(%d, now()) IS NULL", ENDPOINT), 1);
    identity_sql("UPDATE webhook_endpoint SET enabled = true, paused_until = now() + interval '1 hour'");
    assert_int_equal(identity_sql("SELECT webhook_job(%d, now()) IS NULL", ENDPOINT), 0);
    assert_in_range(next_job_in_ms(), 3590000, 3600000);
}

/* ---- what was missed ---- */

static void what_an_endpoint_never_got_is_found_page_by_page(void **state)
{
    (void)state;
    /* Ten events while it is disabled but for the third and the seventh. */
    identity_sql(
        "UPDATE webhook_endpoint SET enabled = false; "
        "SELECT event_add(%d, 'gpu', 'job.failed', jsonb_build_object('id', n)) FROM generate_series(1, 10) AS n; "
        "SELECT count(*) FROM event_relay(100); "
        "INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, body) SELECT %d, id, surface, name, '{}' "
        "FROM event WHERE seq IN (3, 7)",
        ACCOUNT, ENDPOINT);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_delivery"), 2);
    assert_int_equal(identity_sql("SELECT last FROM webhook_catch_up(%d, '-infinity', 0, 4)", ENDPOINT), 4);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due"), 3);
    assert_int_equal(identity_sql("SELECT last FROM webhook_catch_up(%d, '-infinity', 4, 4)", ENDPOINT), 8);
    assert_int_equal(
        identity_sql("SELECT last IS NULL FROM webhook_catch_up(%d, '-infinity', 8, 4)", ENDPOINT), 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due"), 8);
    assert_int_equal(identity_sql("SELECT count(DISTINCT event_id) FROM webhook_delivery"), 10);
    assert_int_equal(identity_sql("SELECT added FROM webhook_catch_up(%d, '-infinity', 0, 100)", ENDPOINT),
                     0);
    identity_sql("TRUNCATE webhook_delivery, webhook_due");
    assert_int_equal(
        identity_sql("SELECT added FROM webhook_catch_up(%d, (SELECT at FROM event WHERE seq = 9), 0, 100)",
                     ENDPOINT),
        2);
    assert_int_equal(
        identity_sql("SELECT added FROM webhook_catch_up(%d, now() + interval '1 hour', 0, 100)", ENDPOINT),
        0);
}

static void a_replay_ends_though_more_comes(void **state)
{
    (void)state;
    add_deliveries(5);
    identity_sql("DELETE FROM webhook_due");
    assert_int_equal(identity_sql("SELECT last FROM webhook_replay(%d, '-infinity', false, 0, 3)", ENDPOINT),
                     3);
    assert_int_equal(
        identity_sql("SELECT last IS NULL FROM webhook_replay(%d, '-infinity', false, 3, 3)", ENDPOINT), 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM webhook_due"), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, empty)
        CASE(one_that_fails_holds_back_its_object_until_its_time),
        CASE(one_that_has_no_try_left_holds_back_nothing),
        CASE(an_attempt_that_was_stopped_counts_as_no_try),
        CASE(a_replay_frees_the_object_in_its_order),
        CASE(a_claim_reads_what_it_takes_however_much_waits),
        CASE(a_settlement_reads_what_it_settles_however_much_waits),
        CASE(who_has_lost_the_job_logs_and_changes_nothing),
        CASE(a_repetition_changes_nothing),
        CASE(attempts_of_a_worker_that_died_are_logged_once),
        CASE(the_next_job_comes_when_something_may_go),
        CASE(a_disabled_endpoint_has_no_job),
        CASE(what_an_endpoint_never_got_is_found_page_by_page),
        CASE(a_replay_ends_though_more_comes),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
