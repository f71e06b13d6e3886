/* Another ENCRYPTION_KEY while servers run: see core/domain/vault.h. */
#include "core/domain/vault.h"

#include "core/domain/audit.h"
#include "core/operator/verbs.h"

#include <errno.h>

const struct operator_argument operator_vault_rotate_arguments[] = {
    {.name = "new_key",
     .flags = OPERATOR_REQUIRED,
     .help = "the new ENCRYPTION_KEY, at least 32 characters",
     .variable = "NEW_ENCRYPTION_KEY"},
    {.name = NULL},
};

int operator_vault_rotate(struct operator_call *call)
{
    struct vault_rotation done;
    int result = vault_rotate(operator_text(call, "new_key"), &done);
    if (result == -EINVAL)
        return operator_fail(call, result,
                             "NEW_ENCRYPTION_KEY must have at least 32 characters, and be a new one");
    if (result == -EBUSY)
        return operator_fail(
            call, result,
            "a change to another key has begun: end it first, by `wakegate admin vault forget`");
    if (result == 0)
        result = audit_add("vault.rotate", 0, STR_NONE);
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_int(call->out, "keys", done.keys);
    json_put_int(call->out, "values", done.values);
    json_put_text(
        call->out, "next",
        "start all servers and workers again, one after the other, with the new ENCRYPTION_KEY; then "
        "`wakegate admin vault forget` with it");
    json_close(call->out, '}');
    return 0;
}

const struct operator_argument operator_vault_forget_arguments[] = {{.name = NULL}};

int operator_vault_forget(struct operator_call *call)
{
    int64_t removed;
    int result = vault_forget(&removed);
    if (result == 0)
        result = audit_add("vault.forget", 0, STR_NONE);
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_int(call->out, "removed", removed);
    json_close(call->out, '}');
    return 0;
}
