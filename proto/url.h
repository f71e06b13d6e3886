#ifndef PROTO_URL_H
#define PROTO_URL_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>

/*
 * Request targets and authorities (RFC 9112 §3.2, RFC 3986) for a router. Nothing is rewritten: a target that
 * another program on the way could read otherwise than we do is refused.
 */

struct url_target {
    struct str path;      /* begins with '/'; still percent-encoded */
    struct str query;     /* without its '?'; absent when there is none */
    struct str authority; /* of an absolute-form target; otherwise absent */
};

/*
 * Splits an origin-form ("/path?query") or absolute-form ("http://host/path?query") target; the parts point into
 * it (an empty path of the absolute form into a constant "/"). -EINVAL for every other form, and when
 * - a byte is a control, a space, '#' or above 0x7e,
 * - a '%' in the path begins no escape, or is %00,
 * - a segment of the path is "." or "..", or would be one if its "%2F" were a slash, in any spelling; or it holds a
 *   backslash, plain or encoded,
 * - the authority is none that url_parse_host takes.
 * Empty segments ("//") are left to the router.
 */
int url_parse_target(struct str target, struct url_target *out) MUST_USE;

/* Takes the next segment off the front of *path: "/a/b" gives "a", "b". False at the end; "/a/" ends with an
 * empty segment. */
bool url_next_segment(struct str *path, struct str *segment);

/* Decodes one segment of a path into the arena. What "%2F" stands for is part of the result, and separates
 * nothing. -EINVAL on a bad escape, %00, or a result that is not UTF-8. */
int url_decode_segment(struct arena *arena, struct str segment, struct str *out) MUST_USE;

/*
 * The value of the first parameter of this name in an application/x-www-form-urlencoded text, a query or a form,
 * with "%XX" and '+' decoded; empty when the name stands there without '='. False when there is none of that name
 * or its value is badly escaped, has a NUL or is not UTF-8.
 */
bool url_query(struct arena *arena, struct str query, const char *name, struct str *value);

/* How many parameters of this name the text has, whatever their values: for names that may come once only. */
size_t url_query_count(struct str query, const char *name);

/*
 * Splits a Host field or the authority of a target: a registered name of letters, digits and "-._~", an IPv4
 * address or an IPv6 address in brackets, then perhaps ":port". `name` points into `host`, an IPv6 address without
 * its brackets; `port` is -1 when there is none. False for anything else: userinfo, percent-encoding, zone ids,
 * port 0 or above 65535, a name over 255 bytes.
 */
bool url_parse_host(struct str host, struct str *name, int *port);

#endif
