/* Clocks and the spellings of time. */
#include "core/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void iso_and_http_dates_are_utc(void **state)
{
    (void)state;
    char iso[CLOCK_ISO_SIZE];
    char http[CLOCK_HTTP_SIZE];
    assert_string_equal(clock_format_iso(iso, 0), "1970-01-01T00:00:00Z");
    assert_string_equal(clock_format_iso(iso, 1762776000999), "2025-11-10T12:00:00Z");
    assert_string_equal(clock_format_iso(iso, 1709164800000), "2024-02-29T00:00:00Z");
    assert_string_equal(clock_format_iso(iso, 253402300799000), "9999-12-31T23:59:59Z");
    assert_string_equal(clock_format_http(http, 784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_string_equal(clock_format_http(http, 0), "Thu, 01 Jan 1970 00:00:00 GMT");
}

static void the_present_is_spelled_in_both_ways(void **state)
{
    (void)state;
    assert_int_equal(strlen(clock_iso_now()), 20);
    assert_int_equal(strlen(clock_http_now()), CLOCK_HTTP_SIZE - 1);
    struct tm parts = {0};
    assert_non_null(strptime(clock_iso_now(), "%Y-%m-%dT%H:%M:%SZ", &parts));
    int64_t spelled = timegm(&parts);
    int64_t now = clock_wall_s();
    assert_true(spelled <= now && spelled >= now - 2);
}

static void the_monotonic_clock_goes_on(void **state)
{
    (void)state;
    uint64_t before = clock_now_ns();
    uint64_t in_a_second = clock_in_ms(1000);
    uint64_t after = clock_now_ns();
    assert_true(after >= before);
    assert_true(in_a_second >= before + CLOCK_SECOND && in_a_second <= after + CLOCK_SECOND);
    assert_true(clock_in_ms(UINT64_MAX) == CLOCK_NEVER);
    assert_true(clock_in_ms(UINT64_MAX / CLOCK_MS) == CLOCK_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iso_and_http_dates_are_utc),
        cmocka_unit_test(the_present_is_spelled_in_both_ways),
        cmocka_unit_test(the_monotonic_clock_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
