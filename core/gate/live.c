/* WebSockets and event streams at the gate: see live.h. */
#include "core/gate/live.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/net/stream.h"
#include "proto/sse.h"

#include <errno.h>

/* ---- WebSockets ---- */

struct ws *gate_websocket(struct request *request, const struct ws_options *options)
{
    const struct http1_head *head = request->http->head;
    struct str key = http1_header(head, "sec-websocket-key");
    if (!str_equal_nocase(head->upgrade, STR("websocket"))) {
        reply_header(request, "Upgrade", "websocket");
        reply_error(request, ERROR_UPGRADE_REQUIRED, NULL);
        return NULL;
    }
    if (!gate_origin_is_fine(request)) {
        reply_error(request, ERROR_FORBIDDEN, "WebSockets are not served to this Origin");
        return NULL;
    }
    if (!str_equal(http1_header(head, "sec-websocket-version"), STR("13"))) {
        reply_header(request, "Sec-WebSocket-Version", "13");
        reply_error(request, ERROR_UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13");
        return NULL;
    }
    if (http1_header_count(head, "sec-websocket-key") != 1 || !websocket_key_is_valid(key)) {
        reply_error(request, ERROR_BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
        return NULL;
    }
    return ws_open(request->http, key, options);
}

/* ---- server-sent events ---- */

void sse_begin(struct sse *sse, struct request *request)
{
    *sse = (struct sse){.request = request, .spoken_ns = clock_now_ns()};
    /* It lasts as long as the client likes; every wait has its own bound. */
    fiber_set_deadline(CLOCK_NEVER);
    reply_header(request, "Content-Type", SSE_TYPE);
    reply_header(request, "Cache-Control", "no-store");
    reply_header(request, "X-Accel-Buffering", "no"); /* for an nginx on the way */
    http_stream_begin(request->http, 200);
}

int sse_write(struct sse *sse, struct str events)
{
    int result = http_stream_write(sse->request->http, events);
    sse->spoken_ns = clock_now_ns();
    return result;
}

static int send_bytes(struct sse *sse, struct buf *bytes)
{
    int result = sse_write(sse, buf_str(bytes));
    stream_spare_give(bytes);
    return result;
}

int sse_send(struct sse *sse, struct str id, struct str event, struct str data)
{
    struct buf bytes = stream_spare_take();
    sse_put_event(&bytes, id, event, data);
    return send_bytes(sse, &bytes);
}

uint64_t sse_comment_ns(const struct sse *sse)
{
    return sse->spoken_ns + (uint64_t)config->sse_comment_s * CLOCK_SECOND;
}

int sse_comment(struct sse *sse)
{
    struct buf bytes = stream_spare_take();
    sse_put_comment(&bytes);
    return send_bytes(sse, &bytes);
}

int sse_wait(struct sse *sse, struct wait *wait, const char *what, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t comment_ns = sse_comment_ns(sse);
        bool comment_first = comment_ns < deadline_ns;
        int result = wait_for(wait, what, comment_first ? comment_ns : deadline_ns);
        if (result != -ETIMEDOUT || !comment_first)
            return result;
        result = sse_comment(sse);
        if (result)
            return result;
    }
}

void sse_end(struct sse *sse)
{
    http_stream_end(sse->request->http);
}

struct str sse_last_id(const struct request *request)
{
    struct str id = http1_header(request->http->head, "last-event-id");
    if (!id.at && !url_query(request->arena, request->query, "last_event_id", &id))
        return STR_NONE;
    return id;
}
