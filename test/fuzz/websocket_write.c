/*
 * What we write is what a peer reads: a payload is put into a frame, compressed or not, masked here as a client would,
 * and read back; the same with a close frame. The input's first byte chooses opcode and compression, the second the
 * window, the third and fourth the close code.
 */
#include "proto/websocket.h"
#include "test/fuzz/support.h"

enum { MESSAGE_MAX = 1 << 20, REASON_MAX = 123 };

/* Appends a server's frame as a client would send it; the whole of `frame` is one. */
static void put_masked(struct buf *out, struct str frame)
{
    static const unsigned char key[4] = {0x5a, 0x00, 0xff, 0x81};
    const unsigned char *bytes = (const unsigned char *)frame.at;
    CHECK(frame.size >= 2 && (bytes[1] & 0x80) == 0);
    size_t head = bytes[1] == 127 ? 10 : bytes[1] == 126 ? 4 : 2;
    uint64_t length = 0;
    for (size_t i = 2; i < head; i++)
        length = length << 8 | bytes[i];
    length = head == 2 ? bytes[1] : length;
    CHECK(length == frame.size - head);
    CHECK(head != 4 || length > 125);
    CHECK(head != 10 || length > 65535);
    buf_add_char(out, frame.at[0]);
    buf_add_char(out, (char)(bytes[1] | 0x80));
    buf_add(out, frame.at + 2, head - 2);
    buf_add(out, key, sizeof key);
    for (size_t i = head; i < frame.size; i++)
        buf_add_char(out, (char)(bytes[i] ^ key[(i - head) % 4]));
}

/* The frame is one event and all of it. */
static void read_back(struct websocket *socket, struct str frame, enum websocket_event expected,
                      struct websocket_input *input)
{
    struct websocket_scan scan = {.left = 0};
    struct buf masked = {0};
    put_masked(&masked, frame);
    CHECK(websocket_scan(&scan, masked.at, masked.size) == (expected == WEBSOCKET_MESSAGE) && !scan.broken);
    enum websocket_event event = WEBSOCKET_ERROR;
    CHECK(websocket_feed(socket, masked.at, masked.size, &event, input) == masked.size);
    CHECK(event == expected);
    buf_clear(&masked);
}

static void send_message(struct str payload, bool compress, bool text, int bits)
{
    enum websocket_opcode opcode = text && str_is_utf8(payload) ? WEBSOCKET_TEXT : WEBSOCKET_BINARY;
    struct buf frame = {0};
    struct buf small = {0};
    compress = compress && websocket_compress(&small, payload, bits);
    CHECK(!compress || small.size < payload.size);
    websocket_put_frame(&frame, opcode, compress ? buf_str(&small) : payload, compress);
    struct websocket socket;
    websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){.on = true, .server_bits = bits});
    struct websocket_input input;
    read_back(&socket, buf_str(&frame), WEBSOCKET_MESSAGE, &input);
    CHECK(input.opcode == opcode && str_equal(input.payload, payload));
    websocket_clear(&socket);
    buf_clear(&small);
    buf_clear(&frame);
}

static void send_close(int code, struct str reason)
{
    struct buf frame = {0};
    websocket_put_close(&frame, code, reason);
    struct websocket socket;
    websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){.on = false});
    struct websocket_input input;
    read_back(&socket, buf_str(&frame), WEBSOCKET_CONTROL, &input);
    CHECK(input.opcode == WEBSOCKET_CLOSE);
    bool empty = code == 1005 || code == 1006;
    CHECK(input.code == (empty ? 1005 : code));
    CHECK(str_starts(reason, input.payload));
    CHECK(empty || input.payload.size == reason.size || input.payload.size > REASON_MAX - 4);
    websocket_clear(&socket);
    buf_clear(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct str input = str_of((const char *)bytes, size);
    unsigned choice = fuzz_take_byte(&input);
    int bits = 9 + (int)(fuzz_take_byte(&input) % 7);
    unsigned number = fuzz_take_byte(&input) << 8;
    number |= fuzz_take_byte(&input);
    /* Those that a close frame may carry, and the two that stand for none. */
    int code = choice & 4 ? 3000 + (int)(number % 2000) : 1000 + (int)(number % 12);
    send_message(input, choice & 1, choice & 2, bits);
    if (code != 1004 && str_is_utf8(input))
        send_close(code, input);
    return 0;
}
