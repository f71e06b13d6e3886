#ifndef CORE_BASE_MONEY_H
#define CORE_BASE_MONEY_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Money in C: whole picodollars (1e-12 US dollars), so that sums are exact and a Lua number holds what a lease does. The ledger
 * itself is PostgreSQL's numeric with six decimals more (schema/006_ledger.sql): amounts that need them are computed there, and
 * C passes them on as text.
 */

typedef int64_t money;

enum { MONEY_TEXT_SIZE = 32, MONEY_DECIMALS = 12 };
#define MONEY_DOLLAR INT64_C(1000000000000)
/* What a whole number of US dollars is. */
#define MONEY_USD(dollars) ((money)(dollars)*MONEY_DOLLAR)

/* "0.0132": digits, or digits '.' digits; no sign, no exponent, at most 12 decimals. False: something else, or too much. */
bool money_parse(struct str text, money *amount) MUST_USE;
/* Exact, in as few digits as it takes but one decimal at least: "0.0132", "1.0", "0.0", "-0.5". The result is in `out`. */
struct str money_format(char out[MONEY_TEXT_SIZE], money amount);

/* The same spelling for amounts that PostgreSQL computes with: `whole` digits before the point and `decimals` behind it at
 * most. Zero is one, too. */
bool money_is_decimal(struct str text, size_t whole, size_t decimals);
/* Whether such a text says nothing but zero. */
bool money_is_zero(struct str text);

#endif
