#ifndef WORKERS_PODS_SPAWN_H
#define WORKERS_PODS_SPAWN_H

#include "workers/pods/folder.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How pods are confined: what pod_host_probe has found to work here. */
struct pod_mode {
    bool sandboxed;  /* in bubblewrap */
    bool drops_user; /* to uid and gid; else pods run as the worker's user */
    uid_t uid;
    gid_t gid;
    const char *user;
};

/* Where pods live and what they run; made once. Paths are absolute and free of links. */
enum { POD_SHOWN_MAX = 8 };

struct pod_host {
    int root_fd; /* of DATA_DIR/instances */
    char *root_path;
    char *data_path;
    char *bwrap; /* NULL: not installed */
    char *exe;   /* our own executable, for the pod that comes along */
    /* What lies below /tmp, which a sandbox has to itself, and is shown in it nevertheless, read-only: the folder we
     * were started in, where a command's files may be, and the libraries that our executable needs. */
    char *shown[POD_SHOWN_MAX];
    size_t shown_count;
    struct pod_mode mode;
};

enum { POD_WORDS_MAX = 8 };

struct pod_spawn {
    const struct pod_host *host;
    struct pod_mode mode;
    const char *id;
    int64_t generation;
    int port;
    const char *token;                    /* for calls of the gateway; NULL: it is to make none */
    const char *words[POD_WORDS_MAX + 1]; /* what the pod executes, NULL-terminated */
    /* Out. */
    struct pod_state state;
    bool adopted;
};

/* Fills in what the settings say a pod runs. */
void pod_spawn_words(struct pod_spawn *spawn);

/*
 * Starts the pod in its folder, which is made, or adopts the one that lives there: 0 and the state. Blocks until
 * the pod's program was executed: for the thread pool. -EBUSY: the lock is held by one that can't be told yet;
 * -ENOENT: the command can't be run; -EAGAIN: no resources. Failures are logged.
 */
int pod_spawn(struct pod_spawn *spawn) MUST_USE;

#endif
