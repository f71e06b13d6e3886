/* A pod's folder: its lock, its state, and what is left of a pod. */
#include "workers/pods/folder.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "workers/pods/proc.h"
#include "workers/pods/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_MARK "wakegate-pod"
#define GONE_PREFIX ".gone-"

enum {
    HOLDERS_MAX = 256, /* killed in one pass; the next pass finds the others */
    REMAINS_TRIES = 200,
    REMAINS_PAUSE_US = 10000,
    HOLDER_END_MS = 2000,
};

int pod_folder_open(int root_fd, const char *id)
{
    int fd = openat(root_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int pod_folder_make(int root_fd, const char *id, bool shared)
{
    mode_t mode = shared ? 0711 : 0700;
    if (mkdirat(root_fd, id, mode) < 0 && errno != EEXIST)
        return -errno;
    int fd = pod_folder_open(root_fd, id);
    if (fd < 0)
        return fd;
    /* Not by mkdirat alone: the worker's umask, or a folder that was made for another mode. */
    if (fchmod(fd, mode) < 0 || (mkdirat(fd, "workspace", 0700) < 0 && errno != EEXIST)) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

int pod_lock_take(int root_fd, const char *id, int folder_fd)
{
    int fd = openat(folder_fd, "pod.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    struct flock lock = whole_file();
    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        int error = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
        close(fd);
        return error;
    }
    char path[128];
    struct stat locked;
    struct stat named;
    snprintf(path, sizeof path, "%s/pod.lock", id);
    if (fstat(fd, &locked) == 0 && fstatat(root_fd, path, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        locked.st_ino == named.st_ino && locked.st_dev == named.st_dev)
        return fd;
    close(fd);
    return -ESTALE;
}

bool pod_lock_held(int folder_fd)
{
    int fd = openat(folder_fd, "pod.lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    struct flock lock = whole_file();
    bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return held;
}

/* Pids and start times of another boot mean nothing. */
static void boot_id(char out[40])
{
    strcpy(out, "unknown");
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    char text[37];
    if (read(file, text, sizeof text) == (ssize_t)sizeof text && text[36] == '\n') {
        memcpy(out, text, 36);
        out[36] = '\0';
    }
    close(file);
}

int pod_state_create(int folder_fd)
{
    int fd = openat(folder_fd, "pod.state", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

size_t pod_state_head(char out[POD_STATE_HEAD_SIZE], int port, int64_t generation, bool sandboxed)
{
    char boot[40];
    boot_id(boot);
    int size = snprintf(out, POD_STATE_HEAD_SIZE, STATE_MARK " %s %d %lld %d ", boot, port,
                        (long long)generation, sandboxed);
    CHECK(size > 0 && size < POD_STATE_HEAD_SIZE);
    return (size_t)size;
}

int pod_state_finish(int state_fd, const char *head, size_t head_size)
{
    struct proc_stat self;
    if (proc_stat(0, &self) < 0)
        return -ENOSYS;
    char text[POD_STATE_HEAD_SIZE + 64];
    memcpy(text, head, head_size);
    size_t size = head_size;
    size += format_u64(text + size, (uint64_t)getpid());
    text[size++] = ' ';
    size += format_u64(text + size, (uint64_t)self.started_at);
    /* One write, and an end that a part of it lacks. */
    memcpy(text + size, " end\n", 5);
    size += 5;
    ssize_t wrote = write(state_fd, text, size);
    return wrote == (ssize_t)size ? 0 : wrote < 0 ? -errno : -ENOSPC;
}

static bool parse_state(struct str text, struct pod_state *state)
{
    enum { MARK, BOOT, PORT, GENERATION, SANDBOXED, PID, STARTED_AT, END, FIELDS };
    struct str fields[FIELDS];
    if (!text.size || text.at[text.size - 1] != '\n')
        return false;
    text.size--;
    for (int i = 0; i < FIELDS; i++)
        if (!str_split(&text, ' ', &fields[i]))
            return false;
    char boot[40];
    int64_t port;
    int64_t pid;
    boot_id(boot);
    if (!str_equal(fields[MARK], STR(STATE_MARK)) || !str_equal(fields[BOOT], str_from(boot)) ||
        !str_equal(fields[END], STR("end")) || !str_to_i64(fields[PORT], &port) ||
        !str_to_i64(fields[GENERATION], &state->generation) || !str_to_i64(fields[PID], &pid) ||
        !str_to_i64(fields[STARTED_AT], &state->started_at) || pid <= 0)
        return false;
    state->port = (int)port;
    state->pid = (pid_t)pid;
    state->sandboxed = str_equal(fields[SANDBOXED], STR("1"));
    return true;
}

static ssize_t read_file(int folder_fd, const char *name, char *out, size_t size)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, out, size);
    if (got < 0)
        got = -errno;
    close(fd);
    return got;
}

int pod_state_read(int folder_fd, struct pod_state *state)
{
    char text[POD_STATE_HEAD_SIZE + 64];
    ssize_t size = read_file(folder_fd, "pod.state", text, sizeof text);
    if (size < 0)
        return (int)size;
    return parse_state(str_of(text, (size_t)size), state) ? 0 : -EBADMSG;
}

int pod_state_find(int folder_fd, struct pod_state *state)
{
    /* Asked for before the state is read: a pod that starts in between is then seen by one of the two. */
    bool held = pod_lock_held(folder_fd);
    if (pod_state_read(folder_fd, state) == 0 && proc_lives(state->pid, state->started_at))
        return 0;
    return held || pod_lock_held(folder_fd) ? -EBUSY : -ESRCH;
}

pid_t pod_sandbox_init(int folder_fd)
{
    static const char key[] = "\"child-pid\":";
    char text[1024];
    ssize_t size = read_file(folder_fd, "pod.sandbox", text, sizeof text - 1);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    /* The closing bracket says that it is whole. */
    const char *at = strstr(text, key);
    if (!at || !strchr(text, '}'))
        return 0;
    return (pid_t)strtol(at + sizeof key - 1, NULL, 10);
}

/* True when the descriptor of that process, given by its entry in /proc/PID/fd, has the lock and outlives an exec. */
static bool is_pods_lock(int process_fd, const char *number, const struct stat *wanted)
{
    char path[64];
    char text[1024];
    struct stat found;
    snprintf(path, sizeof path, "fd/%.20s", number);
    if (fstatat(process_fd, path, &found, 0) < 0 || found.st_ino != wanted->st_ino ||
        found.st_dev != wanted->st_dev)
        return false;
    snprintf(path, sizeof path, "fdinfo/%.20s", number);
    ssize_t size = read_file(process_fd, path, text, sizeof text - 1);
    if (size <= 0)
        return false;
    text[size] = '\0';
    const char *flags = strstr(text, "flags:");
    return flags && !(strtoul(flags + sizeof "flags:" - 1, NULL, 8) & O_CLOEXEC) && strstr(text, "OFDLCK");
}

static bool holds_lock(const char *process, const struct stat *lock)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s", process);
    int process_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (process_fd < 0)
        return false;
    int list_fd = openat(process_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = list_fd < 0 ? NULL : fdopendir(list_fd);
    bool holds = false;
    const struct dirent *entry;
    while (list && !holds && (entry = readdir(list)) != NULL)
        holds = entry->d_name[0] != '.' && is_pods_lock(process_fd, entry->d_name, lock);
    if (list)
        closedir(list);
    else if (list_fd >= 0)
        close(list_fd);
    close(process_fd);
    return holds;
}

/* A pidfd for the process if it has the lock, or -1. */
static int holder_open(pid_t pid, const char *name, const struct stat *lock)
{
    if (pid <= 0 || !holds_lock(name, lock))
        return -1;
    int pidfd = proc_open(pid, 0);
    if (pidfd < 0)
        return -1;
    /* Once more, now that the pid can't become another's unseen. */
    if (holds_lock(name, lock))
        return pidfd;
    close(pidfd);
    return -1;
}

/* Fills in the pidfds of the pod's processes that have the lock: of the sandbox's init alone, which is known, or
 * else by a look at all processes. */
static size_t find_holders(int folder_fd, bool all, int pidfds[HOLDERS_MAX])
{
    struct stat lock;
    if (fstatat(folder_fd, "pod.lock", &lock, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    size_t count = 0;
    if (!all) {
        char name[24];
        pid_t init = pod_sandbox_init(folder_fd);
        snprintf(name, sizeof name, "%d", (int)init);
        pidfds[0] = holder_open(init, name, &lock);
        return pidfds[0] >= 0;
    }
    DIR *list = opendir("/proc");
    const struct dirent *entry;
    while (list && count < HOLDERS_MAX && (entry = readdir(list)) != NULL) {
        int pidfd = holder_open((pid_t)strtol(entry->d_name, NULL, 10), entry->d_name, &lock);
        if (pidfd >= 0)
            pidfds[count++] = pidfd;
    }
    if (list)
        closedir(list);
    return count;
}

int pod_remains_end(int folder_fd)
{
    for (int try = 0; try < REMAINS_TRIES; try++) {
        if (!pod_lock_held(folder_fd))
            return 0;
        int pidfds[HOLDERS_MAX];
        size_t count = find_holders(folder_fd, try > 0, pidfds);
        /* Read after they were found: a state that names a living pod may be that of a new one, and they its. */
        struct pod_state state;
        bool lives = pod_state_read(folder_fd, &state) == 0 && proc_lives(state.pid, state.started_at);
        for (size_t i = 0; i < count; i++) {
            int result = lives ? 0 : proc_end(pidfds[i], HOLDER_END_MS);
            if (result < 0)
                LOG(WARN, "what is left of a pod does not end", LOG_ERRNO(result));
            close(pidfds[i]);
        }
        if (lives)
            return 0;
        if (count == 0 && try > 0)
            usleep(REMAINS_PAUSE_US);
    }
    return -EBUSY;
}

int pod_folder_remove(int root_fd, const char *id)
{
    int folder_fd = pod_folder_open(root_fd, id);
    if (folder_fd < 0)
        return folder_fd == -ENOENT ? 0 : folder_fd;
    struct pod_state state;
    int lock = pod_lock_take(root_fd, id, folder_fd);
    int result = lock < 0 ? lock : 0;
    if (result == 0 && pod_state_read(folder_fd, &state) == 0 && proc_lives(state.pid, state.started_at))
        result = -EBUSY;
    char gone[160];
    snprintf(gone, sizeof gone, GONE_PREFIX "%.64s-%d-%llu", id, (int)getpid(),
             (unsigned long long)clock_now_ns());
    if (result == 0 && renameat(root_fd, id, root_fd, gone) < 0)
        result = -errno;
    if (lock >= 0)
        close(lock);
    close(folder_fd);
    /* Stale: somebody else has removed it since it was opened. */
    if (result == -ESTALE)
        return 0;
    return result < 0 ? result : tree_remove(root_fd, gone);
}

/* What a worker tried out, and was killed before it could remove it. */
static bool is_left_probe(const char *name)
{
    if (!str_starts(str_from(name), STR(POD_PROBE_PREFIX)))
        return false;
    pid_t worker = (pid_t)strtol(name + strlen(POD_PROBE_PREFIX), NULL, 10);
    return worker > 0 && kill(worker, 0) < 0 && errno == ESRCH;
}

static int remove_probe(int root_fd, const char *name)
{
    int folder_fd = pod_folder_open(root_fd, name);
    if (folder_fd < 0)
        return folder_fd;
    int result = pod_remains_end(folder_fd);
    close(folder_fd);
    return result < 0 ? result : pod_folder_remove(root_fd, name);
}

void pod_folder_sweep(int root_fd)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (!list)
        return;
    const struct dirent *entry;
    while ((entry = readdir(list)) != NULL) {
        bool probe = is_left_probe(entry->d_name);
        if (!probe && !str_starts(str_from(entry->d_name), STR(GONE_PREFIX)))
            continue;
        int result = probe ? remove_probe(root_fd, entry->d_name) : tree_remove(root_fd, entry->d_name);
        if (result < 0)
            LOG(WARN, "folder of a removed pod stays", LOG_TEXT("folder", entry->d_name), LOG_ERRNO(result));
    }
    closedir(list);
}
