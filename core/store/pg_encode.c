/*
 * Values in PostgreSQL's text format. The server infers each parameter's type from the statement, so a statement casts
 * where that is not enough ($1::bigint[]).
 */
#include "core/store/pg_internal.h"

#include "core/base/escape.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdio.h>

enum { PARAMETERS_MAX = 65535, INTEGER_SIZE = 21 };

static char *encode_int(struct arena *arena, int64_t number)
{
    char *out = arena_alloc(arena, INTEGER_SIZE);
    bool negative = number < 0;
    out[0] = '-';
    size_t size = format_u64(out + negative, negative ? -(uint64_t)number : (uint64_t)number);
    out[negative + size] = '\0';
    return out;
}

static char *encode_bytes(struct arena *arena, struct str bytes)
{
    char *out = arena_alloc(arena, 2 * bytes.size + 3);
    out[0] = '\\';
    out[1] = 'x';
    out[2] = '\0';
    if (bytes.size)
        escape_hex(out + 2, bytes.at, bytes.size);
    return out;
}

static char *encode_ints(struct arena *arena, const int64_t *numbers, size_t count)
{
    char *out = arena_alloc(arena, count * INTEGER_SIZE + 3);
    char *to = out;
    *to++ = '{';
    for (size_t i = 0; i < count; i++) {
        bool negative = numbers[i] < 0;
        if (i > 0)
            *to++ = ',';
        if (negative)
            *to++ = '-';
        to += format_u64(to, negative ? -(uint64_t)numbers[i] : (uint64_t)numbers[i]);
    }
    *to++ = '}';
    *to = '\0';
    return out;
}

/* Every element in quotes, so that commas, braces, spaces and the word NULL need no care; an absent one is NULL. */
static char *encode_texts(struct arena *arena, const struct str *texts, size_t count)
{
    size_t size = 3;
    for (size_t i = 0; i < count; i++)
        size += 2 * texts[i].size + sizeof("NULL,");
    char *out = arena_alloc(arena, size);
    char *to = out;
    *to++ = '{';
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            *to++ = ',';
        if (!texts[i].at) {
            memcpy(to, "NULL", 4);
            to += 4;
            continue;
        }
        *to++ = '"';
        for (size_t j = 0; j < texts[i].size; j++) {
            char c = texts[i].at[j];
            if (c == '"' || c == '\\')
                *to++ = '\\';
            *to++ = c;
        }
        *to++ = '"';
    }
    *to++ = '}';
    *to = '\0';
    return out;
}

static bool has_nul(const struct str *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (texts[i].size && memchr(texts[i].at, '\0', texts[i].size))
            return true;
    return false;
}

/* NULL in *encoded is SQL's NULL. */
static int encode(struct arena *arena, const struct pg_value *value, const char **encoded)
{
    *encoded = NULL;
    switch (value->type) {
    case PG_VALUE_NULL: return 0;
    case PG_VALUE_TEXT:
        if (has_nul(&value->text, 1))
            return -EIO;
        if (value->text.at)
            *encoded = arena_dup(arena, value->text.at, value->text.size);
        return 0;
    case PG_VALUE_INT: *encoded = encode_int(arena, value->number); return 0;
    case PG_VALUE_BYTES:
        if (value->text.at)
            *encoded = encode_bytes(arena, value->text);
        return 0;
    case PG_VALUE_INT_ARRAY: *encoded = encode_ints(arena, value->numbers, value->count); return 0;
    case PG_VALUE_TEXT_ARRAY:
        if (has_nul(value->texts, value->count))
            return -EIO;
        *encoded = encode_texts(arena, value->texts, value->count);
        return 0;
    }
    UNREACHABLE();
}

int pg_encode(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
              size_t count, const char *const **encoded)
{
    CHECK(count <= PARAMETERS_MAX);
    *encoded = NULL;
    if (count == 0)
        return 0;
    const char **all = arena_alloc(arena, count * sizeof *all);
    for (size_t i = 0; i < count; i++)
        if (encode(arena, &values[i], &all[i])) {
            LOG(ERROR, "statement not sent: a text has a NUL byte in it",
                LOG_TEXT("statement", statement->name), LOG_INT("parameter", i + 1));
            return -EIO;
        }
    *encoded = all;
    return 0;
}
