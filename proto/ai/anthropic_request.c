/*
 * A client's request as one of the Messages API.
 *
 *     system, developer                 "system", wherever they stood
 *     user                              user: text and image blocks
 *     assistant                         assistant: text and tool_use blocks
 *     tool                              user: a tool_result block
 *
 * Turns of the same side that follow each other become one, for the API wants all results of a turn's tool calls in the turn
 * behind it. Blocks without text are left out: the API refuses them.
 */
#include "proto/ai/anthropic_internal.h"
#include "proto/ai/check.h"

static struct str text_member(const struct json *object, const char *name)
{
    return json_string(json_member(object, name));
}

static bool is_there(const struct json *value)
{
    return json_type_of(value) != JSON_NULL;
}

/* ---- blocks ---- */

static void put_text_block(struct json_out *json, struct str text)
{
    if (text.size == 0)
        return;
    json_open(json, '{');
    json_put_text(json, "type", "text");
    json_put_str(json, "text", text);
    json_close(json, '}');
}

/* "data:MEDIA;base64,DATA", as it was checked before; or a link. */
static void put_image_source(struct json_out *json, struct str url)
{
    const char *comma = str_starts(url, STR("data:")) ? memchr(url.at, ',', url.size) : NULL;
    const char *semicolon = comma ? memchr(url.at, ';', (size_t)(comma - url.at)) : NULL;
    json_key(json, "source");
    json_open(json, '{');
    if (semicolon) {
        json_put_text(json, "type", "base64");
        json_put_str(json, "media_type", str_of(url.at + 5, (size_t)(semicolon - url.at) - 5));
        json_put_str(json, "data", str_of(comma + 1, url.size - (size_t)(comma - url.at) - 1));
    } else {
        json_put_text(json, "type", "url");
        json_put_str(json, "url", url);
    }
    json_close(json, '}');
}

static void put_image_block(struct json_out *json, const struct json *image)
{
    json_open(json, '{');
    json_put_text(json, "type", "image");
    put_image_source(json, text_member(image, "url"));
    json_close(json, '}');
}

/* Of content that is a text, or a list of parts. */
static void put_content_blocks(struct json_out *json, const struct json *content)
{
    put_text_block(json, json_string(content));
    for (size_t i = 0; i < json_count(content); i++) {
        const struct json *part = json_item(content, i);
        const struct json *image = json_member(part, "image_url");
        put_text_block(json, text_member(part, "text"));
        put_text_block(json, text_member(part, "refusal"));
        if (image)
            put_image_block(json, image);
    }
}

static void put_tool_use_block(struct arena *arena, struct json_out *json, const struct json *call)
{
    const struct json *function = json_member(call, "function");
    json_open(json, '{');
    json_put_text(json, "type", "tool_use");
    json_put_str(json, "id", text_member(call, "id"));
    json_put_str(json, "name", text_member(function, "name"));
    json_put_value(json, "input", anthropic_input(arena, text_member(function, "arguments")));
    json_close(json, '}');
}

static void put_tool_result_block(struct json_out *json, const struct json *message)
{
    json_open(json, '{');
    json_put_text(json, "type", "tool_result");
    json_put_str(json, "tool_use_id", text_member(message, "tool_call_id"));
    json_key(json, "content");
    json_open(json, '[');
    put_content_blocks(json, json_member(message, "content"));
    json_close(json, ']');
    json_close(json, '}');
}

/* ---- turns ---- */

enum side { SIDE_NONE, SIDE_SYSTEM, SIDE_USER, SIDE_ASSISTANT };

static enum side side_of(const struct json *message)
{
    struct str role = text_member(message, "role");
    if (str_equal(role, STR("assistant")))
        return SIDE_ASSISTANT;
    return str_equal(role, STR("system")) || str_equal(role, STR("developer")) ? SIDE_SYSTEM : SIDE_USER;
}

static void put_blocks(struct arena *arena, struct json_out *json, const struct json *message)
{
    const struct json *calls = json_member(message, "tool_calls");
    if (json_member(message, "tool_call_id")) {
        put_tool_result_block(json, message);
        return;
    }
    put_content_blocks(json, json_member(message, "content"));
    put_text_block(json, text_member(message, "refusal"));
    for (size_t i = 0; i < json_count(calls); i++)
        put_tool_use_block(arena, json, json_item(calls, i));
}

static void begin_turn(struct json_out *json, enum side side)
{
    json_open(json, '{');
    json_put_text(json, "role", side == SIDE_ASSISTANT ? "assistant" : "user");
    json_key(json, "content");
    json_open(json, '[');
}

static void end_turn(struct json_out *json, enum side side)
{
    if (side == SIDE_NONE)
        return;
    json_close(json, ']');
    json_close(json, '}');
}

static void put_messages(struct arena *arena, struct json_out *json, const struct json *messages)
{
    enum side side = SIDE_NONE;
    struct buf blocks = {0};
    json_key(json, "messages");
    json_open(json, '[');
    for (size_t i = 0; i < json_count(messages); i++) {
        const struct json *message = json_item(messages, i);
        struct json_out into = json_out_to(&blocks);
        enum side other = side_of(message);
        if (other == SIDE_SYSTEM)
            continue;
        blocks.size = 0;
        put_blocks(arena, &into, message);
        if (blocks.size == 0)
            continue;
        if (other != side) {
            end_turn(json, side);
            begin_turn(json, other);
            side = other;
        }
        json_put_raw(json, NULL, buf_str(&blocks));
    }
    end_turn(json, side);
    json_close(json, ']');
    buf_clear(&blocks);
}

static void put_system(struct json_out *json, const struct json *messages)
{
    struct buf blocks = {0};
    struct json_out into = json_out_to(&blocks);
    for (size_t i = 0; i < json_count(messages); i++)
        if (side_of(json_item(messages, i)) == SIDE_SYSTEM)
            put_content_blocks(&into, json_member(json_item(messages, i), "content"));
    if (blocks.size > 0) {
        json_key(json, "system");
        json_open(json, '[');
        json_put_raw(json, NULL, buf_str(&blocks));
        json_close(json, ']');
    }
    buf_clear(&blocks);
}

static void put_prompt(struct json_out *json, struct str prompt)
{
    json_key(json, "messages");
    json_open(json, '[');
    begin_turn(json, SIDE_USER);
    put_text_block(json, prompt);
    end_turn(json, SIDE_USER);
    json_close(json, ']');
}

/* ---- tools ---- */

/* OpenAI's API takes a schema that says no type, for it can be of an object alone; here it must say so. */
static void put_schema(struct json_out *json, const struct json *parameters)
{
    struct buf text = {0};
    if (is_there(json_member(parameters, "type"))) {
        json_put_value(json, "input_schema", parameters);
        return;
    }
    json_write_value(&text, parameters);
    struct buf typed = {0};
    buf_add_literal(&typed, "{\"type\":\"object\"");
    if (json_count(parameters) > 0)
        buf_add_char(&typed, ',');
    buf_add_str(&typed, str_of(text.at + 1, text.size - 1));
    json_put_raw(json, "input_schema", buf_str(&typed));
    buf_clear(&text);
    buf_clear(&typed);
}

static void put_tool(struct json_out *json, const struct json *function)
{
    const struct json *description = json_member(function, "description");
    const struct json *parameters = json_member(function, "parameters");
    const struct json *strict = json_member(function, "strict");
    json_open(json, '{');
    json_put_str(json, "name", text_member(function, "name"));
    if (is_there(description))
        json_put_value(json, "description", description);
    if (is_there(parameters))
        put_schema(json, parameters);
    else
        json_put_raw(json, "input_schema", STR("{\"type\":\"object\",\"properties\":{}}"));
    if (is_there(strict))
        json_put_value(json, "strict", strict);
    json_close(json, '}');
}

static void put_tool_choice(struct json_out *json, const struct json *choice, bool parallel)
{
    struct str word = json_string(choice);
    const struct json *function = json_member(choice, "function");
    bool none = str_equal(word, STR("none"));
    if (!is_there(choice) && parallel)
        return;
    json_key(json, "tool_choice");
    json_open(json, '{');
    json_put_text(json, "type",
                  none                               ? "none"
                  : function                         ? "tool"
                  : str_equal(word, STR("required")) ? "any"
                                                     : "auto");
    if (function)
        json_put_str(json, "name", text_member(function, "name"));
    if (!parallel && !none)
        json_put_bool(json, "disable_parallel_tool_use", true);
    json_close(json, '}');
}

static void put_tools(struct json_out *json, const struct json *body)
{
    const struct json *tools = json_member(body, "tools");
    bool parallel = true;
    if (!is_there(tools))
        return;
    json_key(json, "tools");
    json_open(json, '[');
    for (size_t i = 0; i < json_count(tools); i++)
        put_tool(json, json_member(json_item(tools, i), "function"));
    json_close(json, ']');
    put_tool_choice(json, json_member(body, "tool_choice"),
                    !json_to_bool(json_member(body, "parallel_tool_calls"), &parallel) || parallel);
}

/* ---- parameters ---- */

/* Its range ends at 1 here; more is as random as it gets. */
static void put_temperature(struct json_out *json, const struct json *temperature)
{
    if (!is_there(temperature))
        return;
    if (ai_compare_number(json_number_text(temperature), 1) > 0)
        json_put_int(json, "temperature", 1);
    else
        json_put_value(json, "temperature", temperature);
}

static void put_stop(struct json_out *json, const struct json *stop)
{
    if (!is_there(stop) || (json_type_of(stop) == JSON_ARRAY && json_count(stop) == 0))
        return;
    if (json_type_of(stop) == JSON_ARRAY) {
        json_put_value(json, "stop_sequences", stop);
        return;
    }
    json_key(json, "stop_sequences");
    json_open(json, '[');
    json_put_value(json, NULL, stop);
    json_close(json, ']');
}

static void put_user(struct json_out *json, const struct json *body)
{
    struct str user = text_member(body, "safety_identifier");
    if (user.size == 0)
        user = text_member(body, "user");
    if (user.size == 0)
        return;
    json_key(json, "metadata");
    json_open(json, '{');
    json_put_str(json, "user_id", user);
    json_close(json, '}');
}

static void put_output_config(struct json_out *json, const struct json *body)
{
    const struct json *schema =
        json_member(json_member(json_member(body, "response_format"), "json_schema"), "schema");
    struct str effort = text_member(body, "reasoning_effort");
    bool has_effort = effort.size > 0 && !str_equal(effort, STR("none"));
    if (!schema && !has_effort)
        return;
    json_key(json, "output_config");
    json_open(json, '{');
    if (has_effort)
        json_put_str(json, "effort", str_equal(effort, STR("minimal")) ? STR("low") : effort);
    if (schema) {
        json_key(json, "format");
        json_open(json, '{');
        json_put_text(json, "type", "json_schema");
        json_put_value(json, "schema", schema);
        json_close(json, '}');
    }
    json_close(json, '}');
}

static void put_parameters(struct json_out *json, const struct json *body)
{
    const struct json *top_p = json_member(body, "top_p");
    struct str tier = text_member(body, "service_tier");
    put_temperature(json, json_member(body, "temperature"));
    if (is_there(top_p))
        json_put_value(json, "top_p", top_p);
    put_stop(json, json_member(body, "stop"));
    put_tools(json, body);
    put_output_config(json, body);
    if (tier.size > 0)
        json_put_text(json, "service_tier", str_equal(tier, STR("auto")) ? "auto" : "standard_only");
    put_user(json, body);
}

int anthropic_write_request(struct arena *arena, const struct ai_request *request,
                            const struct ai_upstream *upstream, struct buf *out, struct ai_refusal *refusal)
{
    int result = anthropic_accepts(arena, request, upstream, refusal);
    if (result)
        return result;
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_str(&json, "model", upstream->model);
    json_put_int(&json, "max_tokens", request->max_tokens ? request->max_tokens : upstream->max_tokens);
    if (request->kind == AI_CHAT) {
        put_system(&json, request->messages);
        put_messages(arena, &json, request->messages);
    } else {
        put_prompt(&json, request->prompt);
    }
    put_parameters(&json, request->body);
    if (upstream->stream)
        json_put_bool(&json, "stream", true);
    json_close(&json, '}');
    return 0;
}
