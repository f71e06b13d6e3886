#ifndef WORKERS_PING_H
#define WORKERS_PING_H

#include "workers/pool.h"

/* The jobs JOB_PING and JOB_PING_VOLATILE: they do nothing, so what a ping takes is what the queue takes. */
int ping_run(struct job *job);

#endif
