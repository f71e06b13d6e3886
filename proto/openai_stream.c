/* Streams of providers that speak as OpenAI does: chunks with the data "[DONE]" behind them. */
#include "proto/openai_internal.h"

#include "proto/ai_classify.h"

static enum ai_stream_state fail(struct ai_failure *failure, struct str why)
{
    ai_failure_make(failure, AI_FAULT_PROTOCOL, why);
    return AI_STREAM_FAILED;
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
    openai_read_extras(object, &extras);
    ai_stream_put(stream, choices, count, &extras, out);
}

enum ai_stream_state openai_stream_event(struct ai_stream *stream, struct arena *scratch, struct str type,
                                         struct str data, struct buf *out, struct ai_failure *failure)
{
    const char *error = NULL;
    stream->text = STR_NONE;
    if (str_equal(str_trim(data), AI_DONE))
        return ai_stream_end(stream, out, failure);
    if (data.size == 0)
        return AI_STREAM_MORE;
    const struct json *object = json_read(scratch, data, &error);
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
