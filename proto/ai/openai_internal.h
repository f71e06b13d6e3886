#ifndef PROTO_AI_OPENAI_INTERNAL_H
#define PROTO_AI_OPENAI_INTERNAL_H

#include "proto/ai/openai.h"
#include "proto/ai/stream.h"

/* The parts of the OpenAI provider: openai_request.c, openai_choice.c, openai_answer.c, openai_stream.c. */

int openai_accepts(struct arena *arena, const struct ai_request *request, const struct ai_upstream *upstream,
                   struct ai_refusal *refusal) MUST_USE;
int openai_write_request(struct arena *arena, const struct ai_request *request,
                         const struct ai_upstream *upstream, struct buf *out, struct ai_refusal *refusal)
    MUST_USE;
int openai_read_answer(struct arena *arena, const struct ai_identity *identity, struct str body,
                       struct buf *out, struct ai_answer *answer, struct ai_failure *failure) MUST_USE;
enum ai_stream_state openai_stream_event(struct ai_stream *stream, struct arena *scratch, struct str type,
                                         struct str data, struct buf *out, struct ai_failure *failure)
    MUST_USE;

/*
 * Reads an item of `choices`, whole or what a chunk adds, at this place of the list; what has a wrong type is as if it were not
 * there. False when it is nothing that our client could have asked for. Lives in the arena.
 */
bool openai_read_choice(struct arena *arena, const struct ai_identity *identity, const struct json *item,
                        size_t place, bool in_chunk, struct ai_choice *choice);

/* Reads a usage object; tells which of the two counts it has. */
void openai_read_usage(const struct json *object, struct ai_usage *usage, bool *has_prompt,
                       bool *has_completion);

void openai_read_extras(const struct json *object, struct ai_extras *extras);

#endif
