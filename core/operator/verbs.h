#ifndef CORE_OPERATOR_VERBS_H
#define CORE_OPERATOR_VERBS_H

#include "core/domain/identity/account.h"
#include "core/operator/operator.h"

/* The verbs, one file for each noun, and what they have in common. */

enum { OPERATOR_PAGE = 100, OPERATOR_PAGE_MAX = 1000, OPERATOR_NAME_MAX = 100 };

#define OPERATOR_DECLARE(noun, verb, how, help)                                                              \
    int operator_##noun##_##verb(struct operator_call *call) MUST_USE;                                       \
    extern const struct operator_argument operator_##noun##_##verb##_arguments[];
OPERATOR_VERBS(OPERATOR_DECLARE)
#undef OPERATOR_DECLARE

/* Rows that several verbs have. */
#define OPERATOR_ACCOUNT(flags_)                                                                             \
    {                                                                                                        \
        .name = "account", .flags = (flags_), .help = "name, e-mail address, user_… or number"             \
    }
#define OPERATOR_LIMIT                                                                                       \
    {                                                                                                        \
        .name = "limit", .type = OPERATOR_NUMBER, .help = "how many: 1 to 1000 (100)"                        \
    }
#define OPERATOR_CURSOR                                                                                      \
    {                                                                                                        \
        .name = "cursor", .type = OPERATOR_NUMBER,                                                           \
        .help = "go on behind the row of this id (the last one seen)"                                        \
    }

/* "limit" and "cursor". -EINVAL, about which it has said why. */
int operator_page(struct operator_call *call, int64_t *limit, int64_t *cursor) MUST_USE;

/* The account that the argument "account" names. -ENOENT and others, said. */
int operator_account(struct operator_call *call, struct account *account) MUST_USE;
/* The same where it may be left out: then its number is 0, which stands for all. */
int operator_account_or_all(struct operator_call *call, struct account *account) MUST_USE;
/* The same; made when there is none of that name, which is not how accounts are known otherwise. */
int operator_account_or_new(struct operator_call *call, struct account *account) MUST_USE;

/* Members of an object. */
void operator_put_account(struct json_out *out, const struct account *account);

/* The answer of a verb that shows an account. */
int operator_show_account(struct operator_call *call, int64_t id) MUST_USE;

#endif
