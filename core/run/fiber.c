/*
 * Fibers on Boost.Context's two C entry points.
 *
 *            fiber_start              resume                       run() returns
 *   (pool) ─────────────▶ ready ───────────────▶ running ───────────────────────▶ (pool)
 *                           ▲                        │ wait_for
 *                           └──────── waiting ◀──────┘
 *                          wait_done, timeout, cancel
 *
 * A fiber always switches to and from the loop's own stack, never to another fiber.
 */
#include "core/run/fiber.h"

#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(start, end) 0u
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

/* Boost.Context's ABI (boost/context/detail/fcontext.hpp, which is C++). */
typedef void *fcontext;
struct transfer {
    fcontext from;
    void *data;
};
extern struct transfer jump_fcontext(fcontext to, void *data);
extern fcontext make_fcontext(void *stack_top, size_t size, void (*entry)(struct transfer));

enum {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    STACK_SIZE = 512 * 1024, /* redzones and larger frames */
#else
    STACK_SIZE = 64 * 1024,
#endif
    POOL_MAX = 1024,
    PASSES_MAX = 32, /* rounds of ready fibers before the loop looks at its sockets again */
    FIBER_MAGIC = 0x6669626c,
};

struct fiber {
    unsigned magic;
    unsigned holds;
    struct link all;
    struct link ready;
    struct loop *loop;
    const char *name;
    fiber_run *run;
    void *arg;
    fcontext context; /* where to resume */
    fcontext back;    /* the loop's stack */
    char *stack;      /* the lowest address above the guard page */
    uv_timer_t timer;
    struct wait *waiting;
    const char *what;
    uint64_t since_ns;
    uint64_t deadline_ns;
    uint64_t wait_deadline_ns;
    int wake_reason;
    bool canceled;
    bool ended;
    bool is_ready;
    bool suspended;
    unsigned valgrind_id;
    void *slots[FIBER_SLOTS];
#if defined(__SANITIZE_ADDRESS__)
    void *fake_stack;
    void *loop_fake_stack;
    const void *loop_stack;
    size_t loop_stack_size;
#endif
#if defined(__SANITIZE_THREAD__)
    void *tsan;
    void *tsan_loop;
#endif
};

static size_t page_size(void)
{
    static size_t size;
    if (UNLIKELY(size == 0))
        size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

static void switch_to_loop(struct fiber *fiber)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fiber->ended ? NULL : &fiber->fake_stack, fiber->loop_stack,
                                   fiber->loop_stack_size);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber->tsan_loop, 0);
#endif
    struct transfer transfer = jump_fcontext(fiber->back, NULL);
    fiber->back = transfer.from;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber->fake_stack, &fiber->loop_stack, &fiber->loop_stack_size);
#endif
}

static void entry(struct transfer transfer)
{
    struct fiber *fiber = transfer.data;
    fiber->back = transfer.from;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &fiber->loop_stack, &fiber->loop_stack_size);
#endif
    fiber->run(fiber->arg);
    fiber->ended = true;
    switch_to_loop(fiber);
    UNREACHABLE();
}

static void on_timer(uv_timer_t *timer);

static struct fiber *fiber_new(struct loop *loop)
{
    struct fiber *fiber = mem_zalloc(sizeof *fiber);
    char *memory = mmap(NULL, STACK_SIZE + page_size(), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK(mprotect(memory, page_size(), PROT_NONE) == 0);
    fiber->stack = memory + page_size();
    fiber->valgrind_id = VALGRIND_STACK_REGISTER(fiber->stack, fiber->stack + STACK_SIZE);
    fiber->loop = loop;
    list_init(&fiber->all);
    list_init(&fiber->ready);
    CHECK(uv_timer_init(&loop->uv, &fiber->timer) == 0);
    fiber->timer.data = fiber;
    return fiber;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void fiber_free(struct fiber *fiber)
{
    VALGRIND_STACK_DEREGISTER(fiber->valgrind_id);
    CHECK(munmap(fiber->stack - page_size(), STACK_SIZE + page_size()) == 0);
    uv_close((uv_handle_t *)&fiber->timer, on_timer_closed);
}

static struct fiber *fiber_take(struct loop *loop, const char *name, fiber_run *run, void *arg)
{
    struct link *pooled = list_pop_front(&loop->pooled);
    struct fiber *fiber;
    if (pooled) {
        loop->pooled_count--;
        fiber = LIST_ENTRY(pooled, struct fiber, all);
    } else {
        fiber = fiber_new(loop);
    }
    fiber->name = name;
    memset(fiber->slots, 0, sizeof fiber->slots);
    fiber->run = run;
    fiber->arg = arg;
    fiber->holds = 0;
    fiber->canceled = false;
    fiber->ended = false;
    fiber->is_ready = false;
    fiber->suspended = false;
    fiber->waiting = NULL;
    fiber->what = "start";
    fiber->since_ns = 0;
    fiber->deadline_ns = CLOCK_NEVER;
    fiber->context = make_fcontext(fiber->stack + STACK_SIZE, STACK_SIZE, entry);
    MAGIC_SET(fiber, FIBER_MAGIC);
#if defined(__SANITIZE_THREAD__)
    fiber->tsan = __tsan_create_fiber(0);
#endif
    list_push_back(&loop->fibers, &fiber->all);
    loop->fiber_count++;
    metric_add(M_FIBERS, 1);
    return fiber;
}

static void fiber_end(struct fiber *fiber)
{
    struct loop *loop = fiber->loop;
    CHECK(fiber->holds == 0);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(fiber->tsan);
#endif
#if defined(__SANITIZE_ADDRESS__)
    /* entry() and switch_to_loop() never returned: their redzones would be found by the stack's next user. */
    ASAN_UNPOISON_MEMORY_REGION(fiber->stack, STACK_SIZE);
#endif
    MAGIC_CLEAR(fiber);
    list_remove(&fiber->all);
    loop->fiber_count--;
    metric_add(M_FIBERS, -1);
    if (loop->pooled_count >= POOL_MAX) {
        fiber_free(fiber);
        return;
    }
    list_push_front(&loop->pooled, &fiber->all);
    loop->pooled_count++;
}

/* Runs the fiber up to its next wait or its end; true when it has ended and is gone. */
static bool resume(struct fiber *fiber)
{
    struct loop *loop = fiber->loop;
    MAGIC_CHECK(fiber, FIBER_MAGIC);
    CHECK(loop->running == NULL);
    loop->running = fiber;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fiber->loop_fake_stack, fiber->stack, STACK_SIZE);
#endif
#if defined(__SANITIZE_THREAD__)
    fiber->tsan_loop = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber->tsan, 0);
#endif
    struct transfer transfer = jump_fcontext(fiber->context, fiber);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber->loop_fake_stack, NULL, NULL);
#endif
    fiber->context = transfer.from;
    loop->running = NULL;
    if (!fiber->ended)
        return false;
    fiber_end(fiber);
    return true;
}

static void make_ready(struct fiber *fiber)
{
    if (fiber->is_ready)
        return;
    fiber->is_ready = true;
    list_push_back(&fiber->loop->ready, &fiber->ready);
    if (!fiber->loop->running)
        loop_turn_again(fiber->loop);
}

struct fiber *fiber_start(struct loop *loop, const char *name, fiber_run *run, void *arg)
{
    struct fiber *fiber = fiber_take(loop, name, run, arg);
    make_ready(fiber);
    return fiber;
}

struct fiber *fiber_start_now(struct loop *loop, const char *name, fiber_run *run, void *arg)
{
    struct fiber *fiber = fiber_take(loop, name, run, arg);
    bool ended = resume(fiber);
    if (!list_empty(&loop->ready) || !list_empty(&loop->flushes))
        loop_turn_again(loop); /* what it asked for while it ran is not ours to run here */
    return ended ? NULL : fiber;
}

struct main_task {
    struct loop *loop;
    fiber_run *run;
    void *arg;
};

static void run_main(void *arg)
{
    struct main_task *task = arg;
    task->run(task->arg);
    loop_stop(task->loop);
}

void fiber_main(struct loop *loop, const char *name, fiber_run *run, void *arg)
{
    struct main_task task = {loop, run, arg};
    fiber_start(loop, name, run_main, &task);
    loop_run(loop);
}

struct fiber *fiber_self(void)
{
    struct loop *loop = loop_self();
    return loop ? loop->running : NULL;
}

static struct fiber *self_checked(void)
{
    struct fiber *fiber = fiber_self();
    MAGIC_CHECK(fiber, FIBER_MAGIC);
    return fiber;
}

void fiber_slot_set(enum fiber_slot slot, void *value)
{
    self_checked()->slots[slot] = value;
}

void *fiber_slot_get(enum fiber_slot slot)
{
    struct fiber *fiber = fiber_self();
    return fiber ? fiber->slots[slot] : NULL;
}

void fiber_set_name(const char *name)
{
    self_checked()->name = name;
}

void fiber_cancel(struct fiber *fiber)
{
    MAGIC_CHECK(fiber, FIBER_MAGIC);
    fiber->canceled = true;
    if (!fiber->suspended || fiber->holds)
        return;
    fiber->wake_reason = -ECANCELED;
    make_ready(fiber);
}

void fiber_set_deadline(uint64_t at_ns)
{
    self_checked()->deadline_ns = at_ns;
}

void fiber_hold(void)
{
    self_checked()->holds++;
}

void fiber_release(void)
{
    struct fiber *fiber = self_checked();
    CHECK(fiber->holds > 0);
    fiber->holds--;
}

static bool is_canceled(const struct fiber *fiber)
{
    if (fiber->holds)
        return false;
    return fiber->canceled || (fiber->deadline_ns != CLOCK_NEVER && clock_now_ns() >= fiber->deadline_ns);
}

bool fiber_canceled(void)
{
    return is_canceled(self_checked());
}

/* Sets the timer for the fiber's present wait; libuv counts whole milliseconds from its own cached now. */
static void timer_set(struct fiber *fiber, uint64_t now_ns)
{
    uint64_t left_ns = fiber->wait_deadline_ns > now_ns ? fiber->wait_deadline_ns - now_ns : 0;
    uv_timer_start(&fiber->timer, on_timer, left_ns / CLOCK_MS + 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct fiber *fiber = timer->data;
    uint64_t now_ns = clock_now_ns();
    if (now_ns < fiber->wait_deadline_ns) {
        timer_set(fiber, now_ns);
        return;
    }
    bool own = !fiber->holds && fiber->wait_deadline_ns == fiber->deadline_ns;
    fiber->wake_reason = own ? -ECANCELED : -ETIMEDOUT;
    make_ready(fiber);
}

static void suspend(struct fiber *fiber, const char *what)
{
    fiber->what = what;
    fiber->suspended = true;
    switch_to_loop(fiber);
    fiber->suspended = false;
    fiber->what = "nothing: it runs";
}

int wait_for(struct wait *wait, const char *what, uint64_t deadline_ns)
{
    struct fiber *fiber = self_checked();
    if (wait->done)
        return wait->result;
    if (fiber->canceled && !fiber->holds)
        return -ECANCELED;
    uint64_t now_ns = clock_now_ns();
    fiber->since_ns = now_ns;
    fiber->wait_deadline_ns = deadline_ns;
    if (!fiber->holds && fiber->deadline_ns <= deadline_ns) {
        if (fiber->deadline_ns != CLOCK_NEVER && fiber->deadline_ns <= now_ns)
            return -ECANCELED;
        fiber->wait_deadline_ns = fiber->deadline_ns;
    }
    if (fiber->wait_deadline_ns != CLOCK_NEVER)
        timer_set(fiber, now_ns);
    wait->fiber = fiber;
    fiber->waiting = wait;
    suspend(fiber, what);
    fiber->waiting = NULL;
    wait->fiber = NULL;
    if (fiber->wait_deadline_ns != CLOCK_NEVER)
        uv_timer_stop(&fiber->timer);
    return wait->done ? wait->result : fiber->wake_reason;
}

void wait_done(struct wait *wait, int result)
{
    if (wait->done)
        return;
    wait->done = true;
    wait->result = result;
    if (wait->fiber)
        make_ready(wait->fiber);
}

int fiber_sleep_ms(uint64_t ms)
{
    struct wait wait = WAIT_INIT;
    int result = wait_for(&wait, "sleep", clock_in_ms(ms));
    return result == -ETIMEDOUT ? 0 : result;
}

int fiber_yield(void)
{
    struct fiber *fiber = self_checked();
    if (is_canceled(fiber))
        return -ECANCELED;
    make_ready(fiber);
    fiber->since_ns = clock_now_ns();
    suspend(fiber, "yield");
    return 0;
}

/* Moves all of a list, so that what is added meanwhile waits for the next round. */
static void take_all(struct link *from, struct link *to)
{
    list_init(to);
    struct link *item;
    while ((item = list_pop_front(from)) != NULL)
        list_push_back(to, item);
}

static void run_fibers(struct loop *loop)
{
    struct link now;
    take_all(&loop->ready, &now);
    struct link *item;
    while ((item = list_pop_front(&now)) != NULL) {
        struct fiber *fiber = LIST_ENTRY(item, struct fiber, ready);
        fiber->is_ready = false;
        resume(fiber);
    }
}

static void run_flushes(struct loop *loop)
{
    struct link now;
    take_all(&loop->flushes, &now);
    struct link *item;
    while ((item = list_pop_front(&now)) != NULL) {
        struct flush *flush = LIST_ENTRY(item, struct flush, link);
        flush->asked = false;
        flush->run(flush);
    }
}

void fiber_run_ready(struct loop *loop)
{
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        if (list_empty(&loop->ready) && list_empty(&loop->flushes))
            break;
        run_fibers(loop);
        /* What ready fibers add to the sockets goes out with the rest. */
        if (list_empty(&loop->ready) || pass + 1 == PASSES_MAX)
            run_flushes(loop);
    }
    if (!list_empty(&loop->ready) || !list_empty(&loop->flushes))
        loop_turn_again(loop);
    else
        uv_idle_stop(&loop->again);
}

void fiber_pool_clear(struct loop *loop)
{
    struct link *item;
    while ((item = list_pop_front(&loop->pooled)) != NULL)
        fiber_free(LIST_ENTRY(item, struct fiber, all));
    loop->pooled_count = 0;
}

void loop_log_fibers(struct loop *loop)
{
    uint64_t now_ns = clock_now_ns();
    LIST_EACH (&loop->fibers, item, after) {
        struct fiber *fiber = LIST_ENTRY(item, struct fiber, all);
        LOG(INFO, "fiber", LOG_TEXT("name", fiber->name), LOG_TEXT("waits_for", fiber->what),
            LOG_INT("for_ms", fiber->since_ns ? (now_ns - fiber->since_ns) / CLOCK_MS : 0),
            LOG_BOOL("canceled", fiber->canceled), LOG_INT("loop", loop->index));
    }
}

void loop_cancel_fibers(struct loop *loop)
{
    LIST_EACH (&loop->fibers, item, after)
        fiber_cancel(LIST_ENTRY(item, struct fiber, all));
}

/* ---- stack overflow ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void on_fault(int number, siginfo_t *info, void *unused)
{
    (void)unused;
    struct fiber *fiber = fiber_self();
    char *address = info->si_addr;
    if (fiber && address < fiber->stack && address >= fiber->stack - page_size()) {
        char text[256];
        int length =
            snprintf(text, sizeof text, "{\"level\":\"fatal\",\"msg\":\"stack overflow\",\"fiber\":\"%s\"}\n",
                     fiber->name);
        if (length > 0) {
            ssize_t ignored = write(STDERR_FILENO, text, (size_t)length);
            (void)ignored;
        }
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Each thread needs a stack of its own for the handler: the fiber's is full. */
static void alternate_stack(void)
{
    static _Thread_local char memory[16384];
    stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
    CHECK(sigaltstack(&stack, NULL) == 0);
}
#else
static void alternate_stack(void)
{
}
#endif

void fiber_guard_install(void)
{
    alternate_stack();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(SIGSEGV, &action, NULL) == 0);
    CHECK(sigaction(SIGBUS, &action, NULL) == 0);
#endif
}
