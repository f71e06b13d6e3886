/* Counters from many threads. */
#include "core/base/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void *count(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10000; i++) {
        metric_add(M_ACCEPTED, 1);
        metric_add_slot(M_REQUESTS, 2, 3);
        metric_add(M_CONNECTIONS, i % 2 ? -1 : 1);
        metric_observe_us(M_REQUEST_SECONDS, 1, 100);
    }
    return NULL;
}

static void what_threads_counted_stays_when_they_end(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    count(NULL);
    assert_true(metric_read(M_ACCEPTED, 0) >= 10000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(metric_read(M_ACCEPTED, 0), 50000);
    assert_int_equal(metric_read(M_REQUESTS, 2), 150000);
    assert_int_equal(metric_read(M_REQUESTS, 0), 0);
    assert_int_equal(metric_read(M_CONNECTIONS, 0), 0);
    uint64_t buckets[METRIC_BUCKETS];
    uint64_t sum_us;
    metric_read_histogram(M_REQUEST_SECONDS, 1, buckets, &sum_us);
    assert_int_equal(buckets[0], 50000);
    assert_int_equal(sum_us, 5000000);
}

static void an_observation_counts_in_the_first_bucket_that_holds_it(void **state)
{
    (void)state;
    const uint64_t observed[] = {0, 100, 101, 250, 30000000, 30000001};
    for (unsigned i = 0; i < 6; i++)
        metric_observe_us(M_JOB_SECONDS, 3, observed[i]);
    uint64_t buckets[METRIC_BUCKETS];
    uint64_t sum_us;
    metric_read_histogram(M_JOB_SECONDS, 3, buckets, &sum_us);
    assert_int_equal(buckets[0], 2);
    assert_int_equal(buckets[1], 2);
    assert_int_equal(buckets[METRIC_BUCKETS - 2], 1);
    assert_int_equal(buckets[METRIC_BUCKETS - 1], 1);
    assert_int_equal(sum_us, 60000452);
    for (unsigned i = 1; i < METRIC_BUCKETS - 1; i++)
        assert_true(metric_bucket_us[i] > metric_bucket_us[i - 1]);
}

static void slots_have_names_where_they_were_named(void **state)
{
    (void)state;
    assert_null(metric_slot_name(M_JOBS_DONE, 0));
    metric_name_slot(M_JOBS_DONE, 0, "scale");
    assert_string_equal(metric_slot_name(M_JOBS_DONE, 0), "scale");
    metric_add_slot(M_JOBS_DONE, METRIC_SLOTS + 5, 1); /* out of range counts in the last */
    assert_int_equal(metric_read(M_JOBS_DONE, METRIC_SLOTS - 1), 1);
    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        assert_non_null(metric_rows[i].name);
        assert_non_null(metric_rows[i].help);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_threads_counted_stays_when_they_end),
        cmocka_unit_test(an_observation_counts_in_the_first_bucket_that_holds_it),
        cmocka_unit_test(slots_have_names_where_they_were_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
