/* Slices and growing buffers: see str.h. */
#include "core/base/str.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : c;
}

bool str_equal_nocase(struct str a, struct str b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (lower((unsigned char)a.at[i]) != lower((unsigned char)b.at[i]))
            return false;
    return true;
}

static bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str text)
{
    while (text.size && is_ows(text.at[0])) {
        text.at++;
        text.size--;
    }
    while (text.size && is_ows(text.at[text.size - 1]))
        text.size--;
    return text;
}

bool str_split(struct str *rest, char separator, struct str *piece)
{
    if (!rest->at)
        return false;
    const char *end = memchr(rest->at, separator, rest->size);
    if (!end) {
        *piece = *rest;
        *rest = STR_NONE;
        return true;
    }
    *piece = str_of(rest->at, (size_t)(end - rest->at));
    rest->size -= piece->size + 1;
    rest->at = end + 1;
    return true;
}

bool str_to_u64(struct str text, uint64_t *value)
{
    uint64_t sum = 0;
    if (text.size == 0)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (c < '0' || c > '9')
            return false;
        if (__builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, (uint64_t)(c - '0'), &sum))
            return false;
    }
    *value = sum;
    return true;
}

bool str_to_i64(struct str text, int64_t *value)
{
    uint64_t size;
    bool negative = text.size > 0 && text.at[0] == '-';
    if (negative) {
        text.at++;
        text.size--;
    }
    if (!str_to_u64(text, &size))
        return false;
    if (size > (uint64_t)INT64_MAX + (negative ? 1 : 0))
        return false;
    *value = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool str_is_base62_behind(struct str text, struct str prefix)
{
    bool fine = text.size > prefix.size && str_starts(text, prefix);
    for (size_t i = prefix.size; fine && i < text.size; i++) {
        char c = text.at[i];
        fine = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
    return fine;
}

/* The length of the valid sequence at `at`, 0 when there is none. */
static size_t utf8_sequence(const unsigned char *at, size_t left)
{
    if (at[0] < 0x80)
        return 1;
    size_t length = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool surrogate = at[0] == 0xed && at[1] > 0x9f;
    bool too_large = at[0] == 0xf4 && at[1] > 0x8f;
    return overlong || surrogate || too_large ? 0 : length;
}

size_t str_utf8_first(struct str text)
{
    return text.size > 0 ? utf8_sequence((const unsigned char *)text.at, text.size) : 0;
}

bool str_is_utf8(struct str text)
{
    const unsigned char *at = (const unsigned char *)text.at;
    for (size_t i = 0; i < text.size;) {
        size_t length = utf8_sequence(at + i, text.size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

size_t str_utf8_length(struct str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++)
        count += ((unsigned char)text.at[i] & 0xc0) != 0x80;
    return count;
}

void buf_clear(struct buf *buffer)
{
    free(buffer->at);
    *buffer = (struct buf){0};
}

void buf_grow(struct buf *buffer, size_t more)
{
    size_t needed;
    CHECK(!__builtin_add_overflow(buffer->size, more, &needed));
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    buffer->at = mem_realloc(buffer->at, capacity);
    buffer->capacity = capacity;
}

void buf_add_text(struct buf *buffer, const char *text)
{
    buf_add(buffer, text, strlen(text));
}

size_t format_u64(char *out, uint64_t value)
{
    char digits[20];
    size_t start = sizeof digits;
    do {
        digits[--start] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    memcpy(out, digits + start, sizeof digits - start);
    return sizeof digits - start;
}

void buf_add_u64(struct buf *buffer, uint64_t value)
{
    char *at = buf_reserve(buffer, 20);
    buffer->size += format_u64(at, value);
}

void buf_add_i64(struct buf *buffer, int64_t value)
{
    if (value < 0)
        buf_add_char(buffer, '-');
    buf_add_u64(buffer, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void buf_printf(struct buf *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    vsnprintf(buf_reserve(buffer, (size_t)length + 1), (size_t)length + 1, format, again);
    va_end(again);
    buffer->size += (size_t)length;
}

void buf_consume(struct buf *buffer, size_t size)
{
    CHECK(size <= buffer->size);
    buffer->size -= size;
    if (buffer->size && size)
        memmove(buffer->at, buffer->at + size, buffer->size);
}
