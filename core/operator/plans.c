/* Plans and limits: the table, and what an account has. */
#include "core/domain/identity/plan.h"

#include "core/domain/money/subscription.h"
#include "core/operator/verbs.h"

#include <errno.h>

enum { SURFACES_MAX = 16 };

static const char *per(enum plan_who who)
{
    switch (who) {
    case PER_ADDRESS: return "address";
    case PER_KEY: return "key";
    case PER_ACCOUNT: return "account";
    case PER_CLIENT: return "client";
    case PER_DEVICE: return "device";
    case PER_SUBJECT: return "subject";
    }
    UNREACHABLE();
}

/* Whether the row stands for the surface's first. */
static bool is_first_of_surface(size_t row)
{
    for (size_t i = 0; i < row; i++)
        if (strcmp(plan_limit((enum plan_limit_id)i).surface, plan_limit((enum plan_limit_id)row).surface) ==
            0)
            return false;
    return true;
}

static void put_limit(struct json_out *out, const struct plan_limit *limit, const struct plan_override *own)
{
    json_put_text(out, "surface", limit->surface);
    json_put_text(out, "plan", limit->plan);
    json_put_text(out, "limit", limit->name);
    json_put_text(out, "routes", limit->route_class);
    json_put_text(out, "per", per(limit->who));
    json_put_int(out, "most", own ? own->most : limit->most);
    json_put_int(out, "window_seconds", limit->window_s);
    json_put_int(out, "burst", own ? own->burst : limit->burst);
}

const struct operator_argument operator_plan_list_arguments[] = {
    {.name = "surface", .flags = OPERATOR_WORD, .help = "of this one alone"},
    {.name = NULL},
};

int operator_plan_list(struct operator_call *call)
{
    struct str surface = operator_text(call, "surface");
    json_open(call->out, '[');
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++) {
        struct plan_limit limit = plan_limit((enum plan_limit_id)i);
        if (surface.at && !str_equal(surface, str_from(limit.surface)))
            continue;
        json_open(call->out, '{');
        put_limit(call->out, &limit, NULL);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}

/* ---- an account's ---- */

static const struct plan_override *find_own(const struct plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->override_count; i++)
        if (strcmp(plan->overrides[i].name, name) == 0)
            return &plan->overrides[i];
    return NULL;
}

/* The limits of a surface that hold for this plan. */
static void put_surface_limits(struct json_out *out, const char *surface, const struct plan *plan)
{
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++) {
        struct plan_limit limit = plan_limit((enum plan_limit_id)i);
        bool holds = strcmp(limit.surface, surface) == 0 &&
                     (!limit.plan || (plan->name && strcmp(limit.plan, plan->name) == 0));
        if (!holds)
            continue;
        const struct plan_override *own = find_own(plan, limit.name);
        json_open(out, '{');
        put_limit(out, &limit, own);
        json_put_bool(out, "own", own);
        json_close(out, '}');
    }
}

/* null: no limit. */
static void put_daily_spend(struct json_out *out, money most)
{
    char text[MONEY_TEXT_SIZE];
    json_put_str(out, "daily_spend", most == PLAN_SPEND_UNLIMITED ? STR_NONE : money_format(text, most));
}

static int show_plans(struct operator_call *call, const struct account *account)
{
    struct plan plans[SURFACES_MAX];
    const char *surfaces[SURFACES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++) {
        if (!is_first_of_surface(i))
            continue;
        CHECK(count < SURFACES_MAX);
        surfaces[count] = plan_limit((enum plan_limit_id)i).surface;
        int result = plan_get(call->arena, account->id, surfaces[count], &plans[count]);
        if (result)
            return result;
        count++;
    }
    struct subscription subscription;
    int result = subscription_get(call->arena, account->id, &subscription);
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_str(call->out, "account", account->name);
    json_put_str(call->out, "ref", account->ref);
    for (size_t i = 0; i < count; i++)
        if (strcmp(surfaces[i], "inference") == 0)
            put_daily_spend(call->out, plans[i].daily_spend);
    json_put_str(call->out, "subscribed_to", subscription.plan);
    operator_put_time(call->out, "renews_at", subscription.renews_ms);
    json_key(call->out, "plans");
    json_open(call->out, '{');
    for (size_t i = 0; i < count; i++)
        if (plans[i].name)
            json_put_text(call->out, surfaces[i], plans[i].name);
    json_close(call->out, '}');
    json_key(call->out, "limits");
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++)
        put_surface_limits(call->out, surfaces[i], &plans[i]);
    json_close(call->out, ']');
    json_close(call->out, '}');
    return 0;
}

const struct operator_argument operator_plan_show_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = NULL},
};

int operator_plan_show(struct operator_call *call)
{
    struct account account;
    int result = operator_account(call, &account);
    return result ? result : show_plans(call, &account);
}

const struct operator_argument operator_plan_set_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "surface", .flags = OPERATOR_REQUIRED, .help = "inference, user or gpu"},
    {.name = "plan", .flags = OPERATOR_REQUIRED, .help = "its name: see plan list"},
    {.name = NULL},
};

/* The surface's name as the table has it; NULL: it has no plans. */
static const char *surface_with_plans(struct str name)
{
    for (size_t i = 0; i < PLAN_LIMIT_COUNT; i++) {
        const char *surface = plan_limit((enum plan_limit_id)i).surface;
        if (str_equal(name, str_from(surface)))
            return plan_names(surface) ? surface : NULL;
    }
    return NULL;
}

static int no_such_plan(struct operator_call *call, const char *surface)
{
    struct buf known = {0};
    for (const char *const *name = plan_names(surface); *name; name++)
        buf_printf(&known, " %s", *name);
    int result =
        operator_fail(call, -EINVAL, "plans of surface %s are:%.*s", surface, STR_ARG(buf_str(&known)));
    buf_clear(&known);
    return result;
}

int operator_plan_set(struct operator_call *call)
{
    struct account account;
    struct str plan = operator_text(call, "plan");
    const char *surface = surface_with_plans(operator_text(call, "surface"));
    if (!surface)
        return operator_fail(call, -EINVAL, "surface %.*s has no plans",
                             STR_ARG(operator_text(call, "surface")));
    if (!plan_find(surface, plan))
        return no_such_plan(call, surface);
    int result = operator_account(call, &account);
    if (result == 0)
        result = plan_set(account.id, surface, plan);
    return result ? result : show_plans(call, &account);
}

const struct operator_argument operator_plan_limit_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "name", .flags = OPERATOR_REQUIRED, .help = "of the limit: see plan list"},
    {.name = "most",
     .type = OPERATOR_NUMBER,
     .flags = OPERATOR_REQUIRED,
     .help = "requests in its window; 0: as in the plan again"},
    {.name = "burst", .type = OPERATOR_NUMBER, .help = "how many at once, filled at that rate (0: a window)"},
    {.name = NULL},
};

int operator_plan_limit(struct operator_call *call)
{
    static const int64_t highest = INT64_C(1000000000);
    struct account account;
    struct str name = operator_text(call, "name");
    int64_t most = operator_number(call, "most", 0);
    int64_t burst = operator_number(call, "burst", 0);
    if (!plan_limit_exists(name))
        return operator_fail(call, -EINVAL, "there is no limit %.*s: see plan list", STR_ARG(name));
    if (most > highest || burst > highest)
        return operator_fail(call, -EINVAL, "most and burst are %lld at most", (long long)highest);
    int result = operator_account(call, &account);
    if (result == 0)
        result = plan_set_limit(account.id, name, most, burst);
    if (result == -EINVAL)
        return operator_fail(call, result, "an account has %d limits of its own at most", PLAN_OVERRIDES_MAX);
    return result ? result : show_plans(call, &account);
}

const struct operator_argument operator_plan_spend_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "most",
     .flags = OPERATOR_REQUIRED,
     .help = "US dollars a day; none: no limit; plan: as its plan has it again"},
    {.name = NULL},
};

int operator_plan_spend(struct operator_call *call)
{
    struct account account;
    struct str text = operator_text(call, "most");
    money most = 0;
    if (str_equal(text, STR("none")))
        most = PLAN_SPEND_UNLIMITED;
    else if (!str_equal(text, STR("plan")) && (!money_parse(text, &most) || most == 0))
        return operator_fail(call, -EINVAL,
                             "most must be US dollars above 0 with at most %d decimals, none or plan",
                             MONEY_DECIMALS);
    int result = operator_account(call, &account);
    if (result == 0)
        result = plan_set_daily_spend(account.id, most);
    return result ? result : show_plans(call, &account);
}

const struct operator_argument operator_plan_subscribe_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "plan",
     .flags = OPERATOR_REQUIRED | OPERATOR_WORD,
     .help = "free, basic or pro; the first month is paid at once out of the balance"},
    {.name = NULL},
};

int operator_plan_subscribe(struct operator_call *call)
{
    struct account account;
    struct str plan = operator_text(call, "plan");
    int result = operator_account(call, &account);
    if (result)
        return result;
    result = subscription_start(account.id, plan);
    switch (result) {
    case -EINVAL: return operator_fail(call, result, "plan %.*s can't be subscribed to", STR_ARG(plan));
    case -EEXIST: return operator_fail(call, result, "the account is subscribed to plan %.*s", STR_ARG(plan));
    case -EDQUOT:
        return operator_fail(call, -EINVAL, "the account has not so much as plan %.*s costs", STR_ARG(plan));
    default: return result ? result : show_plans(call, &account);
    }
}
