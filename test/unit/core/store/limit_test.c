/* Rate limits: never too many over two loops, right numbers for the headers, a local window without Redis. */
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

static struct limit_verdict take(const struct limit_policy *policy, struct str who)
{
    struct limit_verdict verdict;
    assert_int_equal(limit_take(policy, who, &verdict), 0);
    return verdict;
}

/* ---- one loop ---- */

static void numbers(void)
{
    const struct limit_policy policy = {"numbers", 3, WINDOW_S};
    int64_t now_s = clock_wall_s();
    int64_t ends_s = (now_s / WINDOW_S + 1) * WINDOW_S;
    for (uint64_t i = 1; i <= 5; i++) {
        struct limit_verdict verdict = take(&policy, STR("10.0.0.1"));
        assert_int_equal(verdict.allowed, i <= 3);
        assert_int_equal(verdict.limit, 3);
        assert_int_equal(verdict.remaining, i < 3 ? 3 - i : 0);
        assert_int_equal(verdict.reset_unix_s, ends_s);
        assert_in_range(verdict.retry_after_s, (uint64_t)(ends_s - now_s) - 60, (uint64_t)(ends_s - now_s));
    }
    assert_true(take(&policy, STR("10.0.0.2")).allowed);
    const struct limit_policy other = {"numbers-too", 3, WINDOW_S};
    assert_true(take(&other, STR("10.0.0.1")).allowed);
}

static void header_numbers_are_right_and_names_are_apart(void **state)
{
    (void)state;
    run(numbers);
}

static void time_to_live(void)
{
    const struct limit_policy policy = {"ttl", 3, 3600};
    const struct limit_policy leased = {"ttl-leased", 5000, 3600};
    static const char *const names[] = {"ttl", "ttl-leased"};
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    int64_t window = clock_wall_s() / 3600;
    take(&policy, STR("x"));
    take(&leased, STR("x"));
    if (clock_wall_s() / 3600 != window)
        window++;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char key[64];
        snprintf(key, sizeof key, "limit:%s:x:%lld", names[i], (long long)window);
        assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("TTL"), str_from(key)), 0);
        assert_in_range(reply.integer, 3500, 3610);
    }
    arena_clear(&arena);
}

static void counters_outlive_their_window_a_little(void **state)
{
    (void)state;
    run(time_to_live);
}

static void next_window(void)
{
    const struct limit_policy policies[] = {{"short", 2, 1}, {"short-leased", LIMIT_LEASE_FROM, 1}};
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

static void lease(void)
{
    enum { LIMIT = 2000, SLICE = LIMIT / 200 };
    const struct limit_policy policy = {"lease", LIMIT, WINDOW_S};
    int64_t before = metric_read(M_REDIS_COMMANDS, 0);
    for (uint64_t i = 1; i <= LIMIT; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_true(verdict.allowed);
        assert_int_equal(verdict.remaining, LIMIT - i);
    }
    /* Two commands a slice, none between. */
    assert_int_equal(metric_read(M_REDIS_COMMANDS, 0) - before, LIMIT / SLICE * 2);
    for (int i = 0; i < 3; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_false(verdict.allowed);
        assert_int_equal(verdict.remaining, 0);
    }
    assert_int_equal(metric_read(M_REDIS_COMMANDS, 0) - before, LIMIT / SLICE * 2);
}

static void lease_is_spent_without_a_round_trip(void **state)
{
    (void)state;
    run(lease);
}

/* ---- many fibers ---- */

static const struct limit_policy crowd_policy = {"crowd", 5000, WINDOW_S};
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
    int64_t before = metric_read(M_REDIS_COMMANDS, 0);
    for (int i = 0; i < 64; i++) {
        group_add(&crowd);
        fiber_start(loop_self(), "take", take_once, &allowed);
    }
    assert_int_equal(group_wait(&crowd, "all", clock_in_ms(20000)), 0);
    assert_int_equal(allowed, 64);
    /* 25 from the first slice, the other 39 from a second that is as large as they need. */
    assert_int_equal(metric_read(M_REDIS_COMMANDS, 0) - before, 4);
}

static void waiting_fibers_share_one_refill(void **state)
{
    (void)state;
    run(no_stampede);
}

struct taking {
    struct limit_verdict verdict;
    int result;
    bool ended;
};

static void take_for(void *arg)
{
    static const struct limit_policy policy = {"cancel", 5000, WINDOW_S};
    struct taking *taking = arg;
    taking->result = limit_take(&policy, STR("x"), &taking->verdict);
    taking->ended = true;
}

static void cancel_refill(void)
{
    struct taking asks = {0};
    struct taking waits = {0};
    struct taking leaves = {0};
    struct fiber *asking = fiber_start(loop_self(), "asks", take_for, &asks);
    fiber_start(loop_self(), "waits", take_for, &waits);
    struct fiber *leaving = fiber_start(loop_self(), "leaves", take_for, &leaves);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(asking);
    fiber_cancel(leaving);
    uint64_t end_ns = clock_in_ms(20000);
    while ((!asks.ended || !waits.ended || !leaves.ended) && clock_now_ns() < end_ns)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(asks.result, -ECANCELED);
    assert_int_equal(leaves.result, -ECANCELED);
    assert_true(waits.ended);
    assert_int_equal(waits.result, 0);
    assert_true(waits.verdict.allowed);
}

static void cancelled_refill_is_taken_over(void **state)
{
    (void)state;
    run(cancel_refill);
}

/* ---- two loops ---- */

enum { FIBERS = 64, LOOPS = 2 };

static const struct limit_policy *contested;
static _Atomic uint64_t admitted;
static _Atomic bool remaining_was_wrong;
static _Thread_local struct group contenders;

static void take_until_refused(void *unused)
{
    (void)unused;
    struct limit_verdict verdict;
    do {
        verdict = take(contested, STR("everyone"));
        atomic_fetch_add(&admitted, verdict.allowed);
        if (verdict.remaining >= contested->limit || (!verdict.allowed && verdict.remaining))
            atomic_store(&remaining_was_wrong, true);
    } while (verdict.allowed);
    group_done(&contenders);
}

static void contend(void)
{
    for (int i = 0; i < FIBERS; i++) {
        group_add(&contenders);
        fiber_start(loop_self(), "take", take_until_refused, NULL);
    }
    assert_int_equal(group_wait(&contenders, "all", clock_in_ms(60000)), 0);
}

static void *contending_thread(void *unused)
{
    (void)unused;
    run(contend);
    return NULL;
}

static void assert_admits_exactly(const struct limit_policy *policy)
{
    pthread_t threads[LOOPS];
    contested = policy;
    atomic_store(&admitted, 0);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contending_thread, NULL), 0);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    /* Every fiber goes on until it is refused, so that no leased slice is left unspent. */
    assert_int_equal(atomic_load(&admitted), policy->limit);
    assert_false(atomic_load(&remaining_was_wrong));
}

static void two_loops_admit_exactly_the_limit(void **state)
{
    (void)state;
    static const struct limit_policy policies[] = {
        {"counted", 700, WINDOW_S}, {"leased", 10007, WINDOW_S}, {"leased-one", LIMIT_LEASE_FROM, WINDOW_S}};
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
        assert_admits_exactly(&policies[i]);
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

/* ---- without Redis ---- */

static void wait_until_away(void)
{
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
}

static void away(void)
{
    const struct limit_policy policy = {"away", 3, WINDOW_S};
    const struct limit_policy leased = {"away-leased", LIMIT_LEASE_FROM, WINDOW_S};
    assert_true(take(&leased, STR("x")).allowed);
    services_redis_stop(&services);
    wait_until_away();
    int64_t local = metric_read(M_LIMIT_LOCAL, 0);
    for (uint64_t i = 1; i <= 5; i++) {
        struct limit_verdict verdict = take(&policy, STR("x"));
        assert_int_equal(verdict.allowed, i <= 3);
        assert_int_equal(verdict.remaining, i < 3 ? 3 - i : 0);
        assert_int_equal(verdict.limit, 3);
        assert_true(verdict.retry_after_s >= 1);
    }
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0) - local, 5);
    uint64_t allowed = 1;
    while (take(&leased, STR("x")).allowed)
        allowed++;
    /* What was left of the slice, then a local window. */
    assert_int_equal(allowed, LIMIT_LEASE_FROM / 200 + LIMIT_LEASE_FROM);

    services_redis_start(&services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    local = metric_read(M_LIMIT_LOCAL, 0);
    assert_true(take(&policy, STR("x")).allowed);
    assert_true(take(&leased, STR("x")).allowed);
    assert_int_equal(metric_read(M_LIMIT_LOCAL, 0), local);
}

static void local_window_takes_over_while_redis_is_away(void **state)
{
    (void)state;
    run(away);
}

static void full(void)
{
    const struct limit_policy policy = {"full", 2, WINDOW_S};
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    assert_int_equal(
        redis_call(redis_shared(), &reply, &arena, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("1")), 0);
    assert_true(take(&policy, STR("x")).allowed);
    assert_true(take(&policy, STR("x")).allowed);
    assert_false(take(&policy, STR("x")).allowed);
    assert_int_equal(
        redis_call(redis_shared(), &reply, &arena, STR("CONFIG"), STR("SET"), STR("maxmemory"), STR("0")), 0);
    arena_clear(&arena);
}

static void local_window_takes_over_while_redis_is_full(void **state)
{
    (void)state;
    run(full);
}

static void many_names(void)
{
    enum { NAMES = 6000 }; /* more than a loop remembers */
    const struct limit_policy policy = {"names", 2, WINDOW_S};
    services_redis_stop(&services);
    wait_until_away();
    for (int i = 0; i < NAMES; i++) {
        char who[16];
        int size = snprintf(who, sizeof who, "who%d", i);
        assert_int_equal(take(&policy, str_of(who, (size_t)size)).remaining, 1);
        assert_int_equal(take(&policy, STR("regular")).allowed, i < 2);
    }
    /* The one that is used all the time is kept; one of the first is forgotten. */
    assert_int_equal(take(&policy, STR("who0")).remaining, 1);
    assert_int_equal(take(&policy, STR("who5999")).remaining, 0);
    services_redis_start(&services);
}

static void names_not_used_for_longest_are_forgotten(void **state)
{
    (void)state;
    run(many_names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_numbers_are_right_and_names_are_apart),
        cmocka_unit_test(counters_outlive_their_window_a_little),
        cmocka_unit_test(next_window_begins_anew),
        cmocka_unit_test(lease_is_spent_without_a_round_trip),
        cmocka_unit_test(waiting_fibers_share_one_refill),
        cmocka_unit_test(cancelled_refill_is_taken_over),
        cmocka_unit_test(two_loops_admit_exactly_the_limit),
        cmocka_unit_test(local_window_takes_over_while_redis_is_away),
        cmocka_unit_test(local_window_takes_over_while_redis_is_full),
        cmocka_unit_test(names_not_used_for_longest_are_forgotten),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
