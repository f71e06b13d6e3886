#ifndef PROTO_SSE_READ_H
#define PROTO_SSE_READ_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Event streams from bytes (HTML standard §9.2.5 and §9.2.6), as a client of one reads them: lines ended by CR, LF or
 * CR LF wherever the bytes were cut, one byte order mark at the start, comments, the fields data, event, id and retry. An
 * event that is not ended by an empty line is none. No I/O.
 *
 *     struct sse_reader reader;
 *     sse_reader_init(&reader, 0);
 *     while (bytes come) {
 *         sse_reader_feed(&reader, bytes);
 *         while ((result = sse_reader_next(&reader, &event)) == 1)
 *             ...
 *         if (result < 0) give it up
 *     }
 *     sse_reader_clear(&reader);
 */

enum { SSE_EVENT_MAX = 1 << 20 /* bytes of one event's lines, unless said otherwise */ };

/* What it points to lives until the next call of the reader. */
struct sse_event {
    struct str event; /* its type; absent: "message" */
    struct str data;  /* lines joined by LF; there, perhaps empty */
    struct str id;    /* the last id that the stream has told; absent: none yet */
};

struct sse_reader {
    size_t event_max;
    struct str fed;      /* what is left of the bytes at hand */
    struct buf line;     /* a line of which more bytes are to come */
    struct buf data;     /* of the event at hand, each line with its LF */
    struct buf type;     /* the same, of its event field */
    struct buf id;       /* the last one */
    size_t event_bytes;  /* in the lines of the event at hand */
    int64_t retry_ms;    /* as the stream last told; -1: it did not */
    unsigned mark_bytes; /* of the byte order mark: matched so far; 3: past it */
    bool has_id;
    bool has_data;
    bool after_cr; /* an LF at the start belongs to the line before */
    bool given;    /* the event at hand was returned: it is forgotten by the next call */
    bool failed;
};

/* `event_max` 0: SSE_EVENT_MAX. The reader's memory grows to that, by use alone, and stays until it is cleared. */
void sse_reader_init(struct sse_reader *reader, size_t event_max);
void sse_reader_clear(struct sse_reader *reader);

/* Lends bytes to the reader, until sse_reader_next has returned 0 for them. */
void sse_reader_feed(struct sse_reader *reader, struct str bytes);

/* 1: an event; 0: all bytes are taken; -EMSGSIZE: a line, or the lines of one event, are over the limit; the reader is of no
 * further use. */
int sse_reader_next(struct sse_reader *reader, struct sse_event *event) MUST_USE;

#endif
