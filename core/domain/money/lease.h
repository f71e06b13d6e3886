#ifndef CORE_DOMAIN_MONEY_LEASE_H
#define CORE_DOMAIN_MONEY_LEASE_H

#include "core/base/money.h"
#include "core/run/loop.h"

#include <stdbool.h>

/*
 * Money for calls, lent to Redis: a call is paid for in one step there, without a commit, and yet an account never spends what it
 * has not, because PostgreSQL gives a slice away before Redis gives any of it out.
 *
 *     wallet.available ──grant──▶ wallet.leased ────────────────charge (ledger_charge)────────────▶ revenue
 *            ▲                          │
 *            └────────return────────────┘       in Redis, hash lease:{account}:
 *                                                   gen      the generation of wallet_lease that this is
 *                                                   applied  the number of the last grant that was added
 *                                                   free     picodollars that no call has reserved
 *
 * A generation of an account's lease (a row of wallet_lease):
 *
 *              first grant                                     recalled: idle, or the money is wanted
 *     (none) ──────────────▶ open ───────────────────────────────────────────────────────▶ closed, fenced
 *                           │    ▲                                                            ▲      │
 *                           └────┘ grant n + 1, once Redis has applied n                      │      │ all charged, or
 *                            │                                                 the sweep has  │      │ AI_CALL_SECONDS later
 *                            │ Redis was emptied (its epoch is another)        looked at the  │      ▼
 *                            └────────────────────────────────────────▶ closed (lost) ────────┘     done
 *                                                                        key in Redis
 *
 * - A grant is a commit (the slice leaves `available`) and then a step in Redis. Whoever comes between finds it pending and applies it
 *   too: by its number that happens once. So at most one is pending.
 * - Redis loses all at once: lease:epoch goes with the rest. A grant tells the epoch in which it was made, so a slow process can't
 *   bring one back after that, and whoever finds another epoch than the row's closes the generation and opens the next.
 *   A Redis that is started again with older data from its disk has lost them, too: the first words of every connection say so
 *   (schema/restored.lua).
 * - Taking a lease back leaves the field `past` in its place, so that no grant of that generation is applied later.
 * - A call that ends after its generation was closed is still charged to it, for granted - charged - returned is kept until no such call
 *   can be left: what is returned at once is only what Redis said was free as it was taken away.
 * - A generation that was lost gives nothing back before the sweep has made sure that Redis has none of it, and AI_CALL_SECONDS on.
 *
 * So granted >= charged + returned always holds, charges are never refused, and what a crash leaves lent comes back by itself.
 */

enum { LEASE_KEPT_DAYS = 30 };

/*
 * Gets another slice, at least what is missing to `needed` in all, out of PostgreSQL into Redis, where `generation` and `applied` is
 * what the caller saw (0, 0: there was no key). Callers of one loop and account share the work, and none is told that money is
 * wanting by a look that began before it asked. Waits, on a fiber of its own, so what the caller's scope has written does not count.
 * 0: try again; -EDQUOT: the account has not so much; -EBUSY: it has, but of a lease that Redis lost, whose rest comes back within
 * AI_CALL_SECONDS; others are a store's.
 */
int lease_refill(int64_t account_id, int64_t generation, int64_t applied, money needed) MUST_USE;

/* Puts what today's (UTC) charges sum up to into spend:{account}:{day}, unless it is there. Waits. */
int lease_load_spend(int64_t account_id) MUST_USE;

/* Takes the account's lease back, so that its money is available again but for what calls have reserved. Not within a scope that has
 * touched the account's wallet. Waits. */
int lease_recall(int64_t account_id) MUST_USE;

/* One round of what workers do: takes back leases that were idle for LEASE_IDLE_SECONDS, makes sure that Redis has nothing of closed
 * ones, and ends those whose calls must have ended. Waits. */
int lease_sweep(void) MUST_USE;

/* Removes leases that were done LEASE_KEPT_DAYS ago, some thousands at a time; their movements stay. Waits. */
int lease_forget(void) MUST_USE;

/* False: Redis has more free of the account's lease than was lent to it. For a check. Waits. */
int lease_is_sound(int64_t account_id, bool *sound) MUST_USE;

/* Waits until the loop's refills have ended. On a fiber, before the stores are closed. */
void lease_close_loop(struct loop *loop);

#endif
