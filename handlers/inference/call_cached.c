/* AI calls that are answered by what was answered before (core/domain/ai/cache.h), as one body or as events. */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/ai/cache.h"
#include "core/domain/ai/charge.h"
#include "core/domain/ai/job.h"
#include "core/gate/live.h"
#include "handlers/inference/call.h"
#include "proto/sse.h"

#include <errno.h>

/* What is known of an answer that was kept. */
struct hit {
    const struct json *answer;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    money cost;
    int64_t generation;
};

static bool read_hit(struct call *call, struct str kept, struct hit *hit)
{
    const char *error;
    hit->answer = json_read(call->request->arena, kept, &error);
    const struct json *usage = json_member(hit->answer, "usage");
    return json_count(json_member(hit->answer, "choices")) > 0 &&
           json_to_i64(json_member(usage, "prompt_tokens"), &hit->prompt_tokens) &&
           json_to_i64(json_member(usage, "completion_tokens"), &hit->completion_tokens);
}

/* ---- the same answer, as that of this call ---- */

struct rewriting {
    struct json_out out;
    const struct call *call;
};

static bool rewrite_member(struct str name, const struct json *value, void *arg)
{
    struct rewriting *rewriting = arg;
    char text[64];
    if (name.size >= sizeof text)
        return true;
    memcpy(text, name.at, name.size);
    text[name.size] = '\0';
    if (str_equal(name, STR("id")))
        json_put_str(&rewriting->out, "id", rewriting->call->order.id);
    else if (str_equal(name, STR("created")))
        json_put_int(&rewriting->out, "created", rewriting->call->meta.created_ms / 1000);
    else
        json_put_value(&rewriting->out, text, value);
    return true;
}

static void write_answer(struct buf *out, const struct call *call, const struct hit *hit)
{
    struct rewriting rewriting = {.out = json_out_to(out), .call = call};
    json_open(&rewriting.out, '{');
    json_each(hit->answer, rewrite_member, &rewriting);
    json_close(&rewriting.out, '}');
}

/* ---- and as events: all of it in one chunk ---- */

static void put_tool_calls(struct json_out *out, const struct json *calls)
{
    json_key(out, "tool_calls");
    json_open(out, '[');
    for (size_t i = 0; i < json_count(calls); i++) {
        const struct json *call = json_item(calls, i);
        json_open(out, '{');
        json_put_int(out, "index", (int64_t)i);
        json_put_value(out, "id", json_member(call, "id"));
        json_put_value(out, "type", json_member(call, "type"));
        json_put_value(out, "function", json_member(call, "function"));
        json_close(out, '}');
    }
    json_close(out, ']');
}

static bool put_delta_member(struct str name, const struct json *value, void *arg)
{
    struct json_out *out = arg;
    char text[64];
    if (name.size >= sizeof text)
        return true;
    memcpy(text, name.at, name.size);
    text[name.size] = '\0';
    if (str_equal(name, STR("tool_calls")))
        put_tool_calls(out, value);
    else
        json_put_value(out, text, value);
    return true;
}

static void put_choice(struct json_out *out, const struct json *choice)
{
    const struct json *message = json_member(choice, "message");
    json_open(out, '{');
    json_put_value(out, "index", json_member(choice, "index"));
    if (message) {
        json_key(out, "delta");
        json_open(out, '{');
        json_each(message, put_delta_member, out);
        json_close(out, '}');
    } else {
        json_put_value(out, "text", json_member(choice, "text"));
    }
    json_put_value(out, "logprobs", json_member(choice, "logprobs"));
    json_put_value(out, "finish_reason", json_member(choice, "finish_reason"));
    json_close(out, '}');
}

static void open_chunk(struct json_out *out, const struct call *call)
{
    json_open(out, '{');
    json_put_str(out, "id", call->order.id);
    json_put_text(out, "object", call->meta.kind == AI_CHAT ? "chat.completion.chunk" : "text_completion");
    json_put_int(out, "created", call->meta.created_ms / 1000);
    json_put_str(out, "model", call->meta.model);
    json_key(out, "choices");
    json_open(out, '[');
}

static void put_chunk(struct buf *events, const struct call *call, const struct hit *hit)
{
    const struct json *choices = json_member(hit->answer, "choices");
    struct buf chunk = {0};
    struct json_out out = json_out_to(&chunk);
    open_chunk(&out, call);
    for (size_t i = 0; i < json_count(choices); i++)
        put_choice(&out, json_item(choices, i));
    json_close(&out, ']');
    if (call->ai.include_usage)
        json_put_null(&out, "usage");
    json_close(&out, '}');
    sse_put_event(events, STR_NONE, STR_NONE, buf_str(&chunk));
    buf_clear(&chunk);
}

static void put_usage_chunk(struct buf *events, const struct call *call, const struct hit *hit)
{
    struct buf chunk = {0};
    struct json_out out = json_out_to(&chunk);
    open_chunk(&out, call);
    json_close(&out, ']');
    json_put_value(&out, "usage", json_member(hit->answer, "usage"));
    json_close(&out, '}');
    sse_put_event(events, STR_NONE, STR_NONE, buf_str(&chunk));
    buf_clear(&chunk);
}

static void put_events(struct buf *events, const struct call *call, const struct hit *hit)
{
    put_chunk(events, call, hit);
    if (call->ai.include_usage)
        put_usage_chunk(events, call, hit);
    sse_put_event(events, STR_NONE, STR_NONE, AI_DONE);
}

bool call_put_events(struct call *call, struct str answer, struct buf *events)
{
    struct hit hit;
    bool fine = read_hit(call, answer, &hit);
    if (fine)
        put_events(events, call, &hit);
    return fine;
}

static void reply_events(struct call *call, const struct hit *hit)
{
    struct buf events = {0};
    struct sse sse;
    put_events(&events, call, hit);
    if (!call->request->idempotency ||
        request_commit_for(call->request, 200, buf_str(&events), config->ai_call_s)) {
        sse_begin(&sse, call->request);
        int result = sse_write(&sse, buf_str(&events));
        (void)result; /* it has left */
        if (call->request->idempotency)
            (void)gate_repeat_keep(call->request, 200, buf_str(&events));
        sse_end(&sse);
    }
    buf_clear(&events);
}

/* ---- its price, and its row ---- */

/* What it would cost otherwise, and of that a part. Below the picodollar it is the client's. */
static money price_of(const struct call *call, const struct hit *hit)
{
    money tokens;
    if (!model_cost_of(call->model, hit->prompt_tokens, hit->completion_tokens, &tokens))
        tokens = MODEL_COST_MOST;
    return (call->order.call_price + tokens) * call->model->cache_percent / 100;
}

static struct str text_of(const struct hit *hit)
{
    const struct json *choice = json_item(json_member(hit->answer, "choices"), 0);
    const struct json *message = json_member(choice, "message");
    return json_string(json_member(message ? message : choice, message ? "content" : "text"));
}

static int settle(struct call *call, const struct hit *hit, struct str answer)
{
    int64_t now_ms = clock_wall_ms();
    const struct ai_end end = {
        .id = call->order.id,
        .account_id = call->order.account_id,
        .generation = hit->generation,
        .meta = call->meta,
        .provider = STR("cache"),
        .status = AI_COMPLETED,
        .cost = hit->cost,
        .prompt_tokens = hit->prompt_tokens,
        .completion_tokens = hit->completion_tokens,
        .started_ms = now_ms,
        .ended_ms = now_ms,
        .text = text_of(hit),
        .answer = answer,
        .streamed = call->order.streamed,
    };
    fiber_hold(); /* it is paid for */
    int result = ai_settle(call->request->arena, &end, 1);
    fiber_release();
    return result;
}

/* False: it has replied. */
static bool pay(struct call *call, struct hit *hit)
{
    enum ai_entry entry = AI_ACCEPTED;
    hit->cost = price_of(call, hit);
    int result = hit->cost > 0 ? ai_charge(call->order.account_id, hit->cost, call->order.limit, &entry,
                                           &hit->generation)
                               : 0;
    if (result)
        call_failure(call, result);
    else if (entry != AI_ACCEPTED)
        call_refuse(call, entry, 0);
    return result == 0 && entry == AI_ACCEPTED;
}

static void reply_hit(struct call *call, struct hit *hit)
{
    struct buf answer = {0};
    if (!pay(call, hit))
        return;
    write_answer(&answer, call, hit);
    int result = settle(call, hit, buf_str(&answer));
    if (result) {
        call_failure(call, result);
    } else {
        call_name(call);
        if (call->ai.stream)
            reply_events(call, hit);
        else
            reply_body(call->request, 200, "application/json", buf_str(&answer));
    }
    buf_clear(&answer);
}

void call_keep(const struct call *call, struct str answer)
{
    int64_t seconds = call->model->cache_s ? call->model->cache_s : config->ai_cache_s;
    ai_cache_put(call->order.account_id, &call->ai, seconds, answer);
}

bool call_cached(struct call *call)
{
    struct request *request = call->request;
    struct hit hit = {.generation = 0};
    struct str kept;
    int result = ai_cache_get(request->arena, call->order.account_id, &call->ai, &kept);
    bool found = result == 0 && read_hit(call, kept, &hit);
    reply_header(request, "X-Cache", found ? "HIT" : "MISS");
    call->field_count = request->http->field_count;
    if (found)
        reply_hit(call, &hit);
    return found;
}
