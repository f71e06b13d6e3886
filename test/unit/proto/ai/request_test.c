/* What a client may ask for: every member is taken as the OpenAI API describes it, or refused by its name. */
#include "proto/ai/check.h"
#include "proto/ai/request.h"
#include "test/unit/proto/ai/support.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define HI "'messages':[{'role':'user','content':'Hi'}]"
#define ANY "*"

/* Refused for `param` (NULL: the body as such) with `code` (ANY: any); both NULL: taken. */
static void expect_of(enum ai_kind kind, const char *body, const char *param, const char *code)
{
    struct arena arena;
    struct ai_request request;
    struct ai_refusal refusal = {.code = NULL};
    arena_init(&arena);
    int result = ai_request_parse(&arena, kind, ai_quoted(&arena, body), &request, &refusal);
    if (!param && !code) {
        if (result)
            fail_msg("%s: %.*s", body, STR_ARG(refusal.message));
    } else {
        if (result != -EINVAL)
            fail_msg("%s was taken", body);
        assert_true(refusal.message.size > 0 && str_is_utf8(refusal.message));
        if (param ? !str_equal(refusal.param, str_from(param)) : refusal.param.at != NULL)
            fail_msg("%s: param %.*s, not %s", body, STR_ARG(refusal.param), param ? param : "none");
        if (!code || strcmp(code, ANY) != 0)
            assert_string_equal(refusal.code ? refusal.code : "none", code ? code : "none");
    }
    arena_clear(&arena);
}

/* Beside what a chat needs. */
static void chat(const char *member, const char *param, const char *code)
{
    char body[4096];
    snprintf(body, sizeof body, "{'model':'m'," HI ",%s}", member);
    expect_of(AI_CHAT, body, param, code);
}

static void completion(const char *member, const char *param, const char *code)
{
    char body[1024];
    snprintf(body, sizeof body, "{'model':'m','prompt':'Hi',%s}", member);
    expect_of(AI_COMPLETION, body, param, code);
}

static void message(const char *text, const char *param, const char *code)
{
    char body[1024];
    snprintf(body, sizeof body, "{'model':'m','messages':[%s]}", text);
    expect_of(AI_CHAT, body, param, code);
}

/* ---- the body ---- */

static void a_body_is_an_object_with_all_that_it_needs(void **state)
{
    (void)state;
    expect_of(AI_CHAT, "{'model':'m'," HI "}", NULL, NULL);
    expect_of(AI_COMPLETION, "{'model':'m','prompt':'Hi'}", NULL, NULL);
    expect_of(AI_CHAT, "", NULL, "none");
    expect_of(AI_CHAT, "{'model':'m','model':'m'," HI "}", NULL, "none");
    expect_of(AI_CHAT, "[]", NULL, "invalid_type");
    expect_of(AI_CHAT, "null", NULL, "invalid_type");
    expect_of(AI_CHAT, "{" HI "}", "model", "missing_required_parameter");
    expect_of(AI_CHAT, "{'model':null," HI "}", "model", "missing_required_parameter");
    expect_of(AI_CHAT, "{'model':7," HI "}", "model", "invalid_type");
    expect_of(AI_CHAT, "{'model':''," HI "}", "model", ANY);
    expect_of(AI_CHAT, "{'model':'m'}", "messages", "missing_required_parameter");
    expect_of(AI_CHAT, "{'model':'m','messages':[]}", "messages", "empty_array");
    expect_of(AI_COMPLETION, "{'model':'m'}", "prompt", "missing_required_parameter");
}

static void members_that_are_unknown_are_refused_by_name(void **state)
{
    (void)state;
    chat("'foo':1", "foo", "unknown_parameter");
    chat("'foo':null", "foo", "unknown_parameter");
    chat("'prompt':'x'", "prompt", "unknown_parameter");
    chat("'Temperature':1", "Temperature", "unknown_parameter");
    completion("'messages':[]", "messages", "unknown_parameter");
    completion("'tools':[]", "tools", "unknown_parameter");
    completion("'max_completion_tokens':1", "max_completion_tokens", "unknown_parameter");
    chat("'stream':true,'stream_options':{'foo':true}", "stream_options.foo", "unknown_parameter");
    message("{'role':'user','content':'x','foo':1}", "messages[0].foo", "unknown_parameter");
}

static void a_name_that_is_too_long_is_shown_in_part(void **state)
{
    (void)state;
    struct arena arena;
    struct ai_request request;
    struct ai_refusal refusal;
    struct buf body = {0};
    arena_init(&arena);
    buf_add_literal(&body, "{\"x");
    for (int i = 0; i < 1000; i++)
        buf_add_literal(&body, "\xc3\xa9");
    buf_add_literal(&body, "\":1}");
    assert_int_equal(ai_request_parse(&arena, AI_CHAT, buf_str(&body), &request, &refusal), -EINVAL);
    assert_int_equal(refusal.param.size, 99);
    assert_true(str_is_utf8(refusal.param));
    buf_clear(&body);
    arena_clear(&arena);
}

/* ---- parameters ---- */

/* All that the official SDKs can send, at once. */
static void what_the_sdks_send_is_taken(void **state)
{
    (void)state;
    chat(
        "'frequency_penalty':0.5,'presence_penalty':-2,'logit_bias':{'50256':-100},'logprobs':true,'top_logprobs':20,"
        "'max_completion_tokens':10,'metadata':{'k':'v'},'modalities':['text'],'n':8,'parallel_tool_calls':true,"
        "'prompt_cache_key':'k','prompt_cache_retention':'24h','reasoning_effort':'low','response_format':"
        "{'type':'json_schema','json_schema':{'name':'n','description':'d','schema':{},'strict':true}},"
        "'safety_identifier':'s','seed':42,'service_tier':'auto','stop':['a','b','c','d'],'store':false,"
        "'stream':true,'stream_options':{'include_usage':true,'include_obfuscation':false},'temperature':2.0,"
        "'tool_choice':{'type':'function','function':{'name':'f'}},'tools':[{'type':'function','function':"
        "{'name':'f','description':'d','parameters':{},'strict':null}}],'top_p':1,'user':'u','verbosity':'high',"
        "'cache':true",
        NULL, NULL);
    chat("'functions':[{'name':'f','parameters':{}}],'function_call':{'name':'f'}", NULL, NULL);
    chat(
        "'audio':null,'web_search_options':null,'prediction':null,'moderation':null,'store':null,'max_tokens':null,"
        "'stop':null,'stream':null,'stream_options':null,'n':null,'temperature':null,'tools':null",
        NULL, NULL);
    completion(
        "'best_of':1,'echo':false,'frequency_penalty':0,'logit_bias':{},'logprobs':5,'max_tokens':16,'n':1,"
        "'presence_penalty':0,'seed':1,'stop':'x','stream':false,'suffix':null,'temperature':1,'top_p':1,"
        "'user':'u'",
        NULL, NULL);
}

static void what_is_not_to_be_had_is_refused(void **state)
{
    (void)state;
    chat("'audio':{'voice':'x','format':'mp3'}", "audio", "unsupported_parameter");
    chat("'web_search_options':{}", "web_search_options", "unsupported_parameter");
    chat("'prediction':{'type':'content','content':'x'}", "prediction", "unsupported_parameter");
    chat("'moderation':{'model':'x'}", "moderation", "unsupported_parameter");
    chat("'prompt_cache_options':{}", "prompt_cache_options", "unsupported_parameter");
    chat("'store':true", "store", "unsupported_value");
    chat("'store':'no'", "store", "invalid_type");
    chat("'modalities':['text','audio']", "modalities", "invalid_value");
    chat("'modalities':['audio']", "modalities[0]", "invalid_value");
    chat("'service_tier':'priority'", "service_tier", "invalid_value");
    completion("'best_of':2", "best_of", "integer_above_max_value");
    completion("'echo':true", "echo", "unsupported_value");
    completion("'echo':0", "echo", "invalid_type");
    completion("'suffix':'x'", "suffix", "unsupported_parameter");
}

static void numbers_are_in_their_range(void **state)
{
    (void)state;
    chat("'temperature':2.0000000000000000000000001", "temperature", "decimal_above_max_value");
    chat("'temperature':-1e-400", "temperature", "decimal_below_min_value");
    chat("'temperature':-0.0", NULL, NULL);
    chat("'temperature':0.2e1", NULL, NULL);
    chat("'temperature':21e-1", "temperature", "decimal_above_max_value");
    chat("'temperature':1e400", "temperature", "decimal_above_max_value");
    chat("'temperature':'1'", "temperature", "invalid_type");
    chat("'temperature':NaN", NULL, "none");
    chat("'top_p':1.1", "top_p", "decimal_above_max_value");
    chat("'presence_penalty':-2.1", "presence_penalty", "decimal_below_min_value");
    chat("'n':0", "n", "integer_below_min_value");
    chat("'n':9", "n", "integer_above_max_value");
    chat("'n':1.0", "n", "invalid_type");
    chat("'n':99999999999999999999", "n", "invalid_type");
    chat("'max_tokens':0", "max_tokens", "integer_below_min_value");
    chat("'max_tokens':-1", "max_tokens", "integer_below_min_value");
    chat("'max_tokens':1000000001", "max_tokens", "integer_above_max_value");
    chat("'max_tokens':1e3", "max_tokens", "invalid_type");
    chat("'seed':9223372036854775808", "seed", "invalid_type");
    chat("'logprobs':true,'top_logprobs':21", "top_logprobs", "integer_above_max_value");
    chat("'logprobs':1", "logprobs", "invalid_type");
    completion("'logprobs':6", "logprobs", "integer_above_max_value");
    completion("'logprobs':true", "logprobs", "invalid_type");
    chat("'logit_bias':{'1':101}", "logit_bias", "decimal_above_max_value");
    chat("'logit_bias':{'x':1}", "logit_bias", "invalid_value");
    chat("'logit_bias':[]", "logit_bias", "invalid_type");
}

static void texts_and_words_are_what_they_may_be(void **state)
{
    (void)state;
    chat("'stop':''", "stop", "string_too_short");
    chat("'stop':['a','b','c','d','e']", "stop", "array_above_max_length");
    chat("'stop':['a',7]", "stop[1]", "invalid_type");
    chat("'user':7", "user", "invalid_type");
    chat("'reasoning_effort':'lots'", "reasoning_effort", "invalid_value");
    chat("'verbosity':''", "verbosity", "invalid_value");
    chat("'stream':'true'", "stream", "invalid_type");
    chat("'cache':'yes'", "cache", "invalid_type");
    chat("'metadata':{'k':7}", "metadata", "invalid_type");
    chat("'metadata':{}", NULL, NULL);
    chat("'metadata':{'a123456789012345678901234567890123456789012345678901234567890123':'x'}", NULL, NULL);
    chat("'metadata':{'a1234567890123456789012345678901234567890123456789012345678901234':'x'}", "metadata",
         "invalid_value");
    chat(
        "'metadata':{'a':'','b':'','c':'','d':'','e':'','f':'','g':'','h':'','i':'','j':'','k':'','l':'','m':'',"
        "'n':'','o':'','p':'','q':''}",
        "metadata", "object_above_max_properties");
    chat("'metadata':'x'", "metadata", "invalid_type");
    chat("'response_format':{'type':'xml'}", "response_format.type", "invalid_value");
    chat("'response_format':{'type':'json_schema'}", "response_format.json_schema",
         "missing_required_parameter");
    chat("'response_format':{}", "response_format.type", "missing_required_parameter");
    chat("'response_format':{'type':'json_schema','json_schema':{}}", "response_format.json_schema.name",
         "missing_required_parameter");
    chat("'response_format':{'type':'json_schema','json_schema':{'name':'n'}}", NULL, NULL);
    chat("'response_format':{'type':'json_object'}", NULL, NULL);
    expect_of(AI_COMPLETION, "{'model':'m','prompt':['a','b']}", "prompt", "invalid_value");
    expect_of(AI_COMPLETION, "{'model':'m','prompt':[1,2]}", "prompt", ANY);
    expect_of(AI_COMPLETION, "{'model':'m','prompt':[[1]]}", "prompt", "invalid_type");
    expect_of(AI_COMPLETION, "{'model':'m','prompt':{}}", "prompt", "invalid_type");
}

static void some_parameters_need_others(void **state)
{
    (void)state;
    chat("'stream_options':{'include_usage':true}", "stream_options", "invalid_value");
    chat("'stream':false,'stream_options':{}", "stream_options", "invalid_value");
    chat("'top_logprobs':1", "top_logprobs", "invalid_value");
    chat("'logprobs':false,'top_logprobs':1", "top_logprobs", "invalid_value");
    chat("'tool_choice':'auto'", "tool_choice", "invalid_value");
    chat("'function_call':'auto'", "function_call", "invalid_value");
    chat("'max_tokens':1,'max_completion_tokens':1", "max_tokens", "invalid_value");
}

static void tools_are_functions_or_custom(void **state)
{
    (void)state;
    chat("'tools':[]", "tools", "empty_array");
    chat("'tools':{}", "tools", "invalid_type");
    chat("'tools':[{'type':'function','function':{'name':'azAZ09_-'}}]", NULL, NULL);
    chat("'tools':[{'type':'function','function':{'name':'a.b'}}]", "tools[0].function.name",
         "invalid_value");
    chat("'tools':[{'type':'function','function':{'name':'a\\u0000'}}]", "tools[0].function.name",
         "invalid_value");
    chat("'tools':[{'type':'function','function':{'name':"
         "'a123456789012345678901234567890123456789012345678901234567890123'}}]",
         NULL, NULL);
    chat("'tools':[{'type':'function','function':{'name':"
         "'a1234567890123456789012345678901234567890123456789012345678901234'}}]",
         "tools[0].function.name", "string_too_long");
    chat("'tools':[{'type':'function','function':{'name':'f'}},{'type':'function','function':{'name':''}}]",
         "tools[1].function.name", "string_too_short");
    chat("'tools':[{'type':'custom'}]", "tools[0].custom", "missing_required_parameter");
    chat("'tools':[{'type':'custom','custom':{'format':{}}}]", "tools[0].custom.name",
         "missing_required_parameter");
    chat("'functions':[{'description':'d'}]", "functions[0].name", "missing_required_parameter");
    chat("'functions':[{'name':'f'}],'function_call':{}", "function_call.name", "missing_required_parameter");
    chat(
        "'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{'type':'function','function':{}}",
        "tool_choice.function.name", "missing_required_parameter");
    chat("'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{'type':'allowed_tools'}",
         "tool_choice.allowed_tools", "missing_required_parameter");
    chat(
        "'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{'type':'allowed_tools','allowed_tools':"
        "{'mode':'auto'}}",
        "tool_choice.allowed_tools.tools", "missing_required_parameter");
    chat(
        "'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{'type':'allowed_tools','allowed_tools':"
        "{'tools':[{'type':'function','function':{'name':'f'}}]}}",
        "tool_choice.allowed_tools.mode", "missing_required_parameter");
    chat("'tools':[7]", "tools[0]", "invalid_type");
    chat("'tools':[{'function':{'name':'f'}}]", "tools[0].type", "missing_required_parameter");
    chat("'tools':[{'type':'function'}]", "tools[0].function", "missing_required_parameter");
    chat("'tools':[{'type':'function','function':{}}]", "tools[0].function.name",
         "missing_required_parameter");
    chat("'tools':[{'type':'function','function':{'name':'a b'}}]", "tools[0].function.name",
         "invalid_value");
    chat("'tools':[{'type':'function','function':{'name':'f','parameters':'x'}}]",
         "tools[0].function.parameters", "invalid_type");
    chat("'tools':[{'type':'web_search'}]", "tools[0].type", "invalid_value");
    chat("'tools':[{'type':'custom','custom':{'name':'f','format':{'type':'text'}}}]", NULL, NULL);
    chat(
        "'tools':[{'type':'custom','custom':{'name':'f'}}],'tool_choice':{'type':'custom','custom':{'name':'f'}}",
        NULL, NULL);
    chat("'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{'type':'allowed_tools',"
         "'allowed_tools':{'mode':'auto','tools':[{'type':'function','function':{'name':'f'}}]}}",
         NULL, NULL);
    chat("'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':'some'", "tool_choice",
         "invalid_value");
    chat("'tools':[{'type':'function','function':{'name':'f'}}],'tool_choice':{}", "tool_choice.type", ANY);
}

/* ---- messages ---- */

static void messages_are_of_a_role_and_have_content(void **state)
{
    (void)state;
    message(
        "{'role':'system','content':'x'},{'role':'developer','content':[{'type':'text','text':'x'}],'name':'n'},"
        "{'role':'user','content':''}",
        NULL, NULL);
    message("7", "messages[0]", "invalid_type");
    message("{'content':'x'}", "messages[0].role", "missing_required_parameter");
    message("{'role':'robot','content':'x'}", "messages[0].role", "invalid_value");
    message("{'role':7,'content':'x'}", "messages[0].role", "invalid_type");
    message("{'role':'user'}", "messages[0].content", "missing_required_parameter");
    message("{'role':'user','content':null}", "messages[0].content", "missing_required_parameter");
    message("{'role':'user','content':7}", "messages[0].content", "invalid_type");
    message("{'role':'user','content':[]}", "messages[0].content", "empty_array");
    message("{'role':'user','content':['x']}", "messages[0].content[0]", "invalid_type");
    message(
        "{'role':'user','content':'x'},{'role':'user','content':[{'type':'text','text':'x'},{'type':'text'}]}",
        "messages[1].content[1].text", "missing_required_parameter");
    message("{'role':'assistant','content':[{'type':'refusal'}]}", "messages[0].content[0].refusal",
            "missing_required_parameter");
    message("{'role':'user','content':[{'type':'image_url'}]}", "messages[0].content[0].image_url",
            "missing_required_parameter");
    message("{'role':'user','content':[{'type':'image_url','image_url':{}}]}",
            "messages[0].content[0].image_url.url", "missing_required_parameter");
    message("{'role':'function','content':'x'}", "messages[0].name", "missing_required_parameter");
    message("{'role':'system','content':[{'type':'image_url','image_url':{'url':'https://h/'}}]}",
            "messages[0].content[0].type", "invalid_value");
    message("{'role':'tool','tool_call_id':'c'}", "messages[0].content", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'id':'c','function':{'name':'f','arguments':''}}]}",
            "messages[0].tool_calls[0].type", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'id':'c','type':'custom'}]}",
            "messages[0].tool_calls[0].custom", "missing_required_parameter");
    message("{'role':'developer'}", "messages[0].content", "missing_required_parameter");
    message("{'role':'function','name':'f'}", "messages[0].content", "missing_required_parameter");
    message("{'role':'tool','content':'x'}", "messages[0].tool_call_id", "missing_required_parameter");
    message("{'role':'user','content':'x','tool_call_id':'x'}", "messages[0].tool_call_id",
            "unknown_parameter");
}

static void an_answer_may_be_sent_back_as_it_was(void **state)
{
    (void)state;
    message(
        "{'role':'assistant','content':'x','refusal':null,'annotations':[],'reasoning_content':'y','audio':null}",
        NULL, NULL);
    message(
        "{'role':'assistant','content':null,'tool_calls':[{'id':'c','type':'function','function':{'name':'f',"
        "'arguments':'not checked here'}},{'id':'d','type':'custom','custom':{'name':'g','input':'x'}}]}",
        NULL, NULL);
    message("{'role':'assistant','content':[{'type':'refusal','refusal':'no'}]}", NULL, NULL);
    message("{'role':'assistant','function_call':{'name':'f','arguments':'{}'}}", NULL, NULL);
    message(
        "{'role':'assistant','content':null,'parsed':{'a':1},'tool_calls':[{'index':0,'id':'c','type':'function',"
        "'function':{'name':'f','arguments':'{}','parsed_arguments':{}}}]}",
        NULL, NULL);
    message("{'role':'assistant'}", "messages[0].content", "missing_required_parameter");
    message("{'role':'assistant','content':null,'refusal':null}", "messages[0].content", ANY);
    message("{'role':'assistant','content':'x','audio':{'id':'a'}}", "messages[0].audio",
            "unsupported_parameter");
    message("{'role':'assistant','tool_calls':[]}", "messages[0].tool_calls", "empty_array");
    message(
        "{'role':'assistant','tool_calls':[{'id':'','type':'function','function':{'name':'f','arguments':''}}]}",
        "messages[0].tool_calls[0].id", "string_too_short");
    message(
        "{'role':'assistant','tool_calls':[{'id':'c','type':'function','function':{'name':'f','arguments':{}}}]}",
        "messages[0].tool_calls[0].function.arguments", "invalid_type");
    message("{'role':'assistant','tool_calls':[{'id':'c','type':'function','function':{'name':'f'}}]}",
            "messages[0].tool_calls[0].function.arguments", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'id':'c','type':'function','function':{'arguments':''}}]}",
            "messages[0].tool_calls[0].function.name", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'type':'function','function':{'name':'f','arguments':''}}]}",
            "messages[0].tool_calls[0].id", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'id':'c','type':'custom','custom':{'name':'f'}}]}",
            "messages[0].tool_calls[0].custom.input", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'id':'c','type':'custom','custom':{'input':'f'}}]}",
            "messages[0].tool_calls[0].custom.name", "missing_required_parameter");
    message("{'role':'assistant','tool_calls':[{'type':'custom','custom':{'name':'f','input':''}}]}",
            "messages[0].tool_calls[0].id", "missing_required_parameter");
}

static void images_are_links_or_data(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool fine;
    } cases[] = {
        {"https://host/x.png", true},
        {"http://host/x.png", true},
        {"data:image/png;base64,AA==", true},
        {"data:image/webp;base64,AA", true},
        {"data:image/png;base64,", false},
        {"data:image/svg+xml;base64,AA", false},
        {"data:text/html;base64,AA", false},
        {"data:image/png,AA", false},
        {"file:///etc/passwd", false},
        {"ftp://host/", false},
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "{'role':'user','content':[{'type':'image_url','image_url':{'url':'%s','detail':'high'}}]}",
                 cases[i].url);
        message(text, cases[i].fine ? NULL : "messages[0].content[0].image_url.url",
                cases[i].fine ? NULL : ANY);
    }
    message("{'role':'user','content':[{'type':'image_url','image_url':'https://h/'}]}",
            "messages[0].content[0].image_url", "invalid_type");
    message("{'role':'user','content':[{'type':'input_audio','input_audio':{}}]}",
            "messages[0].content[0].type", "invalid_value");
}

/* ---- what is read ---- */

static void what_is_asked_for_is_read(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct ai_request request = ai_test_request(
        &arena, AI_CHAT,
        "{'model':'m'," HI
        ",'stream':true,'stream_options':{'include_usage':true},'n':3,'max_tokens':7,'cache':false}");
    assert_true(str_equal(request.model, STR("m")));
    assert_true(request.stream && request.include_usage);
    assert_int_equal(request.choices, 3);
    assert_int_equal(request.max_tokens, 7);
    assert_int_equal(request.cache, AI_CACHE_NO);
    assert_int_equal(json_count(request.messages), 1);
    request = ai_test_request(&arena, AI_COMPLETION, "{'model':'m','prompt':['Hi']}");
    assert_true(str_equal(request.prompt, STR("Hi")));
    assert_false(request.stream || request.include_usage);
    assert_int_equal(request.choices, 1);
    assert_int_equal(request.max_tokens, 0);
    assert_int_equal(request.cache, AI_CACHE_AS_MODEL);
    request = ai_test_request(&arena, AI_CHAT, "{'model':'m'," HI ",'max_completion_tokens':9,'cache':true}");
    assert_int_equal(request.max_tokens, 9);
    assert_int_equal(request.cache, AI_CACHE_YES);
    arena_clear(&arena);
}

static int64_t bound_of(struct arena *arena, const char *members, int64_t *estimate)
{
    struct ai_request request =
        ai_test_request(arena, AI_CHAT, arena_printf(arena, "{'model':'m',%s}", members));
    assert_true(request.prompt_tokens >= 0 && request.prompt_tokens <= request.prompt_tokens_most);
    *estimate = request.prompt_tokens;
    return request.prompt_tokens_most;
}

/* Each part counts at least its bytes; an image counts the most of any model, and its data nothing. */
static void the_bound_counts_all_that_a_provider_may_charge(void **state)
{
    (void)state;
    struct arena arena;
    int64_t estimate;
    arena_init(&arena);
    int64_t base = AI_REQUEST_OVERHEAD_TOKENS + AI_MESSAGE_OVERHEAD_TOKENS;
    assert_int_equal(bound_of(&arena, HI, &estimate), base + 2);
    assert_int_equal(estimate, 1 + 4);
    assert_int_equal(bound_of(&arena, "'messages':[{'role':'user','name':'abc','content':'Hi'}]", &estimate),
                     base + 5);
    assert_int_equal(bound_of(&arena,
                              "'messages':[{'role':'user','content':[{'type':'image_url','image_url':{'url':"
                              "'data:image/png;base64,AAAAAAAAAAAAAAAA'}}]}]",
                              &estimate),
                     base + AI_IMAGE_TOKENS_MOST);
    assert_int_equal(estimate, AI_IMAGE_TOKENS + 4);
    assert_int_equal(bound_of(&arena,
                              "'messages':[{'role':'user','content':[{'type':'text','text':'abc'},{'type':"
                              "'image_url','image_url':{'url':'https://h/','detail':'low'}}]}]",
                              &estimate),
                     base + 3 + AI_IMAGE_LOW_TOKENS_MOST);
    const char *tools = "[{'type':'function','function':{'name':'f','description':'\\n'}}]";
    assert_int_equal(bound_of(&arena, arena_printf(&arena, HI ",'tools':%s", tools), &estimate),
                     base + 2 + AI_TOOLS_OVERHEAD_TOKENS + (int64_t)strlen(tools));
    const char *functions = "[{'name':'f'}]";
    const char *format = "{'type':'text'}";
    assert_int_equal(
        bound_of(&arena, arena_printf(&arena, HI ",'functions':%s,'response_format':%s", functions, format),
                 &estimate),
        base + 2 + 2 * AI_TOOLS_OVERHEAD_TOKENS + (int64_t)(strlen(functions) + strlen(format)));
    struct ai_request request = ai_test_request(&arena, AI_COMPLETION, "{'model':'m','prompt':'12345'}");
    assert_int_equal(request.prompt_tokens_most, base + 5);
    assert_int_equal(request.prompt_tokens, 2 + 4);
    arena_clear(&arena);
}

/* ---- digests ---- */

static void digest_of(enum ai_kind kind, const char *body, unsigned char digest[CRYPTO_DIGEST_SIZE])
{
    struct arena arena;
    arena_init(&arena);
    struct ai_request request = ai_test_request(&arena, kind, body);
    ai_request_digest(&request, digest);
    arena_clear(&arena);
}

static void a_digest_is_of_what_the_answer_depends_on(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool same;
    } cases[] = {
        {" { 'temperature' : 0.5 , " HI " , 'model' : 'm' } ", true},
        {"{'model':'m'," HI ",'temperature':0.5,'stream':true,'stream_options':{'include_usage':true}}",
         true},
        {"{'model':'m'," HI ",'temperature':0.5,'user':'u','cache':true,'metadata':{'a':'b'},'n':null}",
         true},
        {"{'model':'m'," HI ",'temperature':0.6}", false},
        {"{'model':'n'," HI ",'temperature':0.5}", false},
        {"{'model':'m'," HI "}", false},
        {"{'model':'m'," HI ",'temperature':0.5,'n':2}", false},
        {"{'model':'m'," HI ",'temperature':0.5,'max_tokens':2}", false},
        {"{'model':'m','messages':[{'role':'user','content':'Ho'}],'temperature':0.5}", false},
    };
    unsigned char first[CRYPTO_DIGEST_SIZE];
    unsigned char other[CRYPTO_DIGEST_SIZE];
    digest_of(AI_CHAT, "{'model':'m'," HI ",'temperature':0.5}", first);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        digest_of(AI_CHAT, cases[i].body, other);
        if ((memcmp(first, other, sizeof first) == 0) != cases[i].same)
            fail_msg("%s", cases[i].body);
    }
    digest_of(AI_COMPLETION, "{'model':'m','prompt':'x'}", other);
    digest_of(AI_COMPLETION, "{'model':'m','prompt':'x','seed':1}", first);
    assert_memory_not_equal(first, other, sizeof first);
}

/* ---- numbers ---- */

static void numbers_are_compared_by_their_digits(void **state)
{
    (void)state;
    static const struct {
        const char *number;
        int64_t with;
        int order;
    } cases[] = {
        {"1e10", INT64_C(10000000001), -1},
        {"1e10", INT64_C(9999999999), 1},
        {"1E+10", INT64_C(10000000000), 0},
        {"100000000e-10", 0, 1},
        {"0", 0, 0},
        {"-0", 0, 0},
        {"-0.000e9", 0, 0},
        {"0e99", 0, 0},
        {"1", 0, 1},
        {"-1", 0, -1},
        {"1e-999", 0, 1},
        {"-1e-999", 0, -1},
        {"1.0", 1, 0},
        {"10e-1", 1, 0},
        {"0.1E+1", 1, 0},
        {"100", 100, 0},
        {"1e2", 100, 0},
        {"0.99999", 1, -1},
        {"1.00001", 1, 1},
        {"99.9", 100, -1},
        {"-100", -100, 0},
        {"-1e2", -100, 0},
        {"-100.1", -100, -1},
        {"-99", -100, 1},
        {"2", 10, -1},
        {"10", 2, 1},
        {"5", -5, 1},
        {"-5", 5, -1},
        {"1e99999999999999999999", 2, 1},
        {"1e-99999999999999999999", 2, -1},
        {"0.05", 0, 1},
        {"-9223372036854775808", INT64_MIN, 0},
        {"9223372036854775808", INT64_MAX, 1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int order = ai_compare_number(str_from(cases[i].number), cases[i].with);
        if ((order > 0) - (order < 0) != cases[i].order)
            fail_msg("%s against %lld: %d", cases[i].number, (long long)cases[i].with, order);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_an_object_with_all_that_it_needs),
        cmocka_unit_test(members_that_are_unknown_are_refused_by_name),
        cmocka_unit_test(a_name_that_is_too_long_is_shown_in_part),
        cmocka_unit_test(what_the_sdks_send_is_taken),
        cmocka_unit_test(what_is_not_to_be_had_is_refused),
        cmocka_unit_test(numbers_are_in_their_range),
        cmocka_unit_test(texts_and_words_are_what_they_may_be),
        cmocka_unit_test(some_parameters_need_others),
        cmocka_unit_test(tools_are_functions_or_custom),
        cmocka_unit_test(messages_are_of_a_role_and_have_content),
        cmocka_unit_test(an_answer_may_be_sent_back_as_it_was),
        cmocka_unit_test(images_are_links_or_data),
        cmocka_unit_test(what_is_asked_for_is_read),
        cmocka_unit_test(the_bound_counts_all_that_a_provider_may_charge),
        cmocka_unit_test(a_digest_is_of_what_the_answer_depends_on),
        cmocka_unit_test(numbers_are_compared_by_their_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
