#ifndef BENCH_TIMES_H
#define BENCH_TIMES_H

/* The clock of the loads in C, and their samples. Inline: each of them is one file that is compiled when it is wanted. */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static inline int times_compare(const void *left, const void *right)
{
    uint32_t one = *(const uint32_t *)left;
    uint32_t other = *(const uint32_t *)right;
    return one < other ? -1 : one > other;
}

/* The percentiles are at their places then. */
static inline void times_sort(uint32_t *times_us, size_t count)
{
    qsort(times_us, count, sizeof *times_us, times_compare);
}

#endif
