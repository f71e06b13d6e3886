/*
 * What stands in answers and chunks of providers that speak as OpenAI does: see openai_internal.h. Some of them are only like it:
 * they leave out ids and indexes, send objects in the place of their text, or content in parts. Clients get what OpenAI's own
 * API would have sent.
 */
#include "proto/ai/openai_internal.h"

enum { EXTRA_MAX = 128 /* bytes of a fingerprint or tier */ };

static struct str string_member(const struct json *object, const char *name)
{
    return json_string(json_member(object, name));
}

static const struct json *member_of_type(const struct json *object, const char *name, enum json_type type)
{
    const struct json *value = json_member(object, name);
    return json_type_of(value) == type ? value : NULL;
}

static struct str kept(struct arena *arena, struct buf *text)
{
    struct str copy = arena_str(arena, buf_str(text));
    buf_clear(text);
    return copy;
}

/* A string, or the texts of an array of parts. */
static struct str text_of(struct arena *arena, const struct json *content)
{
    if (json_type_of(content) != JSON_ARRAY)
        return json_string(content);
    struct buf text = {0};
    for (size_t i = 0; i < json_count(content); i++)
        buf_add_str(&text, string_member(json_item(content, i), "text"));
    return kept(arena, &text);
}

/* JSON text as a string, or the value itself where a provider has unpacked it. */
static struct str arguments_of(struct arena *arena, const struct json *value)
{
    if (json_type_of(value) != JSON_OBJECT)
        return json_string(value);
    struct buf text = {0};
    json_write_value(&text, value);
    return kept(arena, &text);
}

/* Where a list's item says that it belongs; what was in *index before, if it says nothing. False when there can be no such place. */
static bool read_index(const struct json *item, int64_t end, int64_t *index)
{
    const struct json *said = json_member(item, "index");
    if (json_type_of(said) == JSON_NUMBER && !json_to_i64(said, index))
        return false;
    return *index >= 0 && *index < end;
}

static bool read_tool_call(struct arena *arena, const struct json *item, size_t place, bool in_chunk,
                           struct ai_tool_call *call)
{
    const struct json *custom = member_of_type(item, "custom", JSON_OBJECT);
    const struct json *called = custom ? custom : member_of_type(item, "function", JSON_OBJECT);
    int64_t index = (int64_t)place;
    if (!read_index(item, AI_TOOL_CALLS_MAX, &index))
        return false;
    *call = (struct ai_tool_call){
        .index = (unsigned)index,
        .id = string_member(item, "id"),
        .name = string_member(called, "name"),
        .arguments =
            custom ? string_member(custom, "input") : arguments_of(arena, json_member(called, "arguments")),
        .custom = custom != NULL,
    };
    if (in_chunk)
        return call->id.at || call->name.at || call->arguments.at;
    if (!call->id.at)
        call->id = str_from(arena_printf(arena, "call_%zu", place));
    if (!call->arguments.at)
        call->arguments = custom ? STR("") : STR("{}");
    return call->name.at != NULL;
}

static void read_tool_calls(struct arena *arena, const struct json *list, bool in_chunk,
                            struct ai_choice *choice)
{
    size_t count = json_type_of(list) == JSON_ARRAY ? json_count(list) : 0;
    if (count > AI_TOOL_CALLS_MAX)
        count = AI_TOOL_CALLS_MAX;
    if (count == 0)
        return;
    struct ai_tool_call *calls = arena_alloc(arena, count * sizeof *calls);
    for (size_t i = 0; i < count; i++)
        choice->call_count +=
            read_tool_call(arena, json_item(list, i), i, in_chunk, &calls[choice->call_count]) ? 1 : 0;
    choice->calls = calls;
}

static void read_message(struct arena *arena, const struct json *message, bool in_chunk,
                         struct ai_choice *choice)
{
    choice->content = text_of(arena, json_member(message, "content"));
    choice->refusal = string_member(message, "refusal");
    choice->reasoning = string_member(message, "reasoning_content");
    if (!choice->reasoning.at)
        choice->reasoning = string_member(message, "reasoning");
    choice->function_call = member_of_type(message, "function_call", JSON_OBJECT);
    choice->annotations = member_of_type(message, "annotations", JSON_ARRAY);
    read_tool_calls(arena, json_member(message, "tool_calls"), in_chunk, choice);
}

bool openai_read_choice(struct arena *arena, const struct ai_identity *identity, const struct json *item,
                        size_t place, bool in_chunk, struct ai_choice *choice)
{
    int64_t index = (int64_t)place;
    struct str reason = string_member(item, "finish_reason");
    const struct json *message = member_of_type(item, in_chunk ? "delta" : "message", JSON_OBJECT);
    struct str text = string_member(item, "text");
    if (!read_index(item, ai_choices_of(identity), &index) || (!message && !text.at && reason.size == 0))
        return false;
    *choice = (struct ai_choice){.index = (unsigned)index};
    if (message)
        read_message(arena, message, in_chunk, choice);
    else
        choice->content = text;
    /* Those of the other kind would be read wrongly. */
    if ((identity->kind == AI_CHAT) == (message != NULL))
        choice->logprobs = member_of_type(item, "logprobs", JSON_OBJECT);
    if (reason.size > 0 || !in_chunk)
        choice->finish_reason = ai_finish_reason(reason);
    return true;
}

/* ---- beside the choices ---- */

static const struct {
    const char *group;
    const char *member;
} details[] = {
#define DETAIL_ROW(name, group, member) {group, member},
    AI_USAGE_DETAILS(DETAIL_ROW)
#undef DETAIL_ROW
};

void openai_read_usage(const struct json *object, struct ai_usage *usage, bool *has_prompt,
                       bool *has_completion)
{
    int64_t count;
    if (ai_read_count(object, "prompt_tokens", &usage->prompt_tokens))
        *has_prompt = true;
    if (ai_read_count(object, "completion_tokens", &usage->completion_tokens))
        *has_completion = true;
    for (unsigned i = 0; i < AI_USAGE_DETAIL_COUNT; i++)
        if (ai_read_count(json_member(object, details[i].group), details[i].member, &count))
            ai_usage_tell(usage, (enum ai_usage_detail)i, count);
    /* DeepSeek's name for it. */
    if (!(usage->details_told & 1U << AI_CACHED_TOKENS) &&
        ai_read_count(object, "prompt_cache_hit_tokens", &count))
        ai_usage_tell(usage, AI_CACHED_TOKENS, count);
}

static struct str extra(const struct json *object, const char *name)
{
    struct str value = string_member(object, name);
    return value.size <= EXTRA_MAX ? value : STR_NONE;
}

void openai_read_extras(const struct json *object, struct ai_extras *extras)
{
    extras->system_fingerprint = extra(object, "system_fingerprint");
    extras->service_tier = extra(object, "service_tier");
}
