/*
 * AI calls that are rows before they are anything else. Once a second: those that run here are still in work; those that are due and
 * that nobody has, because their ring was lost or Redis was, are submitted again.
 */
#include "workers/ai/internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/ai/order.h"
#include "core/domain/identity/plan.h"
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

/* Its time is over, however often it was placed. Where Redis has it, it goes; one that runs is ended by its worker. */
static void end_overdue(const struct ai_due *due, const struct ai_meta *meta)
{
    enum ai_cancel_outcome outcome;
    if (ai_cancel(due->account_id, due->id, true, &outcome) || outcome == AI_CANCEL_RUNNING)
        return; /* the row is due again by itself */
    end_refused(due, meta, "queue_timeout", AI_TOO_LATE_MESSAGE);
}

/* What the account may spend a day by now; negative: any amount. */
static int read_limit(struct arena *arena, const struct ai_due *due, const struct ai_meta *meta, money *limit)
{
    struct plan plan;
    char *surface = arena_printf(arena, "%.*s", STR_ARG(meta->surface));
    int result = plan_get(arena, due->account_id, surface, &plan);
    if (result == 0)
        *limit = plan.daily_spend == PLAN_SPEND_UNLIMITED ? -1 : plan.daily_spend;
    return result;
}

/* What the queue will never take ends; otherwise it is there already, or may be taken later: the row is due again by itself. */
static void order_again(struct arena *arena, const struct ai_due *due, const struct ai_meta *meta,
                        const struct model *model)
{
    struct ai_order order = {
        .id = due->id, .account_id = due->account_id, .body = due->request, .durable = true};
    enum ai_entry entry;
    int64_t retry_ms;
    if (!model || !ai_order_fill(&order, arena, meta, model)) {
        end_refused(due, meta, "model_not_available", "The model is not available");
        return;
    }
    if (read_limit(arena, due, meta, &order.limit) || ai_submit_unheard(&order, &entry, &retry_ms))
        return;
    if (entry == AI_NO_MONEY)
        end_refused(due, meta, "insufficient_balance", "Insufficient balance");
    else if (entry == AI_SPENT)
        end_refused(due, meta, "spending_limit_reached", "The daily spending limit is reached");
    else if (entry == AI_ACCEPTED)
        LOG(INFO, "an AI job was due and is submitted again", LOG_STR("job", due->id));
}

static void submit(struct arena *arena, const struct ai_due *due)
{
    struct ai_meta meta;
    if (ai_meta_read(arena, due->meta, &meta)) {
        LOG(ERROR, "an AI job has no description that can be read", LOG_STR("job", due->id));
        return;
    }
    if (clock_wall_ms() - meta.created_ms >= config->ai_call_s * 1000) {
        end_overdue(due, &meta);
        return;
    }
    struct catalogue *catalogue = catalogue_ref();
    order_again(arena, due, &meta, catalogue_model(catalogue, meta.model));
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
