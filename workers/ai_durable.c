/*
 * AI calls that are rows before they are anything else. Once a second: those that run here are still in work; those that are due and
 * that nobody has, because their ring was lost or Redis was, are submitted again.
 */
#include "workers/ai_internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/domain/ai_order.h"
#include "core/run/sync.h"

#include <errno.h>

enum { LOOK_MS = 1000, DUE_MOST = 64, EXTEND_MS = AI_DURABLE_LEASE_MS / 3, EXTEND_AT_ONCE = 512 };

static struct {
    struct fiber *fiber;
    struct group fibers;
} durable;

/* ---- in work ---- */

struct names {
    struct arena *arena;
    struct str *ids;
    size_t count;
};

/* They may end meanwhile. */
static void note(struct ai_task *task, void *arg)
{
    struct names *names = arg;
    if (task->durable)
        names->ids[names->count++] = arena_str(names->arena, task->id);
}

static void extend(struct arena *arena)
{
    struct names names = {.arena = arena,
                          .ids = arena_alloc(arena, (ai_worker_tasks() + 1) * sizeof(struct str))};
    ai_worker_each(note, &names);
    for (size_t from = 0; from < names.count; from += EXTEND_AT_ONCE) {
        size_t count = names.count - from < EXTEND_AT_ONCE ? names.count - from : EXTEND_AT_ONCE;
        int result = ai_job_extend(names.ids + from, count, ai_worker_name(), AI_DURABLE_LEASE_MS);
        if (result && result != -ECANCELED)
            LOG(WARN, "AI jobs in work could not be shown to be", LOG_ERRNO(result));
    }
}

/* ---- due ---- */

/* The queue will never take it. */
static void end_refused(const struct ai_due *due, const struct ai_meta *meta, const char *code,
                        const char *message)
{
    const struct ai_end end = {
        .id = due->id,
        .account_id = due->account_id,
        .fence = -1,
        .meta = *meta,
        .status = AI_JOB_FAILED,
        .code = str_from(code),
        .message = str_from(message),
        .ended_ms = clock_wall_ms(),
    };
    ai_settle_take(&end);
}

static void submit(struct arena *arena, const struct ai_due *due)
{
    struct ai_meta meta;
    if (ai_meta_read(arena, due->meta, &meta)) {
        LOG(ERROR, "an AI job has no description that can be read", LOG_STR("job", due->id));
        return;
    }
    struct catalogue *catalogue = catalogue_ref();
    const struct model *model = catalogue_model(catalogue, meta.model);
    struct ai_order order = {
        .id = due->id, .account_id = due->account_id, .limit = -1, .body = due->request, .durable = true};
    enum ai_entry entry = AI_ACCEPTED;
    int64_t retry_ms;
    if (!model || !ai_order_fill(&order, arena, &meta, model)) {
        end_refused(due, &meta, "model_not_available", "The model is not available");
    } else {
        int result = ai_submit_unheard(&order, &entry, &retry_ms);
        if (result == 0 && entry == AI_NO_MONEY)
            end_refused(due, &meta, "insufficient_balance", "Insufficient balance");
        else if (result == 0 && entry == AI_ACCEPTED)
            LOG(INFO, "an AI job was due and is submitted again", LOG_STR("job", due->id));
        /* Otherwise it is there already, or may be taken later: the row is due again by itself. */
    }
    catalogue_unref(catalogue);
}

static void submit_due(struct arena *arena)
{
    struct ai_due *due;
    size_t count;
    if (ai_job_due(arena, DUE_MOST, &due, &count))
        return;
    for (size_t i = 0; i < count && !fiber_canceled(); i++)
        submit(arena, &due[i]);
}

static void run_durable(void *unused)
{
    (void)unused;
    uint64_t extend_ns = 0;
    do {
        struct arena arena;
        arena_init(&arena);
        if (clock_now_ns() >= extend_ns) {
            extend_ns = clock_in_ms(EXTEND_MS);
            extend(&arena);
        }
        submit_due(&arena);
        arena_clear(&arena);
    } while (fiber_sleep_ms(LOOK_MS) == 0);
    group_done(&durable.fibers);
}

void ai_durable_open(struct loop *loop)
{
    group_add(&durable.fibers);
    durable.fiber = fiber_start(loop, "AI jobs", run_durable, NULL);
}

void ai_durable_close(void)
{
    fiber_cancel(durable.fiber);
    CHECK(group_wait(&durable.fibers, "AI jobs to be looked at", CLOCK_NEVER) == 0);
}
