#ifndef CORE_DOMAIN_AI_CHARGE_H
#define CORE_DOMAIN_AI_CHARGE_H

#include "core/domain/ai/queue.h"

/*
 * Takes the price of an answer that is there already out of the account's lease, in one step and with the bounds that ai_submit has:
 * 0 and *entry AI_ACCEPTED, AI_NO_MONEY or AI_SPENT. With AI_ACCEPTED the caller settles (ai_settle) under *generation; what is never
 * settled comes back with the lease. `limit` as in struct ai_order. Errors of the stores. Waits.
 */
int ai_charge(int64_t account_id, money price, money limit, enum ai_entry *entry, int64_t *generation)
    MUST_USE;

#endif
