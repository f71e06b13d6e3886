#ifndef CORE_NET_HTTP_INTERNAL_H
#define CORE_NET_HTTP_INTERNAL_H

#include "core/net/http.h"

#include <uv.h>

/* What http_server.c (sockets), http_conn.c (one connection) and http_answer.c (answers) share. */

enum {
    HTTP_SERVER_MAGIC = 0x68747376,
    HTTP_CONN_MAGIC = 0x6874636e,
    HTTP_REQUEST_MAGIC = 0x68747271,
    READ_SIZE = 64 * 1024,
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
    uv_tcp_t listener;
    uv_timer_t sweep; /* looks for connections past their deadline */
    struct link conns;
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
    CONN_CLOSING,
};

struct http_conn {
    unsigned magic;
    enum conn_state state;
    struct http_server *server;
    struct link link;
    uv_tcp_t tcp;
    struct http1_parser *parser;
    struct http_request *request; /* from the first byte of its head to the end of its handler */
    struct fiber *fiber;          /* of the request */
    struct buf pending;           /* bytes not yet given to the parser */
    struct buf out;               /* answers not yet given to the socket */
    struct buf sending;           /* in the present uv_write */
    size_t sending_left;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct flush flush;
    struct wait *room_waiter; /* a streaming handler that waits until the client has taken some */
    uint64_t deadline_ms;     /* uv_now() terms; 0: none */
    uint64_t write_deadline_ms;
    size_t write_left; /* of the present uv_write, when the clock was last looked at */
    struct sockaddr_storage peer;
    char peer_text[46];
    bool reading;
    bool writing;
    bool client_done; /* it has closed its side and will send no more */
    bool used;        /* had a request */
    bool close_after; /* when all is sent */
    bool closed;      /* the socket is; the struct waits for its handler */
    bool processing;
};

/* Counts a connection in and out; the sweep runs while there is one. */
void server_add(struct http_server *server, struct http_conn *conn);
void server_remove(struct http_server *server, struct http_conn *conn);

void conn_open(struct http_server *server);
void conn_close(struct http_conn *conn);
/* Asks for a flush at the end of the turn. */
void conn_flush_later(struct http_conn *conn);
size_t conn_queued(const struct http_conn *conn);
/* The request's handler has returned. */
void conn_request_ended(struct http_conn *conn);
/* Looks at the clock; closes what is past its time. */
void conn_sweep(struct http_conn *conn, uint64_t now_ms);
/* From the drain: an idle connection is closed, a busy one after its answer. */
void conn_drain(struct http_conn *conn);
/* The handler waits for the body from now on. */
void conn_body_asked(struct http_conn *conn);
/* The output buffer, with memory behind it. */
struct buf *conn_out(struct http_conn *conn);
/* Makes reading fit the state: stops when nobody can take what comes, goes on when somebody can. */
void conn_update_reading(struct http_conn *conn);

struct http_request *request_new(struct http_conn *conn);
void request_free(struct http_request *request);
/* Body bytes from the parser. */
void request_body_bytes(struct http_request *request, const char *bytes, size_t size);
void request_body_done(struct http_request *request, int result);
bool request_wants_body(const struct http_request *request);

#endif
