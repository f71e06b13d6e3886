/*
 * Ends of AI calls on their way into PostgreSQL. While one statement commits what has ended, the next ends gather, so the more there are
 * the cheaper each is. A call's row has its id for a key: what is settled twice counts once, so that every doubt is met by
 * doing it again.
 *
 *     a call ends ──▶ waiting ──▶ batch ──committed──▶ taken out of Redis
 *                        ▲          │ PostgreSQL is away: again, later
 *                        └──────────┘ one of them can't be stored: each alone, and that one is given up
 */
#include "workers/ai_internal.h"

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
    PAUSE_LEAST_MS = 20,
    PAUSE_MOST_MS = 1000,
    FULL = 20000, /* ends in hand at which no more calls are taken, */
    ROOM = 10000, /* and below which they are again */
};

struct ended {
    struct link link; /* in the order of their ends */
    struct link known;
    struct arena arena;
    struct ai_end end;
};

static struct {
    struct loop *loop;
    struct fiber *fiber;
    struct group fibers;
    struct link waiting;
    struct table ids; /* of all in hand */
    size_t count;
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
    if (settle.full ? settle.count < ROOM : settle.count >= FULL) {
        settle.full = !settle.full;
        ai_worker_take(!settle.full);
        LOG(WARN,
            settle.full ? "too many AI calls wait for PostgreSQL: no more are taken"
                        : "AI calls are taken again",
            LOG_INT("unsettled", settle.count));
    }
}

void ai_settle_take(struct arena *arena, const struct ai_end *end)
{
    struct ended *ended = mem_alloc(sizeof *ended);
    *ended = (struct ended){.arena = *arena, .end = *end};
    list_push_back(&settle.waiting, &ended->link);
    table_add(&settle.ids, &ended->known);
    settle.count++;
    metric_add(M_AI_UNSETTLED, 1);
    look_at_room();
    if (settle.waiter)
        wait_done(settle.waiter, 0);
}

static void forget(struct ended *ended)
{
    table_remove(&settle.ids, &ended->known);
    arena_clear(&ended->arena);
    free(ended);
    settle.count--;
    metric_add(M_AI_UNSETTLED, -1);
}

void ai_settle_recover(const struct str *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct arena arena;
        struct ai_end end;
        if (table_find(&settle.ids, ids[i]))
            continue;
        arena_init(&arena);
        int result = ai_ended_read(&arena, ids[i], &end);
        if (result == 0) {
            ai_settle_take(&arena, &end);
        } else {
            arena_clear(&arena);
            if (result == -ENOENT) /* its hash is gone, or nobody can read it */
                ai_ended_forget(&ids[i], 1);
        }
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

static void commit_alone(const struct ended *ended)
{
    int result = commit(&ended->end, 1);
    if (result == 0 || settle.abandoned)
        return;
    LOG(ERROR, "the end of an AI call can't be stored and is given up", LOG_STR("job", ended->end.id),
        LOG_ERRNO(result));
}

static void settle_batch(struct batch *batch)
{
    int result = commit(batch->ends, batch->count);
    CRASH_POINT("ai-settled");
    if (result && !settle.abandoned)
        for (size_t i = 0; i < batch->count; i++)
            commit_alone(batch->members[i]);
    if (!settle.abandoned || result == 0) {
        ai_ended_forget(batch->ids, batch->count);
        metric_add(M_AI_SETTLED, (int64_t)batch->count);
    }
    for (size_t i = 0; i < batch->count; i++)
        forget(batch->members[i]);
    look_at_room();
}

static void run_settle(void *unused)
{
    struct batch *batch = mem_alloc(sizeof *batch);
    (void)unused;
    for (;;) {
        gather(batch);
        if (batch->count > 0) {
            settle_batch(batch);
            continue;
        }
        if (settle.closing)
            break;
        struct wait wait = WAIT_INIT;
        settle.waiter = &wait;
        int result = wait_for(&wait, "AI calls to end", CLOCK_NEVER);
        settle.waiter = NULL;
        CHECK(result == 0);
    }
    free(batch);
    group_done(&settle.fibers);
}

void ai_settle_open(struct loop *loop)
{
    settle.loop = loop;
    settle.closing = settle.abandoned = settle.full = false;
    list_init(&settle.waiting);
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
