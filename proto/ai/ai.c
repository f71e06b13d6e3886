/*
 * Our answers and chunks in the shapes of the OpenAI API: see ai.h and write.h.
 *
 *                   answer                                   chunk
 *     AI_CHAT       chat.completion, choices of a message    chat.completion.chunk, choices of a delta
 *     AI_COMPLETION text_completion, choices of a text       text_completion, the same with a piece of it
 */
#include "proto/ai/write.h"

enum { BYTES_PER_TOKEN = 4 };

int64_t ai_estimate_tokens(uint64_t bytes)
{
    uint64_t tokens = bytes / BYTES_PER_TOKEN + (bytes % BYTES_PER_TOKEN != 0);
    return tokens > AI_TOKENS_MAX ? AI_TOKENS_MAX : (int64_t)tokens;
}

const char *ai_finish_reason(struct str said)
{
    static const struct {
        const char *said;
        const char *means;
    } reasons[] = {
        {"stop", "stop"},
        {"length", "length"},
        {"tool_calls", "tool_calls"},
        {"content_filter", "content_filter"},
        {"function_call", "function_call"},
        /* Anthropic's. */
        {"max_tokens", "length"},
        {"model_context_window_exceeded", "length"},
        {"tool_use", "tool_calls"},
        {"refusal", "content_filter"},
        /* Of servers that are like OpenAI's. */
        {"model_length", "length"},
        {"safety", "content_filter"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (str_equal_nocase(said, str_from(reasons[i].said)))
            return reasons[i].means;
    return "stop";
}

/* ---- usage ---- */

bool ai_read_count(const struct json *object, const char *name, int64_t *count)
{
    int64_t read;
    if (!json_to_i64(json_member(object, name), &read) || read < 0 || read > AI_TOKENS_MAX)
        return false;
    *count = read;
    return true;
}

static const struct {
    const char *group;
    const char *member;
} details[] = {
#define DETAIL_ROW(name, group, member) {group, member},
    AI_USAGE_DETAILS(DETAIL_ROW)
#undef DETAIL_ROW
};

void ai_usage_tell(struct ai_usage *usage, enum ai_usage_detail detail, int64_t count)
{
    int64_t whole = detail < AI_REASONING_TOKENS ? usage->prompt_tokens : usage->completion_tokens;
    usage->details[detail] = count < whole ? count : whole;
    usage->details_told |= 1U << detail;
}

/* The details of one group that were told, as an object; nothing when none was. */
static void put_details(struct json_out *json, const char *group, const struct ai_usage *usage)
{
    bool open = false;
    for (unsigned i = 0; i < AI_USAGE_DETAIL_COUNT; i++) {
        if (!(usage->details_told & 1U << i) || strcmp(details[i].group, group) != 0)
            continue;
        if (!open) {
            json_key(json, group);
            json_open(json, '{');
            open = true;
        }
        json_put_int(json, details[i].member, usage->details[i]);
    }
    if (open)
        json_close(json, '}');
}

static void put_usage(struct json_out *json, const struct ai_usage *usage)
{
    json_key(json, "usage");
    json_open(json, '{');
    json_put_int(json, "prompt_tokens", usage->prompt_tokens);
    json_put_int(json, "completion_tokens", usage->completion_tokens);
    json_put_int(json, "total_tokens", usage->prompt_tokens + usage->completion_tokens);
    put_details(json, "prompt_tokens_details", usage);
    put_details(json, "completion_tokens_details", usage);
    json_close(json, '}');
}

/* ---- choices ---- */

static void put_if_there(struct json_out *json, const char *name, struct str value)
{
    if (value.at)
        json_put_str(json, name, value);
}

static void put_tool_call(struct json_out *json, const struct ai_tool_call *call, bool in_chunk)
{
    json_open(json, '{');
    if (in_chunk)
        json_put_int(json, "index", call->index);
    put_if_there(json, "id", call->id);
    if (!in_chunk || call->id.at)
        json_put_text(json, "type", call->custom ? "custom" : "function");
    json_key(json, call->custom ? "custom" : "function");
    json_open(json, '{');
    put_if_there(json, "name", call->name);
    put_if_there(json, call->custom ? "input" : "arguments", call->arguments);
    json_close(json, '}');
    json_close(json, '}');
}

static void put_tool_calls(struct json_out *json, const struct ai_choice *choice, bool in_chunk)
{
    if (choice->call_count == 0)
        return;
    json_key(json, "tool_calls");
    json_open(json, '[');
    for (size_t i = 0; i < choice->call_count; i++)
        put_tool_call(json, &choice->calls[i], in_chunk);
    json_close(json, ']');
}

/* What of a message or delta is the same in both. */
static void put_rest(struct json_out *json, const struct ai_choice *choice, bool in_chunk)
{
    put_if_there(json, "reasoning_content", choice->reasoning);
    put_tool_calls(json, choice, in_chunk);
    if (choice->function_call)
        json_put_value(json, "function_call", choice->function_call);
    if (choice->annotations)
        json_put_value(json, "annotations", choice->annotations);
}

static void put_logprobs(struct json_out *json, const struct ai_choice *choice)
{
    json_put_value(json, "logprobs", choice->logprobs);
}

static void put_text(struct json_out *json, const struct ai_choice *choice)
{
    json_open(json, '{');
    json_put_str(json, "text", choice->content.at ? choice->content : STR(""));
    json_put_int(json, "index", choice->index);
    put_logprobs(json, choice);
    json_put_text(json, "finish_reason", choice->finish_reason);
    json_close(json, '}');
}

void ai_put_choice(struct json_out *json, const struct ai_identity *identity, const struct ai_choice *choice)
{
    if (identity->kind == AI_COMPLETION) {
        put_text(json, choice);
        return;
    }
    json_open(json, '{');
    json_put_int(json, "index", choice->index);
    json_key(json, "message");
    json_open(json, '{');
    json_put_text(json, "role", "assistant");
    json_put_str(json, "content", choice->content);
    json_put_str(json, "refusal", choice->refusal);
    put_rest(json, choice, false);
    json_close(json, '}');
    put_logprobs(json, choice);
    json_put_text(json, "finish_reason", choice->finish_reason);
    json_close(json, '}');
}

void ai_put_delta(struct json_out *json, const struct ai_identity *identity, const struct ai_choice *choice)
{
    if (identity->kind == AI_COMPLETION) {
        put_text(json, choice);
        return;
    }
    json_open(json, '{');
    json_put_int(json, "index", choice->index);
    json_key(json, "delta");
    json_open(json, '{');
    if (choice->first)
        json_put_text(json, "role", "assistant");
    put_if_there(json, "content",
                 choice->first && !choice->content.at && choice->call_count == 0 ? STR("") : choice->content);
    put_if_there(json, "refusal", choice->refusal);
    put_rest(json, choice, true);
    json_close(json, '}');
    put_logprobs(json, choice);
    json_put_text(json, "finish_reason", choice->finish_reason);
    json_close(json, '}');
}

bool ai_delta_shows(const struct ai_identity *identity, const struct ai_choice *choice)
{
    if (choice->finish_reason || choice->content.size > 0)
        return true;
    return identity->kind == AI_CHAT &&
           (choice->first || choice->refusal.size > 0 || choice->reasoning.size > 0 ||
            choice->call_count > 0 || choice->function_call || choice->annotations || choice->logprobs);
}

uint64_t ai_choice_bytes(const struct ai_choice *choice)
{
    uint64_t bytes = choice->content.size + choice->refusal.size + choice->reasoning.size;
    for (size_t i = 0; i < choice->call_count; i++)
        bytes += choice->calls[i].name.size + choice->calls[i].arguments.size;
    return bytes + json_string(json_member(choice->function_call, "name")).size +
           json_string(json_member(choice->function_call, "arguments")).size;
}

/* ---- answers ---- */

static void open_object(struct json_out *json, const struct ai_identity *identity, const char *object)
{
    json_open(json, '{');
    json_put_str(json, "id", identity->id);
    json_put_text(json, "object", object);
    json_put_int(json, "created", identity->created_s);
    json_put_str(json, "model", identity->model);
    json_key(json, "choices");
    json_open(json, '[');
}

static void put_extras(struct json_out *json, const struct ai_extras *extras)
{
    put_if_there(json, "service_tier", extras->service_tier);
    put_if_there(json, "system_fingerprint", extras->system_fingerprint);
}

void ai_open_answer(struct json_out *json, const struct ai_identity *identity)
{
    open_object(json, identity, identity->kind == AI_CHAT ? "chat.completion" : "text_completion");
}

void ai_close_answer(struct json_out *json, const struct ai_usage *usage, const struct ai_extras *extras)
{
    json_close(json, ']');
    put_usage(json, usage);
    put_extras(json, extras);
    json_close(json, '}');
}

void ai_open_chunk(struct json_out *json, const struct ai_identity *identity)
{
    open_object(json, identity, identity->kind == AI_CHAT ? "chat.completion.chunk" : "text_completion");
}

void ai_close_chunk(struct json_out *json, const struct ai_identity *identity, const struct ai_extras *extras)
{
    json_close(json, ']');
    put_extras(json, extras);
    if (identity->include_usage)
        json_put_null(json, "usage");
    json_close(json, '}');
}

/* ---- from plain text ---- */

static const struct ai_extras no_extras;

void ai_answer_from_text(struct buf *out, const struct ai_identity *identity, struct str text,
                         const char *finish_reason, const struct ai_usage *usage)
{
    struct json_out json = json_out_to(out);
    struct ai_choice choice = {.content = text.at ? text : STR(""), .finish_reason = finish_reason};
    ai_open_answer(&json, identity);
    ai_put_choice(&json, identity, &choice);
    ai_close_answer(&json, usage, &no_extras);
}

static void put_chunk(struct buf *out, const struct ai_identity *identity, const struct ai_choice *choice)
{
    struct json_out json = json_out_to(out);
    ai_open_chunk(&json, identity);
    ai_put_delta(&json, identity, choice);
    ai_close_chunk(&json, identity, &no_extras);
}

void ai_chunk_from_text(struct buf *out, const struct ai_identity *identity, bool first, struct str text)
{
    put_chunk(out, identity, &(struct ai_choice){.first = first, .content = text});
}

void ai_chunk_finish(struct buf *out, const struct ai_identity *identity, const char *finish_reason)
{
    put_chunk(out, identity, &(struct ai_choice){.finish_reason = finish_reason});
}

void ai_chunk_usage(struct buf *out, const struct ai_identity *identity, const struct ai_usage *usage)
{
    struct json_out json = json_out_to(out);
    ai_open_chunk(&json, identity);
    ai_close_answer(&json, usage, &no_extras);
}
