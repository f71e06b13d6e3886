/* Event streams as a client reads them (HTML standard, §9.2.5 and §9.2.6), wherever the bytes are cut. */
#include "proto/sse_read.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* All events that are ready, as "type|data|id;"; what is absent is "-". */
static int drain(struct sse_reader *reader, struct buf *seen)
{
    struct sse_event event;
    int result;
    while ((result = sse_reader_next(reader, &event)) > 0) {
        assert_non_null(event.data.at);
        buf_add_str(seen, event.event.at ? event.event : STR("-"));
        buf_add_char(seen, '|');
        buf_add_str(seen, event.data);
        buf_add_char(seen, '|');
        buf_add_str(seen, event.id.at ? event.id : STR("-"));
        buf_add_char(seen, ';');
    }
    return result;
}

/* In pieces of this size, each in a block of its own that is gone when the next one comes. */
static int read_in_pieces(struct sse_reader *reader, struct str bytes, size_t piece, struct buf *seen)
{
    int result = 0;
    for (size_t at = 0; at < bytes.size && result == 0; at += piece) {
        size_t size = bytes.size - at < piece ? bytes.size - at : piece;
        char *exact = mem_alloc(size);
        memcpy(exact, bytes.at + at, size);
        sse_reader_feed(reader, str_of(exact, size));
        result = drain(reader, seen);
        free(exact);
    }
    return result;
}

static void expect_of(struct str bytes, const char *wanted)
{
    for (size_t piece = 1; piece <= bytes.size; piece++) {
        struct sse_reader reader;
        struct buf seen = {0};
        sse_reader_init(&reader, 0);
        assert_int_equal(read_in_pieces(&reader, bytes, piece, &seen), 0);
        if (!str_equal(buf_str(&seen), str_from(wanted)))
            fail_msg("pieces of %zu: %.*s, not %s", piece, STR_ARG(buf_str(&seen)), wanted);
        buf_clear(&seen);
        sse_reader_clear(&reader);
    }
}
#define EXPECT(literal, wanted) expect_of(STR(literal), wanted)

static void an_empty_line_ends_an_event(void **state)
{
    (void)state;
    EXPECT("data: a\n\n", "-|a|-;");
    EXPECT("data: a\n\ndata: b\n\n", "-|a|-;-|b|-;");
    EXPECT("data: a\n", "");
    EXPECT("data: a", "");
    EXPECT("\n\n\n", "");
}

static void lines_end_in_lf_cr_or_both(void **state)
{
    (void)state;
    EXPECT("data: a\r\rdata: b\r\n\r\ndata: c\n\n", "-|a|-;-|b|-;-|c|-;");
    EXPECT("data: a\r\n\r\n", "-|a|-;");
    EXPECT("data: a\n\rdata: b\r\r", "-|a|-;-|b|-;");
    EXPECT("data: a\rdata: b\n\r\n", "-|a\nb|-;");
    EXPECT("data: a\r\n\n", "-|a|-;");
}

static void lines_of_data_are_joined(void **state)
{
    (void)state;
    EXPECT("data: a\ndata: b\ndata:\ndata: c\n\n", "-|a\nb\n\nc|-;");
    EXPECT("data\n\n", "-||-;");
    EXPECT("data:\n\n", "-||-;");
    EXPECT("data\ndata\n\n", "-|\n|-;");
}

static void one_space_behind_the_colon_is_none_of_the_value(void **state)
{
    (void)state;
    EXPECT("data:a\n\n", "-|a|-;");
    EXPECT("data:  a \n\n", "-| a |-;");
    EXPECT("data:\ta\n\n", "-|\ta|-;");
    EXPECT("data: a: b:\n\n", "-|a: b:|-;");
    EXPECT(" data: a\n\n", "");
    EXPECT("data : a\n\n", "");
}

static void comments_and_other_fields_are_ignored(void **state)
{
    (void)state;
    EXPECT(": hi\n\ndata: a\n:\n: data: b\nfoo: bar\nDATA: x\n\n", "-|a|-;");
    EXPECT(":\n\n:\n\n", "");
    EXPECT("foo\n\n", "");
}

static void a_type_is_of_one_event_and_an_id_of_all_that_follow(void **state)
{
    (void)state;
    EXPECT("event: x\nid: 1\ndata: a\n\ndata: b\n\n", "x|a|1;-|b|1;");
    EXPECT("event: x\nevent: y\ndata: a\n\n", "y|a|-;");
    EXPECT("event: x\nevent\ndata: a\n\n", "-|a|-;");
    EXPECT("event: x\n\ndata: a\n\n", "-|a|-;");
    EXPECT("id: 1\n\ndata: a\n\nid\ndata: b\n\n", "-|a|1;-|b|;");
    EXPECT("id: 1\nid: 2\0\ndata: a\n\n", "-|a|1;");
}

static void a_byte_order_mark_at_the_start_is_nothing(void **state)
{
    (void)state;
    EXPECT("\xef\xbb\xbf"
           "data: a\n\n\xef\xbb\xbf"
           "data: b\n\n",
           "-|a|-;");
    EXPECT("\xef\xbb\xbf\xef\xbb\xbf"
           "data: a\n\n",
           "");
    EXPECT("\xef\xbb"
           "data: a\n\n",
           "");
    EXPECT("\xef\n\ndata: a\n\n", "-|a|-;");
}

static void a_time_for_the_next_try_is_digits_alone(void **state)
{
    (void)state;
    static const struct {
        struct str text;
        int64_t ms;
    } cases[] = {
        {{"retry: 250\n", 11}, 250},
        {{"retry: 0\n", 9}, 0},
        {{"retry: -1\n", 10}, -1},
        {{"retry: 1.5\n", 11}, -1},
        {{"retry: 1s\n", 10}, -1},
        {{"retry\n", 6}, -1},
        {{"retry: 9223372036854775808\n", 27}, -1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct sse_reader reader;
        struct buf seen = {0};
        sse_reader_init(&reader, 0);
        assert_int_equal(read_in_pieces(&reader, cases[i].text, 3, &seen), 0);
        assert_int_equal(reader.retry_ms, cases[i].ms);
        assert_int_equal(seen.size, 0);
        sse_reader_clear(&reader);
    }
}

static int result_with_limit(struct str bytes, size_t limit, size_t piece, struct buf *seen)
{
    struct sse_reader reader;
    sse_reader_init(&reader, limit);
    int result = read_in_pieces(&reader, bytes, piece, seen);
    assert_true(reader.line.capacity + reader.data.capacity + reader.type.capacity + reader.id.capacity <=
                4 * 256);
    if (result < 0) {
        struct sse_event event;
        sse_reader_feed(&reader, STR("\n\ndata: b\n\n"));
        assert_int_equal(sse_reader_next(&reader, &event), -EMSGSIZE);
    }
    sse_reader_clear(&reader);
    return result;
}

static void lines_and_events_over_the_limit_are_an_error(void **state)
{
    (void)state;
    struct buf seen = {0};
    for (size_t piece = 1; piece < 40; piece++) {
        assert_int_equal(result_with_limit(STR("data: 7890\n\ndata: 7890\n\n"), 10, piece, &seen), 0);
        assert_int_equal(result_with_limit(STR("data: 78901\n\n"), 10, piece, &seen), -EMSGSIZE);
        assert_int_equal(result_with_limit(STR("data: 78901"), 10, piece, &seen), -EMSGSIZE);
        assert_int_equal(result_with_limit(STR("data:1\ndata:2\n"), 10, piece, &seen), -EMSGSIZE);
        assert_int_equal(result_with_limit(STR(": 345678901\n\n"), 10, piece, &seen), -EMSGSIZE);
        assert_int_equal(result_with_limit(STR("a:1\nb:1\nc:1\nd:1\n"), 10, piece, &seen), -EMSGSIZE);
        /* Comments are no part of an event: any number of them may come. */
        assert_int_equal(result_with_limit(STR("data: 7\n:45\n:45\n:4\n:4\n\n"), 10, piece, &seen), 0);
    }
    buf_clear(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_line_ends_an_event),
        cmocka_unit_test(lines_end_in_lf_cr_or_both),
        cmocka_unit_test(lines_of_data_are_joined),
        cmocka_unit_test(one_space_behind_the_colon_is_none_of_the_value),
        cmocka_unit_test(comments_and_other_fields_are_ignored),
        cmocka_unit_test(a_type_is_of_one_event_and_an_id_of_all_that_follow),
        cmocka_unit_test(a_byte_order_mark_at_the_start_is_nothing),
        cmocka_unit_test(a_time_for_the_next_try_is_digits_alone),
        cmocka_unit_test(lines_and_events_over_the_limit_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
