#ifndef CORE_STORE_LIMIT_H
#define CORE_STORE_LIMIT_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Rate limits over all reactors and servers. Several are taken at once and in one step: either every one admits the request and
 * is charged, or none is. At most one round trip to Redis, and none where leases do:
 *
 *   - a window of LIMIT_LEASE_FROM and more is leased: a loop reserves a slice of the window's budget in one step and
 *     spends it without asking, so it never admits too many;
 *   - one smaller window alone costs an INCRBY;
 *   - several, or a bucket, are one script (schema/limit.lua), with the leases that ran out;
 *   - a refusal is remembered by the loop until it ends, but a second at most (something may be given back elsewhere), so that a
 *     client that goes on costs nothing.
 *
 * A bucket holds `burst` at most and is filled with `most` every `window_s`: over any stretch of t seconds it admits at most
 * burst + most × t / window_s. Its `limit` is told as `most`, and `remaining` never as more than that.
 *
 * When Redis is away each loop counts by itself, with its share of the limit among the server's reactors (counted in
 * wakegate_limit_local_total): never open, never closed. wakegate_limit_round_trips_total counts how often Redis was asked.
 */

enum { LIMIT_LEASE_FROM = 1000, LIMITS_AT_ONCE = 8 };

struct limit_policy {
    const char *name; /* part of the key: [a-z0-9-] */
    uint64_t limit;
    uint64_t window_s;
    uint64_t burst; /* 0: a window */
};

/* `who` is bytes of our own making (an address, an id), never raw input. */
struct limit_charge {
    struct limit_policy policy;
    struct str who;
    uint64_t cost; /* at least 1 */
};

struct limit_verdict {
    const char *name; /* of the policy that the rest is about */
    uint64_t limit;
    uint64_t remaining;
    int64_t reset_unix_s;   /* when all of it is there again */
    uint64_t retry_after_s; /* at least 1; of a refusal: until it would be admitted at the earliest */
    bool allowed;
};

/* Charges all or none. May wait. The verdict is about the limit that refuses (the one that does so for longest), or else the
 * one with the least remaining. 0, or -ECANCELED. `count` 0 allows, with name NULL. */
int limit_take(const struct limit_charge *charges, size_t count, struct limit_verdict *verdict) MUST_USE;

/* Whether this loop knows that it is used up, so that nobody need be asked; *verdict then. Does not wait. */
bool limit_is_spent(const struct limit_charge *charge, struct limit_verdict *verdict);

/* Gives back what this loop has taken (a login that was right counts for nothing); nothing once the window is over. May wait;
 * errors are swallowed. */
void limit_give_back(const struct limit_charge *charge);

/* What is left, without taking: one verdict for each, `allowed` when one would be admitted. One round trip. What loops have
 * leased counts as spent. 0; -ECANCELED; without Redis the loop's own count. */
int limit_look(const struct limit_charge *charges, size_t count, struct limit_verdict *verdicts) MUST_USE;

struct loop;
void limit_close_loop(struct loop *loop);

#endif
