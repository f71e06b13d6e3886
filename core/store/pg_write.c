/*
 * Writes, committed in groups: while one batch is under way, others gather; when its Sync is answered they leave
 * together, as one transaction. Nobody hears of success before that answer, which is the commit.
 *
 *     waiting ──▶ batch (one Sync) ──all good──────────────▶ done
 *        ▲              └─ one failed: none is committed ─┐
 *        └── solo: again, each with a Sync of its own ◀───┘ ──▶ done or failed, each by itself
 */
#include "core/store/pg_internal.h"

#include "core/base/metrics.h"

#include <errno.h>

static void write_up(struct pg_conn *conn)
{
    pg_conn_flush_later(conn);
}

static void write_away(struct pg_conn *conn)
{
    pg_lane_fail_unsent(&conn->pg->write, -ENOTCONN);
}

static void write_down(struct pg_conn *conn)
{
    pg_lane_fail_flying(&conn->pg->write, -ECONNRESET);
}

static void write_flush(struct pg_conn *conn)
{
    struct pg_lane *lane = &conn->pg->write;
    if (conn->expected_count > 0)
        return;
    /* The only one of its batch is solo too: a failure is its own. */
    struct link *first = lane->waiting.next;
    if (first != &lane->waiting && first->next == &lane->waiting)
        LIST_ENTRY(first, struct pg_request, link)->solo = true;
    pg_lane_send(lane, PG_BATCH_MAX);
}

static void write_answer(struct pg_conn *conn, struct pg_request *request, PGresult *result)
{
    if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED) {
        PQclear(result);
        return;
    }
    request->result = pg_result_code(result);
    if (request->result == 0) {
        request->rows = result;
        return;
    }
    if (request->solo && !request->repeated && pg_result_is_stale(result)) {
        request->repeated = true;
        pg_lane_again(&conn->pg->write, request);
    } else if (request->solo) {
        pg_log_failure(request->statement->name, result);
    }
    PQclear(result);
}

static void solo_done(struct pg_request *request, bool failed, const PGresult *failure)
{
    if (request->result == 0 && failure) {
        pg_log_failure(request->statement->name, failure);
        request->result = pg_result_code(failure);
    }
    if (request->result == 0 && failed)
        request->result = -EIO;
    pg_request_finish(request, request->result);
}

static void write_synced(struct pg_conn *conn, uint64_t batch, bool failed, const PGresult *failure)
{
    struct pg_lane *lane = &conn->pg->write;
    int64_t committed = 0;
    LIST_EACH (&lane->flying, item, after) {
        struct pg_request *request = LIST_ENTRY(item, struct pg_request, link);
        if (request->batch != batch)
            break;
        if (request->solo)
            solo_done(request, failed, failure);
        else if (failed)
            pg_lane_again(lane, request);
        else
            pg_request_finish(request, 0);
        committed += !failed;
    }
    if (!failed) {
        metric_add(M_PG_BATCHES, 1);
        metric_add(M_PG_BATCHED, committed);
    }
    pg_conn_flush_later(conn);
}

const struct pg_role pg_write_role = {
    .name = "write",
    .lasting = true,
    .up = write_up,
    .away = write_away,
    .down = write_down,
    .flush = write_flush,
    .answer = write_answer,
    .synced = write_synced,
};

int pg_write(const struct pg_statement *statement, const struct pg_value *values, size_t count,
             struct pg_rows **rows)
{
    if (pg_in_scope())
        return pg_scope_call(statement, values, count, rows);
    return pg_lane_call(&pg_self()->write, "commit", -ECONNRESET, statement, values, count, rows);
}

int pg_remove(const struct pg_statement *statement, const struct pg_value *values, size_t count,
              size_t at_once)
{
    size_t gone;
    do {
        struct pg_rows *rows;
        int result = pg_write(statement, values, count, &rows);
        if (result)
            return result;
        gone = pg_affected(rows);
        pg_rows_free(rows);
    } while (gone == at_once);
    return 0;
}
