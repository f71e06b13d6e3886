#ifndef CORE_GATE_LIVE_H
#define CORE_GATE_LIVE_H

#include "core/gate/gate.h"
#include "core/net/ws.h"

/* Answers that stay open: WebSockets and event streams. */

/*
 * Checks a WebSocket handshake (RFC 6455 §4.2.1) and answers it with 101. An Origin that is present must be the request's
 * own host or stand in CORS_ORIGINS: 403 before anything else, so that no foreign page can open one with a user's cookies.
 * NULL when it has replied itself (400, 403, 426), or the client has left.
 */
struct ws *gate_websocket(struct request *request, const struct ws_options *options) MUST_USE;

/*
 * Server-sent events, from a handler's fiber:
 *
 *     struct sse sse;
 *     sse_begin(&sse, request);
 *     while (sse_wait(&sse, &wait, "news", CLOCK_NEVER) == 0)
 *         if (sse_send(&sse, id, STR("job.done"), data))
 *             break;
 *     sse_end(&sse);
 */
#define SSE_TYPE "text/event-stream; charset=utf-8"
struct sse {
    struct request *request;
    uint64_t spoken_ns; /* when something was sent last */
};
void sse_begin(struct sse *sse, struct request *request);
/* Waits while the client has too much to take. 0, -ECANCELED, -ETIMEDOUT. */
int sse_send(struct sse *sse, struct str id, struct str event, struct str data) MUST_USE;
/* As wait_for, and sends a comment after every config->sse_comment_s of silence meanwhile. */
int sse_wait(struct sse *sse, struct wait *wait, const char *what, uint64_t deadline_ns) MUST_USE;
/* For who waits by other means: events that are written already (proto/sse.h), and a comment once sse_comment_ns is past. They wait and
 * fail as sse_send. */
int sse_write(struct sse *sse, struct str events) MUST_USE;
int sse_comment(struct sse *sse) MUST_USE;
uint64_t sse_comment_ns(const struct sse *sse);
void sse_end(struct sse *sse);
/* Where the client wants to go on: the field Last-Event-ID, or the query's last_event_id; absent at a first visit. */
struct str sse_last_id(const struct request *request);

#endif
