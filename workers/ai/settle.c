/*
 * Ends of AI calls on their way into PostgreSQL. While one statement commits what has ended, the next ends gather, so the more there are
 * the cheaper each is. A call's row has its id for a key: what is settled twice counts once, so that every doubt is met by
 * doing it again.
 *
 *     a call ends ──▶ waiting ──▶ batch ──committed──▶ taken out of Redis
 *                        ▲          │ PostgreSQL is away: again, later
 *                        └──────────┘ one of them can't be stored: each alone, and that one is given up
 */
#include "workers/ai/internal.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdlib.h>

enum {
    BATCH_MOST = 256,
    BATCH_BYTES = 4 << 20,
    GATHER_MS = 10,
    PAUSE_LEAST_MS = 20,
    PAUSE_MOST_MS = 1000,
    FULL = 20000,          /* ends in hand at which no more calls are taken, */
    FULL_BYTES = 64 << 20, /* or what they take; below half of both they are again */
    BYTES_MAX = 256 << 20, /* over that an end is left in Redis, until there is room */
    TRIES = 8,             /* of an end that can't be stored, when others can */
    TRY_PAUSE_MS = 1000,
    TRY_PAUSE_MOST_MS = 30000
};

/* Copied with all that it names. */
struct ended {
    struct link link; /* in the order of their ends, or in `later` */
    struct link known;
    struct ai_end end;
    size_t size;
    unsigned tries;
    uint64_t due_ns;    /* in `later` */
    uint64_t committed; /* settle.committed as it was first refused */
};

static struct {
    struct loop *loop;
    struct fiber *fiber;
    struct group fibers;
    struct link waiting;
    struct link later; /* that could not be stored, in the order of their next tries but for some seconds */
    struct table ids;  /* of all in hand */
    size_t count;
    size_t bytes;
    uint64_t committed;
    struct wait *waiter;
    bool closing;
    bool abandoned; /* there is no time left */
    bool full;
} settle;

static struct str id_of(struct link *item)
{
    return LIST_ENTRY(item, struct ended, known)->end.id;
}

static void look_at_room(void)
{
    bool full = settle.full ? settle.count >= FULL / 2 || settle.bytes >= FULL_BYTES / 2
                            : settle.count >= FULL || settle.bytes >= FULL_BYTES;
    if (full == settle.full)
        return;
    settle.full = full;
    ai_worker_take(!full);
    LOG(WARN, full ? "too many AI calls wait for PostgreSQL: no more are taken" : "AI calls are taken again",
        LOG_INT("unsettled", settle.count));
}

static struct ended *copy_of(const struct ai_end *end)
{
    struct ai_end copy = *end;
    struct str *texts[] = {&copy.id,       &copy.meta.surface, &copy.meta.model, &copy.meta.request_id,
                           &copy.provider, &copy.code,         &copy.message,    &copy.text,
                           &copy.answer};
    size_t size = sizeof(struct ended);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        size += texts[i]->size;
    struct ended *ended = mem_alloc(size);
    char *at = (char *)(ended + 1);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        if (!texts[i]->at)
            continue;
        memcpy(at, texts[i]->at, texts[i]->size);
        texts[i]->at = at;
        at += texts[i]->size;
    }
    *ended = (struct ended){.end = copy, .size = size};
    return ended;
}

void ai_settle_take(const struct ai_end *end)
{
    if (settle.bytes > BYTES_MAX) {
        LOG(WARN, "the end of an AI call is left in Redis, to be settled later", LOG_STR("job", end->id));
        return;
    }
    struct ended *ended = copy_of(end);
    list_push_back(&settle.waiting, &ended->link);
    table_add(&settle.ids, &ended->known);
    settle.count++;
    settle.bytes += ended->size;
    metric_add(M_AI_UNSETTLED, 1);
    look_at_room();
    if (settle.waiter)
        wait_done(settle.waiter, 0);
}

static void forget(struct ended *ended)
{
    table_remove(&settle.ids, &ended->known);
    settle.count--;
    settle.bytes -= ended->size;
    free(ended);
    metric_add(M_AI_UNSETTLED, -1);
}

void ai_settle_recover(const struct str *ids, size_t count)
{
    for (size_t i = 0; i < count && !settle.full && !settle.closing; i++) {
        struct arena arena;
        struct ai_end end;
        if (table_find(&settle.ids, ids[i]))
            continue;
        arena_init(&arena);
        int result = ai_ended_read(&arena, ids[i], &end);
        if (result == 0)
            ai_settle_take(&end);
        else if (result == -ENOENT) /* its hash is gone, or nobody can read it */
            ai_ended_forget(&ids[i], 1);
        arena_clear(&arena);
        if (result && result != -ENOENT)
            return;
    }
}

/* ---- batches ---- */

struct batch {
    struct ended *members[BATCH_MOST];
    struct ai_end ends[BATCH_MOST];
    struct str ids[BATCH_MOST];
    size_t count;
};

static void gather(struct batch *batch)
{
    size_t bytes = 0;
    struct link *item;
    batch->count = 0;
    while (batch->count < BATCH_MOST && bytes < BATCH_BYTES &&
           (item = list_pop_front(&settle.waiting)) != NULL) {
        struct ended *ended = LIST_ENTRY(item, struct ended, link);
        bytes += ended->end.text.size + ended->end.answer.size;
        batch->ids[batch->count] = ended->end.id;
        batch->ends[batch->count] = ended->end;
        batch->members[batch->count++] = ended;
    }
}

/* Repeats it while PostgreSQL is away. -EIO: something in it can't be stored. */
static int commit(const struct ai_end *ends, size_t count)
{
    for (uint64_t pause_ms = PAUSE_LEAST_MS;;
         pause_ms = pause_ms < PAUSE_MOST_MS ? 2 * pause_ms : PAUSE_MOST_MS) {
        struct arena arena;
        arena_init(&arena);
        int result = ai_settle(&arena, ends, count);
        arena_clear(&arena);
        if (result == 0 || result == -EIO || result == -EEXIST || settle.abandoned)
            return result;
        int slept = fiber_sleep_ms(pause_ms);
        (void)slept; /* closing: look whether there is time */
    }
}

static void done(struct ended *const *members, const struct str *ids, size_t count)
{
    CRASH_POINT("ai-settled");
    ai_ended_forget(ids, count);
    metric_add(M_AI_SETTLED, (int64_t)count);
    settle.committed += count;
    for (size_t i = 0; i < count; i++)
        forget(members[i]);
}

/* Nothing says whether it is this one, or PostgreSQL, that can't: when others could be stored meanwhile it is this one. */
static void put_off(struct ended *ended, int error)
{
    if (ended->tries++ == 0)
        ended->committed = settle.committed;
    if (ended->tries >= TRIES && settle.committed > ended->committed) {
        LOG(ERROR, "the end of an AI call can't be stored and is given up", LOG_STR("job", ended->end.id),
            LOG_INT("account", ended->end.account_id), LOG_INT("cost", ended->end.cost), LOG_ERRNO(error));
        ai_ended_forget(&ended->end.id, 1);
        forget(ended);
        return;
    }
    uint64_t pause_ms = (uint64_t)TRY_PAUSE_MS << (ended->tries < 5 ? ended->tries - 1 : 4);
    ended->due_ns = clock_in_ms(pause_ms < TRY_PAUSE_MOST_MS ? pause_ms : TRY_PAUSE_MOST_MS);
    list_push_back(&settle.later, &ended->link);
}

static void settle_alone(struct ended *ended)
{
    int result = commit(&ended->end, 1);
    if (result == 0)
        done(&ended, &ended->end.id, 1);
    else if (settle.abandoned)
        forget(ended);
    else
        put_off(ended, result);
}

static void settle_batch(struct batch *batch)
{
    int result = commit(batch->ends, batch->count);
    if (result == 0)
        done(batch->members, batch->ids, batch->count);
    else
        for (size_t i = 0; i < batch->count; i++)
            settle_alone(batch->members[i]);
    look_at_room();
}

/* The next of `later` whose time has come; or when that is. */
static struct ended *take_later(uint64_t *due_ns)
{
    *due_ns = CLOCK_NEVER;
    LIST_EACH (&settle.later, item, after) {
        struct ended *ended = LIST_ENTRY(item, struct ended, link);
        if (ended->due_ns <= clock_now_ns()) {
            list_remove(item);
            return ended;
        }
        *due_ns = ended->due_ns < *due_ns ? ended->due_ns : *due_ns;
    }
    return NULL;
}

/* Nobody waits for a commit: the more it has, the less each end costs. */
static void let_gather(void)
{
    if (settle.closing)
        return;
    int result = fiber_sleep_ms(GATHER_MS);
    CHECK(result == 0);
}

/* Waits until there is something to do. False: there is nothing any more. */
static bool settle_some(struct batch *batch)
{
    uint64_t due_ns;
    struct ended *ended = take_later(&due_ns);
    if (ended)
        settle_alone(ended);
    gather(batch);
    if (batch->count > 0)
        settle_batch(batch);
    if (ended || batch->count > 0) {
        if (batch->count < BATCH_MOST)
            let_gather();
        return true;
    }
    if (settle.closing)
        return false;
    struct wait wait = WAIT_INIT;
    settle.waiter = &wait;
    int result = wait_for(&wait, "AI calls to end", due_ns);
    settle.waiter = NULL;
    CHECK(result == 0 || result == -ETIMEDOUT);
    let_gather();
    return true;
}

static void run_settle(void *unused)
{
    struct batch *batch = mem_alloc(sizeof *batch);
    (void)unused;
    while (settle_some(batch)) {
    }
    for (struct link *item; (item = list_pop_front(&settle.later)) != NULL;)
        forget(LIST_ENTRY(item, struct ended, link));
    free(batch);
    group_done(&settle.fibers);
}

void ai_settle_open(struct loop *loop)
{
    settle.loop = loop;
    settle.closing = settle.abandoned = settle.full = false;
    settle.committed = 0;
    list_init(&settle.waiting);
    list_init(&settle.later);
    table_init(&settle.ids, id_of);
    group_add(&settle.fibers);
    settle.fiber = fiber_start(loop, "AI settler", run_settle, NULL);
}

void ai_settle_close(uint64_t deadline_ns)
{
    settle.closing = true;
    if (settle.waiter)
        wait_done(settle.waiter, 0);
    if (group_wait(&settle.fibers, "AI calls to be settled", deadline_ns)) {
        LOG(WARN, "AI calls are left to be settled by others", LOG_INT("unsettled", settle.count));
        settle.abandoned = true;
        CHECK(group_wait(&settle.fibers, "AI calls to be settled", CLOCK_NEVER) == 0);
    }
    table_clear(&settle.ids);
}
