#ifndef CORE_DOMAIN_AI_CATALOGUE_CHANGE_H
#define CORE_DOMAIN_AI_CATALOGUE_CHANGE_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* How operators change the rows of providers and models. In force within some 1.5 seconds (core/domain/ai/catalogue.h). All wait. */

/* What is absent or CATALOGUE_KEEP stays as it is, or is what a new row has by itself. */
#define CATALOGUE_KEEP INT64_MIN

enum catalogue_number {
    PROVIDER_MAX_IN_FLIGHT,
    PROVIDER_QUEUE_CALLS,
    PROVIDER_QUEUE_BYTES,
    PROVIDER_QUEUE_WAIT_MS,
    PROVIDER_CONNECT_MS,
    PROVIDER_HEADER_MS,
    PROVIDER_IDLE_MS,
    PROVIDER_TOTAL_MS,
    PROVIDER_DELAY_MS,
    PROVIDER_CHUNK_MS,
    PROVIDER_FAIL_STATUS,
    PROVIDER_STALL_AFTER,
    PROVIDER_ANSWER_TOKENS,
    PROVIDER_NATIVE_COMPLETIONS, /* 0 or 1 */
    PROVIDER_ENABLED,            /* 0 or 1 */
    PROVIDER_NUMBERS
};

struct provider_change {
    struct str name;
    struct str kind; /* of a new row that has the name of none: "openai" where absent */
    struct str base_url;
    struct str api_key; /* in clear; sealed before it is stored */
    struct str ca;      /* PEM; empty: the system's again */
    int64_t numbers[PROVIDER_NUMBERS];
};

enum model_number {
    MODEL_MAX_OUTPUT,
    MODEL_DEFAULT_OUTPUT,
    MODEL_CONTEXT,
    MODEL_CACHE_SECONDS,
    MODEL_CACHE_PERCENT,
    MODEL_ENABLED, /* 0 or 1 */
    MODEL_NUMBERS
};

struct model_change {
    struct str id;
    struct str owned_by;
    struct str price_in; /* US dollars a million tokens */
    struct str price_out;
    struct str price_cached;
    int64_t numbers[MODEL_NUMBERS];
    const struct str *providers; /* its routes, in order; `route_count` 0: as they are */
    const struct str *upstream_models;
    size_t route_count;
};

/* -ERANGE: a value that the row can't have. */
int provider_save(struct arena *arena, const struct provider_change *change) MUST_USE;
int model_save(const struct model_change *change) MUST_USE;
/* -ENOENT: there is no such row. What the program or its settings know by that name is there again. */
int provider_delete(struct str name) MUST_USE;
int model_delete(struct str id) MUST_USE;

#endif
