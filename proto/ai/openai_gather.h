#ifndef PROTO_AI_OPENAI_GATHER_H
#define PROTO_AI_OPENAI_GATHER_H

#include "core/base/str.h"
#include "proto/ai/ai.h"

/*
 * A streamed answer put together again: the body that the same call would have had unstreamed, from its chunks. They are ours
 * (write.h), the last one with the usage; what is missing, out of order or of a kind that can't be put together makes no answer,
 * never a wrong one.
 */

struct openai_gathering;

/* For a call of which this is known; its texts must outlive it. Keeps up to so many bytes. */
struct openai_gathering *openai_gather_new(const struct ai_identity *identity, size_t bytes_most);
void openai_gather_free(struct openai_gathering *gathering); /* NULL is fine */

/* Takes the next chunk, JSON. True: it has the usage, and nothing else. */
bool openai_gather_add(struct openai_gathering *gathering, struct str chunk);

/* Appends the answer; false when there is none. */
bool openai_gather_answer(const struct openai_gathering *gathering, struct buf *out);

#endif
