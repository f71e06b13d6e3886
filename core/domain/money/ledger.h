#ifndef CORE_DOMAIN_MONEY_LEDGER_H
#define CORE_DOMAIN_MONEY_LEDGER_H

#include "core/base/arena.h"
#include "core/base/money.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Accounts' money: exact, in PostgreSQL, double entry (schema/006_ledger.sql). Amounts are text here, for C does not compute with
 * them: as money_is_decimal takes them and as money_format writes them, with up to 18 decimals.
 *
 * An account's balance is what it has available and what is lent to Redis for its calls and neither charged nor back
 * (core/domain/money/lease.h). What takes money out of it takes the lease back first when it has to.
 */

enum { LEDGER_REF_MAX = 100 };

struct ledger_sums {
    struct str balance;
    struct str available;
    struct str leased;
    struct str current_month; /* what the calendar month (UTC) has cost */
    struct str last_month;
    struct str today;
};
/* Waits. All zero for an account without movements. */
int ledger_sums(struct arena *arena, int64_t account_id, struct ledger_sums *sums) MUST_USE;

struct ledger_deposit {
    struct str id; /* "dep_…" */
    struct str amount;
    struct str currency;
    struct str credited; /* US dollars */
    struct str refunded;
    struct str balance; /* after it */
    struct str driver;
};
/* Takes the amount from the payment driver and credits it. Waits. -EINVAL: the account can't have such a deposit, for the currency is
 * none of PAYMENT_RATES; -ERANGE: it is worth nothing, or more than a thousand million dollars; -EACCES: the driver refused. */
int ledger_deposit(struct arena *arena, int64_t account_id, struct str amount, struct str currency,
                   struct ledger_deposit *deposit) MUST_USE;
/* Gives a deposit back, or some of it (`amount` of what was credited; absent: what is left). Waits. -ENOENT: there is no such deposit;
 * -ERANGE: so much is not left of it; -EDQUOT: the account has not so much any more. */
int ledger_refund(struct arena *arena, struct str deposit_id, struct str amount,
                  struct ledger_deposit *deposit) MUST_USE;

/* An operator gives (`is_credit`) or takes. `ref` says why, and works once (absent: one is made). Waits. -EEXIST: there was one
 * with that ref; -EDQUOT: the account has not so much. */
int ledger_adjust(struct arena *arena, int64_t account_id, bool is_credit, struct str amount, struct str ref,
                  struct str *balance) MUST_USE;

/* ---- use ---- */

struct ledger_use {
    struct str day; /* "2026-01-31" */
    struct str model;
    struct str key; /* "key_…"; absent: no key, or one that is gone */
    int64_t key_id; /* 0: no key */
    int64_t calls;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    struct str cost;
};
/* By day, model and key, in that order; days "2026-01-31", both included. `after` is the last row of the page before (NULL: from
 * the start). Waits. */
int ledger_usage(struct arena *arena, int64_t account_id, struct str from, struct str to,
                 const struct ledger_use *after, int64_t limit, struct ledger_use **rows, size_t *count)
    MUST_USE;
/* The same days summed up, as one row. Waits. */
int ledger_usage_total(struct arena *arena, int64_t account_id, struct str from, struct str to,
                       struct ledger_use *total) MUST_USE;

/* ---- for operators ---- */

struct ledger_row {
    int64_t id;
    int64_t at_ms;
    struct str kind;
    struct str debit;
    struct str credit;
    struct str amount;
    struct str ref;
};
/* An account's movements, newest first, below `cursor` (0: from the start). Waits. */
int ledger_list(struct arena *arena, int64_t account_id, int64_t cursor, int64_t limit,
                struct ledger_row **rows, size_t *count) MUST_USE;

struct ledger_violation {
    int64_t account_id;
    struct str what;
};
/*
 * What does not add up, of one account or (0) of all: wallets against the sums of their movements, the sides of each movement
 * against its kind, leases against their grants, charges and returns, what all tenants have against what came in and went out,
 * deposits, and what Redis says is free against what it was lent. Takes one consistent look at some hundred accounts at a time,
 * while everything runs. Waits. *accounts is how many were looked at.
 */
int ledger_check(struct arena *arena, int64_t account_id, struct ledger_violation **violations, size_t *count,
                 size_t *accounts) MUST_USE;

#endif
