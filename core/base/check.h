#ifndef CORE_BASE_CHECK_H
#define CORE_BASE_CHECK_H

#include <stddef.h>
#include <stdint.h>

/*
 * Grades of assertion. A CHECK guards our own invariants in every build: when one is broken the process
 * says where and aborts, and its supervisor starts it again. Never CHECK what a peer sent.
 */

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, args_at) __attribute__((format(printf, format_at, args_at)))
#define UNUSED __attribute__((unused))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* The struct of `type` whose member `member` is at `pointer`. */
/* clang-format off */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))
/* clang-format on */

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Ends the process by abort() after one line on stderr. Async-signal-safe but for the formatting. */
_Noreturn void check_failed(const char *file, int line, const char *what);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (UNLIKELY(!(condition)))                                                                          \
            check_failed(__FILE__, __LINE__, #condition);                                                    \
    } while (0)

/* For a case that our own code excludes. */
#define UNREACHABLE() check_failed(__FILE__, __LINE__, "unreachable")

/*
 * Magic numbers: a struct that outlives one function carries one, set by its constructor, checked on entry
 * and zeroed on free, so that a stale pointer is found at once.
 */
#define MAGIC_SET(pointer, value) ((pointer)->magic = (value))
#define MAGIC_CHECK(pointer, value) CHECK((pointer) && (pointer)->magic == (value))
#define MAGIC_CLEAR(pointer) ((pointer)->magic = 0)

/* malloc family that never returns NULL: no memory is a CHECK failure. */
void *mem_alloc(size_t size_bytes) __attribute__((malloc, returns_nonnull, alloc_size(1)));
void *mem_zalloc(size_t size_bytes) __attribute__((malloc, returns_nonnull, alloc_size(1)));
void *mem_realloc(void *old, size_t size_bytes) __attribute__((returns_nonnull));
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull));

#endif
