/*
 * libcurl's multi interface, driven by the loop.
 *
 *     start ──▶ starting ──end of the turn──▶ libcurl ◀──▶ on_poll, on_timeout
 *                  │                             │
 *                  └──────────▶ stop ◀───────────┴──▶ done: the waiting fiber
 *
 * What costs is epoll_ctl: libcurl takes its interest in a socket back after each answer and tells it anew for the
 * next request. So a connection's descriptor keeps one uv_poll_t until libcurl has us close it; lost interest is
 * only noted, and the handle stopped when an event comes that nobody wants.
 *
 * That holds from the first request on a connection. Until then, and always for a resolver thread's descriptors,
 * libcurl may close one without asking us, and say so afterwards or not at all when the number is in use again.
 *
 * libcurl works on the loop's own stack, not on a fiber's; only stopping and closing may be done from a fiber.
 */
#include "core/net/fetch_loop.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENT_MAGIC = 0x4645434c,
    IDLE_MAX = 256, /* connections kept */
};

/* A descriptor in the loop. `armed` is what libuv watches for, `wanted` what libcurl does: UV_READABLE, UV_WRITABLE. */
struct fetch_watch {
    uv_poll_t poll;
    struct fetch_client *client;
    int descriptor;
    int armed;
    int wanted;
    bool kept; /* will be closed by on_close and not otherwise */
};

/* ---- descriptors ---- */

static void client_handle_closed(struct fetch_client *client)
{
    if (--client->handles > 0)
        return;
    if (client->closed)
        wait_done(client->closed, 0);
    MAGIC_CLEAR(client);
    free(client->watches);
    free(client);
}

static struct fetch_watch *watch_of(struct fetch_client *client, int descriptor)
{
    return (size_t)descriptor < client->watches_size ? client->watches[descriptor] : NULL;
}

static void watches_reach(struct fetch_client *client, int descriptor)
{
    size_t needed = (size_t)descriptor + 1;
    size_t had = client->watches_size;
    if (needed <= had)
        return;
    size_t size = had ? had : 64;
    while (size < needed)
        size *= 2;
    client->watches = mem_realloc(client->watches, size * sizeof *client->watches);
    memset(client->watches + had, 0, (size - had) * sizeof *client->watches);
    client->watches_size = size;
}

static struct fetch_watch *watch_open(struct fetch_client *client, int descriptor)
{
    watches_reach(client, descriptor);
    struct fetch_watch *watch = mem_zalloc(sizeof *watch);
    CHECK(uv_poll_init(&client->loop->uv, &watch->poll, descriptor) == 0);
    /* A waiting fiber's timer keeps the loop going; a kept connection shall not. */
    uv_unref((uv_handle_t *)&watch->poll);
    watch->poll.data = watch;
    watch->client = client;
    watch->descriptor = descriptor;
    client->watches[descriptor] = watch;
    client->handles++;
    return watch;
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct fetch_watch *watch = handle->data;
    struct fetch_client *client = watch->client;
    free(watch);
    client_handle_closed(client);
}

static void watch_close(struct fetch_watch *watch)
{
    watch->client->watches[watch->descriptor] = NULL;
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void watch_arm(struct fetch_watch *watch, int events)
{
    watch->armed = events;
    CHECK((events ? uv_poll_start(&watch->poll, events, on_poll) : uv_poll_stop(&watch->poll)) == 0);
}

static void watch_want(struct fetch_watch *watch, int events)
{
    watch->wanted = events;
    if (watch->wanted & ~watch->armed)
        watch_arm(watch, watch->wanted);
}

static int on_socket(CURL *easy, curl_socket_t descriptor, int what, void *arg, void *unused)
{
    (void)easy;
    (void)unused;
    struct fetch_client *client = arg;
    struct fetch_watch *watch = watch_of(client, descriptor);
    if (what == CURL_POLL_REMOVE) {
        if (watch && watch->kept)
            watch->wanted = 0;
        else if (watch)
            watch_close(watch);
        return 0;
    }
    if (!watch)
        watch = watch_open(client, descriptor);
    watch_want(watch, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
    return 0;
}

/* The system gave out a number anew that we still watch: libcurl has closed the old descriptor, and may not say so
 * if it wants the same of the new one. */
static void watch_replace(struct fetch_watch *old)
{
    struct fetch_client *client = old->client;
    int descriptor = old->descriptor;
    int wanted = old->wanted;
    watch_close(old);
    watch_want(watch_open(client, descriptor), wanted);
}

/* libcurl repeats a request when a kept connection ends without an answer, though the peer may have acted on it. */
static bool may_send(struct fetch_transfer *transfer)
{
    if (transfer->sent > 0 && !transfer->repeatable)
        transfer->repeat_refused = true;
    return !transfer->repeat_refused;
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct fetch_transfer *transfer = arg;
    if (!may_send(transfer))
        return CURL_SOCKET_BAD;
    int type = address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int descriptor = socket(address->family, type, address->protocol);
    if (descriptor < 0) {
        LOG(WARN, "no socket for a fetch", LOG_ERRNO(-errno));
        return CURL_SOCKET_BAD;
    }
    struct fetch_watch *old = watch_of(transfer->client, descriptor);
    if (old)
        watch_replace(old);
    transfer->opened = descriptor;
    return descriptor;
}

static int on_close(void *arg, curl_socket_t descriptor)
{
    struct fetch_watch *watch = watch_of(arg, descriptor);
    if (watch)
        watch_close(watch);
    return close(descriptor);
}

static int local_port_of(int descriptor)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof address;
    if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0)
        return -1;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* Before the request is sent on a connection. Of several that were tried, the port tells which it is. */
static int on_send(void *arg, char *peer, char *local, int peer_port, int local_port)
{
    (void)peer;
    (void)local;
    (void)peer_port;
    struct fetch_transfer *transfer = arg;
    if (!may_send(transfer))
        return CURL_PREREQFUNC_ABORT;
    transfer->sent++;
    if (transfer->opened >= 0 && local_port_of(transfer->opened) == local_port) {
        struct fetch_watch *watch = watch_of(transfer->client, transfer->opened);
        if (watch)
            watch->kept = true;
    }
    return CURL_PREREQFUNC_OK;
}

/* ---- libcurl's turns ---- */

static void finish_done(struct fetch_client *client)
{
    const CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CHECK(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK);
        struct fetch_transfer *transfer = (struct fetch_transfer *)(void *)private;
        transfer->code = message->data.result;
        CHECK(curl_multi_remove_handle(client->multi, transfer->easy) == CURLM_OK);
        transfer->in_multi = false;
        wait_done(&transfer->wait, 0);
    }
}

static void act(struct fetch_client *client, curl_socket_t descriptor, int flags)
{
    int running;
    MAGIC_CHECK(client, CLIENT_MAGIC);
    CHECK(curl_multi_socket_action(client->multi, descriptor, flags, &running) == CURLM_OK);
    finish_done(client);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct fetch_watch *watch = handle->data;
    struct fetch_client *client = watch->client;
    int descriptor = watch->descriptor;
    if (status < 0) {
        /* An error on the socket: libuv has stopped the handle. Without flags libcurl looks for itself, so it
         * still reads an answer that came before a reset. */
        watch->armed = 0;
        if (watch->wanted)
            act(client, descriptor, 0);
        if (watch_of(client, descriptor) == watch)
            watch_want(watch, watch->wanted);
        return;
    }
    if (watch->armed & ~watch->wanted)
        watch_arm(watch, watch->wanted);
    events &= watch->wanted;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (flags)
        act(client, descriptor, flags);
}

static void on_timeout(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* "At once" is at the end of this turn, with all that begins in it; asked for from there, in the next one. */
static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    struct fetch_client *client = arg;
    CHECK(uv_timer_stop(&client->timer) == 0);
    if (timeout_ms == 0 && !client->kicking)
        loop_flush_later(client->loop, &client->kick);
    else if (timeout_ms >= 0)
        CHECK(uv_timer_start(&client->timer, on_timeout, (uint64_t)timeout_ms, 0) == 0);
    return 0;
}

static void on_kick(struct flush *flush)
{
    struct fetch_client *client = CONTAINER_OF(flush, struct fetch_client, kick);
    client->kicking = true;
    struct link *item;
    while ((item = list_pop_front(&client->starting)) != NULL) {
        struct fetch_transfer *transfer = LIST_ENTRY(item, struct fetch_transfer, link);
        transfer->in_multi = true;
        CHECK(curl_multi_add_handle(client->multi, transfer->easy) == CURLM_OK);
    }
    act(client, CURL_SOCKET_TIMEOUT, 0);
    client->kicking = false;
}

/* ---- transfers ---- */

#define SET(transfer, option, value)                                                                         \
    CHECK(curl_easy_setopt((transfer)->easy, CURLOPT_##option, (value)) == CURLE_OK)

void fetch_transfer_start(struct fetch_transfer *transfer)
{
    struct fetch_client *client = transfer->client;
    transfer->opened = -1;
    SET(transfer, PRIVATE, transfer);
    SET(transfer, OPENSOCKETFUNCTION, on_open);
    SET(transfer, OPENSOCKETDATA, transfer);
    /* Called for a connection, which outlives the transfer. */
    SET(transfer, CLOSESOCKETFUNCTION, on_close);
    SET(transfer, CLOSESOCKETDATA, client);
    SET(transfer, PREREQFUNCTION, on_send);
    SET(transfer, PREREQDATA, transfer);
    client->transfers++;
    list_push_back(&client->starting, &transfer->link);
    loop_flush_later(client->loop, &client->kick);
}

void fetch_transfer_stop(struct fetch_transfer *transfer)
{
    struct fetch_client *client = transfer->client;
    list_remove(&transfer->link);
    if (transfer->in_multi)
        CHECK(curl_multi_remove_handle(client->multi, transfer->easy) == CURLM_OK);
    transfer->in_multi = false;
    client->transfers--;
}

/* ---- the client of a loop ---- */

#define MULTI_SET(client, option, value)                                                                     \
    CHECK(curl_multi_setopt((client)->multi, CURLMOPT_##option, (value)) == CURLM_OK)

static struct fetch_client *client_open(struct loop *loop)
{
    struct fetch_client *client = mem_zalloc(sizeof *client);
    MAGIC_SET(client, CLIENT_MAGIC);
    client->loop = loop;
    client->kick.run = on_kick;
    list_init(&client->starting);
    list_init(&client->pooled);
    CHECK(uv_timer_init(&loop->uv, &client->timer) == 0);
    uv_unref((uv_handle_t *)&client->timer);
    client->timer.data = client;
    client->handles = 1;
    client->multi = curl_multi_init();
    CHECK(client->multi);
    MULTI_SET(client, SOCKETFUNCTION, on_socket);
    MULTI_SET(client, SOCKETDATA, client);
    MULTI_SET(client, TIMERFUNCTION, on_timer);
    MULTI_SET(client, TIMERDATA, client);
    MULTI_SET(client, PIPELINING, (long)CURLPIPE_NOTHING);
    MULTI_SET(client, MAXCONNECTS, (long)IDLE_MAX);
    loop->slots[LOOP_FETCH] = client;
    return client;
}

struct fetch_client *fetch_client_self(void)
{
    struct loop *loop = loop_self();
    CHECK(loop);
    struct fetch_client *client = loop->slots[LOOP_FETCH];
    if (!client)
        return client_open(loop);
    MAGIC_CHECK(client, CLIENT_MAGIC);
    return client;
}

static void on_timer_closed(uv_handle_t *handle)
{
    client_handle_closed(handle->data);
}

void fetch_client_close(struct fetch_client *client)
{
    MAGIC_CHECK(client, CLIENT_MAGIC);
    CHECK(client->transfers == 0);
    client->loop->slots[LOOP_FETCH] = NULL;
    CHECK(curl_multi_cleanup(client->multi) == CURLM_OK);
    loop_flush_forget(&client->kick);
    uv_close((uv_handle_t *)&client->timer, on_timer_closed);
    if (!fiber_self())
        return;
    struct wait closed = WAIT_INIT;
    client->closed = &closed;
    fiber_hold();
    CHECK(wait_for(&closed, "fetch_close_loop", CLOCK_NEVER) == 0);
    fiber_release();
}
