/* Picodollars and their text. */
#include "core/base/money.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
    const char *text;
    money amount;
    const char *shortest;
} fine[] = {
    {"0", 0, "0.0"},
    {"0.0", 0, "0.0"},
    {"0.000000000001", 1, "0.000000000001"},
    {"0.0132", INT64_C(13200000000), "0.0132"},
    {"1", MONEY_DOLLAR, "1.0"},
    {"1.50", INT64_C(1500000000000), "1.5"},
    {"0010.25", INT64_C(10250000000000), "10.25"},
    {"49", MONEY_USD(49), "49.0"},
    {"100.000000000001", MONEY_USD(100) + 1, "100.000000000001"},
    {"9223372.036854775807", INT64_MAX, "9223372.036854775807"},
    {"00000000000000000000000000000001.5", INT64_C(1500000000000), "1.5"},
};

static void amounts_are_read_and_written_exactly(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
        char out[MONEY_TEXT_SIZE];
        money amount = -1;
        assert_true(money_parse(str_from(fine[i].text), &amount));
        assert_true(amount == fine[i].amount);
        struct str text = money_format(out, amount);
        assert_string_equal(out, fine[i].shortest);
        assert_int_equal(text.size, strlen(out));
        assert_true(money_parse(text, &amount));
        assert_true(amount == fine[i].amount);
    }
}

static const char *const refused[] = {
    "",
    ".",
    "1.",
    ".5",
    "-1",
    "+1",
    "1e3",
    "1E3",
    "NaN",
    "nan",
    "inf",
    "Infinity",
    " 1",
    "1 ",
    "1,5",
    "0x10",
    "1..2",
    "1.2.3",
    "1_000",
    "0.0000000000001",
    "1.0000000000000",
    "9223372.036854775808",
    "9223373",
    "10000000",
    "123456789012345678901234567890",
    "\xd9\xa1",
};

static void other_spellings_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        money amount;
        assert_false(money_parse(str_from(refused[i]), &amount));
    }
    money amount;
    assert_false(money_parse(STR_NONE, &amount));
    assert_false(money_parse(str_of("1\0002", 3), &amount));
}

static void negative_amounts_are_written(void **state)
{
    (void)state;
    char out[MONEY_TEXT_SIZE];
    money_format(out, -MONEY_DOLLAR / 2);
    assert_string_equal(out, "-0.5");
    money_format(out, -1);
    assert_string_equal(out, "-0.000000000001");
    money_format(out, INT64_MIN);
    assert_string_equal(out, "-9223372.036854775808");
}

static void decimals_are_told_by_their_digits(void **state)
{
    (void)state;
    assert_true(money_is_decimal(STR("123.456"), 3, 3));
    assert_true(money_is_decimal(STR("123"), 3, 0));
    assert_true(money_is_decimal(STR("0.000000000000000001"), 12, 18));
    assert_false(money_is_decimal(STR("0.0000000000000000001"), 12, 18));
    assert_false(money_is_decimal(STR("1234"), 3, 3));
    assert_false(money_is_decimal(STR("1.2"), 3, 0));
    assert_false(money_is_decimal(STR("1."), 3, 3));
    assert_false(money_is_decimal(STR("-1"), 3, 3));
    assert_false(money_is_decimal(STR_NONE, 3, 3));
    assert_true(money_is_zero(STR("0")));
    assert_true(money_is_zero(STR("000.000")));
    assert_false(money_is_zero(STR("0.000000000000000001")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amounts_are_read_and_written_exactly),
        cmocka_unit_test(other_spellings_are_refused),
        cmocka_unit_test(negative_amounts_are_written),
        cmocka_unit_test(decimals_are_told_by_their_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
