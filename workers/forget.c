/* What is no longer needed goes: see forget.h. */
#include "workers/forget.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/domain/ai/job.h"
#include "core/domain/audit.h"
#include "core/domain/event/event.h"
#include "core/domain/event/webhook_drain.h"
#include "core/domain/idempotency.h"
#include "core/domain/identity/login.h"
#include "core/domain/identity/oauth.h"
#include "core/domain/money/lease.h"
#include "core/run/sync.h"

#include <errno.h>

enum { PAUSE_MS = 60000 };

static const struct {
    const char *name;
    int (*forget)(void);
} rows[] = {
    {"audit records", audit_forget},
    {"events", event_forget},
    {"kept answers", idempotency_forget},
    {"log-ins", login_forget},
    {"OAuth codes and tokens", oauth_forget},
    {"leases", lease_forget},
    {"AI jobs", ai_job_forget},
    {"webhook deliveries", webhook_forget},
};

static struct {
    struct group fibers;
    struct fiber *fiber;
} forget;

static void run_forget(void *unused)
{
    (void)unused;
    do {
        for (size_t i = 0; i < ARRAY_SIZE(rows) && !fiber_canceled(); i++) {
            int result = rows[i].forget(); /* PostgreSQL may be away: a minute later it is tried again */
            if (result && result != -ENOTCONN && result != -ECANCELED)
                LOG(WARN, "old rows could not be removed", LOG_TEXT("what", rows[i].name), LOG_ERRNO(result));
        }
    } while (fiber_sleep_ms(PAUSE_MS) == 0);
    group_done(&forget.fibers);
}

void forget_open(struct loop *loop)
{
    group_add(&forget.fibers);
    forget.fiber = fiber_start(loop, "forget", run_forget, NULL);
}

void forget_close(void)
{
    fiber_hold();
    fiber_cancel(forget.fiber);
    CHECK(group_wait(&forget.fibers, "old rows to be removed", CLOCK_NEVER) == 0);
    fiber_release();
}
