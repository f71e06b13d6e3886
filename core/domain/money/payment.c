/* Payment drivers and currencies: see payment.h. */
#include "core/domain/money/payment.h"

#include "core/base/config.h"

/* ---- the sandbox ---- */

static int sandbox_charge(struct arena *arena, const struct payment *payment, struct str *ref)
{
    *ref = str_from(arena_printf(arena, "sandbox_%.*s", STR_ARG(payment->id)));
    return 0;
}

static int sandbox_refund(struct arena *arena, const struct payment *payment, struct str ref)
{
    (void)arena;
    (void)payment;
    (void)ref;
    return 0;
}

static const struct payment_driver sandbox = {
    .name = "sandbox",
    .charge = sandbox_charge,
    .refund = sandbox_refund,
};

const struct payment_driver *payment_driver(void)
{
    return &sandbox;
}

/* ---- currencies ---- */

/* The next of "USD=1,ETH=2500", whose form config_load has checked. */
static bool next_rate(struct str *list, struct str *currency, struct str *rate)
{
    struct str row;
    if (!str_split(list, ',', &row))
        return false;
    *rate = row;
    str_split(rate, '=', currency);
    *currency = str_trim(*currency);
    *rate = str_trim(*rate);
    return true;
}

bool payment_rate(struct str currency, struct str *rate)
{
    struct str list = str_from(config->payment_rates);
    struct str name;
    while (next_rate(&list, &name, rate))
        if (str_equal(name, currency))
            return true;
    return false;
}

struct str payment_currencies(struct arena *arena)
{
    struct str list = str_from(config->payment_rates);
    struct str name;
    struct str rate;
    struct buf names = {0};
    while (next_rate(&list, &name, &rate)) {
        buf_add_text(&names, names.size ? ", " : "");
        buf_add_str(&names, name);
    }
    struct str all = arena_str(arena, buf_str(&names));
    buf_clear(&names);
    return all;
}
