/* Regions. */
#include "core/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void memory_is_aligned_and_ones_own(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    unsigned char *pieces[500];
    size_t sizes[500];
    for (size_t i = 0; i < 500; i++) {
        sizes[i] = i % 7 == 0 ? 8192 + i * 31 : i * 3 % 701;
        pieces[i] = arena_alloc(&arena, sizes[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i % 251), sizes[i]);
    }
    for (size_t i = 0; i < 500; i++)
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(pieces[i][k], i % 251);
    arena_clear(&arena);
    arena_thread_clear();
}

/* What fits a block to the last byte, and one byte more. */
static void sizes_around_a_block_fit(void **state)
{
    (void)state;
    for (size_t size = 8192 - 64; size <= 8192 + 64; size++) {
        struct arena arena;
        arena_init(&arena);
        memset(arena_alloc(&arena, size), 1, size);
        memset(arena_alloc(&arena, 1), 2, 1);
        memset(arena_alloc(&arena, size), 3, size);
        memset(arena_alloc(&arena, 8), 4, 8);
        arena_clear(&arena);
    }
    arena_thread_clear();
}

static void a_large_piece_leaves_the_current_block_in_use(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    char *first = arena_alloc(&arena, 16);
    memset(arena_alloc(&arena, 100000), 1, 100000);
    char *second = arena_alloc(&arena, 16);
    assert_ptr_equal(second, first + 16);
    arena_clear(&arena);
    arena_thread_clear();
}

static void blocks_are_used_again(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    char *first = arena_alloc(&arena, 10);
    arena_clear(&arena);
    assert_ptr_equal(arena_alloc(&arena, 10), first);
    arena_clear(&arena);
    arena_clear(&arena);
    for (int i = 0; i < 600; i++) /* more blocks than the thread keeps */
        memset(arena_alloc(&arena, 8000), 1, 8000);
    arena_clear(&arena);
    arena_thread_clear();
    arena_thread_clear();
}

static void zalloc_clears_used_memory(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    memset(arena_alloc(&arena, 4000), 0xff, 4000);
    arena_clear(&arena);
    const char *zeros = arena_zalloc(&arena, 4000);
    for (int i = 0; i < 4000; i++)
        assert_int_equal(zeros[i], 0);
    arena_clear(&arena);
    arena_thread_clear();
}

static void copies_end_with_a_nul(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    assert_string_equal(arena_strdup(&arena, "abc"), "abc");
    assert_string_equal(arena_dup(&arena, "abc", 2), "ab");
    assert_string_equal(arena_dup(&arena, NULL, 0), "");
    struct str copy = arena_str(&arena, STR_NONE);
    assert_non_null(copy.at);
    assert_int_equal(copy.size, 0);
    copy = arena_str(&arena, str_of("a\0b", 3));
    assert_int_equal(copy.size, 3);
    assert_memory_equal(copy.at, "a\0b", 4);
    char long_text[20001];
    memset(long_text, 'x', 20000);
    long_text[20000] = '\0';
    char *printed = arena_printf(&arena, "%s-%d", long_text, 7);
    assert_int_equal(strlen(printed), 20002);
    assert_string_equal(printed + 19999, "x-7");
    arena_clear(&arena);
    arena_thread_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_ones_own),
        cmocka_unit_test(sizes_around_a_block_fit),
        cmocka_unit_test(a_large_piece_leaves_the_current_block_in_use),
        cmocka_unit_test(blocks_are_used_again),
        cmocka_unit_test(zalloc_clears_used_memory),
        cmocka_unit_test(copies_end_with_a_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
