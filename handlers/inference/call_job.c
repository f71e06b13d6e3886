/* AI calls that nobody waits for ("Prefer: respond-async", RFC 7240): a row first, then the queue, then 202. */
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/ai_job.h"
#include "handlers/inference/call.h"

#include <errno.h>

static void withdraw(struct call *call)
{
    fiber_hold();
    int result = ai_job_withdraw(call->order.id);
    fiber_release();
    if (result)
        LOG(WARN, "a job that was refused has kept its row", LOG_TEXT("job", call->id), LOG_ERRNO(result));
}

/* The row; with an Idempotency-Key it is committed with the answer that a repetition gets. */
static bool accept_call(struct call *call, struct str body)
{
    struct request *request = call->request;
    int result = ai_job_accept(call->order.id, call->order.account_id, &call->meta, call->order.body, false);
    if (result)
        reply_failure(request, result);
    return result == 0 && request_commit_for(request, 202, body, config->ai_call_s);
}

/* A queue that can't be asked leaves the row to those who look for what is due; one that refuses does not. */
static bool submit(struct call *call)
{
    enum ai_entry entry;
    int64_t retry_ms;
    int result = ai_submit_unheard(&call->order, &entry, &retry_ms);
    if (result == -ECONNRESET || result == -ETIMEDOUT || result == -ECANCELED || result == -EALREADY ||
        (result == 0 && entry == AI_ACCEPTED))
        return true; /* or it may be so, and the row sees to it */
    withdraw(call);
    if (result)
        call_failure(call, result);
    else
        call_refuse(call, entry, retry_ms);
    return false;
}

void call_job(struct call *call)
{
    struct request *request = call->request;
    struct buf body = {0};
    struct json_out json = json_out_to(&body);
    json_open(&json, '{');
    call_put_job(&json, call);
    json_close(&json, '}');
    buf_add_char(&body, '\n');
    call_name(call);
    reply_header(request, "Location", arena_printf(request->arena, "/v1/jobs/%s", call->id));
    reply_header(request, "Preference-Applied", "respond-async");
    if (accept_call(call, buf_str(&body)) && submit(call))
        reply_body(request, 202, "application/json", buf_str(&body));
    buf_clear(&body);
}
