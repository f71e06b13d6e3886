/*
 * One supervised program.
 *
 *            prepare, start          wait_ready
 *   begin ──────────────────▶ starts ───────────▶ of use
 *            ▲                  │ ended             │ ended
 *            └──── pause ◀──────┴───────────────────┘
 *
 * A part that fails before it was ever of use is not tried again: that is a fault to be shown, not an accident.
 */
#include "core/up_part.h"

#include "core/base/clock.h"
#include "core/up_say.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum {
    PAUSE_FIRST_MS = 100,
    PAUSE_MOST_MS = 5000,
    STEADY_MS = 10000, /* after so long an accident counts as the first again */
    FAULT_MS = 1000,   /* an end so soon has a cause that its log tells */
    ASK_POLL_MS = 5,
    ASK_ANSWER_MS = 2000,
};

/* ---- one start ---- */

static int start_child(struct part *part, struct child_options *options)
{
    int log = part->log ? up_log_open(part->log, &part->log_from) : STDERR_FILENO;
    if (log < 0)
        return log;
    options->output = log;
    options->errors = log;
    options->death_signal = part->kind->death_signal;
    int result = child_start(options, &part->child);
    if (part->log)
        close(log);
    if (result)
        up_say("can't run %s: %s", options->argv[0], strerror(-result));
    return result;
}

/* Says why a child that has ended was of no use. */
static void say_failed(struct part *part, int result)
{
    char text[CHILD_STATUS_SIZE];
    int status = 0;
    if (result == -ESRCH && child_wait(part->child, "an ended child", CLOCK_NEVER, &status) == 0)
        up_say("%s did not start (%s)%s", part->name, child_status_text(text, status), part->log ? ":" : "");
    else
        up_say("%s is not ready in time%s", part->name, part->log ? ":" : "");
    if (part->log)
        up_show_log(part->log, part->log_from);
}

static void drop_child(struct part *part)
{
    child_stop(part->child, part->kind->stop_signal, part->stop_ms);
    child_free(part->child);
    part->child = NULL;
}

/* 0 once it is of use; else there is no child. */
static int start(struct part *part)
{
    struct arena arena;
    struct child_options options = {.output = -1, .errors = -1};
    arena_init(&arena);
    int result = part->kind->prepare(part, &arena, &options);
    if (result == 0)
        result = start_child(part, &options);
    arena_clear(&arena);
    if (result)
        return result;
    result = part->kind->wait_ready ? part->kind->wait_ready(part) : 0;
    if (result == 0)
        return 0;
    if (result != -ECANCELED)
        say_failed(part, result);
    drop_child(part);
    return result;
}

/* ---- its life ---- */

/* 0 when it has ended by itself. */
static int watch(struct part *part)
{
    int status;
    char text[CHILD_STATUS_SIZE];
    uint64_t began_ns = clock_now_ns();
    int result = child_wait(part->child, part->name, CLOCK_NEVER, &status);
    if (result == 0) {
        up_say("%s ended unasked (%s)", part->name, child_status_text(text, status));
        if (part->log && clock_now_ns() - began_ns < FAULT_MS * CLOCK_MS)
            up_show_log(part->log, part->log_from);
    }
    drop_child(part);
    return result;
}

static void live(struct part *part)
{
    uint64_t pause_ms = PAUSE_FIRST_MS;
    for (;;) {
        uint64_t began_ns = clock_now_ns();
        int result = start(part);
        if (result == 0) {
            if (part->was_of_use)
                up_say("%s runs again", part->name);
            part->was_of_use = true;
            wait_done(&part->started, 0);
            result = watch(part);
        }
        wait_done(&part->started, result);
        if (!part->was_of_use || result == -ECANCELED)
            return;
        if (clock_now_ns() - began_ns > STEADY_MS * CLOCK_MS)
            pause_ms = PAUSE_FIRST_MS;
        if (fiber_sleep_ms(pause_ms))
            return;
        pause_ms = pause_ms * 2 < PAUSE_MOST_MS ? pause_ms * 2 : PAUSE_MOST_MS;
    }
}

static void run(void *arg)
{
    struct part *part = arg;
    live(part);
    part->fiber = NULL;
    wait_done(&part->ended, 0);
}

void part_begin(struct part *part)
{
    part->fiber = fiber_start(loop_self(), part->name, run, part);
}

int part_wait_started(struct part *part)
{
    return wait_for(&part->started, part->name, CLOCK_NEVER);
}

bool part_lives(const struct part *part)
{
    return part->child && !child_ended(part->child);
}

void part_cancel(struct part *part)
{
    if (part->fiber)
        fiber_cancel(part->fiber);
}

void part_stop(struct part *part)
{
    if (!part->fiber)
        return;
    part_cancel(part);
    fiber_hold();
    CHECK(wait_for(&part->ended, part->name, CLOCK_NEVER) == 0);
    fiber_release();
}

void part_kill(struct part *part)
{
    part_cancel(part);
    if (part->child)
        child_signal(part->child, SIGKILL);
}

/* ---- asking a server ---- */

/* A socket to it with the question sent, or a negative error. */
static int ask(const struct sockaddr *address, socklen_t address_size, struct str question)
{
    int descriptor = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0)
        return -errno;
    /* To this machine a connection is made or refused at once; one that is not is asked anew. */
    if (connect(descriptor, address, address_size) == 0 || errno == EINPROGRESS)
        if (send(descriptor, question.at, question.size, MSG_NOSIGNAL) == (ssize_t)question.size)
            return descriptor;
    close(descriptor);
    return -ENOTCONN;
}

/* Waits for the answer's first bytes: 0 when they are the ones expected, -EAGAIN when not. */
static int hear(struct part *part, int descriptor, struct str expected)
{
    char answer[64];
    CHECK(expected.size <= sizeof answer);
    uint64_t deadline_ns = clock_in_ms(ASK_ANSWER_MS);
    size_t size = 0;
    while (clock_now_ns() < deadline_ns && !child_ended(part->child)) {
        ssize_t got = recv(descriptor, answer + size, expected.size - size, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return -EAGAIN;
        size += got > 0 ? (size_t)got : 0;
        if (size == expected.size)
            return str_equal(str_of(answer, size), expected) ? 0 : -EAGAIN;
        int result = got > 0 ? 0 : fiber_sleep_ms(1);
        if (result)
            return result;
    }
    return -EAGAIN;
}

int part_ask(struct part *part, const struct sockaddr *address, socklen_t address_size, struct str question,
             struct str expected, uint64_t deadline_ns)
{
    while (!child_ended(part->child)) {
        int descriptor = ask(address, address_size, question);
        int result = descriptor < 0 ? -EAGAIN : hear(part, descriptor, expected);
        if (descriptor >= 0)
            close(descriptor);
        if (result != -EAGAIN)
            return result;
        if (clock_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
        result = fiber_sleep_ms(ASK_POLL_MS);
        if (result)
            return result;
    }
    return -ESRCH;
}
