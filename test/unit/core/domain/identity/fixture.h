/*
 * What the tests of accounts, keys and log-ins share: a PostgreSQL with all migrations, an open vault, and a loop for each test.
 */
#ifndef WAKEGATE_TEST_UNIT_CORE_DOMAIN_IDENTITY_FIXTURE_H
#define WAKEGATE_TEST_UNIT_CORE_DOMAIN_IDENTITY_FIXTURE_H

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/domain/identity/account.h"
#include "core/run/fiber.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Group fixture. */
int identity_fixture_start(void **state);
int identity_fixture_stop(void **state);
/* Before each test: no accounts, and the settings as they are by default. */
int identity_fixture_empty(void **state);

/* Runs `body` on a fiber of a new loop with an open PostgreSQL client; the loop then closes empty. */
void identity_on_loop(void (*body)(void));

int64_t identity_sql(const char *format, ...) PRINTF_LIKE(1, 2);
int64_t identity_sql_text(const char *text); /* of any length */
void identity_set(const char *name, const char *value);

/* The arena of the running test. */
extern struct arena identity_arena;
/* An account with this address, whose password hash is "hash". */
struct account identity_account(const char *email);
/* How many records there are of this action. */
int64_t identity_audited(const char *action);

/* Runs `count` fibers at once, each run(number), and waits for all. */
void identity_race(int count, void (*run)(int number));

#endif
