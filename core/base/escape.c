/* Text into the spelling that JSON, hexadecimal and URLs want. */
#include "core/base/escape.h"

#include <errno.h>

static const char hex_digits[] = "0123456789abcdef";
static const char upper_hex_digits[] = "0123456789ABCDEF";

/* What stands behind the backslash for a byte below 0x20, '"' or '\\'; 0: nothing to escape; 'u': \u00XX. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\': return (char)c;
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    case '\b': return 'b';
    case '\f': return 'f';
    default: return c < 0x20 || c == 0x7f ? 'u' : 0;
    }
}

static void escape_byte(struct buf *out, unsigned char c, char letter)
{
    buf_add_char(out, '\\');
    buf_add_char(out, letter);
    if (letter != 'u')
        return;
    char code[4] = {'0', '0', hex_digits[c >> 4], hex_digits[c & 15]};
    buf_add(out, code, sizeof code);
}

/* The size of the character at `at`; 0 when it is not UTF-8. */
static size_t character_size(const char *at, size_t left)
{
    unsigned char first = (unsigned char)*at;
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    return size <= left && str_is_utf8(str_of(at, size)) ? size : 0;
}

/* High bits set for the bytes that are no printable ASCII, quotes or backslashes; the sums can't carry. */
static uint64_t odd_bytes(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101;
    const uint64_t low = 0x7f * ones;
    uint64_t ascii = word & low;
    uint64_t quote = ascii ^ '"' * ones;
    uint64_t backslash = ascii ^ '\\' * ones;
    return (word | (ascii + ones) | ~(ascii + 0x60 * ones) | ~(quote + low) | ~(backslash + low)) & ~low;
}

/* True when every byte stands for itself. */
static bool is_plain(struct str text)
{
    uint64_t word = 0x2020202020202020; /* spaces */
    uint64_t odd = 0;
    if (text.size < sizeof word) {
        for (size_t i = 0; i < text.size; i++)
            word = word << 8 | (unsigned char)text.at[i];
        return !odd_bytes(word);
    }
    for (size_t i = 0; i + sizeof word <= text.size; i += sizeof word) {
        memcpy(&word, text.at + i, sizeof word);
        odd |= odd_bytes(word);
    }
    memcpy(&word, text.at + text.size - sizeof word, sizeof word);
    return !(odd | odd_bytes(word));
}

void escape_json(struct buf *out, struct str text)
{
    buf_reserve(out, text.size + 2);
    buf_add_char(out, '"');
    if (LIKELY(is_plain(text))) {
        buf_add_str(out, text);
        buf_add_char(out, '"');
        return;
    }
    bool valid = str_is_utf8(text);
    size_t start = 0;
    size_t step = 1;
    for (size_t i = 0; i < text.size; i += step) {
        unsigned char c = (unsigned char)text.at[i];
        char letter = short_escape(c);
        step = valid ? 1 : character_size(text.at + i, text.size - i);
        if (!letter && step)
            continue;
        buf_add(out, text.at + start, i - start);
        if (letter)
            escape_byte(out, c, letter);
        else
            buf_add_literal(out, "\\ufffd");
        step = 1;
        start = i + 1;
    }
    if (start < text.size)
        buf_add(out, text.at + start, text.size - start);
    buf_add_char(out, '"');
}

void escape_html(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size; i++)
        switch (text.at[i]) {
        case '&': buf_add_literal(out, "&amp;"); break;
        case '<': buf_add_literal(out, "&lt;"); break;
        case '>': buf_add_literal(out, "&gt;"); break;
        case '"': buf_add_literal(out, "&quot;"); break;
        case '\'': buf_add_literal(out, "&#39;"); break;
        default: buf_add_char(out, text.at[i]);
        }
}

void escape_hex(char *out, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = hex_digits[at[i] >> 4];
        out[2 * i + 1] = hex_digits[at[i] & 15];
    }
    out[2 * size] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int escape_percent_decode(char *out, struct str text, bool plus_is_space)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (c == '%') {
            if (text.size - i < 3)
                return -EINVAL;
            int high = hex_value(text.at[i + 1]);
            int low = hex_value(text.at[i + 2]);
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return -EINVAL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        out[count++] = c;
    }
    return (int)count;
}

void escape_percent_encode(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.at[i];
        bool unreserved = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                          c == '-' || c == '.' || c == '_' || c == '~';
        if (unreserved) {
            buf_add_char(out, (char)c);
            continue;
        }
        char code[3] = {'%', upper_hex_digits[c >> 4], upper_hex_digits[c & 15]};
        buf_add(out, code, sizeof code);
    }
}
