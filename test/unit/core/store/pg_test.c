/*
 * The PostgreSQL client against a real server. Each test runs on a loop of its own, in a fiber, with a client that is
 * opened before and closed after it; the loop must then close empty.
 */
#include "core/store/pg.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/metrics.h"
#include "core/run/fiber.h"
#include "test/unit/support/services.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct services services;
static struct loop loop;
static char error[256];

static const struct pg_statement select_int = {"select_int", "SELECT $1::bigint + 1"};
static const struct pg_statement select_error = {"select_error", "SELECT 1 / ($1::bigint - 1)"};
static const struct pg_statement select_nothing = {"select_nothing", "SELECT * FROM no_such_table"};
static const struct pg_statement select_slow = {"select_slow", "SELECT 1 FROM pg_sleep($1::float8)"};
static const struct pg_statement insert_item = {"insert_item",
                                                "INSERT INTO item (n, t) VALUES ($1, $2) RETURNING n"};
static const struct pg_statement insert_slow = {
    "insert_slow", "INSERT INTO item (n) SELECT $1::bigint FROM pg_sleep($2::float8)"};
static const struct pg_statement insert_child = {"insert_child", "INSERT INTO child (parent) VALUES ($1)"};
static const struct pg_statement update_item = {"update_item", "UPDATE item SET t = $2 WHERE n >= $1"};
static const struct pg_statement lock_item = {"lock_item", "SELECT n FROM item WHERE n = $1 FOR UPDATE"};

static int64_t sql(const char *text)
{
    return services_sql(&services, text);
}

static void set(const char *name, const char *value)
{
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static int64_t metric(enum metric id)
{
    return metric_read(id, 0);
}

/* ---- running ---- */

static void wait_ready(void)
{
    assert_int_equal(pg_wait_ready(clock_in_ms(10000)), 0);
}

static void run_opened(void *arg)
{
    void (*test)(void);
    memcpy(&test, &arg, sizeof test);
    assert_int_equal(pg_open_loop(&loop, error, sizeof error), 0);
    wait_ready();
    test();
    pg_close_loop(&loop);
}

static void on_loop(void (*test)(void))
{
    void *arg;
    memcpy(&arg, &test, sizeof arg);
    sql("DROP TABLE IF EXISTS child, item; CREATE TABLE item (n bigint PRIMARY KEY, t text); "
        "CREATE TABLE child (parent bigint REFERENCES item DEFERRABLE INITIALLY DEFERRED)");
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_opened, arg);
    loop_close(&loop);
}

/* Many fibers at once: task number i is run(i), and its result is kept. */
enum { TASKS_MAX = 600 };
static struct task {
    int (*run)(int number);
    int number;
    int result;
    struct fiber *fiber;
    bool ended;
} tasks[TASKS_MAX];
static struct group running;

static void run_task(void *arg)
{
    struct task *task = arg;
    task->result = task->run(task->number);
    task->ended = true;
    group_done(&running);
}

static void begin_task(int number, int (*run)(int number))
{
    tasks[number] = (struct task){.run = run, .number = number};
    group_add(&running);
    tasks[number].fiber = fiber_start(&loop, "task", run_task, &tasks[number]);
}

static void begin_tasks(int count, int (*run)(int number))
{
    for (int i = 0; i < count; i++)
        begin_task(i, run);
}

static void end_tasks(void)
{
    assert_int_equal(group_wait(&running, "tasks", clock_in_ms(30000)), 0);
}

static void run_tasks(int count, int (*run)(int number))
{
    begin_tasks(count, run);
    end_tasks();
}

/* Waits until `condition` (SQL that gives a number) is not 0. */
static void until(const char *condition)
{
    for (int i = 0; i < 2000; i++) {
        if (sql(condition))
            return;
        assert_int_equal(fiber_sleep_ms(5), 0);
    }
    fail_msg("never came true: %s", condition);
}

static int insert(int64_t n)
{
    return pg_write(&insert_item, PG_VALUES(PG_INT(n), PG_TEXT(STR("text"))), NULL);
}

/* ---- values ---- */

static struct str echo(const char *type, struct pg_value value, struct pg_rows **rows)
{
    /* A statement is known by its address and name, so each type has its own. */
    static struct pg_statement statements[8];
    static char names[8][32];
    static char texts[8][64];
    size_t i = 0;
    while (statements[i].name && strcmp(statements[i].name, type) != 0)
        i++;
    assert_true(i < ARRAY_SIZE(statements));
    snprintf(names[i], sizeof names[i], "%s", type);
    snprintf(texts[i], sizeof texts[i], "SELECT $1::%s", type);
    statements[i] = (struct pg_statement){names[i], texts[i]};
    assert_int_equal(pg_read(&statements[i], &value, 1, rows), 0);
    assert_int_equal(pg_count(*rows), 1);
    return pg_str(*rows, 0, 0);
}

static void check_echo(const char *type, struct pg_value value, const char *expected)
{
    struct pg_rows *rows;
    struct str back = echo(type, value, &rows);
    if (!expected) {
        assert_null(back.at);
        assert_true(pg_is_null(rows, 0, 0));
    } else {
        assert_false(pg_is_null(rows, 0, 0));
        assert_string_equal(back.at, expected);
        assert_int_equal(back.size, strlen(expected));
    }
    pg_rows_free(rows);
}

static void test_values(void)
{
    static const char nasty[] =
        "'; DROP TABLE item; -- \\ \"quoted\" $1 %s \t\n \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
    check_echo("text", PG_NULL, NULL);
    check_echo("text", PG_TEXT(STR_NONE), NULL);
    check_echo("text", PG_TEXT(STR("")), "");
    check_echo("text", PG_TEXT(str_from(nasty)), nasty);
    check_echo("text", PG_TEXT(str_of("cut here", 3)), "cut");
    check_echo("bigint", PG_INT(0), "0");
    check_echo("bigint", PG_INT(INT64_MIN), "-9223372036854775808");
    check_echo("bigint", PG_INT(INT64_MAX), "9223372036854775807");
    check_echo("boolean", PG_BOOL(true), "t");
    check_echo("boolean", PG_BOOL(false), "f");
    check_echo("bytea", PG_BYTES(str_of("\0\xff\\'\n", 5)), "\\x00ff5c270a");
    check_echo("bytea", PG_BYTES(STR("")), "\\x");
    check_echo("bytea", PG_BYTES(STR_NONE), NULL);
    const int64_t numbers[] = {1, -2, INT64_MIN, INT64_MAX};
    check_echo("bigint[]", PG_INTS(numbers, 4), "{1,-2,-9223372036854775808,9223372036854775807}");
    check_echo("bigint[]", PG_INTS(NULL, 0), "{}");
}

static void values_round_trip(void **state)
{
    (void)state;
    on_loop(test_values);
}

static void test_text_arrays(void)
{
    static const struct pg_statement unnest = {"unnest",
                                               "SELECT x FROM unnest($1::text[]) WITH ORDINALITY u (x, i) "
                                               "ORDER BY i"};
    const struct str texts[] = {STR("plain"), STR(""),      STR("NULL"),          STR("null"),
                                STR("a,b"),   STR("{x}"),   STR("\"q\" \\ 'a' "), STR(" \xc3\xa9\n"),
                                STR_NONE,     STR("\\\\\"")};
    struct pg_rows *rows;
    assert_int_equal(pg_read(&unnest, PG_VALUES(PG_TEXTS(texts, ARRAY_SIZE(texts))), &rows), 0);
    assert_int_equal(pg_count(rows), ARRAY_SIZE(texts));
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(pg_is_null(rows, i, 0), texts[i].at == NULL);
        assert_true(str_equal(pg_str(rows, i, 0), texts[i]));
    }
    pg_rows_free(rows);
    assert_int_equal(pg_read(&unnest, PG_VALUES(PG_TEXTS(NULL, 0)), &rows), 0);
    assert_int_equal(pg_count(rows), 0);
    pg_rows_free(rows);
}

static void text_arrays_keep_every_element(void **state)
{
    (void)state;
    on_loop(test_text_arrays);
}

static void test_nul(void)
{
    const struct str texts[] = {STR("good"), str_of("a\0b", 3)};
    struct pg_rows *rows = NULL;
    int64_t before = metric(M_PG_STATEMENTS);
    assert_int_equal(pg_write(&insert_item, PG_VALUES(PG_INT(1), PG_TEXT(texts[1])), &rows), -EIO);
    assert_int_equal(pg_write(&insert_item, PG_VALUES(PG_INT(1), PG_TEXTS(texts, 2)), NULL), -EIO);
    assert_null(rows);
    assert_int_equal(metric(M_PG_STATEMENTS), before);
}

static void text_with_nul_is_not_sent(void **state)
{
    (void)state;
    on_loop(test_nul);
}

static void test_rows(void)
{
    static const struct pg_statement table = {"table",
                                              "SELECT i, i % 2 = 0, NULL FROM generate_series(1, 3) i"};
    struct pg_rows *rows;
    assert_int_equal(pg_read(&table, PG_NO_VALUES, &rows), 0);
    assert_int_equal(pg_count(rows), 3);
    assert_int_equal(pg_i64(rows, 2, 0), 3);
    assert_true(pg_bool(rows, 1, 1));
    assert_false(pg_bool(rows, 2, 1));
    assert_int_equal(pg_i64(rows, 0, 2), 0);
    assert_false(pg_bool(rows, 0, 2));
    pg_rows_free(rows);
    pg_rows_free(NULL);
    for (int i = 0; i < 5; i++)
        assert_int_equal(insert(i), 0);
    assert_int_equal(pg_write(&update_item, PG_VALUES(PG_INT(2), PG_TEXT(STR("x"))), &rows), 0);
    assert_int_equal(pg_affected(rows), 3);
    assert_int_equal(pg_count(rows), 0);
    pg_rows_free(rows);
}

static void rows_give_typed_columns_and_counts(void **state)
{
    (void)state;
    on_loop(test_rows);
}

/* ---- reads ---- */

static int read_some(int number)
{
    struct pg_rows *rows;
    int64_t which = number % 5;
    if (which == 1)
        return pg_read(&select_error, PG_VALUES(PG_INT(1)), NULL) == -EIO ? 0 : -EPROTO;
    if (which == 3)
        return pg_read(&select_nothing, PG_NO_VALUES, NULL) == -EIO ? 0 : -EPROTO;
    int result = pg_read(&select_int, PG_VALUES(PG_INT(number)), &rows);
    if (result)
        return result;
    bool right = pg_count(rows) == 1 && pg_i64(rows, 0, 0) == number + 1;
    pg_rows_free(rows);
    return right ? 0 : -EPROTO;
}

static void test_reads(void)
{
    for (int round = 0; round < 5; round++) {
        run_tasks(50, read_some);
        for (int i = 0; i < 50; i++)
            assert_int_equal(tasks[i].result, 0);
    }
    assert_true(pg_is_up());
    assert_int_equal(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate'"), 2);
}

static void reads_fail_each_by_itself(void **state)
{
    (void)state;
    on_loop(test_reads);
}

static int read_slow(int number)
{
    return pg_read(&select_slow, PG_VALUES(PG_TEXT(number ? STR("0") : STR("0.3"))), NULL);
}

static void test_read_cancel(void)
{
    begin_tasks(20, read_slow);
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    fiber_cancel(tasks[0].fiber);
    fiber_cancel(tasks[7].fiber);
    end_tasks();
    for (int i = 0; i < 20; i++)
        assert_int_equal(tasks[i].result, i == 0 || i == 7 ? -ECANCELED : 0);
    assert_int_equal(read_some(2), 0);
}

static void cancelled_read_leaves_others_alone(void **state)
{
    (void)state;
    on_loop(test_read_cancel);
}

static void test_new_columns(void)
{
    static const struct pg_statement all = {"all_columns", "SELECT * FROM item"};
    struct pg_rows *rows;
    struct pg_tx *tx;
    assert_int_equal(insert(1), 0);
    assert_int_equal(pg_read(&all, PG_NO_VALUES, NULL), 0);
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_query(tx, &all, PG_NO_VALUES, NULL), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    sql("ALTER TABLE item ADD more text DEFAULT 'new'");
    assert_int_equal(pg_read(&all, PG_NO_VALUES, &rows), 0);
    assert_string_equal(pg_str(rows, 0, 2).at, "new");
    pg_rows_free(rows);
    assert_int_equal(pg_begin(&tx), 0);
    int result = pg_query(tx, &all, PG_NO_VALUES, NULL);
    assert_int_equal(pg_end(tx, result), -EAGAIN);
    assert_int_equal(pg_begin(&tx), 0);
    result = pg_query(tx, &all, PG_NO_VALUES, NULL);
    assert_int_equal(pg_end(tx, result), 0);
}

static void migration_under_prepared_statements(void **state)
{
    (void)state;
    on_loop(test_new_columns);
}

/* ---- writes ---- */

static int write_some(int number)
{
    struct pg_rows *rows;
    int result = pg_write(&insert_item, PG_VALUES(PG_INT(number), PG_TEXT(STR("t"))), &rows);
    if (result)
        return result;
    bool right = pg_affected(rows) == 1 && pg_i64(rows, 0, 0) == number;
    pg_rows_free(rows);
    return right ? 0 : -EPROTO;
}

static void test_group_commit(void)
{
    int64_t batches = metric(M_PG_BATCHES);
    int64_t batched = metric(M_PG_BATCHED);
    run_tasks(500, write_some);
    for (int i = 0; i < 500; i++)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 500);
    assert_int_equal(metric(M_PG_BATCHED) - batched, 500);
    assert_in_range(metric(M_PG_BATCHES) - batches, 5, 10);
    /* one transaction for up to a hundred rows */
    assert_in_range(sql("SELECT count(DISTINCT xmin::text) FROM item"), 5, 10);
}

static void writes_are_committed_in_groups(void **state)
{
    (void)state;
    on_loop(test_group_commit);
}

/* Number 23's key is taken. */
static void test_one_faulty(void)
{
    sql("INSERT INTO item VALUES (23, 'first')");
    run_tasks(50, write_some);
    for (int i = 0; i < 50; i++)
        assert_int_equal(tasks[i].result, i == 23 ? -EEXIST : 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 50);
    assert_int_equal(sql("SELECT count(*) FROM item WHERE t = 'first'"), 1);
}

static void one_faulty_write_fails_alone(void **state)
{
    (void)state;
    on_loop(test_one_faulty);
}

static int write_kinds(int number)
{
    switch (number % 4) {
    case 0: return pg_write(&insert_item, PG_VALUES(PG_INT(number), PG_TEXT(STR("t"))), NULL);
    case 1: return pg_write(&insert_child, PG_VALUES(PG_INT(-1)), NULL); /* fails at the commit */
    case 2: return pg_write(&select_nothing, PG_NO_VALUES, NULL);        /* fails at its Parse */
    default: return pg_write(&insert_item, PG_VALUES(PG_INT(number / 8 * 8), PG_TEXT(STR("again"))), NULL);
    }
}

static void test_kinds_of_failure(void)
{
    run_tasks(80, write_kinds);
    for (int i = 0; i < 80; i += 4) {
        assert_int_equal(tasks[i + 1].result, -EIO);
        assert_int_equal(tasks[i + 2].result, -EIO);
    }
    /* For each multiple of 8, one of the three that want the key has got it. */
    for (int i = 0; i < 80; i += 8)
        assert_int_equal((tasks[i].result == 0) + (tasks[i + 3].result == 0) + (tasks[i + 7].result == 0), 1);
    for (int i = 4; i < 80; i += 8)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 20);
    assert_int_equal(sql("SELECT count(*) FROM child"), 0);
}

static void every_kind_of_failure_in_a_batch_is_its_own(void **state)
{
    (void)state;
    on_loop(test_kinds_of_failure);
}

/* Number 0 holds the connection so that the others gather; 1 waits in the batch; the last fails and has been left. */
static int write_in_turn(int number)
{
    if (number == 0)
        return pg_write(&insert_slow, PG_VALUES(PG_INT(1000), PG_TEXT(STR("0.3"))), NULL);
    if (number == 1)
        return pg_write(&insert_slow, PG_VALUES(PG_INT(1001), PG_TEXT(STR("0.3"))), NULL);
    return insert(number == 9 ? 1000 : number);
}

static void test_cancelled_failure(void)
{
    begin_task(0, write_in_turn);
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    for (int i = 1; i < 10; i++)
        begin_task(i, write_in_turn);
    until("SELECT count(*) FROM item WHERE n = 1000");
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    fiber_cancel(tasks[9].fiber);
    end_tasks();
    assert_int_equal(tasks[9].result, -ECANCELED);
    for (int i = 0; i < 9; i++)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 9);
}

static void success_is_never_told_of_a_batch_that_a_cancelled_write_spoiled(void **state)
{
    (void)state;
    on_loop(test_cancelled_failure);
}

static void test_cancel_unsent(void)
{
    begin_task(0, write_in_turn);
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    begin_task(2, write_in_turn);
    begin_task(3, write_in_turn);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(tasks[2].fiber);
    end_tasks();
    assert_int_equal(tasks[2].result, -ECANCELED);
    assert_int_equal(tasks[3].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item WHERE n = 2"), 0);
    assert_int_equal(sql("SELECT count(*) FROM item WHERE n = 3"), 1);
}

static void write_cancelled_before_it_was_sent_never_happens(void **state)
{
    (void)state;
    on_loop(test_cancel_unsent);
}

/* ---- transactions ---- */

static int insert_in(struct pg_tx *tx, int64_t n)
{
    return pg_query(tx, &insert_item, PG_VALUES(PG_INT(n), PG_TEXT(STR("tx"))), NULL);
}

static void test_commit_and_rollback(void)
{
    struct pg_tx *tx;
    struct pg_rows *rows;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 1), 0);
    assert_int_equal(pg_query(tx, &insert_item, PG_VALUES(PG_INT(2), PG_NULL), &rows), 0);
    assert_int_equal(pg_i64(rows, 0, 0), 2);
    pg_rows_free(rows);
    assert_int_equal(sql("SELECT count(*) FROM item"), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 2);

    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 3), 0);
    assert_int_equal(pg_end(tx, -ENOENT), -ENOENT);

    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_end(tx, -ENOENT), -ENOENT);
    assert_int_equal(pg_end(NULL, -EAGAIN), -EAGAIN);

    /* A failed statement ends it, also when the caller forgets that. */
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 4), 0);
    assert_int_equal(insert_in(tx, 1), -EEXIST);
    assert_int_equal(insert_in(tx, 5), -EEXIST);
    assert_int_equal(pg_end(tx, 0), -EEXIST);
    assert_int_equal(sql("SELECT count(*) FROM item"), 2);
    /* All on one connection, which was clean each time. */
    assert_int_equal(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate'"), 3);
}

static void transaction_commits_or_leaves_nothing(void **state)
{
    (void)state;
    on_loop(test_commit_and_rollback);
}

static void test_deferred(void)
{
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 1), 0);
    assert_int_equal(pg_query(tx, &insert_child, PG_VALUES(PG_INT(7)), NULL), 0);
    assert_int_equal(pg_end(tx, 0), -EIO);
    assert_int_equal(sql("SELECT count(*) FROM item"), 0);
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_query(tx, &insert_child, PG_VALUES(PG_INT(7)), NULL), 0);
    assert_int_equal(insert_in(tx, 7), 0);
    assert_int_equal(pg_end(tx, 0), 0);
}

static void failing_commit_is_reported(void **state)
{
    (void)state;
    on_loop(test_deferred);
}

static int slow_transaction(int number)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    if (result == 0)
        result = insert_in(tx, number);
    if (result == 0)
        result = pg_query(tx, &select_slow, PG_VALUES(PG_TEXT(STR("0.4"))), NULL);
    return pg_end(tx, result);
}

static void test_cancelled_transaction(void)
{
    begin_task(0, slow_transaction);
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    fiber_cancel(tasks[0].fiber);
    end_tasks();
    assert_int_equal(tasks[0].result, -ECANCELED);
    /* The only connection is being cleaned: the next one gets it when it is idle. */
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate' AND "
                         "(state <> 'idle' OR backend_xid IS NOT NULL)"),
                     0);
    assert_int_equal(insert_in(tx, 5), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 1);
    assert_int_equal(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate'"), 3);
}

static void cancelled_transaction_gives_back_a_clean_connection(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "1");
    on_loop(test_cancelled_transaction);
    set("PG_POOL_SIZE", "4");
}

static int stuck_transaction(int number)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    if (result == 0)
        result = insert_in(tx, number);
    if (result == 0)
        result = pg_query(tx, &select_slow, PG_VALUES(PG_TEXT(STR("60"))), NULL);
    return pg_end(tx, result);
}

static void test_stuck_transaction(void)
{
    begin_task(0, stuck_transaction);
    until("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
    fiber_cancel(tasks[0].fiber);
    end_tasks();
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0); /* a new connection, once the old one was given up */
    assert_int_equal(insert_in(tx, 0), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    /* The server notices that the client is gone. */
    until("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
          "application_name = 'wakegate'");
}

static void statement_left_behind_is_stopped_on_the_server(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "1");
    on_loop(test_stuck_transaction);
    set("PG_POOL_SIZE", "4");
}

static int count_up(int number)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &lock_item, PG_VALUES(PG_INT(0)), NULL);
    if (result == 0)
        result = insert_in(tx, number + 1);
    return pg_end(tx, result);
}

static void test_pool(void)
{
    assert_int_equal(insert(0), 0);
    run_tasks(100, count_up);
    for (int i = 0; i < 100; i++)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 101);
    assert_int_equal(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate'"), 2 + 4);
}

static void pool_is_bounded_and_everybody_gets_a_turn(void **state)
{
    (void)state;
    on_loop(test_pool);
}

static void test_pool_timeout(void)
{
    struct pg_tx *first;
    struct pg_tx *second;
    assert_int_equal(pg_begin(&first), 0);
    assert_int_equal(pg_begin(&second), -ETIMEDOUT);
    assert_null(second);
    assert_int_equal(pg_end(first, 0), 0);
    assert_int_equal(pg_begin(&second), 0);
    assert_int_equal(pg_end(second, 0), 0);
}

static void waiting_for_the_pool_is_bounded(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "1");
    set("PG_TIMEOUT_MS", "200");
    on_loop(test_pool_timeout);
    set("PG_TIMEOUT_MS", "10000");
    set("PG_POOL_SIZE", "4");
}

static int cross_locks(int number)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    for (int i = 0; i < 2 && result == 0; i++) {
        result = pg_query(tx, &lock_item, PG_VALUES(PG_INT((number + i) % 2)), NULL);
        if (result == 0)
            result = fiber_sleep_ms(100);
    }
    return pg_end(tx, result);
}

static void test_deadlock(void)
{
    assert_int_equal(insert(0), 0);
    assert_int_equal(insert(1), 0);
    run_tasks(2, cross_locks);
    assert_int_equal(tasks[0].result + tasks[1].result, -EAGAIN);
}

static void deadlock_may_be_tried_again(void **state)
{
    (void)state;
    on_loop(test_deadlock);
}

/* ---- time limits ---- */

static void test_statement_timeout(void)
{
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    assert_int_equal(pg_read(&select_slow, PG_VALUES(PG_TEXT(STR("30"))), &rows), -ETIMEDOUT);
    assert_null(rows);
    assert_int_equal(pg_write(&insert_slow, PG_VALUES(PG_INT(1), PG_TEXT(STR("30"))), NULL), -ETIMEDOUT);
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_query(tx, &select_slow, PG_VALUES(PG_TEXT(STR("30"))), NULL), -ETIMEDOUT);
    assert_int_equal(pg_end(tx, 0), -ETIMEDOUT);
    assert_int_equal(
        sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
            "application_name = 'wakegate'"),
        0);
    assert_int_equal(read_some(0), 0);
    assert_int_equal(sql("SELECT count(*) FROM item"), 0);
}

static void slow_statement_is_cancelled_on_the_server(void **state)
{
    (void)state;
    set("PG_TIMEOUT_MS", "200");
    on_loop(test_statement_timeout);
    set("PG_TIMEOUT_MS", "10000");
}

/* The server's processes of our client, stopped as a machine that hangs would be. */
static void signal_backends(int number)
{
    enum { BACKENDS_MAX = 16 };
    static int64_t pids[BACKENDS_MAX];
    static size_t count;
    if (number == SIGSTOP) {
        int64_t last = 0;
        for (count = 0; count < BACKENDS_MAX; count++) {
            char text[160];
            snprintf(
                text, sizeof text,
                "SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'wakegate' AND pid > %lld",
                (long long)last);
            last = pids[count] = sql(text);
            if (last == 0)
                break;
        }
    }
    for (size_t i = 0; i < count; i++)
        kill((pid_t)pids[i], number);
}

static int write_into_silence(int number)
{
    return insert(number);
}

static void test_silence(void)
{
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 100), 0);
    signal_backends(SIGSTOP);
    begin_task(0, write_into_silence);
    assert_int_equal(pg_read(&select_int, PG_VALUES(PG_INT(1)), NULL), -ETIMEDOUT);
    end_tasks();
    assert_int_equal(tasks[0].result, -ECONNRESET);
    assert_int_equal(pg_end(tx, 0), -ECONNRESET);
    /* New connections take the place of those that say nothing. */
    wait_ready();
    assert_int_equal(read_some(0), 0);
    assert_int_equal(insert(200), 0);
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 300), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    signal_backends(SIGCONT);
}

static void silent_server_is_left_for_a_new_connection(void **state)
{
    (void)state;
    set("PG_TIMEOUT_MS", "300");
    on_loop(test_silence);
    set("PG_TIMEOUT_MS", "10000");
}

/* ---- lost connections ---- */

static void kill_backends(const char *also)
{
    char text[256];
    snprintf(text, sizeof text,
             "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE "
             "application_name = 'wakegate' %s",
             also);
    assert_true(sql(text) > 0);
}

static void test_killed_backends(void)
{
    struct pg_tx *tx;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(pg_begin(&tx), 0);
        assert_int_equal(insert_in(tx, 100 + round), 0);
        begin_task(0, read_slow);
        begin_task(1, write_in_turn);
        until(
            "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "
            "application_name = 'wakegate'");
        kill_backends("");
        end_tasks();
        assert_int_equal(tasks[0].result, 0); /* a read is sent again */
        assert_int_equal(tasks[1].result, -ECONNRESET);
        assert_int_equal(pg_query(tx, &select_int, PG_VALUES(PG_INT(1)), NULL), -ENOTCONN);
        assert_int_equal(pg_end(tx, 0), -ENOTCONN);
        assert_int_equal(insert(round), 0);
        assert_int_equal(sql("SELECT count(*) FROM item"), round + 1);
    }
}

static void lost_connection_is_made_again(void **state)
{
    (void)state;
    on_loop(test_killed_backends);
}

static bool stop_load;

static int read_load(int number)
{
    int answered = 0;
    while (!stop_load) {
        int result = read_some(number % 5 == 1 || number % 5 == 3 ? number + 1 : number);
        if (result != 0 && result != -ENOTCONN)
            return result;
        answered += result == 0;
        if (result && fiber_sleep_ms(5))
            return -ECANCELED;
    }
    return answered > 0 ? 0 : -ENODATA;
}

static int64_t next_key;
static bool confirmed[100000];
static bool unknown[100000];

static int write_load(int number)
{
    (void)number;
    while (!stop_load) {
        int64_t key = next_key++;
        if ((size_t)key >= ARRAY_SIZE(confirmed))
            return 0;
        int result = insert(key);
        if (result != 0 && result != -ENOTCONN && result != -ECONNRESET)
            return result;
        confirmed[key] = result == 0;
        unknown[key] = result == -ECONNRESET;
        if (result && fiber_sleep_ms(5))
            return -ECANCELED;
    }
    return 0;
}

static int tx_load(int number)
{
    while (!stop_load) {
        struct pg_tx *tx;
        int result = pg_begin(&tx);
        int64_t key = next_key++;
        if ((size_t)key >= ARRAY_SIZE(confirmed))
            return pg_end(tx, result);
        if (result == 0)
            result = insert_in(tx, key);
        if (result == 0)
            result = insert_in(tx, -key - 1000);
        result = pg_end(tx, result);
        if (result != 0 && result != -ENOTCONN && result != -ECONNRESET)
            return result;
        confirmed[key] = result == 0;
        unknown[key] = result == -ECONNRESET;
        if (fiber_sleep_ms(result ? 5 : 1 + (uint64_t)number % 3))
            return -ECANCELED;
    }
    return 0;
}

static void restart_server(void *unused)
{
    (void)unused;
    services_postgres_stop(&services);
    services_postgres_start(&services);
}

static void check_truth(void)
{
    static bool there[ARRAY_SIZE(confirmed)];
    static const struct pg_statement keys = {"keys", "SELECT n FROM item WHERE n >= 0"};
    struct pg_rows *rows;
    memset(there, 0, sizeof there);
    assert_int_equal(pg_read(&keys, PG_NO_VALUES, &rows), 0);
    for (size_t i = 0; i < pg_count(rows); i++)
        there[pg_i64(rows, i, 0)] = true;
    pg_rows_free(rows);
    for (size_t i = 0; i < ARRAY_SIZE(confirmed); i++)
        if (there[i] != confirmed[i] && !unknown[i])
            fail_msg("key %zu: told %d, there %d", i, confirmed[i], there[i]);
}

static void test_restart(void)
{
    stop_load = false;
    next_key = 0;
    for (int i = 0; i < 10; i++)
        begin_task(i, read_load);
    for (int i = 10; i < 30; i++)
        begin_task(i, write_load);
    for (int i = 30; i < 36; i++)
        begin_task(i, tx_load);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fiber_sleep_ms(100), 0);
        thread_run("restart", restart_server, NULL);
        wait_ready();
        assert_int_equal(fiber_sleep_ms(100), 0);
    }
    stop_load = true;
    end_tasks();
    for (int i = 0; i < 36; i++)
        assert_int_equal(tasks[i].result, 0);
    wait_ready();
    check_truth();
}

static void restart_of_the_server_loses_and_doubles_nothing(void **state)
{
    (void)state;
    on_loop(test_restart);
}

static void stop_server(void *unused)
{
    (void)unused;
    services_postgres_stop(&services);
}

static void test_away(void)
{
    struct pg_tx *tx;
    struct pg_tx *open;
    assert_int_equal(pg_begin(&open), 0);
    assert_int_equal(insert_in(open, 1), 0);
    thread_run("stop", stop_server, NULL);
    assert_int_equal(pg_read(&select_int, PG_VALUES(PG_INT(1)), NULL), -ENOTCONN);
    assert_int_equal(insert(1), -ENOTCONN);
    assert_int_equal(pg_begin(&tx), -ENOTCONN);
    assert_null(tx);
    assert_int_equal(pg_end(open, 0), -ENOTCONN);
    assert_false(pg_is_up());
    assert_int_equal(pg_wait_ready(clock_in_ms(100)), -ETIMEDOUT);
    /* No spinning: half a second is room for some ten tries, and for each one thread a few milliseconds. */
    int64_t errors = metric(M_PG_ERRORS);
    uv_rusage_t before;
    uv_rusage_t after;
    uv_getrusage(&before);
    assert_int_equal(fiber_sleep_ms(500), 0);
    uv_getrusage(&after);
    assert_int_equal(metric(M_PG_ERRORS), errors);
    int64_t used_ms = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000 +
                      (after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1000;
    assert_in_range(used_ms, 0, 200);
}

static void without_a_server_all_is_refused_at_once(void **state)
{
    (void)state;
    on_loop(test_away);
    services_postgres_start(&services);
}

static int begin_and_end(int number)
{
    (void)number;
    struct pg_tx *tx;
    return pg_end(tx, pg_begin(&tx));
}

static int read_long(int number)
{
    (void)number;
    return pg_read(&select_slow, PG_VALUES(PG_TEXT(STR("5"))), NULL);
}

static void open_and_close(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        /* at once, while it connects; then with a read, a write and a waiter for the pool under way */
        assert_int_equal(pg_open_loop(&loop, error, sizeof error), 0);
        if (i > 0) {
            wait_ready();
            begin_task(0, read_long);
            begin_task(1, write_in_turn);
            begin_task(2, begin_and_end);
            assert_int_equal(fiber_sleep_ms(30), 0);
        }
        pg_close_loop(&loop);
        end_tasks();
        if (i > 0) {
            assert_int_equal(tasks[0].result, -ENOTCONN);
            assert_true(tasks[1].result == -ECONNRESET || tasks[1].result == -ENOTCONN);
            assert_true(tasks[2].result == 0 || tasks[2].result == -ENOTCONN);
        }
    }
}

static void closing_tells_everybody_and_leaves_an_empty_loop(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", open_and_close, NULL);
    loop_close(&loop);
}

static void bad_url_is_refused_without_showing_it(void **state)
{
    (void)state;
    set("DATABASE_URL", "postgresql://u:secret@[half/db");
    loop_open(&loop, 0);
    assert_int_equal(pg_open_loop(&loop, error, sizeof error), -EINVAL);
    assert_non_null(strstr(error, "DATABASE_URL"));
    assert_null(strstr(error, "secret"));
    loop_close(&loop);
    set("DATABASE_URL", services.database_url);
}

/* ---- main ---- */

static int start(void **state)
{
    (void)state;
    crypto_init();
    services_start(&services, SERVICES_POSTGRES);
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    set("DATABASE_URL", services.database_url);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_round_trip),
        cmocka_unit_test(text_arrays_keep_every_element),
        cmocka_unit_test(text_with_nul_is_not_sent),
        cmocka_unit_test(rows_give_typed_columns_and_counts),
        cmocka_unit_test(reads_fail_each_by_itself),
        cmocka_unit_test(cancelled_read_leaves_others_alone),
        cmocka_unit_test(migration_under_prepared_statements),
        cmocka_unit_test(writes_are_committed_in_groups),
        cmocka_unit_test(one_faulty_write_fails_alone),
        cmocka_unit_test(every_kind_of_failure_in_a_batch_is_its_own),
        cmocka_unit_test(success_is_never_told_of_a_batch_that_a_cancelled_write_spoiled),
        cmocka_unit_test(write_cancelled_before_it_was_sent_never_happens),
        cmocka_unit_test(transaction_commits_or_leaves_nothing),
        cmocka_unit_test(failing_commit_is_reported),
        cmocka_unit_test(cancelled_transaction_gives_back_a_clean_connection),
        cmocka_unit_test(statement_left_behind_is_stopped_on_the_server),
        cmocka_unit_test(pool_is_bounded_and_everybody_gets_a_turn),
        cmocka_unit_test(waiting_for_the_pool_is_bounded),
        cmocka_unit_test(deadlock_may_be_tried_again),
        cmocka_unit_test(slow_statement_is_cancelled_on_the_server),
        cmocka_unit_test(silent_server_is_left_for_a_new_connection),
        cmocka_unit_test(lost_connection_is_made_again),
        cmocka_unit_test(restart_of_the_server_loses_and_doubles_nothing),
        cmocka_unit_test(without_a_server_all_is_refused_at_once),
        cmocka_unit_test(closing_tells_everybody_and_leaves_an_empty_loop),
        cmocka_unit_test(bad_url_is_refused_without_showing_it),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
