/* A client's request: see request.h. Its members are checked by the table of parameters.h, then against each other. */
#include "proto/ai/parameters.h"

#include <errno.h>
#include <stdlib.h>

/* ---- reading ---- */

struct reading {
    struct ai_check check;
    enum ai_kind kind;
    bool fine;
};

static bool read_member(struct str name, const struct json *value, void *arg)
{
    struct reading *reading = arg;
    const struct ai_parameter *parameter = ai_parameter_find(reading->kind, name);
    if (!parameter)
        reading->fine = ai_refuse_unknown(&reading->check, NULL, name);
    else if (json_type_of(value) != JSON_NULL)
        reading->fine = ai_parameter_check(&reading->check, parameter, value);
    return reading->fine;
}

static bool has(const struct json *body, const char *name)
{
    return json_type_of(json_member(body, name)) != JSON_NULL;
}

static bool is_true(const struct json *value)
{
    bool truth;
    return json_to_bool(value, &truth) && truth;
}

static bool require(const struct ai_check *check, const struct json *body, const char *name)
{
    return has(body, name) ||
           ai_refuse(check, AI_PATH(NULL, name), "missing_required_parameter", "is required");
}

/* `name` means something only beside `with`. */
static bool require_with(const struct ai_check *check, const struct json *body, const char *name, bool with,
                         const char *what)
{
    return !has(body, name) || with ||
           ai_refuse(check, AI_PATH(NULL, name), "invalid_value", "only allowed with %s", what);
}

static bool check_together(const struct ai_check *check, enum ai_kind kind, const struct json *body)
{
    if (has(body, "max_tokens") && has(body, "max_completion_tokens"))
        return ai_refuse(check, AI_PATH(NULL, "max_tokens"), "invalid_value",
                         "not allowed beside 'max_completion_tokens'");
    bool tools = has(body, "tools");
    return require(check, body, "model") && require(check, body, kind == AI_CHAT ? "messages" : "prompt") &&
           require_with(check, body, "stream_options", is_true(json_member(body, "stream")),
                        "'stream': true") &&
           require_with(check, body, "top_logprobs",
                        kind == AI_CHAT && is_true(json_member(body, "logprobs")), "'logprobs': true") &&
           require_with(check, body, "tool_choice", tools, "'tools'") &&
           require_with(check, body, "function_call", has(body, "functions"), "'functions'");
}

static int64_t integer_of(const struct json *body, const char *name, int64_t otherwise)
{
    int64_t number = otherwise;
    return json_to_i64(json_member(body, name), &number) ? number : otherwise;
}

static void fill(struct ai_request *request, enum ai_kind kind, const struct json *body)
{
    const struct json *prompt = json_member(body, "prompt");
    const struct json *cache = json_member(body, "cache");
    *request = (struct ai_request){
        .kind = kind,
        .body = body,
        .model = json_string(json_member(body, "model")),
        .stream = is_true(json_member(body, "stream")),
        .include_usage = is_true(json_member(json_member(body, "stream_options"), "include_usage")),
        .cache = json_type_of(cache) == JSON_NULL ? AI_CACHE_AS_MODEL
                 : is_true(cache)                 ? AI_CACHE_YES
                                                  : AI_CACHE_NO,
        .choices = (unsigned)integer_of(body, "n", 1),
        .max_tokens = integer_of(body, "max_completion_tokens", integer_of(body, "max_tokens", 0)),
        .messages = json_member(body, "messages"),
    };
    if (kind == AI_COMPLETION)
        request->prompt = json_string(json_type_of(prompt) == JSON_ARRAY ? json_item(prompt, 0) : prompt);
    ai_count_tokens(request);
}

int ai_request_read(struct arena *arena, enum ai_kind kind, const struct json *body,
                    struct ai_request *request, struct ai_refusal *refusal)
{
    struct reading reading = {.check = {.arena = arena, .refusal = refusal}, .kind = kind, .fine = true};
    if (!ai_check_type(&reading.check, NULL, body, JSON_OBJECT))
        return -EINVAL;
    json_each(body, read_member, &reading);
    if (!reading.fine || !check_together(&reading.check, kind, body))
        return -EINVAL;
    fill(request, kind, body);
    return 0;
}

int ai_request_parse(struct arena *arena, enum ai_kind kind, struct str text, struct ai_request *request,
                     struct ai_refusal *refusal)
{
    const char *error = NULL;
    const struct json *body = json_read(arena, text, &error);
    if (!body) {
        *refusal = (struct ai_refusal){
            .message = str_from(arena_printf(arena, "The body is no JSON: %s", error)), .code = NULL};
        return -EINVAL;
    }
    return ai_request_read(arena, kind, body, request, refusal);
}

/* ---- digest ---- */

enum { MEMBERS_MAX = 64 /* more than there are parameters */ };

struct member {
    struct str name;
    const struct json *value;
};

struct members {
    enum ai_kind kind;
    size_t count;
    struct member at[MEMBERS_MAX];
};

static bool take_member(struct str name, const struct json *value, void *arg)
{
    struct members *members = arg;
    const struct ai_parameter *parameter = ai_parameter_find(members->kind, name);
    CHECK(parameter && members->count < MEMBERS_MAX);
    if ((parameter->flags & AI_COUNTS) && json_type_of(value) != JSON_NULL)
        members->at[members->count++] = (struct member){name, value};
    return true;
}

static int by_name(const void *left, const void *right)
{
    const struct member *a = left;
    const struct member *b = right;
    size_t least = a->name.size < b->name.size ? a->name.size : b->name.size;
    int order = memcmp(a->name.at, b->name.at, least);
    return order ? order : (a->name.size > b->name.size) - (a->name.size < b->name.size);
}

void ai_request_digest(const struct ai_request *request, unsigned char digest[CRYPTO_DIGEST_SIZE])
{
    struct members members = {.kind = request->kind};
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    json_each(request->body, take_member, &members);
    qsort(members.at, members.count, sizeof members.at[0], by_name);
    json_open(&json, '[');
    json_put_int(&json, NULL, request->kind);
    for (size_t i = 0; i < members.count; i++) {
        json_put_str(&json, NULL, members.at[i].name);
        json_put_value(&json, NULL, members.at[i].value);
    }
    json_close(&json, ']');
    crypto_digest(digest, buf_str(&text), NULL);
    buf_clear(&text);
}
