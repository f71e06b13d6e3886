#ifndef CORE_GATE_AUDIENCE_H
#define CORE_GATE_AUDIENCE_H

#include "core/domain/event/feed.h"
#include "core/net/fanout.h"
#include "core/run/fiber.h"

/*
 * Who listens to an account's events in one loop: one feed for all of them. WebSockets that have caught up get events by the
 * fanout; others, and event streams, are told that there is news and read on from their place (events.h).
 */

struct audience {
    struct link link;
    int64_t account_id;
    char name[24]; /* the account's number */
    size_t name_size;
    struct feed *feed;
    struct fanout *fanout;
    struct link readers; /* all event streams */
    unsigned streams;
    uint64_t empty_ns; /* since when nobody listens */
};

/* One that reads on from its place: told of news once, then it asks again. */
struct audience_reader {
    struct link link;
    struct wait wait;
};

void audience_open_loop(struct loop *loop);
/* Everybody has left. On a fiber, before the feeds are closed. */
void audience_close_loop(struct loop *loop);

/* One more stream of the account. NULL: it has config->event_streams here already. */
struct audience *audience_enter(int64_t account_id) MUST_USE;
/* The feed stays for AUDIENCE_LINGER_MS, for clients that were cut come back. */
enum { AUDIENCE_LINGER_MS = 10000 };
void audience_leave(struct audience *audience);
/* Ends what nobody came back to. From time to time. */
void audience_sweep(struct loop *loop);

void audience_each(struct loop *loop, void (*visit)(struct audience *audience, void *arg), void *arg);

void audience_read(struct audience *audience, struct audience_reader *reader);
void audience_stop_reading(struct audience_reader *reader);

#endif
