/*
 * Byte streams over libuv's TCP: see stream.h. What TLS adds is in stream_tls.c.
 *
 * Output: stream_out() ──▶ out ──(end of the turn)──▶ [TLS] ──▶ uv_try_write; what the kernel leaves ──▶ sending (uv_write)
 */
#include "core/net/stream_internal.h"

#include "core/base/config.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum { STREAM_MAGIC = 0x7374726d, SPARE_MAX = 64 * 1024 };

static long open_streams;
static long stream_limit = 1000000;

void stream_set_limit(long limit)
{
    stream_limit = limit;
}

bool stream_has_room(void)
{
    return __atomic_load_n(&open_streams, __ATOMIC_RELAXED) < stream_limit;
}

/* ---- what the streams of a loop share ---- */

struct stream_loop *stream_loop(void)
{
    struct loop *loop = loop_self();
    if (UNLIKELY(!loop->slots[LOOP_STREAM])) {
        struct stream_loop *shared = mem_zalloc(sizeof *shared);
        list_init(&shared->handshakes);
        loop->slots[LOOP_STREAM] = shared;
    }
    return loop->slots[LOOP_STREAM];
}

struct buf stream_spare_take(void)
{
    struct stream_loop *shared = stream_loop();
    return shared->spare_count ? shared->spares[--shared->spare_count] : (struct buf){0};
}

void stream_spare_give(struct buf *buffer)
{
    struct stream_loop *shared = stream_loop();
    if (buffer->at && buffer->capacity <= SPARE_MAX && shared->spare_count < ARRAY_SIZE(shared->spares)) {
        buffer->size = 0;
        shared->spares[shared->spare_count++] = *buffer;
        *buffer = (struct buf){0};
        return;
    }
    buf_clear(buffer);
}

void stream_close_loop(struct loop *loop)
{
    struct stream_loop *shared = loop->slots[LOOP_STREAM];
    if (!shared)
        return;
    CHECK(list_empty(&shared->handshakes) && shared->handshakes_running == 0);
    while (shared->spare_count)
        buf_clear(&shared->spares[--shared->spare_count]);
    free(shared);
    loop->slots[LOOP_STREAM] = NULL;
}

/* ---- life ---- */

static void on_flush(struct flush *flush)
{
    stream_flush(CONTAINER_OF(flush, struct stream, flush));
}

struct stream *stream_new(struct loop *loop, const struct stream_events *events, void *owner)
{
    struct stream *stream = mem_zalloc(sizeof *stream);
    MAGIC_SET(stream, STREAM_MAGIC);
    stream->loop = loop;
    stream->events = events;
    stream->owner = owner;
    stream->flush.run = on_flush;
    list_init(&stream->flush.link);
    list_init(&stream->server_link);
    CHECK(uv_tcp_init(&loop->uv, &stream->tcp) == 0);
    stream->tcp.data = stream;
    __atomic_add_fetch(&open_streams, 1, __ATOMIC_RELAXED);
    return stream;
}

void stream_own(struct stream *stream, const struct stream_events *events, void *owner)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    stream->events = events;
    stream->owner = owner;
}

/* The socket is closed and no thread works on its TLS any more. */
void stream_free_if_done(struct stream *stream)
{
    if (!stream->closed || stream_tls_is_working(stream))
        return;
    stream->events->closed(stream);
    if (stream->released)
        stream->released(stream);
    stream_tls_free(stream);
    stream_spare_give(&stream->out);
    stream_spare_give(&stream->sending);
    MAGIC_CLEAR(stream);
    __atomic_sub_fetch(&open_streams, 1, __ATOMIC_RELAXED);
    free(stream);
}

static void on_closed(uv_handle_t *handle)
{
    struct stream *stream = handle->data;
    stream->closed = true;
    stream_free_if_done(stream);
}

void stream_close(struct stream *stream)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    if (stream->closing)
        return;
    stream->closing = true;
    stream->write_deadline_ms = 0;
    stream_tls_forget(stream);
    loop_flush_forget(&stream->flush);
    uv_close((uv_handle_t *)&stream->tcp, on_closed);
}

int stream_accept(struct stream *stream, uv_stream_t *listener)
{
    int result = uv_accept(listener, (uv_stream_t *)&stream->tcp);
    if (result == 0)
        uv_tcp_nodelay(&stream->tcp, 1);
    return result;
}

struct connecting {
    uv_connect_t request;
    struct wait wait;
    bool abandoned;
};

static void on_connected(uv_connect_t *request, int status)
{
    struct connecting *connecting = CONTAINER_OF(request, struct connecting, request);
    if (connecting->abandoned)
        free(connecting);
    else
        wait_done(&connecting->wait, status);
}

int stream_connect(struct stream *stream, const struct sockaddr *address, uint64_t deadline_ns)
{
    if (__atomic_load_n(&open_streams, __ATOMIC_RELAXED) > stream_limit + config->descriptor_reserve / 2)
        return -EMFILE;
    /* Not on the stack: libuv keeps it until its callback, which comes after the wait has been given up. */
    struct connecting *connecting = mem_zalloc(sizeof *connecting);
    int result = uv_tcp_connect(&connecting->request, &stream->tcp, address, on_connected);
    if (result) {
        free(connecting);
        return result;
    }
    result = wait_for(&connecting->wait, "connect", deadline_ns);
    if (connecting->wait.done)
        free(connecting);
    else
        connecting->abandoned = true;
    if (result == 0)
        uv_tcp_nodelay(&stream->tcp, 1);
    return result;
}

/* ---- output ---- */

struct buf *stream_out(struct stream *stream)
{
    if (!stream->out.at)
        stream->out = stream_spare_take();
    return &stream->out;
}

size_t stream_queued(const struct stream *stream)
{
    return stream->out.size + stream->sending_left + stream_tls_queued(stream);
}

void stream_flush_later(struct stream *stream)
{
    if (!stream->closing)
        loop_flush_later(stream->loop, &stream->flush);
}

/* Clients' bytes: those of streams that a server has accepted. */
static void count_out(const struct stream *stream, int64_t bytes)
{
    if (stream->server)
        metric_add(M_BYTES_OUT, bytes);
}

static void on_written(uv_write_t *write, int status)
{
    struct stream *stream = write->data;
    stream->writing = false;
    if (status == 0)
        count_out(stream, (int64_t)stream->sending_left);
    stream->sending_left = 0;
    stream_spare_give(&stream->sending);
    if (stream->closing)
        return;
    if (status < 0)
        stream->events->failed(stream, status);
    else
        stream_flush_later(stream);
}

/* What the kernel did not take of `wire`, from `sent` on. */
static void send_rest(struct stream *stream, struct buf *wire, size_t sent)
{
    stream->sending = *wire;
    *wire = (struct buf){0};
    stream->sending_left = stream->sending.size - sent;
    stream->write.data = stream;
    stream->writing = true;
    stream->write_left = stream->sending_left;
    stream->write_deadline_ms = uv_now(&stream->loop->uv) + (uint64_t)config->write_timeout_s * 1000;
    uv_buf_t rest = uv_buf_init(stream->sending.at + sent, (unsigned)stream->sending_left);
    int result = uv_write(&stream->write, (uv_stream_t *)&stream->tcp, &rest, 1, on_written);
    if (result) {
        stream->writing = false;
        stream->sending_left = 0;
        stream->events->failed(stream, result);
    }
}

/* False when something is left, or it failed. */
static bool send_wire(struct stream *stream, struct buf *wire)
{
    uv_buf_t all = uv_buf_init(wire->at, (unsigned)wire->size);
    int sent = uv_try_write((uv_stream_t *)&stream->tcp, &all, 1);
    if (sent < 0 && sent != UV_EAGAIN) {
        stream->events->failed(stream, sent);
        return false;
    }
    sent = sent < 0 ? 0 : sent;
    count_out(stream, sent);
    if ((size_t)sent < wire->size) {
        send_rest(stream, wire, (size_t)sent);
        return false;
    }
    return true;
}

bool stream_send_now(struct stream *stream)
{
    if (stream->closing || stream->writing)
        return false;
    struct buf *wire = stream->tls ? stream_tls_wire(stream) : &stream->out;
    if (wire && wire->size) {
        if (!send_wire(stream, wire))
            return false;
        stream_spare_give(wire);
    }
    return true;
}

void stream_flush(struct stream *stream)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    if (stream->events->flushing)
        stream->events->flushing(stream);
    if (stream->closing)
        return;
    if (stream->tls)
        stream_tls_go(stream);
    if (!stream_send_now(stream))
        return;
    stream->write_deadline_ms = 0;
    if (stream->events->flushed && stream_queued(stream) == 0)
        stream->events->flushed(stream);
}

bool stream_is_stalled(struct stream *stream, uint64_t now_ms)
{
    if (!stream->write_deadline_ms)
        return false;
    size_t left = uv_stream_get_write_queue_size((uv_stream_t *)&stream->tcp);
    if (left < stream->write_left) {
        stream->write_left = left;
        stream->write_deadline_ms = now_ms + (uint64_t)config->write_timeout_s * 1000;
    }
    return now_ms >= stream->write_deadline_ms;
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    (void)status;
    free(request);
}

int stream_shutdown(struct stream *stream)
{
    if (stream->closing)
        return -ECANCELED;
    if (stream->tls) {
        stream_tls_goodbye(stream);
        stream_flush(stream);
        if (stream->closing)
            return -ECANCELED;
    }
    uv_shutdown_t *request = mem_alloc(sizeof *request);
    int result = uv_shutdown(request, (uv_stream_t *)&stream->tcp, on_shutdown);
    if (result)
        free(request);
    return result;
}

/* ---- input ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(stream_loop()->read, STREAM_READ_SIZE);
}

/* libuv says EOF for a reset as well when it has just read bytes. EPIPE: a reset after the peer's end in order. */
static int end_error(const struct stream *stream)
{
    uv_os_fd_t descriptor;
    int error = 0;
    socklen_t size = sizeof error;
    if (uv_fileno((const uv_handle_t *)&stream->tcp, &descriptor) == 0)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == EPIPE ? 0 : -error;
}

static void on_read(uv_stream_t *handle, ssize_t count, const uv_buf_t *buffer)
{
    struct stream *stream = handle->data;
    if (count == 0)
        return;
    if (count < 0) {
        stream->reading = false;
        stream_say_ended(stream, count == UV_EOF ? end_error(stream) : (int)count);
        return;
    }
    if (stream->server)
        metric_add(M_BYTES_IN, count);
    if (stream->tls)
        stream_tls_bytes(stream, buffer->base, (size_t)count);
    else
        stream->events->bytes(stream, buffer->base, (size_t)count);
}

void stream_say_ended(struct stream *stream, int error)
{
    if (stream->ended || stream->closing)
        return;
    stream->ended = true;
    if (stream->reading) {
        stream->reading = false;
        uv_read_stop((uv_stream_t *)&stream->tcp);
    }
    stream->events->ended(stream, error);
}

void stream_update_reading(struct stream *stream)
{
    if (stream->closing || stream->ended)
        return;
    bool want = stream->wants_read && !stream_tls_is_full(stream);
    if (want == stream->reading)
        return;
    stream->reading = want;
    if (want)
        uv_read_start((uv_stream_t *)&stream->tcp, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&stream->tcp);
}

void stream_read(struct stream *stream, bool wanted)
{
    if (wanted == stream->wants_read)
        return;
    stream->wants_read = wanted;
    if (wanted && stream->tls)
        stream_flush_later(stream); /* there may be text that was decrypted but not wanted */
    stream_update_reading(stream);
}
