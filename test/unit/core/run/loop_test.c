/* Turns, flush hooks, calls from other threads, rest. */
#include "core/run/loop.h"

#include "core/base/clock.h"
#include "core/run/fiber.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;

/* ---- posts ---- */

enum { POSTERS = 4, POSTS = 5000 };

struct poster {
    pthread_t thread;
    uintptr_t index;
    uintptr_t next; /* what must come next from it, on the loop's thread */
};

static struct poster posters[POSTERS];
static unsigned posted;

static void on_post(void *arg)
{
    uintptr_t value = (uintptr_t)arg;
    struct poster *poster = &posters[value % POSTERS];
    assert_ptr_equal(loop_self(), &loop);
    assert_int_equal(value / POSTERS, poster->next);
    poster->next++;
    if (++posted == POSTERS * POSTS)
        loop_stop(&loop);
}

static void *post_many(void *arg)
{
    const struct poster *poster = arg;
    for (uintptr_t i = 0; i < POSTS; i++)
        loop_post(&loop, on_post, (void *)(i * POSTERS + poster->index));
    return NULL;
}

/* A loop that only waits for posts has nothing to live for by itself. */
static void on_keep_alive(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("the posts did not come");
}

static void posts_from_threads_come_all_and_in_order(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    uv_timer_t alive;
    assert_int_equal(uv_timer_init(&loop.uv, &alive), 0);
    uv_timer_start(&alive, on_keep_alive, 60000, 0);
    for (uintptr_t i = 0; i < POSTERS; i++) {
        posters[i].index = i;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    loop_run(&loop);
    for (int i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_join(posters[i].thread, NULL), 0);
    assert_int_equal(posted, POSTERS * POSTS);
    uv_close((uv_handle_t *)&alive, NULL);
    loop_run(&loop);
    loop_close(&loop);
}

static void count_post(void *arg)
{
    ++*(int *)arg;
}

static void posts_that_nobody_ran_run_at_close(void **state)
{
    (void)state;
    int count = 0;
    loop_open(&loop, 0);
    loop_post(&loop, count_post, &count);
    loop_post(&loop, count_post, &count);
    loop_close(&loop);
    assert_int_equal(count, 2);
}

/* ---- flushes ---- */

struct counted_flush {
    struct flush flush;
    int runs;
    int again; /* how often it asks for itself once more */
};

static void on_flush(struct flush *flush)
{
    struct counted_flush *counted = CONTAINER_OF(flush, struct counted_flush, flush);
    assert_null(fiber_self());
    counted->runs++;
    if (counted->again-- > 0)
        loop_flush_later(&loop, flush);
}

static struct counted_flush shared = {.flush.run = on_flush};

static void run_asker(void *unused)
{
    (void)unused;
    loop_flush_later(&loop, &shared.flush);
    loop_flush_later(&loop, &shared.flush);
}

static void flush_task(void *unused)
{
    (void)unused;
    for (int i = 0; i < 10; i++)
        fiber_start(&loop, "asker", run_asker, NULL);
    loop_flush_later(&loop, &shared.flush);
    assert_int_equal(shared.runs, 0);
    assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(shared.runs, 1);
}

static void a_flush_runs_once_a_turn_however_often_it_is_asked_for(void **state)
{
    (void)state;
    shared.runs = 0;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", flush_task, NULL);
    loop_close(&loop);
}

static void flushes_asked_for_outside_a_turn_run(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    struct counted_flush wanted = {.flush.run = on_flush, .again = 100};
    struct counted_flush forgotten = {.flush.run = on_flush};
    loop_flush_forget(&forgotten.flush); /* never asked for */
    loop_flush_later(&loop, &wanted.flush);
    loop_flush_later(&loop, &forgotten.flush);
    loop_flush_forget(&forgotten.flush);
    loop_run(&loop);
    assert_int_equal(wanted.runs, 101);
    assert_int_equal(forgotten.runs, 0);
    loop_close(&loop);
}

struct forgetter {
    struct flush flush;
    struct counted_flush *other;
};

static void on_forget(struct flush *flush)
{
    loop_flush_forget(&CONTAINER_OF(flush, struct forgetter, flush)->other->flush);
}

static void a_flush_can_be_taken_back_by_another(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    struct counted_flush other = {.flush.run = on_flush};
    struct forgetter forgetter = {.flush.run = on_forget, .other = &other};
    loop_flush_later(&loop, &forgetter.flush);
    loop_flush_later(&loop, &other.flush);
    loop_run(&loop);
    assert_int_equal(other.runs, 0);
    loop_close(&loop);
}

/* A flush that asks for itself for ever does not keep the loop from its timers. */
static void on_endless(struct flush *flush)
{
    struct counted_flush *counted = CONTAINER_OF(flush, struct counted_flush, flush);
    if (counted->again)
        loop_flush_later(&loop, flush);
}

static void on_enough(uv_timer_t *timer)
{
    ((struct counted_flush *)timer->data)->again = 0;
}

static void busy_flushes_and_fibers_let_timers_run(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    struct counted_flush endless = {.flush.run = on_endless, .again = 1};
    uv_timer_t timer;
    assert_int_equal(uv_timer_init(&loop.uv, &timer), 0);
    timer.data = &endless;
    uv_timer_start(&timer, on_enough, 5, 0);
    loop_flush_later(&loop, &endless.flush);
    loop_run(&loop);
    uv_close((uv_handle_t *)&timer, NULL);
    loop_run(&loop);
    loop_close(&loop);
}

/* ---- stop, rest, close ---- */

static void stop_task(void *arg)
{
    assert_int_equal(fiber_sleep_ms(1), 0);
    ++*(int *)arg;
}

static void a_loop_runs_again_after_a_stop(void **state)
{
    (void)state;
    int runs = 0;
    loop_open(&loop, 0);
    loop_stop(&loop); /* before it runs: the run ends at once */
    loop_run(&loop);
    for (int i = 0; i < 3; i++)
        fiber_main(&loop, "test", stop_task, &runs);
    assert_int_equal(runs, 3);
    loop_close(&loop);
}

static double cpu_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void rest_task(void *unused)
{
    (void)unused;
    assert_int_equal(fiber_yield(), 0);
    double before = cpu_seconds();
    assert_int_equal(fiber_sleep_ms(500), 0);
    assert_true(cpu_seconds() - before < 0.02);
}

static void a_loop_at_rest_uses_no_cpu(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", rest_task, NULL);
    loop_close(&loop);
}

static void on_never(uv_timer_t *timer)
{
    (void)timer;
}

static void wait_forever(void *unused)
{
    (void)unused;
    struct wait wait = WAIT_INIT;
    (void)!wait_for(&wait, "nothing", CLOCK_NEVER);
}

/* What a child that closes a loop too early says before it aborts. */
static void assert_close_aborts(bool with_handle, const char *says)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        loop_open(&loop, 0);
        static uv_timer_t timer;
        if (with_handle) {
            uv_timer_init(&loop.uv, &timer);
            uv_timer_start(&timer, on_never, 60000, 0);
        } else {
            fiber_start(&loop, "GET /stuck", wait_forever, NULL);
            loop_run(&loop);
        }
        signal(SIGABRT, SIG_DFL);
        loop_close(&loop);
        _exit(0);
    }
    close(ends[1]);
    char text[8192];
    size_t size = 0;
    ssize_t count;
    while (size < sizeof text - 1 && (count = read(ends[0], text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)count;
    text[size] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_non_null(strstr(text, says));
}

static void closing_a_loop_that_is_not_empty_names_what_is_left(void **state)
{
    (void)state;
    assert_close_aborts(true, "\"type\":\"timer\"");
    assert_close_aborts(false, "\"name\":\"GET /stuck\",\"waits_for\":\"nothing\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_from_threads_come_all_and_in_order),
        cmocka_unit_test(posts_that_nobody_ran_run_at_close),
        cmocka_unit_test(a_flush_runs_once_a_turn_however_often_it_is_asked_for),
        cmocka_unit_test(flushes_asked_for_outside_a_turn_run),
        cmocka_unit_test(a_flush_can_be_taken_back_by_another),
        cmocka_unit_test(busy_flushes_and_fibers_let_timers_run),
        cmocka_unit_test(a_loop_runs_again_after_a_stop),
        cmocka_unit_test(a_loop_at_rest_uses_no_cpu),
        cmocka_unit_test(closing_a_loop_that_is_not_empty_names_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
