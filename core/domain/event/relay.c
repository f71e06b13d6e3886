/*
 * The relay: takes what was committed to the outbox, has it numbered, and publishes it. See schema/009_event.sql.
 *
 *     event_added ──▶ rung ──▶ BEGIN · event_relay · COMMIT ──▶ PUBLISH events:{account}, bells of webhook jobs
 *     every EVENT_LOOK_MS ──▶ is there anything? ──┘
 *
 * Each loop has one, on a fiber of its own. While it is at it others' rings gather, so the more there is to tell the more is told
 * by one commit. What could not be published is found by who listens (core/domain/event/feed.h).
 */
#include "core/domain/event/event.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/event/webhook.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdlib.h>

enum { RELAY_AT_ONCE = 1000, MESSAGE_MAX = 65536 };

struct relay {
    struct fiber *fiber;
    struct group fibers;
    struct wait wait; /* for a ring */
};

static const struct pg_statement sql_waits = {"event_waits", "SELECT EXISTS (SELECT FROM event_outbox)"};
static const struct pg_statement sql_relay = {
    "event_relay", "SELECT account_id, seq, id, name, body FROM event_relay($1::bigint)"};

/* ---- rings ---- */

static void ring(void *unused)
{
    (void)unused;
    struct relay *relay = loop_self()->slots[LOOP_EVENT];
    if (relay) /* else another loop's finds it */
        wait_done(&relay->wait, 0);
}

void event_added(void)
{
    pg_after_commit(ring, NULL);
}

/* ---- publishing ---- */

static void put_line(struct buf *message, const struct pg_rows *rows, size_t row)
{
    for (int column = 1; column <= 4; column++) {
        buf_add_str(message, pg_str(rows, row, column));
        buf_add_char(message, column == 4 ? '\n' : ' ');
    }
}

static void observe_lag(struct str id, int64_t now_us)
{
    int64_t us = now_us - event_id_us(id);
    metric_observe_us(M_EVENT_RELAY_SECONDS, 0, us > 0 ? (uint64_t)us : 0);
}

static void publish(const struct pg_rows *rows)
{
    int64_t now_us = clock_wall_ms() * 1000;
    size_t count = pg_count(rows);
    struct buf message = {0};
    for (size_t row = 0; row < count; row++) {
        char channel[EVENT_CHANNEL_SIZE];
        int64_t account_id = pg_i64(rows, row, 0);
        put_line(&message, rows, row);
        observe_lag(pg_str(rows, row, 2), now_us);
        if (row + 1 < count && pg_i64(rows, row + 1, 0) == account_id && message.size < MESSAGE_MAX)
            continue;
        redis_send(redis_shared(),
                   REDIS_ARGS(STR("PUBLISH"), event_channel(channel, account_id), buf_str(&message)));
        webhook_ring(account_id);
        message.size = 0;
    }
    buf_clear(&message);
    metric_add(M_EVENTS_TOLD, (int64_t)count);
}

/* ---- relaying ---- */

static int relay_some(size_t *count)
{
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &sql_relay, PG_VALUES(PG_INT(RELAY_AT_ONCE)), &rows);
    result = pg_end(tx, result);
    CRASH_POINT("event-relayed");
    *count = result == 0 ? pg_count(rows) : 0;
    if (*count)
        publish(rows);
    pg_rows_free(rows);
    return result;
}

static int look(bool *waits)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_waits, PG_NO_VALUES, &rows);
    if (result)
        return result;
    *waits = pg_bool(rows, 0, 0);
    pg_rows_free(rows);
    return 0;
}

static void run_relay(void *arg)
{
    struct relay *relay = arg;
    int result;
    while ((result = wait_for(&relay->wait, "an event", clock_in_ms(EVENT_LOOK_MS))) != -ECANCELED) {
        bool waits = result == 0;
        size_t count = RELAY_AT_ONCE;
        relay->wait = WAIT_INIT;
        result = waits ? 0 : look(&waits);
        while (result == 0 && waits && count == RELAY_AT_ONCE)
            result = relay_some(&count);
        /* The next look finds what is left. */
        if (result && result != -ENOTCONN && result != -ECONNRESET && result != -ECANCELED)
            LOG(WARN, "events could not be relayed", LOG_ERRNO(result));
    }
    group_done(&relay->fibers);
}

void event_open_loop(struct loop *loop)
{
    struct relay *relay = mem_zalloc(sizeof *relay);
    loop->slots[LOOP_EVENT] = relay;
    group_add(&relay->fibers);
    relay->fiber = fiber_start(loop, "event relay", run_relay, relay);
}

void event_close_loop(struct loop *loop)
{
    struct relay *relay = loop->slots[LOOP_EVENT];
    if (!relay)
        return;
    loop->slots[LOOP_EVENT] = NULL;
    fiber_hold();
    fiber_cancel(relay->fiber);
    CHECK(group_wait(&relay->fibers, "the relay", CLOCK_NEVER) == 0);
    fiber_release();
    free(relay);
}
