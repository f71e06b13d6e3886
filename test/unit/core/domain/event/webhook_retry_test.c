/* Retries and pauses of webhooks. */
#include "core/domain/event/webhook_retry.h"

#include "core/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const int64_t nominal_ms[] = {5000, 300000, 1800000, 7200000, 18000000, 36000000, 36000000};

static void each_try_waits_its_time_a_tenth_more_or_less(void **state)
{
    (void)state;
    for (unsigned tries = 1; tries < WEBHOOK_TRIES; tries++) {
        int64_t ms = nominal_ms[tries - 1];
        int64_t least = INT64_MAX;
        int64_t most = 0;
        for (uint64_t random = 0; random < 100000; random++) {
            int64_t wait = webhook_retry_ms(tries, 0, random * UINT64_C(0x9e3779b97f4a7c15));
            least = wait < least ? wait : least;
            most = wait > most ? wait : most;
        }
        assert_true(least >= ms - ms / 10 && least < ms - ms / 11);
        assert_true(most <= ms + ms / 10 && most > ms + ms / 11);
    }
}

static void after_the_last_try_there_is_none(void **state)
{
    (void)state;
    assert_int_equal(webhook_retry_ms(WEBHOOK_TRIES, 0, 7), -1);
    assert_int_equal(webhook_retry_ms(WEBHOOK_TRIES, 3600, 7), -1);
    assert_int_equal(webhook_retry_ms(0, 0, 7), -1);
}

static void what_the_endpoint_asks_for_is_granted_up_to_a_day(void **state)
{
    (void)state;
    assert_int_equal(webhook_retry_ms(1, 120, 1), 120000);
    assert_true(webhook_retry_ms(1, 1, 1) >= 4500); /* no sooner than it would be anyway */
    assert_int_equal(webhook_retry_ms(1, INT64_MAX / 2000, 1), 86400000);
}

static void retry_after_is_a_number_or_a_date(void **state)
{
    (void)state;
    int64_t now_s = INT64_C(1445412480); /* Wed, 21 Oct 2015 07:28:00 GMT */
    assert_int_equal(webhook_retry_after_s(STR("120"), now_s), 120);
    assert_int_equal(webhook_retry_after_s(STR(" 5 "), now_s), 5);
    assert_int_equal(webhook_retry_after_s(STR("99999999999"), now_s), 86400);
    assert_int_equal(webhook_retry_after_s(STR("Wed, 21 Oct 2015 07:29:30 GMT"), now_s), 90);
    assert_int_equal(webhook_retry_after_s(STR("Wed, 21 Oct 2015 07:00:00 GMT"), now_s), 0);
    static const char *const bad[] = {"",
                                      "-1",
                                      "1.5",
                                      "soon",
                                      "Wed, 21 Oct 2015 07:29:30",
                                      "120 s",
                                      "Wed, 21 Oct 2015 07:29:30 GMT and some more text behind it"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(webhook_retry_after_s(str_from(bad[i]), now_s), 0);
    assert_int_equal(webhook_retry_after_s(STR_NONE, now_s), 0);
}

static void an_endpoint_that_fails_is_paused_for_longer_and_longer(void **state)
{
    struct webhook_health health = {0};
    int64_t expected_ms = 10000;
    (void)state;
    for (int i = 1; i < WEBHOOK_FAILURES; i++)
        assert_int_equal(webhook_health_note(&health, false, 0, 5), 0);
    for (int i = 0; i < 12; i++) {
        int64_t pause_ms = webhook_health_note(&health, false, 0, (uint64_t)i * 977);
        assert_in_range(pause_ms, expected_ms - expected_ms / 10, expected_ms + expected_ms / 10);
        expected_ms = expected_ms < 300000 ? 2 * expected_ms : 600000;
    }
    assert_int_equal(health.failures, WEBHOOK_FAILURES + 11);
    assert_int_equal(health.pauses, 12);
}

static void one_success_ends_it(void **state)
{
    struct webhook_health health = {.failures = 30, .pauses = 4};
    (void)state;
    assert_int_equal(webhook_health_note(&health, true, 0, 1), 0);
    assert_int_equal(health.failures, 0);
    assert_int_equal(health.pauses, 0);
    assert_int_equal(webhook_health_note(&health, false, 0, 1), 0);
}

static void an_endpoint_that_asks_for_it_is_left_in_peace_for_an_hour_at_most(void **state)
{
    struct webhook_health health = {0};
    (void)state;
    assert_int_equal(webhook_health_note(&health, false, 30, 1), 30000);
    assert_int_equal(health.pauses, 0);
    assert_int_equal(webhook_health_note(&health, false, 86400, 1), 3600000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_try_waits_its_time_a_tenth_more_or_less),
        cmocka_unit_test(after_the_last_try_there_is_none),
        cmocka_unit_test(what_the_endpoint_asks_for_is_granted_up_to_a_day),
        cmocka_unit_test(retry_after_is_a_number_or_a_date),
        cmocka_unit_test(an_endpoint_that_fails_is_paused_for_longer_and_longer),
        cmocka_unit_test(one_success_ends_it),
        cmocka_unit_test(an_endpoint_that_asks_for_it_is_left_in_peace_for_an_hour_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
