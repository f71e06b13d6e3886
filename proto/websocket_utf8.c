/* UTF-8 that comes in pieces: RFC 3629, no surrogates, nothing over U+10FFFF. */
#include "proto/websocket_internal.h"

/* Most text is ASCII: eight bytes at a time while it is. */
static const unsigned char *skip_ascii(const unsigned char *at, const unsigned char *end)
{
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        if (word & UINT64_C(0x8080808080808080))
            break;
        at += 8;
    }
    while (at < end && *at < 0x80)
        at++;
    return at;
}

static bool is_inner(unsigned char byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Stops at the first character that is not plain to see: near the end, of four bytes, or wrong. */
static const unsigned char *skip_characters(const unsigned char *at, const unsigned char *end)
{
    while (end - at >= 3) {
        if (at[0] < 0x80) {
            at = skip_ascii(at, end);
        } else if (at[0] >= 0xc2 && at[0] < 0xe0 && is_inner(at[1])) {
            at += 2;
        } else if ((at[0] & 0xf0) == 0xe0 && is_inner(at[1]) && is_inner(at[2])) {
            unsigned code = (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6;
            if (code < 0x800 || (code >= 0xd800 && code < 0xe000))
                break;
            at += 3;
        } else {
            break;
        }
    }
    return at;
}

/* The second byte's bounds exclude overlong forms, surrogates and what is over U+10FFFF. */
static struct websocket_utf8 after_first(unsigned char first)
{
    if (first < 0xe0)
        return (struct websocket_utf8){1, 0x80, 0xbf};
    if (first < 0xf0)
        return (struct websocket_utf8){2, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf};
    return (struct websocket_utf8){3, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf};
}

bool websocket_utf8_add(struct websocket_utf8 *utf8, const char *bytes, size_t size)
{
    const unsigned char *at = (const unsigned char *)bytes;
    const unsigned char *end = at + size;
    struct websocket_utf8 now = *utf8;
    for (;;) {
        for (; now.left && at < end; now.left--, at++) {
            if (*at < now.low || *at > now.high)
                return false;
            now.low = 0x80;
            now.high = 0xbf;
        }
        at = skip_characters(at, end);
        at = skip_ascii(at, end);
        if (at == end)
            break;
        if (*at < 0xc2 || *at > 0xf4)
            return false;
        now = after_first(*at++);
    }
    *utf8 = now;
    return true;
}
