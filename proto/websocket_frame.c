/*
 * One WebSocket frame (RFC 6455 §5.2): its header read and written, frames counted as they pass, and the opening
 * handshake's key. Payloads are read in websocket.c.
 */
#include "proto/websocket_internal.h"

#include "core/base/base64.h"
#include "core/base/crypto.h"

/* ---- the opening handshake ---- */

bool websocket_key_is_valid(struct str key)
{
    enum { DIGITS = 22 };
    if (key.size != DIGITS + 2 || memcmp(key.at + DIGITS, "==", 2) != 0)
        return false;
    /* The four bits behind the 16 bytes may be anything: the key is only hashed. */
    char digits[DIGITS + 2 + 1] = "......................AA";
    unsigned char bytes[sizeof digits];
    memcpy(digits, key.at, DIGITS);
    return base64_decode(bytes, str_of(digits, DIGITS + 2)) >= 0;
}

void websocket_accept(struct str key, char out[WEBSOCKET_ACCEPT_SIZE])
{
    unsigned char digest[20];
    struct buf message = {0};
    buf_add_str(&message, key);
    buf_add_literal(&message, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    crypto_sha1(digest, buf_str(&message));
    buf_clear(&message);
    struct buf text = {.at = out, .capacity = WEBSOCKET_ACCEPT_SIZE};
    base64_add(&text, str_of((const char *)digest, sizeof digest));
    buf_add_char(&text, '\0');
}

/* ---- headers ---- */

/* The 7 bits that hold a length up to 125, or say how many bytes hold it. */
enum { LENGTH_BITS = 0x7f, LENGTH_IN_2 = 126, LENGTH_IN_8 = 127 };

size_t websocket_head_size(const unsigned char *head, size_t have)
{
    if (have < 2)
        return 2;
    unsigned length = head[1] & LENGTH_BITS;
    return 2 +
           (length == LENGTH_IN_8   ? 8
            : length == LENGTH_IN_2 ? 2
                                    : 0) +
           (head[1] & WEBSOCKET_MASKED ? 4 : 0);
}

uint64_t websocket_head_length(const unsigned char *head)
{
    unsigned length = head[1] & LENGTH_BITS;
    if (length < LENGTH_IN_2)
        return length;
    uint64_t value = 0;
    for (size_t i = 0; i < (length == LENGTH_IN_2 ? 2 : 8); i++)
        value = value << 8 | head[2 + i];
    return value;
}

size_t websocket_head_add(unsigned char head[WEBSOCKET_HEAD_MAX], unsigned char *have, const char *bytes,
                          size_t size)
{
    size_t taken = 0;
    /* Twice: its first two bytes tell how many more there are. */
    for (int part = 0; part < 2; part++) {
        size_t more = websocket_head_size(head, *have) - *have;
        if (more > size - taken)
            more = size - taken;
        memcpy(head + *have, bytes + taken, more);
        *have = (unsigned char)(*have + more);
        taken += more;
    }
    return taken;
}

bool websocket_code_is_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/* ---- writing ---- */

void websocket_put_frame(struct buf *out, enum websocket_opcode opcode, struct str payload, bool compressed)
{
    CHECK(!(opcode & WEBSOCKET_IS_CONTROL) || (payload.size <= WEBSOCKET_CONTROL_MAX && !compressed));
    unsigned char head[WEBSOCKET_HEAD_MAX] = {
        (unsigned char)(WEBSOCKET_FIN | (compressed ? WEBSOCKET_RSV1 : 0) | (unsigned)opcode)};
    size_t length_size = payload.size < LENGTH_IN_2 ? 0 : payload.size <= UINT16_MAX ? 2 : 8;
    head[1] = (unsigned char)(length_size == 0 ? payload.size : length_size == 2 ? LENGTH_IN_2 : LENGTH_IN_8);
    for (size_t i = 0; i < length_size; i++)
        head[2 + i] = (unsigned char)((uint64_t)payload.size >> 8 * (length_size - 1 - i));
    buf_reserve(out, 2 + length_size + payload.size);
    buf_add(out, head, 2 + length_size);
    buf_add_str(out, payload);
}

void websocket_put_close(struct buf *out, int code, struct str reason)
{
    if (code < 0 || !websocket_code_is_valid((unsigned)code)) {
        websocket_put_frame(out, WEBSOCKET_CLOSE, STR_NONE, false);
        return;
    }
    char payload[WEBSOCKET_CONTROL_MAX] = {(char)(code >> 8), (char)code};
    if (reason.size > sizeof payload - 2) {
        reason.size = sizeof payload - 2;
        while (reason.size && (reason.at[reason.size] & 0xc0) == 0x80)
            reason.size--;
    }
    if (reason.size)
        memcpy(payload + 2, reason.at, reason.size);
    websocket_put_frame(out, WEBSOCKET_CLOSE, str_of(payload, 2 + reason.size), false);
}

/* ---- looking on ---- */

/* What no extension may change; the bits that extensions may use are none of our business here. */
static bool head_is_possible(const unsigned char *head)
{
    unsigned opcode = head[0] & WEBSOCKET_OPCODE;
    uint64_t length = websocket_head_length(head);
    if (opcode & WEBSOCKET_IS_CONTROL)
        return opcode <= WEBSOCKET_PONG && length <= WEBSOCKET_CONTROL_MAX && head[0] & WEBSOCKET_FIN;
    return opcode <= WEBSOCKET_BINARY && length >> 63 == 0;
}

bool websocket_scan(struct websocket_scan *scan, const char *bytes, size_t size)
{
    bool data = false;
    while (size > 0 && !scan->broken) {
        size_t taken;
        if (scan->left > 0) {
            taken = scan->left < size ? (size_t)scan->left : size;
            scan->left -= taken;
        } else {
            taken = websocket_head_add(scan->head, &scan->have, bytes, size);
            if (scan->have < websocket_head_size(scan->head, scan->have))
                break;
            scan->broken = !head_is_possible(scan->head);
            scan->left = websocket_head_length(scan->head);
            scan->have = 0;
        }
        data |= !scan->broken && !(scan->head[0] & WEBSOCKET_IS_CONTROL);
        bytes += taken;
        size -= taken;
    }
    return data;
}
