#ifndef CORE_GATE_WATCH_H
#define CORE_GATE_WATCH_H

#include "core/domain/identity/credential.h"
#include "core/run/loop.h"

/*
 * Answers that stay open end when the key or log-in that opened them does: it is looked at when the first one is opened, and
 * then every WATCH_MS, all of a loop's in one statement, however many answers hang on them.
 */

enum { WATCH_MS = 600 };

/* Part of the answer's owner. Zero-initialise. */
struct watched {
    struct link link; /* of its credential's */
    struct watched_credential *credential;
    /* It has ended, or its account is banned. Must not wait; may call watch_end. */
    void (*ended)(struct watched *watched, enum credential_state state);
};

void watch_open_loop(struct loop *loop);
/* Nothing is watched any more. Waits, on a fiber. */
void watch_close_loop(struct loop *loop);

void watch_begin(struct watched *watched, const struct principal *principal,
                 void (*ended)(struct watched *watched, enum credential_state state));
/* Safe on one that was never begun, and to repeat. */
void watch_end(struct watched *watched);

#endif
