#ifndef PROTO_HTTP1_FIELDS_H
#define PROTO_HTTP1_FIELDS_H

#include "proto/http1.h"

/* What requests and answers have in common: texts that llhttp gives in spans, and lists of fields. All of it in an arena. */

/* A text that grows while its spans come in. Zero-initialise. */
struct http1_span {
    char *at;
    size_t size;
    size_t capacity;
};
void http1_span_add(struct http1_span *span, struct arena *arena, const char *at, size_t size);
/* The text; the span is empty again. */
struct str http1_span_take(struct http1_span *span);

/* Adds a field to a list of `*count` with room for `*capacity`, which is 0 while there is no list. */
void http1_fields_add(struct http1_field **fields, size_t *count, size_t *capacity, struct arena *arena,
                      struct http1_field field);
/* The value of the first field of that name; absent when there is none. */
struct str http1_fields_find(const struct http1_field *fields, size_t count, const char *name);

#endif
