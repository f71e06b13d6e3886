#ifndef CORE_NET_WS_H
#define CORE_NET_WS_H

#include "core/net/http.h"
#include "proto/websocket.h"

/*
 * WebSockets that end here: the server's side of one connection, without a fiber. An idle one costs its socket, its stream
 * and this struct. It is pinged after config->ws_ping_s of silence and given up after config->ws_timeout_s.
 */

struct ws;

struct ws_events {
    /* A whole message; `payload` is gone when this returns. May send and close. */
    void (*message)(struct ws *ws, bool text, struct str payload);
    /* All that was sent is with the kernel. May be NULL. */
    void (*flushed)(struct ws *ws);
    /* The last call: the socket is closed. `code` is what the peer said, or 1005 or 1006 (RFC 6455 §7.4.1). */
    void (*closed)(struct ws *ws, int code);
};

enum {
    WS_NORMAL = 1000,
    WS_GOING_AWAY = 1001,
    WS_PROTOCOL = 1002,
    WS_TOO_BIG = 1009,
    WS_INTERNAL = 1011,
    WS_TOO_SLOW = 4008, /* it fell behind by more than config->ws_queue_bytes */
};

struct ws_options {
    const struct ws_events *events;
    void *owner;
    size_t message_max; /* 0: config->ws_message_bytes */
};

/* Answers the request with 101 and takes its connection over. The handshake was checked before (gate_websocket); `key` is
 * its Sec-WebSocket-Key. NULL when the client has left. */
struct ws *ws_open(struct http_request *request, struct str key, const struct ws_options *options) MUST_USE;
void *ws_owner(const struct ws *ws);

/* Queues a message; it leaves at the end of the turn, with everything else of this turn. A peer that has not taken what
 * was queued before is closed with WS_TOO_SLOW. Nothing happens on a socket that is closing. */
void ws_send(struct ws *ws, bool text, struct str payload);
/* Bytes that wait for the peer. */
size_t ws_queued(const struct ws *ws);
/* Begins the closing handshake. Nothing is sent after it. */
void ws_close(struct ws *ws, int code, struct str reason);

/* A message for many: made into a frame once, and once more for each way of compressing it that is in use. */
struct ws_message;
struct ws_message *ws_message_new(bool text, struct str payload);
void ws_message_free(struct ws_message *message);
void ws_send_message(struct ws *ws, struct ws_message *message);

#endif
