/* Plans by the month: see subscription.h. */
#include "core/domain/money/subscription.h"

#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/identity/plan.h"
#include "core/domain/money/lease.h"
#include "core/domain/money/ledger_internal.h"
#include "core/run/fiber.h"
#include "core/store/pg.h"

#include <errno.h>

enum { AT_ONCE = 100, ID_RANDOM = 24 };

static const struct pg_statement sql_start = {
    "subscription_start",
    "WITH s AS (SELECT $1::bigint AS account_id, "
    "subscription_start($1::bigint, $2::text, $3::bigint * 0.000000000001, $4::text) AS outcome "
    "WHERE EXISTS (SELECT FROM account WHERE id = $1::bigint)), "
    "i AS (SELECT * FROM s WHERE outcome = 'started')" AUDIT("$5", "plan.subscribe", "i", "i.account_id",
                                                             "$2") "SELECT outcome FROM s"};
static const struct pg_statement sql_get = {
    "subscription_get", "SELECT plan, money_text(price), (extract(epoch FROM renews_at) * 1000)::bigint "
                        "FROM subscription WHERE account_id = $1::bigint"};
static const struct pg_statement sql_due = {
    "subscription_due",
    "SELECT account_id FROM subscription WHERE renews_at <= now() ORDER BY renews_at LIMIT $1::bigint"};
static const struct pg_statement sql_renew = {
    "subscription_renew",
    "WITH s AS (SELECT $1::bigint AS account_id, subscription_renew($1::bigint) AS outcome), "
    "i AS (SELECT * FROM s WHERE outcome IN ('renewed', 'ended'))" AUDIT(
        "$2", "plan.renew", "i", "i.account_id", "i.outcome") "SELECT outcome FROM s"};

/* -ENOENT: no such account. */
static int pay_first(int64_t account_id, const struct plan_price *plan, struct str ref)
{
    struct pg_rows *rows;
    int result = ledger_write(&sql_start,
                              PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(plan->plan)),
                                        PG_INT(plan->month), PG_TEXT(ref), AUDIT_WHO),
                              &rows);
    if (result)
        return result;
    struct str outcome = pg_count(rows) ? pg_str(rows, 0, 0) : STR_NONE;
    if (!outcome.at)
        result = -ENOENT;
    else if (str_equal(outcome, STR("same")))
        result = -EEXIST;
    else if (str_equal(outcome, STR("poor")))
        result = -EDQUOT;
    pg_rows_free(rows);
    return result;
}

int subscription_start(int64_t account_id, struct str name)
{
    char ref[ID_RANDOM + sizeof "sub_"] = "sub_";
    const struct plan_price *plan = plan_price(name);
    if (!plan || !plan->is_for_sale)
        return -EINVAL;
    if (plan->month == 0)
        return plan_set(account_id, "inference", name);
    id_random(ref + 4, ID_RANDOM);
    int result = pay_first(account_id, plan, str_from(ref));
    if (result != -EDQUOT || lease_recall(account_id))
        return result;
    return pay_first(account_id, plan, str_from(ref));
}

int subscription_get(struct arena *arena, int64_t account_id, struct subscription *subscription)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_INT(account_id)), &rows);
    if (result)
        return result;
    *subscription = (struct subscription){0};
    if (pg_count(rows))
        *subscription = (struct subscription){
            .plan = arena_str(arena, pg_str(rows, 0, 0)),
            .price = arena_str(arena, pg_str(rows, 0, 1)),
            .renews_ms = pg_i64(rows, 0, 2),
        };
    pg_rows_free(rows);
    return 0;
}

/* ---- renewal ---- */

static int renew(int64_t account_id, bool *is_later)
{
    struct pg_rows *rows;
    int result = ledger_write(&sql_renew, PG_VALUES(PG_INT(account_id), AUDIT_WHO), &rows);
    if (result)
        return result;
    *is_later = str_equal(pg_str(rows, 0, 0), STR("later"));
    pg_rows_free(rows);
    return 0;
}

/* What is still lent after a recall is reserved by calls: the next round tries again. */
static int renew_one(int64_t account_id)
{
    bool is_later;
    int result = renew(account_id, &is_later);
    if (result == 0 && is_later)
        result = lease_recall(account_id);
    if (result == 0 && is_later)
        result = renew(account_id, &is_later);
    return result;
}

int subscription_renew_due(void)
{
    struct pg_rows *rows;
    int first = 0; /* failure: one holds up no other, unless a store is away */
    int result = pg_read(&sql_due, PG_VALUES(PG_INT(AT_ONCE)), &rows);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows) && !fiber_canceled(); i++) {
        result = renew_one(pg_i64(rows, i, 0));
        first = first ? first : result;
        if (result && !ledger_is_ones_own(result))
            break;
    }
    pg_rows_free(rows);
    return first;
}
