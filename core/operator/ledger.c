/* Money, for operators. */
#include "core/domain/money/ledger.h"

#include "core/domain/money/payment.h"
#include "core/operator/verbs.h"

#include <errno.h>

/* ---- looking ---- */

const struct operator_argument operator_ledger_show_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = NULL},
};

static int show(struct operator_call *call, const struct account *account)
{
    struct ledger_sums sums;
    int result = ledger_sums(call->arena, account->id, &sums);
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_str(call->out, "account", account->name);
    json_put_str(call->out, "ref", account->ref);
    json_put_str(call->out, "balance", sums.balance);
    json_put_str(call->out, "available", sums.available);
    json_put_str(call->out, "leased", sums.leased);
    json_put_str(call->out, "current_month", sums.current_month);
    json_put_str(call->out, "last_month", sums.last_month);
    json_put_str(call->out, "today", sums.today);
    json_close(call->out, '}');
    return 0;
}

int operator_ledger_show(struct operator_call *call)
{
    struct account account;
    int result = operator_account(call, &account);
    return result ? result : show(call, &account);
}

const struct operator_argument operator_ledger_list_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

static void put_row(struct json_out *out, const struct ledger_row *row)
{
    json_open(out, '{');
    json_put_int(out, "id", row->id);
    operator_put_time(out, "at", row->at_ms);
    json_put_str(out, "kind", row->kind);
    json_put_str(out, "debit", row->debit);
    json_put_str(out, "credit", row->credit);
    json_put_str(out, "amount", row->amount);
    json_put_str(out, "cause", row->ref);
    json_close(out, '}');
}

int operator_ledger_list(struct operator_call *call)
{
    struct account account;
    struct ledger_row *rows;
    int64_t limit, cursor;
    size_t count;
    int result = operator_account(call, &account);
    if (result == 0)
        result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = ledger_list(call->arena, account.id, cursor, limit, &rows, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++)
        put_row(call->out, &rows[i]);
    json_close(call->out, ']');
    return 0;
}

/* ---- giving and taking ---- */

#define AMOUNT                                                                                               \
    {                                                                                                        \
        .name = "amount", .flags = OPERATOR_REQUIRED, .help = "US dollars: 12.5"                             \
    }
#define REF                                                                                                  \
    {                                                                                                        \
        .name = "ref", .help = "why, of an account's own words: the same is refused a second time"           \
    }

const struct operator_argument operator_ledger_credit_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    AMOUNT,
    REF,
    {.name = NULL},
};

const struct operator_argument operator_ledger_debit_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    AMOUNT,
    REF,
    {.name = NULL},
};

/* Of a thousand million dollars at most, so that no sum is too large for the ledger. */
static int check_amount(struct operator_call *call, struct str amount)
{
    enum { WHOLE_MOST = 9 };
    if (!amount.at || (money_is_decimal(amount, WHOLE_MOST, PAYMENT_DECIMALS) && !money_is_zero(amount)))
        return 0;
    return operator_fail(call, -EINVAL,
                         "amount must be US dollars above 0, with at most %d digits before the point and %d "
                         "decimals",
                         WHOLE_MOST, PAYMENT_DECIMALS);
}

static int adjust(struct operator_call *call, bool is_credit)
{
    struct account account;
    struct str balance;
    struct str amount = operator_text(call, "amount");
    struct str ref = operator_text(call, "ref");
    int result = check_amount(call, amount);
    if (result == 0 && ref.size > LEDGER_REF_MAX)
        result = operator_fail(call, -EINVAL, "ref has %d bytes at most", LEDGER_REF_MAX);
    if (result == 0)
        result = operator_account(call, &account);
    if (result)
        return result;
    if (ref.at) /* of this account alone */
        ref = str_from(arena_printf(call->arena, "%lld %.*s", (long long)account.id, STR_ARG(ref)));
    result = ledger_adjust(call->arena, account.id, is_credit, amount, ref, &balance);
    if (result == -EEXIST)
        return operator_fail(call, result, "there was one with this ref");
    if (result == -EDQUOT)
        return operator_fail(call, -EINVAL, "amount is more than the account has");
    return result ? result : show(call, &account);
}

int operator_ledger_credit(struct operator_call *call)
{
    return adjust(call, true);
}

int operator_ledger_debit(struct operator_call *call)
{
    return adjust(call, false);
}

const struct operator_argument operator_ledger_refund_arguments[] = {
    {.name = "deposit", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its id, dep_…"},
    {.name = "amount", .help = "US dollars of what was credited (all that is left of it)"},
    {.name = NULL},
};

int operator_ledger_refund(struct operator_call *call)
{
    struct ledger_deposit deposit;
    struct str id = operator_text(call, "deposit");
    struct str amount = operator_text(call, "amount");
    int result = check_amount(call, amount);
    if (result)
        return result;
    result = ledger_refund(call->arena, id, amount, &deposit);
    switch (result) {
    case -ENOENT: return operator_fail(call, result, "there is no deposit %.*s", STR_ARG(id));
    case -ERANGE: return operator_fail(call, -EINVAL, "amount is more than what is left of the deposit");
    case -EDQUOT: return operator_fail(call, -EINVAL, "amount is more than the account has");
    case -EACCES: return operator_fail(call, -EINVAL, "the payment driver refused");
    case 0: break;
    default: return result;
    }
    json_open(call->out, '{');
    json_put_str(call->out, "deposit", deposit.id);
    json_put_str(call->out, "credited", deposit.credited);
    json_put_str(call->out, "refunded", deposit.refunded);
    json_put_str(call->out, "balance", deposit.balance);
    json_close(call->out, '}');
    return 0;
}

/* ---- checking ---- */

const struct operator_argument operator_ledger_check_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_WORD),
    {.name = NULL},
};

int operator_ledger_check(struct operator_call *call)
{
    struct account account;
    struct ledger_violation *violations;
    size_t count, accounts;
    int result = operator_account_or_all(call, &account);
    if (result == 0)
        result = ledger_check(call->arena, account.id, &violations, &count, &accounts);
    if (result)
        return result;
    call->is_bad = count > 0;
    json_open(call->out, '{');
    json_put_int(call->out, "accounts", (int64_t)accounts);
    json_put_bool(call->out, "sound", count == 0);
    json_key(call->out, "violations");
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        json_put_int(call->out, "account", violations[i].account_id);
        json_put_str(call->out, "what", violations[i].what);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    json_close(call->out, '}');
    return 0;
}
