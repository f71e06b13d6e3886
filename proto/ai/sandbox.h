#ifndef PROTO_AI_SANDBOX_H
#define PROTO_AI_SANDBOX_H

#include "core/base/arena.h"
#include "proto/ai/request.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * What the built-in provider says: the same answer to the same request, which tells that it is the sandbox and repeats what the
 * user said last, so that a chat shows that it was understood. Nothing here waits; options say how long its callers do.
 *
 * A word is a token of the answer; the prompt's are ai_estimate_tokens'.
 */

struct sandbox_options {
    int64_t delay_ms;      /* before its answer begins */
    int64_t chunk_ms;      /* between the pieces of a stream */
    int64_t fail_status;   /* it answers with this error, 400 to 599; 0: it does not */
    int64_t stall_after;   /* it says nothing more after so many pieces; -1: it does not */
    int64_t answer_tokens; /* its answers are of this length; 0: as they come */
};

/* What the models "sandbox-slow" (half a second, then a piece each 50 ms), "sandbox-fail" (503) and "sandbox-stall" (nothing
 * after three pieces) do, whatever the provider's options are. */
void sandbox_take_model(struct sandbox_options *options, struct str model);

struct sandbox_answer {
    struct str text; /* in the arena */
    struct ai_usage usage;
    const char *finish_reason; /* "stop", or "length" where `max_tokens` has cut it off */
};
void sandbox_answer(struct arena *arena, const struct ai_request *request,
                    const struct sandbox_options *options, int64_t max_tokens, struct sandbox_answer *answer);

/* Takes the next piece of a stream off the front of *rest: a word with what is before it. False at the end. */
bool sandbox_next_piece(struct str *rest, struct str *piece);

#endif
