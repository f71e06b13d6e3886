#ifndef WORKERS_WEBHOOK_H
#define WORKERS_WEBHOOK_H

#include "core/run/loop.h"
#include "core/store/queue.h"

/* JOB_WEBHOOK: sends what is due to the endpoint of job->key, for WEBHOOK_SLICE_MS at most. */
int webhook_run(struct job *job);

/* Looks now and then for deliveries that are due and have no job, until webhook_sweep_close. */
void webhook_sweep_open(struct loop *loop);
void webhook_sweep_close(void); /* waits */

/* Names the slots of metrics. Once, before threads start. */
void webhook_name_metrics(void);

#endif
