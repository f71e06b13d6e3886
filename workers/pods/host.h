#ifndef WORKERS_PODS_HOST_H
#define WORKERS_PODS_HOST_H

#include "workers/pods/spawn.h"

#include <stddef.h>

/*
 * Finds the data folder (made when it is not there) and how pods can be confined here, by starting one with the
 * very options that pods get: bubblewrap and a user of their own, else one of them, else neither; what is used and
 * why not more is logged. Blocks for some milliseconds: for the thread pool. -EINVAL or so with one line in
 * `error` when the settings ask for what does not work.
 */
int pod_host_open(struct pod_host *host, char *error, size_t error_size) MUST_USE;

/* Safe on a host that was not opened, if it is zero but for root_fd -1. */
void pod_host_close(struct pod_host *host);

#endif
