/* Slices, numbers, UTF-8 and growing buffers. */
#include "core/base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_str(struct str got, const char *wanted)
{
    assert_non_null(got.at);
    assert_int_equal(got.size, strlen(wanted));
    assert_memory_equal(got.at, wanted, got.size);
}

static void equality_folds_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(str_equal(STR("abc"), STR("abc")));
    assert_false(str_equal(STR("abc"), STR("abd")));
    assert_false(str_equal(STR("abc"), STR("ab")));
    assert_true(str_equal(STR_NONE, STR("")));
    assert_true(str_equal_nocase(STR("Content-LENGTH"), STR("content-length")));
    assert_false(str_equal_nocase(STR("a@"), STR("a`"))); /* 0x40 and 0x60 differ by the same bit */
    assert_false(str_equal_nocase(STR("a["), STR("a{")));
    assert_false(str_equal_nocase(STR("\xc3\x84"), STR("\xc3\xa4")));
    assert_true(str_starts(STR("abc"), STR("ab")));
    assert_true(str_starts(STR(""), STR("")));
    assert_false(str_starts(STR("a"), STR("ab")));
}

static void trim_takes_spaces_and_tabs_at_both_ends(void **state)
{
    (void)state;
    assert_str(str_trim(STR(" \t a b\t ")), "a b");
    assert_str(str_trim(STR("\r\n")), "\r\n");
    assert_int_equal(str_trim(STR(" \t ")).size, 0);
    assert_int_equal(str_trim(STR_NONE).size, 0);
}

static void split_gives_every_piece_even_empty_ones(void **state)
{
    (void)state;
    struct str rest = STR("a,,b,");
    struct str piece;
    const char *const wanted[] = {"a", "", "b", ""};
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        assert_true(str_split(&rest, ',', &piece));
        assert_str(piece, wanted[i]);
    }
    assert_false(str_split(&rest, ',', &piece));
    rest = STR("");
    assert_true(str_split(&rest, ',', &piece));
    assert_int_equal(piece.size, 0);
    assert_false(str_split(&rest, ',', &piece));
    rest = STR_NONE;
    assert_false(str_split(&rest, ',', &piece));
}

static void numbers_are_digits_that_fit(void **state)
{
    (void)state;
    uint64_t u;
    assert_true(str_to_u64(STR("0"), &u) && u == 0);
    assert_true(str_to_u64(STR("007"), &u) && u == 7);
    assert_true(str_to_u64(STR("18446744073709551615"), &u) && u == UINT64_MAX);
    const char *const bad[] = {
        "", "18446744073709551616", "99999999999999999999", "+1", "-1", " 1", "1 ", "1a", "0x1", "1_0"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(str_to_u64(str_from(bad[i]), &u));
    assert_false(str_to_u64(STR_NONE, &u));
    int64_t s;
    assert_true(str_to_i64(STR("9223372036854775807"), &s) && s == INT64_MAX);
    assert_true(str_to_i64(STR("-9223372036854775808"), &s) && s == INT64_MIN);
    assert_true(str_to_i64(STR("-0"), &s) && s == 0);
    const char *const bad_signed[] = {"", "-", "--1", "+1", "9223372036854775808", "-9223372036854775809"};
    for (size_t i = 0; i < ARRAY_SIZE(bad_signed); i++)
        assert_false(str_to_i64(str_from(bad_signed[i]), &s));
}

static void an_id_is_its_prefix_and_base62(void **state)
{
    static const char *const wrong[] = {"",        "key_",      "kex_a",  "key-a",       "key_a ",
                                        "key_a/b", "key_a\x7f", "key_:",  "key_@",       "key_[",
                                        "key_`",   "key_{",     " key_a", "key_\xc3\xa4"};
    (void)state;
    assert_true(str_is_base62_behind(STR("key_09AZaz"), STR("key_")));
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(str_is_base62_behind(str_from(wrong[i]), STR("key_")));
}

static void utf8_is_rfc_3629(void **state)
{
    (void)state;
    const char *const good[] = {"",
                                "a",
                                "\xc2\x80",
                                "\xdf\xbf",
                                "\xe0\xa0\x80",
                                "\xed\x9f\xbf",
                                "\xee\x80\x80",
                                "\xf0\x90\x80\x80",
                                "\xf4\x8f\xbf\xbf",
                                "a\xe2\x82\xac\xf0\x9f\x98\x80z"};
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(str_is_utf8(str_from(good[i])));
    const char *const bad[] = {"\x80",
                               "\xbf",
                               "\xc0\x80",
                               "\xc1\xbf",
                               "\xc2",
                               "\xc2\x41",
                               "\xe0\x9f\xbf",
                               "\xe2\x82",
                               "\xe2\x82\x41",
                               "\xed\xa0\x80",
                               "\xed\xbf\xbf",
                               "\xf0\x8f\xbf\xbf",
                               "\xf4\x90\x80\x80",
                               "\xf5\x80\x80\x80",
                               "\xff",
                               "ab\xfe",
                               "\xf0\x9f\x98"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(str_is_utf8(str_from(bad[i])));
    assert_true(str_is_utf8(str_of("a\0b", 3)));
    assert_true(str_is_utf8(STR_NONE));
    assert_int_equal(str_utf8_length(STR("a\xe2\x82\xac\xf0\x9f\x98\x80z")), 4);
    assert_int_equal(str_utf8_length(STR_NONE), 0);
}

/* The slice ends where a heap block ends, so that reading past it is a sanitizer's fault. */
static void utf8_never_reads_past_the_slice(void **state)
{
    (void)state;
    const char sequence[] = "\xf0\x9f\x98\x80";
    for (size_t size = 1; size <= 4; size++) {
        char *exact = malloc(size);
        assert_non_null(exact);
        memcpy(exact, sequence, size);
        assert_true(str_is_utf8(str_of(exact, size)) == (size == 4));
        free(exact);
    }
}

static void buffer_grows_and_formats(void **state)
{
    (void)state;
    struct buf buffer = {0};
    buf_add(&buffer, NULL, 0);
    assert_null(buffer.at);
    buf_add_literal(&buffer, "a");
    buf_add_char(&buffer, 'b');
    buf_add_text(&buffer, "c");
    buf_add_str(&buffer, STR_NONE);
    buf_add_str(&buffer, STR("d"));
    buf_add_u64(&buffer, 0);
    buf_add_u64(&buffer, UINT64_MAX);
    buf_add_i64(&buffer, INT64_MIN);
    buf_add_i64(&buffer, -1);
    buf_printf(&buffer, "%s|%d", "", 7);
    assert_str(buf_str(&buffer), "abcd018446744073709551615-9223372036854775808-1|7");
    buf_clear(&buffer);
    for (int i = 0; i < 1000; i++)
        buf_printf(&buffer, "%03d", i);
    assert_int_equal(buffer.size, 3000);
    assert_memory_equal(buffer.at + 2997, "999", 3);
    buf_consume(&buffer, 2997);
    assert_str(buf_str(&buffer), "999");
    buf_consume(&buffer, 3);
    assert_int_equal(buffer.size, 0);
    buf_clear(&buffer);
    buf_clear(&buffer);
    assert_null(buffer.at);
}

static void reserve_gives_all_the_room_asked_for(void **state)
{
    (void)state;
    struct buf buffer = {0};
    for (size_t more = 1; more < 100000; more = more * 3 + 1) {
        memset(buf_reserve(&buffer, more), 'x', more);
        buffer.size += more;
        assert_true(buffer.capacity >= buffer.size);
    }
    buf_clear(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_folds_ascii_letters_only),
        cmocka_unit_test(trim_takes_spaces_and_tabs_at_both_ends),
        cmocka_unit_test(split_gives_every_piece_even_empty_ones),
        cmocka_unit_test(numbers_are_digits_that_fit),
        cmocka_unit_test(an_id_is_its_prefix_and_base62),
        cmocka_unit_test(utf8_is_rfc_3629),
        cmocka_unit_test(utf8_never_reads_past_the_slice),
        cmocka_unit_test(buffer_grows_and_formats),
        cmocka_unit_test(reserve_gives_all_the_room_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
