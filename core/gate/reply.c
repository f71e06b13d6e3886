/* Answers: JSON bodies, the table of errors, and what a store's error means to a client. */
#include "core/gate/gate.h"

#include "core/base/clock.h"
#include "core/net/stream.h"

#include <errno.h>

const struct api_error_row api_errors[API_ERROR_COUNT] = {
#define API_ERROR_ROW(id, status_, code_, message_)                                                          \
    {.status = (status_), .code = (code_), .message = (message_)},
    API_ERRORS(API_ERROR_ROW)
#undef API_ERROR_ROW
};

void render_error_text(struct buf *out, int status, const char *code, const char *message)
{
    (void)status;
    (void)code;
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_text(&json, "error", message);
    json_close(&json, '}');
    buf_add_char(out, '\n');
}

static void put_error_object(struct buf *out, const char *code, const char *message, bool with_details)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_key(&json, "error");
    json_open(&json, '{');
    json_put_text(&json, "code", code);
    json_put_text(&json, "message", message);
    if (with_details) {
        json_key(&json, "details");
        json_open(&json, '{');
        json_close(&json, '}');
    }
    json_close(&json, '}');
    json_close(&json, '}');
    buf_add_char(out, '\n');
}

void render_error_object(struct buf *out, int status, const char *code, const char *message)
{
    (void)status;
    put_error_object(out, code, message, false);
}

void render_error_details(struct buf *out, int status, const char *code, const char *message)
{
    (void)status;
    put_error_object(out, code, message, true);
}

void reply_header(struct request *request, const char *name, const char *value)
{
    http_add_header(request->http, str_from(name), str_from(value));
}

void reply_begin(struct reply *reply, struct request *request)
{
    reply->request = request;
    reply->body = stream_spare_take();
    reply->json = json_out_to(&reply->body);
    json_open(&reply->json, '{');
}

void reply_end(struct reply *reply, int status)
{
    json_close(&reply->json, '}');
    buf_add_char(&reply->body, '\n');
    reply_body(reply->request, status, "application/json", buf_str(&reply->body));
    stream_spare_give(&reply->body);
}

void reply_list_begin(struct reply *reply, struct request *request, const char *object, const char *rows)
{
    reply_begin(reply, request);
    if (object)
        json_put_text(&reply->json, "object", object);
    json_key(&reply->json, rows);
    json_open(&reply->json, '[');
}

void reply_list_end(struct reply *reply, int64_t next)
{
    char digits[24];
    json_close(&reply->json, ']');
    json_put_str(&reply->json, "next_cursor",
                 next ? str_of(digits, format_u64(digits, (uint64_t)next)) : STR_NONE);
    reply_end(reply, 200);
}

void reply_body(struct request *request, int status, const char *type, struct str body)
{
    if (type)
        reply_header(request, "Content-Type", type);
    if (LIKELY(!request->idempotency) || gate_repeat_keep(request, status, body)) {
        http_answer(request->http, status, body);
        return;
    }
    /* What it did is taken back, or nobody knows: the client may ask again, and will learn it then. */
    struct buf other = stream_spare_take();
    const struct api_error_row *row = &api_errors[ERROR_UNAVAILABLE];
    request->why = row->code;
    reply_header(request, "Retry-After", "1");
    request->surface->render_error(&other, row->status, row->code, row->message);
    http_answer(request->http, row->status, buf_str(&other));
    stream_spare_give(&other);
}

void reply_error_body(struct request *request, int status, const char *code, const char *type,
                      struct str body)
{
    request->why = code;
    reply_body(request, status, type, body);
}

void reply_error(struct request *request, enum api_error error, const char *message)
{
    const struct api_error_row *row = &api_errors[error];
    struct buf body = stream_spare_take();
    request->why = row->code;
    request->surface->render_error(&body, row->status, row->code, message ? message : row->message);
    reply_body(request, row->status, "application/json", buf_str(&body));
    stream_spare_give(&body);
}

void reply_invalid(struct request *request, const char *message)
{
    reply_error(request, ERROR_INVALID_PARAMETER, message);
}

void reply_deleted(struct request *request, struct str id, const char *object)
{
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "id", id);
    json_put_text(&reply.json, "object", object);
    json_put_bool(&reply.json, "deleted", true);
    reply_end(&reply, 200);
}

void reply_failure(struct request *request, int result)
{
    switch (result) {
    case -ENOTCONN:
    case -ECONNRESET:
    case -EAGAIN:
    case -ETIMEDOUT:
        reply_header(request, "Retry-After", "1");
        reply_error(request, ERROR_UNAVAILABLE, NULL);
        return;
    case -ECANCELED:
        reply_header(request, "Retry-After", "1");
        reply_error(request, ERROR_TIMED_OUT, NULL);
        return;
    default: reply_error(request, ERROR_INTERNAL, NULL);
    }
}

void json_put_words(struct json_out *out, const char *name, struct str words)
{
    struct str word;
    json_key(out, name);
    json_open(out, '[');
    while (words.size && str_split(&words, ' ', &word))
        json_put_str(out, NULL, word);
    json_close(out, ']');
}

void json_put_time(struct json_out *out, const char *name, int64_t unix_ms)
{
    char text[CLOCK_ISO_SIZE];
    if (unix_ms)
        json_put_text(out, name, clock_format_iso(text, unix_ms));
    else
        json_put_null(out, name);
}
