/* RFC 7692: which offers are taken, what compressed messages are read, and that they cost no more than they may. */
#include "proto/websocket.h"

#include "test/unit/proto/websocket_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include <cmocka.h>

#define BYTES(literal)                                                                                       \
    {                                                                                                        \
        literal, sizeof(literal) - 1                                                                         \
    }
/* A key that changes nothing. */
#define KEY "\0\0\0\0"
#define ANSWER "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

enum { MESSAGE_MAX = 1000, MEBIBYTE = 1024 * 1024 };

static int tear_down(void **state)
{
    (void)state;
    websocket_close_thread();
    return 0;
}

/* ---- agreeing ---- */

static void the_first_offer_that_can_be_met_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *offers;
        int bits; /* 0: none is taken */
    } rows[] = {
        {"permessage-deflate", 15},
        {" \tpermessage-deflate\t ", 15},
        {"permessage-deflate; server_no_context_takeover; client_no_context_takeover", 15},
        {"permessage-deflate;client_max_window_bits", 15},
        {"permessage-deflate; client_max_window_bits=8", 15},
        {"permessage-deflate; client_max_window_bits=15", 15},
        {"permessage-deflate; client_max_window_bits=\"10\"", 15},
        {"permessage-deflate; client_max_window_bits=7", 0},
        {"permessage-deflate; client_max_window_bits=16", 0},
        {"permessage-deflate; client_max_window_bits=", 0},
        {"permessage-deflate; client_max_window_bits=\"\"", 0},
        {"permessage-deflate; server_max_window_bits=9", 9},
        {"permessage-deflate; server_max_window_bits=10", 10},
        {"permessage-deflate; server_max_window_bits=15", 15},
        {"permessage-deflate; server_max_window_bits = 12", 12},
        {"permessage-deflate; server_max_window_bits=\"11\"", 11},
        {"permessage-deflate; server_max_window_bits=9; client_max_window_bits; client_no_context_takeover",
         9},
        {"permessage-deflate; server_max_window_bits=8", 0},
        {"permessage-deflate; server_max_window_bits=16", 0},
        {"permessage-deflate; server_max_window_bits", 0},
        {"permessage-deflate; server_max_window_bits=010", 0},
        {"permessage-deflate; server_max_window_bits=+9", 0},
        {"permessage-deflate; server_max_window_bits=9.0", 0},
        {"permessage-deflate; server_max_window_bits=99999999999999999999", 0},
        {"permessage-deflate; server_max_window_bits=\"9", 0},
        {"permessage-deflate; server_max_window_bits=\"", 0},
        {"permessage-deflate; server_no_context_takeover=1", 0},
        {"permessage-deflate; server_no_context_takeover=", 0},
        {"permessage-deflate; client_no_context_takeover=true", 0},
        {"permessage-deflate; server_no_context_takeover; server_no_context_takeover", 0},
        {"permessage-deflate; client_no_context_takeover; client_no_context_takeover", 0},
        {"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", 0},
        {"permessage-deflate; client_max_window_bits; client_max_window_bits=9", 0},
        {"permessage-deflate; level=9", 0},
        {"permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER", 0},
        {"permessage-deflate;", 0},
        {"permessage-deflate; ; client_max_window_bits", 0},
        {"permessage-deflate; =9", 0},
        {"permessage-deflate=1", 0},
        {"permessage-deflate permessage-deflate", 0},
        {"x-webkit-deflate-frame", 0},
        {"permessage-bzip2", 0},
        {"", 0},
        {" , ,", 0},
        {"permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10", 10},
        {"permessage-deflate; x, permessage-deflate; x=1 ,permessage-deflate", 15},
        {"permessage-deflate; server_max_window_bits=12, permessage-deflate", 12},
        {"permessage-bzip2, , permessage-deflate; client_max_window_bits", 15},
        {"foo; bar=\"a, permessage-deflate, b\"", 0},
        {"foo; bar=\"a\\\", permessage-deflate, b\"", 0},
        {"foo; bar=\"a\\\\\", permessage-deflate", 15},
        {"foo; bar=\"a, permessage-deflate", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct websocket_deflate deflate = {true, 99};
        struct buf answer = {0};
        size_t size = strlen(rows[i].offers);
        char *offers = mem_alloc(size + 1); /* ends with the text, so that a look beyond is seen */
        memcpy(offers, rows[i].offers, size);
        bool taken = websocket_negotiate(str_of(offers, size), &deflate, &answer);
        free(offers);
        char wanted[200] = "";
        if (rows[i].bits)
            strcpy(wanted, ANSWER);
        if (rows[i].bits && strstr(rows[i].offers, "server_max_window_bits"))
            snprintf(wanted, sizeof wanted, ANSWER "; server_max_window_bits=%d", rows[i].bits);
        if (taken != (rows[i].bits != 0) || deflate.on != taken ||
            (taken && deflate.server_bits != rows[i].bits) || !str_equal(buf_str(&answer), str_from(wanted)))
            fail_msg("%s: %d, %d, %.*s", rows[i].offers, taken, deflate.server_bits,
                     STR_ARG(buf_str(&answer)));
        buf_clear(&answer);
    }
    struct websocket_deflate deflate = {true, 99};
    assert_false(websocket_negotiate(STR_NONE, &deflate, NULL));
    assert_false(deflate.on);
}

/* ---- reading ---- */

static void examples_of_rfc_7692_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct str bytes;
        struct str expected;
    } rows[] = {
        {"7.2.3.1: a message", BYTES("\xc1\x87" KEY "\xf2\x48\xcd\xc9\xc9\x07\x00"), BYTES("text Hello\n")},
        {"7.2.3.1: in fragments", BYTES("\x41\x83" KEY "\xf2\x48\xcd\x80\x84" KEY "\xc9\xc9\x07\x00"),
         BYTES("text Hello\n")},
        {"7.2.3.2: a window that is not kept",
         BYTES("\xc1\x87" KEY "\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x85" KEY "\xf2\x00\x11\x00\x00"),
         BYTES("text Hello\nerror 1007\n")},
        {"7.2.3.3: not compressed", BYTES("\xc1\x8b" KEY "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"),
         BYTES("text Hello\n")},
        {"7.2.3.4: a last block", BYTES("\xc1\x88" KEY "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
         BYTES("text Hello\n")},
        {"7.2.3.5: two blocks", BYTES("\xc1\x8d" KEY "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
         BYTES("text Hello\n")},
        {"7.2.3.6: empty", BYTES("\xc1\x81" KEY "\x00"), BYTES("text\n")},
        {"empty, in fragments", BYTES("\x42\x80" KEY "\x00\x81" KEY "\x00\x80\x80" KEY), BYTES("binary\n")},
        {"empty, with no deflate data", BYTES("\xc1\x80" KEY "\x81\x81" KEY "x"), BYTES("text\ntext x\n")},
        {"an empty last block", BYTES("\xc1\x81" KEY "\x01\x81\x81" KEY "x"), BYTES("text\ntext x\n")},
        {"two streams", BYTES("\xc1\x8f" KEY "\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
         BYTES("text HelloHello\n")},
        {"control frames between",
         BYTES("\x41\x83" KEY "\xf2\x48\xcd\x89\x81" KEY "x\x80\x84" KEY "\xc9\xc9\x07\x00"),
         BYTES("ping x\ntext Hello\n")},
        {"plain between",
         BYTES("\xc1\x87" KEY "\xf2\x48\xcd\xc9\xc9\x07\x00\x81\x82" KEY "Hi\xc1\x81" KEY "\x00"),
         BYTES("text Hello\ntext Hi\ntext\n")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        expect(rows[i].name, MESSAGE_MAX, true, rows[i].bytes, rows[i].expected);
}

static void bad_deflate_data_gets_1007(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct str bytes;
    } rows[] = {
        {"a block of no type", BYTES("\xc2\x81" KEY "\x06")},
        {"a stored block whose lengths differ", BYTES("\xc2\x85" KEY "\x00\x05\x00\x05\x00")},
        {"a distance beyond the beginning", BYTES("\xc2\x85" KEY "\xf2\x00\x11\x00\x00")},
        {"plain text", BYTES("\xc2\x85" KEY "Hello")},
        {"cut short within a block", BYTES("\xc2\x84" KEY "\xf2\x48\xcd\xc9")},
        {"cut short within a stored block", BYTES("\xc2\x86" KEY "\x00\x09\x00\xf6\xffH")},
        {"a last block without the byte behind it", BYTES("\xc2\x87" KEY "\xf3\x48\xcd\xc9\xc9\x07\x00")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        expect(rows[i].name, MESSAGE_MAX, true, rows[i].bytes, STR("error 1007\n"));
}

/* Where the memory for a message ends, and has to grow, plays no part. Here a stored block takes the four bytes that are
 * added for its own. */
static void data_are_judged_alike_whatever_their_size(void **state)
{
    (void)state;
    char content[3000];
    memset(content, 'x', sizeof content);
    for (unsigned size = 4; size < sizeof content; size++) {
        struct buf stored = {0};
        char head[] = {0, (char)size, (char)(size >> 8), (char)~size, (char)(~size >> 8)};
        buf_add(&stored, head, sizeof head);
        buf_add(&stored, content, size - 4);
        struct buf bytes = {0};
        put_masked(&bytes, 0xc2, buf_str(&stored));
        websocket_close_thread(); /* a new reader begins with the least memory */
        struct websocket socket;
        websocket_init(&socket, sizeof content, (struct websocket_deflate){true, 15});
        enum websocket_event event;
        struct websocket_input input;
        assert_int_equal(websocket_feed(&socket, bytes.at, bytes.size, &event, &input), bytes.size);
        assert_int_equal(event, WEBSOCKET_MESSAGE);
        assert_int_equal(input.payload.size, size);
        websocket_clear(&socket);
        buf_clear(&bytes);
        buf_clear(&stored);
    }
}

static void compressed_text_is_checked_as_it_inflates(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        const char *event;
    } rows[] = {
        {BYTES("a\xc3\xa9"), "text a\xc3\xa9\n"}, {BYTES("\xf0\x9f\x98\x80"), "text \xf0\x9f\x98\x80\n"},
        {BYTES("abc\xff"), "error 1007\n"},       {BYTES("abc\xe2\x82"), "error 1007\n"},
        {BYTES("\xed\xa0\x80"), "error 1007\n"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str text = rows[i].text;
        struct buf stored = {0}; /* a stored block, and the header of the one that is cut off */
        char head[] = {0, (char)text.size, 0, (char)~text.size, (char)0xff};
        buf_add(&stored, head, sizeof head);
        buf_add_str(&stored, text);
        buf_add_char(&stored, '\0');
        struct buf bytes = {0};
        put_masked(&bytes, 0xc1, buf_str(&stored));
        expect("text", MESSAGE_MAX, true, buf_str(&bytes), str_from(rows[i].event));
        bytes.size = 0;
        put_masked(&bytes, 0x41, str_of(stored.at, 7));
        put_masked(&bytes, 0x80, str_of(stored.at + 7, stored.size - 7));
        expect("fragments", MESSAGE_MAX, true, buf_str(&bytes), str_from(rows[i].event));
        buf_clear(&bytes);
        buf_clear(&stored);
    }
    /* The message is not over when its error is found. */
    expect("early", MESSAGE_MAX, true, (struct str)BYTES("\x41\x8a" KEY "\x00\x05\x00\xfa\xff\xff    "),
           STR("error 1007\n"));
}

/* ---- bounds ---- */

/* One MiB of zeros in about 1 KB, to a whole byte and with no use of what stood before: it can be repeated. */
static void put_zeros(struct buf *out)
{
    z_stream stream = {0};
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    unsigned char *zeros = mem_zalloc(MEBIBYTE);
    stream.next_in = zeros;
    stream.avail_in = MEBIBYTE;
    stream.next_out = (unsigned char *)buf_reserve(out, 8192);
    stream.avail_out = 8192;
    assert_int_equal(deflate(&stream, Z_FULL_FLUSH), Z_OK);
    assert_true(stream.avail_out > 0);
    out->size += 8192 - stream.avail_out;
    deflateEnd(&stream);
    free(zeros);
}

static void a_gibibyte_of_zeros_costs_no_more_than_a_message_may(void **state)
{
    (void)state;
    struct buf piece = {0};
    put_zeros(&piece);
    struct buf payload = {0};
    for (int i = 0; i < 1024; i++)
        buf_add_str(&payload, buf_str(&piece));
    assert_in_range(payload.size, MEBIBYTE, 2 * MEBIBYTE);
    struct buf bytes = {0};
    put_masked(&bytes, 0xc2, buf_str(&payload));
    static const struct {
        size_t max;
        size_t at_once;
    } rows[] = {{MEBIBYTE, SIZE_MAX}, {MEBIBYTE, 4096}, {MEBIBYTE, 1}, {MEBIBYTE / 8 * 9, SIZE_MAX}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        size_t at_once = rows[i].at_once;
        size_t before = 512;
        while (before * 2 < rows[i].max)
            before *= 2;
        websocket_close_thread();
        struct websocket socket;
        websocket_init(&socket, rows[i].max, (struct websocket_deflate){true, 15});
        memory_start();
        enum websocket_event event = WEBSOCKET_MORE;
        struct websocket_input input;
        size_t done = 0;
        while (done < bytes.size && event == WEBSOCKET_MORE) {
            size_t size = bytes.size - done < at_once ? bytes.size - done : at_once;
            done += websocket_feed(&socket, bytes.at + done, size, &event, &input);
        }
        /* While the message moves to its largest place, it is in the one before too; and the reader with its window. */
        assert_true(memory_peak() <= rows[i].max + before + 64 * 1024);
        assert_int_equal(event, WEBSOCKET_ERROR);
        assert_int_equal(input.code, 1009);
        assert_true(done < 16384);
        websocket_clear(&socket);
    }
    buf_clear(&bytes);
    buf_clear(&payload);
    buf_clear(&piece);
}

static void a_message_may_inflate_to_just_its_bound(void **state)
{
    (void)state;
    struct buf payload = {0};
    put_zeros(&payload);
    for (int i = 0; i < 10000; i++) /* empty blocks */
        buf_add_literal(&payload, "\0\0\0\xff\xff");
    buf_add_char(&payload, '\0');
    struct buf bytes = {0};
    put_masked(&bytes, 0xc2, buf_str(&payload));
    for (int less = 0; less < 2; less++) {
        struct websocket socket;
        websocket_init(&socket, MEBIBYTE - (size_t)less, (struct websocket_deflate){true, 15});
        enum websocket_event event;
        struct websocket_input input;
        size_t done = websocket_feed(&socket, bytes.at, bytes.size, &event, &input);
        assert_int_equal(event, less ? WEBSOCKET_ERROR : WEBSOCKET_MESSAGE);
        if (less) {
            assert_int_equal(input.code, 1009);
        } else {
            assert_int_equal(done, bytes.size);
            assert_int_equal(input.payload.size, MEBIBYTE);
        }
        websocket_clear(&socket);
    }
    payload.size = 0;
    for (int i = 0; i < 10000; i++)
        buf_add_literal(&payload, "\0\0\0\xff\xff");
    buf_add_char(&payload, '\0');
    bytes.size = 0;
    put_masked(&bytes, 0xc1, buf_str(&payload));
    expect("longer than what it inflates to", MESSAGE_MAX, true, buf_str(&bytes), STR("text\n"));
    buf_clear(&bytes);
    buf_clear(&payload);
}

/* A thread's spare may hold more memory than the next socket's messages may have. */
static void a_spare_of_another_socket_does_not_raise_the_bound(void **state)
{
    (void)state;
    static char payload[10000];
    struct buf compressed = {0};
    assert_true(websocket_compress(&compressed, str_of(payload, sizeof payload), 15));
    struct buf bytes = {0};
    put_masked(&bytes, 0xc2, buf_str(&compressed));
    static const size_t bounds[] = {20000, sizeof payload, sizeof payload - 1, 10, 0};
    for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
        struct websocket socket;
        websocket_init(&socket, bounds[i], (struct websocket_deflate){true, 15});
        enum websocket_event event;
        struct websocket_input input;
        websocket_feed(&socket, bytes.at, bytes.size, &event, &input);
        bool fits = bounds[i] >= sizeof payload;
        assert_int_equal(event, fits ? WEBSOCKET_MESSAGE : WEBSOCKET_ERROR);
        assert_int_equal(input.code, fits ? 0 : 1009);
        websocket_feed(&socket, NULL, 0, &event, &input);
        websocket_clear(&socket);
        websocket_init(&socket, 20000, (struct websocket_deflate){true, 15});
        websocket_feed(&socket, bytes.at, bytes.size, &event, &input);
        assert_int_equal(event, WEBSOCKET_MESSAGE);
        websocket_clear(&socket);
    }
    buf_clear(&bytes);
    buf_clear(&compressed);
}

/* ---- writing ---- */

/* With zlib itself, in a window of no more than `bits`. */
static void assert_inflates(struct buf *compressed, int bits, struct str expected)
{
    buf_add_literal(compressed, "\0\0\xff\xff");
    z_stream stream = {0};
    assert_int_equal(inflateInit2(&stream, -bits), Z_OK);
    struct buf out = {0};
    stream.next_in = (unsigned char *)compressed->at;
    stream.avail_in = (unsigned)compressed->size;
    /* A little at a time, so that all it goes back to has to be in its window. */
    do {
        stream.next_out = (unsigned char *)buf_reserve(&out, 100);
        stream.avail_out = 100;
        int result = inflate(&stream, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR)
            fail_msg("window of %d bits: %s", bits, stream.msg);
        out.size += 100 - stream.avail_out;
    } while (stream.avail_out == 0);
    assert_int_equal(stream.avail_in, 0);
    assert_true(str_equal(buf_str(&out), expected));
    inflateEnd(&stream);
    buf_clear(&out);
}

static void what_is_compressed_fits_the_window_agreed_on(void **state)
{
    (void)state;
    noise_seed(3);
    struct buf payload = {
        0}; /* what repeats does so at distances from one byte to beyond the largest window */
    for (int i = 0; i < 3000; i++)
        buf_add_char(&payload, (char)noise());
    for (int i = 0; i < 400; i++) {
        size_t size = 20 + noise_below(200);
        size_t from = noise_below((uint32_t)(payload.size - size));
        buf_reserve(&payload, size);
        buf_add(&payload, payload.at + from, size);
    }
    for (int bits = 15; bits >= 9; bits--) {
        for (int round = 0; round < 2; round++) {
            struct buf out = {0};
            buf_add_literal(&out, "kept");
            bool shorter = websocket_compress(&out, buf_str(&payload), bits);
            assert_memory_equal(out.at, "kept", 4);
            assert_true(shorter || out.size == 4);
            assert_true(shorter || bits < 12);
            if (shorter) {
                assert_true(out.size < 4 + payload.size);
                buf_consume(&out, 4);
                assert_inflates(&out, bits, buf_str(&payload));
            }
            out.size = 0;
            assert_true(websocket_compress(&out, STR("again and again and again and again"), bits));
            assert_inflates(&out, bits, STR("again and again and again and again"));
            buf_clear(&out);
        }
    }
    buf_clear(&payload);
}

static void what_gets_no_shorter_is_not_compressed(void **state)
{
    (void)state;
    noise_seed(5);
    char random[5000];
    for (size_t i = 0; i < sizeof random; i++)
        random[i] = (char)noise();
    struct buf out = {0};
    buf_add_literal(&out, "kept");
    assert_false(websocket_compress(&out, STR_NONE, 15));
    assert_false(websocket_compress(&out, STR("Hello"), 15));
    assert_false(websocket_compress(&out, STR("a"), 9));
    for (size_t size = 1; size <= sizeof random; size += 1 + size / 3)
        assert_false(websocket_compress(&out, str_of(random, size), 15));
    assert_true(str_equal(buf_str(&out), STR("kept")));
    /* Every length around the one from which on it pays. */
    char same[64];
    memset(same, 'a', sizeof same);
    bool before = false;
    for (size_t size = 0; size <= sizeof same; size++) {
        out.size = 0;
        bool shorter = websocket_compress(&out, str_of(same, size), 15);
        assert_true(shorter || !before);
        if (shorter && !before)
            assert_int_equal(out.size, size - 1);
        assert_true(shorter ? out.size < size : out.size == 0);
        if (shorter)
            assert_inflates(&out, 15, str_of(same, size));
        before = shorter;
    }
    assert_true(before);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_offer_that_can_be_met_is_taken),
        cmocka_unit_test(examples_of_rfc_7692_are_read),
        cmocka_unit_test(bad_deflate_data_gets_1007),
        cmocka_unit_test(data_are_judged_alike_whatever_their_size),
        cmocka_unit_test(compressed_text_is_checked_as_it_inflates),
        cmocka_unit_test(a_gibibyte_of_zeros_costs_no_more_than_a_message_may),
        cmocka_unit_test(a_message_may_inflate_to_just_its_bound),
        cmocka_unit_test(a_spare_of_another_socket_does_not_raise_the_bound),
        cmocka_unit_test(what_is_compressed_fits_the_window_agreed_on),
        cmocka_unit_test(what_gets_no_shorter_is_not_compressed),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
