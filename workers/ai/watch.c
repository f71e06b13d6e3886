/*
 * Providers as operators see them: once a second what waits for each, what runs, how much it may have and its breaker become metrics,
 * and a line where that changes much. Every worker says the same of all servers. The first providers that it sees have a label of
 * their own, as many as a metric has room for; what is left is summed up under "others".
 */
#include "workers/ai/internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/ai/state.h"
#include "core/run/sync.h"

#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 1000, OTHERS = METRIC_SLOTS - 1, NAME_SIZE = 40 };

static const enum metric metrics[] = {M_AI_WAITING, M_AI_IN_FLIGHT, M_AI_CAP, M_AI_BREAKER};

struct seen {
    char name[NAME_SIZE];
    int64_t told[ARRAY_SIZE(metrics)];
    int64_t logged_cap;
    enum ai_breaker breaker;
    bool known; /* it was looked at before */
};

static struct {
    struct fiber *fiber;
    struct group fibers;
    struct seen seen[METRIC_SLOTS]; /* a name stays as long as the process: others read it */
} watch;

/* Whether the slot has that name now; the first that asks for it gives it. */
static bool is_named(size_t slot, const char *name)
{
    char *own = watch.seen[slot].name;
    if (own[0])
        return strcmp(own, name) == 0;
    snprintf(own, NAME_SIZE, "%s", name);
    for (size_t i = 0; i < ARRAY_SIZE(metrics); i++)
        metric_name_slot(metrics[i], (unsigned)slot, own);
    return true;
}

static size_t slot_of(const char *name)
{
    for (size_t slot = 0; slot < OTHERS; slot++)
        if (is_named(slot, name))
            return slot;
    CHECK(is_named(OTHERS, "others"));
    return OTHERS;
}

/* A cap that has halved or doubled since it was told of last, and a breaker that has turned. */
static void log_change(struct seen *seen, const struct ai_state *state)
{
    bool turned = seen->known && seen->breaker != state->breaker;
    bool moved = seen->known && (2 * state->cap <= seen->logged_cap || state->cap >= 2 * seen->logged_cap);
    if (turned || moved)
        LOG(INFO, "a provider's bounds have changed", LOG_TEXT("provider", seen->name),
            LOG_TEXT("breaker", ai_breaker_name(state->breaker)), LOG_INT("cap", state->cap),
            LOG_INT("in_flight", state->in_flight), LOG_INT("waiting", state->waiting));
    if (moved || !seen->known)
        seen->logged_cap = state->cap;
    seen->breaker = state->breaker;
    seen->known = true;
}

static void tell(int64_t sums[METRIC_SLOTS][ARRAY_SIZE(metrics)])
{
    for (unsigned slot = 0; slot < METRIC_SLOTS; slot++)
        for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
            metric_add_slot(metrics[i], slot, sums[slot][i] - watch.seen[slot].told[i]);
            watch.seen[slot].told[i] = sums[slot][i];
        }
}

static void look_at(struct arena *arena, const struct catalogue *catalogue)
{
    int64_t sums[METRIC_SLOTS][ARRAY_SIZE(metrics)] = {0};
    struct ai_state *states;
    size_t count = catalogue_provider_count(catalogue);
    const struct provider **providers = arena_alloc(arena, (count + 1) * sizeof *providers);
    for (size_t i = 0; i < count; i++)
        providers[i] = catalogue_provider_at(catalogue, i);
    if (ai_state_read(arena, providers, count, &states))
        return; /* Redis is away: the last numbers stay */
    for (size_t i = 0; i < count; i++) {
        size_t slot = slot_of(providers[i]->name);
        sums[slot][0] += states[i].waiting;
        sums[slot][1] += states[i].in_flight;
        sums[slot][2] += states[i].cap;
        if ((int64_t)states[i].breaker > sums[slot][3])
            sums[slot][3] = states[i].breaker;
        if (slot != OTHERS)
            log_change(&watch.seen[slot], &states[i]);
    }
    tell(sums);
}

static void run_watch(void *unused)
{
    (void)unused;
    do {
        struct arena arena;
        struct catalogue *catalogue = catalogue_ref();
        arena_init(&arena);
        look_at(&arena, catalogue);
        arena_clear(&arena);
        catalogue_unref(catalogue);
    } while (fiber_sleep_ms(LOOK_MS) == 0);
    group_done(&watch.fibers);
}

void ai_watch_open(struct loop *loop)
{
    group_add(&watch.fibers);
    watch.fiber = fiber_start(loop, "AI providers", run_watch, NULL);
}

void ai_watch_close(void)
{
    fiber_cancel(watch.fiber);
    CHECK(group_wait(&watch.fibers, "AI providers to be looked at", CLOCK_NEVER) == 0);
}
