#ifndef WORKERS_PODS_FOLDER_H
#define WORKERS_PODS_FOLDER_H

#include "core/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A pod's folder, DATA_DIR/instances/ID/:
 *
 *     workspace/    what the pod sees and may write
 *     pod.lock      locked (F_OFD_SETLK) for as long as the pod lives
 *     pod.state     which process it is: written by that process itself before it becomes the pod
 *     pod.sandbox   written by bubblewrap: the pid of the sandbox's init
 *     pod.log       the pod's stdout and stderr; pod.log.1 the one before
 *
 * A lock that belongs to the open file, not to a process, is inherited over fork: a starter that holds it can be
 * killed at any moment, and it is either free with no pod or held by the pod. Unlike flock() it can be asked for
 * without being taken. In a worker the descriptor is O_CLOEXEC, in a pod it is not: that tells a pod's process from
 * a worker that is about to start one.
 *
 * All of these block for as long as a few file operations take, but where a comment says more.
 */

struct pod_state {
    pid_t pid; /* leads the pod's session; under bubblewrap its outer process */
    int64_t started_at;
    int port;
    int64_t generation;
    bool sandboxed;
};

enum { POD_STATE_HEAD_SIZE = 160 };

/* The folder of an instance: a descriptor, -ENOENT. */
int pod_folder_open(int root_fd, const char *id) MUST_USE;
/* The same, made when it is not there. `shared`: other users may pass through it to the workspace. */
int pod_folder_make(int root_fd, const char *id, bool shared) MUST_USE;

/* The lock's descriptor; -EBUSY when somebody has it; -ESTALE when the folder is no more the instance's. */
int pod_lock_take(int root_fd, const char *id, int folder_fd) MUST_USE;
bool pod_lock_held(int folder_fd);

/* 0; -ENOENT when there is none; -EBADMSG when it is not whole or of another boot. */
int pod_state_read(int folder_fd, struct pod_state *state) MUST_USE;
/* An empty state file, to be filled by the pod. */
int pod_state_create(int folder_fd) MUST_USE;
/* The first part of a state; the pod adds its own pid and start time with pod_state_finish. */
size_t pod_state_head(char out[POD_STATE_HEAD_SIZE], int port, int64_t generation, bool sandboxed);
/* Writes the whole state for the calling process. Async-signal-safe. */
int pod_state_finish(int state_fd, const char *head, size_t head_size) MUST_USE;

/* 0 and the pod that lives by its state; -ESRCH when none does and the lock is free; -EBUSY when the lock is held:
 * by one that is just being started, or by what is left of one. */
int pod_state_find(int folder_fd, struct pod_state *state) MUST_USE;

/* The pid of the sandbox's init, or 0 while it is not known. */
pid_t pod_sandbox_init(int folder_fd);

/*
 * Kills what is left of a pod whose leader has ended: whoever of the pod's processes holds the lock. Blocks until
 * they are gone. 0 when the lock is free, or a new pod lives in the folder; -EBUSY when it is still held.
 */
int pod_remains_end(int folder_fd) MUST_USE;

/*
 * Removes the folder; for the thread pool. -EBUSY when a pod lives in it. It is first renamed, so that a folder of
 * that name is always whole; what a crash left of that is removed by pod_folder_sweep, and so are the folders of
 * workers that were killed while they tried out what works here (POD_PROBE_PREFIX and the worker's pid).
 */
#define POD_PROBE_PREFIX ".probe-"
int pod_folder_remove(int root_fd, const char *id) MUST_USE;
void pod_folder_sweep(int root_fd);

#endif
