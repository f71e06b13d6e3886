#ifndef CORE_DOMAIN_IDEMPOTENCY_H
#define CORE_DOMAIN_IDEMPOTENCY_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Idempotency-Key (contract.md; draft-ietf-httpapi-idempotency-key-header): the first answer to a request is kept for 24 hours, in
 * the transaction of its effect, and given again.
 *
 *     idempotency_begin ──▶ handler, its writes inside the transaction ──▶ idempotency_keep, commit ──▶ the answer is sent
 *
 * A transaction that is not committed has had no effect, and a repetition begins anew: an outcome that is not known is settled
 * by whether the row is there. A handler that must wait for others after its effect (a worker that sees only what is
 * committed) commits early with the answer that holds if nothing better comes, and keeps the final one later.
 */

enum { IDEMPOTENCY_KEY_MAX = 255, IDEMPOTENCY_KEEP_S = 86400 };

struct idempotency {
    struct str owner; /* who sent it, and what it may do: one word; an address for routes without a key */
    struct str key;
    unsigned char request[32]; /* digest of method, path and body */
};

enum idempotency_state {
    IDEMPOTENCY_NEW,     /* a transaction is open on this fiber (pg_scope_open); ours to run */
    IDEMPOTENCY_DONE,    /* `status` and `answer` are to be given again */
    IDEMPOTENCY_RUNNING, /* another one is at it: 409; `answer` is what it has committed early, if it has */
    IDEMPOTENCY_OTHER,   /* the key came with another request: 422 */
};

/* Waits. On IDEMPOTENCY_NEW a scope is open, in every other case and on an error none is. `answer` is in the arena. */
int idempotency_begin(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                      int *status, struct str *answer) MUST_USE;
/* What there is for it by now, and nothing is opened: IDEMPOTENCY_NEW promises nothing. Waits. */
int idempotency_look(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                     int *status, struct str *answer) MUST_USE;
/* Keeps the answer and commits (closes the scope); `running_s` > 0: it may get better within so many seconds, and who asks
 * meanwhile is told that it runs. On an error nothing has happened, but for -ECONNRESET: not known. Waits. */
int idempotency_keep(struct arena *arena, const struct idempotency *which, int status, struct str answer,
                     int64_t running_s) MUST_USE;
/* After an early commit: the final answer; absent: the one that was kept stands. It is not changed any more once it may have
 * been given again. Waits. */
int idempotency_finish(struct arena *arena, const struct idempotency *which, int status, struct str answer)
    MUST_USE;
/* After an early commit whose effect was taken back: a repetition begins anew. Waits. */
int idempotency_undo(const struct idempotency *which) MUST_USE;
/* Keeps the effect, and no answer: closes the scope with a commit. As idempotency_keep fails. Waits. */
int idempotency_pass(void) MUST_USE;
/* Takes the effect back: closes the scope with a rollback. Waits. */
void idempotency_drop(void);
/* Removes what is older than a day, some thousands at a time. Waits. */
int idempotency_forget(void) MUST_USE;

#endif
