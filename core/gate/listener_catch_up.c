/* A listener that is sent what it has missed, and one that has not said a word yet: see listener.h. */
#include "core/gate/listener.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/run/sync.h"

#include <errno.h>
#include <stdlib.h>

enum {
    GREET_MS = 250,
    ROOM_BYTES = 128 * 1024, /* that wait for a client which catches up, before more is read for it */
};

/* ---- catching up ---- */

static int wait_for_room(struct listener *listener)
{
    size_t most =
        (size_t)config->ws_queue_bytes / 2 < ROOM_BYTES ? (size_t)config->ws_queue_bytes / 2 : ROOM_BYTES;
    while (!listener_is_over(listener) && ws_queued(listener->ws) > most) {
        listener->wait = WAIT_INIT;
        int result = wait_for(&listener->wait, "a subscriber to read", CLOCK_NEVER);
        if (result)
            return result;
    }
    return listener_is_over(listener) ? -ECANCELED : 0;
}

static void say_gap(struct listener *listener, const char *reason, struct str last_id)
{
    struct buf text = {0};
    if (!reason)
        return;
    events_put_gap(&text, reason, last_id);
    listener_say(listener, &text);
}

static int send_event(void *arg, const struct event_told *event)
{
    struct listener *listener = arg;
    if (listener_is_over(listener))
        return -ECANCELED;
    if (!event) {
        say_gap(listener, "expired", STR_NONE);
        return 0;
    }
    if (!(event_set_of(event->name) & listener->kinds))
        return 0;
    ws_send(listener->ws, true, event->body);
    return wait_for_room(listener);
}

static void become_live(struct listener *listener, int64_t seq)
{
    listener->state = LISTENER_LIVE;
    listener->live_from = seq;
    fanout_join(listener->audience->fanout, &listener->member, listener->ws, listener->kinds);
}

/* Sends what comes after seq, but what came from `from` to `to`, which it has had, and makes it live. */
static int catch_up(struct listener *listener, int64_t seq, int64_t from, int64_t to)
{
    int result = events_replay(listener->audience, &seq, from, send_event, listener);
    if (result == 0 && seq < to)
        seq = to;
    if (result == 0)
        result = events_replay(listener->audience, &seq, INT64_MAX, send_event, listener);
    if (result == 0 && !listener_is_over(listener))
        become_live(listener, seq);
    return result;
}

/* The store went away in the middle: the client comes back with the last id it has had. */
static void give_up(struct listener *listener, int result)
{
    if (result && !listener_is_over(listener))
        listener_refuse(listener, ERROR_UNAVAILABLE, CLOSE_AGAIN);
}

static void run_resume(void *arg)
{
    struct listener *listener = arg;
    struct buf last_id = listener->resume;
    int64_t seq = listener->live_to;
    const char *gap;
    listener->resume = (struct buf){0};
    int result = events_place(listener->audience, buf_str(&last_id), &seq, &gap);
    if (result == 0 && !listener_is_over(listener)) {
        say_gap(listener, gap, buf_str(&last_id));
        result = catch_up(listener, seq, listener->live_from, listener->live_to);
        if (result == 0 && !listener_is_over(listener))
            listener_answer(listener, "resumed");
    }
    give_up(listener, result);
    buf_clear(&last_id);
    listener_let_go(listener);
}

void listener_resume(struct listener *listener)
{
    fanout_catch_up(&listener->member);
    fanout_leave(&listener->member);
    listener->live_to = feed_place(listener->audience->feed);
    listener->state = LISTENER_CATCHING_UP;
    listener->busy++;
    fiber_start(loop_self(), "event resume", run_resume, listener);
}

/* From its handshake on, or from where it was. */
void listener_begin(struct listener *listener, struct str wished)
{
    const char *gap = NULL;
    int64_t seq = listener->place;
    struct buf by_message = listener->resume;
    struct str last_id = by_message.size ? buf_str(&by_message) : wished;
    listener->resume = (struct buf){0};
    listener->state = LISTENER_CATCHING_UP;
    int result = events_place(listener->audience, last_id, &seq, &gap);
    if (result == 0 && !listener_is_over(listener)) {
        say_gap(listener, gap, last_id);
        result = catch_up(listener, seq, INT64_MAX, seq);
    }
    give_up(listener, result);
    if (!listener_is_over(listener) && by_message.size)
        listener_answer(listener, "resumed");
    buf_clear(&by_message);
}

/* ---- greeting ---- */

/* The loop's: those that have not said a word, in the order in which they came. */
struct greeter {
    struct link sockets;
    struct fiber *fiber;
    struct group fibers;
    struct wait wait; /* for a first one */
};

void listener_greet(struct listener *listener)
{
    struct greeter *greeter = loop_self()->slots[LOOP_GREETER];
    listener->state = LISTENER_GREETED;
    listener->greeted_ns = clock_now_ns();
    list_push_back(&greeter->sockets, &listener->greeted);
    wait_done(&greeter->wait, 0);
}

static void run_begin(void *arg)
{
    struct listener *listener = arg;
    listener_begin(listener, STR_NONE);
    if (!listener_is_over(listener))
        listener_read_held(listener);
    listener_let_go(listener);
}

/* Mostly nothing has happened meanwhile. */
void listener_end_greeting(struct listener *listener)
{
    list_remove(&listener->greeted);
    if (listener_is_over(listener))
        return;
    if (listener->resume.size == 0 && feed_place(listener->audience->feed) == listener->place) {
        become_live(listener, listener->place);
        return;
    }
    listener->state = LISTENER_CATCHING_UP;
    listener->busy++;
    fiber_start(loop_self(), "event catch-up", run_begin, listener);
}

static void run_greeter(void *arg)
{
    struct greeter *greeter = arg;
    uint64_t at_ns = CLOCK_NEVER;
    while (wait_for(&greeter->wait, "a stream's first word", at_ns) != -ECANCELED) {
        greeter->wait = WAIT_INIT;
        at_ns = CLOCK_NEVER;
        while (!list_empty(&greeter->sockets) && at_ns == CLOCK_NEVER) {
            struct listener *first = LIST_ENTRY(greeter->sockets.next, struct listener, greeted);
            uint64_t until_ns = first->greeted_ns + GREET_MS * CLOCK_MS;
            if (clock_now_ns() >= until_ns)
                listener_end_greeting(first);
            else
                at_ns = until_ns;
        }
    }
    group_done(&greeter->fibers);
}

void listener_open_loop(struct loop *loop)
{
    struct greeter *greeter = mem_zalloc(sizeof *greeter);
    list_init(&greeter->sockets);
    loop->slots[LOOP_GREETER] = greeter;
    group_add(&greeter->fibers);
    greeter->fiber = fiber_start(loop, "event greeter", run_greeter, greeter);
}

void listener_close_loop(struct loop *loop)
{
    struct greeter *greeter = loop->slots[LOOP_GREETER];
    if (!greeter)
        return;
    fiber_hold();
    fiber_cancel(greeter->fiber);
    CHECK(group_wait(&greeter->fibers, "the greeter", CLOCK_NEVER) == 0);
    fiber_release();
    CHECK(list_empty(&greeter->sockets));
    free(greeter);
    loop->slots[LOOP_GREETER] = NULL;
}
