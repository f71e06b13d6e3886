/* The record of changes. */
#include "core/domain/audit.h"

#include "test/unit/core/domain/identity/fixture.h"

static const struct audit_who client = {{{"key 12", 6}, {"192.0.2.1", 9}, {"request-1", 9}}};

static size_t listed(struct audit_filter filter, struct audit_row **rows)
{
    size_t count = 0;
    if (filter.limit == 0)
        filter.limit = 100;
    assert_int_equal(audit_list(&identity_arena, &filter, rows, &count), 0);
    return count;
}

static void actor_is(const char *actor)
{
    assert_true(str_equal(audit_self()->fields[0], str_from(actor)));
}

/* ---- ---- */

static void see_worker(int number)
{
    (void)number;
    actor_is("worker");
}

static void tell_who(void)
{
    actor_is("worker");
    audit_set(&client);
    actor_is("key 12");
    identity_race(2, see_worker);
    actor_is("key 12");
    audit_set(NULL);
    actor_is("worker");
}

static void who_it_is_is_known_to_each_fiber_by_itself(void **state)
{
    (void)state;
    identity_on_loop(tell_who);
}

static void record(void)
{
    struct audit_row *rows;
    audit_set(&client);
    struct account account = identity_account("ada@example.com");
    assert_int_equal(listed((struct audit_filter){.account_id = account.id}, &rows), 1);
    assert_true(str_equal(rows[0].actor, STR("key 12")));
    assert_true(str_equal(rows[0].address, STR("192.0.2.1")));
    assert_true(str_equal(rows[0].request_id, STR("request-1")));
    assert_true(str_equal(rows[0].action, STR("account.register")));
    assert_true(str_equal(rows[0].object, account.ref));
    assert_true(str_equal(rows[0].account, STR("ada@example.com")));
    assert_true(clock_wall_ms() - rows[0].at_ms < 60000 && rows[0].at_ms <= clock_wall_ms() + 1000);
    /* What did not happen has no record. */
    struct account other;
    assert_int_equal(account_register(&identity_arena, STR("ada@example.com"), STR(""), STR("h"), &other),
                     -EEXIST);
    assert_int_equal(account_unban(account.id + 1), -ENOENT);
    assert_int_equal(listed((struct audit_filter){.limit = 0}, &rows), 1);
    audit_set(NULL);
    assert_int_equal(account_unban(account.id), 0);
    assert_int_equal(listed((struct audit_filter){.actor = STR("worker")}, &rows), 1);
    assert_null(rows[0].address.at);
    assert_null(rows[0].request_id.at);
}

static void a_change_is_recorded_with_itself_or_not_at_all(void **state)
{
    (void)state;
    identity_on_loop(record);
}

static void filter(void)
{
    struct audit_row *rows;
    struct account ada = identity_account("ada@example.com");
    struct account bob = identity_account("bob@example.com");
    assert_int_equal(account_ban(ada.id, STR("spam"), 0), 0);
    assert_int_equal(account_ban(bob.id, STR("spam"), 0), 0);
    identity_sql("UPDATE audit SET at = now() - interval '1 hour' WHERE account_id = %lld AND action = "
                 "'account.ban'",
                 (long long)ada.id);
    assert_int_equal(listed((struct audit_filter){.action = STR("account.ban")}, &rows), 2);
    assert_true(rows[0].id > rows[1].id);
    assert_int_equal(listed((struct audit_filter){.action = STR("account.*")}, &rows), 4);
    assert_int_equal(listed((struct audit_filter){.action = STR("account")}, &rows), 0);
    assert_int_equal(listed((struct audit_filter){.action = STR("acc.*")}, &rows), 0);
    assert_int_equal(listed((struct audit_filter){.action = STR("%.*")}, &rows), 0);
    assert_int_equal(listed((struct audit_filter){.account_id = bob.id}, &rows), 2);
    assert_int_equal(listed((struct audit_filter){.object = bob.ref}, &rows), 2);
    assert_int_equal(listed((struct audit_filter){.since_ms = clock_wall_ms() - 1800000}, &rows), 3);
    assert_int_equal(listed((struct audit_filter){.limit = 3}, &rows), 3);
    assert_int_equal(listed((struct audit_filter){.limit = 3, .cursor = rows[2].id}, &rows), 1);
}

static void records_are_found_by_what_an_operator_asks_for(void **state)
{
    (void)state;
    identity_on_loop(filter);
}

static void forget(void)
{
    identity_account("ada@example.com");
    identity_sql("INSERT INTO audit (at, actor, action) "
                 "SELECT now() - interval '31 days', 'worker', 'old' FROM generate_series(1, 12000)");
    identity_sql(
        "INSERT INTO audit (at, actor, action) VALUES (now() - interval '29 days', 'worker', 'new')");
    assert_int_equal(audit_forget(), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM audit"), 12002);
    identity_set("AUDIT_DAYS", "30");
    assert_int_equal(audit_forget(), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM audit"), 2);
    assert_int_equal(identity_audited("old"), 0);
}

static void records_are_forgotten_after_their_days(void **state)
{
    (void)state;
    identity_on_loop(forget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, identity_fixture_empty)
        CASE(who_it_is_is_known_to_each_fiber_by_itself),
        CASE(a_change_is_recorded_with_itself_or_not_at_all),
        CASE(records_are_found_by_what_an_operator_asks_for),
        CASE(records_are_forgotten_after_their_days),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
