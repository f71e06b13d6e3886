/* The settings table. */
#include "core/base/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char error[256];

static void without_settings(void)
{
    for (size_t i = 0; i < setting_count; i++)
        unsetenv(settings[i].name);
    error[0] = '\0';
}

static int setup(void **state)
{
    (void)state;
    without_settings();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    config_clear();
    without_settings();
    return 0;
}

/* Loads a file with this text. */
static int load(const char *text)
{
    char path[] = "/tmp/config_test.XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, text, strlen(text)), strlen(text));
    close(descriptor);
    int result = config_load(path, error, sizeof error);
    unlink(path);
    return result;
}

static void defaults_are_those_of_the_table(void **state)
{
    (void)state;
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    assert_int_equal(config->port, 8080);
    assert_string_equal(config->listen_address, "127.0.0.1");
    assert_string_equal(config->database_url, "");
    assert_true(config->log_requests);
    for (size_t i = 0; i < setting_count; i++)
        assert_int_equal(config_set(settings[i].name, settings[i].fallback, error, sizeof error), 0);
}

static void the_environment_wins_over_the_file(void **state)
{
    (void)state;
    setenv("PORT", "2", 1);
    assert_int_equal(load("# a comment\n\n  PORT=1\r\nBASE_DOMAIN=a=b\nLOG_REQUESTS=off\nCORS_ORIGINS="), 0);
    assert_int_equal(config->port, 2);
    assert_string_equal(config->base_domain, "a=b");
    assert_string_equal(config->cors_origins, "");
    assert_false(config->log_requests);
}

static void a_bad_line_is_named_with_file_and_number(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"PORT=1\nPROT=2\n", ":2: there is no setting PROT"},
        {"PORT\n", ":1: expected NAME=value"},
        {"=1\n", ":1: expected NAME=value"},
        {"PORT=\n", ":1: PORT must be a whole number from 0 to 65535, not \"\""},
        {"PORT=65536\n", "PORT must be a whole number"},
        {"PORT=-1\n", "PORT must be a whole number"},
        {"PORT= 1\n", "PORT must be a whole number"},
        {"PORT=99999999999999999999\n", "PORT must be a whole number"},
        {"LOG_REQUESTS=maybe\n", "LOG_REQUESTS must be 1 or 0"},
        {"LOG_LEVEL=loud\n", "LOG_LEVEL must be"},
        {"POD_SANDBOX=maybe\n", "POD_SANDBOX must be"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(load(bad[i].text), -EINVAL);
        assert_non_null(strstr(error, bad[i].says));
    }
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(config_load("/nonexistent/file", error, sizeof error), -EINVAL);
    assert_non_null(strstr(error, "/nonexistent/file"));
    assert_int_equal(config_load("/tmp", error, sizeof error), -EINVAL); /* it opens, but can't be read */
    assert_non_null(strstr(error, "/tmp"));
}

static void a_secret_is_never_shown(void **state)
{
    (void)state;
    assert_int_equal(load("ENCRYPTION_KEY=hunter2\n"), -EINVAL);
    assert_non_null(strstr(error, "ENCRYPTION_KEY"));
    assert_null(strstr(error, "hunter2"));
}

static void setting_one_value_replaces_it(void **state)
{
    (void)state;
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    assert_int_equal(config_set("BASE_DOMAIN", "one", error, sizeof error), 0);
    assert_int_equal(config_set("BASE_DOMAIN", "two", error, sizeof error), 0);
    assert_int_equal(config_set("BASE_DOMAIN", config->base_domain, error, sizeof error), 0);
    assert_string_equal(config->base_domain, "two");
    assert_int_equal(config_set("NO_SUCH", "1", error, sizeof error), -EINVAL);
    const char *const on[] = {"1", "true", "ON", "Yes"};
    for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
        assert_int_equal(config_set("LOG_REQUESTS", "0", error, sizeof error), 0);
        assert_false(config->log_requests);
        assert_int_equal(config_set("LOG_REQUESTS", on[i], error, sizeof error), 0);
        assert_true(config->log_requests);
    }
}

static void help_and_readme_name_every_setting(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    config_print_help(out);
    config_print_markdown(out);
    fclose(out);
    for (size_t i = 0; i < setting_count; i++) {
        const char *first = strstr(text, settings[i].name);
        assert_non_null(first);
        char cell[64];
        snprintf(cell, sizeof cell, "| `%s` |", settings[i].name);
        assert_non_null(strstr(first, cell));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_those_of_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(the_environment_wins_over_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_line_is_named_with_file_and_number, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_cannot_be_read_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(a_secret_is_never_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(setting_one_value_replaces_it, setup, teardown),
        cmocka_unit_test_setup_teardown(help_and_readme_name_every_setting, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
