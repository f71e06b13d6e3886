#ifndef CORE_DOMAIN_INSTANCE_INSTANCE_H
#define CORE_DOMAIN_INSTANCE_INSTANCE_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/store/pg.h"
#include "core/store/queue.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * An instance: one user's compute, asleep or awake. A session is one.
 *
 *            wake asked                ready probe              idle / sleep asked
 *  asleep ───────────────▶ waking ───────────────▶ awake ───────────────────────▶ draining ──▶ asleep
 *     ▲                      │ start failed, tries left: again                      │ new work: awake again
 *     └──────────────────────┴ no tries left: failed           delete asked: gone, from any state
 *
 * `desired` says how many pods there should be (0 or 1); `state` says how far the scale job has come. Clients
 * change only `desired`; only the scale job changes `state`, and proves with its fence that it still may.
 *
 * Whoever waits for an instance to come into another state hears its id announced (bell.h) once it has.
 */

enum instance_state { INSTANCE_ASLEEP, INSTANCE_WAKING, INSTANCE_AWAKE, INSTANCE_DRAINING, INSTANCE_FAILED };

enum {
    INSTANCE_USER_MAX = 256,   /* characters of a user_id */
    INSTANCE_QUEUE_MAX = 1000, /* messages that wait for one pod */
    INSTANCE_SNAPSHOT_MS =
        2000,               /* how old instance_get's answer may be when a process died at a bad moment */
    INSTANCE_FAILED_S = 10, /* a failed instance refuses to be woken for so long */
};

struct instance {
    struct str id;
    struct str user_id;
    struct str fail_reason; /* absent unless it failed */
    int64_t account_id;
    int64_t version;
    int64_t generation;
    int64_t port; /* 0: no pod */
    int64_t queued;
    int64_t lease_fence;
    int64_t lease_until_ms;
    int64_t created_ms;
    int64_t last_activity_ms;
    int64_t state_ms; /* since when it is in its state */
    enum instance_state state;
    int desired;
    bool woken; /* ever */
    bool deleted;
};

/* Whether a text can be an id: 8 to 63 of [a-z0-9], the first a letter. Checked before it becomes part of a key. */
enum { INSTANCE_ID_MAX = 63 };
bool instance_id_is_valid(struct str id);

/*
 * What clients ask for. Each waits; the instance is filled in from the arena. -ENOENT: no such instance of this
 * account; -EBUSY: it failed less than INSTANCE_FAILED_S ago; and the errors of pg_write. What has to be rung is rung.
 */
int instance_create(struct arena *arena, int64_t account_id, const char *surface, struct str user_id,
                    struct instance *instance) MUST_USE;
/* A read for showing: from Redis when it is there, at most INSTANCE_SNAPSHOT_MS old. */
int instance_get(struct arena *arena, int64_t account_id, struct str id, struct instance *instance) MUST_USE;
/* The same of any account's: for who has other proof that he may. */
int instance_peek(struct arena *arena, struct str id, struct instance *instance) MUST_USE;
int instance_wake(struct arena *arena, int64_t account_id, struct str id, struct instance *instance) MUST_USE;
int instance_sleep(struct arena *arena, int64_t account_id, struct str id, struct instance *instance)
    MUST_USE;
/* From its return on the instance is not found any more. The worker stops the pod, removes its workspace and then
 * rings `id` at the address `notify`. */
int instance_delete(struct arena *arena, int64_t account_id, struct str id, struct str notify) MUST_USE;
/* True when the row of a deleted instance is gone too. Waits. */
int instance_is_gone(struct str id, bool *gone) MUST_USE;
/* Those of an account, newest first, below the cursor (`before`: INT64_MAX for the first page); user_id may be
 * absent. `next` is the cursor of the next page, 0 when this is the last. */
int instance_list(struct arena *arena, int64_t account_id, const char *surface, struct str user_id,
                  int64_t before, int64_t limit, struct instance **instances, size_t *count, int64_t *next)
    MUST_USE;

/* ---- for the scale job: every change is refused with -ESTALE when the job's lease is lost ---- */

/* Without regard to the owner, deleted ones too. -ENOENT. */
int instance_load(struct arena *arena, struct str id, struct instance *instance) MUST_USE;
/* The next port in turn, of those from `first` to `last` that are no pod's; 0: none is left. */
int instance_next_port(int64_t first, int64_t last, int64_t *port) MUST_USE;
/* -EEXIST: the port is another's. */
int instance_to_waking(const struct job *job, int64_t port, struct instance *instance) MUST_USE;
/* The pod is ready: the messages that wait are rung for. Ends the job (job->finished) unless `desired` is no longer 1. */
int instance_to_awake(struct job *job, int64_t pid, int64_t pid_started, int64_t port,
                      struct instance *instance) MUST_USE;
/* 0, or -EAGAIN when `desired` has become 1. state_ms is when it began, also when it goes on with it. */
int instance_to_draining(const struct job *job, struct instance *instance) MUST_USE;
/* Work has come while it was draining: awake again. 0, or -EAGAIN when `desired` is no longer 1. */
int instance_undrain(const struct job *job, struct instance *instance) MUST_USE;
/* No pod any more. Ends the job unless `desired` is 1: somebody wants it again, or messages wait. `fail_reason` absent:
 * none. */
int instance_to_asleep(struct job *job, struct str fail_reason, struct instance *instance) MUST_USE;
/* No tries are left. Ends the job. */
int instance_to_failed(struct job *job, struct str fail_reason, struct instance *instance) MUST_USE;
/* Removes the row of a deleted instance, ends the job, and rings who waits for it. */
int instance_remove(struct job *job) MUST_USE;

/* ---- for visits ---- */

/* The row, and a scale job that looks at the pod when it still is of that generation: it could not be reached. Waits.
 * -ENOENT. */
int instance_look_after(struct arena *arena, struct str id, int64_t generation, struct instance *instance)
    MUST_USE;
/* Activity of so many milliseconds ago, of up to INSTANCE_ACTIVE_MAX instances in one statement; never moves last_activity
 * back. noted[i] says whether it was written: not when there is no pod, nor when the row is being changed just now. Waits. */
enum { INSTANCE_ACTIVE_MAX = 256 };
int instance_was_active(const struct str *ids, const int64_t *ages_ms, size_t count, bool *noted) MUST_USE;

/* ---- for the sweeps; no leader is needed, each row is taken by one of them ---- */

/* The pod of that generation has ended by itself: asleep, or woken again when messages wait. */
int instance_pod_lost(struct str id, int64_t generation) MUST_USE;

/* Awake for longer than config->idle_timeout_s with nothing to do. */
int instance_idle(struct arena *arena, struct instance **instances, size_t *count) MUST_USE;
/* Asks an idle one to sleep, if it still is idle. */
int instance_sleep_idle(struct str id) MUST_USE;
/* The pod itself says that it is at work: counts as activity. */
int instance_touch(struct str id) MUST_USE;
/* Rings for every instance that is not as it should be and has no job: the safety net under all of the above. */
int instance_reconcile(void) MUST_USE;
/* Those with a pod, by the rows. */
int instance_with_pod(struct arena *arena, struct instance **instances, size_t *count) MUST_USE;

/* For message.c: one row in the order of INSTANCE_COLUMNS, and telling readers of it. */
#define INSTANCE_MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define INSTANCE_COLUMNS(alias)                                                                              \
    alias                                                                                                    \
        "id, " alias "user_id, " alias "fail_reason, " alias "account_id, " alias "version, " alias          \
        "generation, " alias "port, " alias "queued, " alias "lease_fence, "                                 \
        "CASE WHEN " alias                                                                                   \
        "lease_until = '-infinity' THEN 0 ELSE " INSTANCE_MS(alias "lease_until") " END, " INSTANCE_MS(      \
            alias                                                                                            \
            "created_at") ", " INSTANCE_MS(alias                                                             \
                                           "last_activity") ", " INSTANCE_MS(alias                           \
                                                                             "state_at") ", " alias          \
                                                                                         "state, " alias     \
                                                                                         "desired, " alias   \
                                                                                         "woken, " alias     \
                                                                                         "deleted_at IS NOT NULL"
enum { INSTANCE_COLUMN_COUNT = 17 };
void instance_from_row(struct arena *arena, const struct pg_rows *rows, size_t row,
                       struct instance *instance);
void instance_publish(const struct instance *instance);
/* The tenant of its jobs, as text in `out`. */
struct str instance_tenant(int64_t account_id, char out[24]);

/* ---- a banned account's ---- */

/* Whether the account is banned to which the instance belongs; believed for as long as of a key (core/domain/identity/verdict.h).
 * Waits. -ENOENT; errors of pg_read. */
int instance_owner_is_banned(struct str id, bool *banned) MUST_USE;
void instance_owner_close_loop(struct loop *loop);
/* Puts all of an account's instances to sleep, which ends what is open to them. Waits. */
int instance_sleep_all(struct arena *arena, int64_t account_id) MUST_USE;

#endif
