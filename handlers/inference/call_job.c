/* AI calls that nobody waits for ("Prefer: respond-async", RFC 7240): a row first, then the queue, then 202. */
#include "core/base/config.h"
#include "handlers/inference/call.h"

#include <errno.h>

/* A queue that can't be asked leaves the row to those who look for what is due; one that refuses does not. */
static bool submit(struct call *call)
{
    enum ai_entry entry;
    int64_t retry_ms;
    int result = ai_submit_unheard(&call->order, &entry, &retry_ms);
    if (result == -ECONNRESET || result == -ETIMEDOUT || result == -ECANCELED || result == -EALREADY ||
        (result == 0 && entry == AI_ACCEPTED))
        return true; /* or it may be so, and the row sees to it */
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
    call_point(call);
    reply_header(request, "Preference-Applied", "respond-async");
    /* Between the row and the queue's word a moment passes, and no more. */
    if (call_accept(call, buf_str(&body), config->request_timeout_s) && submit(call))
        reply_body(request, 202, "application/json", buf_str(&body));
    buf_clear(&body);
}
