/* What is kept of an endpoint's answer. */
#include "workers/webhook_send.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MARK "\xef\xbf\xbd"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_clear(&arena);
    arena_thread_clear();
    return 0;
}

static void keeps(struct str body, struct str kept)
{
    struct str found = webhook_answer_kept(&arena, body);
    assert_int_equal(found.size, kept.size);
    assert_true(str_equal(found, kept));
}

static void text_is_kept_as_it_is(void **state)
{
    (void)state;
    keeps(STR("ok"), STR("ok"));
    keeps(STR("\xc3\xa4 \xe4\xb8\xad \xf0\x9f\x9a\x80"), STR("\xc3\xa4 \xe4\xb8\xad \xf0\x9f\x9a\x80"));
    assert_null(webhook_answer_kept(&arena, STR("")).at);
}

static void what_is_no_text_is_marked(void **state)
{
    (void)state;
    keeps(STR("a\0b"), STR("a" MARK "b"));
    keeps(STR("\xff\xfe"), STR(MARK MARK));
    keeps(STR("\xc3"), STR(MARK));                   /* cut off */
    keeps(STR("\xed\xa0\x80"), STR(MARK MARK MARK)); /* a surrogate */
    keeps(STR("\xc0\x80"), STR(MARK MARK));          /* too long for what it says */
    keeps(STR("\xf0\x9f\x9a"
              "x"),
          STR(MARK MARK MARK "x"));
}

static void no_more_is_kept_than_four_kibibytes_and_no_half_of_a_character(void **state)
{
    static char body[8192];
    (void)state;
    memset(body, 'x', sizeof body);
    assert_int_equal(webhook_answer_kept(&arena, str_of(body, sizeof body)).size, WEBHOOK_ANSWER_KEPT);
    memcpy(body + WEBHOOK_ANSWER_KEPT - 1, "\xc3\xa4", 2);
    assert_int_equal(webhook_answer_kept(&arena, str_of(body, sizeof body)).size, WEBHOOK_ANSWER_KEPT - 1);
    memset(body, 0xff, sizeof body);
    struct str marked = webhook_answer_kept(&arena, str_of(body, sizeof body));
    assert_true(marked.size <= WEBHOOK_ANSWER_KEPT && marked.size > WEBHOOK_ANSWER_KEPT - 3 &&
                str_is_utf8(marked));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_kept_as_it_is),
        cmocka_unit_test(what_is_no_text_is_marked),
        cmocka_unit_test(no_more_is_kept_than_four_kibibytes_and_no_half_of_a_character),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
