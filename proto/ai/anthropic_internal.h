#ifndef PROTO_AI_ANTHROPIC_INTERNAL_H
#define PROTO_AI_ANTHROPIC_INTERNAL_H

#include "proto/ai/anthropic.h"
#include "proto/ai/stream.h"
#include "proto/json.h"

/* The parts of the Anthropic provider: anthropic_accepts.c, anthropic_request.c, anthropic_answer.c, anthropic_stream.c. */

int anthropic_accepts(struct arena *arena, const struct ai_request *request,
                      const struct ai_upstream *upstream, struct ai_refusal *refusal) MUST_USE;
int anthropic_write_request(struct arena *arena, const struct ai_request *request,
                            const struct ai_upstream *upstream, struct buf *out, struct ai_refusal *refusal)
    MUST_USE;
int anthropic_read_answer(struct arena *arena, const struct ai_identity *identity, struct str body,
                          struct buf *out, struct ai_answer *answer, struct ai_failure *failure) MUST_USE;
enum ai_stream_state anthropic_stream_event(struct ai_stream *stream, struct arena *scratch, struct str type,
                                            struct str data, struct buf *out, struct ai_failure *failure)
    MUST_USE;

/* A tool call's arguments as the object that they are to be, an empty text as an empty one; NULL: they are none. */
const struct json *anthropic_input(struct arena *arena, struct str arguments);

/* The three counts of prompts as one, and the parts of it that are told. False when there is none. */
bool anthropic_read_prompt_usage(const struct json *object, struct ai_usage *usage);

#endif
