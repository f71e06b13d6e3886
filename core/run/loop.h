#ifndef CORE_RUN_LOOP_H
#define CORE_RUN_LOOP_H

#include "core/base/list.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/*
 * One libuv loop on one thread, with its fibers. Nothing is shared between loops: modules that keep state per
 * loop (the Redis client, the pools) hang it into a slot.
 *
 * A turn of the loop: callbacks run and make fibers ready; ready fibers run; then the flush hooks run, once
 * each, so that everything a turn has produced for one socket leaves in one write.
 */

enum loop_slot {
    LOOP_REDIS,
    LOOP_PG,
    LOOP_FETCH,
    LOOP_STREAM,
    LOOP_UPSTREAM,
    LOOP_VISIT,
    LOOP_TEST,
    LOOP_LIMIT,
    LOOP_BELL,
    LOOP_KEYS,
    LOOP_LOGINS,
    LOOP_TOKENS,
    LOOP_OWNERS,
    LOOP_AI,
    LOOP_GATE,
    LOOP_LEASE,
    LOOP_EVENT,
    LOOP_WEBHOOK,
    LOOP_FEED,
    LOOP_AUDIENCE,
    LOOP_WATCH,
    LOOP_GREETER,
    LOOP_SLOTS
};

struct fiber;

struct loop {
    uv_loop_t uv;
    void *slots[LOOP_SLOTS];
    struct link ready;     /* fibers to be resumed */
    struct link fibers;    /* all living fibers */
    struct link flushes;   /* struct flush, asked for in this turn */
    struct fiber *running; /* NULL while callbacks run */
    struct link pooled;    /* fibers that ended, with their stacks */
    unsigned pooled_count;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t again;   /* active while fibers are left ready, so that the loop does not block */
    uv_async_t posted; /* wakes the loop for loop_post */
    uv_mutex_t post_mutex;
    struct link posts;
    unsigned fiber_count;
    unsigned index; /* 0 for the first loop of the process */
    bool stopping;
};

/* The calling thread's loop, or NULL. */
struct loop *loop_self(void);

/* Makes the calling thread's loop. */
void loop_open(struct loop *loop, unsigned index);

/* Runs until nothing is left to wait for, or loop_stop. */
void loop_run(struct loop *loop);

/* Ends loop_run at the end of this turn. From the loop's thread. */
void loop_stop(struct loop *loop);

/*
 * Closes the loop. Modules have closed their handles and all fibers have ended before; a handle or fiber that is
 * still there is our bug and is named on stderr before the abort.
 */
void loop_close(struct loop *loop);

/* Calls `run(arg)` on the loop's thread, from any thread. Calls keep their order. */
void loop_post(struct loop *loop, void (*run)(void *arg), void *arg);

/* Work to do once at the end of the turn, however often it is asked for. Zero-initialise but for `run`. */
struct flush {
    struct link link;
    void (*run)(struct flush *flush);
    bool asked;
};

void loop_flush_later(struct loop *loop, struct flush *flush);
/* For fiber.c: the loop takes another turn and does not block before it. */
void loop_turn_again(struct loop *loop);

/* Takes a pending flush back; safe on one that was never asked for. */
void loop_flush_forget(struct flush *flush);

/* Lists every suspended fiber of the loop in the log: name, what it waits for, since when. */
void loop_log_fibers(struct loop *loop);

/* Cancels every living fiber of the loop. */
void loop_cancel_fibers(struct loop *loop);

#endif
