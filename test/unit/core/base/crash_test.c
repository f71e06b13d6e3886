/* Crash points: a process ends at the point that it is told to, at the pass that it is told to, once. */
#include "core/base/crash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* How a process of these settings ends that passes `passes` times by `name`: its exit status, or -signal. */
static int run(const char *at, const char *once, const char *name, int passes)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (at)
            setenv("WAKEGATE_CRASH_AT", at, 1);
        if (once)
            setenv("WAKEGATE_CRASH_ONCE", once, 1);
        for (int i = 0; i < passes; i++)
            CRASH_POINT(name);
        _exit(passes);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_every_point_of_the_table_crashes(void **state)
{
    (void)state;
    assert_true(crash_point_count > 0);
    for (size_t i = 0; i < crash_point_count; i++) {
        const char *name = crash_points[i].name;
        assert_int_equal(run(name, NULL, name, 1), -SIGKILL);
        assert_int_equal(run(NULL, NULL, name, 1), 1);
    }
}

static void test_other_points_are_passed(void **state)
{
    (void)state;
    assert_int_equal(run("pod-forked", NULL, "pod-locked", 3), 3);
    assert_int_equal(run("", NULL, "pod-locked", 3), 3);
}

static void test_a_pass_can_be_chosen(void **state)
{
    (void)state;
    assert_int_equal(run("pod-locked:3", NULL, "pod-locked", 2), 2);
    assert_int_equal(run("pod-locked:3", NULL, "pod-locked", 3), -SIGKILL);
}

static void test_it_crashes_once_where_a_file_remembers(void **state)
{
    (void)state;
    char path[] = "/tmp/wakegate-crash-XXXXXX";
    assert_non_null(mkdtemp(path));
    char file[64];
    snprintf(file, sizeof file, "%s/crashed", path);
    assert_int_equal(run("pod-locked", file, "pod-locked", 1), -SIGKILL);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(run("pod-locked", file, "pod-locked", 2), 2);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(path), 0);
}

static void test_names_outside_the_table_are_a_bug(void **state)
{
    (void)state;
    assert_int_equal(run("no-such-point", NULL, "pod-locked", 1), -SIGABRT);
    assert_int_equal(run(NULL, NULL, "no-such-point", 1), -SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_point_of_the_table_crashes),
        cmocka_unit_test(test_other_points_are_passed),
        cmocka_unit_test(test_a_pass_can_be_chosen),
        cmocka_unit_test(test_it_crashes_once_where_a_file_remembers),
        cmocka_unit_test(test_names_outside_the_table_are_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
