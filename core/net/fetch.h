#ifndef CORE_NET_FETCH_H
#define CORE_NET_FETCH_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"

#include <stdint.h>

/*
 * HTTP client calls from a fiber, by libcurl's multi interface on the loop: connections are kept and used again,
 * redirects are never followed, proxies from the environment are ignored, only http and https are spoken.
 */

struct fetch_request {
    const char *method; /* "GET", "POST" … */
    const char *url;
    struct str body;             /* absent: none */
    const char *const *headers;  /* "Name: value", NULL-terminated; may be NULL */
    uint64_t connect_timeout_ms; /* of looking up the name, connecting and TLS */
    uint64_t total_timeout_ms;   /* over 0 */
    size_t max_body_bytes;       /* a longer answer is -EMSGSIZE */
};

struct fetch_answer {
    int status;      /* HTTP status */
    struct str body; /* in the arena; NUL-terminated behind its size */
    struct str type; /* Content-Type, or absent */
};

/*
 * Waits; url, body and headers stay as they are until it returns. 0 when a whole answer has come, whatever its status;
 * -ECONNREFUSED (also when the connect timed out: nobody was asked), -ECONNABORTED (the peer closed a fresh connection
 * before a byte of the answer), -ETIMEDOUT, -ECONNRESET, -EMSGSIZE, -EINVAL (URL, a line break in a header), -EHOSTUNREACH
 * (name), -EIO (anything else, logged), -ECANCELED: the transfer is stopped. A transfer that is stopped or too large has its
 * connection closed at once.
 *
 * A kept connection that the peer has closed is found out before it is used. When it ends after the request was sent
 * and before the answer began, GET, HEAD, PUT, DELETE, OPTIONS and TRACE are sent again on another one, as RFC 9110
 * §9.2.2 allows; POST, PATCH and others never are: -ECONNRESET, and the peer may have acted on the request. So it may
 * have with -ECONNABORTED; only who knows the peer knows whether to repeat.
 */
int fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer) MUST_USE;

/* The loop's client is made at its first fetch. Closes its handles; on a fiber, waits. */
void fetch_close_loop(struct loop *loop);

/* Once per process, before threads. */
void fetch_init(void);

#endif
