#ifndef CORE_DOMAIN_AI_MODEL_H
#define CORE_DOMAIN_AI_MODEL_H

#include "core/base/money.h"
#include "core/domain/ai/provider.h"
#include "proto/ai/ai.h"

/* A model as clients name it: its prices, its bounds, and the providers that serve it. Part of a catalogue. */

enum { MODEL_ROUTES_MAX = 8, MODEL_ID_MAX = 200 };

struct model_route {
    const struct provider *provider;
    const char *upstream_model; /* the provider's name of it */
};

struct model {
    struct str id; /* NUL-terminated behind its size */
    const char *owned_by;
    bool enabled;
    int64_t created_s;
    money price_in; /* a token */
    money price_out;
    money price_cached;     /* a token of the prompt that the provider had in a cache of its own */
    int64_t max_output;     /* tokens of one choice, at most */
    int64_t default_output; /* where the client asks for no number */
    int64_t context;        /* tokens of prompt and answer together */
    int64_t cache_s;        /* answers are kept for exactly the same request; 0: for who asks for it */
    int64_t cache_percent;  /* what a kept answer costs, of what it would cost otherwise */
    struct model_route
        routes[MODEL_ROUTES_MAX]; /* in the order in which they are tried; at least one of what is served */
    size_t route_count;
    bool routed_by_itself; /* its route is the program's, for no row says any */
};

/* What so many tokens cost, without a price of the call. False: more than a call may cost (MODEL_COST_MOST), or nonsense. */
#define MODEL_COST_MOST ((INT64_C(1) << 53) - 1)
bool model_cost_of(const struct model *model, int64_t prompt_tokens, int64_t completion_tokens, money *cost)
    MUST_USE;
/* The same for what a provider has told of an answer, at most MODEL_COST_MOST. Of a prompt no more than all can have been cached. */
money model_cost(const struct model *model, const struct ai_usage *usage);

#endif
