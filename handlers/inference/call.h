#ifndef HANDLERS_INFERENCE_CALL_H
#define HANDLERS_INFERENCE_CALL_H

#include "core/domain/ai/catalogue.h"
#include "core/domain/ai/order.h"
#include "core/domain/ai/queue.h"
#include "core/gate/gate.h"
#include "proto/ai/request.h"

/*
 * An AI call on its way through a server, from its request to its answer:
 *
 *     calls.c        what is asked for, of which model, at what price: an order ─┬─▶ call_job.c      202, nobody waits
 *                                                                                ├─▶ call_cached.c   an answer that was given before
 *                                                                                ├─▶ call_answer.c   one body
 *                                                                                └─▶ call_stream.c   events, as they come
 *
 * The client leaving cancels it, unless it came with an Idempotency-Key and has one body for an answer: who sends a key will ask again.
 * A call with a key is a row first, committed with the key and the answer "202, this job": so that whatever dies after that, there is
 * such a job, it is run, and a repetition gets what it came to (call_again).
 */
struct call {
    struct request *request;
    struct ai_request ai;
    struct catalogue *catalogue; /* held until the call is over: names in the order are its */
    const struct model *model;
    struct ai_meta meta;
    struct ai_order order;
    struct ai_call heard;   /* once it was accepted */
    uint64_t until_ns;      /* when it must have ended */
    uint64_t line_until_ns; /* when it must have left the queue; CLOCK_NEVER once it has */
    size_t field_count;     /* of the answer's head, before it was accepted */
    bool caches;            /* its answer may be given again, or be one that was given before */
    char id[AI_ID_SIZE];
};

/* ---- ways to the answer; each replies ---- */

void call_answer(struct call *call);
void call_stream(struct call *call);
void call_job(struct call *call);
/* False: there is none. */
bool call_cached(struct call *call);

/* ---- what they share (call_answer.c) ---- */

/* Names the job in the answer's head: X-Job-Id. */
void call_name(struct call *call);
/* Where it can be looked at, of an answer that is the job: Location. */
void call_point(struct call *call);
/* The row of a call that is to be submitted: false when it has replied. With a key it is committed with it, and with the answer that
 * holds until there is another, for `running_s` at most. Waits. */
bool call_accept(struct call *call, struct str answer, int64_t running_s);
/* For request_again, of a call: what the job in a kept 202 came to. */
bool call_again(void *arg, int status, struct str body);
/* Keeps a whole answer of a call that `caches`. */
void call_keep(const struct call *call, struct str answer);
/* A whole answer as the events of a stream, its id and time the call's; false when it is none. */
bool call_put_events(struct call *call, struct str answer, struct buf *events);
/* The queue did not take it. What there is of its row goes. */
void call_refuse(struct call *call, enum ai_entry entry, int64_t retry_ms);
/* A store's error at the door. */
void call_failure(struct call *call, int result);
/* To the queue; false when it has replied. Waits. */
bool call_submit(struct call *call);
/* As ai_next; also ends a call that has waited for too long: -ETIME. */
int call_next(struct call *call, const struct ai_message **message, uint64_t deadline_ns) MUST_USE;
/* What the client is told of a call that the queue has ended. */
enum api_error call_error_of(struct str code);
/* And of one that its worker has ended without a word, as when somebody has cancelled it. */
enum api_error call_error_of_status(int status);
/* Replies with an error of a call that has ended for nothing, or never began, so that a repetition begins anew. */
void call_reply_void(struct call *call, enum api_error error, const char *message, int64_t retry_s);
/* The HTTP status in the last message of a call. */
int call_status(const struct ai_message *message);
/* The answer of a worker, whatever its status. */
void call_reply(struct call *call, int status, struct str body);

/* Nothing can be heard of it any more. One with a row goes on for all that is known: a repetition asks for it. */
void call_reply_lost(struct call *call);

/* The job as it is accepted, as members of the object at hand (jobs.c). */
void call_put_job(struct json_out *out, const struct call *call);

#endif
