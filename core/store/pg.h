#ifndef CORE_STORE_PG_H
#define CORE_STORE_PG_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * PostgreSQL, from fibers. Per loop: one connection in pipeline mode for reads, one for grouped writes, and a
 * small pool for transactions (config->pg_pool). Statements are prepared on each connection at their first use.
 *
 * Errors:
 *   -ENOTCONN   PostgreSQL is away and nothing has happened; a caller answers 503 with Retry-After
 *   -ECONNRESET the connection broke after a write was sent: its outcome is unknown
 *   -EEXIST     a unique or exclusion constraint refused it (SQLSTATE 23505, 23P01)
 *   -EAGAIN     serialization failure or deadlock (40001, 40P01): the transaction may be tried again
 *   -ETIMEDOUT  no answer within config->pg_timeout_ms (the statement is cancelled on the server too)
 *   -EIO        the statement failed; it is logged with its name and SQLSTATE, never with its values
 *   -ECANCELED  the fiber was cancelled; a write that was sent already may still be committed
 */

/* A statement of a domain file: static, `name` unique in the program. */
struct pg_statement {
    const char *name;
    const char *sql;
};

struct pg_value {
    enum {
        PG_VALUE_NULL,
        PG_VALUE_TEXT,
        PG_VALUE_INT,
        PG_VALUE_BYTES,
        PG_VALUE_INT_ARRAY,
        PG_VALUE_TEXT_ARRAY
    } type;
    struct str text;
    int64_t number;
    const int64_t *numbers;
    const struct str *texts;
    size_t count;
};
#define PG_NULL ((struct pg_value){.type = PG_VALUE_NULL})
/* Absent (STR_NONE) becomes NULL. The text must not contain a NUL byte: that is -EIO. */
#define PG_TEXT(value_) ((struct pg_value){.type = PG_VALUE_TEXT, .text = (value_)})
#define PG_INT(value_) ((struct pg_value){.type = PG_VALUE_INT, .number = (int64_t)(value_)})
#define PG_BOOL(value_) PG_TEXT((value_) ? STR("t") : STR("f"))
/* bytea */
#define PG_BYTES(value_) ((struct pg_value){.type = PG_VALUE_BYTES, .text = (value_)})
/* bigint[] and text[] */
#define PG_INTS(values_, count_)                                                                             \
    ((struct pg_value){.type = PG_VALUE_INT_ARRAY, .numbers = (values_), .count = (count_)})
#define PG_TEXTS(values_, count_)                                                                            \
    ((struct pg_value){.type = PG_VALUE_TEXT_ARRAY, .texts = (values_), .count = (count_)})

#define PG_VALUES(...)                                                                                       \
    (const struct pg_value[]){__VA_ARGS__},                                                                  \
        sizeof((const struct pg_value[]){__VA_ARGS__}) / sizeof(struct pg_value)
#define PG_NO_VALUES NULL, 0

struct pg_rows; /* a result; the caller frees it */

void pg_rows_free(struct pg_rows *rows); /* NULL is fine */
size_t pg_count(const struct pg_rows *rows);
/* Rows that an INSERT, UPDATE or DELETE touched. */
size_t pg_affected(const struct pg_rows *rows);
bool pg_is_null(const struct pg_rows *rows, size_t row, int column);
/* Valid until pg_rows_free; STR_NONE for NULL. NUL-terminated behind its size. */
struct str pg_str(const struct pg_rows *rows, size_t row, int column);
/* The same in the arena, to stay. */
struct str pg_text(struct arena *arena, const struct pg_rows *rows, size_t row, int column);
/* Aborts on what is no integer: columns are ours. NULL gives 0. */
int64_t pg_i64(const struct pg_rows *rows, size_t row, int column);
bool pg_bool(const struct pg_rows *rows, size_t row, int column);
/* A bytea, in the arena; STR_NONE for NULL. */
struct str pg_bytes(struct arena *arena, const struct pg_rows *rows, size_t row, int column);

/* Begins to connect to config->database_url; reconnects with backoff for as long as it is open. A URL that
 * libpq can't read is -EINVAL with a line in `error` without the URL. */
int pg_open_loop(struct loop *loop, char *error, size_t error_size) MUST_USE;
/* Waits until all is closed; what waits gets -ENOTCONN. On a fiber. */
void pg_close_loop(struct loop *loop);
/* Waits until the connection for reads stands: 0, -ETIMEDOUT or -ECANCELED. */
int pg_wait_ready(uint64_t deadline_ns) MUST_USE;
/* The read connection stands. */
bool pg_is_up(void);

/* A read: one statement, its own implicit transaction, pipelined with other fibers' reads. Waits. `rows` may be
 * NULL. It must not write: after a lost connection it is repeated once. */
int pg_read(const struct pg_statement *statement, const struct pg_value *values, size_t count,
            struct pg_rows **rows) MUST_USE;

/*
 * A write that is one statement and independent of others. Writes that wait at the same time are sent together
 * and committed by one commit; if one of them fails, each is repeated alone, so that only the faulty one fails.
 * Waits until it is committed.
 */
int pg_write(const struct pg_statement *statement, const struct pg_value *values, size_t count,
             struct pg_rows **rows) MUST_USE;

/* A write that removes rows, at most `at_once` of them as one of its values says, again and again until there are fewer. Waits. */
int pg_remove(const struct pg_statement *statement, const struct pg_value *values, size_t count,
              size_t at_once) MUST_USE;

/*
 * A transaction as a scope, on a connection of its own:
 *
 *     struct pg_tx *tx;
 *     int result = pg_begin(&tx);
 *     if (result == 0)
 *         result = pg_query(tx, &insert, PG_VALUES(...), NULL);
 *     return pg_end(tx, result);      // 0: commits; else rolls back and returns the error given
 *
 * All of them wait. After an error only pg_end may follow. pg_end(NULL, result) returns result, and from its
 * COMMIT on a cancellation no longer counts: the outcome is waited for. -ECONNRESET from pg_end: unknown outcome.
 */
struct pg_tx;
int pg_begin(struct pg_tx **tx) MUST_USE;
int pg_query(struct pg_tx *tx, const struct pg_statement *statement, const struct pg_value *values,
             size_t count, struct pg_rows **rows) MUST_USE;
int pg_end(struct pg_tx *tx, int result) MUST_USE;

/*
 * A scope: from pg_scope_open to pg_scope_close every pg_write, pg_read, pg_begin … pg_end of the running fiber is part of one
 * transaction (each behind a savepoint, so that one that fails leaves the others), and nothing is committed before the
 * scope is closed. For what must be one with the effect of code that knows nothing of it. Not nested.
 */
int pg_scope_open(void) MUST_USE; /* waits for a connection of the pool */
/* As pg_end, but that it waits for a rollback, too; what pg_after_commit was given runs after a commit, in order, and is
 * dropped otherwise. */
int pg_scope_close(int result) MUST_USE;
bool pg_in_scope(void);
/* Runs `run(arg)` once what the fiber has written is committed: at once without a scope, which is after its pg_write. For
 * bells and snapshots that must not tell of what is not so yet. `arg` lives until the scope is closed (an arena's that does).
 * It must not wait. */
void pg_after_commit(void (*run)(void *arg), void *arg);
/* Memory that lives until the scope is closed; NULL without one. */
struct arena *pg_scope_arena(void);

/* ---- migrations (core/store/migrate.c) ---- */

/* Applies the embedded migrations that the database lacks, in order, each in its own transaction, under an
 * advisory lock so that many starters do it once. Blocks: for the start of a program, before its loop runs. Logs
 * each. `error` gets one line. */
int migrate_run(char *error, size_t error_size) MUST_USE;

/* Blocks. 0 when the database has exactly our migrations; -EAGAIN when some are missing; -EPROTO when it has one
 * that we do not know (a newer program made it) or one whose text was changed. */
int migrate_check(char *error, size_t error_size) MUST_USE;

#endif
