/* AI calls: what is asked for, of which model, and which way it takes (call.h). */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "handlers/inference/call.h"
#include "handlers/inference/inference.h"

/* As the SDKs for OpenAI's API read it, with the parameter that it is about. */
static void reply_refusal(struct request *request, int status, const struct ai_refusal *refusal)
{
    const char *code = refusal->code ? refusal->code : "invalid_request";
    struct buf body = {0};
    struct json_out json = json_out_to(&body);
    json_open(&json, '{');
    json_key(&json, "error");
    json_open(&json, '{');
    json_put_str(&json, "message", refusal->message);
    json_put_text(&json, "type", "invalid_request_error");
    json_put_text(&json, "code", code);
    json_put_str(&json, "param", refusal->param);
    json_close(&json, '}');
    json_close(&json, '}');
    buf_add_char(&body, '\n');
    reply_error_body(request, status, code, "application/json", buf_str(&body));
    buf_clear(&body);
}

static bool read_request(struct call *call, enum ai_kind kind)
{
    struct request *request = call->request;
    struct ai_refusal refusal;
    const struct json *body = request_json(request);
    if (!body)
        return false;
    if (ai_request_read(request->arena, kind, body, &call->ai, &refusal) == 0)
        return true;
    reply_refusal(request, 400, &refusal);
    return false;
}

static bool find_model(struct call *call)
{
    call->model = catalogue_model(call->catalogue, call->ai.model);
    if (call->model)
        return true;
    const struct ai_refusal refusal = {
        .message = str_from(
            arena_printf(call->request->arena, "The model `%.*s` is not available", STR_ARG(call->ai.model))),
        .param = STR("model"),
        .code = "model_not_available",
    };
    reply_refusal(call->request, 404, &refusal);
    return false;
}

/* What is reserved is what the model gives at most, so nobody may ask for more. */
static bool fits_model(struct call *call)
{
    struct arena *arena = call->request->arena;
    const struct json *tokens = json_member(call->ai.body, "max_completion_tokens");
    if (call->ai.max_tokens <= call->model->max_output)
        return true;
    const struct ai_refusal refusal = {
        .message = str_from(arena_printf(arena, "The model gives %lld tokens at most, not %lld",
                                         (long long)call->model->max_output, (long long)call->ai.max_tokens)),
        .param = json_type_of(tokens) == JSON_NUMBER ? STR("max_completion_tokens") : STR("max_tokens"),
        .code = "invalid_value",
    };
    reply_refusal(call->request, 400, &refusal);
    return false;
}

/* A pod's calls are its session's, and cost no more than their tokens. */
static void describe(struct call *call)
{
    const struct request *request = call->request;
    bool is_pod = request->principal.kind == PRINCIPAL_POD;
    ai_order_describe(&call->meta, &call->ai, call->model);
    call->meta.key_id = request->principal.key_id;
    call->meta.surface = is_pod ? STR("session") : STR("inference");
    call->meta.request_id = request->id;
    call->meta.created_ms = clock_wall_ms();
    call->meta.call_price = is_pod ? 0 : ai_order_call_price();
}

static void order(struct call *call)
{
    const struct request *request = call->request;
    ai_new_id(call->id);
    call->order = (struct ai_order){
        .id = str_from(call->id),
        .account_id = request->principal.account_id,
        .body = request->body,
        .limit = request->principal.plan.daily_spend == PLAN_SPEND_UNLIMITED
                     ? -1
                     : request->principal.plan.daily_spend,
    };
}

static void serve(struct call *call)
{
    struct request *request = call->request;
    describe(call);
    order(call);
    bool async = !call->ai.stream && request_prefers(request, "respond-async");
    call->order.streamed = call->ai.stream;
    call->order.durable = async;
    call->caches = !async && (call->ai.cache == AI_CACHE_YES ||
                              (call->ai.cache == AI_CACHE_AS_MODEL && call->model->cache_s > 0));
    call->meta.ends_with_usage = call->caches && call->ai.stream; /* what is kept has it */
    if (!ai_order_fill(&call->order, request->arena, &call->meta, call->model)) {
        reply_invalid(request, "This call could cost more than any call may");
        return;
    }
    call->until_ns = clock_in_ms((uint64_t)config->ai_call_s * 1000);
    call->line_until_ns = clock_in_ms((uint64_t)call->order.wait_ms);
    fiber_set_deadline(CLOCK_NEVER); /* every wait has a bound of its own */
    if (!async)
        request_again(request, call_again, call);
    if (!gate_repeat(request))
        return;
    if (!call->caches)
        reply_header(request, "X-Cache", "BYPASS");
    call->field_count = request->http->field_count;
    if (async)
        call_job(call);
    else if (call->caches && call_cached(call))
        return;
    else if (call->ai.stream)
        call_stream(call);
    else
        call_answer(call);
}

static void run(struct request *request, enum ai_kind kind)
{
    struct call call = {.request = request};
    if (!read_request(&call, kind))
        return;
    call.catalogue = catalogue_ref();
    if (find_model(&call) && fits_model(&call))
        serve(&call);
    catalogue_unref(call.catalogue);
}

/* POST /api/v1/completions */
void calls_complete(struct request *request)
{
    run(request, AI_COMPLETION);
}

/* POST /v1/chat/completions */
void calls_chat(struct request *request)
{
    run(request, AI_CHAT);
}
