/* Visits: against real stores and a real worker, whose pods are stubs. */
#include "core/base/metrics.h"
#include "core/run/fiber.h"
#include "core/store/bell.h"
#include "core/store/redis.h"
#include "test/unit/core/domain/instance/visit_fixture.h"

/* ---- many visitors at once ---- */

enum { VISITORS_MAX = 300 };

static struct visitor {
    struct str id;
    uint64_t deadline_ns;
    int result;
    uint64_t opened_ns;
    uint64_t generation;
    bool found; /* the pod was there */
} visitors[VISITORS_MAX];
static struct group visiting;

static void run_visitor(void *arg)
{
    struct visitor *visitor = arg;
    struct visit *visit;
    visitor->result = visit_open(visitor->id, VISIT_REQUEST, visitor->deadline_ns, &visit);
    visitor->opened_ns = clock_now_ns();
    if (visitor->result == 0) {
        visitor->generation = visit_generation(visit);
        visitor->found = stub_is_up(visitor->id, visit_port(visit), visit_generation(visit));
        visit_close(visit);
    }
    group_done(&visiting);
}

static void send_visitor(size_t number, struct str id, uint64_t patience_ms)
{
    visitors[number] = (struct visitor){.id = id, .deadline_ns = clock_in_ms(patience_ms)};
    group_add(&visiting);
    fiber_start(loop_self(), "visitor", run_visitor, &visitors[number]);
}

static void await_visitors(void)
{
    assert_int_equal(group_wait(&visiting, "visitors", clock_in_ms(60000)), 0);
}

static size_t count_results(size_t count, int result)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += visitors[i].result == result;
    return found;
}

/* ---- waking ---- */

static void hundred_visits(void)
{
    struct str id = new_instance();
    int64_t jobs = metric_read(M_JOBS_ADDED, JOB_SCALE);
    for (size_t i = 0; i < 100; i++)
        send_visitor(i, id, 20000);
    await_visitors();
    assert_int_equal(count_results(100, 0), 100);
    for (size_t i = 0; i < 100; i++)
        assert_true(visitors[i].found);
    assert_int_equal(stub_starts(), 1);
    assert_int_equal(metric_read(M_JOBS_ADDED, JOB_SCALE) - jobs, 1);
}

static void a_hundred_first_visits_start_one_pod_with_one_wake(void **state)
{
    (void)state;
    visit_set("WORKSPACE_HOLD_REQUESTS", "100");
    stub_set_start_ms(100);
    beside_worker(hundred_visits, false);
}

static void told_at_once(void)
{
    /* Longer than the first look, sooner than the next one that nobody has asked for. */
    for (int i = 0; i < 10; i++) {
        struct str id = new_instance();
        struct visit *visit = open_visit(id, VISIT_REQUEST);
        int64_t late_ms = clock_wall_ms() - row_of(id).state_ms;
        assert_true(late_ms < BELL_LOOK_MS / 2);
        visit_close(visit);
    }
}

static void visitors_hear_at_once_that_the_pod_is_awake(void **state)
{
    (void)state;
    stub_set_start_ms(300);
    beside_worker(told_at_once, false);
}

static void nobody_waits(void)
{
    struct str id = new_instance();
    struct visit *visit;
    assert_int_equal(visit_open(id, VISIT_REQUEST, clock_now_ns(), &visit), -ETIMEDOUT);
    UNTIL(row_of(id).state == INSTANCE_AWAKE);
}

static void a_pod_is_woken_even_when_the_visitor_does_not_wait(void **state)
{
    (void)state;
    beside_worker(nobody_waits, false);
}

static void hold_few(void)
{
    struct str first = new_instance();
    struct str second = new_instance();
    for (size_t i = 0; i < 20; i++)
        send_visitor(i, i < 10 ? first : second, 500);
    await_visitors();
    assert_int_equal(count_results(10, -ETIMEDOUT), 3);
    assert_int_equal(count_results(10, -EUSERS), 7);
    assert_int_equal(count_results(20, -ETIMEDOUT), 5);
    assert_int_equal(count_results(20, -EUSERS), 15);

    /* Those have left: there is room again, but not for more. */
    for (size_t i = 0; i < 10; i++)
        send_visitor(i, first, 100);
    await_visitors();
    assert_int_equal(count_results(10, -ETIMEDOUT), 3);
    assert_int_equal(count_results(10, -EUSERS), 7);
}

static void those_who_wait_for_a_pod_are_bounded_for_each_and_in_all(void **state)
{
    (void)state;
    visit_set("WORKSPACE_HOLD_REQUESTS", "3");
    visit_set("WORKSPACE_HOLD_TOTAL", "5");
    visit_on_loop(hold_few);
    visit_sql("DELETE FROM job; DELETE FROM instance");
}

static void burst(void)
{
    struct str id = new_instance();
    visit_close(open_visit(id, VISIT_REQUEST));
    assert_int_equal(fiber_sleep_ms(VISIT_ROUTE_MS + 50), 0);
    for (size_t i = 0; i < VISITORS_MAX; i++)
        send_visitor(i, id, 20000);
    await_visitors();
    assert_int_equal(count_results(VISITORS_MAX, 0), VISITORS_MAX);
}

static void a_burst_at_an_awake_pod_is_not_bounded(void **state)
{
    (void)state;
    visit_set("WORKSPACE_HOLD_REQUESTS", "1");
    beside_worker(burst, false);
}

static void none_of_that_name(void)
{
    struct visit *visit;
    assert_int_equal(visit_open(STR("nosuchinstance"), VISIT_REQUEST, clock_in_ms(20000), &visit), -ENOENT);

    struct str id = new_instance();
    visit_sql("UPDATE instance SET state = 'failed', state_at = now() WHERE id = '%s'", id.at);
    assert_int_equal(visit_open(id, VISIT_REQUEST, clock_in_ms(20000), &visit), -EBUSY);

    struct str deleted = new_instance();
    send_visitor(0, deleted, 20000);
    UNTIL(row_of(deleted).desired == 1);
    uint64_t now_ns = clock_now_ns();
    struct arena arena;
    arena_init(&arena);
    assert_int_equal(instance_delete(&arena, 1, deleted, STR_NONE), 0);
    arena_clear(&arena);
    await_visitors();
    assert_int_equal(visitors[0].result, -ENOENT);
    assert_true(visitors[0].opened_ns - now_ns < BELL_LOOK_MS * CLOCK_MS / 2);
}

static void what_is_not_there_or_has_just_failed_is_said_so_at_once(void **state)
{
    (void)state;
    visit_on_loop(none_of_that_name);
    visit_sql("DELETE FROM job; DELETE FROM instance");
}

/* ---- the hot path ---- */

static int64_t commands(void)
{
    return metric_read(M_REDIS_COMMANDS, 0) + metric_read(M_PG_STATEMENTS, 0);
}

/* An instance whose row says that it is awake, so that no worker is needed, which would issue commands of its own. */
static struct str new_awake(void)
{
    static int port = 5000;
    struct str id = new_instance();
    visit_sql("UPDATE instance SET state = 'awake', desired = 1, generation = 1, port = %d WHERE id = '%s'",
              ++port, id.at);
    return id;
}

static void steady(void)
{
    struct str id = new_awake();
    visit_close(open_visit(id, VISIT_REQUEST));
    int64_t before = commands();
    uint64_t began_ns = clock_now_ns();
    for (int i = 0; i < 2000; i++) {
        visit_close(open_visit(id, VISIT_REQUEST));
        if (i % 100 == 99)
            assert_int_equal(fiber_sleep_ms(50), 0);
    }
    /* Each second: two words to Redis, of two commands each; a look four times, a note. */
    int64_t seconds = (int64_t)((clock_now_ns() - began_ns) / CLOCK_SECOND) + 1;
    assert_true(commands() - before <= 12 * seconds);
}

static void steady_visits_cost_a_few_commands_a_second(void **state)
{
    (void)state;
    visit_on_loop(steady);
    visit_sql("DELETE FROM instance");
}

/* ---- what Redis is told ---- */

static void check_count(struct str id, bool known, int64_t requests, int64_t sockets)
{
    struct arena arena;
    bool is_known = !known;
    int64_t counts[2] = {-1, -1};
    uint64_t until_ns = clock_in_ms(10000);
    arena_init(&arena);
    while ((is_known != known || counts[0] != requests || counts[1] != sockets) &&
           clock_now_ns() < until_ns) {
        assert_int_equal(fiber_sleep_ms(2), 0);
        assert_int_equal(visits_count(&arena, id, &is_known, &counts[0], &counts[1]), 0);
        arena_clear(&arena);
    }
    assert_int_equal(is_known, known);
    assert_int_equal(counts[0], requests);
    assert_int_equal(counts[1], sockets);
}

static void redis_do(const struct str *words, size_t count)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, words, count), 0);
    arena_clear(&arena);
}

static void count_up_and_down(void)
{
    struct str id = new_instance();
    check_count(id, false, 0, 0);
    struct visit *first = open_visit(id, VISIT_REQUEST);
    struct visit *second = open_visit(id, VISIT_REQUEST);
    check_count(id, true, 2, 0);
    visit_to_socket(first);
    check_count(id, true, 1, 1);
    struct visit *third = open_visit(id, VISIT_SOCKET);
    visit_close(second);
    check_count(id, true, 0, 2);
    visit_close(third);
    visit_close(first);
    check_count(id, false, 0, 0);

    /* What another reactor says counts too, but not for ever. */
    char key[80];
    char word[64];
    snprintf(key, sizeof key, "visits:%s", id.at);
    snprintf(word, sizeof word, "3 4 %lld", (long long)clock_wall_s());
    redis_do(REDIS_ARGS(STR("HSET"), str_from(key), STR("bell:another"), str_from(word)));
    check_count(id, true, 3, 4);
    snprintf(word, sizeof word, "5 5 %lld", (long long)clock_wall_s() - VISIT_KEEP_S - 1);
    redis_do(REDIS_ARGS(STR("HSET"), str_from(key), STR("bell:dead"), str_from(word)));
    redis_do(REDIS_ARGS(STR("HSET"), str_from(key), STR("bell:odd"), STR("x")));
    check_count(id, true, 3, 4);
    first = open_visit(id, VISIT_REQUEST);
    check_count(id, true, 4, 4);
    visit_close(first);
}

static void redis_knows_who_visits(void **state)
{
    (void)state;
    beside_worker(count_up_and_down, false);
}

static void lasting(void)
{
    struct str id = new_instance();
    struct visit *socket = open_visit(id, VISIT_SOCKET);
    check_count(id, true, 0, 1);
    redis_do(REDIS_ARGS(STR("FLUSHALL")));
    check_count(id, true, 0, 1);
    char key[80];
    snprintf(key, sizeof key, "visits:%s", id.at);
    struct arena arena;
    struct redis_value left;
    arena_init(&arena);
    for (int i = 0; i < 35; i++) {
        assert_int_equal(fiber_sleep_ms(100), 0);
        assert_int_equal(redis_call(redis_shared(), &left, &arena, STR("PTTL"), str_from(key)), 0);
        assert_true(left.integer > VISIT_KEEP_S * 1000 / 2);
    }
    arena_clear(&arena);
    visit_close(socket);
}

static void an_open_socket_is_said_again_and_again(void **state)
{
    (void)state;
    beside_worker(lasting, false);
}

static struct str left_behind;

static void leave_in_a_hurry(void)
{
    left_behind = new_instance();
    struct visit *visit = open_visit(left_behind, VISIT_REQUEST);
    check_count(left_behind, true, 1, 0);
    visit_active(visit);
    visit_close(visit);
}

static void look_after_them(void)
{
    check_count(left_behind, false, 0, 0);
}

static void a_loop_that_ends_takes_its_word_back(void **state)
{
    (void)state;
    beside_worker(leave_in_a_hurry, false);
    visit_on_loop(look_after_them);
}

/* ---- activity ---- */

static void activity(void)
{
    struct str id = new_instance();
    struct visit *visit = open_visit(id, VISIT_SOCKET);
    for (int i = 0; i < 5; i++) {
        /* Written with the time at which it was, not with that of the writing. */
        visit_active(visit);
        int64_t active_ms = clock_wall_ms();
        UNTIL(row_of(id).last_activity_ms >= active_ms - 2);
        assert_true(row_of(id).last_activity_ms <= active_ms + 120);
    }
    /* Nothing more happens, nothing more is written; and a later time in the row stays. */
    visit_sql("UPDATE instance SET last_activity = now() + interval '1 minute' WHERE id = '%s'", id.at);
    int64_t ahead_ms = row_of(id).last_activity_ms;
    visit_active(visit);
    int64_t version = row_of(id).version;
    UNTIL(row_of(id).version > version);
    assert_int_equal(row_of(id).last_activity_ms, ahead_ms);
    version = row_of(id).version;
    assert_int_equal(fiber_sleep_ms(700), 0);
    assert_int_equal(row_of(id).version, version);
    visit_close(visit);
}

static void activity_is_noted_with_its_time_and_never_moves_back(void **state)
{
    (void)state;
    visit_set("IDLE_TIMEOUT_SECONDS", "2");
    beside_worker(activity, false);
}

static void many_notes(void)
{
    enum { COUNT = 40 };
    static struct visit *open[COUNT];
    struct str ids[COUNT];
    for (int i = 0; i < COUNT; i++)
        ids[i] = new_awake();
    for (int i = 0; i < COUNT; i++)
        open[i] = open_visit(ids[i], VISIT_SOCKET);
    assert_int_equal(fiber_sleep_ms(400), 0);
    int64_t before = metric_read(M_PG_STATEMENTS, 0);
    int64_t active_ms = clock_wall_ms();
    for (int i = 0; i < COUNT; i++)
        visit_active(open[i]);
    assert_int_equal(fiber_sleep_ms(600), 0);
    assert_true(metric_read(M_PG_STATEMENTS, 0) - before <= 3);
    for (int i = 0; i < COUNT; i++) {
        assert_true(row_of(ids[i]).last_activity_ms >= active_ms - 2);
        visit_close(open[i]);
    }
}

static void one_statement_notes_the_activity_of_many(void **state)
{
    (void)state;
    visit_set("IDLE_TIMEOUT_SECONDS", "2");
    visit_on_loop(many_notes);
    visit_sql("DELETE FROM instance");
}

static void idle_socket(void)
{
    struct str id = new_instance();
    struct visit *socket = open_visit(id, VISIT_SOCKET);
    uint64_t generation = visit_generation(socket);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(fiber_sleep_ms(100), 0);
        visit_active(socket);
        assert_true(stub_is_up(id, visit_port(socket), generation));
    }
    /* Open still, but nothing passes that counts. */
    UNTIL(row_of(id).state == INSTANCE_ASLEEP);
    visit_close(socket);
}

static void a_socket_keeps_the_pod_awake_only_by_what_passes(void **state)
{
    (void)state;
    visit_set("IDLE_TIMEOUT_SECONDS", "1");
    beside_worker(idle_socket, true);
}

/* ---- without Redis ---- */

static void without_redis(void)
{
    struct str id = new_instance();
    visit_close(open_visit(id, VISIT_REQUEST));
    services_redis_stop(&visit_services);
    while (redis_is_up(redis_shared()))
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(fiber_sleep_ms(VISIT_ROUTE_MS + 50), 0);
    struct visit *visit = open_visit(id, VISIT_REQUEST);
    services_redis_start(&visit_services);
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(20000)), 0);
    check_count(id, true, 1, 0);
    visit_close(visit);
}

static void visits_go_on_without_redis(void **state)
{
    (void)state;
    beside_worker(without_redis, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, fixture_defaults)
        CASE(a_hundred_first_visits_start_one_pod_with_one_wake),
        CASE(visitors_hear_at_once_that_the_pod_is_awake),
        CASE(a_pod_is_woken_even_when_the_visitor_does_not_wait),
        CASE(those_who_wait_for_a_pod_are_bounded_for_each_and_in_all),
        CASE(a_burst_at_an_awake_pod_is_not_bounded),
        CASE(what_is_not_there_or_has_just_failed_is_said_so_at_once),
        CASE(steady_visits_cost_a_few_commands_a_second),
        CASE(redis_knows_who_visits),
        CASE(an_open_socket_is_said_again_and_again),
        CASE(a_loop_that_ends_takes_its_word_back),
        CASE(activity_is_noted_with_its_time_and_never_moves_back),
        CASE(one_statement_notes_the_activity_of_many),
        CASE(a_socket_keeps_the_pod_awake_only_by_what_passes),
        CASE(visits_go_on_without_redis),
#undef CASE
    };
    return cmocka_run_group_tests(tests, visit_fixture_start, visit_fixture_stop);
}
