/* What providers' errors mean, what a client is told of them, and for how long to wait. */
#include "proto/ai/anthropic.h"
#include "proto/ai/openai.h"
#include "test/unit/proto/ai/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* 2026-11-28T16:00:00Z */
#define NOW_MS INT64_C(1795881600000)

static struct ai_failure failed(struct arena *arena, const struct ai_provider_ops *provider, int status,
                                const char *body, const char *const *headers)
{
    struct ai_failure failure;
    provider->read_error(arena, status, ai_quoted(arena, body), ai_test_header, headers,
                         STR("the-operators-own-key"), NOW_MS, &failure);
    assert_int_equal(failure.upstream_status, status);
    assert_non_null(failure.type);
    assert_non_null(failure.code);
    assert_true(failure.message.size > 0);
    return failure;
}

static void errors_are_told_apart_by_status_and_words(void **state)
{
    (void)state;
    static const struct {
        const struct ai_provider_ops *provider;
        int status;
        const char *body;
        enum ai_fault fault;
        int told;
    } cases[] = {
        {&ai_openai, 400, "{'error':{'message':'x','type':'invalid_request_error'}}", AI_FAULT_CLIENT, 400},
        {&ai_openai, 400, "{'error':{'code':'context_length_exceeded'}}", AI_FAULT_CONTEXT, 400},
        {&ai_openai, 400, "{'error':{'message':'This model has a maximum context length of 4'}}",
         AI_FAULT_CONTEXT, 400},
        {&ai_openai, 400, "{'error':{'code':'content_filter'}}", AI_FAULT_FILTER, 400},
        {&ai_openai, 401, "{'error':{'code':'invalid_api_key'}}", AI_FAULT_AUTH, 502},
        {&ai_openai, 403, "{}", AI_FAULT_AUTH, 502},
        {&ai_openai, 402, "{}", AI_FAULT_QUOTA, 503},
        {&ai_openai, 404, "{'error':{'code':'model_not_found'}}", AI_FAULT_MODEL, 404},
        {&ai_openai, 404, "<html>", AI_FAULT_MODEL, 404},
        {&ai_openai, 408, "", AI_FAULT_TIMEOUT, 504},
        {&ai_openai, 409, "", AI_FAULT_OVERLOAD, 503},
        {&ai_openai, 413, "", AI_FAULT_TOO_LARGE, 413},
        {&ai_openai, 422, "{'detail':[]}", AI_FAULT_CLIENT, 400},
        {&ai_openai, 429, "{'error':{'code':'rate_limit_exceeded'}}", AI_FAULT_RATE, 429},
        {&ai_openai, 429, "{'error':{'type':'insufficient_quota'}}", AI_FAULT_QUOTA, 503},
        {&ai_openai, 500, "{'error':{'type':'invalid_request_error'}}", AI_FAULT_SERVER, 502},
        {&ai_openai, 503, "", AI_FAULT_OVERLOAD, 503},
        {&ai_openai, 504, "", AI_FAULT_TIMEOUT, 504},
        {&ai_openai, 599, "", AI_FAULT_SERVER, 502},
        {&ai_openai, 302, "", AI_FAULT_PROTOCOL, 502},
        {&ai_openai, 405, "", AI_FAULT_PROTOCOL, 502},
        {&ai_openai, 400, "{'object':'error','message':'x','code':40303}", AI_FAULT_CLIENT, 400},
        {&ai_openai, 400, "{'error':'x'}", AI_FAULT_CLIENT, 400},
        {&ai_openai, 400, "{'error':{'message':7,'type':[],'code':{}}}", AI_FAULT_CLIENT, 400},
        {&ai_anthropic, 400, "{'type':'error','error':{'type':'invalid_request_error','message':'x'}}",
         AI_FAULT_CLIENT, 400},
        {&ai_anthropic, 400, "{'error':{'message':'prompt is too long: 9 tokens'}}", AI_FAULT_CONTEXT, 400},
        {&ai_anthropic, 400, "{'error':{'message':'Your credit balance is too low'}}", AI_FAULT_QUOTA, 503},
        {&ai_anthropic, 401, "{'error':{'type':'authentication_error'}}", AI_FAULT_AUTH, 502},
        {&ai_anthropic, 403, "{'error':{'type':'permission_error'}}", AI_FAULT_AUTH, 502},
        {&ai_anthropic, 404, "{'error':{'type':'not_found_error'}}", AI_FAULT_MODEL, 404},
        {&ai_anthropic, 413, "{'error':{'type':'request_too_large'}}", AI_FAULT_TOO_LARGE, 413},
        {&ai_anthropic, 429, "{'error':{'type':'rate_limit_error'}}", AI_FAULT_RATE, 429},
        {&ai_anthropic, 500, "{'error':{'type':'api_error'}}", AI_FAULT_SERVER, 502},
        {&ai_anthropic, 529, "{'error':{'type':'overloaded_error'}}", AI_FAULT_OVERLOAD, 503},
        {&ai_anthropic, 502, "<html>", AI_FAULT_SERVER, 502},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct ai_failure failure = failed(&arena, cases[i].provider, cases[i].status, cases[i].body, NULL);
        if (failure.fault != cases[i].fault || failure.status != cases[i].told)
            fail_msg("%d %s: %s", cases[i].status, cases[i].body, failure.code);
        assert_int_equal(failure.retry_after_ms, -1);
        arena_clear(&arena);
    }
}

static void only_what_another_could_do_is_tried_elsewhere(void **state)
{
    (void)state;
    for (enum ai_fault fault = 0; fault < AI_FAULT_COUNT; fault++) {
        struct ai_failure failure;
        ai_failure_make(&failure, fault, STR_NONE);
        bool is_clients = fault <= AI_FAULT_TOO_LARGE;
        assert_int_equal(failure.elsewhere, !is_clients);
        assert_true(!failure.health || failure.elsewhere);
        assert_true(failure.status >= 400 && failure.status < 600 && failure.message.size > 0);
    }
}

static void the_clients_own_fault_is_told_in_the_providers_words(void **state)
{
    (void)state;
    struct arena arena;
    struct buf out = {0};
    arena_init(&arena);
    struct ai_failure failure = failed(
        &arena, &ai_openai, 400,
        "{'error':{'message':'Invalid size','type':'invalid_request_error','param':'size','code':'bad_size_0az9'}}",
        NULL);
    ai_put_error(&out, &failure);
    ai_assert_text(buf_str(&out), "{'error':{'message':'Invalid size','type':'invalid_request_error',"
                                  "'code':'bad_size_0az9','param':'size'}}");
    failure = failed(&arena, &ai_openai, 400, "{'error':{'message':'x','code':'<b>','param':7}}", NULL);
    assert_string_equal(failure.code, "invalid_request");
    assert_null(failure.param.at);
    buf_clear(&out);
    arena_clear(&arena);
}

static void other_faults_are_told_in_ours(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct ai_failure failure =
        failed(&arena, &ai_openai, 401,
               "{'error':{'message':'Incorrect API key: sk-abc***xyz','code':'invalid_api_key'}}", NULL);
    assert_true(str_equal(failure.message, STR("The provider did not accept this gateway")));
    ai_assert_text(failure.detail, "Incorrect API key: [removed]");
    failure = failed(&arena, &ai_openai, 429, "{'error':{'message':'Limit of organization org-AbC'}}", NULL);
    assert_null(memmem(failure.message.at, failure.message.size, "org", 3));
    ai_assert_text(failure.detail, "Limit of organization [removed]");
    arena_clear(&arena);
}

static void keys_are_struck_out_of_words(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"plain words, gpt-4.1-mini and claude-3-5-sonnet-20241022", NULL},
        {"key 'sk-proj-abc_DEF' is bad", "key '[removed]' is bad"},
        {"key=sk-ant-api03-x;", "key=[removed];"},
        {"Bearer eyJhbGciOiJI.eyJzdWIi.c2ln", "Bearer [removed].[removed].c2ln"},
        {"AIzaSyA-1 xai-1 gsk_1 hf_1", "[removed] [removed] [removed] [removed]"},
        {"0123456789012345678901234567890123456789", NULL},
        {"01234567890123456789012345678901234567890", "[removed]"},
        {"<the-operators-own-key> the-operators-own-key2", "<[removed]> [removed]2"},
        {"a\nb\tc\x7f", "a b c "},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        struct arena arena;
        arena_init(&arena);
        struct str clean = ai_sanitise(&arena, str_from(pairs[i][0]), STR("the-operators-own-key"));
        const char *wanted = pairs[i][1] ? pairs[i][1] : pairs[i][0];
        if (!str_equal(clean, str_from(wanted)))
            fail_msg("%.*s", STR_ARG(clean));
        arena_clear(&arena);
    }
}

static void long_words_are_cut_between_characters(void **state)
{
    (void)state;
    struct arena arena;
    struct buf text = {0};
    arena_init(&arena);
    buf_add_char(&text, 'x');
    for (int i = 0; i < 1000; i++)
        buf_add_literal(&text, "\xe2\x82\xac");
    struct str clean = ai_sanitise(&arena, buf_str(&text), STR_NONE);
    assert_int_equal(clean.size, AI_FAILURE_TEXT_MAX - 1);
    assert_true(str_is_utf8(clean));
    /* What is looked at ends between characters, too: a word that is struck out leaves room for its end. */
    text.size = 0;
    for (int i = 0; i < 996; i++)
        buf_add_char(&text, 'x');
    for (int i = 0; i < 3; i++)
        buf_add_literal(&text, "\xe2\x82\xac");
    clean = ai_sanitise(&arena, buf_str(&text), STR_NONE);
    ai_assert_text(clean, "[removed]\xe2\x82\xac");
    /* A secret at the cut is still seen. */
    text.size = 0;
    for (int i = 0; i < 490; i++)
        buf_add_char(&text, ' ');
    buf_add_literal(&text, "the-operators-own-key");
    clean = ai_sanitise(&arena, buf_str(&text), STR("the-operators-own-key"));
    assert_null(memmem(clean.at, clean.size, "the-", 4));
    buf_clear(&text);
    arena_clear(&arena);
}

/* ---- times ---- */

static void spans_have_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1s", 1000},
        {"6m0s", 360000},
        {"20ms", 20},
        {"1h", 3600000},
        {"2h", 3600000},
        {"59m59.9s", 3599900},
        {"7.66s", 7660},
        {"0.0001s", 1},
        {"1us", 1},
        {"1500us", 2},
        {"0s", 0},
        {"0", 0},
        {"2", 2000},
        {"1.5", 1500},
        {" 3s ", 3000},
        {"1d", 3600000},
        {"99999999999999999999s", 3600000},
        {"1m0.0004s", 60001},
        {"", -1},
        {"s", -1},
        {"1x", -1},
        {"-1s", -1},
        {"1s2", -1},
        {"1 s", -1},
        {"1.s", -1},
        {".5s", -1},
        {"1e3s", -1},
        {"NaN", -1},
        {"0s5", -1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (ai_read_span(str_from(cases[i].text)) != cases[i].ms)
            fail_msg("%s: %lld", cases[i].text, (long long)ai_read_span(str_from(cases[i].text)));
}

static void retry_after_is_seconds_or_a_date(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"0", 0},
        {"5", 5000},
        {"0.25", 250},
        {"999999", AI_RETRY_AFTER_MAX_MS},
        {"99999999999999999999999999", AI_RETRY_AFTER_MAX_MS},
        {"Sat, 28 Nov 2026 16:00:30 GMT", 30000},
        {"Sat, 28 Nov 2026 15:00:30 GMT", 0},
        {"Sun, 29 Nov 2026 16:00:30 GMT", AI_RETRY_AFTER_MAX_MS},
        {"", -1},
        {"-1", -1},
        {"5s", -1},
        {"soon", -1},
        {"1.2.3", -1},
        {"Sat, 31 Feb 2026 16:00:30 GMT", -1},
        {"Sat, 28 Nov 2026 25:00:30 GMT", -1},
        {"Sat, 28 Nov 2026 16:00:30 UTC", -1},
        {"Sat, 28 Foo 2026 16:00:30 GMT", -1},
        {"Sat, 28-Nov-2026 16:00:30 GMT", -1},
        {"Sat, 2x Nov 2026 16:00:30 GMT", -1},
        {"Sat, 28 Nov 20x6 16:00:30 GMT", -1},
        {"Sat, 28 Nov 2026 16:0x:30 GMT", -1},
        {"Sat, 28 Nov 2026 16:00:3x GMT", -1},
        {"Sat; 28 Nov 2026 16:00:30 GMT", -1},
        {"Sat, 28 Nov 2026 16:00:30 GMT+", -1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (ai_read_retry_after(str_from(cases[i].text), NOW_MS) != cases[i].ms)
            fail_msg("%s: %lld", cases[i].text,
                     (long long)ai_read_retry_after(str_from(cases[i].text), NOW_MS));
}

static void times_are_those_of_rfc_3339(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"2026-11-28T16:00:30Z", 30000},      {"2026-11-28T16:00:30.25Z", 30250},
        {"2026-11-28t18:00:30+02:00", 30000}, {"2026-11-28T15:30:30-00:30", 30000},
        {"2026-11-28T16:59:30+00:59", 30000}, {"2026-11-28T16:00:30+24:00", -1},
        {"2026-11-28T16:00:30+01:60", -1},    {"2026-11-28T16:00:30+01 00", -1},
        {"2026-13-28T16:00:30Z", -1},         {"2026-00-28T16:00:30Z", -1},
        {"2026-11-28T24:00:00Z", -1},         {"2026-11-28T15:60:30Z", -1},
        {"2026-11-28T16:00:30z", 30000},      {"2026-11-28T16:00:30X", -1},
        {"2026-11-28T15:00:00Z", 0},          {"2026-12-28T15:00:00Z", AI_RETRY_AFTER_MAX_MS},
        {"2026-11-28T16:00:30", -1},          {"2026-11-31T16:00:30Z", -1},
        {"2026-11-28 16:00:30Z", -1},         {"2026-11-28T16:00:30.Z", -1},
        {"2026-11-28T16:00:30Zx", -1},        {"", -1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (ai_read_time(str_from(cases[i].text), NOW_MS) != cases[i].ms)
            fail_msg("%s: %lld", cases[i].text, (long long)ai_read_time(str_from(cases[i].text), NOW_MS));
}

static void a_provider_is_asked_again_when_it_says(void **state)
{
    (void)state;
    static const char *const seconds[] = {"retry-after", "7", NULL};
    static const char *const both[] = {"retry-after", "7", "retry-after-ms", "250", NULL};
    static const char *const limits[] = {"x-ratelimit-remaining-requests",
                                         "0",
                                         "x-ratelimit-reset-requests",
                                         "6s",
                                         "x-ratelimit-remaining-tokens",
                                         "0",
                                         "x-ratelimit-reset-tokens",
                                         "1m0s",
                                         NULL};
    static const char *const plenty[] = {"x-ratelimit-remaining-requests", "9", "x-ratelimit-reset-requests",
                                         "6s", NULL};
    static const char *const dates[] = {"anthropic-ratelimit-requests-remaining", "0",
                                        "anthropic-ratelimit-requests-reset", "2026-11-28T16:00:09Z", NULL};
    static const char *const none[] = {"retry-after", "9", "retry-after-ms", "0", NULL};
    static const char *const now[] = {
        "retry-after", "0", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "6s", NULL};
    static const char *const odd[] = {"retry-after", "never", "x-ratelimit-remaining-requests", "-1", NULL};
    static const struct {
        const struct ai_provider_ops *provider;
        int status;
        const char *const *headers;
        int64_t ms;
    } cases[] = {
        {&ai_openai, 429, seconds, 7000},  {&ai_openai, 503, seconds, 7000},    {&ai_openai, 429, both, 250},
        {&ai_openai, 429, limits, 60000},  {&ai_openai, 500, limits, -1},       {&ai_openai, 429, plenty, -1},
        {&ai_anthropic, 429, dates, 9000}, {&ai_anthropic, 529, seconds, 7000}, {&ai_openai, 429, odd, -1},
        {&ai_openai, 429, none, 0},        {&ai_openai, 429, now, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct ai_failure failure =
            failed(&arena, cases[i].provider, cases[i].status, "{}", cases[i].headers);
        assert_int_equal(failure.retry_after_ms, cases[i].ms);
        arena_clear(&arena);
    }
}

/* In an arena whose memory is poisoned when it is cleared. */
static void a_failure_can_be_kept(void **state)
{
    (void)state;
    struct arena arena;
    struct arena longer;
    arena_init(&arena);
    arena_init(&longer);
    struct ai_failure failure = failed(
        &arena, &ai_openai, 400, "{'error':{'message':'Bad size','param':'size','code':'bad_size'}}", NULL);
    ai_failure_keep(&longer, &failure);
    arena_clear(&arena);
    assert_true(str_equal(failure.message, STR("Bad size")) && str_equal(failure.detail, STR("Bad size")));
    assert_true(str_equal(failure.param, STR("size")));
    assert_string_equal(failure.code, "bad_size");
    ai_failure_make(&failure, AI_FAULT_BROKEN, STR_NONE);
    ai_failure_keep(&longer, &failure);
    assert_null(failure.detail.at);
    arena_clear(&longer);
}

static void limits_are_read_of_any_answer(void **state)
{
    (void)state;
    static const char *const headers[] = {"x-ratelimit-remaining-requests",
                                          "59",
                                          "x-ratelimit-reset-requests",
                                          "1s",
                                          "x-ratelimit-remaining-tokens",
                                          "149984",
                                          NULL};
    struct ai_rate rate;
    ai_openai.read_rate(ai_test_header, headers, NOW_MS, &rate);
    assert_int_equal(rate.requests_left, 59);
    assert_int_equal(rate.requests_reset_ms, 1000);
    assert_int_equal(rate.tokens_left, 149984);
    assert_int_equal(rate.tokens_reset_ms, -1);
    assert_int_equal(rate.retry_after_ms, -1);
    ai_anthropic.read_rate(ai_test_header, headers, NOW_MS, &rate);
    assert_int_equal(rate.requests_left, -1);
    static const char *const odd[] = {
        "x-ratelimit-remaining-requests",      "-1", "x-ratelimit-remaining-tokens", "many", "retry-after-ms",
        "12345678901234567890123456789012345", NULL};
    ai_openai.read_rate(ai_test_header, odd, NOW_MS, &rate);
    assert_int_equal(rate.requests_left, -1);
    assert_int_equal(rate.tokens_left, -1);
    assert_int_equal(rate.retry_after_ms, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_told_apart_by_status_and_words),
        cmocka_unit_test(only_what_another_could_do_is_tried_elsewhere),
        cmocka_unit_test(the_clients_own_fault_is_told_in_the_providers_words),
        cmocka_unit_test(other_faults_are_told_in_ours),
        cmocka_unit_test(keys_are_struck_out_of_words),
        cmocka_unit_test(long_words_are_cut_between_characters),
        cmocka_unit_test(spans_have_units),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
        cmocka_unit_test(times_are_those_of_rfc_3339),
        cmocka_unit_test(a_provider_is_asked_again_when_it_says),
        cmocka_unit_test(a_failure_can_be_kept),
        cmocka_unit_test(limits_are_read_of_any_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
