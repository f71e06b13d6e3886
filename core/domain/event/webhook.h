#ifndef CORE_DOMAIN_EVENT_WEBHOOK_H
#define CORE_DOMAIN_EVENT_WEBHOOK_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Webhook endpoints: where an account wants its events posted to. Events become deliveries in the statement that adds them
 * (schema/010_webhook.sql), a worker's job for each endpoint sends them (workers/webhook.c), and core/domain/event/webhook_delivery.h is
 * how their owner sees them.
 *
 *                410, or it has failed for five days, or its owner's will
 *      enabled ──────────────────────────────────────────────────────────▶ disabled: no deliveries are made or sent;
 *         ▲                                                                 what was made waits
 *         └──────────────────────────── its owner's will ──────────────────┘
 */

enum {
    WEBHOOK_REF_SIZE = 26,
    WEBHOOK_URL_MAX = 2048,
    WEBHOOK_DESCRIPTION_MAX = 200,
    WEBHOOK_EVENTS_MAX = 50,
    WEBHOOK_SECRET_LEAST = 8,
    WEBHOOK_SECRET_MOST = 256
};

/* Surfaces whose events there are. */
extern const char *const webhook_surfaces[]; /* NULL-terminated */

struct webhook {
    int64_t id;
    struct str ref; /* "we_…" */
    int64_t account_id;
    struct str account; /* its name */
    struct str url;
    struct str description;
    struct str events;   /* names, "job.*" or "*", separated by spaces */
    struct str surfaces; /* separated by spaces; absent: all */
    bool ordered;
    bool enabled;
    struct str disabled_reason; /* owner, operator, gone or failing; absent while it is enabled */
    int64_t disabled_ms;
    int64_t failing_since_ms;    /* 0: the last attempt went well */
    int64_t paused_until_ms;     /* 0: it is not paused */
    int64_t old_secret_until_ms; /* 0: one secret signs */
    int64_t created_ms;
    int64_t updated_ms;
};

/* A change, or all of a new one: what is absent (or NULL) stays as it is. */
struct webhook_change {
    struct str url;
    struct str description;
    const struct str *events; /* patterns of event.h */
    size_t event_count;
    const struct str *surfaces; /* with a count of 0: all */
    size_t surface_count;
    const bool *ordered;
    const bool *enabled;
};

/* Makes one. `secret`: the client's, or absent: it is made then ("whsec_…"), and set. `surface` is where it is made. Waits. -ENOSPC: the
 * account has WEBHOOK_ENDPOINTS already. */
int webhook_create(struct arena *arena, int64_t account_id, const char *surface,
                   const struct webhook_change *change, struct str *secret, struct webhook *row) MUST_USE;
/* -ENOENT: the account has none of that ref. They wait. account_id 0: any account's, for operators. */
int webhook_get(struct arena *arena, int64_t account_id, struct str ref, struct webhook *row) MUST_USE;
/* -EPERM: its owner can't enable what an operator has disabled. */
int webhook_update(struct arena *arena, int64_t account_id, struct str ref,
                   const struct webhook_change *change, struct webhook *row) MUST_USE;
int webhook_delete(int64_t account_id, struct str ref) MUST_USE;
/* Newest first, below `cursor` (0: from the start). Waits. */
int webhook_list(struct arena *arena, int64_t account_id, bool disabled_only, int64_t cursor, int64_t limit,
                 struct webhook **rows, size_t *count) MUST_USE;
/* Gives it another secret, which is set when it was absent; the old one signs along for `overlap_s`. Waits. -ENOENT; -EAGAIN: somebody
 * else changed it at the same time. */
int webhook_rotate(struct arena *arena, int64_t account_id, struct str ref, int64_t overlap_s,
                   struct str *secret, struct webhook *row) MUST_USE;

/*
 * Rings the jobs of the account's endpoints that wait for a worker: once events of the account are committed. Does not wait;
 * of many calls one statement is made. Rings that are lost come five seconds late.
 */
void webhook_ring(int64_t account_id);
/* Ends what webhook_ring has begun; on a fiber, waits. */
void webhook_close_loop(void);

#endif
