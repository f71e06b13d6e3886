/* The scale job beside visits: sleeps that wait for them, pods that they could not reach, ports in turn. */
#include "core/base/metrics.h"
#include "core/run/fiber.h"
#include "core/store/bell.h"
#include "core/store/redis.h"
#include "test/unit/core/domain/instance/visit_fixture.h"

/* ---- sleep ---- */

static uint64_t sleep_ms(struct str id)
{
    uint64_t began_ns = clock_now_ns();
    ask_to_sleep(id);
    UNTIL(row_of(id).state == INSTANCE_ASLEEP);
    return (clock_now_ns() - began_ns) / CLOCK_MS;
}

static void unvisited(void)
{
    struct arena arena;
    struct instance instance;
    struct str id = new_instance();
    arena_init(&arena);
    assert_int_equal(instance_wake(&arena, 1, id, &instance), 0);
    arena_clear(&arena);
    UNTIL(row_of(id).state == INSTANCE_AWAKE);
    assert_true(sleep_ms(id) < VISIT_ROUTE_MS);
}

static void a_pod_that_was_never_visited_sleeps_at_once(void **state)
{
    (void)state;
    beside_worker(unvisited, false);
}

static void in_flight(void)
{
    struct str id = new_instance();
    struct visit *request = open_visit(id, VISIT_REQUEST);
    struct visit *socket = open_visit(id, VISIT_SOCKET);
    ask_to_sleep(id);
    UNTIL(row_of(id).state == INSTANCE_DRAINING);
    assert_int_equal(fiber_sleep_ms(6500), 0); /* longer than one run of the job waits */
    assert_int_equal(row_of(id).state, INSTANCE_DRAINING);
    assert_true(stub_is_up(id, visit_port(request), visit_generation(request)));
    visit_close(request);
    uint64_t closed_ns = clock_now_ns();
    UNTIL(row_of(id).state == INSTANCE_ASLEEP);
    assert_true(clock_now_ns() - closed_ns < 3 * CLOCK_SECOND);
    visit_close(socket);
}

static void a_sleep_waits_for_requests_in_flight_but_not_for_sockets(void **state)
{
    (void)state;
    beside_worker(in_flight, false);
}

static void endless(void)
{
    struct str id = new_instance();
    struct visit *request = open_visit(id, VISIT_REQUEST);
    uint64_t slept_ms = sleep_ms(id);
    assert_true(slept_ms >= 1500 && slept_ms < 5000);
    visit_close(request);
}

static void a_sleep_waits_no_longer_than_a_drain_may_take(void **state)
{
    (void)state;
    visit_set("DRAIN_SECONDS", "2");
    beside_worker(endless, false);
}

static void without_redis(void)
{
    struct str id = new_instance();
    visit_close(open_visit(id, VISIT_REQUEST));
    services_redis_stop(&visit_services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    uint64_t slept_ms = sleep_ms(id);
    services_redis_start(&visit_services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    assert_true(slept_ms >= VISIT_ROUTE_MS);
}

static void a_sleep_without_redis_waits_until_nobody_can_know_the_way(void **state)
{
    (void)state;
    beside_worker(without_redis, false);
}

static void come_back(void)
{
    struct str id = new_instance();
    struct visit *request = open_visit(id, VISIT_REQUEST);
    ask_to_sleep(id);
    UNTIL(row_of(id).state == INSTANCE_DRAINING);
    assert_int_equal(fiber_sleep_ms(VISIT_ROUTE_MS + 50), 0);
    uint64_t began_ns = clock_now_ns();
    struct visit *other = open_visit(id, VISIT_REQUEST);
    assert_true(clock_now_ns() - began_ns < BELL_LOOK_MS * CLOCK_MS / 2);
    assert_int_equal(visit_generation(other), visit_generation(request));
    assert_int_equal(row_of(id).state, INSTANCE_AWAKE);
    visit_close(request);
    visit_close(other);
    assert_int_equal(stub_starts(), 1);
}

static void a_visit_while_the_pod_drains_makes_it_stay(void **state)
{
    (void)state;
    beside_worker(come_back, false);
}

/* ---- sleeps and visits against each other ---- */

enum { RACES = 12 };

static struct race {
    struct str id;
    int visits;
    int failed;
} races[RACES];
static uint64_t race_until_ns;
static struct group racing;

static unsigned random_below(unsigned most)
{
    static unsigned seed = 1;
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % most;
}

/* True when the pod that it was sent to was there from the beginning to the end. */
static bool visit_once(struct str id, uint64_t stay_ms)
{
    struct visit *visit;
    if (visit_open(id, VISIT_REQUEST, clock_in_ms(20000), &visit))
        return false;
    bool found = stub_is_up(id, visit_port(visit), visit_generation(visit));
    found =
        fiber_sleep_ms(stay_ms) == 0 && found && stub_is_up(id, visit_port(visit), visit_generation(visit));
    visit_close(visit);
    return found;
}

/* Comes in bursts, with pauses after which the pod may be in any state. */
static void run_racer(void *arg)
{
    struct race *race = arg;
    while (clock_now_ns() < race_until_ns) {
        for (unsigned left = 1 + random_below(4); left > 0; left--) {
            race->visits++;
            race->failed += !visit_once(race->id, 1 + random_below(30));
        }
        if (fiber_sleep_ms(random_below(1800)))
            break;
    }
    group_done(&racing);
}

static void run_sleeper(void *arg)
{
    struct race *race = arg;
    while (clock_now_ns() < race_until_ns) {
        ask_to_sleep(race->id);
        if (fiber_sleep_ms(50 + random_below(400)))
            break;
    }
    group_done(&racing);
}

static void run_races(void)
{
    race_until_ns = clock_in_ms(10000);
    for (int i = 0; i < RACES; i++) {
        races[i] = (struct race){.id = new_instance()};
        racing.count += 2;
        fiber_start(loop_self(), "racer", run_racer, &races[i]);
        fiber_start(loop_self(), "sleeper", run_sleeper, &races[i]);
    }
    assert_int_equal(group_wait(&racing, "racers", clock_in_ms(60000)), 0);
    int visits = 0;
    int failed = 0;
    for (int i = 0; i < RACES; i++) {
        visits += races[i].visits;
        failed += races[i].failed;
    }
    print_message("%d visits, %d pods started, %d visits failed\n", visits, stub_starts(), failed);
    assert_int_equal(failed, 0);
    assert_true(visits > 2 * RACES && stub_starts() > 2 * RACES);
}

static void no_visit_fails_however_often_the_pod_is_put_to_sleep(void **state)
{
    (void)state;
    beside_worker(run_races, false);
}

/* ---- pods that can't be reached ---- */

static void lost_pod(void)
{
    struct str id = new_instance();
    struct visit *visit = open_visit(id, VISIT_REQUEST);
    uint64_t generation = visit_generation(visit);
    stub_kill(id);
    visit_unreachable(visit);
    visit_unreachable(visit);
    visit_close(visit);
    visit = open_visit(id, VISIT_REQUEST);
    assert_true(visit_generation(visit) > generation);
    assert_true(stub_is_up(id, visit_port(visit), visit_generation(visit)));
    visit_close(visit);
    assert_int_equal(stub_starts(), 2);
}

static void a_pod_that_is_gone_is_started_anew(void **state)
{
    (void)state;
    beside_worker(lost_pod, false);
}

/* By one look at the row: two would be of different moments. */
static bool has_later_pod(struct str id, uint64_t generation)
{
    struct instance row = row_of(id);
    return row.state == INSTANCE_AWAKE && (uint64_t)row.generation > generation;
}

static void hung_pod(void)
{
    struct str id = new_instance();
    struct visit *visit = open_visit(id, VISIT_REQUEST);
    uint64_t generation = visit_generation(visit);
    stub_hang(id);
    /* Nobody comes any more: it is looked after all the same. */
    visit_unreachable(visit);
    visit_close(visit);
    UNTIL(has_later_pod(id, generation));
}

static void a_pod_that_hangs_is_started_anew(void **state)
{
    (void)state;
    visit_set("POD_CONNECT_TIMEOUT_MS", "100");
    beside_worker(hung_pod, false);
}

static void healthy_pod(void)
{
    struct str id = new_instance();
    struct visit *visit = open_visit(id, VISIT_REQUEST);
    int64_t jobs = metric_read(M_JOBS_ADDED, JOB_SCALE);
    uint64_t began_ns = clock_now_ns();
    for (int i = 0; i < 100; i++) {
        visit_unreachable(visit);
        struct visit *next = open_visit(id, VISIT_REQUEST);
        assert_int_equal(visit_generation(next), visit_generation(visit));
        visit_close(next);
    }
    assert_true(clock_now_ns() - began_ns < BELL_LOOK_MS * CLOCK_MS);
    assert_int_equal(metric_read(M_JOBS_ADDED, JOB_SCALE) - jobs, 1);
    visit_close(visit);
}

static void a_healthy_pod_that_could_not_be_reached_is_looked_at_once_a_second(void **state)
{
    (void)state;
    beside_worker(healthy_pod, false);
}

/* ---- ports ---- */

static void ports(void)
{
    int64_t port;
    int64_t last = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(instance_next_port(100, 109, &port), 0);
        assert_true(port >= 100 && port <= 109);
        if (last)
            assert_int_equal(port, last == 109 ? 100 : last + 1);
        last = port;
    }
    for (int64_t taken = 100; taken <= 109; taken++) {
        struct str id = new_instance();
        if (taken != 104)
            visit_sql("UPDATE instance SET port = %d WHERE id = '%s'", (int)taken, id.at);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(instance_next_port(100, 109, &port), 0);
        assert_int_equal(port, 104);
    }
    visit_sql("UPDATE instance SET port = 104 WHERE port IS NULL");
    assert_int_equal(instance_next_port(100, 109, &port), 0);
    assert_int_equal(port, 0);
}

static void ports_are_given_out_in_turn(void **state)
{
    (void)state;
    visit_on_loop(ports);
    visit_sql("DELETE FROM instance");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, fixture_defaults)
        CASE(a_pod_that_was_never_visited_sleeps_at_once),
        CASE(a_sleep_waits_for_requests_in_flight_but_not_for_sockets),
        CASE(a_sleep_waits_no_longer_than_a_drain_may_take),
        CASE(a_sleep_without_redis_waits_until_nobody_can_know_the_way),
        CASE(a_visit_while_the_pod_drains_makes_it_stay),
        CASE(no_visit_fails_however_often_the_pod_is_put_to_sleep),
        CASE(a_pod_that_is_gone_is_started_anew),
        CASE(a_pod_that_hangs_is_started_anew),
        CASE(a_healthy_pod_that_could_not_be_reached_is_looked_at_once_a_second),
        CASE(ports_are_given_out_in_turn),
#undef CASE
    };
    return cmocka_run_group_tests(tests, visit_fixture_start, visit_fixture_stop);
}
