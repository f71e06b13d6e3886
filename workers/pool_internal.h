/*
 * What the files of the worker pool share; nobody else includes it.
 *
 *   pool.c     opening, draining, slots, and the fiber in which a job runs
 *   reader.c   reads the lanes
 *   claim.c    stream entries to leases: one statement for all that were read together
 *   settle.c   ends of durable jobs: one statement for all that ended meanwhile
 *   ack.c      ends of stream entries; entries of workers that died
 *   keeper.c   heartbeat, and the reconciler
 *
 *   reader ──▶ claim ──▶ job's fiber ──▶ settle ──▶ (row gone, queued or dead)
 *     │                    ▲   │
 *     └── volatile jobs ───┘   └──▶ ack
 *
 * A slot is taken when an entry is read and is free again when the end of its job is committed, so that a pool
 * never holds more than it can run, and stops reading when PostgreSQL is away.
 */
#ifndef WORKERS_POOL_INTERNAL_H
#define WORKERS_POOL_INTERNAL_H

#include "core/run/sync.h"
#include "core/store/redis.h"
#include "workers/pool.h"

/* After so many a job, or an entry, is taken to be what kills its workers. */
enum { CRASHES_MAX = 3, REASON_MAX = 500, BATCH_MAX = 512 };

/* A worker with nothing to do asks Redis again so often. */
enum { READ_BLOCK_MS = 2000 };

struct stream_id {
    uint64_t ms;
    uint64_t number;
};
enum { STREAM_ID_SIZE = 44 };

/* Where a job was read. Not so for one that was claimed without a ring: lane is NULL. */
struct entry {
    struct lane *lane;
    struct stream_id id;
};

struct lane {
    char key_text[QUEUE_KEY_SIZE];
    struct str key;
    uint64_t length;        /* when last read */
    struct stream_id *acks; /* entries to be taken out */
    size_t ack_count;
    size_t ack_capacity;
};

enum run_end {
    RUN_DONE,
    RUN_FAILED,
    RUN_AGAIN,
    RUN_GIVEN_BACK,
    RUN_LOST,
};

/* A job that holds a slot. */
struct run {
    struct link link; /* in pool->running, then in pool->settling */
    struct pool *pool;
    struct job job;
    struct arena arena;
    struct entry entry;  /* of a volatile job */
    struct fiber *fiber; /* NULL before and after its run function runs */
    uint64_t started_ns;
    uint64_t ended_ns;
    int64_t waited_ms;
    const char *reason;
    enum run_end end;
    bool canceled; /* by the drain */
    bool lost;     /* the heartbeat found that the lease is gone */
    bool extended; /* by the heartbeat in hand */
};

struct pool {
    unsigned magic;
    struct loop *loop;
    job_run *handlers[JOB_KINDS];
    struct str kinds[JOB_KINDS]; /* names of the durable kinds that have a handler */
    size_t kind_count;
    char name[64]; /* of the worker in rows, and of the consumer in the group */
    uint64_t lease_ms;
    struct lane *lanes;
    size_t lane_count;

    unsigned slots;
    unsigned free;
    struct wait *slot_waiter;
    struct link running;
    struct link settling;
    struct wait *settle_waiter;
    struct link laters;
    unsigned later_count;

    struct redis *redis; /* the reader's connection */
    char redis_id[24];   /* as Redis knows it, to end a blocking read */
    bool reading;
    struct fiber *reader;
    struct fiber *keeper;
    struct wait *reconciler_waiter;
    struct group intake;  /* the reader, claims and takeovers */
    struct group jobs;    /* struct run */
    struct group helpers; /* settler, keeper, reconciler, later rings */

    struct flush ack_flush;
    bool rings_lost; /* the streams were found empty: all rows that are due must be rung again */
    bool deaf;       /* Redis takes no rings: rows are claimed without */
    bool draining;
    bool abandoned; /* the drain's time is over: what can't be committed is left to its lease */
    bool drained;
};

/* ---- pool.c ---- */

void pool_slots_free(struct pool *pool, size_t count);
/* Waits for a free slot: 0; -ECANCELED once the pool drains. */
int pool_slot_wait(struct pool *pool) MUST_USE;
/* A run that has a slot already. */
struct run *run_new(struct pool *pool, enum job_kind kind);
/* Starts its fiber; when the pool drains, only for it to be given back. */
void run_start(struct run *run);
/* Counts and logs the end, frees the run and its slot. */
void run_finish(struct run *run, const char *outcome);
/* The pause before the next try: doubles with each one that failed, half of it by chance. */
uint64_t run_backoff_ms(const struct run *run);
/* `ms`, up to a quarter more or less. */
uint64_t jitter_ms(uint64_t ms);

/* ---- reader.c ---- */

void reader_run(void *arg);
/* Ends the reader's present wait, so that it sees that the pool drains. */
void reader_wake(struct pool *pool);

/* ---- claim.c ---- */

/* Entries that were read together. */
struct intake {
    struct pool *pool;
    struct claim *claim;
};
/* Starts a volatile job, or puts a durable one's id to the batch. Takes a slot, of which one must be free. */
void intake_add(struct intake *intake, struct lane *lane, const struct redis_value *entry);
/* Claims what was gathered, in a fiber of its own. */
void intake_claim(struct intake *intake);
/* Claims rows that are due without a ring, as many as there are slots. Waits. Returns their number or an error. */
int claim_due(struct pool *pool);

/* ---- settle.c ---- */

void settle_run(void *arg);
/* Takes over the run: its end will be committed. */
void settle_add(struct run *run);
void settle_wake(struct pool *pool);
/* Rings in `delay_ms`, in a fiber of its own; the bells are copied. */
void ring_later(struct pool *pool, const struct queue_bell *bells, size_t count, uint64_t delay_ms);
/* Ends the pauses of those that wait for their time. */
void ring_later_cancel(struct pool *pool);
/* Rings the jobs that can run now that the running ones of these kinds and keys have ended. Waits. */
void ring_followers(struct pool *pool, const struct str *kinds, const struct str *keys, size_t count);

/* ---- ack.c ---- */

bool stream_id_parse(struct str text, struct stream_id *id);
struct str stream_id_format(char out[STREAM_ID_SIZE], struct stream_id id);
/* Takes the entry out of its lane, at the end of this turn. */
void ack_add(struct pool *pool, struct entry entry);
void ack_flush(struct flush *flush);
/* Puts a volatile job back. Waits. */
void ack_give_back(struct run *run);
/* Shows Redis that the volatile jobs here are alive. Waits. */
void ack_heartbeat(struct pool *pool);
/* Takes over entries whose worker has died. Waits. */
void ack_take_over(struct pool *pool);
/* Takes the consumer out of the groups, where it holds nothing. Waits. */
void ack_leave(struct pool *pool);

/* ---- keeper.c ---- */

void keeper_run(void *arg);
void reconciler_run(void *arg);
/* Ends the reconciler's pause. */
void reconciler_wake(struct pool *pool);

#endif
