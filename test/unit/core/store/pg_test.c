/* The PostgreSQL client against a real server: values, rows, reads and group commit. */
#include "test/unit/core/store/pg_fixture.h"

static const struct pg_statement update_item = {"update_item", "UPDATE item SET t = $2 WHERE n >= $1"};

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

static void test_reads(void)
{
    for (int round = 0; round < 5; round++) {
        run_tasks(50, read_some);
        for (int i = 0; i < 50; i++)
            assert_int_equal(tasks[i].result, 0);
    }
    assert_true(pg_is_up());
    assert_int_equal(sql(CONNECTED), 2);
}

static void reads_fail_each_by_itself(void **state)
{
    (void)state;
    on_loop(test_reads);
}

static void test_read_cancel(void)
{
    begin_tasks(20, read_slow);
    until(SLEEPING);
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
static void test_cancelled_failure(void)
{
    begin_task(0, write_in_turn);
    until(SLEEPING);
    for (int i = 1; i < 10; i++)
        begin_task(i, write_in_turn);
    until("SELECT count(*) FROM item WHERE n = 1000");
    until(SLEEPING);
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
    until(SLEEPING);
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
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
