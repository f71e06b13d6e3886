/* Webhook endpoints of all accounts. */
#include "core/domain/event/webhook_delivery.h"
#include "core/operator/verbs.h"

#include <errno.h>

#define WEBHOOK_ROW                                                                                          \
    {                                                                                                        \
        .name = "webhook", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "we_…"                      \
    }

static void put_webhook(struct json_out *out, const struct webhook *row)
{
    json_put_int(out, "id", row->id);
    json_put_str(out, "ref", row->ref);
    json_put_str(out, "account", row->account);
    json_put_str(out, "url", row->url);
    json_put_str(out, "description", row->description);
    operator_put_words(out, "events", row->events);
    operator_put_words(out, "surfaces", row->surfaces);
    json_put_bool(out, "ordered", row->ordered);
    json_put_bool(out, "enabled", row->enabled);
    json_put_str(out, "disabled_reason", row->disabled_reason);
    operator_put_time(out, "disabled_at", row->disabled_ms);
    operator_put_time(out, "failing_since", row->failing_since_ms);
    operator_put_time(out, "paused_until", row->paused_until_ms);
    operator_put_time(out, "created_at", row->created_ms);
    operator_put_time(out, "updated_at", row->updated_ms);
}

static int no_such_webhook(struct operator_call *call)
{
    return operator_fail(call, -ENOENT, "there is no webhook %.*s", STR_ARG(operator_text(call, "webhook")));
}

/* ---- looking ---- */

const struct operator_argument operator_webhook_list_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_WORD),
    {.name = "disabled", .type = OPERATOR_SWITCH, .help = "only those that are disabled"},
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

int operator_webhook_list(struct operator_call *call)
{
    struct account account;
    struct webhook *rows;
    int64_t limit, cursor;
    size_t count = 0;
    int result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = operator_account_or_all(call, &account);
    if (result == 0)
        result = webhook_list(call->arena, account.id, operator_switch(call, "disabled"), cursor, limit,
                              &rows, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        put_webhook(call->out, &rows[i]);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}

/* Bounded counts of what may be millions of rows. */
static void put_summary(struct json_out *out, const struct webhook_summary *summary)
{
    json_put_int(out, "failures", summary->failures);
    json_put_int(out, "pending", summary->pending);
    operator_put_time(out, "next_attempt_at", summary->due_ms);
    json_put_int(out, "recent_attempts", summary->attempts);
    json_put_int(out, "recent_failed", summary->failed);
    json_put_int(out, "recent_slowest_ms", summary->slowest_ms);
    operator_put_time(out, "last_attempt_at", summary->last_ms);
    if (summary->last_status)
        json_put_int(out, "last_status", summary->last_status);
    else
        json_put_null(out, "last_status");
    json_put_str(out, "last_error", summary->last_error);
}

static int show(struct operator_call *call, const struct webhook *row)
{
    struct webhook_summary summary;
    int result = webhook_summarize(call->arena, row->id, &summary);
    if (result == -ENOENT)
        return no_such_webhook(call);
    if (result)
        return result;
    json_open(call->out, '{');
    put_webhook(call->out, row);
    put_summary(call->out, &summary);
    json_close(call->out, '}');
    return 0;
}

const struct operator_argument operator_webhook_show_arguments[] = {
    WEBHOOK_ROW,
    {.name = NULL},
};

int operator_webhook_show(struct operator_call *call)
{
    struct webhook row;
    int result = webhook_get(call->arena, 0, operator_text(call, "webhook"), &row);
    if (result == -ENOENT)
        return no_such_webhook(call);
    return result ? result : show(call, &row);
}

/* ---- changing ---- */

static int set_enabled(struct operator_call *call, bool enabled)
{
    const struct webhook_change change = {.url = STR_NONE, .description = STR_NONE, .enabled = &enabled};
    struct webhook row;
    int result = webhook_update(call->arena, 0, operator_text(call, "webhook"), &change, &row);
    if (result == -ENOENT)
        return no_such_webhook(call);
    return result ? result : show(call, &row);
}

const struct operator_argument operator_webhook_disable_arguments[] = {
    WEBHOOK_ROW,
    {.name = NULL},
};

int operator_webhook_disable(struct operator_call *call)
{
    return set_enabled(call, false);
}

const struct operator_argument operator_webhook_enable_arguments[] = {
    WEBHOOK_ROW,
    {.name = NULL},
};

int operator_webhook_enable(struct operator_call *call)
{
    return set_enabled(call, true);
}
