/*
 * Event streams: the same events whole and in pieces, and those that a second reading of their own text gives. The limit is
 * small, so that it is met.
 */
#include "proto/sse.h"
#include "proto/sse_read.h"
#include "test/fuzz/support.h"

#include <errno.h>

enum { LIMIT = 256 };

struct connection {
    struct sse_reader reader;
    struct buf *transcript;
};

static bool has_line_end(struct str text)
{
    return memchr(text.at, '\n', text.size) || memchr(text.at, '\r', text.size);
}

/* Written by our own hand and read again, an event is the same. */
static void check_again(const struct sse_event *event)
{
    struct buf text = {0};
    struct sse_reader reader;
    struct sse_event again;
    sse_reader_init(&reader, 0);
    sse_put_event(&text, event->id, event->event, event->data);
    sse_reader_feed(&reader, buf_str(&text));
    CHECK(sse_reader_next(&reader, &again) == 1);
    CHECK(str_equal(again.data, event->data));
    CHECK(str_equal(again.event, memchr(event->event.at ? event->event.at : "", '\0', event->event.size)
                                     ? STR_NONE
                                     : event->event));
    CHECK(str_equal(again.id, event->id));
    CHECK(sse_reader_next(&reader, &again) == 0);
    sse_reader_clear(&reader);
    buf_clear(&text);
}

static void take(struct connection *connection, const struct sse_event *event)
{
    struct buf *out = connection->transcript;
    CHECK(event->data.at && event->data.size <= LIMIT);
    CHECK(!memchr(event->data.at, '\r', event->data.size));
    CHECK(!event->event.at || (event->event.size > 0 && !has_line_end(event->event)));
    CHECK(!event->id.at || !has_line_end(event->id));
    check_again(event);
    buf_add_str(out, event->event);
    buf_add_char(out, event->id.at ? '#' : '|');
    buf_add_str(out, event->id);
    buf_add_char(out, '|');
    buf_add_str(out, event->data);
    buf_add_char(out, '\n');
}

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct connection *connection = arg;
    struct sse_event event;
    int result;
    sse_reader_feed(&connection->reader, str_of(bytes, size));
    while ((result = sse_reader_next(&connection->reader, &event)) > 0)
        take(connection, &event);
    CHECK(result == 0 || result == -EMSGSIZE);
    if (result)
        buf_add_literal(connection->transcript, "TOO LONG");
    return result == 0;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    struct connection connection = {.transcript = transcript};
    sse_reader_init(&connection.reader, LIMIT);
    fuzz_feed(input, way, feed, &connection);
    if (!connection.reader.failed)
        buf_printf(transcript, "retry %lld\n", (long long)connection.reader.retry_ms);
    CHECK(connection.reader.line.size <= LIMIT && connection.reader.data.size <= LIMIT + 1);
    sse_reader_clear(&connection.reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    return 0;
}
