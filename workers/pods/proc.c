/* Processes by /proc/PID/stat and by pidfd. */
#include "workers/pods/proc.h"

#include "core/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/pidfd.h of Linux 6.9. */
enum { SIGNAL_PROCESS_GROUP = 1 << 2 };

/* The fields of proc_pid_stat(5) that we use, counted from the one behind the command's name. */
enum { FIELD_STATE = 3, FIELD_PARENT = 4, FIELD_SESSION = 6, FIELD_STARTED_AT = 22 };

static size_t read_whole(const char *path, char *out, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t got = read(file, out, size);
    close(file);
    return got > 0 ? (size_t)got : 0;
}

/* "/proc/123/NAME", without printf, which is not async-signal-safe. */
static void proc_path(char out[64], pid_t pid, const char *name)
{
    size_t at = 6;
    memcpy(out, "/proc/", 6);
    if (pid) {
        at += format_u64(out + at, (uint64_t)pid);
    } else {
        memcpy(out + at, "self", 4);
        at += 4;
    }
    out[at++] = '/';
    memcpy(out + at, name, strlen(name) + 1);
}

static bool set_field(struct proc_stat *stat, int field, struct str text)
{
    int64_t value = 0;
    switch (field) {
    case FIELD_STATE: stat->state = text.size ? text.at[0] : '?'; return true;
    case FIELD_PARENT:
        if (!str_to_i64(text, &value))
            return false;
        stat->parent = (pid_t)value;
        return true;
    case FIELD_SESSION:
        if (!str_to_i64(text, &value))
            return false;
        stat->session = (pid_t)value;
        return true;
    case FIELD_STARTED_AT: return str_to_i64(text, &stat->started_at);
    default: return true;
    }
}

int proc_stat(pid_t pid, struct proc_stat *stat)
{
    char path[64];
    char text[1024];
    proc_path(path, pid, "stat");
    size_t size = read_whole(path, text, sizeof text);
    /* The command's name may hold spaces and brackets; the last bracket ends it. */
    const char *name_end = size ? memrchr(text, ')', size) : NULL;
    if (!name_end || (size_t)(name_end - text) + 2 > size)
        return -ESRCH;
    struct str rest = str_of(name_end + 2, size - (size_t)(name_end + 2 - text));
    struct str field;
    for (int number = FIELD_STATE; number <= FIELD_STARTED_AT; number++)
        if (!str_split(&rest, ' ', &field) || !set_field(stat, number, field))
            return -ESRCH;
    return 0;
}

bool proc_lives(pid_t pid, int64_t started_at)
{
    struct proc_stat stat;
    if (pid <= 0 || proc_stat(pid, &stat) < 0)
        return false;
    return stat.started_at == started_at && stat.state != 'Z' && stat.state != 'X';
}

int proc_open(pid_t pid, int64_t started_at)
{
    if (pid <= 0)
        return -ESRCH;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return errno == EINVAL ? -ESRCH : -errno;
    /* Asked for after the descriptor holds on to the process: what it says is said of this one. */
    struct proc_stat stat;
    if (started_at && (proc_stat(pid, &stat) < 0 || stat.started_at != started_at)) {
        close(pidfd);
        return -ESRCH;
    }
    return pidfd;
}

int proc_signal(int pidfd, int signal)
{
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int proc_signal_left(int pidfd, int signal)
{
    if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, SIGNAL_PROCESS_GROUP) == 0)
        return 0;
    return errno == EINVAL ? -ENOTSUP : -errno;
}

int proc_signal_group(int pidfd, pid_t pid, int signal)
{
    int result = proc_signal_left(pidfd, signal);
    if (result != -ENOTSUP)
        return result;
    return kill(-pid, signal) < 0 ? -errno : 0;
}

int proc_end(int pidfd, int timeout_ms)
{
    int result = proc_signal(pidfd, SIGKILL);
    if (result == -ESRCH)
        return 0;
    if (result < 0)
        return result;
    struct pollfd wanted = {.fd = pidfd, .events = POLLIN};
    int ready;
    do
        ready = poll(&wanted, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready > 0 ? 0 : -ETIMEDOUT;
}

bool proc_has_child(pid_t pid)
{
    char path[64];
    char text[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return true;
    ssize_t got = read(file, text, sizeof text);
    close(file);
    return got > 0;
}
