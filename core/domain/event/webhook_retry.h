#ifndef CORE_DOMAIN_EVENT_WEBHOOK_RETRY_H
#define CORE_DOMAIN_EVENT_WEBHOOK_RETRY_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * When a delivery that failed is tried again, and when an endpoint is left in peace. Nothing here waits or stores anything.
 *
 * Tries: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h, each a tenth more or less by chance.
 *
 * The circuit breaker of an endpoint, so that one that is dead costs no places: after WEBHOOK_FAILURES attempts in a row that
 * failed nothing is sent to it for ten seconds, then one delivery as a probe; if that fails too, for twice as long, up to ten
 * minutes. One success closes it.
 */

enum { WEBHOOK_TRIES = 8, WEBHOOK_FAILURES = 10 };
/* An endpoint that fails for so long is disabled. */
enum { WEBHOOK_PATIENCE_S = 5 * 86400 };

/* The pause after the try of this number (from 1) failed, or -1: it was the last. `asked_s`: what the endpoint asked for with
 * Retry-After (0: nothing), at most a day of which is granted. */
int64_t webhook_retry_ms(unsigned tries, int64_t asked_s, uint64_t random);

/* Seconds from `now_s` on that a Retry-After field asks for (RFC 9110 §10.2.3: a number or a date); 0 for what can't be read or
 * is over. */
int64_t webhook_retry_after_s(struct str field, int64_t now_s);

struct webhook_health {
    int64_t failures; /* attempts that failed since the last success */
    int64_t pauses;   /* in a row */
};
/* Notes an attempt. Returns the pause that begins with it; 0: none does. `asked_s`, of an endpoint that says it has too much to do
 * (429, 503), is a pause too, of an hour at most. */
int64_t webhook_health_note(struct webhook_health *health, bool ok, int64_t asked_s, uint64_t random);

#endif
