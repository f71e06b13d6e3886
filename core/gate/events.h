#ifndef CORE_GATE_EVENTS_H
#define CORE_GATE_EVENTS_H

#include "core/gate/gate.h"

/*
 * An account's events as a WebSocket or as server-sent events (contract: "Events"). Handlers for the surfaces' tables, with
 * SCOPE_EVENTS; the stream's row has ROUTE_ASKS_ITSELF.
 *
 * A stream has every event that is committed after its handshake was answered, once, in order; one that names the last event it
 * has had, all after that. It ends when the key or log-in that opened it does.
 *
 *     to a WebSocket      {"id","type","timestamp","data"}; {"type":"gap",…}; answers to what it says; {"type":"error","code","message"}
 *     from it             auth, subscribe, unsubscribe, resume, ping: listener_words.c
 *     closed with         4401 not (or no longer) known, 4403 not allowed, 4429 too many, 1013 a store is away, and core/net/ws.h's
 */

/* GET …/stream: by its Upgrade or Accept field. */
void events_stream(struct request *request);
/* POST …/stream/ticket */
void events_ticket(struct request *request);

/* Once per process, before threads. */
void events_init(void);
/* The loop's part. After the stores were opened; closing waits, on a fiber. */
void events_open_loop(struct loop *loop);
/* The server drains: event streams end. (WebSockets hear it from their server.) */
void events_end_streams(struct loop *loop);
void events_close_loop(struct loop *loop);

#endif
