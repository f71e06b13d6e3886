#ifndef CORE_NET_TUNNEL_H
#define CORE_NET_TUNNEL_H

#include "core/net/stream.h"

/*
 * Two streams coupled: what comes in at one goes out at the other, with backpressure (a side is read only while the other
 * has less than 256 KiB to take). No fiber, no timer. When one side ends in order the other is shut down once it has all.
 * Both are closed when both have ended, when one fails or takes nothing for config->write_timeout_s, and when one has
 * ended and the other is silent for config->proxy_timeout_s.
 */

struct tunnel_options {
    bool frames; /* WebSocket: only data frames are reported, not pings; otherwise any bytes */
    /* Data has passed, in either direction; at most once for each batch of bytes. */
    void (*active)(void *arg);
    /* Both sides are closed, or about to be: the last call. Never from within tunnel_open. `bytes_in` came from the client. */
    void (*ended)(void *arg, uint64_t bytes_in, uint64_t bytes_out);
    void *arg;
};

/* Owns both streams from now on; `client` is its server's, so it drains with it: a tunnel that is drained is given until the
 * drain's end and then cut. `early_client` and `early_pod` are bytes that were read before and are still to be passed on; both
 * buffers are taken. */
void tunnel_open(struct stream *client, struct buf *early_client, struct stream *pod, struct buf *early_pod,
                 const struct tunnel_options *options);

#endif
