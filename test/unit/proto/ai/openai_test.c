/* Providers that speak as OpenAI does: what they are sent, and what of theirs reaches our clients. */
#include "proto/ai/openai.h"
#include "test/unit/proto/ai/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct ai_upstream plain = {.model = {"up", 2}, .max_tokens = 100};
static const struct ai_upstream streaming = {.model = {"up", 2}, .max_tokens = 100, .stream = true};
static const struct ai_upstream native = {.model = {"up", 2}, .max_tokens = 100, .native_completions = true};
static const struct ai_upstream reasoning = {.model = {"openai/o3-mini", 14}, .max_tokens = 100};

#define MESSAGES "'messages':[{'role':'user','content':'Hi'}]"

/* ---- requests ---- */

static void written(enum ai_kind kind, const char *body, const struct ai_upstream *upstream,
                    const char *wanted)
{
    ai_assert_written(&ai_openai, kind, body, upstream, wanted);
}

static void a_chat_goes_on_as_it_is_with_the_providers_model(void **state)
{
    (void)state;
    written(AI_CHAT, "{'model':'m'," MESSAGES "}", &plain, "{'model':'up'," MESSAGES ",'max_tokens':100}");
    written(
        AI_CHAT,
        "{'temperature':0.70,'top_p':1e-1,'n':2,'stop':['a','b'],'seed':-9223372036854775808,'model':'m',"
        "'presence_penalty':-2,'logit_bias':{'5':-100},'logprobs':true,'top_logprobs':3,'user':'u'," MESSAGES
        ",'tools':[{'type':'function','function':{'name':'f','parameters':{'type':'object'}}}],"
        "'tool_choice':'required','parallel_tool_calls':false,'max_completion_tokens':9,'store':false}",
        &plain,
        "{'model':'up'," MESSAGES ",'max_completion_tokens':9,'temperature':0.70,'top_p':1e-1,'n':2,"
        "'stop':['a','b'],'seed':-9223372036854775808,'presence_penalty':-2,'logit_bias':{'5':-100},"
        "'logprobs':true,'top_logprobs':3,'user':'u','tools':[{'type':'function','function':{'name':'f',"
        "'parameters':{'type':'object'}}}],'tool_choice':'required','parallel_tool_calls':false,"
        "'store':false}");
}

static void what_is_ours_and_what_is_null_stays_here(void **state)
{
    (void)state;
    written(AI_CHAT, "{'model':'m'," MESSAGES ",'cache':true,'stream':false,'temperature':null,'stop':null}",
            &plain, "{'model':'up'," MESSAGES ",'max_tokens':100}");
}

static void an_answer_goes_back_as_the_model_said_it(void **state)
{
    (void)state;
    written(
        AI_CHAT,
        "{'model':'m','messages':[{'content':null,'role':'assistant','refusal':null,'annotations':[],'parsed':null,"
        "'tool_calls':[{'index':0,'id':'c','function':{'name':'f','arguments':'{}','parsed_arguments':{}},"
        "'type':'function'},{'id':'d','type':'custom','custom':{'name':'g','input':'x'}}]},{'role':'tool',"
        "'tool_call_id':'c','content':'r'}]}",
        &plain,
        "{'model':'up','messages':[{'role':'assistant','content':null,'tool_calls':[{'id':'c','type':'function',"
        "'function':{'name':'f','arguments':'{}'}},{'id':'d','type':'custom','custom':{'name':'g','input':'x'}}]},"
        "{'role':'tool','tool_call_id':'c','content':'r'}],'max_tokens':100}");
}

static void a_stream_always_asks_for_its_usage(void **state)
{
    (void)state;
    written(AI_CHAT, "{'model':'m'," MESSAGES "}", &streaming,
            "{'model':'up'," MESSAGES
            ",'max_tokens':100,'stream':true,'stream_options':{'include_usage':true}}");
    written(AI_CHAT,
            "{'model':'m'," MESSAGES
            ",'stream':true,'stream_options':{'include_usage':false,'include_obfuscation':false}}",
            &streaming,
            "{'model':'up'," MESSAGES
            ",'max_tokens':100,'stream':true,'stream_options':{'include_usage':true,"
            "'include_obfuscation':false}}");
}

static void a_prompt_becomes_a_message(void **state)
{
    (void)state;
    written(AI_COMPLETION, "{'model':'m','prompt':'Hi','max_tokens':7,'temperature':0.7,'stop':'x'}", &plain,
            "{'model':'up'," MESSAGES ",'max_tokens':7,'temperature':0.7,'stop':'x'}");
    written(AI_COMPLETION, "{'model':'m','prompt':['Hi'],'best_of':1,'echo':false}", &plain,
            "{'model':'up'," MESSAGES ",'max_tokens':100}");
    written(AI_COMPLETION, "{'model':'m','prompt':'Hi','logprobs':2}", &plain, "!logprobs");
}

static void a_prompt_stays_one_where_the_provider_takes_it(void **state)
{
    (void)state;
    written(AI_COMPLETION, "{'model':'m','prompt':'Hi','logprobs':2}", &native,
            "{'model':'up','prompt':'Hi','max_tokens':100,'logprobs':2}");
    assert_string_equal(ai_openai.path(AI_COMPLETION, true), "/completions");
    assert_string_equal(ai_openai.path(AI_COMPLETION, false), "/chat/completions");
    assert_string_equal(ai_openai.path(AI_CHAT, true), "/chat/completions");
}

static void the_limit_of_tokens_has_the_name_that_the_model_knows(void **state)
{
    (void)state;
    written(AI_CHAT, "{'model':'m'," MESSAGES "}", &reasoning,
            "{'model':'openai/o3-mini'," MESSAGES ",'max_completion_tokens':100}");
    written(AI_COMPLETION, "{'model':'m','prompt':'Hi','max_tokens':3}", &reasoning,
            "{'model':'openai/o3-mini'," MESSAGES ",'max_completion_tokens':3}");
    written(AI_CHAT, "{'model':'m'," MESSAGES ",'max_tokens':3}", &reasoning,
            "{'model':'openai/o3-mini'," MESSAGES ",'max_tokens':3}");
}

static void a_key_is_a_bearer_token(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    const char *const *headers = ai_openai.headers(&arena, STR("k"), true);
    assert_string_equal(headers[0], "Content-Type: application/json");
    assert_string_equal(headers[1], "Accept: text/event-stream");
    assert_string_equal(headers[2], "Authorization: Bearer k");
    assert_null(headers[3]);
    assert_null(ai_openai.headers(&arena, STR_NONE, false)[2]);
    arena_clear(&arena);
}

/* ---- answers ---- */

#define CHAT_HEAD "{'id':'ID','object':'chat.completion','created':7,'model':'M','choices':["
#define TEXT_HEAD "{'id':'ID','object':'text_completion','created':7,'model':'M','choices':["
#define USAGE(p, c, t) "'usage':{'prompt_tokens':" #p ",'completion_tokens':" #c ",'total_tokens':" #t "}"

static struct ai_answer answered(enum ai_kind kind, unsigned choices, const char *body, const char *wanted)
{
    struct ai_answer answer = {.finish_reason = NULL};
    struct ai_identity identity = ai_test_identity(kind);
    identity.choices = choices;
    ai_assert_answer(&ai_openai, &identity, body, wanted, &answer);
    return answer;
}

static void an_answer_has_our_name_and_the_providers_content(void **state)
{
    (void)state;
    struct ai_answer answer = answered(
        AI_CHAT, 1,
        "{'id':'chatcmpl-x','object':'chat.completion','created':1,'model':'gpt','choices':[{'index':0,"
        "'message':{'role':'assistant','content':'Hi','refusal':null,'annotations':[]},'logprobs':{'content':[]},"
        "'finish_reason':'length'}],'usage':{'prompt_tokens':9,'completion_tokens':2,'total_tokens':11,"
        "'prompt_tokens_details':{'cached_tokens':4,'audio_tokens':0},'completion_tokens_details':"
        "{'reasoning_tokens':1}},'service_tier':'default','system_fingerprint':'fp'}",
        CHAT_HEAD "{'index':0,'message':{'role':'assistant','content':'Hi','refusal':null,'annotations':[]},"
                  "'logprobs':{'content':[]},'finish_reason':'length'}],'usage':{'prompt_tokens':9,"
                  "'completion_tokens':2,'total_tokens':11,'prompt_tokens_details':{'cached_tokens':4,"
                  "'audio_tokens':0},'completion_tokens_details':{'reasoning_tokens':1}},"
                  "'service_tier':'default','system_fingerprint':'fp'}");
    assert_string_equal(answer.finish_reason, "length");
    assert_int_equal(answer.usage.prompt_tokens, 9);
    assert_int_equal(answer.usage.completion_tokens, 2);
    assert_int_equal(answer.usage.details[AI_CACHED_TOKENS], 4);
    assert_false(answer.usage.estimated);
}

static void tool_calls_go_through(void **state)
{
    (void)state;
    answered(
        AI_CHAT, 1,
        "{'choices':[{'message':{'content':null,'tool_calls':[{'id':'c1','type':'function','function':"
        "{'name':'f','arguments':'{}'}},{'function':{'name':'g','arguments':{'a':1}}},{'id':'c3','custom':"
        "{'name':'h','input':'x'}},{'id':'c4'},7]},'finish_reason':'tool_calls'}]," USAGE(1, 1, 2) "}",
        CHAT_HEAD "{'index':0,'message':{'role':'assistant','content':null,'refusal':null,'tool_calls':["
                  "{'id':'c1','type':'function','function':{'name':'f','arguments':'{}'}},"
                  "{'id':'call_1','type':'function','function':{'name':'g','arguments':'{\\'a\\':1}'}},"
                  "{'id':'c3','type':'custom','custom':{'name':'h','input':'x'}}]},'logprobs':null,"
                  "'finish_reason':'tool_calls'}]," USAGE(1, 1, 2) "}");
}

static void a_completion_is_read_from_a_chat_and_from_a_text(void **state)
{
    (void)state;
    static const char wanted[] =
        TEXT_HEAD "{'text':'Hi','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(1, 2, 3) "}";
    answered(AI_COMPLETION, 1,
             "{'choices':[{'index':0,'message':{'content':'Hi'},'logprobs':{'content':[]},"
             "'finish_reason':'stop'}]," USAGE(1, 2, 3) "}",
             wanted);
    answered(AI_COMPLETION, 1,
             "{'choices':[{'index':0,'text':'Hi','finish_reason':'stop'}]," USAGE(1, 2, 3) "}", wanted);
    answered(
        AI_COMPLETION, 1,
        "{'choices':[{'text':'Hi','logprobs':{'tokens':['Hi']},'finish_reason':'stop'}]," USAGE(1, 2, 3) "}",
        TEXT_HEAD
        "{'text':'Hi','index':0,'logprobs':{'tokens':['Hi']},'finish_reason':'stop'}]," USAGE(1, 2, 3) "}");
}

/* Content in parts, arguments that are unpacked, another name for reasoning: what only looks like OpenAI's. */
static void what_is_only_like_an_answer_is_made_one(void **state)
{
    (void)state;
    answered(
        AI_CHAT, 1,
        "{'choices':[{'message':{'content':[{'type':'text','text':'a'},{'type':'x'},{'type':'text','text':'b'}],"
        "'reasoning':'r','refusal':7,'annotations':{}},'finish_reason':'eos'}],'usage':{'prompt_tokens':9,"
        "'completion_tokens':1,'prompt_cache_hit_tokens':3}}",
        CHAT_HEAD
        "{'index':0,'message':{'role':'assistant','content':'ab','refusal':null,"
        "'reasoning_content':'r'},'logprobs':null,'finish_reason':'stop'}],'usage':{'prompt_tokens':9,"
        "'completion_tokens':1,'total_tokens':10,'prompt_tokens_details':{'cached_tokens':3}}}");
}

static void tool_calls_are_bounded(void **state)
{
    (void)state;
    const char *head = "{'choices':[{'message':{'tool_calls':[";
    const char *call = "{'id':'t','function':{'name':'f','arguments':''}}";
    assert_int_equal(ai_count_calls(&ai_openai, head, call, AI_TOOL_CALLS_MAX, "]}}]}"), AI_TOOL_CALLS_MAX);
    assert_int_equal(ai_count_calls(&ai_openai, head, call, 1000, "]}}]}"), AI_TOOL_CALLS_MAX);
}

static void one_count_of_two_is_an_estimate_too(void **state)
{
    (void)state;
    assert_true(
        answered(AI_COMPLETION, 1, "{'choices':[{'text':'Hello'}],'usage':{'prompt_tokens':9}}",
                 TEXT_HEAD
                 "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(9, 2, 11) "}")
            .usage.estimated);
    assert_true(
        answered(AI_COMPLETION, 1, "{'choices':[{'text':'Hello'}],'usage':{'completion_tokens':9}}",
                 TEXT_HEAD
                 "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(5, 9, 14) "}")
            .usage.estimated);
}

static void only_the_choices_that_were_asked_for_are_given(void **state)
{
    (void)state;
    answered(AI_COMPLETION, 2,
             "{'choices':[{'index':1,'text':'b'},{'index':0,'text':'a'},{'index':2,'text':'c'},"
             "{'index':-1,'text':'d'},{'index':99999999999999999999,'text':'e'}]," USAGE(1, 2, 3) "}",
             TEXT_HEAD "{'text':'a','index':0,'logprobs':null,'finish_reason':'stop'},"
                       "{'text':'b','index':1,'logprobs':null,'finish_reason':'stop'}]," USAGE(1, 2, 3) "}");
}

static void counts_that_can_not_be_are_estimated(void **state)
{
    (void)state;
    static const char *const usages[] = {
        "null",
        "7",
        "[]",
        "{}",
        "{'prompt_tokens':-1,'completion_tokens':-1}",
        "{'prompt_tokens':'9','completion_tokens':1.5}",
        "{'prompt_tokens':1e9,'completion_tokens':99999999999999999999}",
        "{'prompt_tokens':1000000001,'completion_tokens':9223372036854775807}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(usages); i++) {
        char body[256];
        snprintf(body, sizeof body, "{'choices':[{'text':'Hello'}],'usage':%s}", usages[i]);
        struct ai_answer answer = answered(
            AI_COMPLETION, 1, body,
            TEXT_HEAD
            "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(5, 2, 7) "}");
        assert_true(answer.usage.estimated);
    }
}

static void what_is_no_answer_is_a_failure(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        "{'choices':null}",
        "{'choices':[]}",
        "{'choices':{'index':0,'text':'a'}}",
        "{'choices':[null]}",
        "{'choices':[{'index':0}]}",
        "{'choices':[{'index':1,'text':'a'}]}",
        "{'choices':[{'text':NaN}]}",
        "{'choices':[{'text':'a'}],'choices':[]}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
        answered(AI_COMPLETION, 1, bodies[i], "!provider_error");
}

static void an_error_may_come_with_a_good_status(void **state)
{
    (void)state;
    answered(AI_CHAT, 1, "{'error':{'message':'x','code':429}}", "!provider_rate_limited");
    answered(AI_CHAT, 1, "{'error':{'message':'x','code':'context_length_exceeded'}}",
             "!context_length_exceeded");
    answered(AI_CHAT, 1, "{'object':'error','message':'x','type':'BadRequestError','code':400}",
             "!invalid_request");
    answered(AI_CHAT, 1, "{'error':'boom'}", "!provider_error");
}

/* ---- streams ---- */

#define CHAT_CHUNK "{'id':'ID','object':'chat.completion.chunk','created':7,'model':'M','choices':["
#define DELTA(delta, reason) "{'index':0,'delta':{" delta "},'logprobs':null,'finish_reason':" reason "}"

static struct ai_stream streamed(const struct ai_identity *identity, const char *const *events,
                                 const char *wanted)
{
    struct ai_stream stream;
    ai_assert_stream(&ai_openai, identity, events, wanted, &stream);
    return stream;
}

static void chunks_have_our_name_and_the_providers_content(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'id':'x','choices':[{'index':0,'delta':{'role':'assistant','content':'','refusal':null},"
        "'finish_reason':null}],'usage':null,'obfuscation':'zzz'}",
        "{'choices':[{'index':0,'delta':{'content':'Hello'}}]}",
        "{'choices':[{'index':0,'delta':{},'finish_reason':'stop'}]}",
        "{'choices':[],'usage':{'prompt_tokens':9,'completion_tokens':1}}",
        "[DONE]",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream =
        streamed(&identity, events,
                 CHAT_CHUNK DELTA("'role':'assistant','content':''", "null") "]}\n" CHAT_CHUNK DELTA(
                     "'content':'Hello'", "null") "]}\n" CHAT_CHUNK DELTA("", "'stop'") "]}\nEND");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_true(ai_stream_is_whole(&stream));
    assert_string_equal(stream.finish_reason, "stop");
    assert_int_equal(stream.bytes, 5);
    assert_int_equal(usage.prompt_tokens, 9);
    assert_int_equal(usage.completion_tokens, 1);
    assert_false(usage.estimated);
}

static void a_stream_that_is_cut_off_costs_what_was_delivered(void **state)
{
    (void)state;
    static const char *const events[] = {"{'choices':[{'delta':{'content':'Hello'}}]}", NULL};
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream = streamed(
        &identity, events, CHAT_CHUNK DELTA("'role':'assistant','content':'Hello'", "null") "]}\nMORE");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_false(ai_stream_is_whole(&stream));
    assert_null(stream.finish_reason);
    assert_int_equal(usage.prompt_tokens, 5);
    assert_int_equal(usage.completion_tokens, 2);
    assert_true(usage.estimated);
}

static void a_streamed_completion_is_pieces_of_text(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'index':0,'delta':{'role':'assistant','content':''}}]}",
        "{'choices':[{'index':0,'delta':{'content':'Hi'}}]}",
        "{'choices':[{'index':0,'text':'!','finish_reason':'length'}]}",
        "{'choices':[{'index':0,'text':'more'}]}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_COMPLETION);
    identity.include_usage = true;
    struct ai_stream stream = streamed(
        &identity, events,
        TEXT_HEAD "{'text':'Hi','index':0,'logprobs':null,'finish_reason':null}],'usage':null}\n" TEXT_HEAD
                  "{'text':'!','index':0,'logprobs':null,'finish_reason':'length'}],'usage':null}\nMORE");
    assert_true(ai_stream_is_whole(&stream));
    assert_int_equal(stream.bytes, 3);
}

static void tool_calls_come_in_pieces(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'delta':{'role':'assistant','content':null,'tool_calls':[{'index':0,'id':'c','type':'function',"
        "'function':{'name':'f','arguments':''}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'index':0,'function':{'arguments':'{}'}},{'index':128,'id':'x'},"
        "{'index':-1,'id':'x'},{'index':1}]}}]}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream = streamed(
        &identity, events,
        CHAT_CHUNK DELTA(
            "'role':'assistant','tool_calls':[{'index':0,'id':'c','type':'function','function':"
            "{'name':'f','arguments':''}}]",
            "null") "]}\n" CHAT_CHUNK DELTA("'tool_calls':[{'index':0,'function':{'arguments':'{}'}}]",
                                            "null") "]}\nMORE");
    assert_int_equal(stream.bytes, 3);
}

#define CALL_CHUNK(calls) CHAT_CHUNK DELTA("'tool_calls':[" calls "]", "null") "]}\n"

static void calls_of_one_number_are_told_apart_by_their_ids(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'delta':{'role':'assistant','tool_calls':[{'index':0,'id':'a','function':{'name':'f','arguments':'{}'}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'index':0,'id':'b','function':{'name':'g','arguments':'['}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'index':0,'function':{'arguments':']'}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'id':'c','function':{'name':'h','arguments':'1'}}]}}]}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    streamed(
        &identity, events,
        CHAT_CHUNK DELTA("'role':'assistant','tool_calls':[{'index':0,'id':'a','type':'function','function':"
                         "{'name':'f','arguments':'{}'}}]",
                         "null") "]}\n" //
        CALL_CHUNK("{'index':1,'id':'b','type':'function','function':{'name':'g','arguments':'['}}")
            CALL_CHUNK("{'index':1,'function':{'arguments':']'}}") CALL_CHUNK(
                "{'index':2,'id':'c','type':'function','function':{'name':'h','arguments':'1'}}") "MORE");
}

static void calls_that_come_by_turns_keep_their_numbers(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'delta':{'role':'assistant','tool_calls':[{'index':0,'id':'a','function':{'name':'f','arguments':'1'}},"
        "{'index':1,'id':'b','function':{'name':'f','arguments':'2'}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'index':0,'id':'a','function':{'name':'f','arguments':'3'}}]}}]}",
        "{'choices':[{'delta':{'tool_calls':[{'index':1,'function':{'arguments':'4'}}]}}]}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    streamed(
        &identity, events,
        CHAT_CHUNK DELTA("'role':'assistant','tool_calls':[{'index':0,'id':'a','type':'function','function':"
                         "{'name':'f','arguments':'1'}},{'index':1,'id':'b','type':'function','function':"
                         "{'name':'f','arguments':'2'}}]",
                         "null") "]}\n" //
        CALL_CHUNK("{'index':0,'id':'a','type':'function','function':{'name':'f','arguments':'3'}}")
            CALL_CHUNK("{'index':1,'function':{'arguments':'4'}}") "MORE");
}

/* Bytes that are no UTF-8, halves of a character's two code units; what looks like one behind a backslash is none. */
static void broken_characters_are_replaced_and_nothing_else(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'delta':{'role':'assistant','content':'a\xff\xe2\x82z'}}]}",
        "{'choices':[{'delta':{'content':'\\ud83d'}}]}",
        "{'choices':[{'delta':{'content':'\\ude00 \\ud83d\\ude00 \\\\ud83d'}}]}",
        "{'choices':[{'delta':{'content':'x\xff'}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    streamed(&identity, events,
             CHAT_CHUNK DELTA("'role':'assistant','content':'a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz'",
                              "null") "]}\n"                             //
             CHAT_CHUNK DELTA("'content':'\xef\xbf\xbd'", "null") "]}\n" //
             CHAT_CHUNK DELTA("'content':'\xef\xbf\xbd \xf0\x9f\x98\x80 \\\\ud83d'",
                              "null") "]}\n" //
                                      "FAILED provider_error");
}

static void choices_of_a_stream_are_told_apart(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[{'index':1,'delta':{'content':'b'}},{'index':0,'delta':{'content':'a'}},"
        "{'index':2,'delta':{'content':'c'}}]}",
        "{'choices':[{'index':1,'delta':{},'finish_reason':'stop'}]}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    identity.choices = 2;
    struct ai_stream stream = streamed(
        &identity, events,
        CHAT_CHUNK
        "{'index':1,'delta':{'role':'assistant','content':'b'},'logprobs':null,'finish_reason':null},"
        "{'index':0,'delta':{'role':'assistant','content':'a'},'logprobs':null,"
        "'finish_reason':null}]}\n" CHAT_CHUNK
        "{'index':1,'delta':{},'logprobs':null,'finish_reason':'stop'}]}\nMORE");
    assert_false(ai_stream_is_whole(&stream));
    assert_null(stream.finish_reason);
}

static void choices_of_a_chunk_are_bounded(void **state)
{
    (void)state;
#define SIX "{'text':'a'},{'text':'a'},{'text':'a'},{'text':'a'},{'text':'a'},{'text':'a'}"
    static const char *const events[] = {"{'choices':[" SIX "," SIX "," SIX "]}", NULL};
#undef SIX
    struct ai_identity identity = ai_test_identity(AI_COMPLETION);
    struct ai_stream stream;
    struct arena scratch;
    struct buf out = {0};
    struct ai_failure failure;
    arena_init(&scratch);
    identity.choices = AI_CHOICES_MAX;
    ai_openai.stream_begin(&stream, &identity);
    assert_int_equal(
        ai_openai.stream_event(&stream, &scratch, STR_NONE, ai_quoted(&scratch, events[0]), &out, &failure),
        AI_STREAM_MORE);
    assert_int_equal(stream.bytes, AI_CHOICES_MAX);
    /* And one that is there more often than it may be. */
    struct buf many = {0};
    buf_add_literal(&many, "{\"choices\":[");
    for (int i = 0; i < 50; i++)
        buf_add_text(&many, i > 0 ? ",{\"index\":0,\"text\":\"a\"}" : "{\"index\":0,\"text\":\"a\"}");
    buf_add_literal(&many, "]}");
    assert_int_equal(ai_openai.stream_event(&stream, &scratch, STR_NONE, buf_str(&many), &out, &failure),
                     AI_STREAM_MORE);
    assert_int_equal(stream.bytes, 2 * AI_CHOICES_MAX);
    buf_clear(&many);
    buf_clear(&out);
    arena_clear(&scratch);
}

static void a_stream_may_fail_at_any_event(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        const char *wanted;
    } cases[] = {
        {"{'error':{'message':'x','type':'server_error'}}", "FAILED provider_error"},
        {"error|{'error':{'type':'overloaded_error'}}", "FAILED provider_overloaded"},
        {"error|{}", "FAILED provider_error"},
        {"{'choices':[", "FAILED provider_error"},
        {"[]", "FAILED provider_error"},
        {"7", "FAILED provider_error"},
        {"{'choices':7}", "MORE"},
        {"{'choices':[7,null,{}]}", "MORE"},
        {"{'choices':[{'delta':{'content':7,'tool_calls':{}}}]}",
         CHAT_CHUNK DELTA("'role':'assistant','content':''", "null") "]}\nMORE"},
        {"", "MORE"},
        {" [DONE] ", "FAILED provider_error"},
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const events[] = {cases[i].event, NULL};
        streamed(&identity, events, cases[i].wanted);
    }
}

static void a_stream_that_ends_without_a_reason_has_one(void **state)
{
    (void)state;
    static const char *const events[] = {"{'choices':[{'delta':{'content':'a'}}]}", "[DONE]", NULL};
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream =
        streamed(&identity, events,
                 CHAT_CHUNK DELTA("'role':'assistant','content':'a'",
                                  "null") "]}\n" CHAT_CHUNK DELTA("", "'stop'") "]}\nEND");
    assert_true(ai_stream_is_whole(&stream));
}

static void usage_that_comes_twice_counts_once(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'choices':[],'usage':{'prompt_tokens':9,'completion_tokens':1,'prompt_tokens_details':{'cached_tokens':8}}}",
        "{'choices':[],'usage':{'prompt_tokens':4,'completion_tokens':3}}",
        "{'choices':[],'usage':{'prompt_tokens':-4,'completion_tokens':'x'}}",
        NULL,
    };
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream = streamed(&identity, events, "MORE");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_int_equal(usage.prompt_tokens, 4);
    assert_int_equal(usage.completion_tokens, 3);
    assert_int_equal(usage.details[AI_CACHED_TOKENS], 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_goes_on_as_it_is_with_the_providers_model),
        cmocka_unit_test(what_is_ours_and_what_is_null_stays_here),
        cmocka_unit_test(an_answer_goes_back_as_the_model_said_it),
        cmocka_unit_test(a_stream_always_asks_for_its_usage),
        cmocka_unit_test(a_prompt_becomes_a_message),
        cmocka_unit_test(a_prompt_stays_one_where_the_provider_takes_it),
        cmocka_unit_test(the_limit_of_tokens_has_the_name_that_the_model_knows),
        cmocka_unit_test(a_key_is_a_bearer_token),
        cmocka_unit_test(an_answer_has_our_name_and_the_providers_content),
        cmocka_unit_test(tool_calls_go_through),
        cmocka_unit_test(a_completion_is_read_from_a_chat_and_from_a_text),
        cmocka_unit_test(what_is_only_like_an_answer_is_made_one),
        cmocka_unit_test(tool_calls_are_bounded),
        cmocka_unit_test(one_count_of_two_is_an_estimate_too),
        cmocka_unit_test(only_the_choices_that_were_asked_for_are_given),
        cmocka_unit_test(counts_that_can_not_be_are_estimated),
        cmocka_unit_test(what_is_no_answer_is_a_failure),
        cmocka_unit_test(an_error_may_come_with_a_good_status),
        cmocka_unit_test(chunks_have_our_name_and_the_providers_content),
        cmocka_unit_test(a_stream_that_is_cut_off_costs_what_was_delivered),
        cmocka_unit_test(a_streamed_completion_is_pieces_of_text),
        cmocka_unit_test(tool_calls_come_in_pieces),
        cmocka_unit_test(calls_of_one_number_are_told_apart_by_their_ids),
        cmocka_unit_test(calls_that_come_by_turns_keep_their_numbers),
        cmocka_unit_test(broken_characters_are_replaced_and_nothing_else),
        cmocka_unit_test(choices_of_a_stream_are_told_apart),
        cmocka_unit_test(choices_of_a_chunk_are_bounded),
        cmocka_unit_test(a_stream_may_fail_at_any_event),
        cmocka_unit_test(a_stream_that_ends_without_a_reason_has_one),
        cmocka_unit_test(usage_that_comes_twice_counts_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
