/*
 * From a pod's folder to its process.
 *
 *     take the lock ─▶ fork ─▶ the child: own session ─▶ writes its state ─▶ descriptors, limits, user ─▶ exec
 *                        └──▶ the worker closes its copy of the lock and waits for the exec
 *
 * Once it is forked the child needs nothing from the worker, which may be killed anywhere: either the lock is free
 * and no pod exists, or the child has it and goes on to be the pod. Between fork and exec only async-signal-safe
 * functions are called, because other threads may have held any lock at the fork: all that the child uses is made
 * before.
 *
 * A pod sees nothing of the worker's environment and descriptors: they hold secrets.
 */
#include "workers/pods/spawn.h"

#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/run/signal.h"
#include "workers/pods/proc.h"
#include "workers/pods/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LOG_ROTATE_BYTES = 1024 * 1024,
    ARGS_MAX = 64,
    ENVIRONMENT_MAX = 16,
    LIMITS_MAX = 4,
    EXEC_FAILED = 127,
    /* The child's descriptors, moved out of the way above FD_SPARE first. */
    FD_LOCK = 3,
    FD_SANDBOX = 4,
    FD_REPORT = 5,
    FD_SPARE = 16,
};

/* What the child was about to do when it failed. */
enum step { STEP_STATE, STEP_DESCRIPTORS, STEP_FOLDER, STEP_LIMITS, STEP_USER, STEP_EXEC };
static const char *const step_names[] = {
    [STEP_STATE] = "state",      [STEP_DESCRIPTORS] = "descriptors",
    [STEP_FOLDER] = "workspace", [STEP_LIMITS] = "limits",
    [STEP_USER] = "user",        [STEP_EXEC] = "command",
};

struct failure {
    int step;
    int error;
};

struct limit {
    int resource;
    struct rlimit value;
};

/* All that the child needs, and what the worker frees after the fork. */
struct child {
    struct pod_mode mode;
    int lock;
    int state;
    int null;
    int log;
    int sandbox;
    int workspace;
    int report[2];
    char state_head[POD_STATE_HEAD_SIZE];
    size_t state_head_size;
    char *workspace_path;
    const char *args[ARGS_MAX];
    size_t arg_count;
    char *environment[ENVIRONMENT_MAX + 1];
    size_t environment_count;
    struct limit limits[LIMITS_MAX];
    size_t limit_count;
    unsigned open_max;
};

/* ---- the child, between fork and exec ---- */

static _Noreturn void child_fail(const struct child *child, enum step step, int error)
{
    struct failure failure = {(int)step, error};
    ssize_t ignored = write(child->report[1], &failure, sizeof failure);
    (void)ignored;
    _exit(EXEC_FAILED);
}

/* Handlers are the worker's code; ignored signals would stay ignored. */
static void close_from(unsigned first, unsigned open_max)
{
    if (syscall(SYS_close_range, first, ~0U, 0) == 0)
        return;
    for (unsigned fd = first; fd < open_max; fd++)
        close((int)fd);
}

static void place_descriptors(struct child *child)
{
    struct {
        int *from;
        int to;
        int flags;
    } places[] = {
        {&child->null, 0, 0},
        {&child->log, 1, 0},
        {&child->log, 2, 0},
        {&child->lock, FD_LOCK, 0},
        {&child->sandbox, FD_SANDBOX, 0},
        {&child->report[1], FD_REPORT, O_CLOEXEC},
    };
    /* Above all targets first: a target may be the number of another one's source. */
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        int from = *places[i].from;
        if (from < 0 || from >= FD_SPARE)
            continue;
        int spare = fcntl(from, F_DUPFD_CLOEXEC, FD_SPARE);
        if (spare < 0)
            child_fail(child, STEP_DESCRIPTORS, errno);
        *places[i].from = spare;
    }
    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (*places[i].from >= 0 && dup3(*places[i].from, places[i].to, places[i].flags) < 0)
            child_fail(child, STEP_DESCRIPTORS, errno);
    child->report[1] = FD_REPORT;
    if (child->sandbox < 0)
        close(FD_SANDBOX);
    close_from(FD_REPORT + 1, child->open_max);
}

/* Raw system calls: glibc's wrappers would signal the other threads, which the child does not have. */
static void drop_user(const struct child *child)
{
    if (syscall(SYS_setgroups, 0, NULL) < 0 ||
        syscall(SYS_setresgid, child->mode.gid, child->mode.gid, child->mode.gid) < 0 ||
        syscall(SYS_setresuid, child->mode.uid, child->mode.uid, child->mode.uid) < 0)
        child_fail(child, STEP_USER, errno);
}

static _Noreturn void child_run(struct child *child)
{
    setsid();
    /* Before the lock's descriptor becomes one that outlives an exec: who sees such a one finds a state that
     * names this process. */
    int result = pod_state_finish(child->state, child->state_head, child->state_head_size);
    if (result < 0)
        child_fail(child, STEP_STATE, -result);
    if (fchdir(child->workspace) < 0)
        child_fail(child, STEP_FOLDER, errno);
    place_descriptors(child);
    umask(077);
    for (size_t i = 0; i < child->limit_count; i++)
        if (syscall(SYS_prlimit64, 0, child->limits[i].resource, &child->limits[i].value, NULL) < 0)
            child_fail(child, STEP_LIMITS, errno);
    if (child->mode.drops_user)
        drop_user(child);
    /* bubblewrap does it itself, and where it is installed setuid it must be able to become root first. */
    if (!child->mode.sandboxed && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        child_fail(child, STEP_USER, errno);
    signal_reset_all();
    execve(child->args[0], (char *const *)(uintptr_t)child->args, child->environment);
    child_fail(child, STEP_EXEC, errno);
}

/* ---- what the child is given ---- */

static void add_arg(struct child *child, const char *word)
{
    CHECK(child->arg_count < ARGS_MAX - 1);
    child->args[child->arg_count++] = word;
}

#define ADD_ARGS(child, ...)                                                                                 \
    do {                                                                                                     \
        const char *const words_[] = {__VA_ARGS__};                                                          \
        for (size_t i_ = 0; i_ < ARRAY_SIZE(words_); i_++)                                                   \
            add_arg((child), words_[i_]);                                                                    \
    } while (0)

/*
 * The pod's file system is the host's, read-only, without the data folder, and with its own workspace at its own
 * path. The network is the host's: the gateway reaches the pod there. `--new-session` gives the sandbox a session
 * that its init leads, apart from bubblewrap's outer process: SIGTERM for that session reaches the pod and neither
 * the init, which ignores it, nor the outer process, which would die of it and take the exit code along. The init
 * holds the lock (`--sync-fd`); the pod itself does not get it.
 */
static void add_sandbox(struct child *child, const struct pod_host *host)
{
    ADD_ARGS(child, host->bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
             "--unshare-cgroup-try", "--new-session", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev",
             "/dev", "--proc", "/proc", "--tmpfs", "/tmp");
    for (size_t i = 0; i < host->shown_count; i++)
        ADD_ARGS(child, "--ro-bind", host->shown[i], host->shown[i]);
    ADD_ARGS(child, "--tmpfs", host->data_path);
    /* It may lie below a folder that was just hidden. */
    if (!*config->pod_command)
        ADD_ARGS(child, "--ro-bind", host->exe, host->exe);
    ADD_ARGS(child, "--bind", child->workspace_path, child->workspace_path, "--chdir", child->workspace_path,
             "--sync-fd", "3", "--info-fd", "4", "--");
}

static void add_variable(struct child *child, const char *name, const char *value)
{
    CHECK(child->environment_count < ENVIRONMENT_MAX);
    size_t size = strlen(name) + strlen(value) + 2;
    char *text = mem_alloc(size);
    snprintf(text, size, "%s=%s", name, value);
    child->environment[child->environment_count++] = text;
}

/* For calls of models. The pod's own, so that it can hurt no other session; and in no command line, which others may read. */
static void add_gateway(struct child *child, const struct pod_spawn *spawn)
{
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)config->pod_answer_ms);
    add_variable(child, "WAKEGATE_URL", config->pod_gateway_url);
    add_variable(child, "WAKEGATE_TOKEN", spawn->token);
    add_variable(child, "WAKEGATE_MODEL", config->pod_model);
    add_variable(child, "POD_ANSWER_TIMEOUT_MS", number);
}

static void add_environment(struct child *child, const struct pod_spawn *spawn)
{
    char number[24];
    snprintf(number, sizeof number, "%d", spawn->port);
    add_variable(child, "PORT", number);
    add_variable(child, "HOME", child->workspace_path);
    add_variable(child, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    add_variable(child, "LANG", "C.UTF-8");
    add_variable(child, "WAKEGATE_SESSION", spawn->id);
    snprintf(number, sizeof number, "%lld", (long long)spawn->generation);
    add_variable(child, "WAKEGATE_GENERATION", number);
    add_variable(child, "WAKEGATE_WORKSPACE", child->workspace_path);
    if (spawn->token)
        add_gateway(child, spawn);
}

/* Never above what the worker itself may have: raising that needs a privilege. */
static void add_limit(struct child *child, int resource, rlim_t wanted)
{
    struct rlimit own;
    CHECK(child->limit_count < LIMITS_MAX && getrlimit((__rlimit_resource_t)resource, &own) == 0);
    rlim_t value = wanted < own.rlim_max ? wanted : own.rlim_max;
    child->limits[child->limit_count++] = (struct limit){resource, {value, value}};
}

static bool runs_instrumented(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return !*config->pod_command;
#else
    return false;
#endif
}

static void add_limits(struct child *child)
{
    add_limit(child, RLIMIT_CORE, 0);
    add_limit(child, RLIMIT_NOFILE, (rlim_t)config->pod_files);
    /* A sanitizer's shadow memory is terabytes of address space. */
    if (!runs_instrumented())
        add_limit(child, RLIMIT_AS, (rlim_t)config->pod_memory_mb << 20);
    /* Counts all processes of the user, so it would count the worker's and everybody else's. */
    if (child->mode.drops_user)
        add_limit(child, RLIMIT_NPROC, (rlim_t)config->pod_processes);
}

void pod_spawn_words(struct pod_spawn *spawn)
{
    size_t count = 0;
    if (*config->pod_command) {
        spawn->words[count++] = "/bin/sh";
        spawn->words[count++] = "-c";
        spawn->words[count++] = config->pod_command;
    } else {
        spawn->words[count++] = spawn->host->exe;
        spawn->words[count++] = "pod";
    }
    spawn->words[count] = NULL;
}

static int open_log(int folder_fd)
{
    struct stat found;
    if (fstatat(folder_fd, "pod.log", &found, AT_SYMLINK_NOFOLLOW) == 0 && found.st_size > LOG_ROTATE_BYTES &&
        renameat(folder_fd, "pod.log", folder_fd, "pod.log.1") < 0)
        LOG(WARN, "log of a pod is not rotated", LOG_ERRNO(-errno));
    return openat(folder_fd, "pod.log", O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* The workspace belongs to whom the pod runs as; so does what is in it when that was somebody else before. */
static int own_workspace(const struct child *child)
{
    struct stat found;
    if (fstat(child->workspace, &found) < 0)
        return -errno;
    if (!child->mode.drops_user) {
        if (found.st_uid == geteuid() || geteuid() != 0)
            return 0;
        return tree_give(child->workspace, geteuid(), getegid());
    }
    if (found.st_uid == child->mode.uid && found.st_gid == child->mode.gid)
        return 0;
    return tree_give(child->workspace, child->mode.uid, child->mode.gid);
}

static int child_init(struct child *child, const struct pod_spawn *spawn, int folder_fd, int lock)
{
    const struct pod_host *host = spawn->host;
    *child = (struct child){.mode = spawn->mode, .lock = lock, .sandbox = -1, .report = {-1, -1}};
    size_t size = strlen(host->root_path) + strlen(spawn->id) + sizeof "//workspace";
    child->workspace_path = mem_alloc(size);
    snprintf(child->workspace_path, size, "%s/%s/workspace", host->root_path, spawn->id);
    child->state_head_size =
        pod_state_head(child->state_head, spawn->port, spawn->generation, spawn->mode.sandboxed);
    if (spawn->mode.sandboxed)
        add_sandbox(child, host);
    for (const char *const *word = spawn->words; *word; word++)
        add_arg(child, *word);
    add_environment(child, spawn);
    add_limits(child);
    child->open_max = (unsigned)sysconf(_SC_OPEN_MAX);
    child->state = pod_state_create(folder_fd);
    child->null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    child->log = open_log(folder_fd);
    child->workspace = openat(folder_fd, "workspace", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (spawn->mode.sandboxed)
        child->sandbox =
            openat(folder_fd, "pod.sandbox", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (child->state < 0)
        return child->state;
    if (child->null < 0 || child->log < 0 || child->workspace < 0 ||
        (spawn->mode.sandboxed && child->sandbox < 0) || pipe2(child->report, O_CLOEXEC) < 0)
        return -errno;
    return own_workspace(child);
}

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Closes all but the reading end of the report; the lock too: from here on it is the pod's alone. */
static void child_release(struct child *child)
{
    int *const fds[] = {&child->lock,    &child->state,     &child->null,     &child->log,
                        &child->sandbox, &child->workspace, &child->report[1]};
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close_if_open(fds[i]);
    for (size_t i = 0; i < child->environment_count; i++) {
        explicit_bzero(child->environment[i], strlen(child->environment[i]));
        free(child->environment[i]);
    }
    child->environment_count = 0;
    free(child->workspace_path);
    child->workspace_path = NULL;
}

/* ---- the worker ---- */

/* No handler of the worker's may run in the child. */
static pid_t fork_quiet(struct child *child)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    pid_t pid = fork();
    if (pid == 0)
        child_run(child);
    int error = errno;
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    errno = error;
    return pid;
}

/* 0 once the report's pipe was closed by the exec. */
static int await_exec(int report, const struct pod_spawn *spawn, pid_t pid)
{
    struct failure failure;
    ssize_t got;
    do
        got = read(report, &failure, sizeof failure);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof failure)
        return 0;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    LOG(ERROR, "pod can't be started", LOG_TEXT("instance", spawn->id),
        LOG_TEXT("at", step_names[failure.step]), LOG_TEXT("command", spawn->words[0]),
        LOG_ERRNO(-failure.error));
    return failure.step == STEP_EXEC && failure.error != EAGAIN && failure.error != ENOMEM ? -ENOENT
                                                                                           : -EAGAIN;
}

/* Forks in the folder whose lock is held; closes the lock. */
static int spawn_locked(struct pod_spawn *spawn, int folder_fd, int lock)
{
    struct child child;
    int result = child_init(&child, spawn, folder_fd, lock);
    pid_t pid = -1;
    if (result == 0) {
        pid = fork_quiet(&child);
        if (pid < 0)
            result = -errno;
        else
            CRASH_POINT("pod-forked");
    }
    child_release(&child);
    if (result == 0) {
        result = await_exec(child.report[0], spawn, pid);
    } else {
        LOG(ERROR, "pod can't be started", LOG_TEXT("instance", spawn->id), LOG_ERRNO(result));
        result = -EAGAIN;
    }
    close_if_open(&child.report[0]);
    if (result < 0)
        return result;
    return pod_state_read(folder_fd, &spawn->state) < 0 ? -EAGAIN : 0;
}

int pod_spawn(struct pod_spawn *spawn)
{
    int folder_fd = pod_folder_make(spawn->host->root_fd, spawn->id, spawn->mode.drops_user);
    if (folder_fd < 0) {
        LOG(ERROR, "folder of a pod can't be made", LOG_TEXT("instance", spawn->id), LOG_ERRNO(folder_fd));
        return -EAGAIN;
    }
    int lock = pod_lock_take(spawn->host->root_fd, spawn->id, folder_fd);
    bool lives = false;
    /* Also with the lock in hand: a pod may have closed its descriptor. */
    if (lock >= 0 || lock == -EBUSY)
        lives = pod_state_read(folder_fd, &spawn->state) == 0 &&
                proc_lives(spawn->state.pid, spawn->state.started_at);
    spawn->adopted = lives;
    int result;
    if (lives || lock < 0) {
        result = lives ? 0 : lock == -ESTALE || lock == -EBUSY ? -EBUSY : -EAGAIN;
        close_if_open(&lock);
        if (result == -EAGAIN)
            LOG(ERROR, "lock of a pod can't be taken", LOG_TEXT("instance", spawn->id));
    } else {
        CRASH_POINT("pod-locked");
        result = spawn_locked(spawn, folder_fd, lock);
    }
    close(folder_fd);
    return result;
}
