/*
 * Where a pod listens. One fiber per place looks for it, however many requests wait: it asks for the snapshot, and when
 * the pod is not awake it asks for it to be, and listens for the instance's announcements until it is.
 *
 *   snapshot ──awake──────────────────────────────────▶ route
 *      │ else                                             ▲
 *      └──▶ desired = 1 ──▶ announced, or a second later: look again
 *
 *   pod unreachable ──▶ row, and a scale job that looks at the pod ──▶ announced: row ──▶ as above
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/instance/visit_internal.h"
#include "core/store/bell.h"

#include <errno.h>

enum { LOOK_AFTER_MS = 1000 /* a pod is looked after no more often, per loop */ };

/* A request that waits for a route; on its fiber's stack. */
struct waiter {
    struct link link;
    struct place *place;
    struct wait wait;
    bool is_held;
};

/* ---- those that wait ---- */

/* From the moment at which it is known that the pod sleeps, those that wait are counted and bounded. */
static bool hold(struct waiter *waiter)
{
    struct place *place = waiter->place;
    if (place->held >= config->hold_per_instance || place->visits->held >= config->hold_total)
        return false;
    waiter->is_held = true;
    place->held++;
    place->visits->held++;
    return true;
}

static void let_go(struct waiter *waiter, int result)
{
    if (waiter->is_held) {
        waiter->place->held--;
        waiter->place->visits->held--;
        waiter->is_held = false;
    }
    list_remove(&waiter->link);
    wait_done(&waiter->wait, result);
}

static void answer_all(struct place *place, int result)
{
    place->used_ns = clock_now_ns();
    while (!list_empty(&place->waiting))
        let_go(LIST_ENTRY(place->waiting.next, struct waiter, link), result);
}

int place_wait(struct place *place, uint64_t deadline_ns)
{
    struct waiter waiter = {.place = place, .wait = WAIT_INIT};
    list_init(&waiter.link);
    if (place->is_waking && !hold(&waiter))
        return -EUSERS;
    list_push_back(&place->waiting, &waiter.link);
    place_find(place);
    int result = wait_for(&waiter.wait, "the pod", deadline_ns);
    let_go(&waiter, result);
    return result;
}

static void begin_waking(struct place *place)
{
    place->is_waking = true;
    LIST_EACH (&place->waiting, item, after) {
        struct waiter *waiter = LIST_ENTRY(item, struct waiter, link);
        if (!hold(waiter))
            let_go(waiter, -EUSERS);
    }
}

/* ---- looking ---- */

enum look { LOOK_SNAPSHOT, LOOK_ROW, LOOK_AFTER, LOOK_WAKE };

/* Only the numbers of the instance outlive it. */
static int look(const struct place *place, enum look how, struct instance *instance)
{
    struct arena arena;
    int result = 0;
    arena_init(&arena);
    switch (how) {
    case LOOK_SNAPSHOT: result = instance_peek(&arena, place->id, instance); break;
    case LOOK_ROW: result = instance_load(&arena, place->id, instance); break;
    case LOOK_AFTER:
        result = instance_look_after(&arena, place->id, (int64_t)place->suspect_generation, instance);
        break;
    case LOOK_WAKE: result = instance_wake(&arena, instance->account_id, place->id, instance); break;
    }
    arena_clear(&arena);
    return result == 0 && instance->deleted ? -ENOENT : result;
}

/* An awake one that is about to sleep is none: that it is wanted has to be said first. `looked_ns` is from before the row
 * was read. */
static bool take_route(struct place *place, const struct instance *instance, uint64_t looked_ns)
{
    place->has_route = instance->state == INSTANCE_AWAKE && instance->desired;
    if (!place->has_route)
        return false;
    place->port = (int)instance->port;
    place->generation = (uint64_t)instance->generation;
    place->looked_ns = looked_ns;
    place->is_suspect = false;
    return true;
}

/* Goes on for as long as somebody waits, but not before the wish is committed. The wish is repeated when it is gone:
 * somebody may have asked for a sleep. */
static int wake(struct place *place, struct bell_ear *ear, enum look next, struct instance *instance)
{
    for (;;) {
        enum look how = instance->desired ? next : LOOK_WAKE;
        uint64_t now_ns = clock_now_ns();
        place_tell_of(place, now_ns);
        int result = look(place, how, instance);
        if (result || take_route(place, instance, now_ns))
            return result;
        if (how == LOOK_WAKE)
            place->note_tried_ns = now_ns; /* it was noted along with the wish */
        if (!instance->desired)
            continue;
        if (list_empty(&place->waiting))
            return 0;
        result = bell_ear_wait(ear, "a pod to wake", clock_in_ms(BELL_LOOK_MS));
        if (result == -ECANCELED)
            return result;
        next = result == 0 ? LOOK_SNAPSHOT : LOOK_ROW;
    }
}

/* The row may still say what could not be reached. The scale job looks at the pod and announces what came of it: until
 * then, or for a second, nobody is sent there. */
static int look_after(struct place *place, struct bell_ear *ear, struct instance *instance)
{
    uint64_t now_ns = clock_now_ns();
    bool asks = now_ns - place->looked_after_ns >= LOOK_AFTER_MS * CLOCK_MS;
    place->is_suspect = false;
    int result = look(place, asks ? LOOK_AFTER : LOOK_ROW, instance);
    bool same = result == 0 && instance->state == INSTANCE_AWAKE &&
                (uint64_t)instance->generation == place->suspect_generation;
    if (asks && same) {
        place->looked_after_ns = now_ns;
        result = bell_ear_wait(ear, "a look at the pod", clock_in_ms(BELL_LOOK_MS));
        if (result == -ECANCELED)
            return result;
        now_ns = clock_now_ns();
        result = look(place, LOOK_ROW, instance);
    }
    if (result == 0)
        take_route(place, instance, now_ns);
    return result;
}

static int find(struct place *place)
{
    struct instance instance = {0};
    int result = 0;
    uint64_t now_ns = clock_now_ns();
    /* Told before it is looked up: a sleep that begins later than this look finds that somebody may know the way. */
    place_tell_of(place, now_ns);
    if (!place->is_suspect) {
        result = look(place, LOOK_SNAPSHOT, &instance);
        if (result || (!place->is_suspect && take_route(place, &instance, now_ns)))
            return result;
    }
    struct bell_ear ear;
    bell_ear_open_announced(&ear, place->id);
    enum look next = place->is_suspect ? LOOK_ROW : LOOK_SNAPSHOT;
    if (place->is_suspect)
        result = look_after(place, &ear, &instance);
    if (result == 0 && !place->has_route) {
        begin_waking(place);
        result = wake(place, &ear, next, &instance);
    }
    bell_ear_close(&ear);
    return result;
}

static void run_find(void *arg)
{
    struct place *place = arg;
    struct visits *visits = place->visits;
    int result = find(place);
    place->finder = NULL;
    place->is_waking = false;
    if (result == -ENOENT)
        place->has_route = false;
    answer_all(place, result);
    group_done(&visits->fibers);
}

void place_find(struct place *place)
{
    if (place->finder || place->visits->closing)
        return;
    group_add(&place->visits->fibers);
    place->finder = fiber_start(place->visits->loop, "find a pod", run_find, place);
}
