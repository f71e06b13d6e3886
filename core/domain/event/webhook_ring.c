/*
 * Rings for webhook jobs. Whoever adds an event learns nothing of the jobs that came with it: most accounts have no endpoint, and
 * an event must not cost them a thing. So the accounts are gathered, one statement at a time asks for their jobs, and
 * an endpoint that is being served already is not rung.
 */
#include "core/domain/event/webhook_internal.h"

#include "core/base/clock.h"
#include "core/run/sync.h"
#include "core/store/queue.h"

#include <stdlib.h>

enum { ACCOUNTS_MAX = 4096 };

static const struct pg_statement sql_rings = {"webhook_rings", "SELECT id, tenant FROM webhook_rings($1)"};

struct ringer {
    struct group fibers;
    struct fiber *fiber; /* NULL while there is nothing to do */
    size_t count;
    int64_t accounts[ACCOUNTS_MAX];
};

static void ring_all(const struct pg_rows *rows)
{
    size_t count = pg_count(rows);
    struct queue_bell *bells = mem_alloc((count + 1) * sizeof *bells);
    for (size_t i = 0; i < count; i++)
        bells[i] = (struct queue_bell){JOB_WEBHOOK, pg_str(rows, i, 1), pg_i64(rows, i, 0)};
    int ignored = queue_ring_all(bells, count); /* else the reconciler rings them */
    (void)ignored;
    free(bells);
}

static void run_ringer(void *arg)
{
    struct ringer *ringer = arg;
    int64_t *accounts = mem_alloc(sizeof ringer->accounts);
    while (ringer->count && !fiber_canceled()) {
        struct pg_rows *rows = NULL;
        size_t count = ringer->count;
        memcpy(accounts, ringer->accounts, count * sizeof *accounts);
        ringer->count = 0;
        if (pg_read(&sql_rings, PG_VALUES(PG_INTS(accounts, count)), &rows) == 0)
            ring_all(rows);
        pg_rows_free(rows);
    }
    free(accounts);
    ringer->fiber = NULL;
    group_done(&ringer->fibers);
}

void webhook_ring(int64_t account_id)
{
    struct loop *loop = loop_self();
    struct ringer *ringer = loop->slots[LOOP_WEBHOOK];
    if (!ringer)
        loop->slots[LOOP_WEBHOOK] = ringer = mem_zalloc(sizeof *ringer);
    for (size_t i = ringer->count; i-- > 0;)
        if (ringer->accounts[i] == account_id)
            return;
    if (ringer->count == ACCOUNTS_MAX)
        return; /* the reconciler sees to it */
    ringer->accounts[ringer->count++] = account_id;
    if (ringer->fiber)
        return;
    group_add(&ringer->fibers);
    ringer->fiber = fiber_start(loop, "webhook ring", run_ringer, ringer);
}

void webhook_close_loop(void)
{
    struct loop *loop = loop_self();
    struct ringer *ringer = loop->slots[LOOP_WEBHOOK];
    if (!ringer)
        return;
    if (ringer->fiber)
        fiber_cancel(ringer->fiber);
    CHECK(group_wait(&ringer->fibers, "webhook rings", CLOCK_NEVER) == 0);
    loop->slots[LOOP_WEBHOOK] = NULL;
    free(ringer);
}
