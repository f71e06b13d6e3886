/*
 * One connection in pipeline mode. What is sent is remembered in a ring, since answers come in the order of the
 * messages: for each statement its Parse (where it was not prepared yet), then its result, and for each Sync one word.
 * Between two Syncs all is one transaction: after an error the server skips everything up to the next Sync.
 *
 * What a connection is for, and so what becomes of a request, is its role's business.
 */
#include "core/store/pg_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONN_MAGIC = 0x7067636e,
    BACKOFF_FIRST_MS = 50,
    BACKOFF_MAX_MS = 2000,
    STEADY_MS = 1000, /* a connection that breaks sooner counts as a failed attempt */
    EXPECTED_FIRST = 256,
    NAME_SIZE = 64,
};

struct pg_expected {
    enum { EXPECT_PARSE, EXPECT_RESULT, EXPECT_SYNC } kind;
    const struct pg_statement *statement;
    struct pg_request *request; /* NULL once nobody wants it */
    uint64_t batch;
};

struct pg_attempt {
    uv_work_t work;
    struct pg *pg;
    struct pg_conn *conn; /* NULL once it was closed */
    PGconn *libpq;
    char reason[256];
};

/* ---- what is expected ---- */

static struct pg_expected *expected_at(const struct pg_conn *conn, size_t index)
{
    return &conn->expected[(conn->expected_first + index) & (conn->expected_capacity - 1)];
}

static void expected_grow(struct pg_conn *conn)
{
    size_t capacity = conn->expected_capacity ? 2 * conn->expected_capacity : EXPECTED_FIRST;
    struct pg_expected *larger = mem_alloc(capacity * sizeof *larger);
    for (size_t i = 0; i < conn->expected_count; i++)
        larger[i] = *expected_at(conn, i);
    free(conn->expected);
    conn->expected = larger;
    conn->expected_capacity = capacity;
    conn->expected_first = 0;
}

static void expect(struct pg_conn *conn, struct pg_expected expected)
{
    if (conn->expected_count == conn->expected_capacity)
        expected_grow(conn);
    if (conn->expected_count == 0)
        conn->heard_ns = clock_now_ns();
    *expected_at(conn, conn->expected_count++) = expected;
}

static struct pg_expected expected_take(struct pg_conn *conn)
{
    struct pg_expected first = *expected_at(conn, 0);
    conn->expected_first = (conn->expected_first + 1) & (conn->expected_capacity - 1);
    conn->expected_count--;
    return first;
}

void pg_conn_forget(struct pg_conn *conn, const struct pg_request *request)
{
    for (size_t i = 0; i < conn->expected_count; i++)
        if (expected_at(conn, i)->request == request)
            expected_at(conn, i)->request = NULL;
}

bool pg_conn_is_silent(const struct pg_conn *conn)
{
    return conn->state == PG_UP && conn->expected_count > 0 &&
           clock_now_ns() - conn->heard_ns >= (uint64_t)config->pg_timeout_ms * CLOCK_MS;
}

bool pg_conn_is_idle(const struct pg_conn *conn)
{
    return conn->state == PG_UP && conn->expected_count == 0 &&
           PQtransactionStatus(conn->libpq) == PQTRANS_IDLE;
}

/* ---- ending ---- */

static void on_poll_closed(uv_handle_t *handle)
{
    struct pg *pg = handle->data;
    free(handle);
    group_done(&pg->users);
}

/* Gives back what belongs to a session. The descriptor is libpq's: libuv must let go of it first. */
static void drop_session(struct pg_conn *conn)
{
    if (conn->poll) {
        conn->poll->data = conn->pg;
        uv_close((uv_handle_t *)conn->poll, on_poll_closed);
        conn->poll = NULL;
    }
    PQfinish(conn->libpq);
    conn->libpq = NULL;
    PQclear(conn->commit_failure);
    conn->commit_failure = NULL;
    conn->batch_failed = false;
    conn->expected_count = 0;
    pg_prepared_clear(&conn->prepared);
    loop_flush_forget(&conn->flush);
}

static void on_conn_closed(uv_handle_t *handle)
{
    struct pg_conn *conn = handle->data;
    struct pg *pg = conn->pg;
    MAGIC_CLEAR(conn);
    free(conn->expected);
    free(conn);
    group_done(&pg->users);
}

void pg_conn_close(struct pg_conn *conn)
{
    MAGIC_CHECK(conn, CONN_MAGIC);
    CHECK(conn->state != PG_CLOSED);
    drop_session(conn);
    conn->state = PG_CLOSED;
    if (conn->attempt) {
        conn->attempt->conn = NULL;
        uv_cancel((uv_req_t *)&conn->attempt->work);
    }
    uv_close((uv_handle_t *)&conn->timer, on_conn_closed);
}

static void on_retry(struct pg_conn *conn)
{
    pg_conn_wake(conn);
}

/* 50 ms, 100 ms … 2 s, each less a random part of up to a half, so that many do not come at the same moment. */
static void retry_later(struct pg_conn *conn)
{
    uint64_t delay_ms = 0;
    if (conn->failures > 0) {
        unsigned doublings = conn->failures - 1 < 6 ? conn->failures - 1 : 6;
        delay_ms = (uint64_t)BACKOFF_FIRST_MS << doublings;
        delay_ms = delay_ms < BACKOFF_MAX_MS ? delay_ms : BACKOFF_MAX_MS;
        uint16_t random;
        crypto_random(&random, sizeof random);
        delay_ms -= delay_ms / 2 * random / UINT16_MAX;
    }
    pg_conn_after(conn, delay_ms, on_retry);
}

void pg_conn_break(struct pg_conn *conn, const char *why)
{
    MAGIC_CHECK(conn, CONN_MAGIC);
    if (conn->state != PG_UP)
        return;
    LOG(WARN, "PostgreSQL connection lost", LOG_TEXT("connection", conn->role->name), LOG_TEXT("reason", why),
        LOG_INT("unanswered", conn->expected_count));
    bool steady = clock_now_ns() - conn->up_ns >= STEADY_MS * CLOCK_MS;
    conn->failures = steady ? 0 : conn->failures + 1;
    drop_session(conn);
    conn->state = PG_CONNECTING;
    if (conn->role->lasting)
        retry_later(conn);
    conn->role->down(conn);
}

/* ---- answers ---- */

/* The Parse of a request failed: the server skips its statement, so there is no second answer. */
static void take_parse(struct pg_conn *conn, struct pg_expected expected, PGresult *result)
{
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        pg_conn_renew(conn, expected.statement);
    bool final =
        PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_PIPELINE_ABORTED;
    if (!final || !expected.request) {
        PQclear(result);
        return;
    }
    pg_conn_forget(conn, expected.request);
    conn->role->answer(conn, expected.request, result);
}

/* A deferred constraint may fail as late as the commit that a Sync is: the error comes before the Sync's answer. */
static void take_commit_failure(struct pg_conn *conn, PGresult *result)
{
    PQclear(conn->commit_failure);
    conn->commit_failure = result;
}

static void take_sync(struct pg_conn *conn, PGresult *result)
{
    PQclear(result);
    if (expected_at(conn, 0)->kind != EXPECT_SYNC) {
        pg_conn_break(conn, "answers out of step");
        return;
    }
    struct pg_expected expected = expected_take(conn);
    PGresult *failure = conn->commit_failure;
    bool failed = conn->batch_failed;
    conn->commit_failure = NULL;
    conn->batch_failed = false;
    conn->role->synced(conn, expected.batch, failed, failure);
    PQclear(failure);
}

static bool is_end_of_session(const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
    case PGRES_PIPELINE_ABORTED: return false;
    default: return pg_result_code(result) == -ENOTCONN;
    }
}

static void take_result(struct pg_conn *conn, PGresult *result)
{
    if (is_end_of_session(result)) {
        char reason[256];
        pg_redact(reason, sizeof reason, PQresultErrorMessage(result));
        PQclear(result);
        pg_conn_break(conn, reason);
        return;
    }
    if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
        take_sync(conn, result);
        return;
    }
    conn->batch_failed |= pg_result_code(result) != 0;
    if (expected_at(conn, 0)->kind == EXPECT_SYNC) {
        take_commit_failure(conn, result);
        return;
    }
    struct pg_expected expected = expected_take(conn);
    if (expected.kind == EXPECT_PARSE) {
        take_parse(conn, expected, result);
        return;
    }
    if (pg_result_is_stale(result))
        pg_conn_renew(conn, expected.statement);
    if (expected.request)
        conn->role->answer(conn, expected.request, result);
    else
        PQclear(result);
}

/* libpq puts a NULL behind each statement's results; more than one in a row would mean that it has no more to give
 * than the ring expects. */
static void take_results(struct pg_conn *conn)
{
    unsigned nothing = 0;
    while (conn->state == PG_UP && !PQisBusy(conn->libpq) && conn->expected_count > 0) {
        PGresult *result = PQgetResult(conn->libpq);
        nothing = result ? 0 : nothing + 1;
        if (result)
            take_result(conn, result);
        else if (nothing > 2)
            pg_conn_break(conn, "answers out of step");
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct pg_conn *conn = poll->data;
    MAGIC_CHECK(conn, CONN_MAGIC);
    bool alive = true;
    if (status < 0 || (events & UV_READABLE)) {
        alive = PQconsumeInput(conn->libpq) && status == 0;
        conn->heard_ns = clock_now_ns();
        /* Also when it has just broken: what arrived before counts. */
        take_results(conn);
    }
    if (conn->state != PG_UP)
        return;
    if (alive && PQstatus(conn->libpq) == CONNECTION_OK) {
        pg_conn_push(conn);
        return;
    }
    char reason[256];
    pg_redact(reason, sizeof reason, PQerrorMessage(conn->libpq));
    pg_conn_break(conn, reason);
}

/* ---- sending ---- */

void pg_conn_renew(struct pg_conn *conn, const struct pg_statement *statement)
{
    struct pg_prepared_slot *slot = pg_prepared_slot(&conn->prepared, statement);
    slot->sent = false;
    slot->version++;
}

static bool send_parse(struct pg_conn *conn, struct pg_request *request, const char *name)
{
    if (!PQsendPrepare(conn->libpq, name, request->statement->sql, 0, NULL))
        return false;
    expect(conn,
           (struct pg_expected){.kind = EXPECT_PARSE, .statement = request->statement, .request = request});
    return true;
}

void pg_conn_send(struct pg_conn *conn, struct pg_request *request)
{
    MAGIC_CHECK(conn, CONN_MAGIC);
    if (conn->state != PG_UP)
        return;
    struct pg_prepared_slot *slot = pg_prepared_slot(&conn->prepared, request->statement);
    char versioned[NAME_SIZE];
    const char *name = request->statement->name;
    if (slot->version > 0) {
        snprintf(versioned, sizeof versioned, "%u~%.48s", slot->version,
                 name); /* the server keeps 63 bytes */
        name = versioned;
    }
    request->sent = true;
    request->batch = conn->batch;
    metric_add(M_PG_STATEMENTS, 1);
    if ((!slot->sent && !send_parse(conn, request, name)) ||
        !PQsendQueryPrepared(conn->libpq, name, request->count, request->values, NULL, NULL, 0)) {
        pg_conn_break(conn, "sending failed");
        return;
    }
    slot->sent = true;
    expect(conn,
           (struct pg_expected){.kind = EXPECT_RESULT, .statement = request->statement, .request = request});
}

void pg_conn_sync(struct pg_conn *conn)
{
    if (conn->state != PG_UP)
        return;
    if (!PQpipelineSync(conn->libpq)) {
        pg_conn_break(conn, "sending failed");
        return;
    }
    expect(conn, (struct pg_expected){.kind = EXPECT_SYNC, .batch = conn->batch++});
}

void pg_conn_push(struct pg_conn *conn)
{
    if (conn->state != PG_UP)
        return;
    int left = PQflush(conn->libpq);
    if (left < 0) {
        pg_conn_break(conn, "sending failed");
        return;
    }
    int events = left ? UV_READABLE | UV_WRITABLE : UV_READABLE;
    if (events == conn->poll_events)
        return;
    conn->poll_events = events;
    CHECK(uv_poll_start(conn->poll, events, on_poll) == 0);
}

static void on_flush(struct flush *flush)
{
    struct pg_conn *conn = CONTAINER_OF(flush, struct pg_conn, flush);
    if (conn->state == PG_UP)
        conn->role->flush(conn);
}

void pg_conn_flush_later(struct pg_conn *conn)
{
    if (conn->state == PG_UP)
        loop_flush_later(conn->pg->loop, &conn->flush);
}

/* ---- connecting ---- */

static void on_timer(uv_timer_t *timer)
{
    struct pg_conn *conn = timer->data;
    MAGIC_CHECK(conn, CONN_MAGIC);
    conn->on_timer(conn);
}

void pg_conn_after(struct pg_conn *conn, uint64_t ms, void (*run)(struct pg_conn *conn))
{
    conn->on_timer = run;
    CHECK(uv_timer_start(&conn->timer, on_timer, ms, 0) == 0);
}

struct pg_conn *pg_conn_new(struct pg *pg, const struct pg_role *role)
{
    struct pg_conn *conn = mem_zalloc(sizeof *conn);
    MAGIC_SET(conn, CONN_MAGIC);
    conn->pg = pg;
    conn->role = role;
    conn->state = PG_CONNECTING;
    conn->flush.run = on_flush;
    list_init(&conn->link);
    CHECK(uv_timer_init(&pg->loop->uv, &conn->timer) == 0);
    conn->timer.data = conn;
    group_add(&pg->users);
    return conn;
}

static void attempt_work(uv_work_t *work)
{
    struct pg_attempt *attempt = work->data;
    char settings_sql[PG_SETTINGS_SIZE];
    pg_settings(settings_sql);
    attempt->libpq = pg_connect(settings_sql, attempt->reason, sizeof attempt->reason);
}

/* Takes the session that the thread pool has opened; false when it can't be used. */
static bool adopt(struct pg_conn *conn, PGconn *libpq)
{
    if (!libpq)
        return false;
    uv_poll_t *poll = mem_zalloc(sizeof *poll);
    if (PQsetnonblocking(libpq, 1) != 0 || !PQenterPipelineMode(libpq) ||
        uv_poll_init(&conn->pg->loop->uv, poll, PQsocket(libpq)) != 0) {
        free(poll);
        PQfinish(libpq);
        return false;
    }
    poll->data = conn;
    group_add(&conn->pg->users);
    conn->poll = poll;
    conn->libpq = libpq;
    conn->poll_events = UV_READABLE;
    CHECK(uv_poll_start(poll, UV_READABLE, on_poll) == 0);
    return true;
}

static void attempt_failed(struct pg_conn *conn, const char *reason)
{
    conn->failures++;
    if (conn->state == PG_CONNECTING)
        LOG(WARN, "PostgreSQL is away", LOG_TEXT("connection", conn->role->name), LOG_TEXT("reason", reason));
    if (conn->role->lasting)
        retry_later(conn);
    conn->state = PG_AWAY;
    conn->role->away(conn);
}

static void attempt_done(uv_work_t *work, int status)
{
    struct pg_attempt *attempt = work->data;
    struct pg_conn *conn = attempt->conn;
    (void)status; /* cancelled: then there is no conn any more */
    if (!conn) {
        PQfinish(attempt->libpq);
    } else {
        conn->attempt = NULL;
        if (adopt(conn, attempt->libpq)) {
            conn->state = PG_UP;
            conn->up_ns = clock_now_ns();
            metric_add(M_PG_CONNECTS, 1);
            LOG(INFO, "PostgreSQL connection made", LOG_TEXT("connection", conn->role->name));
            conn->role->up(conn);
        } else {
            attempt_failed(conn, attempt->reason);
        }
    }
    group_done(&attempt->pg->users);
    free(attempt);
}

void pg_conn_wake(struct pg_conn *conn)
{
    MAGIC_CHECK(conn, CONN_MAGIC);
    bool waits = uv_is_active((uv_handle_t *)&conn->timer);
    /* The read connection goes first: while PostgreSQL is away one attempt and not many keep the thread pool busy. */
    bool may = conn->role == &pg_read_role || conn->pg->read.conn->state == PG_UP;
    if (conn->state == PG_UP || conn->attempt || waits || !may)
        return;
    struct pg_attempt *attempt = mem_zalloc(sizeof *attempt);
    attempt->pg = conn->pg;
    attempt->conn = conn;
    attempt->work.data = attempt;
    conn->attempt = attempt;
    group_add(&conn->pg->users);
    CHECK(uv_queue_work(&conn->pg->loop->uv, &attempt->work, attempt_work, attempt_done) == 0);
}

void pg_conn_refuse(struct pg_conn *conn)
{
    if (conn->state != PG_CONNECTING)
        return;
    conn->state = PG_AWAY;
    conn->role->away(conn);
}
