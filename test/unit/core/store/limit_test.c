/* Rate limits: never too many over two loops, all or none of several, right numbers for the headers, a share without Redis. */
#include "core/store/limit.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "core/store/redis.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* So long that no test meets its end. */
enum { WINDOW_S = 1000000000 };

static struct services services;

static void with_limits(void *arg)
{
    void (**body)(void) = arg;
    char error[256];
    CHECK(redis_open_loop(loop_self(), error, sizeof error) == 0);
    CHECK(redis_wait_ready(redis_shared(), clock_in_ms(20000)) == 0);
    (*body)();
    limit_close_loop(loop_self());
    redis_close_loop(loop_self());
}

static void run(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", with_limits, &body);
    loop_close(&loop);
}

static int setup(void **state)
{
    (void)state;
    char error[256];
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&services, SERVICES_REDIS);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    CHECK(config_set("REACTORS", "2", error, sizeof error) == 0);
    return config_set("REDIS_URL", services.redis_url, error, sizeof error);
}

static int teardown(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    log_close();
    return 0;
}

static struct limit_verdict take_some(const struct limit_policy *policy, struct str who, uint64_t cost)
{
    const struct limit_charge charge = {*policy, who, cost};
    struct limit_verdict verdict;
    assert_int_equal(limit_take(&charge, 1, &verdict), 0);
    return verdict;
}

static struct limit_verdict take(const struct limit_policy *policy, struct str who)
{
    return take_some(policy, who, 1);
}

static struct limit_verdict take_all(const struct limit_charge *charges, size_t count)
{
    struct limit_verdict verdict;
    assert_int_equal(limit_take(charges, count, &verdict), 0);
    return verdict;
}

static uint64_t left_of(const struct limit_policy *policy, struct str who)
{
    const struct limit_charge charge = {*policy, who, 1};
    struct limit_verdict verdict;
    assert_int_equal(limit_look(&charge, 1, &verdict), 0);
    return verdict.remaining;
}

static void give_back(const struct limit_policy *policy, struct str who, uint64_t cost)
{
    limit_give_back(&(struct limit_charge){*policy, who, cost});
}

/* What a Redis command answers with, as a number. */
#define ASK_REDIS(...) ask_redis(REDIS_ARGS(__VA_ARGS__))
static int64_t ask_redis(const struct str *args, size_t count)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, args, count), 0);
    int64_t number = reply.integer;
    if (reply.type == REDIS_STRING)
        assert_true(str_to_i64(reply.text, &number));
    arena_clear(&arena);
    return number;
}

static int64_t rounds(void)
{
    return metric_read(M_LIMIT_ROUNDS, 0);
}

/* ---- one window ---- */

static void numbers(void)
{
    const struct limit_policy policy = {"numbers", 3, WINDOW_S, 0};
    int64_t now_s = clock_wall_s();
    int64_t ends_s = (now_s / WINDOW_S + 1) * WINDOW_S;
    for (uint64_t i = 1; i <= 5; i++) {
        struct limit_verdict verdict = take(&policy, STR("10.0.0.1"));
        assert_string_equal(verdict.name, "numbers");
        assert_int_equal(verdict.allowed, i <= 3);
        assert_int_equal(verdict.limit, 3);
        assert_int_equal(verdict.remaining, i < 3 ? 3 - i : 0);
        assert_int_equal(verdict.reset_unix_s, ends_s);
        assert_in_range(verdict.retry_after_s, (uint64_t)(ends_s - now_s) - 60, (uint64_t)(ends_s - now_s));
    }
    assert_true(take(&policy, STR("10.0.0.2")).allowed);
    const struct limit_policy other = {"numbers-too", 3, WINDOW_S, 0};
    assert_true(take(&other, STR("10.0.0.1")).allowed);
}

static void header_numbers_are_right_and_names_are_apart(void **state)
{
    (void)state;
    run(numbers);
}

static void nothing_asked(void)
{
    struct limit_verdict verdict;
    assert_int_equal(limit_take(NULL, 0, &verdict), 0);
    assert_true(verdict.allowed);
    assert_null(verdict.name);
}

static void no_limit_admits(void **state)
{
    (void)state;
    run(nothing_asked);
}

static void time_to_live(void)
{
    const struct limit_policy counted = {"ttl", 3, 3600, 0};
    const struct limit_policy leased = {"ttl-leased", 5000, 3600, 0};
    const struct limit_policy bucket = {"ttl-bucket", 60, 3600, 5};
    const struct limit_charge both[] = {{counted, STR("both"), 1}, {leased, STR("both"), 1}};
    static const char *const names[] = {"ttl:x", "ttl-leased:x", "ttl:both", "ttl-leased:both"};
    int64_t window = clock_wall_s() / 3600;
    take(&counted, STR("x"));
    take(&leased, STR("x"));
    take_all(both, ARRAY_SIZE(both));
    if (clock_wall_s() / 3600 != window)
        window++;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char key[64];
        snprintf(key, sizeof key, "limit:%s:%lld", names[i], (long long)window);
        assert_in_range(ASK_REDIS(STR("TTL"), str_from(key)), 3500, 3610);
    }
    /* Until it is full. */
    take_some(&bucket, STR("x"), 2);
    assert_in_range(ASK_REDIS(STR("TTL"), STR("limit:ttl-bucket:x:bucket")), 110, 121);
}

static void keys_outlive_their_use_a_little(void **state)
{
    (void)state;
    run(time_to_live);
}

static void next_window(void)
{
    const struct limit_policy policies[] = {{"short", 2, 1, 0}, {"short-leased", LIMIT_LEASE_FROM, 1, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        uint64_t end_ns = clock_in_ms(20000);
        struct limit_verdict verdict;
        while ((verdict = take(&policies[i], STR("x"))).allowed)
            assert_true(clock_now_ns() < end_ns);
        assert_int_equal(verdict.retry_after_s, 1);
        while (clock_wall_s() < verdict.reset_unix_s)
            assert_int_equal(fiber_sleep_ms(5), 0);
        struct limit_verdict next = take(&policies[i], STR("x"));
        assert_true(next.allowed);
        assert_true(next.reset_unix_s > verdict.reset_unix_s);
    }
}

static void next_window_begins_anew(void **state)
{
    (void)state;
    run(next_window);
}

static void dear(void)
{
    const struct limit_policy policies[] = {{"dear", 10, WINDOW_S, 0}, {"dear-leased", 1001, WINDOW_S, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        const struct limit_policy *policy = &policies[i];
        uint64_t most = policy->limit;
        assert_int_equal(take_some(policy, STR("x"), most - 3).remaining, 3);
        /* Refused, and nothing of the rest is spent. */
        struct limit_verdict refused = take_some(policy, STR("x"), 4);
        assert_false(refused.allowed);
        assert_int_equal(refused.remaining, 3);
        assert_false(take_some(policy, STR("x"), most + 1).allowed);
        assert_int_equal(take_some(policy, STR("x"), 2).remaining, 1);
        assert_true(take(policy, STR("x")).allowed);
        assert_false(take(policy, STR("x")).allowed);
    }
}

static void what_costs_more_than_is_left_spends_nothing(void **state)
{
    (void)state;
    run(dear);
}

/* ---- leases ---- */

static void lease(void)
{
    enum { LIMIT = 2000, SLICE = LIMIT / 200 };
    const struct limit_policy policy = {"lease", LIMIT, WINDOW_S, 0};
    int64_t before = rounds();
    for (uint64_t i = 1; i <= LIMIT; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_true(verdict.allowed);
        assert_int_equal(verdict.remaining, LIMIT - i);
    }
    assert_int_equal(rounds() - before, LIMIT / SLICE);
    for (int i = 0; i < 3; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_false(verdict.allowed);
        assert_int_equal(verdict.remaining, 0);
    }
    /* One asks; the rest is remembered. */
    assert_int_equal(rounds() - before, LIMIT / SLICE + 1);
}

static void lease_is_spent_without_a_round_trip(void **state)
{
    (void)state;
    run(lease);
}

static const struct limit_policy crowd_policy = {"crowd", 5000, WINDOW_S, 0};
static struct group crowd;

static void take_once(void *arg)
{
    unsigned *allowed = arg;
    *allowed += take(&crowd_policy, STR("x")).allowed;
    group_done(&crowd);
}

static void no_stampede(void)
{
    unsigned allowed = 0;
    int64_t before = rounds();
    for (int i = 0; i < 64; i++) {
        group_add(&crowd);
        fiber_start(loop_self(), "take", take_once, &allowed);
    }
    assert_int_equal(group_wait(&crowd, "all", clock_in_ms(20000)), 0);
    assert_int_equal(allowed, 64);
    /* 25 from the first slice, the other 39 from a second that is as large as they need. */
    assert_int_equal(rounds() - before, 2);
}

static void waiting_fibers_share_one_refill(void **state)
{
    (void)state;
    run(no_stampede);
}

struct taking {
    const struct limit_charge *charges;
    size_t count;
    struct limit_verdict verdict;
    int result;
    bool ended;
};

static void take_for(void *arg)
{
    struct taking *taking = arg;
    taking->result = limit_take(taking->charges, taking->count, &taking->verdict);
    taking->ended = true;
}

static void cancel_refill(void)
{
    const struct limit_charge charge = {{"cancel", 5000, WINDOW_S, 0}, STR("x"), 1};
    struct taking asks = {&charge, 1, .ended = false};
    struct taking waits = asks;
    struct taking leaves = asks;
    struct fiber *asking = fiber_start(loop_self(), "asks", take_for, &asks);
    fiber_start(loop_self(), "waits", take_for, &waits);
    struct fiber *leaving = fiber_start(loop_self(), "leaves", take_for, &leaves);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(asking);
    fiber_cancel(leaving);
    UNTIL(asks.ended && waits.ended && leaves.ended);
    assert_int_equal(asks.result, -ECANCELED);
    assert_int_equal(leaves.result, -ECANCELED);
    assert_int_equal(waits.result, 0);
    assert_true(waits.verdict.allowed);
}

static void cancelled_refill_is_taken_over(void **state)
{
    (void)state;
    run(cancel_refill);
}

/* ---- several at once ---- */

static void several(void)
{
    const struct limit_charge charges[] = {
        {{"several-address", 6000, WINDOW_S, 0}, STR("10.0.0.1"), 1},
        {{"several-minute", 4, WINDOW_S, 0}, STR("a1"), 1},
        {{"several-day", 100, WINDOW_S, 0}, STR("a1"), 1},
        {{"several-bucket", 50, WINDOW_S, 60}, STR("k1"), 1},
    };
    int64_t before = rounds();
    for (uint64_t i = 1; i <= 4; i++) {
        struct limit_verdict verdict = take_all(charges, ARRAY_SIZE(charges));
        /* What is nearest to its end is told. */
        assert_true(verdict.allowed);
        assert_string_equal(verdict.name, "several-minute");
        assert_int_equal(verdict.limit, 4);
        assert_int_equal(verdict.remaining, 4 - i);
    }
    assert_int_equal(rounds() - before, 4);
    struct limit_verdict refused = take_all(charges, ARRAY_SIZE(charges));
    assert_false(refused.allowed);
    assert_string_equal(refused.name, "several-minute");
    assert_int_equal(rounds() - before, 5);
    /* The refused one has spent nothing of the others, nor of the address's lease. */
    assert_int_equal(left_of(&charges[2].policy, STR("a1")), 96);
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:several-address:10.0.0.1:1")), 30);
    assert_int_equal(take(&charges[0].policy, STR("10.0.0.1")).remaining, 6000 - 5);
    assert_int_equal(take(&charges[3].policy, STR("k1")).remaining, 50);
}

static void all_are_charged_or_none(void **state)
{
    (void)state;
    run(several);
}

static void longest(void)
{
    const struct limit_charge charges[] = {
        {{"longest-minute", 1, 60, 0}, STR("x"), 1},
        {{"longest-all", 1, WINDOW_S, 0}, STR("x"), 1},
        {{"longest-bucket", 1, 3600, 1}, STR("x"), 1},
    };
    assert_true(take_all(charges, ARRAY_SIZE(charges)).allowed);
    struct limit_verdict verdict = take_all(charges, ARRAY_SIZE(charges));
    assert_false(verdict.allowed);
    assert_string_equal(verdict.name, "longest-all");
    assert_string_equal(take_all(charges, ARRAY_SIZE(charges)).name, "longest-all");
}

static void the_refusal_that_lasts_longest_is_told(void **state)
{
    (void)state;
    run(longest);
}

static void two_leases(void)
{
    const struct limit_charge charges[] = {
        {{"lease-a", 10000, WINDOW_S, 0}, STR("x"), 1},
        {{"lease-b", 10000, WINDOW_S, 0}, STR("x"), 1},
        {{"lease-c", 20000, WINDOW_S, 0}, STR("x"), 1},
        {{"lease-d", 40000, WINDOW_S, 0}, STR("x"), 1},
    };
    int64_t before = rounds();
    for (int i = 0; i < 50; i++)
        assert_true(take_all(charges, ARRAY_SIZE(charges)).allowed);
    assert_int_equal(rounds() - before, 1);
    assert_true(take_all(charges, ARRAY_SIZE(charges)).allowed);
    assert_int_equal(rounds() - before, 2);
}

static void leases_that_run_out_are_refilled_in_one_round_trip(void **state)
{
    (void)state;
    run(two_leases);
}

static void dry_lease(void)
{
    const struct limit_charge charges[] = {
        {{"dry-lease", 2000, WINDOW_S, 0}, STR("x"), 1},
        {{"dry-counted", 5, WINDOW_S, 0}, STR("x"), 1},
    };
    /* Others have it all, as this loop has yet to learn. */
    ASK_REDIS(STR("SET"), STR("limit:dry-lease:x:1"), STR("2000"));
    struct limit_verdict verdict = take_all(charges, 2);
    assert_false(verdict.allowed);
    assert_string_equal(verdict.name, "dry-lease");
    assert_int_equal(left_of(&charges[1].policy, STR("x")), 5);
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:dry-lease:x:1")), 2000);
}

static void a_lease_that_has_run_dry_charges_nothing_else(void **state)
{
    (void)state;
    run(dry_lease);
}

/* The lease has its last one; a take that Redis refuses has set it aside, and another that needs it comes meanwhile. */
static void last_of_a_lease(void)
{
    const struct limit_policy lease_policy = {"last-lease", LIMIT_LEASE_FROM, WINDOW_S, 0};
    const struct limit_policy spent = {"last-spent", 1, WINDOW_S, 0};
    const struct limit_charge refused[] = {{lease_policy, STR("x"), 1}, {spent, STR("x"), 1}};
    struct taking first = {refused, 2, .ended = false};
    struct taking second = {refused, 1, .ended = false};
    assert_int_equal(take_some(&lease_policy, STR("x"), LIMIT_LEASE_FROM - 1).remaining, 1);
    assert_false(
        take_some(&lease_policy, STR("x"), 2).allowed); /* Redis has no more, as the loop now knows */
    assert_int_equal(ASK_REDIS(STR("SET"), STR("limit:last-spent:x:1"), STR("1")), 0);
    fiber_start(loop_self(), "first", take_for, &first);
    fiber_start(loop_self(), "second", take_for, &second);
    UNTIL(first.ended && second.ended);
    assert_false(first.verdict.allowed);
    assert_string_equal(first.verdict.name, "last-spent");
    assert_true(second.verdict.allowed);
    assert_false(take(&lease_policy, STR("x")).allowed);
}

static void what_a_refused_take_set_aside_goes_to_who_waits(void **state)
{
    (void)state;
    run(last_of_a_lease);
}

/* ---- buckets ---- */

static void bucket_numbers(void)
{
    /* One in 100 s. */
    const struct limit_policy policy = {"bucket", 10, 1000, 20};
    int64_t begin_ms = clock_wall_ms();
    for (uint64_t i = 1; i <= 20; i++) {
        struct limit_verdict verdict = take(&policy, STR("k1"));
        int64_t full_ms = begin_ms + (i > 10 ? (int64_t)(i - 10) * 100000 : 0);
        assert_true(verdict.allowed);
        assert_int_equal(verdict.limit, 10);
        assert_int_equal(verdict.remaining, i > 10 ? 20 - i : 10);
        assert_in_range(verdict.reset_unix_s * 1000, full_ms, clock_wall_ms() + full_ms - begin_ms + 999);
    }
    for (int i = 0; i < 2; i++) {
        struct limit_verdict refused = take(&policy, STR("k1"));
        assert_false(refused.allowed);
        assert_int_equal(refused.remaining, 0);
        assert_in_range(refused.retry_after_s, 90, 100);
    }
    assert_in_range(take_some(&policy, STR("k1"), 3).retry_after_s, 290, 300);
    assert_true(take(&policy, STR("k2")).allowed);
}

static void bucket_tells_when_there_is_more(void **state)
{
    (void)state;
    run(bucket_numbers);
}

static void bucket_fills(void)
{
    const struct limit_policy policy = {"fills", 2, 1, 3};
    const struct limit_charge charge = {policy, STR("x"), 1};
    assert_int_equal(take_some(&policy, STR("x"), 3).remaining, 0);
    struct limit_verdict refused = take(&policy, STR("x"));
    assert_false(refused.allowed);
    assert_int_equal(refused.retry_after_s, 1);
    uint64_t begin_ns = clock_now_ns();
    assert_true(limit_is_spent(&charge, &refused));
    while (!take(&policy, STR("x")).allowed) {
        assert_true(clock_now_ns() - begin_ns < 30 * CLOCK_SECOND);
        assert_int_equal(fiber_sleep_ms(1), 0);
        /* Nor is it remembered for longer than it is so. */
        if (clock_now_ns() - begin_ns > 500 * CLOCK_MS)
            assert_false(limit_is_spent(&charge, &refused));
    }
    assert_true(clock_now_ns() - begin_ns > 300 * CLOCK_MS);
    assert_int_equal(fiber_sleep_ms(1000), 0);
    assert_true(take_some(&policy, STR("x"), 2).allowed);
}

static void bucket_is_filled_at_its_rate(void **state)
{
    (void)state;
    run(bucket_fills);
}

static void odd_clock(void)
{
    const struct limit_policy policy = {"odd", 1, 10, 5};
    /* Written before the server's clock was set back by years, and long ago. */
    ASK_REDIS(STR("SET"), STR("limit:odd:future:bucket"), STR("4000000000000000"));
    ASK_REDIS(STR("SET"), STR("limit:odd:past:bucket"), STR("1000000"));
    assert_in_range(take(&policy, STR("future")).retry_after_s, 9, 10);
    assert_int_equal(left_of(&policy, STR("future")), 0);
    assert_true(take_some(&policy, STR("past"), 5).allowed);
    assert_false(take(&policy, STR("past")).allowed);
    /* It is not closed until that year comes, but filled. */
    const struct limit_policy fast = {"odd-fast", 10, 1, 5};
    ASK_REDIS(STR("SET"), STR("limit:odd-fast:x:bucket"), STR("4000000000000000"));
    UNTIL(take_some(&fast, STR("x"), 2).allowed);
}

static void bucket_survives_a_clock_that_was_set(void **state)
{
    (void)state;
    run(odd_clock);
}

/* ---- remembered refusals ---- */

static void remembered(void)
{
    const struct limit_policy policies[] = {{"memory", 2, WINDOW_S, 0}, {"memory-bucket", 2, WINDOW_S, 2}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        struct limit_charge charge = {policies[i], STR("x"), 1};
        struct limit_verdict verdict;
        assert_false(limit_is_spent(&charge, &verdict));
        assert_true(take_some(&policies[i], STR("x"), 2).allowed);
        assert_false(limit_is_spent(&charge, &verdict));
        struct limit_verdict refused = take(&policies[i], STR("x"));
        int64_t before = rounds();
        int64_t commands = metric_read(M_REDIS_COMMANDS, 0);
        for (int j = 0; j < 100; j++) {
            struct limit_verdict again = take(&policies[i], STR("x"));
            assert_false(again.allowed);
            assert_in_range(refused.retry_after_s - again.retry_after_s, 0, 10);
            assert_in_range(again.reset_unix_s - refused.reset_unix_s, 0, 1);
        }
        assert_true(limit_is_spent(&charge, &verdict));
        assert_false(verdict.allowed);
        assert_string_equal(verdict.name, policies[i].name);
        assert_int_equal(rounds(), before);
        assert_int_equal(metric_read(M_REDIS_COMMANDS, 0), commands);
        /* One with more in its limit is another matter. */
        charge.policy.limit++;
        charge.policy.burst += charge.policy.burst ? 2 : 0;
        assert_false(limit_is_spent(&charge, &verdict));
        assert_true(take(&charge.policy, STR("x")).allowed);
    }
}

static void a_refusal_is_remembered_without_a_round_trip(void **state)
{
    (void)state;
    run(remembered);
}

static void forgotten(void)
{
    const struct limit_policy policies[] = {{"given", 1, WINDOW_S, 0},
                                            {"given-leased", LIMIT_LEASE_FROM, WINDOW_S, 0},
                                            {"given-bucket", 1, WINDOW_S, 1}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        while (take(&policies[i], STR("x")).allowed)
            ;
        /* Another server has given some back. */
        ASK_REDIS(STR("FLUSHALL"));
        UNTIL(take(&policies[i], STR("x")).allowed);
    }
}

static void a_refusal_is_not_remembered_for_long(void **state)
{
    (void)state;
    run(forgotten);
}

static void counters_stay_exact(void)
{
    const struct limit_policy policy = {"exact", 5, WINDOW_S, 0};
    const struct limit_policy leased = {"exact-leased", 1003, WINDOW_S, 0};
    while (take(&policy, STR("x")).allowed || take(&leased, STR("x")).allowed)
        ;
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:exact:x:1")), 5);
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:exact-leased:x:1")), 1003);
}

static void a_counter_never_says_more_than_the_limit(void **state)
{
    (void)state;
    run(counters_stay_exact);
}

/* ---- giving back ---- */

static void given_back(void)
{
    const struct limit_policy policies[] = {{"back", 3, WINDOW_S, 0},
                                            {"back-leased", LIMIT_LEASE_FROM, WINDOW_S, 0},
                                            {"back-bucket", 3, WINDOW_S, 3}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        const struct limit_policy *policy = &policies[i];
        uint64_t taken = 0;
        give_back(policy, STR("x"), 1); /* there is nothing */
        while (take(policy, STR("x")).allowed)
            taken++;
        assert_int_equal(taken, policy->limit);
        give_back(policy, STR("x"), 2);
        assert_int_equal(take(policy, STR("x")).remaining, 1);
        assert_int_equal(take(policy, STR("x")).remaining, 0);
        assert_false(take(policy, STR("x")).allowed);
    }
}

static void what_is_given_back_can_be_taken_again(void **state)
{
    (void)state;
    run(given_back);
}

static void late_gift(void)
{
    const struct limit_policy policies[] = {{"late", 5, 1, 0}, {"late-leased", LIMIT_LEASE_FROM, 1, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        const struct limit_policy *policy = &policies[i];
        struct limit_verdict first = take_some(policy, STR("x"), policy->limit);
        assert_true(first.allowed);
        while (clock_wall_s() < first.reset_unix_s)
            assert_int_equal(fiber_sleep_ms(5), 0);
        give_back(policy, STR("x"), 5);
        char key[64];
        snprintf(key, sizeof key, "limit:%s:x:%lld", policy->name, (long long)first.reset_unix_s);
        assert_int_equal(ASK_REDIS(STR("EXISTS"), str_from(key)), 0);
        assert_int_equal(take(policy, STR("x")).remaining, policy->limit - 1);
    }
}

static void nothing_is_given_to_a_later_window(void **state)
{
    (void)state;
    run(late_gift);
}

/* ---- looking ---- */

static void looked(void)
{
    const struct limit_charge charges[] = {
        {{"look", 5, WINDOW_S, 0}, STR("x"), 1},
        {{"look-leased", 2000, WINDOW_S, 0}, STR("x"), 1},
        {{"look-bucket", 4, WINDOW_S, 6}, STR("x"), 1},
        {{"look-spent", 1, WINDOW_S, 0}, STR("x"), 1},
    };
    enum { COUNT = ARRAY_SIZE(charges) };
    static const uint64_t before[COUNT] = {5, 2000, 4, 1};
    /* A slice is leased. */
    static const uint64_t after[COUNT] = {4, 1990, 4, 0};
    struct limit_verdict verdicts[COUNT];
    for (int round = 0; round < 3; round++) {
        int64_t rounds_before = rounds();
        assert_int_equal(limit_look(charges, COUNT, verdicts), 0);
        assert_int_equal(rounds() - rounds_before, 1);
        for (size_t i = 0; i < COUNT; i++) {
            assert_string_equal(verdicts[i].name, charges[i].policy.name);
            assert_int_equal(verdicts[i].limit, charges[i].policy.limit);
            assert_int_equal(verdicts[i].remaining, round ? after[i] : before[i]);
            assert_int_equal(verdicts[i].allowed, verdicts[i].remaining > 0);
        }
        if (round == 0)
            assert_true(take_all(charges, COUNT).allowed);
        else
            assert_false(take_all(charges, COUNT).allowed);
    }
}

static void looking_takes_nothing(void **state)
{
    (void)state;
    run(looked);
}

/* ---- two loops ---- */

enum { FIBERS = 64, LOOPS = 2 };

static void (*contest)(void);
static const struct limit_charge *contested;
static size_t contested_count;
static _Atomic uint64_t admitted;
static _Atomic bool remaining_was_wrong;
static uint64_t contest_ends_ns;
static _Thread_local struct group contenders;

static void contend(fiber_run *one)
{
    for (int i = 0; i < FIBERS; i++) {
        group_add(&contenders);
        fiber_start(loop_self(), "take", one, NULL);
    }
    assert_int_equal(group_wait(&contenders, "all", clock_in_ms(60000)), 0);
}

static void *contending_thread(void *unused)
{
    (void)unused;
    run(contest);
    return NULL;
}

static void run_in_two_loops(void (*body)(void))
{
    pthread_t threads[LOOPS];
    contest = body;
    atomic_store(&admitted, 0);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contending_thread, NULL), 0);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void take_until_refused(void *unused)
{
    (void)unused;
    struct limit_verdict verdict;
    do {
        verdict = take_all(contested, contested_count);
        atomic_fetch_add(&admitted, verdict.allowed);
        if (verdict.remaining >= verdict.limit || (!verdict.allowed && verdict.remaining))
            atomic_store(&remaining_was_wrong, true);
    } while (verdict.allowed);
    group_done(&contenders);
}

static void contend_until_refused(void)
{
    contend(take_until_refused);
}

/* What two loops that never saw it find left: what was not admitted, whatever was refused. A lease is in stock or spent. */
static void look_after_contest(void)
{
    for (size_t i = 0; i < contested_count; i++) {
        const struct limit_policy *policy = &contested[i].policy;
        if (policy->burst || policy->limit < LIMIT_LEASE_FROM)
            assert_int_equal(left_of(policy, contested[i].who), policy->limit - atomic_load(&admitted));
    }
}

static void assert_admits_exactly(uint64_t expected, const struct limit_charge *charges, size_t count)
{
    contested = charges;
    contested_count = count;
    /* Every fiber goes on until it is refused, so that no slice of what runs out is left unspent. */
    run_in_two_loops(contend_until_refused);
    assert_int_equal(atomic_load(&admitted), expected);
    assert_false(atomic_load(&remaining_was_wrong));
    run(look_after_contest);
}

static void two_loops_admit_exactly_the_limit(void **state)
{
    (void)state;
    static const struct limit_charge charges[] = {
        {{"counted", 700, WINDOW_S, 0}, {"x", 1}, 1},
        {{"leased", 10007, WINDOW_S, 0}, {"x", 1}, 1},
        {{"leased-one", LIMIT_LEASE_FROM, WINDOW_S, 0}, {"x", 1}, 1},
        {{"contested-bucket", 600, WINDOW_S, 600}, {"x", 1}, 1},
    };
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    for (size_t i = 0; i < ARRAY_SIZE(charges); i++)
        assert_admits_exactly(charges[i].policy.limit, &charges[i], 1);
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

static void two_loops_charge_all_or_none(void **state)
{
    (void)state;
    static const struct limit_charge windows[] = {
        {{"race-minute", 300, WINDOW_S, 0}, {"a", 1}, 1},
        {{"race-day", 900, WINDOW_S, 0}, {"a", 1}, 1},
        {{"race-bucket", 500, WINDOW_S, 500}, {"a", 1}, 1},
    };
    static const struct limit_charge bucket_last[] = {
        {{"race-address", 2000, WINDOW_S, 0}, {"b", 1}, 1},
        {{"race-hour", 800, WINDOW_S, 0}, {"b", 1}, 1},
        {{"race-bucket", 350, WINDOW_S, 350}, {"b", 1}, 1},
    };
    static const struct limit_charge lease_last[] = {
        {{"race-address", 3000, WINDOW_S, 0}, {"c", 1}, 1},
        {{"race-lease", 1003, WINDOW_S, 0}, {"c", 1}, 1},
        {{"race-bucket", 1500, WINDOW_S, 1500}, {"c", 1}, 1},
    };
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    assert_admits_exactly(300, windows, ARRAY_SIZE(windows));
    assert_admits_exactly(350, bucket_last, ARRAY_SIZE(bucket_last));
    assert_admits_exactly(1003, lease_last, ARRAY_SIZE(lease_last));
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

static void take_for_a_while(void *unused)
{
    (void)unused;
    while (clock_now_ns() < contest_ends_ns) {
        bool allowed = take_all(contested, contested_count).allowed;
        atomic_fetch_add(&admitted, allowed);
        if (!allowed)
            assert_int_equal(fiber_sleep_ms(1), 0);
    }
    group_done(&contenders);
}

static void contend_for_a_while(void)
{
    contend(take_for_a_while);
}

static void two_loops_never_get_more_than_burst_and_rate(void **state)
{
    (void)state;
    enum { RATE = 200, BURST = 40 };
    static const struct limit_charge charge = {{"flow", RATE, 1, BURST}, {"x", 1}, 1};
    contested = &charge;
    contested_count = 1;
    uint64_t begin_ns = clock_now_ns();
    contest_ends_ns = begin_ns + 2 * CLOCK_SECOND;
    run_in_two_loops(contend_for_a_while);
    uint64_t took_ms = (clock_now_ns() - begin_ns) / CLOCK_MS + 1;
    assert_in_range(atomic_load(&admitted), BURST + RATE, BURST + RATE * took_ms / 1000);
}

/* ---- without Redis ---- */

static void wait_until_away(void)
{
    UNTIL(!redis_is_up(redis_shared()));
}

static void away(void)
{
    const struct limit_policy policy = {"away", 6, WINDOW_S, 0};
    const struct limit_policy one = {"away-one", 1, WINDOW_S, 0};
    const struct limit_policy leased = {"away-leased", LIMIT_LEASE_FROM, WINDOW_S, 0};
    const struct limit_policy bucket = {"away-bucket", 8, WINDOW_S, 6};
    assert_true(take(&leased, STR("x")).allowed);
    services_redis_stop(&services);
    wait_until_away();
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    for (uint64_t i = 1; i <= 5; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_int_equal(verdict.allowed, i <= 3);
        assert_int_equal(verdict.remaining, i < 3 ? 3 - i : 0);
        assert_int_equal(verdict.limit, 6);
        assert_true(verdict.retry_after_s >= 1);
        assert_int_equal(take(&bucket, STR("x")).allowed, i <= 3);
        assert_int_equal(take(&one, STR("x")).allowed, i <= 1);
    }
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0) - local, 15);
    assert_int_equal(left_of(&policy, STR("x")), 0);
    give_back(&policy, STR("x"), 1);
    give_back(&bucket, STR("x"), 1);
    assert_true(take(&policy, STR("x")).allowed);
    assert_true(take(&bucket, STR("x")).allowed);
    uint64_t allowed = 1;
    while (take(&leased, STR("x")).allowed)
        allowed++;
    /* What was left of the slice, then this loop's half. */
    assert_int_equal(allowed, LIMIT_LEASE_FROM / 200 + LIMIT_LEASE_FROM / 2);

    services_redis_start(&services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    local = metric_read(M_LIMIT_LOCAL, 0);
    assert_true(take(&policy, STR("x")).allowed);
    assert_true(take(&leased, STR("x")).allowed);
    assert_true(take(&bucket, STR("x")).allowed);
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

static void each_loop_has_its_share_while_redis_is_away(void **state)
{
    (void)state;
    run(away);
}

static void away_with_several(void)
{
    const struct limit_charge charges[] = {
        {{"apart", 10, WINDOW_S, 0}, STR("x"), 1},
        {{"apart-less", 4, WINDOW_S, 0}, STR("x"), 1},
        {{"apart-bucket", 10, WINDOW_S, 10}, STR("x"), 1},
    };
    struct limit_verdict verdict;
    services_redis_stop(&services);
    wait_until_away();
    assert_true(take_all(charges, 3).allowed);
    assert_false(limit_is_spent(&charges[1], &verdict));
    assert_int_equal(take_all(charges, 3).remaining, 0);
    for (int i = 0; i < 3; i++) {
        verdict = take_all(charges, 3);
        assert_false(verdict.allowed);
        assert_string_equal(verdict.name, "apart-less");
    }
    assert_true(limit_is_spent(&charges[1], &verdict));
    assert_int_equal(left_of(&charges[0].policy, STR("x")), 3);
    assert_int_equal(left_of(&charges[2].policy, STR("x")), 3);
    services_redis_start(&services);
}

static void all_or_none_holds_without_redis(void **state)
{
    (void)state;
    run(away_with_several);
}

static void full(void)
{
    const struct limit_policy policy = {"full", 4, WINDOW_S, 0};
    const struct limit_charge both[] = {
        {{"full-minute", 4, WINDOW_S, 0}, STR("x"), 1},
        {{"full-day", 100, WINDOW_S, 0}, STR("x"), 1},
    };
    ASK_REDIS(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(take(&policy, STR("x")).allowed, i < 2);
        assert_int_equal(take_all(both, 2).allowed, i < 2);
    }
    ASK_REDIS(STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0"));
    assert_true(take_all(both, 2).allowed);
    assert_int_equal(left_of(&both[1].policy, STR("x")), 99);
}

static void each_loop_has_its_share_while_redis_is_full(void **state)
{
    (void)state;
    run(full);
}

static void script_lost(void)
{
    const struct limit_charge both[] = {
        {{"lost-minute", 4, WINDOW_S, 0}, STR("x"), 1},
        {{"lost-day", 100, WINDOW_S, 0}, STR("x"), 1},
    };
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    assert_int_equal(take_all(both, 2).remaining, 3);
    ASK_REDIS(STR("SCRIPT"), STR("FLUSH"));
    assert_int_equal(take_all(both, 2).remaining, 2);
    ASK_REDIS(STR("FLUSHALL"));
    assert_int_equal(take_all(both, 2).remaining, 3);
    services_redis_stop(&services);
    wait_until_away();
    services_redis_start(&services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    assert_int_equal(take_all(both, 2).remaining, 3);
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

static void a_lost_script_is_loaded_again(void **state)
{
    (void)state;
    run(script_lost);
}

/* ---- what a loop remembers ---- */

enum { NAMES = 20000 }; /* more than it remembers */

static struct str name_number(char text[16], int number)
{
    return str_of(text, (size_t)snprintf(text, 16, "who%d", number));
}

static void many_names(void)
{
    const struct limit_policy policy = {"names", 4, WINDOW_S, 0};
    char text[16];
    services_redis_stop(&services);
    wait_until_away();
    for (int i = 0; i < NAMES; i++) {
        assert_int_equal(take(&policy, name_number(text, i)).remaining, 1);
        assert_int_equal(take(&policy, STR("regular")).allowed, i < 2);
    }
    /* The one that is used all the time is kept; one of the first is forgotten. */
    assert_int_equal(take(&policy, STR("who0")).remaining, 1);
    assert_int_equal(take(&policy, name_number(text, NAMES - 1)).remaining, 0);
    services_redis_start(&services);
}

static void names_not_used_for_longest_are_forgotten(void **state)
{
    (void)state;
    run(many_names);
}

static void forgotten_lease(void)
{
    const struct limit_policy leased = {"forgotten", 2000, WINDOW_S, 0};
    const struct limit_policy policy = {"others", 2, WINDOW_S, 0};
    const struct limit_charge look = {leased, STR("x"), 1};
    struct limit_verdict verdict;
    char text[16];
    take(&leased, STR("x"));
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:forgotten:x:1")), 10);
    for (int i = 0; i < NAMES; i++)
        assert_false(limit_is_spent(&(struct limit_charge){policy, name_number(text, i), 1}, &verdict));
    /* Asking for what nobody has taken makes room for nothing. */
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:forgotten:x:1")), 10);
    for (int i = 0; i < NAMES; i++)
        give_back(&policy, name_number(text, i), 1);
    assert_int_equal(ASK_REDIS(STR("GET"), STR("limit:forgotten:x:1")), 1);
    assert_int_equal(limit_look(&look, 1, &verdict), 0);
    assert_int_equal(verdict.remaining, 1999);
}

static void a_forgotten_lease_goes_back(void **state)
{
    (void)state;
    run(forgotten_lease);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_numbers_are_right_and_names_are_apart),
        cmocka_unit_test(no_limit_admits),
        cmocka_unit_test(keys_outlive_their_use_a_little),
        cmocka_unit_test(next_window_begins_anew),
        cmocka_unit_test(what_costs_more_than_is_left_spends_nothing),
        cmocka_unit_test(lease_is_spent_without_a_round_trip),
        cmocka_unit_test(waiting_fibers_share_one_refill),
        cmocka_unit_test(cancelled_refill_is_taken_over),
        cmocka_unit_test(all_are_charged_or_none),
        cmocka_unit_test(the_refusal_that_lasts_longest_is_told),
        cmocka_unit_test(leases_that_run_out_are_refilled_in_one_round_trip),
        cmocka_unit_test(a_lease_that_has_run_dry_charges_nothing_else),
        cmocka_unit_test(what_a_refused_take_set_aside_goes_to_who_waits),
        cmocka_unit_test(bucket_tells_when_there_is_more),
        cmocka_unit_test(bucket_is_filled_at_its_rate),
        cmocka_unit_test(bucket_survives_a_clock_that_was_set),
        cmocka_unit_test(a_refusal_is_remembered_without_a_round_trip),
        cmocka_unit_test(a_refusal_is_not_remembered_for_long),
        cmocka_unit_test(a_counter_never_says_more_than_the_limit),
        cmocka_unit_test(what_is_given_back_can_be_taken_again),
        cmocka_unit_test(nothing_is_given_to_a_later_window),
        cmocka_unit_test(looking_takes_nothing),
        cmocka_unit_test(two_loops_admit_exactly_the_limit),
        cmocka_unit_test(two_loops_charge_all_or_none),
        cmocka_unit_test(two_loops_never_get_more_than_burst_and_rate),
        cmocka_unit_test(each_loop_has_its_share_while_redis_is_away),
        cmocka_unit_test(all_or_none_holds_without_redis),
        cmocka_unit_test(each_loop_has_its_share_while_redis_is_full),
        cmocka_unit_test(a_lost_script_is_loaded_again),
        cmocka_unit_test(names_not_used_for_longest_are_forgotten),
        cmocka_unit_test(a_forgotten_lease_goes_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
