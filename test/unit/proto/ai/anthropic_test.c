/* The Messages API: what it is sent of our clients' requests, and what of it reaches them. */
#include "proto/ai/anthropic.h"
#include "test/unit/proto/ai/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct ai_upstream plain = {.model = {"claude", 6}, .max_tokens = 100};
static const struct ai_upstream streaming = {.model = {"claude", 6}, .max_tokens = 100, .stream = true};

#define HI "'messages':[{'role':'user','content':'Hi'}]"
#define HI_WRITTEN "'messages':[{'role':'user','content':[{'type':'text','text':'Hi'}]}]"

/* ---- requests ---- */

static void chat_written(const char *members, const char *wanted)
{
    char body[2048];
    snprintf(body, sizeof body, "{'model':'m',%s}", members);
    ai_assert_written(&ai_anthropic, AI_CHAT, body, &plain, wanted);
}

/* Beside one message; `wanted` are the members that come of it, or "!param". */
static void parameter_written(const char *members, const char *wanted)
{
    char all[1024];
    char whole[1024];
    snprintf(all, sizeof all, HI ",%s", members);
    snprintf(whole, sizeof whole, "{'model':'claude','max_tokens':100," HI_WRITTEN "%s}", wanted);
    chat_written(all, wanted[0] == '!' ? wanted : whole);
}

static void a_chat_is_turns_of_two_sides(void **state)
{
    (void)state;
    chat_written(
        "'messages':[{'role':'system','content':'Be brief.'},{'role':'user','content':'Hi','name':'ada'},"
        "{'role':'assistant','content':'Yes?'},{'role':'developer','content':[{'type':'text','text':'Be "
        "kind.'}]},{'role':'user','content':'A'},{'role':'user','content':[{'type':'text','text':'B'}]}]",
        "{'model':'claude','max_tokens':100,'system':[{'type':'text','text':'Be brief.'},{'type':'text',"
        "'text':'Be kind.'}],'messages':[{'role':'user','content':[{'type':'text','text':'Hi'}]},"
        "{'role':'assistant','content':[{'type':'text','text':'Yes?'}]},{'role':'user','content':["
        "{'type':'text','text':'A'},{'type':'text','text':'B'}]}]}");
}

static void a_prompt_is_a_turn(void **state)
{
    (void)state;
    ai_assert_written(
        &ai_anthropic, AI_COMPLETION, "{'model':'m','prompt':'Hi','max_tokens':7,'stop':'x'}", &streaming,
        "{'model':'claude','max_tokens':7," HI_WRITTEN ",'stop_sequences':['x'],'stream':true}");
    ai_assert_written(&ai_anthropic, AI_COMPLETION, "{'model':'m','prompt':''}", &plain, "!prompt");
    ai_assert_written(&ai_anthropic, AI_COMPLETION, "{'model':'m','prompt':'Hi','logprobs':0}", &plain,
                      "!logprobs");
}

static void tool_calls_and_their_results_are_blocks(void **state)
{
    (void)state;
    chat_written(
        "'messages':[{'role':'user','content':'Hi'},{'role':'assistant','content':null,'tool_calls':["
        "{'id':'c1','type':'function','function':{'name':'f','arguments':'{\\'a\\': [1.50]}'}},"
        "{'id':'c2','type':'function','function':{'name':'g','arguments':''}}]},"
        "{'role':'tool','tool_call_id':'c1','content':'one'},{'role':'tool','tool_call_id':'c2',"
        "'content':[{'type':'text','text':'two'}]},{'role':'user','content':'So?'}]",
        "{'model':'claude','max_tokens':100,'messages':[{'role':'user','content':[{'type':'text',"
        "'text':'Hi'}]},{'role':'assistant','content':[{'type':'tool_use','id':'c1','name':'f','input':"
        "{'a':[1.50]}},{'type':'tool_use','id':'c2','name':'g','input':{}}]},{'role':'user','content':["
        "{'type':'tool_result','tool_use_id':'c1','content':[{'type':'text','text':'one'}]},"
        "{'type':'tool_result','tool_use_id':'c2','content':[{'type':'text','text':'two'}]},"
        "{'type':'text','text':'So?'}]}]}");
}

static void images_are_data_or_links(void **state)
{
    (void)state;
    chat_written(
        "'messages':[{'role':'user','content':[{'type':'image_url','image_url':{'url':"
        "'data:image/png;base64,AAAA'}},{'type':'image_url','image_url':{'url':'https://h/i.png',"
        "'detail':'low'}},{'type':'text','text':'?'}]}]",
        "{'model':'claude','max_tokens':100,'messages':[{'role':'user','content':[{'type':'image',"
        "'source':{'type':'base64','media_type':'image/png','data':'AAAA'}},{'type':'image','source':"
        "{'type':'url','url':'https://h/i.png'}},{'type':'text','text':'?'}]}]}");
    chat_written(
        "'messages':[{'role':'user','content':[{'type':'text','text':'?'},{'type':'image_url','image_url':"
        "{'url':'http://h/'}}]}]",
        "!messages[0].content[1]");
}

static void blocks_without_text_are_left_out(void **state)
{
    (void)state;
    chat_written("'messages':[{'role':'system','content':''},{'role':'user','content':'Hi'},"
                 "{'role':'assistant','content':''},{'role':'user','content':[{'type':'text','text':''}]}]",
                 "{'model':'claude','max_tokens':100," HI_WRITTEN "}");
}

static void what_has_no_counterpart_in_messages_is_refused(void **state)
{
    (void)state;
    chat_written("'messages':[{'role':'system','content':'Hi'}]", "!messages");
    chat_written("'messages':[{'role':'user','content':'Hi'},{'role':'function','name':'f','content':'x'}]",
                 "!messages[1]");
    chat_written("'messages':[{'role':'assistant','function_call':{'name':'f','arguments':'{}'}}]",
                 "!messages[0]");
    static const char *const arguments[] = {"[]", "7", "{", "{}{}", "null"};
    for (size_t i = 0; i < ARRAY_SIZE(arguments); i++) {
        char members[256];
        snprintf(members, sizeof members,
                 "'messages':[{'role':'assistant','tool_calls':[{'id':'c','type':'function','function':"
                 "{'name':'f','arguments':'%s'}}]}]",
                 arguments[i]);
        chat_written(members, "!messages[0].tool_calls[0]");
    }
    chat_written("'messages':[{'role':'assistant','tool_calls':[{'id':'c','type':'custom','custom':"
                 "{'name':'f','input':'x'}}]}]",
                 "!messages[0].tool_calls[0]");
}

#define TOOL "'tools':[{'type':'function','function':{'name':'f'}}]"
#define TOOL_WRITTEN ",'tools':[{'name':'f','input_schema':{'type':'object','properties':{}}}]"

static void tools_and_their_choice_are_translated(void **state)
{
    (void)state;
    parameter_written("'tools':[{'type':'function','function':{'name':'f','description':'d','parameters':"
                      "{'type':'object','properties':{'a':{'minimum':0.10}}},'strict':true}}]",
                      ",'tools':[{'name':'f','description':'d','input_schema':{'type':'object','properties':"
                      "{'a':{'minimum':0.10}}},'strict':true}]");
    parameter_written(TOOL, TOOL_WRITTEN);
    parameter_written(
        "'tools':[{'type':'function','function':{'name':'f','parameters':{'properties':{'type':{}}}}}]",
        ",'tools':[{'name':'f','input_schema':{'type':'object','properties':{'type':{}}}}]");
    parameter_written("'tools':[{'type':'function','function':{'name':'f','parameters':{}}}]",
                      ",'tools':[{'name':'f','input_schema':{'type':'object'}}]");
    parameter_written(TOOL ",'tool_choice':'none','parallel_tool_calls':false",
                      TOOL_WRITTEN ",'tool_choice':{'type':'none'}");
    parameter_written(TOOL ",'tool_choice':'auto'", TOOL_WRITTEN ",'tool_choice':{'type':'auto'}");
    parameter_written(TOOL ",'tool_choice':'required','parallel_tool_calls':true",
                      TOOL_WRITTEN ",'tool_choice':{'type':'any'}");
    parameter_written(TOOL ",'parallel_tool_calls':false",
                      TOOL_WRITTEN ",'tool_choice':{'type':'auto','disable_parallel_tool_use':true}");
    parameter_written(TOOL ",'tool_choice':{'type':'function','function':{'name':'f'}}",
                      TOOL_WRITTEN ",'tool_choice':{'type':'tool','name':'f'}");
    parameter_written("'tools':[{'type':'custom','custom':{'name':'f'}}]", "!tools");
    parameter_written(
        "'tools':[{'type':'function','function':{'name':'f'}},{'type':'custom','custom':{'name':'g'}}]",
        "!tools");
    parameter_written(TOOL ",'tool_choice':{'type':'allowed_tools','allowed_tools':{'mode':'auto','tools':["
                           "{'type':'function','function':{'name':'f'}}]}}",
                      "!tool_choice");
}

static void parameters_are_translated(void **state)
{
    (void)state;
    parameter_written("'temperature':0.70,'top_p':0.9,'stop':['a','b']",
                      ",'temperature':0.70,'top_p':0.9,'stop_sequences':['a','b']");
    parameter_written("'temperature':1.0", ",'temperature':1.0");
    parameter_written("'temperature':1.0000001", ",'temperature':1");
    parameter_written("'stop':'x'", ",'stop_sequences':['x']");
    parameter_written("'stop':[]", "");
    parameter_written("'user':'u'", ",'metadata':{'user_id':'u'}");
    parameter_written("'user':'u','safety_identifier':'s'", ",'metadata':{'user_id':'s'}");
    parameter_written("'reasoning_effort':'high'", ",'output_config':{'effort':'high'}");
    parameter_written("'reasoning_effort':'minimal'", ",'output_config':{'effort':'low'}");
    parameter_written("'reasoning_effort':'none'", "");
    parameter_written("'service_tier':'default'", ",'service_tier':'standard_only'");
    parameter_written(
        "'response_format':{'type':'json_schema','json_schema':{'name':'n','schema':{'type':'object'}}}",
        ",'output_config':{'format':{'type':'json_schema','schema':{'type':'object'}}}");
}

static void what_would_be_so_anyway_is_taken(void **state)
{
    (void)state;
    parameter_written("'n':1,'logprobs':false,'logit_bias':{},'presence_penalty':0.0,'frequency_penalty':-0,"
                      "'seed':null,'response_format':{'type':'text'},'verbosity':'medium','store':false,"
                      "'modalities':['text'],'metadata':{'a':'b'},'prompt_cache_key':'k','cache':false",
                      "");
}

static void what_has_no_counterpart_is_refused_by_its_name(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"'n':2", "!n"},
        {"'seed':1", "!seed"},
        {"'logit_bias':{'1':1}", "!logit_bias"},
        {"'logprobs':true", "!logprobs"},
        {"'presence_penalty':0.1", "!presence_penalty"},
        {"'frequency_penalty':-1e-9", "!frequency_penalty"},
        {"'response_format':{'type':'json_object'}", "!response_format"},
        {"'response_format':{'type':'json_schema','json_schema':{'name':'n'}}", "!response_format"},
        {"'functions':[{'name':'f'}]", "!functions"},
        {"'verbosity':'low'", "!verbosity"},
        {"'service_tier':'flex'", "!service_tier"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
        parameter_written(pairs[i][0], pairs[i][1]);
}

static void the_key_has_a_header_of_its_own(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    const char *const *headers = ai_anthropic.headers(&arena, STR("k"), false);
    assert_string_equal(headers[0], "Content-Type: application/json");
    assert_string_equal(headers[2], "anthropic-version: 2023-06-01");
    assert_string_equal(headers[3], "x-api-key: k");
    assert_null(headers[4]);
    assert_string_equal(ai_anthropic.path(AI_COMPLETION, true), "/v1/messages");
    arena_clear(&arena);
}

/* ---- answers ---- */

#define CHAT_HEAD "{'id':'ID','object':'chat.completion','created':7,'model':'M','choices':["
#define TEXT_HEAD "{'id':'ID','object':'text_completion','created':7,'model':'M','choices':["
#define USAGE(p, c, t) "'usage':{'prompt_tokens':" #p ",'completion_tokens':" #c ",'total_tokens':" #t "}"

static struct ai_answer answered(enum ai_kind kind, const char *body, const char *wanted)
{
    struct ai_answer answer = {.finish_reason = NULL};
    struct ai_identity identity = ai_test_identity(kind);
    ai_assert_answer(&ai_anthropic, &identity, body, wanted, &answer);
    return answer;
}

static void blocks_of_an_answer_become_a_message(void **state)
{
    (void)state;
    struct ai_answer answer = answered(
        AI_CHAT,
        "{'id':'msg','type':'message','role':'assistant','model':'claude','content':[{'type':'thinking',"
        "'thinking':'hm'},{'type':'text','text':'a'},{'type':'text','text':'b'},{'type':'new'},7,{'type':'tool_use',"
        "'id':'t','name':'f','input':{'x':1.50}},{'type':'tool_use','name':'g'},{'type':'tool_use','id':'n'}],"
        "'stop_reason':'tool_use','usage':{'input_tokens':10,'cache_read_input_tokens':4,"
        "'cache_creation_input_tokens':null,'output_tokens':3}}",
        CHAT_HEAD
        "{'index':0,'message':{'role':'assistant','content':'ab','refusal':null,'reasoning_content':'hm',"
        "'tool_calls':[{'id':'t','type':'function','function':{'name':'f','arguments':'{\\'x\\':1.50}'}},"
        "{'id':'call_1','type':'function','function':{'name':'g','arguments':'{}'}}]},'logprobs':null,"
        "'finish_reason':'tool_calls'}],'usage':{'prompt_tokens':14,'completion_tokens':3,"
        "'total_tokens':17,'prompt_tokens_details':{'cached_tokens':4}}}");
    assert_int_equal(answer.usage.prompt_tokens, 14);
    assert_int_equal(answer.usage.details[AI_CACHED_TOKENS], 4);
    assert_false(answer.usage.estimated);
    answered(AI_COMPLETION,
             "{'content':[{'type':'text','text':'Hi'}],'stop_reason':'max_tokens','usage':{'input_tokens':1,"
             "'output_tokens':2}}",
             TEXT_HEAD
             "{'text':'Hi','index':0,'logprobs':null,'finish_reason':'length'}]," USAGE(1, 2, 3) "}");
}

static void an_answer_without_a_count_is_estimated(void **state)
{
    (void)state;
    static const char *const usages[] = {"null", "{}", "{'input_tokens':-1,'output_tokens':1e3}",
                                         "{'input_tokens':'1','output_tokens':1000000001}"};
    for (size_t i = 0; i < ARRAY_SIZE(usages); i++) {
        char body[256];
        snprintf(body, sizeof body, "{'content':[{'type':'text','text':'Hello'}],'usage':%s}", usages[i]);
        assert_true(
            answered(AI_COMPLETION, body,
                     TEXT_HEAD
                     "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(5, 2, 7) "}")
                .usage.estimated);
    }
}

static void tool_calls_are_bounded(void **state)
{
    (void)state;
    const char *call = "{'type':'tool_use','id':'t','name':'f','input':{}}";
    assert_int_equal(ai_count_calls(&ai_anthropic, "{'content':[", call, AI_TOOL_CALLS_MAX, "]}"),
                     AI_TOOL_CALLS_MAX);
    assert_int_equal(ai_count_calls(&ai_anthropic, "{'content':[", call, 1000, "]}"), AI_TOOL_CALLS_MAX);
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    struct ai_stream stream;
    struct buf out = {0};
    struct ai_failure failure;
    ai_anthropic.stream_begin(&stream, &identity);
    for (int i = 0; i < 1000; i++) {
        struct arena scratch;
        arena_init(&scratch);
        struct str event =
            ai_quoted(&scratch, "{'type':'content_block_start','index':0,'content_block':{'type':"
                                "'tool_use','id':'t','name':'f'}}");
        out.size = 0;
        assert_int_equal(ai_anthropic.stream_event(&stream, &scratch, STR_NONE, event, &out, &failure),
                         AI_STREAM_MORE);
        assert_int_equal(out.size > 0, i < AI_TOOL_CALLS_MAX);
        arena_clear(&scratch);
    }
    buf_clear(&out);
}

static void one_count_of_two_is_an_estimate_too(void **state)
{
    (void)state;
    assert_true(
        answered(AI_COMPLETION, "{'content':[{'type':'text','text':'Hello'}],'usage':{'input_tokens':9}}",
                 TEXT_HEAD
                 "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(9, 2, 11) "}")
            .usage.estimated);
    assert_true(
        answered(AI_COMPLETION, "{'content':[{'type':'text','text':'Hello'}],'usage':{'output_tokens':9}}",
                 TEXT_HEAD
                 "{'text':'Hello','index':0,'logprobs':null,'finish_reason':'stop'}]," USAGE(5, 9, 14) "}")
            .usage.estimated);
}

static void what_is_no_answer_is_a_failure(void **state)
{
    (void)state;
    static const char *const bodies[] = {"",
                                         "[]",
                                         "{}",
                                         "{'content':null}",
                                         "{'content':'Hi'}",
                                         "{'content':{}}",
                                         "{'type':'error','error':{'type':'api_error','message':'x'}}"};
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
        answered(AI_CHAT, bodies[i], "!provider_error");
    answered(AI_CHAT, "{'type':'error','error':{'type':'overloaded_error','message':'x'}}",
             "!provider_overloaded");
}

/* ---- streams ---- */

#define CHUNK "{'id':'ID','object':'chat.completion.chunk','created':7,'model':'M','choices':["
#define DELTA(delta, reason) "{'index':0,'delta':{" delta "},'logprobs':null,'finish_reason':" reason "}"
#define ROLE CHUNK DELTA("'role':'assistant','content':''", "null") "]}\n"
#define START                                                                                                \
    "message_start|{'type':'message_start','message':{'id':'m','usage':{'input_tokens':9,'output_tokens':1}}}"

static struct ai_stream streamed(enum ai_kind kind, const char *const *events, const char *wanted)
{
    struct ai_stream stream;
    struct ai_identity identity = ai_test_identity(kind);
    ai_assert_stream(&ai_anthropic, &identity, events, wanted, &stream);
    return stream;
}

static void a_stream_of_text_becomes_chunks(void **state)
{
    (void)state;
    static const char *const events[] = {
        START,
        "content_block_start|{'type':'content_block_start','index':0,'content_block':{'type':'text','text':''}}",
        "ping|{'type':'ping'}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'text_delta','text':'Hel'}}",
        "content_block_delta|{'index':0,'delta':{'type':'text_delta','text':'lo'}}",
        "{'type':'content_block_stop','index':0}",
        "{'type':'brand_new','index':0}",
        "{'type':'message_delta','delta':{'stop_reason':'end_turn'},'usage':{'input_tokens':0,'output_tokens':4}}",
        "{'type':'message_stop'}",
        NULL,
    };
    struct ai_stream stream =
        streamed(AI_CHAT, events,
                 ROLE CHUNK DELTA("'content':'Hel'", "null") "]}\n" CHUNK DELTA(
                     "'content':'lo'", "null") "]}\n" CHUNK DELTA("", "'stop'") "]}\nEND");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_true(ai_stream_is_whole(&stream));
    assert_int_equal(usage.prompt_tokens, 9);
    assert_int_equal(usage.completion_tokens, 4);
    assert_false(usage.estimated);
    streamed(AI_COMPLETION, events,
             TEXT_HEAD "{'text':'Hel','index':0,'logprobs':null,'finish_reason':null}]}\n" TEXT_HEAD
                       "{'text':'lo','index':0,'logprobs':null,'finish_reason':null}]}\n" TEXT_HEAD
                       "{'text':'','index':0,'logprobs':null,'finish_reason':'stop'}]}\nEND");
}

static void a_stream_that_is_cut_off_counts_its_prompt_and_what_was_delivered(void **state)
{
    (void)state;
    static const char *const events[] = {
        START, "{'type':'content_block_delta','index':0,'delta':{'type':'text_delta','text':'Hello'}}", NULL};
    struct ai_stream stream =
        streamed(AI_CHAT, events, ROLE CHUNK DELTA("'content':'Hello'", "null") "]}\nMORE");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_false(ai_stream_is_whole(&stream));
    assert_int_equal(usage.prompt_tokens, 9);
    assert_int_equal(usage.completion_tokens, 2);
    assert_true(usage.estimated);
}

#define CALL(index, function) CHUNK DELTA("'tool_calls':[{'index':" #index "," function "]", "null") "]}\n"

static void tool_calls_are_streamed(void **state)
{
    (void)state;
    static const char *const events[] = {
        START,
        "{'type':'content_block_start','index':1,'content_block':{'type':'tool_use','id':'t','name':'f','input':{}}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'input_json_delta','partial_json':''}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'input_json_delta','partial_json':'{\\'a\\':'}}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'input_json_delta','partial_json':'lost'}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'input_json_delta','partial_json':'1}'}}",
        "{'type':'content_block_stop','index':1}",
        "{'type':'content_block_start','index':2,'content_block':{'type':'tool_use','name':'g'}}",
        "{'type':'content_block_stop','index':2}",
        "{'type':'content_block_start','index':3,'content_block':{'type':'tool_use','id':'u','name':'h','input':"
        "{'b':2}}}",
        "{'type':'content_block_stop','index':3}",
        "{'type':'message_delta','delta':{'stop_reason':'tool_use'},'usage':{'output_tokens':4}}",
        NULL,
    };
    streamed(AI_CHAT, events,
             ROLE CALL(0, "'id':'t','type':'function','function':{'name':'f','arguments':''}}")
                 CALL(0, "'function':{'arguments':'{\\'a\\':'}}") CALL(0, "'function':{'arguments':'1}'}}")
                     CALL(1, "'id':'call_1','type':'function','function':{'name':'g','arguments':''}}")
                         CALL(1, "'function':{'arguments':'{}'}}")
                             CALL(2, "'id':'u','type':'function','function':{'name':'h','arguments':"
                                     "'{\\'b\\':2}'}}") CHUNK DELTA("", "'tool_calls'") "]}\nMORE");
}

static void parts_of_the_prompt_are_summed_and_told(void **state)
{
    (void)state;
    static const char *const events[] = {
        "{'type':'message_start','message':{'usage':{'input_tokens':9,'cache_read_input_tokens':20,"
        "'cache_creation_input_tokens':300,'output_tokens':1}}}",
        NULL,
    };
    struct ai_stream stream = streamed(AI_COMPLETION, events, "MORE");
    struct ai_usage usage;
    ai_stream_usage(&stream, &usage);
    assert_int_equal(usage.prompt_tokens, 329);
    assert_int_equal(usage.details[AI_CACHED_TOKENS], 20);
    assert_int_equal(usage.details[AI_CACHE_WRITE_TOKENS], 300);
    assert_int_equal(usage.details_told, 1U << AI_CACHED_TOKENS | 1U << AI_CACHE_WRITE_TOKENS);
}

/* Only some say at the end what the prompt was; nothing there, or 0, takes nothing back. */
static void the_prompt_may_be_told_at_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *start;
        const char *delta;
        int64_t prompt;
        bool estimated;
    } cases[] = {
        {"{'type':'message_start','message':{}}",
         "{'type':'message_delta','usage':{'input_tokens':3,'output_tokens':1}}", 3, false},
        {"{'type':'message_start','message':{'usage':{'input_tokens':9}}}",
         "{'type':'message_delta','usage':{'output_tokens':1}}", 9, false},
        {"{'type':'message_start','message':{'usage':{'input_tokens':9}}}",
         "{'type':'message_delta','usage':{'input_tokens':0,'output_tokens':1}}", 9, false},
        {"{'type':'message_start','message':{}}", "{'type':'message_delta','usage':{'output_tokens':1}}", 5,
         true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const events[] = {cases[i].start, cases[i].delta, NULL};
        struct ai_stream stream = streamed(AI_COMPLETION, events, "MORE");
        struct ai_usage usage;
        ai_stream_usage(&stream, &usage);
        assert_int_equal(usage.prompt_tokens, cases[i].prompt);
        assert_int_equal(usage.completion_tokens, 1);
        assert_int_equal(usage.estimated, cases[i].estimated);
    }
}

static void a_block_without_a_place_is_none(void **state)
{
    (void)state;
    static const char *const events[] = {
        START,
        "{'type':'content_block_start','index':1,'content_block':{'type':'tool_use','id':'t','name':'f','input':{}}}",
        "{'type':'content_block_start','index':99999999999999999999,'content_block':{'type':'tool_use','name':'g'}}",
        "{'type':'content_block_delta','index':1,'delta':{'type':'input_json_delta','partial_json':'lost'}}",
        "{'type':'content_block_start','content_block':{'type':'tool_use','name':'h'}}",
        "{'type':'content_block_stop'}",
        NULL,
    };
    streamed(AI_CHAT, events,
             ROLE CALL(0, "'id':'t','type':'function','function':{'name':'f','arguments':''}}") "MORE");
}

static void thinking_is_no_content(void **state)
{
    (void)state;
    static const char *const events[] = {
        START,
        "{'type':'content_block_start','index':0,'content_block':{'type':'thinking','thinking':''}}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'thinking_delta','thinking':'hm'}}",
        "{'type':'content_block_delta','index':0,'delta':{'type':'signature_delta','signature':'x'}}",
        NULL,
    };
    streamed(AI_CHAT, events, ROLE CHUNK DELTA("'reasoning_content':'hm'", "null") "]}\nMORE");
    streamed(AI_COMPLETION, events, "MORE");
}

static void a_stream_may_fail_at_any_event(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        const char *wanted;
    } cases[] = {
        {"error|{'type':'error','error':{'type':'overloaded_error','message':'x'}}",
         "FAILED provider_overloaded"},
        {"error|{}", "FAILED provider_error"},
        {"{'type':'error'}", "FAILED provider_error"},
        {"{", "FAILED provider_error"},
        {"[DONE]", "FAILED provider_error"},
        {"[]", "FAILED provider_error"},
        {"{'type':'message_stop'}", "FAILED provider_error"},
        {"{}", "MORE"},
        {"{'type':7}", "MORE"},
        {"{'type':'message_start','message':7}", ROLE "MORE"},
        {"{'type':'content_block_start','index':-1,'content_block':{'type':'tool_use','name':'f'}}", "MORE"},
        {"{'type':'content_block_start','index':99999999999999999999,'content_block':{'type':'tool_use',"
         "'name':'f'}}",
         "MORE"},
        {"{'type':'content_block_delta','index':0,'delta':{'type':'input_json_delta','partial_json':'x'}}",
         "MORE"},
        {"{'type':'content_block_delta','delta':{'type':'text_delta','text':7}}", ROLE "MORE"},
        {"{'type':'content_block_stop','index':-1}", "MORE"},
        {"{'type':'message_delta','usage':{'output_tokens':-5,'input_tokens':1e99}}", "MORE"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const events[] = {cases[i].event, NULL};
        streamed(AI_CHAT, events, cases[i].wanted);
    }
}

static void a_stream_that_ends_without_a_reason_has_one(void **state)
{
    (void)state;
    static const char *const events[] = {START, "{'type':'message_stop'}", NULL};
    streamed(AI_CHAT, events, ROLE CHUNK DELTA("", "'stop'") "]}\nEND");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_is_turns_of_two_sides),
        cmocka_unit_test(a_prompt_is_a_turn),
        cmocka_unit_test(tool_calls_and_their_results_are_blocks),
        cmocka_unit_test(images_are_data_or_links),
        cmocka_unit_test(blocks_without_text_are_left_out),
        cmocka_unit_test(what_has_no_counterpart_in_messages_is_refused),
        cmocka_unit_test(tools_and_their_choice_are_translated),
        cmocka_unit_test(parameters_are_translated),
        cmocka_unit_test(what_would_be_so_anyway_is_taken),
        cmocka_unit_test(what_has_no_counterpart_is_refused_by_its_name),
        cmocka_unit_test(the_key_has_a_header_of_its_own),
        cmocka_unit_test(blocks_of_an_answer_become_a_message),
        cmocka_unit_test(an_answer_without_a_count_is_estimated),
        cmocka_unit_test(tool_calls_are_bounded),
        cmocka_unit_test(one_count_of_two_is_an_estimate_too),
        cmocka_unit_test(what_is_no_answer_is_a_failure),
        cmocka_unit_test(a_stream_of_text_becomes_chunks),
        cmocka_unit_test(a_stream_that_is_cut_off_counts_its_prompt_and_what_was_delivered),
        cmocka_unit_test(tool_calls_are_streamed),
        cmocka_unit_test(parts_of_the_prompt_are_summed_and_told),
        cmocka_unit_test(the_prompt_may_be_told_at_the_end),
        cmocka_unit_test(a_block_without_a_place_is_none),
        cmocka_unit_test(thinking_is_no_content),
        cmocka_unit_test(a_stream_may_fail_at_any_event),
        cmocka_unit_test(a_stream_that_ends_without_a_reason_has_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
