/* Which limits of the table of plans a request is charged with, and what it is told of them. */
#include "core/gate/gate.h"

#include "core/base/metrics.h"

#include <errno.h>

void gate_limits_find(struct gate_limits *limits, const struct surface *surface, const struct route *route)
{
    limits->count = 0;
    for (int id = 0; id < PLAN_LIMIT_COUNT && !(route->flags & ROUTE_UNLIMITED); id++) {
        struct plan_limit row = plan_limit((enum plan_limit_id)id);
        bool of_route = !row.route_class || (route->limit && strcmp(row.route_class, route->limit) == 0);
        if (of_route && strcmp(row.surface, surface->name) == 0 && row.who != PER_SUBJECT)
            limits->ids[limits->count++] = (unsigned char)id;
    }
}

/* A pod's calls are its session's, which are limited where they come in. */
static bool applies_to_principal(const struct plan_limit *row, const struct principal *principal)
{
    if (principal->kind == PRINCIPAL_POD)
        return false;
    if (row->who == PER_ADDRESS)
        return true;
    if (principal->kind == PRINCIPAL_NOBODY)
        return false;
    return !row->plan || (principal->plan.name && strcmp(row->plan, principal->plan.name) == 0);
}

static struct str word(struct request *request, const char *kind, int64_t id)
{
    char *text = arena_alloc(request->arena, 24);
    text[0] = kind[0];
    return str_of(text, 1 + format_u64(text + 1, (uint64_t)id));
}

/* Whom the limit counts; log-ins have no key, so they count as their account. */
static struct str who(struct request *request, enum plan_who kind)
{
    const struct principal *principal = &request->principal;
    switch (kind) {
    case PER_ADDRESS: return gate_client(request);
    case PER_KEY:
        return principal->key_id ? word(request, "k", principal->key_id)
                                 : word(request, "a", principal->account_id);
    case PER_ACCOUNT: return word(request, "a", principal->account_id);
    case PER_CLIENT: return str_from(principal->client_id);
    case PER_DEVICE:
    case PER_SUBJECT: break;
    }
    UNREACHABLE();
}

static struct limit_policy policy_of(const struct plan_limit *row, const struct plan *plan)
{
    struct limit_policy policy = {
        .name = row->name,
        .limit = (uint64_t)row->most,
        .window_s = (uint64_t)row->window_s,
        .burst = (uint64_t)row->burst,
    };
    for (size_t i = 0; i < plan->override_count; i++)
        if (strcmp(plan->overrides[i].name, row->name) == 0) {
            policy.limit = (uint64_t)plan->overrides[i].most;
            policy.burst = (uint64_t)plan->overrides[i].burst;
        }
    return policy;
}

enum which { ALL, ONLY_ADDRESS, ALL_BUT_ADDRESS };

static size_t collect(struct request *request, const struct gate_limits *limits, enum which which,
                      struct limit_charge charges[LIMITS_AT_ONCE])
{
    size_t count = 0;
    for (size_t i = 0; i < limits->count; i++) {
        struct plan_limit row = plan_limit((enum plan_limit_id)limits->ids[i]);
        bool address = row.who == PER_ADDRESS;
        if ((which == ONLY_ADDRESS && !address) || (which == ALL_BUT_ADDRESS && address) ||
            !applies_to_principal(&row, &request->principal))
            continue;
        CHECK(count < LIMITS_AT_ONCE);
        charges[count++] = (struct limit_charge){
            .policy = policy_of(&row, &request->principal.plan), .who = who(request, row.who), .cost = 1};
    }
    return count;
}

static void put_number(struct request *request, const char *name, uint64_t value)
{
    char *text = arena_alloc(request->arena, 20);
    http_set_header(request->http, str_from(name), str_of(text, format_u64(text, value)));
}

/* Tells the client; false for a refusal, which is the answer then. */
static bool tell(struct request *request, const struct limit_verdict *verdict)
{
    if (!verdict->name)
        return true;
    put_number(request, "X-RateLimit-Limit", verdict->limit);
    put_number(request, "X-RateLimit-Remaining", verdict->remaining);
    put_number(request, "X-RateLimit-Reset", (uint64_t)verdict->reset_unix_s);
    if (verdict->allowed)
        return true;
    put_number(request, "Retry-After", verdict->retry_after_s);
    metric_add(M_LIMITED, 1);
    reply_error(request, ERROR_RATE_LIMITED, NULL);
    return false;
}

static bool take(struct request *request, const struct limit_charge *charges, size_t count, bool tells)
{
    struct limit_verdict verdict;
    int result = limit_take(charges, count, &verdict);
    if (result) {
        reply_failure(request, result);
        return false;
    }
    return verdict.allowed && !tells ? true : tell(request, &verdict);
}

bool gate_limit(struct request *request)
{
    struct limit_charge charges[LIMITS_AT_ONCE];
    size_t count = collect(request, request->limits, ALL, charges);
    return count == 0 || take(request, charges, count, true);
}

bool gate_limit_address(struct request *request)
{
    struct limit_charge charges[LIMITS_AT_ONCE];
    size_t count = collect(request, request->limits, ONLY_ADDRESS, charges);
    return count == 0 || take(request, charges, count, true);
}

bool gate_limit_late(struct request *request)
{
    struct limit_charge charges[LIMITS_AT_ONCE];
    struct limit_verdict verdict;
    size_t count = collect(request, request->limits, ALL_BUT_ADDRESS, charges);
    if (count == 0 || (limit_take(charges, count, &verdict) == 0 && verdict.allowed))
        return true;
    metric_add(M_LIMITED, 1);
    return false;
}

bool gate_address_is_spent(struct request *request)
{
    struct limit_charge charges[LIMITS_AT_ONCE];
    struct limit_verdict verdict;
    size_t count = collect(request, request->limits, ONLY_ADDRESS, charges);
    for (size_t i = 0; i < count; i++)
        if (limit_is_spent(&charges[i], &verdict))
            return !tell(request, &verdict);
    return false;
}

static struct limit_charge one(enum plan_limit_id id, const struct request *request, struct str subject,
                               uint64_t cost)
{
    struct plan_limit row = plan_limit(id);
    return (struct limit_charge){
        .policy = policy_of(&row, &request->principal.plan), .who = subject, .cost = cost};
}

bool gate_charge(struct request *request, enum plan_limit_id id, struct str subject, uint64_t cost)
{
    struct limit_charge charge = one(id, request, subject, cost);
    return take(request, &charge, 1, false);
}

void gate_give_back(struct request *request, enum plan_limit_id id, struct str subject, uint64_t cost)
{
    struct limit_charge charge = one(id, request, subject, cost);
    limit_give_back(&charge);
}

int gate_look_at_limits(struct request *request, struct limit_verdict verdicts[LIMITS_AT_ONCE], size_t *count)
{
    static const struct route any = {.method = "GET"};
    struct limit_charge charges[LIMITS_AT_ONCE];
    struct gate_limits limits;
    gate_limits_find(&limits, request->surface, &any);
    *count = collect(request, &limits, ALL_BUT_ADDRESS, charges);
    return *count == 0 ? 0 : limit_look(charges, *count, verdicts);
}
