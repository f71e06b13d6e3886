/*
 * What the tests of the PostgreSQL client share: a server, a loop with an open client for each test, and many fibers at
 * once. Tables: item (n bigint PRIMARY KEY, t text); child (parent REFERENCES item, checked at the commit).
 */
#ifndef WAKEGATE_TEST_UNIT_CORE_STORE_PG_FIXTURE_H
#define WAKEGATE_TEST_UNIT_CORE_STORE_PG_FIXTURE_H

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "test/unit/support/services.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

extern struct services services;
extern struct loop loop;
extern char error[256];

extern const struct pg_statement select_int;     /* its bigint and one more */
extern const struct pg_statement select_error;   /* fails when it runs, for 1 */
extern const struct pg_statement select_nothing; /* fails at its Parse */
extern const struct pg_statement select_slow;    /* takes that many seconds */
extern const struct pg_statement insert_item;    /* n, t; returns n */
extern const struct pg_statement insert_slow;    /* n, seconds */
extern const struct pg_statement insert_child;   /* parent; fails at the commit when there is no such item */

/* Group fixture: the server, and the configuration. */
int fixture_start(void **state);
int fixture_stop(void **state);

/* Empties the tables and runs `test` on a fiber of a new loop with an open client; the loop then closes empty. */
void on_loop(void (*test)(void));

int64_t sql(const char *text);
void set(const char *name, const char *value);
int64_t metric(enum metric id);
void wait_ready(void);
/* Waits until `condition` (SQL) is neither 0 nor false. */
void until(const char *condition);

/* SQL: how many of our client's statements sleep on the server now. */
#define SLEEPING                                                                                             \
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND "          \
    "application_name = 'wakegate'"
/* SQL: how many connections our client has. */
#define CONNECTED "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'wakegate'"

/* Many fibers at once: task number i is run(i), and its result is kept. */
enum { TASKS_MAX = 600 };
struct task {
    int (*run)(int number);
    int number;
    int result;
    struct fiber *fiber;
};
extern struct task tasks[TASKS_MAX];
void begin_task(int number, int (*run)(int number));
void begin_tasks(int count, int (*run)(int number));
void end_tasks(void);
void run_tasks(int count, int (*run)(int number));

/* ---- tasks ---- */

int insert(int64_t n);
/* 0 when the read did what it should; numbers 1 and 3 of each five are to fail. */
int read_some(int number);
/* Task 0 takes 0.3 s on the server, others no time. */
int read_slow(int number);
/* Tasks 0 and 1 insert 1000 and 1001 and take 0.3 s each; the rest insert their number, but 9, which wants 1000 too. */
int write_in_turn(int number);
int insert_in(struct pg_tx *tx, int64_t n);

#endif
