#ifndef CORE_STORE_LIMIT_H
#define CORE_STORE_LIMIT_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Rate limits: `limit` takes per fixed window of the wall clock and per `who`, counted in Redis so that they hold
 * over all reactors. Limits of LIMIT_LEASE_FROM and more are leased: a loop reserves a slice of the window's
 * budget in one step and spends it without asking, so it never admits too many. When Redis is away a local
 * window takes over (counted in wakegate_limit_local_total): never open, never closed.
 */

enum { LIMIT_LEASE_FROM = 1000 };

struct limit_policy {
    const char *name; /* part of the key: [a-z0-9-] */
    uint64_t limit;
    uint64_t window_s;
};

struct limit_verdict {
    uint64_t limit;
    uint64_t remaining;
    int64_t reset_unix_s;   /* when the window ends */
    uint64_t retry_after_s; /* at least 1; for a refusal */
    bool allowed;
};

/* Takes one. May wait (one round trip, or none with a lease). 0, or -ECANCELED. `who` is bytes of our own making
 * (an address, an id), never raw input. */
int limit_take(const struct limit_policy *policy, struct str who, struct limit_verdict *verdict) MUST_USE;

struct loop;
void limit_close_loop(struct loop *loop);

#endif
