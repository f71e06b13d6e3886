/* What verbs answer, laid out for people. */
#include "core/operator/layout.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_layout(const char *json, const char *wanted)
{
    struct arena arena;
    struct buf out = {0};
    const char *error = NULL;
    arena_init(&arena);
    const struct json *answer = json_read(&arena, str_from(json), &error);
    assert_non_null(answer);
    operator_layout(&out, answer);
    buf_add_char(&out, '\0');
    assert_string_equal(out.at, wanted);
    buf_clear(&out);
    arena_clear(&arena);
}

static void an_object_is_lines_of_name_and_value(void **state)
{
    (void)state;
    assert_layout("{\"id\":12,\"organization\":\"x y\",\"banned\":false,\"email\":null}",
                  "id:           12\n"
                  "organization: x y\n"
                  "banned:       no\n"
                  "email:        -\n");
    assert_layout("{}", "");
}

static void an_array_of_objects_is_a_table_with_a_head(void **state)
{
    (void)state;
    assert_layout("[{\"id\":1,\"name\":\"ada\",\"fine\":true},{\"id\":1000,\"name\":\"\",\"fine\":false}]",
                  "id    name  fine\n"
                  "1     ada   yes\n"
                  "1000  -     no\n");
    assert_layout("[]", "none\n");
}

static void columns_are_as_wide_as_their_characters_not_bytes(void **state)
{
    (void)state;
    assert_layout(
        "[{\"name\":\"\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xc3\xa9\",\"z\":1},{\"name\":\"abcde\",\"z\":2}]",
        "name   z\n"
        "\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\xc3\xa9  1\n"
        "abcde  2\n");
}

static void lists_and_objects_within_stand_in_one_cell(void **state)
{
    (void)state;
    assert_layout(
        "{\"scopes\":[\"a:b\",\"c\"],\"none\":[],\"plans\":{\"gpu\":\"pro\",\"user\":\"free\"},\"no\":{}}",
        "scopes: a:b c\n"
        "none:   -\n"
        "plans:  gpu=pro user=free\n"
        "no:     -\n");
}

static void tables_within_an_object_stand_below_its_lines(void **state)
{
    (void)state;
    assert_layout("{\"a\":1,\"limits\":[{\"most\":10,\"per\":\"key\"}],\"b\":2}", "a: 1\n"
                                                                                  "b: 2\n"
                                                                                  "\n"
                                                                                  "most  per\n"
                                                                                  "10    key\n");
}

static void what_a_terminal_would_act_upon_is_shown_as_a_question_mark(void **state)
{
    (void)state;
    assert_layout("{\"name\":\"a\\u001b[31mb\\nc\\td\\u007fe\\u009bf\\u202eg\\u2066h\"}",
                  "name: a?[31mb?c?d?e?f?g?h\n");
    assert_layout("[{\"x\\u001b\":\"\\r\"}]", "x?\n?\n");
    /* What shares its first bytes with those stays. */
    assert_layout("{\"n\":\"\xc2\xa0\xe2\x80\xa6\xe2\x82\xac\"}", "n: \xc2\xa0\xe2\x80\xa6\xe2\x82\xac\n");
}

static void a_table_may_have_any_number_of_columns(void **state)
{
    struct buf json = {0};
    (void)state;
    buf_add_literal(&json, "[{");
    for (int i = 0; i < 100; i++)
        buf_printf(&json, "%s\"c%d\":%d", i ? "," : "", i, i);
    buf_add_literal(&json, "}]");
    buf_add_char(&json, '\0');
    struct arena arena;
    struct buf out = {0};
    const char *error;
    arena_init(&arena);
    operator_layout(&out, json_read(&arena, str_from(json.at), &error));
    assert_true(out.size > 100); /* the first ones */
    buf_clear(&out);
    arena_clear(&arena);
    buf_clear(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_object_is_lines_of_name_and_value),
        cmocka_unit_test(an_array_of_objects_is_a_table_with_a_head),
        cmocka_unit_test(columns_are_as_wide_as_their_characters_not_bytes),
        cmocka_unit_test(lists_and_objects_within_stand_in_one_cell),
        cmocka_unit_test(tables_within_an_object_stand_below_its_lines),
        cmocka_unit_test(what_a_terminal_would_act_upon_is_shown_as_a_question_mark),
        cmocka_unit_test(a_table_may_have_any_number_of_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
