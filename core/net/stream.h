#ifndef CORE_NET_STREAM_H
#define CORE_NET_STREAM_H

#include "core/base/list.h"
#include "core/base/str.h"
#include "core/run/fiber.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

/*
 * A connected byte stream of one loop: TCP, plain or under TLS. It has an owner, told of what happens through a table of
 * callbacks; the owner may change (an HTTP connection becomes a WebSocket, or one half of a tunnel).
 *
 * Output gathers in a buffer and leaves once, at the end of the turn; what the kernel does not take at once is kept and
 * counted (stream_queued), and it is the owner who stops producing then. Callbacks run outside of fibers.
 */

struct stream;
struct tls_context;

struct stream_events {
    /* Bytes have come. They are the stream's and gone when this returns; stream_read(stream, false) within it stops
     * further calls. */
    void (*bytes)(struct stream *stream, const char *bytes, size_t size);
    /* Nothing more will come: 0 when the peer has closed its side in order, else the error. The stream is still open for
     * output when it was 0. */
    void (*ended)(struct stream *stream, int error);
    /* At the end of a turn for which stream_flush_later was called, before the output leaves; may add to it, or close
     * the stream. May be NULL. */
    void (*flushing)(struct stream *stream);
    /* The queue is empty again. May be NULL. */
    void (*flushed)(struct stream *stream);
    /* Output failed: the peer is gone. The owner closes the stream. */
    void (*failed)(struct stream *stream, int error);
    /* From its server's sweep, a few times a second: for deadlines. `now_ms` in uv_now() terms. May be NULL. */
    void (*sweep)(struct stream *stream, uint64_t now_ms);
    /* From its server's drain, again and again until it is closed: end soon, in order. May be NULL. */
    void (*drain)(struct stream *stream);
    /* The drain's time is up: close now. May be NULL, then stream_close is called. */
    void (*cut)(struct stream *stream);
    /* After stream_close, once the socket is closed: the last call; the stream is freed after it. */
    void (*closed)(struct stream *stream);
};

enum stream_tls_state { STREAM_PLAIN, STREAM_HANDSHAKE, STREAM_SECURE };

struct stream {
    unsigned magic;
    const struct stream_events *events;
    void *owner;
    struct loop *loop;
    uv_tcp_t tcp;
    struct flush flush;
    struct buf out;     /* not yet given to the socket; plain text */
    struct buf sending; /* in the present uv_write */
    size_t sending_left;
    uv_write_t write;
    uint64_t write_deadline_ms; /* uv_now() terms; 0: none */
    size_t write_left;          /* of the present uv_write, when the clock was last looked at */
    struct stream_tls *tls;     /* NULL: plain */
    struct link server_link;    /* these are its server's */
    void *server;
    struct peer *peer;
    void (*released)(struct stream *stream); /* after `closed`, before it is freed */
    bool wants_read;
    bool reading;
    bool writing;
    bool ended;
    bool closing;
    bool closed; /* the handle is */
};

/* A new stream that is not connected yet. */
struct stream *stream_new(struct loop *loop, const struct stream_events *events, void *owner);
/* Takes the next connection of a listener. Negative: libuv's error; close the stream. */
int stream_accept(struct stream *stream, uv_stream_t *listener) MUST_USE;
/* Connects. Waits. 0, -ECONNREFUSED, -ETIMEDOUT, -ECANCELED …; after an error close it. */
int stream_connect(struct stream *stream, const struct sockaddr *address, uint64_t deadline_ns) MUST_USE;
/* From now on all bytes go through TLS, with us as the server; the handshake's heavy steps run on the thread pool, at most
 * config->tls_handshakes at once. To be called in the first call of `bytes`, whose bytes it is given; nothing was written
 * before. Keeps a reference to the context until the stream is closed. */
void stream_start_tls(struct stream *stream, struct tls_context *context, const char *bytes, size_t size);
enum stream_tls_state stream_tls_state(const struct stream *stream);

/* Hands the stream to another owner. */
void stream_own(struct stream *stream, const struct stream_events *events, void *owner);

/* Whether the owner wants bytes now. */
void stream_read(struct stream *stream, bool wanted);
/* The buffer to add output to, with memory behind it; then call stream_flush_later. */
struct buf *stream_out(struct stream *stream);
void stream_flush_later(struct stream *stream);
/* Does what the end of the turn would do, now. */
void stream_flush(struct stream *stream);
/* Bytes that wait for the peer. */
size_t stream_queued(const struct stream *stream);
/* True when the peer has taken nothing of the output for config->write_timeout_s. Call it from time to time. */
bool stream_is_stalled(struct stream *stream, uint64_t now_ms);
/* Says to the peer that no more will come; call it when the queue is empty. 0 or negative. */
int stream_shutdown(struct stream *stream) MUST_USE;
/* Closes at once; what is queued is lost. Safe to repeat. `closed` is called in a later turn. */
void stream_close(struct stream *stream);

/* A spare buffer of the loop's, so that building output costs no malloc. Given back empty or not. */
struct buf stream_spare_take(void);
void stream_spare_give(struct buf *buffer);
/* Frees what the loop keeps for its streams. */
void stream_close_loop(struct loop *loop);

/* How many streams the process may have, clients' and pods': each holds a descriptor. Before the first one. */
void stream_set_limit(long limit);
/* Whether there is room for one more client. Connections to pods may go a little further (DESCRIPTOR_RESERVE). */
bool stream_has_room(void);

#endif
