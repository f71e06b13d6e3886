/* Base64 in its two alphabets: see base64.h. */
#include "core/base/base64.h"

#include <errno.h>

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char for_urls[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(struct buf *out, struct str bytes, const char letters[64])
{
    unsigned held = 0;
    unsigned bits = 0;
    if (bytes.size == 0)
        return;
    buf_reserve(out, (bytes.size * 4 + 2) / 3);
    for (size_t i = 0; i < bytes.size; i++) {
        held = held << 8 | (unsigned char)bytes.at[i];
        for (bits += 8; bits >= 6; bits -= 6)
            buf_add_char(out, letters[held >> (bits - 6) & 63]);
    }
    if (bits)
        buf_add_char(out, letters[held << (6 - bits) & 63]);
}

/* The six bits of a letter, or -1. */
static int value_of(char c, const char letters[64])
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == letters[62] ? 62 : c == letters[63] ? 63 : -1;
}

static int decode(unsigned char *out, struct str text, const char letters[64])
{
    unsigned held = 0;
    unsigned bits = 0;
    int size = 0;
    if (text.size % 4 == 1 || text.size > INT32_MAX)
        return -EINVAL;
    for (size_t i = 0; i < text.size; i++) {
        int value = value_of(text.at[i], letters);
        if (value < 0)
            return -EINVAL;
        held = held << 6 | (unsigned)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[size++] = (unsigned char)(held >> bits);
        }
    }
    /* Two spellings of the same bytes would be two keys of a cache and one token. */
    return held & ((1U << bits) - 1) ? -EINVAL : size;
}

void base64url_add(struct buf *out, struct str bytes)
{
    encode(out, bytes, for_urls);
}

int base64url_decode(unsigned char *out, struct str text)
{
    return decode(out, text, for_urls);
}

void base64_add(struct buf *out, struct str bytes)
{
    encode(out, bytes, standard);
    if (bytes.size % 3)
        buf_add(out, "==", 3 - bytes.size % 3);
}

int base64_decode(unsigned char *out, struct str text)
{
    if (text.size % 4)
        return -EINVAL;
    for (int i = 0; i < 2 && text.size && text.at[text.size - 1] == '='; i++)
        text.size--;
    return decode(out, text, standard);
}
