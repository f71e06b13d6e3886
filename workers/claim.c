/* From ids to leases: what was read together is claimed by one statement, and each row that was got is started. */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/store/pg.h"

#include <errno.h>
#include <stdlib.h>

enum { PAUSE_MAX_MS = 1000 };

static const struct pg_statement claim_jobs = {
    "job_claim",
    "SELECT id, fence, kind, tenant, key, payload, tries, crashes, waited_ms FROM job_claim($1, $2, $3, $4, $5)"};
static const struct pg_statement list_due = {"job_due", "SELECT job_due($1, $2)"};

struct claim {
    struct pool *pool;
    size_t count; /* of ids, and of slots taken */
    size_t capacity;
    int64_t *ids;
    struct entry *entries;
};

static void claim_add(struct intake *intake, int64_t id, struct entry entry)
{
    struct claim *claim = intake->claim;
    if (!claim) {
        claim = intake->claim = mem_zalloc(sizeof *claim);
        claim->pool = intake->pool;
    }
    if (claim->count == claim->capacity) {
        claim->capacity = claim->capacity ? 2 * claim->capacity : 32;
        claim->ids = mem_realloc(claim->ids, claim->capacity * sizeof *claim->ids);
        claim->entries = mem_realloc(claim->entries, claim->capacity * sizeof *claim->entries);
    }
    claim->ids[claim->count] = id;
    claim->entries[claim->count++] = entry;
}

/* ---- entries ---- */

static struct str field_of(const struct redis_value *fields, struct str name)
{
    for (size_t i = 0; i + 1 < fields->count; i += 2)
        if (str_equal(fields->items[i].text, name))
            return fields->items[i + 1].text;
    return STR_NONE;
}

static void start_volatile(struct pool *pool, enum job_kind kind, struct entry entry,
                           const struct redis_value *fields)
{
    struct run *run = run_new(pool, kind);
    struct str payload = field_of(fields, STR("payload"));
    run->entry = entry;
    run->job.tenant = arena_str(&run->arena, field_of(fields, STR("tenant")));
    if (payload.at)
        run->job.payload = arena_str(&run->arena, payload);
    run->waited_ms = clock_wall_ms() - (int64_t)entry.id.ms;
    pool->free--;
    run_start(run);
}

void intake_add(struct intake *intake, struct lane *lane, const struct redis_value *value)
{
    struct pool *pool = intake->pool;
    struct entry entry = {.lane = lane};
    if (value->count != 2 || !stream_id_parse(value->items[0].text, &entry.id))
        return;
    const struct redis_value *fields = &value->items[1];
    struct str id_text = field_of(fields, STR("id"));
    int64_t id;
    enum job_kind kind;
    if (str_to_i64(id_text, &id) && id > 0) {
        pool->free--;
        claim_add(intake, id, entry);
    } else if (job_kind_of(field_of(fields, STR("kind")), &kind) == 0 && !job_policies[kind].durable &&
               pool->handlers[kind]) {
        start_volatile(pool, kind, entry, fields);
    } else {
        LOG(ERROR, "an entry that no job of ours has made is dropped", LOG_STR("lane", lane->key),
            LOG_STR("kind", field_of(fields, STR("kind"))));
        ack_add(pool, entry);
    }
}

/* ---- the claim ---- */

static void start_row(struct pool *pool, const struct pg_rows *rows, size_t row)
{
    enum job_kind kind;
    CHECK(job_kind_of(pg_str(rows, row, 2), &kind) == 0);
    struct run *run = run_new(pool, kind);
    struct job *job = &run->job;
    job->id = pg_i64(rows, row, 0);
    job->fence = pg_i64(rows, row, 1);
    job->tenant = arena_str(&run->arena, pg_str(rows, row, 3));
    if (!pg_is_null(rows, row, 4))
        job->key = arena_str(&run->arena, pg_str(rows, row, 4));
    if (!pg_is_null(rows, row, 5))
        job->payload = arena_str(&run->arena, pg_str(rows, row, 5));
    job->tries = (unsigned)pg_i64(rows, row, 6);
    job->crashes = (unsigned)pg_i64(rows, row, 7);
    run->waited_ms = pg_i64(rows, row, 8);
    run_start(run);
}

static bool is_running_here(struct pool *pool, int64_t id)
{
    struct link *heads[] = {&pool->running, &pool->settling};
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
        LIST_EACH (heads[i], item, after)
            if (LIST_ENTRY(item, struct run, link)->job.id == id)
                return true;
    return false;
}

/* Sets id 0, which no row has, for what runs here: this worker's name would make it be claimed again. */
static void leave_out_running(struct claim *claim)
{
    for (size_t i = 0; i < claim->count; i++)
        if (is_running_here(claim->pool, claim->ids[i]))
            claim->ids[i] = 0;
}

/* Tries until PostgreSQL answers; what it said after a connection broke is learnt by asking for our own rows too. */
static int claim_rows(struct claim *claim, struct pg_rows **rows)
{
    struct pool *pool = claim->pool;
    bool again = false;
    for (uint64_t pause_ms = 50;; pause_ms = pause_ms < PAUSE_MAX_MS / 2 ? 2 * pause_ms : PAUSE_MAX_MS) {
        if (again)
            leave_out_running(claim);
        int result =
            pg_write(&claim_jobs,
                     PG_VALUES(PG_INTS(claim->ids, claim->count), PG_TEXTS(pool->kinds, pool->kind_count),
                               PG_TEXT(str_from(pool->name)), PG_INT(pool->lease_ms), PG_BOOL(again)),
                     rows);
        if (result == 0 || pool->draining)
            return result;
        again |= result != -ENOTCONN;
        result = fiber_sleep_ms(jitter_ms(pause_ms));
        CHECK(result == 0);
    }
}

static void claim_run(void *arg)
{
    struct claim *claim = arg;
    struct pool *pool = claim->pool;
    struct pg_rows *rows = NULL;
    size_t got = 0;
    fiber_hold(); /* only the pool ends it */
    if (claim_rows(claim, &rows) == 0) {
        CRASH_POINT("job-claimed");
        got = pg_count(rows);
        for (size_t row = 0; row < got; row++)
            start_row(pool, rows, row);
        /* From here on the rows say all. One that was not got is not due, gone, or rung again by who holds it. */
        for (size_t i = 0; i < claim->count; i++)
            if (claim->entries[i].lane)
                ack_add(pool, claim->entries[i]);
    }
    pg_rows_free(rows);
    CHECK(got <= claim->count);
    pool_slots_free(pool, claim->count - got);
    free(claim->ids);
    free(claim->entries);
    free(claim);
    fiber_release();
    group_done(&pool->intake);
}

void intake_claim(struct intake *intake)
{
    if (!intake->claim)
        return;
    group_add(&intake->pool->intake);
    fiber_start(intake->pool->loop, "job claim", claim_run, intake->claim);
    intake->claim = NULL;
}

int claim_due(struct pool *pool)
{
    size_t most = pool->free < BATCH_MAX ? pool->free : BATCH_MAX;
    struct pg_rows *rows = NULL;
    if (most == 0)
        return 0;
    int result = pg_read(&list_due, PG_VALUES(PG_TEXTS(pool->kinds, pool->kind_count), PG_INT(most)), &rows);
    size_t count = result == 0 ? pg_count(rows) : 0;
    struct intake intake = {.pool = pool};
    size_t taken = 0;
    for (; taken < count && pool->free > 0; taken++) {
        pool->free--;
        claim_add(&intake, pg_i64(rows, taken, 0), (struct entry){.lane = NULL});
    }
    pg_rows_free(rows);
    intake_claim(&intake);
    return result ? result : (int)taken;
}
