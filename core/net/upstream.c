/*
 * Connections to pods for proxied requests: see upstream.h.
 *
 *   connect ──▶ FRESH ──send──▶ SENT ──head──▶ HEAD ──▶ BODY ──▶ DONE ──close, kept──▶ IDLE
 *                 ▲                              │        │                              │
 *                 │                              ▼        ▼                              │
 *                 │                           SWITCHED  BROKEN                           │
 *                 └──────────────────────────── open ────────────────────────────────────┘
 *
 * A connection is read all the time, also before the answer is asked for and while it is idle: so it is known at once
 * when the pod closes it, and a request costs no change of what the loop polls for. The answer is parsed where it comes
 * in, in the stream's callback; what of its body the fiber has not fetched yet is kept, up to AHEAD_MAX, beyond which the
 * socket is not read.
 *
 * Idle connections are kept per address: the one used last is taken first, so that a pool which was large once shrinks.
 * Whoever listens at an address under another generation is another pod: what was kept for the one before is closed.
 */
#include "core/net/upstream.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>

enum {
    UPSTREAM_MAGIC = 0x75707374,
    SEND_MAX = 256 * 1024,  /* bytes of a request that wait for the pod */
    AHEAD_MAX = 192 * 1024, /* of an answer for its reader: with one more read, a buffer of 256 KiB */
    IDLE_MS = 4000,         /* less than servers commonly keep an idle connection: node 5 s */
    IDLE_TICK_MS = 1000,
    IDLE_PER_TARGET = 128,
    IDLE_MAX = 1024,
    STALL_CHECK_MS = 1000,
    BUCKET_BITS = 8,
    BUCKETS = 1 << BUCKET_BITS,
};

enum upstream_state {
    UPSTREAM_IDLE,
    UPSTREAM_FRESH,    /* nothing of a request was sent */
    UPSTREAM_SENT,     /* nobody has asked for the answer: its bytes wait as they are */
    UPSTREAM_HEAD,     /* the head is awaited */
    UPSTREAM_BODY,     /* it is complete, the body is not */
    UPSTREAM_SWITCHED, /* it was 101: bytes wait as they are */
    UPSTREAM_DONE,
    UPSTREAM_BROKEN, /* no more will come, and that is an error */
    UPSTREAM_CLOSING,
};

/* An address and the pod there. Lives as long as a connection to it. */
struct target {
    struct link bucket;
    struct upstream_target key;
    struct link idle; /* newest first */
    unsigned idle_count;
    unsigned connections;
};

/* What a loop keeps. */
struct pool {
    struct loop *loop;
    struct link buckets[BUCKETS];
    struct link idle; /* of all targets, newest first */
    unsigned idle_count;
    unsigned connections;
    uv_timer_t timer;    /* runs while there are idle ones */
    struct wait *closed; /* of upstream_close_loop */
};

struct upstream {
    unsigned magic;
    enum upstream_state state;
    struct pool *pool;
    struct target *target;
    uint64_t generation;
    struct stream *stream;
    struct http1_answer *parser;
    struct link target_idle;
    struct link pool_idle;
    uint64_t idle_since_ms; /* uv_now() terms */
    struct buf
        incoming;     /* of the body; of the answer while it is SENT; of what follows when it is SWITCHED */
    struct buf piece; /* given to the caller */
    struct wait *answer_wait;
    struct wait *room_wait;
    int error;        /* why it is BROKEN */
    bool head_done;   /* the head can be told, whatever came after it */
    bool begun;       /* a byte of the answer has come */
    bool whole;       /* the request was sent to its end */
    bool send_failed; /* the pod takes no more of it */
    bool spoiled;     /* something came that belongs to no answer */
    bool ended;       /* the pod closed while the answer's bytes were only kept */
    int end_error;
};

void upstream_target_local(struct upstream_target *target, int port, uint64_t generation)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *target = (struct upstream_target){.generation = generation};
    memcpy(&target->address, &address, sizeof address);
}

/* ---- targets ---- */

/* What tells addresses apart: of either family, with zeros behind the shorter one. */
static bool address_equal(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    return memcmp(a, b, sizeof(struct sockaddr_in6)) == 0;
}

static struct link *bucket_of(struct pool *pool, const struct sockaddr_storage *address)
{
    uint64_t words[4] = {0};
    memcpy(words, address, sizeof(struct sockaddr_in6));
    uint64_t mixed = (words[0] ^ words[1] ^ words[2] ^ words[3]) * UINT64_C(0x9e3779b97f4a7c15);
    return &pool->buckets[mixed >> (64 - BUCKET_BITS)];
}

static struct target *target_get(struct pool *pool, const struct upstream_target *key)
{
    struct link *bucket = bucket_of(pool, &key->address);
    LIST_EACH (bucket, item, after) {
        struct target *target = LIST_ENTRY(item, struct target, bucket);
        if (address_equal(&target->key.address, &key->address))
            return target;
    }
    struct target *target = mem_zalloc(sizeof *target);
    target->key = *key;
    list_init(&target->idle);
    list_push_front(bucket, &target->bucket);
    return target;
}

static void target_free_if_unused(struct target *target)
{
    if (target->connections)
        return;
    list_remove(&target->bucket);
    free(target);
}

/* ---- the end of a connection ---- */

static void upstream_free(struct upstream *upstream)
{
    struct pool *pool = upstream->pool;
    upstream->target->connections--;
    target_free_if_unused(upstream->target);
    http1_answer_free(upstream->parser);
    stream_spare_give(&upstream->incoming);
    stream_spare_give(&upstream->piece);
    MAGIC_CLEAR(upstream);
    free(upstream);
    pool->connections--;
    if (pool->closed && pool->connections == 0)
        wait_done(pool->closed, 0);
}

static void on_closed(struct stream *stream)
{
    upstream_free(stream->owner);
}

static void hang_up(struct upstream *upstream)
{
    upstream->state = UPSTREAM_CLOSING;
    stream_close(upstream->stream);
}

/* ---- idle connections ---- */

static void idle_remove(struct upstream *upstream)
{
    list_remove(&upstream->target_idle);
    list_remove(&upstream->pool_idle);
    upstream->target->idle_count--;
    if (--upstream->pool->idle_count == 0)
        uv_timer_stop(&upstream->pool->timer);
}

static void idle_close(struct upstream *upstream)
{
    idle_remove(upstream);
    hang_up(upstream);
}

static void idle_close_oldest(struct pool *pool)
{
    idle_close(LIST_ENTRY(pool->idle.prev, struct upstream, pool_idle));
}

static void idle_close_target(struct target *target)
{
    LIST_EACH (&target->idle, item, after)
        idle_close(LIST_ENTRY(item, struct upstream, target_idle));
}

static bool idle_is_stale(const struct upstream *upstream)
{
    return uv_now(&upstream->pool->loop->uv) - upstream->idle_since_ms >= IDLE_MS;
}

static void on_idle_tick(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    while (!list_empty(&pool->idle) && idle_is_stale(LIST_ENTRY(pool->idle.prev, struct upstream, pool_idle)))
        idle_close_oldest(pool);
}

static void idle_keep(struct upstream *upstream)
{
    struct pool *pool = upstream->pool;
    if (pool->idle_count == IDLE_MAX)
        idle_close_oldest(pool);
    if (pool->idle_count++ == 0)
        uv_timer_start(&pool->timer, on_idle_tick, IDLE_TICK_MS, IDLE_TICK_MS);
    upstream->target->idle_count++;
    list_push_front(&upstream->target->idle, &upstream->target_idle);
    list_push_front(&pool->idle, &upstream->pool_idle);
    upstream->idle_since_ms = uv_now(&pool->loop->uv);
    upstream->state = UPSTREAM_IDLE;
    stream_read(upstream->stream, true);
}

/* The newest idle connection, or NULL. */
static struct upstream *idle_take(struct target *target)
{
    if (list_empty(&target->idle))
        return NULL;
    struct upstream *upstream = LIST_ENTRY(target->idle.next, struct upstream, target_idle);
    if (idle_is_stale(upstream)) {
        idle_close_target(target);
        return NULL;
    }
    idle_remove(upstream);
    return upstream;
}

/* ---- what comes in ---- */

static void wake(struct wait *wait, int result)
{
    if (wait)
        wait_done(wait, result);
}

static void read_or_not(struct upstream *upstream)
{
    bool wanted = upstream->state != UPSTREAM_BROKEN && !upstream->spoiled;
    stream_read(upstream->stream, wanted && upstream->incoming.size + upstream->piece.size < AHEAD_MAX);
}

static void keep_bytes(struct upstream *upstream, const char *bytes, size_t size)
{
    if (!upstream->incoming.at)
        upstream->incoming = stream_spare_take();
    buf_add(&upstream->incoming, bytes, size);
}

static void on_body(void *arg, const char *bytes, size_t size)
{
    keep_bytes(arg, bytes, size);
}

static void send_ended(struct upstream *upstream)
{
    upstream->send_failed = true;
    wake(upstream->room_wait, -ECONNRESET);
}

static void broken(struct upstream *upstream, int error)
{
    upstream->state = UPSTREAM_BROKEN;
    upstream->error = error;
    send_ended(upstream);
}

static void no_answer(struct upstream *upstream, const char *reason)
{
    struct sockaddr_in address; /* IPv6 has its port at the same place */
    memcpy(&address, &upstream->target->key.address, sizeof address);
    LOG(INFO, "a pod's answer is not HTTP", LOG_TEXT("reason", reason),
        LOG_INT("port", ntohs(address.sin_port)));
    broken(upstream, -EPROTO);
}

static void head_is_done(struct upstream *upstream)
{
    upstream->head_done = true;
    upstream->state = http1_answer_head(upstream->parser)->switched ? UPSTREAM_SWITCHED : UPSTREAM_BODY;
}

/* Bytes of the answer, and what may follow it. */
static void parse(struct upstream *upstream, const char *bytes, size_t size)
{
    upstream->begun = true;
    enum http1_event event = HTTP1_HEAD;
    while (event == HTTP1_HEAD && upstream->state != UPSTREAM_SWITCHED) {
        size_t taken = http1_answer_feed(upstream->parser, bytes, size, &event);
        bytes += taken;
        size -= taken;
        switch (event) {
        case HTTP1_MORE: break;
        case HTTP1_HEAD: head_is_done(upstream); break;
        case HTTP1_END:
            upstream->state = UPSTREAM_DONE;
            upstream->spoiled = size > 0;
            break;
        case HTTP1_ERROR: no_answer(upstream, http1_answer_error(upstream->parser)); break;
        }
    }
    if (upstream->state == UPSTREAM_SWITCHED)
        keep_bytes(upstream, bytes, size);
}

static void on_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct upstream *upstream = stream->owner;
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    switch (upstream->state) {
    case UPSTREAM_IDLE: idle_close(upstream); return;
    case UPSTREAM_FRESH: broken(upstream, -ECONNRESET); break;
    case UPSTREAM_SENT:
    case UPSTREAM_SWITCHED: keep_bytes(upstream, bytes, size); break;
    case UPSTREAM_HEAD:
    case UPSTREAM_BODY: parse(upstream, bytes, size); break;
    case UPSTREAM_DONE: upstream->spoiled = true; break;
    case UPSTREAM_BROKEN:
    case UPSTREAM_CLOSING: return;
    }
    read_or_not(upstream);
    if (upstream->state != UPSTREAM_HEAD)
        wake(upstream->answer_wait, 0);
}

/* The pod has closed, all that came before is parsed. */
static void answer_ended(struct upstream *upstream, int error)
{
    if (upstream->state == UPSTREAM_BODY && error == 0 && http1_answer_end(upstream->parser))
        upstream->state = UPSTREAM_DONE;
    else if (upstream->state == UPSTREAM_HEAD && upstream->begun)
        no_answer(upstream, "the connection ended within the head");
    else if (upstream->state == UPSTREAM_HEAD || upstream->state == UPSTREAM_BODY)
        broken(upstream, -ECONNRESET);
}

static void on_ended(struct stream *stream, int error)
{
    struct upstream *upstream = stream->owner;
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    switch (upstream->state) {
    case UPSTREAM_IDLE: idle_close(upstream); return;
    case UPSTREAM_FRESH: broken(upstream, -ECONNRESET); break;
    case UPSTREAM_SENT:
        upstream->ended = true;
        upstream->end_error = error;
        break;
    case UPSTREAM_HEAD:
    case UPSTREAM_BODY: answer_ended(upstream, error); break;
    case UPSTREAM_SWITCHED: /* who takes the stream sees it there */
    case UPSTREAM_DONE:
    case UPSTREAM_BROKEN:
    case UPSTREAM_CLOSING: break;
    }
    send_ended(upstream);
    wake(upstream->answer_wait, 0);
}

/* The pod takes no more. What it has answered before may still be read: `ended` tells when that is over. */
static void on_failed(struct stream *stream, int error)
{
    struct upstream *upstream = stream->owner;
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    (void)error;
    send_ended(upstream);
}

static void on_flushed(struct stream *stream)
{
    struct upstream *upstream = stream->owner;
    wake(upstream->room_wait, 0);
}

static const struct stream_events upstream_events = {
    .bytes = on_bytes,
    .ended = on_ended,
    .flushed = on_flushed,
    .failed = on_failed,
    .closed = on_closed,
};

/* ---- opening and closing ---- */

static struct pool *pool_self(void)
{
    struct loop *loop = loop_self();
    if (LIKELY(loop->slots[LOOP_UPSTREAM]))
        return loop->slots[LOOP_UPSTREAM];
    struct pool *pool = mem_zalloc(sizeof *pool);
    pool->loop = loop;
    list_init(&pool->idle);
    for (size_t i = 0; i < BUCKETS; i++)
        list_init(&pool->buckets[i]);
    CHECK(uv_timer_init(&loop->uv, &pool->timer) == 0);
    pool->timer.data = pool;
    loop->slots[LOOP_UPSTREAM] = pool;
    return pool;
}

static struct upstream *upstream_new(struct pool *pool, struct target *target)
{
    struct upstream *upstream = mem_zalloc(sizeof *upstream);
    MAGIC_SET(upstream, UPSTREAM_MAGIC);
    upstream->pool = pool;
    upstream->target = target;
    upstream->parser = http1_answer_new(on_body, upstream);
    upstream->stream = stream_new(pool->loop, &upstream_events, upstream);
    list_init(&upstream->target_idle);
    list_init(&upstream->pool_idle);
    target->connections++;
    pool->connections++;
    return upstream;
}

static void request_begin(struct upstream *upstream)
{
    upstream->state = UPSTREAM_FRESH;
    upstream->generation = upstream->target->key.generation;
    upstream->error = 0;
    upstream->head_done = false;
    upstream->begun = false;
    upstream->whole = false;
    upstream->ended = false;
}

int upstream_open(const struct upstream_target *key, bool fresh, uint64_t connect_timeout_ms,
                  struct upstream **upstream, bool *reused)
{
    struct pool *pool = pool_self();
    struct target *target = target_get(pool, key);
    if (target->key.generation != key->generation) {
        idle_close_target(target);
        target->key.generation = key->generation;
    }
    struct upstream *found = fresh ? NULL : idle_take(target);
    *reused = found != NULL;
    *upstream = found;
    if (found) {
        request_begin(found);
        return 0;
    }
    found = upstream_new(pool, target);
    request_begin(found);
    const struct sockaddr *address = (const struct sockaddr *)&key->address;
    int result = stream_connect(found->stream, address, clock_in_ms(connect_timeout_ms));
    if (result) {
        hang_up(found);
        return result;
    }
    stream_read(found->stream, true);
    *upstream = found;
    return 0;
}

static bool may_be_kept(const struct upstream *upstream)
{
    return upstream->state == UPSTREAM_DONE && http1_answer_head(upstream->parser)->keep_alive &&
           upstream->whole && !upstream->spoiled && !upstream->send_failed &&
           stream_queued(upstream->stream) == 0 && upstream->generation == upstream->target->key.generation &&
           upstream->target->idle_count < IDLE_PER_TARGET;
}

void upstream_close(struct upstream *upstream)
{
    if (!upstream)
        return;
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    CHECK(!upstream->answer_wait && !upstream->room_wait);
    bool keep = may_be_kept(upstream);
    stream_spare_give(&upstream->incoming);
    stream_spare_give(&upstream->piece);
    if (keep)
        idle_keep(upstream);
    else
        hang_up(upstream);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct pool *pool = handle->data;
    wait_done(pool->closed, 0);
}

void upstream_close_loop(struct loop *loop)
{
    struct pool *pool = loop->slots[LOOP_UPSTREAM];
    if (!pool)
        return;
    while (pool->idle_count)
        idle_close_oldest(pool);
    fiber_hold();
    struct wait streams = WAIT_INIT;
    pool->closed = &streams;
    if (pool->connections)
        CHECK(wait_for(&streams, "upstream_close_loop", CLOCK_NEVER) == 0);
    struct wait timer = WAIT_INIT;
    pool->closed = &timer;
    uv_close((uv_handle_t *)&pool->timer, on_timer_closed);
    CHECK(wait_for(&timer, "upstream_close_loop", CLOCK_NEVER) == 0);
    fiber_release();
    loop->slots[LOOP_UPSTREAM] = NULL;
    free(pool);
}

/* ---- a request and its answer ---- */

struct buf *upstream_out(struct upstream *upstream)
{
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    return stream_out(upstream->stream);
}

/* Until the queue is empty. */
static int wait_for_room(struct upstream *upstream)
{
    for (;;) {
        struct wait wait = WAIT_INIT;
        upstream->room_wait = &wait;
        int result = wait_for(&wait, "a pod's reading", clock_in_ms(STALL_CHECK_MS));
        upstream->room_wait = NULL;
        if (result != -ETIMEDOUT || stream_is_stalled(upstream->stream, uv_now(&upstream->pool->loop->uv)))
            return result;
    }
}

int upstream_send(struct upstream *upstream, bool last)
{
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    if (upstream->send_failed)
        return -ECONNRESET;
    if (upstream->state == UPSTREAM_FRESH)
        upstream->state = UPSTREAM_SENT;
    upstream->whole = last;
    stream_flush_later(upstream->stream);
    return last || stream_queued(upstream->stream) < SEND_MAX ? 0 : wait_for_room(upstream);
}

static int wait_for_answer(struct upstream *upstream, uint64_t deadline_ns)
{
    struct wait wait = WAIT_INIT;
    upstream->answer_wait = &wait;
    int result = wait_for(&wait, "a pod's answer", deadline_ns);
    upstream->answer_wait = NULL;
    return result;
}

/* Parses what came before anyone asked. */
static void parse_kept(struct upstream *upstream)
{
    struct buf kept = upstream->incoming;
    upstream->incoming = (struct buf){0};
    if (kept.size)
        parse(upstream, kept.at, kept.size);
    stream_spare_give(&kept);
    if (upstream->ended)
        answer_ended(upstream, upstream->end_error);
    read_or_not(upstream);
}

int upstream_head(struct upstream *upstream, struct arena *arena, bool to_head, uint64_t deadline_ns,
                  const struct http1_answer_head **head)
{
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    if (upstream->state == UPSTREAM_SENT) {
        http1_answer_begin(upstream->parser, arena, to_head);
        upstream->state = UPSTREAM_HEAD;
        parse_kept(upstream);
    }
    while (upstream->state == UPSTREAM_HEAD) {
        int result = wait_for_answer(upstream, deadline_ns);
        if (result)
            return result;
    }
    if (!upstream->head_done) {
        CHECK(upstream->state == UPSTREAM_BROKEN);
        return upstream->error;
    }
    *head = http1_answer_head(upstream->parser);
    return 0;
}

int upstream_body(struct upstream *upstream, uint64_t deadline_ns, struct str *piece)
{
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    CHECK(upstream->head_done);
    stream_spare_give(&upstream->piece);
    while (upstream->state == UPSTREAM_BODY && upstream->incoming.size == 0) {
        read_or_not(upstream);
        int result = wait_for_answer(upstream, deadline_ns);
        if (result)
            return result;
    }
    if (upstream->incoming.size == 0 && upstream->state == UPSTREAM_BROKEN)
        return upstream->error;
    upstream->piece = upstream->incoming;
    upstream->incoming = (struct buf){0};
    *piece = buf_str(&upstream->piece);
    read_or_not(upstream);
    return 0;
}

bool upstream_is_done(const struct upstream *upstream)
{
    return upstream->state == UPSTREAM_DONE && upstream->incoming.size == 0;
}

struct stream *upstream_take(struct upstream *upstream, struct buf *early)
{
    MAGIC_CHECK(upstream, UPSTREAM_MAGIC);
    CHECK(upstream->state == UPSTREAM_SWITCHED);
    struct stream *stream = upstream->stream;
    stream_read(stream, false);
    *early = upstream->incoming;
    upstream->incoming = (struct buf){0};
    upstream_free(upstream);
    return stream;
}
