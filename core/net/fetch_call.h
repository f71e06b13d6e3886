#ifndef CORE_NET_FETCH_CALL_H
#define CORE_NET_FETCH_CALL_H

#include "core/net/fetch.h"
#include "core/net/fetch_loop.h"

/* One request and its answer for libcurl: what core/net/fetch.c stands on, and nobody else. */

struct fetch_call {
    struct fetch_transfer transfer;
    const struct fetch_request *request;
    bool own_authorities; /* the easy handle trusts others than the system's */
    struct buf body;      /* has come and was not handed out */
    struct buf given;     /* a stream's: what its reader has */
    size_t taken;         /* bytes of the body, in all */
    size_t window;        /* a body waits at this size; SIZE_MAX: never */
    bool answered;        /* a line of an answer has come */
    bool head_done;       /* its whole header has */
    bool wakes;           /* the wait is done also by what comes, and not only by the end */
    enum {
        FETCH_TAKEN,
        FETCH_CUT,       /* at max_body_bytes, as the request wishes */
        FETCH_TOO_LARGE, /* header or body */
        FETCH_CODED,     /* in a way that was not asked for */
    } refused;
    int status;
    size_t head_size; /* of all header lines */
    struct buf kept;  /* names and values that are wanted */
    unsigned kept_count;
    struct {
        size_t name_size;
        size_t value_size;
    } kept_sizes[FETCH_HEADERS_MAX];
    uint64_t started_ns;
    uint64_t first_ns;
};

/* Begins it; -EINVAL: there is nothing to close. */
int fetch_call_open(const struct fetch_request *request, struct arena *arena, struct fetch_call **call)
    MUST_USE;

/* Waits until the header is there, or there will be none. */
int fetch_call_wait_head(struct fetch_call *call) MUST_USE;

/* Waits for the end, and with `wakes` for more. */
int fetch_call_wait(struct fetch_call *call, const char *what, uint64_t deadline_ns) MUST_USE;

/* What came of it: 0 for an answer up to its end. */
int fetch_call_result(const struct fetch_call *call);

/* All of the answer but its body, in the arena. */
void fetch_call_head(const struct fetch_call *call, struct arena *arena, struct fetch_answer *answer);
void fetch_call_times(const struct fetch_call *call, struct fetch_times *times);

uint64_t fetch_call_ends_ns(const struct fetch_call *call);

/* Stops it unless it has ended. */
void fetch_call_close(struct fetch_call *call);

/* Once per process. */
void fetch_calls_init(void);

/* Frees what is kept for later calls. */
void fetch_calls_clear(struct fetch_client *client);

#endif
