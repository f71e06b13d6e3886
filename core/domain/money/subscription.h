#ifndef CORE_DOMAIN_MONEY_SUBSCRIPTION_H
#define CORE_DOMAIN_MONEY_SUBSCRIPTION_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdint.h>

/* Plans of the inference surface that are paid for by the month, out of the account's balance. Their prices are in
 * core/domain/identity/plan.h; a month that can't be paid ends in the plan that costs nothing. */

struct subscription {
    struct str plan;  /* absent: there is none */
    struct str price; /* US dollars a month */
    int64_t renews_ms;
};

/* Pays the first month and sets the plan at once, in place of what was subscribed to before, of which nothing is given back; a plan
 * without a price just ends that. Waits. -EINVAL: there is no such plan to be had for money; -EEXIST: the account has it;
 * -EDQUOT: it can't pay; -ENOENT: no such account. */
int subscription_start(int64_t account_id, struct str plan) MUST_USE;
/* Waits. */
int subscription_get(struct arena *arena, int64_t account_id, struct subscription *subscription) MUST_USE;
/* One round of what workers do: pays those that are due, or ends them. Waits. */
int subscription_renew_due(void) MUST_USE;

#endif
