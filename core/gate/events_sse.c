/*
 * Events as server-sent events: a fiber that reads on from its place whenever there is news. A client that goes on names the
 * last id it has had (Last-Event-ID, as a browser does by itself); one that comes anew is told at once where it stands.
 */
#include "core/gate/events_internal.h"

#include "core/base/clock.h"
#include "core/base/metrics.h"
#include "core/gate/live.h"

#include <errno.h>

struct sse_stream {
    struct sse sse;
    event_set kinds;
    struct audience *audience;
    struct audience_reader reader;
    struct watched watched;
    const char *over; /* why it ends; NULL: it goes on */
};

static void on_ended(struct watched *watched, enum credential_state state)
{
    struct sse_stream *stream = CONTAINER_OF(watched, struct sse_stream, watched);
    stream->over = api_errors[state == CREDENTIAL_BANNED ? ERROR_BANNED : ERROR_UNAUTHORIZED].code;
    wait_done(&stream->reader.wait, 0);
}

static int send_gap(struct sse_stream *stream, const char *reason, struct str last_id)
{
    struct buf text = {0};
    events_put_gap(&text, reason, last_id);
    int result = sse_send(&stream->sse, STR_NONE, STR_NONE, buf_str(&text));
    buf_clear(&text);
    return result;
}

static int send_event(void *arg, const struct event_told *event)
{
    struct sse_stream *stream = arg;
    if (stream->over)
        return -EPIPE;
    if (!event)
        return send_gap(stream, "expired", STR_NONE);
    return event_set_of(event->name) & stream->kinds
               ? sse_send(&stream->sse, event->id, STR_NONE, event->body)
               : 0;
}

static int send_first(struct sse_stream *stream, const char *gap, struct str last_id)
{
    if (!gap)
        return last_id.at ? 0 : sse_send(&stream->sse, feed_id(stream->audience->feed), STR_NONE, STR_NONE);
    return send_gap(stream, gap, last_id);
}

static int go_on(struct sse_stream *stream, int64_t seq)
{
    int result = 0;
    while (result == 0 && !stream->over) {
        result = events_replay(stream->audience, &seq, INT64_MAX, send_event, stream);
        if (result || stream->over)
            break;
        result = sse_wait(&stream->sse, &stream->reader.wait, "an event", CLOCK_NEVER);
        stream->reader.wait = WAIT_INIT;
    }
    return stream->over ? 0 : result;
}

/* The client that goes on after this comes back by itself. */
static void end(struct sse_stream *stream)
{
    struct buf text = {0};
    int result = 0;
    if (stream->over[0]) {
        events_put_error(&text, stream->over, "The key or log-in no longer holds");
        result = sse_send(&stream->sse, STR_NONE, STR_NONE, buf_str(&text));
        buf_clear(&text);
    }
    if (result == 0)
        sse_end(&stream->sse);
}

static void serve(struct request *request, struct sse_stream *stream, const struct events_wish *wish)
{
    int64_t seq;
    const char *gap;
    int result = feed_wait(stream->audience->feed, clock_in_ms(EVENTS_WAIT_MS));
    seq = feed_place(stream->audience->feed);
    if (result == 0)
        result = events_place(stream->audience, wish->last_id, &seq, &gap);
    if (result) {
        reply_failure(request, result == -ETIMEDOUT ? -ENOTCONN : result);
        return;
    }
    audience_read(stream->audience, &stream->reader);
    watch_begin(&stream->watched, &request->principal, on_ended);
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SSE, 1);
    sse_begin(&stream->sse, request);
    result = send_first(stream, gap, wish->last_id);
    if (result == 0)
        result = go_on(stream, seq);
    if (result == 0)
        end(stream);
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SSE, -1);
    watch_end(&stream->watched);
    audience_stop_reading(&stream->reader);
}

void events_serve_sse(struct request *request, const struct events_wish *wish)
{
    struct sse_stream stream = {.kinds = wish->kinds};
    stream.audience = audience_enter(request->principal.account_id);
    if (!stream.audience) {
        reply_header(request, "Retry-After", "5");
        reply_error(request, ERROR_RATE_LIMITED, "The account has too many streams open");
        return;
    }
    serve(request, &stream, wish);
    audience_leave(stream.audience);
}

/* ---- the end of the server ---- */

static void end_readers(struct audience *audience, void *unused)
{
    (void)unused;
    LIST_EACH (&audience->readers, reader, after) {
        struct sse_stream *stream =
            CONTAINER_OF(LIST_ENTRY(reader, struct audience_reader, link), struct sse_stream, reader);
        stream->over = "";
        wait_done(&stream->reader.wait, 0);
    }
}

void events_end_sse(struct loop *loop)
{
    audience_each(loop, end_readers, NULL);
}
