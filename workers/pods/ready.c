/* Waiting for a started pod to answer. */
#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/net/fetch.h"
#include "core/run/fiber.h"
#include "workers/pods/driver.h"

#include <errno.h>
#include <stdio.h>

enum {
    PAUSE_MIN_MS = 2,
    PAUSE_MAX_MS = 25,
    ANSWER_MAX_BYTES = 64 * 1024, /* nobody reads it, but a pod may say more than "ok" */
};

/* One GET: 0 for a 200; -EAGAIN for any other outcome that time may change; -ECANCELED. */
static int try_once(const char *url, uint64_t left_ms, struct arena *arena)
{
    uint64_t connect_ms = (uint64_t)config->pod_connect_ms;
    struct fetch_request request = {
        .method = "GET",
        .url = url,
        .connect_timeout_ms = connect_ms < left_ms ? connect_ms : left_ms,
        .total_timeout_ms = left_ms,
        .max_body_bytes = ANSWER_MAX_BYTES,
    };
    struct fetch_answer answer;
    int result = fetch(&request, arena, &answer);
    if (result == 0 && answer.status == 200)
        return 0;
    return result == -ECANCELED ? result : -EAGAIN;
}

int pod_wait_ready(const struct pod_driver *driver, const char *instance_id, int port)
{
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/health", port);
    uint64_t deadline_ns = clock_in_ms((uint64_t)config->pod_ready_ms);
    uint64_t pause_ms = PAUSE_MIN_MS;
    struct arena arena;
    arena_init(&arena);
    int result = -EAGAIN;
    while (result == -EAGAIN) {
        uint64_t now_ns = clock_now_ns();
        if (!driver->alive(instance_id))
            return -ESRCH;
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        result = try_once(url, (deadline_ns - now_ns) / CLOCK_MS + 1, &arena);
        arena_clear(&arena);
        if (result == -EAGAIN) {
            int slept = fiber_sleep_ms(pause_ms);
            if (slept < 0)
                return slept;
            pause_ms = pause_ms * 2 < PAUSE_MAX_MS ? pause_ms * 2 : PAUSE_MAX_MS;
        }
    }
    /* The answer may have been another's, who has the port that the pod could not get. */
    if (result == 0 && !driver->alive(instance_id))
        return -ESRCH;
    return result;
}
