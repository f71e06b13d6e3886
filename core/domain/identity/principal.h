#ifndef CORE_DOMAIN_IDENTITY_PRINCIPAL_H
#define CORE_DOMAIN_IDENTITY_PRINCIPAL_H

#include "core/domain/identity/plan.h"
#include "core/domain/identity/scope.h"
#include "proto/network.h"

#include <stdbool.h>
#include <stdint.h>

/* Who a request comes from, once its key or token was verified, and what that allows. A copy of what a loop knows: valid for
 * the request. */

enum { PRINCIPAL_NETWORKS_MAX = 16, PRINCIPAL_REF_MAX = 48 };

enum principal_kind {
    PRINCIPAL_NOBODY,
    PRINCIPAL_KEY,
    PRINCIPAL_LOGIN,
    PRINCIPAL_CLIENT,
    PRINCIPAL_OPERATOR,
    PRINCIPAL_POD
};

struct principal {
    enum principal_kind kind;
    int64_t account_id;
    int64_t key_id;   /* of a key; else 0 */
    int64_t grant_id; /* of an OAuth token; else 0 */
    int64_t login_id; /* of a log-in; else 0 */
    char account_ref[PRINCIPAL_REF_MAX];
    char client_id[PRINCIPAL_REF_MAX];   /* of an OAuth token; else "" */
    char instance_id[PRINCIPAL_REF_MAX]; /* of a pod; else "" */
    bool is_test;                        /* a test client's */
    scope_set scopes;
    struct plan plan;
    int64_t lends_until_ms; /* keys that it makes end then, too; 0: when they like */
    bool is_banned;
    bool must_sign;
    bool can_sign;                                   /* the key has a signing secret: key_signing_secret */
    struct network networks[PRINCIPAL_NETWORKS_MAX]; /* where it may come from; none: anywhere */
    size_t network_count;
};

#endif
