/*
 * libcurl's multi interface, driven by the loop.
 *
 *     start ──▶ starting ──end of the turn──▶ libcurl ◀──▶ on_poll, on_timeout
 *                  │                           │   ▲
 *                  │                           │   └─end of the turn── resuming ◀── resume, after a pause
 *                  └──────────▶ stop ◀─────────┴──▶ done: the waiting fiber
 *
 * Each pool is a multi handle of its own: what libcurl shares within one (connections, addresses of names) it can't share
 * with another, so that a connection that was opened without the guard is out of reach of a request with it, and one
 * provider's cap and idle connections are not another's.
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
#include "core/net/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENT_MAGIC = 0x4645434c,
    POOL_MAGIC = 0x46504f4c,
    IDLE_MAX =
        4096, /* connections of a pool, of which those that are idle are closed before there are more */
    POOLS_MAX = 128,  /* before one without a transfer is closed for another's sake */
    SWEEP_MS = 30000, /* between two looks for pools that nobody has used for as long */
};

/* A descriptor in the loop. `armed` is what libuv watches for, `wanted` what libcurl does: UV_READABLE, UV_WRITABLE. */
struct fetch_watch {
    uv_poll_t poll;
    struct fetch_client *client;
    struct fetch_pool *pool; /* whose interest it is */
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

static struct fetch_watch *watch_open(struct fetch_pool *pool, int descriptor)
{
    struct fetch_client *client = pool->client;
    watches_reach(client, descriptor);
    struct fetch_watch *watch = mem_zalloc(sizeof *watch);
    CHECK(uv_poll_init(&client->loop->uv, &watch->poll, descriptor) == 0);
    /* A waiting fiber's timer keeps the loop going; a kept connection shall not. */
    uv_unref((uv_handle_t *)&watch->poll);
    watch->poll.data = watch;
    watch->client = client;
    watch->pool = pool;
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
    struct fetch_pool *pool = arg;
    struct fetch_watch *watch = watch_of(pool->client, descriptor);
    bool ours = watch && watch->pool == pool;
    if (what == CURL_POLL_REMOVE) {
        if (!ours)
            return 0; /* the number is another pool's by now */
        if (watch->kept)
            watch->wanted = 0;
        else
            watch_close(watch);
        return 0;
    }
    if (watch && !ours)
        watch_close(watch);
    if (!ours)
        watch = watch_open(pool, descriptor);
    watch_want(watch, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0));
    return 0;
}

/* The system gave out a number anew that we still watch: libcurl has closed the old descriptor, and may not say so
 * if it wants the same of the new one. Another pool's libcurl knows nothing of the old one. */
static void watch_replace(struct fetch_watch *old, struct fetch_pool *pool)
{
    int descriptor = old->descriptor;
    int wanted = old->pool == pool ? old->wanted : 0;
    watch_close(old);
    if (wanted)
        watch_want(watch_open(pool, descriptor), wanted);
}

/* libcurl repeats a request when a kept connection ends without an answer, though the peer may have acted on it. */
static bool may_send(struct fetch_transfer *transfer)
{
    if (transfer->sent > 0 && !transfer->repeatable)
        transfer->repeat_refused = true;
    return !transfer->repeat_refused;
}

/* At the end of this turn, or of the next if this one ends. */
static void go_on_later(struct fetch_transfer *transfer)
{
    list_remove(&transfer->link);
    list_push_back(&transfer->pool->resuming, &transfer->link);
    loop_flush_later(transfer->client->loop, &transfer->pool->kick);
}

static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct fetch_transfer *transfer = arg;
    if (!may_send(transfer))
        return CURL_SOCKET_BAD;
    go_on_later(transfer);
    /* It is this address that libcurl connects to, whatever it was that named it. */
    if (transfer->guard && !guard_allows(&address->addr)) {
        transfer->address_refused = true;
        return CURL_SOCKET_BAD;
    }
    int type = address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int descriptor = socket(address->family, type, address->protocol);
    if (descriptor < 0) {
        LOG(WARN, "no socket for a fetch", LOG_ERRNO(-errno));
        return CURL_SOCKET_BAD;
    }
    struct fetch_watch *old = watch_of(transfer->client, descriptor);
    if (old)
        watch_replace(old, transfer->pool);
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
    transfer->sent_ns = clock_now_ns();
    if (transfer->opened >= 0 && local_port_of(transfer->opened) == local_port) {
        struct fetch_watch *watch = watch_of(transfer->client, transfer->opened);
        if (watch)
            watch->kept = true;
    }
    return CURL_PREREQFUNC_OK;
}

/* ---- libcurl's turns ---- */

static void transfer_end(struct fetch_transfer *transfer, CURLcode code)
{
    list_remove(&transfer->link);
    transfer->code = code;
    CHECK(curl_multi_remove_handle(transfer->pool->multi, transfer->easy) == CURLM_OK);
    transfer->in_multi = false;
    transfer->ended = true;
    transfer->ended_ns = clock_now_ns();
    wait_done(&transfer->wait, 0);
}

static void finish_done(struct fetch_pool *pool)
{
    const CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(pool->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        char *private = NULL;
        CHECK(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK);
        transfer_end((struct fetch_transfer *)(void *)private, message->data.result);
    }
}

static void act(struct fetch_pool *pool, curl_socket_t descriptor, int flags)
{
    int running;
    MAGIC_CHECK(pool, POOL_MAGIC);
    CHECK(curl_multi_socket_action(pool->multi, descriptor, flags, &running) == CURLM_OK);
    finish_done(pool);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct fetch_watch *watch = handle->data;
    struct fetch_client *client = watch->client;
    struct fetch_pool *pool = watch->pool;
    int descriptor = watch->descriptor;
    if (status < 0) {
        /* An error on the socket: libuv has stopped the handle. Without flags libcurl looks for itself, so it
         * still reads an answer that came before a reset. */
        watch->armed = 0;
        if (watch->wanted)
            act(pool, descriptor, 0);
        if (watch_of(client, descriptor) == watch)
            watch_want(watch, watch->wanted);
        return;
    }
    if (watch->armed & ~watch->wanted)
        watch_arm(watch, watch->wanted);
    events &= watch->wanted;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (flags)
        act(pool, descriptor, flags);
}

static void on_timeout(uv_timer_t *timer)
{
    act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* "At once" is at the end of this turn, with all that begins in it; asked for from there, in the next one. */
static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    struct fetch_pool *pool = arg;
    CHECK(uv_timer_stop(&pool->timer) == 0);
    if (timeout_ms == 0 && !pool->kicking)
        loop_flush_later(pool->client->loop, &pool->kick);
    else if (timeout_ms >= 0)
        CHECK(uv_timer_start(&pool->timer, on_timeout, (uint64_t)timeout_ms, 0) == 0);
    return 0;
}

/*
 * After a pause libcurl first gives what it has kept back, by the callback that asked for the pause and may ask for another.
 * And where an address can't be connected to at once (the guard, no route) it does not try a name's next one before half of
 * the connect's time is over (libcurl 7.88), unless it is made to look at the transfer: so it is by the end of a pause.
 */
static CURLcode go_on(struct fetch_transfer *transfer)
{
    if (transfer->paused) {
        transfer->paused = false;
        return curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
    }
    if (curl_easy_pause(transfer->easy, CURLPAUSE_SEND) == CURLE_OK)
        return curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
    return CURLE_OK; /* it has no connection any more, and will tell so */
}

static void go_on_all(struct fetch_pool *pool)
{
    struct link *item;
    while ((item = list_pop_front(&pool->resuming)) != NULL) {
        struct fetch_transfer *transfer = LIST_ENTRY(item, struct fetch_transfer, link);
        CURLcode code = go_on(transfer);
        if (code != CURLE_OK)
            transfer_end(transfer, code);
    }
}

static void on_kick(struct flush *flush)
{
    struct fetch_pool *pool = CONTAINER_OF(flush, struct fetch_pool, kick);
    pool->kicking = true;
    struct link *item;
    while ((item = list_pop_front(&pool->starting)) != NULL) {
        struct fetch_transfer *transfer = LIST_ENTRY(item, struct fetch_transfer, link);
        transfer->in_multi = true;
        CHECK(curl_multi_add_handle(pool->multi, transfer->easy) == CURLM_OK);
    }
    go_on_all(pool);
    act(pool, CURL_SOCKET_TIMEOUT, 0);
    pool->kicking = false;
}

/* ---- pools ---- */

#define MULTI_SET(pool, option, value)                                                                       \
    CHECK(curl_multi_setopt((pool)->multi, CURLMOPT_##option, (value)) == CURLM_OK)

static struct fetch_pool *pool_open(struct fetch_client *client, const char *name, bool guard)
{
    struct fetch_pool *pool = mem_zalloc(sizeof *pool);
    MAGIC_SET(pool, POOL_MAGIC);
    pool->client = client;
    pool->name = name ? mem_strdup(name) : NULL;
    pool->guard = guard;
    pool->kick.run = on_kick;
    list_init(&pool->starting);
    list_init(&pool->resuming);
    CHECK(uv_timer_init(&client->loop->uv, &pool->timer) == 0);
    uv_unref((uv_handle_t *)&pool->timer);
    pool->timer.data = pool;
    client->handles++;
    pool->multi = curl_multi_init();
    CHECK(pool->multi);
    MULTI_SET(pool, SOCKETFUNCTION, on_socket);
    MULTI_SET(pool, SOCKETDATA, pool);
    MULTI_SET(pool, TIMERFUNCTION, on_timer);
    MULTI_SET(pool, TIMERDATA, pool);
    MULTI_SET(pool, PIPELINING, (long)CURLPIPE_NOTHING);
    MULTI_SET(pool, MAXCONNECTS, (long)IDLE_MAX);
    list_push_front(&client->pools, &pool->link);
    client->pool_count++;
    return pool;
}

static void on_pool_closed(uv_handle_t *handle)
{
    struct fetch_pool *pool = handle->data;
    struct fetch_client *client = pool->client;
    free(pool->name);
    free(pool);
    client_handle_closed(client);
}

static void pool_close(struct fetch_pool *pool)
{
    MAGIC_CHECK(pool, POOL_MAGIC);
    CHECK(pool->transfers == 0);
    list_remove(&pool->link);
    pool->client->pool_count--;
    CHECK(curl_multi_cleanup(pool->multi) == CURLM_OK);
    loop_flush_forget(&pool->kick);
    MAGIC_CLEAR(pool);
    uv_close((uv_handle_t *)&pool->timer, on_pool_closed);
}

/* The one that was used the longest time ago, of those that nobody uses now. */
static void close_idle_pool(struct fetch_client *client)
{
    for (struct link *item = client->pools.prev; item != &client->pools; item = item->prev) {
        struct fetch_pool *pool = LIST_ENTRY(item, struct fetch_pool, link);
        if (pool->transfers > 0)
            continue;
        pool_close(pool);
        return;
    }
}

static bool pool_is(const struct fetch_pool *pool, const char *name, bool guard)
{
    bool named_alike = pool->name && name ? strcmp(pool->name, name) == 0 : !pool->name && !name;
    return named_alike && pool->guard == guard;
}

static struct fetch_pool *pool_find(struct fetch_client *client, const char *name, bool guard)
{
    LIST_EACH (&client->pools, item, after) {
        struct fetch_pool *pool = LIST_ENTRY(item, struct fetch_pool, link);
        if (!pool_is(pool, name, guard))
            continue;
        list_remove(&pool->link);
        list_push_front(&client->pools, &pool->link);
        return pool;
    }
    if (client->pool_count >= POOLS_MAX)
        close_idle_pool(client);
    return pool_open(client, name, guard);
}

static void pool_limit(struct fetch_pool *pool, unsigned connections_max)
{
    if (pool->connections_max == connections_max)
        return;
    pool->connections_max = connections_max;
    MULTI_SET(pool, MAX_TOTAL_CONNECTIONS, (long)connections_max);
}

/* ---- transfers ---- */

#define SET(transfer, option, value)                                                                         \
    CHECK(curl_easy_setopt((transfer)->easy, CURLOPT_##option, (value)) == CURLE_OK)

void fetch_transfer_init(struct fetch_transfer *transfer, struct fetch_client *client)
{
    transfer->client = client;
    list_init(&transfer->link);
    SET(transfer, PRIVATE, transfer);
    SET(transfer, OPENSOCKETFUNCTION, on_open);
    SET(transfer, OPENSOCKETDATA, transfer);
    /* Called for a connection, which outlives the transfer. */
    SET(transfer, CLOSESOCKETFUNCTION, on_close);
    SET(transfer, CLOSESOCKETDATA, client);
    SET(transfer, PREREQFUNCTION, on_send);
    SET(transfer, PREREQDATA, transfer);
}

void fetch_transfer_start(struct fetch_transfer *transfer, const char *name, unsigned connections_max)
{
    struct fetch_pool *pool = pool_find(transfer->client, name, transfer->guard);
    pool_limit(pool, connections_max);
    *transfer = (struct fetch_transfer){
        .client = transfer->client,
        .pool = pool,
        .easy = transfer->easy,
        .opened = -1,
        .guard = transfer->guard,
        .repeatable = transfer->repeatable,
    };
    pool->transfers++;
    list_push_back(&pool->starting, &transfer->link);
    loop_flush_later(pool->client->loop, &pool->kick);
}

void fetch_transfer_resume(struct fetch_transfer *transfer)
{
    if (transfer->in_multi)
        go_on_later(transfer);
}

void fetch_transfer_stop(struct fetch_transfer *transfer)
{
    list_remove(&transfer->link);
    if (transfer->in_multi)
        CHECK(curl_multi_remove_handle(transfer->pool->multi, transfer->easy) == CURLM_OK);
    transfer->in_multi = false;
    transfer->pool->transfers--;
    transfer->pool->idle_since_ns = clock_now_ns();
}

/* ---- the client of a loop ---- */

void fetch_client_sweep(struct fetch_client *client, uint64_t idle_ns)
{
    uint64_t now_ns = clock_now_ns();
    LIST_EACH (&client->pools, item, after) {
        struct fetch_pool *pool = LIST_ENTRY(item, struct fetch_pool, link);
        if (pool->transfers == 0 && now_ns - pool->idle_since_ns >= idle_ns)
            pool_close(pool);
    }
}

static void on_sweep(uv_timer_t *timer)
{
    fetch_client_sweep(timer->data, SWEEP_MS * CLOCK_MS);
}

static struct fetch_client *client_open(struct loop *loop)
{
    struct fetch_client *client = mem_zalloc(sizeof *client);
    MAGIC_SET(client, CLIENT_MAGIC);
    client->loop = loop;
    list_init(&client->pools);
    list_init(&client->kept);
    client->handles = 1;
    CHECK(uv_timer_init(&loop->uv, &client->sweep) == 0);
    client->sweep.data = client;
    uv_unref((uv_handle_t *)&client->sweep);
    CHECK(uv_timer_start(&client->sweep, on_sweep, SWEEP_MS, SWEEP_MS) == 0);
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

static void on_sweep_closed(uv_handle_t *handle)
{
    client_handle_closed(handle->data);
}

void fetch_client_close(struct fetch_client *client)
{
    MAGIC_CHECK(client, CLIENT_MAGIC);
    client->loop->slots[LOOP_FETCH] = NULL;
    LIST_EACH (&client->pools, item, after)
        pool_close(LIST_ENTRY(item, struct fetch_pool, link));
    uv_close((uv_handle_t *)&client->sweep, on_sweep_closed);
    if (!fiber_self())
        return;
    struct wait closed = WAIT_INIT;
    client->closed = &closed;
    fiber_hold();
    CHECK(wait_for(&closed, "fetch_close_loop", CLOCK_NEVER) == 0);
    fiber_release();
}
