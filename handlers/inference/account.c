/* The account: who it is, what it has, its plan, and what is left of its limits. */
#include "handlers/inference/inference.h"

#include "core/domain/money/ledger.h"
#include "core/domain/money/subscription.h"

static void put_window(struct json_out *out, const struct limit_verdict *verdict)
{
    json_open(out, '{');
    json_put_text(out, "name", verdict->name);
    json_put_int(out, "limit", (int64_t)verdict->limit);
    json_put_int(out, "remaining", (int64_t)verdict->remaining);
    json_put_time(out, "reset", verdict->reset_unix_s * 1000);
    json_close(out, '}');
}

/* As text, and null for one without. */
static void put_spend(struct json_out *out, money most)
{
    char text[MONEY_TEXT_SIZE];
    json_put_str(out, "daily_spend", most == PLAN_SPEND_UNLIMITED ? STR_NONE : money_format(text, most));
}

static void put_money(struct json_out *out, const struct ledger_sums *sums,
                      const struct subscription *subscription)
{
    json_put_str(out, "balance", sums->balance);
    json_key(out, "usage");
    json_open(out, '{');
    json_put_str(out, "current_month", sums->current_month);
    json_put_str(out, "last_month", sums->last_month);
    json_put_str(out, "today", sums->today);
    json_close(out, '}');
    if (!subscription->plan.at) {
        json_put_null(out, "subscription");
        return;
    }
    json_key(out, "subscription");
    json_open(out, '{');
    json_put_str(out, "plan", subscription->plan);
    json_put_str(out, "price", subscription->price);
    json_put_time(out, "renews_at", subscription->renews_ms);
    json_close(out, '}');
}

static void put_limits(struct request *request, struct json_out *out, const struct limit_verdict *verdicts,
                       size_t count)
{
    json_key(out, "limits");
    json_open(out, '{');
    json_put_text(out, "plan", request->principal.plan.name);
    for (size_t i = 0; i < count; i++)
        if (strcmp(verdicts[i].name, "inference-minute") == 0)
            json_put_int(out, "rate_limit", (int64_t)verdicts[i].limit);
    put_spend(out, request->principal.plan.daily_spend);
    json_key(out, "windows");
    json_open(out, '[');
    for (size_t i = 0; i < count; i++)
        put_window(out, &verdicts[i]);
    json_close(out, ']');
    json_close(out, '}');
}

/* GET /api/v1/account */
void account_show(struct request *request)
{
    struct account account;
    struct limit_verdict verdicts[LIMITS_AT_ONCE];
    struct ledger_sums sums;
    struct subscription subscription;
    size_t count;
    int64_t id = request->principal.account_id;
    int result = account_get(request->arena, id, &account);
    if (result == 0)
        result = ledger_sums(request->arena, id, &sums);
    if (result == 0)
        result = subscription_get(request->arena, id, &subscription);
    if (result == 0)
        result = gate_look_at_limits(request, verdicts, &count);
    if (result) {
        reply_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    inference_put_account(&reply.json, &account);
    put_money(&reply.json, &sums, &subscription);
    put_limits(request, &reply.json, verdicts, count);
    reply_end(&reply, 200);
}

/* GET /api/v1/whoami: from what the reactor knows already, so it asks no store. */
void account_whoami(struct request *request)
{
    const struct principal *principal = &request->principal;
    struct str names[SCOPE_COUNT];
    size_t count = scope_names(principal->scopes, names);
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "account", principal->account_ref);
    json_put_text(&reply.json, "kind", principal->kind == PRINCIPAL_LOGIN ? "login" : "key");
    json_put_text(&reply.json, "plan", principal->plan.name);
    json_key(&reply.json, "scopes");
    json_open(&reply.json, '[');
    for (size_t i = 0; i < count; i++)
        json_put_str(&reply.json, NULL, names[i]);
    json_close(&reply.json, ']');
    reply_end(&reply, 200);
}
