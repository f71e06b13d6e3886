/* The PostgreSQL client when the server is slow, silent, gone or back; opening and closing. */
#include "test/unit/core/store/pg_fixture.h"

#include <signal.h>

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
    assert_int_equal(sql(SLEEPING), 0);
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
        until("SELECT 2 = (" SLEEPING ")");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_statement_is_cancelled_on_the_server),
        cmocka_unit_test(silent_server_is_left_for_a_new_connection),
        cmocka_unit_test(lost_connection_is_made_again),
        cmocka_unit_test(restart_of_the_server_loses_and_doubles_nothing),
        cmocka_unit_test(without_a_server_all_is_refused_at_once),
        cmocka_unit_test(closing_tells_everybody_and_leaves_an_empty_loop),
        cmocka_unit_test(bad_url_is_refused_without_showing_it),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
