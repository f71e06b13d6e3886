/* Does everything add up? Each look is one statement, so it sees one moment, however much moves meanwhile. */
#include "core/domain/money/lease.h"
#include "core/domain/money/ledger.h"
#include "core/store/pg.h"

enum { PAGE = 200, VIOLATIONS_MAX = 1000 };

static const struct pg_statement sql_page = {
    "ledger_check_page",
    "SELECT account_id FROM wallet WHERE account_id > $1::bigint "
    "AND ($2::bigint = 0 OR account_id = $2::bigint) ORDER BY account_id LIMIT $3::bigint"};

#define SUM(condition) "coalesce(sum(t.amount) FILTER (WHERE " condition "), 0)"
#define TENANT "('available', 'leased')"
static const struct pg_statement sql_check =
    {
        "ledger_check",
        "WITH purse AS MATERIALIZED (SELECT * FROM wallet WHERE account_id = ANY ($1::bigint[])), "
        "moved AS MATERIALIZED (SELECT p.account_id, " SUM("t.credit = 'available'") " - " SUM("t.debit = 'available'") " AS available, " SUM("t.credit = 'leased'") " - " SUM("t.debit = 'leased'") " AS leased, " SUM(
            "t.debit NOT IN " TENANT) " - " SUM("t.credit NOT IN " TENANT) " AS house, " SUM("t.kind = 'loss'") " AS loss, "
                                                                                                                "count(*) FILTER (WHERE t.id IS NOT NULL AND (t.debit, t.credit) IS DISTINCT FROM (k.debit, k.credit)) AS odd "
                                                                                                                "FROM purse p LEFT JOIN ledger_transfer t ON t.account_id = p.account_id LEFT JOIN ledger_kind k ON k.kind = t.kind "
                                                                                                                "GROUP BY p.account_id), "
                                                                                                                "lent AS MATERIALIZED (SELECT l.account_id, l.generation, l.granted, l.charged, l.returned, l.state, " SUM("t.kind = 'grant'") " AS grants, " SUM("t.kind = 'charge'") " AS charges, " SUM("t.kind = 'return'") " AS returns "
                                                                                                                                                                                                                                                                                                                                "FROM purse p JOIN wallet_lease l ON l.account_id = p.account_id LEFT JOIN ledger_transfer t "
                                                                                                                                                                                                                                                                                                                                "ON t.account_id = l.account_id AND t.generation = l.generation GROUP BY l.account_id, l.generation), "
                                                                                                                                                                                                                                                                                                                                "paid AS MATERIALIZED (SELECT d.account_id, d.id, d.credited, d.refunded, "
                                                                                                                                                                                                                                                                                                                                "(SELECT sum(amount) FROM ledger_transfer t WHERE t.kind = 'deposit' AND t.ref = d.id) AS deposited, "
                                                                                                                                                                                                                                                                                                                                "(SELECT coalesce(sum(amount), 0) FROM ledger_transfer t WHERE t.account_id = d.account_id AND t.kind = 'refund' "
                                                                                                                                                                                                                                                                                                                                "AND starts_with(t.ref, d.id || '/')) AS back "
                                                                                                                                                                                                                                                                                                                                "FROM purse p JOIN deposit d ON d.account_id = p.account_id) "
                                                                                                                                                                                                                                                                                                                                "SELECT p.account_id, format('available is %s, its movements sum to %s', p.available, m.available) "
                                                                                                                                                                                                                                                                                                                                "FROM purse p JOIN moved m USING (account_id) WHERE p.available <> m.available "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT p.account_id, format('leased is %s, its movements sum to %s', p.leased, m.leased) "
                                                                                                                                                                                                                                                                                                                                "FROM purse p JOIN moved m USING (account_id) WHERE p.leased <> m.leased "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT p.account_id, format('it has %s, of which the house''s accounts know %s', p.available + p.leased, m.house) "
                                                                                                                                                                                                                                                                                                                                "FROM purse p JOIN moved m USING (account_id) WHERE p.available + p.leased <> m.house "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT account_id, format('%s movements are not between the sides of their kind', odd) FROM moved WHERE odd > 0 "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT account_id, format('the house lost %s: charges that nothing was left for', loss) FROM moved WHERE loss > 0 "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT p.account_id, format('leased is %s, its leases have %s', p.leased, coalesce(sum(granted - charged - returned), 0)) "
                                                                                                                                                                                                                                                                                                                                "FROM purse p LEFT JOIN lent USING (account_id) GROUP BY p.account_id, p.leased "
                                                                                                                                                                                                                                                                                                                                "HAVING p.leased <> coalesce(sum(granted - charged - returned), 0) "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT account_id, format('lease %s says %s granted, %s charged, %s returned; its movements %s, %s, %s', "
                                                                                                                                                                                                                                                                                                                                "generation, granted, charged, returned, grants, charges, returns) FROM lent "
                                                                                                                                                                                                                                                                                                                                "WHERE (granted, charged, returned) <> (grants, charges, returns) "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT account_id, format('lease %s is done and has %s', generation, granted - charged - returned) FROM lent "
                                                                                                                                                                                                                                                                                                                                "WHERE state = 'done' AND granted <> charged + returned "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT l.account_id, format('lease %s is open, the last one is %s', l.generation, p.generation) "
                                                                                                                                                                                                                                                                                                                                "FROM lent l JOIN purse p USING (account_id) WHERE l.state = 'open' AND l.generation <> p.generation "
                                                                                                                                                                                                                                                                                                                                "UNION ALL SELECT account_id, format('deposit %s: %s credited and %s refunded; its movements %s, %s', id, credited, refunded, "
                                                                                                                                                                                                                                                                                                                                "coalesce(deposited, 0), back) FROM paid WHERE (credited, refunded) IS DISTINCT FROM (deposited, back)"};

struct check {
    struct arena *arena;
    struct ledger_violation *violations;
    size_t count;
    size_t accounts;
    int64_t last;
};

static void add(struct check *check, int64_t account_id, struct str what)
{
    if (check->count < VIOLATIONS_MAX)
        check->violations[check->count++] =
            (struct ledger_violation){account_id, arena_str(check->arena, what)};
}

static int check_redis(struct check *check, const int64_t *accounts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool sound;
        int result = lease_is_sound(accounts[i], &sound);
        if (result)
            return result;
        if (!sound)
            add(check, accounts[i], STR("Redis says that more is free than was lent to it"));
    }
    return 0;
}

static int check_accounts(struct check *check, const int64_t *accounts, size_t count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_check, PG_VALUES(PG_INTS(accounts, count)), &rows);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows); i++)
        add(check, pg_i64(rows, i, 0), pg_str(rows, i, 1));
    pg_rows_free(rows);
    return check_redis(check, accounts, count);
}

int ledger_check(struct arena *arena, int64_t account_id, struct ledger_violation **violations, size_t *count,
                 size_t *accounts)
{
    struct check check = {.arena = arena,
                          .violations = arena_alloc(arena, VIOLATIONS_MAX * sizeof *check.violations)};
    int64_t page[PAGE];
    size_t size;
    int result;
    do {
        struct pg_rows *rows;
        result = pg_read(&sql_page, PG_VALUES(PG_INT(check.last), PG_INT(account_id), PG_INT(PAGE)), &rows);
        if (result)
            return result;
        size = pg_count(rows);
        for (size_t i = 0; i < size; i++)
            page[i] = pg_i64(rows, i, 0);
        pg_rows_free(rows);
        if (size) {
            result = check_accounts(&check, page, size);
            check.last = page[size - 1];
            check.accounts += size;
        }
    } while (result == 0 && size == PAGE);
    *violations = check.violations;
    *count = check.count;
    *accounts = check.accounts;
    return result;
}
