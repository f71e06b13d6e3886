#ifndef PROTO_HTTP1_H
#define PROTO_HTTP1_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * HTTP/1.1 requests from bytes (RFC 9112), and heads of answers to bytes. llhttp frames; what it lets through
 * although a front door must not (versions, Host, Transfer-Encoding, sizes) is refused here. No I/O.
 */

enum {
    HTTP1_LINE_MAX = 8192,     /* the request line without its CR LF */
    HTTP1_HEADERS_MAX = 32768, /* the lines of the fields as they come, with their ends */
    HTTP1_FIELDS_MAX = 100,    /* dropped ones included */
};

struct http1_field {
    struct str name; /* as sent */
    struct str value;
};

/* A request's head. Everything in it lives in the arena that the parser was given. */
struct http1_head {
    struct str method;
    struct str target;
    struct str host; /* absent in HTTP/1.0 without Host */
    struct http1_field *fields;
    size_t count;
    uint64_t content_length; /* 0 unless the request has a Content-Length */
    struct str upgrade;      /* RFC 9110 §7.8: see http1_head; absent in most requests */
    bool http10;
    bool chunked;
    bool has_body;
    bool expect_continue;
    bool keep_alive;
};

/* The first field of that name; absent (STR_NONE) when there is none. `name` in lower case. */
struct str http1_header(const struct http1_head *head, const char *name);
/* How many fields have the name. */
size_t http1_header_count(const struct http1_head *head, const char *name);

enum http1_event {
    HTTP1_MORE,  /* all bytes were taken; more are needed */
    HTTP1_HEAD,  /* the head of a request with a body is complete */
    HTTP1_END,   /* the request is complete */
    HTTP1_ERROR, /* http1_error says what to answer; the connection is of no further use */
};

struct http1_parser;

/* `on_body` gets the body's bytes as they come, without the chunks' frames; trailers are dropped. */
struct http1_parser *http1_new(void (*on_body)(void *arg, const char *bytes, size_t size), void *arg);
void http1_free(struct http1_parser *parser);

/* Where the next request's head is put; before its first byte is fed. */
void http1_begin(struct http1_parser *parser, struct arena *arena);

/* Takes the empty lines (CR LF) that may stand before a request (RFC 9112 §2.2) and returns their size; they begin
 * none, so that no http1_begin is needed yet. What is not in order about them is left to http1_feed, which refuses it. */
size_t http1_skip_empty(struct http1_parser *parser, const char *bytes, size_t size);

/* Takes bytes up to the next event and returns how many. After HTTP1_HEAD go on with the rest; after HTTP1_END
 * call http1_begin before the next request. */
size_t http1_feed(struct http1_parser *parser, const char *bytes, size_t size, enum http1_event *event);

/* Valid from HTTP1_HEAD or HTTP1_END to the next http1_begin. `upgrade` is the text of Upgrade, when Connection asks for one,
 * too, the request is HTTP/1.1 and no body comes; what it may be is the caller's to know. */
const struct http1_head *http1_head(const struct http1_parser *parser);

/* After HTTP1_ERROR: the status (400, 405, 414, 417, 431, 505) and a reason for people that quotes no input. */
int http1_error(const struct http1_parser *parser, const char **reason);

/* "OK" for 200 and so on (RFC 9110 §15). */
const char *http1_reason(int status);

/* Appends "HTTP/1.1 200 OK\r\n". */
void http1_put_status(struct buf *out, int status);
/* Appends one field. A value with CR, LF or NUL in it would split the answer: such bytes become spaces. */
void http1_put_header(struct buf *out, struct str name, struct str value);
/* Appends Content-Length. */
void http1_put_length(struct buf *out, uint64_t size);

/* Whether a comma-separated list (Connection, Transfer-Encoding …) has the token. `token` in lower case. */
bool http1_list_has(struct str list, const char *token);

#endif
