/*
 * Transactions and the pool of connections for them.
 *
 *     connecting ──▶ idle ──pg_begin──▶ in use ──pg_end, clean──▶ idle
 *                                         └──pg_end, else──▶ cleaning ──rolled back──▶ idle
 *                                                               └── not within CLEAN_MS ──▶ closed
 *
 * A connection is handed out only when the server has said that it is idle and nothing is under way. A fiber that leaves
 * in the middle of a statement does not wait for that: the ROLLBACK is sent behind the statement and the pool waits.
 */
#include "core/store/pg_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdlib.h>

enum { CLEAN_MS = 1000, RETRY_FIRST_MS = 50, RETRY_DOUBLINGS_MAX = 5 };

struct pg_place {
    struct link link;
    struct wait wait;
    struct pg_conn *conn;
};

static const struct pg_role tx_role;
static const struct pg_statement begin_statement = {"pg_begin", "BEGIN"};
static const struct pg_statement commit_statement = {"pg_commit", "COMMIT"};
static const struct pg_statement rollback_statement = {"pg_rollback", "ROLLBACK"};

/* ---- the pool ---- */

void pg_pool_init(struct pg_pool *pool)
{
    *pool = (struct pg_pool){0};
    list_init(&pool->idle);
    list_init(&pool->others);
    list_init(&pool->waiting);
}

static struct pg_place *next_waiting(struct pg_pool *pool)
{
    struct link *item = list_pop_front(&pool->waiting);
    if (!item)
        return NULL;
    pool->waiting_count--;
    return LIST_ENTRY(item, struct pg_place, link);
}

void pg_pool_refuse(struct pg *pg)
{
    struct pg_place *place;
    while ((place = next_waiting(&pg->pool)) != NULL)
        wait_done(&place->wait, -ENOTCONN);
}

static void set_coming(struct pg_conn *conn, bool coming)
{
    if (conn->coming == coming)
        return;
    conn->coming = coming;
    if (coming)
        conn->pg->pool.coming++;
    else
        conn->pg->pool.coming--;
}

static void open_more(struct pg *pg)
{
    struct pg_pool *pool = &pg->pool;
    if (pg->read.conn->state != PG_UP || clock_now_ns() < pool->retry_ns)
        return;
    while (pool->coming < pool->waiting_count && pool->count < (unsigned)config->pg_pool) {
        struct pg_conn *conn = pg_conn_new(pg, &tx_role);
        list_push_back(&pool->others, &conn->link);
        pool->count++;
        set_coming(conn, true);
        pg_conn_wake(conn);
    }
}

void pg_pool_serve(struct pg *pg)
{
    struct pg_pool *pool = &pg->pool;
    while (!list_empty(&pool->idle) && !list_empty(&pool->waiting)) {
        struct pg_conn *conn = LIST_ENTRY(list_pop_front(&pool->idle), struct pg_conn, link);
        list_push_back(&pool->others, &conn->link);
        struct pg_place *place = next_waiting(pool);
        place->conn = conn;
        wait_done(&place->wait, 0);
    }
    open_more(pg);
    /* Nobody is left who could serve them, and no news to come from the read connection. */
    if (pool->count == 0 && pg->read.conn->state != PG_CONNECTING)
        pg_pool_refuse(pg);
}

static void make_idle(struct pg_conn *conn)
{
    set_coming(conn, false);
    list_remove(&conn->link);
    list_push_front(&conn->pg->pool.idle, &conn->link);
    pg_pool_serve(conn->pg);
}

static void close_connection(struct pg_conn *conn)
{
    set_coming(conn, false);
    list_remove(&conn->link);
    conn->pg->pool.count--;
    pg_conn_close(conn);
}

/* The transaction, if there is one, hears that its connection is gone. */
static void orphan(struct pg_conn *conn)
{
    struct pg_tx *tx = conn->tx;
    if (!tx)
        return;
    conn->tx = NULL;
    tx->conn = NULL;
    if (!tx->failed)
        tx->failed = tx->committing ? -ECONNRESET : -ENOTCONN;
    wait_done(&tx->request.wait, tx->failed);
}

void pg_pool_close(struct pg *pg)
{
    struct link *const lists[] = {&pg->pool.idle, &pg->pool.others};
    pg_pool_refuse(pg);
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        LIST_EACH (lists[i], item, after) {
            struct pg_conn *conn = LIST_ENTRY(item, struct pg_conn, link);
            orphan(conn);
            close_connection(conn);
        }
}

/* ---- its connections ---- */

static void tx_up(struct pg_conn *conn)
{
    conn->pg->pool.failures = 0;
    make_idle(conn);
}

static void tx_away(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    unsigned doublings = pg->pool.failures < RETRY_DOUBLINGS_MAX ? pg->pool.failures : RETRY_DOUBLINGS_MAX;
    pg->pool.failures++;
    pg->pool.retry_ns = clock_in_ms((uint64_t)RETRY_FIRST_MS << doublings);
    close_connection(conn);
    pg_pool_serve(pg);
}

static void tx_down(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    orphan(conn);
    close_connection(conn);
    pg_pool_serve(pg);
}

static void tx_answer(struct pg_conn *conn, struct pg_request *request, PGresult *result)
{
    struct pg_request *current = &conn->tx->request;
    int code = pg_result_code(result);
    bool skipped = PQresultStatus(result) == PGRES_PIPELINE_ABORTED;
    if (code == 0 && request == current) {
        current->rows = result;
        return;
    }
    if (code && !skipped && current->result == 0) {
        pg_log_failure(request->statement->name, result);
        current->result = pg_result_is_stale(result) ? -EAGAIN : code;
        if (request != current)
            conn->tx->failed = current->result;
    }
    PQclear(result);
}

static void on_unclean(struct pg_conn *conn)
{
    struct pg *pg = conn->pg;
    close_connection(conn);
    pg_pool_serve(pg);
}

static void tx_synced(struct pg_conn *conn, uint64_t batch, bool failed, const PGresult *failure)
{
    (void)batch;
    (void)failure; /* in an open transaction a Sync commits nothing */
    if (conn->tx) {
        struct pg_request *request = &conn->tx->request;
        if (failed && request->result == 0)
            request->result = -EIO;
        wait_done(&request->wait, request->result);
        return;
    }
    if (conn->expected_count > 0)
        return;
    if (!pg_conn_is_idle(conn)) {
        on_unclean(conn);
        return;
    }
    uv_timer_stop(&conn->timer);
    make_idle(conn);
}

/* Everything is sent at once: a transaction has its connection for itself. */
static void tx_flush(struct pg_conn *conn)
{
    pg_conn_push(conn);
}

static const struct pg_role tx_role = {
    .name = "transaction",
    .lasting = false,
    .up = tx_up,
    .away = tx_away,
    .down = tx_down,
    .flush = tx_flush,
    .answer = tx_answer,
    .synced = tx_synced,
};

/* ---- transactions ---- */

static int take_connection(struct pg *pg, struct pg_conn **conn)
{
    struct pg_place place = {.wait = WAIT_INIT};
    list_push_back(&pg->pool.waiting, &place.link);
    pg->pool.waiting_count++;
    pg_pool_serve(pg);
    int result = wait_for(&place.wait, "connection", pg_deadline());
    if (!place.wait.done) {
        list_remove(&place.link);
        pg->pool.waiting_count--;
        if (result == -ETIMEDOUT && pg->read.conn->state != PG_UP)
            result = -ENOTCONN;
    }
    *conn = place.conn;
    return result;
}

int pg_tx_begin(struct pg_tx **tx)
{
    struct pg *pg = pg_self();
    *tx = NULL;
    if (fiber_canceled())
        return -ECANCELED;
    if (pg->closing || pg->read.conn->state == PG_AWAY)
        return pg_note(-ENOTCONN);
    struct pg_conn *conn;
    group_add(&pg->users);
    int result = take_connection(pg, &conn);
    if (result) {
        group_done(&pg->users);
        return pg_note(result);
    }
    struct pg_tx *begun = mem_zalloc(sizeof *begun);
    MAGIC_SET(begun, PG_TX_MAGIC);
    begun->pg = pg;
    begun->conn = conn;
    conn->tx = begun;
    *tx = begun;
    return 0;
}

int pg_begin(struct pg_tx **tx)
{
    return pg_in_scope() ? pg_scope_begin(tx) : pg_tx_begin(tx);
}

static struct pg_request request_of(const struct pg_statement *statement)
{
    return (struct pg_request){.statement = statement};
}

/* The fiber leaves a statement that is under way. */
static void let_go(struct pg_tx *tx, int why)
{
    if (!tx->conn)
        return;
    pg_conn_forget(tx->conn, &tx->begin);
    pg_conn_forget(tx->conn, &tx->before);
    pg_conn_forget(tx->conn, &tx->request);
    pg_conn_forget(tx->conn, &tx->after);
    if (why != -ETIMEDOUT)
        return;
    LOG(WARN, "statement got no answer in time", LOG_TEXT("statement", tx->request.statement->name));
    /* A commit without an answer can't be rolled back either. */
    if (tx->committing || pg_conn_is_silent(tx->conn))
        pg_conn_break(tx->conn, "no answer");
}

static void send_along(struct pg_conn *conn, struct pg_request *request, const struct pg_statement *statement)
{
    if (!statement)
        return;
    *request = request_of(statement);
    pg_conn_send(conn, request);
}

/* Sends the statement that is in tx->request and waits for it. */
static int run(struct pg_tx *tx, const struct pg_statement *before, const struct pg_statement *after,
               struct arena *scratch)
{
    struct pg_conn *conn = tx->conn;
    send_along(conn, &tx->begin, tx->begun ? NULL : &begin_statement);
    tx->begun = true;
    send_along(conn, &tx->before, before);
    pg_conn_send(conn, &tx->request);
    send_along(conn, &tx->after, after);
    pg_conn_sync(conn);
    pg_conn_push(conn);
    arena_clear(scratch); /* libpq has copied the values */
    int result = wait_for(&tx->request.wait, tx->request.statement->name, pg_deadline());
    if (!tx->request.wait.done) {
        let_go(tx, result);
        if (tx->committing)
            result = -ECONNRESET;
        tx->failed = result;
    }
    if (result) {
        PQclear(tx->request.rows);
        tx->request.rows = NULL;
    }
    return result;
}

int pg_tx_run(struct pg_tx *tx, const struct pg_statement *before, const struct pg_statement *statement,
              const struct pg_value *values, size_t count, const struct pg_statement *after,
              struct pg_rows **rows)
{
    struct arena scratch;
    arena_init(&scratch);
    tx->request = request_of(statement);
    tx->request.count = (int)count;
    int result = pg_encode(&scratch, statement, values, count, &tx->request.values);
    if (result == 0)
        result = run(tx, before, after, &scratch);
    arena_clear(&scratch);
    if (result == 0 && rows)
        *rows = pg_rows_of(tx->request.rows);
    else
        PQclear(tx->request.rows);
    tx->request.rows = NULL;
    return result;
}

int pg_query(struct pg_tx *tx, const struct pg_statement *statement, const struct pg_value *values,
             size_t count, struct pg_rows **rows)
{
    MAGIC_CHECK(tx, PG_TX_MAGIC);
    if (rows)
        *rows = NULL;
    if (!tx->failed && fiber_canceled())
        tx->failed = -ECANCELED;
    if (tx->failed)
        return pg_note(tx->failed);
    int result = tx->outer ? pg_scope_query(tx, statement, values, count, rows)
                           : pg_tx_run(tx, NULL, statement, values, count, NULL, rows);
    tx->failed = result;
    return pg_note(result);
}

/* Its outcome is waited for, whatever becomes of the fiber. */
static int commit(struct pg_tx *tx)
{
    struct arena scratch;
    arena_init(&scratch);
    tx->request = request_of(&commit_statement);
    tx->committing = true;
    fiber_hold();
    int result = run(tx, NULL, NULL, &scratch);
    fiber_release();
    /* A COMMIT of a transaction that had failed is a rollback, and no error. */
    if (result == 0 && strcmp(PQcmdStatus(tx->request.rows), "COMMIT") != 0)
        result = -EIO;
    PQclear(tx->request.rows);
    return pg_note(result);
}

static void roll_back(struct pg_conn *conn)
{
    /* With no statement in front of it this is quick: who waits need not open another connection. */
    set_coming(conn, conn->expected_count == 0);
    struct pg_request request = request_of(&rollback_statement);
    pg_conn_send(conn, &request);
    pg_conn_forget(conn, &request);
    pg_conn_sync(conn);
    pg_conn_push(conn);
}

static void give_back(struct pg_conn *conn)
{
    if (conn->state != PG_UP)
        return; /* it broke as the rollback was sent, and is closed */
    if (pg_conn_is_idle(conn))
        make_idle(conn);
    else
        pg_conn_after(conn, CLEAN_MS, on_unclean);
}

int pg_tx_end(struct pg_tx *tx, int result)
{
    struct pg *pg = tx->pg;
    if (result == 0)
        result = tx->failed;
    bool committed = result == 0 && tx->begun;
    if (committed)
        result = commit(tx);
    struct pg_conn *conn = tx->conn;
    if (conn) {
        conn->tx = NULL;
        if (tx->begun && !committed)
            roll_back(conn);
        give_back(conn);
    }
    MAGIC_CLEAR(tx);
    free(tx);
    group_done(&pg->users);
    return result;
}

int pg_end(struct pg_tx *tx, int result)
{
    if (!tx)
        return result;
    MAGIC_CHECK(tx, PG_TX_MAGIC);
    return tx->outer ? pg_scope_end(tx, result) : pg_tx_end(tx, result);
}
