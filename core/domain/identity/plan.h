#ifndef CORE_DOMAIN_IDENTITY_PLAN_H
#define CORE_DOMAIN_IDENTITY_PLAN_H

#include "core/base/arena.h"
#include "core/base/money.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Rate plans: every limit of every surface, as one table. A row counts for requests to its surface by an account that has its
 * plan there (NULL: any), on routes of its class (NULL: all), and counts per address, key, account, client, device, or
 * whatever the handler names. `most` per `window_s` seconds; with a `burst` it is a token bucket that holds so many at most
 * and is filled at that rate, else a window of the wall clock.
 *
 * An account's own limits (account_limit) stand in place of its plan's.
 */

enum plan_who { PER_ADDRESS, PER_KEY, PER_ACCOUNT, PER_CLIENT, PER_DEVICE, PER_SUBJECT };

/* clang-format off */
/*  id                     surface      plan          name                    class        who      most                   window_s burst */
#define PLAN_LIMITS(X) \
    X(SESSION_ADDRESS,     "session",   NULL,         "session",              NULL,        ADDRESS, config->session_rate,  60,      0) \
    X(INFERENCE_ADDRESS,   "inference", NULL,         "inference-address",    NULL,        ADDRESS, config->address_rate,  60,      0) \
    X(INFERENCE_FREE_M,    "inference", "free",       "inference-minute",     NULL,        ACCOUNT, 10,                    60,      0) \
    X(INFERENCE_FREE_D,    "inference", "free",       "inference-day",        NULL,        ACCOUNT, 100,                   86400,   0) \
    X(INFERENCE_BASIC_M,   "inference", "basic",      "inference-minute",     NULL,        ACCOUNT, 100,                   60,      0) \
    X(INFERENCE_BASIC_D,   "inference", "basic",      "inference-day",        NULL,        ACCOUNT, 10000,                 86400,   0) \
    X(INFERENCE_PRO_M,     "inference", "pro",        "inference-minute",     NULL,        ACCOUNT, 1000,                  60,      0) \
    X(INFERENCE_PRO_D,     "inference", "pro",        "inference-day",        NULL,        ACCOUNT, 100000,                86400,   0) \
    X(INFERENCE_ENT_KEY,   "inference", "enterprise", "inference-key",        NULL,        KEY,     10000,                 60,      0) \
    X(INFERENCE_ENT_M,     "inference", "enterprise", "inference-minute",     NULL,        ACCOUNT, 10000,                 60,      0) \
    X(INFERENCE_ENT_D,     "inference", "enterprise", "inference-day",        NULL,        ACCOUNT, 10000000,              86400,   0) \
    X(LOGIN_ADDRESS,       "inference", NULL,         "login-address",        "login",     ADDRESS, config->login_rate,    60,      0) \
    X(LOGIN_ACCOUNT,       "inference", NULL,         "login-account",        "password",  SUBJECT, 10,                    900,     0) \
    X(REGISTER_ADDRESS,    "inference", NULL,         "register-address",     "register",  ADDRESS, config->register_rate, 3600,    0) \
    X(OAUTH_ADDRESS,       "provision", NULL,         "oauth-address",        "oauth",     ADDRESS, config->address_rate,  60,      0) \
    X(OAUTH_LOGIN,         "provision", NULL,         "login-address",        "oauth-login", ADDRESS, config->login_rate,  60,      0) \
    X(PROVISION_CREATE,    "provision", NULL,         "provision-create",     "provision", CLIENT,  100,                   3600,    0) \
    X(PROVISION_STATUS,    "provision", NULL,         "provision-status",     "status",    CLIENT,  1000,                  3600,    0) \
    X(PROVISION_UPGRADE,   "provision", NULL,         "provision-upgrade",    "upgrade",   CLIENT,  10,                    3600,    0) \
    X(USER_FREE,           "user",      "free",       "user-minute",          NULL,        KEY,     60,                    60,      0) \
    X(USER_STARTER,        "user",      "starter",    "user-minute",          NULL,        KEY,     300,                   60,      0) \
    X(USER_GROWTH,         "user",      "growth",     "user-minute",          NULL,        KEY,     1000,                  60,      0) \
    X(USER_ENTERPRISE,     "user",      "enterprise", "user-minute",          NULL,        KEY,     10000,                 60,      0) \
    X(DEVICE_ORACLE,       "devices",   NULL,         "device-oracle",        "oracle",    DEVICE,  100,                   86400,   0) \
    X(DEVICE_DREAMS,       "devices",   NULL,         "device-dreams",        "dreams",    DEVICE,  20,                    86400,   0) \
    X(DEVICE_TELEGRAMS,    "devices",   NULL,         "device-telegrams",     "telegrams", DEVICE,  50,                    86400,   0) \
    X(DEVICE_POSTCARDS,    "devices",   NULL,         "device-postcards",     "postcards", DEVICE,  10,                    86400,   0) \
    X(DEVICE_TOKENS,       "devices",   NULL,         "device-tokens",        "tokens",    DEVICE,  10000,                 86400,   0) \
    X(GPU_STARTER,         "gpu",       "starter",    "gpu-minute",           NULL,        KEY,     10,                    60,      20) \
    X(GPU_PRO,             "gpu",       "pro",        "gpu-minute",           NULL,        KEY,     60,                    60,      120) \
    X(GPU_ENTERPRISE,      "gpu",       "enterprise", "gpu-minute",           NULL,        KEY,     300,                   60,      600) \
    X(GPU_ADDRESS,         "gpu",       NULL,         "gpu-address",          NULL,        ADDRESS, config->address_rate,  60,      0) \
    X(OPERATOR_ADDRESS,    "operator",  NULL,         "operator-address",     NULL,        ADDRESS, 6000,                  60,      0)
/* clang-format on */

enum plan_limit_id {
#define PLAN_LIMIT_ID(id, surface, plan, name, class, who, most, window_s, burst) PLAN_LIMIT_##id,
    PLAN_LIMITS(PLAN_LIMIT_ID)
#undef PLAN_LIMIT_ID
        PLAN_LIMIT_COUNT
};

struct plan_limit {
    const char *surface;
    const char *plan;        /* NULL: all */
    const char *name;        /* [a-z-]+, part of the Redis key and what the account's answer shows */
    const char *route_class; /* NULL: all routes */
    enum plan_who who;
    int64_t most;
    int64_t window_s;
    int64_t burst; /* 0: a window */
};

/* The row; settings in it as they are now. */
struct plan_limit plan_limit(enum plan_limit_id id);

/*
 * What plans of the inference surface cost a month, and what their accounts may spend on calls a day (UTC): US dollars. Whether one
 * can be had for its price alone (core/domain/money/subscription.h), or an operator gives it.
 */
/* clang-format off */
/*  plan          month            spend a day           for sale */
#define PLAN_PRICES(X) \
    X("free",       0,               MONEY_USD(10),        true) \
    X("basic",      MONEY_USD(49),   MONEY_USD(100),       true) \
    X("pro",        MONEY_USD(299),  MONEY_USD(1000),      true) \
    X("enterprise", 0,               PLAN_SPEND_UNLIMITED, false)
/* clang-format on */

/* Of a daily spending limit: there is none. */
#define PLAN_SPEND_UNLIMITED INT64_MAX

struct plan_price {
    const char *plan;
    money month;
    money daily_spend;
    bool is_for_sale;
};
/* NULL: the inference surface has no such plan. */
const struct plan_price *plan_price(struct str plan);

/* Plans of a surface, the default first: "free", "basic", … NULL-terminated; NULL for a surface without plans. */
const char *const *plan_names(const char *surface);
/* The plan of that name, as a pointer that lives for ever; NULL: the surface has none of it. */
const char *plan_find(const char *surface, struct str name);
/* What an account's own daily spending limit is called among its limits; in picodollars there. */
#define PLAN_SPEND_NAME "daily-spend"

/* Whether some row has this name. */
bool plan_limit_exists(struct str name);

/* What stands in place of a plan's limit. `name` is a table row's own pointer. */
struct plan_override {
    const char *name;
    int64_t most;
    int64_t burst;
};
enum { PLAN_OVERRIDES_MAX = 8 };

/* What an account has on one surface. */
struct plan {
    const char *name; /* NULL: the surface has no plans */
    struct plan_override overrides[PLAN_OVERRIDES_MAX];
    size_t override_count;
    money daily_spend; /* what calls may cost a day; PLAN_SPEND_UNLIMITED */
};

/* From the columns that key, login and token look-ups select: the plan's name (absent: the default) and the account's own
 * limits as text, "name=most/burst name=most/burst …" (PLAN_COLUMNS). Unknown names are left out. */
void plan_read(struct plan *plan, const char *surface, struct str name, struct str overrides);
/* SQL expressions for plan_read: with `account` the account's id and `surface` its surface, both SQL. Their own tables have names
 * that hide none of the statement's. */
#define PLAN_COLUMNS(account, surface)                                                                       \
    "(SELECT plan FROM account_plan its_plan WHERE its_plan.account_id = " account " AND its_plan.surface "  \
    "= " surface "), "                                                                                       \
    "(SELECT string_agg(its_limit.name || '=' || its_limit.most || '/' || its_limit.burst, ' ' "             \
    "ORDER BY its_limit.name) FROM account_limit its_limit WHERE its_limit.account_id = " account ")"

/* What an account has on a surface. Waits. -ENOENT: no such account. */
int plan_get(struct arena *arena, int64_t account_id, const char *surface, struct plan *plan) MUST_USE;
/* Sets an account's plan on a surface / a limit of its own (most 0: no longer). Wait. -EINVAL: no such surface, plan or
 * limit, or PLAN_OVERRIDES_MAX reached; -ENOENT: no such account. In force within a second everywhere. */
int plan_set(int64_t account_id, const char *surface, struct str plan) MUST_USE;
int plan_set_limit(int64_t account_id, struct str name, int64_t most, int64_t burst) MUST_USE;
/* The same for what its calls may cost a day: more than nothing, or PLAN_SPEND_UNLIMITED; 0: as its plan has it. */
int plan_set_daily_spend(int64_t account_id, money most) MUST_USE;

#endif
