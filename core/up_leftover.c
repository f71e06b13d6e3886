/* Finds and stops the servers of an earlier run that was killed. */
#include "core/up_leftover.h"

#include "core/base/clock.h"
#include "core/base/str.h"
#include "core/run/fiber.h"
#include "core/up_say.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ORDERLY_MS = 30000, KILL_MS = 10000, POLL_MS = 10, PIDS_MAX = 512 };

struct found {
    int pids[PIDS_MAX];
    size_t count;
};

static struct str read_proc(int pid, const char *name, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return STR_NONE;
    ssize_t got = read(descriptor, out, size);
    close(descriptor);
    return got > 0 ? str_of(out, (size_t)got) : STR_NONE;
}

/* A process that has ended but was not waited for has no working directory: it is not found. */
static bool is_ours(const struct leftover *leftover, const struct stat *folder, int pid)
{
    char text[32];
    struct str comm = read_proc(pid, "comm", text, sizeof text);
    if (comm.size == 0 || !str_equal(str_of(comm.at, comm.size - 1), str_from(leftover->name)))
        return false;
    char path[64];
    struct stat working;
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    return stat(path, &working) == 0 && working.st_dev == folder->st_dev && working.st_ino == folder->st_ino;
}

static void find(const struct leftover *leftover, struct found *found)
{
    found->count = 0;
    struct stat folder;
    DIR *processes = opendir("/proc");
    if (!processes || stat(leftover->folder, &folder)) {
        if (processes)
            closedir(processes);
        return;
    }
    struct dirent *entry;
    while (found->count < PIDS_MAX && (entry = readdir(processes)) != NULL) {
        uint64_t pid;
        if (str_to_u64(str_from(entry->d_name), &pid) && is_ours(leftover, &folder, (int)pid))
            found->pids[found->count++] = (int)pid;
    }
    closedir(processes);
}

/* The parent's pid: field 4 of /proc/PID/stat, the second after the name's closing parenthesis. */
static int parent_of(int pid)
{
    char text[256];
    struct str line = read_proc(pid, "stat", text, sizeof text - 1);
    int parent = 0;
    const char *after = line.at ? memrchr(line.at, ')', line.size) : NULL;
    text[line.size] = '\0';
    if (!after || sscanf(after + 1, " %*c %d", &parent) != 1)
        return 0;
    return parent;
}

static bool has(const struct found *found, int pid)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->pids[i] == pid)
            return true;
    return false;
}

/* By a descriptor of the process, so that it can't become another one between the look and the signal. */
static void signal_if_ours(const struct leftover *leftover, int pid, int number)
{
    struct stat folder;
    int descriptor = pidfd_open(pid, 0);
    if (descriptor < 0)
        return;
    if (stat(leftover->folder, &folder) == 0 && is_ours(leftover, &folder, pid))
        (void)pidfd_send_signal(descriptor, number, NULL, 0);
    close(descriptor);
}

/* Signals the server itself: its children (PostgreSQL's backends) end by its order. Children whose server is gone
 * are signalled one by one. */
static void signal_found(const struct leftover *leftover, const struct found *found, int number)
{
    for (size_t i = 0; i < found->count; i++)
        if (!has(found, parent_of(found->pids[i])))
            signal_if_ours(leftover, found->pids[i], number);
}

static int wait_gone(const struct leftover *leftover, struct found *found, uint64_t ms)
{
    uint64_t deadline_ns = clock_in_ms(ms);
    for (;;) {
        find(leftover, found);
        if (found->count == 0)
            return 0;
        if (clock_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
        int result = fiber_sleep_ms(POLL_MS);
        if (result)
            return result;
    }
}

int leftover_stop(const struct leftover *leftover)
{
    struct found found;
    find(leftover, &found);
    if (found.count == 0)
        return 0;
    up_say("stopping %s, left over by an earlier run (pid %d)", leftover->name, found.pids[0]);
    signal_found(leftover, &found, leftover->stop_signal);
    int result = wait_gone(leftover, &found, ORDERLY_MS);
    if (result != -ETIMEDOUT)
        return result;
    signal_found(leftover, &found, leftover->kill_signal);
    return wait_gone(leftover, &found, KILL_MS);
}
