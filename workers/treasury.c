/* Sweeps over money: see treasury.h. */
#include "workers/treasury.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/money/lease.h"
#include "core/domain/money/subscription.h"
#include "core/run/sync.h"

#include <errno.h>

static const struct {
    const char *name;
    int (*sweep)(void);
} rows[] = {
    {"leases", lease_sweep},
    {"subscriptions", subscription_renew_due},
};

static struct {
    struct group fibers;
    struct fiber *fiber;
} treasury;

/* Sooner than what is idle by far, but not more than thrice a second. */
static uint64_t pause_ms(void)
{
    uint64_t tenth_ms = (uint64_t)config->lease_idle_s * 100;
    return tenth_ms < 300 ? 300 : tenth_ms > 5000 ? 5000 : tenth_ms;
}

static void run_treasury(void *unused)
{
    (void)unused;
    do {
        for (size_t i = 0; i < ARRAY_SIZE(rows) && !fiber_canceled(); i++) {
            int result = rows[i].sweep(); /* a store may be away: the next round tries again */
            if (result && result != -ENOTCONN && result != -ECANCELED)
                LOG(WARN, "a sweep over money failed", LOG_TEXT("what", rows[i].name), LOG_ERRNO(result));
        }
    } while (fiber_sleep_ms(pause_ms()) == 0);
    group_done(&treasury.fibers);
}

void treasury_open(struct loop *loop)
{
    group_add(&treasury.fibers);
    treasury.fiber = fiber_start(loop, "treasury", run_treasury, NULL);
}

void treasury_close(void)
{
    fiber_hold();
    fiber_cancel(treasury.fiber);
    CHECK(group_wait(&treasury.fibers, "sweeps over money", CLOCK_NEVER) == 0);
    fiber_release();
}
