/* Plain answers: what came in, and events with numbers. */
#include "handlers/test/test.h"

#include "core/base/clock.h"
#include "core/gate/live.h"

#include <errno.h>

/* ANY /test/echo: reads a body of any size without keeping it. */
void test_echo(struct request *request)
{
    uint64_t bytes = 0;
    struct str piece;
    int result;
    fiber_set_deadline(CLOCK_NEVER);
    while ((result = http_body_piece(request->http, &piece)) == 0 && piece.size)
        bytes += piece.size;
    if (result) {
        reply_error(request, ERROR_BAD_REQUEST, "The body did not come to its end");
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "method", request->http->head->method);
    json_put_str(&reply.json, "target", request->http->head->target);
    json_put_int(&reply.json, "body_bytes", (int64_t)bytes);
    reply_end(&reply, 200);
}

static int64_t number_of(struct request *request, const char *name, int64_t fallback)
{
    struct str text;
    int64_t number;
    bool given = url_query(request->arena, request->query, name, &text) && str_to_i64(text, &number);
    return given && number >= 0 ? number : fallback;
}

/* GET /test/events: from the one after Last-Event-ID to `count`, a pause before each. */
void test_events(struct request *request)
{
    int64_t count = number_of(request, "count", 10);
    int64_t pause_ms = number_of(request, "pause_ms", 0);
    int64_t last = 0;
    struct str last_id = sse_last_id(request);
    if (last_id.at && !str_to_i64(last_id, &last)) {
        reply_error(request, ERROR_BAD_REQUEST, "Last-Event-ID must be a number");
        return;
    }
    struct sse sse;
    sse_begin(&sse, request);
    int result = 0;
    for (int64_t number = last + 1; result == 0 && number <= count; number++) {
        struct wait never = WAIT_INIT;
        if (pause_ms)
            result = sse_wait(&sse, &never, "the next event", clock_in_ms((uint64_t)pause_ms));
        if (result && result != -ETIMEDOUT)
            break;
        char id[20];
        struct str text = str_of(id, format_u64(id, (uint64_t)number));
        result = sse_send(&sse, text, STR("number"), text);
    }
    if (result == 0)
        sse_end(&sse);
}
