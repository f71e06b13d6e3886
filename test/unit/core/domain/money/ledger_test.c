/* Accounts' money: deposits, refunds, an operator's hand, subscriptions, use; each with money that is lent to Redis. */
#include "test/unit/core/domain/money/ledger_fixture.h"

#include "core/domain/identity/plan.h"
#include "core/domain/money/payment.h"
#include "core/domain/money/subscription.h"
#include "core/store/redis.h"

#include <stdlib.h>

static struct arena arena;
static int64_t account;

static void assert_text(struct str text, const char *wanted)
{
    assert_int_equal(text.size, strlen(wanted));
    assert_memory_equal(text.at, wanted, text.size);
}

static struct ledger_deposit deposit(const char *amount, const char *currency)
{
    struct ledger_deposit made;
    assert_int_equal(ledger_deposit(&arena, account, str_from(amount), str_from(currency), &made), 0);
    return made;
}

static int try_deposit(const char *amount, const char *currency)
{
    struct ledger_deposit made;
    return ledger_deposit(&arena, account, str_from(amount), str_from(currency), &made);
}

static struct str balance_of(int64_t id)
{
    struct ledger_sums sums;
    assert_int_equal(ledger_sums(&arena, id, &sums), 0);
    return sums.balance;
}

static struct ledger_call reserve(money need)
{
    struct ledger_call call;
    assert_int_equal(ledger_reserve(&call, account, need), 0);
    return call;
}

/* ---- deposits ---- */

static void rates_are_exact_and_rounded_down(void)
{
    ledger_set("PAYMENT_RATES", "USD=1,ETH=2500.000000000001, FAB = 0.3");
    account = ledger_account("0");
    assert_text(balance_of(account), "0.0");
    struct ledger_deposit made = deposit("1.000000000000000001", "ETH");
    assert_text(made.credited,
                "2500.0000000000010025"); /* 30 decimals are cut to 18, in the house's favour */
    assert_text(made.amount, "1.000000000000000001");
    made = deposit("0.000000000000000009", "FAB");
    assert_text(made.credited, "0.000000000000000002");
    assert_text(made.balance, "2500.000000000001002502");
    assert_text(balance_of(account), "2500.000000000001002502");
    assert_int_equal(try_deposit("0.000000000000000003", "FAB"),
                     -ERANGE); /* worth less than the last decimal */
    assert_int_equal(try_deposit("400000.1", "ETH"), -ERANGE);
    assert_int_equal(try_deposit("1", "EUR"), -EINVAL);
    assert_int_equal(try_deposit("1", "ET"), -EINVAL);
    assert_int_equal(try_deposit("1", ""), -EINVAL);
    assert_int_equal(try_deposit("1e2", "USD"), -EINVAL);
    assert_int_equal(ledger_sql("SELECT count(*) FROM deposit"), 2);
    assert_int_equal(ledger_sql("SELECT count(*) FROM audit WHERE action = 'ledger.deposit'"), 2);
    assert_text(payment_currencies(&arena), "USD, ETH, FAB");
    ledger_assert_sound();
}

static int refund(struct str id, const char *amount, struct ledger_deposit *left)
{
    return ledger_refund(&arena, id, amount ? str_from(amount) : STR_NONE, left);
}

static void a_refund_takes_back_what_is_lent_but_not_what_calls_have_reserved(void)
{
    struct ledger_deposit left;
    account = ledger_account("0");
    struct ledger_deposit made = deposit("10", "USD");
    struct ledger_call call = reserve(MONEY_USD(4));
    assert_int_equal(refund(made.id, "6.000000000000000001", &left), -EDQUOT);
    assert_int_equal(refund(made.id, "10.1", &left), -ERANGE);
    assert_int_equal(refund(made.id, "0", &left), -ERANGE);
    assert_int_equal(refund(STR("dep_none"), NULL, &left), -ENOENT);
    assert_int_equal(refund(made.id, "6", &left), 0);
    assert_text(left.refunded, "6.0");
    assert_text(left.balance, "4.0");
    assert_int_equal(ledger_end_call(&call, MONEY_USD(1), "one"), 0);
    ledger_sql("UPDATE wallet_lease SET fenced_at = fenced_at - interval '1 hour'");
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(refund(made.id, NULL, &left), -EDQUOT); /* 4 are left of the deposit, 3 of the balance */
    assert_int_equal(refund(made.id, "3", &left), 0);
    assert_text(left.balance, "0.0");
    ledger_assert_sound();
}

/* ---- an operator's hand ---- */

static void what_an_operator_takes_is_there(void)
{
    struct str balance;
    account = ledger_account("10");
    reserve(MONEY_USD(1));
    assert_int_equal(ledger_adjust(&arena, account, false, STR("9.1"), STR("why"), &balance), -EDQUOT);
    assert_int_equal(ledger_adjust(&arena, account, false, STR("9"), STR("why"), &balance), 0);
    assert_text(balance, "1.0");
    assert_int_equal(ledger_adjust(&arena, account, true, STR("5"), STR("why"), &balance),
                     0); /* another kind */
    assert_int_equal(ledger_adjust(&arena, account, true, STR("5"), STR("why"), &balance), -EEXIST);
    assert_text(balance_of(account), "6.0");
    ledger_assert_sound();
}

static void adjust_once(int number)
{
    struct str balance;
    struct arena own;
    (void)number;
    arena_init(&own);
    (void)!ledger_adjust(&own, account, false, STR("1"), STR_NONE, &balance);
    arena_clear(&own);
}

static void what_is_taken_at_once_by_many_never_makes_it_negative(void)
{
    account = ledger_account("10");
    ledger_race(64, adjust_once);
    assert_true(ledger_has(account, "0", "0"));
    assert_int_equal(ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind = 'debit'"), 10);
    ledger_assert_sound();
}

/* ---- subscriptions ---- */

static void a_month_is_paid_out_of_what_is_lent(void)
{
    struct subscription own;
    account = ledger_account("50");
    assert_int_equal(subscription_start(account, STR("pro")), -EDQUOT);
    reserve(MONEY_USD(1));
    assert_int_equal(subscription_start(account, STR("basic")), 0);
    assert_text(balance_of(account), "1.0");
    assert_int_equal(subscription_get(&arena, account, &own), 0);
    assert_text(own.plan, "basic");
    assert_text(own.price, "49.0");
    assert_int_equal(subscription_start(account, STR("basic")), -EEXIST);
    assert_int_equal(subscription_start(account, STR("enterprise")), -EINVAL);
    assert_int_equal(subscription_start(account + 1000, STR("basic")), -ENOENT);
    assert_int_equal(subscription_start(account, STR("free")), 0);
    assert_int_equal(subscription_get(&arena, account, &own), 0);
    assert_null(own.plan.at);
    ledger_assert_sound();
}

static void make_due(void)
{
    ledger_sql(
        "UPDATE subscription SET started_at = started_at - interval '1 month', renews_at = renews_at - interval '1 month'");
}

static int64_t subscribed(void)
{
    return ledger_sql("SELECT count(*) FROM subscription JOIN account_plan USING (account_id, plan)");
}

/* Money that calls have reserved may come back: the plan does not end for it. */
static void a_renewal_waits_for_what_calls_have_reserved(void)
{
    account = ledger_account("98");
    assert_int_equal(subscription_start(account, STR("basic")), 0);
    struct ledger_call call = reserve(MONEY_USD(1));
    make_due();
    assert_int_equal(subscription_renew_due(), 0);
    assert_int_equal(subscribed(), 1);
    assert_true(ledger_has(account, "48", "1"));
    assert_int_equal(ledger_end_call(&call, 0, "free of charge"), 0);
    ledger_sql("UPDATE wallet_lease SET fenced_at = fenced_at - interval '1 hour'");
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(subscription_renew_due(), 0);
    assert_true(ledger_has(account, "0", "0"));
    assert_int_equal(subscription_renew_due(), 0); /* not due any more */
    assert_int_equal(subscribed(), 1);
    make_due();
    assert_int_equal(subscription_renew_due(), 0);
    assert_int_equal(subscribed(), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM account_plan"), 0);
    ledger_assert_sound();
}

/* An account whose month can't be booked, and a lease that Redis can't read, are told of; those of others go their way. */
static void one_that_fails_holds_up_no_other(void)
{
    int64_t accounts[2];
    struct ledger_call call;
    for (int i = 0; i < 2; i++) {
        accounts[i] = account = ledger_account("1000");
        assert_int_equal(subscription_start(account, STR("basic")), 0);
    }
    make_due();
    ledger_sql("UPDATE subscription SET renews_at = renews_at - interval '1 day' WHERE account_id = %lld",
               (long long)accounts[0]);
    ledger_sql(
        "INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref) SELECT 0, 'subscription', 'a', 'b', 1, "
        "'subscription ' || account_id || '/' || extract(epoch FROM renews_at)::bigint FROM subscription WHERE account_id = %lld",
        (long long)accounts[0]);
    assert_int_equal(subscription_renew_due(), -EEXIST);
    assert_true(ledger_has(accounts[0], "951", "0"));
    assert_true(ledger_has(accounts[1], "902", "0"));

    for (int i = 0; i < 2; i++)
        assert_int_equal(ledger_reserve(&call, accounts[i], MONEY_USD(1)), 0);
    ledger_sql("UPDATE wallet_lease SET touched_at = touched_at - interval '1 hour'");
    char key[32];
    struct redis_value reply;
    snprintf(key, sizeof key, "lease:%lld", (long long)accounts[0]);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("SET"), str_from(key), STR("x")), 0);
    assert_int_equal(lease_sweep(), -EIO);
    assert_true(ledger_has(accounts[1], "901", "1"));
}

static void renew(int number)
{
    (void)number;
    (void)!subscription_renew_due();
}

static void many_workers_take_a_month_once(void)
{
    account = ledger_account("1000");
    assert_int_equal(subscription_start(account, STR("basic")), 0);
    make_due();
    ledger_race(16, renew);
    assert_true(ledger_has(account, "902", "0"));
    assert_int_equal(ledger_sql("SELECT count(*) FROM audit WHERE action = 'plan.renew'"), 1);
}

/* The day of the month stays, however short a month between is. */
static void months_are_counted_from_the_first_day(void)
{
    account = ledger_account("1000");
    assert_int_equal(subscription_start(account, STR("basic")), 0);
    ledger_sql("UPDATE subscription SET started_at = now() - interval '32 days', "
               "renews_at = now() - interval '32 days' + interval '1 month'");
    assert_int_equal(subscription_renew_due(), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM subscription WHERE months = 2 "
                                "AND renews_at = started_at + interval '2 months'"),
                     1);
}

/* ---- plans ---- */

static void plans_have_prices_and_daily_limits(void)
{
    static const struct {
        const char *plan;
        const char *month;
        money daily_spend;
    } wanted[] = {
        {"free", "0.0", MONEY_USD(10)},
        {"basic", "49.0", MONEY_USD(100)},
        {"pro", "299.0", MONEY_USD(1000)},
        {"enterprise", "0.0", PLAN_SPEND_UNLIMITED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        char text[MONEY_TEXT_SIZE];
        const struct plan_price *price = plan_price(str_from(wanted[i].plan));
        assert_text(money_format(text, price->month), wanted[i].month);
        assert_true(price->daily_spend == wanted[i].daily_spend);
        assert_int_equal(price->is_for_sale, strcmp(wanted[i].plan, "enterprise") != 0);
    }
    assert_null(plan_price(STR("gold")));
}

static void an_accounts_own_daily_limit_counts(void)
{
    struct plan plan;
    account = ledger_account("0");
    assert_int_equal(plan_get(&arena, account, "inference", &plan), 0);
    assert_true(plan.daily_spend == MONEY_USD(10));
    assert_int_equal(plan_set_daily_spend(account, MONEY_USD(25) + 1), 0);
    assert_int_equal(plan_set_limit(account, STR("inference-minute"), 7, 0), 0);
    assert_int_equal(plan_get(&arena, account, "inference", &plan), 0);
    assert_true(plan.daily_spend == MONEY_USD(25) + 1);
    assert_int_equal(plan.override_count, 1);
    assert_int_equal(plan_set_daily_spend(account, PLAN_SPEND_UNLIMITED), 0);
    assert_int_equal(plan_get(&arena, account, "inference", &plan), 0);
    assert_true(plan.daily_spend == PLAN_SPEND_UNLIMITED);
    assert_int_equal(plan_set_daily_spend(account, 0), 0);
    assert_int_equal(plan_get(&arena, account, "inference", &plan), 0);
    assert_true(plan.daily_spend == MONEY_USD(10));
    assert_int_equal(plan_get(&arena, account, "session", &plan), 0); /* whose keys have no such plan */
    assert_true(plan.daily_spend == PLAN_SPEND_UNLIMITED);
}

/* ---- use ---- */

static void use_is_rolled_up(void)
{
    struct ledger_use *rows;
    struct ledger_use total;
    size_t count;
    account = ledger_account("0");
    for (int i = 0; i < 2; i++)
        ledger_sql(
            "SELECT usage_add(array_fill(%lld::bigint, '{4}'), '{2026-01-01,2026-01-01,2026-01-01,2026-01-02}', '{a,a,b,a}', "
            "'{1,1,1,null}', '{1,2,3,4}', '{10,20,30,40}', '{0.1,0.2,0.3,0.000000000000000001}')",
            (long long)account);
    assert_int_equal(
        ledger_usage(&arena, account, STR("2026-01-01"), STR("2026-01-02"), NULL, 2, &rows, &count), 0);
    assert_int_equal(count, 2);
    assert_text(rows[0].model, "a");
    assert_int_equal(rows[0].calls, 4);
    assert_int_equal(rows[0].prompt_tokens, 6);
    assert_int_equal(rows[0].completion_tokens, 60);
    assert_text(rows[0].cost, "0.6");
    assert_int_equal(
        ledger_usage(&arena, account, STR("2026-01-01"), STR("2026-01-02"), &rows[1], 2, &rows, &count), 0);
    assert_int_equal(count, 1);
    assert_text(rows[0].day, "2026-01-02");
    assert_int_equal(rows[0].key_id, 0);
    assert_text(rows[0].cost, "0.000000000000000002");
    assert_int_equal(ledger_usage_total(&arena, account, STR("2026-01-01"), STR("2026-01-02"), &total), 0);
    assert_int_equal(total.calls, 8);
    assert_text(total.cost, "1.200000000000000002");
    assert_int_equal(ledger_usage_total(&arena, account + 1, STR("2026-01-01"), STR("2026-01-02"), &total),
                     0);
    assert_int_equal(total.calls, 0);
    assert_text(total.cost, "0.0");
}

static void redis_that_has_more_than_was_lent_is_found(void)
{
    char key[48];
    struct redis_value reply;
    bool sound;
    account = ledger_account("20");
    reserve(MONEY_USD(1));
    snprintf(key, sizeof key, "lease:%lld", (long long)account);
    assert_int_equal(lease_is_sound(account, &sound), 0);
    assert_true(sound);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("HINCRBY"), str_from(key), STR("free"),
                                STR("1000000000001")),
                     0);
    assert_int_equal(lease_is_sound(account, &sound), 0);
    assert_false(sound);
}

#define ON_LOOP(body)                                                                                        \
    static void run_##body(void)                                                                             \
    {                                                                                                        \
        arena_init(&arena);                                                                                  \
        body();                                                                                              \
        arena_clear(&arena);                                                                                 \
    }                                                                                                        \
    static void on_loop_##body(void **state)                                                                 \
    {                                                                                                        \
        (void)state;                                                                                         \
        ledger_on_loop(run_##body);                                                                          \
    }
#define TESTS(X)                                                                                             \
    X(rates_are_exact_and_rounded_down)                                                                      \
    X(a_refund_takes_back_what_is_lent_but_not_what_calls_have_reserved)                                     \
    X(what_an_operator_takes_is_there)                                                                       \
    X(what_is_taken_at_once_by_many_never_makes_it_negative)                                                 \
    X(a_month_is_paid_out_of_what_is_lent)                                                                   \
    X(a_renewal_waits_for_what_calls_have_reserved)                                                          \
    X(one_that_fails_holds_up_no_other)                                                                      \
    X(many_workers_take_a_month_once)                                                                        \
    X(months_are_counted_from_the_first_day)                                                                 \
    X(plans_have_prices_and_daily_limits)                                                                    \
    X(an_accounts_own_daily_limit_counts)                                                                    \
    X(use_is_rolled_up)                                                                                      \
    X(redis_that_has_more_than_was_lent_is_found)
TESTS(ON_LOOP)

int main(void)
{
#define TEST(body) cmocka_unit_test_setup(on_loop_##body, ledger_fixture_empty),
    const struct CMUnitTest tests[] = {TESTS(TEST)};
    return cmocka_run_group_tests(tests, ledger_fixture_start, ledger_fixture_stop);
}
