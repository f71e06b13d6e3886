/* Requests of many fibers on one connection: those of a turn leave together. */
#include "core/store/pg_internal.h"

#include "core/base/log.h"

#include <errno.h>

void pg_lane_init(struct pg_lane *lane, struct pg *pg, const struct pg_role *role)
{
    list_init(&lane->again);
    list_init(&lane->waiting);
    list_init(&lane->flying);
    lane->conn = pg_conn_new(pg, role);
}

void pg_request_finish(struct pg_request *request, int result)
{
    list_remove(&request->link);
    wait_done(&request->wait, result);
}

static void fail_all(struct link *list, int result)
{
    LIST_EACH (list, item, after)
        pg_request_finish(LIST_ENTRY(item, struct pg_request, link), result);
}

void pg_lane_fail_flying(struct pg_lane *lane, int result)
{
    fail_all(&lane->flying, result);
}

void pg_lane_fail_unsent(struct pg_lane *lane, int result)
{
    fail_all(&lane->again, result);
    fail_all(&lane->waiting, result);
}

void pg_lane_close(struct pg_lane *lane, int flying_result)
{
    pg_lane_fail_flying(lane, flying_result);
    pg_lane_fail_unsent(lane, -ENOTCONN);
    pg_conn_close(lane->conn);
    lane->conn = NULL;
}

void pg_lane_again(struct pg_lane *lane, struct pg_request *request)
{
    PQclear(request->rows);
    request->rows = NULL;
    request->result = 0;
    request->sent = false;
    request->solo = true;
    list_remove(&request->link);
    list_push_back(&lane->again, &request->link);
    pg_conn_flush_later(lane->conn);
}

static struct pg_request *next_unsent(struct pg_lane *lane)
{
    struct link *item = list_pop_front(&lane->again);
    if (!item)
        item = list_pop_front(&lane->waiting);
    return item ? LIST_ENTRY(item, struct pg_request, link) : NULL;
}

void pg_lane_send(struct pg_lane *lane, size_t most)
{
    struct pg_conn *conn = lane->conn;
    size_t unsynced = 0;
    struct pg_request *request;
    for (size_t sent = 0; sent < most && conn->state == PG_UP && (request = next_unsent(lane)) != NULL;
         sent++) {
        list_push_back(&lane->flying, &request->link);
        bool solo = request->solo;
        if (unsynced == PG_BATCH_MAX || (solo && unsynced > 0)) {
            pg_conn_sync(conn);
            unsynced = 0;
        }
        pg_conn_send(conn, request);
        unsynced++;
        if (solo) {
            pg_conn_sync(conn);
            unsynced = 0;
        }
    }
    if (unsynced > 0)
        pg_conn_sync(conn);
    pg_conn_push(conn);
}

/* The fiber stops waiting before there is an answer. */
static int give_up(struct pg_lane *lane, struct pg_request *request, int why, int late)
{
    struct pg_conn *conn = lane->conn;
    list_remove(&request->link);
    if (request->sent)
        pg_conn_forget(conn, request);
    if (why != -ETIMEDOUT)
        return why;
    if (!request->sent)
        return conn->state == PG_UP ? -ETIMEDOUT : -ENOTCONN;
    LOG(WARN, "statement got no answer in time", LOG_TEXT("statement", request->statement->name));
    if (pg_conn_is_silent(conn))
        pg_conn_break(conn, "no answer");
    return late;
}

static int run(struct pg_lane *lane, struct pg_request *request, const char *what, int late)
{
    if (fiber_canceled())
        return -ECANCELED;
    if (lane->conn->state == PG_AWAY)
        return -ENOTCONN;
    list_push_back(&lane->waiting, &request->link);
    pg_conn_flush_later(lane->conn);
    int result = wait_for(&request->wait, what, pg_deadline());
    return request->wait.done ? result : give_up(lane, request, result, late);
}

int pg_lane_call(struct pg_lane *lane, const char *what, int late, const struct pg_statement *statement,
                 const struct pg_value *values, size_t count, struct pg_rows **rows)
{
    struct pg *pg = pg_self();
    if (rows)
        *rows = NULL;
    if (pg->closing)
        return -ENOTCONN;
    group_add(&pg->users);
    struct arena scratch;
    arena_init(&scratch);
    struct pg_request request = {.statement = statement, .count = (int)count};
    list_init(&request.link);
    int result = pg_encode(&scratch, statement, values, count, &request.values);
    if (result == 0)
        result = run(lane, &request, what, late);
    arena_clear(&scratch);
    if (result == 0 && rows)
        *rows = pg_rows_of(request.rows);
    else
        PQclear(request.rows);
    group_done(&pg->users);
    return pg_note(result);
}
