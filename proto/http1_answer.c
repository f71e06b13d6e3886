/*
 * HTTP/1.1 framing of answers by llhttp, and our own strictness around it.
 *
 *   START ──bytes──▶ HEAD ──complete──▶ BODY ──complete──▶ ENDED
 *     ▲               │ │                                    ▲
 *     └──── 1xx ──────┘ └────────── no body follows ─────────┘
 *
 * As in http1.c a head's pieces are gathered into the arena, and llhttp is paused at the end of a head and of a body.
 * Every head begins with llhttp reset, so nothing of one answer reaches the next.
 */
#include "proto/http1_answer.h"

#include "proto/http1_fields.h"

#include <llhttp.h>
#include <stdlib.h>

enum { EXTENSIONS_MAX = 16384 /* bytes of one chunk's extensions, which mean nothing to us */ };

enum phase { START, HEAD, BODY, ENDED };

struct http1_answer {
    llhttp_t llhttp;
    struct arena *arena;
    void (*on_body)(void *arg, const char *bytes, size_t size);
    void *arg;
    struct http1_answer_head head;
    size_t capacity; /* of head.fields */
    struct http1_span span;
    struct str name; /* of the field whose value comes next */
    size_t head_bytes;
    size_t extension_bytes;
    unsigned informational; /* heads skipped */
    const char *error;
    enum phase phase;
    bool to_head;
    bool told;  /* HTTP1_HEAD was reported */
    bool again; /* an informational answer is complete */
};

static int refuse(struct http1_answer *parser, const char *reason)
{
    if (!parser->error)
        parser->error = reason;
    return -1;
}

/* ---- heads ---- */

static int head_room(struct http1_answer *parser, size_t size)
{
    parser->head_bytes += size;
    if (parser->head_bytes > HTTP1_HEADERS_MAX)
        return refuse(parser, "head too large");
    return 0;
}

static int text_add(struct http1_answer *parser, const char *at, size_t size)
{
    if (head_room(parser, size))
        return -1;
    if (parser->phase != BODY) /* trailers are dropped */
        http1_span_add(&parser->span, parser->arena, at, size);
    return 0;
}

/* The reason is for people and is not passed on, but it can't be sent without end. */
static int on_status(llhttp_t *llhttp, const char *at, size_t size)
{
    (void)at;
    return head_room(llhttp->data, size);
}

static int on_field(llhttp_t *llhttp, const char *at, size_t size)
{
    return text_add(llhttp->data, at, size);
}

static int on_field_complete(llhttp_t *llhttp)
{
    struct http1_answer *parser = llhttp->data;
    parser->name = http1_span_take(&parser->span);
    return 0;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t size)
{
    return text_add(llhttp->data, at, size);
}

static int on_value_complete(llhttp_t *llhttp)
{
    struct http1_answer *parser = llhttp->data;
    struct http1_answer_head *head = &parser->head;
    if (head_room(parser, 4))
        return -1;
    if (parser->phase == BODY)
        return 0;
    struct str value = str_trim(http1_span_take(&parser->span));
    if (head->count >= HTTP1_FIELDS_MAX)
        return refuse(parser, "too many fields");
    if (memchr(value.at, '\0', value.size))
        return refuse(parser, "NUL in a field");
    http1_fields_add(&head->fields, &head->count, &parser->capacity, parser->arena,
                     (struct http1_field){parser->name, value});
    return 0;
}

static int check_framing(struct http1_answer *parser, bool http10)
{
    struct http1_answer_head *head = &parser->head;
    size_t encodings = 0;
    size_t lengths = 0;
    struct str encoding = STR_NONE;
    struct str length = STR_NONE;
    for (size_t i = 0; i < head->count; i++) {
        const struct http1_field *field = &head->fields[i];
        if (str_equal_nocase(field->name, STR("content-length"))) {
            length = field->value;
            lengths++;
        } else if (str_equal_nocase(field->name, STR("transfer-encoding"))) {
            encoding = field->value;
            encodings++;
        }
    }
    if (encodings && lengths)
        return refuse(parser, "Content-Length and Transfer-Encoding");
    if (lengths > 1)
        return refuse(parser, "more than one Content-Length");
    if (lengths && !str_to_u64(length, &head->content_length))
        return refuse(parser, "bad Content-Length");
    if (encodings > 1 || (encodings && (http10 || !str_equal_nocase(encoding, STR("chunked")))))
        return refuse(parser, "bad Transfer-Encoding");
    head->has_length = lengths == 1;
    head->chunked = encodings == 1;
    return 0;
}

/* What the status makes of a body (RFC 9112 §6.3). */
static int check_status(struct http1_answer *parser, bool upgraded)
{
    struct http1_answer_head *head = &parser->head;
    bool framed = head->chunked || head->content_length > 0;
    if (head->status < 100 || head->status > 599)
        return refuse(parser, "bad status");
    if (head->status < 200 && framed)
        return refuse(parser, "a body in an informational answer");
    head->switched = head->status == 101;
    if (head->switched && !upgraded)
        return refuse(parser, "101 without Upgrade");
    if (head->status == 204 && framed)
        head->keep_alive = false;
    bool bodiless = head->status < 200 || head->status == 204 || head->status == 304;
    head->has_body = !bodiless && !parser->to_head;
    head->to_end = head->has_body && !head->has_length && !head->chunked;
    if (head->to_end || head->switched)
        head->keep_alive = false;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http1_answer *parser = llhttp->data;
    struct http1_answer_head *head = &parser->head;
    if (llhttp->http_major != 1 || llhttp->http_minor > 1)
        return refuse(parser, "HTTP version not supported");
    bool http10 = llhttp->http_minor == 0;
    head->status = llhttp->status_code;
    head->keep_alive =
        !(llhttp->flags & F_CONNECTION_CLOSE) && (!http10 || llhttp->flags & F_CONNECTION_KEEP_ALIVE);
    if (check_framing(parser, http10) || check_status(parser, llhttp->upgrade != 0))
        return -1;
    parser->again = head->status < 200 && !head->switched;
    if (!head->has_body || (head->has_length && head->content_length == 0))
        return 1; /* llhttp then takes no body either, whatever the fields say */
    parser->phase = BODY;
    parser->head_bytes = 0;
    return HPE_PAUSED;
}

/* ---- bodies ---- */

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_answer *parser = llhttp->data;
    parser->on_body(parser->arg, at, size);
    return 0;
}

static int on_extension(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_answer *parser = llhttp->data;
    (void)at;
    parser->extension_bytes += size;
    if (parser->extension_bytes > EXTENSIONS_MAX)
        return refuse(parser, "chunk extensions too large");
    return 0;
}

static int on_chunk(llhttp_t *llhttp)
{
    struct http1_answer *parser = llhttp->data;
    parser->extension_bytes = 0;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    struct http1_answer *parser = llhttp->data;
    if (!parser->again)
        parser->phase = ENDED;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_status = on_status,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_chunk_header = on_chunk,
    .on_message_complete = on_message_complete,
};

/* ---- the interface ---- */

struct http1_answer *http1_answer_new(void (*on_body_bytes)(void *arg, const char *bytes, size_t size),
                                      void *arg)
{
    struct http1_answer *parser = mem_zalloc(sizeof *parser);
    llhttp_init(&parser->llhttp, HTTP_RESPONSE, &callbacks);
    parser->llhttp.data = parser;
    parser->on_body = on_body_bytes;
    parser->arg = arg;
    return parser;
}

void http1_answer_free(struct http1_answer *parser)
{
    free(parser);
}

/* head_bytes goes on counting: the heads before the answer share its room. */
static void begin_head(struct http1_answer *parser)
{
    llhttp_reset(&parser->llhttp);
    parser->head = (struct http1_answer_head){0};
    parser->capacity = 0;
    parser->span = (struct http1_span){0};
    parser->phase = START;
    parser->again = false;
}

void http1_answer_begin(struct http1_answer *parser, struct arena *arena, bool to_head)
{
    begin_head(parser);
    parser->arena = arena;
    parser->to_head = to_head;
    parser->head_bytes = 0;
    parser->extension_bytes = 0;
    parser->informational = 0;
    parser->error = NULL;
    parser->told = false;
}

static const char *llhttp_reason(llhttp_errno_t error)
{
    switch ((int)error) {
    case HPE_INVALID_CONSTANT: return "no HTTP/1 answer";
    case HPE_INVALID_VERSION: return "HTTP version not supported";
    case HPE_INVALID_STATUS: return "bad status line";
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH: return "bad Content-Length";
    case HPE_INVALID_TRANSFER_ENCODING: return "bad Transfer-Encoding";
    case HPE_INVALID_CHUNK_SIZE: return "bad chunk";
    case HPE_CR_EXPECTED:
    case HPE_LF_EXPECTED:
    case HPE_STRICT: return "bare CR or LF";
    default: return "bad answer";
    }
}

/* Bytes up to the next pause, into llhttp. Sets *event and returns true unless an informational answer ended. */
static bool feed_some(struct http1_answer *parser, const char **at, const char *end, enum http1_event *event)
{
    llhttp_t *llhttp = &parser->llhttp;
    /* llhttp passes over empty lines here; an answer has none before it. */
    if (parser->phase == START && (**at == '\r' || **at == '\n'))
        refuse(parser, "an empty line before the answer");
    if (parser->phase == START)
        parser->phase = HEAD;
    llhttp_errno_t result = parser->error ? HPE_USER : llhttp_execute(llhttp, *at, (size_t)(end - *at));
    if (result == HPE_OK) {
        *at = end;
        *event = HTTP1_MORE;
        return true;
    }
    if (result != HPE_PAUSED) {
        refuse(parser, llhttp_reason(result));
        *at = end;
        *event = HTTP1_ERROR;
        return true;
    }
    *at = llhttp_get_error_pos(llhttp);
    if (parser->again)
        return false;
    llhttp_resume(llhttp);
    *event = parser->told ? HTTP1_END : HTTP1_HEAD;
    parser->told = true;
    return true;
}

size_t http1_answer_feed(struct http1_answer *parser, const char *bytes, size_t size, enum http1_event *event)
{
    const char *at = bytes;
    const char *end = bytes + size;
    if (parser->phase == ENDED) {
        *event = HTTP1_END;
        return 0;
    }
    *event = HTTP1_MORE;
    while (at < end && !feed_some(parser, &at, end, event)) {
        begin_head(parser);
        if (++parser->informational > HTTP1_INFORMATIONAL_MAX)
            refuse(parser, "too many informational answers");
    }
    return (size_t)(at - bytes);
}

bool http1_answer_end(struct http1_answer *parser)
{
    if (parser->phase != BODY || !parser->head.to_end || parser->error)
        return false;
    parser->phase = ENDED;
    return true;
}

const struct http1_answer_head *http1_answer_head(const struct http1_answer *parser)
{
    return &parser->head;
}

const char *http1_answer_error(const struct http1_answer *parser)
{
    return parser->error;
}

struct str http1_answer_header(const struct http1_answer_head *head, const char *name)
{
    return http1_fields_find(head->fields, head->count, name);
}
