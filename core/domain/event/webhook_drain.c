/* What a webhook job reads and writes: see webhook_drain.h. */
#include "core/domain/event/webhook_drain.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/audit.h"
#include "core/domain/event/event.h"
#include "core/domain/event/webhook_internal.h"
#include "core/domain/vault.h"

#include <errno.h>

enum { FORGET_AT_ONCE = 5000 };

static const struct pg_statement sql_load = {
    "webhook_target",
    "SELECT w.id, w.version, w.account_id, w.ref, w.url, w.ordered, coalesce(w.paused_until > now(), false), "
    "coalesce(f.deliveries <> '{}', false), w.secret, w.old_secret, " WEBHOOK_MS(
        "w.old_secret_until") ", w.failures, w.pauses "
                              "FROM webhook_endpoint w LEFT JOIN webhook_flight f ON f.endpoint_id = w.id "
                              "WHERE w.id = $1::bigint AND w.enabled AND w.deleted_at IS NULL"};
static const struct pg_statement sql_take_over = {"webhook_take_over", "SELECT webhook_take_over($1)"};
static const struct pg_statement sql_claim = {
    "webhook_claim", "SELECT id, attempts, tries, round, event_id, surface, object, body "
                     "FROM webhook_claim($1, $2, $3, $4, $5, $6)"};
static const struct pg_statement sql_settle = {
    "webhook_settle",
    "SELECT webhook_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"};
static const struct pg_statement sql_end = {"webhook_end", "SELECT webhook_end($1, $2, $3, $4)"};
static const struct pg_statement sql_disable = {
    "webhook_disable",
    "WITH w AS (UPDATE webhook_endpoint SET enabled = false, disabled_reason = $2::text, disabled_at = now(), "
    "updated_at = now(), version = version + 1 WHERE id = $1::bigint AND enabled AND version = $3::bigint "
    "RETURNING *)" AUDIT(
        "$4", "webhook.disable", "w", "w.account_id",
        "w.ref") "SELECT event_add(w.account_id, w.surface, 'webhook.disabled', "
                 "jsonb_build_object('webhook_id', w.ref, 'url', w.url, 'reason', w.disabled_reason)) FROM w"};
static const struct pg_statement sql_sweep = {"webhook_sweep",
                                              "SELECT id, kind, tenant FROM webhook_sweep()"};
static const struct pg_statement sql_forget = {"webhook_forget", "SELECT webhook_forget($1, $2)"};

/* ---- the endpoint ---- */

static int read_secrets(struct arena *arena, const struct pg_rows *rows, struct webhook_target *target)
{
    struct str ref = str_from(target->ref);
    struct str text;
    int result = vault_unseal(arena, pg_bytes(arena, rows, 0, 8), WEBHOOK_SECRET_PLACE, ref, &text);
    if (result)
        return result;
    target->secret = webhook_secret_read(arena, text);
    if (pg_is_null(rows, 0, 9))
        return 0;
    result = vault_unseal(arena, pg_bytes(arena, rows, 0, 9), WEBHOOK_OLD_SECRET_PLACE, ref, &text);
    if (result == 0)
        target->old = webhook_secret_read(arena, text);
    return result;
}

int webhook_target_load(struct arena *arena, struct str key, struct webhook_target *target)
{
    struct pg_rows *rows;
    int64_t id;
    if (!str_to_i64(key, &id))
        return -ENOENT;
    int result = pg_read(&sql_load, PG_VALUES(PG_INT(id)), &rows);
    if (result)
        return result;
    if (pg_count(rows) == 0) {
        pg_rows_free(rows);
        return -ENOENT;
    }
    *target = (struct webhook_target){
        .id = id,
        .version = pg_i64(rows, 0, 1),
        .account_id = pg_i64(rows, 0, 2),
        .ref = arena_str(arena, pg_str(rows, 0, 3)).at,
        .url = arena_str(arena, pg_str(rows, 0, 4)).at,
        .ordered = pg_bool(rows, 0, 5),
        .paused = pg_bool(rows, 0, 6),
        .cut = pg_bool(rows, 0, 7),
        .old_until_ms = pg_i64(rows, 0, 10),
        .health = {.failures = pg_i64(rows, 0, 11), .pauses = pg_i64(rows, 0, 12)},
    };
    result = read_secrets(arena, rows, target);
    pg_rows_free(rows);
    return result;
}

int webhook_take_over(const struct webhook_target *target)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_take_over, PG_VALUES(PG_INT(target->id)), &rows);
    if (result)
        return result;
    LOG(WARN, "webhook attempts of a worker that has died", LOG_TEXT("webhook", target->ref),
        LOG_INT("attempts", pg_i64(rows, 0, 0)));
    pg_rows_free(rows);
    return 0;
}

/* ---- deliveries ---- */

int webhook_claim(struct arena *arena, const struct webhook_target *target, struct webhook_item *const *hand,
                  size_t hand_count, size_t most, struct webhook_item **out, size_t *count)
{
    int64_t *ids = arena_alloc(arena, (hand_count + 1) * sizeof *ids);
    int64_t *attempts = arena_alloc(arena, (hand_count + 1) * sizeof *attempts);
    struct pg_rows *rows;
    *count = 0;
    for (size_t i = 0; i < hand_count; i++) {
        ids[i] = hand[i]->id;
        attempts[i] = hand[i]->attempts;
    }
    int result = pg_write(&sql_claim,
                          PG_VALUES(PG_INT(target->id), PG_INT(target->version), PG_INTS(ids, hand_count),
                                    PG_INTS(attempts, hand_count), PG_INT(most), PG_BOOL(target->ordered)),
                          &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_zalloc(arena, (*count + 1) * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct webhook_item){
            .id = pg_i64(rows, i, 0),
            .attempts = pg_i64(rows, i, 1),
            .tries = pg_i64(rows, i, 2),
            .round = pg_i64(rows, i, 3),
            .event_id = pg_text(arena, rows, i, 4),
            .surface = pg_text(arena, rows, i, 5),
            .object = pg_text(arena, rows, i, 6),
            .body = pg_text(arena, rows, i, 7),
        };
    pg_rows_free(rows);
    return 0;
}

/* The columns of what is settled. */
struct columns {
    int64_t *ids;
    int64_t *numbers;
    int64_t *begun_ms;
    int64_t *took_ms;
    int64_t *oks;
    int64_t *statuses;
    struct str *errors;
    struct str *answers;
    int64_t *waits;
    int64_t *rounds;
    int64_t given_up; /* how many that failed have no try left */
};

static int64_t wait_of(const struct webhook_item *item)
{
    uint64_t random;
    switch (item->verdict) {
    case WEBHOOK_DELIVERED: return -1;
    case WEBHOOK_STOPPED: return -2;
    case WEBHOOK_FAILED: break;
    }
    crypto_random(&random, sizeof random);
    return webhook_retry_ms((unsigned)item->tries + 1, item->asked_s, random);
}

static void fill(struct arena *arena, struct columns *columns, struct webhook_item *const *items,
                 size_t count)
{
    int64_t *numbers = arena_alloc(arena, (count + 1) * 8 * sizeof *numbers);
    struct str *texts = arena_alloc(arena, (count + 1) * 2 * sizeof *texts);
    *columns = (struct columns){
        .ids = numbers,
        .numbers = numbers + count,
        .begun_ms = numbers + 2 * count,
        .took_ms = numbers + 3 * count,
        .oks = numbers + 4 * count,
        .statuses = numbers + 5 * count,
        .waits = numbers + 6 * count,
        .rounds = numbers + 7 * count,
        .errors = texts,
        .answers = texts + count,
    };
    for (size_t i = 0; i < count; i++) {
        const struct webhook_item *item = items[i];
        columns->ids[i] = item->id;
        columns->numbers[i] = item->attempts + 1;
        columns->begun_ms[i] = item->begun_ms;
        columns->took_ms[i] = item->took_ms;
        columns->oks[i] = item->verdict == WEBHOOK_DELIVERED;
        columns->statuses[i] = item->status;
        columns->errors[i] = item->error;
        columns->answers[i] = item->answer;
        columns->waits[i] = wait_of(item);
        if (item->verdict == WEBHOOK_FAILED && columns->waits[i] < 0)
            columns->given_up++;
        columns->rounds[i] = item->round;
    }
}

int webhook_settle(const struct job *job, const struct webhook_target *target,
                   struct webhook_item *const *items, size_t count, const struct webhook_health *health,
                   int64_t pause_ms, bool *failing)
{
    struct arena arena;
    struct columns all;
    struct pg_rows *rows;
    *failing = false;
    arena_init(&arena);
    fill(&arena, &all, items, count);
    int result = pg_write(
        &sql_settle,
        PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_INT(target->id), PG_INTS(all.ids, count),
                  PG_INTS(all.numbers, count), PG_INTS(all.begun_ms, count), PG_INTS(all.took_ms, count),
                  PG_INTS(all.oks, count), PG_INTS(all.statuses, count), PG_TEXTS(all.errors, count),
                  PG_TEXTS(all.answers, count), PG_INTS(all.waits, count), PG_INTS(all.rounds, count),
                  PG_INT(health->failures), PG_INT(health->pauses), PG_INT(pause_ms),
                  PG_BOOL(target->ordered), PG_INT(WEBHOOK_PATIENCE_S)),
        &rows);
    if (result == 0) {
        struct str word = pg_str(rows, 0, 0);
        *failing = str_equal(word, STR("failing"));
        result = str_equal(word, STR("lost")) ? -ESTALE : 0;
        if (result == 0)
            metric_add(M_WEBHOOK_GIVEN_UP, all.given_up);
        pg_rows_free(rows);
    }
    arena_clear(&arena);
    return result;
}

/* ---- the end ---- */

/* A transaction of its own: the job that it adds may be one that an event's statement holds, and while it waits for that it
 * must hold nothing that others want. */
int webhook_end(struct job *job, const struct webhook_target *target)
{
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(
            tx, &sql_end,
            PG_VALUES(PG_INT(job->id), PG_INT(job->fence), PG_INT(target->id), PG_BOOL(target->ordered)),
            &rows);
    if (result == 0 && !pg_bool(rows, 0, 0))
        result = -ESTALE;
    pg_rows_free(rows);
    result = pg_end(tx, result);
    if (result == 0)
        job->finished = true;
    return result;
}

int webhook_disable(const struct webhook_target *target, enum webhook_reason why)
{
    const char *reason = why == WEBHOOK_REASON_GONE ? "gone" : "failing";
    struct pg_tx *tx;
    struct pg_rows *rows = NULL;
    int result = pg_begin(&tx);
    if (result == 0)
        result = pg_query(
            tx, &sql_disable,
            PG_VALUES(PG_INT(target->id), PG_TEXT(str_from(reason)), PG_INT(target->version), AUDIT_WHO),
            &rows);
    bool told = result == 0 && pg_count(rows) == 1;
    pg_rows_free(rows);
    result = pg_end(tx, result);
    if (result || !told) /* its owner has changed it meanwhile */
        return result;
    event_added();
    metric_add_slot(M_WEBHOOK_DISABLED, why, 1);
    LOG(WARN, "webhook endpoint disabled", LOG_TEXT("webhook", target->ref), LOG_TEXT("reason", reason));
    return 0;
}

/* ---- what goes, and what was lost ---- */

int webhook_sweep(void)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_sweep, PG_NO_VALUES, &rows);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows); i++) {
        LOG(WARN, "webhook deliveries were due and had no job", LOG_INT("job", pg_i64(rows, i, 0)));
        queue_ring(JOB_WEBHOOK, pg_str(rows, i, 2), pg_i64(rows, i, 0));
    }
    pg_rows_free(rows);
    return 0;
}

int webhook_forget(void)
{
    int64_t removed;
    do {
        struct pg_rows *rows;
        int result =
            pg_write(&sql_forget, PG_VALUES(PG_INT(config->webhook_days), PG_INT(FORGET_AT_ONCE)), &rows);
        if (result)
            return result;
        removed = pg_i64(rows, 0, 0);
        pg_rows_free(rows);
    } while (removed >= FORGET_AT_ONCE);
    return 0;
}
