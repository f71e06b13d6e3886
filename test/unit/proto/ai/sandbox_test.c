/* The sandbox: the same answer to the same request, within what was asked for. */
#include "proto/ai/sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

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
    return 0;
}

static struct sandbox_answer answer_to(enum ai_kind kind, const char *body, int64_t answer_tokens,
                                       int64_t most)
{
    struct ai_request request;
    struct ai_refusal refusal;
    struct sandbox_answer answer;
    const struct sandbox_options options = {.answer_tokens = answer_tokens, .stall_after = -1};
    assert_int_equal(ai_request_parse(&arena, kind, str_from(body), &request, &refusal), 0);
    sandbox_answer(&arena, &request, &options, most, &answer);
    return answer;
}

static void check(const struct sandbox_answer *answer, const char *text, int64_t tokens, const char *reason)
{
    if (!str_equal(answer->text, str_from(text)))
        fail_msg("%.*s", STR_ARG(answer->text));
    assert_int_equal(answer->usage.completion_tokens, tokens);
    assert_string_equal(answer->finish_reason, reason);
}

#define HELLO                                                                                                               \
    "{\"model\":\"gpt-4\",\"messages\":[{\"role\":\"user\",\"content\":\"no\"},{\"role\":\"assistant\",\"content\":\"x\"}," \
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hello there\"}]}]"

static void it_says_what_it_is_and_what_was_said(void **state)
{
    (void)state;
    struct sandbox_answer answer = answer_to(AI_CHAT, HELLO "}", 0, 100);
    check(&answer, "This is the sandbox of Wakegate, in place of gpt-4. You said: Hello there", 14, "stop");
    assert_true(answer.usage.prompt_tokens > 0);
    answer = answer_to(AI_COMPLETION, "{\"model\":\"m\",\"prompt\":\"Hi\"}", 0, 100);
    check(&answer, "This is the sandbox of Wakegate, in place of m. You said: Hi", 13, "stop");
}

static void it_keeps_within_max_tokens(void **state)
{
    (void)state;
    struct sandbox_answer answer = answer_to(AI_CHAT, HELLO "}", 0, 3);
    check(&answer, "This is the", 3, "length");
    answer = answer_to(AI_CHAT, HELLO "}", 0, 14);
    assert_string_equal(answer.finish_reason, "stop");
}

static void it_ends_before_a_stop_sequence(void **state)
{
    (void)state;
    struct sandbox_answer answer = answer_to(AI_CHAT, HELLO ",\"stop\":[\" place\",\"nothing\"]}", 0, 100);
    check(&answer, "This is the sandbox of Wakegate, in", 7, "stop");
}

static void it_is_as_long_as_it_is_told(void **state)
{
    (void)state;
    struct sandbox_answer answer = answer_to(AI_CHAT, HELLO "}", 50, 1000);
    assert_int_equal(answer.usage.completion_tokens, 50);
    assert_string_equal(answer.finish_reason, "stop");
    answer = answer_to(AI_CHAT, HELLO "}", 1000000, 20);
    assert_int_equal(answer.usage.completion_tokens, 20);
    assert_string_equal(answer.finish_reason, "length");
    answer = answer_to(AI_CHAT, HELLO "}", 4, 100);
    check(&answer, "This is the sandbox", 4, "stop");
}

static void pieces_are_words_and_make_up_the_text(void **state)
{
    (void)state;
    struct str rest = STR("one  two\nthree ");
    struct str piece;
    static const char *const pieces[] = {"one", "  two", "\nthree", " "};
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
        assert_true(sandbox_next_piece(&rest, &piece));
        assert_true(str_equal(piece, str_from(pieces[i])));
    }
    assert_false(sandbox_next_piece(&rest, &piece));
}

static void models_of_its_own_misbehave(void **state)
{
    (void)state;
    struct sandbox_options options = {.stall_after = -1};
    sandbox_take_model(&options, STR("sandbox"));
    assert_true(options.delay_ms == 0 && options.fail_status == 0 && options.stall_after == -1);
    sandbox_take_model(&options, STR("sandbox-slow"));
    sandbox_take_model(&options, STR("sandbox-fail"));
    sandbox_take_model(&options, STR("sandbox-stall"));
    assert_true(options.delay_ms > 0 && options.chunk_ms > 0 && options.fail_status == 503 &&
                options.stall_after > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_says_what_it_is_and_what_was_said, setup, teardown),
        cmocka_unit_test_setup_teardown(it_keeps_within_max_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(it_ends_before_a_stop_sequence, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_as_long_as_it_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(pieces_are_words_and_make_up_the_text, setup, teardown),
        cmocka_unit_test(models_of_its_own_misbehave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
