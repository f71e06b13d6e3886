/* Assertions and the allocator that does not fail. */
#include "core/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Noreturn void check_failed(const char *file, int line, const char *what)
{
    char text[512];
    int length = snprintf(text, sizeof text,
                          "{\"level\":\"fatal\",\"msg\":\"check failed\",\"at\":\"%s:%d\",\"what\":\"%s\"}\n",
                          file, line, what);
    if (length > 0) {
        size_t size = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
        ssize_t ignored = write(STDERR_FILENO, text, size);
        (void)ignored;
    }
    abort();
}

void *mem_alloc(size_t size_bytes)
{
    void *memory = malloc(size_bytes ? size_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

void *mem_zalloc(size_t size_bytes)
{
    void *memory = calloc(1, size_bytes ? size_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

void *mem_realloc(void *old, size_t size_bytes)
{
    void *memory = realloc(old, size_bytes ? size_bytes : 1);
    CHECK(memory != NULL);
    return memory;
}

char *mem_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size);
    memcpy(copy, text, size);
    return copy;
}
