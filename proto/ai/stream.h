#ifndef PROTO_AI_STREAM_H
#define PROTO_AI_STREAM_H

#include "proto/ai/provider.h"
#include "proto/ai/write.h"

/* What streams of all providers have in common, for those who read one. */

void ai_stream_init(struct ai_stream *stream, const struct ai_identity *identity);

/* How many choices there may be: 1 to AI_CHOICES_MAX, whatever the identity says. */
unsigned ai_choices_of(const struct ai_identity *identity);

/* Appends a chunk with those of the choices that add something, and counts them; nothing when none does. A choice that has
 * ended gets nothing more. Their indexes are below ai_choices_of. */
void ai_stream_put(struct ai_stream *stream, struct ai_choice *choices, size_t count,
                   const struct ai_extras *extras, struct buf *out);

/* The provider has said that this was all: choices that it has not ended end here, with "stop". A failure when it has begun none. */
enum ai_stream_state ai_stream_end(struct ai_stream *stream, struct buf *out, struct ai_failure *failure)
    MUST_USE;

#endif
