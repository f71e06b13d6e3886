#ifndef CORE_BASE_STR_H
#define CORE_BASE_STR_H

#include "core/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A slice of bytes that somebody else owns. Not NUL-terminated. {NULL, 0} means absent where that matters. */
struct str {
    const char *at;
    size_t size;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_NONE ((struct str){NULL, 0})
/* For printf's "%.*s". */
#define STR_ARG(slice) (int)(slice).size, (slice).at ? (slice).at : ""

static inline struct str str_of(const char *at, size_t size)
{
    return (struct str){at, size};
}

/* NULL gives STR_NONE. */
static inline struct str str_from(const char *text)
{
    return text ? (struct str){text, strlen(text)} : STR_NONE;
}

static inline bool str_equal(struct str a, struct str b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}

static inline bool str_starts(struct str text, struct str prefix)
{
    return text.size >= prefix.size && (prefix.size == 0 || memcmp(text.at, prefix.at, prefix.size) == 0);
}

/* ASCII letters only; never the locale's. */
bool str_equal_nocase(struct str a, struct str b);

/* Without spaces and tabs at both ends (OWS of RFC 9110 §5.6.3). */
struct str str_trim(struct str text);

/* Takes the text before the next `separator` off the front of *rest; false when *rest is absent. The last
 * piece leaves *rest absent. */
bool str_split(struct str *rest, char separator, struct str *piece);

/* Decimal digits only, no sign, no space, at least one digit; false when it does not fit. */
bool str_to_u64(struct str text, uint64_t *value);
/* The same with an optional leading minus. */
bool str_to_i64(struct str text, int64_t *value);

/* The prefix, and then one or more of [0-9A-Za-z]: an id of ours. */
bool str_is_base62_behind(struct str text, struct str prefix);

/* RFC 3629; no surrogates, nothing over U+10FFFF. */
bool str_is_utf8(struct str text);
/* The bytes of the character that the text begins with; 0: it begins with none. */
size_t str_utf8_first(struct str text);
/* Code points in valid UTF-8. */
size_t str_utf8_length(struct str text);

/*
 * A byte buffer that grows by malloc. {0} is an empty one that owns nothing.
 */
struct buf {
    char *at;
    size_t size;
    size_t capacity;
};

/* Frees the memory; the buffer is empty and usable again. */
void buf_clear(struct buf *buffer);
/* Gets memory for `more` further bytes. */
void buf_grow(struct buf *buffer, size_t more);
void buf_add_text(struct buf *buffer, const char *text);
void buf_add_u64(struct buf *buffer, uint64_t value);
void buf_add_i64(struct buf *buffer, int64_t value);
void buf_printf(struct buf *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops the first `size` bytes. */
void buf_consume(struct buf *buffer, size_t size);

/* Room for `more` further bytes; returns where they go. buf->size is not changed. This and what follows stands here
 * because answers and log lines are made of many small pieces. */
static inline char *buf_reserve(struct buf *buffer, size_t more)
{
    if (UNLIKELY(buffer->capacity - buffer->size < more))
        buf_grow(buffer, more);
    return buffer->at + buffer->size;
}

static inline void buf_add(struct buf *buffer, const void *bytes, size_t size)
{
    if (size == 0)
        return;
    memcpy(buf_reserve(buffer, size), bytes, size);
    buffer->size += size;
}

static inline void buf_add_char(struct buf *buffer, char c)
{
    *buf_reserve(buffer, 1) = c;
    buffer->size++;
}

static inline void buf_add_str(struct buf *buffer, struct str text)
{
    buf_add(buffer, text.at, text.size);
}

static inline struct str buf_str(const struct buf *buffer)
{
    return str_of(buffer->at, buffer->size);
}

#define buf_add_literal(buffer, literal) buf_add((buffer), "" literal, sizeof(literal) - 1)

/* Writes the digits of `value` to `out` (room for 20) and returns their number. */
size_t format_u64(char *out, uint64_t value);

#endif
