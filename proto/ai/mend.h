#ifndef PROTO_AI_MEND_H
#define PROTO_AI_MEND_H

#include "core/base/arena.h"
#include "proto/json.h"

/*
 * JSON of a provider's, as json_read reads it. Where characters alone are what is wrong with it, each of them becomes U+FFFD: bytes
 * that are no UTF-8, and halves of surrogate pairs, which come when a model's text is cut between the tokens or code units of one
 * character. What was said around them is worth more than the whole answer's refusal. NULL: it is no JSON even so.
 */
const struct json *ai_read_json(struct arena *arena, struct str text);

#endif
