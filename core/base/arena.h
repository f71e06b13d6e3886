#ifndef CORE_BASE_ARENA_H
#define CORE_BASE_ARENA_H

#include "core/base/check.h"
#include "core/base/str.h"

#include <stdarg.h>
#include <stddef.h>

/*
 * A region: memory that is given out piece by piece and taken back all at once. A request has one, and
 * everything that the request makes goes with it. Blocks come from a per-thread cache, so an arena may be
 * used on one thread only. A request beyond the size of a block gets a block of its own.
 */
struct arena_block;

struct arena {
    struct arena_block *blocks; /* the newest first; NULL while nothing was asked for */
    char *next;
    char *end;
};

void arena_init(struct arena *arena);

/* Gives all memory back; the arena can be used again. */
void arena_clear(struct arena *arena);

/* Never NULL. Aligned for any type. */
void *arena_alloc(struct arena *arena, size_t size_bytes) __attribute__((returns_nonnull));
void *arena_zalloc(struct arena *arena, size_t size_bytes) __attribute__((returns_nonnull));

/* Copies end with a NUL that is not counted. */
char *arena_dup(struct arena *arena, const char *bytes, size_t size_bytes) __attribute__((returns_nonnull));
char *arena_strdup(struct arena *arena, const char *text) __attribute__((returns_nonnull));
struct str arena_str(struct arena *arena, struct str text);
char *arena_printf(struct arena *arena, const char *format, ...) PRINTF_LIKE(2, 3)
    __attribute__((returns_nonnull));

/* Gives the calling thread's cached blocks back to the system; called as a loop ends. */
void arena_thread_clear(void);

#endif
