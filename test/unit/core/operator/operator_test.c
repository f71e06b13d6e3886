/* The table of verbs and how arguments are checked and read. What the verbs do is seen end to end. */
#include "core/operator/operator.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;

static struct operator_call call_of(const char *noun, const char *verb)
{
    struct operator_call call = {.verb = operator_find(str_from(noun), str_from(verb)), .arena = &arena};
    assert_non_null(call.verb);
    return call;
}

static void give(struct operator_call *call, const char *name, struct str value)
{
    size_t place = operator_argument(call->verb, str_from(name));
    assert_true(place < OPERATOR_ARGUMENTS_MAX);
    call->values[place] = value;
}

static void assert_refused(const char *noun, const char *verb, const char *name, struct str value,
                           const char *problem)
{
    struct operator_call call = call_of(noun, verb);
    give(&call, name, value);
    assert_int_equal(operator_check(&call), -EINVAL);
    assert_non_null(call.problem);
    assert_string_equal(call.problem, problem);
}

static void every_verb_is_found_by_its_names_and_is_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < operator_verb_count; i++) {
        const struct operator_verb *verb = &operator_verbs[i];
        assert_ptr_equal(operator_find(str_from(verb->noun), str_from(verb->verb)), verb);
        assert_non_null(verb->run);
        assert_true(strlen(verb->help) > 10);
        for (size_t a = 0; verb->arguments[a].name; a++) {
            assert_true(a < OPERATOR_ARGUMENTS_MAX);
            assert_true(strlen(verb->arguments[a].help) > 1);
            assert_int_equal(operator_argument(verb, str_from(verb->arguments[a].name)), a);
        }
    }
    assert_null(operator_find(STR("key"), STR("")));
    assert_null(operator_find(STR("key"), STR("created")));
    assert_null(operator_find(STR_NONE, STR_NONE));
}

static void secrets_are_read_from_the_environment_and_stand_nowhere_as_words(void **state)
{
    (void)state;
    size_t secrets = 0;
    for (size_t i = 0; i < operator_verb_count; i++)
        for (const struct operator_argument *a = operator_verbs[i].arguments; a->name; a++) {
            bool secret = strstr(a->name, "password") || strcmp(a->name, "new_key") == 0 ||
                          strcmp(a->name, "api_key") == 0;
            assert_int_equal(secret, a->variable != NULL);
            assert_false(secret && a->flags & OPERATOR_WORD);
            secrets += secret;
        }
    assert_int_equal(secrets, 4);
}

static void a_dash_in_an_arguments_name_is_as_good_as_an_underscore(void **state)
{
    (void)state;
    const struct operator_verb *verb = operator_find(STR("key"), STR("create"));
    assert_int_equal(operator_argument(verb, STR("allow-from")), operator_argument(verb, STR("allow_from")));
    assert_int_equal(operator_argument(verb, STR("allow from")), OPERATOR_ARGUMENTS_MAX);
    assert_int_equal(operator_argument(verb, STR("allow_fro")), OPERATOR_ARGUMENTS_MAX);
    assert_int_equal(operator_argument(verb, STR("")), OPERATOR_ARGUMENTS_MAX);
}

static void what_is_missing_or_of_the_wrong_type_is_named(void **state)
{
    (void)state;
    assert_refused("key", "create", "name", STR("x"), "account is required");
    assert_refused("account", "show", "account", STR(""), "account must not be empty");
    assert_refused("account", "show", "account", STR("a\0b"), "account must be UTF-8 without NUL");
    assert_refused("account", "show", "account", STR("\xff"), "account must be UTF-8 without NUL");
    const char *number = "limit must be a whole number";
    assert_refused("account", "list", "limit", STR("x"), number);
    assert_refused("account", "list", "limit", STR("-1"), number);
    assert_refused("account", "list", "limit", STR("1.5"), number);
    assert_refused("account", "list", "limit", STR(""), number);
    assert_refused("account", "list", "limit", STR("9223372036854775808"), number);
    assert_refused("jobs", "ping", "volatile", STR("yes"), "volatile must be true or false");
}

static void a_time_is_a_day_or_a_second_in_utc(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        int64_t unix_ms;
    } fine[] = {
        {{"2026-01-31", 10}, INT64_C(1769817600000)},
        {{"2026-01-31T12:00:01Z", 20}, INT64_C(1769860801000)},
        {{"2024-02-29", 10}, INT64_C(1709164800000)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
        struct operator_call call = call_of("audit", "list");
        give(&call, "since", fine[i].text);
        assert_int_equal(operator_check(&call), 0);
        assert_int_equal(operator_time_ms(&call, "since"), fine[i].unix_ms);
    }
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2026-02-30",
                                      "2026-13-01",
                                      "2025-02-29",
                                      "2026-01-31T12:00:01",
                                      "2026-01-31T12:00:01Zx",
                                      "2026-1-3",
                                      "1960-01-01",
                                      "2026-01-31 12:00:01Z"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_refused("audit", "list", "since", str_from(bad[i]),
                       "since must be a time as 2026-01-31T12:00:00Z, or a day");
}

static void what_was_not_given_reads_as_nothing(void **state)
{
    (void)state;
    struct operator_call call = call_of("key", "create");
    assert_null(operator_text(&call, "name").at);
    assert_int_equal(operator_number(&call, "expires_in", 7), 7);
    assert_false(operator_switch(&call, "signing"));
    call = call_of("audit", "list");
    assert_int_equal(operator_time_ms(&call, "since"), 0);
}

static void words_are_parted_by_spaces_and_commas(void **state)
{
    (void)state;
    struct str words[3];
    size_t count;
    struct operator_call call = call_of("key", "create");
    assert_int_equal(operator_words(&call, "allow_from", words, 3, &count), 0);
    assert_int_equal(count, 0);
    give(&call, "allow_from", STR("  a, b,,c "));
    assert_int_equal(operator_words(&call, "allow_from", words, 3, &count), 0);
    assert_int_equal(count, 3);
    assert_true(str_equal(words[0], STR("a")) && str_equal(words[1], STR("b")) &&
                str_equal(words[2], STR("c")));
    assert_int_equal(operator_words(&call, "allow_from", words, 2, &count), -EINVAL);
    assert_string_equal(call.problem, "allow_from can have 2 at most");
}

static void lists_and_times_are_written_as_the_api_has_them(void **state)
{
    (void)state;
    struct buf text = {0};
    struct json_out out = json_out_to(&text);
    json_open(&out, '{');
    operator_put_words(&out, "none", STR_NONE);
    operator_put_words(&out, "empty", STR(""));
    operator_put_words(&out, "two", STR("a b"));
    operator_put_time(&out, "never", 0);
    operator_put_time(&out, "then", INT64_C(1769860801999));
    json_close(&out, '}');
    buf_add_char(&text, '\0');
    assert_string_equal(text.at, "{\"none\":null,\"empty\":[],\"two\":[\"a\",\"b\"],\"never\":null,"
                                 "\"then\":\"2026-01-31T12:00:01Z\"}");
    buf_clear(&text);
}

static void a_problem_of_any_length_fits(void **state)
{
    (void)state;
    char text[2000];
    struct operator_call call = call_of("key", "list");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(operator_fail(&call, -ENOENT, "%s", text), -ENOENT);
    assert_true(strlen(call.problem) > 100);
}

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_clear(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_is_found_by_its_names_and_is_complete),
        cmocka_unit_test(secrets_are_read_from_the_environment_and_stand_nowhere_as_words),
        cmocka_unit_test(a_dash_in_an_arguments_name_is_as_good_as_an_underscore),
        cmocka_unit_test(what_is_missing_or_of_the_wrong_type_is_named),
        cmocka_unit_test(a_time_is_a_day_or_a_second_in_utc),
        cmocka_unit_test(what_was_not_given_reads_as_nothing),
        cmocka_unit_test(words_are_parted_by_spaces_and_commas),
        cmocka_unit_test(lists_and_times_are_written_as_the_api_has_them),
        cmocka_unit_test(a_problem_of_any_length_fits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
