/* Unstreamed answers and errors of providers that speak as OpenAI does, and the table of their functions. */
#include "proto/ai/openai_internal.h"

#include "proto/ai/classify.h"
#include "proto/ai/mend.h"

#include <errno.h>
#include <stdio.h>

/* ---- answers ---- */

static int fail(struct ai_failure *failure, struct str why)
{
    ai_failure_make(failure, AI_FAULT_PROTOCOL, why);
    return -EPROTO;
}

/* The choices that were asked for, in their order; one that is there twice counts once. Returns how many. */
static size_t read_choices(struct arena *arena, const struct ai_identity *identity, const struct json *list,
                           struct ai_choice choices[AI_CHOICES_MAX])
{
    struct ai_choice read[AI_CHOICES_MAX];
    unsigned found = 0;
    size_t count = 0;
    for (size_t i = 0; i < json_count(list) && i < AI_CHOICES_MAX; i++) {
        struct ai_choice choice;
        if (!openai_read_choice(arena, identity, json_item(list, i), i, false, &choice))
            continue;
        read[choice.index] = choice;
        found |= 1U << choice.index;
    }
    for (unsigned i = 0; i < AI_CHOICES_MAX; i++)
        if (found & 1U << i)
            choices[count++] = read[i];
    return count;
}

static void settle_usage(const struct ai_identity *identity, const struct json *object,
                         const struct ai_choice *choices, size_t count, struct ai_usage *usage)
{
    bool has_prompt = false;
    bool has_completion = false;
    uint64_t bytes = 0;
    *usage = (struct ai_usage){.prompt_tokens = identity->prompt_tokens};
    for (size_t i = 0; i < count; i++)
        bytes += ai_choice_bytes(&choices[i]);
    usage->completion_tokens = ai_estimate_tokens(bytes);
    openai_read_usage(json_member(object, "usage"), usage, &has_prompt, &has_completion);
    usage->estimated = !has_prompt || !has_completion;
}

int openai_read_answer(struct arena *arena, const struct ai_identity *identity, struct str body,
                       struct buf *out, struct ai_answer *answer, struct ai_failure *failure)
{
    struct ai_choice choices[AI_CHOICES_MAX];
    struct ai_extras extras;
    const struct json *object = ai_read_json(arena, body);
    if (!object)
        return fail(failure, STR("the answer is no JSON"));
    if (ai_find_error(arena, identity, object, failure))
        return -EPROTO;
    size_t count = read_choices(arena, identity, json_member(object, "choices"), choices);
    if (count == 0)
        return fail(failure, STR("the answer has no choices"));
    *answer = (struct ai_answer){.finish_reason = choices[0].finish_reason};
    answer->text = choices[0].content.at ? choices[0].content : STR("");
    settle_usage(identity, object, choices, count, &answer->usage);
    openai_read_extras(object, &extras);
    struct json_out json = json_out_to(out);
    ai_open_answer(&json, identity);
    for (size_t i = 0; i < count; i++)
        ai_put_choice(&json, identity, &choices[i]);
    ai_close_answer(&json, &answer->usage, &extras);
    return 0;
}

/* ---- errors and limits ---- */

static int64_t count_header(ai_header_get *header, const void *arg, const char *name)
{
    uint64_t count;
    struct str value = header(arg, name);
    return value.at && str_to_u64(str_trim(value), &count) && count <= INT64_MAX ? (int64_t)count : -1;
}

static int64_t span_header(ai_header_get *header, const void *arg, const char *name)
{
    struct str value = header(arg, name);
    return value.at ? ai_read_span(value) : -1;
}

/* Milliseconds without a unit. */
static int64_t retry_after_ms(struct str value)
{
    char text[32];
    struct str trimmed = str_trim(value);
    if (!value.at || trimmed.size == 0 || trimmed.size > sizeof text - 3)
        return -1;
    int size = snprintf(text, sizeof text, "%.*sms", STR_ARG(trimmed));
    return ai_read_span(str_of(text, (size_t)size));
}

static void read_rate(ai_header_get *header, const void *arg, int64_t now_ms, struct ai_rate *rate)
{
    struct str seconds = header(arg, "retry-after");
    int64_t ms = retry_after_ms(header(arg, "retry-after-ms"));
    *rate = (struct ai_rate){
        .retry_after_ms = ms >= 0      ? ms
                          : seconds.at ? ai_read_retry_after(seconds, now_ms)
                                       : -1,
        .requests_left = count_header(header, arg, "x-ratelimit-remaining-requests"),
        .requests_reset_ms = span_header(header, arg, "x-ratelimit-reset-requests"),
        .tokens_left = count_header(header, arg, "x-ratelimit-remaining-tokens"),
        .tokens_reset_ms = span_header(header, arg, "x-ratelimit-reset-tokens"),
    };
}

static const char *const headers_wanted[] = {"retry-after",
                                             "retry-after-ms",
                                             "x-ratelimit-remaining-requests",
                                             "x-ratelimit-remaining-tokens",
                                             "x-ratelimit-reset-requests",
                                             "x-ratelimit-reset-tokens",
                                             NULL};

static void read_error(struct arena *arena, int status, struct str body, ai_header_get *header,
                       const void *arg, struct str secret, int64_t now_ms, struct ai_failure *failure)
{
    struct ai_upstream_error error = {.status = status};
    struct ai_rate rate;
    const struct json *object = ai_read_json(arena, body);
    const struct json *said = json_member(object, "error");
    if (object)
        ai_read_error_object(said ? said : object, &error);
    ai_classify(arena, &error, secret, failure);
    read_rate(header, arg, now_ms, &rate);
    ai_failure_rate(failure, &rate);
}

/* ---- the table ---- */

static const char *path(enum ai_kind kind, bool native_completions)
{
    return kind == AI_COMPLETION && native_completions ? "/completions" : "/chat/completions";
}

static const char *const *headers(struct arena *arena, struct str api_key, bool stream)
{
    const char **list = arena_zalloc(arena, 4 * sizeof *list);
    size_t count = 0;
    list[count++] = "Content-Type: application/json";
    list[count++] = stream ? "Accept: text/event-stream" : "Accept: application/json";
    if (api_key.at)
        list[count++] = arena_printf(arena, "Authorization: Bearer %.*s", STR_ARG(api_key));
    return list;
}

const struct ai_provider_ops ai_openai = {
    .name = "openai",
    .path = path,
    .headers = headers,
    .headers_wanted = headers_wanted,
    .accepts = openai_accepts,
    .write_request = openai_write_request,
    .read_answer = openai_read_answer,
    .stream_begin = ai_stream_init,
    .stream_event = openai_stream_event,
    .read_error = read_error,
    .read_rate = read_rate,
};
