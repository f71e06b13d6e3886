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
    size_t body_limit; /* once the handler has asked for the body */
    int body_error;    /* why no more of it comes; 0: it does, or all is there */
    struct http1_field fields[HTTP_ANSWER_FIELDS];
    size_t field_count;
    bool body_asked;
    bool body_done;
    bool continue_sent;
    bool streaming;
    bool chunked;
    bool ended;
    bool close; /* the connection ends with this answer */
};

struct http_server_options {
    const char *address;
    int port; /* 0: a free one */
    size_t max_connections;
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
size_t http_server_connections(const struct http_server *server);

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

/* Adds a field to the answer, before it is sent. Name and value must live until then. */
void http_add_header(struct http_request *request, struct str name, struct str value);

/* Sends the whole answer. Content-Length, Date and Connection come by themselves; a HEAD request gets no body.
 * Does not wait: what the client does not take at once is kept for it. */
void http_answer(struct http_request *request, int status, struct str body);

/*
 * An answer whose length is not known before: chunked, or to the end of the connection for HTTP/1.0.
 * http_stream_write waits while the client has HTTP_QUEUE_MAX bytes or more to take: 0, -ECANCELED, -ETIMEDOUT.
 */
enum { HTTP_QUEUE_MAX = 256 * 1024 };
void http_stream_begin(struct http_request *request, int status);
int http_stream_write(struct http_request *request, struct str bytes) MUST_USE;
void http_stream_end(struct http_request *request);

/* A spare buffer of the loop's, so that building an answer costs no malloc. Given back empty or not. */
struct buf http_spare_take(void);
void http_spare_give(struct buf *buffer);

/* Frees what the loop keeps for its servers. */
void http_close_loop(struct loop *loop);

#endif
