#ifndef CORE_RUN_FIBER_H
#define CORE_RUN_FIBER_H

#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * A fiber: a small stack on one loop on which a request or a job runs from top to bottom. A function that may
 * switch away from the fiber says so in its declaration ("Waits"). While a fiber waits, others run: what it
 * read from shared state before may have changed.
 */

struct fiber;
typedef void fiber_run(void *arg);

/*
 * Starts a fiber. It first runs when the loop next resumes ready fibers. `name` is shown in lists of fibers and
 * when its stack overflows, and must live as long as the fiber. The handle is valid until the fiber has ended.
 */
struct fiber *fiber_start(struct loop *loop, const char *name, fiber_run *run, void *arg);

/* The same, but runs it at once up to its first wait. Only from a callback, never from a fiber. Returns NULL
 * when it has already ended. */
struct fiber *fiber_start_now(struct loop *loop, const char *name, fiber_run *run, void *arg);

/* Starts a fiber on a loop that does not run yet, runs the loop until the fiber has ended, and returns. For
 * programs that are one task, and for tests. */
void fiber_main(struct loop *loop, const char *name, fiber_run *run, void *arg);

/* The fiber that runs, or NULL in a callback. */
struct fiber *fiber_self(void);

/* Renames the running fiber, for the list: `name` must outlive it. */
void fiber_set_name(const char *name);

/*
 * Cancels: the fiber's present or next wait returns -ECANCELED, and so does every later one. Harmless on a
 * fiber that was cancelled before. Same loop only.
 */
void fiber_cancel(struct fiber *fiber);

/* No wait of the running fiber outlasts this moment (clock_now_ns terms); CLOCK_NEVER lifts it. A wait that
 * meets it returns -ECANCELED, as does every later one until it is set anew. */
void fiber_set_deadline(uint64_t at_ns);

/*
 * Between hold and release cancellation and the fiber's deadline do not count, only each wait's own timeout:
 * for what must end once it is begun (money, deletes, a commit whose outcome must be known). May be nested.
 */
void fiber_hold(void);
void fiber_release(void);

/* True when the next wait would return -ECANCELED. */
bool fiber_canceled(void);

/* Waits. 0 after `ms`, or -ECANCELED. */
int fiber_sleep_ms(uint64_t ms) MUST_USE;

/* Waits for the other ready fibers to run once. */
int fiber_yield(void) MUST_USE;

/*
 * One rendezvous between a fiber and the callback that has its answer. It usually lives on the fiber's stack:
 *
 *     struct wait wait = WAIT_INIT;
 *     begin_something(..., &wait);                  // whose callback calls wait_done(&wait, result)
 *     int result = wait_for(&wait, "redis", deadline);
 *     if (result == -ECANCELED || result == -ETIMEDOUT)
 *         detach_something(...);                    // nobody may call wait_done any more
 */
struct wait {
    struct fiber *fiber;
    int result;
    bool done;
};
#define WAIT_INIT ((struct wait){0})

/*
 * Waits until wait_done was called (before or after: both do) and returns its result; -ETIMEDOUT at
 * `deadline_ns`; -ECANCELED when the fiber is cancelled or past its own deadline. `what` is shown in the list of
 * fibers. Must be called on a fiber.
 */
int wait_for(struct wait *wait, const char *what, uint64_t deadline_ns) MUST_USE;

/* From a callback or another fiber of the same loop. The first call counts. */
void wait_done(struct wait *wait, int result);

/* A word that modules keep with the running fiber, each its own; NULL at the start of a fiber. The owner frees what it holds
 * before the fiber ends. */
enum fiber_slot { FIBER_PG_SCOPE, FIBER_AUDIT, FIBER_SLOTS };
void fiber_slot_set(enum fiber_slot slot, void *value);
void *fiber_slot_get(enum fiber_slot slot); /* NULL in a callback */

/* Frees the pooled stacks of the loop; called by loop_close. */
void fiber_pool_clear(struct loop *loop);

/* Runs the ready fibers and the flush hooks until none is left; the loop calls it. */
void fiber_run_ready(struct loop *loop);

/* Once in each thread that has a loop: a stack overflow then ends the process with a line that names the fiber. */
void fiber_guard_install(void);

#endif
