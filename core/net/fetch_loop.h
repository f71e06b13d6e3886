#ifndef CORE_NET_FETCH_LOOP_H
#define CORE_NET_FETCH_LOOP_H

#include "core/base/list.h"
#include "core/run/fiber.h"

#include <curl/curl.h>
#include <stdbool.h>

/* libcurl's multi interface on the loop: what core/net/fetch.c stands on, and nobody else. */

struct fetch_watch;

/* Connections that requests of one kind share: libcurl's multi handle, and what drives it. */
struct fetch_pool {
    unsigned magic;
    struct link link; /* the client's, the one that was used last first */
    struct fetch_client *client;
    char *name; /* or NULL */
    bool guard; /* all its connections were opened under the guard */
    unsigned connections_max;
    CURLM *multi;
    uv_timer_t timer;
    struct flush kick;
    bool kicking;
    struct link starting; /* transfers that libcurl has not been given yet */
    struct link resuming; /* that it shall go on with */
    unsigned transfers;   /* in work */
    uint64_t idle_since_ns;
};

/* One on each loop that fetches. */
struct fetch_client {
    unsigned magic;
    struct loop *loop;
    uv_timer_t sweep;
    struct link pools;
    unsigned pool_count;
    struct link kept; /* core/net/fetch_call.c's: calls to be used again */
    unsigned kept_count;
    struct fetch_watch **watches; /* by descriptor */
    size_t watches_size;
    unsigned handles;    /* libuv's, until their close callbacks */
    struct wait *closed; /* of who closes the client */
};

/* One request on its way, again and again. */
struct fetch_transfer {
    struct link link;
    struct fetch_client *client;
    struct fetch_pool *pool;
    CURL *easy;
    struct wait wait; /* done when it has ended, or earlier by who owns it */
    CURLcode code;    /* when it has ended */
    uint64_t sent_ns; /* it was begun to be sent; 0: was not */
    uint64_t ended_ns;
    int opened;    /* the descriptor opened last for it, or -1 */
    unsigned sent; /* how often the request was begun to be sent */
    bool guard;
    bool repeatable;
    bool repeat_refused;  /* a second sending was stopped */
    bool address_refused; /* by the guard, for one at least */
    bool paused;          /* a callback has said CURL_WRITEFUNC_PAUSE */
    bool in_multi;
    bool ended;
};

/* The calling thread's; made at the first call. */
struct fetch_client *fetch_client_self(void);

/* No transfer is left. On a fiber, waits; otherwise the loop closes the handles in its next turn. */
void fetch_client_close(struct fetch_client *client);

/* Closes the pools that nobody has used for so long; the client does it by itself from time to time. Without a transfer
 * libcurl does not look at a pool's connections: those that their peers have closed would stay. */
void fetch_client_sweep(struct fetch_client *client, uint64_t idle_ns);

/* Sets what libcurl calls for sockets, for good. It is zero but for `easy`. */
void fetch_transfer_init(struct fetch_transfer *transfer, struct fetch_client *client);

/* `guard` and `repeatable` are set. Begins at the end of this turn of the loop; the rest of the transfer is as new. */
void fetch_transfer_start(struct fetch_transfer *transfer, const char *pool, unsigned connections_max);

/* After a pause: goes on at the end of this turn. */
void fetch_transfer_resume(struct fetch_transfer *transfer);

/* Takes it out; when it is in the middle of something that closes its connection at once. */
void fetch_transfer_stop(struct fetch_transfer *transfer);

#endif
