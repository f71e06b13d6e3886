/* Our answers and chunks have the shapes of the OpenAI API, for both kinds of call. */
#include "proto/ai/ai.h"
#include "proto/ai/write.h"
#include "test/unit/proto/ai/support.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void an_estimate_is_a_fourth_of_the_bytes_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(ai_estimate_tokens(0), 0);
    assert_int_equal(ai_estimate_tokens(1), 1);
    assert_int_equal(ai_estimate_tokens(4), 1);
    assert_int_equal(ai_estimate_tokens(5), 2);
    assert_int_equal(ai_estimate_tokens(UINT64_MAX), AI_TOKENS_MAX);
}

static void reasons_of_all_providers_become_those_of_the_api(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"stop", "stop"},
        {"length", "length"},
        {"tool_calls", "tool_calls"},
        {"end_turn", "stop"},
        {"stop_sequence", "stop"},
        {"max_tokens", "length"},
        {"tool_use", "tool_calls"},
        {"refusal", "content_filter"},
        {"content_filter", "content_filter"},
        {"", "stop"},
        {"eos", "stop"},
        {"SAFETY", "content_filter"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
        assert_string_equal(ai_finish_reason(str_from(pairs[i][0])), pairs[i][1]);
    assert_string_equal(ai_finish_reason(STR_NONE), "stop");
}

static void a_completion_is_the_seeds_answer(void **state)
{
    (void)state;
    struct ai_identity identity = ai_test_identity(AI_COMPLETION);
    struct ai_usage usage = {.prompt_tokens = 5, .completion_tokens = 127};
    struct buf out = {0};
    ai_answer_from_text(&out, &identity, STR("Quantum \"computing\""), "stop", &usage);
    ai_assert_text(
        buf_str(&out),
        "{'id':'ID','object':'text_completion','created':7,'model':'M','choices':[{'text':'Quantum "
        "\\'computing\\'','index':0,'logprobs':null,'finish_reason':'stop'}],'usage':{'prompt_tokens':5,"
        "'completion_tokens':127,'total_tokens':132}}");
    buf_clear(&out);
}

static void a_chat_answer_is_a_message(void **state)
{
    (void)state;
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_usage usage = {.prompt_tokens = 5, .completion_tokens = 2};
    struct buf out = {0};
    ai_usage_tell(&usage, AI_CACHED_TOKENS, 9);
    ai_usage_tell(&usage, AI_REASONING_TOKENS, 1);
    ai_answer_from_text(&out, &identity, STR_NONE, "length", &usage);
    ai_assert_text(buf_str(&out),
                   "{'id':'ID','object':'chat.completion','created':7,'model':'M','choices':[{'index':0,"
                   "'message':{'role':'assistant','content':'','refusal':null},'logprobs':null,"
                   "'finish_reason':'length'}],'usage':{'prompt_tokens':5,'completion_tokens':2,"
                   "'total_tokens':7,'prompt_tokens_details':{'cached_tokens':5},"
                   "'completion_tokens_details':{'reasoning_tokens':1}}}");
    buf_clear(&out);
}

static void chunks(const struct ai_identity *identity, const char *const wanted[4])
{
    struct ai_usage usage = {.prompt_tokens = 5, .completion_tokens = 2};
    for (int i = 0; i < 4; i++) {
        struct buf out = {0};
        if (i < 2)
            ai_chunk_from_text(&out, identity, i == 0, i == 0 ? STR_NONE : STR("Hi"));
        else if (i == 2)
            ai_chunk_finish(&out, identity, "stop");
        else
            ai_chunk_usage(&out, identity, &usage);
        ai_assert_text(buf_str(&out), wanted[i]);
        buf_clear(&out);
    }
}

static void chat_chunks_begin_with_a_role_and_end_with_a_reason(void **state)
{
    (void)state;
    struct ai_identity identity = ai_test_identity(AI_CHAT);
#define HEAD "{'id':'ID','object':'chat.completion.chunk','created':7,'model':'M','choices':["
    static const char *const wanted[] = {
        HEAD "{'index':0,'delta':{'role':'assistant','content':''},'logprobs':null,'finish_reason':null}]}",
        HEAD "{'index':0,'delta':{'content':'Hi'},'logprobs':null,'finish_reason':null}]}",
        HEAD "{'index':0,'delta':{},'logprobs':null,'finish_reason':'stop'}]}",
        HEAD "],'usage':{'prompt_tokens':5,'completion_tokens':2,'total_tokens':7}}",
    };
    chunks(&identity, wanted);
#undef HEAD
}

static void usage_is_null_until_it_comes_where_it_was_wanted(void **state)
{
    (void)state;
    struct ai_identity identity = ai_test_identity(AI_COMPLETION);
    identity.include_usage = true;
#define HEAD "{'id':'ID','object':'text_completion','created':7,'model':'M','choices':["
    static const char *const wanted[] = {
        HEAD "{'text':'','index':0,'logprobs':null,'finish_reason':null}],'usage':null}",
        HEAD "{'text':'Hi','index':0,'logprobs':null,'finish_reason':null}],'usage':null}",
        HEAD "{'text':'','index':0,'logprobs':null,'finish_reason':'stop'}],'usage':null}",
        HEAD "],'usage':{'prompt_tokens':5,'completion_tokens':2,'total_tokens':7}}",
    };
    chunks(&identity, wanted);
#undef HEAD
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_estimate_is_a_fourth_of_the_bytes_rounded_up),
        cmocka_unit_test(reasons_of_all_providers_become_those_of_the_api),
        cmocka_unit_test(a_completion_is_the_seeds_answer),
        cmocka_unit_test(a_chat_answer_is_a_message),
        cmocka_unit_test(chat_chunks_begin_with_a_role_and_end_with_a_reason),
        cmocka_unit_test(usage_is_null_until_it_comes_where_it_was_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
