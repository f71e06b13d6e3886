/*
 * One client connection.
 *
 *            bytes            head (and body) complete           handler returned, keep-alive
 *   IDLE ───────────▶ HEAD ───────────────────────────▶ RUNNING ─────────────────────────────▶ IDLE
 *     │                 │ 408, 4xx                          │ close
 *     └── timeout ──┐   └───────────▶ LINGER ◀──────────────┘
 *                   └──▶ CLOSING ◀───────┘ the client has closed, or LINGER_MS
 *
 * Bytes go to the parser straight from the loop's read buffer; what it can't take because a request runs is kept
 * in `pending`, up to a bound, beyond which the socket is not read. Output gathers in the stream and leaves once a turn.
 */
#include "core/net/http_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/net/peers.h"
#include "proto/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

enum { TLS_FIRST_BYTE = 0x16 /* a handshake record (RFC 8446 §5.1); no letter, so no request */ };

static uint64_t now_ms(const struct http_conn *conn)
{
    return uv_now(&conn->server->loop->uv);
}

static void deadline_in_s(struct http_conn *conn, int64_t seconds)
{
    conn->deadline_ms = now_ms(conn) + (uint64_t)seconds * 1000;
}

struct buf *conn_out(struct http_conn *conn)
{
    return stream_out(conn->stream);
}

size_t conn_queued(const struct http_conn *conn)
{
    return stream_queued(conn->stream);
}

void conn_flush_later(struct http_conn *conn)
{
    if (conn->state != CONN_CLOSING)
        stream_flush_later(conn->stream);
}

static void update_reading(struct http_conn *conn);

/* ---- the end ---- */

static void conn_free(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    http1_free(conn->parser);
    buf_clear(&conn->pending);
    MAGIC_CLEAR(conn);
    free(conn);
    server_count_conn(server, -1);
}

/* Once neither socket nor handler is left; who is in the middle of its bytes does it afterwards. */
static bool free_if_left(struct http_conn *conn)
{
    if (conn->stream || conn->fiber || conn->processing)
        return false;
    conn_free(conn);
    return true;
}

static void on_closed(struct stream *stream)
{
    struct http_conn *conn = stream->owner;
    conn->stream = NULL;
    if (!conn->fiber && conn->request) {
        request_free(conn->request);
        conn->request = NULL;
    }
    free_if_left(conn);
}

void conn_close(struct http_conn *conn)
{
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    conn->deadline_ms = 0;
    if (conn->room_waiter)
        wait_done(conn->room_waiter, -ECANCELED);
    if (conn->fiber)
        fiber_cancel(conn->fiber);
    stream_close(conn->stream);
}

struct stream *conn_take_stream(struct http_conn *conn, struct buf *early)
{
    struct stream *stream = conn->stream;
    CHECK(conn->fiber && conn->state == CONN_RUNNING);
    conn->state = CONN_CLOSING;
    conn->deadline_ms = 0;
    conn->stream = NULL;
    *early = conn->pending;
    conn->pending = (struct buf){0};
    return stream;
}

/* All is sent: says so to the client, and reads on until it has closed too, so that no reset overtakes the
 * answer. */
static void linger(struct http_conn *conn)
{
    if (conn->client_done) {
        conn_close(conn);
        return;
    }
    conn->state = CONN_LINGER;
    conn->deadline_ms = now_ms(conn) + LINGER_MS;
    buf_clear(&conn->pending);
    if (stream_shutdown(conn->stream) != 0)
        conn_close(conn);
    else
        update_reading(conn);
}

/* ---- output ---- */

static bool can_parse(const struct http_conn *conn);
static bool process_pending(struct http_conn *conn);

/* Pipelined requests that waited for the one before; their answers join this write. */
static void on_flushing(struct stream *stream)
{
    struct http_conn *conn = stream->owner;
    if (process_pending(conn))
        update_reading(conn);
}

static void on_flushed(struct stream *stream)
{
    struct http_conn *conn = stream->owner;
    if (conn->room_waiter)
        wait_done(conn->room_waiter, 0);
    if (conn->close_after && !conn->request && conn->state != CONN_LINGER)
        linger(conn);
    if (conn->state == CONN_CLOSING)
        return;
    if (conn->pending.size && can_parse(conn))
        conn_flush_later(conn);
    update_reading(conn);
}

static void on_failed(struct stream *stream, int error)
{
    (void)error;
    conn_close(stream->owner);
}

/* ---- requests ---- */

static void run_request(void *arg)
{
    struct http_conn *conn = arg;
    struct http_request *request = conn->request;
    conn->fiber = fiber_self();
    fiber_set_deadline(request->start_ns + (uint64_t)config->request_timeout_s * CLOCK_SECOND);
    conn->server->options.handle(request);
    fiber_hold();
    if (!request->status)
        http_answer(request, 500, STR_NONE);
    if (request->streaming && !request->ended) /* cut short: only closing tells the client so */
        request->close = true;
    conn->server->options.ended(request);
    fiber_release();
    conn_request_ended(conn);
}

static void start_request(struct http_conn *conn)
{
    struct http_request *request = conn->request;
    request->head = http1_head(conn->parser);
    request->start_ns = clock_now_ns();
    conn->state = CONN_RUNNING;
    conn->used = true;
    conn->deadline_ms = 0;
    fiber_start_now(conn->server->loop, "request", run_request, conn);
}

void conn_request_ended(struct http_conn *conn)
{
    struct http_request *request = conn->request;
    bool body_left = request->head->has_body && !request->body_done;
    bool keep = request->head->keep_alive && !request->close && !body_left && !conn->server->draining;
    request_free(request);
    conn->request = NULL;
    conn->fiber = NULL;
    if (conn->state == CONN_CLOSING) {
        free_if_left(conn);
        return;
    }
    conn->close_after = !keep;
    conn->state = CONN_IDLE;
    deadline_in_s(conn, config->keepalive_timeout_s);
    conn_flush_later(conn);
}

static void refuse(struct http_conn *conn, int status, const char *reason)
{
    struct http_request *request = conn->request;
    request->head = http1_head(conn->parser);
    request->close = true;
    if (!request->start_ns)
        request->start_ns = clock_now_ns();
    if (conn->fiber) {
        /* Its body is broken: the handler learns it where it waits for it. */
        request_body_done(request, -EBADMSG);
        buf_clear(&conn->pending);
        return;
    }
    conn->state = CONN_RUNNING;
    conn->server->options.malformed(request, status, reason);
    if (!request->status)
        http_answer(request, status, STR_NONE);
    conn->server->options.ended(request);
    request_free(request);
    conn->request = NULL;
    conn->state = CONN_IDLE;
    conn->close_after = true;
    conn_flush_later(conn);
}

/* True when the connection can take bytes of a request now. */
static bool can_parse(const struct http_conn *conn)
{
    if (conn->state == CONN_CLOSING || conn->state == CONN_LINGER || conn->close_after)
        return false;
    if (conn->request && conn->state == CONN_RUNNING)
        return request_wants_body(conn->request);
    return conn_queued(conn) < (size_t)config->queue_bytes;
}

/* A small body is waited for before the handler starts: then even a refusal leaves the connection usable. */
static bool comes_along(const struct http1_head *head)
{
    return !head->expect_continue && !head->chunked && head->content_length <= SMALL_BODY;
}

/* The client has so long for the next bytes of a body; as long as it likes while we don't take them. */
static void body_deadline(struct http_conn *conn)
{
    const struct http_request *request = conn->request;
    if (conn->state != CONN_RUNNING || !request || request->body_done)
        return;
    bool may_send = !request->head->expect_continue || request->continue_sent || request->body.size;
    if (may_send && request_wants_body(request))
        deadline_in_s(conn, config->body_timeout_s);
    else
        conn->deadline_ms = 0;
}

/* False when the connection is closing, or gone: it must not be touched any more. */
static bool process(struct http_conn *conn, const char *bytes, size_t size)
{
    CHECK(!conn->processing);
    conn->processing = true;
    while (size && can_parse(conn)) {
        if (!conn->request) {
            size_t empty = http1_skip_empty(conn->parser, bytes, size);
            if (empty) {
                bytes += empty;
                size -= empty;
                continue;
            }
            conn->request = request_new(conn);
            http1_begin(conn->parser, &conn->request->arena);
            conn->state = CONN_HEAD;
            conn->body_ms = 0;
            conn->body_bytes = 0;
            deadline_in_s(conn, config->header_timeout_s);
        }
        enum http1_event event;
        size_t taken = http1_feed(conn->parser, bytes, size, &event);
        bytes += taken;
        size -= taken;
        switch (event) {
        case HTTP1_MORE: break;
        case HTTP1_HEAD:
            if (comes_along(http1_head(conn->parser))) {
                deadline_in_s(conn, config->body_timeout_s);
            } else {
                start_request(conn);
                body_deadline(conn);
            }
            break;
        case HTTP1_END:
            conn->deadline_ms = 0;
            if (conn->state == CONN_RUNNING) {
                request_body_done(conn->request, 0);
            } else {
                conn->request->body_done = true;
                if (http1_head(conn->parser)->upgrade.at) { /* what follows may be of another protocol */
                    buf_add(&conn->pending, bytes, size);
                    size = 0;
                }
                start_request(conn);
            }
            break;
        case HTTP1_ERROR: {
            const char *reason;
            int status = http1_error(conn->parser, &reason);
            refuse(conn, status, reason);
            size = 0;
            break;
        }
        }
    }
    conn->processing = false;
    if (conn->state == CONN_CLOSING) {
        free_if_left(conn);
        return false;
    }
    if (size && conn->state != CONN_LINGER && !conn->close_after)
        buf_add(&conn->pending, bytes, size);
    return true;
}

/* Takes up again what could not be parsed when it came. As process(). */
static bool process_pending(struct http_conn *conn)
{
    if (!conn->pending.size || !can_parse(conn))
        return conn->state != CONN_CLOSING;
    struct buf pending = conn->pending;
    conn->pending = (struct buf){0};
    bool alive = process(conn, pending.at, pending.size);
    buf_clear(&pending);
    if (alive)
        body_deadline(conn);
    return alive;
}

void conn_body_asked(struct http_conn *conn)
{
    body_deadline(conn);
    conn_flush_later(conn);
}

/* ---- input ---- */

/* The client has closed, at least its side; a client of HTTP that does so has left. Yet it may still read what
 * was answered before. */
static void client_left(struct http_conn *conn)
{
    conn->client_done = true;
    conn->close_after = true;
    if (conn->request && !conn->fiber) {
        request_free(conn->request);
        conn->request = NULL;
        conn->state = CONN_IDLE;
    }
    stream_flush(conn->stream);
    if (conn->state != CONN_CLOSING && (conn->fiber || conn_queued(conn) == 0))
        conn_close(conn);
}

static void on_ended(struct stream *stream, int error)
{
    struct http_conn *conn = stream->owner;
    if (error)
        conn_close(conn);
    else
        client_left(conn);
}

/* For people who type http:// for https://. */
static void say_tls_is_spoken(struct http_conn *conn)
{
    buf_add_literal(conn_out(conn),
                    "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                    "Content-Length: 36\r\n\r\nThis port speaks TLS: use https://.\n");
    conn->close_after = true;
    conn_flush_later(conn);
}

static void on_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct http_conn *conn = stream->owner;
    if (UNLIKELY(!conn->begun)) {
        conn->begun = true;
        if (conn->server->tls && bytes[0] == TLS_FIRST_BYTE) {
            conn->secure = true;
            stream_start_tls(stream, conn->server->tls, bytes, size);
            return;
        }
        if (conn->server->tls) {
            say_tls_is_spoken(conn);
            return;
        }
    }
    if (conn->state == CONN_LINGER || conn->close_after)
        return; /* thrown away */
    bool alive;
    if (conn->pending.size) {
        buf_add(&conn->pending, bytes, size);
        alive = process_pending(conn);
    } else {
        alive = process(conn, bytes, size);
        if (alive)
            body_deadline(conn);
    }
    if (alive)
        update_reading(conn);
}

static void update_reading(struct http_conn *conn)
{
    /* With a request in work the socket is still read, to notice that the client left, but only so far. */
    bool want = conn->pending.size < PENDING_MAX && !conn->client_done;
    if (conn->state == CONN_RUNNING && conn->request && !conn->request->body_done &&
        !request_wants_body(conn->request))
        want = false;
    if (conn->state != CONN_RUNNING && conn_queued(conn) >= (size_t)config->queue_bytes)
        want = false;
    stream_read(conn->stream, want);
}

/* ---- time ---- */

enum { SLOW_HEAD, SLOW_BODY, SLOW_READER, SLOW_IDLE };

/* True when the body comes in more slowly than allowed. Only time in which the client could send counts. */
static bool body_is_too_slow(struct http_conn *conn, uint64_t passed_ms)
{
    conn->body_ms += passed_ms;
    return config->body_rate && conn->body_ms > (uint64_t)config->body_timeout_s * 1000 &&
           conn->body_bytes < conn->body_ms * (uint64_t)config->body_rate / 1000;
}

static void on_sweep(struct stream *stream, uint64_t now)
{
    struct http_conn *conn = stream->owner;
    uint64_t passed_ms = now - conn->swept_ms;
    conn->swept_ms = now;
    if (conn->state == CONN_CLOSING)
        return;
    if (stream_is_stalled(stream, now)) {
        metric_add_slot(M_TIMED_OUT, SLOW_READER, 1);
        conn_close(conn);
        return;
    }
    if (!conn->deadline_ms)
        return;
    bool slow_body = conn->state == CONN_RUNNING && body_is_too_slow(conn, passed_ms);
    if (now < conn->deadline_ms && !slow_body)
        return;
    if (conn->state == CONN_IDLE && conn_queued(conn)) {
        deadline_in_s(conn, config->keepalive_timeout_s); /* it is not idle yet */
    } else if (conn->state == CONN_HEAD) {
        metric_add_slot(M_TIMED_OUT, SLOW_HEAD, 1);
        conn->deadline_ms = 0;
        refuse(conn, 408, "the request took too long to come");
    } else if (conn->state == CONN_RUNNING) {
        metric_add_slot(M_TIMED_OUT, SLOW_BODY, 1);
        conn->deadline_ms = 0;
        conn->request->close = true;
        request_body_done(conn->request, -ETIMEDOUT);
    } else {
        metric_add_slot(M_TIMED_OUT, SLOW_IDLE, conn->state == CONN_IDLE);
        conn_close(conn);
    }
}

static void on_drain(struct stream *stream)
{
    struct http_conn *conn = stream->owner;
    if (conn->state != CONN_IDLE || conn->close_after)
        return;
    if (!conn->used) {
        /* It was accepted a moment ago, and its first request may be on the way. */
        uint64_t fresh_ms = now_ms(conn) + FRESH_MS;
        if (conn->deadline_ms > fresh_ms)
            conn->deadline_ms = fresh_ms;
        return;
    }
    if (!conn_queued(conn)) {
        conn_close(conn);
        return;
    }
    conn->close_after = true;
    conn_flush_later(conn);
}

static void on_cut(struct stream *stream)
{
    struct http_conn *conn = stream->owner;
    conn_close(conn);
}

/* ---- the beginning ---- */

static const struct stream_events conn_events = {
    .bytes = on_bytes,
    .ended = on_ended,
    .flushing = on_flushing,
    .flushed = on_flushed,
    .failed = on_failed,
    .sweep = on_sweep,
    .drain = on_drain,
    .cut = on_cut,
    .closed = on_closed,
};

static void name_peer(struct http_conn *conn)
{
    int size = sizeof conn->peer;
    if (uv_tcp_getpeername(&conn->stream->tcp, (struct sockaddr *)&conn->peer, &size) != 0)
        conn->peer.ss_family = AF_UNSPEC;
    const struct sockaddr_in *v4 = (struct sockaddr_in *)&conn->peer;
    const struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&conn->peer;
    if (conn->peer.ss_family == AF_INET)
        uv_ip4_name(v4, conn->peer_text, sizeof conn->peer_text);
    else if (conn->peer.ss_family == AF_INET6)
        uv_ip6_name(v6, conn->peer_text, sizeof conn->peer_text);
}

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct http_conn *conn = arg;
    conn->body_bytes += size;
    request_body_bytes(conn->request, bytes, size);
}

void conn_open(struct http_server *server)
{
    struct http_conn *conn = mem_zalloc(sizeof *conn);
    MAGIC_SET(conn, HTTP_CONN_MAGIC);
    conn->server = server;
    conn->parser = http1_new(on_body, conn);
    conn->stream = stream_new(server->loop, &conn_events, conn);
    server_count_conn(server, 1);
    if (stream_accept(conn->stream, (uv_stream_t *)&server->listener) != 0) {
        conn_close(conn);
        return;
    }
    metric_add(M_ACCEPTED, 1);
    name_peer(conn);
    if (!server_add(server, conn->stream, (struct sockaddr *)&conn->peer)) {
        conn_close(conn);
        return;
    }
    conn->swept_ms = now_ms(conn);
    deadline_in_s(conn, config->header_timeout_s);
    update_reading(conn);
}
