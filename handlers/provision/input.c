/* What OAuth's endpoints read and how they fail: see provision.h. */
#include "handlers/provision/provision.h"

#include "core/base/base64.h"
#include "core/base/escape.h"
#include "core/domain/audit.h"

#include <errno.h>

enum { BASIC_MAX = 1024, BODY_MAX = 65536 /* each parameter is looked for in all of it */ };

/* ---- errors ---- */

void oauth_no_store(struct request *request)
{
    reply_header(request, "Cache-Control", "no-store");
    reply_header(request, "Pragma", "no-cache");
}

void oauth_error(struct request *request, int status, const char *error, const char *description)
{
    struct buf body = {0};
    struct json_out json = json_out_to(&body);
    json_open(&json, '{');
    json_put_text(&json, "error", error);
    json_put_text(&json, "error_description", description);
    json_close(&json, '}');
    buf_add_char(&body, '\n');
    oauth_no_store(request);
    reply_error_body(request, status, error, "application/json", buf_str(&body));
    buf_clear(&body);
}

void oauth_failure(struct request *request, int result)
{
    switch (result) {
    case -ENOTCONN:
    case -ECONNRESET:
    case -EAGAIN:
    case -ETIMEDOUT:
    case -ECANCELED:
        reply_header(request, "Retry-After", "1");
        oauth_error(request, 503, "temporarily_unavailable", "Temporarily unavailable, please try again");
        return;
    default: oauth_error(request, 500, "server_error", "Internal error");
    }
}

/* ---- parameters ---- */

static const char *take_json(struct request *request, const struct json *json,
                             const struct input_field *field)
{
    const struct json *member = json_member(json, field->name);
    *field->value = json_string(member);
    if (json_type_of(member) != JSON_NULL && !field->value->at)
        return arena_printf(request->arena, "%s must be a string", field->name);
    if (field->value->size && memchr(field->value->at, '\0', field->value->size)) {
        *field->value = STR_NONE;
        return arena_printf(request->arena, "%s must not contain NUL", field->name);
    }
    return NULL;
}

static const char *take_form(struct request *request, struct str form, const struct input_field *field)
{
    size_t count = url_query_count(form, field->name);
    *field->value = STR_NONE;
    if (count > 1)
        return arena_printf(request->arena, "%s is given more than once", field->name);
    if (count == 1 && !url_query(request->arena, form, field->name, field->value))
        return arena_printf(request->arena, "%s is not valid text", field->name);
    return NULL;
}

const char *input_take(struct request *request, const struct input *input, const struct input_field *fields,
                       size_t count)
{
    const char *problem = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *found = input->json ? take_json(request, input->json, &fields[i])
                                        : take_form(request, input->form, &fields[i]);
        if (!problem)
            problem = found;
        if (found || fields[i].value->size == 0)
            *fields[i].value = STR_NONE;
    }
    return problem;
}

static bool read_json(struct request *request, struct str text, struct input *input)
{
    const char *problem = NULL;
    input->json = json_read(request->arena, text, &problem);
    if (input->json && json_type_of(input->json) != JSON_OBJECT)
        problem = "it must be an object";
    if (problem)
        oauth_error(request, 400, "invalid_request",
                    arena_printf(request->arena, "The body is not valid JSON: %s", problem));
    return !problem;
}

bool input_body(struct request *request, struct input *input)
{
    struct str type = http1_header(request->http->head, "content-type");
    struct str media = STR_NONE;
    str_split(&type, ';', &media);
    media = str_trim(media);
    *input = (struct input){.json = NULL};
    bool form = str_equal_nocase(media, STR("application/x-www-form-urlencoded"));
    if (!form && media.size && !str_equal_nocase(media, STR("application/json")) &&
        !str_equal_nocase(media, STR("text/plain"))) {
        oauth_error(request, 415, "invalid_request",
                    "Content-Type must be application/x-www-form-urlencoded or application/json");
        return false;
    }
    if (!request_body(request, &input->form))
        return false;
    if (input->form.size > BODY_MAX) {
        oauth_error(request, 413, "invalid_request", "The body is too large");
        return false;
    }
    return form || read_json(request, input->form, input);
}

/* ---- the client ---- */

/* The identifier and the secret are form-encoded before they become one text (RFC 6749 §2.3.1). */
static bool decode_part(struct request *request, struct str part, struct str *out)
{
    char *text = arena_alloc(request->arena, part.size + 1);
    int size = escape_percent_decode(text, part, true);
    *out = str_of(text, size > 0 ? (size_t)size : 0);
    return size > 0;
}

/* "Basic", its credentials (RFC 7617). */
static bool read_basic(struct request *request, struct str field, struct str *id, struct str *secret)
{
    static const struct str scheme = {"basic ", 6};
    unsigned char *text = arena_alloc(request->arena, BASIC_MAX);
    if (field.size < scheme.size || field.size > BASIC_MAX ||
        !str_equal_nocase(str_of(field.at, scheme.size), scheme))
        return false;
    int size = base64_decode(text, str_trim(str_of(field.at + scheme.size, field.size - scheme.size)));
    if (size < 0)
        return false;
    struct str rest = str_of((const char *)text, (size_t)size);
    struct str name;
    return str_split(&rest, ':', &name) && rest.at && decode_part(request, name, id) &&
           decode_part(request, rest, secret);
}

/* A client that has tried HTTP's way is told so that way (RFC 6749 §5.2). */
static bool refuse(struct request *request, bool basic)
{
    if (basic)
        reply_header(request, "WWW-Authenticate", "Basic realm=\"oauth\", charset=\"UTF-8\"");
    oauth_error(request, 401, "invalid_client", "The client is unknown, or its secret is wrong");
    return false;
}

bool oauth_client_of(struct request *request, struct str client_id, struct str client_secret,
                     struct oauth_client *client)
{
    const struct http1_head *head = request->http->head;
    struct str field = http1_header(head, "authorization");
    if (field.at) {
        struct str id;
        if (client_secret.at) {
            oauth_error(request, 400, "invalid_request", "The client must authenticate in one way only");
            return false;
        }
        if (http1_header_count(head, "authorization") != 1 ||
            !read_basic(request, field, &id, &client_secret))
            return refuse(request, true);
        if (client_id.at && !str_equal(client_id, id)) {
            oauth_error(request, 400, "invalid_request", "client_id is not who has authenticated");
            return false;
        }
        client_id = id;
    }
    if (!client_id.at)
        return refuse(request, false);
    int result = oauth_client_check(request->arena, client_id, client_secret, client);
    if (result == -EACCES)
        return refuse(request, field.at != NULL);
    if (result) {
        oauth_failure(request, result);
        return false;
    }
    request->who.fields[0] = str_from(arena_printf(request->arena, "client %.*s", STR_ARG(client->id)));
    audit_set(&request->who);
    return true;
}
