/*
 * The webhook job: all that is due to one endpoint.
 *
 *     claim ──▶ waiting ──▶ senders (a fiber each, WEBHOOK_IN_FLIGHT at most) ──▶ ended ──▶ settler ──▶ rows
 *       ▲                                                                           │
 *       └───────────────────────────── more, while the slice of time lasts ◀────────┘
 *
 * One job of an endpoint runs at a time, so that the cap and the order hold over all workers. When its slice is over it lets
 * the next one go on behind the jobs of others. An ordered endpoint's deliveries are gathered into lanes, one for each
 * object, and what is claimed is brought to its end before more is claimed.
 */
#include "workers/webhook.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/event/backlog.h"
#include "core/run/sync.h"
#include "workers/pool.h"
#include "workers/webhook_send.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ORDERED_AT_ONCE = 256,
    POLL_LEAST_MS = 20, /* between two looks for more while something is on its way */
    POLL_MOST_MS = 500,
    SETTLE_PAUSE_MS = 100,
    SETTLE_GRACE_MS = 5000, /* for what is left when the job was cancelled */
    TENANT_LEAST = 4,       /* jobs at once that every tenant may have */
    TENANT_SHARE = 8,       /* the part of a worker's places that one may have */
    TOGETHER = 256,         /* attempts at once of all endpoints, as long as each has EACH_LEAST */
    EACH_LEAST = 4,
    SWEEP_MS = 15000,
};

/* What was claimed together: its memory goes once all of it is settled. */
struct batch {
    struct arena arena;
    size_t left;
};

struct held {
    struct link link; /* in its lane, then in `ended` */
    struct webhook_item *item;
    struct batch *batch;
    size_t place; /* in drain->hand */
};

/* Deliveries that are sent one after the other. */
struct lane {
    struct link link;
    struct str object;
    struct link items;
};

struct sender {
    struct link link;
    struct fiber *fiber;
};

struct drain {
    struct link link; /* in `drains` */
    struct job *job;
    struct webhook_target target;
    struct webhook_health health;
    int64_t pause_ms;
    struct held **hand; /* claimed and not settled */
    size_t hand_count;
    size_t hand_room;
    struct link waiting; /* lanes */
    size_t waiting_count;
    struct link ended;
    struct link senders;
    unsigned sender_count;
    struct group fibers;
    struct wait *waiter;
    struct wait *settler_waiter;
    uint64_t until_ns; /* of the slice */
    uint64_t poll_ns;
    uint64_t poll_ms;
    bool stop; /* begin no more attempts */
    bool canceled;
    bool closing; /* the settler ends when nothing is left */
    bool gone;
    bool failing;
    int result;
};

/* Of this worker's loop. */
static struct link drains = {&drains, &drains};
static unsigned drain_count;

static void wake(struct wait *wait)
{
    if (wait)
        wait_done(wait, 0);
}

/* ---- what is in hand ---- */

static void hand_add(struct drain *drain, struct held *held)
{
    if (drain->hand_count == drain->hand_room) {
        drain->hand_room = drain->hand_room ? 2 * drain->hand_room : 64;
        drain->hand = mem_realloc(drain->hand, drain->hand_room * sizeof(struct held *));
    }
    held->place = drain->hand_count;
    drain->hand[drain->hand_count++] = held;
}

/* It is settled, or was never sent. */
static void hand_drop(struct drain *drain, struct held *held)
{
    struct batch *batch = held->batch;
    struct held *last = drain->hand[--drain->hand_count];
    drain->hand[held->place] = last;
    last->place = held->place;
    if (--batch->left > 0)
        return;
    arena_clear(&batch->arena);
    free(batch);
}

/* A lane is never empty, and its memory may go with its last item. */
static void lane_drop(struct drain *drain, struct lane *lane)
{
    bool is_last;
    do {
        struct link *item = list_pop_front(&lane->items);
        is_last = list_empty(&lane->items);
        hand_drop(drain, LIST_ENTRY(item, struct held, link));
    } while (!is_last);
}

static void drop_waiting(struct drain *drain)
{
    struct link *item;
    while ((item = list_pop_front(&drain->waiting)) != NULL)
        lane_drop(drain, LIST_ENTRY(item, struct lane, link));
    drain->waiting_count = 0;
}

/* ---- senders ---- */

static bool is_probing(const struct drain *drain)
{
    return drain->health.pauses > 0;
}

/* Attempts at once: the more endpoints are served, the fewer for each, so that connections are used again. */
static unsigned most_senders(const struct drain *drain)
{
    unsigned most = (unsigned)config->webhook_in_flight;
    unsigned share = TOGETHER / drain_count;
    if (share < EACH_LEAST)
        share = EACH_LEAST;
    if (is_probing(drain))
        return 1;
    return share < most ? share : most;
}

static void note(struct drain *drain, const struct webhook_item *item)
{
    uint64_t random;
    if (item->verdict == WEBHOOK_STOPPED)
        return;
    crypto_random(&random, sizeof random);
    int64_t asked_s = item->status == 429 || item->status == 503 ? item->asked_s : 0;
    /* Those that were on their way when a pause began make it no longer. */
    if (drain->pause_ms > 0 && item->verdict == WEBHOOK_FAILED)
        return;
    drain->pause_ms =
        webhook_health_note(&drain->health, item->verdict == WEBHOOK_DELIVERED, asked_s, random);
    drain->gone = drain->gone || item->status == WEBHOOK_GONE;
    drain->stop = drain->stop || drain->gone || drain->pause_ms > 0;
}

/* Sends until one does not arrive: then the others of its object wait until it has. The lane lives in a batch that its last
 * item may end. */
static void send_lane(struct drain *drain, struct lane *lane)
{
    struct arena scratch;
    struct link *item;
    bool goes_on = true;
    arena_init(&scratch);
    while (goes_on && !drain->stop && (item = list_pop_front(&lane->items)) != NULL) {
        struct held *held = LIST_ENTRY(item, struct held, link);
        bool is_last = list_empty(&lane->items);
        webhook_send(&drain->target, held->item, &held->batch->arena, &scratch);
        CRASH_POINT("webhook-sent");
        note(drain, held->item);
        goes_on = !is_last && held->item->verdict == WEBHOOK_DELIVERED;
        if (!is_last && !goes_on)
            lane_drop(drain, lane);
        list_push_back(&drain->ended, &held->link);
        wake(drain->settler_waiter);
        arena_clear(&scratch);
        if (is_last)
            return;
    }
    if (goes_on)
        lane_drop(drain, lane);
}

static void run_sender(void *arg)
{
    struct drain *drain = arg;
    struct sender self = {.fiber = fiber_self()};
    struct link *item;
    list_push_back(&drain->senders, &self.link);
    while (!drain->stop && drain->sender_count <= most_senders(drain) &&
           (item = list_pop_front(&drain->waiting)) != NULL) {
        drain->waiting_count--;
        send_lane(drain, LIST_ENTRY(item, struct lane, link));
        if (drain->waiting_count < (size_t)config->webhook_in_flight)
            wake(drain->waiter);
    }
    list_remove(&self.link);
    drain->sender_count--;
    wake(drain->waiter);
    group_done(&drain->fibers);
}

static void start_senders(struct drain *drain)
{
    unsigned most = most_senders(drain);
    size_t wanted = drain->waiting_count;
    for (; wanted > 0 && drain->sender_count < most; wanted--) {
        drain->sender_count++;
        group_add(&drain->fibers);
        fiber_start(loop_self(), "webhook", run_sender, drain);
    }
}

/* ---- settling ---- */

static bool is_outage(int result)
{
    return result == -ENOTCONN || result == -ECONNRESET || result == -ETIMEDOUT || result == -EAGAIN;
}

/* Repeats it until PostgreSQL has taken it: it changes nothing the second time. */
static int settle_items(struct drain *drain, struct webhook_item *const *items, size_t count)
{
    uint64_t grace_ns = 0;
    for (;;) {
        bool failing;
        int result = webhook_settle(drain->job, &drain->target, items, count, &drain->health, drain->pause_ms,
                                    &failing);
        drain->failing = drain->failing || failing;
        if (!is_outage(result))
            return result;
        if (drain->canceled && grace_ns == 0)
            grace_ns = clock_in_ms(SETTLE_GRACE_MS);
        if (grace_ns && clock_now_ns() > grace_ns)
            return result;
        CHECK(fiber_sleep_ms(SETTLE_PAUSE_MS) == 0);
    }
}

static void settle(struct drain *drain)
{
    struct link taken;
    struct link *item;
    size_t count = 0;
    struct webhook_item **items = mem_alloc(drain->hand_count * sizeof *items);
    list_init(&taken);
    while ((item = list_pop_front(&drain->ended)) != NULL) {
        list_push_back(&taken, item);
        items[count++] = LIST_ENTRY(item, struct held, link)->item;
    }
    int result = settle_items(drain, items, count);
    if (result && drain->result == 0)
        drain->result = result;
    drain->stop = drain->stop || result || drain->failing;
    while ((item = list_pop_front(&taken)) != NULL)
        hand_drop(drain, LIST_ENTRY(item, struct held, link));
    free(items);
    CRASH_POINT("webhook-settled");
}

static void run_settler(void *arg)
{
    struct drain *drain = arg;
    fiber_hold(); /* what was sent is logged, whoever cancels */
    while (!drain->closing || !list_empty(&drain->ended)) {
        if (!list_empty(&drain->ended)) {
            settle(drain);
            wake(drain->waiter);
            continue;
        }
        struct wait wait = WAIT_INIT;
        drain->settler_waiter = &wait;
        CHECK(wait_for(&wait, "webhook answers", CLOCK_NEVER) == 0);
        drain->settler_waiter = NULL;
    }
    fiber_release();
    group_done(&drain->fibers);
}

/* ---- claiming ---- */

/* The lane for an item: of its object, where order counts, else one of its own. */
static struct lane *lane_for(struct drain *drain, struct batch *batch, struct str object)
{
    if (drain->target.ordered && object.at)
        LIST_EACH (&drain->waiting, link, after) {
            struct lane *lane = LIST_ENTRY(link, struct lane, link);
            if (str_equal(lane->object, object))
                return lane;
        }
    struct lane *lane = arena_zalloc(&batch->arena, sizeof *lane);
    lane->object = object;
    list_init(&lane->items);
    list_push_back(&drain->waiting, &lane->link);
    drain->waiting_count++;
    return lane;
}

static void take(struct drain *drain, struct batch *batch, struct webhook_item *items, size_t count)
{
    struct held *all = arena_zalloc(&batch->arena, (count + 1) * sizeof *all);
    batch->left = count;
    for (size_t i = 0; i < count; i++) {
        all[i].item = &items[i];
        all[i].batch = batch;
        hand_add(drain, &all[i]);
        list_push_back(&lane_for(drain, batch, items[i].object)->items, &all[i].link);
    }
}

/* How long until the next look, once less was due than was asked for. */
static void poll_later(struct drain *drain, bool found)
{
    drain->poll_ms = found ? POLL_LEAST_MS : 2 * drain->poll_ms;
    if (drain->poll_ms > POLL_MOST_MS)
        drain->poll_ms = POLL_MOST_MS;
    drain->poll_ns = clock_in_ms(drain->poll_ms);
}

/* Waits, also when the job is cancelled: what is in hand is known. */
static int claim(struct drain *drain)
{
    size_t most = is_probing(drain)       ? 1
                  : drain->target.ordered ? ORDERED_AT_ONCE
                                          : 2 * (size_t)config->webhook_in_flight;
    struct batch *batch = mem_zalloc(sizeof *batch);
    arena_init(&batch->arena);
    struct webhook_item **hand = arena_alloc(&batch->arena, (drain->hand_count + 1) * sizeof *hand);
    struct webhook_item *items;
    size_t count;
    for (size_t i = 0; i < drain->hand_count; i++)
        hand[i] = drain->hand[i]->item;
    fiber_hold();
    int result = webhook_claim(&batch->arena, &drain->target, hand, drain->hand_count, most, &items, &count);
    fiber_release();
    if (result == 0 && count < most)
        poll_later(drain, count > 0);
    if (result == 0 && count > 0) {
        take(drain, batch, items, count);
        CRASH_POINT("webhook-claimed");
        start_senders(drain);
        return 0;
    }
    arena_clear(&batch->arena);
    free(batch);
    return result;
}

static bool may_go_on(const struct drain *drain)
{
    return !drain->stop && clock_now_ns() < drain->until_ns;
}

static bool wants_more(const struct drain *drain)
{
    bool alone = drain->target.ordered || is_probing(drain);
    return may_go_on(drain) && clock_now_ns() >= drain->poll_ns &&
           (alone ? drain->hand_count == 0 : drain->waiting_count < (size_t)config->webhook_in_flight);
}

/* ---- the job ---- */

static void cancel_senders(struct drain *drain)
{
    drain->canceled = true;
    drain->stop = true;
    LIST_EACH (&drain->senders, item, after)
        fiber_cancel(LIST_ENTRY(item, struct sender, link)->fiber);
}

/* Waits for a sender or the settler to tell something, and to the time of the next look at the latest. */
static void rest(struct drain *drain)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t until_ns = CLOCK_NEVER;
    if (may_go_on(drain)) {
        until_ns = drain->until_ns;
        if (drain->poll_ns > now_ns && drain->poll_ns < until_ns)
            until_ns = drain->poll_ns;
    }
    struct wait wait = WAIT_INIT;
    drain->waiter = &wait;
    int result = wait_for(&wait, "webhook deliveries", until_ns);
    drain->waiter = NULL;
    if (result == -ECANCELED && !drain->canceled) {
        cancel_senders(drain);
        fiber_hold();
    }
}

static void run_drain(struct drain *drain)
{
    group_add(&drain->fibers);
    fiber_start(loop_self(), "webhook log", run_settler, drain);
    bool more = true;
    while (more) {
        if (!may_go_on(drain))
            drop_waiting(drain);
        if (wants_more(drain)) {
            int result = claim(drain);
            drain->result = drain->result ? drain->result : result;
            drain->stop = drain->stop || drain->result;
        } else if (drain->hand_count > 0 || drain->sender_count > 0) {
            start_senders(drain);
            rest(drain);
        } else {
            more = false;
        }
    }
    if (!drain->canceled)
        fiber_hold();
    drain->closing = true;
    wake(drain->settler_waiter);
    CHECK(group_wait(&drain->fibers, "webhook senders", CLOCK_NEVER) == 0);
    fiber_release();
}

/* What follows for the endpoint, then the job's end. A job that was told to stop ends as any other: all that it began is
 * logged, and what is left has a job of its own. */
static int finish(struct drain *drain)
{
    if (drain->result)
        return is_outage(drain->result) ? -EAGAIN : drain->result;
    int result = 0;
    fiber_hold();
    if (drain->gone)
        result = webhook_disable(&drain->target, WEBHOOK_REASON_GONE);
    else if (drain->failing)
        result = webhook_disable(&drain->target, WEBHOOK_REASON_FAILING);
    if (result == 0)
        result = webhook_end(drain->job, &drain->target);
    fiber_release();
    CRASH_POINT("webhook-ended");
    return is_outage(result) ? -EAGAIN : result;
}

/* One tenant with many slow endpoints must not have all places. */
static bool tenant_is_full(struct str tenant)
{
    int64_t most = config->worker_concurrency / TENANT_SHARE;
    int64_t count = 0;
    LIST_EACH (&drains, item, after)
        count += str_equal(LIST_ENTRY(item, struct drain, link)->job->tenant, tenant);
    return count >= (most > TENANT_LEAST ? most : TENANT_LEAST);
}

static int drain_open(struct drain *drain, struct job *job)
{
    *drain = (struct drain){.job = job, .poll_ms = POLL_LEAST_MS};
    list_push_back(&drains, &drain->link);
    drain_count++;
    int result = webhook_target_load(job->arena, job->key, &drain->target);
    if (result == 0 && drain->target.cut)
        result = webhook_take_over(&drain->target);
    drain->health = drain->target.health;
    drain->until_ns = clock_in_ms(WEBHOOK_SLICE_MS);
    list_init(&drain->waiting);
    list_init(&drain->ended);
    list_init(&drain->senders);
    return result;
}

int webhook_run(struct job *job)
{
    struct drain *drain = arena_alloc(job->arena, sizeof *drain);
    if (tenant_is_full(job->tenant))
        return -EAGAIN;
    int result = drain_open(drain, job);
    if (result == 0 && !drain->target.paused)
        run_drain(drain);
    list_remove(&drain->link);
    drain_count--;
    free(drain->hand);
    if (result == 0)
        return finish(drain);
    if (result == -EBADMSG)
        return job_fail(job, result, "the endpoint's secret does not open");
    return result == -ENOENT ? 0 : is_outage(result) ? -EAGAIN : result;
}

/* ---- what was lost ---- */

static struct {
    struct group fibers;
    struct fiber *fiber;
} sweep;

static void run_sweep(void *unused)
{
    (void)unused;
    while (fiber_sleep_ms(SWEEP_MS) == 0) {
        int result = webhook_sweep(); /* PostgreSQL may be away */
        if (result && !is_outage(result) && result != -ECANCELED)
            LOG(WARN, "webhooks could not be looked through", LOG_ERRNO(result));
        result = backlog_measure();
        if (result && !is_outage(result) && result != -ECANCELED)
            LOG(WARN, "what waits could not be counted", LOG_ERRNO(result));
    }
    group_done(&sweep.fibers);
}

void webhook_sweep_open(struct loop *loop)
{
    group_add(&sweep.fibers);
    sweep.fiber = fiber_start(loop, "webhook sweep", run_sweep, NULL);
}

void webhook_sweep_close(void)
{
    fiber_hold();
    fiber_cancel(sweep.fiber);
    CHECK(group_wait(&sweep.fibers, "webhook sweep", CLOCK_NEVER) == 0);
    fiber_release();
}

void webhook_name_metrics(void)
{
    metric_name_slot(M_WEBHOOK_ATTEMPTS, WEBHOOK_DELIVERED, "delivered");
    metric_name_slot(M_WEBHOOK_ATTEMPTS, WEBHOOK_FAILED, "failed");
    metric_name_slot(M_WEBHOOK_ATTEMPTS, WEBHOOK_STOPPED, "stopped");
    metric_name_slot(M_WEBHOOK_DISABLED, WEBHOOK_REASON_GONE, "gone");
    metric_name_slot(M_WEBHOOK_DISABLED, WEBHOOK_REASON_FAILING, "failing");
    backlog_name_metrics();
}
