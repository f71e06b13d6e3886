/*
 * Streams of the Messages API.
 *
 *     message_start ( content_block_start content_block_delta* content_block_stop )* message_delta+ message_stop
 *
 * with ping anywhere, and error in the place of any. Each becomes at most one chunk; kinds of event and block that are not known
 * here are passed over, as the API's description asks for.
 */
#include "proto/ai/anthropic_internal.h"
#include "proto/ai/classify.h"
#include "proto/ai/mend.h"

static const struct ai_extras no_extras;

static struct str text_member(const struct json *object, const char *name)
{
    return json_string(json_member(object, name));
}

static void put(struct ai_stream *stream, struct ai_choice choice, struct buf *out)
{
    ai_stream_put(stream, &choice, 1, &no_extras, out);
}

/* A piece of the tool call at hand. */
static void put_call(struct ai_stream *stream, struct ai_tool_call call, struct buf *out)
{
    call.index = stream->tool_calls - 1;
    stream->block_bytes += call.arguments.size;
    put(stream, (struct ai_choice){.calls = &call, .call_count = 1}, out);
}

static bool is_at_hand(const struct ai_stream *stream, const struct json *event)
{
    int64_t index;
    return json_to_i64(json_member(event, "index"), &index) && index == stream->block;
}

/* ---- events ---- */

static void message_start(struct ai_stream *stream, struct arena *scratch, const struct json *event,
                          struct buf *out)
{
    (void)scratch;
    /* Its count of output is that of the beginning. */
    if (anthropic_read_prompt_usage(json_member(json_member(event, "message"), "usage"), &stream->told))
        stream->has_prompt_tokens = true;
    if (!stream->begun)
        put(stream, (struct ai_choice){.content = STR_NONE}, out);
}

/* Input that a block has from the start; the API itself begins with none. */
static struct str input_at_start(struct arena *scratch, const struct json *block)
{
    struct buf text = {0};
    const struct json *input = json_member(block, "input");
    if (json_type_of(input) == JSON_OBJECT && json_count(input) > 0)
        json_write_value(&text, input);
    struct str copy = arena_str(scratch, buf_str(&text));
    buf_clear(&text);
    return copy;
}

static void block_start(struct ai_stream *stream, struct arena *scratch, const struct json *event,
                        struct buf *out)
{
    const struct json *block = json_member(event, "content_block");
    struct str type = text_member(block, "type");
    struct str name = text_member(block, "name");
    if (!json_to_i64(json_member(event, "index"), &stream->block) || stream->block < 0)
        stream->block = -1;
    stream->block_bytes = 0;
    stream->block_is_tool = str_equal(type, STR("tool_use")) && name.at && stream->block >= 0 &&
                            stream->tool_calls < AI_TOOL_CALLS_MAX;
    if (str_equal(type, STR("text")))
        put(stream, (struct ai_choice){.content = text_member(block, "text")}, out);
    if (!stream->block_is_tool)
        return;
    struct str id = text_member(block, "id");
    if (!id.at)
        id = str_from(arena_printf(scratch, "call_%u", stream->tool_calls));
    stream->tool_calls++;
    put_call(stream,
             (struct ai_tool_call){.id = id, .name = name, .arguments = input_at_start(scratch, block)}, out);
}

static void block_delta(struct ai_stream *stream, struct arena *scratch, const struct json *event,
                        struct buf *out)
{
    const struct json *delta = json_member(event, "delta");
    struct str type = text_member(delta, "type");
    (void)scratch;
    if (str_equal(type, STR("text_delta"))) {
        put(stream, (struct ai_choice){.content = text_member(delta, "text")}, out);
    } else if (str_equal(type, STR("thinking_delta"))) {
        put(stream, (struct ai_choice){.reasoning = text_member(delta, "thinking")}, out);
    } else if (str_equal(type, STR("input_json_delta"))) {
        struct str piece = text_member(delta, "partial_json");
        if (stream->block_is_tool && piece.size > 0 && is_at_hand(stream, event))
            put_call(stream, (struct ai_tool_call){.arguments = piece}, out);
    }
}

/* A call without input: clients read its arguments as JSON, so they must be some. */
static void block_stop(struct ai_stream *stream, struct arena *scratch, const struct json *event,
                       struct buf *out)
{
    (void)scratch;
    if (!is_at_hand(stream, event))
        return;
    if (stream->block_is_tool && stream->block_bytes == 0)
        put_call(stream, (struct ai_tool_call){.arguments = STR("{}")}, out);
    stream->block = -1;
    stream->block_is_tool = false;
}

static void message_delta(struct ai_stream *stream, struct arena *scratch, const struct json *event,
                          struct buf *out)
{
    const struct json *usage = json_member(event, "usage");
    struct str reason = text_member(json_member(event, "delta"), "stop_reason");
    int64_t input;
    (void)scratch;
    if (ai_read_count(usage, "output_tokens", &stream->told.completion_tokens))
        stream->has_completion_tokens = true;
    /* Some say 0 here, who have said it before. */
    if (ai_read_count(usage, "input_tokens", &input) && input > 0 &&
        anthropic_read_prompt_usage(usage, &stream->told))
        stream->has_prompt_tokens = true;
    if (reason.size > 0)
        put(stream, (struct ai_choice){.finish_reason = ai_finish_reason(reason)}, out);
}

static const struct {
    const char *type;
    void (*take)(struct ai_stream *stream, struct arena *scratch, const struct json *event, struct buf *out);
} events[] = {
    {"message_start", message_start},     {"content_block_start", block_start},
    {"content_block_delta", block_delta}, {"content_block_stop", block_stop},
    {"message_delta", message_delta},
};

static enum ai_stream_state fail(struct ai_failure *failure, struct str why)
{
    ai_failure_make(failure, AI_FAULT_PROTOCOL, why);
    return AI_STREAM_FAILED;
}

enum ai_stream_state anthropic_stream_event(struct ai_stream *stream, struct arena *scratch, struct str type,
                                            struct str data, struct buf *out, struct ai_failure *failure)
{
    stream->text = STR_NONE;
    if (data.size == 0)
        return AI_STREAM_MORE;
    const struct json *event = ai_read_json(scratch, data);
    if (json_type_of(event) != JSON_OBJECT)
        return fail(failure, STR("an event is no JSON object"));
    struct str said = text_member(event, "type");
    if (!said.at)
        said = type;
    if (ai_find_error(scratch, &stream->identity, event, failure))
        return AI_STREAM_FAILED;
    if (str_equal(said, STR("error")))
        return fail(failure, STR("an error without words"));
    if (str_equal(said, STR("message_stop")))
        return ai_stream_end(stream, out, failure);
    for (size_t i = 0; i < ARRAY_SIZE(events); i++)
        if (str_equal(said, str_from(events[i].type)))
            events[i].take(stream, scratch, event, out);
    return AI_STREAM_MORE;
}
