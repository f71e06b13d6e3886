#ifndef WORKERS_PODS_DRIVER_H
#define WORKERS_PODS_DRIVER_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * How pods are run. The scale job decides; a driver carries out. Every call is idempotent, so that a job that is
 * repeated after a crash does no harm: start of a pod that lives adopts it.
 */

struct pod_spec {
    const char *instance_id; /* [a-z0-9]+: names the pod's folder */
    int64_t generation;      /* of this start; the pod's log and environment show it */
    int port;                /* to listen on, on 127.0.0.1 */
};

struct pod {
    int64_t pid;        /* as the host sees it */
    int64_t started_at; /* start time of that pid (field 22 of /proc/PID/stat): tells it from a later one */
    int port;           /* where it listens: that of an adopted pod may differ from the one asked for */
    int64_t generation;
    bool adopted; /* it was alive already */
};

/* Called once on the loop's thread when a living pod that this worker started or found has ended. Must not wait. */
typedef void pod_on_exit(const char *instance_id, int64_t generation, int status, void *arg);

struct pod_driver {
    const char *name;
    /* Probes what works here (sandbox, user, folders) and logs it. -EINVAL or so with one line in `error`. Waits. */
    int (*open)(pod_on_exit *on_exit, void *arg, char *error, size_t error_size);
    /* Ends watching; the pods live on. Waits. */
    void (*close)(void);
    /* Starts the pod, or adopts the one that lives. Waits. It is not ready when this returns. -ENOENT: the command
     * can't be run; -EAGAIN: no resources now. */
    int (*start)(const struct pod_spec *spec, struct pod *pod);
    /* 0 and the pod when one lives, else -ESRCH. Waits. Also begins to watch it. */
    int (*find)(const char *instance_id, struct pod *pod);
    /* True while the pod that start or find returned lives. Does not wait. */
    bool (*alive)(const char *instance_id);
    /* SIGTERM, time to finish (config->pod_stop_ms), SIGKILL. 0 when none lives any more. Waits. Not reported to
     * on_exit. */
    int (*stop)(const char *instance_id);
    /* Removes the pod's workspace and all else of it; it must be stopped. Waits. */
    int (*destroy)(const char *instance_id);
};

extern const struct pod_driver pod_driver_process;

/*
 * Waits until GET http://127.0.0.1:port/health answers 200: tries anew every few milliseconds, with
 * config->pod_connect_ms for a connection and config->pod_ready_ms in all. 0; -ESRCH when `alive` says that the
 * pod has ended; -ETIMEDOUT.
 */
int pod_wait_ready(const struct pod_driver *driver, const char *instance_id, int port) MUST_USE;

#endif
