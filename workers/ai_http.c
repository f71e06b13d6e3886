/* Providers that are asked by HTTP: whatever API they speak, proto/ai_provider.h translates. */
#include "workers/ai_internal.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/net/fetch.h"
#include "proto/anthropic.h"
#include "proto/openai.h"
#include "proto/sse_read.h"

#include <errno.h>

enum { ERROR_BODY_MAX = 64 * 1024 };

static const struct ai_provider_ops *const apis[PROVIDER_KINDS] = {
    [PROVIDER_OPENAI] = &ai_openai,
    [PROVIDER_ANTHROPIC] = &ai_anthropic,
};

/* ---- asking ---- */

/* -EPROTO: this provider can't do what the client wants. */
static int write_fetch(struct ai_run *run, const struct ai_provider_ops *api, struct fetch_request *fetch,
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
    *fetch = (struct fetch_request){
        .method = "POST",
        .url = arena_printf(&run->arena, "%s%s", provider->base_url,
                            api->path(run->end.meta.kind, provider->native_completions)),
        .body = arena_str(&run->arena, buf_str(&body)),
        .headers = api->headers(&run->arena, str_from(provider->api_key), run->streams),
        .headers_wanted = api->headers_wanted,
        .connect_timeout_ms = (uint64_t)provider->connect_ms,
        .header_timeout_ms = (uint64_t)provider->header_ms,
        .total_timeout_ms = (uint64_t)provider->total_ms,
        .max_body_bytes = run->streams ? SIZE_MAX : AI_ANSWER_MAX, /* a stream is bounded by its time */
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
    case -EINVAL: fault = AI_FAULT_UNREACHABLE; break;
    case -EMSGSIZE: fault = AI_FAULT_PROTOCOL; break;
    default: fault = AI_FAULT_BROKEN; break;
    }
    ai_failure_make(failure, fault, STR_NONE);
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

/* ---- an answer in one ---- */

static int run_whole(struct ai_run *run, const struct ai_provider_ops *api,
                     const struct fetch_request *request, struct buf *out, struct ai_failure *failure)
{
    struct fetch_answer answer;
    struct ai_answer read;
    int result = fetch(request, &run->arena, &answer);
    if (result)
        return transport_failure(result, failure);
    CRASH_POINT("ai-called");
    take_head(run, api, &answer);
    if (!is_success(answer.status))
        return status_failure(run, api, &answer, answer.body, failure);
    result = api->read_answer(&run->arena, &run->identity, answer.body, out, &read, failure);
    if (result)
        return result;
    run->usage = read.usage;
    ai_run_keep_text(run, read.text);
    return 0;
}

/* ---- an answer that comes by and by ---- */

struct reading {
    struct ai_run *run;
    const struct ai_provider_ops *api;
    struct fetch_stream *fetch;
    struct sse_reader sse;
    struct ai_stream stream;
    struct arena scratch;
    enum ai_stream_state state;
};

/* Every event of the bytes that came together becomes a line. -EPROTO: the failure says what. */
static int take_events(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    struct sse_event event;
    int result = 0;
    while (reading->state == AI_STREAM_MORE && (result = sse_reader_next(&reading->sse, &event)) == 1) {
        size_t before = run->lines.size;
        reading->state = reading->api->stream_event(&reading->stream, &reading->scratch, event.event,
                                                    event.data, &run->lines, failure);
        if (run->lines.size > before)
            buf_add_char(&run->lines, '\n');
        ai_run_keep_text(run, reading->stream.text);
        if (reading->state == AI_STREAM_FAILED)
            ai_failure_keep(&run->arena, failure);
        arena_clear(&reading->scratch);
    }
    ai_stream_usage(&reading->stream, &run->usage);
    if (reading->state == AI_STREAM_FAILED)
        return -EPROTO;
    if (result < 0) {
        ai_failure_make(failure, AI_FAULT_PROTOCOL, STR("an event is too large"));
        return -EPROTO;
    }
    return 0;
}

static void end_stream(struct reading *reading)
{
    struct ai_run *run = reading->run;
    ai_stream_usage(&reading->stream, &run->usage);
    if (!run->identity.include_usage)
        return;
    ai_chunk_usage(&run->lines, &run->identity, &run->usage);
    buf_add_char(&run->lines, '\n');
}

static int read_stream(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    for (;;) {
        struct str piece;
        uint64_t idle_ns = clock_in_ms((uint64_t)run->route->provider->idle_ms);
        int result = fetch_read(reading->fetch, &piece, idle_ns);
        if (result)
            return transport_failure(result, failure);
        if (piece.size == 0)
            break;
        sse_reader_feed(&reading->sse, piece);
        result = take_events(reading, failure);
        if (result || reading->state == AI_STREAM_END)
            break;
        result = ai_run_send(run);
        if (result)
            return result;
    }
    if (reading->state == AI_STREAM_FAILED)
        return -EPROTO;
    if (reading->state == AI_STREAM_MORE && !ai_stream_is_whole(&reading->stream)) {
        ai_failure_make(failure, AI_FAULT_BROKEN, STR("the stream has no end"));
        return -EPROTO;
    }
    end_stream(reading);
    return 0;
}

/* The body of an error, which is short or of no use. */
static int read_error_body(struct reading *reading, struct ai_failure *failure)
{
    struct ai_run *run = reading->run;
    struct buf body = {0};
    struct str piece;
    int result;
    while ((result = fetch_read(reading->fetch, &piece,
                                clock_in_ms((uint64_t)run->route->provider->idle_ms))) == 0 &&
           piece.size > 0 && body.size < ERROR_BODY_MAX)
        buf_add_str(&body, piece);
    struct str text = arena_str(&run->arena, buf_str(&body));
    buf_clear(&body);
    if (result == -ECANCELED)
        return result;
    return status_failure(run, reading->api, fetch_stream_answer(reading->fetch), text, failure);
}

static int run_stream(struct ai_run *run, const struct ai_provider_ops *api,
                      const struct fetch_request *request, struct ai_failure *failure)
{
    struct reading reading = {.run = run, .api = api, .state = AI_STREAM_MORE};
    int result = fetch_open(request, &run->arena, &reading.fetch);
    if (result)
        return transport_failure(result, failure);
    CRASH_POINT("ai-called");
    sse_reader_init(&reading.sse, 0);
    arena_init(&reading.scratch);
    take_head(run, api, fetch_stream_answer(reading.fetch));
    if (is_success(fetch_stream_status(reading.fetch))) {
        api->stream_begin(&reading.stream, &run->identity);
        result = read_stream(&reading, failure);
    } else {
        result = read_error_body(&reading, failure);
    }
    fetch_end(reading.fetch);
    arena_clear(&reading.scratch);
    sse_reader_clear(&reading.sse);
    return result;
}

int ai_http_run(struct ai_run *run, struct buf *answer, struct ai_failure *failure)
{
    struct fetch_request request;
    const struct ai_provider_ops *api = apis[run->route->provider->kind];
    int result = write_fetch(run, api, &request, failure);
    if (result)
        return result;
    return run->streams ? run_stream(run, api, &request, failure)
                        : run_whole(run, api, &request, answer, failure);
}
