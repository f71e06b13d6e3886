#ifndef CORE_DOMAIN_AI_STATE_H
#define CORE_DOMAIN_AI_STATE_H

#include "core/base/arena.h"
#include "core/domain/ai/provider.h"

/* What the queue of AI calls (core/domain/ai/queue.h) knows of providers at this moment, for operators. */

enum ai_breaker {
    AI_BREAKER_CLOSED,  /* calls go to it */
    AI_BREAKER_PROBING, /* one at a time finds out whether it may close */
    AI_BREAKER_OPEN,    /* none does, for a moment */
};
/* "closed", "probing", "open". */
const char *ai_breaker_name(enum ai_breaker breaker);

struct ai_state {
    int64_t waiting;   /* calls in its line */
    int64_t in_flight; /* that run */
    int64_t cap;       /* that may run, as much as it seems to bear */
    enum ai_breaker breaker;
};

/* Of each of them, in the arena, in one step. Waits. */
int ai_state_read(struct arena *arena, const struct provider *const *providers, size_t count,
                  struct ai_state **states) MUST_USE;

#endif
