#ifndef PROTO_HTTP1_ANSWER_H
#define PROTO_HTTP1_ANSWER_H

#include "proto/http1.h"

/*
 * HTTP/1.1 answers from bytes: what a pod sends (RFC 9112). As strict as http1.h is with requests, because what we
 * misread here we would pass on: two lengths, a length with chunks, a bare line feed, a folded field are errors.
 * Informational answers (1xx but 101) are skipped. The bounds are http1.h's: HTTP1_HEADERS_MAX bytes (of all heads of one
 * answer, with their reasons, and again of its trailers, which are dropped), HTTP1_FIELDS_MAX fields. No I/O.
 */

enum { HTTP1_INFORMATIONAL_MAX = 16 /* heads skipped before an answer */ };

/* An answer's head. Everything in it lives in the arena that the parser was given. */
struct http1_answer_head {
    int status;
    struct http1_field *fields;
    size_t count;
    uint64_t content_length; /* valid when has_length */
    bool has_length;
    bool chunked;
    bool has_body; /* one follows, of any length, perhaps 0 */
    bool to_end;   /* the body ends with the connection */
    bool
        keep_alive; /* the connection may be used again after the body; false also when the pod may believe that one
                        follows where none does (204 with a length) */
    bool switched; /* 101: no more HTTP on this connection */
};

/* The first field of that name; absent (STR_NONE) when there is none. `name` in lower case. */
struct str http1_answer_header(const struct http1_answer_head *head, const char *name);

struct http1_answer;
struct http1_answer *http1_answer_new(void (*on_body)(void *arg, const char *bytes, size_t size), void *arg);
void http1_answer_free(struct http1_answer *parser);
/* Before the first byte of an answer, whatever became of the one before. `to_head`: of a HEAD request, so it has no body
 * whatever its fields say. */
void http1_answer_begin(struct http1_answer *parser, struct arena *arena, bool to_head);
/* As http1_feed: HTTP1_HEAD once when the head is complete, then HTTP1_END when the body is (at once, in the next call
 * even with size 0, when there is none). Nothing is taken after the end: what is left belongs to no answer, or after a
 * head that switched to the other protocol. */
size_t http1_answer_feed(struct http1_answer *parser, const char *bytes, size_t size,
                         enum http1_event *event);
/* The connection has ended. True when that is a proper end of the answer (to_end). */
bool http1_answer_end(struct http1_answer *parser);
/* Valid from HTTP1_HEAD to the next http1_answer_begin. */
const struct http1_answer_head *http1_answer_head(const struct http1_answer *parser);
/* After HTTP1_ERROR, for the log. */
const char *http1_answer_error(const struct http1_answer *parser);

#endif
