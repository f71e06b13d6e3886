/* JSON whose characters are broken: see mend.h. */
#include "proto/ai/mend.h"

enum { ESCAPE_SIZE = 6 /* of \\uXXXX */ };

/* The code unit of an escape that the text begins with; negative: it begins with none. */
static int code_unit(struct str text)
{
    int unit = 0;
    if (text.size < ESCAPE_SIZE || text.at[0] != '\\' || text.at[1] != 'u')
        return -1;
    for (int i = 2; i < ESCAPE_SIZE; i++) {
        char c = text.at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool is_high(int unit)
{
    return unit >= 0xd800 && unit <= 0xdbff;
}

static bool is_low(int unit)
{
    return unit >= 0xdc00 && unit <= 0xdfff;
}

/* What stays as it is at the text's beginning; 0: the first byte, or (*escaped) the first escape, is broken. */
static size_t whole_part(struct str text, bool *escaped)
{
    int unit = code_unit(text);
    *escaped = unit >= 0;
    if (is_high(unit)) {
        struct str next = str_of(text.at + ESCAPE_SIZE, text.size - ESCAPE_SIZE);
        return is_low(code_unit(next)) ? 2 * ESCAPE_SIZE : 0;
    }
    if (unit >= 0)
        return is_low(unit) ? 0 : ESCAPE_SIZE;
    if (text.at[0] == '\\' && text.size > 1 && (unsigned char)text.at[1] < 0x80)
        return 2;
    return str_utf8_first(text);
}

static void mend(struct buf *out, struct str text)
{
    while (text.size > 0) {
        bool escaped;
        size_t whole = whole_part(text, &escaped);
        size_t size = whole ? whole : escaped ? ESCAPE_SIZE : 1;
        buf_add_str(out, whole ? str_of(text.at, whole) : STR("\xef\xbf\xbd"));
        text = str_of(text.at + size, text.size - size);
    }
}

const struct json *ai_read_json(struct arena *arena, struct str text)
{
    const char *error = NULL;
    const struct json *read = json_read(arena, text, &error);
    if (read)
        return read;
    struct buf mended = {0};
    mend(&mended, text);
    if (!str_equal(buf_str(&mended), text))
        read = json_read(arena, buf_str(&mended), &error);
    buf_clear(&mended);
    return read;
}
