/* Regions: see arena.h. Blocks of one size are kept per thread, so a request costs no malloc. */
#include "core/base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

enum {
    BLOCK_SIZE = 8192,
    CACHE_MAX = 256, /* blocks a thread keeps: 2 MiB */
    ALIGNMENT = 16,
};

struct arena_block {
    struct arena_block *older;
    size_t size_bytes; /* with this header */
};

#define HEADER_SIZE ((sizeof(struct arena_block) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

static _Thread_local struct arena_block *cache;
static _Thread_local unsigned cached;

static struct arena_block *block_get(size_t size_bytes)
{
    struct arena_block *block;
    if (size_bytes == BLOCK_SIZE && cache) {
        block = cache;
        ASAN_UNPOISON_MEMORY_REGION(block, BLOCK_SIZE);
        cache = block->older;
        cached--;
        return block;
    }
    block = mem_alloc(size_bytes);
    block->size_bytes = size_bytes;
    return block;
}

static void block_put(struct arena_block *block)
{
    if (block->size_bytes != BLOCK_SIZE || cached >= CACHE_MAX) {
        ASAN_UNPOISON_MEMORY_REGION(block, block->size_bytes);
        free(block);
        return;
    }
    block->older = cache;
    cache = block;
    cached++;
    ASAN_POISON_MEMORY_REGION((char *)block + HEADER_SIZE, BLOCK_SIZE - HEADER_SIZE);
}

void arena_init(struct arena *arena)
{
    arena->blocks = NULL;
    arena->next = NULL;
    arena->end = NULL;
}

void arena_clear(struct arena *arena)
{
    struct arena_block *block = arena->blocks;
    while (block) {
        struct arena_block *older = block->older;
        block_put(block);
        block = older;
    }
    arena_init(arena);
}

static void *alloc_slow(struct arena *arena, size_t size_bytes)
{
    if (size_bytes > BLOCK_SIZE - HEADER_SIZE) {
        /* A block of its own, put behind the current one so that what is left there stays in use. */
        CHECK(size_bytes < SIZE_MAX - HEADER_SIZE);
        struct arena_block *block = block_get(HEADER_SIZE + size_bytes);
        if (arena->blocks) {
            block->older = arena->blocks->older;
            arena->blocks->older = block;
        } else {
            block->older = NULL;
            arena->blocks = block;
        }
        return (char *)block + HEADER_SIZE;
    }
    struct arena_block *block = block_get(BLOCK_SIZE);
    block->older = arena->blocks;
    arena->blocks = block;
    arena->next = (char *)block + HEADER_SIZE;
    arena->end = (char *)block + BLOCK_SIZE;
    void *memory = arena->next;
    arena->next += size_bytes;
    return memory;
}

void *arena_alloc(struct arena *arena, size_t size_bytes)
{
    CHECK(size_bytes < SIZE_MAX - ALIGNMENT);
    size_bytes = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (UNLIKELY((size_t)(arena->end - arena->next) < size_bytes || !arena->next))
        return alloc_slow(arena, size_bytes);
    void *memory = arena->next;
    arena->next += size_bytes;
    return memory;
}

void *arena_zalloc(struct arena *arena, size_t size_bytes)
{
    return memset(arena_alloc(arena, size_bytes), 0, size_bytes);
}

char *arena_dup(struct arena *arena, const char *bytes, size_t size_bytes)
{
    char *copy = arena_alloc(arena, size_bytes + 1);
    if (size_bytes)
        memcpy(copy, bytes, size_bytes);
    copy[size_bytes] = '\0';
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_dup(arena, text, strlen(text));
}

struct str arena_str(struct arena *arena, struct str text)
{
    return str_of(arena_dup(arena, text.at, text.size), text.size);
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(length >= 0);
    char *text = arena_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void arena_thread_clear(void)
{
    while (cache) {
        struct arena_block *block = cache;
        ASAN_UNPOISON_MEMORY_REGION(block, BLOCK_SIZE);
        cache = block->older;
        free(block);
    }
    cached = 0;
}
