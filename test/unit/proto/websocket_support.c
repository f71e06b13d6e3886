/* What the tests of proto/websocket.h share: a client's frames, a log of what was read, a meter of memory. */
#include "test/unit/proto/websocket_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static uint32_t noise_state = 1;

void noise_seed(uint32_t seed)
{
    noise_state = seed * 2654435761u + 1;
}

uint32_t noise(void)
{
    noise_state ^= noise_state << 13;
    noise_state ^= noise_state >> 17;
    noise_state ^= noise_state << 5;
    return noise_state;
}

uint32_t noise_below(uint32_t limit)
{
    return noise() % limit;
}

void put_masked(struct buf *out, unsigned first, struct str payload)
{
    buf_add_char(out, (char)first);
    unsigned length_size = payload.size < 126 ? 0 : payload.size < 65536 ? 2 : 8;
    buf_add_char(out, (char)(0x80 | (length_size == 0 ? payload.size : length_size == 2 ? 126u : 127u)));
    for (unsigned i = 0; i < length_size; i++)
        buf_add_char(out, (char)((uint64_t)payload.size >> 8 * (length_size - 1 - i)));
    uint32_t key = noise();
    char mask[4];
    memcpy(mask, &key, sizeof mask);
    buf_add(out, mask, sizeof mask);
    for (size_t i = 0; i < payload.size; i++)
        buf_add_char(out, (char)(payload.at[i] ^ mask[i % 4]));
}

static const char *name_of(enum websocket_opcode opcode)
{
    switch (opcode) {
    case WEBSOCKET_TEXT: return "text";
    case WEBSOCKET_BINARY: return "binary";
    case WEBSOCKET_PING: return "ping";
    case WEBSOCKET_PONG: return "pong";
    case WEBSOCKET_CLOSE: return "close";
    case WEBSOCKET_CONTINUATION: break;
    }
    fail_msg("no such event: %d", (int)opcode);
    return NULL;
}

static void log_event(struct buf *log, enum websocket_event event, const struct websocket_input *input)
{
    if (event == WEBSOCKET_MORE)
        return;
    bool close = event == WEBSOCKET_CONTROL && input->opcode == WEBSOCKET_CLOSE;
    buf_add_text(log, event == WEBSOCKET_ERROR ? "error" : name_of(input->opcode));
    if (close || event == WEBSOCKET_ERROR)
        buf_printf(log, " %d", input->code);
    else
        assert_int_equal(input->code, 0);
    if (input->payload.size) {
        buf_add_char(log, ' ');
        buf_add_str(log, input->payload);
    }
    buf_add_char(log, '\n');
}

/* False once an error was found. */
static bool feed_piece(struct websocket *socket, struct str bytes, struct buf *log)
{
    char *copy = mem_alloc(bytes.size ? bytes.size : 1);
    if (bytes.size)
        memcpy(copy, bytes.at, bytes.size);
    size_t done = 0;
    enum websocket_event event;
    do {
        struct websocket_input input;
        size_t taken = websocket_feed(socket, copy + done, bytes.size - done, &event, &input);
        assert_true(taken <= bytes.size - done);
        done += taken;
        log_event(log, event, &input);
    } while (event == WEBSOCKET_MESSAGE || event == WEBSOCKET_CONTROL);
    if (event == WEBSOCKET_MORE)
        assert_int_equal(done, bytes.size);
    free(copy);
    return event == WEBSOCKET_MORE;
}

size_t feed_all(struct websocket *socket, struct str bytes, size_t piece, struct buf *log)
{
    size_t done = 0;
    bool good = true;
    while (good && done < bytes.size) {
        size_t size = piece ? piece : 1 + noise_below(noise_below(4) ? 20 : 5000);
        if (size > bytes.size - done)
            size = bytes.size - done;
        good = feed_piece(socket, str_of(bytes.at + done, size), log);
        done += size;
    }
    return done;
}

void expect(const char *name, size_t message_max, bool deflate, struct str bytes, struct str expected)
{
    static const size_t pieces[] = {SIZE_MAX, 1, 2, 3, 5, 0};
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        struct websocket socket;
        websocket_init(&socket, message_max, (struct websocket_deflate){deflate, 15});
        struct buf log = {0};
        feed_all(&socket, bytes, pieces[i], &log);
        if (!str_equal(buf_str(&log), expected))
            fail_msg("%s, %zu bytes at a time: \"%.*s\", not \"%.*s\"", name, pieces[i],
                     STR_ARG(buf_str(&log)), STR_ARG(expected));
        websocket_clear(&socket);
        assert_null(socket.reader);
        buf_clear(&log);
    }
}

#ifdef __SANITIZE_ADDRESS__

/* The runtime has them, but gcc brings no header that declares them. */
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
                                              void (*)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *memory);

static bool counting;
static ptrdiff_t now;
static ptrdiff_t peak;

static void on_malloc(const volatile void *memory, size_t size)
{
    (void)memory;
    now += counting ? (ptrdiff_t)size : 0;
    if (now > peak)
        peak = now;
}

static void on_free(const volatile void *memory)
{
    if (counting && memory)
        now -= (ptrdiff_t)__sanitizer_get_allocated_size(memory);
}

void memory_start(void)
{
    static bool installed;
    if (!installed)
        assert_true(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
    installed = true;
    counting = true;
    now = 0;
    peak = 0;
}

size_t memory_peak(void)
{
    counting = false;
    assert_true(peak > 0);
    return (size_t)peak;
}

#else

void memory_start(void)
{
}

size_t memory_peak(void)
{
    return 0;
}

#endif
