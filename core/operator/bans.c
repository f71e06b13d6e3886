/* Bans: what an account has is refused within a second. */
#include "core/base/clock.h"
#include "core/domain/instance/instance.h"
#include "core/operator/verbs.h"

#include <errno.h>

enum { REASON_MAX = 500 };

const struct operator_argument operator_ban_add_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "reason", .flags = OPERATOR_REQUIRED, .help = "for the record"},
    {.name = "until", .type = OPERATOR_TIME, .help = "when it ends (never by itself)"},
    {.name = "for", .type = OPERATOR_NUMBER, .help = "the same in seconds from now"},
    {.name = NULL},
};

/* 0: for good. */
static int read_end(struct operator_call *call, int64_t *until_ms)
{
    static const int64_t longest_s = INT64_C(100) * 365 * 86400;
    int64_t seconds = operator_number(call, "for", 0);
    bool has_seconds = operator_text(call, "for").at;
    *until_ms = operator_time_ms(call, "until");
    if (has_seconds && *until_ms)
        return operator_fail(call, -EINVAL, "until and for are the same: give one of them");
    if (has_seconds && (seconds < 1 || seconds > longest_s))
        return operator_fail(call, -EINVAL, "for must be a whole number of seconds, a hundred years at most");
    if (has_seconds)
        *until_ms = clock_wall_ms() + seconds * 1000;
    if (*until_ms && *until_ms <= clock_wall_ms())
        return operator_fail(call, -EINVAL, "until is in the past");
    return 0;
}

int operator_ban_add(struct operator_call *call)
{
    struct account account;
    struct str reason = operator_text(call, "reason");
    int64_t until_ms;
    int result = read_end(call, &until_ms);
    if (result)
        return result;
    if (str_utf8_length(reason) > REASON_MAX)
        return operator_fail(call, -EINVAL, "reason has %d characters at most", REASON_MAX);
    result = operator_account(call, &account);
    if (result == 0)
        result = account_ban(account.id, reason, until_ms);
    if (result == 0)
        result = instance_sleep_all(call->arena, account.id);
    return result ? result : operator_show_account(call, account.id);
}

const struct operator_argument operator_ban_list_arguments[] = {
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

int operator_ban_list(struct operator_call *call)
{
    struct account *accounts;
    int64_t limit, cursor;
    size_t count = 0;
    int result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = account_list_banned(call->arena, cursor, limit, &accounts, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        operator_put_account(call->out, &accounts[i]);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}

const struct operator_argument operator_ban_remove_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = NULL},
};

int operator_ban_remove(struct operator_call *call)
{
    struct account account;
    int result = operator_account(call, &account);
    if (result)
        return result;
    if (!account.is_banned)
        return operator_fail(call, -ENOENT, "account %.*s is not banned", STR_ARG(account.name));
    result = account_unban(account.id);
    return result ? result : operator_show_account(call, account.id);
}
