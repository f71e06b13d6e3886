/*
 * Event streams: see sse_read.h.
 *
 *     bytes ──▶ lines ──▶ fields ──▶ an event at each empty line
 *
 * A line that is whole in the bytes at hand is looked at where it is; only one that was cut is copied. What an event is made
 * of is copied into buffers that the next event uses again.
 */
#include "proto/sse_read.h"

#include <errno.h>

enum { MARK_SIZE = 3 };
static const char mark[MARK_SIZE] = "\xef\xbb\xbf";

void sse_reader_init(struct sse_reader *reader, size_t event_max)
{
    *reader = (struct sse_reader){.event_max = event_max ? event_max : SSE_EVENT_MAX, .retry_ms = -1};
}

void sse_reader_clear(struct sse_reader *reader)
{
    buf_clear(&reader->line);
    buf_clear(&reader->data);
    buf_clear(&reader->type);
    buf_clear(&reader->id);
}

void sse_reader_feed(struct sse_reader *reader, struct str bytes)
{
    CHECK(reader->fed.size == 0);
    reader->fed = bytes;
}

/* ---- lines ---- */

static void take(struct sse_reader *reader, size_t size)
{
    reader->fed = str_of(reader->fed.at + size, reader->fed.size - size);
}

/* Takes the byte order mark. What began as one and was none is the beginning of the first line. */
static void skip_mark(struct sse_reader *reader)
{
    while (reader->mark_bytes < MARK_SIZE && reader->fed.size > 0) {
        if (reader->fed.at[0] != mark[reader->mark_bytes]) {
            buf_add(&reader->line, mark, reader->mark_bytes);
            reader->mark_bytes = MARK_SIZE;
            return;
        }
        reader->mark_bytes++;
        take(reader, 1);
    }
}

static size_t line_size(struct str bytes)
{
    const char *lf = memchr(bytes.at, '\n', bytes.size);
    size_t size = lf ? (size_t)(lf - bytes.at) : bytes.size;
    const char *cr = memchr(bytes.at, '\r', size);
    return cr ? (size_t)(cr - bytes.at) : size;
}

/* 1: *line is the next one, without its end; it lives until the next call. 0: more bytes are needed. */
static int next_line(struct sse_reader *reader, struct str *line)
{
    if (reader->after_cr && reader->fed.size > 0) {
        if (reader->fed.at[0] == '\n')
            take(reader, 1);
        reader->after_cr = false;
    }
    if (reader->fed.size == 0)
        return 0;
    size_t size = line_size(reader->fed);
    if (reader->line.size + size > reader->event_max - reader->event_bytes)
        return -EMSGSIZE;
    struct str piece = str_of(reader->fed.at, size);
    bool is_whole = size < reader->fed.size;
    if (!is_whole || reader->line.size > 0)
        buf_add_str(&reader->line, piece);
    take(reader, size);
    if (!is_whole)
        return 0;
    reader->after_cr = reader->fed.at[0] == '\r';
    take(reader, 1);
    *line = reader->line.size > 0 ? buf_str(&reader->line) : piece;
    reader->line.size = 0;
    /* A comment is no part of an event: they may go on for hours. */
    if (line->size > 0 && line->at[0] != ':')
        reader->event_bytes += line->size;
    return 1;
}

/* ---- fields ---- */

static void set(struct buf *field, struct str value)
{
    field->size = 0;
    buf_add_str(field, value);
}

static void set_retry(struct sse_reader *reader, struct str value)
{
    uint64_t ms;
    if (str_to_u64(value, &ms) && ms <= INT64_MAX)
        reader->retry_ms = (int64_t)ms;
}

static void take_field(struct sse_reader *reader, struct str name, struct str value)
{
    if (str_equal(name, STR("data"))) {
        buf_add_str(&reader->data, value);
        buf_add_char(&reader->data, '\n');
        reader->has_data = true;
    } else if (str_equal(name, STR("event"))) {
        set(&reader->type, value);
    } else if (str_equal(name, STR("id")) && !(value.size && memchr(value.at, '\0', value.size))) {
        set(&reader->id, value);
        reader->has_id = true;
    } else if (str_equal(name, STR("retry"))) {
        set_retry(reader, value);
    }
}

static void take_line(struct sse_reader *reader, struct str line)
{
    const char *colon = memchr(line.at, ':', line.size);
    if (!colon) {
        take_field(reader, line, STR(""));
        return;
    }
    struct str name = str_of(line.at, (size_t)(colon - line.at));
    struct str value = str_of(colon + 1, line.size - name.size - 1);
    if (value.size > 0 && value.at[0] == ' ')
        value = str_of(value.at + 1, value.size - 1);
    if (name.size > 0)
        take_field(reader, name, value);
}

/* ---- events ---- */

static void begin_event(struct sse_reader *reader)
{
    reader->data.size = 0;
    reader->type.size = 0;
    reader->event_bytes = 0;
    reader->has_data = false;
    reader->given = false;
}

static void give(struct sse_reader *reader, struct sse_event *event)
{
    event->event = reader->type.size > 0 ? buf_str(&reader->type) : STR_NONE;
    event->data = str_of(reader->data.at, reader->data.size - 1);
    event->id = reader->has_id ? str_of(reader->id.at ? reader->id.at : "", reader->id.size) : STR_NONE;
    reader->given = true;
}

int sse_reader_next(struct sse_reader *reader, struct sse_event *event)
{
    struct str line;
    int result = -EMSGSIZE;
    if (reader->given)
        begin_event(reader);
    if (!reader->failed)
        skip_mark(reader);
    while (!reader->failed && (result = next_line(reader, &line)) > 0) {
        if (line.size > 0) {
            take_line(reader, line);
        } else if (reader->has_data) {
            give(reader, event);
            return 1;
        } else {
            begin_event(reader);
        }
    }
    if (result < 0) {
        reader->failed = true;
        reader->fed = STR_NONE;
    }
    return result;
}
