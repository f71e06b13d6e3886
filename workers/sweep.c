/* Sweeps: level-triggered looks at all instances, under the jobs that single events add. */
#include "workers/sweep.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/instance.h"
#include "core/net/pod_call.h"
#include "core/run/sync.h"

#include <errno.h>
#include <stdlib.h>

static struct {
    struct loop *loop;
    const struct pod_driver *driver;
    struct group fibers;
    struct fiber *fiber;
} sweep;

/* ---- pods that ended ---- */

struct ended {
    char *instance_id;
    int64_t generation;
};

static void run_ended(void *arg)
{
    struct ended *ended = arg;
    /* When PostgreSQL is away the next look at all pods does the same. */
    int result = instance_pod_lost(str_from(ended->instance_id), ended->generation);
    if (result)
        LOG(WARN, "a pod's end could not be recorded", LOG_TEXT("instance", ended->instance_id),
            LOG_ERRNO(result));
    free(ended->instance_id);
    free(ended);
    group_done(&sweep.fibers);
}

void sweep_pod_ended(const char *instance_id, int64_t generation, int status, void *unused)
{
    (void)unused;
    metric_add(M_POD_LOST, 1);
    LOG(WARN, "a pod ended by itself", LOG_TEXT("instance", instance_id), LOG_INT("generation", generation),
        LOG_INT("status", status));
    struct ended *ended = mem_alloc(sizeof *ended);
    ended->instance_id = mem_strdup(instance_id);
    ended->generation = generation;
    group_add(&sweep.fibers);
    fiber_start(sweep.loop, "pod ended", run_ended, ended);
}

/* ---- the looks ---- */

/* Rows that say there is a pod, and pods that are not there: a worker died, or the machine was started again. */
static void look_for_pods(struct arena *arena)
{
    struct instance *instances;
    size_t count;
    if (instance_with_pod(arena, &instances, &count))
        return;
    for (size_t i = 0; i < count && !fiber_canceled(); i++) {
        struct pod pod;
        const char *id = instances[i].id.at;
        if (sweep.driver->alive(id))
            continue;
        if (sweep.driver->find(id, &pod) == 0) {
            metric_add(M_POD_ADOPTED, 1);
            LOG(INFO, "pod found again", LOG_TEXT("instance", id), LOG_INT("pid", pod.pid));
        } else if (instances[i].state == INSTANCE_AWAKE) {
            LOG(WARN, "a pod is gone", LOG_TEXT("instance", id));
            if (instance_pod_lost(instances[i].id, instances[i].generation))
                return;
        }
    }
}

static void look_for_idle(struct arena *arena)
{
    struct instance *instances;
    size_t count;
    if (instance_idle(arena, &instances, &count))
        return;
    for (size_t i = 0; i < count && !fiber_canceled(); i++) {
        int result = pod_is_busy(instances[i].port) ? instance_touch(instances[i].id)
                                                    : instance_sleep_idle(instances[i].id);
        if (result)
            return;
    }
}

/* Sooner than the timeout by far, but not more than thrice a second. */
static uint64_t pause_ms(void)
{
    uint64_t tenth_ms = (uint64_t)config->idle_timeout_s * 100;
    return tenth_ms < 300 ? 300 : tenth_ms > 2000 ? 2000 : tenth_ms;
}

static void run_sweep(void *unused)
{
    (void)unused;
    do {
        struct arena arena;
        arena_init(&arena);
        look_for_pods(&arena);
        look_for_idle(&arena);
        /* What fails here (PostgreSQL is away) is tried again in the next round. */
        int result = instance_reconcile();
        if (result && result != -ENOTCONN && result != -ECANCELED)
            LOG(WARN, "sweep failed", LOG_ERRNO(result));
        arena_clear(&arena);
    } while (fiber_sleep_ms(pause_ms()) == 0);
    group_done(&sweep.fibers);
}

void sweep_open(struct loop *loop, const struct pod_driver *driver)
{
    sweep.loop = loop;
    sweep.driver = driver;
    group_add(&sweep.fibers);
    sweep.fiber = fiber_start(loop, "sweep", run_sweep, NULL);
}

void sweep_close(void)
{
    fiber_hold();
    fiber_cancel(sweep.fiber);
    CHECK(group_wait(&sweep.fibers, "sweeps", CLOCK_NEVER) == 0);
    fiber_release();
}

/* ---- the end of everything on this machine ---- */

static void run_stop(void *arg)
{
    const struct instance *instance = arg;
    int result = sweep.driver->stop(instance->id.at);
    if (result == 0)
        result = instance_pod_lost(instance->id, instance->generation);
    if (result)
        LOG(WARN, "a pod could not be stopped", LOG_STR("instance", instance->id), LOG_ERRNO(result));
    group_done(&sweep.fibers);
}

void sweep_stop_pods(void)
{
    struct arena arena;
    struct instance *instances;
    size_t count;
    arena_init(&arena);
    fiber_hold();
    if (instance_with_pod(&arena, &instances, &count) == 0) {
        for (size_t i = 0; i < count; i++) {
            group_add(&sweep.fibers);
            fiber_start(sweep.loop, "stop pod", run_stop, &instances[i]);
        }
        CHECK(group_wait(&sweep.fibers, "pods to end", CLOCK_NEVER) == 0);
    }
    fiber_release();
    arena_clear(&arena);
}
