/* The record of who changed what. */
#include "core/domain/audit.h"

#include "core/operator/verbs.h"

#include <errno.h>

const struct operator_argument operator_audit_list_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_WORD),
    {.name = "action", .help = "key.create; key.* is all about keys"},
    {.name = "object", .help = "what was changed: key_…, user_…, a session"},
    {.name = "actor", .help = "who changed it: operator, worker, key 12"},
    {.name = "since", .type = OPERATOR_TIME, .help = "not before this time"},
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

static int read_filter(struct operator_call *call, struct audit_filter *filter)
{
    struct account account;
    *filter = (struct audit_filter){
        .action = operator_text(call, "action"),
        .object = operator_text(call, "object"),
        .actor = operator_text(call, "actor"),
        .since_ms = operator_time_ms(call, "since"),
    };
    int result = operator_page(call, &filter->limit, &filter->cursor);
    if (result || !operator_text(call, "account").at)
        return result;
    /* What is recorded of an account outlives it: by its number it is found then. */
    result = operator_account(call, &account);
    if (result == 0)
        filter->account_id = account.id;
    else if (result == -ENOENT && str_to_i64(operator_text(call, "account"), &filter->account_id))
        result = 0;
    return result;
}

int operator_audit_list(struct operator_call *call)
{
    struct audit_filter filter;
    struct audit_row *rows;
    size_t count = 0;
    int result = read_filter(call, &filter);
    if (result == 0)
        result = audit_list(call->arena, &filter, &rows, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        json_put_int(call->out, "id", rows[i].id);
        operator_put_time(call->out, "at", rows[i].at_ms);
        json_put_str(call->out, "actor", rows[i].actor);
        json_put_str(call->out, "action", rows[i].action);
        json_put_str(call->out, "object", rows[i].object);
        json_put_str(call->out, "account", rows[i].account);
        json_put_str(call->out, "address", rows[i].address);
        json_put_str(call->out, "request_id", rows[i].request_id);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}
