#ifndef CORE_GATE_EVENTS_INTERNAL_H
#define CORE_GATE_EVENTS_INTERNAL_H

#include "core/gate/audience.h"
#include "core/gate/events.h"
#include "core/gate/watch.h"

enum { EVENTS_WAIT_MS = 5000 /* for an account's last event */ };
enum events_kind { EVENTS_SOCKET, EVENTS_SSE };

/* What a client asks for. */
struct events_wish {
    event_set kinds;
    bool narrowed;      /* it named them */
    struct str last_id; /* absent: from now on */
};

/* Where it begins, by what it has had last: *seq is that one's number, and stays as it is when there is none or nobody knows it. *gap:
 * NULL, or why not all can be had ("expired", "unknown"). Waits. */
int events_place(struct audience *audience, struct str last_id, int64_t *seq, const char **gap) MUST_USE;
/* Sends what comes after *seq, up to the feed's place or up to `last`, and moves *seq along. NULL is sent where some are missing,
 * for they have become too old meanwhile. `send` may wait; its errors end it. Waits. */
int events_replay(struct audience *audience, int64_t *seq, int64_t last,
                  int (*send)(void *arg, const struct event_told *event), void *arg) MUST_USE;
/* {"type":"gap","reason",…} */
void events_put_gap(struct buf *out, const char *reason, struct str last_id);
/* {"type":"error","code","message"} */
void events_put_error(struct buf *out, const char *code, const char *message);

/* The request is known (request->principal), or may say who it is in its first message. */
void events_serve_socket(struct request *request, const struct events_wish *wish);
void events_serve_sse(struct request *request, const struct events_wish *wish);
void events_end_sse(struct loop *loop);

/* The loop's part of sockets. Closing waits, on a fiber. */
void listener_open_loop(struct loop *loop);
void listener_close_loop(struct loop *loop);

#endif
