#ifndef TEST_FUZZ_SUPPORT_H
#define TEST_FUZZ_SUPPORT_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the fuzz targets share. A target is one test/fuzz/NAME.c with an LLVMFuzzerTestOneInput; what it CHECKs is what
 * must hold for any input. Its seeds are in test/fuzz/corpus/NAME/, its words, where it has some, in NAME.dict.
 */

/* libFuzzer's entry points; a target defines the first, and the second where it has something to do once. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* How bytes come in: all at once, one by one, or in pieces of sizes that follow from the input. */
enum fuzz_way { FUZZ_WHOLE, FUZZ_BYTEWISE, FUZZ_IN_PIECES };

/* Hands the input over piece by piece until `feed` returns false. Each piece is in a heap block of exactly its size,
 * which is gone when `feed` has returned: a look beyond it or back at it is seen. */
void fuzz_feed(struct str input, enum fuzz_way way, bool (*feed)(void *arg, const char *bytes, size_t size),
               void *arg);

/* Runs the input in all ways; what `run` writes down of each has to be the same. */
void fuzz_compare(struct str input, void (*run)(struct str input, enum fuzz_way way, struct buf *transcript));

/* Takes the first byte off the input; 0 when it is empty. */
unsigned fuzz_take_byte(struct str *input);

#endif
