/* What an error of a provider's means: see classify.h. */
#include "proto/ai/classify.h"

struct rule {
    const char *word;
    enum ai_fault fault;
};

/* Words that say it whatever the status is, as `code` or `type`. */
static const struct rule certain[] = {
    {"context_length_exceeded", AI_FAULT_CONTEXT},
    {"insufficient_quota", AI_FAULT_QUOTA},
    {"billing_hard_limit_reached", AI_FAULT_QUOTA},
    {"billing_not_active", AI_FAULT_QUOTA},
    {"billing_error", AI_FAULT_QUOTA},
    {"access_terminated", AI_FAULT_QUOTA},
    {"rate_limit_exceeded", AI_FAULT_RATE},
    {"rate_limit_error", AI_FAULT_RATE},
    {"model_not_found", AI_FAULT_MODEL},
    {"invalid_api_key", AI_FAULT_AUTH},
    {"authentication_error", AI_FAULT_AUTH},
    {"permission_error", AI_FAULT_AUTH},
    {"content_filter", AI_FAULT_FILTER},
    {"content_policy_violation", AI_FAULT_FILTER},
    {"overloaded_error", AI_FAULT_OVERLOAD},
    {"engine_overloaded", AI_FAULT_OVERLOAD},
    {"request_too_large", AI_FAULT_TOO_LARGE},
    {"timeout_error", AI_FAULT_TIMEOUT},
};

/* Words that say it where there is no status. */
static const struct rule likely[] = {
    {"not_found_error", AI_FAULT_MODEL},  {"invalid_request_error", AI_FAULT_CLIENT},
    {"BadRequestError", AI_FAULT_CLIENT}, {"api_error", AI_FAULT_SERVER},
    {"server_error", AI_FAULT_SERVER},
};

/* What is said in messages alone, where the status says that it is the client's fault. */
static const struct rule said[] = {
    {"context length", AI_FAULT_CONTEXT},
    {"context window", AI_FAULT_CONTEXT},
    {"prompt is too long", AI_FAULT_CONTEXT},
    {"credit balance is too low", AI_FAULT_QUOTA},
};

static const struct {
    int status;
    enum ai_fault fault;
} statuses[] = {
    {400, AI_FAULT_CLIENT},  {401, AI_FAULT_AUTH},     {402, AI_FAULT_QUOTA},    {403, AI_FAULT_AUTH},
    {404, AI_FAULT_MODEL},   {408, AI_FAULT_TIMEOUT},  {409, AI_FAULT_OVERLOAD}, {413, AI_FAULT_TOO_LARGE},
    {422, AI_FAULT_CLIENT},  {425, AI_FAULT_OVERLOAD}, {429, AI_FAULT_RATE},     {503, AI_FAULT_OVERLOAD},
    {504, AI_FAULT_TIMEOUT}, {529, AI_FAULT_OVERLOAD},
};

static bool by_word(const struct rule *rules, size_t count, const struct ai_upstream_error *error,
                    enum ai_fault *fault)
{
    for (size_t i = 0; i < count; i++) {
        struct str word = str_from(rules[i].word);
        if (!str_equal(error->code, word) && !str_equal(error->type, word))
            continue;
        *fault = rules[i].fault;
        return true;
    }
    return false;
}

static enum ai_fault by_status(int status)
{
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        if (statuses[i].status == status)
            return statuses[i].fault;
    if (status >= 500)
        return AI_FAULT_SERVER;
    /* A method, a path or a redirect is of our own making, and of no client's. */
    return AI_FAULT_PROTOCOL;
}

static enum ai_fault by_message(struct str message, enum ai_fault otherwise)
{
    for (size_t i = 0; i < ARRAY_SIZE(said); i++)
        if (message.size > 0 && memmem(message.at, message.size, said[i].word, strlen(said[i].word)))
            return said[i].fault;
    return otherwise;
}

static enum ai_fault fault_of(const struct ai_upstream_error *error)
{
    enum ai_fault fault = AI_FAULT_SERVER;
    if (by_word(certain, ARRAY_SIZE(certain), error, &fault))
        return fault;
    if (error->status)
        fault = by_status(error->status);
    else
        by_word(likely, ARRAY_SIZE(likely), error, &fault);
    return fault == AI_FAULT_CLIENT ? by_message(error->message, fault) : fault;
}

enum { CODE_MAX = 64, PARAM_MAX = 128 };

/* A code is a name, or nothing of ours to pass on. */
static bool is_code(struct str code, struct str secret)
{
    if (code.size == 0 || code.size > CODE_MAX ||
        (secret.size > 0 && memmem(code.at, code.size, secret.at, secret.size)))
        return false;
    for (size_t i = 0; i < code.size; i++)
        if (code.at[i] != '_' && !(code.at[i] >= 'a' && code.at[i] <= 'z') &&
            !(code.at[i] >= '0' && code.at[i] <= '9'))
            return false;
    return true;
}

void ai_classify(struct arena *arena, const struct ai_upstream_error *error, struct str secret,
                 struct ai_failure *failure)
{
    struct str words = error->message.size > 0 ? ai_sanitise(arena, error->message, secret) : STR_NONE;
    enum ai_fault fault = fault_of(error);
    ai_failure_make(failure, fault, words);
    failure->upstream_status = error->status;
    if (fault != AI_FAULT_CLIENT)
        return;
    if (is_code(error->code, secret))
        failure->code = arena_dup(arena, error->code.at, error->code.size);
    if (error->param.size > 0 && error->param.size <= PARAM_MAX)
        failure->param = ai_sanitise(arena, error->param, secret);
}

void ai_read_error_object(const struct json *error, struct ai_upstream_error *read)
{
    int64_t status;
    if (json_type_of(error) == JSON_STRING) {
        read->message = json_string(error);
        return;
    }
    read->type = json_string(json_member(error, "type"));
    read->code = json_string(json_member(error, "code"));
    read->message = json_string(json_member(error, "message"));
    read->param = json_string(json_member(error, "param"));
    if (read->status == 0 && json_to_i64(json_member(error, "code"), &status) && status >= 400 &&
        status < 600)
        read->status = (int)status;
}

void ai_failure_rate(struct ai_failure *failure, const struct ai_rate *rate)
{
    failure->retry_after_ms = rate->retry_after_ms;
    if (rate->retry_after_ms >= 0 || failure->fault != AI_FAULT_RATE)
        return;
    if (rate->requests_left == 0)
        failure->retry_after_ms = rate->requests_reset_ms;
    if (rate->tokens_left == 0 && rate->tokens_reset_ms > failure->retry_after_ms)
        failure->retry_after_ms = rate->tokens_reset_ms;
}

bool ai_find_error(struct arena *arena, const struct ai_identity *identity, const struct json *object,
                   struct ai_failure *failure)
{
    struct ai_upstream_error error = {.status = 0};
    const struct json *words = json_member(object, "error");
    bool is_bare = str_equal(json_string(json_member(object, "object")), STR("error"));
    if (json_type_of(words) != JSON_OBJECT && json_type_of(words) != JSON_STRING && !is_bare)
        return false;
    ai_read_error_object(is_bare ? object : words, &error);
    ai_classify(arena, &error, identity->secret, failure);
    return true;
}
