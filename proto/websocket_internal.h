#ifndef PROTO_WEBSOCKET_INTERNAL_H
#define PROTO_WEBSOCKET_INTERNAL_H

#include "proto/websocket.h"

/* What websocket.c (reading), websocket_frame.c (one frame), websocket_utf8.c and websocket_deflate.c share. */

enum {
    WEBSOCKET_HEAD_MAX = 14,
    WEBSOCKET_CONTROL_MAX = 125, /* bytes of a control frame's payload */

    WEBSOCKET_FIN = 0x80, /* in a header's first byte, */
    WEBSOCKET_RSV1 = 0x40,
    WEBSOCKET_RSV2_AND_3 = 0x30,
    WEBSOCKET_OPCODE = 0x0f,
    WEBSOCKET_IS_CONTROL = 0x08,
    WEBSOCKET_MASKED = 0x80, /* and in its second */

    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_NO_CODE = 1005,
    WEBSOCKET_BAD_DATA = 1007,
    WEBSOCKET_TOO_BIG = 1009,
};

/* ---- headers ---- */

/* Adds bytes to a header of which `*have` are there, up to its end; returns how many. It is whole when *have is its
 * websocket_head_size. */
size_t websocket_head_add(unsigned char head[WEBSOCKET_HEAD_MAX], unsigned char *have, const char *bytes,
                          size_t size);
/* As far as `have` bytes tell. */
size_t websocket_head_size(const unsigned char *head, size_t have);
/* Of a whole header: bytes of payload. */
uint64_t websocket_head_length(const unsigned char *head);

/* A number that a close frame may carry (RFC 6455 §7.4, and the registry that it founded). */
bool websocket_code_is_valid(unsigned code);

/* ---- UTF-8 that comes in pieces ---- */

/* Zero: between two characters. */
struct websocket_utf8 {
    unsigned char left; /* bytes of the character still to come */
    unsigned char low;  /* which the next of them has to be at least, */
    unsigned char high; /* and at most */
};
/* False at the first byte after which no valid text can follow. */
bool websocket_utf8_add(struct websocket_utf8 *utf8, const char *bytes, size_t size);

/* ---- what comes in compressed ---- */

struct websocket_inflate;
struct websocket_inflate *websocket_inflate_new(void);
void websocket_inflate_free(struct websocket_inflate *inflate);
/* For a new message. */
void websocket_inflate_begin(struct websocket_inflate *inflate);
/* Appends what `bytes` hold to `out`, which grows to `max` bytes and no further. 0, or the code to close with: 1007,
 * 1009. */
int websocket_inflate_add(struct websocket_inflate *inflate, struct str bytes, struct buf *out, size_t max)
    MUST_USE;
/* The same with what the sender cut off a message's end; 1007 also when the message is not over with it. */
int websocket_inflate_end(struct websocket_inflate *inflate, struct buf *out, size_t max) MUST_USE;

/* Room for `more` bytes: doubles as buf_reserve does, but never takes more memory than `max`. */
char *websocket_reserve(struct buf *buffer, size_t more, size_t max);

/* Frees the calling thread's streams that websocket_compress uses. */
void websocket_deflate_close_thread(void);

#endif
