/*
 * HTTP/1.1 framing by llhttp, and our own strictness around it.
 *
 * A head's pieces arrive as spans that may end anywhere, so each is gathered into the request's arena. llhttp is
 * paused at the end of a head that a body follows and at the end of a request: handlers never start inside its
 * callbacks. It begins anew with each request, so that nothing of one (a trailer, say) can act on the next.
 *
 * What llhttp does not show is seen by counting: a request's bytes are numbered from the first of its request line
 * on, and the place where a span ends says how much white space, chunk frames and so on came before it.
 */
#include "proto/http1.h"

#include "proto/http1_fields.h"
#include "proto/http1_head.h"

#include <llhttp.h>
#include <stdlib.h>

enum {
    EMPTY_LINES_MAX = 4,                 /* before a request */
    TARGET_END_MAX = HTTP1_LINE_MAX - 9, /* " HTTP/1.1" comes behind it */
    LINE_END_SIZE = 10,                  /* "HTTP/1.1" and CR LF */
    FRAMES_MAX = 16384,                  /* bytes of a chunked body's frames and trailers … */
    FRAMES_PER_BYTE = 5,                 /* … beyond so many for each byte of the body itself */
};

struct http1_parser {
    llhttp_t llhttp;
    struct arena *arena;
    void (*on_body)(void *arg, const char *bytes, size_t size);
    void *arg;
    struct http1_head head;
    size_t capacity;    /* of head.fields */
    size_t field_count; /* dropped ones included */
    struct http1_span span;
    struct str name;      /* of the field whose value comes next */
    const char *piece;    /* what llhttp has at present … */
    uint64_t offset;      /* … and where in the request that begins */
    uint64_t head_size;   /* once it is complete */
    uint64_t body_size;   /* of what was given to on_body */
    size_t line_size;     /* of the request line as it came, with its end */
    unsigned empty_bytes; /* of empty lines before the request */
    int status;           /* of an error found here */
    const char *reason;
    char line_end[LINE_END_SIZE];
    bool line_done;        /* its end has come; llhttp may not have seen it yet */
    bool version_fits;     /* llhttp has read one, and we speak it */
    bool head_done;        /* what comes now is body or trailers */
    bool behind_tab;       /* the present value: a tab stands before it */
    bool ended_behind_tab; /* white space with a tab in it stood at the end of the piece before */
};

static int refuse(struct http1_parser *parser, int status, const char *reason)
{
    if (!parser->status) {
        parser->status = status;
        parser->reason = reason;
    }
    return -1;
}

/* Where in the request a byte stands that llhttp points to. */
static uint64_t offset_of(const struct http1_parser *parser, const char *at)
{
    return parser->offset + (uint64_t)(at - parser->piece);
}

/* ---- the request line ---- */

static int refuse_line(struct http1_parser *parser)
{
    return refuse(parser, 400, "bad request line");
}

/* One space stands between the parts (RFC 9112 §3). llhttp takes several and does not say so; what tells is where a
 * part stands. */
static uint64_t target_start(const struct http1_parser *parser)
{
    return parser->head.method.size + 1;
}

static uint64_t version_end(const struct http1_parser *parser)
{
    return target_start(parser) + parser->head.target.size + strlen(" HTTP/1.1");
}

/* For a line whose end has not come: whether more than one space has, where a part should begin. */
static bool has_spaces(const struct http1_parser *parser)
{
    if (parser->head.target.at)
        return parser->offset > version_end(parser) + strlen("\r");
    return parser->head.method.at && parser->span.size == 0 && parser->offset > target_start(parser);
}

static int on_method(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    http1_span_add(&parser->span, parser->arena, at,
                   size); /* it is one of those that llhttp knows, so it is short */
    return 0;
}

static int on_method_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->head.method = http1_span_take(&parser->span);
    return 0;
}

static int target_add(struct http1_parser *parser, const char *at, size_t size)
{
    if (parser->span.size == 0 && offset_of(parser, at) != target_start(parser))
        return refuse_line(parser);
    size_t room = TARGET_END_MAX - (size_t)offset_of(parser, at);
    size_t kept = size < room ? size : room;
    http1_span_add(&parser->span, parser->arena, at, kept);
    return kept < size ? refuse(parser, 414, "request line too long") : 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    int result = target_add(parser, at, size);
    if (result) /* its beginning, for it says what kind of client wants to know of the error */
        parser->head.target = http1_span_take(&parser->span);
    return result;
}

static int on_url_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->head.target = http1_span_take(&parser->span);
    return 0;
}

static int refuse_version(struct http1_parser *parser)
{
    return refuse(parser, 505, "HTTP version not supported");
}

static int on_version(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    return offset_of(parser, at + size) > version_end(parser) ? refuse_line(parser) : 0;
}

static int on_version_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    parser->version_fits = llhttp->http_major == 1 && llhttp->http_minor <= 1;
    return parser->version_fits ? 0 : refuse_version(parser);
}

/* Keeps the end of the request line: llhttp also takes "RTSP/1.0", and does not say so. */
static void note_line(struct http1_parser *parser, const char *bytes, size_t size)
{
    const char *end = memchr(bytes, '\n', size);
    parser->line_done = end != NULL;
    size_t more = end ? (size_t)(end - bytes) + 1 : size;
    parser->line_size += more;
    size_t fresh = more < LINE_END_SIZE ? more : LINE_END_SIZE;
    memmove(parser->line_end, parser->line_end + fresh, LINE_END_SIZE - fresh);
    memcpy(parser->line_end + LINE_END_SIZE - fresh, bytes + more - fresh, fresh);
}

static int check_protocol(struct http1_parser *parser)
{
    return memcmp(parser->line_end, "HTTP/1.", 7) == 0 ? 0 : refuse_version(parser);
}

/* When llhttp has left the request line: one without a version is HTTP/0.9 to it. */
static int check_has_version(struct http1_parser *parser)
{
    if (parser->version_fits)
        return 0;
    bool has_target = parser->head.target.size || parser->span.size;
    bool has_end = parser->line_end[LINE_END_SIZE - 2] == '\r';
    return has_target && has_end ? refuse_version(parser) : refuse_line(parser);
}

/* ---- fields ---- */

/* `end`: how far the request has come, or will come at least, with the empty line behind its fields. */
static int check_head_size(struct http1_parser *parser, uint64_t end)
{
    bool fits = end <= parser->line_size + HTTP1_HEADERS_MAX + strlen("\r\n");
    return fits ? 0 : refuse(parser, 431, "header fields too large");
}

static int header_add(struct http1_parser *parser, const char *at, size_t size)
{
    if (parser->head_done) /* a trailer */
        return 0;
    http1_span_add(&parser->span, parser->arena, at, size);
    return check_head_size(parser, offset_of(parser, at + size) + strlen("\r\n\r\n"));
}

static int on_field(llhttp_t *llhttp, const char *at, size_t size)
{
    return check_has_version(llhttp->data) ? -1 : header_add(llhttp->data, at, size);
}

static int on_field_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    if (parser->head_done)
        return 0;
    parser->name = http1_span_take(&parser->span);
    parser->behind_tab = false;
    return 0;
}

/* Whether the white space before this place has a tab in it. */
static bool is_behind_tab(const struct http1_parser *parser, const char *at)
{
    while (at > parser->piece && (at[-1] == ' ' || at[-1] == '\t'))
        if (*--at == '\t')
            return true;
    return at == parser->piece && parser->ended_behind_tab;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    if (parser->span.size == 0)
        parser->behind_tab = is_behind_tab(parser, at);
    return header_add(parser, at, size);
}

/* A tab is white space as any other (RFC 9110 §5.6.3), yet nginx and others take it for a part of the value: then
 * these fields frame nothing for them. */
static bool tab_misleads(const struct http1_parser *parser)
{
    return parser->behind_tab && (str_equal_nocase(parser->name, STR("content-length")) ||
                                  str_equal_nocase(parser->name, STR("transfer-encoding")));
}

static int on_value_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    if (parser->head_done)
        return 0;
    struct str value = str_trim(http1_span_take(&parser->span));
    struct http1_head *head = &parser->head;
    if (++parser->field_count > HTTP1_FIELDS_MAX)
        return refuse(parser, 431, "too many header fields");
    if (tab_misleads(parser))
        return refuse(parser, 400, "tab before a value that frames");
    /* a_b and a-b are one name to CGI-like programs behind us: the former is dropped, as nginx does. */
    if (memchr(parser->name.at, '_', parser->name.size))
        return 0;
    http1_fields_add(&head->fields, &head->count, &parser->capacity, parser->arena,
                     (struct http1_field){parser->name, value});
    return 0;
}

/* llhttp is what divides the bytes: it must have come to the same as we have. */
static bool frames_agree(const struct http1_parser *parser)
{
    const llhttp_t *llhttp = &parser->llhttp;
    return parser->head.chunked == ((llhttp->flags & F_CHUNKED) != 0) &&
           parser->head.content_length == llhttp->content_length;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http1_parser *parser = llhttp->data;
    struct http1_head *head = &parser->head;
    const char *reason;
    llhttp->upgrade = 0; /* what follows this request is our caller's to decide */
    head->http10 = llhttp->http_minor == 0;
    if (check_has_version(parser) || check_protocol(parser))
        return -1;
    int status = http1_head_check(head, &reason);
    if (status)
        return refuse(parser, status, reason);
    if (!frames_agree(parser))
        return refuse(parser, 400, "bad framing");
    parser->head_done = true;
    return head->has_body ? HPE_PAUSED : 0;
}

/* ---- the body ---- */

/* `end`: how far the request has come. Only chunks and trailers put bytes around a body; they mean nothing to us,
 * so that there is no reason to take many of them. */
static int check_frames(struct http1_parser *parser, uint64_t end)
{
    uint64_t most = FRAMES_MAX + FRAMES_PER_BYTE * parser->body_size;
    bool fits = end <= parser->head_size + parser->body_size + most;
    return fits ? 0 : refuse(parser, 400, "chunk frames or trailers too large");
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http1_parser *parser = llhttp->data;
    if (check_frames(parser, offset_of(parser, at)))
        return -1;
    parser->body_size += size;
    parser->on_body(parser->arg, at, size);
    return 0;
}

/* llhttp lets one control character into quoted values. */
static int on_extension(llhttp_t *llhttp, const char *at, size_t size)
{
    bool fits = !memchr(at, 0x7f, size);
    return fits ? 0 : refuse(llhttp->data, 400, "bad chunk");
}

static int on_message_complete(llhttp_t *llhttp)
{
    (void)llhttp;
    return HPE_PAUSED;
}

/* ---- the parser ---- */

static const llhttp_settings_t callbacks = {
    .on_method = on_method,
    .on_method_complete = on_method_complete,
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_version = on_version,
    .on_version_complete = on_version_complete,
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
    llhttp_reset(&parser->llhttp);
    *parser = (struct http1_parser){
        .llhttp = parser->llhttp,
        .arena = arena,
        .on_body = parser->on_body,
        .arg = parser->arg,
        .empty_bytes = parser->empty_bytes,
    };
}

size_t http1_skip_empty(struct http1_parser *parser, const char *bytes, size_t size)
{
    size_t skipped = 0;
    while (skipped < size && parser->empty_bytes < 2 * EMPTY_LINES_MAX &&
           bytes[skipped] == "\r\n"[parser->empty_bytes % 2]) {
        parser->empty_bytes++;
        skipped++;
    }
    return skipped;
}

/* A CR or LF where a request should begin, although empty lines were skipped; or half of such a line. */
static bool begins_badly(const struct http1_parser *parser, char first)
{
    return parser->offset == 0 && (parser->empty_bytes % 2 || first == '\r' || first == '\n');
}

/* llhttp's own refusals are all the client's fault. */
static void refuse_by_llhttp(struct http1_parser *parser, llhttp_errno_t error)
{
    switch ((int)error) {
    case HPE_INVALID_METHOD: refuse(parser, 400, "bad method"); break;
    case HPE_INVALID_URL: /* what is too long is that before it is anything else */
        if (parser->offset > TARGET_END_MAX)
            refuse(parser, 414, "request line too long");
        refuse(parser, 400, "bad request target");
        break;
    case HPE_PAUSED_H2_UPGRADE: refuse_version(parser); break;
    case HPE_INVALID_VERSION: /* also anything but CR LF behind it */
        if (parser->version_fits)
            refuse_line(parser);
        else
            refuse_version(parser);
        break;
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH: refuse(parser, 400, "bad Content-Length"); break;
    case HPE_INVALID_TRANSFER_ENCODING: refuse(parser, 400, "bad Transfer-Encoding"); break;
    case HPE_INVALID_CHUNK_SIZE: refuse(parser, 400, "bad chunk"); break;
    default: refuse(parser, 400, "bad request");
    }
}

/* Gives bytes of the request to llhttp; returns how many it took. A refusal is noted in the parser; what is too large is
 * that before it is anything else, so that the verdict is the same however the bytes come. */
static size_t execute(struct http1_parser *parser, const char *bytes, size_t size, enum http1_event *event)
{
    llhttp_t *llhttp = &parser->llhttp;
    bool in_body = parser->head_done;
    if (!parser->line_done)
        note_line(parser, bytes, size);
    parser->piece = bytes;
    llhttp_errno_t result = llhttp_execute(llhttp, bytes, size);
    if (result != HPE_OK)
        size = (size_t)(llhttp_get_error_pos(llhttp) - bytes);
    parser->offset += size;
    if (parser->line_done && parser->offset >= parser->line_size)
        check_has_version(parser);
    if (result == HPE_OK && !parser->line_done && has_spaces(parser))
        refuse_line(parser);
    if (in_body) {
        check_frames(parser, parser->offset);
    } else {
        check_head_size(parser, parser->offset);
        parser->head_size = parser->offset;
        parser->ended_behind_tab = is_behind_tab(parser, bytes + size);
    }
    if (result == HPE_PAUSED) {
        llhttp_resume(llhttp);
        *event = parser->head.has_body && !in_body ? HTTP1_HEAD : HTTP1_END;
    } else if (result != HPE_OK) {
        refuse_by_llhttp(parser, result);
    }
    return size;
}

size_t http1_feed(struct http1_parser *parser, const char *bytes, size_t size, enum http1_event *event)
{
    size_t taken = parser->offset == 0 ? http1_skip_empty(parser, bytes, size) : 0;
    *event = HTTP1_MORE;
    if (taken == size)
        return size;
    if (begins_badly(parser, bytes[taken]))
        refuse(parser, 400, "CR or LF where a request should begin");
    else
        taken += execute(parser, bytes + taken, size - taken, event);
    if (parser->status)
        *event = HTTP1_ERROR;
    if (*event == HTTP1_END)
        parser->empty_bytes = 0;
    return *event == HTTP1_ERROR ? size : taken;
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

const char *http1_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {302, "Found"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
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

void http1_put_length(struct buf *out, uint64_t size)
{
    buf_add_literal(out, "Content-Length: ");
    buf_add_u64(out, size);
    buf_add_literal(out, "\r\n");
}
