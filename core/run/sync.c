/* Semaphores, groups, and work on the thread pool: see sync.h. */
#include "core/run/sync.h"

#include "core/base/check.h"
#include "core/base/clock.h"

/* ---- semaphores and groups ---- */

struct semaphore_place {
    struct link link;
    struct wait wait;
};

void semaphore_init(struct semaphore *semaphore, unsigned count)
{
    list_init(&semaphore->waiting);
    semaphore->free = count;
}

int semaphore_acquire(struct semaphore *semaphore, const char *what, uint64_t deadline_ns)
{
    if (semaphore->free > 0) {
        semaphore->free--;
        return 0;
    }
    struct semaphore_place place = {.wait = WAIT_INIT};
    list_push_back(&semaphore->waiting, &place.link);
    int result = wait_for(&place.wait, what, deadline_ns);
    if (result)
        list_remove(&place.link);
    return result;
}

void semaphore_release(struct semaphore *semaphore)
{
    struct link *first = list_pop_front(&semaphore->waiting);
    if (first)
        wait_done(&LIST_ENTRY(first, struct semaphore_place, link)->wait, 0);
    else
        semaphore->free++;
}

void group_add(struct group *group)
{
    group->count++;
}

void group_done(struct group *group)
{
    CHECK(group->count > 0);
    group->count--;
    if (group->count == 0 && group->waiter)
        wait_done(group->waiter, 0);
}

int group_wait(struct group *group, const char *what, uint64_t deadline_ns)
{
    CHECK(group->waiter == NULL);
    if (group->count == 0)
        return 0;
    struct wait wait = WAIT_INIT;
    group->waiter = &wait;
    int result = wait_for(&wait, what, deadline_ns);
    group->waiter = NULL;
    return result;
}

/* ---- the thread pool ---- */

struct thread_task {
    uv_work_t work;
    void (*run)(void *arg);
    void *arg;
    struct wait wait;
};

static void thread_work(uv_work_t *work)
{
    struct thread_task *task = work->data;
    task->run(task->arg);
}

static void thread_after(uv_work_t *work, int status)
{
    struct thread_task *task = work->data;
    wait_done(&task->wait, status);
}

void thread_run(const char *what, void (*work)(void *arg), void *arg)
{
    struct thread_task task = {.run = work, .arg = arg, .wait = WAIT_INIT};
    task.work.data = &task;
    fiber_hold();
    CHECK(uv_queue_work(&loop_self()->uv, &task.work, thread_work, thread_after) == 0);
    CHECK(wait_for(&task.wait, what, CLOCK_NEVER) == 0);
    fiber_release();
}
