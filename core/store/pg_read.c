/*
 * Reads. All that a turn asks for goes into one pipeline with a Sync at its end: one write, one transaction on the
 * server. Where one of them fails the server skips those behind it; a read may be sent twice, so these are then sent
 * again, each with a Sync of its own.
 */
#include "core/store/pg_internal.h"

#include <errno.h>

static void read_up(struct pg_conn *conn)
{
    pg_conn_flush_later(conn);
    pg_on_up(conn->pg);
}

static void read_away(struct pg_conn *conn)
{
    pg_lane_fail_unsent(&conn->pg->read, -ENOTCONN);
    pg_on_away(conn->pg);
}

static void read_down(struct pg_conn *conn)
{
    struct pg_lane *lane = &conn->pg->read;
    LIST_EACH (&lane->flying, item, after) {
        struct pg_request *request = LIST_ENTRY(item, struct pg_request, link);
        if (request->repeated) {
            pg_request_finish(request, -ENOTCONN);
            continue;
        }
        request->repeated = true;
        pg_lane_again(lane, request);
    }
}

static void read_flush(struct pg_conn *conn)
{
    pg_lane_send(&conn->pg->read, SIZE_MAX);
}

static void read_answer(struct pg_conn *conn, struct pg_request *request, PGresult *result)
{
    struct pg_lane *lane = &conn->pg->read;
    bool stale = pg_result_is_stale(result) && !request->repeated;
    if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED || stale) {
        request->repeated |= stale;
        pg_lane_again(lane, request);
        PQclear(result);
        return;
    }
    int code = pg_result_code(result);
    if (code) {
        pg_log_failure(request->statement->name, result);
        PQclear(result);
    } else {
        request->rows = result;
    }
    pg_request_finish(request, code);
}

/* The rows were there before: nothing depends on the commit of a read. */
static void read_synced(struct pg_conn *conn, uint64_t batch, bool failed, const PGresult *failure)
{
    (void)conn;
    (void)batch;
    (void)failed;
    (void)failure;
}

const struct pg_role pg_read_role = {
    .name = "read",
    .lasting = true,
    .up = read_up,
    .away = read_away,
    .down = read_down,
    .flush = read_flush,
    .answer = read_answer,
    .synced = read_synced,
};

int pg_read(const struct pg_statement *statement, const struct pg_value *values, size_t count,
            struct pg_rows **rows)
{
    if (pg_in_scope())
        return pg_scope_call(statement, values, count, rows);
    return pg_lane_call(&pg_self()->read, "read", -ETIMEDOUT, statement, values, count, rows);
}
