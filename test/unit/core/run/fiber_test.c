/* Waiting, cancelling, gates, threads and stacks of fibers. */
#include "core/run/sync.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Each test is a fiber on a loop of its own, which must close empty. */
static struct loop loop;

static void in_loop(fiber_run *run)
{
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run, NULL);
    loop_close(&loop);
}

/* Runs the ready fibers until none has anything more to do at once. */
static void let_others_run(void)
{
    for (int i = 0; i < 5; i++)
        assert_int_equal(fiber_yield(), 0);
}

/* What a helper fiber waits for, and what came of it. */
struct waiter {
    struct wait wait;
    struct fiber *fiber;
    uint64_t timeout_ms; /* 0: none */
    int result;
    int later_result; /* of a second wait */
    bool ended;
};

static void run_waiter(void *arg)
{
    struct waiter *waiter = arg;
    waiter->result = wait_for(&waiter->wait, "something",
                              waiter->timeout_ms ? clock_in_ms(waiter->timeout_ms) : CLOCK_NEVER);
    struct wait second = WAIT_INIT;
    waiter->later_result = wait_for(&second, "something else", clock_in_ms(1));
    waiter->ended = true;
}

static void start_waiter(struct waiter *waiter)
{
    waiter->fiber = fiber_start(&loop, "waiter", run_waiter, waiter);
}

static void until_ended(struct waiter *waiter)
{
    while (!waiter->ended)
        assert_int_equal(fiber_sleep_ms(1), 0);
}

static void wait_done_task(void *unused)
{
    (void)unused;
    struct wait wait = WAIT_INIT;
    wait_done(&wait, 7);
    wait_done(&wait, 8); /* the first counts */
    assert_int_equal(wait_for(&wait, "done before", CLOCK_NEVER), 7);
    struct waiter waiter = {.timeout_ms = 0};
    start_waiter(&waiter);
    let_others_run();
    assert_false(waiter.ended);
    wait_done(&waiter.wait, 42);
    wait_done(&waiter.wait, 43);
    until_ended(&waiter);
    assert_int_equal(waiter.result, 42);
    assert_int_equal(waiter.later_result, -ETIMEDOUT);
}

static void wait_done_counts_before_and_after_wait_for(void **state)
{
    (void)state;
    in_loop(wait_done_task);
}

static void timeout_task(void *unused)
{
    (void)unused;
    uint64_t before = clock_now_ns();
    struct wait wait = WAIT_INIT;
    assert_int_equal(wait_for(&wait, "nothing", clock_in_ms(20)), -ETIMEDOUT);
    uint64_t waited = clock_now_ns() - before;
    assert_true(waited >= 20 * CLOCK_MS && waited < 2 * CLOCK_SECOND);
    assert_int_equal(wait_for(&wait, "the past", before), -ETIMEDOUT);
    before = clock_now_ns();
    assert_int_equal(fiber_sleep_ms(20), 0);
    assert_true(clock_now_ns() - before >= 20 * CLOCK_MS);
    /* An answer that comes with the timeout of another is not lost. */
    struct waiter waiter = {.timeout_ms = 5};
    start_waiter(&waiter);
    until_ended(&waiter);
    assert_int_equal(waiter.result, -ETIMEDOUT);
}

static void a_wait_ends_at_its_deadline_and_not_before(void **state)
{
    (void)state;
    in_loop(timeout_task);
}

static void cancel_task(void *unused)
{
    (void)unused;
    struct waiter waiter = {.timeout_ms = 0};
    start_waiter(&waiter);
    let_others_run();
    fiber_cancel(waiter.fiber);
    fiber_cancel(waiter.fiber);
    until_ended(&waiter);
    assert_int_equal(waiter.result, -ECANCELED);
    assert_int_equal(waiter.later_result, -ECANCELED);
    struct waiter unstarted = {.timeout_ms = 0};
    start_waiter(&unstarted);
    fiber_cancel(unstarted.fiber); /* before it has run at all */
    until_ended(&unstarted);
    assert_int_equal(unstarted.result, -ECANCELED);
}

static void cancel_ends_the_present_wait_and_every_later_one(void **state)
{
    (void)state;
    in_loop(cancel_task);
}

static void cancel_ready_task(void *unused)
{
    (void)unused;
    struct waiter waiter = {.timeout_ms = 0};
    start_waiter(&waiter);
    let_others_run();
    wait_done(&waiter.wait, 5);
    fiber_cancel(waiter.fiber);
    until_ended(&waiter);
    assert_int_equal(waiter.result, 5);
    assert_int_equal(waiter.later_result, -ECANCELED);
    struct waiter other = {.timeout_ms = 0};
    start_waiter(&other);
    let_others_run();
    fiber_cancel(other.fiber);
    wait_done(&other.wait, 6);
    until_ended(&other);
    assert_int_equal(other.result, 6);
    assert_int_equal(other.later_result, -ECANCELED);
}

static void an_answer_that_came_is_not_lost_to_a_cancel(void **state)
{
    (void)state;
    in_loop(cancel_ready_task);
}

static void deadline_task(void *unused)
{
    (void)unused;
    fiber_set_deadline(clock_in_ms(20));
    assert_false(fiber_canceled());
    assert_int_equal(fiber_sleep_ms(1), 0);
    struct wait wait = WAIT_INIT;
    assert_int_equal(wait_for(&wait, "nothing", clock_in_ms(2)), -ETIMEDOUT);
    uint64_t before = clock_now_ns();
    assert_int_equal(fiber_sleep_ms(60000), -ECANCELED);
    assert_true(clock_now_ns() - before < 10 * CLOCK_SECOND);
    assert_true(fiber_canceled());
    assert_int_equal(fiber_sleep_ms(1), -ECANCELED);
    assert_int_equal(fiber_yield(), -ECANCELED);
    assert_int_equal(wait_for(&wait, "nothing", CLOCK_NEVER), -ECANCELED);
    wait_done(&wait, 3);
    assert_int_equal(wait_for(&wait, "what is there", CLOCK_NEVER), 3);
    fiber_set_deadline(CLOCK_NEVER);
    assert_false(fiber_canceled());
    assert_int_equal(fiber_sleep_ms(1), 0);
}

static void no_wait_outlasts_the_fibers_deadline(void **state)
{
    (void)state;
    in_loop(deadline_task);
}

static void run_holder(void *arg)
{
    struct waiter *waiter = arg;
    fiber_hold();
    fiber_hold();
    waiter->result = wait_for(&waiter->wait, "a commit", CLOCK_NEVER);
    assert_false(fiber_canceled());
    fiber_release();
    assert_int_equal(fiber_sleep_ms(1), 0); /* one hold is left */
    struct wait nothing = WAIT_INIT;
    assert_int_equal(wait_for(&nothing, "its own timeout counts", clock_in_ms(1)), -ETIMEDOUT);
    fiber_release();
    assert_true(fiber_canceled());
    waiter->later_result = fiber_sleep_ms(1);
    waiter->ended = true;
}

static void hold_task(void *unused)
{
    (void)unused;
    struct waiter waiter = {.timeout_ms = 0};
    waiter.fiber = fiber_start(&loop, "holder", run_holder, &waiter);
    let_others_run();
    fiber_cancel(waiter.fiber);
    let_others_run();
    assert_false(waiter.ended);
    wait_done(&waiter.wait, 9);
    until_ended(&waiter);
    assert_int_equal(waiter.result, 9);
    assert_int_equal(waiter.later_result, -ECANCELED);
    fiber_set_deadline(clock_now_ns());
    fiber_hold();
    assert_int_equal(fiber_sleep_ms(5), 0);
    fiber_release();
    assert_int_equal(fiber_sleep_ms(5), -ECANCELED);
    fiber_set_deadline(CLOCK_NEVER);
}

static void between_hold_and_release_nothing_cancels(void **state)
{
    (void)state;
    in_loop(hold_task);
}

/* ---- semaphores and groups ---- */

struct acquirer {
    struct semaphore *semaphore;
    struct fiber *fiber;
    int *order;
    int place; /* in which it got the gate, from 1; 0: not yet */
    int result;
    bool ended;
};

static void run_acquirer(void *arg)
{
    struct acquirer *acquirer = arg;
    acquirer->result = semaphore_acquire(acquirer->semaphore, "gate", CLOCK_NEVER);
    if (acquirer->result == 0)
        acquirer->place = ++*acquirer->order;
    acquirer->ended = true;
}

static void semaphore_task(void *unused)
{
    (void)unused;
    struct semaphore semaphore;
    semaphore_init(&semaphore, 2);
    assert_int_equal(semaphore_acquire(&semaphore, "gate", CLOCK_NEVER), 0);
    assert_int_equal(semaphore_acquire(&semaphore, "gate", CLOCK_NEVER), 0);
    assert_int_equal(semaphore_acquire(&semaphore, "gate", clock_in_ms(2)), -ETIMEDOUT);
    int order = 0;
    struct acquirer acquirers[4] = {0};
    for (int i = 0; i < 4; i++) {
        acquirers[i].semaphore = &semaphore;
        acquirers[i].order = &order;
        acquirers[i].fiber = fiber_start(&loop, "acquirer", run_acquirer, &acquirers[i]);
    }
    let_others_run();
    assert_int_equal(order, 0);
    fiber_cancel(acquirers[1].fiber);
    let_others_run();
    assert_int_equal(acquirers[1].result, -ECANCELED);
    semaphore_release(&semaphore);
    /* The gate is the first waiter's: nobody who comes now gets past it. */
    assert_int_equal(semaphore_acquire(&semaphore, "gate", clock_now_ns()), -ETIMEDOUT);
    semaphore_release(&semaphore);
    semaphore_release(&semaphore);
    let_others_run();
    assert_int_equal(acquirers[0].place, 1);
    assert_int_equal(acquirers[2].place, 2);
    assert_int_equal(acquirers[3].place, 3);
    semaphore_release(&semaphore);
    assert_int_equal(semaphore.free, 1);
    assert_true(list_empty(&semaphore.waiting));
}

static void a_semaphore_is_fair_and_survives_cancels_in_its_queue(void **state)
{
    (void)state;
    in_loop(semaphore_task);
}

static void semaphore_race_task(void *unused)
{
    (void)unused;
    struct semaphore semaphore;
    semaphore_init(&semaphore, 0);
    int order = 0;
    struct acquirer first = {.semaphore = &semaphore, .order = &order};
    first.fiber = fiber_start(&loop, "acquirer", run_acquirer, &first);
    let_others_run();
    fiber_cancel(first.fiber); /* cancelled, not yet run, and given the gate */
    semaphore_release(&semaphore);
    let_others_run();
    assert_true(first.ended);
    /* Either it holds the gate or the gate is free; it must not be lost. */
    assert_int_equal(semaphore.free + (first.result == 0), 1);
    struct acquirer second = {.semaphore = &semaphore, .order = &order};
    second.fiber = fiber_start(&loop, "acquirer", run_acquirer, &second);
    let_others_run();
    semaphore_release(&semaphore); /* given the gate, not yet run, and cancelled */
    fiber_cancel(second.fiber);
    let_others_run();
    assert_int_equal(semaphore.free + (first.result == 0) + (second.result == 0), 2);
}

static void a_gate_given_to_a_cancelled_fiber_is_not_lost(void **state)
{
    (void)state;
    in_loop(semaphore_race_task);
}

static void run_member(void *arg)
{
    assert_int_equal(fiber_sleep_ms(2), 0);
    group_done(arg);
}

static void group_task(void *unused)
{
    (void)unused;
    struct group group = {0};
    assert_int_equal(group_wait(&group, "nobody", CLOCK_NEVER), 0);
    for (int i = 0; i < 10; i++) {
        group_add(&group);
        fiber_start(&loop, "member", run_member, &group);
    }
    assert_int_equal(group_wait(&group, "members", clock_now_ns()), -ETIMEDOUT);
    assert_int_equal(group_wait(&group, "members", CLOCK_NEVER), 0);
    assert_int_equal(group.count, 0);
}

static void a_group_waits_for_all_its_members(void **state)
{
    (void)state;
    in_loop(group_task);
}

/* ---- threads ---- */

struct work {
    pthread_t thread;
    int runs;
    bool ended; /* the fiber's, not the thread's */
};

static void do_work(void *arg)
{
    struct work *work = arg;
    work->thread = pthread_self();
    usleep(10000);
    work->runs++;
}

static void run_thread_task(void *arg)
{
    struct work *work = arg;
    thread_run("work", do_work, work);
    work->ended = true;
}

static void thread_task(void *unused)
{
    (void)unused;
    struct work work = {0};
    thread_run("work", do_work, &work);
    assert_int_equal(work.runs, 1);
    assert_false(pthread_equal(work.thread, pthread_self()));
    struct work other = {0};
    struct fiber *fiber = fiber_start(&loop, "worker", run_thread_task, &other);
    assert_int_equal(fiber_yield(), 0);
    fiber_cancel(fiber); /* the work is on its way: its fiber waits for it all the same */
    while (!other.ended)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(other.runs, 1);
}

static void thread_work_ends_though_its_fiber_is_cancelled(void **state)
{
    (void)state;
    in_loop(thread_task);
}

/* ---- many ---- */

enum {
#if defined(__SANITIZE_THREAD__)
    MANY = 1000, /* its runtime keeps much for each */
#else
    MANY = 10000,
#endif
};

static unsigned long checksum;

static void run_one_of_many(void *arg)
{
    unsigned long number = (unsigned long)(uintptr_t)arg;
    volatile char stack[2000];
    memset((char *)(uintptr_t)stack, (int)number, sizeof stack);
    assert_int_equal(fiber_sleep_ms(number % 20), 0);
    assert_int_equal((unsigned char)stack[1999], number & 0xff);
    checksum += number;
}

static void many_task(void *unused)
{
    (void)unused;
    for (int round = 0; round < 2; round++) {
        checksum = 0;
        for (uintptr_t i = 0; i < MANY; i++)
            fiber_start(&loop, "one of many", run_one_of_many, (void *)i);
        assert_int_equal(loop.fiber_count, MANY + 1);
        while (loop.fiber_count > 1)
            assert_int_equal(fiber_sleep_ms(1), 0);
        assert_int_equal(checksum, (unsigned long)MANY * (MANY - 1) / 2);
    }
}

static void ten_thousand_fibers_live_at_once(void **state)
{
    (void)state;
    in_loop(many_task);
}

/* ---- order, now, names ---- */

static char trace[64];

static void run_letter(void *arg)
{
    const char *letters = arg;
    strcat(trace, (char[]){letters[0], '\0'});
    assert_int_equal(fiber_yield(), 0);
    strcat(trace, (char[]){letters[1], '\0'});
}

static void order_task(void *unused)
{
    (void)unused;
    trace[0] = '\0';
    char names[3][3] = {"aA", "bB", "cC"};
    for (int i = 0; i < 3; i++)
        fiber_start(&loop, "letter", run_letter, names[i]);
    assert_string_equal(trace, "");
    let_others_run();
    assert_string_equal(trace, "abcABC");
}

static void fibers_run_in_the_order_they_became_ready(void **state)
{
    (void)state;
    in_loop(order_task);
}

struct started_now {
    uv_timer_t timer;
    struct waiter waiting;
    struct waiter ending;
    bool ended_at_once;
};

static void run_to_the_end(void *arg)
{
    struct waiter *waiter = arg;
    assert_non_null(fiber_self());
    waiter->ended = true;
}

static void on_start_now(uv_timer_t *timer)
{
    struct started_now *now = timer->data;
    assert_null(fiber_self());
    assert_null(fiber_start_now(&loop, "ends", run_to_the_end, &now->ending));
    now->ended_at_once = now->ending.ended;
    now->waiting.fiber = fiber_start_now(&loop, "waits", run_waiter, &now->waiting);
    assert_non_null(now->waiting.fiber);
    uv_close((uv_handle_t *)timer, NULL);
}

static void start_now_task(void *unused)
{
    (void)unused;
    struct started_now now = {0};
    assert_int_equal(uv_timer_init(&loop.uv, &now.timer), 0);
    now.timer.data = &now;
    uv_timer_start(&now.timer, on_start_now, 1, 0);
    while (!now.waiting.fiber)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_true(now.ended_at_once);
    wait_done(&now.waiting.wait, 1);
    until_ended(&now.waiting);
    assert_int_equal(fiber_sleep_ms(2), 0); /* the timer's handle has closed */
}

static void start_now_runs_up_to_the_first_wait(void **state)
{
    (void)state;
    in_loop(start_now_task);
}

/* From a callback of a loop that has nothing else to live for, what a fiber started there makes ready still runs. */
static void run_starter(void *arg)
{
    fiber_start(&loop, "started by the started", run_to_the_end, arg);
}

static void on_last_timer(uv_timer_t *timer)
{
    assert_null(fiber_start_now(&loop, "starter", run_starter, timer->data));
}

static void what_a_fiber_started_now_makes_ready_keeps_the_loop_alive(void **state)
{
    (void)state;
    loop_open(&loop, 0);
    struct waiter waiter = {.timeout_ms = 0};
    uv_timer_t timer;
    assert_int_equal(uv_timer_init(&loop.uv, &timer), 0);
    timer.data = &waiter;
    uv_timer_start(&timer, on_last_timer, 1, 0);
    loop_run(&loop);
    assert_true(waiter.ended);
    uv_close((uv_handle_t *)&timer, NULL);
    loop_run(&loop);
    loop_close(&loop);
}

static void run_named(void *arg)
{
    fiber_set_name("GET /somewhere");
    run_waiter(arg);
}

static char listing[4096];

static void listing_task(void *unused)
{
    (void)unused;
    struct waiter waiter = {.timeout_ms = 0};
    waiter.fiber = fiber_start(&loop, "unnamed", run_named, &waiter);
    assert_int_equal(fiber_sleep_ms(30), 0);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int kept = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    loop_log_fibers(&loop);
    log_flush();
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(ends[1]);
    ssize_t size = read(ends[0], listing, sizeof listing - 1);
    close(ends[0]);
    assert_true(size > 0);
    listing[size] = '\0';
    wait_done(&waiter.wait, 0);
    until_ended(&waiter);
}

static void the_listing_names_what_each_fiber_waits_for(void **state)
{
    (void)state;
    in_loop(listing_task);
    const char *line = strstr(listing, "\"name\":\"GET /somewhere\",\"waits_for\":\"something\",\"for_ms\":");
    assert_non_null(line);
    int for_ms = 0;
    assert_int_equal(sscanf(strstr(line, "for_ms") + 8, "%d", &for_ms), 1);
    assert_in_range(for_ms, 20, 20000);
    assert_non_null(strstr(listing, "\"name\":\"test\""));
    log_close();
}

static void cancel_all_task(void *unused)
{
    (void)unused;
    struct waiter waiters[3] = {0};
    for (int i = 0; i < 3; i++)
        start_waiter(&waiters[i]);
    let_others_run();
    fiber_hold(); /* this fiber is one of them */
    loop_cancel_fibers(&loop);
    for (int i = 0; i < 3; i++) {
        until_ended(&waiters[i]);
        assert_int_equal(waiters[i].result, -ECANCELED);
    }
    fiber_release();
    assert_true(fiber_canceled());
}

static void all_fibers_of_a_loop_can_be_cancelled(void **state)
{
    (void)state;
    in_loop(cancel_all_task);
}

/* ---- death ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static int deeper(int depth)
{
    volatile char frame[512];
    frame[0] = (char)depth;
    return depth > 100000 ? frame[0] : deeper(depth + 1) + frame[0];
}

static void run_overflow(void *unused)
{
    (void)unused;
    fiber_set_name("POST /deep");
    printf("%d\n", deeper(0));
}

static void a_stack_overflow_dies_with_the_fibers_name(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        loop_open(&loop, 0);
        fiber_guard_install();
        fiber_main(&loop, "overflow", run_overflow, NULL);
        _exit(0);
    }
    close(ends[1]);
    char text[4096];
    size_t size = 0;
    ssize_t count;
    while (size < sizeof text - 1 && (count = read(ends[0], text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)count;
    text[size] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_non_null(strstr(text, "\"msg\":\"stack overflow\",\"fiber\":\"POST /deep\""));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wait_done_counts_before_and_after_wait_for),
        cmocka_unit_test(a_wait_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(cancel_ends_the_present_wait_and_every_later_one),
        cmocka_unit_test(an_answer_that_came_is_not_lost_to_a_cancel),
        cmocka_unit_test(no_wait_outlasts_the_fibers_deadline),
        cmocka_unit_test(between_hold_and_release_nothing_cancels),
        cmocka_unit_test(a_semaphore_is_fair_and_survives_cancels_in_its_queue),
        cmocka_unit_test(a_gate_given_to_a_cancelled_fiber_is_not_lost),
        cmocka_unit_test(a_group_waits_for_all_its_members),
        cmocka_unit_test(thread_work_ends_though_its_fiber_is_cancelled),
        cmocka_unit_test(ten_thousand_fibers_live_at_once),
        cmocka_unit_test(fibers_run_in_the_order_they_became_ready),
        cmocka_unit_test(start_now_runs_up_to_the_first_wait),
        cmocka_unit_test(what_a_fiber_started_now_makes_ready_keeps_the_loop_alive),
        cmocka_unit_test(the_listing_names_what_each_fiber_waits_for),
        cmocka_unit_test(all_fibers_of_a_loop_can_be_cancelled),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(a_stack_overflow_dies_with_the_fibers_name),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
