#ifndef CORE_DOMAIN_EVENT_FEED_H
#define CORE_DOMAIN_EVENT_FEED_H

#include "core/domain/event/event.h"

/*
 * An account's events as they come, in one loop: each once, in the order of its number, from the moment the feed was opened.
 *
 *     Redis: the next number ───────────────▶ handed on
 *            a later one ──▶ behind ──▶ what is missing is read from PostgreSQL, then what Redis has said meanwhile
 *            nothing, while it ought to have ──▶ found by a look at the heads of all feeds, every FEED_LOOK_MS
 *
 * The newest are kept for a while, so that who comes back need not ask PostgreSQL. A feed has no fiber; all of a loop's share
 * one.
 */

enum { FEED_LOOK_MS = 2000 };

struct feed;

/* Must not wait, nor close the feed. */
typedef void feed_on_event(void *owner, const struct event_told *event);

void feed_open_loop(struct loop *loop);
/* All feeds are closed. Waits, on a fiber. */
void feed_close_loop(struct loop *loop);

/* One for each account of a loop. */
struct feed *feed_open(int64_t account_id, feed_on_event *on_event, void *owner);
void feed_close(struct feed *feed);

/* Waits until it knows where it is: then what is committed from now on will be handed on. 0, -ENOTCONN, -ETIMEDOUT, -ECANCELED. */
int feed_wait(struct feed *feed, uint64_t deadline_ns) MUST_USE;

/* The last event that it has handed on, or was there when it was opened. */
int64_t feed_place(const struct feed *feed);
struct str feed_id(const struct feed *feed);

/* The event after `seq`, if it was handed on and is still kept; valid until the fiber waits. */
const struct event_told *feed_kept(const struct feed *feed, int64_t seq);
/* The number of a kept event, or of the last one; -1: it is not known here. */
int64_t feed_find(const struct feed *feed, struct str id);

#endif
