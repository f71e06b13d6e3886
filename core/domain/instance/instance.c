/* Instances as clients see them: see instance.h. The scale job's side is in scale.c. */
#include "core/domain/instance/instance.h"

#include "core/base/clock.h"
#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/event/event.h"
#include "core/domain/instance/internal.h"
#include "core/store/bell.h"
#include "core/store/redis.h"

#include <errno.h>

enum { ID_LEAST = 8 };

static const char *const state_names[] = {"asleep", "waking", "awake", "draining", "failed"};

static const struct pg_statement sql_create = {
    "instance_create",
    "WITH i AS (INSERT INTO instance (id, surface, account_id, user_id) "
    "VALUES ($1::text, $2::text, $3::bigint, $4::text) RETURNING *)" //
    AUDIT("$5", "session.create", "i", "account_id",
          "id") "SELECT " INSTANCE_COLUMNS("") ", " EVENT_ADD("instance.created", "created_at") " FROM i"};
static const struct pg_statement sql_wake = {
    "instance_wake",
    "WITH i AS (UPDATE instance SET desired = 1, woken = true, last_activity = now(), version = version + 1 "
    "WHERE id = $1::text AND account_id = $2::bigint AND deleted_at IS NULL "
    "AND NOT (state = 'failed' AND state_at > now() - $3::bigint * interval '1 second') RETURNING *)" //
    AUDIT("$4", "session.wake", "i", "account_id", "id") "SELECT " INSTANCE_COLUMNS(
        "") ", CASE WHEN state IN ('asleep', 'failed', 'draining') THEN " JOB_ADD_SCALE " END FROM i"};
static const struct pg_statement sql_sleep = {
    "instance_sleep",
    "WITH i AS (UPDATE instance SET desired = 0, version = version + 1 "
    "WHERE id = $1::text AND account_id = $2::bigint AND deleted_at IS NULL RETURNING *)" //
    AUDIT("$3", "session.sleep", "i", "account_id", "id") "SELECT " INSTANCE_COLUMNS(
        "") ", CASE WHEN state IN ('awake', 'waking') THEN " JOB_ADD_SCALE " END FROM i"};
static const struct pg_statement sql_delete = {
    "instance_delete",
    "WITH i AS (UPDATE instance SET desired = 0, deleted_at = now(), version = version + 1, "
    "notify = $3::text "
    "WHERE id = $1::text AND account_id = $2::bigint AND deleted_at IS NULL RETURNING *)" //
    AUDIT("$4", "session.delete", "i", "account_id", "id") "SELECT " INSTANCE_COLUMNS(
        "") ", " JOB_ADD_SCALE ", " EVENT_ADD("instance.deleted", "deleted_at") " FROM i"};
static const struct pg_statement sql_is_gone = {"instance_is_gone",
                                                "SELECT 1 FROM instance WHERE id = $1::text"};
static const struct pg_statement sql_list = {
    "instance_list", "SELECT " INSTANCE_COLUMNS(
                         "") ", seq FROM instance "
                             "WHERE account_id = $1::bigint AND surface = $2::text AND deleted_at IS NULL "
                             "AND ($3::text IS NULL OR user_id = $3::text) AND seq < $4::bigint "
                             "ORDER BY seq DESC LIMIT $5::bigint + 1"};

static enum instance_state state_of(struct str name)
{
    for (size_t i = 0; i < ARRAY_SIZE(state_names); i++)
        if (str_equal(name, str_from(state_names[i])))
            return (enum instance_state)i;
    UNREACHABLE();
}

bool instance_id_is_valid(struct str id)
{
    if (id.size < ID_LEAST || id.size > INSTANCE_ID_MAX)
        return false;
    for (size_t i = 0; i < id.size; i++) {
        char c = id.at[i];
        if (!((c >= 'a' && c <= 'z') || (i > 0 && c >= '0' && c <= '9')))
            return false;
    }
    return true;
}

struct str instance_tenant(int64_t account_id, char out[24])
{
    return str_of(out, format_u64(out, (uint64_t)account_id));
}

void instance_from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct instance *instance)
{
    *instance = (struct instance){
        .id = arena_str(arena, pg_str(rows, row, 0)),
        .user_id = arena_str(arena, pg_str(rows, row, 1)),
        .fail_reason = pg_is_null(rows, row, 2) ? STR_NONE : arena_str(arena, pg_str(rows, row, 2)),
        .account_id = pg_i64(rows, row, 3),
        .version = pg_i64(rows, row, 4),
        .generation = pg_i64(rows, row, 5),
        .port = pg_i64(rows, row, 6),
        .queued = pg_i64(rows, row, 7),
        .lease_fence = pg_i64(rows, row, 8),
        .lease_until_ms = pg_i64(rows, row, 9),
        .created_ms = pg_i64(rows, row, 10),
        .last_activity_ms = pg_i64(rows, row, 11),
        .state_ms = pg_i64(rows, row, 12),
        .state = state_of(pg_str(rows, row, 13)),
        .desired = (int)pg_i64(rows, row, 14),
        .woken = pg_bool(rows, row, 15),
        .deleted = pg_bool(rows, row, 16),
    };
}

/* ---- what readers of the status see: a copy in Redis, so that asking costs PostgreSQL nothing ---- */

enum { SNAPSHOT_MAX = 2048, SNAPSHOT_NUMBERS = 13, SNAPSHOT_DIGITS_MAX = 19 /* INT64_MAX has as many */ };

struct str instance_snapshot_key(struct arena *arena, struct str id)
{
    char *key = arena_alloc(arena, 9 + id.size);
    memcpy(key, "instance:", 9);
    memcpy(key + 9, id.at, id.size);
    return str_of(key, 9 + id.size);
}

/* Numbers, then the texts, which hold no line feed (user ids are checked, reasons are ours), each on a line. */
static struct str snapshot_text(const struct instance *instance, char out[SNAPSHOT_MAX])
{
    const int64_t numbers[SNAPSHOT_NUMBERS] = {
        instance->account_id,
        instance->version,
        instance->generation,
        instance->port,
        instance->queued,
        instance->lease_fence,
        instance->lease_until_ms,
        instance->created_ms,
        instance->last_activity_ms,
        instance->state_ms,
        (int64_t)instance->state,
        instance->desired,
        instance->woken * 2 + instance->deleted,
    };
    size_t size = 0;
    for (size_t i = 0; i < SNAPSHOT_NUMBERS; i++) {
        CHECK(numbers[i] >= 0);
        size += format_u64(out + size, (uint64_t)numbers[i]);
        out[size++] = '\n';
    }
    const struct str texts[] = {instance->user_id, instance->fail_reason};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        size_t length = texts[i].size < 800 ? texts[i].size : 0;
        if (length)
            memcpy(out + size, texts[i].at, length);
        size += length;
        out[size++] = '\n';
    }
    return str_of(out, size);
}

/* Takes a number and its line feed off the front. */
static bool take_number(struct str *text, uint64_t *number)
{
    size_t size = 0;
    *number = 0;
    while (size < text->size && text->at[size] >= '0' && text->at[size] <= '9')
        *number = *number * 10 + (uint64_t)(text->at[size++] - '0');
    if (size == 0 || size > SNAPSHOT_DIGITS_MAX || size == text->size || text->at[size] != '\n')
        return false;
    *text = str_of(text->at + size + 1, text->size - size - 1);
    return true;
}

static bool snapshot_read(struct arena *arena, struct str text, struct str id, struct instance *instance)
{
    uint64_t numbers[SNAPSHOT_NUMBERS];
    for (size_t i = 0; i < SNAPSHOT_NUMBERS; i++)
        if (!take_number(&text, &numbers[i]))
            return false;
    struct str user_id;
    struct str reason;
    if (!str_split(&text, '\n', &user_id) || !str_split(&text, '\n', &reason) ||
        numbers[10] > INSTANCE_FAILED)
        return false;
    *instance = (struct instance){
        .id = arena_str(arena, id),
        .user_id = user_id,
        .fail_reason = reason.size ? reason : STR_NONE,
        .account_id = (int64_t)numbers[0],
        .version = (int64_t)numbers[1],
        .generation = (int64_t)numbers[2],
        .port = (int64_t)numbers[3],
        .queued = (int64_t)numbers[4],
        .lease_fence = (int64_t)numbers[5],
        .lease_until_ms = (int64_t)numbers[6],
        .created_ms = (int64_t)numbers[7],
        .last_activity_ms = (int64_t)numbers[8],
        .state_ms = (int64_t)numbers[9],
        .state = (enum instance_state)numbers[10],
        .desired = (int)numbers[11],
        .woken = (numbers[12] & 2) != 0,
        .deleted = (numbers[12] & 1) != 0,
    };
    return true;
}

/* Writers and readers that fill in what they found alike: an older row does not go over a newer one. */
static void snapshot_send(const struct instance *instance)
{
    char key[9 + INSTANCE_ID_MAX];
    char text[SNAPSHOT_MAX];
    char ttl[24];
    CHECK(instance->id.size <= INSTANCE_ID_MAX);
    memcpy(key, "instance:", 9);
    memcpy(key + 9, instance->id.at, instance->id.size);
    const struct str args[] = {str_of(key, 9 + instance->id.size), snapshot_text(instance, text),
                               str_of(ttl, format_u64(ttl, INSTANCE_SNAPSHOT_MS))};
    redis_send_script(redis_shared(), "instance_put.lua", args, ARRAY_SIZE(args), 1);
}

void instance_publish(const struct instance *instance)
{
    snapshot_send(instance);
}

/* ---- what clients ask for ---- */

int instance_create(struct arena *arena, int64_t account_id, const char *surface, struct str user_id,
                    struct instance *instance)
{
    char id[ID_SESSION_SIZE];
    id_random(id, ID_SESSION_SIZE - 1);
    struct pg_rows *rows;
    int result = pg_write(&sql_create,
                          PG_VALUES(PG_TEXT(str_from(id)), PG_TEXT(str_from(surface)), PG_INT(account_id),
                                    PG_TEXT(user_id), AUDIT_WHO),
                          &rows);
    if (result)
        return result;
    instance_from_row(arena, rows, 0, instance);
    pg_rows_free(rows);
    event_added();
    return 0;
}

int instance_read(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
                  size_t count, struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_read(statement, values, count, &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        instance_from_row(arena, rows, 0, instance);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int instance_from_snapshot(struct arena *arena, struct str id, const struct redis_step *get,
                           struct instance *instance)
{
    int result = 0;
    bool found = get->result == 0 && get->reply.type == REDIS_STRING &&
                 snapshot_read(arena, get->reply.text, id, instance);
    if (!found)
        result = instance_load(arena, id, instance);
    if (result == 0 && instance->deleted)
        result = -ENOENT;
    /* What a scope reads may not be committed yet. */
    if (result == 0 && !found && !pg_in_scope())
        snapshot_send(instance);
    return result;
}

int instance_peek(struct arena *arena, struct str id, struct instance *instance)
{
    const struct str words[] = {STR("GET"), instance_snapshot_key(arena, id)};
    struct redis_step get = {.args = words, .count = ARRAY_SIZE(words)};
    int result = redis_steps(redis_shared(), arena, &get, 1);
    return result == -ECANCELED ? result : instance_from_snapshot(arena, id, &get, instance);
}

/* Another's instance is none. */
static int own(int64_t account_id, const struct instance *instance)
{
    return instance->account_id == account_id && !instance->deleted ? 0 : -ENOENT;
}

int instance_get(struct arena *arena, int64_t account_id, struct str id, struct instance *instance)
{
    int result = instance_peek(arena, id, instance);
    return result ? result : own(account_id, instance);
}

/* What is told of a change, once it is committed. */
struct news {
    struct instance instance;
    enum job_kind kind;
    int64_t job; /* 0: none is needed */
};

static void tell(void *arg)
{
    const struct news *news = arg;
    char tenant[24];
    instance_publish(&news->instance);
    if (news->job)
        queue_ring(news->kind, instance_tenant(news->instance.account_id, tenant), news->job);
}

int instance_changed(struct arena *arena, struct pg_rows *rows, enum job_kind kind, struct instance *instance)
{
    bool found = pg_count(rows) == 1;
    if (found) {
        struct news *news = arena_alloc(arena, sizeof *news);
        instance_from_row(arena, rows, 0, instance);
        *news = (struct news){*instance, kind, pg_i64(rows, 0, INSTANCE_COLUMN_COUNT)};
        pg_after_commit(tell, news);
    }
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int instance_wake(struct arena *arena, int64_t account_id, struct str id, struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_write(
        &sql_wake, PG_VALUES(PG_TEXT(id), PG_INT(account_id), PG_INT(INSTANCE_FAILED_S), AUDIT_WHO), &rows);
    if (result)
        return result;
    result = instance_changed(arena, rows, JOB_SCALE, instance);
    if (result != -ENOENT)
        return result;
    result = instance_load(arena, id, instance);
    if (result == 0)
        result = own(account_id, instance);
    return result ? result : -EBUSY;
}

int instance_sleep(struct arena *arena, int64_t account_id, struct str id, struct instance *instance)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_sleep, PG_VALUES(PG_TEXT(id), PG_INT(account_id), AUDIT_WHO), &rows);
    return result ? result : instance_changed(arena, rows, JOB_SCALE, instance);
}

static void announce(void *id)
{
    bell_announce(str_from(id));
}

int instance_delete(struct arena *arena, int64_t account_id, struct str id, struct str notify)
{
    struct pg_rows *rows;
    struct instance instance;
    int result =
        pg_write(&sql_delete, PG_VALUES(PG_TEXT(id), PG_INT(account_id), PG_TEXT(notify), AUDIT_WHO), &rows);
    if (result == 0)
        result = instance_changed(arena, rows, JOB_SCALE, &instance);
    if (result)
        return result;
    pg_after_commit(announce, arena_dup(arena, id.at, id.size));
    event_added();
    return 0;
}

int instance_is_gone(struct str id, bool *gone)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_is_gone, PG_VALUES(PG_TEXT(id)), &rows);
    if (result)
        return result;
    *gone = pg_count(rows) == 0;
    pg_rows_free(rows);
    return 0;
}

int instance_list(struct arena *arena, int64_t account_id, const char *surface, struct str user_id,
                  int64_t before, int64_t limit, struct instance **instances, size_t *count, int64_t *next)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list,
                         PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(surface)), PG_TEXT(user_id),
                                   PG_INT(before), PG_INT(limit)),
                         &rows);
    if (result)
        return result;
    size_t found = pg_count(rows);
    *count = found > (size_t)limit ? (size_t)limit : found;
    *next = found > *count ? pg_i64(rows, *count - 1, INSTANCE_COLUMN_COUNT) : 0;
    *instances = arena_alloc(arena, *count * sizeof **instances);
    for (size_t i = 0; i < *count; i++)
        instance_from_row(arena, rows, i, &(*instances)[i]);
    pg_rows_free(rows);
    return 0;
}
