/*
 * The scale job. It never says "one more": it looks at the row and at the pod and takes the next step from what is
 * to what is desired, until they agree. So it can be repeated from any point at which a worker died.
 *
 *   desired  state                 pod      step
 *   (deleted)                      any      stop, remove the workspace, remove the row
 *   1        awake                 healthy  agreed
 *   1        awake                 hangs    stop it
 *   1        draining              alive    awake again
 *   1        anything else                  waking; start or adopt; ready; awake
 *   0        awake or draining     alive    draining; wait for deliveries and visits; stop; asleep
 *   0        anything else         any      stop what may be left; asleep
 *   0        asleep, failed        none     agreed; but asleep with messages that wait: waking
 */
#include "workers/scale.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/instance.h"
#include "core/domain/instance/visit.h"
#include "core/net/pod_call.h"
#include "core/run/fiber.h"
#include "core/store/bell.h"
#include "workers/pool.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    DRAIN_POLL_MS = 20,
    /* For messages that were accepted before the sleep was asked for. Also one run's share of the wait for visits, which may
     * be longer than a job has. */
    DRAIN_MAX_MS = 5000,
    ROUTE_MARGIN_MS = 200, /* for a visit that was on its way when its route ran out */
    PORT_TRIES = 32,
    STEPS_MAX = 16,
};

static const struct pod_driver *driver;

void scale_use(const struct pod_driver *used)
{
    driver = used;
}

/* ---- up ---- */

static bool port_range(int64_t *first, int64_t *last)
{
    struct str rest = str_from(config->pod_ports);
    struct str low;
    return str_split(&rest, '-', &low) && str_to_i64(low, first) && rest.at && str_to_i64(rest, last) &&
           *first > 0 && *last <= 65535 && *first <= *last;
}

bool scale_ports_are_fit(void)
{
    int64_t first;
    int64_t last;
    return port_range(&first, &last);
}

/* Whether nobody listens there. Somebody else's server would take the pod's place: its /health may answer as well. */
static bool port_is_free(int64_t port)
{
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1;
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0)
        return true; /* the start will say what is wrong */
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool is_free = bind(descriptor, (struct sockaddr *)&where, sizeof where) == 0 || errno != EADDRINUSE;
    close(descriptor);
    return is_free;
}

/* Reserves a port in the row; the unique index says whether it is free among pods. In turn, so that a port is not soon
 * another pod's: who knows the way to the last one would be led astray. */
static int to_waking(struct job *job, struct instance *instance)
{
    int64_t first;
    int64_t last;
    CHECK(port_range(&first, &last));
    int result = -EEXIST;
    for (int i = 0; result == -EEXIST && i < PORT_TRIES; i++) {
        int64_t port;
        int asked = instance_next_port(first, last, &port);
        if (asked)
            return asked;
        if (port == 0)
            break;
        if (port_is_free(port))
            result = instance_to_waking(job, port, instance);
    }
    if (result == -EEXIST)
        return job_fail(job, result, "no port is free in POD_PORT_RANGE");
    return result;
}

static int start_failed(struct job *job, struct instance *instance, int result, const char *step)
{
    struct str reason =
        str_from(arena_printf(job->arena, "the pod did not start: %s: %s", step, log_errno(result)));
    metric_add(M_POD_START_FAILURES, 1);
    LOG(WARN, "a pod did not start", LOG_STR("instance", job->key), LOG_TEXT("step", step), LOG_ERRNO(result),
        LOG_INT("tries", job->tries + 1));
    int stopped = driver->stop(job->key.at);
    if (stopped)
        return job_fail(job, stopped, "a pod that did not become ready could not be stopped");
    if (job->tries + 1 >= job_policies[JOB_SCALE].tries)
        return instance_to_failed(job, reason, instance);
    return job_fail(job, result, "%.*s", STR_ARG(reason));
}

static int wake(struct job *job, struct instance *instance)
{
    int result = to_waking(job, instance);
    if (result)
        return result;
    CRASH_POINT("scale-waking");
    const struct pod_spec spec = {
        .instance_id = job->key.at,
        .generation = instance->generation,
        .port = (int)instance->port,
    };
    struct pod pod;
    uint64_t began_ns = clock_now_ns();
    result = driver->start(&spec, &pod);
    if (result == -ECANCELED)
        return result;
    if (result)
        return start_failed(job, instance, result, "start");
    CRASH_POINT("scale-started");
    result = pod_wait_ready(driver, spec.instance_id, pod.port);
    if (result == 0 && !driver->alive(spec.instance_id))
        result = -ESRCH;
    if (result == -ECANCELED)
        return result;
    if (result)
        return start_failed(job, instance, result, "ready");
    metric_add(pod.adopted ? M_POD_ADOPTED : M_POD_STARTS, 1);
    metric_observe_us(M_POD_WAKE_SECONDS, 0, (clock_now_ns() - began_ns) / 1000);
    CRASH_POINT("scale-ready");
    result = instance_to_awake(job, pod.pid, pod.started_at, pod.port, instance);
    LOG(INFO, "pod awake", LOG_STR("instance", job->key), LOG_INT("pid", pod.pid), LOG_INT("port", pod.port),
        LOG_BOOL("adopted", pod.adopted), LOG_INT("ms", (clock_now_ns() - began_ns) / CLOCK_MS));
    CRASH_POINT("scale-awake");
    return result;
}

/* ---- down ---- */

/*
 * Who may still be on the way to the pod, and who is there. Reactors remember the way for VISIT_ROUTE_MS, from before the
 * row was read that showed it to them; each says so in Redis before it reads. So once Redis has the row as it is now and
 * knows of no reactor, none is left, and else none is VISIT_ROUTE_MS later.
 */
struct visitors {
    bool asked;
    bool known;
    uint64_t gone_ns; /* when no reactor knows the way any more */
    int64_t requests; /* in flight; sockets are not waited for */
};

static int look_at_visitors(struct job *job, struct visitors *visitors)
{
    struct arena arena;
    int64_t sockets;
    bool known = false;
    if (visitors->asked && !visitors->known)
        return 0;
    arena_init(&arena);
    /* On the connection on which the snapshot of the row went before. */
    int result = visits_count(&arena, job->key, &known, &visitors->requests, &sockets);
    arena_clear(&arena);
    if (result == -ECANCELED || visitors->asked)
        return result == -ECANCELED ? result : 0;
    /* Without Redis, here at least, nobody says who is there, and the snapshot that others see may be an older one. */
    uint64_t lasts_ms = VISIT_ROUTE_MS + ROUTE_MARGIN_MS + (result ? INSTANCE_SNAPSHOT_MS : 0);
    visitors->asked = true;
    visitors->known = known || result;
    visitors->gone_ns = clock_in_ms(lasts_ms);
    return 0;
}

/* Requests in flight have config->drain_s from when the draining began, even if others have gone on with it since. */
static bool visits_are_over(struct job *job, const struct instance *instance, const struct visitors *visitors)
{
    if (!visitors->known)
        return true;
    if (clock_now_ns() < visitors->gone_ns)
        return false;
    if (visitors->requests == 0)
        return true;
    if (clock_wall_ms() - instance->state_ms < config->drain_s * 1000)
        return false;
    LOG(WARN, "a pod is stopped with requests in flight", LOG_STR("instance", job->key),
        LOG_INT("requests", visitors->requests), LOG_INT("seconds", config->drain_s));
    return true;
}

/*
 * Messages that were accepted before are delivered first, and requests in flight end; for a bounded time, for the pod may
 * be stuck. 0: nothing is left to wait for, or it is to be awake or gone by now. -ECANCELED also when the time of this run
 * is up and requests go on: the job is given back, and whoever takes it next goes on waiting.
 */
static int wait_until_quiet(struct job *job, struct instance *instance)
{
    uint64_t deadline_ns = clock_in_ms(DRAIN_MAX_MS);
    struct visitors visitors = {.asked = false};
    for (;;) {
        int result = instance_load(job->arena, job->key, instance);
        if (result == 0)
            result = look_at_visitors(job, &visitors);
        if (result || instance->desired || instance->deleted)
            return result;
        bool late = clock_now_ns() > deadline_ns;
        bool delivered = instance->queued == 0 && instance->lease_until_ms < clock_wall_ms();
        if ((delivered || late) && visits_are_over(job, instance, &visitors))
            return 0;
        if (late)
            return -ECANCELED;
        /* Redis may have missed our snapshot: nobody is to find the way by that of an earlier change. */
        instance_publish(instance);
        result = fiber_sleep_ms(DRAIN_POLL_MS);
        if (result)
            return result;
    }
}

static int to_sleep(struct job *job, struct instance *instance)
{
    int result = driver->stop(job->key.at);
    if (result)
        return job_fail(job, result, "the pod could not be stopped");
    CRASH_POINT("scale-stopped");
    metric_add(M_POD_STOPS, 1);
    result = instance_to_asleep(job, STR_NONE, instance);
    if (result == 0)
        LOG(INFO, "pod asleep", LOG_STR("instance", job->key));
    return result;
}

/* After a change that the row no longer fits: somebody wants something else of it by now. */
static int look_again(struct job *job, int result, struct instance *instance)
{
    return result == -EAGAIN ? instance_load(job->arena, job->key, instance) : result;
}

static int drain(struct job *job, struct instance *instance)
{
    int result = instance_to_draining(job, instance);
    if (result)
        return look_again(job, result, instance);
    CRASH_POINT("scale-draining");
    result = wait_until_quiet(job, instance);
    if (result || instance->desired || instance->deleted)
        return result;
    return to_sleep(job, instance);
}

static int end(struct job *job, struct instance *instance)
{
    int result = driver->stop(job->key.at);
    if (result == 0)
        result = driver->destroy(job->key.at);
    if (result)
        return job_fail(job, result, "the pod could not be removed");
    (void)instance;
    return instance_remove(job);
}

/* ---- the loop ---- */

static bool pod_lives(struct job *job)
{
    struct pod pod;
    return driver->alive(job->key.at) || driver->find(job->key.at, &pod) == 0;
}

/* It lives, but says nothing: what is asked of it next would fail as what made us look did. The next step finds none
 * alive and starts it anew. */
static int stop_hung(struct job *job)
{
    LOG(WARN, "a pod hangs", LOG_STR("instance", job->key));
    metric_add(M_POD_LOST, 1);
    int result = driver->stop(job->key.at);
    return result ? job_fail(job, result, "a pod that hangs could not be stopped") : 0;
}

/* One step; *agreed when nothing is left to do. `instance` is fresh before and after. */
static int step(struct job *job, struct instance *instance, bool *agreed)
{
    bool alive = pod_lives(job);
    if (instance->deleted) {
        *agreed = true;
        return end(job, instance);
    }
    if (instance->desired == 0) {
        bool up = instance->state == INSTANCE_AWAKE || instance->state == INSTANCE_DRAINING;
        if (up && alive)
            return drain(job, instance);
        bool rests = instance->state == INSTANCE_FAILED ||
                     (instance->state == INSTANCE_ASLEEP && instance->queued == 0);
        *agreed = !alive && rests;
        return *agreed ? 0 : to_sleep(job, instance);
    }
    if (alive && instance->state == INSTANCE_DRAINING)
        return look_again(job, instance_undrain(job, instance), instance);
    if (!alive || instance->state != INSTANCE_AWAKE)
        return wake(job, instance);
    *agreed = pod_is_healthy(instance->port);
    if (*agreed)
        bell_announce(job->key); /* to those who could not reach it */
    return *agreed ? 0 : stop_hung(job);
}

int scale_run(struct job *job)
{
    struct instance instance;
    int result = instance_load(job->arena, job->key, &instance);
    if (result)
        return result == -ENOENT ? 0 : result;
    bool agreed = false;
    for (int i = 0; i < STEPS_MAX && result == 0 && !agreed && !job->finished; i++)
        result = step(job, &instance, &agreed);
    if (result || job->finished)
        return result;
    return agreed ? 0 : -EAGAIN;
}
