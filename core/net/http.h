#ifndef CORE_NET_HTTP_H
#define CORE_NET_HTTP_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/fiber.h"
#include "proto/http1.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * The HTTP server of one loop: a listener (SO_REUSEPORT: each loop has its own), its connections, and one fiber
 * for each request. Requests on a connection run one after the other; the answers to pipelined ones leave in one
 * write. A client that leaves cancels the fiber of its request.
 */

struct http_server;
struct http_conn;
struct stream;
struct tls_context;

enum { HTTP_ANSWER_FIELDS = 24 };

/* One request and its answer. Lives in its own arena, from the first byte of its head until its handler has
 * returned. */
struct http_request {
    unsigned magic;
    struct arena arena;
    const struct http1_head *head;
    struct http_conn *conn;
    uint64_t start_ns; /* when the head was complete */
    uint64_t bytes;    /* of the answer, with its head */
    int status;        /* of the answer; 0 while there is none */
    void *owner;       /* the handler's own */

    /* For http.c. */
    struct buf body;
    struct wait *body_waiter;
    size_t body_limit;          /* once the handler has asked for the body */
    int body_error;             /* why no more of it comes; 0: it does, or all is there */
    struct http1_field *fields; /* to begin with few_fields, later in the arena */
    struct http1_field few_fields[HTTP_ANSWER_FIELDS];
    size_t field_count;
    size_t field_capacity;
    struct buf piece;   /* of the body, while the handler looks at it */
    uint64_t body_left; /* of an answer of known length */
    bool body_asked;
    bool body_done;
    bool body_in_pieces;
    bool sized;
    bool continue_sent;
    bool streaming;
    bool chunked;
    bool ended;
    bool close; /* the connection ends with this answer */
};

struct http_server_options {
    const char *address;
    int port;                /* 0: a free one */
    struct tls_context *tls; /* NULL: plain. The server keeps a reference. */
    size_t max_connections;
    bool
        reserved; /* its connections use the descriptors that are kept back from others, and there are few of them */
    /* Whether the peer may have any number of connections (a proxy of ours). NULL: nobody. */
    bool (*is_trusted)(const struct sockaddr *peer);
    /* Runs on the request's fiber. When it returns without an answer, 500 is sent. */
    void (*handle)(struct http_request *request);
    /* After the answer was handed to the connection, on the same fiber: for the log. */
    void (*ended)(struct http_request *request);
    /* Answers a request that could not be read; `request` has whatever part of the head there was, and may have
     * none. Must not wait. */
    void (*malformed)(struct http_request *request, int status, const char *reason);
};

/* Listens. -EADDRINUSE, -EACCES, -EINVAL (address) … */
int http_server_open(struct loop *loop, const struct http_server_options *options,
                     struct http_server **server) MUST_USE;
int http_server_port(const struct http_server *server);
/* Takes the connections that the kernel has accepted, stops listening, ends idle connections (one that had no request
 * yet has a second for it), lets requests in work end; their answers say "Connection: close".
 * Waits until none is left or the deadline, then cancels the rest. On a fiber. */
void http_server_drain(struct http_server *server, uint64_t deadline_ns);
/* After drain: frees it. Waits for the handles to close. */
void http_server_close(struct http_server *server);
/* What connections accepted from now on speak; those that are there go on with what they have. */
void http_server_set_tls(struct http_server *server, struct tls_context *context);

/* Once per process, before threads. */
void http_init(void);

/* The peer's address as the socket has it. */
const struct sockaddr *http_peer(const struct http_request *request);
/* The same as text, without the port. */
struct str http_peer_text(const struct http_request *request);

/*
 * The whole body. Waits for it; sends "100 Continue" first when the client asked for it. -EMSGSIZE when it is or
 * gets longer than `max_bytes` (known from Content-Length before a byte is buffered), -ETIMEDOUT when the client
 * stalls, -ECANCELED when it left. After an error the connection ends with the answer.
 */
int http_body(struct http_request *request, size_t max_bytes, struct str *body) MUST_USE;

/* The next piece of the body, as it comes: valid until the next call. Waits for some; an empty piece is the end. The client is not
 * read while more than BODY_AHEAD bytes wait here. Errors as http_body's; -EMSGSIZE does not occur. Not after http_body. */
int http_body_piece(struct http_request *request, struct str *piece) MUST_USE;
/* Whether the whole body has come and stands in the next piece (or there is none). */
bool http_body_is_here(const struct http_request *request);

/* Whether the request came under TLS. */
bool http_is_secure(const struct http_request *request);

/* Adds a field to the answer, before it is sent. Name and value must live until then. */
void http_add_header(struct http_request *request, struct str name, struct str value);

/* The same in place of a field that was added under this name before. */
void http_set_header(struct http_request *request, struct str name, struct str value);

/* Sends the whole answer. Content-Length, Date and Connection come by themselves; a HEAD request gets no body.
 * Does not wait: what the client does not take at once is kept for it. */
void http_answer(struct http_request *request, int status, struct str body);

/*
 * An answer whose length is not known before: chunked, or to the end of the connection for HTTP/1.0.
 * http_stream_write waits while the client has config->queue_bytes or more to take: 0, -ECANCELED, -ETIMEDOUT.
 */

void http_stream_begin(struct http_request *request, int status);
/* The same for a length that is known: nothing is framed, and exactly `size` bytes must follow. For HEAD, 204 and 304 none. */
void http_stream_begin_sized(struct http_request *request, int status, uint64_t size);
/* For an answer that can have no body, so not even a length. */
void http_stream_begin_empty(struct http_request *request, int status);
int http_stream_write(struct http_request *request, struct str bytes) MUST_USE;
void http_stream_end(struct http_request *request);

/*
 * Answers 101 with the fields added and the connection's own ("Connection: Upgrade"), and gives the stream away: from its
 * return on it is the caller's, who owns it (stream_own) before anything else waits, and it still counts as a connection
 * of the server, which sweeps and drains it. `early` gets what the client has sent beyond the request's head. For a request
 * whose head has an upgrade and no body. NULL when the client has left.
 */
struct stream *http_switch(struct http_request *request, struct buf *early) MUST_USE;

#endif
