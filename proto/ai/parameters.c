/* The members that a request's body may have: see parameters.h. */
#include "proto/ai/parameters.h"

#include <limits.h>

enum { STOPS_MAX = 4, METADATA_MAX = 16, TEXT_MAX = 512, BIASES_MAX = 1024 };

static bool check_model(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_string(check, path, value, 1, 256);
}

static bool check_prompt(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    if (json_type_of(value) != JSON_ARRAY)
        return ai_check_string(check, path, value, 0, SIZE_MAX);
    if (json_count(value) != 1)
        return ai_refuse(check, path, "invalid_value", "one prompt in a request, no more");
    if (json_type_of(json_item(value, 0)) != JSON_STRING)
        return ai_refuse(check, path, "invalid_type", "prompts are text here, not numbers of tokens");
    return true;
}

static bool check_stop(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    if (json_type_of(value) != JSON_ARRAY)
        return ai_check_string(check, path, value, 1, TEXT_MAX);
    if (json_count(value) > STOPS_MAX)
        return ai_refuse(check, path, "array_above_max_length", "expected at most %d items", STOPS_MAX);
    for (size_t i = 0; i < json_count(value); i++)
        if (!ai_check_string(check, AI_PATH_ITEM(path, i), json_item(value, i), 1, TEXT_MAX))
            return false;
    return true;
}

static bool check_bool(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    return ai_check_type(check, path, value, JSON_BOOL);
}

static bool check_stream_options(const struct ai_check *check, const struct ai_path *path,
                                 const struct json *value)
{
    static const struct ai_member members[] = {{"include_usage", false, check_bool},
                                               {"include_obfuscation", false, check_bool},
                                               {NULL, false, NULL}};
    return ai_check_members(check, path, value, members);
}

struct pairs_check {
    const struct ai_check *check;
    const struct ai_path *path;
    bool fine;
};

static bool check_bias(struct str name, const struct json *value, void *arg)
{
    struct pairs_check *all = arg;
    uint64_t token;
    if (!str_to_u64(name, &token))
        all->fine = ai_refuse(all->check, all->path, "invalid_value", "expected numbers of tokens as names");
    else
        all->fine = ai_check_number(all->check, all->path, value, -100, 100);
    return all->fine;
}

static bool check_logit_bias(const struct ai_check *check, const struct ai_path *path,
                             const struct json *value)
{
    struct pairs_check all = {.check = check, .path = path, .fine = true};
    if (!ai_check_type(check, path, value, JSON_OBJECT))
        return false;
    if (json_count(value) > BIASES_MAX)
        return ai_refuse(check, path, "object_above_max_properties", "expected at most %d members",
                         BIASES_MAX);
    json_each(value, check_bias, &all);
    return all.fine;
}

static bool check_note(struct str name, const struct json *value, void *arg)
{
    struct pairs_check *all = arg;
    if (name.size > 64)
        all->fine = ai_refuse(all->check, all->path, "invalid_value", "expected names of at most 64 bytes");
    else
        all->fine = ai_check_string(all->check, all->path, value, 0, TEXT_MAX);
    return all->fine;
}

static bool check_metadata(const struct ai_check *check, const struct ai_path *path, const struct json *value)
{
    struct pairs_check all = {.check = check, .path = path, .fine = true};
    if (!ai_check_type(check, path, value, JSON_OBJECT))
        return false;
    if (json_count(value) > METADATA_MAX)
        return ai_refuse(check, path, "object_above_max_properties", "expected at most %d members",
                         METADATA_MAX);
    json_each(value, check_note, &all);
    return all.fine;
}

static bool check_modalities(const struct ai_check *check, const struct ai_path *path,
                             const struct json *value)
{
    if (!ai_check_type(check, path, value, JSON_ARRAY))
        return false;
    if (json_count(value) != 1)
        return ai_refuse(check, path, "invalid_value", "supported values are: [\"text\"]");
    return ai_check_word(check, AI_PATH_ITEM(path, 0), json_item(value, 0), "text");
}

/* clang-format off */
#define OWN(check) AI_VALUE_OWN, 0, 0, NULL, check
#define BOOL AI_VALUE_BOOL, 0, 0, NULL, NULL
#define NEVER_TRUE AI_VALUE_FALSE, 0, 0, NULL, NULL
#define INTEGER(low, high) AI_VALUE_INTEGER, low, high, NULL, NULL
#define NUMBER(low, high) AI_VALUE_NUMBER, low, high, NULL, NULL
#define TEXT(low, high) AI_VALUE_STRING, low, high, NULL, NULL
#define WORD(words) AI_VALUE_WORD, 0, 0, words, NULL
#define REFUSED AI_VALUE_REFUSED, 0, 0, NULL, NULL

static const struct ai_parameter parameters[] = {
    {"model", AI_IN_BOTH | AI_COUNTS, OWN(check_model)},
    {"messages", AI_IN_CHAT | AI_COUNTS, OWN(ai_check_messages)},
    {"prompt", AI_IN_COMPLETION | AI_COUNTS, OWN(check_prompt)},
    {"max_tokens", AI_IN_BOTH | AI_COUNTS, INTEGER(1, AI_TOKENS_MAX)},
    {"max_completion_tokens", AI_IN_CHAT | AI_COUNTS, INTEGER(1, AI_TOKENS_MAX)},
    {"stream", AI_IN_BOTH, BOOL},
    {"stream_options", AI_IN_BOTH, OWN(check_stream_options)},
    {"temperature", AI_IN_BOTH | AI_PASSED | AI_COUNTS, NUMBER(0, 2)},
    {"top_p", AI_IN_BOTH | AI_PASSED | AI_COUNTS, NUMBER(0, 1)},
    {"n", AI_IN_BOTH | AI_PASSED | AI_COUNTS, INTEGER(1, AI_CHOICES_MAX)},
    {"stop", AI_IN_BOTH | AI_PASSED | AI_COUNTS, OWN(check_stop)},
    {"seed", AI_IN_BOTH | AI_PASSED | AI_COUNTS, INTEGER(INT64_MIN, INT64_MAX)},
    {"presence_penalty", AI_IN_BOTH | AI_PASSED | AI_COUNTS, NUMBER(-2, 2)},
    {"frequency_penalty", AI_IN_BOTH | AI_PASSED | AI_COUNTS, NUMBER(-2, 2)},
    {"logit_bias", AI_IN_BOTH | AI_PASSED | AI_COUNTS, OWN(check_logit_bias)},
    {"logprobs", AI_IN_CHAT | AI_PASSED | AI_COUNTS, BOOL},
    {"logprobs", AI_IN_COMPLETION | AI_PASSED | AI_COUNTS, INTEGER(0, 5)},
    {"top_logprobs", AI_IN_CHAT | AI_PASSED | AI_COUNTS, INTEGER(0, 20)},
    {"user", AI_IN_BOTH | AI_PASSED, TEXT(0, TEXT_MAX)},
    {"safety_identifier", AI_IN_CHAT | AI_PASSED, TEXT(0, TEXT_MAX)},
    {"response_format", AI_IN_CHAT | AI_PASSED | AI_COUNTS, OWN(ai_check_response_format)},
    {"tools", AI_IN_CHAT | AI_PASSED | AI_COUNTS, OWN(ai_check_tools)},
    {"tool_choice", AI_IN_CHAT | AI_PASSED | AI_COUNTS, OWN(ai_check_tool_choice)},
    {"parallel_tool_calls", AI_IN_CHAT | AI_PASSED | AI_COUNTS, BOOL},
    {"functions", AI_IN_CHAT | AI_PASSED | AI_COUNTS, OWN(ai_check_functions)},
    {"function_call", AI_IN_CHAT | AI_PASSED | AI_COUNTS, OWN(ai_check_function_call)},
    {"reasoning_effort", AI_IN_CHAT | AI_PASSED | AI_COUNTS, WORD("none minimal low medium high xhigh max")},
    {"verbosity", AI_IN_CHAT | AI_PASSED | AI_COUNTS, WORD("low medium high")},
    {"metadata", AI_IN_CHAT | AI_PASSED, OWN(check_metadata)},
    {"prompt_cache_key", AI_IN_CHAT | AI_PASSED, TEXT(0, TEXT_MAX)},
    {"prompt_cache_retention", AI_IN_CHAT | AI_PASSED, WORD("in_memory in-memory 24h")},
    /* The other tiers cost more than the model's price. */
    {"service_tier", AI_IN_CHAT | AI_PASSED, WORD("auto default flex")},
    {"store", AI_IN_CHAT | AI_PASSED, NEVER_TRUE},
    {"modalities", AI_IN_CHAT | AI_PASSED, OWN(check_modalities)},
    {"cache", AI_IN_BOTH, BOOL},
    {"best_of", AI_IN_COMPLETION, INTEGER(1, 1)},
    {"echo", AI_IN_COMPLETION, NEVER_TRUE},
    {"suffix", AI_IN_COMPLETION, REFUSED},
    {"audio", AI_IN_CHAT, REFUSED},
    {"web_search_options", AI_IN_CHAT, REFUSED},
    {"moderation", AI_IN_CHAT, REFUSED},
    /* Both are charged beside the tokens of prompt and answer. */
    {"prediction", AI_IN_CHAT, REFUSED},
    {"prompt_cache_options", AI_IN_CHAT, REFUSED},
};
/* clang-format on */

const struct ai_parameter *ai_parameter_find(enum ai_kind kind, struct str name)
{
    for (size_t i = 0; i < ARRAY_SIZE(parameters); i++)
        if ((parameters[i].flags & 1U << kind) && str_equal(name, str_from(parameters[i].name)))
            return &parameters[i];
    return NULL;
}

bool ai_parameter_check(const struct ai_check *check, const struct ai_parameter *parameter,
                        const struct json *value)
{
    const struct ai_path *path = AI_PATH(NULL, parameter->name);
    bool truth = false;
    switch (parameter->value) {
    case AI_VALUE_BOOL: return ai_check_type(check, path, value, JSON_BOOL);
    case AI_VALUE_FALSE:
        if (!ai_check_type(check, path, value, JSON_BOOL))
            return false;
        return !(json_to_bool(value, &truth) && truth) ||
               ai_refuse(check, path, "unsupported_value", "true is not supported here");
    case AI_VALUE_INTEGER: return ai_check_integer(check, path, value, parameter->low, parameter->high);
    case AI_VALUE_NUMBER:
        return ai_check_number(check, path, value, (int)parameter->low, (int)parameter->high);
    case AI_VALUE_STRING:
        return ai_check_string(check, path, value, (size_t)parameter->low, (size_t)parameter->high);
    case AI_VALUE_WORD: return ai_check_word(check, path, value, parameter->words);
    case AI_VALUE_OWN: return parameter->check(check, path, value);
    case AI_VALUE_REFUSED:
        return ai_refuse(check, path, "unsupported_parameter", "this parameter is not supported here");
    }
    UNREACHABLE();
}
