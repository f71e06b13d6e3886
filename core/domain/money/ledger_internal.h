#ifndef CORE_DOMAIN_MONEY_LEDGER_INTERNAL_H
#define CORE_DOMAIN_MONEY_LEDGER_INTERNAL_H

#include "core/store/pg.h"

/*
 * A statement that moves money, in a transaction of its own (or the scope's). It locks a wallet: in one of pg_write's groups, whose
 * order is chance, two groups would hold one wallet each and wait for the other's. Waits. `rows` may be NULL; on an error it is set to
 * NULL.
 */
int ledger_write(const struct pg_statement *statement, const struct pg_value *values, size_t count,
                 struct pg_rows **rows) MUST_USE;

/* Whether it speaks of one account alone, as a statement that is refused does, and not of a store that is away: a round over many goes
 * on with the others. */
bool ledger_is_ones_own(int error);

#endif
