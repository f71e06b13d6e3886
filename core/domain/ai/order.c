/* Orders for AI calls: see order.h. */
#include "core/domain/ai/order.h"

#include "core/base/clock.h"
#include "core/base/config.h"

money ai_order_call_price(void)
{
    money price;
    bool fine = money_parse(str_from(config->call_price), &price);
    CHECK(fine); /* config_load has seen to it */
    return price;
}

void ai_order_describe(struct ai_meta *meta, const struct ai_request *request, const struct model *model)
{
    meta->kind = request->kind;
    meta->model = request->model;
    meta->prompt_tokens = request->prompt_tokens_most;
    meta->max_tokens = request->max_tokens ? request->max_tokens : model->default_output;
    meta->choices = request->choices;
    meta->wants_usage = request->include_usage;
}

/* How long it may wait is said by the provider that would have it first. Of a line, one account has half at most. */
static void add_routes(struct ai_order *order, const struct model *model)
{
    order->route_count = model->route_count;
    for (size_t i = 0; i < model->route_count; i++) {
        const struct provider *provider = model->routes[i].provider;
        order->routes[i] = (struct ai_route){
            .name = str_from(provider->name),
            .most = provider->max_in_flight,
            .calls_most = provider->queue_calls,
            .tenant_most = (provider->queue_calls + 1) / 2,
            .bytes_most = provider->queue_bytes,
        };
    }
}

/* A durable one may wait for half of the time that it still has, however often it is ordered. */
static int64_t wait_of(const struct ai_order *order, const struct ai_meta *meta, const struct model *model)
{
    int64_t most_ms = config->ai_call_s * 1000;
    int64_t wait_ms = model->routes[0].provider->queue_wait_ms;
    if (order->durable) {
        int64_t left_ms = most_ms - (clock_wall_ms() - meta->created_ms);
        return left_ms > 2 ? left_ms / 2 : 1;
    }
    return wait_ms < most_ms ? wait_ms : most_ms;
}

bool ai_order_fill(struct ai_order *order, struct arena *arena, const struct ai_meta *meta,
                   const struct model *model)
{
    struct buf text = {0};
    money most;
    int64_t tokens;
    _Static_assert((int)AI_ROUTES_MAX >= (int)MODEL_ROUTES_MAX, "every route has room");
    if (__builtin_mul_overflow(meta->max_tokens, meta->choices, &tokens) ||
        !model_cost_of(model, meta->prompt_tokens, tokens, &most) ||
        !model_cost_of(model, meta->prompt_tokens, 0, &order->prompt_price))
        return false;
    ai_meta_write(&text, meta);
    order->meta = arena_str(arena, buf_str(&text));
    buf_clear(&text);
    order->most = meta->call_price + most;
    order->call_price = meta->call_price;
    order->token_price = model->price_out;
    order->wait_ms = wait_of(order, meta, model);
    add_routes(order, model);
    return true;
}

money ai_order_cost(const struct ai_meta *meta, const struct model *model, const struct ai_usage *usage,
                    money most)
{
    money cost = meta->call_price + model_cost(model, usage);
    return cost < most ? cost : most;
}
