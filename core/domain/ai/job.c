/* AI calls in PostgreSQL: see job.h. */
#include "core/domain/ai/job.h"

#include "core/base/config.h"
#include "core/domain/event/event.h"
#include "core/store/pg.h"
#include "proto/json.h"

#include <errno.h>

enum { RING_S = 5, DUE_S = 30, FORGET_AT_ONCE = 5000, ID_SIZE = 26, TEXT_MAX = 1 << 20 };

static const char *const statuses[] = {
    [AI_QUEUED] = "queued",     [AI_PROCESSING] = "processing", [AI_COMPLETED] = "completed",
    [AI_JOB_FAILED] = "failed", [AI_CANCELLED] = "cancelled",
};

const char *ai_status_name(enum ai_status status)
{
    return statuses[status];
}

bool ai_job_id_is_valid(struct str id)
{
    return id.size == ID_SIZE && str_is_base62_behind(id, STR("job_"));
}

/* ---- the record of an end ---- */

void ai_end_write(struct buf *out, const struct ai_end *end)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_text(&json, "status", statuses[end->status]);
    json_put_int(&json, "fence", end->fence);
    json_put_str(&json, "provider", end->provider);
    json_put_str(&json, "code", end->code);
    json_put_str(&json, "message", end->message);
    json_put_int(&json, "cost", end->cost);
    json_put_int(&json, "prompt", end->prompt_tokens);
    json_put_int(&json, "completion", end->completion_tokens);
    json_put_int(&json, "started", end->started_ms);
    json_put_int(&json, "ended", end->ended_ms);
    json_put_bool(&json, "streamed", end->streamed);
    json_put_str(&json, "text", end->text);
    json_put_str(&json, "answer", end->answer);
    json_close(&json, '}');
}

static bool read_status(struct str name, enum ai_status *status)
{
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        if (str_equal(name, str_from(statuses[i]))) {
            *status = (enum ai_status)i;
            return true;
        }
    return false;
}

/* What the queue ends by itself (schema/ai.lua) has no more than status, code, cost and what was delivered. */
int ai_end_read(struct arena *arena, struct str text, struct ai_end *end)
{
    const char *error;
    const struct json *json = json_read(arena, text, &error);
    if (!json || !read_status(json_string(json_member(json, "status")), &end->status) ||
        !json_to_i64(json_member(json, "cost"), &end->cost) ||
        !json_to_i64(json_member(json, "fence"), &end->fence) ||
        !json_to_i64(json_member(json, "ended"), &end->ended_ms))
        return -EINVAL;
    const struct {
        const char *name;
        int64_t *number;
    } numbers[] = {{"prompt", &end->prompt_tokens},
                   {"completion", &end->completion_tokens},
                   {"started", &end->started_ms}};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (!json_to_i64(json_member(json, numbers[i].name), numbers[i].number))
            *numbers[i].number = 0;
    if (!json_to_bool(json_member(json, "streamed"), &end->streamed))
        end->streamed = false;
    end->provider = json_string(json_member(json, "provider"));
    end->code = json_string(json_member(json, "code"));
    end->message = json_string(json_member(json, "message"));
    end->text = json_string(json_member(json, "text"));
    end->answer = json_string(json_member(json, "answer"));
    return 0;
}

/* ---- settling ---- */

static const struct pg_statement sql_settle = {
    "ai_settle",
    "SELECT ai_settle($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], "
    "$8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], "
    "$15::bigint[], $16::bigint[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[])"};

/* PostgreSQL's text holds no NUL. */
static struct str storable(struct arena *arena, struct str text)
{
    if (!text.at)
        return STR("");
    if (text.size > TEXT_MAX * 8)
        text.size = TEXT_MAX * 8;
    if (!memchr(text.at, '\0', text.size))
        return text;
    char *copy = arena_dup(arena, text.at, text.size);
    for (size_t i = 0; i < text.size; i++)
        if (copy[i] == '\0')
            copy[i] = ' ';
    return str_of(copy, text.size);
}

enum { SETTLE_VALUES = 21 };

/* The statement's arrays, one of each kind for each column. */
struct columns {
    struct arena *arena;
    struct pg_value values[SETTLE_VALUES];
    size_t count;
    size_t rows;
};

static int64_t *add_numbers(struct columns *columns)
{
    int64_t *numbers = arena_alloc(columns->arena, columns->rows * sizeof *numbers);
    columns->values[columns->count++] = PG_INTS(numbers, columns->rows);
    return numbers;
}

static struct str *add_texts(struct columns *columns)
{
    struct str *texts = arena_alloc(columns->arena, columns->rows * sizeof *texts);
    columns->values[columns->count++] = PG_TEXTS(texts, columns->rows);
    return texts;
}

#define FILL_NUMBERS(columns, ends, value)                                                                   \
    do {                                                                                                     \
        int64_t *numbers_ = add_numbers(columns);                                                            \
        for (size_t i = 0; i < (columns)->rows; i++)                                                         \
            numbers_[i] = (ends)[i].value;                                                                   \
    } while (0)
#define FILL_TEXTS(columns, ends, value)                                                                     \
    do {                                                                                                     \
        struct str *texts_ = add_texts(columns);                                                             \
        for (size_t i = 0; i < (columns)->rows; i++)                                                         \
            texts_[i] = storable((columns)->arena, (value));                                                 \
    } while (0)

static struct str cost_text(struct arena *arena, money cost)
{
    char text[MONEY_TEXT_SIZE];
    return arena_str(arena, money_format(text, cost));
}

int ai_settle(struct arena *arena, const struct ai_end *ends, size_t count)
{
    struct columns columns = {.arena = arena, .rows = count};
    FILL_TEXTS(&columns, ends, ends[i].id);
    FILL_NUMBERS(&columns, ends, account_id);
    FILL_NUMBERS(&columns, ends, generation);
    FILL_NUMBERS(&columns, ends, fence);
    FILL_NUMBERS(&columns, ends, meta.key_id);
    FILL_TEXTS(&columns, ends, ends[i].meta.surface);
    FILL_TEXTS(&columns, ends, ends[i].meta.model);
    FILL_TEXTS(&columns, ends, str_from(ai_kind_name(ends[i].meta.kind)));
    FILL_TEXTS(&columns, ends, ends[i].provider);
    FILL_TEXTS(&columns, ends, str_from(statuses[ends[i].status]));
    FILL_NUMBERS(&columns, ends, streamed);
    FILL_NUMBERS(&columns, ends, meta.created_ms);
    FILL_NUMBERS(&columns, ends, started_ms);
    FILL_NUMBERS(&columns, ends, ended_ms);
    FILL_NUMBERS(&columns, ends, prompt_tokens);
    FILL_NUMBERS(&columns, ends, completion_tokens);
    FILL_TEXTS(&columns, ends, cost_text(arena, ends[i].cost));
    FILL_TEXTS(&columns, ends, ends[i].code);
    FILL_TEXTS(&columns, ends, ends[i].message);
    FILL_TEXTS(&columns, ends, ends[i].text);
    FILL_TEXTS(&columns, ends, ends[i].answer);
    CHECK(columns.count == SETTLE_VALUES);
    int result = pg_write(&sql_settle, columns.values, columns.count, NULL);
    if (result == 0)
        event_added();
    return result;
}

/* ---- durable calls ---- */

static const struct pg_statement sql_accept = {
    "ai_job_accept",
    "INSERT INTO ai_job (id, account_id, key_id, surface, model, kind, status, streamed, created_at, meta, request, ring_at) "
    "VALUES ($1::text, $2::bigint, $3::bigint, $4::text, $5::text, $6::text, 'queued', $7::boolean, now(), $8::text, "
    "$9::text, now() + $10::bigint * interval '1 second')"};
static const struct pg_statement sql_withdraw = {
    "ai_job_withdraw", "DELETE FROM ai_job WHERE id = $1::text AND status = 'queued' AND fence = 0"};
static const struct pg_statement sql_start = {
    "ai_job_start",
    "UPDATE ai_job SET status = 'processing', fence = fence + 1, worker = $2::text, started_at = now(), "
    "ring_at = now() + $3::bigint * interval '1 millisecond' "
    "WHERE id = $1::text AND status IN ('queued', 'processing') RETURNING fence"};
static const struct pg_statement sql_extend = {
    "ai_job_extend", "UPDATE ai_job SET ring_at = now() + $3::bigint * interval '1 millisecond' "
                     "WHERE id = ANY ($1::text[]) AND worker = $2::text AND status = 'processing'"};
static const struct pg_statement sql_cancel = {
    "ai_job_cancel",
    "WITH had AS (SELECT id, status FROM ai_job WHERE id = $2::text AND account_id = $1::bigint FOR UPDATE), "
    "ended AS (UPDATE ai_job SET status = 'cancelled', completed_at = now(), cost = 0, meta = NULL, request = NULL, "
    "ring_at = NULL FROM had WHERE ai_job.id = had.id AND had.status = 'queued') SELECT status FROM had"};
static const struct pg_statement sql_due = {
    "ai_job_due",
    "UPDATE ai_job SET ring_at = now() + $2::bigint * interval '1 second' WHERE id = ANY (ARRAY("
    "SELECT id FROM ai_job WHERE status IN ('queued', 'processing') AND ring_at <= now() ORDER BY ring_at "
    "LIMIT $1::bigint FOR UPDATE SKIP LOCKED)) RETURNING id, account_id, meta, request"};

int ai_job_accept(struct str id, int64_t account_id, const struct ai_meta *meta, struct str request,
                  bool streamed)
{
    struct buf text = {0};
    ai_meta_write(&text, meta);
    int result =
        pg_write(&sql_accept,
                 PG_VALUES(PG_TEXT(id), PG_INT(account_id), PG_INT(meta->key_id), PG_TEXT(meta->surface),
                           PG_TEXT(meta->model), PG_TEXT(str_from(ai_kind_name(meta->kind))),
                           PG_BOOL(streamed), PG_TEXT(buf_str(&text)), PG_TEXT(request), PG_INT(RING_S)),
                 NULL);
    buf_clear(&text);
    return result;
}

int ai_job_withdraw(struct str id)
{
    return pg_write(&sql_withdraw, PG_VALUES(PG_TEXT(id)), NULL);
}

int ai_job_start(struct str id, struct str worker, int64_t lease_ms, int64_t *fence)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_start, PG_VALUES(PG_TEXT(id), PG_TEXT(worker), PG_INT(lease_ms)), &rows);
    if (result)
        return result;
    bool started = pg_count(rows) == 1;
    *fence = started ? pg_i64(rows, 0, 0) : 0;
    pg_rows_free(rows);
    return started ? 0 : -ENOENT;
}

int ai_job_extend(const struct str *ids, size_t count, struct str worker, int64_t lease_ms)
{
    return pg_write(&sql_extend, PG_VALUES(PG_TEXTS(ids, count), PG_TEXT(worker), PG_INT(lease_ms)), NULL);
}

int ai_job_cancel(int64_t account_id, struct str id)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_cancel, PG_VALUES(PG_INT(account_id), PG_TEXT(id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    bool waited = found && str_equal(pg_str(rows, 0, 0), STR("queued"));
    pg_rows_free(rows);
    return !found ? -ENOENT : waited ? 0 : -EBUSY;
}

int ai_job_due(struct arena *arena, int64_t limit, struct ai_due **due, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_due, PG_VALUES(PG_INT(limit), PG_INT(DUE_S)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *due = arena_alloc(arena, (*count + 1) * sizeof **due);
    for (size_t i = 0; i < *count; i++)
        (*due)[i] = (struct ai_due){
            .id = arena_str(arena, pg_str(rows, i, 0)),
            .account_id = pg_i64(rows, i, 1),
            .meta = arena_str(arena, pg_str(rows, i, 2)),
            .request = arena_str(arena, pg_str(rows, i, 3)),
        };
    pg_rows_free(rows);
    return 0;
}

/* ---- looking ---- */

#define MS(column) "coalesce((extract(epoch FROM " column ") * 1000)::bigint, 0)"
#define JOB_COLUMNS                                                                                          \
    "seq, id, model, kind, status, " MS("created_at") ", " MS(                                               \
        "completed_at") ", money_text(cost), "                                                               \
                        "prompt_tokens, completion_tokens, answer_text, error_code, error_message, streamed"

static const struct pg_statement sql_get = {
    "ai_job_get",
    "SELECT " JOB_COLUMNS ", answer FROM ai_job WHERE id = $1::text AND account_id = $2::bigint"};
static const struct pg_statement sql_list = {
    "ai_job_list",
    "SELECT " JOB_COLUMNS
    ", NULL FROM ai_job WHERE account_id = $1::bigint AND ($3::bigint = 0 OR seq < $3::bigint) "
    "AND ($2::text IS NULL OR status = $2::text) ORDER BY seq DESC LIMIT $4::bigint"};
static const struct pg_statement sql_forget = {
    "ai_job_forget",
    "DELETE FROM ai_job WHERE id = ANY (ARRAY(SELECT id FROM ai_job WHERE completed_at < now() - $1::bigint * "
    "interval '1 day' LIMIT $2::bigint))"};

static void from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct ai_job *job)
{
    *job = (struct ai_job){
        .seq = pg_i64(rows, row, 0),
        .id = pg_text(arena, rows, row, 1),
        .model = pg_text(arena, rows, row, 2),
        .kind = pg_text(arena, rows, row, 3),
        .status = pg_text(arena, rows, row, 4),
        .created_ms = pg_i64(rows, row, 5),
        .completed_ms = pg_i64(rows, row, 6),
        .cost = pg_text(arena, rows, row, 7),
        .prompt_tokens = pg_i64(rows, row, 8),
        .completion_tokens = pg_i64(rows, row, 9),
        .text = pg_text(arena, rows, row, 10),
        .error_code = pg_text(arena, rows, row, 11),
        .error_message = pg_text(arena, rows, row, 12),
        .streamed = pg_bool(rows, row, 13),
        .answer = pg_text(arena, rows, row, 14),
    };
}

int ai_job_get(struct arena *arena, int64_t account_id, struct str id, struct ai_job *job)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_TEXT(id), PG_INT(account_id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        from_row(arena, rows, 0, job);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int ai_job_list(struct arena *arena, int64_t account_id, struct str status, int64_t cursor, int64_t limit,
                struct ai_job **jobs, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(
        &sql_list, PG_VALUES(PG_INT(account_id), PG_TEXT(status), PG_INT(cursor), PG_INT(limit)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *jobs = arena_alloc(arena, (*count + 1) * sizeof **jobs);
    for (size_t i = 0; i < *count; i++)
        from_row(arena, rows, i, &(*jobs)[i]);
    pg_rows_free(rows);
    return 0;
}

int ai_job_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(config->ai_job_days), PG_INT(FORGET_AT_ONCE)),
                     FORGET_AT_ONCE);
}
