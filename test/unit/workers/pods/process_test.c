/*
 * The process driver with real processes, in each way of confining them that works here. Other workers are this
 * program again ("worker START ID"), so that they can be killed and can race.
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/run/loop.h"
#include "core/run/sync.h"
#include "workers/pods/driver.h"
#include "workers/pods/folder.h"
#include "workers/pods/host.h"
#include "workers/pods/spawn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, RACERS = 4, RACES = 3 };

extern char **environ;

static const struct pod_driver *const driver = &pod_driver_process;

struct way {
    const char *sandbox;
    const char *user;
};
static const struct way plain = {"off", ""};
static const struct way plain_user = {"off", "nobody"};
static const struct way boxed = {"on", ""};
static const struct way boxed_user = {"on", "nobody"};
static const struct way strictest = {"auto", "nobody"};

static char data_dir[64];
static struct loop loop;
static unsigned exits;
static int last_status;
static int64_t last_generation;

static void set(const char *name, const char *value)
{
    char error[256];
    if (config_set(name, value, error, sizeof error) < 0)
        fail_msg("%s", error);
}

static void on_exit_seen(const char *id, int64_t generation, int status, void *arg)
{
    assert_string_equal(id, "pod1");
    assert_ptr_equal(arg, &exits);
    exits++;
    last_status = status;
    last_generation = generation;
}

static void open_driver(void)
{
    char error[512] = "";
    if (driver->open(on_exit_seen, &exits, error, sizeof error) < 0)
        fail_msg("%s", error);
}

static struct pod start(int64_t generation)
{
    struct pod pod = {0};
    struct pod_spec spec = {.instance_id = "pod1", .generation = generation, .port = 1234};
    assert_int_equal(driver->start(&spec, &pod), 0);
    return pod;
}

/* ---- looking ---- */

static const char *place(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/instances/pod1/%s", data_dir, name);
    return path;
}

static bool exists(const char *path)
{
    struct stat found;
    return lstat(path, &found) == 0;
}

/* The text of a file of the pod's workspace, once it ends with a newline. */
static char *await_text(const char *name)
{
    static char text[16384];
    char path[256];
    snprintf(path, sizeof path, "%s/instances/pod1/workspace/%s", data_dir, name);
    for (uint64_t end_ns = clock_in_ms(PATIENCE_MS); clock_now_ns() < end_ns;) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        if (size > 0 && text[size - 1] == '\n') {
            text[size] = '\0';
            return text;
        }
        assert_int_equal(fiber_sleep_ms(2), 0);
    }
    fail_msg("the pod did not write %s", name);
    return NULL;
}

static bool contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static void await_exits(unsigned count)
{
    for (uint64_t end_ns = clock_in_ms(PATIENCE_MS); exits < count && clock_now_ns() < end_ns;)
        assert_int_equal(fiber_sleep_ms(2), 0);
    assert_int_equal(exits, count);
}

static unsigned count_entries(const char *path)
{
    DIR *list = opendir(path);
    assert_non_null(list);
    unsigned count = 0;
    const struct dirent *entry;
    while ((entry = readdir(list)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(list);
    return count;
}

/* Processes whose environment names the data folder: pods, whoever their parent is now. */
static unsigned count_pod_processes(void)
{
    DIR *list = opendir("/proc");
    assert_non_null(list);
    unsigned count = 0;
    const struct dirent *entry;
    while ((entry = readdir(list)) != NULL) {
        char path[64];
        char text[4096];
        snprintf(path, sizeof path, "/proc/%.20s/environ", entry->d_name);
        int fd = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
        if (fd >= 0)
            close(fd);
        count += size > 0 && memmem(text, (size_t)size, data_dir, strlen(data_dir)) != NULL;
    }
    closedir(list);
    return count;
}

static bool has_children(void)
{
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* ---- other workers ---- */

static void worker_main(void *arg)
{
    const char *command = arg;
    struct pod pod = {0};
    char error[512] = "";
    if (driver->open(NULL, NULL, error, sizeof error) < 0) {
        fprintf(stderr, "%s\n", error);
        _exit(2);
    }
    struct pod_spec spec = {.instance_id = "pod1", .generation = 7, .port = 4321};
    int result = strcmp(command, "start") == 0 ? driver->start(&spec, &pod) : driver->find("pod1", &pod);
    printf("%d %lld %d\n", result, (long long)pod.pid, pod.adopted);
    fflush(stdout);
    /* As if killed: nothing is closed. */
    _exit(0);
}

static int run_worker(const char *command)
{
    char error[256];
    if (config_load(NULL, error, sizeof error) < 0) {
        fprintf(stderr, "%s\n", error);
        return 2;
    }
    loop_open(&loop, 0);
    fiber_main(&loop, "worker", worker_main, (void *)(uintptr_t)command);
    return 1;
}

/* Starts another worker with the present settings and `extra` in its environment; its output goes to *out. */
static pid_t worker_start(const char *command, const char *extra, FILE **out)
{
    const char *names[] = {"WAKEGATE_DATA_DIR", "WAKEGATE_POD_COMMAND", "POD_SANDBOX", "POD_USER"};
    const char *values[] = {config->data_dir, config->pod_command, config->pod_sandbox, config->pod_user};
    char *environment[8] = {NULL};
    for (int i = 0; i < 4; i++)
        assert_true(asprintf(&environment[i], "%s=%s", names[i], values[i]) > 0);
    environment[4] = strdup(extra ? extra : "NOTHING=1");
    environment[5] = strdup("ASAN_OPTIONS=detect_leaks=0");
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
    char *args[] = {strdup("process_test"), strdup("worker"), strdup(command), NULL};
    pid_t pid;
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, args, environment), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[1]);
    *out = fdopen(pipe_fds[0], "r");
    for (int i = 0; environment[i]; i++)
        free(environment[i]);
    for (int i = 0; args[i]; i++)
        free(args[i]);
    return pid;
}

struct outcome {
    int result;
    long long pid;
    int adopted;
    int status;
};

static struct outcome worker_wait(pid_t pid, FILE *out)
{
    struct outcome outcome = {.result = -1};
    if (fscanf(out, "%d %lld %d", &outcome.result, &outcome.pid, &outcome.adopted) != 3)
        outcome.result = -1;
    fclose(out);
    assert_int_equal(waitpid(pid, &outcome.status, 0), pid);
    return outcome;
}

static struct outcome run_other_worker(const char *command, const char *extra)
{
    FILE *out;
    pid_t pid = worker_start(command, extra, &out);
    return worker_wait(pid, out);
}

/* ---- the frame of a test ---- */

static void (*body)(void);

static unsigned open_fds(void)
{
    return count_entries("/proc/self/fd");
}

static void run_body(void *unused)
{
    (void)unused;
    open_driver();
    unsigned before = open_fds();
    body();
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(driver->destroy("pod1"), 0);
    assert_int_equal(fiber_yield(), 0);
    assert_int_equal(open_fds(), before);
    driver->close();
    char instances[128];
    snprintf(instances, sizeof instances, "%s/instances", data_dir);
    assert_int_equal(count_entries(instances), 0);
}

static const char *const loop_forever = "echo $$ > up; while :; do sleep 0.05; done";

static int setup(void **state)
{
    const struct way *way = *state;
    strcpy(data_dir, "/tmp/wakegate-pods-XXXXXX");
    assert_non_null(mkdtemp(data_dir));
    assert_int_equal(chmod(data_dir, 0711), 0);
    set("WAKEGATE_DATA_DIR", data_dir);
    set("WAKEGATE_POD_COMMAND", loop_forever);
    set("POD_SANDBOX", way->sandbox);
    set("POD_USER", way->user);
    set("POD_STOP_TIMEOUT_MS", "10000");
    exits = 0;
    loop_open(&loop, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_close(&loop);
    /* Processes that gave up the lock are killed, but nobody waits for them. */
    for (uint64_t end_ns = clock_in_ms(PATIENCE_MS); count_pod_processes() && clock_now_ns() < end_ns;)
        usleep(1000);
    assert_int_equal(count_pod_processes(), 0);
    assert_false(has_children());
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", data_dir);
    return system(command);
}

static void run(void (*test)(void))
{
    body = test;
    fiber_main(&loop, "test", run_body, NULL);
}

/* ---- tests ---- */

static void start_runs_one_pod(void)
{
    struct pod pod = start(3);
    assert_false(pod.adopted);
    assert_true(pod.pid > 0 && pod.started_at > 0);
    assert_int_equal(pod.port, 1234);
    assert_int_equal(pod.generation, 3);
    assert_true(driver->alive("pod1"));
    await_text("up");
    struct pod again = start(4);
    assert_true(again.adopted);
    assert_int_equal(again.pid, pod.pid);
    assert_int_equal(again.generation, 3);
    struct pod found;
    assert_int_equal(driver->find("pod1", &found), 0);
    assert_int_equal(found.pid, pod.pid);
    assert_int_equal(driver->stop("pod1"), 0);
    assert_false(driver->alive("pod1"));
    assert_int_equal(driver->find("pod1", &found), -ESRCH);
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(exits, 0);
}

static void test_start_of_a_living_pod_adopts_it(void **state)
{
    (void)state;
    run(start_runs_one_pod);
}

static void reopened(void)
{
    struct pod pod = start(3);
    await_text("up");
    driver->close();
    open_driver();
    assert_false(driver->alive("pod1"));
    struct pod found;
    assert_int_equal(driver->find("pod1", &found), 0);
    assert_true(found.adopted);
    assert_int_equal(found.pid, pod.pid);
    assert_int_equal(found.started_at, pod.started_at);
    assert_int_equal(found.port, 1234);
    assert_int_equal(found.generation, 3);
    assert_true(driver->alive("pod1"));
}

static void test_pods_outlive_the_driver(void **state)
{
    (void)state;
    run(reopened);
}

static void crashed_after_fork(void)
{
    struct outcome other = run_other_worker("start", "WAKEGATE_CRASH_AT=pod-forked:2");
    assert_true(WIFSIGNALED(other.status) && WTERMSIG(other.status) == SIGKILL);
    struct pod found;
    assert_int_equal(driver->find("pod1", &found), 0);
    assert_true(found.adopted);
    assert_int_equal(found.generation, 7);
    assert_int_equal(found.port, 4321);
    await_text("up");
    struct pod again = start(8);
    assert_int_equal(again.pid, found.pid);
    assert_int_equal(kill((pid_t)found.pid, SIGKILL), 0);
    await_exits(1);
    assert_int_equal(last_generation, 7);
    assert_false(driver->alive("pod1"));
}

/* The first pass of each point is the probe's. */
static void test_pod_of_a_worker_killed_after_fork_is_adopted(void **state)
{
    (void)state;
    run(crashed_after_fork);
}

static void crashed_before_fork(void)
{
    struct outcome other = run_other_worker("start", "WAKEGATE_CRASH_AT=pod-locked:2");
    assert_true(WIFSIGNALED(other.status));
    struct pod found;
    assert_int_equal(driver->find("pod1", &found), -ESRCH);
    assert_false(start(8).adopted);
}

static void test_worker_killed_before_fork_leaves_no_pod_and_no_lock(void **state)
{
    (void)state;
    run(crashed_before_fork);
}

static void raced(void)
{
    for (int race = 0; race < RACES; race++) {
        pid_t pids[RACERS];
        FILE *outs[RACERS];
        long long pod_pid = 0;
        int started = 0;
        for (int i = 0; i < RACERS; i++)
            pids[i] = worker_start("start", NULL, &outs[i]);
        for (int i = 0; i < RACERS; i++) {
            struct outcome outcome = worker_wait(pids[i], outs[i]);
            assert_int_equal(outcome.result, 0);
            assert_true(pod_pid == 0 || pod_pid == outcome.pid);
            pod_pid = outcome.pid;
            started += !outcome.adopted;
        }
        assert_int_equal(started, 1);
        assert_int_equal(driver->stop("pod1"), 0);
        assert_int_equal(count_pod_processes(), 0);
    }
}

static void test_racing_workers_start_one_pod(void **state)
{
    (void)state;
    run(raced);
}

struct starter {
    struct group *group;
    struct pod pod;
};

static void run_starter(void *arg)
{
    struct starter *starter = arg;
    starter->pod = start(1);
    group_done(starter->group);
}

static void raced_fibers(void)
{
    struct group group = {0};
    struct starter starters[RACERS];
    int started = 0;
    for (int i = 0; i < RACERS; i++) {
        starters[i].group = &group;
        group_add(&group);
        fiber_start(&loop, "starter", run_starter, &starters[i]);
    }
    assert_int_equal(group_wait(&group, "starters", CLOCK_NEVER), 0);
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(starters[i].pod.pid, starters[0].pod.pid);
        started += !starters[i].pod.adopted;
    }
    assert_int_equal(started, 1);
}

static void test_racing_fibers_start_one_pod(void **state)
{
    (void)state;
    run(raced_fibers);
}

static void exited(void)
{
    set("WAKEGATE_POD_COMMAND", "echo x > up; exit 5");
    start(9);
    await_exits(1);
    assert_int_equal(last_status, 5);
    assert_int_equal(last_generation, 9);
    assert_false(driver->alive("pod1"));
    struct pod found;
    assert_int_equal(driver->find("pod1", &found), -ESRCH);
    assert_false(start(10).adopted);
    await_exits(2);
    assert_int_equal(last_generation, 10);
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(exits, 2);
}

static void test_an_end_is_reported_once(void **state)
{
    (void)state;
    run(exited);
}

static void left_others(void)
{
    set("WAKEGATE_POD_COMMAND",
        "(setsid sh -c 'trap \"\" TERM; echo x > up; while :; do sleep 0.05; done' &); "
        "while [ ! -e up ]; do sleep 0.01; done; exit 0");
    start(1);
    await_exits(1);
    assert_int_equal(count_pod_processes(), 0);
    assert_false(start(2).adopted);
    await_exits(2);
}

static void test_what_a_pod_leaves_behind_is_ended(void **state)
{
    (void)state;
    run(left_others);
}

static void stopped_gracefully(void)
{
    set("WAKEGATE_POD_COMMAND",
        "trap 'echo bye > bye; exit 0' TERM; echo x > up; while :; do sleep 0.05; done");
    start(1);
    await_text("up");
    assert_int_equal(driver->stop("pod1"), 0);
    assert_string_equal(await_text("bye"), "bye\n");
    assert_int_equal(exits, 0);
}

static void test_stop_lets_the_pod_finish(void **state)
{
    (void)state;
    run(stopped_gracefully);
}

/* A shell that runs more than one command stays, and dies of SIGTERM before the program that it runs. */
static void stopped_behind_shell(void)
{
    set("WAKEGATE_POD_COMMAND", "true; sh -c 'trap \"sleep 0.3; echo bye > bye; exit 0\" TERM; echo x > up; "
                                "while :; do sleep 0.05; done'; true");
    start(1);
    await_text("up");
    assert_int_equal(driver->stop("pod1"), 0);
    assert_string_equal(await_text("bye"), "bye\n");
}

static void test_stop_lets_a_program_behind_a_shell_finish(void **state)
{
    (void)state;
    run(stopped_behind_shell);
}

static void stopped_by_force(void)
{
    set("WAKEGATE_POD_COMMAND",
        "trap '' TERM; (setsid sleep 1000 &); echo x > up; while :; do sleep 0.05; done");
    set("POD_STOP_TIMEOUT_MS", "200");
    start(1);
    await_text("up");
    uint64_t begun_ns = clock_now_ns();
    assert_int_equal(driver->stop("pod1"), 0);
    assert_true(clock_now_ns() - begun_ns >= 200 * CLOCK_MS);
    assert_int_equal(count_pod_processes(), 0);
    assert_int_equal(exits, 0);
}

static void test_stop_kills_a_pod_that_does_not_finish(void **state)
{
    (void)state;
    run(stopped_by_force);
}

static void stopped_at_once(void)
{
    for (int i = 0; i < 5; i++) {
        assert_false(start(i).adopted);
        assert_int_equal(driver->stop("pod1"), 0);
        assert_int_equal(count_pod_processes(), 0);
    }
    assert_int_equal(exits, 0);
}

static void test_stop_right_after_start(void **state)
{
    (void)state;
    run(stopped_at_once);
}

static void adopted_and_stopped(void)
{
    set("WAKEGATE_POD_COMMAND",
        "trap 'echo bye > bye; exit 0' TERM; echo x > up; while :; do sleep 0.05; done");
    struct outcome other = run_other_worker("start", NULL);
    assert_int_equal(other.result, 0);
    await_text("up");
    /* Not found before: stop itself looks for the pod. */
    assert_int_equal(driver->stop("pod1"), 0);
    await_text("bye");
    assert_int_equal(exits, 0);
}

static void test_another_workers_pod_is_stopped(void **state)
{
    (void)state;
    run(adopted_and_stopped);
}

static void looked_around(void)
{
    set("WAKEGATE_POD_COMMAND",
        "{ env; echo; ls -l /proc/self/fd; echo; cat /proc/self/limits; grep Sig /proc/self/status; "
        "umask; pwd; ps -o sid= -p $$; echo end; } > seen 2>&1; mv seen up; sleep 1000");
    set("POD_MEMORY_MB", "700");
    set("POD_FILES", "99");
    set("POD_PROCESSES", "77");
    setenv("ENCRYPTION_KEY", "not for pods", 1);
    int leaked = open("/dev/zero", O_RDONLY); /* not O_CLOEXEC, as a careless library would */
    signal(SIGPIPE, SIG_IGN);
    start(12);
    close(leaked);
    signal(SIGPIPE, SIG_DFL);
    unsetenv("ENCRYPTION_KEY");
    char *seen = await_text("up");
    char expected[256];
    assert_true(contains(seen, "PORT=1234\n"));
    assert_true(contains(seen, "WAKEGATE_SESSION=pod1\n"));
    assert_true(contains(seen, "WAKEGATE_GENERATION=12\n"));
    snprintf(expected, sizeof expected, "HOME=%s\n", place("workspace"));
    assert_true(contains(seen, expected));
    assert_true(contains(seen, "PATH=/usr/local/sbin:"));
    assert_false(contains(seen, "ENCRYPTION_KEY"));
    assert_false(contains(seen, "ASAN_OPTIONS"));
    assert_false(contains(seen, "/dev/zero"));
    assert_false(contains(seen, "socket:"));
    assert_false(contains(seen, "eventpoll"));
    assert_false(contains(seen, "pod.state"));
    assert_true(contains(seen, " 0 -> /dev/null"));
    assert_true(contains(seen, "Max address space         734003200"));
    assert_true(contains(seen, "Max open files            99 "));
    assert_true(contains(seen, "Max core file size        0 "));
    if (*config->pod_user)
        assert_true(contains(seen, "Max processes             77 "));
    assert_true(contains(seen, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"));
    assert_true(contains(seen, "\n0077\n"));
    /* The sandbox's init has the lock; without a sandbox the pod has. */
    assert_int_equal(contains(seen, "pod.lock"), strcmp(config->pod_sandbox, "off") == 0);
    struct stat owner;
    assert_int_equal(stat(place("workspace/up"), &owner), 0);
    assert_int_equal(owner.st_uid == 65534, *config->pod_user != '\0');
    assert_int_equal(driver->stop("pod1"), 0);
    set("POD_MEMORY_MB", "4096");
    set("POD_FILES", "1024");
    set("POD_PROCESSES", "512");
}

static void test_a_pod_gets_nothing_of_the_workers(void **state)
{
    (void)state;
    run(looked_around);
}

static void hidden(void)
{
    char secret[128];
    char command[512];
    snprintf(secret, sizeof secret, "%s/credentials", data_dir);
    int fd = open(secret, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    close(fd);
    snprintf(
        command, sizeof command,
        "{ ls -A %s; ls -A %s/instances/pod1; ls -d /tmp/*; touch /etc/x /usr/x; kill -0 %d && echo seen; "
        "echo end; } > seen 2>&1; mv seen up; sleep 1000",
        data_dir, data_dir, (int)getpid());
    set("WAKEGATE_POD_COMMAND", command);
    start(1);
    char *seen = await_text("up");
    char expected[512];
    snprintf(expected, sizeof expected, "instances\nworkspace\n%s\n", data_dir);
    assert_memory_equal(seen, expected, strlen(expected));
    assert_false(contains(seen, "seen"));
    assert_true(contains(seen, "end\n"));
    assert_false(exists("/etc/x") || exists("/usr/x"));
}

static void test_the_sandbox_hides_the_data_folder(void **state)
{
    (void)state;
    run(hidden);
}

static void destroyed(void)
{
    char outside[128];
    char path[PATH_MAX];
    start(1);
    await_text("up");
    assert_int_equal(driver->destroy("pod1"), -EBUSY);
    assert_true(exists(place("workspace/up")));
    assert_int_equal(driver->stop("pod1"), 0);
    snprintf(outside, sizeof outside, "%s/outside", data_dir);
    assert_int_equal(mkdir(outside, 0755), 0);
    snprintf(path, sizeof path, "%s/kept", outside);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    assert_int_equal(symlink(outside, place("workspace/link")), 0);
    assert_int_equal(symlink(path, place("workspace/link2")), 0);
    /* Deeper than a path may be long, and than descriptors would reach. */
    int at = open(place("workspace"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int depth = 0; depth < 1200; depth++) {
        assert_int_equal(mkdirat(at, "deep", 0700), 0);
        int next = openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(openat(next, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0));
        close(at);
        at = next;
    }
    close(at);
    assert_int_equal(mkdir(place("workspace/locked"), 0700), 0);
    assert_int_equal(mkdir(place("workspace/locked/in"), 0), 0);
    assert_int_equal(chmod(place("workspace/locked"), 0500), 0);
    assert_int_equal(driver->destroy("pod1"), 0);
    assert_false(exists(place("")));
    assert_true(exists(path));
    assert_int_equal(driver->destroy("pod1"), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(outside), 0);
}

static void test_destroy_removes_links_not_their_targets(void **state)
{
    (void)state;
    run(destroyed);
}

static void given(void)
{
    start(1);
    await_text("up");
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(mkdir(place("workspace/sub"), 0700), 0);
    close(open(place("workspace/sub/file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    assert_int_equal(symlink("/etc/passwd", place("workspace/sub/link")), 0);
    assert_int_equal(chown(place("workspace"), 0, 0), 0);
    assert_int_equal(unlink(place("workspace/up")), 0);
    start(2);
    await_text("up");
    struct stat found;
    assert_int_equal(lstat(place("workspace/sub/file"), &found), 0);
    assert_int_equal(found.st_uid, 65534);
    assert_int_equal(lstat(place("workspace/sub/link"), &found), 0);
    assert_int_equal(found.st_uid, 65534);
    assert_int_equal(stat("/etc/passwd", &found), 0);
    assert_int_equal(found.st_uid, 0);
}

static void test_a_workspace_of_another_owner_is_given_to_the_pods_user(void **state)
{
    (void)state;
    run(given);
}

static void refused(void)
{
    struct pod pod;
    struct pod_spec spec = {.instance_id = "../evil", .port = 1};
    assert_int_equal(driver->start(&spec, &pod), -EINVAL);
    assert_int_equal(driver->find("", &pod), -EINVAL);
    assert_int_equal(driver->destroy("."), -EINVAL);
    assert_false(driver->alive("x/y"));
}

static void test_ids_that_are_no_names_are_refused(void **state)
{
    (void)state;
    run(refused);
}

static void torn(void)
{
    start(1);
    await_text("up");
    /* The leader is gone and the state is torn, but somebody of the pod still has the lock. */
    driver->close();
    struct outcome other = run_other_worker("find", NULL);
    assert_int_equal(other.result, 0);
    int fd = open(place("pod.state"), O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "wakegate-pod", 12), 12);
    close(fd);
    open_driver();
    struct pod pod;
    struct pod_spec spec = {.instance_id = "pod1", .generation = 2, .port = 1};
    assert_int_equal(driver->start(&spec, &pod), -EAGAIN);
    while (waitpid((pid_t)other.pid, NULL, 0) < 0)
        assert_int_equal(errno, EINTR);
    assert_int_equal(count_pod_processes(), 0);
    assert_false(start(3).adopted);
}

static void test_a_lock_whose_holder_is_unknown_is_freed(void **state)
{
    (void)state;
    run(torn);
}

/* A pod may close all descriptors that it does not know. */
static void closed_lock(void)
{
    set("WAKEGATE_POD_COMMAND", "exec 3>&-; echo x > up; while :; do sleep 0.05; done 3>&-");
    struct outcome other = run_other_worker("start", NULL);
    await_text("up");
    struct pod pod = start(2);
    assert_true(pod.adopted);
    assert_int_equal(pod.pid, other.pid);
}

static void test_a_pod_that_closes_its_lock_is_still_found(void **state)
{
    (void)state;
    run(closed_lock);
}

static void rotated(void)
{
    set("WAKEGATE_POD_COMMAND", "echo said; echo x > up; sleep 1000");
    start(1);
    await_text("up");
    assert_int_equal(driver->stop("pod1"), 0);
    struct stat found;
    assert_int_equal(stat(place("pod.log"), &found), 0);
    assert_int_equal(found.st_size, strlen("said\n"));
    assert_int_equal(truncate(place("pod.log"), 2 << 20), 0);
    start(2);
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(stat(place("pod.log"), &found), 0);
    assert_true(found.st_size < 1024);
    assert_int_equal(stat(place("pod.log.1"), &found), 0);
    assert_int_equal(found.st_size, 2 << 20);
}

static void test_a_long_log_is_rotated_at_start(void **state)
{
    (void)state;
    run(rotated);
}

static void unreachable(void)
{
    driver->close();
    assert_int_equal(chmod(data_dir, 0700), 0);
    open_driver();
    start(1);
    await_text("up");
    struct stat found;
    assert_int_equal(stat(place("workspace/up"), &found), 0);
    assert_int_equal(found.st_uid, geteuid());
}

static void test_a_folder_that_the_pods_user_cannot_reach_is_no_obstacle(void **state)
{
    (void)state;
    run(unreachable);
}

static void test_a_program_that_is_not_there_is_told_and_leaves_no_pod(void **state)
{
    (void)state;
    char error[256];
    struct pod_host host;
    assert_int_equal(pod_host_open(&host, error, sizeof error), 0);
    struct pod_spawn spawn = {
        .host = &host, .mode = host.mode, .id = "pod1", .words = {"/no/such/program", NULL}};
    assert_int_equal(pod_spawn(&spawn), -ENOENT);
    int folder_fd = pod_folder_open(host.root_fd, "pod1");
    assert_false(pod_lock_held(folder_fd));
    assert_int_equal(pod_state_find(folder_fd, &spawn.state), -ESRCH);
    close(folder_fd);
    assert_int_equal(pod_folder_remove(host.root_fd, "pod1"), 0);
    pod_host_close(&host);
}

/* A worker that was killed while it removed a folder. */
static void test_half_removed_folders_are_swept_at_open(void **state)
{
    (void)state;
    char error[256];
    char path[128];
    struct pod_host host;
    snprintf(path, sizeof path, "%s/instances", data_dir);
    assert_int_equal(mkdir(path, 0711), 0);
    snprintf(path, sizeof path, "%s/instances/.gone-pod1-1-1", data_dir);
    assert_int_equal(mkdir(path, 0711), 0);
    assert_int_equal(pod_host_open(&host, error, sizeof error), 0);
    assert_false(exists(path));
    pod_host_close(&host);
}

static void refused_open(void *unused)
{
    (void)unused;
    char error[256] = "";
    set("POD_SANDBOX", "maybe");
    assert_int_equal(driver->open(NULL, NULL, error, sizeof error), -EINVAL);
    assert_true(contains(error, "POD_SANDBOX"));
    set("POD_SANDBOX", "on");
    if (geteuid() == 0) {
        set("POD_USER", "no-such-user");
        assert_int_equal(driver->open(NULL, NULL, error, sizeof error), -EINVAL);
        assert_true(contains(error, "POD_USER"));
        set("POD_USER", "nobody");
    }
    set("WAKEGATE_DATA_DIR", "/proc/no/such/folder");
    assert_true(driver->open(NULL, NULL, error, sizeof error) < 0);
    assert_true(contains(error, "/proc/no/such/folder"));
}

static void test_open_says_what_does_not_work(void **state)
{
    (void)state;
    fiber_main(&loop, "test", refused_open, NULL);
}

static bool can_run(const struct way *way)
{
    bool works = false;
    struct way copy = *way;
    void *state = &copy;
    if (*way->user && geteuid() != 0)
        return false;
    setup(&state);
    pid_t pid;
    FILE *out;
    pid = worker_start("find", NULL, &out);
    struct outcome outcome = worker_wait(pid, out);
    works = outcome.result == -ESRCH;
    teardown(&state);
    return works;
}

#define ALL(way)                                                                                             \
    TEST(test_start_of_a_living_pod_adopts_it, way), TEST(test_pods_outlive_the_driver, way),                \
        TEST(test_pod_of_a_worker_killed_after_fork_is_adopted, way),                                        \
        TEST(test_worker_killed_before_fork_leaves_no_pod_and_no_lock, way),                                 \
        TEST(test_racing_workers_start_one_pod, way), TEST(test_racing_fibers_start_one_pod, way),           \
        TEST(test_an_end_is_reported_once, way), TEST(test_what_a_pod_leaves_behind_is_ended, way),          \
        TEST(test_stop_lets_the_pod_finish, way), TEST(test_stop_lets_a_program_behind_a_shell_finish, way), \
        TEST(test_stop_kills_a_pod_that_does_not_finish, way), TEST(test_stop_right_after_start, way),       \
        TEST(test_another_workers_pod_is_stopped, way), TEST(test_a_pod_gets_nothing_of_the_workers, way),   \
        TEST(test_destroy_removes_links_not_their_targets, way),                                             \
        TEST(test_a_lock_whose_holder_is_unknown_is_freed, way)
#define TEST(test, way)                                                                                      \
    {                                                                                                        \
#test " (" #way ")", test, setup, teardown, (void *)(uintptr_t)&way                                  \
    }

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "worker") == 0)
        return run_worker(argv[2]);
    char error[256];
    if (config_load(NULL, error, sizeof error) < 0)
        return 1;
    /* cmocka leaves a failed test by longjmp, which can't leave a fiber: it ends the program instead. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    const struct CMUnitTest plain_tests[] = {
        ALL(plain),
        TEST(test_a_pod_that_closes_its_lock_is_still_found, plain),
        TEST(test_ids_that_are_no_names_are_refused, plain),
        TEST(test_a_long_log_is_rotated_at_start, plain),
        TEST(test_a_program_that_is_not_there_is_told_and_leaves_no_pod, plain),
        TEST(test_half_removed_folders_are_swept_at_open, plain),
        TEST(test_open_says_what_does_not_work, plain),
        TEST(test_a_folder_that_the_pods_user_cannot_reach_is_no_obstacle, strictest),
    };
    const struct CMUnitTest plain_user_tests[] = {
        TEST(test_start_of_a_living_pod_adopts_it, plain_user),
        TEST(test_stop_lets_the_pod_finish, plain_user),
        TEST(test_a_pod_gets_nothing_of_the_workers, plain_user),
        TEST(test_a_workspace_of_another_owner_is_given_to_the_pods_user, plain_user),
    };
    const struct CMUnitTest boxed_tests[] = {
        ALL(boxed),
        TEST(test_the_sandbox_hides_the_data_folder, boxed),
    };
    const struct CMUnitTest boxed_user_tests[] = {
        ALL(boxed_user),
        TEST(test_the_sandbox_hides_the_data_folder, boxed_user),
        TEST(test_a_workspace_of_another_owner_is_given_to_the_pods_user, boxed_user),
    };
    int failed = cmocka_run_group_tests(plain_tests, NULL, NULL);
    if (can_run(&plain_user))
        failed += cmocka_run_group_tests(plain_user_tests, NULL, NULL);
    else
        print_message("[  SKIPPED ] pods under a user of their own: not root\n");
    if (can_run(&boxed))
        failed += cmocka_run_group_tests(boxed_tests, NULL, NULL);
    else
        print_message("[  SKIPPED ] pods in bubblewrap: it does not work here\n");
    if (can_run(&boxed_user))
        failed += cmocka_run_group_tests(boxed_user_tests, NULL, NULL);
    else
        print_message("[  SKIPPED ] pods in bubblewrap under a user of their own: it does not work here\n");
    return failed;
}
