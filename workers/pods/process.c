/*
 * The driver that runs pods as processes of this machine.
 *
 * What is true of a pod stands in its folder (folder.h): any worker here can find, adopt and stop it, and a worker
 * that is killed leaves nothing to be repaired. This file keeps, per instance, what one worker needs to watch:
 *
 *             start, find                 its leader's pidfd is readable
 *     (none) ─────────────▶ watched ──────────────────────────────────────▶ ended ──▶ (none)
 *                                                                             │ what is left of it is killed,
 *                                                                             ▼ the lock is free
 *                                                                         on_exit, unless stop() asked for it
 *
 * A pod is over when its leader is: /bin/sh -c COMMAND, or the outer process of bubblewrap, which ends as the command
 * does. Calls for one instance go one after the other (its gate).
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/list.h"
#include "core/base/log.h"
#include "core/domain/instance/token.h"
#include "core/run/sync.h"
#include "workers/pods/driver.h"
#include "workers/pods/folder.h"
#include "workers/pods/host.h"
#include "workers/pods/proc.h"
#include "workers/pods/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RECORD_MAGIC = 0x706f6472,
    BUCKETS = 1024, /* a power of two */
    ID_MAX = 64,
    SETTLE_MS = 1000, /* for a pod that is being started by another worker to say who it is */
    KILL_MS = 10000,  /* for a process to end after SIGKILL */
    PAUSE_MIN_MS = 1,
    PAUSE_MAX_MS = 16,
    STATUS_UNKNOWN = -1, /* of a pod that is not our child */
};

struct record {
    unsigned magic;
    unsigned users; /* calls that hold it or wait for its gate, and the fiber that ends it */
    struct link link;
    struct semaphore gate;
    bool watched;
    bool ended; /* the leader has; what is left of the pod may not */
    bool sandboxed;
    int status;
    int pidfd;
    struct pod pod;
    struct wait *end_wait; /* of stop(), which sees to the rest itself */
    uv_poll_t *poll;
    char id[ID_MAX + 1];
};

static struct {
    struct loop *loop; /* NULL: not open */
    struct pod_host host;
    pod_on_exit *on_exit;
    void *arg;
    struct link buckets[BUCKETS];
    struct group closing; /* poll handles, and fibers that end a pod */
} driver;

static bool id_is_valid(const char *id)
{
    size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789");
    return length > 0 && length <= ID_MAX && id[length] == '\0';
}

/* ---- records ---- */

static struct link *bucket_of(const char *id)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (const char *at = id; *at; at++)
        hash = (hash ^ (unsigned char)*at) * 16777619U;
    return &driver.buckets[hash & (BUCKETS - 1)];
}

static struct record *record_get(const char *id)
{
    LIST_EACH (bucket_of(id), item, after) {
        struct record *record = LIST_ENTRY(item, struct record, link);
        if (strcmp(record->id, id) == 0)
            return record;
    }
    return NULL;
}

static void record_unuse(struct record *record)
{
    MAGIC_CHECK(record, RECORD_MAGIC);
    CHECK(record->users > 0);
    if (--record->users || record->watched)
        return;
    list_remove(&record->link);
    MAGIC_CLEAR(record);
    free(record);
}

/* Waits for the instance's gate. -EINVAL for an id that can't be a folder's name. */
static int record_enter(const char *id, struct record **out)
{
    CHECK(driver.loop && loop_self() == driver.loop);
    if (!id_is_valid(id))
        return -EINVAL;
    struct record *record = record_get(id);
    if (!record) {
        record = mem_zalloc(sizeof *record);
        MAGIC_SET(record, RECORD_MAGIC);
        memcpy(record->id, id, strlen(id));
        semaphore_init(&record->gate, 1);
        list_push_back(bucket_of(id), &record->link);
    }
    record->users++;
    int result = semaphore_acquire(&record->gate, "pod's gate", CLOCK_NEVER);
    if (result < 0) {
        record_unuse(record);
        return result;
    }
    *out = record;
    return 0;
}

static void record_leave(struct record *record)
{
    semaphore_release(&record->gate);
    record_unuse(record);
}

/* ---- watching ---- */

static void on_poll_closed(uv_handle_t *handle)
{
    close((int)(intptr_t)handle->data);
    free(handle);
    group_done(&driver.closing);
}

static void unwatch(struct record *record)
{
    if (!record->watched)
        return;
    record->watched = false;
    /* The handle keeps the descriptor until it is closed; the record may be gone by then. */
    record->poll->data = (void *)(intptr_t)record->pidfd;
    uv_close((uv_handle_t *)record->poll, on_poll_closed);
    record->poll = NULL;
    record->pidfd = -1;
}

struct remains {
    const char *id;
    int result;
};

static void run_remains(void *arg)
{
    struct remains *remains = arg;
    int folder_fd = pod_folder_open(driver.host.root_fd, remains->id);
    remains->result = folder_fd == -ENOENT ? 0 : folder_fd;
    if (folder_fd < 0)
        return;
    remains->result = pod_remains_end(folder_fd);
    close(folder_fd);
}

/* Waits. */
static int end_remains(const char *id)
{
    struct remains remains = {.id = id};
    thread_run("pod remains", run_remains, &remains);
    if (remains.result < 0)
        LOG(ERROR, "what is left of a pod can't be ended", LOG_TEXT("instance", id),
            LOG_ERRNO(remains.result));
    return remains.result;
}

/*
 * After the leader's end: ends the other processes and stops watching. Waits. Until the leader is reaped nobody else
 * can have its pid, so the process group of our own child is certain; that of an adopted pod only where the kernel
 * signals groups by pidfd, and else the lock leads to the others.
 */
static int bury(struct record *record)
{
    pid_t pid = (pid_t)record->pod.pid;
    siginfo_t info = {0};
    int status;
    record->status = STATUS_UNKNOWN;
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid) {
        kill(-pid, SIGKILL);
        if (waitpid(pid, &status, WNOHANG) == pid)
            record->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else {
        (void)!proc_signal_left(record->pidfd, SIGKILL);
    }
    int result = end_remains(record->id);
    unwatch(record);
    return result;
}

/* Takes a pod that has ended by itself off the books; the gate is held. Waits. */
static void settle_end(struct record *record)
{
    if (!record->watched || !record->ended)
        return;
    (void)!bury(record);
    LOG(INFO, "pod ended", LOG_TEXT("instance", record->id), LOG_INT("pid", record->pod.pid),
        LOG_INT("generation", record->pod.generation), LOG_INT("status", record->status));
    if (driver.on_exit)
        driver.on_exit(record->id, record->pod.generation, record->status, driver.arg);
}

static void run_end(void *arg)
{
    struct record *record = arg;
    fiber_hold();
    CHECK(semaphore_acquire(&record->gate, "pod's gate", CLOCK_NEVER) == 0);
    /* A call that had the gate before may have done it. */
    settle_end(record);
    fiber_release();
    record_leave(record);
    group_done(&driver.closing);
}

static void on_pidfd(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct record *record = poll->data;
    MAGIC_CHECK(record, RECORD_MAGIC);
    uv_poll_stop(poll);
    record->ended = true;
    if (record->end_wait) {
        wait_done(record->end_wait, 0);
        return;
    }
    record->users++;
    group_add(&driver.closing);
    fiber_start(driver.loop, "pod end", run_end, record);
}

/* Begins to watch a pod that was found to live. -ESRCH when it has ended since and is not our child. */
static int watch(struct record *record, const struct pod_state *state, bool adopted)
{
    int pidfd = proc_open(state->pid, state->started_at);
    if (pidfd < 0)
        return pidfd;
    uv_poll_t *poll = mem_zalloc(sizeof *poll);
    int result = uv_poll_init(&driver.loop->uv, poll, pidfd);
    if (result < 0) {
        free(poll);
        close(pidfd);
        return result;
    }
    group_add(&driver.closing);
    poll->data = record;
    record->poll = poll;
    record->pidfd = pidfd;
    record->watched = true;
    record->ended = false;
    record->sandboxed = state->sandboxed;
    record->pod = (struct pod){.pid = state->pid,
                               .started_at = state->started_at,
                               .port = state->port,
                               .generation = state->generation,
                               .adopted = adopted};
    CHECK(uv_poll_start(poll, UV_READABLE, on_pidfd) == 0);
    return 0;
}

static bool is_alive(const struct record *record)
{
    return record->watched && !record->ended;
}

/* ---- start, find ---- */

struct spawn_task {
    struct pod_spawn spawn;
    int result;
};

static void run_spawn(void *arg)
{
    struct spawn_task *task = arg;
    task->result = pod_spawn(&task->spawn);
}

/* A pause that doubles; -ETIMEDOUT at the deadline. Waits. */
static int pause_until(uint64_t *pause_ms, uint64_t deadline_ns)
{
    if (clock_now_ns() >= deadline_ns)
        return -ETIMEDOUT;
    int result = fiber_sleep_ms(*pause_ms);
    *pause_ms = *pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : *pause_ms * 2;
    return result;
}

/* Tries until it is told whether the lock's holder is a pod; one that does not say so in time is what is left of
 * one whose worker and leader are gone. */
static int spawn_settled(struct spawn_task *task)
{
    uint64_t deadline_ns = clock_in_ms(SETTLE_MS);
    uint64_t pause_ms = PAUSE_MIN_MS;
    for (;;) {
        thread_run("pod start", run_spawn, task);
        if (task->result != -EBUSY)
            return task->result;
        int result = pause_until(&pause_ms, deadline_ns);
        if (result == -ETIMEDOUT)
            break;
        if (result < 0)
            return result;
    }
    (void)!end_remains(task->spawn.id);
    return -EAGAIN;
}

static int start_locked(struct record *record, const struct pod_spec *spec)
{
    settle_end(record);
    if (is_alive(record)) {
        record->pod.adopted = true;
        return 0;
    }
    struct spawn_task task = {.spawn = {.host = &driver.host,
                                        .mode = driver.host.mode,
                                        .id = record->id,
                                        .generation = spec->generation,
                                        .port = spec->port}};
    char token[INSTANCE_TOKEN_SIZE];
    if (*config->pod_gateway_url) {
        instance_token_make(token, str_from(record->id));
        task.spawn.token = token;
    }
    pod_spawn_words(&task.spawn);
    int result = spawn_settled(&task);
    crypto_wipe(token, sizeof token);
    if (result < 0)
        return result;
    result = watch(record, &task.spawn.state, task.spawn.adopted);
    if (result < 0)
        return -EAGAIN;
    LOG(INFO, task.spawn.adopted ? "pod adopted" : "pod started", LOG_TEXT("instance", record->id),
        LOG_INT("pid", record->pod.pid), LOG_INT("port", record->pod.port),
        LOG_INT("generation", record->pod.generation));
    return 0;
}

static int process_start(const struct pod_spec *spec, struct pod *pod)
{
    struct record *record;
    int result = record_enter(spec->instance_id, &record);
    if (result < 0)
        return result;
    result = start_locked(record, spec);
    if (result == 0)
        *pod = record->pod;
    record_leave(record);
    return result;
}

/* 0 and the record watches the pod that lives; -ESRCH when none does. Waits. */
static int find_locked(struct record *record)
{
    settle_end(record);
    if (is_alive(record))
        return 0;
    uint64_t deadline_ns = clock_in_ms(SETTLE_MS);
    uint64_t pause_ms = PAUSE_MIN_MS;
    for (;;) {
        struct pod_state state;
        int folder_fd = pod_folder_open(driver.host.root_fd, record->id);
        if (folder_fd < 0)
            return folder_fd == -ENOENT ? -ESRCH : folder_fd;
        int result = pod_state_find(folder_fd, &state);
        close(folder_fd);
        if (result == 0)
            result = watch(record, &state, true);
        if (result != -EBUSY)
            return result;
        result = pause_until(&pause_ms, deadline_ns);
        if (result == -ETIMEDOUT)
            break;
        if (result < 0)
            return result;
    }
    int result = end_remains(record->id);
    return result < 0 ? result : -ESRCH;
}

static int process_find(const char *instance_id, struct pod *pod)
{
    struct record *record;
    int result = record_enter(instance_id, &record);
    if (result < 0)
        return result;
    result = find_locked(record);
    if (result == 0)
        *pod = record->pod;
    record_leave(record);
    return result;
}

static bool process_alive(const char *instance_id)
{
    CHECK(driver.loop && loop_self() == driver.loop);
    const struct record *record = record_get(instance_id);
    return record && is_alive(record);
}

/* ---- stop, destroy ---- */

/* The sandbox's init, once it leads its session and has started the pod; -ESRCH when there is none in time. A
 * SIGTERM before that would be lost. Waits. */
static int sandbox_ready(struct record *record, pid_t *init)
{
    uint64_t deadline_ns = clock_in_ms(SETTLE_MS);
    uint64_t pause_ms = PAUSE_MIN_MS;
    int result = 0;
    while (result == 0 && is_alive(record)) {
        struct proc_stat stat;
        int folder_fd = pod_folder_open(driver.host.root_fd, record->id);
        *init = folder_fd < 0 ? 0 : pod_sandbox_init(folder_fd);
        if (folder_fd >= 0)
            close(folder_fd);
        /* Its parent is the pod's leader, which lives: so it is the init, not one that has its pid now. */
        if (*init > 0 && proc_stat(*init, &stat) == 0 && stat.parent == record->pod.pid &&
            stat.session == *init && proc_has_child(*init))
            return 0;
        result = pause_until(&pause_ms, deadline_ns);
    }
    return result == -ECANCELED ? result : -ESRCH;
}

/* Tells the pod, not what surrounds it, to finish. Waits. */
static int send_term(struct record *record)
{
    if (record->ended)
        return 0;
    if (!record->sandboxed)
        return proc_signal_group(record->pidfd, (pid_t)record->pod.pid, SIGTERM);
    pid_t init;
    int result = sandbox_ready(record, &init);
    if (result < 0)
        return result;
    int pidfd = proc_open(init, 0);
    if (pidfd < 0)
        return pidfd;
    result = proc_signal_group(pidfd, init, SIGTERM);
    close(pidfd);
    return result;
}

/* Waits for the leader's end. 0, -ETIMEDOUT, -ECANCELED. */
static int await_end(struct record *record, uint64_t deadline_ns)
{
    if (record->ended)
        return 0;
    struct wait wait = WAIT_INIT;
    record->end_wait = &wait;
    int result = wait_for(&wait, "pod's end", deadline_ns);
    record->end_wait = NULL;
    return result;
}

/* Its process group; under bubblewrap the init goes with what is left. Waits. */
static int kill_pod(struct record *record)
{
    int result = proc_signal_group(record->pidfd, (pid_t)record->pod.pid, SIGKILL);
    if (result < 0 && result != -ESRCH)
        return result;
    return await_end(record, clock_in_ms(KILL_MS));
}

/* The leader may be a shell that SIGTERM ends at once while the program that it ran still finishes: that has the
 * lock. Waits. */
static int await_others(const struct record *record, uint64_t deadline_ns)
{
    uint64_t pause_ms = PAUSE_MIN_MS;
    for (;;) {
        int folder_fd = pod_folder_open(driver.host.root_fd, record->id);
        if (folder_fd < 0)
            return 0;
        bool held = pod_lock_held(folder_fd);
        close(folder_fd);
        int result = held ? pause_until(&pause_ms, deadline_ns) : 0;
        if (!held || result < 0)
            return result;
    }
}

static int stop_watched(struct record *record)
{
    uint64_t begun_ns = clock_now_ns();
    uint64_t deadline_ns = clock_in_ms((uint64_t)config->pod_stop_ms);
    int result = send_term(record);
    if (result == 0)
        result = await_end(record, deadline_ns);
    if (result == 0)
        result = await_others(record, deadline_ns);
    bool killed = result < 0;
    /* Whoever cancels leaves the pod to finish; its end will be reported. */
    if (result != -ECANCELED && !record->ended)
        result = kill_pod(record);
    if (!record->ended)
        return result;
    result = bury(record);
    LOG(INFO, "pod stopped", LOG_TEXT("instance", record->id), LOG_INT("pid", record->pod.pid),
        LOG_BOOL("killed", killed), LOG_INT("ms", (clock_now_ns() - begun_ns) / CLOCK_MS));
    return result;
}

static int process_stop(const char *instance_id)
{
    struct record *record;
    int result = record_enter(instance_id, &record);
    if (result < 0)
        return result;
    result = find_locked(record);
    if (result == 0)
        result = stop_watched(record);
    else if (result == -ESRCH)
        result = 0;
    record_leave(record);
    return result;
}

struct destroy_task {
    const char *id;
    int result;
};

static void run_destroy(void *arg)
{
    struct destroy_task *task = arg;
    task->result = pod_folder_remove(driver.host.root_fd, task->id);
}

static int process_destroy(const char *instance_id)
{
    struct record *record;
    int result = record_enter(instance_id, &record);
    if (result < 0)
        return result;
    settle_end(record);
    struct destroy_task task = {.id = record->id, .result = -EBUSY};
    if (!is_alive(record))
        thread_run("pod destroy", run_destroy, &task);
    if (task.result < 0)
        LOG(ERROR, "pod's folder can't be removed", LOG_TEXT("instance", record->id), LOG_ERRNO(task.result));
    record_leave(record);
    return task.result;
}

/* ---- open, close ---- */

struct open_task {
    char *error;
    size_t error_size;
    int result;
};

static void run_open(void *arg)
{
    struct open_task *task = arg;
    task->result = pod_host_open(&driver.host, task->error, task->error_size);
}

static int process_open(pod_on_exit *on_exit, void *arg, char *error, size_t error_size)
{
    CHECK(!driver.loop);
    struct open_task task = {.error = error, .error_size = error_size};
    thread_run("pod host", run_open, &task);
    if (task.result < 0)
        return task.result;
    for (size_t i = 0; i < BUCKETS; i++)
        list_init(&driver.buckets[i]);
    driver.on_exit = on_exit;
    driver.arg = arg;
    driver.closing = (struct group){0};
    driver.loop = loop_self();
    return 0;
}

static void process_close(void)
{
    if (!driver.loop)
        return;
    fiber_hold();
    for (size_t i = 0; i < BUCKETS; i++) {
        LIST_EACH (&driver.buckets[i], item, after) {
            struct record *record = LIST_ENTRY(item, struct record, link);
            /* One that has ended is in the hands of a fiber, which the group counts. */
            if (!is_alive(record))
                continue;
            record->users++;
            unwatch(record);
            record_unuse(record);
        }
    }
    CHECK(group_wait(&driver.closing, "pods' handles", CLOCK_NEVER) == 0);
    for (size_t i = 0; i < BUCKETS; i++)
        CHECK(list_empty(&driver.buckets[i]));
    driver.loop = NULL;
    pod_host_close(&driver.host);
    fiber_release();
}

const struct pod_driver pod_driver_process = {
    .name = "process",
    .open = process_open,
    .close = process_close,
    .start = process_start,
    .find = process_find,
    .alive = process_alive,
    .stop = process_stop,
    .destroy = process_destroy,
};
