/*
 * Kept answers: see idempotency.h. Of requests with the same key one runs, which holds an advisory lock for the length of its
 * transaction; the server's end, or PostgreSQL's, takes back lock and effect together. The row is looked for under the lock,
 * by a statement of its own: its snapshot must be newer.
 */
#include "core/domain/idempotency.h"

#include "core/base/config.h"
#include "core/domain/vault.h"
#include "core/run/fiber.h"
#include "core/store/pg.h"

#include <errno.h>

enum { FORGET_AT_ONCE = 5000 };

static const struct pg_statement sql_lock = {
    "idempotency_lock", "SELECT pg_try_advisory_xact_lock(hashtextextended($1::text || ':' || $2::text, 0))"};
static const struct pg_statement sql_find = {
    "idempotency_find",
    "SELECT request, coalesce(running_until > clock_timestamp(), false), status, answer FROM idempotency "
    "WHERE owner = $1::text AND key = $2::text AND created_at > now() - $3::bigint * interval '1 second'"};
/* What it takes the place of is too old to count. */
static const struct pg_statement sql_keep = {
    "idempotency_keep",
    "INSERT INTO idempotency AS i (owner, key, request, status, answer, running_until) "
    "VALUES ($1::text, $2::text, $3::bytea, $4::bigint, $5::bytea, "
    "CASE WHEN $6::bigint > 0 THEN clock_timestamp() + $6::bigint * interval '1 second' END) "
    "ON CONFLICT (owner, key) DO UPDATE SET request = excluded.request, status = excluded.status, "
    "answer = excluded.answer, running_until = excluded.running_until, created_at = now()"};
static const struct pg_statement sql_finish = {
    "idempotency_finish",
    "UPDATE idempotency SET running_until = NULL, status = coalesce($4::bigint, status), "
    "answer = coalesce($5::bytea, answer) WHERE owner = $1::text AND key = $2::text AND request = $3::bytea "
    "AND running_until > clock_timestamp()"};
static const struct pg_statement sql_undo = {
    "idempotency_undo", "DELETE FROM idempotency WHERE owner = $1::text AND key = $2::text "
                        "AND request = $3::bytea AND running_until IS NOT NULL"};
static const struct pg_statement sql_forget = {
    "idempotency_forget",
    "DELETE FROM idempotency WHERE created_at < now() - $1::bigint * interval '1 second' AND ctid = ANY (ARRAY("
    "SELECT ctid FROM idempotency WHERE created_at < now() - $1::bigint * interval '1 second' "
    "ORDER BY created_at LIMIT $2::bigint))"};

/* "owner:key": what a sealed answer is bound to. */
static struct str row_of(struct arena *arena, const struct idempotency *which)
{
    return str_from(arena_printf(arena, "%.*s:%.*s", STR_ARG(which->owner), STR_ARG(which->key)));
}

static struct str digest_of(const struct idempotency *which)
{
    return str_of((const char *)which->request, sizeof which->request);
}

static int take_lock(const struct idempotency *which, bool *ours)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_lock, PG_VALUES(PG_TEXT(which->owner), PG_TEXT(which->key)), &rows);
    if (result)
        return result;
    *ours = pg_bool(rows, 0, 0);
    pg_rows_free(rows);
    return 0;
}

/* What there is for the key; `sealed` is absent when there is no answer to give. */
static int look(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                int *status, struct str *sealed)
{
    struct pg_rows *rows;
    int result = pg_read(
        &sql_find, PG_VALUES(PG_TEXT(which->owner), PG_TEXT(which->key), PG_INT(IDEMPOTENCY_KEEP_S)), &rows);
    if (result)
        return result;
    if (pg_count(rows) == 0) {
        *state = IDEMPOTENCY_NEW;
    } else if (!str_equal(pg_bytes(arena, rows, 0, 0), digest_of(which))) {
        *state = IDEMPOTENCY_OTHER;
    } else {
        *state = pg_bool(rows, 0, 1) ? IDEMPOTENCY_RUNNING : IDEMPOTENCY_DONE;
        *status = (int)pg_i64(rows, 0, 2);
        *sealed = pg_bytes(arena, rows, 0, 3);
    }
    pg_rows_free(rows);
    return 0;
}

/* Opens the scope, unless somebody else is at it, or was until just now. */
static int open_scope(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                      int *status, struct str *sealed)
{
    bool ours;
    int result = pg_scope_open();
    if (result)
        return result;
    result = take_lock(which, &ours);
    if (result == 0 && !ours)
        *state = IDEMPOTENCY_RUNNING;
    else if (result == 0)
        result = look(arena, which, state, status, sealed);
    if (result || *state != IDEMPOTENCY_NEW)
        idempotency_drop();
    return result;
}

/* The answer that there is. */
static int unseal(struct arena *arena, const struct idempotency *which, int result, struct str sealed,
                  struct str *answer)
{
    *answer = STR_NONE;
    if (result || !sealed.at)
        return result;
    return vault_unseal(arena, sealed, "idempotency.answer", row_of(arena, which), answer);
}

int idempotency_look(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                     int *status, struct str *answer)
{
    struct str sealed = STR_NONE;
    int result = look(arena, which, state, status, &sealed);
    return unseal(arena, which, result, sealed, answer);
}

int idempotency_begin(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                      int *status, struct str *answer)
{
    struct str sealed = STR_NONE;
    /* Most repetitions need no lock, and no connection of the few. */
    int result = look(arena, which, state, status, &sealed);
    if (result == 0 && *state == IDEMPOTENCY_NEW)
        result = open_scope(arena, which, state, status, &sealed);
    return unseal(arena, which, result, sealed, answer);
}

static struct str seal(struct arena *arena, const struct idempotency *which, struct str answer)
{
    return vault_seal(arena, answer, "idempotency.answer", row_of(arena, which));
}

int idempotency_keep(struct arena *arena, const struct idempotency *which, int status, struct str answer,
                     int64_t running_s)
{
    struct str sealed = seal(arena, which, answer);
    /* A client that leaves now has seen its effect through: it may come again and ask what became of it. */
    fiber_hold();
    int result = pg_write(&sql_keep,
                          PG_VALUES(PG_TEXT(which->owner), PG_TEXT(which->key), PG_BYTES(digest_of(which)),
                                    PG_INT(status), PG_BYTES(sealed), PG_INT(running_s)),
                          NULL);
    result = pg_scope_close(result);
    fiber_release();
    return result;
}

int idempotency_finish(struct arena *arena, const struct idempotency *which, int status, struct str answer)
{
    struct pg_value values[] = {PG_TEXT(which->owner), PG_TEXT(which->key), PG_BYTES(digest_of(which)),
                                PG_NULL, PG_NULL};
    if (answer.at) {
        values[3] = PG_INT(status);
        values[4] = PG_BYTES(seal(arena, which, answer));
    }
    fiber_hold();
    int result = pg_write(&sql_finish, values, ARRAY_SIZE(values), NULL);
    fiber_release();
    return result;
}

int idempotency_undo(const struct idempotency *which)
{
    fiber_hold();
    int result = pg_write(
        &sql_undo, PG_VALUES(PG_TEXT(which->owner), PG_TEXT(which->key), PG_BYTES(digest_of(which))), NULL);
    fiber_release();
    return result;
}

int idempotency_pass(void)
{
    fiber_hold();
    int result = pg_scope_close(0);
    fiber_release();
    return result;
}

void idempotency_drop(void)
{
    int result = pg_scope_close(-ECANCELED);
    (void)result; /* what was given */
}

int idempotency_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(IDEMPOTENCY_KEEP_S), PG_INT(FORGET_AT_ONCE)),
                     FORGET_AT_ONCE);
}
