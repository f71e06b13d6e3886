/*
 * HTTP/1.1 framing by llhttp, and our own strictness around it.
 *
 * A head's pieces arrive as spans that may end anywhere, so each is gathered into the request's arena. llhttp is
 * paused at the end of a head that a body follows and at the end of a request: handlers never start inside its
 * callbacks.
 */
#include "proto/http1.h"

#include <llhttp.h>
#include <stdlib.h>

enum {
    EXTENSIONS_MAX = 16384, /* bytes of a body's chunk extensions, which mean nothing to us */
    VERSION_SIZE = 10,      /* "HTTP/1.1" and CR LF */
};

/* A text that grows in the arena while its spans come in. */
struct span {
    char *at;
    size_t size;
    size_t capacity;
};

struct http1_parser {
    llhttp_t llhttp;
    struct arena *arena;
    void (*on_body)(void *arg, const char *bytes, size_t size);
    void *arg;
    struct http1_head head;
    size_t capacity; /* of head.fields */
    struct span span;
    struct str name; /* of the field whose value comes next */
    size_t head_bytes;
    size_t line_bytes;
    size_t extension_bytes; /* of the body's chunks */
    size_t raw_size;        /* of the request line, as it came, with its end */
    char raw_end[VERSION_SIZE];
    int status; /* of an error found here */
    const char *reason;
    bool raw_done;
    bool in_trailers;
    bool head_done;
};

static int refuse(struct http1_parser *parser, int status, const char *reason)
{
    if (!parser->status) {
        parser->status = status;
        parser->reason = reason;
    }
    return -1;
}

static void span_add(struct http1_parser *parser, const char *at, size_t size)
{
    struct span *span = &parser->span;
    if (size == 0)
        return;
    if (span->size + size > span->capacity) {
        size_t capacity = span->capacity ? span->capacity * 2 : size;
        while (capacity < span->size + size)
            capacity *= 2;
        char *grown = arena_alloc(parser->arena, capacity);
        if (span->size)
            memcpy(grown, span->at, span->size);
        span->at = grown;
        span->capacity = capacity;
    }
    memcpy(span->at + span->size, at, size);
    span->size += size;
}

static struct str span_take(struct http1_parser *parser)
{
    struct str text = str_of(parser->span.at ? parser->span.at : "", parser->span.size);
    parser->span = (struct span){0};
    return text;
}

static int line_add(struct http1_parser *parser, const char *at, size_t size)
{
    size_t room = HTTP1_LINE_MAX - parser->line_bytes;
    span_add(parser, at, size < room ? size : room);
    parser->line_bytes += size;
    return size > room ? refuse(parser, 414, "request line too long") : 0;
}

static int on_method(llhttp_t *llhttp, const char *at, size_t size)
{
    return line_add(llhttp->data, at, size);
}

static int on_method_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->head.method = span_take(parser);
    return 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    int result = line_add(parser, at, size);
    if (result) /* its beginning, for it says what kind of client wants to know of the error */
        parser->head.target = span_take(parser);
    return result;
}

static int on_url_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->head.target = span_take(parser);
    return 0;
}

static int header_add(struct http1_parser *parser, const char *at, size_t size)
{
    parser->head_bytes += size;
    if (parser->head_bytes > HTTP1_HEADERS_MAX)
        return refuse(parser, 431, "header fields too large");
    if (!parser->in_trailers)
        span_add(parser, at, size);
    return 0;
}

static int on_field(llhttp_t *llhttp, const char *at, size_t size)
{
    return header_add(llhttp->data, at, size);
}

static int on_field_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    if (!parser->in_trailers)
        parser->name = span_take(parser);
    return 0;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t size)
{
    return header_add(llhttp->data, at, size);
}

static int on_value_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->head_bytes += 4;
    if (parser->head_bytes > HTTP1_HEADERS_MAX)
        return refuse(parser, 431, "header fields too large");
    if (parser->in_trailers)
        return 0;
    struct str value = str_trim(span_take(parser));
    struct http1_head *head = &parser->head;
    if (head->count >= HTTP1_FIELDS_MAX)
        return refuse(parser, 431, "too many header fields");
    /* a_b and a-b are one name to CGI-like programs behind us: the former is dropped, as nginx does. */
    if (memchr(parser->name.at, '_', parser->name.size))
        return 0;
    if (memchr(value.at, '\0', value.size))
        return refuse(parser, 400, "NUL in a header field");
    if (head->count == parser->capacity) {
        size_t capacity = parser->capacity ? parser->capacity * 2 : 16;
        struct http1_field *grown = arena_alloc(parser->arena, capacity * sizeof *grown);
        if (head->count)
            memcpy(grown, head->fields, head->count * sizeof *grown);
        head->fields = grown;
        parser->capacity = capacity;
    }
    head->fields[head->count++] = (struct http1_field){parser->name, value};
    return 0;
}

/* Keeps the end of the request line: llhttp also takes "RTSP/1.0" and several spaces, and does not say so. */
static void note_line(struct http1_parser *parser, const char *bytes, size_t size)
{
    while (parser->raw_size == 0 && size && (*bytes == '\r' || *bytes == '\n')) {
        bytes++;
        size--;
    }
    const char *end = size ? memchr(bytes, '\n', size) : NULL;
    parser->raw_done = end != NULL;
    size_t more = end ? (size_t)(end - bytes) + 1 : size;
    parser->raw_size += more;
    size_t fresh = more < VERSION_SIZE ? more : VERSION_SIZE;
    memmove(parser->raw_end, parser->raw_end + fresh, VERSION_SIZE - fresh);
    memcpy(parser->raw_end + VERSION_SIZE - fresh, bytes + more - fresh, fresh);
}

static int check_line(struct http1_parser *parser)
{
    const struct http1_head *head = &parser->head;
    if (memcmp(parser->raw_end, "HTTP/1.", 7) != 0)
        return refuse(parser, 505, "HTTP version not supported");
    if (parser->raw_size != head->method.size + head->target.size + 2 + VERSION_SIZE)
        return refuse(parser, 400, "bad request line");
    return 0;
}

/* Bytes that may stand in a Host: those of RFC 3986's authority without userinfo. */
static bool is_host_byte(char c)
{
    switch (c) {
    case '/':
    case '?':
    case '#':
    case '@':
    case '\\':
    case '"':
    case '<':
    case '>':
    case '^':
    case '`':
    case '{':
    case '|':
    case '}':
    case ',': return false;
    default: return c > ' ' && c < 0x7f;
    }
}

static bool host_is_valid(struct str host)
{
    for (size_t i = 0; i < host.size; i++)
        if (!is_host_byte(host.at[i]))
            return false;
    return true;
}

static int check_host(struct http1_parser *parser)
{
    struct http1_head *head = &parser->head;
    size_t hosts = http1_header_count(head, "host");
    if (hosts > 1)
        return refuse(parser, 400, "more than one Host");
    if (hosts == 0 && !head->http10)
        return refuse(parser, 400, "no Host");
    head->host = http1_header(head, "host");
    if (head->host.at && !host_is_valid(head->host))
        return refuse(parser, 400, "bad Host");
    return 0;
}

static int check_target(struct http1_parser *parser)
{
    struct http1_head *head = &parser->head;
    struct str target = head->target;
    if (str_equal(head->method, STR("CONNECT")))
        return refuse(parser, 405, "CONNECT is not served");
    if (target.size && target.at[0] == '/')
        return 0;
    if (str_equal(target, STR("*")) && str_equal(head->method, STR("OPTIONS")))
        return 0;
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        struct str scheme = str_from(schemes[i]);
        if (target.size < scheme.size || !str_equal_nocase(str_of(target.at, scheme.size), scheme))
            continue;
        struct str rest = str_of(target.at + scheme.size, target.size - scheme.size);
        size_t authority = 0;
        while (authority < rest.size && rest.at[authority] != '/' && rest.at[authority] != '?')
            authority++;
        if (!head->host.at || !str_equal_nocase(str_of(rest.at, authority), head->host))
            return refuse(parser, 400, "the target's authority is not the Host");
        return 0;
    }
    return refuse(parser, 400, "bad request target");
}

static int check_framing(struct http1_parser *parser)
{
    struct http1_head *head = &parser->head;
    size_t encodings = http1_header_count(head, "transfer-encoding");
    size_t lengths = http1_header_count(head, "content-length");
    if (encodings && lengths)
        return refuse(parser, 400, "Content-Length and Transfer-Encoding");
    if (lengths > 1)
        return refuse(parser, 400, "more than one Content-Length");
    if (encodings > 1 || (encodings && head->http10))
        return refuse(parser, 400, "bad Transfer-Encoding");
    if (encodings && !str_equal_nocase(http1_header(head, "transfer-encoding"), STR("chunked")))
        return refuse(parser, 400, "bad Transfer-Encoding");
    if (lengths && !str_to_u64(http1_header(head, "content-length"), &head->content_length))
        return refuse(parser, 400, "bad Content-Length");
    head->chunked = encodings == 1;
    head->has_body = head->chunked || head->content_length > 0;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    struct http1_head *head = &parser->head;
    if (llhttp->http_major != 1 || llhttp->http_minor > 1)
        return refuse(parser, 505, "HTTP version not supported");
    head->http10 = llhttp->http_minor == 0;
    llhttp->upgrade = 0; /* HTTP goes on after this request, whatever the client would rather speak */
    if (check_line(parser) || check_host(parser) || check_target(parser) || check_framing(parser))
        return -1;
    head->expect_continue =
        !head->http10 && str_equal_nocase(http1_header(head, "expect"), STR("100-continue"));
    head->keep_alive = llhttp_should_keep_alive(llhttp) != 0;
    parser->head_done = true;
    parser->in_trailers = true;
    parser->head_bytes = 0;
    return head->has_body ? HPE_PAUSED : 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    parser->on_body(parser->arg, at, size);
    return 0;
}

static int on_extension(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    (void)at;
    parser->extension_bytes += size;
    if (parser->extension_bytes > EXTENSIONS_MAX)
        return refuse(parser, 400, "chunk extensions too large");
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    (void)llhttp;
    return HPE_PAUSED;
}

static const llhttp_settings_t callbacks = {
    .on_method = on_method,
    .on_method_complete = on_method_complete,
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_message_complete = on_message_complete,
};

struct http1_parser *http1_new(void (*on_body_bytes)(void *arg, const char *bytes, size_t size), void *arg)
{
    struct http1_parser *parser = mem_zalloc(sizeof *parser);
    llhttp_init(&parser->llhttp, HTTP_REQUEST, &callbacks);
    parser->llhttp.data = parser;
    parser->on_body = on_body_bytes;
    parser->arg = arg;
    return parser;
}

void http1_free(struct http1_parser *parser)
{
    free(parser);
}

void http1_begin(struct http1_parser *parser, struct arena *arena)
{
    parser->arena = arena;
    parser->head = (struct http1_head){0};
    parser->capacity = 0;
    parser->span = (struct span){0};
    parser->name = STR_NONE;
    parser->head_bytes = 0;
    parser->line_bytes = 0;
    parser->extension_bytes = 0;
    parser->raw_size = 0;
    parser->raw_done = false;
    parser->status = 0;
    parser->reason = NULL;
    parser->in_trailers = false;
    parser->head_done = false;
}

static size_t consumed(struct http1_parser *parser, const char *bytes)
{
    return (size_t)(llhttp_get_error_pos(&parser->llhttp) - bytes);
}

/* llhttp's own refusals are all the client's fault; a first line that is no HTTP/1 is told apart for people. */
static void refuse_by_llhttp(struct http1_parser *parser, llhttp_errno_t error)
{
    switch ((int)error) {
    case HPE_INVALID_METHOD: refuse(parser, 400, "bad method"); break;
    case HPE_PAUSED_H2_UPGRADE: refuse(parser, 505, "HTTP version not supported"); break;
    case HPE_INVALID_VERSION: /* also what llhttp calls a request line that ends in LF alone */
        if (parser->raw_done && parser->raw_end[VERSION_SIZE - 2] != '\r')
            refuse(parser, 400, "bad request line");
        else
            refuse(parser, 505, "HTTP version not supported");
        break;
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH: refuse(parser, 400, "bad Content-Length"); break;
    case HPE_INVALID_TRANSFER_ENCODING: refuse(parser, 400, "bad Transfer-Encoding"); break;
    case HPE_INVALID_CHUNK_SIZE: refuse(parser, 400, "bad chunk"); break;
    default: refuse(parser, 400, "bad request");
    }
}

size_t http1_feed(struct http1_parser *parser, const char *bytes, size_t size, enum http1_event *event)
{
    llhttp_t *llhttp = &parser->llhttp;
    if (!parser->raw_done)
        note_line(parser, bytes, size);
    llhttp_errno_t result = llhttp_execute(llhttp, bytes, size);
    if (result == HPE_OK) {
        *event = HTTP1_MORE;
        return size;
    }
    *event = HTTP1_ERROR;
    if (result == HPE_PAUSED) {
        size_t taken = consumed(parser, bytes);
        llhttp_resume(llhttp);
        *event = parser->head_done && parser->head.has_body ? HTTP1_HEAD : HTTP1_END;
        parser->head_done = false;
        return taken;
    }
    refuse_by_llhttp(parser, result);
    return size;
}

const struct http1_head *http1_head(const struct http1_parser *parser)
{
    return &parser->head;
}

int http1_error(const struct http1_parser *parser, const char **reason)
{
    *reason = parser->reason;
    return parser->status;
}

struct str http1_header(const struct http1_head *head, const char *name)
{
    struct str wanted = str_from(name);
    for (size_t i = 0; i < head->count; i++)
        if (str_equal_nocase(head->fields[i].name, wanted))
            return head->fields[i].value;
    return STR_NONE;
}

size_t http1_header_count(const struct http1_head *head, const char *name)
{
    struct str wanted = str_from(name);
    size_t count = 0;
    for (size_t i = 0; i < head->count; i++)
        count += str_equal_nocase(head->fields[i].name, wanted);
    return count;
}

const char *http1_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Unknown";
}

void http1_put_status(struct buf *out, int status)
{
    if (LIKELY(status == 200)) {
        buf_add_literal(out, "HTTP/1.1 200 OK\r\n");
        return;
    }
    buf_add_literal(out, "HTTP/1.1 ");
    buf_add_u64(out, (uint64_t)status);
    buf_add_char(out, ' ');
    buf_add_text(out, http1_reason(status));
    buf_add_literal(out, "\r\n");
}

void http1_put_header(struct buf *out, struct str name, struct str value)
{
    char *at = buf_reserve(out, name.size + value.size + 4);
    memcpy(at, name.at, name.size);
    at += name.size;
    *at++ = ':';
    *at++ = ' ';
    for (size_t i = 0; i < value.size; i++) {
        char c = value.at[i];
        *at++ = UNLIKELY((unsigned char)c <= '\r') && (c == '\r' || c == '\n' || c == '\0') ? ' ' : c;
    }
    *at++ = '\r';
    *at++ = '\n';
    out->size += name.size + value.size + 4;
}

bool http1_list_has(struct str list, const char *token)
{
    struct str wanted = str_from(token);
    struct str piece;
    while (str_split(&list, ',', &piece))
        if (str_equal_nocase(str_trim(piece), wanted))
            return true;
    return false;
}
