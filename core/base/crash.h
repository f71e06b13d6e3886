#ifndef CORE_BASE_CRASH_H
#define CORE_BASE_CRASH_H

#include "core/base/check.h"

#include <stddef.h>

/*
 * Crash points: places between two steps where a fault test kills the process, as kill -9 would. Only in test
 * builds; in a release build a CRASH_POINT is nothing.
 *
 *     WAKEGATE_CRASH_AT=name      the process ends by SIGKILL as it passes the point of this name
 *     WAKEGATE_CRASH_AT=name:3    … as it passes it for the third time
 *     WAKEGATE_CRASH_ONCE=path    … only if this file does not exist; it is made first, so that a process that is
 *                                 started again does not end the same way
 */

/* clang-format off */
/*    name                what was done before it */
#define CRASH_POINTS(X) \
    X("job-claimed",      "a job is leased to this worker, nothing of it is done") \
    X("scale-waking",     "the instance's row says waking, no pod was started") \
    X("pod-locked",       "the pod's lock is taken, its process does not exist") \
    X("pod-forked",       "the pod's process exists, nobody was told of it") \
    X("scale-started",    "the pod was started, the row does not say so") \
    X("scale-ready",      "the pod answers, the row still says waking") \
    X("scale-awake",      "the row says awake, the job is not done") \
    X("scale-draining",   "the row says draining, the pod was not told") \
    X("scale-stopped",    "the pod has ended, the row still says draining") \
    X("deliver-claimed",  "a message is claimed, it was not sent") \
    X("deliver-sent",     "the pod has answered a message, the row does not say so") \
    X("deliver-done",     "the row of a message says delivered, the job is not done") \
    X("call-accepted",    "an AI call with a key is a row, the queue has not heard of it") \
    X("ai-claimed",       "an AI call is this worker's, no provider was asked") \
    X("ai-called",        "a provider has begun to answer, nothing of it was read") \
    X("ai-first-piece",   "the first piece of a streamed answer is on its way") \
    X("ai-answered",      "a provider has answered, nobody was told") \
    X("ai-finished",      "the client was told, PostgreSQL was not") \
    X("ai-settled",       "the end is committed, Redis still has it") \
    X("event-relayed",    "events are numbered, nobody was told") \
    X("lease-granted",    "a slice has left PostgreSQL, Redis does not have it") \
    X("lease-taken",      "Redis has given a lease back, PostgreSQL does not say so") \
    X("webhook-claimed",  "webhook deliveries are in hand, none was sent") \
    X("webhook-sent",     "an endpoint has answered a delivery, nothing is logged") \
    X("webhook-settled",  "attempts are logged, the job of the endpoint is not done") \
    X("webhook-ended",    "the job of the endpoint is done, nothing after it")
/* clang-format on */

#ifdef WAKEGATE_TEST_BUILD

struct crash_row {
    const char *name;
    const char *help;
};

extern const struct crash_row crash_points[];
extern const size_t crash_point_count;

/* Ends the process if it is told to at this point; the name must stand in the table. From any thread. */
void crash_point(const char *name);
#define CRASH_POINT(name) crash_point(name)

#else
#define CRASH_POINT(name) ((void)0)
#endif

#endif
