/* Accounts' money: see ledger.h. Its use is ledger_use.c's, its check ledger_check.c's. */
#include "core/domain/money/ledger.h"

#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/money/lease.h"
#include "core/domain/money/ledger_internal.h"
#include "core/domain/money/payment.h"
#include "core/store/pg.h"

#include <errno.h>

enum { ID_RANDOM = 24 };

#define DEPOSIT_COLUMNS                                                                                      \
    "d.id, money_text(d.amount), d.currency, money_text(d.credited), money_text(d.refunded), d.driver"
#define BALANCE "money_text(available + leased)"

static const struct pg_statement sql_sums = {
    "ledger_sums",
    "WITH clock AS (SELECT (now() AT TIME ZONE 'UTC')::date AS today), "
    "months AS (SELECT sum(cost) FILTER (WHERE day >= date_trunc('month', today)) AS this, "
    "sum(cost) FILTER (WHERE day < date_trunc('month', today)) AS last FROM usage_day, clock "
    "WHERE account_id = $1::bigint AND day >= date_trunc('month', today) - interval '1 month' AND day <= today) "
    "SELECT money_text(coalesce(available + leased, 0)), money_text(coalesce(available, 0)), "
    "money_text(coalesce(leased, 0)), money_text(coalesce(this, 0)), money_text(coalesce(last, 0)), "
    "money_text(CASE WHEN spend_day = today THEN spent ELSE 0 END) "
    "FROM clock CROSS JOIN months LEFT JOIN wallet ON account_id = $1::bigint"};
/* What a deposit is worth: no more than so many decimals, in the house's favour. */
static const struct pg_statement sql_price = {
    "ledger_price", "SELECT price, price > 0 AND price <= 1000000000 FROM "
                    "(SELECT trunc($1::text::numeric * $2::text::numeric, 18) AS price) AS p"};
static const struct pg_statement sql_deposit = {
    "ledger_deposit",
    "WITH m AS (SELECT ledger_move($1::bigint, 'deposit', $7::text::numeric, $2::text) AS balance), "
    "d AS (INSERT INTO deposit (id, account_id, driver, driver_ref, amount, currency, credited) "
    "SELECT $2::text, $1::bigint, $3::text, $4::text, $5::text::numeric, $6::text, $7::text::numeric FROM m "
    "RETURNING *)" AUDIT("$8", "ledger.deposit", "d", "d.account_id",
                         "d.id") "SELECT " DEPOSIT_COLUMNS ", money_text(m.balance) FROM d, m"};
static const struct pg_statement sql_find_deposit = {
    "ledger_find_deposit",
    "SELECT account_id, driver_ref, money_text(credited - refunded), "
    "coalesce($2::text::numeric, credited - refunded) BETWEEN 0.000000000000000001 "
    "AND credited - refunded, money_text(coalesce($2::text::numeric, credited - refunded)) "
    "FROM deposit WHERE id = $1::text"};
/* The condition holds again only while the row has not been changed since it was read. */
static const struct pg_statement sql_refund = {
    "ledger_refund",
    "WITH d AS (UPDATE deposit SET refunded = refunded + $2::text::numeric WHERE id = $1::text "
    "AND refunded + $2::text::numeric <= credited RETURNING *), "
    "m AS (SELECT ledger_move(account_id, 'refund', $2::text::numeric, id || '/' || money_text(refunded)) AS balance "
    "FROM d)" AUDIT("$3", "ledger.refund", "d", "d.account_id",
                    "d.id") "SELECT " DEPOSIT_COLUMNS
                            ", money_text(m.balance), d.id || '/' || money_text(d.refunded) FROM d, m"};
static const struct pg_statement sql_adjust = {
    "ledger_adjust",
    "WITH m AS (SELECT ledger_move($1::bigint, $2::text, $3::text::numeric, $4::text) AS balance), "
    "i AS (SELECT $1::bigint AS account_id, $4::text AS ref FROM m WHERE balance IS NOT NULL)" AUDIT(
        "$5", "ledger.adjust", "i", "i.account_id",
        "($2::text || ' ' || $3::text || ' ' || i.ref)") "SELECT money_text(balance) FROM m"};
static const struct pg_statement sql_list = {
    "ledger_list",
    "SELECT id, (extract(epoch FROM at) * 1000)::bigint, kind, debit, credit, money_text(amount), ref "
    "FROM ledger_transfer WHERE account_id = $1::bigint AND ($2::bigint = 0 OR id < $2::bigint) "
    "ORDER BY id DESC LIMIT $3::bigint"};

/* A new id behind a prefix. */
static struct str make_id(struct arena *arena, const char *prefix)
{
    char random[ID_RANDOM + 1];
    id_random(random, ID_RANDOM);
    return str_from(arena_printf(arena, "%s%s", prefix, random));
}

int ledger_write(const struct pg_statement *statement, const struct pg_value *values, size_t count,
                 struct pg_rows **rows)
{
    struct pg_tx *tx;
    struct pg_rows *own = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, statement, values, count, &own);
    result = pg_end(tx, result);
    if (result || !rows) {
        pg_rows_free(own);
        own = NULL;
    }
    if (rows)
        *rows = own;
    return result;
}

bool ledger_is_ones_own(int error)
{
    return error == -EIO || error == -EEXIST;
}

/* ---- what there is ---- */

int ledger_sums(struct arena *arena, int64_t account_id, struct ledger_sums *sums)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_sums, PG_VALUES(PG_INT(account_id)), &rows);
    if (result)
        return result;
    *sums = (struct ledger_sums){
        .balance = pg_text(arena, rows, 0, 0),
        .available = pg_text(arena, rows, 0, 1),
        .leased = pg_text(arena, rows, 0, 2),
        .current_month = pg_text(arena, rows, 0, 3),
        .last_month = pg_text(arena, rows, 0, 4),
        .today = pg_text(arena, rows, 0, 5),
    };
    pg_rows_free(rows);
    return 0;
}

int ledger_list(struct arena *arena, int64_t account_id, int64_t cursor, int64_t limit,
                struct ledger_row **out, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_VALUES(PG_INT(account_id), PG_INT(cursor), PG_INT(limit)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct ledger_row){
            .id = pg_i64(rows, i, 0),
            .at_ms = pg_i64(rows, i, 1),
            .kind = pg_text(arena, rows, i, 2),
            .debit = pg_text(arena, rows, i, 3),
            .credit = pg_text(arena, rows, i, 4),
            .amount = pg_text(arena, rows, i, 5),
            .ref = pg_text(arena, rows, i, 6),
        };
    pg_rows_free(rows);
    return 0;
}

/* ---- deposits ---- */

static void read_deposit(struct arena *arena, const struct pg_rows *rows, struct ledger_deposit *deposit)
{
    *deposit = (struct ledger_deposit){
        .id = pg_text(arena, rows, 0, 0),
        .amount = pg_text(arena, rows, 0, 1),
        .currency = pg_text(arena, rows, 0, 2),
        .credited = pg_text(arena, rows, 0, 3),
        .refunded = pg_text(arena, rows, 0, 4),
        .driver = pg_text(arena, rows, 0, 5),
        .balance = pg_text(arena, rows, 0, 6),
    };
}

static int price(struct arena *arena, struct str amount, struct str rate, struct str *credited)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_price, PG_VALUES(PG_TEXT(amount), PG_TEXT(rate)), &rows);
    if (result)
        return result;
    *credited = pg_text(arena, rows, 0, 0);
    result = pg_bool(rows, 0, 1) ? 0 : -ERANGE;
    pg_rows_free(rows);
    return result;
}

int ledger_deposit(struct arena *arena, int64_t account_id, struct str amount, struct str currency,
                   struct ledger_deposit *deposit)
{
    const struct payment_driver *driver = payment_driver();
    struct payment payment = {
        .id = make_id(arena, "dep_"), .account_id = account_id, .amount = amount, .currency = currency};
    struct str rate, credited, ref;
    if (!payment_rate(currency, &rate) || !money_is_decimal(amount, PAYMENT_WHOLE_DIGITS, PAYMENT_DECIMALS))
        return -EINVAL;
    int result = price(arena, amount, rate, &credited);
    if (result == 0)
        result = driver->charge(arena, &payment, &ref);
    if (result)
        return result;
    struct pg_rows *rows;
    result = ledger_write(&sql_deposit,
                          PG_VALUES(PG_INT(account_id), PG_TEXT(payment.id), PG_TEXT(str_from(driver->name)),
                                    PG_TEXT(ref), PG_TEXT(amount), PG_TEXT(currency), PG_TEXT(credited),
                                    AUDIT_WHO),
                          &rows);
    if (result)
        return result;
    read_deposit(arena, rows, deposit);
    pg_rows_free(rows);
    return 0;
}

/* What is to be given back, and what the driver calls the deposit. */
static int find_deposit(struct arena *arena, struct str id, struct payment *refund, struct str *ref)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_find_deposit, PG_VALUES(PG_TEXT(id), PG_TEXT(refund->amount)), &rows);
    if (result)
        return result;
    if (pg_count(rows) == 0)
        result = -ENOENT;
    else if (!pg_bool(rows, 0, 3))
        result = -ERANGE;
    else {
        refund->account_id = pg_i64(rows, 0, 0);
        refund->amount = pg_text(arena, rows, 0, 4);
        *ref = pg_text(arena, rows, 0, 1);
    }
    pg_rows_free(rows);
    return result;
}

/* The driver is asked before the commit, with an id that a second try has again: it gives back once. -EDQUOT: the account has not so
 * much available. */
static int refund_now(struct arena *arena, struct str id, struct payment *refund, struct str ref,
                      struct ledger_deposit *deposit)
{
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &sql_refund, PG_VALUES(PG_TEXT(id), PG_TEXT(refund->amount), AUDIT_WHO), &rows);
    if (result == 0 && pg_count(rows) == 0)
        result = -ERANGE;
    else if (result == 0 && pg_is_null(rows, 0, 6))
        result = -EDQUOT;
    if (result == 0) {
        read_deposit(arena, rows, deposit);
        refund->id = pg_text(arena, rows, 0, 7);
        result = payment_driver()->refund(arena, refund, ref);
    }
    pg_rows_free(rows);
    return pg_end(tx, result);
}

int ledger_refund(struct arena *arena, struct str deposit_id, struct str amount,
                  struct ledger_deposit *deposit)
{
    struct payment refund = {.amount = amount, .currency = STR("USD")};
    struct str ref;
    int result = find_deposit(arena, deposit_id, &refund, &ref);
    if (result)
        return result;
    result = refund_now(arena, deposit_id, &refund, ref, deposit);
    if (result != -EDQUOT || lease_recall(refund.account_id))
        return result;
    return refund_now(arena, deposit_id, &refund, ref, deposit);
}

/* ---- an operator's ---- */

static int adjust(struct arena *arena, int64_t account_id, const char *kind, struct str amount,
                  struct str ref, struct str *balance)
{
    struct pg_rows *rows;
    int result = ledger_write(
        &sql_adjust,
        PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(kind)), PG_TEXT(amount), PG_TEXT(ref), AUDIT_WHO),
        &rows);
    if (result)
        return result;
    *balance = pg_text(arena, rows, 0, 0);
    pg_rows_free(rows);
    return balance->at ? 0 : -EDQUOT;
}

int ledger_adjust(struct arena *arena, int64_t account_id, bool is_credit, struct str amount, struct str ref,
                  struct str *balance)
{
    const char *kind = is_credit ? "credit" : "debit";
    if (!ref.at)
        ref = make_id(arena, "adj_");
    int result = adjust(arena, account_id, kind, amount, ref, balance);
    if (result != -EDQUOT || lease_recall(account_id))
        return result;
    return adjust(arena, account_id, kind, amount, ref, balance);
}
