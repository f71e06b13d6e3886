/* JSON, hexadecimal and percent spellings. */
#include "core/base/escape.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_json(struct str text, const char *wanted)
{
    struct buf out = {0};
    escape_json(&out, text);
    buf_add_char(&out, '\0');
    assert_string_equal(out.at, wanted);
    buf_clear(&out);
}

static void json_strings_are_rfc_8259(void **state)
{
    (void)state;
    assert_json(STR_NONE, "\"\"");
    assert_json(STR("plain /"), "\"plain /\"");
    assert_json(STR("\"\\\n\r\t\b\f"), "\"\\\"\\\\\\n\\r\\t\\b\\f\"");
    assert_json(str_of("\0\x01\x1f\x7f", 4), "\"\\u0000\\u0001\\u001f\\u007f\"");
    assert_json(STR("\xe2\x82\xac"), "\"\xe2\x82\xac\"");
}

static void bytes_that_are_not_utf8_are_replaced_and_no_others(void **state)
{
    (void)state;
    assert_json(STR("a\xff"), "\"a\\ufffd\"");
    assert_json(STR("\xff\xfe"), "\"\\ufffd\\ufffd\"");
    assert_json(STR("\xe2\x82\xac\xffz\xc3\xa4"), "\"\xe2\x82\xac\\ufffdz\xc3\xa4\"");
    assert_json(STR("\xe2\x82"), "\"\\ufffd\\ufffd\"");
    assert_json(STR("\xc3\""), "\"\\ufffd\\\"\"");
    assert_json(STR("\xf0\x9f\x98\n"), "\"\\ufffd\\ufffd\\ufffd\\n\"");
}

static void json_of_any_bytes_is_utf8_and_printable(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 2000; round++) {
        char bytes[40];
        size_t size = (size_t)rand() % sizeof bytes;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (char)(rand() % 3 ? rand() : 0xc0 | (rand() & 63));
        struct buf out = {0};
        escape_json(&out, str_of(bytes, size));
        assert_true(str_is_utf8(buf_str(&out)));
        for (size_t i = 0; i < out.size; i++)
            assert_true((unsigned char)out.at[i] >= 0x20);
        buf_clear(&out);
    }
}

static void hex_is_lower_case(void **state)
{
    (void)state;
    char out[9];
    escape_hex(out, "\x00\xab\xff\x10", 4);
    assert_string_equal(out, "00abff10");
    escape_hex(out, "", 0);
    assert_string_equal(out, "");
}

static void percent_decoding_refuses_bad_escapes(void **state)
{
    (void)state;
    char out[64];
    assert_int_equal(escape_percent_decode(out, STR("a%2Fb%2f+%7e"), false), 6);
    assert_memory_equal(out, "a/b/+~", 6);
    assert_int_equal(escape_percent_decode(out, STR("a+b"), true), 3);
    assert_memory_equal(out, "a b", 3);
    assert_int_equal(escape_percent_decode(out, STR("%ff"), false), 1);
    assert_int_equal(out[0], (char)0xff);
    assert_int_equal(escape_percent_decode(out, STR(""), false), 0);
    const char *const bad[] = {"%", "%1", "a%", "%zz", "%1g", "%g1", "%%20", "%00", "%0"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(escape_percent_decode(out, str_from(bad[i]), false), -EINVAL);
}

static void percent_encoding_comes_back(void **state)
{
    (void)state;
    struct buf out = {0};
    escape_percent_encode(&out, STR("aZ09-._~ /%\xff"));
    assert_int_equal(out.size, 20);
    assert_memory_equal(out.at, "aZ09-._~%20%2F%25%FF", 20);
    buf_clear(&out);
    char all[255];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    escape_percent_encode(&out, str_of(all, sizeof all));
    char back[1024];
    assert_int_equal(escape_percent_decode(back, buf_str(&out), true), sizeof all);
    assert_memory_equal(back, all, sizeof all);
    buf_clear(&out);
}

static void html_stands_for_itself(void **state)
{
    (void)state;
    struct buf out = {0};
    escape_html(&out, STR("<a href=\"x\" title='y'>&amp; \xc3\xa9</a>"));
    const char *wanted = "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;amp; \xc3\xa9&lt;/a&gt;";
    assert_int_equal(out.size, strlen(wanted));
    assert_memory_equal(out.at, wanted, out.size);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_strings_are_rfc_8259),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced_and_no_others),
        cmocka_unit_test(json_of_any_bytes_is_utf8_and_printable),
        cmocka_unit_test(hex_is_lower_case),
        cmocka_unit_test(percent_decoding_refuses_bad_escapes),
        cmocka_unit_test(percent_encoding_comes_back),
        cmocka_unit_test(html_stands_for_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
