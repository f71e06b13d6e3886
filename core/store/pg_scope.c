/*
 * A transaction around code that knows nothing of it: see pg.h.
 *
 *     pg_write, pg_read   SAVEPOINT · statement · RELEASE, in one round trip; after an error ROLLBACK TO · RELEASE
 *     pg_begin            SAVEPOINT, in front of its first statement
 *     pg_end              RELEASE, or ROLLBACK TO · RELEASE
 *
 * One name does for all savepoints: PostgreSQL takes the newest, and what was begun last ends first.
 */
#include "core/store/pg_internal.h"

#include <errno.h>
#include <stdlib.h>

struct pg_scope {
    struct pg_tx *tx;
    struct arena arena;
    struct link later;
};

/* A call that waits for the commit. */
struct later {
    struct link link;
    void (*run)(void *arg);
    void *arg;
};

static const struct pg_statement savepoint = {"pg_savepoint", "SAVEPOINT part"};
static const struct pg_statement release_part = {"pg_release", "RELEASE part"};
static const struct pg_statement roll_back_part = {"pg_rollback_to", "ROLLBACK TO part"};

static const struct pg_statement roll_back = {"pg_rollback_scope", "ROLLBACK"};

static struct pg_scope *scope_self(void)
{
    return fiber_slot_get(FIBER_PG_SCOPE);
}

bool pg_in_scope(void)
{
    return scope_self() != NULL;
}

struct arena *pg_scope_arena(void)
{
    struct pg_scope *scope = scope_self();
    return scope ? &scope->arena : NULL;
}

int pg_scope_open(void)
{
    struct pg_tx *tx;
    CHECK(!pg_in_scope());
    int result = pg_tx_begin(&tx);
    if (result)
        return result;
    struct pg_scope *scope = mem_zalloc(sizeof *scope);
    scope->tx = tx;
    arena_init(&scope->arena);
    list_init(&scope->later);
    fiber_slot_set(FIBER_PG_SCOPE, scope);
    return 0;
}

void pg_after_commit(void (*run)(void *arg), void *arg)
{
    struct pg_scope *scope = scope_self();
    if (!scope) {
        run(arg);
        return;
    }
    struct later *later = arena_alloc(&scope->arena, sizeof *later);
    later->run = run;
    later->arg = arg;
    list_push_back(&scope->later, &later->link);
}

/* Waits for it, so that the locks are gone when somebody is told. */
static void take_back(struct pg_tx *tx)
{
    if (tx->failed || !tx->begun)
        return;
    fiber_hold();
    int result = pg_tx_run(tx, NULL, &roll_back, PG_NO_VALUES, NULL, NULL);
    fiber_release();
    tx->begun = result != 0;
}

int pg_scope_close(int result)
{
    struct pg_scope *scope = scope_self();
    CHECK(scope);
    fiber_slot_set(FIBER_PG_SCOPE, NULL);
    if (result)
        take_back(scope->tx);
    result = pg_tx_end(scope->tx, result);
    struct link *item;
    while (result == 0 && (item = list_pop_front(&scope->later)) != NULL) {
        struct later *later = LIST_ENTRY(item, struct later, link);
        later->run(later->arg);
    }
    arena_clear(&scope->arena);
    free(scope);
    return result;
}

/* Undoes what came after the newest savepoint, and takes that away. The outcome is waited for: what is done next depends on it. */
static void step_back(struct pg_tx *tx)
{
    if (tx->failed)
        return;
    fiber_hold();
    int result = pg_tx_run(tx, NULL, &roll_back_part, PG_NO_VALUES, &release_part, NULL);
    fiber_release();
    if (result)
        tx->failed = result;
}

/* Why nothing can be sent. A fiber that was cancelled has not spoilt the transaction: what it did before may be kept. */
static int refusal(const struct pg_tx *tx)
{
    if (tx->failed)
        return tx->failed;
    return fiber_canceled() ? -ECANCELED : 0;
}

int pg_scope_call(const struct pg_statement *statement, const struct pg_value *values, size_t count,
                  struct pg_rows **rows)
{
    struct pg_tx *tx = scope_self()->tx;
    if (rows)
        *rows = NULL;
    int result = refusal(tx);
    if (result == 0) {
        result = pg_tx_run(tx, &savepoint, statement, values, count, &release_part, rows);
        if (result)
            step_back(tx);
    }
    return pg_note(result);
}

/* ---- transactions as parts of it ---- */

int pg_scope_begin(struct pg_tx **tx)
{
    struct pg_tx *outer = scope_self()->tx;
    *tx = NULL;
    int result = refusal(outer);
    if (result)
        return pg_note(result);
    struct pg_tx *part = mem_zalloc(sizeof *part);
    MAGIC_SET(part, PG_TX_MAGIC);
    part->pg = outer->pg;
    part->outer = outer;
    *tx = part;
    return 0;
}

int pg_scope_query(struct pg_tx *tx, const struct pg_statement *statement, const struct pg_value *values,
                   size_t count, struct pg_rows **rows)
{
    struct pg_tx *outer = tx->outer;
    if (outer->failed)
        return outer->failed;
    const struct pg_statement *before = tx->begun ? NULL : &savepoint;
    tx->begun = true;
    int result = pg_tx_run(outer, before, statement, values, count, NULL, rows);
    if (result) {
        step_back(outer);
        tx->begun = false;
    }
    return result;
}

int pg_scope_end(struct pg_tx *tx, int result)
{
    struct pg_tx *outer = tx->outer;
    if (result == 0)
        result = tx->failed;
    if (result == 0 && outer->failed)
        result = outer->failed;
    if (tx->begun && result) {
        step_back(outer);
    } else if (tx->begun) {
        fiber_hold();
        result = pg_tx_run(outer, NULL, &release_part, PG_NO_VALUES, NULL, NULL);
        fiber_release();
        outer->failed = result;
    }
    MAGIC_CLEAR(tx);
    free(tx);
    return result;
}
