/*
 * Child processes by fork and exec. libuv's own uv_spawn is not used because it can't ask for a signal at the
 * parent's death (PR_SET_PDEATHSIG), which is what keeps children from outliving a supervisor that was killed.
 *
 * Each child has a watcher of SIGCHLD and asks waitpid for its own pid only, so other parts of the program may
 * have children too. Until it was waited for, its pid can't become another's: signals go to nobody else.
 */
#include "core/run/child.h"

#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <paths.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_MAGIC = 0x6368696c, EXIT_NOT_STARTED = 127 };

struct child {
    unsigned magic;
    pid_t pid;
    int status;
    bool ended;
    struct wait *waiter;
    uv_signal_t watcher;
};

/* ---- in the child, between fork and exec: async-signal-safe calls only ---- */

/* The source may itself be one of the descriptors 0 to 2, so all three are moved out of the way first. */
static bool set_descriptors(const struct child_options *options)
{
    int null = open(_PATH_DEVNULL, O_RDWR | O_CLOEXEC);
    int sources[3] = {null, options->output < 0 ? null : options->output,
                      options->errors < 0 ? null : options->errors};
    for (int i = 0; i < 3; i++) {
        sources[i] = fcntl(sources[i], F_DUPFD_CLOEXEC, 3);
        if (sources[i] < 0)
            return false;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(sources[i], i) < 0)
            return false;
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    return true;
}

static bool set_user(const struct child_user *user)
{
    return !user || (setgroups(1, &user->gid) == 0 && setgid(user->gid) == 0 && setuid(user->uid) == 0);
}

_Noreturn static void become(const struct child_options *options, char *const *environment, pid_t parent,
                             int report)
{
    signal_reset_all();
    setsid();
    /* After setuid, which takes the death signal away; and the parent may be gone already. */
    bool ready = set_user(options->user) && prctl(PR_SET_PDEATHSIG, options->death_signal) == 0;
    if (ready && options->death_signal && getppid() != parent)
        _exit(EXIT_NOT_STARTED);
    if (ready && set_descriptors(options))
        execve(options->program ? options->program : options->argv[0],
               (char *const *)(uintptr_t)options->argv, environment);
    int error = errno;
    ssize_t ignored = write(report, &error, sizeof error);
    (void)ignored;
    _exit(EXIT_NOT_STARTED);
}

/* ---- in the parent ---- */

static bool same_name(const char *a, const char *b)
{
    size_t size = strcspn(a, "=");
    return size == strcspn(b, "=") && memcmp(a, b, size) == 0;
}

static bool is_replaced(const char *variable, const char *const *variables)
{
    for (; variables && *variables; variables++)
        if (same_name(variable, *variables))
            return true;
    return false;
}

/* Our environment with `variables` over it: a malloced array of borrowed strings. */
static char **environment_make(const char *const *variables)
{
    size_t ours = 0, theirs = 0;
    while (environ[ours])
        ours++;
    while (variables && variables[theirs])
        theirs++;
    char **made = mem_alloc((ours + theirs + 1) * sizeof *made);
    size_t count = 0;
    for (size_t i = 0; i < ours; i++)
        if (!is_replaced(environ[i], variables))
            made[count++] = environ[i];
    for (size_t i = 0; i < theirs; i++)
        made[count++] = (char *)(uintptr_t)variables[i];
    made[count] = NULL;
    return made;
}

static void on_child_signal(uv_signal_t *watcher, int number)
{
    (void)number;
    struct child *child = watcher->data;
    if (child->ended || waitpid(child->pid, &child->status, WNOHANG) != child->pid)
        return;
    child->ended = true;
    uv_signal_stop(watcher);
    if (child->waiter)
        wait_done(child->waiter, 0);
}

static void on_watcher_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* Returns the pid, or a negative error of fork or of what the child did up to its exec. */
static pid_t fork_and_exec(const struct child_options *options)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC))
        return -errno;
    char **environment = environment_make(options->variables);
    sigset_t all, before;
    sigfillset(&all);
    /* No handler of ours may run in the child. */
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    pid_t parent = getpid();
    pid_t pid = fork();
    int error = pid < 0 ? errno : 0;
    if (pid == 0)
        become(options, environment, parent, report[1]);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    free(environment);
    close(report[1]);
    if (pid > 0) {
        ssize_t got;
        do
            got = read(report[0], &error, sizeof error);
        while (got < 0 && errno == EINTR);
        if (got != (ssize_t)sizeof error)
            error = 0;
        else
            while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                continue;
    }
    close(report[0]);
    return error ? -error : pid;
}

int child_start(const struct child_options *options, struct child **child)
{
    struct loop *loop = loop_self();
    CHECK(loop && options->argv[0]);
    struct child *made = mem_zalloc(sizeof *made);
    MAGIC_SET(made, CHILD_MAGIC);
    CHECK(uv_signal_init(&loop->uv, &made->watcher) == 0);
    made->watcher.data = made;
    /* Before the fork, so that no end is missed. */
    CHECK(uv_signal_start(&made->watcher, on_child_signal, SIGCHLD) == 0);
    made->pid = fork_and_exec(options);
    if (made->pid < 0) {
        int error = made->pid;
        made->ended = true;
        child_free(made);
        return error;
    }
    *child = made;
    return 0;
}

int child_wait(struct child *child, const char *what, uint64_t deadline_ns, int *status)
{
    MAGIC_CHECK(child, CHILD_MAGIC);
    CHECK(child->waiter == NULL);
    if (!child->ended) {
        struct wait wait = WAIT_INIT;
        child->waiter = &wait;
        int result = wait_for(&wait, what, deadline_ns);
        child->waiter = NULL;
        if (result)
            return result;
    }
    if (status)
        *status = child->status;
    return 0;
}

bool child_ended(const struct child *child)
{
    MAGIC_CHECK(child, CHILD_MAGIC);
    return child->ended;
}

pid_t child_pid(const struct child *child)
{
    MAGIC_CHECK(child, CHILD_MAGIC);
    return child->pid;
}

void child_signal(struct child *child, int number)
{
    MAGIC_CHECK(child, CHILD_MAGIC);
    if (!child->ended)
        kill(child->pid, number);
}

int child_stop(struct child *child, int number, uint64_t grace_ms)
{
    int status = 0;
    fiber_hold();
    child_signal(child, number);
    if (child_wait(child, "a child to end", clock_in_ms(grace_ms), &status)) {
        child_signal(child, SIGKILL);
        CHECK(child_wait(child, "a killed child to end", CLOCK_NEVER, &status) == 0);
    }
    fiber_release();
    return status;
}

void child_free(struct child *child)
{
    if (!child)
        return;
    MAGIC_CHECK(child, CHILD_MAGIC);
    CHECK(child->ended && child->waiter == NULL);
    MAGIC_CLEAR(child);
    uv_close((uv_handle_t *)&child->watcher, on_watcher_closed);
}

static void read_all(int descriptor, struct buf *output)
{
    ssize_t got;
    off_t at = 0;
    while ((got = pread(descriptor, buf_reserve(output, 4096), 4096, at)) > 0) {
        output->size += (size_t)got;
        at += got;
    }
}

int child_run(const struct child_options *options, struct buf *output, uint64_t deadline_ns, int *status)
{
    struct child_options own = *options;
    int memory = -1;
    if (output) {
        memory = memfd_create("child output", MFD_CLOEXEC);
        if (memory < 0)
            return -errno;
        own.output = memory;
    }
    struct child *child;
    int result = child_start(&own, &child);
    if (result == 0) {
        result = child_wait(child, "a program to end", deadline_ns, status);
        if (result)
            child_stop(child, SIGKILL, 0);
        child_free(child);
    }
    if (result == 0 && output)
        read_all(memory, output);
    if (memory >= 0)
        close(memory);
    return result;
}

const char *child_status_text(char out[CHILD_STATUS_SIZE], int status)
{
    if (WIFSIGNALED(status))
        snprintf(out, CHILD_STATUS_SIZE, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, CHILD_STATUS_SIZE, "exit status %d", WEXITSTATUS(status));
    return out;
}

static bool find_in(struct str folders, const char *name, char *path, size_t path_size)
{
    struct str folder;
    while (str_split(&folders, ':', &folder)) {
        struct stat found;
        int length = snprintf(path, path_size, "%.*s/%s", STR_ARG(folder), name);
        /* An empty piece of PATH means the working directory: no place to take a program from. */
        if (folder.size == 0 || length < 0 || (size_t)length >= path_size)
            continue;
        if (access(path, X_OK) == 0 && stat(path, &found) == 0 && S_ISREG(found.st_mode))
            return true;
    }
    return false;
}

bool child_find_program(const char *name, char *path, size_t path_size)
{
    return find_in(str_from(getenv("PATH")), name, path, path_size) ||
           find_in(STR("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), name, path,
                   path_size);
}
