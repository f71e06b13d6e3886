/* Streams of providers that speak as OpenAI does: chunks with the data "[DONE]" behind them. */
#include "proto/ai/openai_internal.h"

#include "proto/ai/classify.h"
#include "proto/ai/mend.h"

static enum ai_stream_state fail(struct ai_failure *failure, struct str why)
{
    ai_failure_make(failure, AI_FAULT_PROTOCOL, why);
    return AI_STREAM_FAILED;
}

static uint32_t hash_of(struct str id)
{
    uint32_t hash = 2166136261U;
    for (size_t i = 0; i < id.size; i++)
        hash = (hash ^ (unsigned char)id.at[i]) * 16777619U;
    return hash ? hash : 1;
}

/* The number of the call of that id, or the next one. */
static unsigned number_of(const struct ai_stream *stream, uint32_t id)
{
    unsigned number = 0;
    while (number < stream->tool_calls && stream->tool_ids[number] != id)
        number++;
    return number;
}

/* Some providers give all calls of a turn the number 0, or none, and say by their ids alone that they are several: put together under one
 * number, their arguments would be one text that is no JSON. What has no id goes on with the call that began last. */
static void number_call(struct ai_stream *stream, struct ai_tool_call *call)
{
    uint32_t id = call->id.size > 0 ? hash_of(call->id) : 0;
    if (id && call->name.at && stream->tool_ids[call->index] && stream->tool_ids[call->index] != id)
        stream->renumbers = true;
    if (stream->renumbers)
        call->index = id ? number_of(stream, id) : stream->tool_calls - 1;
    if (call->index >= AI_TOOL_CALLS_MAX)
        call->index = AI_TOOL_CALLS_MAX - 1; /* nobody makes so many: what is over is lost */
    if (!id)
        return;
    if (!stream->tool_ids[call->index])
        stream->tool_ids[call->index] = id;
    if (call->index >= stream->tool_calls)
        stream->tool_calls = call->index + 1;
}

static void take_choices(struct ai_stream *stream, struct arena *scratch, const struct json *object,
                         struct buf *out)
{
    const struct json *list = json_member(object, "choices");
    struct ai_choice choices[AI_CHOICES_MAX];
    struct ai_extras extras;
    size_t count = 0;
    for (size_t i = 0; i < json_count(list) && count < AI_CHOICES_MAX; i++)
        count += openai_read_choice(scratch, &stream->identity, json_item(list, i), i, true, &choices[count]);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; choices[i].index == 0 && k < choices[i].call_count; k++)
            number_call(stream, &choices[i].calls[k]);
    openai_read_extras(object, &extras);
    ai_stream_put(stream, choices, count, &extras, out);
}

enum ai_stream_state openai_stream_event(struct ai_stream *stream, struct arena *scratch, struct str type,
                                         struct str data, struct buf *out, struct ai_failure *failure)
{
    stream->text = STR_NONE;
    if (str_equal(str_trim(data), AI_DONE))
        return ai_stream_end(stream, out, failure);
    if (data.size == 0)
        return AI_STREAM_MORE;
    const struct json *object = ai_read_json(scratch, data);
    if (json_type_of(object) != JSON_OBJECT)
        return fail(failure, STR("a chunk is no JSON object"));
    if (ai_find_error(scratch, &stream->identity, object, failure))
        return AI_STREAM_FAILED;
    if (str_equal(type, STR("error")))
        return fail(failure, STR("an error without words"));
    openai_read_usage(json_member(object, "usage"), &stream->told, &stream->has_prompt_tokens,
                      &stream->has_completion_tokens);
    take_choices(stream, scratch, object, out);
    return AI_STREAM_MORE;
}
