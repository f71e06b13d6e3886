#ifndef CORE_DOMAIN_AI_ORDER_H
#define CORE_DOMAIN_AI_ORDER_H

#include "core/domain/ai/meta.h"
#include "core/domain/ai/model.h"
#include "core/domain/ai/queue.h"
#include "proto/ai/request.h"

/*
 * From what a client asks for and what its model is to the order that the queue takes. Whoever submits a durable call again reads
 * its meta and orders anew, by what the catalogue says then.
 */

/* What an API call costs besides its tokens: CALL_PRICE_USD. */
money ai_order_call_price(void);

/* Fills in what follows from the request: kind, model, tokens, choices. */
void ai_order_describe(struct ai_meta *meta, const struct ai_request *request, const struct model *model);

/*
 * Fills in meta (written into the arena), prices, routes and how long it may wait; the last by `order->durable`. The rest is the
 * caller's: id, account, daily limit, body, streamed, durable. Routes name what the catalogue has, so it must be kept as long.
 * False: it could cost more than any call may (MODEL_COST_MOST).
 */
bool ai_order_fill(struct ai_order *order, struct arena *arena, const struct ai_meta *meta,
                   const struct model *model) MUST_USE;

/* What a call costs that has delivered something, by what its provider has told of it: the price of the call and of its tokens, and
 * no more than `most`, which was reserved. One that has delivered nothing costs nothing. */
money ai_order_cost(const struct ai_meta *meta, const struct model *model, const struct ai_usage *usage,
                    money most);

#endif
