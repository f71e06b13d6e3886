/* Unstreamed answers and errors of the Messages API, and the table of its functions. */
#include "proto/ai/anthropic_internal.h"
#include "proto/ai/classify.h"
#include "proto/ai/mend.h"

#include <errno.h>

static struct str text_member(const struct json *object, const char *name)
{
    return json_string(json_member(object, name));
}

/* ---- answers ---- */

static int fail(struct ai_failure *failure, struct str why)
{
    ai_failure_make(failure, AI_FAULT_PROTOCOL, why);
    return -EPROTO;
}

bool anthropic_read_prompt_usage(const struct json *object, struct ai_usage *usage)
{
    static const struct {
        const char *name;
        enum ai_usage_detail detail;
    } parts[] = {{"cache_read_input_tokens", AI_CACHED_TOKENS},
                 {"cache_creation_input_tokens", AI_CACHE_WRITE_TOKENS}};
    int64_t counts[ARRAY_SIZE(parts)];
    int64_t sum;
    bool told[ARRAY_SIZE(parts)];
    if (!ai_read_count(object, "input_tokens", &sum))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        told[i] = ai_read_count(object, parts[i].name, &counts[i]);
        sum += told[i] ? counts[i] : 0;
    }
    usage->prompt_tokens = sum > AI_TOKENS_MAX ? AI_TOKENS_MAX : sum;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (told[i])
            ai_usage_tell(usage, parts[i].detail, counts[i]);
    return true;
}

struct blocks {
    struct buf text;
    struct buf thinking;
    struct ai_tool_call *calls;
    size_t call_count;
    bool has_text;
};

static void take_tool_use(struct arena *arena, const struct json *block, struct blocks *blocks)
{
    struct ai_tool_call *call = &blocks->calls[blocks->call_count];
    const struct json *input = json_member(block, "input");
    struct buf arguments = {0};
    if (json_type_of(input) == JSON_OBJECT)
        json_write_value(&arguments, input);
    else
        buf_add_literal(&arguments, "{}");
    *call = (struct ai_tool_call){
        .id = text_member(block, "id"),
        .name = text_member(block, "name"),
        .arguments = arena_str(arena, buf_str(&arguments)),
    };
    buf_clear(&arguments);
    if (!call->id.at)
        call->id = str_from(arena_printf(arena, "call_%zu", blocks->call_count));
    if (call->name.at)
        blocks->call_count++;
}

static void take_block(struct arena *arena, const struct json *block, struct blocks *blocks)
{
    struct str type = text_member(block, "type");
    if (str_equal(type, STR("text"))) {
        buf_add_str(&blocks->text, text_member(block, "text"));
        blocks->has_text = true;
    } else if (str_equal(type, STR("thinking"))) {
        buf_add_str(&blocks->thinking, text_member(block, "thinking"));
    } else if (str_equal(type, STR("tool_use")) && blocks->call_count < AI_TOOL_CALLS_MAX) {
        take_tool_use(arena, block, blocks);
    }
}

static void read_content(struct arena *arena, const struct json *content, struct ai_choice *choice)
{
    size_t count = json_count(content);
    struct blocks blocks = {.calls =
                                arena_alloc(arena, (count < AI_TOOL_CALLS_MAX ? count : AI_TOOL_CALLS_MAX) *
                                                       sizeof *blocks.calls)};
    for (size_t i = 0; i < count; i++)
        take_block(arena, json_item(content, i), &blocks);
    if (blocks.has_text || blocks.call_count == 0)
        choice->content = arena_str(arena, buf_str(&blocks.text));
    if (blocks.thinking.size > 0)
        choice->reasoning = arena_str(arena, buf_str(&blocks.thinking));
    choice->calls = blocks.calls;
    choice->call_count = blocks.call_count;
    buf_clear(&blocks.text);
    buf_clear(&blocks.thinking);
}

int anthropic_read_answer(struct arena *arena, const struct ai_identity *identity, struct str body,
                          struct buf *out, struct ai_answer *answer, struct ai_failure *failure)
{
    struct ai_choice choice = {.index = 0};
    const struct ai_extras extras = {.service_tier = STR_NONE};
    const struct json *object = ai_read_json(arena, body);
    if (!object)
        return fail(failure, STR("the answer is no JSON"));
    if (ai_find_error(arena, identity, object, failure))
        return -EPROTO;
    const struct json *content = json_member(object, "content");
    if (json_type_of(content) != JSON_ARRAY)
        return fail(failure, STR("the answer has no content"));
    read_content(arena, content, &choice);
    choice.finish_reason = ai_finish_reason(text_member(object, "stop_reason"));
    *answer = (struct ai_answer){.finish_reason = choice.finish_reason};
    answer->text = choice.content.at ? choice.content : STR("");
    const struct json *usage = json_member(object, "usage");
    answer->usage.prompt_tokens = identity->prompt_tokens;
    answer->usage.completion_tokens = ai_estimate_tokens(ai_choice_bytes(&choice));
    bool has_prompt = anthropic_read_prompt_usage(usage, &answer->usage);
    bool has_completion = ai_read_count(usage, "output_tokens", &answer->usage.completion_tokens);
    answer->usage.estimated = !has_prompt || !has_completion;
    struct json_out json = json_out_to(out);
    ai_open_answer(&json, identity);
    ai_put_choice(&json, identity, &choice);
    ai_close_answer(&json, &answer->usage, &extras);
    return 0;
}

/* ---- errors and limits ---- */

static int64_t count_header(ai_header_get *header, const void *arg, const char *name)
{
    uint64_t count;
    struct str value = header(arg, name);
    return value.at && str_to_u64(str_trim(value), &count) && count <= INT64_MAX ? (int64_t)count : -1;
}

static int64_t time_header(ai_header_get *header, const void *arg, const char *name, int64_t now_ms)
{
    struct str value = header(arg, name);
    return value.at ? ai_read_time(value, now_ms) : -1;
}

static void read_rate(ai_header_get *header, const void *arg, int64_t now_ms, struct ai_rate *rate)
{
    struct str after = header(arg, "retry-after");
    *rate = (struct ai_rate){
        .retry_after_ms = after.at ? ai_read_retry_after(after, now_ms) : -1,
        .requests_left = count_header(header, arg, "anthropic-ratelimit-requests-remaining"),
        .requests_reset_ms = time_header(header, arg, "anthropic-ratelimit-requests-reset", now_ms),
        .tokens_left = count_header(header, arg, "anthropic-ratelimit-tokens-remaining"),
        .tokens_reset_ms = time_header(header, arg, "anthropic-ratelimit-tokens-reset", now_ms),
    };
}

static const char *const headers_wanted[] = {"retry-after",
                                             "anthropic-ratelimit-requests-remaining",
                                             "anthropic-ratelimit-requests-reset",
                                             "anthropic-ratelimit-tokens-remaining",
                                             "anthropic-ratelimit-tokens-reset",
                                             NULL};

static void read_error(struct arena *arena, int status, struct str body, ai_header_get *header,
                       const void *arg, struct str secret, int64_t now_ms, struct ai_failure *failure)
{
    struct ai_upstream_error error = {.status = status};
    struct ai_rate rate;
    const struct json *object = ai_read_json(arena, body);
    if (object)
        ai_read_error_object(json_member(object, "error"), &error);
    ai_classify(arena, &error, secret, failure);
    read_rate(header, arg, now_ms, &rate);
    ai_failure_rate(failure, &rate);
}

/* ---- the table ---- */

static const char *path(enum ai_kind kind, bool native_completions)
{
    (void)kind;
    (void)native_completions;
    return "/v1/messages";
}

static const char *const *headers(struct arena *arena, struct str api_key, bool stream)
{
    const char **list = arena_zalloc(arena, 5 * sizeof *list);
    size_t count = 0;
    list[count++] = "Content-Type: application/json";
    list[count++] = stream ? "Accept: text/event-stream" : "Accept: application/json";
    list[count++] = "anthropic-version: 2023-06-01";
    if (api_key.at)
        list[count++] = arena_printf(arena, "x-api-key: %.*s", STR_ARG(api_key));
    return list;
}

const struct ai_provider_ops ai_anthropic = {
    .name = "anthropic",
    .path = path,
    .headers = headers,
    .headers_wanted = headers_wanted,
    .accepts = anthropic_accepts,
    .write_request = anthropic_write_request,
    .read_answer = anthropic_read_answer,
    .stream_begin = ai_stream_init,
    .stream_event = anthropic_stream_event,
    .read_error = read_error,
    .read_rate = read_rate,
};
