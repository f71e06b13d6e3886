#ifndef CORE_RUN_SYNC_H
#define CORE_RUN_SYNC_H

#include "core/run/fiber.h"

/* What fibers of one loop wait for together: a place, each other's end, work on another thread. */

/* A counting gate: at most `free` holders at once, first come first served. */
struct semaphore {
    struct link waiting;
    unsigned free;
};
void semaphore_init(struct semaphore *semaphore, unsigned count);
/* Waits. 0 once it is held; -ECANCELED or -ETIMEDOUT when it is not. */
int semaphore_acquire(struct semaphore *semaphore, const char *what, uint64_t deadline_ns) MUST_USE;
void semaphore_release(struct semaphore *semaphore);

/* A number of fibers that one other waits for. */
struct group {
    unsigned count;
    struct wait *waiter;
};
void group_add(struct group *group);
void group_done(struct group *group);
/* Waits until the count is 0. */
int group_wait(struct group *group, const char *what, uint64_t deadline_ns) MUST_USE;

/*
 * Runs `work(arg)` on libuv's thread pool: hashing, DNS, files. Waits. Once begun the work can't be stopped, so
 * neither does the wait stop: `arg` may live on the stack. `work` must not touch the loop.
 */
void thread_run(const char *what, void (*work)(void *arg), void *arg);

#endif
