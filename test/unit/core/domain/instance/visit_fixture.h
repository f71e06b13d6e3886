/*
 * What the tests of visits share: real stores, a worker in a thread of its own whose pods are stubs in this process, and a
 * loop that visits. Stubs answer GET /health with 200 and all else with 404.
 */
#ifndef WAKEGATE_TEST_UNIT_CORE_DOMAIN_VISIT_FIXTURE_H
#define WAKEGATE_TEST_UNIT_CORE_DOMAIN_VISIT_FIXTURE_H

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/instance/visit.h"
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

extern struct services visit_services;

/* Group fixture: the stores and an account. */
int visit_fixture_start(void **state);
int visit_fixture_stop(void **state);
/* Before each test: the same settings. */
int fixture_defaults(void **state);

void visit_set(const char *name, const char *value);
int64_t visit_sql(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs `body` on a fiber of a new loop with open stores and visits; the loop then closes empty. */
void visit_on_loop(void (*body)(void));
/* The same beside a worker, with sweeps if `sweeps`. */
void beside_worker(void (*body)(void), bool sweeps);

/* A new instance's id, in the order of creation; the text lives until the process ends. */
struct str new_instance(void);
/* Asks for a sleep, as a client does. */
void ask_to_sleep(struct str id);
/* The row as it is. */
struct instance row_of(struct str id);

/* Opens with 20 seconds of patience; must succeed. */
struct visit *open_visit(struct str id, enum visit_kind kind);

/* ---- stubs; from any thread ---- */

/* How many pods were ever started. */
int stub_starts(void);
/* Whether the pod of that generation lives and listens there. */
bool stub_is_up(struct str id, int port, uint64_t generation);
/* Ends it, and nobody is told. */
void stub_kill(struct str id);
/* It listens, but answers nothing any more. */
void stub_hang(struct str id);
/* How long a pod takes to listen once it was started. */
void stub_set_start_ms(unsigned ms);

#endif
