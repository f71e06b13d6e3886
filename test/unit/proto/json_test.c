/* The rules of proto/json.h: what is JSON and what is not, exact numbers, one member a name, a bounded depth, and
 * an emitter whose text reads back as what was put in. */
#include "proto/json.h"

#include "core/base/crypto.h"
#include "core/base/escape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

/* The literal with its NULs, without the one that ends it. */
#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        literal, sizeof(literal) - 1                                                                         \
    }

static const struct str accepted[] = {
    TEXT("null"),
    TEXT("true"),
    TEXT("false"),
    TEXT("0"),
    TEXT("-0"),
    TEXT("-0.0"),
    TEXT("1E400"),
    TEXT("-1e-400"),
    TEXT("1e+2"),
    TEXT("0.1e1"),
    TEXT("123456789012345678901234567890"),
    TEXT("\"\""),
    TEXT("\"a\""),
    TEXT("\"\x7f\""),
    TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    TEXT("\"\\u0000\""),
    TEXT("\"\\u00e9\\u20AC\""),
    TEXT("\"\\uD834\\uDD1E\""),
    TEXT("\"\\uFFFE\\uFDD0\""),
    TEXT("\"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\xf4\x8f\xbf\xbf\""),
    TEXT("\"\xe2\x80\xa8\xe2\x80\xa9\""),
    TEXT("\"\xef\xbb\xbf\""),
    TEXT("[]"),
    TEXT("{}"),
    TEXT("[[],{},[[]]]"),
    TEXT(" [ 1 , 2 ] "),
    TEXT("\t\r\n{\"a\" :\t1}\n"),
    TEXT("{\"\":0}"),
    TEXT("{\"a\":{\"a\":{\"a\":1}}}"),
    TEXT("[{\"a\":1},{\"a\":1}]"),
    TEXT("{\"a\":1,\"A\":2}"),
    TEXT("{\"\\u00e9\":1,\"e\\u0301\":2}"),
};

static const struct str refused[] = {
    TEXT(""),
    TEXT(" "),
    TEXT("\xef\xbb\xbf{}"),
    TEXT("\xff\xfe[\0]\0"),
    TEXT("{} x"),
    TEXT("{}}"),
    TEXT("[][]"),
    TEXT("1 2"),
    TEXT("{}\0"),
    TEXT("[1]\0\0"),
    TEXT("\0"),
    TEXT("[1\0]"),
    TEXT("nul"),
    TEXT("True"),
    TEXT("NaN"),
    TEXT("Infinity"),
    TEXT("-Infinity"),
    TEXT("undefined"),
    TEXT("'a'"),
    TEXT("a"),
    TEXT("{a:1}"),
    TEXT("{1:1}"),
    TEXT("{\"a\"}"),
    TEXT("{\"a\":}"),
    TEXT("{\"a\" 1}"),
    TEXT("{\"a\":1,}"),
    TEXT("{,}"),
    TEXT("{\"a\":1 \"b\":2}"),
    TEXT("{\"a\":1;\"b\":2}"),
    TEXT("{\"a\":1]"),
    TEXT("[1}"),
    TEXT("[1,]"),
    TEXT("[,1]"),
    TEXT("[1,,2]"),
    TEXT("[1 2]"),
    TEXT("[1:2]"),
    TEXT("["),
    TEXT("]"),
    TEXT("{"),
    TEXT("{\"a\""),
    TEXT("{\"a\":1"),
    TEXT("[1"),
    TEXT("\""),
    TEXT("\"a"),
    TEXT("\"\\"),
    TEXT("01"),
    TEXT("-01"),
    TEXT("-"),
    TEXT("--1"),
    TEXT("+1"),
    TEXT("1."),
    TEXT(".1"),
    TEXT("-.1"),
    TEXT("1e"),
    TEXT("1e+"),
    TEXT("1.e1"),
    TEXT("0x10"),
    TEXT("1_000"),
    TEXT("1a"),
    TEXT("\xef\xbc\x91"),
    TEXT("\"\\x41\""),
    TEXT("\"\\u12\""),
    TEXT("\"\\u12G4\""),
    TEXT("\"\\U0041\""),
    TEXT("\"\\a\""),
    TEXT("\"\\\0\""),
    TEXT("\"a\nb\""),
    TEXT("\"a\tb\""),
    TEXT("\"a\0b\""),
    TEXT("\"\x1f\""),
    TEXT("\"\\uD800\""),
    TEXT("\"\\uDC00\""),
    TEXT("\"\\uD800\\uD800\""),
    TEXT("\"\\uD800x\""),
    TEXT("\"\\uDD1E\\uD834\""),
    TEXT("{\"\\uD800\":1}"),
    TEXT("\"\x80\""),
    TEXT("\"\xc0\x80\""),
    TEXT("\"\xc3\""),
    TEXT("\"\xe2\x82\""),
    TEXT("\"\xed\xa0\x80\""),
    TEXT("\"\xf0\x8f\xbf\xbf\""),
    TEXT("\"\xf4\x90\x80\x80\""),
    TEXT("\"\xff\""),
    TEXT("[1]//x"),
    TEXT("/**/1"),
    TEXT("#\n1"),
    TEXT("\f1"),
    TEXT("\xc2\xa0"
         "1"),
    TEXT("{\"a\":1,\"a\":1}"),
    TEXT("{\"a\":1,\"\\u0061\":2}"),
    TEXT("{\"\":1,\"\":2}"),
    TEXT("[{\"b\":{\"a\\u0000\":1,\"c\":2,\"a\\u0000\":3}}]"),
    TEXT("{\"\xc3\xa9\":1,\"\\u00E9\":2}"),
};

static struct arena arena;

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
    arena_thread_clear();
    return 0;
}

/* The text is read from memory that ends with it, so that a look beyond is seen. */
static const struct json *read_exact(struct str text, const char **error)
{
    char *exact = mem_alloc(text.size ? text.size : 1);
    memcpy(exact, text.at, text.size);
    const struct json *value = json_read(&arena, str_of(exact, text.size), error);
    free(exact);
    return value;
}

static const struct json *must_read(const char *text)
{
    const char *error = NULL;
    const struct json *value = read_exact(str_from(text), &error);
    if (!value)
        fail_msg("%s: %s", text, error);
    return value;
}

static void assert_str(struct str actual, struct str expected)
{
    if (!str_equal(actual, expected))
        fail_msg("%.*s is not %.*s", STR_ARG(actual), STR_ARG(expected));
}

static void assert_rewritten(const struct json *value, const char *expected)
{
    struct buf out = {0};
    json_write_value(&out, value);
    assert_str(buf_str(&out), str_from(expected));
    buf_clear(&out);
}

static void accepts_what_is_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(accepted); i++) {
        const char *error = "";
        if (!read_exact(accepted[i], &error))
            fail_msg("refused %.*s: %s", STR_ARG(accepted[i]), error);
    }
}

static void refuses_what_is_not_with_a_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        const char *error = NULL;
        if (read_exact(refused[i], &error))
            fail_msg("accepted %zu: %.*s", i, STR_ARG(refused[i]));
        assert_non_null(error);
        assert_true(strlen(error) > 0);
    }
    const char *error = NULL;
    assert_null(json_read(&arena, STR_NONE, &error));
    assert_string_equal(error, "empty");
}

static void every_prefix_of_a_document_is_refused(void **state)
{
    (void)state;
    struct str text = STR("{\"a\":[1.5e3,\"\\u20ac\xc3\xa9\",true,null],\"b\":{\"c\":\"d\"}}");
    const char *error;
    assert_non_null(read_exact(text, &error));
    for (size_t size = 0; size < text.size; size++)
        assert_null(read_exact(str_of(text.at, size), &error));
}

static void numbers_keep_their_spelling(void **state)
{
    (void)state;
    const char *text = "[1E400,-0,123456789012345678901234567890,1.10,1e+2,0.1,-0.0,18446744073709551616]";
    const struct json *numbers = must_read(text);
    assert_str(json_number_text(json_item(numbers, 0)), STR("1E400"));
    assert_str(json_number_text(json_item(numbers, 1)), STR("-0"));
    assert_str(json_number_text(json_item(numbers, 2)), STR("123456789012345678901234567890"));
    assert_rewritten(numbers, text);
    assert_rewritten(must_read("12"), "12");
}

static void integers_are_never_rounded(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t number;
    } good[] = {{"0", 0},
                {"-0", 0},
                {"-1", -1},
                {"9007199254740993", 9007199254740993},
                {"9223372036854775807", INT64_MAX},
                {"-9223372036854775808", INT64_MIN}};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        int64_t number = 1234;
        assert_true(json_to_i64(must_read(good[i].text), &number));
        assert_int_equal(number, good[i].number);
    }
    static const char *const bad[] = {
        "9223372036854775808", "-9223372036854775809", "1.0", "1e2", "\"1\"", "true", "null"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int64_t number = 1234;
        assert_false(json_to_i64(must_read(bad[i]), &number));
        assert_int_equal(number, 1234);
    }
    assert_false(json_to_i64(NULL, &(int64_t){0}));
}

static const struct json *read_nested(char open, char close, unsigned depth, const char **error)
{
    struct buf text = {0};
    for (unsigned i = 0; i < depth; i++) {
        buf_add_char(&text, open);
        if (open == '{' && i + 1 < depth)
            buf_add_literal(&text, "\"a\":");
    }
    for (unsigned i = 0; i < depth; i++)
        buf_add_char(&text, close);
    const struct json *value = read_exact(buf_str(&text), error);
    if (value) {
        struct buf again = {0};
        json_write_value(&again, value);
        assert_true(str_equal(buf_str(&again), buf_str(&text)));
        buf_clear(&again);
    }
    buf_clear(&text);
    return value;
}

static void depth_ends_at_64(void **state)
{
    (void)state;
    const char *error = NULL;
    assert_non_null(read_nested('[', ']', JSON_DEPTH_MAX, &error));
    assert_non_null(read_nested('{', '}', JSON_DEPTH_MAX, &error));
    assert_null(read_nested('[', ']', JSON_DEPTH_MAX + 1, &error));
    assert_string_equal(error, "nested too deeply");
    assert_null(read_nested('{', '}', JSON_DEPTH_MAX + 1, &error));
    assert_string_equal(error, "nested too deeply");
    assert_null(read_nested('[', ']', 200000, &error));
    assert_string_equal(error, "nested too deeply");
}

static void depth_counts_levels_and_not_containers(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_add_char(&text, '[');
    for (int i = 0; i < 1000; i++)
        buf_add_text(&text, "[[]],");
    buf_add_text(&text, "{}]");
    const char *error;
    const struct json *value = read_exact(buf_str(&text), &error);
    assert_int_equal(json_count(value), 1001);
    assert_int_equal(json_count(json_item(value, 999)), 1);
    assert_int_equal(json_type_of(json_item(value, 1000)), JSON_OBJECT);
    assert_null(json_item(value, 1001));
    buf_clear(&text);
}

/* An object of `count` members; the last is named as number `last` is. */
static const struct json *read_members(unsigned count, unsigned last, const char **error)
{
    struct buf text = {0};
    for (unsigned i = 0; i < count; i++)
        buf_printf(&text, "%c\"name %u\":%u", i ? ',' : '{', i + 1 < count ? i : last, i);
    buf_add_char(&text, '}');
    const struct json *value = read_exact(buf_str(&text), error);
    buf_clear(&text);
    return value;
}

static void duplicates_are_found_in_objects_of_any_size(void **state)
{
    (void)state;
    static const unsigned counts[] = {2, 8, 9, 10, 33, 5000};
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        unsigned count = counts[i];
        const char *error = NULL;
        const struct json *value = read_members(count, count - 1, &error);
        assert_int_equal(json_count(value), count);
        char name[32];
        snprintf(name, sizeof name, "name %u", count - 1);
        int64_t number = 0;
        assert_true(json_to_i64(json_member(value, name), &number));
        assert_int_equal(number, count - 1);
        for (unsigned k = 0; k < 3; k++) {
            assert_null(read_members(count, k * (count - 2) / 2, &error));
            assert_string_equal(error, "a name appears twice in an object");
        }
    }
}

/* Names that agree in all their low bits: what a table without a secret would put into one chain. */
static void a_hostile_object_is_no_slower(void **state)
{
    (void)state;
    struct buf text = {0};
    enum { COUNT = 50000 };
    for (unsigned i = 0; i < COUNT; i++)
        buf_printf(&text, "%c\"aaaa%c%c%c%c\":0", i ? ',' : '{', 'a' + (int)(i % 26),
                   'a' + (int)(i / 26 % 26), 'a' + (int)(i / 676 % 26), 'a' + (int)(i / 17576 % 26));
    buf_add_char(&text, '}');
    const char *error = NULL;
    clock_t before = clock();
    assert_int_equal(json_count(read_exact(buf_str(&text), &error)), COUNT);
    /* Some milliseconds of processor time; one chain would take a hundred times as long as this allows. */
    assert_true((clock() - before) / CLOCKS_PER_SEC < 1);
    buf_clear(&text);
}

static void strings_may_contain_nul(void **state)
{
    (void)state;
    const struct json *value = must_read("{\"a\":\"x\\u0000y\",\"b\\u0000c\":1}");
    assert_str(json_string(json_member(value, "a")), STR("x\0y"));
    assert_null(json_member(value, "b"));
    assert_rewritten(value, "{\"a\":\"x\\u0000y\",\"b\\u0000c\":1}");
}

static void escapes_are_undone(void **state)
{
    (void)state;
    const struct json *value = must_read("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD834\\uDD1E\"");
    assert_str(json_string(value), STR("\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9d\x84\x9e"));
}

static void a_look_at_the_wrong_type_finds_nothing(void **state)
{
    (void)state;
    const struct json *value =
        must_read("{\"s\":\"\",\"n\":1,\"t\":true,\"f\":false,\"z\":null,\"a\":[1],\"o\":{}}");
    bool truth = false;
    assert_int_equal(json_type_of(value), JSON_OBJECT);
    assert_int_equal(json_type_of(json_member(value, "z")), JSON_NULL);
    assert_null(json_member(value, "missing"));
    assert_null(json_member(NULL, "a"));
    assert_null(json_member(json_member(value, "a"), "a"));
    assert_non_null(json_string(json_member(value, "s")).at);
    assert_int_equal(json_string(json_member(value, "s")).size, 0);
    assert_null(json_string(json_member(value, "n")).at);
    assert_null(json_string(NULL).at);
    assert_null(json_number_text(json_member(value, "s")).at);
    assert_true(json_to_bool(json_member(value, "t"), &truth) && truth);
    assert_true(json_to_bool(json_member(value, "f"), &truth) && !truth);
    assert_false(json_to_bool(json_member(value, "z"), &truth));
    assert_false(json_to_bool(NULL, &truth));
    assert_int_equal(json_count(json_member(value, "s")), 0);
    assert_int_equal(json_count(NULL), 0);
    assert_null(json_item(json_member(value, "o"), 0));
    assert_null(json_item(json_member(value, "a"), 1));
    assert_null(json_item(NULL, 0));
}

struct seen {
    struct buf names;
    unsigned limit;
};

static bool note(struct str name, const struct json *value, void *arg)
{
    struct seen *seen = arg;
    buf_add_str(&seen->names, name);
    json_write_value(&seen->names, value);
    return --seen->limit > 0;
}

static void members_come_in_the_order_of_the_text(void **state)
{
    (void)state;
    const struct json *value = must_read("{\"z\":1,\"a\":[2],\"m\":3}");
    struct seen seen = {.limit = 10};
    json_each(value, note, &seen);
    json_each(must_read("[1]"), note, &seen);
    json_each(NULL, note, &seen);
    assert_str(buf_str(&seen.names), STR("z1a[2]m3"));
    seen.names.size = 0;
    seen.limit = 2;
    json_each(value, note, &seen);
    assert_str(buf_str(&seen.names), STR("z1a[2]"));
    buf_clear(&seen.names);
}

static void a_value_outlives_the_text_it_was_read_from(void **state)
{
    (void)state;
    char text[] = "{\"name\":\"value\",\"number\":17}";
    const char *error;
    const struct json *value = json_read(&arena, str_from(text), &error);
    assert_string_equal(text, "{\"name\":\"value\",\"number\":17}");
    memset(text, 'x', sizeof text);
    assert_rewritten(value, "{\"name\":\"value\",\"number\":17}");
}

static void values_are_written_compact(void **state)
{
    (void)state;
    assert_rewritten(must_read(" { \"b\" : [ 1 , true , false , null ] , \"a\" : { } , \"c\" : [ ] } "),
                     "{\"b\":[1,true,false,null],\"a\":{},\"c\":[]}");
}

static void the_emitter_sets_commas_and_colons(void **state)
{
    (void)state;
    struct buf buffer = {0};
    struct json_out out = json_out_to(&buffer);
    json_open(&out, '{');
    json_put_str(&out, "uuid", STR("a\"b"));
    json_put_int(&out, "least", INT64_MIN);
    json_key(&out, "session");
    json_open(&out, '{');
    json_close(&out, '}');
    json_key(&out, "list");
    json_open(&out, '[');
    json_put_text(&out, NULL, "x");
    json_put_bool(&out, NULL, true);
    json_open(&out, '[');
    json_put_bool(&out, NULL, false);
    json_close(&out, ']');
    json_put_null(&out, NULL);
    json_put_int(&out, NULL, 7);
    json_close(&out, ']');
    json_put_str(&out, "absent", STR_NONE);
    json_put_text(&out, "none", NULL);
    json_put_str(&out, "empty", STR(""));
    json_put_raw(&out, "raw", STR("[1]"));
    json_put_value(&out, "value", must_read("{\"k\":1.50}"));
    json_put_value(&out, "gone", NULL);
    json_put_int(&out, "a\nname", 0);
    json_close(&out, '}');
    const char *expected =
        "{\"uuid\":\"a\\\"b\",\"least\":-9223372036854775808,\"session\":{},"
        "\"list\":[\"x\",true,[false],null,7],\"absent\":null,\"none\":null,\"empty\":\"\","
        "\"raw\":[1],\"value\":{\"k\":1.50},\"gone\":null,\"a\\nname\":0}";
    assert_str(buf_str(&buffer), str_from(expected));
    assert_rewritten(must_read(expected), expected);
    buf_clear(&buffer);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    char every[128];
    for (int i = 0; i < 128; i++)
        every[i] = (char)i;
    struct buf buffer = {0};
    struct json_out out = json_out_to(&buffer);
    json_put_str(&out, NULL, str_of(every, sizeof every));
    const char *error = NULL;
    assert_str(json_string(read_exact(buf_str(&buffer), &error)), str_of(every, sizeof every));
    buf_clear(&buffer);
}

static void what_is_not_utf8_is_replaced_and_the_rest_kept(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *written;
    } rows[] = {
        {TEXT("\xc3\xa9"), "\"\xc3\xa9\""},
        {TEXT("\xff"), "\"\\ufffd\""},
        {TEXT("h\xc3\xa9llo\xff\"\xe2\x82\xac"), "\"h\xc3\xa9llo\\ufffd\\\"\xe2\x82\xac\""},
        {TEXT("a\xc3"), "\"a\\ufffd\""},
        {TEXT("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\""},
        {TEXT("\xf0\x9d\x84\x9e\xf0\x9d\x84"), "\"\xf0\x9d\x84\x9e\\ufffd\\ufffd\\ufffd\""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct buf buffer = {0};
        struct json_out out = json_out_to(&buffer);
        json_put_str(&out, NULL, rows[i].text);
        assert_str(buf_str(&buffer), str_from(rows[i].written));
        buf_clear(&buffer);
    }
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_is_json),
        cmocka_unit_test(refuses_what_is_not_with_a_reason),
        cmocka_unit_test(every_prefix_of_a_document_is_refused),
        cmocka_unit_test(numbers_keep_their_spelling),
        cmocka_unit_test(integers_are_never_rounded),
        cmocka_unit_test(depth_ends_at_64),
        cmocka_unit_test(depth_counts_levels_and_not_containers),
        cmocka_unit_test(duplicates_are_found_in_objects_of_any_size),
        cmocka_unit_test(a_hostile_object_is_no_slower),
        cmocka_unit_test(strings_may_contain_nul),
        cmocka_unit_test(escapes_are_undone),
        cmocka_unit_test(a_look_at_the_wrong_type_finds_nothing),
        cmocka_unit_test(members_come_in_the_order_of_the_text),
        cmocka_unit_test(a_value_outlives_the_text_it_was_read_from),
        cmocka_unit_test(values_are_written_compact),
        cmocka_unit_test(the_emitter_sets_commas_and_colons),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(what_is_not_utf8_is_replaced_and_the_rest_kept),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
