#ifndef TEST_UNIT_PROTO_WEBSOCKET_SUPPORT_H
#define TEST_UNIT_PROTO_WEBSOCKET_SUPPORT_H

#include "proto/websocket.h"

/* What the tests of proto/websocket.h share. */

/* Reproducible noise. */
uint32_t noise(void);
uint32_t noise_below(uint32_t limit);
void noise_seed(uint32_t seed);

/* Appends a client's frame: its first byte, and the rest masked with noise. */
void put_masked(struct buf *out, unsigned first, struct str payload);

/* Feeds all of it, in pieces of `piece` bytes (0: of any size), each in memory that ends with it, and writes what came to
 * `log`, an event a line: "text Hello", "ping x", "close 1000 bye", "error 1002". Returns how many bytes were fed when an
 * error came, or all. */
size_t feed_all(struct websocket *socket, struct str bytes, size_t piece, struct buf *log);

/* Fails unless a new socket that is fed the bytes says `expected`, whole and in pieces of several sizes. */
void expect(const char *name, size_t message_max, bool deflate, struct str bytes, struct str expected);

/* Counts the bytes that are allocated from now on; the second returns their peak. Always 0 without AddressSanitizer. */
void memory_start(void);
size_t memory_peak(void);

#endif
