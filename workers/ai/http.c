/* Providers that are asked by HTTP: whatever API they speak, proto/ai/provider.h translates. */
#include "workers/ai/internal.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/net/fetch.h"
#include "proto/ai/anthropic.h"
#include "proto/ai/openai.h"
#include "proto/sse_read.h"

#include <errno.h>
#include <string.h>

enum {
    ERROR_BODY_MAX = 64 * 1024,
    ERROR_BODY_MS =
        3000,        /* for the words of a refusal, whose status says most: another provider may be waiting */
    STALE_MS = 1000, /* a kept connection that was closed meanwhile is known to be by then */
    LAST_EVENTS_MS = 2000, /* for what may stand behind the last choice's end: usage, and the end itself */
    LAST_BYTES_MS = 100    /* for the end of a stream behind its last event */
};

static const struct ai_provider_ops *const apis[PROVIDER_KINDS] = {
    [PROVIDER_OPENAI] = &ai_openai,
    [PROVIDER_ANTHROPIC] = &ai_anthropic,
};

/* ---- asking ---- */

/* -EPROTO: this provider can't do what the client wants. */
static int write_fetch(struct ai_run *run, const struct ai_provider_ops *api, struct fetch_request **fetch,
                       struct ai_failure *failure)
{
    const struct provider *provider = run->route->provider;
    const struct ai_upstream upstream = {
        .model = str_from(run->route->upstream_model),
        .stream = run->streams,
        .native_completions = provider->native_completions,
        .max_tokens = run->end.meta.max_tokens,
    };
    struct ai_refusal refusal;
    struct buf body = {0};
    if (api->write_request(&run->arena, &run->request, &upstream, &body, &refusal)) {
        buf_clear(&body);
        ai_failure_make(failure, AI_FAULT_CLIENT, STR_NONE);
        failure->message = refusal.message;
        failure->param = refusal.param;
        failure->elsewhere = run->task->route < (int64_t)run->model->route_count;
        return -EPROTO;
    }
    *fetch = arena_alloc(&run->arena, sizeof **fetch);
    **fetch = (struct fetch_request){
        .method = "POST",
        .url = arena_printf(&run->arena, "%s%s", provider->base_url,
                            api->path(run->end.meta.kind, provider->native_completions)),
        .body = arena_str(&run->arena, buf_str(&body)),
        .headers = api->headers(&run->arena, str_from(provider->api_key), run->streams),
        .headers_wanted = api->headers_wanted,
        .connect_timeout_ms = (uint64_t)provider->connect_ms,
        .header_timeout_ms = (uint64_t)provider->header_ms,
        .total_timeout_ms = ai_run_left_ms(run),
        .max_body_bytes = run->streams ? SIZE_MAX : AI_ANSWER_MAX, /* a stream is bounded by its time */
        .authorities = provider->ca,
        .pool = provider->name,
    };
    buf_clear(&body);
    return 0;
}

static struct str header_of(const void *answer, const char *name)
{
    return fetch_header(answer, name);
}

/* What the transport came to, as a failure of the provider's. */
static int transport_failure(int result, struct ai_failure *failure)
{
    enum ai_fault fault;
    switch (result) {
    case -ECANCELED: return result;
    case -ETIMEDOUT: fault = AI_FAULT_TIMEOUT; break;
    case -ECONNREFUSED:
    case -EHOSTUNREACH:
    case -EPROTO: /* no TLS, or a certificate that is not the provider's */
    case -EINVAL: fault = AI_FAULT_UNREACHABLE; break;
    case -EMSGSIZE: fault = AI_FAULT_PROTOCOL; break;
    default: fault = AI_FAULT_BROKEN; break;
    }
    ai_failure_make(failure, fault, str_from(fetch_reason(result)));
    return -EPROTO;
}

static void take_head(struct ai_run *run, const struct ai_provider_ops *api,
                      const struct fetch_answer *answer)
{
    struct ai_rate rate;
    run->latency_ms = (int64_t)(answer->times.first_us / 1000);
    api->read_rate(header_of, answer, clock_wall_ms(), &rate);
    if (rate.requests_left == 0 && rate.requests_reset_ms > 0)
        run->pause_ms = rate.requests_reset_ms;
}

static int status_failure(struct ai_run *run, const struct ai_provider_ops *api,
                          const struct fetch_answer *answer, struct str body, struct ai_failure *failure)
{
    api->read_error(&run->arena, answer->status, body, header_of, answer,
                    str_from(run->route->provider->api_key), clock_wall_ms(), failure);
    return -EPROTO;
}

static bool is_success(int status)
{
    return status >= 200 && status < 300;
}

/* A kept connection may end just as it is used: then the request goes out once more. Nothing of it was delivered. One that ends later
 * had the request, which may cost as much again. */
static int open_answer(struct ai_run *run, struct fetch_request *request, struct ai_failure *failure)
{
    uint64_t stale_ns = clock_in_ms(STALE_MS);
    int result = fetch_open(request, &run->arena, &run->upstream);
    if (result == -ECONNRESET && clock_now_ns() < stale_ns) {
        request->total_timeout_ms = ai_run_left_ms(run);
        result = fetch_open(request, &run->arena, &run->upstream);
    }
    if (result)
        return transport_failure(result, failure);
    CRASH_POINT("ai-called");
    return 0;
}

/* Waits no longer than the provider may be silent, the call may take, and `until_ns`. */
static int read_piece(struct ai_run *run, struct str *piece, uint64_t until_ns)
{
    uint64_t idle_ns = clock_in_ms((uint64_t)run->route->provider->idle_ms);
    if (until_ns > run->deadline_ns)
        until_ns = run->deadline_ns;
    return fetch_read(run->upstream, piece, idle_ns < until_ns ? idle_ns : until_ns);
}

/* All of the body that comes until then. -EMSGSIZE: it is longer than `most`. */
static int read_body(struct ai_run *run, size_t most, uint64_t until_ns, struct buf *body)
{
    struct str piece;
    int result;
    while ((result = read_piece(run, &piece, until_ns)) == 0 && piece.size > 0) {
        if (piece.size > most - body->size)
            return -EMSGSIZE;
        buf_add_str(body, piece);
        if (clock_now_ns() >= until_ns)
            return -ETIMEDOUT;
    }
    return result;
}

/* ---- an answer in one ---- */

static int read_answer(struct ai_run *run, const struct ai_provider_ops *api, struct buf *out,
                       struct ai_answer *read, struct ai_failure *failure)
{
    struct buf body = {0};
    int result = read_body(run, AI_ANSWER_MAX, CLOCK_NEVER, &body);
    result = result ? transport_failure(result, failure)
                    : api->read_answer(&run->arena, &run->identity, buf_str(&body), out, read, failure);
    buf_clear(&body);
    return result;
}

static int read_whole(struct ai_run *run, const struct ai_provider_ops *api, struct buf *out,
                      struct ai_failure *failure)
{
    struct ai_answer read;
    int result = read_answer(run, api, out, &read, failure);
    if (result)
        return result;
    run->usage = read.usage;
    ai_run_keep_text(run, read.text);
    return 0;
}

static void put_usage(struct ai_run *run)
{
    if (!run->identity.include_usage && !run->end.meta.ends_with_usage)
        return;
    ai_chunk_usage(&run->lines, &run->identity, &run->usage);
    buf_add_char(&run->lines, '\n');
}

/* A provider that does not stream, or refuses with status 200, though a stream was asked for. An answer that is one text goes on as
 * the chunks that it would have been. */
static int read_no_stream(struct ai_run *run, const struct ai_provider_ops *api, struct ai_failure *failure)
{
    struct buf answer = {0};
    struct ai_answer read;
    int result = read_answer(run, api, &answer, &read, failure);
    buf_clear(&answer);
    if (result)
        return result;
    if (read.text.size == 0 || run->identity.choices > 1 || strcmp(read.finish_reason, "tool_calls") == 0) {
        ai_failure_make(failure, AI_FAULT_PROTOCOL, STR("it does not stream"));
        return -EPROTO;
    }
    run->usage = read.usage;
    ai_run_keep_text(run, read.text);
    ai_chunk_from_text(&run->lines, &run->identity, true, read.text);
    buf_add_char(&run->lines, '\n');
    ai_chunk_finish(&run->lines, &run->identity, read.finish_reason);
    buf_add_char(&run->lines, '\n');
    put_usage(run);
    return 0;
}

static bool is_json(const struct fetch_answer *answer)
{
    static const struct str json = {"application/json", 16};
    return answer->type.size >= json.size && str_equal_nocase(str_of(answer->type.at, json.size), json);
}

/* Its status says enough when the body is too long or does not come. */
static int read_refusal(struct ai_run *run, const struct ai_provider_ops *api, struct ai_failure *failure)
{
    struct buf body = {0};
    int result = read_body(run, ERROR_BODY_MAX, clock_in_ms(ERROR_BODY_MS), &body);
    if (result != -ECANCELED)
        result = status_failure(run, api, fetch_stream_answer(run->upstream), buf_str(&body), failure);
    buf_clear(&body);
    return result;
}

/* ---- an answer that comes by and by ---- */

struct reading {
    struct ai_run *run;
    const struct ai_provider_ops *api;
    struct sse_reader sse;
    struct ai_stream stream;
    struct arena scratch;
    enum ai_stream_state state;
};

/* A chunk is one line: in JSON a line break can only be a space between two of its parts. */
static void end_line(struct buf *lines, size_t from)
{
    if (lines->size == from)
        return;
    for (size_t i = from; i < lines->size; i++)
        if (lines->at[i] == '\n' || lines->at[i] == '\r')
            lines->at[i] = ' ';
    buf_add_char(lines, '\n');
}

/* Every event of the bytes that came together becomes a line. -EPROTO: the failure says what; others of ai_run_send. */
static int take_events(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    struct sse_event event;
    int result = 0;
    while (reading->state == AI_STREAM_MORE && (result = sse_reader_next(&reading->sse, &event)) == 1) {
        size_t before = run->lines.size;
        reading->stream.text = STR_NONE;
        reading->state = reading->api->stream_event(&reading->stream, &reading->scratch, event.event,
                                                    event.data, &run->lines, failure);
        end_line(&run->lines, before);
        ai_run_keep_text(run, reading->stream.text);
        if (reading->state == AI_STREAM_FAILED)
            ai_failure_keep(&run->arena, failure);
        arena_clear(&reading->scratch);
        ai_stream_usage(&reading->stream, &run->usage);
        if (run->lines.size >= AI_PIECE_BYTES && reading->state == AI_STREAM_MORE) {
            result = ai_run_send(run);
            if (result)
                return result;
        }
    }
    if (reading->state == AI_STREAM_FAILED)
        return -EPROTO;
    if (result < 0) {
        ai_failure_make(failure, AI_FAULT_PROTOCOL, STR("an event is too large"));
        return -EPROTO;
    }
    return 0;
}

static int end_stream(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    if (reading->state == AI_STREAM_MORE && !ai_stream_is_whole(&reading->stream)) {
        ai_failure_make(failure, AI_FAULT_BROKEN, STR("the stream has no end"));
        return -EPROTO;
    }
    put_usage(run);
    return 0;
}

/* As long as nothing of its content has come, what there is waits: until then another provider may be tried. */
static int read_events(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    struct str piece;
    uint64_t until_ns = CLOCK_NEVER;
    for (;;) {
        int result = read_piece(run, &piece, until_ns);
        if (result && result != -ECANCELED && ai_stream_is_whole(&reading->stream))
            return end_stream(reading, failure); /* it has said all, if not that it has */
        if (result)
            return transport_failure(result, failure);
        if (piece.size == 0)
            return end_stream(reading, failure);
        sse_reader_feed(&reading->sse, piece);
        result = take_events(reading, failure);
        if (result)
            return result;
        if (reading->state == AI_STREAM_END)
            return end_stream(reading, failure);
        if (run->delivers || reading->stream.bytes > 0)
            result = ai_run_send(run);
        if (result)
            return result;
        if (until_ns == CLOCK_NEVER && ai_stream_is_whole(&reading->stream))
            until_ns = clock_in_ms(LAST_EVENTS_MS);
    }
}

static int read_stream(struct ai_run *run, const struct ai_provider_ops *api, struct ai_failure *failure)
{
    struct reading reading = {.run = run, .api = api, .state = AI_STREAM_MORE};
    sse_reader_init(&reading.sse, 0);
    arena_init(&reading.scratch);
    api->stream_begin(&reading.stream, &run->identity);
    int result = read_events(&reading, failure);
    if (result == -EPROTO && run->delivers) { /* what came with the failure belongs to what came before */
        int sent = ai_run_send(run);
        result = sent ? sent : result;
    }
    arena_clear(&reading.scratch);
    sse_reader_clear(&reading.sse);
    return result;
}

/* The connection is used again when all that is left of the answer is its end. */
void ai_http_close(struct ai_run *run)
{
    struct str piece;
    if (run->upstream && run->end.status == AI_COMPLETED) {
        int result = fetch_read(run->upstream, &piece, clock_in_ms(LAST_BYTES_MS));
        (void)result; /* what has not ended is closed */
    }
    fetch_end(run->upstream);
    run->upstream = NULL;
}

int ai_http_run(struct ai_run *run, struct buf *answer, struct ai_failure *failure)
{
    struct fetch_request *request;
    const struct ai_provider_ops *api = apis[run->route->provider->kind];
    int result = write_fetch(run, api, &request, failure);
    if (result == 0)
        result = open_answer(run, request, failure);
    if (result)
        return result;
    take_head(run, api, fetch_stream_answer(run->upstream));
    result = !is_success(fetch_stream_status(run->upstream)) ? read_refusal(run, api, failure)
             : !run->streams                                 ? read_whole(run, api, answer, failure)
             : is_json(fetch_stream_answer(run->upstream))   ? read_no_stream(run, api, failure)
                                                             : read_stream(run, api, failure);
    if (result)
        ai_http_close(run); /* at once: its client may have left */
    return result;
}
