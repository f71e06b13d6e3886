#ifndef CORE_DOMAIN_INSTANCE_JOB_H
#define CORE_DOMAIN_INSTANCE_JOB_H

#include "core/base/arena.h"
#include "core/store/queue.h"

#include <stddef.h>
#include <stdint.h>

/*
 * What an operator asks of the job queue: what is in it, what has died, once more please, and how fast it is. Errors are
 * those of pg.h and redis.h.
 */

struct job_row {
    int64_t id;
    struct str kind;
    struct str tenant;
    struct str key;        /* absent: none */
    struct str last_error; /* absent: none */
    int64_t created_ms;    /* since 1970 */
    unsigned tries;
    unsigned crashes;
};

/* Dead jobs by id, above `after`; at most `limit`. Waits. Rows and texts live in the arena. */
int job_list_dead(struct arena *arena, int64_t after, size_t limit, struct job_row **rows, size_t *count)
    MUST_USE;

/* Gives a dead job all its tries again and rings. Waits. -ENOENT: there is no dead job of that id. */
int job_redrive(int64_t id) MUST_USE;

/* The same with all dead jobs of a kind; `count` gets their number. Waits. */
int job_redrive_kind(enum job_kind kind, size_t *count) MUST_USE;

struct job_count {
    struct str kind;
    struct str state; /* queued | running | dead */
    int64_t count;
    int64_t oldest_s; /* since the oldest of them was added */
};

/* Durable jobs by kind and state. Waits. */
int job_counts(struct arena *arena, struct job_count **counts, size_t *count) MUST_USE;

struct job_ping_times {
    uint64_t added_ns; /* from the start until the last was accepted */
    uint64_t done_ns;  /* from the start until the last was done */
};

/* Adds `count` jobs that do nothing, from `fibers` fibers, each its own commit (or its own XADD when they are volatile),
 * and waits until a worker has done them all. Waits. -ETIMEDOUT when nothing is done for ten seconds. */
int job_ping(uint64_t count, bool durable, unsigned fibers, struct job_ping_times *times) MUST_USE;

#endif
