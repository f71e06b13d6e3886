#ifndef CORE_NET_HTTP_INTERNAL_H
#define CORE_NET_HTTP_INTERNAL_H

#include "core/net/http.h"
#include "core/net/stream.h"

#include <uv.h>

/* What http_server.c (sockets), http_conn.c (one connection) and http_answer.c (answers) share. */

enum {
    HTTP_SERVER_MAGIC = 0x68747376,
    HTTP_CONN_MAGIC = 0x6874636e,
    HTTP_REQUEST_MAGIC = 0x68747271,
    PENDING_MAX = 64 * 1024, /* pipelined bytes kept while a request runs */
    SMALL_BODY = 16 * 1024,
    SWEEP_MS = 250,
    FRESH_MS = 1000,  /* for the first request of a connection that is met by a drain */
    LINGER_MS = 2000, /* for the client to read the last answer before the socket is closed on it */
};

struct http_server {
    unsigned magic;
    struct loop *loop;
    struct http_server_options options;
    struct tls_context *tls; /* what new connections speak; NULL: plain */
    uv_tcp_t listener;
    uv_timer_t sweep;    /* looks for connections past their deadline */
    struct link streams; /* of all its connections, those that became something else too */
    size_t stream_count;
    size_t conn_count;
    int port;
    unsigned handles; /* of its own, not yet closed */
    bool draining;
    struct wait *drained;
    struct wait *closed;
    uint64_t accept_log_ms; /* uv_now() terms: no line about a failed accept before this */
};

enum conn_state {
    CONN_IDLE,    /* between requests */
    CONN_HEAD,    /* some bytes of a head have come */
    CONN_RUNNING, /* a handler runs; its body may still come in */
    CONN_LINGER,  /* the last answer was sent; what comes is thrown away */
    CONN_CLOSING, /* or somebody else's: nothing more is done with it than to end the handler */
};

struct http_conn {
    unsigned magic;
    enum conn_state state;
    struct http_server *server;
    struct stream *stream; /* NULL once it is closed, or somebody else's */
    struct http1_parser *parser;
    struct http_request *request; /* from the first byte of its head to the end of its handler */
    struct fiber *fiber;          /* of the request */
    struct buf pending;           /* bytes not yet given to the parser */
    struct wait *room_waiter;     /* a streaming handler that waits until the client has taken some */
    uint64_t deadline_ms;         /* uv_now() terms; 0: none */
    uint64_t swept_ms;            /* when the sweep looked last */
    uint64_t body_ms;             /* for so long the client has been able to send the present body */
    uint64_t body_bytes;          /* of it that have come */
    struct sockaddr_storage peer;
    char peer_text[46];
    bool begun;       /* a byte has come */
    bool secure;      /* under TLS */
    bool client_done; /* it has closed its side and will send no more */
    bool used;        /* had a request */
    bool close_after; /* when all is sent */
    bool processing;
};

/* Counts it in, until it is freed; the sweep runs while there is one. False when a cap is reached: then it is to be closed. */
bool server_add(struct http_server *server, struct stream *stream, const struct sockaddr *peer) MUST_USE;
void server_count_conn(struct http_server *server, int by);

void conn_open(struct http_server *server);
void conn_close(struct http_conn *conn);
/* Asks for a flush at the end of the turn. */
void conn_flush_later(struct http_conn *conn);
size_t conn_queued(const struct http_conn *conn);
/* The request's handler has returned. */
void conn_request_ended(struct http_conn *conn);
/* The handler waits for the body from now on, or has taken some. */
void conn_body_asked(struct http_conn *conn);
/* The output buffer, with memory behind it. Not when the connection closes. */
struct buf *conn_out(struct http_conn *conn);
/* Gives the stream away. */
struct stream *conn_take_stream(struct http_conn *conn, struct buf *early);

struct http_request *request_new(struct http_conn *conn);
void request_free(struct http_request *request);
/* Body bytes from the parser. */
void request_body_bytes(struct http_request *request, const char *bytes, size_t size);
void request_body_done(struct http_request *request, int result);
bool request_wants_body(const struct http_request *request);

#endif
