/*
 * Two coupled streams: see tunnel.h. Everything happens in the streams' callbacks.
 *
 * What ends a tunnel: both sides have ended and all has been passed on; one side fails, stalls, or is cut by the drain;
 * or one side has ended and the other is silent for config->proxy_timeout_s, as it is after a client that is gone and
 * not only done with sending.
 */
#include "core/net/tunnel.h"

#include "core/base/config.h"
#include "proto/websocket.h"

#include <stdlib.h>

enum { TUNNEL_MAGIC = 0x74756e6e, QUEUE_MAX = 256 * 1024, FLUSH_SIZE = 64 * 1024 };

struct side {
    struct tunnel *tunnel;
    struct side *other;
    struct stream *stream;
    struct websocket_scan scan; /* of what comes from here */
    uint64_t bytes;             /* that came from here */
    bool ended;                 /* no more will come from here */
    bool shut;                  /* no more will go to here, and it was told so */
    bool closed;
};

struct tunnel {
    unsigned magic;
    struct side client;
    struct side pod;
    struct tunnel_options options;
    uint64_t half_deadline_ms; /* while one side has ended; uv_now() terms */
    uint64_t half_bytes;       /* passed when it was set */
    bool closing;
};

/* The side of a stream, NULL when its tunnel takes no part in events any more. */
static struct side *side_of(struct stream *stream)
{
    struct side *side = stream->owner;
    MAGIC_CHECK(side->tunnel, TUNNEL_MAGIC);
    return side->tunnel->closing ? NULL : side;
}

/* ---- the end ---- */

static void close_both(struct tunnel *tunnel)
{
    tunnel->closing = true;
    stream_close(tunnel->client.stream);
    stream_close(tunnel->pod.stream);
    tunnel->options.ended(tunnel->options.arg, tunnel->client.bytes, tunnel->pod.bytes);
}

/* One side is gone. What the other still has to get is tried once. */
static void side_failed(struct side *side)
{
    side->tunnel->closing = true;
    stream_flush(side->other->stream);
    close_both(side->tunnel);
}

static void on_closed(struct stream *stream)
{
    struct side *side = stream->owner;
    struct tunnel *tunnel = side->tunnel;
    MAGIC_CHECK(tunnel, TUNNEL_MAGIC);
    side->closed = true;
    if (!side->other->closed)
        return;
    MAGIC_CLEAR(tunnel);
    free(tunnel);
}

/* ---- passing on ---- */

/* Adds it to the other side's output. */
static void pass(struct side *from, const char *bytes, size_t size)
{
    const struct tunnel_options *options = &from->tunnel->options;
    from->bytes += size;
    if (!options->frames || websocket_scan(&from->scan, bytes, size))
        options->active(options->arg);
    buf_add(stream_out(from->other->stream), bytes, size);
}

static void on_bytes(struct stream *stream, const char *bytes, size_t size)
{
    struct side *side = side_of(stream);
    if (!side)
        return;
    struct stream *to = side->other->stream;
    pass(side, bytes, size);
    if (stream_out(to)->size < FLUSH_SIZE)
        stream_flush_later(to);
    else
        stream_flush(to); /* while it is warm, and while the buffer is one of those that are kept */
    if (!side->tunnel->closing && stream_queued(to) >= QUEUE_MAX)
        stream_read(stream, false);
}

/* Tells the side that no more will come, once it has all and the other side has ended. */
static void shut_if_done(struct side *side)
{
    struct tunnel *tunnel = side->tunnel;
    if (!side->other->ended || side->shut || stream_queued(side->stream))
        return;
    side->shut = true;
    int result = stream_shutdown(side->stream);
    if (tunnel->closing) /* it has failed meanwhile */
        return;
    if (result)
        side_failed(side);
    else if (side->other->shut)
        close_both(tunnel);
}

static void on_flushed(struct stream *stream)
{
    struct side *side = side_of(stream);
    if (!side)
        return;
    if (side->other->ended)
        shut_if_done(side);
    else
        stream_read(side->other->stream, true);
}

static void on_ended(struct stream *stream, int error)
{
    struct side *side = side_of(stream);
    if (!side)
        return;
    side->ended = true;
    if (error)
        side_failed(side);
    else
        shut_if_done(side->other);
}

static void on_failed(struct stream *stream, int error)
{
    struct side *side = side_of(stream);
    (void)error;
    if (side)
        side_failed(side);
}

/* ---- from the client's server ---- */

/* True when one side has ended and nothing has come from the other for too long. */
static bool is_half_dead(struct tunnel *tunnel, uint64_t now_ms)
{
    uint64_t bytes = tunnel->client.bytes + tunnel->pod.bytes;
    if (!tunnel->client.ended && !tunnel->pod.ended)
        return false;
    if (!tunnel->half_deadline_ms || bytes != tunnel->half_bytes) {
        tunnel->half_deadline_ms = now_ms + (uint64_t)config->proxy_timeout_s * 1000;
        tunnel->half_bytes = bytes;
    }
    return now_ms >= tunnel->half_deadline_ms;
}

static void on_sweep(struct stream *client, uint64_t now_ms)
{
    struct side *side = side_of(client);
    if (!side)
        return;
    struct tunnel *tunnel = side->tunnel;
    if (stream_is_stalled(client, now_ms) || stream_is_stalled(tunnel->pod.stream, now_ms) ||
        is_half_dead(tunnel, now_ms))
        close_both(tunnel);
}

static void on_cut(struct stream *client)
{
    struct side *side = side_of(client);
    if (side)
        close_both(side->tunnel);
}

static const struct stream_events tunnel_events = {
    .bytes = on_bytes,
    .ended = on_ended,
    .flushed = on_flushed,
    .failed = on_failed,
    .sweep = on_sweep,
    .cut = on_cut,
    .closed = on_closed,
};

static void side_open(struct side *side, struct stream *stream, struct side *other, struct tunnel *tunnel)
{
    *side = (struct side){.tunnel = tunnel, .other = other, .stream = stream, .ended = stream->ended};
    stream_own(stream, &tunnel_events, side);
    stream_read(stream, true);
    /* For what is passed on at once; and without any, for `flushed` to see a side that had ended before. */
    stream_flush_later(stream);
}

void tunnel_open(struct stream *client, struct buf *early_client, struct stream *pod, struct buf *early_pod,
                 const struct tunnel_options *options)
{
    struct tunnel *tunnel = mem_zalloc(sizeof *tunnel);
    MAGIC_SET(tunnel, TUNNEL_MAGIC);
    tunnel->options = *options;
    side_open(&tunnel->client, client, &tunnel->pod, tunnel);
    side_open(&tunnel->pod, pod, &tunnel->client, tunnel);
    if (early_client->size)
        pass(&tunnel->client, early_client->at, early_client->size);
    if (early_pod->size)
        pass(&tunnel->pod, early_pod->at, early_pod->size);
    stream_spare_give(early_client);
    stream_spare_give(early_pod);
}
