/* Scopes: reads, writes and transactions of code that knows nothing of it, in one transaction, against a real PostgreSQL. */
#include "test/unit/core/store/pg_fixture.h"

#include "core/run/fiber.h"

static const struct pg_statement count_items = {"count_items", "SELECT count(*) FROM item"};
static const struct pg_statement end_session = {"end_session",
                                                "SELECT pg_terminate_backend(pg_backend_pid())"};

enum { TOLD_MAX = 8 };
static int told[TOLD_MAX];
static int told_count;
static int64_t told_saw; /* how many items others saw when it was told */

static void tell(void *arg)
{
    assert_true(told_count < TOLD_MAX);
    told[told_count++] = *(int *)arg;
    told_saw = sql("SELECT count(*) FROM item");
}

/* What the fiber's own reads see. */
static int64_t seen(void)
{
    struct pg_rows *rows;
    assert_int_equal(pg_read(&count_items, PG_NO_VALUES, &rows), 0);
    int64_t count = pg_i64(rows, 0, 0);
    pg_rows_free(rows);
    return count;
}

static int64_t committed(void)
{
    return sql("SELECT count(*) FROM item");
}

static int in_transaction(int64_t n, int64_t other)
{
    struct pg_tx *tx;
    int result = pg_begin(&tx);
    if (result == 0)
        result = insert_in(tx, n);
    if (result == 0)
        result = insert_in(tx, other);
    return pg_end(tx, result);
}

/* ---- commit and rollback ---- */

static void test_commit_and_rollback(void)
{
    assert_false(pg_in_scope());
    assert_int_equal(pg_scope_open(), 0);
    assert_true(pg_in_scope());
    assert_int_equal(insert(1), 0);
    assert_int_equal(insert(2), 0);
    assert_int_equal(seen(), 2);
    assert_int_equal(committed(), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_false(pg_in_scope());
    assert_int_equal(committed(), 2);

    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(3), 0);
    assert_int_equal(pg_scope_close(-ENOENT), -ENOENT);
    assert_int_equal(
        sql("SELECT count(*) FROM pg_locks WHERE transactionid IS NOT NULL AND pid <> pg_backend_pid()"), 0);
    assert_int_equal(committed(), 2);

    /* Without a statement there is nothing to commit. */
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(insert(4), 0);
    assert_int_equal(committed(), 3);
    assert_int_equal(sql(CONNECTED), 3);
}

static void all_of_a_scope_is_committed_or_nothing(void **state)
{
    (void)state;
    on_loop(test_commit_and_rollback);
}

static int insert_beside(int number)
{
    return pg_in_scope() ? -EPROTO : insert(number);
}

static void test_other_fibers(void)
{
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    begin_task(7, insert_beside);
    end_tasks();
    assert_int_equal(tasks[7].result, 0);
    assert_int_equal(committed(), 1);
    assert_int_equal(pg_scope_close(-ECANCELED), -ECANCELED);
    assert_int_equal(sql("SELECT n FROM item"), 7);
}

static void other_fibers_are_not_in_it(void **state)
{
    (void)state;
    on_loop(test_other_fibers);
}

/* ---- errors inside ---- */

static void test_errors_inside(void)
{
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(pg_read(&select_nothing, PG_NO_VALUES, NULL), -EIO); /* along with the BEGIN */
    assert_int_equal(insert(1), 0);
    assert_int_equal(insert(1), -EEXIST);
    assert_int_equal(pg_read(&select_error, PG_VALUES(PG_INT(1)), NULL), -EIO);
    assert_int_equal(pg_read(&select_nothing, PG_NO_VALUES, NULL), -EIO);
    assert_int_equal(pg_read(&count_items, PG_VALUES(PG_INT(1)), NULL), -EIO); /* too many values */
    assert_int_equal(insert(2), 0);
    assert_int_equal(insert(1), -EEXIST);
    assert_int_equal(seen(), 2);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(committed(), 2);
}

static void statement_that_fails_leaves_the_others(void **state)
{
    (void)state;
    on_loop(test_errors_inside);
}

static void test_deferred(void)
{
    int first = 1;
    told_count = 0;
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    assert_int_equal(pg_write(&insert_child, PG_VALUES(PG_INT(7)), NULL), 0);
    pg_after_commit(tell, &first);
    assert_int_equal(pg_scope_close(0), -EIO);
    assert_int_equal(committed(), 0);
    assert_int_equal(told_count, 0);
}

static void failing_commit_is_reported_and_told_to_nobody(void **state)
{
    (void)state;
    on_loop(test_deferred);
}

static void test_late(void)
{
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    assert_int_equal(pg_read(&select_slow, PG_VALUES(PG_TEXT(STR("2"))), NULL), -ETIMEDOUT);
    assert_int_equal(insert(2), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(committed(), 2);
}

static void statement_that_took_too_long_leaves_the_others(void **state)
{
    (void)state;
    set("PG_TIMEOUT_MS", "200");
    on_loop(test_late);
    set("PG_TIMEOUT_MS", "10000");
}

/* ---- transactions inside ---- */

static void test_nested(void)
{
    struct pg_tx *tx;
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(in_transaction(1, 2), 0);
    assert_int_equal(in_transaction(3, 1), -EEXIST);
    assert_int_equal(seen(), 2);

    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 4), 0);
    assert_int_equal(pg_end(tx, -ENOENT), -ENOENT);
    assert_int_equal(seen(), 2);

    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_end(tx, 0), 0);

    /* A failed statement ends it, also when the caller forgets that; what stands around it can go on at once. */
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 5), 0);
    assert_int_equal(insert_in(tx, 1), -EEXIST);
    assert_int_equal(insert(6), 0);
    assert_int_equal(insert_in(tx, 7), -EEXIST);
    assert_int_equal(pg_end(tx, 0), -EEXIST);
    assert_int_equal(seen(), 3);

    assert_int_equal(committed(), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(committed(), 3);
    assert_int_equal(sql("SELECT count(*) FROM item WHERE n IN (1, 2, 6)"), 3);
    assert_int_equal(sql(CONNECTED), 3);
}

static void transaction_inside_is_a_part_of_it(void **state)
{
    (void)state;
    on_loop(test_nested);
}

static void test_nested_deep(void)
{
    struct pg_tx *outer;
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(pg_begin(&outer), 0);
    assert_int_equal(insert_in(outer, 1), 0);
    assert_int_equal(in_transaction(2, 3), 0);
    assert_int_equal(in_transaction(4, 3), -EEXIST);
    assert_int_equal(insert(3), -EEXIST);
    assert_int_equal(insert_in(outer, 5), 0);
    assert_int_equal(seen(), 4);
    assert_int_equal(pg_end(outer, -ENOENT), -ENOENT);
    assert_int_equal(seen(), 0);
    assert_int_equal(insert(6), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(sql("SELECT n FROM item"), 6);
}

static void transaction_in_a_transaction_ends_with_it(void **state)
{
    (void)state;
    on_loop(test_nested_deep);
}

/* ---- what is told after the commit ---- */

static void tell_more(void *arg)
{
    assert_false(pg_in_scope());
    tell(arg);
    pg_after_commit(tell, arg); /* at once: it is committed */
}

static void test_after_commit(void)
{
    int numbers[] = {1, 2, 3, 4};
    told_count = 0;
    assert_null(pg_scope_arena());
    pg_after_commit(tell, &numbers[3]);
    assert_int_equal(told_count, 1);

    assert_int_equal(pg_scope_open(), 0);
    assert_non_null(pg_scope_arena());
    pg_after_commit(tell, &numbers[0]);
    assert_int_equal(insert(1), 0);
    pg_after_commit(tell_more, &numbers[1]);
    assert_int_equal(insert(1), -EEXIST);
    pg_after_commit(tell, &numbers[2]);
    assert_int_equal(told_count, 1);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(told_count, 5);
    assert_int_equal(told_saw, 1);
    const int order[] = {4, 1, 2, 2, 3};
    assert_memory_equal(told, order, sizeof order);

    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(2), 0);
    pg_after_commit(tell, &numbers[0]);
    assert_int_equal(pg_scope_close(-EAGAIN), -EAGAIN);
    assert_int_equal(told_count, 5);
}

static void nobody_is_told_before_the_commit_and_then_in_order(void **state)
{
    (void)state;
    on_loop(test_after_commit);
}

/* ---- a fiber that leaves ---- */

static int leave_in_a_statement(int number)
{
    int result = pg_scope_open();
    if (result)
        return result;
    if (insert(number) || pg_read(&select_slow, PG_VALUES(PG_TEXT(STR("0.4"))), NULL) != -ECANCELED)
        return -EPROTO;
    /* Whether it was done nobody knows, so nothing of it may stay. */
    fiber_hold();
    result = insert(number + 1) == -ECANCELED ? pg_scope_close(0) : -EPROTO;
    fiber_release();
    return result;
}

static int leave_between(int number)
{
    int result = pg_scope_open();
    if (result == 0)
        result = insert(number);
    if (result == 0 && fiber_sleep_ms(60000) != -ECANCELED)
        result = -EPROTO;
    if (result == 0 && insert(number + 1) != -ECANCELED)
        result = -EPROTO;
    fiber_hold();
    if (result == 0)
        result = insert(number + 2);
    fiber_release();
    return pg_scope_close(result);
}

static void test_cancelled(void)
{
    begin_task(0, leave_in_a_statement);
    until(SLEEPING);
    fiber_cancel(tasks[0].fiber);
    end_tasks();
    assert_int_equal(tasks[0].result, -ECANCELED);
    assert_int_equal(committed(), 0);

    begin_task(10, leave_between);
    until("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate' AND "
          "state = 'idle in transaction' AND query LIKE 'RELEASE%'");
    fiber_cancel(tasks[10].fiber);
    end_tasks();
    assert_int_equal(tasks[10].result, 0);
    assert_int_equal(sql("SELECT count(*) FROM item WHERE n IN (10, 12)"), 2);
    assert_int_equal(committed(), 2);
    assert_int_equal(sql(CONNECTED), 3);
}

static void cancelled_fiber_commits_only_what_it_knows(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "1");
    on_loop(test_cancelled);
    set("PG_POOL_SIZE", "4");
}

/* ---- a connection that is lost ---- */

static void test_lost(void)
{
    int first = 1;
    told_count = 0;
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    pg_after_commit(tell, &first);
    assert_int_equal(pg_read(&end_session, PG_NO_VALUES, NULL), -ENOTCONN);
    assert_int_equal(insert(2), -ENOTCONN);
    assert_int_equal(in_transaction(3, 4), -ENOTCONN);
    assert_int_equal(pg_scope_close(0), -ENOTCONN);
    assert_false(pg_in_scope());
    assert_int_equal(committed(), 0);
    assert_int_equal(told_count, 0);

    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    struct pg_tx *tx;
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(insert_in(tx, 2), 0);
    /* It ends while nothing is under way: the commit finds that out, and could not have happened. */
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'");
    assert_int_not_equal(pg_end(tx, 0), 0);
    assert_int_equal(pg_scope_close(0), -ENOTCONN);
    assert_int_equal(committed(), 0);

    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(5), 0);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(committed(), 1);
}

static void lost_connection_takes_all_of_it_along(void **state)
{
    (void)state;
    on_loop(test_lost);
}

/* ---- the pool ---- */

static int scope_and_transaction(int number)
{
    int result = pg_scope_open();
    if (result)
        return result;
    result = insert(2 * number);
    if (result == 0)
        result = fiber_yield();
    if (result == 0)
        result = in_transaction(2 * number + 1, 100000 + number);
    return pg_scope_close(result);
}

static void test_pool(void)
{
    run_tasks(60, scope_and_transaction);
    for (int i = 0; i < 60; i++)
        assert_int_equal(tasks[i].result, 0);
    assert_int_equal(committed(), 180);
    assert_int_equal(sql(CONNECTED), 2 + 2);
}

static void scopes_share_the_pool_and_what_is_inside_needs_no_more(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "2");
    on_loop(test_pool);
    set("PG_POOL_SIZE", "4");
}

static int open_by_deadline(int number)
{
    (void)number;
    fiber_set_deadline(clock_in_ms(100));
    int result = pg_scope_open();
    return pg_in_scope() ? -EPROTO : result;
}

static void test_exhausted(void)
{
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(insert(1), 0);
    uint64_t before_ns = clock_now_ns();
    run_tasks(1, open_by_deadline);
    assert_int_equal(tasks[0].result, -ECANCELED);
    assert_true(clock_now_ns() - before_ns < 5 * CLOCK_SECOND);
    assert_int_equal(pg_scope_close(0), 0);
    assert_int_equal(pg_scope_open(), 0);
    assert_int_equal(pg_scope_close(0), 0);
}

static void waiting_for_a_scope_ends_with_the_fibers_deadline(void **state)
{
    (void)state;
    set("PG_POOL_SIZE", "1");
    on_loop(test_exhausted);
    set("PG_POOL_SIZE", "4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_scope_is_committed_or_nothing),
        cmocka_unit_test(other_fibers_are_not_in_it),
        cmocka_unit_test(statement_that_fails_leaves_the_others),
        cmocka_unit_test(failing_commit_is_reported_and_told_to_nobody),
        cmocka_unit_test(statement_that_took_too_long_leaves_the_others),
        cmocka_unit_test(transaction_inside_is_a_part_of_it),
        cmocka_unit_test(transaction_in_a_transaction_ends_with_it),
        cmocka_unit_test(nobody_is_told_before_the_commit_and_then_in_order),
        cmocka_unit_test(cancelled_fiber_commits_only_what_it_knows),
        cmocka_unit_test(lost_connection_takes_all_of_it_along),
        cmocka_unit_test(scopes_share_the_pool_and_what_is_inside_needs_no_more),
        cmocka_unit_test(waiting_for_a_scope_ends_with_the_fibers_deadline),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
