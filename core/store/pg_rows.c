/* Results: rows, and what a failure means. */
#include "core/store/pg_internal.h"

#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdio.h>

static const PGresult *result_of(const struct pg_rows *rows)
{
    CHECK(rows);
    return (const PGresult *)rows;
}

void pg_rows_free(struct pg_rows *rows)
{
    PQclear((PGresult *)rows);
}

size_t pg_count(const struct pg_rows *rows)
{
    return (size_t)PQntuples(result_of(rows));
}

size_t pg_affected(const struct pg_rows *rows)
{
    /* libpq's declaration lacks the const that its definition keeps. */
    const char *digits = PQcmdTuples((PGresult *)(uintptr_t)result_of(rows));
    uint64_t count = 0;
    return str_to_u64(str_from(digits), &count) ? (size_t)count : 0;
}

static const PGresult *cell_of(const struct pg_rows *rows, size_t row, int column)
{
    const PGresult *result = result_of(rows);
    CHECK(row < (size_t)PQntuples(result) && column >= 0 && column < PQnfields(result));
    return result;
}

bool pg_is_null(const struct pg_rows *rows, size_t row, int column)
{
    return PQgetisnull(cell_of(rows, row, column), (int)row, column);
}

struct str pg_str(const struct pg_rows *rows, size_t row, int column)
{
    const PGresult *result = cell_of(rows, row, column);
    if (PQgetisnull(result, (int)row, column))
        return STR_NONE;
    return str_of(PQgetvalue(result, (int)row, column), (size_t)PQgetlength(result, (int)row, column));
}

struct str pg_text(struct arena *arena, const struct pg_rows *rows, size_t row, int column)
{
    struct str text = pg_str(rows, row, column);
    return text.at ? arena_str(arena, text) : STR_NONE;
}

int64_t pg_i64(const struct pg_rows *rows, size_t row, int column)
{
    struct str digits = pg_str(rows, row, column);
    int64_t value = 0;
    CHECK(!digits.at || str_to_i64(digits, &value));
    return value;
}

bool pg_bool(const struct pg_rows *rows, size_t row, int column)
{
    struct str word = pg_str(rows, row, column);
    CHECK(!word.at || str_equal(word, STR("t")) || str_equal(word, STR("f")));
    return word.at && word.at[0] == 't';
}

static unsigned hex_value(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

/* "\x" and digits: pg_settings asks for them. */
struct str pg_bytes(struct arena *arena, const struct pg_rows *rows, size_t row, int column)
{
    struct str digits = pg_str(rows, row, column);
    if (!digits.at)
        return STR_NONE;
    CHECK(str_starts(digits, STR("\\x")) && digits.size % 2 == 0);
    size_t size = digits.size / 2 - 1;
    char *bytes = arena_alloc(arena, size + 1);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(hex_value(digits.at[2 * i + 2]) << 4 | hex_value(digits.at[2 * i + 3]));
    bytes[size] = '\0';
    return str_of(bytes, size);
}

/* ---- failures ---- */

/* The first row whose prefix fits. */
static const struct {
    const char *prefix;
    int code;
} sqlstates[] = {
    {"08P01", -EIO}, /* a wrong number of values: our bug, and the session lives on */
    {"08", -ENOTCONN},  {"57P0", -ENOTCONN}, {"57014", -ETIMEDOUT}, {"23505", -EEXIST},
    {"23P01", -EEXIST}, {"40001", -EAGAIN},  {"40P01", -EAGAIN},
};

static const char *field(const PGresult *result, int code)
{
    const char *text = PQresultErrorField(result, code);
    return text ? text : "";
}

int pg_result_code(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return 0;
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    /* Without an SQLSTATE it is libpq that speaks: the connection is lost. */
    if (sqlstate[0] == '\0' || strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)
        return -ENOTCONN;
    for (size_t i = 0; i < ARRAY_SIZE(sqlstates); i++)
        if (strncmp(sqlstate, sqlstates[i].prefix, strlen(sqlstates[i].prefix)) == 0)
            return sqlstates[i].code;
    return -EIO;
}

bool pg_result_is_stale(const PGresult *result)
{
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    /* "cached plan must not change result type" has no SQLSTATE of its own, and its text may be translated. */
    return strcmp(sqlstate, "26000") == 0 ||
           (strcmp(sqlstate, "0A000") == 0 &&
            strcmp(field(result, PG_DIAG_SOURCE_FUNCTION), "RevalidateCachedQuery") == 0);
}

void pg_log_failure(const char *name, const PGresult *result)
{
    char text[256];
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *message = field(result, PG_DIAG_MESSAGE_PRIMARY);
    /* Class 22 quotes the value that it does not like; other classes quote names of ours. */
    if (strncmp(sqlstate, "22", 2) == 0)
        snprintf(text, sizeof text, "%.*s", (int)strcspn(message, "\""), message);
    else
        snprintf(text, sizeof text, "%s", message);
    switch (pg_result_code(result)) {
    case -EEXIST: /* an answer like another */
        LOG(DEBUG, "statement refused", LOG_TEXT("statement", name), LOG_TEXT("sqlstate", sqlstate),
            LOG_TEXT("reason", text));
        return;
    case -EAGAIN:
    case -ETIMEDOUT:
        LOG(WARN, "statement failed", LOG_TEXT("statement", name), LOG_TEXT("sqlstate", sqlstate),
            LOG_TEXT("reason", text));
        return;
    default:
        LOG(ERROR, "statement failed", LOG_TEXT("statement", name), LOG_TEXT("sqlstate", sqlstate),
            LOG_TEXT("reason", text));
    }
}

int pg_note(int result)
{
    if (result != 0 && result != -EEXIST && result != -ECANCELED)
        metric_add(M_PG_ERRORS, 1);
    return result;
}
