/*
 * One WebSocket on a stream: see ws.h. What its bytes mean is proto/websocket.
 *
 *   OPEN ──(we close)──▶ SAID ──(the peer's close, or CLOSE_MS)──▶ gone
 *     └──(the peer closes: echoed; an error: said)──▶ DONE ──(all is sent; the peer has closed the socket, or CLOSE_MS)──▶ gone
 */
#include "core/net/ws.h"

#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/net/stream.h"

#include <errno.h>
#include <stdlib.h>

enum {
    WS_MAGIC = 0x7773636b,
    CLOSE_MS = 5000,      /* for the peer's part of the end */
    COMPRESS_FROM = 64,   /* bytes: below it compressing costs more than it saves */
    PONG_QUEUE_MAX = 4096 /* while so much waits, only the last ping is answered (RFC 6455 §5.5.3) */
};

enum ws_state { OPEN, SAID, DONE };

struct ws {
    unsigned magic;
    enum ws_state state;
    struct stream *stream;
    const struct ws_events *events;
    void *owner;
    struct websocket codec;
    uint64_t heard_ms;    /* uv_now() terms */
    uint64_t deadline_ms; /* of the end */
    int code;             /* why it ended */
    bool pinged;
    bool shut;      /* our side of the socket */
    bool pong_owed; /* with the payload in pong */
    unsigned char pong_size;
    char pong[125];
};

static uint64_t now_ms(const struct ws *ws)
{
    return uv_now(&ws->stream->loop->uv);
}

void *ws_owner(const struct ws *ws)
{
    return ws->owner;
}

/* ---- the end ---- */

static void drop(struct ws *ws, int code)
{
    if (!ws->code)
        ws->code = code;
    stream_close(ws->stream);
}

static void on_closed(struct stream *stream)
{
    struct ws *ws = stream->owner;
    metric_add(M_WEBSOCKETS, -1);
    ws->events->closed(ws, ws->code ? ws->code : 1006);
    websocket_clear(&ws->codec);
    MAGIC_CLEAR(ws);
    free(ws);
}

static void say_close(struct ws *ws, int code, struct str reason, enum ws_state next)
{
    ws->state = next;
    ws->deadline_ms = now_ms(ws) + CLOSE_MS;
    websocket_put_close(stream_out(ws->stream), code, reason);
    stream_flush_later(ws->stream);
}

void ws_close(struct ws *ws, int code, struct str reason)
{
    MAGIC_CHECK(ws, WS_MAGIC);
    if (ws->state != OPEN || ws->stream->closing)
        return;
    ws->code = code;
    say_close(ws, code, reason, SAID);
}

/* ---- output ---- */

size_t ws_queued(const struct ws *ws)
{
    return stream_queued(ws->stream);
}

/* False when nothing may be sent: it is closing, or just has been for being too slow. */
static bool may_send(struct ws *ws)
{
    MAGIC_CHECK(ws, WS_MAGIC);
    if (ws->state != OPEN || ws->stream->closing)
        return false;
    if (stream_queued(ws->stream) <= (size_t)config->ws_queue_bytes)
        return true;
    ws_close(ws, WS_TOO_SLOW, STR("reading too slowly"));
    return false;
}

void ws_send(struct ws *ws, bool text, struct str payload)
{
    if (!may_send(ws))
        return;
    enum websocket_opcode opcode = text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY;
    struct buf small = {0};
    if (ws->codec.deflate.on && payload.size >= COMPRESS_FROM) {
        small = stream_spare_take();
        if (websocket_compress(&small, payload, ws->codec.deflate.server_bits))
            payload = buf_str(&small);
        else
            small.size = 0;
    }
    websocket_put_frame(stream_out(ws->stream), opcode, payload, small.size > 0);
    stream_spare_give(&small);
    stream_flush_later(ws->stream);
}

/* ---- messages for many ---- */

enum { WINDOWS = 16 };

struct ws_message {
    bool text;
    bool tried[WINDOWS]; /* whether compressing with this window was tried; in vain if the frame is empty */
    struct buf payload;
    struct buf plain; /* the frame */
    struct buf small[WINDOWS];
};

struct ws_message *ws_message_new(bool text, struct str payload)
{
    struct ws_message *message = mem_zalloc(sizeof *message);
    message->text = text;
    buf_add_str(&message->payload, payload);
    websocket_put_frame(&message->plain, text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, payload, false);
    return message;
}

void ws_message_free(struct ws_message *message)
{
    buf_clear(&message->payload);
    buf_clear(&message->plain);
    for (unsigned i = 0; i < WINDOWS; i++)
        buf_clear(&message->small[i]);
    free(message);
}

static struct str frame_for(struct ws_message *message, const struct websocket_deflate *deflate)
{
    if (!deflate->on || message->payload.size < COMPRESS_FROM)
        return buf_str(&message->plain);
    unsigned bits = (unsigned)deflate->server_bits % WINDOWS;
    struct buf *small = &message->small[bits];
    if (!message->tried[bits]) {
        message->tried[bits] = true;
        struct buf payload = stream_spare_take();
        if (websocket_compress(&payload, buf_str(&message->payload), deflate->server_bits))
            websocket_put_frame(small, message->text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, buf_str(&payload),
                                true);
        stream_spare_give(&payload);
    }
    return small->size ? buf_str(small) : buf_str(&message->plain);
}

void ws_send_message(struct ws *ws, struct ws_message *message)
{
    if (!may_send(ws))
        return;
    buf_add_str(stream_out(ws->stream), frame_for(message, &ws->codec.deflate));
    stream_flush_later(ws->stream);
}

/* ---- input ---- */

static void answer_ping(struct ws *ws, struct str payload)
{
    if (stream_queued(ws->stream) < PONG_QUEUE_MAX) {
        websocket_put_frame(stream_out(ws->stream), WEBSOCKET_PONG, payload, false);
        stream_flush_later(ws->stream);
        return;
    }
    ws->pong_owed = true;
    ws->pong_size = (unsigned char)payload.size;
    memcpy(ws->pong, payload.at, payload.size);
}

static void on_control(struct ws *ws, const struct websocket_input *input)
{
    if (input->opcode == WEBSOCKET_PING && ws->state == OPEN) {
        answer_ping(ws, input->payload);
    } else if (input->opcode == WEBSOCKET_CLOSE) {
        bool first = ws->state == OPEN;
        if (first)
            ws->code = input->code;
        if (first)
            say_close(ws, input->code, STR_NONE, DONE);
        ws->state = DONE;
        stream_flush_later(ws->stream);
    }
}

static void on_event(struct ws *ws, enum websocket_event event, const struct websocket_input *input)
{
    switch (event) {
    case WEBSOCKET_MORE: break;
    case WEBSOCKET_MESSAGE:
        if (ws->state == OPEN)
            ws->events->message(ws, input->opcode == WEBSOCKET_TEXT, input->payload);
        break;
    case WEBSOCKET_CONTROL: on_control(ws, input); break;
    case WEBSOCKET_ERROR:
        ws->code = ws->code ? ws->code : input->code;
        if (ws->state == OPEN)
            say_close(ws, input->code, STR_NONE, DONE);
        ws->state = DONE;
        stream_flush_later(ws->stream);
        break;
    }
}

static void on_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct ws *ws = stream->owner;
    ws->heard_ms = now_ms(ws);
    ws->pinged = false;
    /* Until it says that it needs more: only then is what it keeps for a message given back. */
    enum websocket_event event = WEBSOCKET_CONTROL;
    while (event != WEBSOCKET_MORE && !stream->closing) {
        struct websocket_input input;
        size_t taken = websocket_feed(&ws->codec, bytes, size, &event, &input);
        bytes += taken;
        size -= taken;
        on_event(ws, event, &input);
    }
    /* A peer that does not read what it makes us say is not read either. */
    if (!stream->closing && stream_queued(stream) > (size_t)config->queue_bytes)
        stream_read(stream, false);
}

static void on_flushed(struct stream *stream)
{
    struct ws *ws = stream->owner;
    if (ws->pong_owed && ws->state == OPEN) {
        ws->pong_owed = false;
        answer_ping(ws, str_of(ws->pong, ws->pong_size));
    }
    stream_read(stream, true);
    if (ws->state == OPEN && ws->events->flushed)
        ws->events->flushed(ws);
    if (ws->state != DONE || ws->shut)
        return;
    ws->shut = true;
    /* Both have said goodbye: the server closes the connection first (RFC 6455 §7.1.1). What may still come in is read,
     * so that no reset overtakes our last frame. */
    if (stream->ended || stream_shutdown(stream) != 0)
        drop(ws, 1006);
}

static void on_ended(struct stream *stream, int error)
{
    (void)error;
    drop(stream->owner, 1006);
}

static void on_sweep(struct stream *stream, uint64_t now)
{
    struct ws *ws = stream->owner;
    uint64_t silent_ms = now - ws->heard_ms;
    if (stream_is_stalled(stream, now) || (ws->state != OPEN && now >= ws->deadline_ms) ||
        silent_ms >= (uint64_t)config->ws_timeout_s * 1000) {
        drop(ws, 1006);
    } else if (ws->state == OPEN && !ws->pinged && silent_ms >= (uint64_t)config->ws_ping_s * 1000) {
        ws->pinged = true;
        websocket_put_frame(stream_out(stream), WEBSOCKET_PING, STR(""), false);
        stream_flush_later(stream);
    }
}

static void on_drain(struct stream *stream)
{
    ws_close(stream->owner, WS_GOING_AWAY, STR("the server is restarted"));
}

static const struct stream_events ws_stream_events = {
    .bytes = on_bytes,
    .ended = on_ended,
    .flushed = on_flushed,
    .failed = on_ended,
    .sweep = on_sweep,
    .drain = on_drain,
    .closed = on_closed,
};

/* ---- the beginning ---- */

struct ws *ws_open(struct http_request *request, struct str key, const struct ws_options *options)
{
    char *accept = arena_alloc(&request->arena, WEBSOCKET_ACCEPT_SIZE);
    struct buf extensions = {0};
    struct websocket_deflate deflate = {0};
    struct buf offers = {0};
    for (size_t i = 0; i < request->head->count; i++) {
        const struct http1_field *field = &request->head->fields[i];
        if (!str_equal_nocase(field->name, STR("sec-websocket-extensions")))
            continue;
        if (offers.size)
            buf_add_char(&offers, ',');
        buf_add_str(&offers, field->value);
    }
    websocket_accept(key, accept);
    http_add_header(request, STR("Upgrade"), STR("websocket"));
    http_add_header(request, STR("Sec-WebSocket-Accept"), str_from(accept));
    if (websocket_negotiate(buf_str(&offers), &deflate, &extensions))
        http_add_header(request, STR("Sec-WebSocket-Extensions"), buf_str(&extensions));
    struct buf early;
    struct stream *stream = http_switch(request, &early);
    buf_clear(&extensions);
    buf_clear(&offers);
    if (!stream)
        return NULL;
    struct ws *ws = mem_zalloc(sizeof *ws);
    MAGIC_SET(ws, WS_MAGIC);
    ws->stream = stream;
    ws->events = options->events;
    ws->owner = options->owner;
    websocket_init(&ws->codec, options->message_max ? options->message_max : (size_t)config->ws_message_bytes,
                   deflate);
    ws->heard_ms = now_ms(ws);
    metric_add(M_WEBSOCKETS, 1);
    stream_own(stream, &ws_stream_events, ws);
    stream_read(stream, true);
    stream_flush_later(stream);
    if (early.size)
        on_bytes(stream, early.at, early.size);
    buf_clear(&early);
    return ws;
}
