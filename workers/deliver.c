/* The deliver job: the delivery lease, then one message after the other until none waits or its time is up. */
#include "workers/deliver.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/base/metrics.h"
#include "core/domain/instance/message.h"
#include "core/net/pod_call.h"
#include "core/run/fiber.h"

#include <errno.h>

enum { DELIVER_FOR_MS = 5000 /* then the next job goes on, so that one instance does not keep a worker */ };

static int deliver_one(struct arena *arena, const struct delivery *delivery, bool keep, int64_t *left)
{
    struct message message;
    int result = delivery_next(arena, delivery, &message);
    if (result)
        return result;
    struct fetch_answer answer = {0};
    result = pod_chat(arena, delivery->port, delivery->instance_id, message.id, message.text, &answer);
    CRASH_POINT("deliver-sent");
    const struct pod_answer outcome = {.result = result, .status = answer.status, .body = answer.body};
    result = delivery_record(arena, delivery, &message, &outcome, keep, left);
    CRASH_POINT("deliver-done");
    if (result == 0)
        metric_add(M_MESSAGES_QUEUED, 1);
    return result;
}

int deliver_run(struct job *job)
{
    struct delivery delivery;
    int result = delivery_take(job->arena, job->key, &delivery);
    if (result)
        return result == -ENOENT ? 0 : result;
    CRASH_POINT("deliver-claimed");
    uint64_t until_ns = clock_in_ms(DELIVER_FOR_MS);
    int64_t left = 1;
    while (result == 0 && left > 0) {
        struct arena arena;
        bool keep = clock_now_ns() < until_ns;
        arena_init(&arena);
        result = deliver_one(&arena, &delivery, keep, &left);
        arena_clear(&arena);
        if (!keep)
            break;
    }
    /* Another holder has gone on with it, or the pod is being looked after: both ring anew. */
    return result == -ENOENT || result == -ESTALE || result == -EAGAIN ? 0 : result;
}
