/* A request's body on its way in and its answer on its way out. */
#include "core/net/http_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"

#include <errno.h>

enum { BODY_AHEAD = 256 * 1024 /* body bytes taken in before the handler asks for them */ };

struct http_request *request_new(struct http_conn *conn)
{
    struct arena arena;
    arena_init(&arena);
    struct http_request *request = arena_alloc(&arena, sizeof *request);
    /* The array of fields is written before it is read; clearing it would cost more than the rest. */
    memset(request, 0, offsetof(struct http_request, few_fields));
    memset(&request->field_count, 0, sizeof *request - offsetof(struct http_request, field_count));
    request->fields = request->few_fields;
    request->field_capacity = HTTP_ANSWER_FIELDS;
    request->arena = arena;
    request->conn = conn;
    MAGIC_SET(request, HTTP_REQUEST_MAGIC);
    return request;
}

void request_free(struct http_request *request)
{
    MAGIC_CHECK(request, HTTP_REQUEST_MAGIC);
    MAGIC_CLEAR(request);
    buf_clear(&request->body);
    buf_clear(&request->piece);
    /* The request lies in its own arena. */
    struct arena arena = request->arena;
    arena_clear(&arena);
}

const struct sockaddr *http_peer(const struct http_request *request)
{
    return (const struct sockaddr *)&request->conn->peer;
}

struct str http_peer_text(const struct http_request *request)
{
    return str_from(request->conn->peer_text);
}

/* ---- the body ---- */

bool request_wants_body(const struct http_request *request)
{
    return !request->body_done && !request->body_error &&
           (request->body_asked || request->body.size < BODY_AHEAD);
}

void request_body_bytes(struct http_request *request, const char *bytes, size_t size)
{
    buf_add(&request->body, bytes, size);
    if (request->body_asked && request->body.size > request->body_limit)
        request_body_done(request, -EMSGSIZE);
    else if (request->body_in_pieces && request->body_waiter)
        wait_done(request->body_waiter, 0);
}

void request_body_done(struct http_request *request, int result)
{
    if (request->body_error)
        return;
    request->body_error = result;
    request->body_done = result == 0;
    if (request->body_waiter)
        wait_done(request->body_waiter, result);
}

static void send_continue(struct http_request *request)
{
    if (!request->head->expect_continue || request->continue_sent || request->body.size || request->body_done)
        return;
    request->continue_sent = true;
    buf_add_literal(conn_out(request->conn), "HTTP/1.1 100 Continue\r\n\r\n");
    conn_flush_later(request->conn);
}

static int refuse_body(struct http_request *request, int result)
{
    if (!request->body_error)
        request->body_error = result;
    request->close = true;
    return result;
}

/* For more of it, or for its end. */
static int wait_for_body(struct http_request *request)
{
    struct wait wait = WAIT_INIT;
    request->body_waiter = &wait;
    conn_body_asked(request->conn);
    int result = wait_for(&wait, "body", CLOCK_NEVER);
    request->body_waiter = NULL;
    return result ? refuse_body(request, result) : 0;
}

int http_body(struct http_request *request, size_t max_bytes, struct str *body)
{
    *body = STR("");
    if (!request->head->has_body)
        return 0;
    if (request->head->content_length > max_bytes || request->body.size > max_bytes)
        return refuse_body(request, -EMSGSIZE);
    if (request->body_error)
        return refuse_body(request, request->body_error);
    request->body_asked = true;
    request->body_limit = max_bytes;
    send_continue(request);
    if (!request->body_done) {
        int result = wait_for_body(request);
        if (result)
            return result;
    }
    *body = buf_str(&request->body);
    return 0;
}

bool http_body_is_here(const struct http_request *request)
{
    return !request->head->has_body || request->body_done;
}

int http_body_piece(struct http_request *request, struct str *piece)
{
    *piece = STR("");
    request->piece.size = 0;
    request->body_in_pieces = true;
    if (!request->head->has_body)
        return 0;
    send_continue(request);
    while (request->body.size == 0 && !request->body_done) {
        if (request->body_error)
            return refuse_body(request, request->body_error);
        int result = wait_for_body(request);
        if (result)
            return result;
    }
    struct buf empty = request->piece;
    request->piece = request->body;
    request->body = empty;
    *piece = buf_str(&request->piece);
    if (!request->body_done)
        conn_body_asked(request->conn); /* there is room again */
    return 0;
}

/* ---- the answer ---- */

bool http_is_secure(const struct http_request *request)
{
    return request->conn->secure;
}

void http_add_header(struct http_request *request, struct str name, struct str value)
{
    if (UNLIKELY(request->field_count == request->field_capacity)) {
        size_t capacity = request->field_capacity * 2;
        struct http1_field *more = arena_alloc(&request->arena, capacity * sizeof *more);
        memcpy(more, request->fields, request->field_count * sizeof *more);
        request->fields = more;
        request->field_capacity = capacity;
    }
    request->fields[request->field_count++] = (struct http1_field){name, value};
}

void http_set_header(struct http_request *request, struct str name, struct str value)
{
    for (size_t i = 0; i < request->field_count; i++)
        if (str_equal_nocase(request->fields[i].name, name)) {
            request->fields[i].value = value;
            return;
        }
    http_add_header(request, name, value);
}

static bool is_head(const struct http_request *request)
{
    return str_equal(request->head->method, STR("HEAD"));
}

static void put_fields(struct http_request *request, struct buf *out, int status)
{
    request->status = status;
    http1_put_status(out, status);
    buf_add_literal(out, "Date: ");
    buf_add(out, clock_http_now(), CLOCK_HTTP_SIZE - 1);
    buf_add_literal(out, "\r\n");
    for (size_t i = 0; i < request->field_count; i++)
        http1_put_header(out, request->fields[i].name, request->fields[i].value);
}

/* Status line and fields, up to where the length is told. */
static void put_head(struct http_request *request, struct buf *out, int status)
{
    put_fields(request, out, status);
    const struct http1_head *head = request->head;
    bool body_left = head->has_body && !request->body_done;
    if (!head->keep_alive || request->conn->server->draining || body_left)
        request->close = true;
    if (request->close)
        buf_add_literal(out, "Connection: close\r\n");
    else if (head->http10)
        buf_add_literal(out, "Connection: keep-alive\r\n");
}

void http_answer(struct http_request *request, int status, struct str body)
{
    MAGIC_CHECK(request, HTTP_REQUEST_MAGIC);
    CHECK(request->status == 0);
    struct http_conn *conn = request->conn;
    if (conn->state == CONN_CLOSING) {
        request->status = status;
        request->close = true;
        return;
    }
    struct buf *out = conn_out(conn);
    size_t before = out->size;
    put_head(request, out, status);
    if (status != 204 && status != 304) {
        http1_put_length(out, body.size);
    }
    buf_add_literal(out, "\r\n");
    if (!is_head(request))
        buf_add_str(out, body);
    request->bytes = out->size - before;
    request->ended = true;
    conn_flush_later(conn);
}

enum framing { FRAMED_BY_CHUNKS, FRAMED_BY_LENGTH, WITHOUT_BODY };

static void begin(struct http_request *request, int status, enum framing framing, uint64_t size)
{
    CHECK(request->status == 0);
    struct http_conn *conn = request->conn;
    request->streaming = true;
    request->sized = framing != FRAMED_BY_CHUNKS;
    request->chunked = framing == FRAMED_BY_CHUNKS && !request->head->http10;
    bool empty = framing == WITHOUT_BODY || is_head(request) || status == 204 || status == 304;
    request->body_left = empty ? 0 : size;
    if (conn->state == CONN_CLOSING) {
        request->status = status;
        return;
    }
    struct buf *out = conn_out(conn);
    size_t before = out->size;
    if (framing == FRAMED_BY_CHUNKS && !request->chunked)
        request->close = true;
    put_head(request, out, status);
    if (request->chunked)
        buf_add_literal(out, "Transfer-Encoding: chunked\r\n");
    if (framing == FRAMED_BY_LENGTH && status != 204) {
        http1_put_length(out, size);
    }
    buf_add_literal(out, "\r\n");
    request->bytes = out->size - before;
    conn_flush_later(conn);
}

void http_stream_begin(struct http_request *request, int status)
{
    begin(request, status, FRAMED_BY_CHUNKS, 0);
}

void http_stream_begin_sized(struct http_request *request, int status, uint64_t size)
{
    begin(request, status, FRAMED_BY_LENGTH, size);
}

void http_stream_begin_empty(struct http_request *request, int status)
{
    begin(request, status, WITHOUT_BODY, 0);
}

static int wait_for_room(struct http_request *request)
{
    struct http_conn *conn = request->conn;
    while (conn->state != CONN_CLOSING && conn_queued(conn) >= (size_t)config->queue_bytes) {
        struct wait wait = WAIT_INIT;
        conn->room_waiter = &wait;
        int result = wait_for(&wait, "the client to read", CLOCK_NEVER);
        conn->room_waiter = NULL;
        if (result)
            return result;
    }
    return conn->state == CONN_CLOSING ? -ECANCELED : 0;
}

int http_stream_write(struct http_request *request, struct str bytes)
{
    CHECK(request->streaming && !request->ended);
    int result = wait_for_room(request);
    if (result)
        return result;
    if (bytes.size == 0 || is_head(request))
        return 0;
    if (request->sized) {
        CHECK(bytes.size <= request->body_left);
        request->body_left -= bytes.size;
    }
    struct http_conn *conn = request->conn;
    struct buf *out = conn_out(conn);
    size_t before = out->size;
    if (request->chunked)
        buf_printf(out, "%zx\r\n", bytes.size);
    buf_add_str(out, bytes);
    if (request->chunked)
        buf_add_literal(out, "\r\n");
    request->bytes += out->size - before;
    conn_flush_later(conn);
    return 0;
}

void http_stream_end(struct http_request *request)
{
    CHECK(request->streaming && !request->ended);
    if (request->body_left)
        return; /* cut short: as if it had not been ended */
    request->ended = true;
    struct http_conn *conn = request->conn;
    if (conn->state == CONN_CLOSING || !request->chunked || is_head(request))
        return;
    buf_add_literal(conn_out(conn), "0\r\n\r\n");
    request->bytes += 5;
    conn_flush_later(conn);
}

struct stream *http_switch(struct http_request *request, struct buf *early)
{
    struct http_conn *conn = request->conn;
    CHECK(request->status == 0 && request->head->upgrade.at);
    *early = (struct buf){0};
    request->streaming = true;
    request->ended = true;
    request->close = true;
    if (conn->state == CONN_CLOSING) {
        request->status = 101;
        return NULL;
    }
    struct buf *out = conn_out(conn);
    size_t before = out->size;
    put_fields(request, out, 101);
    buf_add_literal(out, "Connection: Upgrade\r\n\r\n");
    request->bytes = out->size - before;
    conn_flush_later(conn);
    return conn_take_stream(conn, early);
}
