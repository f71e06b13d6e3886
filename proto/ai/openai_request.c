/* Requests to providers that speak as OpenAI does: see provider.h. */
#include "proto/ai/openai_internal.h"
#include "proto/ai/parameters.h"

#include <errno.h>

int openai_accepts(struct arena *arena, const struct ai_request *request, const struct ai_upstream *upstream,
                   struct ai_refusal *refusal)
{
    struct ai_check check = {.arena = arena, .refusal = refusal};
    bool as_chat = request->kind == AI_COMPLETION && !upstream->native_completions;
    /* A chat's are another thing: by message and with bytes, not by the text's offsets. */
    if (as_chat && json_type_of(json_member(request->body, "logprobs")) != JSON_NULL) {
        ai_refuse(&check, AI_PATH(NULL, "logprobs"), "unsupported_parameter",
                  "this model gives no log probabilities of completions");
        return -EINVAL;
    }
    return 0;
}

struct writing {
    struct json_out *json;
    enum ai_kind kind;
};

static bool pass_member(struct str name, const struct json *value, void *arg)
{
    struct writing *writing = arg;
    const struct ai_parameter *parameter = ai_parameter_find(writing->kind, name);
    if (parameter && (parameter->flags & AI_PASSED) && json_type_of(value) != JSON_NULL)
        json_put_value(writing->json, parameter->name, value);
    return true;
}

/* ---- messages ---- */

static bool is_there(const struct json *value)
{
    return json_type_of(value) != JSON_NULL;
}

static void put_members(struct json_out *json, const struct json *object, const char *const *names,
                        size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_there(json_member(object, names[i])))
            json_put_value(json, names[i], json_member(object, names[i]));
}

static void put_tool_call(struct json_out *json, const struct json *call)
{
    static const char *const members[] = {"id", "type", "custom"};
    static const char *const of_function[] = {"name", "arguments"};
    const struct json *function = json_member(call, "function");
    json_open(json, '{');
    put_members(json, call, members, ARRAY_SIZE(members));
    if (function) {
        json_key(json, "function");
        json_open(json, '{');
        put_members(json, function, of_function, ARRAY_SIZE(of_function));
        json_close(json, '}');
    }
    json_close(json, '}');
}

/* What the model said before, without what clients leave in it that it never was told: some providers refuse that. */
static void put_assistant(struct json_out *json, const struct json *message)
{
    static const char *const members[] = {"name", "refusal", "function_call", "reasoning_content"};
    const struct json *calls = json_member(message, "tool_calls");
    json_open(json, '{');
    json_put_text(json, "role", "assistant");
    json_put_value(json, "content", json_member(message, "content"));
    put_members(json, message, members, ARRAY_SIZE(members));
    if (is_there(calls)) {
        json_key(json, "tool_calls");
        json_open(json, '[');
        for (size_t i = 0; i < json_count(calls); i++)
            put_tool_call(json, json_item(calls, i));
        json_close(json, ']');
    }
    json_close(json, '}');
}

static void put_messages(struct json_out *json, const struct json *messages)
{
    json_key(json, "messages");
    json_open(json, '[');
    for (size_t i = 0; i < json_count(messages); i++) {
        const struct json *message = json_item(messages, i);
        if (str_equal(json_string(json_member(message, "role")), STR("assistant")))
            put_assistant(json, message);
        else
            json_put_value(json, NULL, message);
    }
    json_close(json, ']');
}

static void put_prompt_message(struct json_out *json, struct str prompt)
{
    json_key(json, "messages");
    json_open(json, '[');
    json_open(json, '{');
    json_put_text(json, "role", "user");
    json_put_str(json, "content", prompt);
    json_close(json, '}');
    json_close(json, ']');
}

/* ---- the rest ---- */

/* Models that refuse `max_tokens`; all others of that kind know it, and few of other makers know its successor. */
static bool wants_max_completion_tokens(struct str model)
{
    static const char *const prefixes[] = {"o1", "o3", "o4", "gpt-5"};
    const char *slash = memrchr(model.at, '/', model.size);
    if (slash)
        model = str_of(slash + 1, (size_t)(model.at + model.size - slash - 1));
    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (str_starts(model, str_from(prefixes[i])))
            return true;
    return false;
}

static void put_max_tokens(struct json_out *json, const struct ai_request *request,
                           const struct ai_upstream *upstream)
{
    static const char *const names[] = {"max_tokens", "max_completion_tokens"};
    int64_t most = request->max_tokens ? request->max_tokens : upstream->max_tokens;
    bool by_client = request->kind == AI_CHAT && request->max_tokens;
    bool newer = by_client ? json_type_of(json_member(request->body, names[1])) != JSON_NULL
                           : wants_max_completion_tokens(upstream->model);
    json_put_int(json, names[newer && !(request->kind == AI_COMPLETION && upstream->native_completions)],
                 most);
}

/* Usage is wanted in any case; whether the client sees it is decided when it comes. */
static void put_stream(struct json_out *json, const struct ai_request *request)
{
    const struct json *padding =
        json_member(json_member(request->body, "stream_options"), "include_obfuscation");
    json_put_bool(json, "stream", true);
    json_key(json, "stream_options");
    json_open(json, '{');
    json_put_bool(json, "include_usage", true);
    if (json_type_of(padding) == JSON_BOOL)
        json_put_value(json, "include_obfuscation", padding);
    json_close(json, '}');
}

int openai_write_request(struct arena *arena, const struct ai_request *request,
                         const struct ai_upstream *upstream, struct buf *out, struct ai_refusal *refusal)
{
    int result = openai_accepts(arena, request, upstream, refusal);
    if (result)
        return result;
    struct json_out json = json_out_to(out);
    struct writing writing = {.json = &json, .kind = request->kind};
    json_open(&json, '{');
    json_put_str(&json, "model", upstream->model);
    if (request->kind == AI_CHAT)
        put_messages(&json, request->messages);
    else if (upstream->native_completions)
        json_put_str(&json, "prompt", request->prompt);
    else
        put_prompt_message(&json, request->prompt);
    put_max_tokens(&json, request, upstream);
    json_each(request->body, pass_member, &writing);
    if (upstream->stream)
        put_stream(&json, request);
    json_close(&json, '}');
    return 0;
}
