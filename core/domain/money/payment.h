#ifndef CORE_DOMAIN_MONEY_PAYMENT_H
#define CORE_DOMAIN_MONEY_PAYMENT_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Where deposits come from. A driver takes money from whoever pays, and gives it back; what the ledger makes of it is
 * core/domain/money/ledger.h's affair. `sandbox` takes no money and refuses nobody.
 */

enum { PAYMENT_CURRENCY_MAX = 10, PAYMENT_WHOLE_DIGITS = 12, PAYMENT_DECIMALS = 18 };

struct payment {
    struct str id; /* ours; the same one again is the same payment, or the same part given back */
    int64_t account_id;
    struct str amount; /* money_is_decimal */
    struct str currency;
};

struct payment_driver {
    const char *name;
    /* Waits. 0, and in `ref`, which lives in the arena, what the driver calls it; -EACCES: refused; others: it is not known
     * whether the money was taken, and the same id asks again. */
    int (*charge)(struct arena *arena, const struct payment *payment, struct str *ref);
    /* Gives back `payment->amount` US dollars of what `ref` took. Waits; as charge. */
    int (*refund)(struct arena *arena, const struct payment *payment, struct str ref);
};

/* The one in use. */
const struct payment_driver *payment_driver(void);

/* US dollars for one of a currency, as PAYMENT_RATES has it. False: deposits may not have it. */
bool payment_rate(struct str currency, struct str *rate) MUST_USE;
/* The currencies, separated by commas; for people. */
struct str payment_currencies(struct arena *arena);

#endif
