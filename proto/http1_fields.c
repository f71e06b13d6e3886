/* Spans and fields: see http1_fields.h. */
#include "proto/http1_fields.h"

void http1_span_add(struct http1_span *span, struct arena *arena, const char *at, size_t size)
{
    if (size == 0)
        return;
    if (span->size + size > span->capacity) {
        size_t capacity = span->capacity ? span->capacity * 2 : size;
        while (capacity < span->size + size)
            capacity *= 2;
        char *grown = arena_alloc(arena, capacity);
        if (span->size)
            memcpy(grown, span->at, span->size);
        span->at = grown;
        span->capacity = capacity;
    }
    memcpy(span->at + span->size, at, size);
    span->size += size;
}

struct str http1_span_take(struct http1_span *span)
{
    struct str text = str_of(span->at ? span->at : "", span->size);
    *span = (struct http1_span){0};
    return text;
}

void http1_fields_add(struct http1_field **fields, size_t *count, size_t *capacity, struct arena *arena,
                      struct http1_field field)
{
    if (*count == *capacity) {
        size_t more = *capacity ? *capacity * 2 : 16;
        struct http1_field *grown = arena_alloc(arena, more * sizeof *grown);
        if (*count)
            memcpy(grown, *fields, *count * sizeof *grown);
        *fields = grown;
        *capacity = more;
    }
    (*fields)[(*count)++] = field;
}

struct str http1_fields_find(const struct http1_field *fields, size_t count, const char *name)
{
    struct str wanted = str_from(name);
    for (size_t i = 0; i < count; i++)
        if (str_equal_nocase(fields[i].name, wanted))
            return fields[i].value;
    return STR_NONE;
}
