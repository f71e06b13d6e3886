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
 * in `pending`, up to a bound, beyond which the socket is not read. Output gathers in `out` and leaves once a turn.
 */
#include "core/net/http_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdlib.h>

/* What all servers of a loop share. */
struct http_loop {
    char read[READ_SIZE];
    struct buf spares[64];
    unsigned spare_count;
};

enum { SPARE_MAX = 64 * 1024 };

static struct http_loop *http_loop(void)
{
    struct loop *loop = loop_self();
    if (UNLIKELY(!loop->slots[LOOP_HTTP]))
        loop->slots[LOOP_HTTP] = mem_zalloc(sizeof(struct http_loop));
    return loop->slots[LOOP_HTTP];
}

struct buf http_spare_take(void)
{
    struct http_loop *shared = http_loop();
    return shared->spare_count ? shared->spares[--shared->spare_count] : (struct buf){0};
}

void http_spare_give(struct buf *buffer)
{
    struct http_loop *shared = http_loop();
    if (buffer->at && buffer->capacity <= SPARE_MAX && shared->spare_count < ARRAY_SIZE(shared->spares)) {
        buffer->size = 0;
        shared->spares[shared->spare_count++] = *buffer;
        *buffer = (struct buf){0};
        return;
    }
    buf_clear(buffer);
}

void http_close_loop(struct loop *loop)
{
    struct http_loop *shared = loop->slots[LOOP_HTTP];
    if (!shared)
        return;
    while (shared->spare_count)
        buf_clear(&shared->spares[--shared->spare_count]);
    free(shared);
    loop->slots[LOOP_HTTP] = NULL;
}

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
    if (!conn->out.at)
        conn->out = http_spare_take();
    return &conn->out;
}

size_t conn_queued(const struct http_conn *conn)
{
    return conn->out.size + conn->sending_left;
}

/* ---- the end ---- */

static void conn_free(struct http_conn *conn)
{
    struct http_server *server = conn->server;
    http1_free(conn->parser);
    buf_clear(&conn->pending);
    http_spare_give(&conn->out);
    http_spare_give(&conn->sending);
    MAGIC_CLEAR(conn);
    server_remove(server, conn);
    free(conn);
}

static void on_closed(uv_handle_t *handle)
{
    struct http_conn *conn = handle->data;
    conn->closed = true;
    if (conn->fiber)
        return; /* its handler ends first; conn_request_ended frees the connection */
    if (conn->request)
        request_free(conn->request);
    conn_free(conn);
}

void conn_close(struct http_conn *conn)
{
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    conn->deadline_ms = 0;
    conn->write_deadline_ms = 0;
    loop_flush_forget(&conn->flush);
    if (conn->room_waiter)
        wait_done(conn->room_waiter, -ECANCELED);
    if (conn->fiber)
        fiber_cancel(conn->fiber);
    uv_close((uv_handle_t *)&conn->tcp, on_closed);
}

static void on_shutdown(uv_shutdown_t *shutdown, int status)
{
    (void)shutdown;
    (void)status;
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
    conn->shutdown.data = conn;
    if (uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown) != 0) {
        conn_close(conn);
        return;
    }
    conn_update_reading(conn);
}

/* ---- output ---- */

static void on_written(uv_write_t *write, int status)
{
    struct http_conn *conn = write->data;
    conn->writing = false;
    if (status == 0)
        metric_add(M_BYTES_OUT, (int64_t)conn->sending_left);
    conn->sending_left = 0;
    http_spare_give(&conn->sending);
    if (conn->state == CONN_CLOSING)
        return;
    if (status < 0)
        conn_close(conn);
    else
        conn_flush_later(conn);
}

static void send_rest(struct http_conn *conn, size_t sent)
{
    conn->sending = conn->out;
    conn->out = (struct buf){0};
    conn->sending_left = conn->sending.size - sent;
    conn->write.data = conn;
    conn->writing = true;
    conn->write_left = conn->sending_left;
    conn->write_deadline_ms = now_ms(conn) + (uint64_t)config->write_timeout_s * 1000;
    uv_buf_t rest = uv_buf_init(conn->sending.at + sent, (unsigned)conn->sending_left);
    if (uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &rest, 1, on_written) != 0) {
        conn->writing = false;
        conn->sending_left = 0;
        conn_close(conn);
    }
}

static void flush_out(struct http_conn *conn)
{
    if (conn->writing)
        return;
    if (conn->out.size) {
        uv_buf_t all = uv_buf_init(conn->out.at, (unsigned)conn->out.size);
        int sent = uv_try_write((uv_stream_t *)&conn->tcp, &all, 1);
        if (sent < 0 && sent != UV_EAGAIN) {
            conn_close(conn);
            return;
        }
        sent = sent < 0 ? 0 : sent;
        metric_add(M_BYTES_OUT, sent);
        if ((size_t)sent < conn->out.size) {
            send_rest(conn, (size_t)sent);
            return;
        }
        http_spare_give(&conn->out);
    }
    conn->write_deadline_ms = 0;
    if (conn->room_waiter)
        wait_done(conn->room_waiter, 0);
    if (conn->close_after && !conn->request && conn->state != CONN_LINGER)
        linger(conn);
}

static bool can_parse(const struct http_conn *conn);
static void process_pending(struct http_conn *conn);

static void on_flush(struct flush *flush)
{
    struct http_conn *conn = CONTAINER_OF(flush, struct http_conn, flush);
    /* Pipelined requests that waited for the one before; their answers join this write. */
    process_pending(conn);
    flush_out(conn);
    if (conn->state == CONN_CLOSING)
        return;
    if (conn->pending.size && can_parse(conn))
        conn_flush_later(conn);
    conn_update_reading(conn);
}

void conn_flush_later(struct http_conn *conn)
{
    if (conn->state != CONN_CLOSING)
        loop_flush_later(conn->server->loop, &conn->flush);
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
        if (conn->closed)
            conn_free(conn);
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
    return conn_queued(conn) < HTTP_QUEUE_MAX;
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

static void process(struct http_conn *conn, const char *bytes, size_t size)
{
    CHECK(!conn->processing);
    conn->processing = true;
    while (size && can_parse(conn)) {
        if (!conn->request) {
            if (*bytes == '\r' || *bytes == '\n') { /* empty lines before a request begin none */
                bytes++;
                size--;
                continue;
            }
            conn->request = request_new(conn);
            http1_begin(conn->parser, &conn->request->arena);
            conn->state = CONN_HEAD;
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
    if (size && conn->state != CONN_CLOSING && conn->state != CONN_LINGER && !conn->close_after)
        buf_add(&conn->pending, bytes, size);
}

/* Takes up again what could not be parsed when it came. */
static void process_pending(struct http_conn *conn)
{
    if (!conn->pending.size || !can_parse(conn))
        return;
    struct buf pending = conn->pending;
    conn->pending = (struct buf){0};
    process(conn, pending.at, pending.size);
    buf_clear(&pending);
    body_deadline(conn);
}

void conn_body_asked(struct http_conn *conn)
{
    body_deadline(conn);
    conn_flush_later(conn);
}

/* ---- input ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(http_loop()->read, READ_SIZE);
}

/* The client has closed, at least its side; a client of HTTP that does so has left. Yet it may still read what
 * was answered before. */
static void client_left(struct http_conn *conn)
{
    conn->client_done = true;
    conn->reading = false;
    conn->close_after = true;
    if (conn->request && !conn->fiber) {
        request_free(conn->request);
        conn->request = NULL;
        conn->state = CONN_IDLE;
    }
    flush_out(conn);
    if (!conn->writing || conn->fiber)
        conn_close(conn);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct http_conn *conn = stream->data;
    if (count == 0)
        return;
    if (count == UV_EOF) {
        client_left(conn);
        return;
    }
    if (count < 0) {
        conn_close(conn);
        return;
    }
    metric_add(M_BYTES_IN, count);
    if (conn->state == CONN_LINGER || conn->close_after)
        return; /* thrown away */
    if (conn->pending.size) {
        buf_add(&conn->pending, buffer->base, (size_t)count);
        process_pending(conn);
    } else {
        process(conn, buffer->base, (size_t)count);
        body_deadline(conn);
    }
    conn_update_reading(conn);
}

void conn_update_reading(struct http_conn *conn)
{
    if (conn->state == CONN_CLOSING)
        return;
    /* With a request in work the socket is still read, to notice that the client left, but only so far. */
    bool want = conn->pending.size < PENDING_MAX && !conn->client_done;
    if (conn->state == CONN_RUNNING && conn->request && !conn->request->body_done &&
        !request_wants_body(conn->request))
        want = false;
    if (conn_queued(conn) >= HTTP_QUEUE_MAX && conn->state != CONN_RUNNING)
        want = false;
    if (want == conn->reading)
        return;
    conn->reading = want;
    if (want)
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&conn->tcp);
}

/* True when the client has taken nothing of its answer for too long. */
static bool write_stalled(struct http_conn *conn, uint64_t now)
{
    if (!conn->write_deadline_ms)
        return false;
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp);
    if (left < conn->write_left) {
        conn->write_left = left;
        conn->write_deadline_ms = now + (uint64_t)config->write_timeout_s * 1000;
    }
    return now >= conn->write_deadline_ms;
}

void conn_sweep(struct http_conn *conn, uint64_t now)
{
    if (conn->state == CONN_CLOSING)
        return;
    if (write_stalled(conn, now)) {
        conn_close(conn);
        return;
    }
    if (!conn->deadline_ms || now < conn->deadline_ms)
        return;
    if (conn->state == CONN_IDLE && conn->writing) {
        deadline_in_s(conn, config->keepalive_timeout_s); /* it is not idle yet */
    } else if (conn->state == CONN_HEAD) {
        conn->deadline_ms = 0;
        refuse(conn, 408, "the request took too long to come");
    } else if (conn->state == CONN_RUNNING) {
        conn->deadline_ms = 0;
        conn->request->close = true;
        request_body_done(conn->request, -ETIMEDOUT);
    } else {
        conn_close(conn);
    }
}

void conn_drain(struct http_conn *conn)
{
    if (conn->state != CONN_IDLE)
        return;
    if (!conn->used) {
        /* It was accepted a moment ago, and its first request may be on the way. */
        conn->deadline_ms = now_ms(conn) + FRESH_MS;
        return;
    }
    if (!conn_queued(conn)) {
        conn_close(conn);
        return;
    }
    conn->close_after = true;
    conn_flush_later(conn);
}

static void name_peer(struct http_conn *conn)
{
    int size = sizeof conn->peer;
    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&conn->peer, &size) != 0)
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
    request_body_bytes(conn->request, bytes, size);
}

void conn_open(struct http_server *server)
{
    struct http_conn *conn = mem_zalloc(sizeof *conn);
    MAGIC_SET(conn, HTTP_CONN_MAGIC);
    conn->server = server;
    conn->flush.run = on_flush;
    list_init(&conn->flush.link);
    conn->parser = http1_new(on_body, conn);
    CHECK(uv_tcp_init(&server->loop->uv, &conn->tcp) == 0);
    conn->tcp.data = conn;
    server_add(server, conn);
    if (uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&conn->tcp) != 0) {
        conn_close(conn);
        return;
    }
    metric_add(M_ACCEPTED, 1);
    if (server->conn_count > server->options.max_connections) {
        metric_add(M_REFUSED, 1);
        conn_close(conn);
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    name_peer(conn);
    deadline_in_s(conn, config->header_timeout_s);
    conn_update_reading(conn);
}
