/* The price of an answer that is there already: out of the lease, within the day's limit, or not at all. */
#include "core/domain/ai/charge.h"

#include "core/store/redis.h"
#include "test/unit/core/domain/money/ledger_fixture.h"

enum { PRICE = 1000000 };

static int64_t account;

static enum ai_entry charge(money price, money limit)
{
    enum ai_entry entry;
    int64_t generation;
    assert_int_equal(ai_charge(account, price, limit, &entry, &generation), 0);
    if (entry == AI_ACCEPTED)
        assert_int_equal(ledger_sql("SELECT max(generation) FROM wallet_lease WHERE account_id = %lld",
                                    (long long)account),
                         generation);
    return entry;
}

static int64_t spend_keys(void)
{
    struct arena arena;
    struct redis_value reply;
    char pattern[48];
    snprintf(pattern, sizeof pattern, "spend:%lld:*", (long long)account);
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("KEYS"), str_from(pattern)), 0);
    int64_t count = (int64_t)reply.count;
    arena_clear(&arena);
    return count;
}

static void check_limit(void)
{
    account = ledger_account("10");
    assert_int_equal(charge(PRICE, 3 * PRICE), AI_ACCEPTED);
    assert_int_equal(charge(2 * PRICE, 3 * PRICE), AI_ACCEPTED);
    assert_int_equal(charge(1, 3 * PRICE), AI_SPENT);
    assert_int_equal(spend_keys(), 1);
    ledger_assert_sound();
}

static void a_day_costs_no_more_than_its_limit(void **state)
{
    (void)state;
    ledger_on_loop(check_limit);
}

/* What nobody counts is not kept: a limit that comes later begins with what PostgreSQL knows of the day. */
static void check_unlimited(void)
{
    account = ledger_account("10");
    assert_int_equal(charge(PRICE, -1), AI_ACCEPTED);
    assert_int_equal(spend_keys(), 0);
    assert_int_equal(charge(PRICE, 3 * PRICE), AI_ACCEPTED);
    assert_int_equal(spend_keys(), 1);
    assert_int_equal(charge(PRICE, -1), AI_ACCEPTED);
    assert_int_equal(spend_keys(), 0);
}

static void a_day_without_a_limit_is_not_counted(void **state)
{
    (void)state;
    ledger_on_loop(check_unlimited);
}

static void check_poor(void)
{
    account = ledger_account("0");
    assert_int_equal(charge(PRICE, -1), AI_NO_MONEY);
    account = ledger_account("0.000002");
    assert_int_equal(charge(PRICE, -1), AI_ACCEPTED);
    assert_int_equal(charge(PRICE, -1), AI_ACCEPTED);
    assert_int_equal(charge(1, -1), AI_NO_MONEY);
}

static void nothing_is_taken_that_there_is_not(void **state)
{
    (void)state;
    ledger_on_loop(check_poor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_day_costs_no_more_than_its_limit, ledger_fixture_empty),
        cmocka_unit_test_setup(a_day_without_a_limit_is_not_counted, ledger_fixture_empty),
        cmocka_unit_test_setup(nothing_is_taken_that_there_is_not, ledger_fixture_empty),
    };
    return cmocka_run_group_tests(tests, ledger_fixture_start, ledger_fixture_stop);
}
