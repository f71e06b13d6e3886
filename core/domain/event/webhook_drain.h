#ifndef CORE_DOMAIN_EVENT_WEBHOOK_DRAIN_H
#define CORE_DOMAIN_EVENT_WEBHOOK_DRAIN_H

#include "core/base/arena.h"
#include "core/domain/event/webhook_retry.h"
#include "core/domain/event/webhook_sign.h"
#include "core/store/queue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Webhooks as the job of an endpoint sees them (workers/webhook.c). The job's key is the endpoint's number, so that one worker at
 * a time sends to an endpoint; its fence guards what follows from an attempt, but not the log: an attempt that was made is
 * logged, whoever made it.
 */

/* An endpoint, as it was when the job began. */
struct webhook_target {
    int64_t id;
    int64_t version;
    int64_t account_id;
    const char *ref;
    const char *url;
    bool ordered;
    bool paused;
    bool cut; /* a worker died with deliveries of it in hand */
    struct webhook_secret secret;
    struct webhook_secret old; /* signs along until then */
    int64_t old_until_ms;
    struct webhook_health health;
};
/* -ENOENT: there is none of that number that is enabled. -EBADMSG: its secret does not open. Waits. */
int webhook_target_load(struct arena *arena, struct str key, struct webhook_target *target) MUST_USE;
/* Logs the attempts of a worker that died. Waits. */
int webhook_take_over(const struct webhook_target *target) MUST_USE;

enum webhook_verdict {
    WEBHOOK_DELIVERED,
    WEBHOOK_FAILED,
    WEBHOOK_STOPPED, /* nobody's fault, and nobody knows: the worker was told to stop. Does not count. */
};

/* A delivery in hand, and what came of it. */
struct webhook_item {
    int64_t id;
    int64_t attempts; /* that were made before */
    int64_t tries;    /* those of them that count */
    int64_t round;    /* goes up when the owner asks for it once more */
    struct str event_id;
    struct str surface;
    struct str object; /* what its data is about; absent: of nothing */
    struct str body;
    enum webhook_verdict verdict;
    int64_t begun_ms;
    int64_t took_ms;
    int status;        /* 0: no answer */
    struct str error;  /* why it has failed; absent */
    struct str answer; /* its beginning, valid UTF-8 without NUL; absent */
    int64_t asked_s;   /* Retry-After */
};

/* What is due and not in `hand`, at most `most`; marks all of it as being in hand. In the order in which it is to be sent. Waits. */
int webhook_claim(struct arena *arena, const struct webhook_target *target, struct webhook_item *const *hand,
                  size_t hand_count, size_t most, struct webhook_item **items, size_t *count) MUST_USE;

/*
 * Logs what came of these, and ends them or says when they are tried again. `pause_ms`: of the endpoint, that begins now.
 * *failing: the endpoint has failed for WEBHOOK_PATIENCE_S. Waits. -ESTALE: the job is another's; the attempts are logged.
 */
int webhook_settle(const struct job *job, const struct webhook_target *target,
                   struct webhook_item *const *items, size_t count, const struct webhook_health *health,
                   int64_t pause_ms, bool *failing) MUST_USE;

/* Ends the job, and adds the one for what is left. Waits. -ESTALE: it is another's. */
int webhook_end(struct job *job, const struct webhook_target *target) MUST_USE;

enum webhook_reason { WEBHOOK_REASON_GONE, WEBHOOK_REASON_FAILING };
/* Disables the endpoint and tells its owner by the event webhook.disabled. Waits. */
int webhook_disable(const struct webhook_target *target, enum webhook_reason why) MUST_USE;

/* Adds jobs for what is due and has none, which ought not to be. Waits. */
int webhook_sweep(void) MUST_USE;
/* Removes deliveries that are older than WEBHOOK_DAYS, and what deleted endpoints have left. Waits. */
int webhook_forget(void) MUST_USE;

#endif
