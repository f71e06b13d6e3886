#ifndef CORE_DOMAIN_AI_QUEUE_H
#define CORE_DOMAIN_AI_QUEUE_H

#include "core/base/arena.h"
#include "core/base/money.h"
#include "core/base/str.h"
#include "core/domain/ai/meta.h"
#include "core/run/fiber.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The queue of AI calls, from the side of who has a client that waits. Everything that decides is one script in Redis
 * (schema/ai.lua), so it is exact over all servers and workers:
 *
 *            ai_submit: bounds, spending, money taken from the account's lease (core/domain/money/lease.h)
 *               │
 *               ├── a place is free at the provider, and a worker ──▶ running ──▶ ended ──▶ row in PostgreSQL, keys gone
 *               │                                                     ▲   │
 *               └──▶ waiting: each tenant in turn ─── a place ────────┘   └─ nothing delivered, and another provider
 *                       │                              gets free            (or worker) may try: placed again, first in line
 *                       └── its time is up, or its client leaves: ended
 *
 * A call is pushed to the worker with the fewest calls (PUBLISH), and what it delivers is pushed back to the loop that waits. What
 * is lost on the way is found out: a worker counts what Redis says it holds, a loop looks at calls that are silent.
 *
 * Money: what a call can cost at most is reserved with the same step, and what it has not cost comes back with the step that
 * ends it. Losing all of Redis loses what was reserved there, which PostgreSQL then gives back (lease.h), and calls whose client
 * waits; durable ones are submitted again.
 */

enum { AI_ID_SIZE = 27 /* "job_", 22 characters, NUL */, AI_ROUTES_MAX = 8 };

/* A provider that may run the call, and how much it may have. `name` is [a-z0-9_-]. */
struct ai_route {
    struct str name;
    int64_t most;        /* calls in flight, whatever the provider seems to bear */
    int64_t calls_most;  /* that wait for it */
    int64_t tenant_most; /* of one account among these */
    int64_t bytes_most;  /* of these calls */
};

struct ai_order {
    struct str id; /* ai_new_id's */
    int64_t account_id;
    struct str meta; /* ai_meta_write's */
    struct str body; /* the client's request */
    bool streamed;
    bool durable;                          /* it has a row */
    money most;                            /* what it can cost; 0: it costs nothing and needs no lease */
    money limit;                           /* what the account may spend a day; negative: any amount */
    money call_price;                      /* of these three a call is charged that ends with its worker */
    money prompt_price;                    /* of all of its prompt */
    money token_price;                     /* of a token of the answer */
    int64_t wait_ms;                       /* how long it may wait for a place */
    struct ai_route routes[AI_ROUTES_MAX]; /* in the order in which they are tried */
    size_t route_count;
};

/* Whether a call was accepted, or why not. */
enum ai_entry {
    AI_ACCEPTED,
    AI_NO_MONEY,     /* the balance does not cover it */
    AI_SPENT,        /* the day's spending limit does not */
    AI_FULL,         /* too many wait for its providers */
    AI_TENANT_FULL,  /* too many of this account do */
    AI_TOO_LATE,     /* it would wait for longer than it may */
    AI_OUT_OF_ORDER, /* its providers have failed of late, and are left alone for a moment */
};

void ai_new_id(char out[AI_ID_SIZE]);

/* ---- the loop's ear ---- */

void ai_open_loop(struct loop *loop);  /* after redis_open_loop */
void ai_close_loop(struct loop *loop); /* waits until what was to be cancelled was tried */
/* The server ends soon: from now on ai_next returns -ESHUTDOWN where it would wait. From the loop's thread. */
void ai_end_waits(struct loop *loop);

/* ---- a call that somebody here waits for ---- */

enum ai_said {
    AI_PIECE,  /* a piece of a streamed answer */
    AI_END,    /* the last: `rest` has the HTTP status of an unstreamed answer, whose body is the payload */
    AI_FAILED, /* it was ended by the queue: `rest` is the reason's code */
};

struct ai_message {
    struct link link;
    enum ai_said said;
    struct str rest;
    struct str payload;
};

struct ai_call {
    struct link link;
    struct str id;
    int64_t account_id;
    struct link inbox;
    struct wait *waiter;
    struct ai_message *shown; /* what ai_next returned last */
    char worker[64];          /* that runs it, once it has said something */
    uint64_t try;             /* the run that speaks */
    uint64_t number;          /* of the next message of this run */
    uint64_t taken;           /* bytes of messages that were shown */
    uint64_t told;            /* of these, what the worker was told of */
    bool over;                /* the last message has come */
    bool broken;              /* a message was lost on the way */
};

/*
 * Submits. 0 with *entry AI_ACCEPTED: `call` is open, and closed by ai_call_close; with another one nothing is. `retry_ms` is
 * after how long it may be worth another try. -ENOTCONN and other errors of a store: Redis or PostgreSQL is away. -ECONNRESET,
 * -ETIMEDOUT: it may run, unheard. Waits. `order` and what it names must live until the call is closed.
 */
int ai_submit(struct ai_call *call, const struct ai_order *order, enum ai_entry *entry, int64_t *retry_ms)
    MUST_USE;
/* The same for a durable call, or any that nobody here waits for. -EALREADY: the queue has it. */
int ai_submit_unheard(const struct ai_order *order, enum ai_entry *entry, int64_t *retry_ms) MUST_USE;

/* The next message; valid until the next call. Waits: 0; -ETIMEDOUT, -ECANCELED; -EPIPE: one was lost; -ESHUTDOWN: ai_end_waits. */
int ai_next(struct ai_call *call, const struct ai_message **message, uint64_t deadline_ns) MUST_USE;
/* The client has taken all that was shown so far: the worker may read on. */
void ai_taken(struct ai_call *call);

enum ai_cancel_outcome { AI_CANCEL_NONE, AI_CANCEL_REMOVED, AI_CANCEL_RUNNING };
/* Ends it: removed where it waits (nothing is charged), stopped where it runs. With `only_waiting` a call that runs goes on.
 * Waits, and is not to be cancelled. */
int ai_cancel(int64_t account_id, struct str id, bool only_waiting, enum ai_cancel_outcome *outcome) MUST_USE;

/* Hears no more of it. A call that is not over is cancelled, without waiting; while Redis is away that is repeated. NULL-safe members: may follow a failed submit. */
void ai_call_close(struct ai_call *call);
/* The same, but the call goes on without a listener: its row tells how it ended. */
void ai_call_leave(struct ai_call *call);

#endif
