/*
 * What permessage-deflate puts in a message (RFC 7692 §7.2), by zlib: raw deflate, flushed to a whole byte by an
 * empty stored block, of which the last four bytes are left out. Each message starts with an empty window.
 */
#include "proto/websocket_internal.h"

#include <limits.h>
#include <stdlib.h>
#define ZLIB_CONST
#include <zlib.h>

enum {
    BITS_MIN = 9, /* zlib writes no raw deflate in smaller windows */
    BITS_MAX = 15,
    TAIL_SIZE = 4,
};

static const char tail[] = "\0\0\xff\xff";

static void *allocate(void *unused, unsigned items, unsigned size)
{
    (void)unused;
    return mem_alloc((size_t)items * size);
}

static void release(void *unused, void *memory)
{
    (void)unused;
    free(memory);
}

/* ---- reading ---- */

struct websocket_inflate {
    z_stream stream;
    bool any;   /* something of the message has come */
    bool whole; /* so far it ends with a whole block, at a whole byte */
};

struct websocket_inflate *websocket_inflate_new(void)
{
    struct websocket_inflate *inflate = mem_zalloc(sizeof *inflate);
    inflate->stream.zalloc = allocate;
    inflate->stream.zfree = release;
    /* The largest window reads what was written in any. */
    CHECK(inflateInit2(&inflate->stream, -BITS_MAX) == Z_OK);
    return inflate;
}

void websocket_inflate_free(struct websocket_inflate *inflate)
{
    if (!inflate)
        return;
    inflateEnd(&inflate->stream);
    free(inflate);
}

void websocket_inflate_begin(struct websocket_inflate *inflate)
{
    CHECK(inflateReset(&inflate->stream) == Z_OK);
    inflate->any = false;
}

/* Inflates into `room`; returns zlib's result and how much was written. */
static int inflate_step(struct websocket_inflate *state, char *room, size_t room_size, size_t *written)
{
    z_stream *stream = &state->stream;
    unsigned limit = room_size < INT_MAX ? (unsigned)room_size : INT_MAX;
    stream->next_out = (unsigned char *)room;
    stream->avail_out = limit;
    int result = inflate(stream, Z_SYNC_FLUSH);
    *written = limit - stream->avail_out;
    /* data_type: bits not used of the last byte, 64 in a last block, 128 after a block's end. Z_BUF_ERROR only says
     * that there was nothing to do; data_type means nothing then. */
    if (result != Z_BUF_ERROR)
        state->whole = result == Z_STREAM_END || stream->data_type == 128;
    return result == Z_BUF_ERROR ? Z_OK : result;
}

/* 0 when all input was taken and written out, or a deflate stream has ended. */
static int inflate_run(struct websocket_inflate *state, struct buf *out, size_t max)
{
    for (;;) {
        /* A full message may still be followed by input that inflates to nothing. */
        char beyond;
        bool full = out->size == max;
        char *room = full ? &beyond : websocket_reserve(out, 1, max);
        size_t end = out->capacity < max ? out->capacity : max;
        size_t written;
        int result = inflate_step(state, room, full ? 1 : end - out->size, &written);
        if (full && written)
            return WEBSOCKET_TOO_BIG;
        out->size += written;
        if (result == Z_STREAM_END) /* another may begin within the same message (§7.2.3.4) */
            return inflateReset(&state->stream);
        if (result != Z_OK)
            return WEBSOCKET_BAD_DATA;
        if (state->stream.avail_out > 0)
            return 0;
    }
}

int websocket_inflate_add(struct websocket_inflate *inflate, struct str bytes, struct buf *out, size_t max)
{
    CHECK(bytes.size <= INT_MAX);
    inflate->stream.next_in = (const unsigned char *)bytes.at;
    inflate->stream.avail_in = (unsigned)bytes.size;
    inflate->any |= bytes.size > 0;
    int code = 0;
    while (inflate->stream.avail_in > 0 && code == 0)
        code = inflate_run(inflate, out, max);
    return code;
}

int websocket_inflate_end(struct websocket_inflate *inflate, struct buf *out, size_t max)
{
    if (!inflate->any) /* no deflate data at all: there is nothing that the four bytes belong to */
        return 0;
    int code = websocket_inflate_add(inflate, str_of(tail, TAIL_SIZE), out, max);
    return code ? code : inflate->whole ? 0 : WEBSOCKET_BAD_DATA;
}

/* ---- writing ---- */

/* A message that starts with an empty window gains little by a longer search: on events of up to 4 KiB level 6 saves at
 * most 3 % more and takes up to 1.7 times as long. */
enum { LEVEL = 1, MEMORY_LEVEL = 8 /* zlib's default */ };

static _Thread_local z_stream *writers[BITS_MAX + 1]; /* by window size */

static z_stream *writer_of(int bits)
{
    CHECK(bits >= BITS_MIN && bits <= BITS_MAX);
    if (writers[bits]) {
        CHECK(deflateReset(writers[bits]) == Z_OK);
        return writers[bits];
    }
    z_stream *stream = mem_zalloc(sizeof *stream);
    stream->zalloc = allocate;
    stream->zfree = release;
    CHECK(deflateInit2(stream, LEVEL, Z_DEFLATED, -bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK);
    writers[bits] = stream;
    return stream;
}

bool websocket_compress(struct buf *out, struct str payload, int bits)
{
    if (payload.size > INT_MAX)
        return false;
    /* Room for a result that is as long as the payload: when it gets full, there is no gain. */
    size_t room = payload.size + TAIL_SIZE;
    z_stream *stream = writer_of(bits);
    stream->next_in = (const unsigned char *)payload.at;
    stream->avail_in = (unsigned)payload.size;
    stream->next_out = (unsigned char *)buf_reserve(out, room);
    stream->avail_out = (unsigned)room;
    int result = deflate(stream, Z_SYNC_FLUSH);
    CHECK(result == Z_OK || result == Z_BUF_ERROR);
    if (stream->avail_out == 0)
        return false;
    out->size += room - stream->avail_out - TAIL_SIZE;
    return true;
}

void websocket_deflate_close_thread(void)
{
    for (int bits = BITS_MIN; bits <= BITS_MAX; bits++) {
        if (writers[bits])
            deflateEnd(writers[bits]);
        free(writers[bits]);
        writers[bits] = NULL;
    }
}
