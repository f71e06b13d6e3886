/* The rules of the text exposition format 0.0.4, line by line. Metrics count for the whole process, so each test uses
 * rows of its own. */
#include "proto/prometheus.h"

#include "core/base/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct buf page;

static const char *scrape(void)
{
    page.size = 0;
    prometheus_write(&page);
    buf_add_char(&page, '\0');
    return page.at;
}

static int tear_down(void **state)
{
    (void)state;
    buf_clear(&page);
    return 0;
}

static void assert_contains(const char *text)
{
    if (!strstr(scrape(), text))
        fail_msg("no\n%s\nin\n%s", text, page.at);
}

static void a_row_has_help_type_and_value(void **state)
{
    (void)state;
    metric_add(M_ACCEPTED, 41);
    metric_add(M_ACCEPTED, 1);
    assert_contains("# HELP wakegate_connections_accepted_total Client connections accepted\n"
                    "# TYPE wakegate_connections_accepted_total counter\n"
                    "wakegate_connections_accepted_total 42\n");
    assert_contains("# TYPE wakegate_connections gauge\nwakegate_connections 0\n");
}

static void gauges_may_be_negative(void **state)
{
    (void)state;
    metric_add(M_JOBS_RUNNING, -3);
    assert_contains("\nwakegate_jobs_running -3\n");
}

static void only_named_slots_are_shown(void **state)
{
    (void)state;
    metric_name_slot(M_REQUESTS, 2, "2xx");
    metric_name_slot(M_REQUESTS, 5, "5xx");
    metric_add_slot(M_REQUESTS, 2, 7);
    metric_add_slot(M_REQUESTS, 3, 9);
    assert_contains("# TYPE wakegate_requests_total counter\n"
                    "wakegate_requests_total{code=\"2xx\"} 7\n"
                    "wakegate_requests_total{code=\"5xx\"} 0\n"
                    "# HELP ");
}

static void label_values_are_escaped(void **state)
{
    (void)state;
    metric_name_slot(M_JOBS_ADDED, 0, "a\\b\"c\nd");
    metric_add_slot(M_JOBS_ADDED, 0, 1);
    assert_contains("\nwakegate_jobs_added_total{kind=\"a\\\\b\\\"c\\nd\"} 1\n");
}

static void histograms_are_cumulative_and_in_seconds(void **state)
{
    (void)state;
    metric_observe_us(M_POD_WAKE_SECONDS, 0, 100);
    metric_observe_us(M_POD_WAKE_SECONDS, 0, 101);
    metric_observe_us(M_POD_WAKE_SECONDS, 0, 1500000);
    metric_observe_us(M_POD_WAKE_SECONDS, 0, 60000000);
    assert_contains("# TYPE wakegate_pod_wake_seconds histogram\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"0.0001\"} 1\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"0.00025\"} 2\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"0.0005\"} 2\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"0.001\"} 2\n");
    assert_contains("wakegate_pod_wake_seconds_bucket{le=\"1\"} 2\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"2.5\"} 3\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"5\"} 3\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"30\"} 3\n"
                    "wakegate_pod_wake_seconds_bucket{le=\"+Inf\"} 4\n"
                    "wakegate_pod_wake_seconds_sum 61.500201\n"
                    "wakegate_pod_wake_seconds_count 4\n");
}

static void a_labelled_histogram_has_both_labels(void **state)
{
    (void)state;
    metric_name_slot(M_JOB_SECONDS, 1, "scale");
    metric_observe_us(M_JOB_SECONDS, 1, 20000);
    assert_contains("wakegate_job_seconds_bucket{kind=\"scale\",le=\"0.01\"} 0\n"
                    "wakegate_job_seconds_bucket{kind=\"scale\",le=\"0.025\"} 1\n");
    assert_contains(
        "wakegate_job_seconds_sum{kind=\"scale\"} 0.02\nwakegate_job_seconds_count{kind=\"scale\"} 1\n");
}

static void every_row_is_there_once_and_every_line_ends(void **state)
{
    (void)state;
    scrape();
    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        char line[128];
        snprintf(line, sizeof line, "# HELP %s ", metric_rows[i].name);
        const char *first = strstr(page.at, line);
        assert_non_null(first);
        assert_null(strstr(first + 1, line));
    }
    assert_int_equal(page.at[page.size - 2], '\n');
    assert_null(strstr(page.at, "\n\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_has_help_type_and_value),
        cmocka_unit_test(gauges_may_be_negative),
        cmocka_unit_test(only_named_slots_are_shown),
        cmocka_unit_test(label_values_are_escaped),
        cmocka_unit_test(histograms_are_cumulative_and_in_seconds),
        cmocka_unit_test(a_labelled_histogram_has_both_labels),
        cmocka_unit_test(every_row_is_there_once_and_every_line_ends),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
