#ifndef PROTO_WEBSOCKET_H
#define PROTO_WEBSOCKET_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * WebSocket (RFC 6455) and permessage-deflate (RFC 7692), the server's side, without I/O. wslay reads the frames'
 * headers and unmasks; messages, control frames, UTF-8, compression and close codes are here.
 *
 * A connection that is between two messages costs sizeof(struct websocket) and nothing else: what is needed to read a
 * frame is taken from the thread's spares when its first byte comes, and given back after its last. Compression never
 * keeps a window from one message to the next (both *_no_context_takeover), for the same reason, and so that one
 * compressed message serves any number of receivers.
 */

/* ---- the opening handshake (RFC 6455 §4) ---- */

enum { WEBSOCKET_ACCEPT_SIZE = 29 /* 28 characters and NUL */ };

/* True for 16 bytes in base64. */
bool websocket_key_is_valid(struct str key);
/* Sec-WebSocket-Accept. */
void websocket_accept(struct str key, char out[WEBSOCKET_ACCEPT_SIZE]);

/* permessage-deflate as agreed. */
struct websocket_deflate {
    bool on;
    int server_bits; /* window of what we send, 9 to 15 */
};
/*
 * Picks the first offer of a Sec-WebSocket-Extensions value (all fields of that name, joined by commas) that we can
 * meet and writes the answer's value to `answer`. Offers that are malformed, repeat a parameter or have unknown ones are
 * declined, as are windows of 8 bits, which zlib can't write raw. False and deflate->on == false when none fits.
 */
bool websocket_negotiate(struct str offers, struct websocket_deflate *deflate, struct buf *answer);

/* ---- reading ---- */

enum websocket_opcode {
    WEBSOCKET_CONTINUATION = 0,
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY = 2,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING = 9,
    WEBSOCKET_PONG = 10,
};

enum websocket_event {
    WEBSOCKET_MORE,    /* all bytes were taken; more are needed */
    WEBSOCKET_MESSAGE, /* a whole text or binary message */
    WEBSOCKET_CONTROL, /* a whole ping, pong or close */
    WEBSOCKET_ERROR,   /* close with `code`; the connection is of no further use */
};

struct websocket_input {
    enum websocket_opcode opcode;
    struct str payload; /* until the next call; a close frame's reason, without its code */
    int code;           /* of a close frame (1005: it had none), or of an error: 1002, 1007, 1009 */
};

struct websocket {
    struct websocket_reader *reader; /* NULL between messages */
    size_t message_max;              /* bytes of a message, inflated: beyond it 1009 */
    struct websocket_deflate deflate;
    bool closed; /* a close frame was read, or an error found: what follows is taken and ignored */
};

void websocket_init(struct websocket *socket, size_t message_max, struct websocket_deflate deflate);
void websocket_clear(struct websocket *socket);
/* Takes bytes up to the next event and returns how many. Text is checked as it comes: 1007 at the first bad byte of an
 * uncompressed message, not at its end. Bytes held are bounded by message_max, however many fragments there are. Call it
 * until it says WEBSOCKET_MORE, with no bytes if none are left: only then is an event's memory given back. */
size_t websocket_feed(struct websocket *socket, const char *bytes, size_t size, enum websocket_event *event,
                      struct websocket_input *input);
/* Frees the calling thread's spares. */
void websocket_close_thread(void);

/* ---- writing: frames of a server are not masked, so the same bytes serve every receiver ---- */

/* Appends one whole frame. `compressed`: the payload is websocket_deflate's output. */
void websocket_put_frame(struct buf *out, enum websocket_opcode opcode, struct str payload, bool compressed);
/* Appends a close frame; `reason` at most 123 bytes, cut at a character otherwise. Code 1005 or 1006: an empty one. */
void websocket_put_close(struct buf *out, int code, struct str reason);
/* Appends the payload compressed in a window of `bits`. False when that would not make it shorter: send it plain. */
bool websocket_compress(struct buf *out, struct str payload, int bits);

/* ---- looking on: frames that pass through a tunnel, in either direction ---- */

/* Counts data frames (text, binary, continuation) in a stream of frames without keeping any. Zero-initialise. */
struct websocket_scan {
    uint64_t left; /* payload bytes of the present frame still to come */
    unsigned char head[14];
    unsigned char have; /* of head */
    bool broken;        /* it was no frame: nothing is counted from there on */
};
/* True when a data frame has begun or gone on within these bytes; pings, pongs and closes don't count. */
bool websocket_scan(struct websocket_scan *scan, const char *bytes, size_t size);

#endif
