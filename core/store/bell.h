#ifndef CORE_STORE_BELL_H
#define CORE_STORE_BELL_H

#include "core/base/list.h"
#include "core/base/str.h"
#include "core/run/fiber.h"

/*
 * Bells: how a fiber that waits for something another process does learns that it is done. Each loop has an
 * address; a row in PostgreSQL remembers the address that wants to know; whoever commits the change rings it. A
 * ring may be lost, so a waiter looks at the truth before it waits and again every BELL_LOOK_MS.
 *
 * An announcement is for everybody who wants to know just now: no row remembers them, each topic has a channel of its
 * own, and a loop listens to it while one of its ears is open.
 */

enum { BELL_ADDRESS_SIZE = 32, BELL_LOOK_MS = 1000 };

/* Starts listening on the loop's address. After redis_open_loop. */
void bell_open_loop(struct loop *loop);
void bell_close_loop(struct loop *loop);

/* The running loop's address: what others put into bell_ring. NUL-terminated; lives as long as the loop. */
const char *bell_address(void);

/* An ear for one topic. Opened before the truth is looked at, so that no ring falls between. */
struct bell_ear {
    struct link link;
    struct str topic; /* must outlive the ear */
    struct wait wait;
    struct bell_channel *channel; /* NULL: it hears no announcements */
};
void bell_ear_open(struct bell_ear *ear, struct str topic);
/* One that hears what is announced, too. Redis hears of it a moment later. */
void bell_ear_open_announced(struct bell_ear *ear, struct str topic);
void bell_ear_close(struct bell_ear *ear);
/* Waits for a ring: 0 when one came (since the ear was opened or last returned 0); -ETIMEDOUT, -ECANCELED. */
int bell_ear_wait(struct bell_ear *ear, const char *what, uint64_t deadline_ns) MUST_USE;

/* Rings `topic` at `address`; does not wait. Local ears are rung without Redis too. */
void bell_ring(struct str address, struct str topic);
/* Rings `topic` on every loop that has an ear for its announcements; does not wait. */
enum { BELL_TOPIC_MAX = 64 };
void bell_announce(struct str topic);

#endif
