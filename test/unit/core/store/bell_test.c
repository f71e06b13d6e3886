/* Bells: on one loop, between two loops in threads of their own, and over a Redis that goes and comes. */
#include "core/store/bell.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/run/fiber.h"
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

static struct services services;

static void with_bells(void *arg)
{
    void (**body)(void) = arg;
    char error[256];
    CHECK(redis_open_loop(loop_self(), error, sizeof error) == 0);
    bell_open_loop(loop_self());
    CHECK(redis_wait_ready(redis_shared(), clock_in_ms(20000)) == 0);
    (*body)();
    bell_close_loop(loop_self());
    redis_close_loop(loop_self());
}

static void run(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", with_bells, &body);
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

static struct str own_address(void)
{
    return str_from(bell_address());
}

/* ---- one loop ---- */

static void one_loop(void)
{
    struct bell_ear a;
    struct bell_ear also_a;
    struct bell_ear b;
    assert_true(str_starts(own_address(), STR("bell:")));
    assert_true(own_address().size < BELL_ADDRESS_SIZE);
    bell_ear_open(&a, STR("a"));
    bell_ear_open(&also_a, STR("a"));
    bell_ear_open(&b, STR("b"));

    /* A ring before the wait counts, once. */
    bell_ring(own_address(), STR("a"));
    bell_ring(own_address(), STR("a"));
    assert_int_equal(bell_ear_wait(&a, "ring", clock_in_ms(20)), 0);
    assert_int_equal(bell_ear_wait(&a, "ring", clock_in_ms(20)), -ETIMEDOUT);
    assert_int_equal(bell_ear_wait(&also_a, "ring", clock_in_ms(20)), 0);
    assert_int_equal(bell_ear_wait(&b, "ring", clock_in_ms(20)), -ETIMEDOUT);

    /* After a timeout it is still heard. */
    bell_ring(own_address(), STR("b"));
    assert_int_equal(bell_ear_wait(&b, "ring", clock_in_ms(20)), 0);

    bell_ear_close(&also_a);
    bell_ring(own_address(), STR("a"));
    assert_int_equal(bell_ear_wait(&a, "ring", clock_in_ms(20)), 0);
    bell_ear_close(&a);
    bell_ear_close(&b);
    bell_ring(own_address(), STR("a"));
    bell_ring(STR_NONE, STR("a"));
}

static void ears_hear_their_topic_since_they_were_opened(void **state)
{
    (void)state;
    run(one_loop);
}

static void canceled_wait(void *arg)
{
    struct bell_ear ear;
    bell_ear_open(&ear, STR("never"));
    *(int *)arg = bell_ear_wait(&ear, "ring", CLOCK_NEVER);
    bell_ear_close(&ear);
}

static void cancel(void)
{
    int result = 1;
    struct fiber *fiber = fiber_start(loop_self(), "waiter", canceled_wait, &result);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(fiber);
    assert_int_equal(fiber_yield(), 0);
    assert_int_equal(result, -ECANCELED);
}

static void cancelled_wait_ends(void **state)
{
    (void)state;
    run(cancel);
}

static void many_topics(void)
{
    enum { COUNT = 1000 };
    static struct bell_ear ears[COUNT];
    static char names[COUNT][16];
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        bell_ear_open(&ears[i], str_from(names[i]));
    }
    for (int i = 0; i < COUNT; i += 7)
        bell_ring(own_address(), str_from(names[i]));
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(ears[i].wait.done, i % 7 == 0);
        bell_ear_close(&ears[i]);
    }
}

static void a_thousand_topics_are_told_apart(void **state)
{
    (void)state;
    run(many_topics);
}

static void without_redis(void)
{
    struct bell_ear ear;
    services_redis_stop(&services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    bell_ear_open(&ear, STR("here"));
    bell_ring(own_address(), STR("here"));
    bell_ring(STR("bell:elsewhere"), STR("here"));
    assert_int_equal(bell_ear_wait(&ear, "ring", clock_in_ms(20)), 0);
    bell_ear_close(&ear);
    services_redis_start(&services);
}

static void own_bell_rings_without_redis(void **state)
{
    (void)state;
    run(without_redis);
}

/* ---- announcements ---- */

/* How many connections listen to the channel of a topic. */
static int64_t listeners(const char *channel)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    CHECK(redis_call(redis_shared(), &reply, &arena, STR("PUBSUB"), STR("NUMSUB"), str_from(channel)) == 0);
    int64_t count = reply.items[1].integer;
    arena_clear(&arena);
    return count;
}

static void until_listeners(const char *channel, int64_t count)
{
    uint64_t end_ns = clock_in_ms(20000);
    while (listeners(channel) != count && clock_now_ns() < end_ns)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(listeners(channel), count);
}

static void first_to_last_ear(void)
{
    struct bell_ear first;
    struct bell_ear second;
    struct bell_ear plain;
    bell_ear_open(&plain, STR("pod"));
    assert_int_equal(listeners("announce:pod"), 0);
    bell_ear_open_announced(&first, STR("pod"));
    bell_ear_open_announced(&second, STR("pod"));
    until_listeners("announce:pod", 1);
    bell_ear_close(&first);
    bell_ear_close(&plain);

    /* From anywhere: here a stranger's PUBLISH. */
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    CHECK(redis_call(redis_shared(), &reply, &arena, STR("PUBLISH"), STR("announce:pod"), STR("")) == 0);
    assert_int_equal(reply.integer, 1);
    arena_clear(&arena);
    assert_int_equal(bell_ear_wait(&second, "ring", clock_in_ms(20000)), 0);

    bell_ear_close(&second);
    until_listeners("announce:pod", 0);
    bell_announce(STR("pod"));
    bell_ear_open_announced(&first, STR("pod"));
    until_listeners("announce:pod", 1);
    bell_ear_close(&first);
}

static void a_topic_is_listened_to_from_its_first_ear_to_its_last(void **state)
{
    (void)state;
    run(first_to_last_ear);
}

static void announced_without_redis(void)
{
    struct bell_ear ear;
    bell_ear_open_announced(&ear, STR("pod"));
    services_redis_stop(&services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    bell_announce(STR("other pod"));
    assert_int_equal(bell_ear_wait(&ear, "ring", clock_in_ms(20)), -ETIMEDOUT);
    bell_announce(STR("pod"));
    assert_int_equal(bell_ear_wait(&ear, "ring", clock_in_ms(20)), 0);
    services_redis_start(&services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    until_listeners("announce:pod", 1);
    bell_ear_close(&ear);
}

static void announcements_are_heard_here_without_redis_and_listened_to_again_with_it(void **state)
{
    (void)state;
    run(announced_without_redis);
}

/* ---- two loops ---- */

static struct {
    _Atomic(const char *) address;
    _Atomic unsigned heard;
    _Atomic unsigned announced;
    _Atomic bool stop;
} other;

static void listen_elsewhere(void)
{
    struct bell_ear ear;
    struct bell_ear announced;
    bell_ear_open(&ear, STR("topic\0with bytes"));
    bell_ear_open_announced(&announced, STR("announced\0topic"));
    atomic_store(&other.address, bell_address());
    while (!atomic_load(&other.stop)) {
        if (bell_ear_wait(&ear, "ring", clock_in_ms(10)) == 0)
            atomic_fetch_add(&other.heard, 1);
        if (bell_ear_wait(&announced, "ring", clock_in_ms(10)) == 0)
            atomic_fetch_add(&other.announced, 1);
    }
    bell_ear_close(&ear);
    bell_ear_close(&announced);
}

static void *other_thread(void *unused)
{
    (void)unused;
    run(listen_elsewhere);
    return NULL;
}

/* Rings until it is heard: one ring may be lost while the other loop's subscription is on its way. */
static void ring_until_heard(void)
{
    unsigned before = atomic_load(&other.heard);
    unsigned announced_before = atomic_load(&other.announced);
    uint64_t end_ns = clock_in_ms(20000);
    while ((atomic_load(&other.heard) == before || atomic_load(&other.announced) == announced_before) &&
           clock_now_ns() < end_ns) {
        bell_ring(str_from(atomic_load(&other.address)), STR("topic\0with bytes"));
        bell_announce(STR("announced\0topic"));
        assert_int_equal(fiber_sleep_ms(5), 0);
    }
    assert_true(atomic_load(&other.heard) > before);
    assert_true(atomic_load(&other.announced) > announced_before);
}

static void ring_elsewhere(void)
{
    while (!atomic_load(&other.address))
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_string_not_equal(atomic_load(&other.address), bell_address());
    ring_until_heard();

    services_redis_stop(&services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    services_redis_start(&services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    ring_until_heard();
}

static void another_loop_hears_its_bell_and_after_a_restart_again(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, NULL), 0);
    run(ring_elsewhere);
    atomic_store(&other.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ears_hear_their_topic_since_they_were_opened),
        cmocka_unit_test(cancelled_wait_ends),
        cmocka_unit_test(a_thousand_topics_are_told_apart),
        cmocka_unit_test(own_bell_rings_without_redis),
        cmocka_unit_test(a_topic_is_listened_to_from_its_first_ear_to_its_last),
        cmocka_unit_test(announcements_are_heard_here_without_redis_and_listened_to_again_with_it),
        cmocka_unit_test(another_loop_hears_its_bell_and_after_a_restart_again),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
