/* Streams put together again: the answer is the one that the same call has unstreamed, or there is none. */
#include "proto/ai/openai_gather.h"
#include "test/unit/proto/ai/support.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define USAGE "{'choices':[],'usage':{'prompt_tokens':5,'completion_tokens':3,'total_tokens':8}}"
#define HEAD "{'id':'ID','object':'chat.completion','created':7,'model':'M','choices':["
#define TAIL "],'usage':{'prompt_tokens':5,'completion_tokens':3,'total_tokens':8}}"
#define DELTA(members) "{'choices':[{'index':0,'delta':{" members "},'logprobs':null,'finish_reason':null}]}"
#define STOP(reason) "{'choices':[{'index':0,'delta':{},'logprobs':null,'finish_reason':'" reason "'}]}"

enum { ROOM = 4096 };

/* Chunks up to the NULL; wanted NULL: there is no answer. */
static void gathered(const struct ai_identity *identity, const char *const *chunks, size_t room,
                     const char *wanted)
{
    struct arena arena;
    struct buf answer = {0};
    arena_init(&arena);
    struct openai_gathering *gathering = openai_gather_new(identity, room);
    for (; *chunks; chunks++)
        assert_int_equal(openai_gather_add(gathering, ai_quoted(&arena, *chunks)),
                         strncmp(*chunks, "{'choices':[],'usage':{", 23) == 0);
    assert_int_equal(openai_gather_answer(gathering, &answer), wanted != NULL);
    if (wanted)
        ai_assert_text(buf_str(&answer), wanted);
    openai_gather_free(gathering);
    buf_clear(&answer);
    arena_clear(&arena);
}

#define GATHERED(kind, wanted, ...)                                                                          \
    do {                                                                                                     \
        const struct ai_identity identity_ = ai_test_identity(kind);                                         \
        gathered(&identity_, (const char *const[]){__VA_ARGS__, NULL}, ROOM, wanted);                        \
    } while (0)

static void texts_are_joined(void **state)
{
    (void)state;
    GATHERED(AI_CHAT,
             HEAD "{'index':0,'message':{'role':'assistant','content':'Hi there','refusal':null,"
                  "'reasoning_content':'Hm.'},'logprobs':null,'finish_reason':'stop'}" TAIL,
             DELTA("'role':'assistant','content':''"), DELTA("'reasoning_content':'Hm'"),
             DELTA("'reasoning_content':'.'"), DELTA("'content':'Hi'"), DELTA("'content':' there'"),
             STOP("stop"), USAGE);
    GATHERED(
        AI_COMPLETION,
        "{'id':'ID','object':'text_completion','created':7,'model':'M','choices':[{'text':'ab','index':0,"
        "'logprobs':null,'finish_reason':'length'}" TAIL,
        "{'choices':[{'text':'a','index':0,'logprobs':null,'finish_reason':null}]}",
        "{'choices':[{'text':'b','index':0,'logprobs':null,'finish_reason':'length'}]}", USAGE);
}

static void nothing_said_is_an_empty_text(void **state)
{
    (void)state;
    GATHERED(AI_CHAT,
             HEAD "{'index':0,'message':{'role':'assistant','content':'','refusal':null},'logprobs':null,"
                  "'finish_reason':'stop'}" TAIL,
             DELTA("'role':'assistant','content':''"), STOP("stop"), USAGE);
    GATHERED(AI_CHAT,
             HEAD "{'index':0,'message':{'role':'assistant','content':null,'refusal':'No.'},'logprobs':null,"
                  "'finish_reason':'stop'}" TAIL,
             DELTA("'role':'assistant','content':''"), DELTA("'refusal':'No'"), DELTA("'refusal':'.'"),
             STOP("stop"), USAGE);
}

static void calls_are_told_apart_by_their_index(void **state)
{
    (void)state;
    GATHERED(
        AI_CHAT,
        HEAD
        "{'index':0,'message':{'role':'assistant','content':null,'refusal':null,'tool_calls':[{'id':'c0',"
        "'type':'function','function':{'name':'f','arguments':'[1,2]'}},{'id':'c1','type':'custom','custom':{"
        "'name':'g','input':'x'}},{'id':'c2','type':'function','function':{'name':'h','arguments':''}}]},"
        "'logprobs':null,'finish_reason':'tool_calls'}" TAIL,
        DELTA("'role':'assistant','content':''"),
        DELTA(
            "'tool_calls':[{'index':0,'id':'c0','type':'function','function':{'name':'f','arguments':''}}]"),
        DELTA("'tool_calls':[{'index':0,'function':{'arguments':'[1,'}}]"),
        DELTA("'tool_calls':[{'index':1,'id':'c1','type':'custom','custom':{'name':'g','input':'x'}}]"),
        DELTA("'tool_calls':[{'index':0,'function':{'arguments':'2]'}}]"),
        DELTA("'tool_calls':[{'index':2,'id':'c2','type':'function','function':{'name':'h'}}]"),
        STOP("tool_calls"), USAGE);
    GATHERED(AI_CHAT,
             HEAD "{'index':0,'message':{'role':'assistant','content':null,'refusal':null,'function_call':{"
                  "'name':'f','arguments':'{}'}},'logprobs':null,'finish_reason':'function_call'}" TAIL,
             DELTA("'role':'assistant','function_call':{'name':'f','arguments':'{'}"),
             DELTA("'function_call':{'arguments':'}'}"), STOP("function_call"), USAGE);
    GATHERED(AI_CHAT, NULL, DELTA("'tool_calls':[{'index':1,'id':'c','function':{'name':'f'}}]"),
             STOP("tool_calls"), USAGE);
    GATHERED(AI_CHAT, NULL, DELTA("'tool_calls':[{'index':0,'function':{'arguments':'{}'}}]"),
             STOP("tool_calls"), USAGE);
}

static void lists_follow_each_other(void **state)
{
    (void)state;
    GATHERED(
        AI_CHAT,
        HEAD "{'index':0,'message':{'role':'assistant','content':'ab','refusal':null,'annotations':[{'n':1},{"
             "'n':2}]},'logprobs':{'content':[{'token':'a'},{'token':'b'}],'refusal':null},'finish_reason':"
             "'stop'}" TAIL,
        "{'choices':[{'index':0,'delta':{'role':'assistant','content':'a','annotations':[{'n':1}]},'logprobs':{"
        "'content':[{'token':'a'}],'refusal':null},'finish_reason':null}]}",
        "{'choices':[{'index':0,'delta':{'content':'b','annotations':[{'n':2}]},'logprobs':{'content':[{"
        "'token':'b'}],'refusal':null},'finish_reason':null}]}",
        STOP("stop"), USAGE);
    GATHERED(
        AI_CHAT, NULL,
        "{'choices':[{'index':0,'delta':{'content':'a'},'logprobs':{'content':7},'finish_reason':null}]}",
        STOP("stop"), USAGE);
}

static void choices_stand_in_their_order(void **state)
{
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    (void)state;
    identity.choices = 2;
#define OTHER(members, reason)                                                                               \
    "{'choices':[{'index':1,'delta':{" members "},'logprobs':null,'finish_reason':" reason "}]}"
    const char *const whole[] = {OTHER("'content':'b'", "null"),
                                 DELTA("'content':'a'"),
                                 OTHER("", "'length'"),
                                 STOP("stop"),
                                 USAGE,
                                 NULL};
    gathered(&identity, whole, ROOM,
             HEAD
             "{'index':0,'message':{'role':'assistant','content':'a','refusal':null},'logprobs':null,"
             "'finish_reason':'stop'},{'index':1,'message':{'role':'assistant','content':'b','refusal':null},"
             "'logprobs':null,'finish_reason':'length'}" TAIL);
    const char *const one[] = {DELTA("'content':'a'"), STOP("stop"), USAGE, NULL};
    gathered(&identity, one, ROOM, NULL);
}

static void what_is_told_beside_is_kept(void **state)
{
    (void)state;
    GATHERED(
        AI_CHAT,
        HEAD "{'index':0,'message':{'role':'assistant','content':'a','refusal':null},'logprobs':null,"
             "'finish_reason':'stop'}],'usage':{'prompt_tokens':5,'completion_tokens':3,'total_tokens':8,"
             "'prompt_tokens_details':{'cached_tokens':2}},'service_tier':'default',"
             "'system_fingerprint':'fp'}",
        "{'choices':[{'index':0,'delta':{'content':'a'},'finish_reason':null}],'system_fingerprint':'fp'}",
        "{'choices':[{'index':0,'delta':{},'finish_reason':'stop'}],'service_tier':'default'}",
        "{'choices':[],'usage':{'prompt_tokens':5,'completion_tokens':3,'total_tokens':8,"
        "'prompt_tokens_details':{'cached_tokens':2}}}");
}

static void what_is_not_whole_is_no_answer(void **state)
{
    struct ai_identity identity = ai_test_identity(AI_CHAT);
    const char *const long_one[] = {DELTA("'content':'a'"), DELTA("'content':'b'"), STOP("stop"), USAGE,
                                    NULL};
    (void)state;
    GATHERED(AI_CHAT, NULL, DELTA("'content':'a'"), STOP("stop"));
    GATHERED(AI_CHAT, NULL, DELTA("'content':'a'"), USAGE);
    GATHERED(AI_CHAT, NULL, USAGE);
    GATHERED(AI_CHAT, NULL, "{", DELTA("'content':'a'"), STOP("stop"), USAGE);
    GATHERED(AI_CHAT, NULL, STOP("stop"), DELTA("'content':'a'"), USAGE);
    GATHERED(AI_CHAT, NULL, "{'choices':[{'index':1,'delta':{},'finish_reason':'stop'}]}", STOP("stop"),
             USAGE);
    gathered(&identity, long_one, 1, NULL);
    openai_gather_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_joined),
        cmocka_unit_test(nothing_said_is_an_empty_text),
        cmocka_unit_test(calls_are_told_apart_by_their_index),
        cmocka_unit_test(lists_follow_each_other),
        cmocka_unit_test(choices_stand_in_their_order),
        cmocka_unit_test(what_is_told_beside_is_kept),
        cmocka_unit_test(what_is_not_whole_is_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
