/* What the fuzz targets share: see support.h. */
#include "test/fuzz/support.h"

#include <stdio.h>
#include <stdlib.h>

/* FNV-1a, so that the same input always comes in the same pieces. */
static uint64_t hash(struct str input)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < input.size; i++)
        sum = (sum ^ (unsigned char)input.at[i]) * UINT64_C(0x100000001b3);
    return sum | 1;
}

/* Small ones and larger ones alike. */
static size_t next_size(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return 1 + (*state >> 16) % (UINT64_C(1) << (*state >> 8) % 10);
}

void fuzz_feed(struct str input, enum fuzz_way way, bool (*feed)(void *arg, const char *bytes, size_t size),
               void *arg)
{
    uint64_t state = hash(input);
    bool goes_on = true;
    for (size_t at = 0; at < input.size && goes_on;) {
        size_t left = input.size - at;
        size_t size = way == FUZZ_WHOLE ? left : way == FUZZ_BYTEWISE ? 1 : next_size(&state);
        if (size > left)
            size = left;
        char *exact = mem_alloc(size);
        memcpy(exact, input.at + at, size);
        goes_on = feed(arg, exact, size);
        free(exact);
        at += size;
    }
}

static void show(const char *title, struct str transcript)
{
    fprintf(stderr, "---- %s\n", title);
    fwrite(transcript.at ? transcript.at : "", 1, transcript.size, stderr);
    fputs("\n", stderr);
}

void fuzz_compare(struct str input, void (*run)(struct str input, enum fuzz_way way, struct buf *transcript))
{
    static const struct {
        enum fuzz_way way;
        const char *title;
    } others[] = {{FUZZ_BYTEWISE, "byte by byte"}, {FUZZ_IN_PIECES, "in pieces"}};
    struct buf whole = {0};
    run(input, FUZZ_WHOLE, &whole);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        struct buf other = {0};
        run(input, others[i].way, &other);
        bool same = str_equal(buf_str(&whole), buf_str(&other));
        if (!same) {
            show("whole", buf_str(&whole));
            show(others[i].title, buf_str(&other));
        }
        CHECK(same);
        buf_clear(&other);
    }
    buf_clear(&whole);
}

unsigned fuzz_take_byte(struct str *input)
{
    if (input->size == 0)
        return 0;
    unsigned byte = (unsigned char)input->at[0];
    *input = str_of(input->at + 1, input->size - 1);
    return byte;
}
