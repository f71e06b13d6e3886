/* Passwords are hashed off the loop: so many at once, first come first served, and not all who come may wait. */
#include "core/domain/identity/password.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/run/fiber.h"
#include "core/run/loop.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static void set(const char *name, const char *value)
{
    char error[256];
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static void run_body(void *arg)
{
    void (**body)(void) = arg;
    (*body)();
}

static void on_loop(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_body, &body);
    loop_close(&loop);
}

static void fits_body(void)
{
    char hash[CRYPTO_PASSWORD_SIZE];
    bool fits = false;
    assert_int_equal(password_hash(hash, STR("correct horse battery")), 0);
    assert_int_equal(password_check(str_from(hash), STR("correct horse battery"), &fits), 0);
    assert_true(fits);
    assert_int_equal(password_check(str_from(hash), STR("correct horse batterz"), &fits), 0);
    assert_false(fits);
    /* The hash is a slice, not a string. */
    char longer[CRYPTO_PASSWORD_SIZE + 1];
    snprintf(longer, sizeof longer, "%s!", hash);
    assert_int_equal(password_check(str_of(longer, strlen(hash)), STR("correct horse battery"), &fits), 0);
    assert_true(fits);
    assert_int_equal(password_check(str_from(longer), STR("correct horse battery"), &fits), 0);
    assert_false(fits);
}

static void a_password_fits_the_hash_that_was_made_of_it(void **state)
{
    (void)state;
    on_loop(fits_body);
}

/* Of all threads, so that what else the machine does counts for little. */
static uint64_t processor_ns(void)
{
    struct timespec time;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
    return (uint64_t)time.tv_sec * CLOCK_SECOND + (uint64_t)time.tv_nsec;
}

/* The best of five. */
static uint64_t cost_of(struct str hash)
{
    uint64_t least = CLOCK_NEVER;
    for (int i = 0; i < 5; i++) {
        bool fits = true;
        uint64_t began = processor_ns();
        assert_int_equal(password_check(hash, STR("a wrong password"), &fits), 0);
        uint64_t took = processor_ns() - began;
        least = took < least ? took : least;
        assert_false(fits);
    }
    return least;
}

static void nobody_body(void)
{
    char hash[CRYPTO_PASSWORD_SIZE];
    char damaged[CRYPTO_PASSWORD_SIZE + 40];
    memset(damaged, 'x', sizeof damaged);
    assert_int_equal(password_hash(hash, STR("the right password")), 0);
    uint64_t somebody = cost_of(str_from(hash));
    uint64_t nobody = cost_of(STR_NONE);
    /* What hashes nothing would take a thousandth. */
    assert_in_range(nobody, somebody / 3, somebody * 3);
    assert_in_range(cost_of(str_of(damaged, sizeof damaged)), somebody / 3, somebody * 3);
}

static void nobodys_password_takes_as_long_and_never_fits(void **state)
{
    (void)state;
    on_loop(nobody_body);
}

/* ---- many at once ---- */

enum { TASKS_MAX = 64 };

static struct task {
    struct fiber *fiber;
    int result;
    int place; /* in the order in which they ended */
    bool ended;
} tasks[TASKS_MAX];
static int ended;

static void check_one(void *arg)
{
    struct task *task = arg;
    bool fits;
    task->result = password_check(STR_NONE, STR("a password"), &fits);
    task->place = ended++;
    task->ended = true;
}

static void begin(int count)
{
    ended = 0;
    for (int i = 0; i < count; i++) {
        tasks[i] = (struct task){.result = 1};
        tasks[i].fiber = fiber_start(loop_self(), "task", check_one, &tasks[i]);
    }
}

static void bounded_body(void)
{
    enum { AT_ONCE = 2, ALL = 20 };
    begin(ALL);
    UNTIL(ended == ALL);
    /* 2 run, 8 wait, and the rest hear so before any of these is done. */
    int refused = 0;
    for (int i = 0; i < ALL; i++) {
        bool is_refused = i >= AT_ONCE * 5;
        refused += is_refused;
        assert_int_equal(tasks[i].result, is_refused ? -EBUSY : 0);
        assert_true((tasks[i].place < ALL - 10) == is_refused);
    }
    assert_int_equal(refused, 10);
    /* And the places are free again. */
    begin(10);
    UNTIL(ended == 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(tasks[i].result, 0);
}

static void so_many_wait_and_others_are_refused_at_once(void **state)
{
    (void)state;
    set("PASSWORD_HASHES", "2");
    on_loop(bounded_body);
}

static void fifo_body(void)
{
    begin(5);
    UNTIL(ended == 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tasks[i].result, 0);
        assert_int_equal(tasks[i].place, i);
    }
}

static void who_comes_first_is_served_first(void **state)
{
    (void)state;
    set("PASSWORD_HASHES", "1");
    on_loop(fifo_body);
}

static void cancelled_body(void)
{
    begin(5);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(tasks[2].fiber);
    fiber_cancel(tasks[0].fiber); /* it hashes already */
    UNTIL(ended == 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(tasks[i].result, i == 2 ? -ECANCELED : 0);
    begin(5);
    UNTIL(ended == 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(tasks[i].result, 0);
}

static void who_has_left_is_not_hashed_for_and_keeps_no_place(void **state)
{
    (void)state;
    set("PASSWORD_HASHES", "1");
    on_loop(cancelled_body);
}

/* ---- loops on threads ---- */

enum { THREADS = 4, ROUNDS = 6, AT_A_TIME = 4 };

static atomic_int good;
static atomic_int busy;
static atomic_int other;

static void check_often(void *unused)
{
    (void)unused;
    bool fits;
    for (int i = 0; i < ROUNDS; i++) {
        int result = password_check(STR_NONE, STR("a password"), &fits);
        atomic_fetch_add(result == 0 ? &good : result == -EBUSY ? &busy : &other, 1);
    }
}

static void several_body(void)
{
    for (int i = 0; i < AT_A_TIME; i++)
        fiber_start(loop_self(), "checker", check_often, NULL);
    while (loop_self()->fiber_count > 1)
        CHECK(fiber_sleep_ms(1) == 0);
}

static void *loop_main(void *unused)
{
    (void)unused;
    on_loop(several_body);
    return NULL;
}

static void loops_share_the_places(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    /* 3 run and 12 wait, of 16: some are refused, and no turn is lost between two threads. */
    set("PASSWORD_HASHES", "3");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, loop_main, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&other), 0);
    assert_int_equal(atomic_load(&good) + atomic_load(&busy), THREADS * ROUNDS * AT_A_TIME);
    assert_true(atomic_load(&good) >= 15);
}

static int start(void **state)
{
    char error[256];
    (void)state;
    crypto_init();
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    config_clear();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_password_fits_the_hash_that_was_made_of_it),
        cmocka_unit_test(nobodys_password_takes_as_long_and_never_fits),
        cmocka_unit_test(so_many_wait_and_others_are_refused_at_once),
        cmocka_unit_test(who_comes_first_is_served_first),
        cmocka_unit_test(who_has_left_is_not_hashed_for_and_keeps_no_place),
        cmocka_unit_test(loops_share_the_places),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
