#ifndef CORE_NET_STREAM_INTERNAL_H
#define CORE_NET_STREAM_INTERNAL_H

#include "core/net/stream.h"

/* What stream.c (TCP) and stream_tls.c share. */

enum { STREAM_READ_SIZE = 64 * 1024, STREAM_TEXT_SIZE = 16 * 1024 /* a TLS record's */ };

/* What all streams of a loop share. */
struct stream_loop {
    char read[STREAM_READ_SIZE];
    char text[STREAM_TEXT_SIZE];
    struct buf spares[64];
    unsigned spare_count;
    struct link handshakes; /* struct stream_tls: steps that wait for a place on the thread pool */
    unsigned handshakes_running;
};
struct stream_loop *stream_loop(void);

/* Gives what is ready to the socket. False when some is left, it failed, or nothing can be sent now. */
bool stream_send_now(struct stream *stream);
void stream_free_if_done(struct stream *stream);
void stream_say_ended(struct stream *stream, int error);
void stream_update_reading(struct stream *stream);

/* ---- stream_tls.c; each does nothing for a plain stream ---- */

/* Bytes from the socket. */
void stream_tls_bytes(struct stream *stream, const char *bytes, size_t size);
/* Goes on with what can be gone on with: handshake, decryption (while the owner wants bytes), encryption of what is in `out`. */
void stream_tls_go(struct stream *stream);
/* What is to be sent; NULL while a thread works on the session. */
struct buf *stream_tls_wire(struct stream *stream);
size_t stream_tls_queued(const struct stream *stream);
/* So much has come that was not decrypted yet that no more should be read. */
bool stream_tls_is_full(const struct stream *stream);
void stream_tls_goodbye(struct stream *stream);
bool stream_tls_is_working(const struct stream *stream);
/* The stream closes: a step that still waits for its place is not made. */
void stream_tls_forget(struct stream *stream);
void stream_tls_free(struct stream *stream);

#endif
