#ifndef CORE_DOMAIN_INSTANCE_VISIT_H
#define CORE_DOMAIN_INSTANCE_VISIT_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/domain/instance/instance.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Visits: requests and sockets that are proxied to an instance's pod.
 *
 * Each loop remembers for VISIT_ROUTE_MS where a pod listens, so that a proxied request costs no round trip. That is safe
 * because a pod is stopped only after it has been draining for longer than that and no request is in flight to it any
 * more (visits_in_flight), and because ports are given out in turn, not again at once.
 *
 * What the loop knows of its visits is told to Redis at most once a second (schema/redis.md: visits:ID), the activity of
 * an instance to its row every few seconds.
 */

enum {
    VISIT_ROUTE_MS = 500,
    VISIT_KEEP_S = 10, /* a reactor that died stops counting after so long */
};

enum visit_kind {
    VISIT_REQUEST, /* in flight: a sleep waits for its end */
    VISIT_SOCKET,  /* an upgraded connection: a sleep ends it */
};

/* One visit. */
struct visit;

/*
 * Begins a visit: looks up the pod, wakes it when it sleeps, and waits until it is awake, at most until the deadline.
 * Waking begins even when the wait ends at once. Counts as activity. 0; -ENOENT: no such instance; -EBUSY: its start failed
 * a moment ago; -ETIMEDOUT: still waking; -EUSERS: too many requests wait for this instance (config->hold_per_instance) or in
 * all (config->hold_total); -ECANCELED; and the errors of the stores.
 */
int visit_open(struct str instance_id, enum visit_kind kind, uint64_t deadline_ns, struct visit **visit)
    MUST_USE;
int visit_port(const struct visit *visit);
uint64_t visit_generation(const struct visit *visit);
/* Something has passed that counts as activity. Costs next to nothing; call it as often as you like. */
void visit_active(struct visit *visit);
/* The pod could not be reached: the next visit looks anew, and the pod is looked after (a scale job). */
void visit_unreachable(struct visit *visit);
/* A request has become a socket. */
void visit_to_socket(struct visit *visit);
void visit_close(struct visit *visit);

/* Over all reactors, by Redis: requests in flight, and open sockets. `known`: some reactor has proxied to it in the last
 * VISIT_KEEP_S, so a route to it may still be remembered. Waits. */
int visits_count(struct arena *arena, struct str instance_id, bool *known, int64_t *requests,
                 int64_t *sockets) MUST_USE;
/* An instance for showing (instance_get), and who is connected to it, in one round trip. Counts are 0 while Redis is away. */
int visits_show(struct arena *arena, int64_t account_id, struct str instance_id, struct instance *instance,
                int64_t *requests, int64_t *sockets) MUST_USE;

/* The fiber that tells Redis and PostgreSQL. */
void visit_open_loop(struct loop *loop);
/* Tells what is left to tell, and frees. Waits. */
void visit_close_loop(struct loop *loop);

#endif
