/* What models cost: see model.h. */
#include "core/domain/ai/model.h"

/* Adds count × price. False: the sum is over MODEL_COST_MOST. */
static bool add_cost(money *sum, int64_t count, money price)
{
    money part;
    return count >= 0 && price >= 0 && !__builtin_mul_overflow(count, price, &part) &&
           !__builtin_add_overflow(*sum, part, sum) && *sum <= MODEL_COST_MOST;
}

bool model_cost_of(const struct model *model, int64_t prompt_tokens, int64_t completion_tokens, money *cost)
{
    *cost = 0;
    return add_cost(cost, prompt_tokens, model->price_in) &&
           add_cost(cost, completion_tokens, model->price_out);
}

money model_cost(const struct model *model, const struct ai_usage *usage)
{
    money cost = 0;
    int64_t cached = usage->details[AI_CACHED_TOKENS];
    if (cached > usage->prompt_tokens)
        cached = usage->prompt_tokens;
    if (cached < 0)
        cached = 0;
    bool fine = add_cost(&cost, usage->prompt_tokens - cached, model->price_in) &&
                add_cost(&cost, cached, model->price_cached) &&
                add_cost(&cost, usage->completion_tokens, model->price_out);
    return fine ? cost : MODEL_COST_MOST;
}
