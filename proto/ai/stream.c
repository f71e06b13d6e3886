/* What streams of all providers have in common: see provider.h and stream.h. */
#include "proto/ai/stream.h"

void ai_stream_init(struct ai_stream *stream, const struct ai_identity *identity)
{
    *stream = (struct ai_stream){.identity = *identity, .block = -1};
}

unsigned ai_choices_of(const struct ai_identity *identity)
{
    if (identity->choices == 0)
        return 1;
    return identity->choices > AI_CHOICES_MAX ? AI_CHOICES_MAX : identity->choices;
}

bool ai_stream_is_whole(const struct ai_stream *stream)
{
    return stream->finished == (1U << ai_choices_of(&stream->identity)) - 1;
}

void ai_stream_usage(const struct ai_stream *stream, struct ai_usage *usage)
{
    *usage = stream->told;
    if (!stream->has_prompt_tokens)
        usage->prompt_tokens = stream->identity.prompt_tokens;
    if (!stream->has_completion_tokens)
        usage->completion_tokens = ai_estimate_tokens(stream->bytes);
    usage->estimated = !stream->has_prompt_tokens || !stream->has_completion_tokens;
    /* They may be of another event than the counts that they are a part of. */
    for (unsigned i = 0; i < AI_USAGE_DETAIL_COUNT; i++)
        if (usage->details_told & 1U << i)
            ai_usage_tell(usage, (enum ai_usage_detail)i, usage->details[i]);
}

/* Whether the choice goes into a chunk; notes what it means for the stream. */
static bool note_choice(struct ai_stream *stream, struct ai_choice *choice)
{
    unsigned bit = 1U << choice->index;
    choice->first = !(stream->begun & bit);
    if ((stream->finished & bit) || !ai_delta_shows(&stream->identity, choice))
        return false;
    stream->begun |= bit;
    stream->finished |= choice->finish_reason ? bit : 0;
    stream->bytes += ai_choice_bytes(choice);
    if (choice->index == 0) {
        stream->text = choice->content;
        if (choice->finish_reason)
            stream->finish_reason = choice->finish_reason;
    }
    return true;
}

void ai_stream_put(struct ai_stream *stream, struct ai_choice *choices, size_t count,
                   const struct ai_extras *extras, struct buf *out)
{
    struct json_out json = json_out_to(out);
    bool open = false;
    for (size_t i = 0; i < count; i++) {
        if (!note_choice(stream, &choices[i]))
            continue;
        if (!open)
            ai_open_chunk(&json, &stream->identity);
        open = true;
        ai_put_delta(&json, &stream->identity, &choices[i]);
    }
    if (open)
        ai_close_chunk(&json, &stream->identity, extras);
}

enum ai_stream_state ai_stream_end(struct ai_stream *stream, struct buf *out, struct ai_failure *failure)
{
    static const struct ai_extras none;
    struct ai_choice choices[AI_CHOICES_MAX];
    size_t count = 0;
    if (!stream->begun) {
        ai_failure_make(failure, AI_FAULT_PROTOCOL, STR("the stream has ended before its first chunk"));
        return AI_STREAM_FAILED;
    }
    for (unsigned i = 0; i < ai_choices_of(&stream->identity); i++)
        if (!(stream->finished & 1U << i))
            choices[count++] = (struct ai_choice){.index = i, .finish_reason = ai_finish_reason(STR_NONE)};
    ai_stream_put(stream, choices, count, &none, out);
    return AI_STREAM_END;
}
