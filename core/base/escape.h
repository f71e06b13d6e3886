#ifndef CORE_BASE_ESCAPE_H
#define CORE_BASE_ESCAPE_H

#include "core/base/str.h"

/* Appends `text` as a JSON string with its quotes (RFC 8259 §7). Bytes that are not UTF-8 become U+FFFD, so
 * that what a peer sent can never break a log line or an answer. */
void escape_json(struct buf *out, struct str text);

/* Appends `text` so that it stands for itself in HTML, as an element's text or an attribute's value in quotes. */
void escape_html(struct buf *out, struct str text);

/* Lower-case hexadecimal; `out` has room for 2 * size + 1 and ends with a NUL. */
void escape_hex(char *out, const void *bytes, size_t size);

/* Percent-decodes (RFC 3986 §2.1) into `out`, which has room for text.size; returns the number of bytes or
 * -EINVAL on a bad escape or a %00. `plus_is_space` for query strings. */
int escape_percent_decode(char *out, struct str text, bool plus_is_space);

/* Percent-encodes everything but the unreserved characters, in upper case as RFC 3986 §2.1 wants it. */
void escape_percent_encode(struct buf *out, struct str text);

#endif
