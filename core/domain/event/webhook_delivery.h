#ifndef CORE_DOMAIN_EVENT_WEBHOOK_DELIVERY_H
#define CORE_DOMAIN_EVENT_WEBHOOK_DELIVERY_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/domain/event/webhook.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Deliveries and their attempts, as the owner of an endpoint sees them.
 *
 *              an answer of 2xx
 *   pending ─────────────────────▶ delivered
 *      ▲  │                            │
 *      │  └── no try is left ──▶ failed│
 *      └──────── replay ───────────┴───┘
 */

enum { WEBHOOK_DELIVERY_REF_SIZE = 25 };

struct webhook_attempt {
    int64_t number;
    int64_t at_ms;
    int64_t took_ms; /* -1: nobody knows */
    bool ok;
    int64_t status;    /* 0: no answer */
    struct str error;  /* absent: it went well */
    struct str answer; /* absent: there was none, or none is kept */
};

struct webhook_delivery {
    int64_t id; /* shown as "dlv_…" */
    char ref[WEBHOOK_DELIVERY_REF_SIZE];
    struct str webhook;  /* the endpoint's ref */
    struct str event_id; /* the webhook-id */
    struct str surface;
    struct str event; /* its name */
    struct str status;
    int64_t attempts;
    int64_t next_ms; /* 0: it is not pending */
    int64_t created_ms;
    int64_t last_ms;                   /* of the last attempt; 0: there was none */
    int64_t last_status;               /* 0: no answer */
    struct str last_error;             /* absent: it went well */
    struct str body;                   /* absent in lists, as is the log */
    const struct webhook_attempt *log; /* its newest 200 attempts, oldest first */
    size_t log_count;
};

/* "dlv_12": 12. False for what is no such ref. */
bool webhook_delivery_parse(struct str ref, int64_t *id);

/* Newest first, below `cursor` (0: from the start), at most `limit`. `status` absent: all. *next: the cursor of those behind them; 0: there
 * are none. Of a status less than `limit`, or none, may be found though there are more: it is looked for among some thousands of
 * deliveries at once. Waits. -ENOENT: the account has no such endpoint. */
int webhook_deliveries_list(struct arena *arena, int64_t account_id, struct str webhook, struct str status,
                            int64_t cursor, int64_t limit, struct webhook_delivery **rows, size_t *count,
                            int64_t *next) MUST_USE;
/* -ENOENT: the account has none of that number. Waits. */
int webhook_delivery_get(struct arena *arena, int64_t account_id, int64_t id, struct webhook_delivery *row)
    MUST_USE;

/* How it goes with an endpoint, for operators. */
struct webhook_summary {
    int64_t failures; /* attempts that failed since the last success */
    int64_t pending;  /* deliveries that wait for an attempt: up to WEBHOOK_SUMMARY_PENDING are counted */
    int64_t due_ms;   /* when the first of them is or was due; 0: there is none */
    /* Of the newest deliveries, WEBHOOK_SUMMARY_DELIVERIES of them: */
    int64_t attempts;
    int64_t failed;     /* attempts */
    int64_t slowest_ms; /* attempt */
    int64_t last_ms;    /* of the last attempt; 0: there was none */
    int64_t last_status;
    struct str last_error; /* absent: it went well */
};
enum { WEBHOOK_SUMMARY_PENDING = 100000, WEBHOOK_SUMMARY_DELIVERIES = 100 };
/* -ENOENT. Waits. */
int webhook_summarize(struct arena *arena, int64_t webhook_id, struct webhook_summary *summary) MUST_USE;

/* Delivers an event of this name that did not happen, with `data` (JSON). Waits. -ENOENT; -EBUSY: the endpoint is disabled. */
int webhook_test(struct arena *arena, int64_t account_id, struct str webhook, struct str surface,
                 struct str event, struct str data, struct webhook_delivery *row) MUST_USE;
/* Delivers it once more, with the same webhook-id. Waits. Errors as above. */
int webhook_delivery_replay(struct arena *arena, int64_t account_id, int64_t id, struct webhook_delivery *row)
    MUST_USE;
/* The same with all of an endpoint since then; of those that it never got, too, unless `failed_only`. *count: how many. Waits. */
int webhook_replay_since(int64_t account_id, struct str webhook, int64_t since_ms, bool failed_only,
                         int64_t *count) MUST_USE;

#endif
