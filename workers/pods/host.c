/*
 * What this machine offers for confining pods. Nothing is assumed of it: a container may have no user namespaces,
 * the data folder may lie where the pods' user can't go. So each way is tried, the strictest first.
 */
#include "workers/pods/host.h"

#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "workers/pods/proc.h"
#include "workers/pods/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_MS = 10000 };

static const char *const bwrap_paths[] = {"/usr/local/bin/bwrap", "/usr/bin/bwrap", "/bin/bwrap"};

/* In the workspace of a pod, with the pod's rights: may it do what a pod must? */
#define PROBE_SCRIPT "test -w . && test -w \"$HOME\" && touch .probe && test -x \"$0\""

static int fail(char *error, size_t error_size, int code, const char *what, const char *detail)
{
    snprintf(error, error_size, "%s: %s", what, detail);
    return code;
}

/* Makes the folder and those above it. Passable for others, who find nothing readable in it: pods' users go
 * through it to their workspaces. */
static int make_folders(const char *path)
{
    char partial[PATH_MAX];
    if (strlen(path) >= sizeof partial)
        return -ENAMETOOLONG;
    for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
        size_t size = (size_t)(slash - path);
        memcpy(partial, path, size);
        partial[size] = '\0';
        if (size && mkdir(partial, 0711) < 0 && errno != EEXIST)
            return -errno;
    }
    return mkdir(path, 0711) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_folders(struct pod_host *host, char *error, size_t error_size)
{
    int result = make_folders(config->data_dir);
    if (result == 0 && !(host->data_path = realpath(config->data_dir, NULL)))
        result = -errno;
    if (result == 0) {
        size_t size = strlen(host->data_path) + sizeof "/instances";
        host->root_path = mem_alloc(size);
        snprintf(host->root_path, size, "%s/instances", host->data_path);
        if (mkdir(host->root_path, 0711) < 0 && errno != EEXIST)
            result = -errno;
    }
    if (result == 0) {
        host->root_fd = open(host->root_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (host->root_fd < 0)
            result = -errno;
    }
    return result < 0 ? fail(error, error_size, result, config->data_dir, log_errno(result)) : 0;
}

static int find_programs(struct pod_host *host, char *error, size_t error_size)
{
    host->exe = realpath("/proc/self/exe", NULL);
    if (!host->exe)
        return fail(error, error_size, -errno, "/proc/self/exe", log_errno(-errno));
    for (size_t i = 0; i < ARRAY_SIZE(bwrap_paths) && !host->bwrap; i++)
        if (access(bwrap_paths[i], X_OK) == 0)
            host->bwrap = mem_strdup(bwrap_paths[i]);
    return 0;
}

static void show(struct pod_host *host, const char *path)
{
    struct str below = STR("/tmp/");
    if (host->shown_count == POD_SHOWN_MAX || !str_starts(str_from(path), below))
        return;
    for (size_t i = 0; i < host->shown_count; i++) {
        size_t size = strlen(host->shown[i]);
        if (strncmp(path, host->shown[i], size) == 0 && (path[size] == '/' || path[size] == '\0'))
            return;
    }
    host->shown[host->shown_count++] = mem_strdup(path);
}

static int show_library(struct dl_phdr_info *info, size_t size, void *host)
{
    (void)size;
    show(host, info->dlpi_name);
    return 0;
}

static void find_shown(struct pod_host *host)
{
    char *folder = getcwd(NULL, 0);
    if (folder)
        show(host, folder);
    free(folder);
    dl_iterate_phdr(show_library, host);
}

static int find_user(struct pod_mode *mode, char *error, size_t error_size)
{
    struct passwd entry;
    struct passwd *found = NULL;
    char memory[4096];
    if (geteuid() != 0 || !*config->pod_user)
        return 0;
    if (getpwnam_r(config->pod_user, &entry, memory, sizeof memory, &found) != 0 || !found)
        return fail(error, error_size, -EINVAL, "POD_USER", "there is no such user");
    mode->drops_user = found->pw_uid != 0;
    mode->uid = found->pw_uid;
    mode->gid = found->pw_gid;
    mode->user = config->pod_user;
    return 0;
}

/* The program that the command names by its path, for the probe to look for; /bin/sh when it can't be told or is
 * not there at all, which is for the start to report. */
static void command_program(const struct pod_host *host, char *out, size_t size)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-";
    const char *at = *config->pod_command ? config->pod_command : host->exe;
    if (str_starts(str_from(at), STR("exec ")))
        at += strlen("exec ");
    size_t length = *config->pod_command ? strspn(at, plain) : strlen(at);
    bool is_word = at[length] == '\0' || at[length] == ' ';
    snprintf(out, size, "%.*s", (int)length, at);
    if (out[0] != '/' || !is_word || access(out, X_OK) < 0)
        snprintf(out, size, "/bin/sh");
}

/* The first line of what the probe has said. */
static void probe_reason(const struct pod_host *host, const char *id, char *reason, size_t size)
{
    char path[64];
    char text[256];
    snprintf(path, sizeof path, "%s/pod.log", id);
    int fd = openat(host->root_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    snprintf(reason, size, "%s", *text ? text : "the command or the workspace can't be reached");
}

/* The exit status of the child, which is killed when it takes too long. */
static int await_child(const struct pod_state *state)
{
    int status = 0;
    int pidfd = proc_open(state->pid, 0);
    struct pollfd wanted = {.fd = pidfd, .events = POLLIN};
    if (pidfd < 0)
        return pidfd;
    if (poll(&wanted, 1, PROBE_MS) <= 0)
        (void)!proc_signal(pidfd, SIGKILL);
    close(pidfd);
    while (waitpid(state->pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EACCES;
}

static int probe(const struct pod_host *host, const struct pod_mode *mode, char *reason, size_t size)
{
    if (mode->sandboxed && !host->bwrap) {
        snprintf(reason, size, "bwrap is not installed");
        return -ENOENT;
    }
    char id[32];
    char program[PATH_MAX];
    snprintf(id, sizeof id, POD_PROBE_PREFIX "%d", (int)getpid());
    command_program(host, program, sizeof program);
    struct pod_spawn spawn = {
        .host = host, .mode = *mode, .id = id, .words = {"/bin/sh", "-c", PROBE_SCRIPT, program, NULL}};
    int result = pod_spawn(&spawn);
    if (result == 0)
        result = await_child(&spawn.state);
    if (result < 0)
        probe_reason(host, id, reason, size);
    int folder_fd = pod_folder_open(host->root_fd, id);
    if (folder_fd >= 0) {
        if (pod_remains_end(folder_fd) < 0)
            LOG(WARN, "a probe does not end", LOG_TEXT("folder", id));
        close(folder_fd);
    }
    int removed = pod_folder_remove(host->root_fd, id);
    if (removed < 0)
        LOG(WARN, "folder of a probe stays", LOG_TEXT("folder", id), LOG_ERRNO(removed));
    return result;
}

static void log_mode(const struct pod_mode *wanted, const struct pod_mode *mode, const char *reason)
{
    const char *user = mode->drops_user ? mode->user : "the worker's";
    bool fell_back = wanted->sandboxed != mode->sandboxed || wanted->drops_user != mode->drops_user;
    const char *what = mode->sandboxed ? "pods run in bubblewrap" : "pods run without a sandbox";
    if (fell_back)
        LOG(WARN, what, LOG_TEXT("user", user), LOG_TEXT("reason", reason));
    else
        LOG(INFO, what, LOG_TEXT("user", user));
}

/* The strictest way that works, of those that the settings allow. */
static int choose_mode(struct pod_host *host, char *error, size_t error_size)
{
    bool on = strcmp(config->pod_sandbox, "on") == 0;
    bool off = strcmp(config->pod_sandbox, "off") == 0;
    if (!on && !off && strcmp(config->pod_sandbox, "auto") != 0)
        return fail(error, error_size, -EINVAL, "POD_SANDBOX", "must be auto, on or off");
    struct pod_mode wanted = {.sandboxed = !off};
    int result = find_user(&wanted, error, error_size);
    if (result < 0)
        return result;
    char first_reason[256] = "";
    for (int plain = off; plain <= !on; plain++) {
        for (int own_user = !wanted.drops_user; own_user <= 1; own_user++) {
            char reason[256] = "";
            host->mode = wanted;
            host->mode.sandboxed = !plain;
            host->mode.drops_user = !own_user;
            if (probe(host, &host->mode, reason, sizeof reason) == 0) {
                log_mode(&wanted, &host->mode, first_reason);
                return 0;
            }
            if (!*first_reason)
                memcpy(first_reason, reason, sizeof reason);
        }
    }
    return fail(error, error_size, -ENOTSUP,
                on ? "POD_SANDBOX=on, but bubblewrap does not work here" : "pods can't run", first_reason);
}

int pod_host_open(struct pod_host *host, char *error, size_t error_size)
{
    *host = (struct pod_host){.root_fd = -1};
    int result = open_folders(host, error, error_size);
    if (result == 0) {
        pod_folder_sweep(host->root_fd);
        result = find_programs(host, error, error_size);
    }
    if (result == 0) {
        find_shown(host);
        result = choose_mode(host, error, error_size);
    }
    if (result < 0)
        pod_host_close(host);
    return result;
}

void pod_host_close(struct pod_host *host)
{
    if (host->root_fd >= 0)
        close(host->root_fd);
    free(host->root_path);
    free(host->data_path);
    free(host->bwrap);
    free(host->exe);
    for (size_t i = 0; i < host->shown_count; i++)
        free(host->shown[i]);
    *host = (struct pod_host){.root_fd = -1};
}
