#ifndef WORKERS_AI_INTERNAL_H
#define WORKERS_AI_INTERNAL_H

/*
 * What the files of AI calls share; nobody else includes it.
 *
 *   ai.c           tasks come, each in a fiber: what runs it, how it ends, what it costs
 *   http.c      providers that are asked by HTTP
 *   sandbox.c   the one that is not
 *   settle.c    ends that are to be committed
 *   durable.c   rows that are due, and that are in work
 *   watch.c     providers, for operators
 */
#include "core/domain/ai/catalogue.h"
#include "core/domain/ai/worker.h"
#include "proto/ai/failure.h"
#include "proto/ai/request.h"

enum {
    AI_PIECE_BYTES = 16 * 1024, /* of chunks that are gathered before they are sent on */
    AI_ANSWER_MAX = 8 << 20,    /* of an unstreamed answer */
    AI_TEXT_MAX = 1 << 20,      /* of a text that is kept in the row */
    AI_DURABLE_LEASE_MS = 30000,
    AI_CALL_MARGIN_MS = 5000, /* of AI_CALL_SECONDS, for the call's end */
};

/* Of a call whose time was over before it began. */
#define AI_TOO_LATE_MESSAGE "The call could not be run in time"

/* A call at work, and after that its end until it is committed. */
struct ai_run {
    struct ai_task *task; /* NULL once it has ended */
    struct arena arena;
    struct ai_request request;
    struct catalogue *catalogue;
    const struct model *model;
    const struct model_route *route;
    struct ai_identity identity;
    struct fetch_stream *upstream; /* the provider's answer, while it is read */
    uint64_t deadline_ns;          /* of all of it */
    bool streams;                  /* the client gets chunks */
    struct buf lines;              /* chunks that were not sent yet, each with a line feed behind it */
    struct buf text;               /* of the first choice, as far as it has come */
    struct ai_usage usage;         /* so far */
    size_t sent_text;              /* these two as far as they were sent */
    struct ai_usage sent_usage;
    bool delivers; /* something of the provider's was, or is about to be, delivered */
    int64_t latency_ms;
    int64_t pause_ms; /* the provider has said that it has no more requests for so long; 0: it has not */
    uint64_t started_ns;
    struct ai_end end;
};

/* What a provider's function comes to. -EPROTO: the failure says what; -ECANCELED; -ESTALE or -EPIPE of ai_task_piece. */
typedef int ai_provider_run(struct ai_run *run, struct buf *answer, struct ai_failure *failure);
ai_provider_run ai_http_run, ai_sandbox_run;

/* Leaves the provider: what has not ended yet is closed. Harmless when nothing is open. Waits for a moment. */
void ai_http_close(struct ai_run *run);

/* Milliseconds until its deadline, at least one. */
uint64_t ai_run_left_ms(const struct ai_run *run);
/* Sends on what was gathered. Waits. */
int ai_run_send(struct ai_run *run) MUST_USE;
/* Keeps text of the first choice for the row. */
void ai_run_keep_text(struct ai_run *run, struct str text);

/* ---- settle.c ---- */

void ai_settle_open(struct loop *loop);
/* Waits until all is settled, or `deadline_ns`; what is left is another worker's. */
void ai_settle_close(uint64_t deadline_ns);
/* Copies an end that is to be committed. */
void ai_settle_take(const struct ai_end *end);
/* As ai_worker_options.recover. */
void ai_settle_recover(const struct str *ids, size_t count);

/* ---- durable.c ---- */

void ai_durable_open(struct loop *loop);
void ai_durable_close(void);

/* ---- watch.c ---- */

void ai_watch_open(struct loop *loop);
void ai_watch_close(void);

#endif
