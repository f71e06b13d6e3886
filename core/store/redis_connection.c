/*
 * One connection to Redis: what goes out and comes in, how it ends and rests. redis_connect.c brings it up.
 *
 *              timer             found             connected          PING answered
 *   resting ─────────▶ resolving ─────▶ connecting ─────────▶ greeting ─────────────▶ up
 *      ▲                  │ not found        │ refused, late      │ refused, late      │ broken, silent
 *      ├──────────────────┘                  ▼                    ▼                    │
 *      └──────────────────────────────── closing ◀─────────────────────────────────────┘
 *
 * Commands of one turn gather in `out`; a flush hook writes them with one system call. What the socket has no room
 * for goes to `writing`, and later turns wait in `out` until that is gone.
 *
 * Every command has the same time, so that they pass their deadlines in the order in which they were sent: one timer
 * watches the oldest. When it fires and nothing at all has come for that time, the connection counts as dead, even
 * though no error was seen: a hung Redis or a lost network looks like this.
 */
#include "core/store/redis_internal.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BACKOFF_LEAST_MS = 50,
    BACKOFF_MOST_MS = 2000,
    TELL_EVERY_S = 10,  /* a failure that stays the same is logged so often */
    LARGE_SIZE = 65536, /* buffers beyond it are given back once they are empty */
    RING_LEAST = 64,
    RING_KEPT = 4096,
    SILENT_TIMEOUTS = 5, /* silence of so many timeouts makes a subscribed connection send a PING */
    FEED_SIZE = 16384,   /* the reader moves what is left of a piece to its front after each KiB */
};

static void on_timer(uv_timer_t *timer);
static void flush_out(struct redis *redis);

void redis_timer_start(struct redis *redis, uint64_t ms)
{
    CHECK(uv_timer_start(&redis->timer, on_timer, ms, 0) == 0);
}

static bool has_socket(const struct redis *redis)
{
    return redis->state == REDIS_STATE_CONNECTING || redis->state == REDIS_STATE_GREETING ||
           redis->state == REDIS_STATE_UP;
}

/* ---- away ---- */

void redis_release(struct redis *redis)
{
    CHECK(redis->busy > 0);
    redis->busy--;
    if (redis->busy == 0 && redis->closing)
        wait_done(redis->closed, 0);
}

/* Rests before the next attempt: twice as long after each failure, and never all at the same moment. */
static void rest(struct redis *redis)
{
    unsigned doublings = redis->failures > 6 ? 6 : redis->failures;
    uint64_t most_ms = (uint64_t)BACKOFF_LEAST_MS << (doublings ? doublings - 1 : 0);
    if (most_ms > BACKOFF_MOST_MS)
        most_ms = BACKOFF_MOST_MS;
    uint32_t random;
    crypto_random(&random, sizeof random);
    redis->state = REDIS_STATE_RESTING;
    redis_timer_start(redis, most_ms / 2 + random % (most_ms / 2 + 1));
}

/* `why` is a literal: it is what tells one failure from the next. */
static void tell_failure(struct redis *redis, const char *why, struct str detail)
{
    uint64_t now_ns = clock_now_ns();
    if (redis->state == REDIS_STATE_UP && now_ns - redis->up_since_ns >= BACKOFF_MOST_MS * CLOCK_MS)
        redis->failures = 0;
    redis->failures++;
    if (redis->failed_why == why && now_ns - redis->failed_told_ns < TELL_EVERY_S * CLOCK_SECOND)
        return;
    redis->failed_why = why;
    redis->failed_told_ns = now_ns;
    LOG(WARN, why, LOG_TEXT("connection", redis->name), LOG_STR("detail", detail),
        LOG_INT("failures", redis->failures));
}

void redis_unreachable(struct redis *redis, const char *why, struct str detail)
{
    tell_failure(redis, why, detail);
    rest(redis);
}

/* Takes the oldest command off the queue with an error in place of an answer. */
static void fail_oldest(struct redis *redis, int result)
{
    struct redis_batch *batch = redis->ring[redis->head & (redis->ring_size - 1)].batch;
    if (batch && !batch->on_done)
        redis_connection_forget(redis, batch, result);
    redis->head++;
}

static void fail_pending(struct redis *redis, int result)
{
    uint64_t now_ns = clock_now_ns();
    while (redis->head != redis->tail) {
        bool late = redis->ring[redis->head & (redis->ring_size - 1)].deadline_ns <= now_ns;
        fail_oldest(redis, late && !redis->closing ? -ETIMEDOUT : result);
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct redis *redis = handle->data;
    buf_clear(&redis->writing);
    if (!redis->closing)
        rest(redis);
    redis_release(redis);
}

/* Drops the socket and all that belonged to it. */
static void shut(struct redis *redis, int result)
{
    CHECK(has_socket(redis));
    redis->state = REDIS_STATE_CLOSING;
    uv_timer_stop(&redis->timer);
    loop_flush_forget(&redis->flush);
    fail_pending(redis, result);
    buf_clear(&redis->out);
    redis_reader_free(redis);
    arena_clear(&redis->greeting_arena);
    arena_clear(&redis->push_arena);
    redis->push = (struct redis_value){0};
    free(redis->script_hashes);
    redis->script_hashes = NULL;
    uv_close(&redis->handle.any, on_handle_closed);
}

void redis_broken(struct redis *redis, const char *why, struct str detail)
{
    tell_failure(redis, why, detail);
    if (redis->state != REDIS_STATE_UP)
        redis->address_index++;
    shut(redis, -ECONNRESET);
}

void redis_broken_by(struct redis *redis, const char *why, int code)
{
    redis_broken(redis, why, str_from(uv_strerror(code)));
}

/* ---- out ---- */

static void on_written(uv_write_t *write, int status)
{
    struct redis *redis = write->data;
    if (redis->state == REDIS_STATE_CLOSING)
        return;
    if (status < 0) {
        redis_broken_by(redis, "redis connection lost", status);
        return;
    }
    if (!redis->out.at && redis->writing.capacity <= LARGE_SIZE) {
        redis->out = redis->writing;
        redis->out.size = 0;
        redis->writing = (struct buf){0};
    }
    buf_clear(&redis->writing);
    flush_out(redis);
}

static void flush_out(struct redis *redis)
{
    if (redis->out.size == 0 || redis->writing.size)
        return;
    uv_buf_t bytes = uv_buf_init(redis->out.at, (unsigned)redis->out.size);
    int written = uv_try_write(&redis->handle.stream, &bytes, 1);
    metric_add(M_REDIS_FLUSHES, 1);
    if (written < 0 && written != UV_EAGAIN) {
        redis_broken_by(redis, "redis connection lost", written);
        return;
    }
    size_t done = written < 0 ? 0 : (size_t)written;
    if (done == redis->out.size) {
        redis->out.size = 0;
        if (redis->out.capacity > LARGE_SIZE)
            buf_clear(&redis->out);
        return;
    }
    redis->writing = redis->out;
    redis->out = (struct buf){0};
    bytes = uv_buf_init(redis->writing.at + done, (unsigned)(redis->writing.size - done));
    int result = uv_write(&redis->write, &redis->handle.stream, &bytes, 1, on_written);
    if (result < 0)
        redis_broken_by(redis, "redis connection lost", result);
}

static void on_flush(struct flush *flush)
{
    flush_out(CONTAINER_OF(flush, struct redis, flush));
}

static void ring_grow(struct redis *redis)
{
    size_t size = redis->ring_size ? redis->ring_size * 2 : RING_LEAST;
    struct redis_pending *ring = mem_alloc(size * sizeof *ring);
    for (uint64_t number = redis->head; number != redis->tail; number++)
        ring[number & (size - 1)] = redis->ring[number & (redis->ring_size - 1)];
    free(redis->ring);
    redis->ring = ring;
    redis->ring_size = size;
}

void redis_connection_add_push(struct redis *redis, const struct str *args, size_t count)
{
    CHECK(redis->state == REDIS_STATE_UP || redis->state == REDIS_STATE_GREETING);
    redis_encode(&redis->out, args, count);
    loop_flush_later(redis->owner->loop, &redis->flush);
    metric_add(M_REDIS_COMMANDS, 1);
}

void redis_connection_add(struct redis *redis, const struct str *args, size_t count,
                          struct redis_batch *batch)
{
    redis_connection_add_push(redis, args, count);
    if (redis->tail - redis->head == redis->ring_size)
        ring_grow(redis);
    redis->ring[redis->tail & (redis->ring_size - 1)] =
        (struct redis_pending){batch, clock_in_ms(redis->timeout_ms)};
    redis->tail++;
    if (!uv_is_active((uv_handle_t *)&redis->timer))
        redis_timer_start(redis, redis->timeout_ms);
}

void redis_connection_add_batch(struct redis *redis, struct redis_batch *batch)
{
    batch->first = redis->tail;
    batch->left = batch->count;
    for (size_t i = 0; i < batch->count; i++) {
        batch->steps[i].reply = (struct redis_value){0};
        redis_connection_add(redis, batch->steps[i].args, batch->steps[i].count, batch);
    }
}

void redis_connection_forget(struct redis *redis, struct redis_batch *batch, int result)
{
    uint64_t end = batch->first + batch->count;
    for (uint64_t number = end - batch->left; number != end; number++) {
        redis->ring[number & (redis->ring_size - 1)].batch = NULL;
        batch->steps[number - batch->first].result = result;
        metric_add(M_REDIS_ERRORS, 1);
    }
    wait_done(&batch->wait, result);
}

/* ---- in ---- */

static void take_reply(struct redis *redis)
{
    if (redis->head == redis->tail) {
        if (!redis->on_push) {
            redis_broken(redis, "redis sent what nobody asked for", STR_NONE);
            return;
        }
        redis->on_push(redis, &redis->push);
        arena_clear(&redis->push_arena);
        redis->push = (struct redis_value){0};
        return;
    }
    uint64_t number = redis->head++;
    struct redis_batch *batch = redis->ring[number & (redis->ring_size - 1)].batch;
    if (!batch)
        return;
    struct redis_step *step = &batch->steps[number - batch->first];
    step->result = 0;
    if (step->reply.type == REDIS_ERROR) {
        step->result = -EIO;
        metric_add(M_REDIS_ERRORS, 1);
    }
    if (--batch->left)
        return;
    if (batch->on_done)
        batch->on_done(redis);
    else
        wait_done(&batch->wait, 0);
}

static void take_bytes(struct redis *redis, const char *bytes, size_t size)
{
    while (size && has_socket(redis)) {
        size_t piece = size < FEED_SIZE ? size : FEED_SIZE;
        int result = redis_reader_feed(redis, bytes, piece) ? 0 : -EPROTO;
        while (result == 0 && has_socket(redis)) {
            result = redis_reader_next(redis);
            if (result <= 0)
                break;
            take_reply(redis);
            result = 0;
        }
        if (result < 0) {
            redis_broken(redis, "redis sent what is not its protocol", STR_NONE);
            return;
        }
        bytes += piece;
        size -= piece;
    }
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buffer)
{
    (void)wanted;
    struct redis *redis = handle->data;
    *buffer = uv_buf_init(redis->owner->read_buffer, REDIS_READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct redis *redis = stream->data;
    if (size == 0)
        return;
    if (size < 0) {
        redis_broken_by(redis, "redis connection lost", (int)size);
        return;
    }
    redis->received_ns = clock_now_ns();
    take_bytes(redis, buffer->base, (size_t)size);
    redis_reader_shrink(redis);
    if (redis->head == redis->tail && redis->ring_size > RING_KEPT) {
        free(redis->ring);
        redis->ring = NULL;
        redis->ring_size = 0;
    }
}

int redis_read_start(struct redis *redis)
{
    return uv_read_start(&redis->handle.stream, on_alloc, on_read);
}

/* ---- time ---- */

/* A loop that was itself held up finds its deadlines passed and the answers waiting in the socket. It reads those
 * first. */
static bool look_again(struct redis *redis)
{
    if (redis->looked_again)
        return false;
    redis->looked_again = true;
    redis_timer_start(redis, 1);
    return true;
}

static void watch_commands(struct redis *redis)
{
    uint64_t now_ns = clock_now_ns();
    size_t mask = redis->ring_size - 1;
    if (redis->expired < redis->head)
        redis->expired = redis->head;
    bool is_late = redis->expired != redis->tail && redis->ring[redis->expired & mask].deadline_ns <= now_ns;
    if (is_late && look_again(redis))
        return;
    redis->looked_again = false;
    if (is_late && now_ns - redis->received_ns >= redis->timeout_ms * CLOCK_MS) {
        redis_broken(redis, "redis does not answer", STR_NONE);
        return;
    }
    for (; redis->expired != redis->tail; redis->expired++) {
        struct redis_pending *pending = &redis->ring[redis->expired & mask];
        if (pending->deadline_ns > now_ns) {
            redis_timer_start(redis, (pending->deadline_ns - now_ns + CLOCK_MS - 1) / CLOCK_MS);
            return;
        }
        if (pending->batch)
            redis_connection_forget(redis, pending->batch, -ETIMEDOUT);
    }
    /* None is left: the next command starts the timer. */
}

uint64_t redis_silence_ms(const struct redis *redis)
{
    return redis->timeout_ms * SILENT_TIMEOUTS;
}

/* Pushes come when they come: silence is told from death by a PING that must be answered. */
static void watch_pushes(struct redis *redis)
{
    if (redis->pinged_ns && redis->received_ns < redis->pinged_ns) {
        if (!look_again(redis))
            redis_broken(redis, "redis does not answer", STR_NONE);
        return;
    }
    redis->pinged_ns = clock_now_ns();
    redis->looked_again = false;
    redis_connection_add_push(redis, REDIS_ARGS(STR("PING")));
    redis_timer_start(redis, redis_silence_ms(redis));
}

static void on_timer(uv_timer_t *timer)
{
    struct redis *redis = timer->data;
    switch (redis->state) {
    case REDIS_STATE_RESTING: redis_connect(redis); break;
    case REDIS_STATE_CONNECTING:
    case REDIS_STATE_GREETING:
        if (!look_again(redis)) {
            redis->looked_again = false;
            redis_broken(redis, "redis does not answer", STR_NONE);
        }
        break;
    case REDIS_STATE_UP:
        if (redis->on_push)
            watch_pushes(redis);
        else
            watch_commands(redis);
        break;
    case REDIS_STATE_RESOLVING:
    case REDIS_STATE_CLOSING: UNREACHABLE();
    }
}

/* ---- life ---- */

struct redis *redis_connection_new(struct redis_loop *owner, const char *name, uint64_t timeout_ms)
{
    struct redis *redis = mem_zalloc(sizeof *redis);
    MAGIC_SET(redis, REDIS_MAGIC);
    redis->owner = owner;
    redis->timeout_ms = timeout_ms;
    redis->name = mem_alloc(sizeof "wakegate:" + strlen(name));
    sprintf(redis->name, "wakegate:%s", name);
    redis->flush.run = on_flush;
    redis->connect.data = redis;
    redis->write.data = redis;
    redis->resolve.data = redis;
    redis->timer.data = redis;
    list_init(&redis->waiting_ready);
    arena_init(&redis->greeting_arena);
    arena_init(&redis->push_arena);
    CHECK(uv_timer_init(&owner->loop->uv, &redis->timer) == 0);
    redis->busy = 1;
    redis_connect(redis);
    return redis;
}

static void on_timer_closed(uv_handle_t *handle)
{
    redis_release(handle->data);
}

void redis_connection_close(struct redis *redis)
{
    struct wait closed = WAIT_INIT;
    MAGIC_CHECK(redis, REDIS_MAGIC);
    redis->closing = true;
    redis->closed = &closed;
    if (has_socket(redis))
        shut(redis, -ENOTCONN);
    if (redis->state == REDIS_STATE_RESOLVING)
        uv_cancel((uv_req_t *)&redis->resolve); /* or it is in work, and its end is waited for */
    struct link *item;
    while ((item = list_pop_front(&redis->waiting_ready)) != NULL)
        wait_done(&LIST_ENTRY(item, struct redis_ready_place, link)->wait, -ENOTCONN);
    uv_close((uv_handle_t *)&redis->timer, on_timer_closed);
    fiber_hold();
    CHECK(wait_for(&closed, "redis to close", CLOCK_NEVER) == 0);
    fiber_release();
    MAGIC_CLEAR(redis);
    free(redis->script_hashes);
    free(redis->ring);
    free(redis->name);
    free(redis);
}
