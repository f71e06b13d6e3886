/*
 * What the tests of money share: a PostgreSQL with all migrations, a Redis, accounts, and calls as the gateway makes them:
 * reserved in Redis by one step, charged in PostgreSQL as they end.
 */
#ifndef WAKEGATE_TEST_UNIT_CORE_DOMAIN_LEDGER_FIXTURE_H
#define WAKEGATE_TEST_UNIT_CORE_DOMAIN_LEDGER_FIXTURE_H

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/money.h"
#include "core/domain/money/lease.h"
#include "core/domain/money/ledger.h"
#include "core/run/fiber.h"
#include "core/run/sync.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

extern struct services ledger_services;

/* Group fixture. */
int ledger_fixture_start(void **state);
int ledger_fixture_stop(void **state);
/* Before each test: no accounts, an empty Redis, and the settings as they are by default. */
int ledger_fixture_empty(void **state);

/* Runs `body` on a fiber of a new loop with open stores; the loop then closes empty. */
void ledger_on_loop(void (*body)(void));
/* The same on so many loops at once, each on a thread of its own: body(0) to body(count - 1). The bodies assert nothing. */
void ledger_on_loops(int count, void (*body)(int number));
/* Runs `count` fibers at once, each run(number), and waits for all. */
void ledger_race(int count, void (*run)(int number));

int64_t ledger_sql(const char *format, ...) PRINTF_LIKE(1, 2);
void ledger_set(const char *name, const char *value);
/* A new account with so much available ("10.5"); "0": without a wallet. */
int64_t ledger_account(const char *available);
/* Whether the account's balance, what is available and what is lent are these: SQL numbers. */
bool ledger_has(int64_t account, const char *available, const char *leased);
/* Nothing is wrong; on a loop. */
void ledger_assert_sound(void);

/* ---- calls ---- */

struct ledger_call {
    int64_t account;
    int64_t generation;
    money reserved;
};
/* Reserves as the gateway does: tries the step, refills, tries again. 0; or what lease_refill said. Waits. */
int ledger_reserve(struct ledger_call *call, int64_t account, money need);
/* The step alone: -EAGAIN when there is not so much. */
int ledger_reserve_here(struct ledger_call *call, int64_t account, money need);
/* The call has ended and cost so much; `ref` is unique. 0, or a store's error. Waits. */
int ledger_end_call(const struct ledger_call *call, money cost, const char *ref);
/* The same in its two halves. */
int ledger_settle_here(const struct ledger_call *call, money cost);
int ledger_charge(const struct ledger_call *call, money cost, const char *ref);

#endif
