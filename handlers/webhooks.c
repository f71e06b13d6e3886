/* Webhook endpoints as their owners handle them, on every surface that has them. */
#include "handlers/webhooks.h"

#include "core/base/crypto.h"
#include "handlers/webhook_input.h"

#include <errno.h>

static void put_webhook(struct json_out *out, const struct webhook *webhook)
{
    json_put_str(out, "id", webhook->ref);
    json_put_text(out, "object", "webhook");
    json_put_str(out, "url", webhook->url);
    json_put_words(out, "events", webhook->events);
    if (webhook->surfaces.at)
        json_put_words(out, "surfaces", webhook->surfaces);
    else
        json_put_null(out, "surfaces");
    json_put_str(out, "description", webhook->description);
    json_put_bool(out, "ordered", webhook->ordered);
    json_put_bool(out, "enabled", webhook->enabled);
    json_put_str(out, "disabled_reason", webhook->disabled_reason);
    json_put_time(out, "disabled_at", webhook->disabled_ms);
    json_put_time(out, "failing_since", webhook->failing_since_ms);
    json_put_time(out, "paused_until", webhook->paused_until_ms);
    json_put_time(out, "old_secret_until", webhook->old_secret_until_ms);
    json_put_time(out, "created_at", webhook->created_ms);
    json_put_time(out, "updated_at", webhook->updated_ms);
}

static void reply_webhook(struct request *request, int status, const struct webhook *webhook)
{
    struct reply reply;
    reply_begin(&reply, request);
    put_webhook(&reply.json, webhook);
    reply_end(&reply, status);
}

/* With its secret, which nobody on the way may keep. */
static void reply_secret(struct request *request, int status, const struct webhook *webhook,
                         struct str secret)
{
    struct reply reply;
    reply_header(request, "Cache-Control", "no-store");
    reply_begin(&reply, request);
    put_webhook(&reply.json, webhook);
    json_put_str(&reply.json, "secret", secret);
    reply_end(&reply, status);
}

/* GET …/webhooks */
void webhooks_list(struct request *request)
{
    int64_t limit;
    int64_t cursor;
    struct webhook *webhooks;
    size_t count;
    if (!request_page(request, WEBHOOK_PAGE_MAX, 0, &limit, &cursor))
        return;
    int result = webhook_list(request->arena, request->principal.account_id, false, cursor, limit + 1,
                              &webhooks, &count);
    if (result) {
        webhook_failure(request, result);
        return;
    }
    bool more = page_has_next(limit, &count);
    struct reply reply;
    reply_list_begin(&reply, request, "list", "data");
    for (size_t i = 0; i < count; i++) {
        json_open(&reply.json, '{');
        put_webhook(&reply.json, &webhooks[i]);
        json_close(&reply.json, '}');
    }
    reply_list_end(&reply, more ? webhooks[count - 1].id : 0);
}

/* POST …/webhooks */
void webhooks_create(struct request *request)
{
    struct webhook_input input;
    struct webhook webhook;
    if (!webhook_read(request, true, &input))
        return;
    int result = webhook_create(request->arena, request->principal.account_id, request->surface->name,
                                &input.change, &input.secret, &webhook);
    if (result)
        webhook_failure(request, result);
    else
        reply_secret(request, 201, &webhook, input.secret);
}

/* GET …/webhooks/{id} */
void webhooks_get(struct request *request)
{
    struct str ref;
    struct webhook webhook;
    if (!webhook_ref(request, &ref))
        return;
    int result = webhook_get(request->arena, request->principal.account_id, ref, &webhook);
    if (result)
        webhook_failure(request, result);
    else
        reply_webhook(request, 200, &webhook);
}

/* PATCH …/webhooks/{id} */
void webhooks_update(struct request *request)
{
    struct str ref;
    struct webhook_input input;
    struct webhook webhook;
    if (!webhook_ref(request, &ref) || !webhook_read(request, false, &input))
        return;
    int result = webhook_update(request->arena, request->principal.account_id, ref, &input.change, &webhook);
    if (result)
        webhook_failure(request, result);
    else
        reply_webhook(request, 200, &webhook);
}

/* DELETE …/webhooks/{id} */
void webhooks_delete(struct request *request)
{
    struct str ref;
    if (!webhook_ref(request, &ref))
        return;
    int result = webhook_delete(request->principal.account_id, ref);
    if (result) {
        webhook_failure(request, result);
        return;
    }
    reply_deleted(request, ref, "webhook");
}

/* POST …/webhooks/{id}/rotate-secret */
void webhooks_rotate(struct request *request)
{
    struct str ref;
    struct str secret;
    int64_t overlap_s;
    const struct json *body;
    struct webhook webhook;
    if (!webhook_ref(request, &ref) || !request_json_or_none(request, &body) ||
        !request_overlap(request, body, &overlap_s) || !webhook_read_secret(request, body, &secret))
        return;
    int result =
        webhook_rotate(request->arena, request->principal.account_id, ref, overlap_s, &secret, &webhook);
    if (result)
        webhook_failure(request, result);
    else
        reply_secret(request, 200, &webhook, secret);
}
