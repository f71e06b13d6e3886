/* core/run/child: what a child inherits, how its end is learned, and that nothing of it is left. */
#include "core/run/child.h"

#include "core/base/clock.h"
#include "core/run/fiber.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void on_loop(fiber_run *run)
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run, NULL);
    loop_close(&loop);
}

#define SHELL(script) ((const char *const[]){"/bin/sh", "-c", (script), NULL})

/* What the script prints, as a string that the caller frees. */
static char *output_of(struct child_options options)
{
    struct buf output = {0};
    int status = -1;
    options.errors = STDERR_FILENO;
    assert_int_equal(child_run(&options, &output, CLOCK_NEVER, &status), 0);
    assert_true(WIFEXITED(status));
    buf_add_char(&output, '\0');
    return output.at;
}

static void assert_prints(struct child_options options, const char *expected)
{
    char *printed = output_of(options);
    assert_string_equal(printed, expected);
    free(printed);
}

static void run_status(void *arg)
{
    (void)arg;
    int status;
    char text[CHILD_STATUS_SIZE];
    const struct child_options exits = {.argv = SHELL("exit 3"), .output = -1, .errors = -1};
    assert_int_equal(child_run(&exits, NULL, CLOCK_NEVER, &status), 0);
    assert_string_equal(child_status_text(text, status), "exit status 3");
    const struct child_options dies = {.argv = SHELL("kill -9 $$"), .output = -1, .errors = -1};
    assert_int_equal(child_run(&dies, NULL, CLOCK_NEVER, &status), 0);
    assert_string_equal(child_status_text(text, status), "signal 9 (Killed)");
}

static void test_the_status_is_told(void **state)
{
    (void)state;
    on_loop(run_status);
}

static void run_errors(void *arg)
{
    (void)arg;
    struct child *child;
    const char *missing[] = {"/nonexistent/program", NULL};
    const char *no_program[] = {"/etc/passwd", NULL};
    assert_int_equal(
        child_start(&(struct child_options){.argv = missing, .output = -1, .errors = -1}, &child), -ENOENT);
    assert_int_equal(
        child_start(&(struct child_options){.argv = no_program, .output = -1, .errors = -1}, &child),
        -EACCES);
}

static void test_a_program_that_cannot_be_loaded_is_an_error_of_start(void **state)
{
    (void)state;
    on_loop(run_errors);
}

static void run_environment(void *arg)
{
    (void)arg;
    assert_int_equal(setenv("CHILD_TEST_KEPT", "kept", 1), 0);
    assert_int_equal(setenv("CHILD_TEST", "ours", 1), 0);
    const char *variables[] = {"CHILD_TEST=theirs", "CHILD_TEST_NEW=new", NULL};
    assert_prints((struct child_options){.argv = SHELL("echo $CHILD_TEST $CHILD_TEST_KEPT $CHILD_TEST_NEW; "
                                                       "env | grep -c '^CHILD_TEST='"),
                                         .variables = variables},
                  "theirs kept new\n1\n");
    assert_string_equal(getenv("CHILD_TEST"), "ours");
}

static void test_variables_are_put_over_our_environment(void **state)
{
    (void)state;
    on_loop(run_environment);
}

static void run_inherits(void *arg)
{
    (void)arg;
    int leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
    assert_true(leak >= 3);
    /* ls has a descriptor of its own: that of the folder. */
    assert_prints((struct child_options){.argv = SHELL("cat; ls /proc/self/fd | wc -l")}, "4\n");
    close(leak);

    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    signal(SIGPIPE, SIG_IGN);
    assert_prints(
        (struct child_options){.argv = SHELL("grep -E 'SigBlk|SigIgn' /proc/self/status | cut -f 2")},
        "0000000000000000\n0000000000000000\n");
    signal(SIGPIPE, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);

    char *session =
        output_of((struct child_options){.argv = SHELL("cut -d ' ' -f 6 /proc/$$/stat; echo $$")});
    char *end;
    long sid = strtol(session, &end, 10);
    assert_int_equal(sid, strtol(end, NULL, 10));
    assert_int_not_equal(sid, getsid(0));
    free(session);
}

static void test_descriptors_signals_and_session_are_not_inherited(void **state)
{
    (void)state;
    on_loop(run_inherits);
}

static void run_user(void *arg)
{
    (void)arg;
    const struct child_user nobody = {65534, 65534};
    assert_prints((struct child_options){.argv = SHELL("id -u; id -g; id -G"), .user = &nobody},
                  "65534\n65534\n65534\n");
}

static void test_another_user_has_one_group_only(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    on_loop(run_user);
}

static void run_stop(void *arg)
{
    (void)arg;
    struct child *child;
    const struct child_options polite = {.argv =
                                             SHELL("trap 'exit 7' TERM; echo; while :; do sleep 0.01; done")};
    int ready[2];
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    struct child_options options = polite;
    options.output = ready[1];
    options.errors = -1;
    assert_int_equal(child_start(&options, &child), 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_false(child_ended(child));
    assert_int_equal(WEXITSTATUS(child_stop(child, SIGTERM, 60000)), 7);
    assert_true(child_ended(child));
    /* Once ended it can be stopped again, and a signal goes to nobody. */
    child_signal(child, SIGKILL);
    assert_int_equal(WEXITSTATUS(child_stop(child, SIGTERM, 60000)), 7);
    child_free(child);

    options.argv = SHELL("trap '' TERM; echo; while :; do sleep 0.01; done");
    assert_int_equal(child_start(&options, &child), 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(WTERMSIG(child_stop(child, SIGTERM, 20)), SIGKILL);
    child_free(child);
    close(ready[0]);
    close(ready[1]);
}

static void test_stop_asks_first_and_then_kills(void **state)
{
    (void)state;
    on_loop(run_stop);
}

static void run_deadline(void *arg)
{
    (void)arg;
    const struct child_options sleeps = {.argv = SHELL("exec sleep 600"), .output = -1, .errors = -1};
    int status;
    assert_int_equal(child_run(&sleeps, NULL, clock_in_ms(20), &status), -ETIMEDOUT);
    fiber_set_deadline(clock_in_ms(20));
    assert_int_equal(child_run(&sleeps, NULL, CLOCK_NEVER, &status), -ECANCELED);
    fiber_set_deadline(CLOCK_NEVER);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void test_a_run_that_is_given_up_leaves_no_child(void **state)
{
    (void)state;
    on_loop(run_deadline);
}

/* Starts a child that outlasts us, tells its pid, and is killed. */
static void run_doomed(void *arg)
{
    struct child *child;
    const struct child_options options = {
        .argv = SHELL("exec sleep 600"), .output = -1, .errors = -1, .death_signal = SIGKILL};
    if (child_start(&options, &child))
        _exit(1);
    pid_t pid = child_pid(child);
    if (write(*(int *)arg, &pid, sizeof pid) != (ssize_t)sizeof pid)
        _exit(1);
    kill(getpid(), SIGKILL);
}

/* As the subreaper of the doomed process we inherit its child, and so learn how that ended. */
static void test_a_child_dies_with_a_killed_parent(void **state)
{
    (void)state;
    int tell[2];
    pid_t orphan;
    int status;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(pipe2(tell, O_CLOEXEC), 0);
    pid_t doomed = fork();
    assert_true(doomed >= 0);
    if (doomed == 0) {
        struct loop loop;
        loop_open(&loop, 0);
        fiber_main(&loop, "doomed", run_doomed, &tell[1]);
        _exit(1);
    }
    assert_int_equal(read(tell[0], &orphan, sizeof orphan), sizeof orphan);
    assert_int_equal(waitpid(doomed, &status, 0), doomed);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(waitpid(orphan, &status, 0), orphan);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    close(tell[0]);
    close(tell[1]);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

static void test_programs_are_found_without_a_path(void **state)
{
    (void)state;
    char path[4096];
    char *before = getenv("PATH") ? strdup(getenv("PATH")) : NULL;
    unsetenv("PATH");
    assert_true(child_find_program("sh", path, sizeof path));
    assert_int_equal(path[0], '/');
    /* An empty piece would be the working directory. */
    setenv("PATH", ":/nonexistent::", 1);
    assert_false(child_find_program("no-such-program", path, sizeof path));
    if (before)
        setenv("PATH", before, 1);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_status_is_told),
        cmocka_unit_test(test_a_program_that_cannot_be_loaded_is_an_error_of_start),
        cmocka_unit_test(test_variables_are_put_over_our_environment),
        cmocka_unit_test(test_descriptors_signals_and_session_are_not_inherited),
        cmocka_unit_test(test_another_user_has_one_group_only),
        cmocka_unit_test(test_stop_asks_first_and_then_kills),
        cmocka_unit_test(test_a_run_that_is_given_up_leaves_no_child),
        cmocka_unit_test(test_a_child_dies_with_a_killed_parent),
        cmocka_unit_test(test_programs_are_found_without_a_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
