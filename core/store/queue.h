#ifndef CORE_STORE_QUEUE_H
#define CORE_STORE_QUEUE_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/store/pg.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The job queue. A durable job is a row of table `job`, added by the SQL function job_add() inside the very
 * statement that accepts the work; the Redis stream only says that there is one ("doorbell"). A volatile job is
 * the stream entry itself: for work whose client waits and would ask again.
 *
 *            job_add + ring             claim (fence + 1)              done (row deleted, with its effect)
 *   ─────────────────────────▶ queued ─────────────────────▶ running ────────────────────────────────────▶ gone
 *                                ▲                              │ failed: tries + 1, backoff
 *                                ├──────────────────────────────┤ lease ran out: crashes + 1
 *                                │                              │ worker leaves: given back
 *                        redrive └────────── dead ◀─────────────┘ no tries left, or three crashes
 *
 * A stream per queue and lane ("jobs:{queue}:{lane}"): a tenant's jobs go to the shorter of the two lanes that its
 * name hashes to, and a worker takes an equal share of every lane, so that a tenant with many jobs delays those
 * with few by one share at most.
 *
 * At most one job of a kind and key is queued, and at most one running: job_add() of a key that is queued already
 * is that job.
 */

enum job_kind {
    JOB_SCALE,   /* makes an instance what its row says; key: the instance */
    JOB_DELIVER, /* hands an instance its waiting messages in order; key: the instance */
    JOB_WEBHOOK, /* delivers what is due to a webhook endpoint; key: its number */
    JOB_PING,    /* does nothing; measures the queue (durable) */
    JOB_PING_VOLATILE,
    JOB_KINDS
};

/* How long a webhook job begins attempts before it lets the next one go on. */
enum { WEBHOOK_SLICE_MS = 4000 };

struct job_policy {
    const char *name;    /* in the row and the metrics */
    const char *queue;   /* scale | deliver | webhook | ping */
    unsigned tries;      /* failed tries before it is dead */
    unsigned backoff_ms; /* after the first failure; doubles, with jitter */
    unsigned backoff_max_ms;
    bool durable;
    uint64_t (*time_limit_ms)(void); /* the longest one run may take; below the lease */
};
extern const struct job_policy job_policies[JOB_KINDS];

/* -EINVAL when `name` is no kind. */
int job_kind_of(struct str name, enum job_kind *kind) MUST_USE;

/* What a worker is given. Lives in the arena of the fiber that runs it. */
struct job {
    enum job_kind kind;
    int64_t id;    /* 0 for a volatile one */
    int64_t fence; /* proves that the lease is still ours, in every statement that has an effect */
    struct str tenant;
    struct str key;
    struct str payload; /* JSON, or absent */
    unsigned tries;     /* failed so far */
    unsigned crashes;
    struct arena *arena;
    bool finished; /* set by the run function when a statement of its own ended the row */
};

/* Rings the doorbell for a row that was committed. Does not wait; when Redis is away the reconciler does it. */
void queue_ring(enum job_kind kind, struct str tenant, int64_t job_id);

/* Adds a durable job in a commit of its own and rings. Waits. `key` may be absent (no dedupe). */
int queue_add(enum job_kind kind, struct str tenant, struct str key, struct str payload, uint64_t delay_ms,
              int64_t *job_id) MUST_USE;

/* Adds a volatile job. Waits for Redis's word. */
int queue_add_volatile(enum job_kind kind, struct str tenant, struct str payload) MUST_USE;

/*
 * Ends the job's row inside the caller's transaction. -ESTALE when the lease is no longer ours: the caller rolls
 * back, and nothing happened. For single statements the SQL function job_done(id, fence) does the same.
 */
int queue_done_in(struct pg_tx *tx, struct job *job) MUST_USE;

/* Names the slots of the metrics that have a job kind as their label. Once, before threads start. */
void queue_name_metrics(void);

/* ---- the streams, for the worker pool and for tools ---- */

/* The pool's consumer group. An entry of a durable job is "id"; of a volatile one "kind", "tenant", "payload". */
enum { QUEUE_LANES = 16, QUEUE_KEY_SIZE = 48 };
#define QUEUE_GROUP STR("workers")

/* "jobs:{queue}:{lane}", in `out`. */
struct str queue_lane_key(char out[QUEUE_KEY_SIZE], const char *queue, unsigned lane);

/* Rings many rows in one round trip, not counted as added. Waits. 0 when Redis took them all. */
struct queue_bell {
    enum job_kind kind;
    struct str tenant;
    int64_t job_id;
};
int queue_ring_all(const struct queue_bell *bells, size_t count) MUST_USE;
/* As queue_ring, once what the running fiber has written is committed. */
void queue_ring_committed(const struct queue_bell *bell);

#endif
