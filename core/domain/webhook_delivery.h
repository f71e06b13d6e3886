#ifndef CORE_DOMAIN_WEBHOOK_DELIVERY_H
#define CORE_DOMAIN_WEBHOOK_DELIVERY_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/domain/webhook.h"

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
    const struct webhook_attempt *log; /* all attempts, oldest first */
    size_t log_count;
};

/* "dlv_12": 12. False for what is no such ref. */
bool webhook_delivery_parse(struct str ref, int64_t *id);

/* Newest first, below `cursor` (0: from the start). `status` absent: all. Waits. -ENOENT: the account has no such endpoint. */
int webhook_deliveries_list(struct arena *arena, int64_t account_id, struct str webhook, struct str status,
                            int64_t cursor, int64_t limit, struct webhook_delivery **rows, size_t *count)
    MUST_USE;
/* -ENOENT: the account has none of that number. Waits. */
int webhook_delivery_get(struct arena *arena, int64_t account_id, int64_t id, struct webhook_delivery *row)
    MUST_USE;

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
