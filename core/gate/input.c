/* What a handler reads of a request: JSON body, paging, preferences. */
#include "core/gate/gate.h"

#include "core/base/config.h"

#include <errno.h>

static bool is_json_type(const struct request *request)
{
    struct str type = http1_header(request->http->head, "content-type");
    struct str media;
    if (!type.at)
        return true;
    str_split(&type, ';', &media);
    media = str_trim(media);
    return str_equal_nocase(media, STR("application/json")) ||
           (request->surface->takes_curl_json &&
            str_equal_nocase(media, STR("application/x-www-form-urlencoded")));
}

/* RFC 9110 §8.4: bodies are taken as they are; who packs one is told so, not that it is no JSON. */
static bool is_packed(const struct request *request)
{
    struct str coding = http1_header(request->http->head, "content-encoding");
    return coding.size > 0 && !str_equal_nocase(coding, STR("identity"));
}

static void reply_body_error(struct request *request, int result)
{
    switch (result) {
    case -EMSGSIZE: reply_error(request, ERROR_BODY_TOO_LARGE, NULL); return;
    case -ETIMEDOUT: reply_error(request, ERROR_REQUEST_TIMEOUT, NULL); return;
    case -EBADMSG: reply_error(request, ERROR_BAD_REQUEST, "The body's framing is broken"); return;
    default: reply_failure(request, result);
    }
}

bool request_body(struct request *request, struct str *body)
{
    if (!request->body_read) {
        int result = http_body(request->http, (size_t)config->max_body_bytes, &request->body);
        if (result) {
            reply_body_error(request, result);
            return false;
        }
        request->body_read = true;
    }
    *body = request->body;
    return true;
}

const struct json *request_json(struct request *request)
{
    if (!is_json_type(request)) {
        reply_error(request, ERROR_UNSUPPORTED_TYPE, NULL);
        return NULL;
    }
    if (is_packed(request)) {
        reply_header(request, "Accept-Encoding", "identity");
        reply_error(request, ERROR_UNSUPPORTED_TYPE,
                    "Content-Encoding is not supported: send the JSON as it is");
        return NULL;
    }
    struct str text;
    if (!request_body(request, &text))
        return NULL;
    const char *error = NULL;
    const struct json *body = json_read(request->arena, text, &error);
    if (!body) {
        reply_error(request, ERROR_INVALID_JSON, arena_printf(request->arena, "Invalid JSON: %s", error));
        return NULL;
    }
    if (json_type_of(body) != JSON_OBJECT) {
        reply_error(request, ERROR_INVALID_JSON, "The body must be a JSON object");
        return NULL;
    }
    return body;
}

bool request_json_or_none(struct request *request, const struct json **body)
{
    struct str text;
    *body = NULL;
    if (!request_body(request, &text))
        return false;
    if (text.size == 0)
        return true;
    *body = request_json(request);
    return *body != NULL;
}

bool request_string(struct request *request, const struct json *body, const char *name, size_t least,
                    size_t most, struct str *value)
{
    *value = json_string(json_member(body, name));
    size_t length = value->at ? str_utf8_length(*value) : 0;
    const char *problem = NULL;
    if (!value->at)
        problem = arena_printf(request->arena, "%s is required and must be a string", name);
    else if (length < least || length > most)
        problem = arena_printf(request->arena, "%s must have %zu to %zu characters", name, least, most);
    else if (memchr(value->at, '\0', value->size))
        problem = arena_printf(request->arena, "%s must not contain NUL", name);
    if (problem)
        reply_error(request, ERROR_INVALID_PARAMETER, problem);
    return !problem;
}

bool request_has(const struct json *body, const char *name)
{
    return json_type_of(json_member(body, name)) != JSON_NULL;
}

bool request_flag(struct request *request, const struct json *body, const char *name, bool *flag)
{
    *flag = false;
    if (!request_has(body, name) || json_to_bool(json_member(body, name), flag))
        return true;
    reply_invalid(request, arena_printf(request->arena, "%s must be true or false", name));
    return false;
}

bool request_overlap(struct request *request, const struct json *body, int64_t *overlap_s)
{
    static const char name[] = "overlap_seconds";
    enum { MOST_S = 7 * 86400 };
    *overlap_s = 0;
    if (!request_has(body, name) ||
        (json_to_i64(json_member(body, name), overlap_s) && *overlap_s >= 0 && *overlap_s <= MOST_S))
        return true;
    reply_invalid(request,
                  arena_printf(request->arena, "%s must be a whole number from 0 to %d", name, MOST_S));
    return false;
}

bool request_page(struct request *request, int64_t most, int64_t first, int64_t *limit, int64_t *cursor)
{
    struct str text;
    *limit = most < 50 ? most : 50;
    *cursor = first;
    if (url_query_count(request->query, "limit") > 0 &&
        (!url_query(request->arena, request->query, "limit", &text) || !str_to_i64(text, limit) ||
         *limit < 1 || *limit > most)) {
        reply_error(
            request, ERROR_INVALID_PARAMETER,
            arena_printf(request->arena, "limit must be a whole number from 1 to %lld", (long long)most));
        return false;
    }
    if (url_query_count(request->query, "cursor") > 0 &&
        (!url_query(request->arena, request->query, "cursor", &text) || !str_to_i64(text, cursor) ||
         *cursor < 0)) {
        reply_error(request, ERROR_INVALID_PARAMETER, "cursor must be the next_cursor of an earlier answer");
        return false;
    }
    return true;
}

bool page_has_next(int64_t limit, size_t *count)
{
    bool more = *count > (size_t)limit;
    if (more)
        *count = (size_t)limit;
    return more;
}

/* The next preference of all fields of that name, which are one list (RFC 7240 §2), without its parameters. */
struct preferences {
    const struct http1_head *head;
    size_t field;
    struct str rest;
};

static bool next_preference(struct preferences *preferences, struct str *preference)
{
    struct str piece;
    while (!str_split(&preferences->rest, ',', &piece)) {
        if (preferences->field == preferences->head->count)
            return false;
        const struct http1_field *field = &preferences->head->fields[preferences->field++];
        if (str_equal_nocase(field->name, STR("prefer")))
            preferences->rest = field->value;
    }
    str_split(&piece, ';', preference);
    *preference = str_trim(*preference);
    return true;
}

int64_t request_prefer_wait(struct request *request, int64_t most)
{
    struct preferences preferences = {.head = request->http->head};
    struct str preference;
    while (next_preference(&preferences, &preference)) {
        uint64_t seconds;
        if (preference.size > 5 && str_equal_nocase(str_of(preference.at, 5), STR("wait=")) &&
            str_to_u64(str_of(preference.at + 5, preference.size - 5), &seconds))
            return seconds < (uint64_t)most ? (int64_t)seconds : most;
    }
    return 0;
}

bool request_prefers(const struct request *request, const char *name)
{
    struct preferences preferences = {.head = request->http->head};
    struct str preference;
    while (next_preference(&preferences, &preference))
        if (str_equal_nocase(preference, str_from(name)))
            return true;
    return false;
}
