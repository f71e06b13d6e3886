#ifndef CORE_NET_FETCH_H
#define CORE_NET_FETCH_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * HTTP client calls from a fiber, by libcurl's multi interface on the loop: connections are kept and used again,
 * redirects are never followed, proxies from the environment are ignored, only http and https are spoken, names are looked
 * up off the loop.
 */

enum {
    FETCH_WINDOW =
        256 * 1024, /* bytes of a stream that wait for its reader, unless the request says otherwise */
    FETCH_HEADERS_MAX = 16,      /* headers kept of one answer */
    FETCH_HEADER_SIZE_MAX = 1024 /* of such a header's value; a longer one is not kept */
};

struct fetch_request {
    const char *method; /* "GET", "POST" … */
    const char *url;
    struct str body;            /* absent: none */
    const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
    const char *const
        *headers_wanted; /* names that are kept of the answer's; "x-rate-*" for all that begin so; as above */
    uint64_t connect_timeout_ms; /* of looking up the name, connecting and TLS */
    uint64_t header_timeout_ms;  /* from the start to the end of the answer's header; 0: no time of its own */
    uint64_t total_timeout_ms;   /* over 0 */
    size_t max_body_bytes;       /* a longer answer is -EMSGSIZE */
    bool truncate;               /* or, by this, is cut there, and its connection closed */
    bool guard;                  /* connect to no address that guard_allows (core/net/guard.h) refuses */
    size_t window_bytes;         /* of a stream; 0: FETCH_WINDOW */
    const char *authorities; /* PEM: who alone may have signed the peer's certificate; NULL: the system's */
    const char *pool;        /* whose connections to use; NULL: the pool of all who name none */
    unsigned
        pool_connections; /* most that the pool may have on this loop, or the request waits; 0: any number */
};

struct fetch_header {
    struct str name; /* as the peer spelled it */
    struct str value;
};

/* Microseconds since the request was begun; 0: that did not happen. */
struct fetch_times {
    uint64_t connect_us; /* it went out on a connection */
    uint64_t first_us;   /* the first line of the answer came */
    uint64_t total_us;   /* the end, whatever it was */
};

/* All of it lives in the arena. */
struct fetch_answer {
    int status;      /* HTTP status */
    struct str body; /* NUL-terminated behind its size */
    struct str type; /* Content-Type, or absent */
    const struct fetch_header *headers;
    size_t header_count;
    bool truncated;
    struct fetch_times times; /* there also when the call fails */
};

/*
 * Waits; url, body, headers and authorities stay as they are until it returns. 0 when a whole answer has come, whatever its status;
 * -ECONNREFUSED (also when the connect timed out: nobody was asked), -ECONNABORTED (the peer closed a fresh connection
 * before a byte of the answer), -ETIMEDOUT, -ECONNRESET, -EMSGSIZE (also a header over 64 KiB), -EINVAL (URL, a line break in
 * a header), -EHOSTUNREACH (name), -EACCES (the guard refuses every address that there is), -EPROTO (no TLS, or a certificate
 * that is not the host's), -EIO (anything else), -ECANCELED: the transfer is stopped. -EPROTO and -EIO are logged, unless the
 * request is under the guard. A transfer that is stopped or too large has its connection closed at once.
 *
 * A kept connection that the peer has closed is found out before it is used. When it ends after the request was sent
 * and before the answer began, GET, HEAD, PUT, DELETE, OPTIONS and TRACE are sent again on another one, as RFC 9110
 * §9.2.2 allows; POST, PATCH and others never are: -ECONNRESET, and the peer may have acted on the request. So it may
 * have with -ECONNABORTED; only who knows the peer knows whether to repeat.
 *
 * Requests with and without `guard` never share a connection, nor do those of different pools. A connection lives for some
 * minutes at most and a name's addresses are looked up anew after some seconds, so that a changed answer is followed.
 */
int fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer) MUST_USE;

/* Such an error in words, for who has named the peer: "no answer in time", … */
const char *fetch_reason(int result);

/* The value of the first header of that name that was kept, or absent. */
struct str fetch_header(const struct fetch_answer *answer, const char *name);

/*
 * An answer that is read as it comes. While more than the window waits for its reader nothing more is taken from the peer:
 * no more memory is used than the window, the piece that was read last and 32 KiB.
 */
struct fetch_stream;

/*
 * Waits until the answer's header is there, whatever its status. The request with all that it names and the arena stay
 * until fetch_end. On an error, as fetch's, *stream is NULL.
 */
int fetch_open(const struct fetch_request *request, struct arena *arena, struct fetch_stream **stream)
    MUST_USE;

/* What is known of it: no body, and times as they are by now. */
const struct fetch_answer *fetch_stream_answer(struct fetch_stream *stream);
int fetch_stream_status(const struct fetch_stream *stream);
struct str fetch_stream_header(const struct fetch_stream *stream, const char *name);

/*
 * Waits for more of the body. *piece is all that has come, valid until the next call, and empty at the answer's end.
 * -ETIMEDOUT: nothing came up to `deadline_ns`, and it may be asked again; or the request's whole time is over, and so will
 * it be when it is asked again. Other errors as fetch's; they come after the last byte that did come, and come again.
 */
int fetch_read(struct fetch_stream *stream, struct str *piece, uint64_t deadline_ns) MUST_USE;

/* After the end was read, the connection is kept; before, it is closed at once. NULL is harmless. */
void fetch_end(struct fetch_stream *stream);

/* The loop's client is made at its first fetch. Closes its handles; on a fiber, waits. */
void fetch_close_loop(struct loop *loop);

/* Once per process, before threads. */
void fetch_init(void);

#endif
