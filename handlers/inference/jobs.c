/* AI calls as jobs: looked at, listed, cancelled. */
#include "core/base/clock.h"
#include "core/domain/ai/job.h"
#include "core/domain/ai/look.h"
#include "core/domain/ai/queue.h"
#include "handlers/inference/call.h"
#include "handlers/inference/inference.h"

#include <errno.h>

enum { CANCEL_WAIT_MS = 2000, CANCEL_LOOK_MS = 25 };

/* ---- what a job looks like ---- */

static void put_result(struct json_out *out, const struct ai_job *job)
{
    json_key(out, "result");
    json_open(out, '{');
    json_put_str(out, "text", job->text.at ? job->text : STR(""));
    json_put_int(out, "tokens_used", job->prompt_tokens + job->completion_tokens);
    json_close(out, '}');
}

static void put_error(struct json_out *out, const struct ai_job *job)
{
    json_key(out, "error");
    json_open(out, '{');
    json_put_str(out, "code", job->error_code);
    json_put_str(out, "message", job->error_message.at ? job->error_message : STR("The call failed"));
    json_close(out, '}');
}

static void put_usage(struct json_out *out, const struct ai_job *job)
{
    json_key(out, "usage");
    json_open(out, '{');
    json_put_int(out, "prompt_tokens", job->prompt_tokens);
    json_put_int(out, "completion_tokens", job->completion_tokens);
    json_put_int(out, "total_tokens", job->prompt_tokens + job->completion_tokens);
    json_close(out, '}');
}

static bool is_over(const struct ai_job *job)
{
    return job->completed_ms != 0;
}

/* As members of the object at hand. What a call that failed in its middle has delivered and cost is shown as well. */
static void put_job(struct json_out *out, const struct ai_job *job)
{
    bool delivered = is_over(job) && (job->text.at || str_equal(job->status, STR("completed")));
    json_put_str(out, "id", job->id);
    json_put_text(out, "object", "job");
    json_put_str(out, "status", job->status);
    json_put_str(out, "kind", job->kind);
    json_put_str(out, "model", job->model);
    json_put_bool(out, "streamed", job->streamed);
    json_put_time(out, "created_at", job->created_ms);
    json_put_time(out, "completed_at", job->completed_ms);
    json_put_str(out, "cost", is_over(job) ? job->cost : STR_NONE);
    if (delivered)
        put_result(out, job);
    else
        json_put_null(out, "result");
    if (is_over(job))
        put_usage(out, job);
    else
        json_put_null(out, "usage");
    if (job->error_code.at)
        put_error(out, job);
    else
        json_put_null(out, "error");
}

void call_put_job(struct json_out *out, const struct call *call)
{
    const struct ai_job job = {
        .id = call->order.id,
        .model = call->meta.model,
        .kind = str_from(ai_kind_name(call->meta.kind)),
        .status = str_from(ai_status_name(AI_QUEUED)),
        .created_ms = call->meta.created_ms,
        .streamed = call->order.streamed,
    };
    put_job(out, &job);
}

/* The whole answer, in the shape that a client that waits gets. */
static void reply_job(struct request *request, int status, const struct ai_job *job)
{
    struct reply reply;
    reply_begin(&reply, request);
    put_job(&reply.json, job);
    if (job->answer.at)
        json_put_raw(&reply.json, "response", job->answer);
    else
        json_put_null(&reply.json, "response");
    reply_end(&reply, status);
}

static void jobs_failure(struct request *request, int result)
{
    if (result == -ENOENT)
        reply_error(request, ERROR_NOT_FOUND, "Job not found");
    else
        reply_failure(request, result);
}

/* ---- GET /api/v1/jobs/{id}, GET /api/v1/jobs ---- */

void jobs_get(struct request *request)
{
    struct ai_job job;
    int result = ai_look(request->arena, request->principal.account_id, request->params[0], &job);
    if (result)
        jobs_failure(request, result);
    else
        reply_job(request, 200, &job);
}

static bool read_status(struct request *request, struct str *status)
{
    *status = STR_NONE;
    if (url_query_count(request->query, "status") == 0)
        return true;
    if (url_query(request->arena, request->query, "status", status))
        for (int i = AI_QUEUED; i <= AI_CANCELLED; i++)
            if (str_equal(*status, str_from(ai_status_name((enum ai_status)i))))
                return true;
    reply_invalid(request, "status must be queued, processing, completed, failed or cancelled");
    return false;
}

void jobs_list(struct request *request)
{
    struct str status;
    int64_t limit;
    int64_t cursor;
    struct ai_job *jobs;
    size_t count;
    if (!read_status(request, &status) || !request_page(request, INFERENCE_PAGE_MAX, 0, &limit, &cursor))
        return;
    int result =
        ai_job_list(request->arena, request->principal.account_id, status, cursor, limit + 1, &jobs, &count);
    if (result) {
        reply_failure(request, result);
        return;
    }
    bool more = page_has_next(limit, &count);
    struct reply reply;
    reply_list_begin(&reply, request, "list", "data");
    for (size_t i = 0; i < count; i++) {
        json_open(&reply.json, '{');
        put_job(&reply.json, &jobs[i]);
        json_close(&reply.json, '}');
    }
    reply_list_end(&reply, more ? jobs[count - 1].seq : 0);
}

/* ---- DELETE /api/v1/jobs/{id} ---- */

/* Ends it wherever it is: in its worker, in the queue, or in its row if it is not in the queue yet. */
static int cancel(struct request *request, struct str id)
{
    int64_t account_id = request->principal.account_id;
    enum ai_cancel_outcome outcome;
    int result = ai_cancel(account_id, id, false, &outcome);
    if (result || outcome == AI_CANCEL_RUNNING)
        return result;
    result = ai_job_cancel(account_id, id);
    return result == -ENOENT || result == -EBUSY ? 0 : result;
}

/* The job, once its worker has ended it, or as it is after a while. */
static int wait_for_end(struct request *request, struct str id, struct ai_job *job)
{
    uint64_t deadline_ns = clock_in_ms(CANCEL_WAIT_MS);
    for (;;) {
        int result = ai_look(request->arena, request->principal.account_id, id, job);
        if (result || is_over(job) || clock_now_ns() >= deadline_ns || fiber_sleep_ms(CANCEL_LOOK_MS))
            return result;
    }
}

/* One that waited in the queue with its client: nothing is kept of it. */
static void reply_removed(struct request *request, struct ai_job *job)
{
    job->status = str_from(ai_status_name(AI_CANCELLED));
    job->completed_ms = clock_wall_ms();
    job->cost = STR("0.0");
    reply_job(request, 200, job);
}

static void cancel_running(struct request *request, struct ai_job *before)
{
    struct ai_job job;
    int result = cancel(request, before->id);
    if (result == 0)
        result = wait_for_end(request, before->id, &job);
    if (result == 0)
        reply_job(request, 200, &job);
    else if (result == -ENOENT)
        reply_removed(request, before);
    else
        reply_failure(request, result);
}

/* With an Idempotency-Key what is committed first is the job as it is now: its end is the worker's doing. */
static bool commit(struct request *request, const struct ai_job *job)
{
    struct reply reply;
    if (!request->idempotency)
        return true;
    reply_begin(&reply, request);
    put_job(&reply.json, job);
    json_put_null(&reply.json, "response");
    return reply_commit(&reply, 200);
}

void jobs_cancel(struct request *request)
{
    struct ai_job job;
    int result = ai_look(request->arena, request->principal.account_id, request->params[0], &job);
    if (result)
        jobs_failure(request, result);
    else if (!gate_repeat(request))
        return;
    else if (is_over(&job) && str_equal(job.status, STR("cancelled")))
        reply_job(request, 200, &job);
    else if (is_over(&job))
        reply_error(request, ERROR_JOB_ENDED, NULL);
    else if (commit(request, &job))
        cancel_running(request, &job);
}
