/* RFC 6455: what a client may send and what it gets for the rest, what we send, and frames counted in passing. */
#include "proto/websocket.h"

#include "test/unit/proto/websocket_support.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define BYTES(literal)                                                                                       \
    {                                                                                                        \
        literal, sizeof(literal) - 1                                                                         \
    }
/* A key that changes nothing. */
#define KEY "\0\0\0\0"
#define HELLO "\x81\x85" KEY "Hello"

enum { MESSAGE_MAX = 1000 };

struct row {
    const char *name;
    struct str bytes;
    struct str expected;
};

static int tear_down(void **state)
{
    (void)state;
    websocket_close_thread();
    return 0;
}

static void expect_rows(const struct row *rows, size_t count, bool deflate)
{
    for (size_t i = 0; i < count; i++)
        expect(rows[i].name, MESSAGE_MAX, deflate, rows[i].bytes, rows[i].expected);
}

/* ---- reading ---- */

static void messages_and_control_frames_are_read(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"text", BYTES(HELLO), BYTES("text Hello\n")},
        {"RFC 6455 5.7: masked text", BYTES("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
         BYTES("text Hello\n")},
        {"RFC 6455 5.7: masked pong", BYTES("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
         BYTES("pong Hello\n")},
        {"RFC 6455 5.7: fragmented text", BYTES("\x01\x83" KEY "Hel\x80\x82" KEY "lo"),
         BYTES("text Hello\n")},
        {"RFC 6455 5.7: ping", BYTES("\x89\x85" KEY "Hello"), BYTES("ping Hello\n")},
        {"empty text", BYTES("\x81\x80" KEY), BYTES("text\n")},
        {"empty binary", BYTES("\x82\x80" KEY), BYTES("binary\n")},
        {"empty ping and pong", BYTES("\x89\x80" KEY "\x8a\x80" KEY), BYTES("ping\npong\n")},
        {"binary that is no text", BYTES("\x82\x83" KEY "\xff\0\x80"), BYTES("binary \xff\0\x80\n")},
        {"two messages", BYTES(HELLO "\x82\x81" KEY "x"), BYTES("text Hello\nbinary x\n")},
        {"an empty one after a long one", BYTES(HELLO "\x81\x80" KEY HELLO),
         BYTES("text Hello\ntext\ntext Hello\n")},
        {"empty fragments", BYTES("\x01\x80" KEY "\x00\x80" KEY "\x00\x81" KEY "x\x80\x80" KEY),
         BYTES("text x\n")},
        {"all fragments empty", BYTES("\x02\x80" KEY "\x80\x80" KEY), BYTES("binary\n")},
        {"control frames between fragments",
         BYTES("\x01\x82" KEY "He\x89\x81" KEY "1\x8a\x80" KEY "\x00\x81" KEY "l\x89\x81" KEY "2\x80\x82" KEY
               "lo"),
         BYTES("ping 1\npong\nping 2\ntext Hello\n")},
        {"close between fragments", BYTES("\x01\x82" KEY "He\x88\x82" KEY "\x03\xe8"), BYTES("close 1000\n")},
        {"a character across fragments", BYTES("\x01\x81" KEY "\xc3\x89\x80" KEY "\x80\x81" KEY "\xa9"),
         BYTES("ping\ntext \xc3\xa9\n")},
        {"half a character of binary", BYTES("\x82\x81" KEY "\xc3" HELLO),
         BYTES("binary \xc3\ntext Hello\n")},
        {"close without a code", BYTES("\x88\x80" KEY), BYTES("close 1005\n")},
        {"close with a reason",
         BYTES("\x88\x86" KEY "\x0f\xa0"
               "bye\n"),
         BYTES("close 4000 bye\n\n")},
        {"what follows a close is ignored", BYTES("\x88\x80" KEY HELLO "\xff\xff\xff"),
         BYTES("close 1005\n")},
        {"what follows an error is ignored", BYTES("\x83\x80" KEY HELLO), BYTES("error 1002\n")},
    };
    expect_rows(rows, ARRAY_SIZE(rows), false);
    expect_rows(rows, ARRAY_SIZE(rows), true);
}

static void breaches_of_the_protocol_get_1002(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"text not masked", BYTES("\x81\x05Hello"), BYTES("error 1002\n")},
        {"ping not masked", BYTES("\x89\x00"), BYTES("error 1002\n")},
        {"close not masked", BYTES("\x88\x02\x03\xe8"), BYTES("error 1002\n")},
        {"RSV2", BYTES("\xa1\x85" KEY "Hello"), BYTES("error 1002\n")},
        {"RSV3", BYTES("\x91\x85" KEY "Hello"), BYTES("error 1002\n")},
        {"RSV1 to 3", BYTES("\xf1\x85" KEY "Hello"), BYTES("error 1002\n")},
        {"RSV1 on a ping", BYTES("\xc9\x80" KEY), BYTES("error 1002\n")},
        {"RSV1 on a close", BYTES("\xc8\x80" KEY), BYTES("error 1002\n")},
        {"RSV1 on a continuation", BYTES("\x01\x81" KEY "x\xc0\x81" KEY "y"), BYTES("error 1002\n")},
        {"opcode 3", BYTES("\x83\x80" KEY), BYTES("error 1002\n")},
        {"opcode 4", BYTES("\x84\x80" KEY), BYTES("error 1002\n")},
        {"opcode 5", BYTES("\x85\x80" KEY), BYTES("error 1002\n")},
        {"opcode 6", BYTES("\x86\x80" KEY), BYTES("error 1002\n")},
        {"opcode 7", BYTES("\x87\x80" KEY), BYTES("error 1002\n")},
        {"opcode 11", BYTES("\x8b\x80" KEY), BYTES("error 1002\n")},
        {"opcode 12", BYTES("\x8c\x80" KEY), BYTES("error 1002\n")},
        {"opcode 13", BYTES("\x8d\x80" KEY), BYTES("error 1002\n")},
        {"opcode 14", BYTES("\x8e\x80" KEY), BYTES("error 1002\n")},
        {"opcode 15", BYTES("\x8f\x80" KEY), BYTES("error 1002\n")},
        {"opcode 3 within a message", BYTES("\x01\x81" KEY "x\x83\x80" KEY), BYTES("error 1002\n")},
        {"ping of 126 bytes", BYTES("\x89\xfe\0\x7e" KEY), BYTES("error 1002\n")},
        {"ping of 65536 bytes", BYTES("\x89\xff\0\0\0\0\0\1\0\0" KEY), BYTES("error 1002\n")},
        {"close of 126 bytes", BYTES("\x88\xfe\0\x7e" KEY), BYTES("error 1002\n")},
        {"ping in fragments", BYTES("\x09\x80" KEY), BYTES("error 1002\n")},
        {"pong in fragments", BYTES("\x0a\x80" KEY), BYTES("error 1002\n")},
        {"close in fragments", BYTES("\x08\x80" KEY), BYTES("error 1002\n")},
        {"continuation of nothing", BYTES("\x80\x81" KEY "x"), BYTES("error 1002\n")},
        {"unfinished continuation of nothing", BYTES("\x00\x80" KEY), BYTES("error 1002\n")},
        {"continuation after the end", BYTES(HELLO "\x80\x81" KEY "x"), BYTES("text Hello\nerror 1002\n")},
        {"text within a message", BYTES("\x01\x81" KEY "x\x81\x81" KEY "y"), BYTES("error 1002\n")},
        {"binary within a message", BYTES("\x01\x80" KEY "\x82\x80" KEY), BYTES("error 1002\n")},
        {"2 bytes of length for 125", BYTES("\x82\xfe\0\x7d" KEY), BYTES("error 1002\n")},
        {"2 bytes of length for 0", BYTES("\x82\xfe\0\0" KEY), BYTES("error 1002\n")},
        {"8 bytes of length for 65535", BYTES("\x82\xff\0\0\0\0\0\0\xff\xff" KEY), BYTES("error 1002\n")},
        {"8 bytes of length for 0", BYTES("\x82\xff\0\0\0\0\0\0\0\0" KEY), BYTES("error 1002\n")},
        {"length with the top bit", BYTES("\x82\xff\x80\0\0\0\0\0\0\0" KEY), BYTES("error 1002\n")},
        {"length of all ones", BYTES("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" KEY), BYTES("error 1002\n")},
        {"close of one byte", BYTES("\x88\x81" KEY "\x03"), BYTES("error 1002\n")},
        {"close of one byte after another frame", BYTES("\x8a\x82" KEY "x\xe8\x88\x81" KEY "\x03"),
         BYTES("pong x\xe8\nerror 1002\n")},
    };
    expect_rows(rows, ARRAY_SIZE(rows), false);
    expect_rows(rows, ARRAY_SIZE(rows), true);
    static const struct row compressed[] = {
        {"RSV1 on text", BYTES("\xc1\x81" KEY "\0"), BYTES("error 1002\n")},
        {"RSV1 on binary", BYTES("\xc2\x81" KEY "\0"), BYTES("error 1002\n")},
    };
    expect_rows(compressed, ARRAY_SIZE(compressed), false);
}

static void close_codes_are_those_of_the_registry(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 65536; code += code < 5100 ? 1 : 4999) {
        bool good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                    (code >= 3000 && code <= 4999);
        char payload[] = {(char)(code >> 8), (char)code, 'a'};
        struct buf bytes = {0};
        put_masked(&bytes, 0x88, str_of(payload, sizeof payload));
        struct websocket socket;
        websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){0});
        enum websocket_event event;
        struct websocket_input input;
        assert_int_equal(websocket_feed(&socket, bytes.at, bytes.size, &event, &input), bytes.size);
        if (event != (good ? WEBSOCKET_CONTROL : WEBSOCKET_ERROR) || input.code != (good ? (int)code : 1002))
            fail_msg("close code %u gave event %d with %d", code, (int)event, input.code);
        assert_true(socket.closed);
        websocket_clear(&socket);
        buf_clear(&bytes);
    }
}

static void text_that_is_not_utf8_gets_1007(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"ends within a character", BYTES("\x81\x81" KEY "\xc3"), BYTES("error 1007\n")},
        {"ends within a character, fragments", BYTES("\x01\x81" KEY "\xe4\x80\x81" KEY "\xb8"),
         BYTES("error 1007\n")},
        {"ends with an empty fragment", BYTES("\x01\x81" KEY "\xc3\x80\x80" KEY), BYTES("error 1007\n")},
        {"bad in the second fragment", BYTES("\x01\x81" KEY "\xc3\x00\x81" KEY "x"), BYTES("error 1007\n")},
        {"reason of a close", BYTES("\x88\x83" KEY "\x03\xe8\xff"), BYTES("error 1007\n")},
        {"half a character as a reason", BYTES("\x88\x83" KEY "\x03\xe8\xc3"), BYTES("error 1007\n")},
    };
    expect_rows(rows, ARRAY_SIZE(rows), false);
}

/* The number of the first byte after which no valid text can follow, counted from 1; 0 for valid text. */
static void bad_text_is_refused_at_its_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        size_t bad;
    } rows[] = {
        {BYTES("plain text that is longer than a word\x7f"), 0},
        {BYTES("\xc2\x80\xdf\xbf"), 0},
        {BYTES("\xe0\xa0\x80\xec\xbf\xbf\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"), 0},
        {BYTES("\xf0\x90\x80\x80\xf1\x80\xbf\x80\xf4\x8f\xbf\xbf"), 0},
        {BYTES("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"), 0},
        {BYTES("a\xc3\xa9"
               "12345678\xe2\x82\xac"
               "1234567\xf0\x9f\x98\x80."),
         0},
        {BYTES("\x80"), 1},
        {BYTES("\xbf"), 1},
        {BYTES("\xc0\xaf"), 1},
        {BYTES("\xc1\xbf"), 1},
        {BYTES("\xf5\x80\x80\x80"), 1},
        {BYTES("\xfe"), 1},
        {BYTES("\xff"), 1},
        {BYTES("\xc2x"), 2},
        {BYTES("\xc2\xc2"), 2},
        {BYTES("\xe0\x9f\xbf"), 2},
        {BYTES("\xe0\x80\xaf"), 2},
        {BYTES("\xed\xa0\x80"), 2},
        {BYTES("\xed\xbf\xbf"), 2},
        {BYTES("\xe1x\x80"), 2},
        {BYTES("\xe1\x80x"), 3},
        {BYTES("\xe1\x80\xc0"), 3},
        {BYTES("\xf0\x8f\xbf\xbf"), 2},
        {BYTES("\xf4\x90\x80\x80"), 2},
        {BYTES("\xf1\x80x\x80"), 3},
        {BYTES("\xf1\x80\x80\xff"), 4},
        {BYTES("12345678\xff"), 9},
        {BYTES("1234567\xc3\x28"), 9},
        {BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x80"), 10},
        {BYTES("abcdefghijklmnopqrstuvw\xe2\x82x and more of it"), 26},
        {BYTES("\xe2\x82\xac\xe2\x82\xac\xed\xb0\x80"), 8},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        for (int fragmented = 0; fragmented < 2; fragmented++) {
            struct buf bytes = {0};
            size_t size = rows[i].text.size;
            size_t head = 6;
            if (fragmented) { /* the text's frame is a continuation of nothing */
                put_masked(&bytes, 0x01, STR_NONE);
                head += bytes.size;
            }
            put_masked(&bytes, fragmented ? 0x80 : 0x81, rows[i].text);
            struct websocket socket;
            websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){0});
            struct buf log = {0};
            size_t fed = feed_all(&socket, buf_str(&bytes), 1, &log);
            if (fed != head + (rows[i].bad ? rows[i].bad : size))
                fail_msg("row %zu: ended at byte %zu", i, fed - head);
            if (rows[i].bad)
                assert_true(str_equal(buf_str(&log), STR("error 1007\n")));
            assert_true(str_is_utf8(rows[i].text) == (rows[i].bad == 0));
            websocket_clear(&socket);
            expect("the same", MESSAGE_MAX, false, buf_str(&bytes), buf_str(&log));
            buf_clear(&log);
            buf_clear(&bytes);
        }
    }
}

/* Against the checker of whole texts. */
static void any_bytes_are_judged_as_whole_text_is(void **state)
{
    (void)state;
    static const char *const parts[] = {"a",        "\xc3\xa9",     "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                                        "\x80",     "\xed\xa0",     "\xe2",         "\xf0\x9f",
                                        "01234567", "\xef\xbf\xbf", "\xc0",         "\xf4\x90"};
    noise_seed(7);
    for (int round = 0; round < 3000; round++) {
        struct buf text = {0};
        uint32_t good = round % 2 ? 4 : ARRAY_SIZE(parts);
        for (uint32_t left = 1 + noise_below(12); left > 0; left--)
            buf_add_text(&text, parts[noise_below(good)]);
        struct buf bytes = {0};
        put_masked(&bytes, 0x81, buf_str(&text));
        struct buf wanted = {0};
        if (str_is_utf8(buf_str(&text))) {
            buf_add_literal(&wanted, "text ");
            buf_add_str(&wanted, buf_str(&text));
            buf_add_char(&wanted, '\n');
        } else {
            buf_add_literal(&wanted, "error 1007\n");
        }
        expect("text of parts", MESSAGE_MAX, false, buf_str(&bytes), buf_str(&wanted));
        buf_clear(&wanted);
        buf_clear(&bytes);
        buf_clear(&text);
    }
}

static void a_message_that_is_too_long_gets_1009(void **state)
{
    (void)state;
    static char payload[MESSAGE_MAX + 1];
    memset(payload, 'x', sizeof payload);
    struct buf bytes = {0};
    put_masked(&bytes, 0x81, str_of(payload, MESSAGE_MAX));
    struct buf wanted = {0};
    buf_add_literal(&wanted, "text ");
    buf_add(&wanted, payload, MESSAGE_MAX);
    buf_add_char(&wanted, '\n');
    expect("as long as it may be", MESSAGE_MAX, false, buf_str(&bytes), buf_str(&wanted));
    expect("the same as the bound", MESSAGE_MAX, true, buf_str(&bytes), buf_str(&wanted));

    bytes.size = 0;
    put_masked(&bytes, 0x01, str_of(payload, MESSAGE_MAX - 1));
    put_masked(&bytes, 0x89, str_of(payload, 125)); /* counts for itself */
    put_masked(&bytes, 0x00, STR_NONE);
    put_masked(&bytes, 0x80, STR("xy"));
    wanted.size = 0;
    buf_printf(&wanted, "ping %.125s\nerror 1009\n", payload);
    expect("in fragments", MESSAGE_MAX, false, buf_str(&bytes), buf_str(&wanted));
    buf_clear(&bytes);
    buf_clear(&wanted);
}

/* Before any of it is kept. */
static void too_long_is_told_by_the_header(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"1001", BYTES("\x82\xfe\x03\xe9" KEY), BYTES("error 1009\n")},
        {"65536", BYTES("\x82\xff\0\0\0\0\0\1\0\0" KEY), BYTES("error 1009\n")},
        {"all but the top bit", BYTES("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" KEY), BYTES("error 1009\n")},
        {"a continuation", BYTES("\x02\x81" KEY "x\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff" KEY),
         BYTES("error 1009\n")},
    };
    expect_rows(rows, ARRAY_SIZE(rows), false);
    expect_rows(rows, ARRAY_SIZE(rows), true);
}

static void many_fragments_hold_no_more_than_one(void **state)
{
    (void)state;
    enum { FRAGMENTS = 65536, BOUND = FRAGMENTS / 2 };
    struct buf bytes = {0};
    for (int i = 0; i < FRAGMENTS; i++)
        put_masked(&bytes, i == 0 ? 0x02 : i == FRAGMENTS - 1 ? 0x80 : 0x00, str_of("x", i % 2 ? 1 : 0));
    websocket_close_thread();
    struct websocket socket;
    websocket_init(&socket, BOUND, (struct websocket_deflate){0});
    memory_start();
    enum websocket_event event;
    struct websocket_input input;
    assert_int_equal(websocket_feed(&socket, bytes.at, bytes.size, &event, &input), bytes.size);
    assert_true(memory_peak() <=
                BOUND + BOUND / 2 + 8192); /* while it moves to a larger place, half of it is there twice */
    assert_int_equal(event, WEBSOCKET_MESSAGE);
    assert_int_equal(input.payload.size, BOUND);
    websocket_clear(&socket);

    websocket_init(&socket, BOUND - 1, (struct websocket_deflate){0});
    websocket_feed(&socket, bytes.at, bytes.size, &event, &input);
    assert_int_equal(event, WEBSOCKET_ERROR);
    assert_int_equal(input.code, 1009);
    websocket_clear(&socket);
    buf_clear(&bytes);
}

/* ---- the contract of websocket_feed ---- */

static void bytes_after_an_event_are_left_to_the_caller(void **state)
{
    (void)state;
    struct buf bytes = {0};
    size_t ends[4];
    static char payload[9000];
    const struct str payloads[4] = {STR("a"), str_of(payload, sizeof payload), STR_NONE, STR("b")};
    static const unsigned firsts[4] = {0x81, 0x82, 0x89, 0x82};
    for (size_t i = 0; i < 4; i++) {
        put_masked(&bytes, firsts[i], payloads[i]);
        ends[i] = bytes.size;
    }
    struct websocket socket;
    websocket_init(&socket, 10000, (struct websocket_deflate){0});
    size_t done = 0;
    for (size_t i = 0; i < 4; i++) {
        enum websocket_event event;
        struct websocket_input input;
        done += websocket_feed(&socket, bytes.at + done, bytes.size - done, &event, &input);
        assert_int_equal(event, firsts[i] == 0x89 ? WEBSOCKET_CONTROL : WEBSOCKET_MESSAGE);
        assert_int_equal(done, ends[i]);
        assert_true(str_equal(input.payload, payloads[i]));
    }
    websocket_clear(&socket);
    buf_clear(&bytes);
}

static void a_payload_stays_until_the_next_call_whatever_other_sockets_do(void **state)
{
    (void)state;
    struct websocket sockets[3];
    struct websocket_input inputs[3];
    static const struct str bytes[3] = {BYTES(HELLO), BYTES("\x82\x85" KEY "World"),
                                        BYTES("\x89\x85" KEY "12345")};
    static const char *const payloads[3] = {"Hello", "World", "12345"};
    enum websocket_event event;
    for (size_t i = 0; i < 3; i++) {
        websocket_init(&sockets[i], MESSAGE_MAX, (struct websocket_deflate){0});
        websocket_feed(&sockets[i], bytes[i].at, bytes[i].size, &event, &inputs[i]);
        assert_true(event == WEBSOCKET_MESSAGE || event == WEBSOCKET_CONTROL);
    }
    for (size_t i = 0; i < 3; i++) {
        assert_true(str_equal(inputs[i].payload, str_from(payloads[i])));
        websocket_clear(&sockets[i]);
    }
}

static void a_connection_between_messages_holds_nothing(void **state)
{
    (void)state;
    static_assert(sizeof(struct websocket) <= 48, "one of these for every idle connection");
    static const struct str bytes = BYTES("\x01\x81" KEY "x\x89\x80" KEY "\x80\x81" KEY "y");
    struct websocket socket;
    websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){0});
    struct websocket_input input;
    enum websocket_event event;
    for (int round = 0; round < 3; round++) {
        size_t done = 0;
        while (done < bytes.size) {
            done += websocket_feed(&socket, bytes.at + done, 1, &event, &input);
            assert_non_null(socket.reader);
        }
        assert_int_equal(event, WEBSOCKET_MESSAGE);
        assert_int_equal(websocket_feed(&socket, NULL, 0, &event, &input), 0);
        assert_int_equal(event, WEBSOCKET_MORE);
        assert_null(socket.reader);
    }
    websocket_clear(&socket);
    websocket_clear(&socket);
}

static void a_closed_socket_holds_nothing(void **state)
{
    (void)state;
    static const struct str rows[] = {BYTES("\x01\x81" KEY "x\x88\x80" KEY),
                                      BYTES("\x01\x81" KEY "x\x83\x80" KEY)};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct websocket socket;
        websocket_init(&socket, MESSAGE_MAX, (struct websocket_deflate){0});
        struct buf log = {0};
        feed_all(&socket, rows[i], SIZE_MAX, &log);
        if (i == 0)
            assert_null(socket.reader);
        struct websocket_input input;
        enum websocket_event event;
        assert_int_equal(websocket_feed(&socket, "more", 4, &event, &input), 4);
        assert_int_equal(event, WEBSOCKET_MORE);
        websocket_clear(&socket);
        buf_clear(&log);
    }
}

static void a_thread_keeps_a_bounded_number_of_spares(void **state)
{
    (void)state;
    enum { SOCKETS = 100 };
    struct websocket sockets[SOCKETS];
    enum websocket_event event;
    struct websocket_input input;
    websocket_close_thread();
    memory_start();
    for (size_t i = 0; i < SOCKETS; i++) {
        websocket_init(&sockets[i], MESSAGE_MAX, (struct websocket_deflate){0});
        websocket_feed(&sockets[i], HELLO, sizeof HELLO - 1, &event, &input);
    }
    size_t all = memory_peak();
    for (size_t i = 0; i < SOCKETS; i++)
        websocket_feed(&sockets[i], NULL, 0, &event, &input);
    memory_start();
    for (size_t i = 0; i < SOCKETS; i++)
        websocket_feed(&sockets[i], HELLO, sizeof HELLO - 1, &event, &input);
    size_t again = memory_peak();
    assert_true(again <= all);
    assert_true(again >= all / 2);
    for (size_t i = 0; i < SOCKETS; i++)
        websocket_clear(&sockets[i]);
}

/* ---- a round trip ---- */

static void put_text(struct buf *out, uint32_t size)
{
    static const char *const characters[] = {"a", "Z", " ", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    while (out->size < size)
        buf_add_text(out, characters[noise_below(ARRAY_SIZE(characters))]);
}

static void put_control(struct buf *bytes, struct buf *wanted)
{
    char payload[125];
    size_t size = noise_below(4) ? noise_below(10) : 125;
    memset(payload, 'a' + (int)noise_below(26), sizeof payload);
    bool ping = noise_below(2);
    put_masked(bytes, ping ? 0x89 : 0x8a, str_of(payload, size));
    buf_printf(wanted, "%s%s%.*s\n", ping ? "ping" : "pong", size ? " " : "", (int)size, payload);
}

static void put_fragments(struct buf *bytes, struct buf *wanted, unsigned first, struct str payload)
{
    do {
        size_t size = noise_below(3) ? noise_below(200) : noise_below(70000);
        if (size > payload.size)
            size = payload.size;
        bool last = size == payload.size && noise_below(2);
        put_masked(bytes, first | (last ? 0x80 : 0), str_of(payload.at, size));
        if (last)
            return;
        payload = str_of(payload.at + size, payload.size - size);
        first = 0;
        if (noise_below(4) == 0)
            put_control(bytes, wanted);
    } while (true);
}

static void put_message(struct buf *bytes, struct buf *wanted)
{
    struct buf payload = {0};
    uint32_t size = noise_below(4) ? noise_below(300) : noise_below(100000);
    bool text = noise_below(2);
    if (text)
        put_text(&payload, size);
    else
        for (uint32_t i = 0; i < size; i++)
            buf_add_char(&payload, (char)(noise_below(3) ? 'x' : noise()));
    struct buf compressed = {0};
    unsigned opcode = text ? 1 : 2;
    if (noise_below(2) && websocket_compress(&compressed, buf_str(&payload), 15))
        put_fragments(bytes, wanted, 0x40 | opcode, buf_str(&compressed));
    else
        put_fragments(bytes, wanted, opcode, buf_str(&payload));
    buf_add_text(wanted, text ? "text" : "binary");
    if (payload.size)
        buf_add_char(wanted, ' ');
    buf_add_str(wanted, buf_str(&payload));
    buf_add_char(wanted, '\n');
    buf_clear(&compressed);
    buf_clear(&payload);
}

static void messages_survive_any_fragmentation(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        noise_seed(seed);
        struct buf bytes = {0};
        struct buf wanted = {0};
        for (uint32_t left = 1 + noise_below(5); left > 0; left--) {
            put_message(&bytes, &wanted);
            if (noise_below(2))
                put_control(&bytes, &wanted);
        }
        for (int round = 0; round < 3; round++) {
            struct websocket socket;
            websocket_init(&socket, 200000, (struct websocket_deflate){true, 15});
            struct buf log = {0};
            feed_all(&socket, buf_str(&bytes), round ? 0 : SIZE_MAX, &log);
            if (!str_equal(buf_str(&log), buf_str(&wanted)))
                fail_msg("seed %u, round %d", seed, round);
            assert_null(socket.reader);
            websocket_clear(&socket);
            buf_clear(&log);
        }
        buf_clear(&wanted);
        buf_clear(&bytes);
    }
}

/* ---- writing ---- */

static void assert_bytes(struct buf *actual, struct str expected)
{
    assert_int_equal(actual->size, expected.size);
    assert_memory_equal(actual->at, expected.at, expected.size);
    actual->size = 0;
}

/* RFC 6455 §5.7. */
static void frames_are_written_with_the_shortest_length(void **state)
{
    (void)state;
    struct buf out = {0};
    websocket_put_frame(&out, WEBSOCKET_TEXT, STR("Hello"), false);
    assert_bytes(&out, STR("\x81\x05Hello"));
    websocket_put_frame(&out, WEBSOCKET_TEXT, STR("Hello"), true);
    assert_bytes(&out, STR("\xc1\x05Hello"));
    websocket_put_frame(&out, WEBSOCKET_PING, STR("Hello"), false);
    websocket_put_frame(&out, WEBSOCKET_PONG, STR_NONE, false);
    assert_bytes(&out, STR("\x89\x05Hello\x8a\x00"));

    static char payload[65537];
    static const struct {
        size_t size;
        struct str head;
    } rows[] = {
        {125, BYTES("\x82\x7d")},
        {126, BYTES("\x82\x7e\0\x7e")},
        {256, BYTES("\x82\x7e\x01\0")},
        {65535, BYTES("\x82\x7e\xff\xff")},
        {65536, BYTES("\x82\x7f\0\0\0\0\0\1\0\0")},
        {65537, BYTES("\x82\x7f\0\0\0\0\0\1\0\1")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        websocket_put_frame(&out, WEBSOCKET_BINARY, str_of(payload, rows[i].size), false);
        assert_int_equal(out.size, rows[i].head.size + rows[i].size);
        assert_memory_equal(out.at, rows[i].head.at, rows[i].head.size);
        out.size = 0;
    }
    buf_clear(&out);
}

static void closes_carry_only_what_may_be_sent(void **state)
{
    (void)state;
    struct buf out = {0};
    websocket_put_close(&out, 1000, STR_NONE);
    assert_bytes(&out, STR("\x88\x02\x03\xe8"));
    websocket_put_close(&out, 4401, STR("who?"));
    assert_bytes(&out, STR("\x88\x06\x11\x31who?"));
    static const int unsendable[] = {1005, 1006, 1015, 1004, 0, -1, 5000};
    for (size_t i = 0; i < ARRAY_SIZE(unsendable); i++) {
        websocket_put_close(&out, unsendable[i], STR("ignored"));
        assert_bytes(&out, STR("\x88\x00"));
    }
    char reason[130];
    memset(reason, 'r', sizeof reason);
    websocket_put_close(&out, 1011, str_of(reason, 123));
    assert_int_equal(out.size, 127);
    out.size = 0;
    websocket_put_close(&out, 1011, str_of(reason, 124));
    assert_int_equal(out.size, 127);
    out.size = 0;
    memcpy(reason + 120, "\xf0\x9f\x98\x80", 4); /* 123 is within it */
    websocket_put_close(&out, 1011, str_of(reason, 130));
    assert_int_equal(out.size, 4 + 120);
    assert_int_equal((unsigned char)out.at[1], 122);
    buf_clear(&out);
}

/* ---- the opening handshake ---- */

static void the_key_of_rfc_6455_is_accepted_as_there(void **state)
{
    (void)state;
    char accept[WEBSOCKET_ACCEPT_SIZE];
    websocket_accept(STR("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    websocket_accept(STR("x3JJHMbDL1EzLkh9GBhXDw=="), accept);
    assert_string_equal(accept, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
}

static void a_key_is_16_bytes_in_base64(void **state)
{
    (void)state;
    static const struct {
        struct str key;
        bool good;
    } rows[] = {
        {BYTES("dGhlIHNhbXBsZSBub25jZQ=="), true},
        {BYTES("+/+/+/+/+/+/+/+/+/+/+w=="), true},
        {BYTES(""), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZQ="), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZQ"), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZQ==="), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZWE="), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZWFh"), false},
        {BYTES("dGhlIHNhbXBsZSBub25j-Q=="), false},
        {BYTES("dGhlIHNhbXBsZSBub25j_Q=="), false},
        {BYTES("dGhlIHNhbXBsZSBub25 ZQ=="), false},
        {BYTES("dGhlIHNhbXBsZSBub25\0ZQ=="), false},
        {BYTES("dGhlIHNhbXBsZSBub25=ZQ=="), false},
        {BYTES("dGhlIHNhbXBsZSBub25jZQ=a"), false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (websocket_key_is_valid(rows[i].key) != rows[i].good)
            fail_msg("%s", rows[i].key.at);
    assert_false(websocket_key_is_valid(STR_NONE));
}

/* ---- looking on ---- */

static void only_data_frames_count_in_passing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct str bytes;
        size_t
            counted; /* of its bytes, fed one by one: from the end of a data frame's header to the frame's end */
        bool broken;
    } rows[] = {
        {"text of a client", BYTES("\x81\x85" KEY "Hello"), 6, false},
        {"text of a server", BYTES("\x81\x05Hello"), 6, false},
        {"compressed, by whatever extension", BYTES("\xf2\x05Hello"), 6, false},
        {"empty text", BYTES("\x81\x00"), 1, false},
        {"empty text of a client", BYTES("\x81\x80" KEY), 1, false},
        {"a continuation", BYTES("\x00\x01x\x80\x01y"), 4, false},
        {"ping, pong, close", BYTES("\x89\x02xy\x8a\x80" KEY "\x88\x82" KEY "\x03\xe8"), 0, false},
        {"ping before text", BYTES("\x89\x02\x81\x01\x81\x02xy"), 3, false},
        {"half a header", BYTES("\x82\x7e\x01"), 0, false},
        {"as long as can be", BYTES("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffxyz"), 4, false},
        {"no opcode", BYTES("\x83\x01x\x81\x01x"), 0, true},
        {"no control opcode", BYTES("\x8b\x01x\x81\x01x"), 0, true},
        {"a long ping", BYTES("\x89\x7e\x00\x7e"), 0, true},
        {"a ping in fragments", BYTES("\x09\x00\x81\x01x"), 0, true},
        {"top bit of a length", BYTES("\x82\x7f\x80\0\0\0\0\0\0\0xyz"), 0, true},
        {"broken after data", BYTES("\x81\x01xHTTP/1.1 200 OK"), 2, true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct websocket_scan scan = {0};
        size_t counted = 0;
        for (size_t k = 0; k < rows[i].bytes.size; k++)
            counted += websocket_scan(&scan, rows[i].bytes.at + k, 1);
        if (counted != rows[i].counted || scan.broken != rows[i].broken)
            fail_msg("%s: %zu bytes, broken %d", rows[i].name, counted, scan.broken);
        scan = (struct websocket_scan){0};
        if (websocket_scan(&scan, rows[i].bytes.at, rows[i].bytes.size) != (rows[i].counted > 0))
            fail_msg("%s, whole", rows[i].name);
        assert_false(websocket_scan(&scan, NULL, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_and_control_frames_are_read),
        cmocka_unit_test(breaches_of_the_protocol_get_1002),
        cmocka_unit_test(close_codes_are_those_of_the_registry),
        cmocka_unit_test(text_that_is_not_utf8_gets_1007),
        cmocka_unit_test(bad_text_is_refused_at_its_first_bad_byte),
        cmocka_unit_test(any_bytes_are_judged_as_whole_text_is),
        cmocka_unit_test(a_message_that_is_too_long_gets_1009),
        cmocka_unit_test(too_long_is_told_by_the_header),
        cmocka_unit_test(many_fragments_hold_no_more_than_one),
        cmocka_unit_test(bytes_after_an_event_are_left_to_the_caller),
        cmocka_unit_test(a_payload_stays_until_the_next_call_whatever_other_sockets_do),
        cmocka_unit_test(a_connection_between_messages_holds_nothing),
        cmocka_unit_test(a_closed_socket_holds_nothing),
        cmocka_unit_test(a_thread_keeps_a_bounded_number_of_spares),
        cmocka_unit_test(messages_survive_any_fragmentation),
        cmocka_unit_test(frames_are_written_with_the_shortest_length),
        cmocka_unit_test(closes_carry_only_what_may_be_sent),
        cmocka_unit_test(the_key_of_rfc_6455_is_accepted_as_there),
        cmocka_unit_test(a_key_is_16_bytes_in_base64),
        cmocka_unit_test(only_data_frames_count_in_passing),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
