/*
 * Migrations against a real PostgreSQL. The program's list is the test's own and can't change, so the tests change what
 * the database says. Each test begins with an empty database.
 */
#include "core/store/pg.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/store/embed.h"
#include "test/unit/support/services.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define FILE_OF(name_, text_)                                                                                \
    {                                                                                                        \
        .name = name_, .text = text_, .size = sizeof(text_) - 1                                              \
    }

const struct embedded_file embedded_migrations[] = {
    FILE_OF("001_first.sql",
            "CREATE TABLE one (n int);\nINSERT INTO one VALUES (1); -- with 'quotes' and a comment\n"),
    FILE_OF("002_second.sql", "INSERT INTO one SELECT 2 FROM pg_sleep(0.2);"),
    FILE_OF("003_third.sql", "CREATE TABLE half (n int); CREATE TABLE three (n int);"),
};
const size_t embedded_migration_count = 3;

static struct services services;
static char error[512];

static int64_t sql(const char *text)
{
    return services_sql(&services, text);
}

static int start(void **state)
{
    (void)state;
    crypto_init();
    services_start(&services, SERVICES_POSTGRES);
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    return config_set("DATABASE_URL", services.database_url, error, sizeof error);
}

static int stop(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    return 0;
}

static int empty(void **state)
{
    (void)state;
    sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    error[0] = '\0';
    return 0;
}

static void run_applies_each_once_and_in_order(void **state)
{
    (void)state;
    assert_int_equal(migrate_check(error, sizeof error), -EAGAIN);
    assert_string_equal(error, "the database lacks 3 of 3 migrations");
    assert_int_equal(migrate_run(error, sizeof error), 0);
    assert_int_equal(migrate_check(error, sizeof error), 0);
    assert_int_equal(migrate_run(error, sizeof error), 0);
    assert_int_equal(sql("SELECT count(*) FROM one"), 2);
    assert_int_equal(sql("SELECT count(*) FROM schema_migration WHERE length(checksum) = 64"), 3);
    assert_int_equal(
        sql("SELECT (array_agg(name ORDER BY applied_at) = array_agg(name ORDER BY name))::int FROM schema_migration"),
        1);
}

static void run_applies_what_is_missing(void **state)
{
    (void)state;
    assert_int_equal(migrate_run(error, sizeof error), 0);
    sql("DROP TABLE half, three; DELETE FROM schema_migration WHERE name = '003_third.sql'");
    assert_int_equal(migrate_check(error, sizeof error), -EAGAIN);
    assert_int_equal(migrate_run(error, sizeof error), 0);
    assert_int_equal(sql("SELECT count(*) FROM three"), 0);
    assert_int_equal(sql("SELECT count(*) FROM one"), 2);
}

static void changed_text_is_refused(void **state)
{
    (void)state;
    assert_int_equal(migrate_run(error, sizeof error), 0);
    sql("UPDATE schema_migration SET checksum = repeat('0', 64) WHERE name = '002_second.sql'");
    assert_int_equal(migrate_run(error, sizeof error), -EPROTO);
    assert_non_null(strstr(error, "002_second.sql was changed"));
    assert_int_equal(migrate_check(error, sizeof error), -EPROTO);
}

static void unknown_migration_is_refused(void **state)
{
    (void)state;
    assert_int_equal(migrate_run(error, sizeof error), 0);
    sql("INSERT INTO schema_migration VALUES ('999_newer.sql', 'x'); DELETE FROM schema_migration "
        "WHERE name = '001_first.sql'; DROP TABLE one");
    assert_int_equal(migrate_check(error, sizeof error), -EPROTO);
    assert_non_null(strstr(error, "999_newer.sql"));
    assert_int_equal(migrate_run(error, sizeof error), -EPROTO);
    assert_int_equal(sql("SELECT (to_regclass('one') IS NULL)::int"), 1);
}

static void failing_migration_leaves_nothing(void **state)
{
    (void)state;
    sql("CREATE TABLE three (in_the_way int)");
    assert_int_equal(migrate_run(error, sizeof error), -EIO);
    assert_non_null(strstr(error, "003_third.sql"));
    assert_non_null(strstr(error, "42P07"));
    assert_null(strchr(error, '\n'));
    assert_int_equal(sql("SELECT (to_regclass('half') IS NULL)::int"), 1);
    assert_int_equal(sql("SELECT count(*) FROM schema_migration"), 2);
    sql("DROP TABLE three");
    assert_int_equal(migrate_run(error, sizeof error), 0);
    assert_int_equal(sql("SELECT count(*) FROM one"), 2);
}

struct starter {
    pthread_t thread;
    int result;
    char error[256];
};

static void *run_starter(void *arg)
{
    struct starter *starter = arg;
    starter->result = migrate_run(starter->error, sizeof starter->error);
    return NULL;
}

static void many_starters_apply_once(void **state)
{
    (void)state;
    struct starter starters[5] = {0};
    for (size_t i = 0; i < ARRAY_SIZE(starters); i++)
        assert_int_equal(pthread_create(&starters[i].thread, NULL, run_starter, &starters[i]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(starters); i++) {
        pthread_join(starters[i].thread, NULL);
        assert_string_equal(starters[i].error, "");
        assert_int_equal(starters[i].result, 0);
    }
    assert_int_equal(sql("SELECT count(*) FROM one"), 2);
}

static void bad_url_is_refused_without_showing_it(void **state)
{
    (void)state;
    static const char *const urls[] = {"", "postgresql://u:secret@[half/db", "postgresql://u:sec%zzret@h/db",
                                       "secret"};
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        assert_int_equal(config_set("DATABASE_URL", urls[i], error, sizeof error), 0);
        assert_int_equal(migrate_run(error, sizeof error), -EINVAL);
        assert_null(strstr(error, "sec"));
    }
    /* A bare '@' in the password: what libpq then takes for the host is half of it. */
    assert_int_equal(config_set("DATABASE_URL", "postgresql://u:to@p-secret.invalid:1/db?connect_timeout=2",
                                error, sizeof error),
                     0);
    assert_int_equal(migrate_run(error, sizeof error), -ENOTCONN);
    assert_true(error[0] != '\0');
    assert_null(strstr(error, "secret"));
    assert_int_equal(config_set("DATABASE_URL", services.database_url, error, sizeof error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(run_applies_each_once_and_in_order, empty),
        cmocka_unit_test_setup(run_applies_what_is_missing, empty),
        cmocka_unit_test_setup(changed_text_is_refused, empty),
        cmocka_unit_test_setup(unknown_migration_is_refused, empty),
        cmocka_unit_test_setup(failing_migration_leaves_nothing, empty),
        cmocka_unit_test_setup(many_starters_apply_once, empty),
        cmocka_unit_test_setup(bad_url_is_refused_without_showing_it, empty),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
