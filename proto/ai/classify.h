#ifndef PROTO_AI_CLASSIFY_H
#define PROTO_AI_CLASSIFY_H

#include "proto/ai/provider.h"
#include "proto/json.h"

/* What an error of a provider's means, by its status and its words: for those who read one. */

struct ai_upstream_error {
    int status; /* 0: it came in a stream, or in an answer with status 2xx */
    struct str type;
    struct str code;
    struct str message;
    struct str param;
};

void ai_classify(struct arena *arena, const struct ai_upstream_error *error, struct str secret,
                 struct ai_failure *failure);

/* The "error" member of a body, as OpenAI and Anthropic have it: an object with message, type, code and param as far as they are
 * strings; a number as `code` that is a status is taken for that when there is no other; a string is the message. */
void ai_read_error_object(const struct json *error, struct ai_upstream_error *read);

/* Whether an answer or an event says that there was an error, and then which. */
bool ai_find_error(struct arena *arena, const struct ai_identity *identity, const struct json *object,
                   struct ai_failure *failure);

/* Fills retry_after_ms: as the provider said it, or when what has run out is there again. */
void ai_failure_rate(struct ai_failure *failure, const struct ai_rate *rate);

#endif
