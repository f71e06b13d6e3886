#ifndef WORKERS_SWEEP_H
#define WORKERS_SWEEP_H

#include "core/run/loop.h"
#include "workers/pods/driver.h"

/*
 * The sweeps of one worker: finds this machine's pods again at its start, puts idle ones to sleep, and rings for
 * every instance that is not as it should be. Workers need no leader: what two of them see is done once by the
 * statements themselves.
 */
void sweep_open(struct loop *loop, const struct pod_driver *driver);
/* Waits until its fibers have ended. */
void sweep_close(void);

/* Stops every pod of this machine and says so in the rows; what waits for one wakes it when a worker is back. After
 * sweep_close; waits. */
void sweep_stop_pods(void);

/* For pod_driver.open: the pod of an instance has ended by itself. */
void sweep_pod_ended(const char *instance_id, int64_t generation, int status, void *unused);

#endif
