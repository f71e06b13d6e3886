#ifndef CORE_NET_FETCH_LOOP_H
#define CORE_NET_FETCH_LOOP_H

#include "core/base/list.h"
#include "core/run/fiber.h"

#include <curl/curl.h>
#include <stdbool.h>

/* libcurl's multi interface on the loop: what core/net/fetch.c stands on, and nobody else. */

struct fetch_watch;

/* One on each loop that fetches. */
struct fetch_client {
    unsigned magic;
    struct loop *loop;
    CURLM *multi;
    uv_timer_t timer;
    struct flush kick;
    bool kicking;
    struct link starting; /* transfers that libcurl has not been given yet */
    struct link pooled;   /* fetch.c's: calls to be used again */
    unsigned pooled_count;
    unsigned transfers;           /* in work */
    struct fetch_watch **watches; /* by descriptor */
    size_t watches_size;
    unsigned handles;    /* libuv's, until their close callbacks */
    struct wait *closed; /* of who closes the client */
};

/* One request on its way. Zero-initialise but for `client`, `easy` and `repeatable`. */
struct fetch_transfer {
    struct link link;
    struct fetch_client *client;
    CURL *easy;
    struct wait wait; /* done when `code` is there */
    CURLcode code;
    int opened;    /* the descriptor opened last for it, or -1 */
    unsigned sent; /* how often the request was begun to be sent */
    bool repeatable;
    bool repeat_refused; /* a second sending was stopped */
    bool in_multi;
};

/* The calling thread's; made at the first call. */
struct fetch_client *fetch_client_self(void);

/* No transfer is left. On a fiber, waits; otherwise the loop closes the handles in its next turn. */
void fetch_client_close(struct fetch_client *client);

/* Sets what libcurl calls for sockets. Begins at the end of this turn of the loop. */
void fetch_transfer_start(struct fetch_transfer *transfer);

/* Takes it out; when it is in the middle of something that closes its connection at once. */
void fetch_transfer_stop(struct fetch_transfer *transfer);

#endif
