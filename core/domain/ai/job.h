#ifndef CORE_DOMAIN_AI_JOB_H
#define CORE_DOMAIN_AI_JOB_H

#include "core/base/arena.h"
#include "core/base/money.h"
#include "core/base/str.h"
#include "core/domain/ai/meta.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * AI calls as PostgreSQL has them: table ai_job (schema/008_ai.sql). A durable one has its row before anything is done; of others
 * the row is written as they end, many at once, with their charges, their use and their events in one transaction.
 *
 *     accept ──▶ queued ──start──▶ processing ──settle──▶ completed | failed | cancelled
 *     (nothing) ─────────────────────────────── settle ──▶ completed | failed | cancelled
 *
 * A start counts the row's fence up; only who knows it settles. Settled once, a row does not change.
 */

enum ai_status { AI_QUEUED, AI_PROCESSING, AI_COMPLETED, AI_JOB_FAILED, AI_CANCELLED };
const char *ai_status_name(enum ai_status status);

/* How a call ended. */
struct ai_end {
    struct str id;
    int64_t account_id;
    int64_t generation;
    int64_t fence; /* of a durable one; 0: it has none; -1: settles whoever runs it */
    struct ai_meta meta;
    struct str provider; /* that answered; or absent */
    enum ai_status status;
    struct str code;    /* of a failure; or absent */
    struct str message; /* the same for people */
    money cost;
    int64_t prompt_tokens;
    int64_t completion_tokens;
    int64_t started_ms;
    int64_t ended_ms;
    struct str text;   /* of the first choice, as far as it was delivered; or absent */
    struct str answer; /* the whole answer, JSON, of an unstreamed call; or absent */
    bool streamed;
};

/* As JSON and back, without id, account, generation, meta, which stand beside it. */
void ai_end_write(struct buf *out, const struct ai_end *end);
int ai_end_read(struct arena *arena, struct str text, struct ai_end *end) MUST_USE;

/* Settles all of them: rows, charges, use, events, in one transaction. Those that were settled before, or have another fence, are
 * passed over. Waits. */
int ai_settle(struct arena *arena, const struct ai_end *ends, size_t count) MUST_USE;

/* ---- durable calls ---- */

/* The row of one that is to be submitted, queued. Waits. */
int ai_job_accept(struct str id, int64_t account_id, const struct ai_meta *meta, struct str request,
                  bool streamed) MUST_USE;
/* Takes it back, because the queue did not accept it; nothing when it has begun. Waits. */
int ai_job_withdraw(struct str id) MUST_USE;
/* A worker begins. *fence is what it settles with. -ENOENT: it has ended. Waits. */
int ai_job_start(struct str id, struct str worker, int64_t lease_ms, int64_t *fence) MUST_USE;
/* They are still in work. Waits. */
int ai_job_extend(const struct str *ids, size_t count, struct str worker, int64_t lease_ms) MUST_USE;
/* The client wants no more of it: ends a row that waits (0) or is told by -EBUSY that it runs; -ENOENT. Waits. */
int ai_job_cancel(int64_t account_id, struct str id) MUST_USE;

/* One that is due and that nobody seems to have: to be submitted (again). */
struct ai_due {
    struct str id;
    int64_t account_id;
    struct str meta;
    struct str request;
};
/* Takes some of them, for the next seconds. Waits. */
int ai_job_due(struct arena *arena, int64_t limit, struct ai_due **due, size_t *count) MUST_USE;

/* ---- looking ---- */

struct ai_job {
    int64_t seq;
    struct str id;
    struct str model;
    struct str kind; /* ai_kind_name's */
    struct str status;
    int64_t created_ms;
    int64_t completed_ms; /* 0: not yet */
    struct str cost;      /* as it is shown; absent: not yet known */
    int64_t prompt_tokens;
    int64_t completion_tokens;
    struct str text;
    struct str answer; /* absent where there is none, and in lists */
    struct str error_code;
    struct str error_message;
    bool streamed;
};

/* -ENOENT: the account has none of that id. Waits. */
int ai_job_get(struct arena *arena, int64_t account_id, struct str id, struct ai_job *job) MUST_USE;
/* Newest first, below `cursor` (0: from the start), of one status or any (absent). Waits. */
int ai_job_list(struct arena *arena, int64_t account_id, struct str status, int64_t cursor, int64_t limit,
                struct ai_job **jobs, size_t *count) MUST_USE;
/* Whether it has the form of an id of ours. */
bool ai_job_id_is_valid(struct str id);
/* Removes what ended AI_JOB_DAYS ago, some thousands at a time. Waits. */
int ai_job_forget(void) MUST_USE;

#endif
