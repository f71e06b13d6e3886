/*
 * Which requests the Messages API can serve: see provider.h. What it has no counterpart for is refused, unless the request
 * says what would happen anyway.
 */
#include "proto/ai/anthropic_internal.h"
#include "proto/ai/check.h"

#include <errno.h>

static bool never(const struct json *value)
{
    (void)value;
    return false;
}

static bool is_false(const struct json *value)
{
    bool truth;
    return json_to_bool(value, &truth) && !truth;
}

static bool is_zero(const struct json *value)
{
    return json_type_of(value) == JSON_NUMBER && ai_compare_number(json_number_text(value), 0) == 0;
}

static bool is_one(const struct json *value)
{
    return json_type_of(value) == JSON_NUMBER && ai_compare_number(json_number_text(value), 1) == 0;
}

static bool is_empty(const struct json *value)
{
    return json_count(value) == 0;
}

static bool is_medium(const struct json *value)
{
    return str_equal(json_string(value), STR("medium"));
}

static bool is_no_flex(const struct json *value)
{
    return !str_equal(json_string(value), STR("flex"));
}

static bool is_text_or_schema(const struct json *value)
{
    struct str type = json_string(json_member(value, "type"));
    const struct json *schema = json_member(json_member(value, "json_schema"), "schema");
    return str_equal(type, STR("text")) ||
           (str_equal(type, STR("json_schema")) && json_type_of(schema) == JSON_OBJECT);
}

static bool are_functions(const struct json *value)
{
    for (size_t i = 0; i < json_count(value); i++)
        if (!json_member(json_item(value, i), "function"))
            return false;
    return true;
}

static bool is_word_or_function(const struct json *value)
{
    return json_type_of(value) == JSON_STRING || json_member(value, "function");
}

/* Parameters that are served for some values alone. */
static const struct {
    const char *name;
    bool (*served)(const struct json *value);
} conditions[] = {
    {"n", is_one},
    {"seed", never},
    {"logit_bias", is_empty},
    {"logprobs", is_false},
    {"presence_penalty", is_zero},
    {"frequency_penalty", is_zero},
    {"functions", never},
    {"function_call", never},
    {"verbosity", is_medium},
    {"service_tier", is_no_flex},
    {"response_format", is_text_or_schema},
    {"tools", are_functions},
    {"tool_choice", is_word_or_function},
};

/* ---- messages ---- */

const struct json *anthropic_input(struct arena *arena, struct str arguments)
{
    const char *error = NULL;
    struct str text = str_trim(arguments);
    const struct json *input = json_read(arena, text.size > 0 ? text : STR("{}"), &error);
    return json_type_of(input) == JSON_OBJECT ? input : NULL;
}

static bool accepts_parts(const struct ai_check *check, const struct ai_path *path,
                          const struct json *content)
{
    for (size_t i = 0; i < json_count(content); i++) {
        struct str url = json_string(json_member(json_member(json_item(content, i), "image_url"), "url"));
        if (str_starts(url, STR("http://")))
            return ai_refuse(check, AI_PATH_ITEM(path, i), "invalid_image_url",
                             "this model takes images by https or as data alone");
    }
    return true;
}

static bool accepts_tool_calls(const struct ai_check *check, const struct ai_path *path,
                               const struct json *calls)
{
    for (size_t i = 0; i < json_count(calls); i++) {
        const struct json *function = json_member(json_item(calls, i), "function");
        if (!function)
            return ai_refuse(check, AI_PATH_ITEM(path, i), "unsupported_value",
                             "this model calls functions alone");
        if (!anthropic_input(check->arena, json_string(json_member(function, "arguments"))))
            return ai_refuse(check, AI_PATH_ITEM(path, i), "invalid_value",
                             "the arguments of this call are no JSON object, which this model needs");
    }
    return true;
}

static bool accepts_message(const struct ai_check *check, const struct ai_path *path,
                            const struct json *message)
{
    if (str_equal(json_string(json_member(message, "role")), STR("function")) ||
        json_type_of(json_member(message, "function_call")) != JSON_NULL)
        return ai_refuse(check, path, "unsupported_value",
                         "this model knows tools, and no functions beside them");
    return accepts_parts(check, AI_PATH(path, "content"), json_member(message, "content")) &&
           accepts_tool_calls(check, AI_PATH(path, "tool_calls"), json_member(message, "tool_calls"));
}

static bool is_instruction(const struct json *message)
{
    struct str role = json_string(json_member(message, "role"));
    return str_equal(role, STR("system")) || str_equal(role, STR("developer"));
}

static bool accepts_messages(const struct ai_check *check, const struct json *messages)
{
    const struct ai_path *path = AI_PATH(NULL, "messages");
    bool has_turn = false;
    for (size_t i = 0; i < json_count(messages); i++) {
        if (!accepts_message(check, AI_PATH_ITEM(path, i), json_item(messages, i)))
            return false;
        has_turn = has_turn || !is_instruction(json_item(messages, i));
    }
    return has_turn ||
           ai_refuse(check, path, "invalid_value", "this model needs at least one message of a user");
}

int anthropic_accepts(struct arena *arena, const struct ai_request *request,
                      const struct ai_upstream *upstream, struct ai_refusal *refusal)
{
    struct ai_check check = {.arena = arena, .refusal = refusal};
    (void)upstream;
    for (size_t i = 0; i < ARRAY_SIZE(conditions); i++) {
        const struct json *value = json_member(request->body, conditions[i].name);
        if (json_type_of(value) == JSON_NULL || conditions[i].served(value))
            continue;
        ai_refuse(&check, AI_PATH(NULL, conditions[i].name), "unsupported_parameter",
                  "this model does not support this parameter, or not this value");
        return -EINVAL;
    }
    bool fine = request->kind == AI_CHAT
                    ? accepts_messages(&check, request->messages)
                    : request->prompt.size > 0 || ai_refuse(&check, AI_PATH(NULL, "prompt"), "invalid_value",
                                                            "this model needs a prompt with text in it");
    return fine ? 0 : -EINVAL;
}
