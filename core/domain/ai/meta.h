#ifndef CORE_DOMAIN_AI_META_H
#define CORE_DOMAIN_AI_META_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "proto/ai/ai.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * What the programs need to know of an AI call and the queue does not: it travels with the call from who accepts it to the
 * worker that runs it and to PostgreSQL, as JSON.
 */

struct ai_meta {
    enum ai_kind kind;
    int64_t key_id;        /* 0: a log-in's, or a pod's */
    struct str surface;    /* whose call it is: "inference", "session" */
    struct str model;      /* as the client named it */
    struct str request_id; /* X-Request-Id */
    int64_t created_ms;
    int64_t prompt_tokens; /* what was reserved for */
    int64_t max_tokens;    /* of each choice of the answer */
    int64_t choices;       /* `n` */
    int64_t call_price;    /* picodollars, whatever the model costs; 0 for pods */
    bool wants_usage;      /* stream_options.include_usage */
    bool ends_with_usage;  /* the last chunk of a stream has it in any case, for who waits */
};

/* The names of kinds, in rows: "chat", "completion". */
const char *ai_kind_name(enum ai_kind kind);

void ai_meta_write(struct buf *out, const struct ai_meta *meta);
/* Texts live in the arena. -EINVAL: it is none of ours. */
int ai_meta_read(struct arena *arena, struct str text, struct ai_meta *meta) MUST_USE;

#endif
