#ifndef WORKERS_DELIVER_H
#define WORKERS_DELIVER_H

#include "core/store/queue.h"

/* JOB_DELIVER: hands the messages that wait for the instance of job->key to its pod, in order. */
int deliver_run(struct job *job);

#endif
