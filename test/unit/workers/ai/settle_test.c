/*
 * Ends of AI calls on their way into PostgreSQL, between a real one and a real Redis: each is charged once, whatever is told twice, is
 * away or can't be stored, and lies in Redis until it is committed.
 */
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/ai/queue.h"
#include "core/domain/ai/worker.h"
#include "core/store/redis.h"
#include "test/unit/core/domain/money/ledger_fixture.h"
#include "workers/ai/internal.h"

enum { MANY = 600 /* more than one batch has */, COST = 1000000 };

static struct arena arena;

static int64_t redis_number(const char *command, const char *key, const char *member)
{
    struct redis_value reply;
    const struct str words[] = {str_from(command), str_from(key), str_from(member ? member : "")};
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, words, member ? 3 : 2), 0);
    return reply.type == REDIS_INTEGER ? reply.integer : 0;
}

static struct ai_end end_of(int64_t account, int64_t generation, money cost)
{
    char *id = arena_alloc(&arena, AI_ID_SIZE);
    ai_new_id(id);
    return (struct ai_end){
        .id = str_from(id),
        .account_id = account,
        .generation = generation,
        .meta = {.surface = STR("inference"), .model = STR("m"), .request_id = STR("r"), .choices = 1},
        .status = AI_COMPLETED,
        .cost = cost,
        .prompt_tokens = 3,
        .completion_tokens = 2,
        .started_ms = clock_wall_ms(),
        .ended_ms = clock_wall_ms(),
        .text = STR("words"),
    };
}

/* As ai_task_finish leaves it. */
static void lay_into_redis(const struct ai_end *end)
{
    char key[64];
    char account[24];
    char generation[24];
    struct redis_value reply;
    struct buf meta = {0};
    struct buf record = {0};
    snprintf(key, sizeof key, "ai:call:%.*s", STR_ARG(end->id));
    snprintf(account, sizeof account, "%lld", (long long)end->account_id);
    snprintf(generation, sizeof generation, "%lld", (long long)end->generation);
    ai_meta_write(&meta, &end->meta);
    ai_end_write(&record, end);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("HSET"), str_from(key), STR("a"),
                                str_from(account), STR("g"), str_from(generation), STR("s"), STR("end"),
                                STR("m"), buf_str(&meta), STR("z"), buf_str(&record)),
                     0);
    assert_int_equal(
        redis_call(redis_shared(), &reply, &arena, STR("ZADD"), STR("ai:ended"), STR("1"), end->id), 0);
    buf_clear(&meta);
    buf_clear(&record);
}

static bool lies_in_redis(struct str id)
{
    char key[64];
    snprintf(key, sizeof key, "ai:call:%.*s", STR_ARG(id));
    return redis_number("EXISTS", key, NULL) > 0;
}

/* A lease from which `count` calls have reserved what they cost. */
static int64_t reserve(int64_t account, int count)
{
    struct ledger_call call;
    assert_int_equal(ledger_reserve(&call, account, (money)count * COST), 0);
    return call.generation;
}

static int64_t rows_of(int64_t account)
{
    return ledger_sql("SELECT count(*) FROM ai_job WHERE account_id = %lld", (long long)account);
}

static int64_t charged_to(int64_t account)
{
    return ledger_sql("SELECT (coalesce(sum(amount), 0) * 1000000000000)::bigint FROM ledger_transfer "
                      "WHERE account_id = %lld AND kind = 'charge'",
                      (long long)account);
}

static bool nothing_in_hand(void)
{
    return metric_read(M_AI_UNSETTLED, 0) == 0;
}

static void run(void (*body)(void))
{
    arena_init(&arena);
    ledger_on_loop(body);
    arena_clear(&arena);
}

static void check_many(void)
{
    int64_t accounts[] = {ledger_account("10"), ledger_account("10")};
    int64_t generations[] = {reserve(accounts[0], MANY), reserve(accounts[1], MANY)};
    struct ai_end *ends = arena_alloc(&arena, MANY * sizeof *ends);
    ai_settle_open(loop_self());
    for (int i = 0; i < MANY; i++) {
        ends[i] = end_of(accounts[i % 2], generations[i % 2], i % 3 ? COST : 0);
        lay_into_redis(&ends[i]);
        ai_settle_take(&ends[i]);
    }
    UNTIL(nothing_in_hand());
    ai_settle_close(clock_in_ms(20000));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rows_of(accounts[i]), MANY / 2);
        assert_int_equal(charged_to(accounts[i]), MANY / 3 * COST);
        assert_int_equal(
            ledger_sql("SELECT sum(calls) FROM usage_day WHERE account_id = %lld", (long long)accounts[i]),
            MANY / 2);
    }
    for (int i = 0; i < MANY; i++)
        assert_false(lies_in_redis(ends[i].id));
    assert_int_equal(redis_number("ZCARD", "ai:ended", NULL), 0);
    ledger_assert_sound();
}

static void each_end_is_a_row_and_a_charge_and_leaves_redis(void **state)
{
    (void)state;
    run(check_many);
}

static void check_twice(void)
{
    int64_t account = ledger_account("10");
    struct ai_end end = end_of(account, reserve(account, 2), COST);
    ai_settle_open(loop_self());
    ai_settle_take(&end);
    UNTIL(nothing_in_hand());
    end.cost = 2 * COST;
    end.status = AI_JOB_FAILED;
    ai_settle_take(&end);
    UNTIL(nothing_in_hand());
    ai_settle_close(clock_in_ms(20000));
    assert_int_equal(charged_to(account), COST);
    assert_int_equal(
        ledger_sql("SELECT count(*) FROM ai_job WHERE account_id = %lld AND status = 'completed'",
                   (long long)account),
        1);
    ledger_assert_sound();
}

static void what_is_told_twice_counts_once(void **state)
{
    (void)state;
    run(check_twice);
}

/* What was taken is a copy. */
static void check_copy(void)
{
    int64_t account = ledger_account("10");
    char text[] = "as it was";
    struct ai_end end = end_of(account, 0, 0);
    end.text = str_from(text);
    end.answer = STR("{\"a\":1}");
    ai_settle_open(loop_self());
    ai_settle_take(&end);
    memset(text, 'x', sizeof text - 1);
    ai_settle_close(clock_in_ms(20000));
    assert_int_equal(
        ledger_sql("SELECT count(*) FROM ai_job WHERE account_id = %lld AND answer_text = 'as it was' "
                   "AND answer = '{\"a\":1}'",
                   (long long)account),
        1);
}

static void to_close_is_to_settle_what_is_in_hand(void **state)
{
    (void)state;
    run(check_copy);
}

/* An end of an account that there is not can't be a row. */
static void check_unstorable(void)
{
    int64_t account = ledger_account("10");
    int64_t generation = reserve(account, 2);
    struct ai_end ends[] = {end_of(account, generation, COST), end_of(account + 1000, 0, 0),
                            end_of(account, generation, COST)};
    ai_settle_open(loop_self());
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        lay_into_redis(&ends[i]);
        ai_settle_take(&ends[i]);
    }
    UNTIL(metric_read(M_AI_UNSETTLED, 0) == 1);
    assert_int_equal(rows_of(account), 2);
    assert_int_equal(charged_to(account), 2 * COST);
    ai_settle_close(clock_in_ms(20000));
    assert_true(nothing_in_hand());
    UNTIL(!lies_in_redis(ends[0].id) && !lies_in_redis(ends[2].id));
    assert_true(lies_in_redis(ends[1].id)); /* another may try */
    ledger_assert_sound();
}

static void one_that_cannot_be_stored_holds_up_no_other(void **state)
{
    (void)state;
    run(check_unstorable);
}

static void check_away(void)
{
    int64_t account = ledger_account("10");
    int64_t generation = reserve(account, 3);
    ai_settle_open(loop_self());
    services_postgres_stop(&ledger_services);
    for (int i = 0; i < 3; i++) {
        struct ai_end end = end_of(account, generation, COST);
        ai_settle_take(&end);
    }
    int slept = fiber_sleep_ms(100);
    assert_int_equal(slept, 0);
    assert_int_equal(metric_read(M_AI_UNSETTLED, 0), 3);
    services_postgres_start(&ledger_services);
    UNTIL(nothing_in_hand());
    ai_settle_close(clock_in_ms(20000));
    assert_int_equal(charged_to(account), 3 * COST);
    ledger_assert_sound();
}

static void ends_wait_for_a_postgres_that_is_away(void **state)
{
    (void)state;
    run(check_away);
}

static void check_abandoned(void)
{
    int64_t account = ledger_account("10");
    int64_t generation = reserve(account, 1);
    struct ai_end end = end_of(account, generation, COST);
    lay_into_redis(&end);
    services_postgres_stop(&ledger_services);
    ai_settle_open(loop_self());
    ai_settle_take(&end);
    uint64_t begun_ns = clock_now_ns();
    ai_settle_close(clock_in_ms(200));
    assert_true(clock_now_ns() - begun_ns < 10 * UINT64_C(1000000000));
    assert_true(nothing_in_hand());
    assert_true(lies_in_redis(end.id));
    services_postgres_start(&ledger_services);
    /* Another finds it. */
    ai_settle_open(loop_self());
    ai_settle_recover(&end.id, 1);
    ai_settle_recover(&end.id, 1); /* has it in hand */
    UNTIL(nothing_in_hand());
    ai_settle_close(clock_in_ms(20000));
    assert_int_equal(charged_to(account), COST);
    assert_int_equal(
        ledger_sql("SELECT count(*) FROM ai_job WHERE account_id = %lld AND answer_text = 'words'",
                   (long long)account),
        1);
    assert_false(lies_in_redis(end.id));
    ledger_assert_sound();
}

static void what_there_is_no_time_for_is_anothers(void **state)
{
    (void)state;
    run(check_abandoned);
}

static void check_unreadable(void)
{
    struct redis_value reply;
    struct ai_end end = end_of(1, 0, 0);
    char key[64];
    snprintf(key, sizeof key, "ai:call:%.*s", STR_ARG(end.id));
    lay_into_redis(&end);
    assert_int_equal(
        redis_call(redis_shared(), &reply, &arena, STR("HSET"), str_from(key), STR("z"), STR("{")), 0);
    ai_settle_open(loop_self());
    ai_settle_recover(&end.id, 1);
    assert_true(nothing_in_hand());
    UNTIL(redis_number("ZCARD", "ai:ended", NULL) == 0);
    assert_false(lies_in_redis(end.id));
    ai_settle_close(clock_in_ms(20000));
}

static void a_record_that_nobody_can_read_is_dropped(void **state)
{
    (void)state;
    run(check_unreadable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_end_is_a_row_and_a_charge_and_leaves_redis, ledger_fixture_empty),
        cmocka_unit_test_setup(what_is_told_twice_counts_once, ledger_fixture_empty),
        cmocka_unit_test_setup(to_close_is_to_settle_what_is_in_hand, ledger_fixture_empty),
        cmocka_unit_test_setup(one_that_cannot_be_stored_holds_up_no_other, ledger_fixture_empty),
        cmocka_unit_test_setup(ends_wait_for_a_postgres_that_is_away, ledger_fixture_empty),
        cmocka_unit_test_setup(what_there_is_no_time_for_is_anothers, ledger_fixture_empty),
        cmocka_unit_test_setup(a_record_that_nobody_can_read_is_dropped, ledger_fixture_empty),
    };
    return cmocka_run_group_tests(tests, ledger_fixture_start, ledger_fixture_stop);
}
