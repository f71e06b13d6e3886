/* A loop's PostgreSQL client: its two lanes and its pool, from open to close. */
#include "core/store/pg_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"

#include <errno.h>
#include <stdlib.h>

enum { PG_MAGIC = 0x77677067, CLOSE_LIMIT_MS = 60000 };

struct pg *pg_self(void)
{
    struct loop *loop = loop_self();
    CHECK(loop);
    struct pg *pg = loop->slots[LOOP_PG];
    MAGIC_CHECK(pg, PG_MAGIC);
    return pg;
}

uint64_t pg_deadline(void)
{
    return clock_in_ms((uint64_t)config->pg_timeout_ms + PG_MARGIN_MS);
}

int pg_open_loop(struct loop *loop, char *error, size_t error_size)
{
    CHECK(loop->slots[LOOP_PG] == NULL);
    int result = pg_url_check(error, error_size);
    if (result)
        return result;
    struct pg *pg = mem_zalloc(sizeof *pg);
    MAGIC_SET(pg, PG_MAGIC);
    pg->loop = loop;
    list_init(&pg->ready);
    pg_lane_init(&pg->read, pg, &pg_read_role);
    pg_lane_init(&pg->write, pg, &pg_write_role);
    pg_pool_init(&pg->pool);
    loop->slots[LOOP_PG] = pg;
    pg_conn_wake(pg->read.conn);
    return 0;
}

/* ---- readiness ---- */

struct ready_place {
    struct link link;
    struct wait wait;
};

static void ready_all(struct pg *pg, int result)
{
    struct link *item;
    while ((item = list_pop_front(&pg->ready)) != NULL)
        wait_done(&LIST_ENTRY(item, struct ready_place, link)->wait, result);
}

void pg_on_up(struct pg *pg)
{
    ready_all(pg, 0);
    pg_conn_wake(pg->write.conn);
    pg_pool_serve(pg);
}

void pg_on_away(struct pg *pg)
{
    pg_conn_refuse(pg->write.conn);
    pg_pool_refuse(pg);
}

bool pg_is_up(void)
{
    const struct pg *pg = pg_self();
    return !pg->closing && pg->read.conn->state == PG_UP;
}

int pg_wait_ready(uint64_t deadline_ns)
{
    struct pg *pg = pg_self();
    if (pg->closing)
        return -ECANCELED;
    if (pg_is_up())
        return 0;
    struct ready_place place = {.wait = WAIT_INIT};
    list_push_back(&pg->ready, &place.link);
    int result = wait_for(&place.wait, "PostgreSQL", deadline_ns);
    list_remove(&place.link);
    return result;
}

/* ---- closing ---- */

void pg_close_loop(struct loop *loop)
{
    struct pg *pg = loop->slots[LOOP_PG];
    if (!pg)
        return;
    MAGIC_CHECK(pg, PG_MAGIC);
    CHECK(!pg->closing);
    pg->closing = true;
    ready_all(pg, -ECANCELED);
    pg_pool_close(pg);
    pg_lane_close(&pg->write, -ECONNRESET);
    pg_lane_close(&pg->read, -ENOTCONN);
    fiber_hold();
    /* What keeps it from ending is an attempt to connect, which has a time limit, or a transaction that was leaked. */
    CHECK(group_wait(&pg->users, "PostgreSQL's end", clock_in_ms(CLOSE_LIMIT_MS)) == 0);
    fiber_release();
    MAGIC_CLEAR(pg);
    free(pg);
    loop->slots[LOOP_PG] = NULL;
}
