/* The listener of one loop, its sweep for connections past their time, and its end. */
#include "core/net/http_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/net/peers.h"
#include "proto/tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,
    ACCEPT_LOG_MS = 1000, /* without descriptors every connection of a flood fails */
};

enum refusal { REFUSED_TOTAL, REFUSED_ADDRESS, REFUSED_DESCRIPTORS };

void http_init(void)
{
    static const struct {
        enum metric metric;
        const char *slots[4];
    } rows[] = {
        {M_REFUSED, {"total", "address", "descriptors"}},
        {M_TIMED_OUT, {"header", "body", "output", "idle"}},
        {M_TLS_HANDSHAKES, {"full", "resumed", "failed"}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned slot = 0; slot < ARRAY_SIZE(rows[i].slots) && rows[i].slots[slot]; slot++)
            metric_name_slot(rows[i].metric, slot, rows[i].slots[slot]);
    signal(SIGPIPE, SIG_IGN); /* a client that left is an error of a write, not the end of the process */
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct http_server *server = stream->data;
    if (status == 0) {
        conn_open(server);
        return;
    }
    metric_add_slot(M_REFUSED, REFUSED_DESCRIPTORS, 1);
    uint64_t now_ms = uv_now(&server->loop->uv);
    if (now_ms < server->accept_log_ms)
        return;
    server->accept_log_ms = now_ms + ACCEPT_LOG_MS;
    LOG(WARN, "accept failed", LOG_ERRNO(status));
}

static void drain_all(struct http_server *server)
{
    LIST_EACH (&server->streams, item, after) {
        struct stream *stream = LIST_ENTRY(item, struct stream, server_link);
        if (stream->events->drain && !stream->closing)
            stream->events->drain(stream);
    }
}

static void on_sweep(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    uint64_t now_ms = uv_now(&server->loop->uv);
    LIST_EACH (&server->streams, item, after) {
        struct stream *stream = LIST_ENTRY(item, struct stream, server_link);
        if (stream->events->sweep && !stream->closing)
            stream->events->sweep(stream, now_ms);
    }
    if (server->draining)
        drain_all(server);
}

static void tell_if_drained(struct http_server *server)
{
    if (server->stream_count == 0)
        uv_timer_stop(&server->sweep);
    if (server->stream_count == 0 && server->conn_count == 0 && server->drained)
        wait_done(server->drained, 0);
}

static void on_released(struct stream *stream)
{
    struct http_server *server = stream->server;
    list_remove(&stream->server_link);
    peers_give(stream->peer);
    server->stream_count--;
    metric_add(M_CONNECTIONS, -1);
    tell_if_drained(server);
}

static int refusal_of(struct http_server *server, struct stream *stream, const struct sockaddr *peer)
{
    if (server->stream_count > server->options.max_connections)
        return REFUSED_TOTAL;
    if (server->options.reserved)
        return -1;
    if (!stream_has_room())
        return REFUSED_DESCRIPTORS;
    if (server->options.is_trusted && server->options.is_trusted(peer))
        return -1;
    stream->peer = peers_take(peer, (unsigned)config->max_per_address);
    return stream->peer ? -1 : REFUSED_ADDRESS;
}

bool server_add(struct http_server *server, struct stream *stream, const struct sockaddr *peer)
{
    stream->server = server;
    stream->released = on_released;
    list_push_back(&server->streams, &stream->server_link);
    metric_add(M_CONNECTIONS, 1);
    if (server->stream_count++ == 0)
        uv_timer_start(&server->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    int refusal = refusal_of(server, stream, peer);
    if (refusal >= 0)
        metric_add_slot(M_REFUSED, (unsigned)refusal, 1);
    return refusal < 0;
}

void server_count_conn(struct http_server *server, int by)
{
    server->conn_count += (size_t)by;
    if (by < 0)
        tell_if_drained(server);
}

/* Our own socket, because libuv 1.44 knows no SO_REUSEPORT. */
static int listen_socket(const char *address, int port)
{
    struct sockaddr_storage where = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&where;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&where;
    socklen_t size;
    if (uv_ip4_addr(address, port, v4) == 0)
        size = sizeof *v4;
    else if (uv_ip6_addr(address, port, v6) == 0)
        size = sizeof *v6;
    else
        return -EINVAL;
    int descriptor = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0)
        return -errno;
    int on = 1;
    int result = 0;
    if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0 ||
        bind(descriptor, (struct sockaddr *)&where, size) != 0 || listen(descriptor, BACKLOG) != 0)
        result = -errno;
    if (result) {
        close(descriptor);
        return result;
    }
    return descriptor;
}

static int port_of(int descriptor)
{
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof bound;
    if (getsockname(descriptor, (struct sockaddr *)&bound, &size) != 0)
        return 0;
    if (bound.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&bound)->sin6_port);
    return ntohs(((struct sockaddr_in *)&bound)->sin_port);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;
    server->handles--;
    if (server->handles == 0 && server->closed)
        wait_done(server->closed, 0);
}

int http_server_open(struct loop *loop, const struct http_server_options *options, struct http_server **out)
{
    int descriptor = listen_socket(options->address, options->port);
    if (descriptor < 0)
        return descriptor;
    struct http_server *server = mem_zalloc(sizeof *server);
    MAGIC_SET(server, HTTP_SERVER_MAGIC);
    server->loop = loop;
    server->options = *options;
    server->port = port_of(descriptor);
    list_init(&server->streams);
    server->tls = options->tls ? tls_context_ref(options->tls) : NULL;
    CHECK(uv_tcp_init(&loop->uv, &server->listener) == 0);
    CHECK(uv_timer_init(&loop->uv, &server->sweep) == 0);
    server->handles = 2;
    server->listener.data = server;
    server->sweep.data = server;
    CHECK(uv_tcp_open(&server->listener, descriptor) == 0);
    /* It listens already: what can go wrong has. */
    CHECK(uv_listen((uv_stream_t *)&server->listener, BACKLOG, on_connection) == 0);
    *out = server;
    return 0;
}

int http_server_port(const struct http_server *server)
{
    return server->port;
}

void http_server_set_tls(struct http_server *server, struct tls_context *context)
{
    tls_context_unref(server->tls);
    server->tls = tls_context_ref(context);
}

static void stop_listening(struct http_server *server)
{
    server->draining = true;
    if (!uv_is_closing((uv_handle_t *)&server->listener))
        uv_close((uv_handle_t *)&server->listener, on_handle_closed);
}

static int wait_for_conns(struct http_server *server, uint64_t deadline_ns)
{
    if (server->stream_count == 0 && server->conn_count == 0)
        return 0;
    struct wait wait = WAIT_INIT;
    server->drained = &wait;
    int result = wait_for(&wait, "connections to end", deadline_ns);
    server->drained = NULL;
    return result;
}

static void cut_all(struct http_server *server)
{
    LIST_EACH (&server->streams, item, after) {
        struct stream *stream = LIST_ENTRY(item, struct stream, server_link);
        if (stream->closing)
            continue;
        if (stream->events->cut)
            stream->events->cut(stream);
        else
            stream_close(stream);
    }
}

void http_server_drain(struct http_server *server, uint64_t deadline_ns)
{
    MAGIC_CHECK(server, HTTP_SERVER_MAGIC);
    fiber_hold();
    /* One more turn of the loop takes what the kernel has accepted already: closing would reset it. */
    server->draining = true;
    CHECK(fiber_sleep_ms(1) == 0);
    stop_listening(server);
    drain_all(server);
    if (wait_for_conns(server, deadline_ns) != 0) {
        LOG(WARN, "connections cut off at the end of the drain", LOG_INT("count", server->stream_count));
        cut_all(server);
        CHECK(wait_for_conns(server, CLOCK_NEVER) == 0);
    }
    fiber_release();
}

void http_server_close(struct http_server *server)
{
    MAGIC_CHECK(server, HTTP_SERVER_MAGIC);
    CHECK(server->conn_count == 0 && server->stream_count == 0);
    fiber_hold();
    stop_listening(server);
    uv_close((uv_handle_t *)&server->sweep, on_handle_closed);
    struct wait wait = WAIT_INIT;
    server->closed = &wait;
    CHECK(wait_for(&wait, "server to close", CLOCK_NEVER) == 0);
    fiber_release();
    tls_context_unref(server->tls);
    MAGIC_CLEAR(server);
    free(server);
}
