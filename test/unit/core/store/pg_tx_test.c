/* Transactions and their pool against a real PostgreSQL. */
#include "test/unit/core/store/pg_fixture.h"

static const struct pg_statement lock_item = {"lock_item", "SELECT n FROM item WHERE n = $1 FOR UPDATE"};

/* ---- transactions ---- */

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
    assert_int_equal(sql(CONNECTED), 3);
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
    until(SLEEPING);
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
    assert_int_equal(sql(CONNECTED), 3);
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
    until(SLEEPING);
    fiber_cancel(tasks[0].fiber);
    end_tasks();
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0); /* a new connection, once the old one was given up */
    assert_int_equal(insert_in(tx, 0), 0);
    assert_int_equal(pg_end(tx, 0), 0);
    /* The server notices that the client is gone. */
    until("SELECT 0 = (" SLEEPING ")");
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
    assert_int_equal(sql(CONNECTED), 2 + 4);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transaction_commits_or_leaves_nothing),
        cmocka_unit_test(failing_commit_is_reported),
        cmocka_unit_test(cancelled_transaction_gives_back_a_clean_connection),
        cmocka_unit_test(statement_left_behind_is_stopped_on_the_server),
        cmocka_unit_test(pool_is_bounded_and_everybody_gets_a_turn),
        cmocka_unit_test(waiting_for_the_pool_is_bounded),
        cmocka_unit_test(deadlock_may_be_tried_again),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
