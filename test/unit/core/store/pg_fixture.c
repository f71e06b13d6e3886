/* A server, loops and tasks for the tests of the PostgreSQL client: see pg_fixture.h. */
#include "test/unit/core/store/pg_fixture.h"

#include "core/base/crypto.h"

struct services services;
struct loop loop;
char error[256];
struct task tasks[TASKS_MAX];
static struct group running;

const struct pg_statement select_int = {"select_int", "SELECT $1::bigint + 1"};
const struct pg_statement select_error = {"select_error", "SELECT 1 / ($1::bigint - 1)"};
const struct pg_statement select_nothing = {"select_nothing", "SELECT * FROM no_such_table"};
const struct pg_statement select_slow = {"select_slow", "SELECT 1 FROM pg_sleep($1::float8)"};
const struct pg_statement insert_item = {"insert_item",
                                         "INSERT INTO item (n, t) VALUES ($1, $2) RETURNING n"};
const struct pg_statement insert_slow = {"insert_slow",
                                         "INSERT INTO item (n) SELECT $1::bigint FROM pg_sleep($2::float8)"};
const struct pg_statement insert_child = {"insert_child", "INSERT INTO child (parent) VALUES ($1)"};

int64_t sql(const char *text)
{
    return services_sql(&services, text);
}

void set(const char *name, const char *value)
{
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

int64_t metric(enum metric id)
{
    return metric_read(id, 0);
}

void wait_ready(void)
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

void on_loop(void (*test)(void))
{
    void *arg;
    memcpy(&arg, &test, sizeof arg);
    sql("DROP TABLE IF EXISTS child, item; CREATE TABLE item (n bigint PRIMARY KEY, t text); "
        "CREATE TABLE child (parent bigint REFERENCES item DEFERRABLE INITIALLY DEFERRED)");
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_opened, arg);
    loop_close(&loop);
}

static void run_task(void *arg)
{
    struct task *task = arg;
    task->result = task->run(task->number);
    group_done(&running);
}

void begin_task(int number, int (*run)(int number))
{
    tasks[number] = (struct task){.run = run, .number = number};
    group_add(&running);
    tasks[number].fiber = fiber_start(&loop, "task", run_task, &tasks[number]);
}

void begin_tasks(int count, int (*run)(int number))
{
    for (int i = 0; i < count; i++)
        begin_task(i, run);
}

void end_tasks(void)
{
    assert_int_equal(group_wait(&running, "tasks", clock_in_ms(30000)), 0);
}

void run_tasks(int count, int (*run)(int number))
{
    begin_tasks(count, run);
    end_tasks();
}

void until(const char *condition)
{
    for (int i = 0; i < 2000; i++) {
        if (sql(condition))
            return;
        assert_int_equal(fiber_sleep_ms(5), 0);
    }
    fail_msg("never came true: %s", condition);
}

int insert(int64_t n)
{
    return pg_write(&insert_item, PG_VALUES(PG_INT(n), PG_TEXT(STR("text"))), NULL);
}

int read_some(int number)
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

int read_slow(int number)
{
    return pg_read(&select_slow, PG_VALUES(PG_TEXT(number ? STR("0") : STR("0.3"))), NULL);
}

int write_in_turn(int number)
{
    if (number == 0)
        return pg_write(&insert_slow, PG_VALUES(PG_INT(1000), PG_TEXT(STR("0.3"))), NULL);
    if (number == 1)
        return pg_write(&insert_slow, PG_VALUES(PG_INT(1001), PG_TEXT(STR("0.3"))), NULL);
    return insert(number == 9 ? 1000 : number);
}

int insert_in(struct pg_tx *tx, int64_t n)
{
    return pg_query(tx, &insert_item, PG_VALUES(PG_INT(n), PG_TEXT(STR("tx"))), NULL);
}

int fixture_start(void **state)
{
    (void)state;
    crypto_init();
    services_start(&services, SERVICES_POSTGRES);
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    set("DATABASE_URL", services.database_url);
    return 0;
}

int fixture_stop(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    return 0;
}
