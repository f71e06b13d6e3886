/* AI calls with one body for an answer, and what goes wrong with calls of every kind. */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/domain/ai/job.h"
#include "core/domain/ai/look.h"
#include "core/gate/live.h"
#include "core/net/stream.h"
#include "handlers/inference/call.h"

#include <errno.h>

enum { LOOKS = 20, LOOK_PAUSE_MS = 150 };

/* ---- what goes wrong ---- */

static void retry_after(struct request *request, int64_t seconds)
{
    reply_header(request, "Retry-After",
                 arena_printf(request->arena, "%lld", (long long)(seconds > 0 ? seconds : 1)));
}

void call_reply_void(struct call *call, enum api_error error, const char *message, int64_t retry_s)
{
    int status = api_errors[error].status;
    if (status == 429 || status == 503)
        retry_after(call->request, retry_s);
    if (status == 429 || status >= 500)
        request_undo(call->request);
    reply_error(call->request, error, message);
}

static int withdraw(void *arg)
{
    const struct call *call = arg;
    return ai_job_withdraw(call->order.id);
}

/* Its row, where it has one: with a key in the same transaction as what a repetition will get. */
static void take_row_back(struct call *call)
{
    if (!call->order.durable)
        return;
    if (call->request->idempotency) {
        request_end_with(call->request, withdraw, call);
        return;
    }
    fiber_hold();
    int result = withdraw(call);
    fiber_release();
    if (result)
        LOG(WARN, "a job that was refused has kept its row", LOG_TEXT("job", call->id), LOG_ERRNO(result));
}

void call_refuse(struct call *call, enum ai_entry entry, int64_t retry_ms)
{
    static const struct {
        enum api_error error;
        const char *message;
    } refusals[] = {
        [AI_NO_MONEY] = {ERROR_INSUFFICIENT_BALANCE, NULL},
        [AI_SPENT] = {ERROR_SPENDING_LIMIT, NULL},
        [AI_FULL] = {ERROR_OVERLOADED, NULL},
        [AI_TENANT_FULL] = {ERROR_RATE_LIMITED, "Too many calls of this account wait already"},
        [AI_TOO_LATE] = {ERROR_OVERLOADED, NULL},
        [AI_OUT_OF_ORDER] = {ERROR_PROVIDER_OUT, NULL},
    };
    CHECK(entry != AI_ACCEPTED);
    call->request->http->field_count = call->field_count; /* there is no job to tell of */
    take_row_back(call);
    call_reply_void(call, refusals[entry].error, refusals[entry].message, (retry_ms + 999) / 1000);
}

void call_failure(struct call *call, int result)
{
    /* The money is there, but lent to a Redis that has lost it: it comes back by itself (core/domain/money/lease.h). */
    if (result == -EBUSY)
        result = -EAGAIN;
    call->request->http->field_count = call->field_count;
    take_row_back(call);
    request_undo(call->request);
    reply_failure(call->request, result);
}

enum api_error call_error_of(struct str code)
{
    static const struct {
        const char *code;
        enum api_error error;
    } reasons[] = {{"queue_timeout", ERROR_QUEUE_TIMEOUT}, {"cancelled", ERROR_CALL_CANCELLED}};
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (str_equal(code, str_from(reasons[i].code)))
            return reasons[i].error;
    return ERROR_CALL_LOST;
}

/* ---- to the queue and back ---- */

void call_name(struct call *call)
{
    reply_header(call->request, "X-Job-Id", call->id);
}

void call_point(struct call *call)
{
    reply_header(call->request, "Location", arena_printf(call->request->arena, "/v1/jobs/%s", call->id));
}

bool call_accept(struct call *call, struct str answer, int64_t running_s)
{
    int result = ai_job_accept(call->order.id, call->order.account_id, &call->meta, call->order.body,
                               call->order.streamed);
    if (result) {
        reply_failure(call->request, result);
        return false;
    }
    call->order.durable = true;
    return request_commit_for(call->request, 202, answer, running_s);
}

/* What a repetition is told while this one runs no longer and has not been answered: how to ask for the job. */
static bool commit(struct call *call)
{
    struct buf body = {0};
    struct json_out json = json_out_to(&body);
    if (!call->request->idempotency)
        return true;
    call_name(call);
    json_open(&json, '{');
    call_put_job(&json, call);
    json_close(&json, '}');
    buf_add_char(&body, '\n');
    size_t fields = call->request->http->field_count;
    call_point(call);
    bool done = call_accept(call, buf_str(&body), config->ai_call_s);
    buf_clear(&body);
    if (done)
        call->request->http->field_count = fields; /* of that answer, not of this one */
    CRASH_POINT("call-accepted");
    return done;
}

bool call_submit(struct call *call)
{
    enum ai_entry entry;
    int64_t retry_ms;
    bool has_key = call->request->idempotency != NULL;
    if (!commit(call))
        return false;
    int result = ai_submit(&call->heard, &call->order, &entry, &retry_ms);
    if (result) {
        call_failure(call, result);
    } else if (entry != AI_ACCEPTED) {
        call_refuse(call, entry, retry_ms);
    } else {
        if (!has_key)
            call_name(call);
        return true;
    }
    return false;
}

int call_next(struct call *call, const struct ai_message **message, uint64_t deadline_ns)
{
    for (;;) {
        bool line_first = call->line_until_ns < deadline_ns;
        int result = ai_next(&call->heard, message, line_first ? call->line_until_ns : deadline_ns);
        if (result != -ETIMEDOUT || !line_first)
            return result;
        enum ai_cancel_outcome outcome;
        result = ai_cancel(call->order.account_id, call->order.id, true, &outcome);
        if (result == 0 && outcome == AI_CANCEL_REMOVED)
            return -ETIME;
        call->line_until_ns = result ? clock_in_ms(1000) : CLOCK_NEVER;
    }
}

int call_status(const struct ai_message *message)
{
    int64_t status;
    return str_to_i64(message->rest, &status) && status >= 200 && status < 600 ? (int)status : 502;
}

enum api_error call_error_of_status(int status)
{
    return status == 499 || status == 410 ? ERROR_CALL_CANCELLED : ERROR_CALL_LOST;
}

void call_reply(struct call *call, int status, struct str body)
{
    if (status >= 400 && body.size == 0) {
        reply_error(call->request, call_error_of_status(status), NULL);
        return;
    }
    if (status == 429 || status == 503)
        retry_after(call->request, 1);
    if (status == 429 || status >= 500)
        request_undo(call->request); /* it has cost nothing */
    if (status >= 400)
        reply_error_body(call->request, status, "provider_error", "application/json", body);
    else
        reply_body(call->request, status, "application/json", body);
}

/* ---- from its row ---- */

static bool has_ended(const struct ai_job *job)
{
    return job->completed_ms != 0;
}

/* Its answer, in the shape that is asked for, or its error. */
static void reply_end_of(struct call *call, const struct ai_job *job)
{
    struct request *request = call->request;
    struct buf events = {0};
    if (job->answer.at && !call->ai.stream)
        reply_body(request, 200, "application/json", job->answer);
    else if (job->answer.at && call_put_events(call, job->answer, &events))
        reply_body(request, 200, SSE_TYPE, buf_str(&events));
    else
        reply_error(request, call_error_of(job->error_code),
                    job->error_message.at ? arena_printf(request->arena, "%.*s", STR_ARG(job->error_message))
                                          : NULL);
    buf_clear(&events);
}

/* What a stream has said is not kept in its row: then it stays with the job. */
bool call_again(void *arg, int status, struct str body)
{
    struct call *call = arg;
    struct request *request = call->request;
    struct ai_job job;
    const char *error;
    if (status != 202)
        return false;
    struct str id = json_string(json_member(json_read(request->arena, body, &error), "id"));
    if (ai_look(request->arena, request->principal.account_id, id, &job) || !has_ended(&job) ||
        (!job.answer.at && str_equal(job.status, STR("completed"))))
        return false;
    call->order.id = id;
    call->meta.created_ms = job.created_ms;
    reply_header(request, "Idempotent-Replayed", "true");
    reply_header(request, "X-Cache", "BYPASS"); /* a cached one would have had its answer at once */
    reply_header(request, "X-Job-Id", arena_printf(request->arena, "%.*s", STR_ARG(id)));
    reply_end_of(call, &job);
    return true;
}

void call_reply_lost(struct call *call)
{
    struct request *request = call->request;
    if (call->order.durable)
        reply_error(
            request, ERROR_CALL_LOST,
            arena_printf(request->arena, "The call was lost sight of; it goes on as job %s", call->id));
    else
        call_reply_void(call, ERROR_CALL_LOST, NULL, 1);
}

/* ---- one body ---- */

/* Its last message was lost: the row has what it said. */
static void answer_from_row(struct call *call)
{
    struct request *request = call->request;
    struct ai_job job;
    int result = -ENOENT;
    for (int looks = 0; looks < LOOKS; looks++) {
        result = ai_job_get(request->arena, call->order.account_id, call->order.id, &job);
        if ((result == 0 && has_ended(&job)) || (result && result != -ENOENT) ||
            fiber_sleep_ms(LOOK_PAUSE_MS))
            break;
    }
    if (result == 0 && has_ended(&job))
        reply_end_of(call, &job);
    else
        call_reply_lost(call);
}

static void answer_from_message(struct call *call, const struct ai_message *message)
{
    if (message->said == AI_FAILED) {
        call_reply_void(call, call_error_of(message->rest), NULL, 1);
        return;
    }
    int status = call_status(message);
    if (status == 200 && call->caches)
        call_keep(call, message->payload);
    call_reply(call, status, message->payload);
}

/* The server ends before the call does, which goes on: its job has the answer. */
static void answer_by_job(struct call *call)
{
    retry_after(call->request, 1);
    reply_error(
        call->request, ERROR_SERVER_ENDS,
        arena_printf(call->request->arena, "The server restarts; the call goes on as job %s", call->id));
}

void call_answer(struct call *call)
{
    const struct ai_message *message = NULL;
    bool has_key = call->request->idempotency != NULL;
    if (!call_submit(call))
        return;
    int result = 0;
    do
        result = call_next(call, &message, call->until_ns);
    while (result == 0 && message->said == AI_PIECE);
    switch (result) {
    case 0: answer_from_message(call, message); break;
    case -EPIPE: answer_from_row(call); break;
    case -ETIME: call_reply_void(call, ERROR_QUEUE_TIMEOUT, NULL, 1); break;
    case -ETIMEDOUT: reply_error(call->request, ERROR_CALL_TIMEOUT, NULL); break;
    case -ESHUTDOWN: answer_by_job(call); break;
    default: reply_failure(call->request, result); break;
    }
    /* Removed: nothing is left to be cancelled. With a key and a client that left, a repetition asks for the job. */
    if (result == -ETIME || result == -ESHUTDOWN || (has_key && result == -ECANCELED))
        ai_call_leave(&call->heard);
    else
        ai_call_close(&call->heard);
}
