#ifndef CORE_DOMAIN_IDENTITY_SCOPE_H
#define CORE_DOMAIN_IDENTITY_SCOPE_H

#include "core/base/str.h"
#include "core/store/pg.h"

#include <stdint.h>

/* What a key or token may do, as a set. Each surface has some; a key without a list has all of its surface's. */

/* clang-format off */
/*  id                  surface       name                   what it allows */
#define SCOPES(X) \
    X(SESSION_READ,     "session",    "session:read",        "See sessions and their messages") \
    X(SESSION_WRITE,    "session",    "session:write",       "Make, wake, use and end sessions") \
    X(ACCOUNT_READ,     "inference",  "account:read",        "See the account, its limits and its use") \
    X(ACCOUNT_WRITE,    "inference",  "account:write",       "Add funds and change the account") \
    X(KEYS_READ,        "inference",  "keys:read",           "See API keys") \
    X(KEYS_WRITE,       "inference",  "keys:write",          "Make, rotate and revoke API keys") \
    X(AI_CALL,          "inference",  "ai:call",             "Call models") \
    X(JOBS_READ,        "inference",  "jobs:read",           "See jobs and usage") \
    X(WEBHOOKS,         "inference",  "webhooks",            "Manage webhooks") \
    X(EVENTS,           "inference",  "events",              "Listen to live events") \
    X(PROVISION_CREATE, "provision",  "provision:create",    "Create, upgrade and end instances for you") \
    X(PROVISION_READ,   "provision",  "provision:read",      "See your instances") \
    X(PAYMENTS,         "provision",  "payments",            "Manage payment methods") \
    X(USER,             "user",       "user",                "Use the instance") \
    X(GPU_READ,         "gpu",        "instances:read",      "See instances, snapshots and savings") \
    X(GPU_WRITE,        "gpu",        "instances:write",     "Create, wake, hibernate and delete instances") \
    X(GPU_WEBHOOKS,     "gpu",        "gpu:webhooks",        "Manage webhooks")
/* clang-format on */

enum scope {
#define SCOPE_ID(id, surface, name, help) SCOPE_##id,
    SCOPES(SCOPE_ID)
#undef SCOPE_ID
        SCOPE_COUNT
};

struct scope_row {
    const char *surface;
    const char *name;
    const char *help;
};
extern const struct scope_row scopes[SCOPE_COUNT];

typedef uint64_t scope_set;
#define SCOPE_BIT(scope_) ((scope_set)1 << (scope_))
#define SCOPE_NONE_NEEDED ((scope_set)0)

/* All of a surface's; 0 when it has none. */
scope_set scope_all(const char *surface);
/* The scope of that name; SCOPE_COUNT: there is none. */
enum scope scope_find(struct str name);
/* A list as OAuth writes it, separated by single spaces, each of `surface`. False when one is unknown. */
bool scope_parse(struct str list, const char *surface, scope_set *set);
/* The names in the table's order, separated by spaces; and as a JSON array of strings. */
void scope_print(struct buf *out, scope_set set);
/* As PG_TEXTS of `names`, which has room for SCOPE_COUNT. Returns how many. */
size_t scope_names(scope_set set, struct str names[SCOPE_COUNT]);
/* From a text[] column read as array_to_string(column, ' '): NULL gives all of the surface's; unknown names nothing. */
scope_set scope_from_column(struct str column, const char *surface);

#endif
