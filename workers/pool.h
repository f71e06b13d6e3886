#ifndef WORKERS_POOL_H
#define WORKERS_POOL_H

#include "core/run/loop.h"
#include "core/store/queue.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The worker pool: takes jobs out of the queue (core/store/queue.h) and runs each in a fiber of its own, at most
 * config->worker_concurrency at once. A job is run at least once; its effect takes place once, because every
 * statement with an effect carries the job's fence.
 */

/*
 * Runs a job, within its kind's time limit. Waits. Returns
 *   0           done; the pool ends the row unless job->finished says that a statement of the job's own has
 *   -ECANCELED  not done, and nobody's fault: given back, to be run again at once by whoever is free
 *   -EAGAIN     not now: again after the backoff, no try counted
 *   -ESTALE     the lease was lost (queue_done_in): nothing is changed
 *   any other   the try has failed (job_fail says why): again after the backoff, or dead when no try is left
 * A volatile job that has failed is dropped: its client would ask again.
 */
typedef int job_run(struct job *job);

struct job_handler {
    enum job_kind kind;
    job_run *run;
};

/* Keeps the reason of a failed try for the row and the log (500 bytes of it) and returns `code`. */
int job_fail(struct job *job, int code, const char *format, ...) PRINTF_LIKE(3, 4);

struct pool;

/*
 * Begins to work. Needs Redis and PostgreSQL open on the loop, but not up. NULL, with one line in `error`, when
 * config->job_lease_s is not above the time limit of each kind: a lease must outlast what it covers. On a fiber.
 */
struct pool *pool_open(struct loop *loop, const struct job_handler *handlers, size_t count, char *error,
                       size_t error_size) MUST_USE;

/*
 * Takes no new jobs, waits for the running ones until `deadline_ns`, cancels the rest and gives them back. Waits,
 * and is not to be cancelled. When PostgreSQL is away what can't be given back is left to its lease.
 */
void pool_drain(struct pool *pool, uint64_t deadline_ns);

/* Drains at once, unless that was done, and frees. Waits. NULL is fine. */
void pool_close(struct pool *pool);

#endif
