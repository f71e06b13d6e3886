/*
 * TLS on a stream. The engine (proto/tls.h) does no I/O: this feeds it and sends what it gives.
 *
 *   first bytes ──▶ HANDSHAKE ──(steps, each on the thread pool, at most config->tls_handshakes of a loop at once)──▶ SECURE
 *
 * A step of a full handshake costs a millisecond or two, which would stall every other connection of the loop. Which step is
 * the dear one can't be told before it is made, so all go to the pool. While one is there nobody else touches the session;
 * what comes in meanwhile waits.
 */
#include "core/net/stream_internal.h"

#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "proto/tls.h"

#include <errno.h>
#include <stdlib.h>

enum { FED_MAX = 128 * 1024 /* ciphertext held that was not decrypted */ };

struct stream_tls {
    struct stream *stream;
    struct tls *session;
    struct tls_context *context;
    struct link link; /* in stream_loop.handshakes while it waits */
    uv_work_t work;
    struct buf early; /* came while a thread had the session */
    int result;       /* of the step */
    enum stream_tls_state state;
    bool working;
    bool failed;
    bool said_goodbye;
};

static void begin_step(struct stream_tls *tls);

enum stream_tls_state stream_tls_state(const struct stream *stream)
{
    return stream->tls ? stream->tls->state : STREAM_PLAIN;
}

void stream_start_tls(struct stream *stream, struct tls_context *context, const char *bytes, size_t size)
{
    struct stream_tls *tls = mem_zalloc(sizeof *tls);
    CHECK(!stream->tls && stream_queued(stream) == 0);
    tls->stream = stream;
    tls->context = tls_context_ref(context);
    tls->session = tls_new(context);
    tls->state = STREAM_HANDSHAKE;
    list_init(&tls->link);
    stream->tls = tls;
    stream_tls_bytes(stream, bytes, size);
}

/* ---- the handshake ---- */

static void run_step(uv_work_t *work)
{
    struct stream_tls *tls = CONTAINER_OF(work, struct stream_tls, work);
    tls->result = tls_handshake(tls->session);
}

static void count_handshake(const struct stream_tls *tls)
{
    enum { FULL, RESUMED, FAILED };
    metric_add_slot(M_TLS_HANDSHAKES,
                    tls->result < 0             ? FAILED
                    : tls_resumed(tls->session) ? RESUMED
                                                : FULL,
                    1);
    if (tls->result < 0 && log_enabled(LOG_DEBUG))
        LOG(DEBUG, "TLS handshake failed", LOG_TEXT("why", tls_error_text(tls->session)));
}

static void next_step(struct stream_loop *shared)
{
    shared->handshakes_running--;
    struct link *next = list_pop_front(&shared->handshakes);
    if (next)
        begin_step(LIST_ENTRY(next, struct stream_tls, link));
}

/* Sends what the engine has to say of it (an alert), then it is over. */
static void fail(struct stream_tls *tls)
{
    struct stream *stream = tls->stream;
    tls->failed = true;
    stream_send_now(stream);
    stream_say_ended(stream, -EPROTO);
}

static void on_step_done(uv_work_t *work, int status)
{
    (void)status;
    struct stream_tls *tls = CONTAINER_OF(work, struct stream_tls, work);
    struct stream *stream = tls->stream;
    tls->working = false;
    next_step(stream_loop());
    if (stream->closing) {
        stream_free_if_done(stream);
        return;
    }
    if (tls->early.size) {
        tls_feed(tls->session, tls->early.at, tls->early.size);
        stream_spare_give(&tls->early);
    }
    if (tls->result != 0)
        count_handshake(tls);
    if (tls->result < 0) {
        fail(tls);
        return;
    }
    if (tls->result == 1)
        tls->state = STREAM_SECURE;
    /* The flush sends what there is to send, and goes on with what has come meanwhile. */
    stream_flush_later(stream);
    stream_update_reading(stream);
}

static void begin_step(struct stream_tls *tls)
{
    stream_loop()->handshakes_running++;
    tls->working = true;
    CHECK(uv_queue_work(&tls->stream->loop->uv, &tls->work, run_step, on_step_done) == 0);
}

static void ask_for_step(struct stream_tls *tls)
{
    struct stream_loop *shared = stream_loop();
    if (tls->working || tls_pending(tls->session) == 0 || !list_empty(&tls->link))
        return;
    if (shared->handshakes_running < (unsigned)config->tls_handshakes)
        begin_step(tls);
    else
        list_push_back(&shared->handshakes, &tls->link);
}

/* ---- bytes ---- */

static void decrypt(struct stream_tls *tls)
{
    struct stream *stream = tls->stream;
    struct stream_loop *shared = stream_loop();
    while (stream->wants_read && !stream->closing && !stream->ended && stream->tls == tls) {
        ssize_t size = tls_read(tls->session, shared->text, sizeof shared->text);
        if (size == 0)
            return;
        if (size == -ECONNRESET) {
            stream_say_ended(stream, 0);
            return;
        }
        if (size < 0) {
            fail(tls);
            return;
        }
        stream->events->bytes(stream, shared->text, (size_t)size);
    }
}

void stream_tls_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct stream_tls *tls = stream->tls;
    if (tls->working)
        buf_add(&tls->early, bytes, size);
    else
        tls_feed(tls->session, bytes, size);
    stream_tls_go(stream);
    if (stream->closing)
        return;
    if (stream_tls_queued(stream))
        stream_flush_later(stream);
    stream_update_reading(stream);
}

void stream_tls_go(struct stream *stream)
{
    struct stream_tls *tls = stream->tls;
    if (tls->working || tls->failed)
        return;
    if (tls->state == STREAM_HANDSHAKE) {
        ask_for_step(tls);
        return;
    }
    decrypt(tls);
    if (stream->closing || tls->failed)
        return;
    if (stream->out.size && !tls->said_goodbye) {
        int result = tls_write(tls->session, stream->out.at, stream->out.size);
        stream_spare_give(&stream->out);
        if (result) {
            tls->failed = true;
            stream->events->failed(stream, result);
            return;
        }
    }
    stream_update_reading(stream);
}

struct buf *stream_tls_wire(struct stream *stream)
{
    return stream->tls->working ? NULL : tls_output(stream->tls->session);
}

size_t stream_tls_queued(const struct stream *stream)
{
    const struct stream_tls *tls = stream->tls;
    return tls && !tls->working ? tls_output(tls->session)->size : 0;
}

bool stream_tls_is_full(const struct stream *stream)
{
    const struct stream_tls *tls = stream->tls;
    if (!tls)
        return false;
    return (tls->working ? tls->early.size : tls_pending(tls->session)) >= FED_MAX;
}

void stream_tls_goodbye(struct stream *stream)
{
    struct stream_tls *tls = stream->tls;
    if (tls->working || tls->failed || tls->said_goodbye || tls->state != STREAM_SECURE)
        return;
    tls->said_goodbye = true;
    tls_say_goodbye(tls->session);
}

/* ---- the end ---- */

bool stream_tls_is_working(const struct stream *stream)
{
    return stream->tls && stream->tls->working;
}

void stream_tls_forget(struct stream *stream)
{
    if (stream->tls && !list_empty(&stream->tls->link))
        list_remove(&stream->tls->link);
}

void stream_tls_free(struct stream *stream)
{
    struct stream_tls *tls = stream->tls;
    if (!tls)
        return;
    stream_spare_give(&tls->early);
    tls_free(tls->session);
    tls_context_unref(tls->context);
    free(tls);
    stream->tls = NULL;
}
