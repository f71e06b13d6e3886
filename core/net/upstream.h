#ifndef CORE_NET_UPSTREAM_H
#define CORE_NET_UPSTREAM_H

#include "core/base/arena.h"
#include "core/net/stream.h"
#include "proto/http1_answer.h"

/*
 * A connection to a pod for a proxied request: streamed both ways, any size, with backpressure, on connections that are
 * kept and used again (per address, per loop). Beside libcurl (core/net/fetch.h) because a proxy must be able to pause
 * either direction and to go over into a tunnel, at a cost near the kernel's.
 */

struct upstream;

struct upstream_target {
    struct sockaddr_storage address; /* IPv4 or IPv6; zeros in what is not used */
    uint64_t generation; /* of the pod: a connection to an earlier pod at this address is not used */
};
void upstream_target_local(struct upstream_target *target, int port, uint64_t generation);

/*
 * A kept connection, or a new one. Waits. `reused` tells which: on a reused one the pod may be about to close, so a
 * request without effects (and with no body begun) may be sent again on a fresh one when it ends before the answer:
 * ask for that with `fresh`. 0, -ECONNREFUSED, -ETIMEDOUT, -ECANCELED, -EMFILE.
 */
int upstream_open(const struct upstream_target *target, bool fresh, uint64_t connect_timeout_ms,
                  struct upstream **upstream, bool *reused) MUST_USE;
/*
 * The request's bytes: head and body, framed by the caller. Gathers and leaves at the end of the turn. `last`: the request is
 * whole with these bytes; a connection whose request was not is never kept. Waits while the pod has 256 KiB or more to
 * take (not after the last): 0, -ECANCELED, -ECONNRESET (the pod has closed, there may still be an answer to read),
 * -ETIMEDOUT (it takes nothing for config->write_timeout_s).
 *
 * One fiber may send while another one reads the answer: a pod may answer as it reads. Whoever closes the upstream has
 * ended the other fiber's wait before.
 */
struct buf *upstream_out(struct upstream *upstream);
int upstream_send(struct upstream *upstream, bool last) MUST_USE;
/* The answer's head, into the arena. Waits. 0; -ECONNRESET: it closed before a byte of it; -EPROTO: it is none (logged);
 * -ETIMEDOUT, -ECANCELED. */
int upstream_head(struct upstream *upstream, struct arena *arena, bool to_head, uint64_t deadline_ns,
                  const struct http1_answer_head **head) MUST_USE;
/* The next piece of the answer's body, as much as is there: valid until the next call. Waits for some; an empty piece is the end.
 * The pod is not read while 256 KiB wait here. 0, -ECONNRESET (cut off), -EPROTO, -ETIMEDOUT, -ECANCELED. */
int upstream_body(struct upstream *upstream, uint64_t deadline_ns, struct str *piece) MUST_USE;
/* Whether the answer's body is complete in the piece given last: then upstream_body would give an empty one. */
bool upstream_is_done(const struct upstream *upstream);
/* After a head that switched: the stream, not being read, and in `early` what came behind the head. Both are the caller's,
 * who owns the stream (stream_own) before anything waits; it may have ended already (stream->ended). The upstream is gone. */
struct stream *upstream_take(struct upstream *upstream, struct buf *early);
/* Keeps the connection for the next request when the answer was read to its end and it may be; closes it otherwise. */
void upstream_close(struct upstream *upstream);

/* Closes the kept connections; none is open any more otherwise. On a fiber, waits. */
void upstream_close_loop(struct loop *loop);

#endif
