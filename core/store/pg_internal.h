/*
 * What the files of the PostgreSQL client share; nobody else includes it, but for the migrations, which need only
 * pg_connect and pg_redact.
 *
 *     pg.c            a loop's client: open, close, ready
 *     pg_connect.c    the blocking part: URL, connecting, the session's settings
 *     pg_conn.c       one connection in pipeline mode: its states, what it sends, the answers in order
 *     pg_prepared.c   which statements a connection has prepared
 *     pg_encode.c     values to PostgreSQL's text format
 *     pg_rows.c       results, error codes
 *     pg_lane.c       requests of many fibers that share one connection
 *     pg_read.c       the lane of reads
 *     pg_write.c      the lane of writes: group commit
 *     pg_tx.c         the pool and transactions
 *     pg_scope.c      a transaction around other code's reads and writes
 */
#ifndef CORE_STORE_PG_INTERNAL_H
#define CORE_STORE_PG_INTERNAL_H

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/run/loop.h"
#include "core/run/sync.h"
#include "core/store/pg.h"

#include <libpq-fe.h>

enum {
    PG_BATCH_MAX = 100, /* statements in front of one Sync */
    PG_MARGIN_MS =
        250, /* the server has config->pg_timeout_ms; a fiber waits this much longer for its word */
};

struct pg;
struct pg_conn;

/* ---- pg_connect.c ---- */

/* 0, or -EINVAL with a line in `error` that shows nothing of the URL. */
int pg_url_check(char *error, size_t error_size) MUST_USE;

/* Blocks. Connects to config->database_url and runs `settings_sql`. NULL with a line in `error` when it can't. */
PGconn *pg_connect(const char *settings_sql, char *error, size_t error_size) MUST_USE;

enum { PG_SETTINGS_SIZE = 512 };
/* The settings of a loop's sessions: timeouts and output formats. */
void pg_settings(char sql[PG_SETTINGS_SIZE]);

/* One line of libpq's `message`, with what stands in quotes left out: hosts, users and values. */
void pg_redact(char *out, size_t out_size, const char *message);

/* ---- pg_encode.c ---- */

/* Values as libpq takes them, in `arena`; -EIO, logged, when one can't be sent. */
int pg_encode(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
              size_t count, const char *const **encoded) MUST_USE;

/* ---- pg_rows.c ---- */

/* struct pg_rows is libpq's PGresult under a name that does not need libpq's header. */
static inline struct pg_rows *pg_rows_of(PGresult *result)
{
    return (struct pg_rows *)result;
}

/* 0 when the statement succeeded, else the code of pg.h. -ENOTCONN means that the session is over. */
int pg_result_code(const PGresult *result) MUST_USE;

/* True when the statement failed only because what the session had prepared is of no use any more: a migration has
 * changed the columns, or the statement's own Parse did not succeed. */
bool pg_result_is_stale(const PGresult *result);

/* Logs a failed statement: name, SQLSTATE and primary message without values. */
void pg_log_failure(const char *name, const PGresult *result);

/* Counts a caller's failure in the metrics; returns `result`. */
int pg_note(int result);

/* ---- pg_prepared.c ---- */

struct pg_prepared_slot {
    const struct pg_statement *statement;
    unsigned version; /* part of the server's name, so that a stale one is left behind without a round trip */
    bool sent;
};

/* A hash table of statements, by their addresses. {0} is an empty one. */
struct pg_prepared {
    struct pg_prepared_slot *slots;
    size_t capacity; /* 0 or a power of two */
    size_t used;
};

void pg_prepared_clear(struct pg_prepared *prepared);
/* The statement's slot, made when it is new. Valid until the next call. */
struct pg_prepared_slot *pg_prepared_slot(struct pg_prepared *prepared, const struct pg_statement *statement);

/* ---- pg_conn.c ---- */

/* A statement on its way. Lives with the fiber that waits for it. */
struct pg_request {
    struct link link; /* in its lane */
    struct wait wait;
    const struct pg_statement *statement;
    const char *const *values;
    int count;
    uint64_t batch; /* the Sync behind it */
    PGresult *rows;
    int result;
    bool sent;
    bool solo;     /* alone in front of its Sync */
    bool repeated; /* sent before, on a connection that is gone or with a plan that was stale */
};

/*
 *               pg_conn_wake                    connected
 *   connecting ──────────────▶ (thread pool) ───────────────▶ up
 *       ▲ lost                       │ failed                  │
 *       └────────────────────────────┼─────────────────────────┘
 *                                    ▼
 *                                   away: the same, but new requests are refused
 */
enum pg_conn_state { PG_CONNECTING, PG_AWAY, PG_UP, PG_CLOSED };

/* What a connection is for. The callbacks must not wait. */
struct pg_role {
    const char *name;
    bool lasting; /* connects again by itself */
    void (*up)(struct pg_conn *conn);
    void (*away)(struct pg_conn *conn);  /* an attempt to connect has failed */
    void (*down)(struct pg_conn *conn);  /* it broke: nothing that was sent will be answered */
    void (*flush)(struct pg_conn *conn); /* the end of a turn in which pg_conn_flush_later was called */
    /* A request's result, which may be PGRES_PIPELINE_ABORTED: once for each that was sent. Takes `result`. */
    void (*answer)(struct pg_conn *conn, struct pg_request *request, PGresult *result);
    /* A Sync's answer. `failed`: something in `batch` was an error, also one that nobody waited for, so nothing of it
     * is committed. `failure`: the error came from the commit itself, else NULL. */
    void (*synced)(struct pg_conn *conn, uint64_t batch, bool failed, const PGresult *failure);
};

struct pg_expected;

struct pg_conn {
    unsigned magic;
    enum pg_conn_state state;
    struct pg *pg;
    const struct pg_role *role;
    PGconn *libpq;
    uv_poll_t *poll;
    int poll_events;
    uv_timer_t timer;
    void (*on_timer)(struct pg_conn *conn);
    struct pg_attempt *attempt; /* in the thread pool */
    struct flush flush;
    struct pg_prepared prepared;
    struct pg_expected *expected; /* a ring of what the server has still to answer */
    size_t expected_capacity;
    size_t expected_first;
    size_t expected_count;
    bool batch_failed; /* since the last Sync's answer */
    PGresult *commit_failure;
    uint64_t batch;    /* of the next Sync */
    uint64_t heard_ns; /* the last word of the server, or the first of ours since it owes us one */
    uint64_t up_ns;
    unsigned failures; /* in a row, for the backoff */
    struct link link;  /* in the pool */
    bool coming;       /* counted in pool.coming */
    struct pg_tx *tx;
};

struct pg_conn *pg_conn_new(struct pg *pg, const struct pg_role *role);
/* Ends it without a callback and frees it in a later turn: until then the calls below do nothing. */
void pg_conn_close(struct pg_conn *conn);
/* Begins to connect, unless it is up, on its way or waits for its next try. */
void pg_conn_wake(struct pg_conn *conn);
/* Connecting becomes away. */
void pg_conn_refuse(struct pg_conn *conn);
/* Gives a connection up. */
void pg_conn_break(struct pg_conn *conn, const char *why);
/* Calls `run` once, in `ms`; takes the place of an earlier one. */
void pg_conn_after(struct pg_conn *conn, uint64_t ms, void (*run)(struct pg_conn *conn));
void pg_conn_flush_later(struct pg_conn *conn);

/* Put a statement (with its Parse, where that is needed) and a Sync into the pipeline; push hands them to the kernel.
 * The connection may break in each. */
void pg_conn_send(struct pg_conn *conn, struct pg_request *request);
void pg_conn_sync(struct pg_conn *conn);
void pg_conn_push(struct pg_conn *conn);

/* Lets go of a request that was sent: its answer will be dropped. */
void pg_conn_forget(struct pg_conn *conn, const struct pg_request *request);
/* The next use prepares the statement anew. */
void pg_conn_renew(struct pg_conn *conn, const struct pg_statement *statement);
/* The server owes an answer and has said nothing for longer than any statement may take. */
bool pg_conn_is_silent(const struct pg_conn *conn);
/* Nothing is under way and no transaction is open. */
bool pg_conn_is_idle(const struct pg_conn *conn);

/* ---- pg_lane.c, pg_read.c, pg_write.c ---- */

struct pg_lane {
    struct pg_conn *conn;
    struct link again;   /* to be sent once more, each solo, before what waits */
    struct link waiting; /* not sent yet */
    struct link flying;  /* sent, in order */
};

void pg_lane_init(struct pg_lane *lane, struct pg *pg, const struct pg_role *role);
/* What waits or flies is told, and the connection closed. */
void pg_lane_close(struct pg_lane *lane, int flying_result);
/* What pg_read and pg_write are. `late` is the result when it was sent and nothing came back in time. Waits. */
int pg_lane_call(struct pg_lane *lane, const char *what, int late, const struct pg_statement *statement,
                 const struct pg_value *values, size_t count, struct pg_rows **rows) MUST_USE;
/* Everything that was sent, and that was not, ends with `result`. */
void pg_lane_fail_flying(struct pg_lane *lane, int result);
void pg_lane_fail_unsent(struct pg_lane *lane, int result);
/* Takes a sent request back, to be sent once more. */
void pg_lane_again(struct pg_lane *lane, struct pg_request *request);
/* Puts up to `most` requests into the pipeline, those that are solo with a Sync of their own. */
void pg_lane_send(struct pg_lane *lane, size_t most);
void pg_request_finish(struct pg_request *request, int result);

extern const struct pg_role pg_read_role;
extern const struct pg_role pg_write_role;

/* ---- pg_tx.c ---- */

struct pg_pool {
    struct link idle;
    struct link others;  /* in use, connecting or being cleaned */
    struct link waiting; /* for a connection, first come first served */
    unsigned waiting_count;
    unsigned count;    /* connections of all kinds */
    unsigned coming;   /* of these, about to become idle */
    unsigned failures; /* attempts in a row */
    uint64_t retry_ns; /* no new connection before */
};

void pg_pool_init(struct pg_pool *pool);
/* Gives idle connections to those who wait, and opens more where that is allowed. */
void pg_pool_serve(struct pg *pg);
/* All who wait get -ENOTCONN. */
void pg_pool_refuse(struct pg *pg);
void pg_pool_close(struct pg *pg);

enum { PG_TX_MAGIC = 0x70677478 };

struct pg_tx {
    unsigned magic;
    struct pg *pg;
    struct pg_tx *outer;  /* it is a part of that one (pg_scope.c), and has no connection of its own */
    struct pg_conn *conn; /* NULL once it is lost */
    struct pg_request begin;
    struct pg_request before;  /* what goes along with the statement under way: nobody waits for it, but */
    struct pg_request after;   /* where one of them fails, so has the transaction */
    struct pg_request request; /* the statement under way */
    int failed;                /* the first error: nothing is sent any more */
    bool begun;
    bool committing;
};

/* What pg_begin and pg_end do without a scope. */
int pg_tx_begin(struct pg_tx **tx) MUST_USE;
int pg_tx_end(struct pg_tx *tx, int result) MUST_USE;
/* One statement, and in the same round trip `before` and `after` (NULL: none). Waits. Sets tx->failed when the fiber left
 * or the connection is lost, so that nobody knows what the transaction is like; after another error it can go on from a
 * savepoint. */
int pg_tx_run(struct pg_tx *tx, const struct pg_statement *before, const struct pg_statement *statement,
              const struct pg_value *values, size_t count, const struct pg_statement *after,
              struct pg_rows **rows) MUST_USE;

/* ---- pg_scope.c: what the calls of pg.h do in a scope ---- */

int pg_scope_call(const struct pg_statement *statement, const struct pg_value *values, size_t count,
                  struct pg_rows **rows) MUST_USE;
int pg_scope_begin(struct pg_tx **tx) MUST_USE;
int pg_scope_query(struct pg_tx *tx, const struct pg_statement *statement, const struct pg_value *values,
                   size_t count, struct pg_rows **rows) MUST_USE;
int pg_scope_end(struct pg_tx *tx, int result) MUST_USE;

/* ---- pg.c ---- */

struct pg {
    unsigned magic;
    struct loop *loop;
    bool closing;
    struct pg_lane read;
    struct pg_lane write;
    struct pg_pool pool;
    struct link ready;  /* fibers in pg_wait_ready */
    struct group users; /* handles, attempts and calls that have not ended */
};

/* The running loop's client. */
struct pg *pg_self(void);
/* The read connection has come up or gone away: it goes first for the others, so that one blocked attempt to connect
 * and not many keep the thread pool busy while PostgreSQL is away. */
void pg_on_up(struct pg *pg);
void pg_on_away(struct pg *pg);

/* The moment at which a fiber stops waiting for a statement that is sent now. */
uint64_t pg_deadline(void);

#endif
