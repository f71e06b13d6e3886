/* Money lent to Redis: nothing is given out that was not taken out of PostgreSQL before, whoever races, dies or forgets. */
#include "test/unit/core/domain/money/ledger_fixture.h"

#include "core/store/pg.h"
#include "core/store/redis.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define CALL (MONEY_DOLLAR / 1000)
/* Numbers in SQL. */
#define DOLLAR_OF_CALL "0.001"

static int64_t account;

static int64_t field(const char *name)
{
    char key[48];
    struct arena arena;
    struct redis_value reply;
    int64_t value = -1;
    snprintf(key, sizeof key, "lease:%lld", (long long)account);
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("HGET"), str_from(key), str_from(name)),
                     0);
    if (reply.type == REDIS_STRING)
        assert_true(str_to_i64(reply.text, &value));
    arena_clear(&arena);
    return value;
}

static void flush(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("FLUSHALL")), 0);
    arena_clear(&arena);
}

static int64_t lease_number(const char *column, int generation)
{
    return ledger_sql("SELECT %s FROM wallet_lease WHERE account_id = %lld AND generation = %d", column,
                      (long long)account, generation);
}

/* A reservation that must succeed. */
static struct ledger_call reserve(money need)
{
    struct ledger_call call;
    assert_int_equal(ledger_reserve(&call, account, need), 0);
    return call;
}

/* All that is closed has been so for an hour. */
static void pass_time(void)
{
    ledger_sql(
        "UPDATE wallet_lease SET closed_at = closed_at - interval '1 hour', fenced_at = fenced_at - interval '1 hour', "
        "granted_at = granted_at - interval '1 hour', touched_at = touched_at - interval '1 hour'");
}

/* ---- slices ---- */

static void a_slice_leaves_postgres_before_redis_has_it(void)
{
    account = ledger_account("20");
    struct ledger_call call = reserve(CALL);
    assert_int_equal(call.generation, 1);
    assert_true(ledger_has(account, "15", "5"));
    assert_true(field("free") == MONEY_USD(5) - CALL);
    assert_int_equal(ledger_end_call(&call, CALL / 2, "half"), 0);
    assert_true(field("free") == MONEY_USD(5) - CALL / 2);
    assert_true(ledger_has(account, "15", "5 - 0.0005"));
    ledger_assert_sound();
}

static void slices_are_as_large_as_is_needed(void)
{
    account = ledger_account("100000");
    reserve(CALL); /* a quarter, but not more than 1000 */
    assert_true(ledger_has(account, "99000", "1000"));
    reserve(MONEY_USD(5000)); /* of which nearly 1000 are there */
    assert_true(ledger_has(account, "99000 - 4000 - 0.001", "5000.001"));
    account = ledger_account("0.5"); /* a small balance as a whole */
    reserve(CALL);
    assert_true(ledger_has(account, "0", "0.5"));
    account = ledger_account("0.0000000000015"); /* whole picodollars */
    reserve(1);
    assert_true(ledger_has(account, "0.0000000000005", "0.000000000001"));
    ledger_assert_sound();
}

static void a_second_slice_follows_when_the_first_is_known_to_be_there(void)
{
    account = ledger_account("8");
    reserve(MONEY_USD(2));
    reserve(MONEY_USD(2));
    reserve(MONEY_USD(3));
    assert_int_equal(lease_number("grant_no", 1), 3);
    assert_int_equal(field("applied"), 3);
    assert_true(ledger_has(account, "8 - 7", "7") || ledger_has(account, "0", "8"));
    struct ledger_call call;
    assert_int_equal(ledger_reserve(&call, account, MONEY_USD(2)), -EDQUOT);
    reserve(MONEY_USD(1));
    assert_int_equal(field("free"), 0);
    ledger_assert_sound();
}

static void who_has_nothing_is_refused(void)
{
    struct ledger_call call;
    account = ledger_account("0");
    assert_int_equal(ledger_reserve(&call, account, 1), -EDQUOT);
    account = ledger_account("0.002");
    assert_int_equal(ledger_reserve(&call, account, CALL * 2 + 1), -EDQUOT);
    reserve(CALL * 2);
    assert_int_equal(ledger_reserve(&call, account, 1), -EDQUOT);
    ledger_assert_sound();
}

/* Who moves money of the account at the same time is waited for, but not for ever. */
static void a_wallet_that_is_held_is_waited_for(void)
{
    static const struct pg_statement hold = {"test_hold",
                                             "SELECT 1 FROM wallet WHERE account_id = $1::bigint FOR UPDATE"};
    struct pg_tx *tx;
    struct ledger_call call;
    account = ledger_account("20");
    ledger_set("PG_TIMEOUT_MS", "300");
    assert_int_equal(pg_begin(&tx), 0);
    assert_int_equal(pg_query(tx, &hold, PG_VALUES(PG_INT(account)), NULL), 0);
    assert_int_equal(ledger_reserve(&call, account, CALL), -ETIMEDOUT);
    assert_int_equal(pg_end(tx, 0), 0);
    ledger_set("PG_TIMEOUT_MS", "10000");
    assert_int_equal(ledger_reserve(&call, account, CALL), 0);
    ledger_assert_sound();
}

/* ---- races ---- */

enum { CLIENTS = 16, LOOPS = 4 };
static atomic_int passed, refused, failed;

static void call_once(int number)
{
    struct ledger_call call;
    (void)number;
    int result = ledger_reserve(&call, account, CALL);
    atomic_fetch_add(result == 0 ? &passed : result == -EDQUOT ? &refused : &failed, 1);
}

static void race_of_clients(int number)
{
    (void)number;
    ledger_race(CLIENTS, call_once);
}

/* 64 clients on four loops; again and again, for the first lease, and with one that others have begun. */
static void an_account_that_can_pay_for_ten_calls_pays_ten(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        account = ledger_account("0.01");
        passed = refused = failed = 0;
        ledger_on_loops(LOOPS, race_of_clients);
        assert_int_equal(failed, 0);
        assert_int_equal(passed, 10);
        assert_int_equal(refused, LOOPS * CLIENTS - 10);
        assert_true(ledger_has(account, "0", "0.01"));
    }
    ledger_on_loop(ledger_assert_sound);
}

static void call_for_three(int number)
{
    struct ledger_call call;
    int result = ledger_reserve(&call, account, number % 8 == 0 ? MONEY_USD(50) : MONEY_USD(1));
    atomic_fetch_add(result == 0 ? &passed : result == -EDQUOT ? &refused : &failed, 1);
}

static void race_of_sizes(int number)
{
    (void)number;
    ledger_race(CLIENTS, call_for_three);
}

/* Who asks for what is not there does not take the rest away from those who ask for less. */
static void large_calls_are_refused_and_small_ones_pass(void **state)
{
    (void)state;
    account = ledger_account("20");
    passed = refused = failed = 0;
    ledger_on_loops(LOOPS, race_of_sizes);
    assert_int_equal(failed, 0);
    assert_int_equal(passed, 20);
    assert_int_equal(refused, LOOPS * CLIENTS - 20);
    ledger_on_loop(ledger_assert_sound);
}

enum { ACCOUNTS = 3 };
static int calls_each;
static int64_t accounts[ACCOUNTS];
static atomic_int made, ended_at_all;
static atomic_bool racing;

/* Calls that cost less than they reserve, take some time, and now and then all money is called back. */
static void many_calls(int number)
{
    unsigned seed = (unsigned)number * 7919 + 13;
    for (int i = 0; i < calls_each; i++) {
        struct ledger_call call;
        char ref[64];
        money need = (money)(rand_r(&seed) % 1000 + 1) * CALL / 10;
        int64_t whose = accounts[rand_r(&seed) % ACCOUNTS];
        if (rand_r(&seed) % 40 == 0 && lease_recall(whose) && racing)
            continue;
        if (ledger_reserve(&call, whose, need))
            continue;
        snprintf(ref, sizeof ref, "call %d", atomic_fetch_add(&made, 1));
        CHECK(fiber_sleep_ms((uint64_t)(rand_r(&seed) % 5)) == 0);
        money cost = need - (money)((uint64_t)rand_r(&seed) * 1000 % (uint64_t)need);
        (void)!ledger_settle_here(&call, cost); /* Redis may be away: what was reserved comes back later */
        while (ledger_charge(&call, cost, ref))
            CHECK(fiber_sleep_ms(5) == 0);
        atomic_fetch_add(&ended_at_all, 1);
    }
}

static void race_of_calls(int number)
{
    (void)number;
    ledger_race(CLIENTS, many_calls);
}

static void assert_all_comes_back(void)
{
    for (int i = 0; i < ACCOUNTS; i++)
        assert_int_equal(lease_recall(accounts[i]), 0);
    pass_time();
    assert_int_equal(lease_sweep(), 0); /* fences what was lost */
    pass_time();
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM wallet WHERE leased <> 0"), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM wallet_lease WHERE state <> 'done'"), 0);
    ledger_assert_sound();
    /* What was given is there, or was charged. */
    assert_int_equal(
        ledger_sql("SELECT count(*) FROM wallet w WHERE available <> 30 - (SELECT coalesce(sum(amount), 0) "
                   "FROM ledger_transfer t WHERE t.account_id = w.account_id AND credit = 'revenue')"),
        0);
}

static void prepare_accounts(void)
{
    for (int i = 0; i < ACCOUNTS; i++)
        accounts[i] = ledger_account("30");
    made = ended_at_all = 0;
}

static void a_thousand_calls_sum_up(void **state)
{
    (void)state;
    prepare_accounts();
    calls_each = 40;
    ledger_on_loops(LOOPS, race_of_calls);
    assert_true(made > 200);
    assert_int_equal(made, ended_at_all);
    assert_int_equal(ledger_sql("SELECT count(DISTINCT ref) FROM ledger_transfer WHERE credit = 'revenue'"),
                     made);
    assert_int_equal(ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind IN ('overdue', 'loss')"), 0);
    ledger_on_loop(assert_all_comes_back);
}

/* Breaks every connection, so that nobody knows whether what was sent was done, and loses everything. */
static void break_and_flush(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    (void)!redis_call(redis_shared(), &reply, &arena, STR("CLIENT"), STR("KILL"), STR("TYPE"), STR("normal"),
                      STR("SKIPME"), STR("yes"));
    (void)!redis_call(redis_shared(), &reply, &arena, STR("FLUSHALL"));
    arena_clear(&arena);
}

static void *empty_redis(void *arg)
{
    (void)arg;
    while (atomic_load(&racing)) {
        struct timespec pause = {.tv_nsec = 100 * 1000000};
        nanosleep(&pause, NULL);
        ledger_on_loop(break_and_flush);
    }
    return NULL;
}

static void redis_may_be_emptied_at_any_moment(void **state)
{
    (void)state;
    pthread_t emptier;
    prepare_accounts();
    calls_each = 10;
    racing = true;
    assert_int_equal(pthread_create(&emptier, NULL, empty_redis, NULL), 0);
    ledger_on_loops(LOOPS, race_of_calls);
    racing = false;
    assert_int_equal(pthread_join(emptier, NULL), 0);
    assert_true(made > 10);
    assert_int_equal(ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind IN ('overdue', 'loss')"), 0);
    ledger_on_loop(assert_all_comes_back);
}

/* ---- who dies between PostgreSQL and Redis ---- */

/* What a process does that dies with a slice in its hands. */
static void grant_and_die(int64_t epoch, int64_t generation, int64_t applied, const char *free,
                          const char *needed)
{
    assert_int_equal(
        ledger_sql(
            "SELECT count(*) FROM lease_grant(%lld, %lld, %lld, %lld, %s, 0, %s) WHERE outcome = 'grant'",
            (long long)account, (long long)epoch, (long long)generation, (long long)applied, free, needed),
        1);
}

static int64_t epoch(void)
{
    struct arena arena;
    struct redis_value reply;
    int64_t value = 0;
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("GET"), STR("lease:epoch")), 0);
    if (reply.type == REDIS_STRING)
        assert_true(str_to_i64(reply.text, &value));
    arena_clear(&arena);
    return value;
}

/* One that makes the key lease:epoch be there. */
static void make_epoch(void)
{
    int64_t other = account;
    account = ledger_account("1");
    reserve(1);
    account = other;
}

static void a_first_grant_that_was_not_applied_is_applied_by_the_next(void)
{
    account = ledger_account("0.01");
    make_epoch();
    grant_and_die(epoch(), 0, 0, "0", "0.001");
    assert_true(ledger_has(account, "0", "0.01"));
    struct ledger_call call = reserve(CALL);
    assert_int_equal(call.generation, 1);
    assert_true(field("free") == 9 * CALL);
    ledger_assert_sound();
}

static void a_later_grant_that_was_not_applied_is_applied_once(void)
{
    account = ledger_account("20");
    reserve(MONEY_USD(5));
    grant_and_die(epoch(), 1, 1, "0", "1");
    assert_int_equal(field("applied"), 1);
    money pending = lease_number("(pending * 1000000000000)::bigint", 1);
    reserve(MONEY_USD(1));
    assert_int_equal(field("applied"), 2);
    assert_true(field("free") == pending - MONEY_USD(1));
    ledger_assert_sound();
}

static int64_t apply_late(int64_t in_epoch, int generation, int grant)
{
    char texts[3][32];
    char key[48];
    struct arena arena;
    struct redis_value reply;
    snprintf(key, sizeof key, "lease:%lld", (long long)account);
    snprintf(texts[0], sizeof texts[0], "%lld", (long long)in_epoch);
    snprintf(texts[1], sizeof texts[1], "%d", generation);
    snprintf(texts[2], sizeof texts[2], "%d", grant);
    const struct str args[] = {str_from(key),      STR("lease:epoch"), str_from(texts[0]),
                               str_from(texts[1]), str_from(texts[2]), STR("5000000000000")};
    arena_init(&arena);
    assert_int_equal(
        redis_script(redis_shared(), &reply, &arena, "lease_apply.lua", args, ARRAY_SIZE(args), 2), 0);
    int64_t answer = reply.integer;
    arena_clear(&arena);
    return answer;
}

/* A process that was stopped with a grant in its hands for however long. */
static void a_grant_that_comes_late_is_not_applied_again(void)
{
    account = ledger_account("20");
    reserve(CALL);
    int64_t then = epoch();
    assert_int_equal(apply_late(then, 1, 1), 0); /* it was */
    assert_true(field("free") == MONEY_USD(5) - CALL);
    assert_int_equal(apply_late(then, 1, 3), -1); /* the one before was not */

    assert_int_equal(lease_recall(account), 0); /* over: the mark stays */
    assert_int_equal(apply_late(then, 1, 1), -1);
    assert_int_equal(field("gen"), -1);
    reserve(CALL);
    assert_int_equal(apply_late(then, 1, 1), -1); /* an older one never takes its place */
    assert_int_equal(field("gen"), 2);

    flush(); /* all is gone, and comes back as something else only */
    assert_int_equal(apply_late(then, 2, 1), -1);
    assert_int_equal(field("gen"), -1);
    make_epoch();
    assert_int_equal(apply_late(then, 2, 1), -1);
    ledger_assert_sound();
}

/* ---- what Redis loses ---- */

static void what_redis_lost_comes_back_when_its_calls_have_ended(void)
{
    account = ledger_account("20");
    struct ledger_call lost = reserve(MONEY_USD(2));
    flush();
    struct ledger_call call = reserve(MONEY_USD(2));
    assert_int_equal(call.generation, 2);
    assert_int_equal(lease_number("lost AND state = 'closed'", 1), 1);
    assert_int_equal(ledger_end_call(&lost, MONEY_USD(1), "late"),
                     0); /* charged to the first, nothing given to the second */
    assert_int_equal(lease_number("charged = 1", 1), 1);
    assert_int_equal(lease_number("charged = 0", 2), 1);
    assert_true(field("free") < MONEY_USD(5));

    assert_int_equal(lease_sweep(), 0); /* Redis has none of it; the calls may still run */
    assert_int_equal(lease_number("state = 'closed' AND fenced_at IS NOT NULL AND returned = 0", 1), 1);
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(lease_number("returned = 0", 1), 1);
    ledger_sql("UPDATE wallet_lease SET fenced_at = fenced_at - interval '11 minutes'");
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(lease_number("state = 'done' AND granted = 5 AND charged = 1 AND returned = 4", 1), 1);
    assert_int_equal(lease_number("state = 'open'", 2), 1);
    ledger_assert_sound();
}

/* "Insufficient balance" would be a lie then. */
static void money_that_redis_lost_is_not_called_none(void)
{
    struct ledger_call call;
    account = ledger_account("0.01");
    reserve(CALL);
    flush();
    assert_int_equal(ledger_reserve(&call, account, CALL), -EBUSY);
    assert_int_equal(ledger_reserve(&call, account, MONEY_USD(1)), -EDQUOT);
    assert_int_equal(lease_sweep(), 0);
    pass_time();
    assert_int_equal(lease_sweep(), 0);
    reserve(10 * CALL);
    ledger_assert_sound();
}

/* A stale look has closed a lease that lives: before its money comes back, the sweep has taken it away from Redis. */
static void a_closed_lease_that_redis_still_has_is_taken_from_it(void)
{
    account = ledger_account("20");
    reserve(MONEY_USD(1));
    ledger_sql("UPDATE wallet_lease SET state = 'closed', lost = true, closed_at = now()");
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(field("gen"), -1);
    assert_int_equal(lease_number("returned = 4 AND NOT lost", 1), 1); /* what was free at once */
    assert_int_equal(reserve(MONEY_USD(1)).generation, 2);
    ledger_assert_sound();
}

static int64_t spend_key(void)
{
    char key[64];
    struct arena arena;
    struct redis_value reply;
    int64_t value = -1;
    snprintf(key, sizeof key, "spend:%lld:%08lld", (long long)account,
             (long long)ledger_sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')::bigint"));
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("GET"), str_from(key)), 0);
    if (reply.type == REDIS_STRING)
        assert_true(str_to_i64(reply.text, &value));
    arena_clear(&arena);
    return value;
}

/* Data from the disk, older than what was spent since: what was free then must not be given out again. */
static void a_redis_with_older_data_has_lost_its_leases(void)
{
    char dump[96];
    struct arena arena;
    struct redis_value reply;
    struct ledger_call call;
    snprintf(dump, sizeof dump, "%s/dump.rdb", ledger_services.folder);
    account = ledger_account("0.01");
    reserve(CALL);
    assert_int_equal(lease_load_spend(account), 0);
    arena_init(&arena);
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("SAVE")), 0);
    arena_clear(&arena);
    reserve(9 * CALL);
    services_redis_stop(&ledger_services);
    UNTIL(!redis_is_up(redis_shared()));
    services_redis_start(&ledger_services);
    assert_int_equal(unlink(dump), 0);
    UNTIL(redis_is_up(redis_shared()));
    assert_int_equal(field("free"), -1);
    assert_int_equal(spend_key(), -1);
    assert_int_equal(ledger_reserve(&call, account, CALL), -EBUSY);
    ledger_assert_sound();
}

/* ---- taking back ---- */

static void a_lease_is_taken_back_but_for_what_calls_have_reserved(void)
{
    account = ledger_account("20");
    struct ledger_call call = reserve(MONEY_USD(2));
    assert_int_equal(lease_recall(account), 0);
    assert_true(ledger_has(account, "18", "2"));
    assert_int_equal(lease_recall(account), 0); /* nothing more */
    assert_true(ledger_has(account, "18", "2"));
    assert_int_equal(ledger_end_call(&call, MONEY_USD(2), "all"), 0);
    assert_true(ledger_has(account, "18", "0"));
    assert_int_equal(lease_sweep(), 0);
    assert_int_equal(lease_number("state = 'done'", 1), 1);
    ledger_assert_sound();
}

static void who_takes_back_and_dies_leaves_it_to_the_sweep(void)
{
    char key[48];
    struct arena arena;
    struct redis_value reply;
    struct ledger_call call;
    account = ledger_account("0.01");
    reserve(CALL);
    snprintf(key, sizeof key, "lease:%lld", (long long)account);
    const struct str args[] = {str_from(key), STR("1")};
    arena_init(&arena);
    assert_int_equal(redis_script(redis_shared(), &reply, &arena, "lease_take.lua", args, 2, 1), 0);
    assert_string_equal(reply.text.at, "9000000000");
    arena_clear(&arena);
    pass_time();
    assert_int_equal(ledger_reserve(&call, account, CALL), -EBUSY);
    assert_int_equal(lease_sweep(), 0);
    pass_time();
    assert_int_equal(lease_sweep(), 0);
    assert_true(ledger_has(account, "0.01", "0"));
    ledger_assert_sound();
}

static void idle_leases_come_back(void)
{
    account = ledger_account("20");
    struct ledger_call call = reserve(MONEY_USD(1));
    assert_int_equal(ledger_end_call(&call, MONEY_USD(1), "one"), 0);
    assert_int_equal(lease_sweep(), 0);
    assert_true(ledger_has(account, "15", "4"));
    ledger_sql("UPDATE wallet_lease SET touched_at = now() - interval '299 seconds'");
    assert_int_equal(lease_sweep(), 0);
    assert_true(ledger_has(account, "15", "4"));
    ledger_sql("UPDATE wallet_lease SET touched_at = now() - interval '301 seconds'");
    assert_int_equal(lease_sweep(), 0);
    assert_true(ledger_has(account, "19", "0"));
    assert_int_equal(lease_number("state = 'done'", 1), 1);
    ledger_assert_sound();
}

static void leases_are_forgotten_when_they_are_done_for_long(void)
{
    account = ledger_account("20");
    reserve(MONEY_USD(1));
    assert_int_equal(lease_recall(account), 0);
    pass_time();
    assert_int_equal(lease_sweep(), 0);
    reserve(MONEY_USD(1));
    ledger_sql("UPDATE wallet_lease SET closed_at = now() - interval '29 days' WHERE generation = 1");
    assert_int_equal(lease_forget(), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM wallet_lease"), 2);
    ledger_sql(
        "UPDATE wallet_lease SET closed_at = now() - interval '31 days'"); /* the open one is not done */
    assert_int_equal(lease_forget(), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM wallet_lease"), 1);
    assert_int_equal(lease_number("state = 'open'", 2), 1);
    ledger_assert_sound();
}

/* ---- charges ---- */

static void a_call_is_charged_once(void)
{
    account = ledger_account("20");
    struct ledger_call call = reserve(MONEY_USD(2));
    assert_int_equal(ledger_charge(&call, MONEY_USD(1), "job_1"), 0);
    assert_int_equal(ledger_charge(&call, MONEY_USD(1), "job_1"), 0);
    ledger_sql(
        "SELECT ledger_charge(array_fill(%lld::bigint, '{3}'), '{1,1,1}', '{0.5,0.5,0}', '{job_2,job_2,job_3}')",
        (long long)account);
    assert_true(ledger_has(account, "15", "3.5"));
    assert_int_equal(ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind = 'charge'"), 2);
    ledger_assert_sound();
}

/* A worker that was stopped for longer than a call may take. */
static void a_charge_after_the_end_is_paid_out_of_what_there_is(void)
{
    account = ledger_account("4");
    struct ledger_call call = reserve(MONEY_USD(1));
    assert_int_equal(lease_recall(account), 0);
    pass_time();
    assert_int_equal(lease_sweep(), 0);
    assert_true(ledger_has(account, "4", "0"));
    assert_int_equal(ledger_end_call(&call, MONEY_USD(1), "late"), 0);
    assert_int_equal(ledger_charge(&call, MONEY_USD(1), "late"), 0);
    assert_true(ledger_has(account, "3", "0"));
    assert_int_equal(ledger_charge(&call, MONEY_USD(5), "more than there is"), 0);
    assert_true(ledger_has(account, "0", "0"));
    assert_int_equal(
        ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind = 'overdue' AND amount IN (1, 3)"), 2);
    assert_int_equal(ledger_sql("SELECT count(*) FROM ledger_transfer WHERE kind = 'loss' AND amount = 2"),
                     1);
}

static void a_low_balance_is_told_once_a_crossing(void)
{
    ledger_sql("CREATE TABLE told (account bigint, balance numeric)");
    ledger_sql(
        "CREATE OR REPLACE FUNCTION wallet_low(account_id bigint, balance numeric) RETURNS void LANGUAGE sql AS "
        "$$ INSERT INTO told VALUES ($1, $2) $$");
    account = ledger_account("11");
    struct ledger_call call = reserve(MONEY_USD(3)); /* reserved is not spent, and lent is not gone */
    assert_int_equal(ledger_sql("SELECT count(*) FROM told"), 0);
    assert_int_equal(ledger_charge(&call, MONEY_USD(1), "to 10"), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM told"), 0);
    assert_int_equal(ledger_charge(&call, 1, "below"), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM told WHERE account = %lld AND balance = 9.999999999999",
                                (long long)account),
                     1);
    assert_int_equal(ledger_charge(&call, 1, "further below"), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM told"), 1);
    ledger_sql("SELECT ledger_move(%lld, 'credit', 1, 'up again')", (long long)account);
    assert_int_equal(ledger_charge(&call, MONEY_USD(1), "down again"), 0);
    assert_int_equal(ledger_sql("SELECT count(*) FROM told"), 2);
    account = ledger_account("9"); /* never was above */
    assert_int_equal(ledger_sql("SELECT count(*) FROM told"), 2);
    ledger_sql(
        "CREATE OR REPLACE FUNCTION wallet_low(account_id bigint, balance numeric) RETURNS void LANGUAGE sql AS "
        "$$ SELECT $$");
    ledger_sql("DROP TABLE told");
}

/* ---- the rest ---- */

static void run_one(int number)
{
    struct ledger_call call;
    (void)number;
    atomic_fetch_add(ledger_reserve(&call, account, CALL) == -ECANCELED ? &refused : &passed, 1);
}

static void run_canceled(void *arg)
{
    run_one(0);
    group_done(arg);
}

/* Whose client leaves, leaves the others. */
static void a_caller_may_leave(void)
{
    struct group group = {0};
    account = ledger_account("1");
    passed = refused = 0;
    group_add(&group);
    struct fiber *leaver = fiber_start(loop_self(), "leaver", run_canceled, &group);
    group_add(&group);
    fiber_start(loop_self(), "other", run_canceled, &group);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(leaver);
    assert_int_equal(group_wait(&group, "callers", CLOCK_NEVER), 0);
    assert_int_equal(refused, 1);
    assert_int_equal(passed, 1);
    ledger_assert_sound();
}

static void what_was_spent_today_is_put_there_once(void)
{
    account = ledger_account("20");
    assert_int_equal(lease_load_spend(account), 0);
    assert_int_equal(spend_key(), 0);
    struct ledger_call call = reserve(MONEY_USD(3));
    assert_int_equal(ledger_end_call(&call, MONEY_USD(2), "two"), 0);
    assert_int_equal(lease_load_spend(account), 0); /* what counts there is not written over */
    assert_int_equal(spend_key(), 0);
    flush();
    assert_int_equal(lease_load_spend(account), 0);
    assert_true(spend_key() == MONEY_USD(2));
    flush();
    ledger_sql("UPDATE wallet SET spend_day = spend_day - 1"); /* yesterday's does not count */
    assert_int_equal(lease_load_spend(account), 0);
    assert_int_equal(spend_key(), 0);
}

static void stores_that_are_away_are_told(void)
{
    struct ledger_call call;
    account = ledger_account("1");
    services_redis_stop(&ledger_services);
    UNTIL(!redis_is_up(redis_shared()));
    assert_int_equal(lease_refill(account, 0, 0, CALL), -ENOTCONN);
    services_redis_start(&ledger_services);
    UNTIL(redis_is_up(redis_shared()));
    assert_int_equal(ledger_reserve(&call, account, CALL), 0);
    ledger_assert_sound();
}

#define ON_LOOP(body)                                                                                        \
    static void on_loop_##body(void **state)                                                                 \
    {                                                                                                        \
        (void)state;                                                                                         \
        ledger_on_loop(body);                                                                                \
    }
#define TESTS(X)                                                                                             \
    X(a_slice_leaves_postgres_before_redis_has_it)                                                           \
    X(slices_are_as_large_as_is_needed)                                                                      \
    X(a_second_slice_follows_when_the_first_is_known_to_be_there)                                            \
    X(who_has_nothing_is_refused)                                                                            \
    X(a_wallet_that_is_held_is_waited_for)                                                                   \
    X(a_first_grant_that_was_not_applied_is_applied_by_the_next)                                             \
    X(a_later_grant_that_was_not_applied_is_applied_once)                                                    \
    X(a_grant_that_comes_late_is_not_applied_again)                                                          \
    X(what_redis_lost_comes_back_when_its_calls_have_ended)                                                  \
    X(money_that_redis_lost_is_not_called_none)                                                              \
    X(a_closed_lease_that_redis_still_has_is_taken_from_it)                                                  \
    X(a_redis_with_older_data_has_lost_its_leases)                                                           \
    X(a_lease_is_taken_back_but_for_what_calls_have_reserved)                                                \
    X(who_takes_back_and_dies_leaves_it_to_the_sweep)                                                        \
    X(idle_leases_come_back)                                                                                 \
    X(leases_are_forgotten_when_they_are_done_for_long)                                                      \
    X(a_call_is_charged_once)                                                                                \
    X(a_charge_after_the_end_is_paid_out_of_what_there_is)                                                   \
    X(a_low_balance_is_told_once_a_crossing)                                                                 \
    X(a_caller_may_leave)                                                                                    \
    X(what_was_spent_today_is_put_there_once)                                                                \
    X(stores_that_are_away_are_told)
TESTS(ON_LOOP)

int main(void)
{
#define TEST(body) cmocka_unit_test_setup(on_loop_##body, ledger_fixture_empty),
    const struct CMUnitTest tests[] = {
        TESTS(TEST)
            cmocka_unit_test_setup(an_account_that_can_pay_for_ten_calls_pays_ten, ledger_fixture_empty),
        cmocka_unit_test_setup(large_calls_are_refused_and_small_ones_pass, ledger_fixture_empty),
        cmocka_unit_test_setup(a_thousand_calls_sum_up, ledger_fixture_empty),
        cmocka_unit_test_setup(redis_may_be_emptied_at_any_moment, ledger_fixture_empty),
    };
    return cmocka_run_group_tests(tests, ledger_fixture_start, ledger_fixture_stop);
}
