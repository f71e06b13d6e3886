#ifndef WORKERS_SCALE_H
#define WORKERS_SCALE_H

#include "core/store/queue.h"
#include "workers/pods/driver.h"

/* JOB_SCALE: makes the instance of job->key what its row says: a pod or none, or gone. */
int scale_run(struct job *job);

/* The driver that scale jobs use; set before the pool is opened. */
void scale_use(const struct pod_driver *driver);

/* False when POD_PORT_RANGE can't be read; checked before the pool is opened. */
bool scale_ports_are_fit(void);

#endif
