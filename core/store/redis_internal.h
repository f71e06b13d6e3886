/*
 * What the files of the Redis client share; nobody else includes it.
 *
 *   redis.c             the calls of redis.h that a fiber makes, and the loop's state
 *   redis_connection.c  one connection: commands out, replies in, deadlines, its end
 *   redis_connect.c     how a connection comes up
 *   redis_reply.c       words into bytes, bytes into replies
 *   redis_address.c     REDIS_URL
 *   redis_script.c      EVALSHA and its memory of what is loaded
 *   redis_subscribe.c   publish and subscribe
 */
#ifndef CORE_STORE_REDIS_INTERNAL_H
#define CORE_STORE_REDIS_INTERNAL_H

#include "core/run/fiber.h"
#include "core/store/redis.h"
#include "core/store/table.h"

struct redisReader;

/* ---- redis_address.c ---- */

struct redis_address {
    bool is_unix;
    char *host; /* or the socket's path */
    char *port;
    char *user;     /* NULL: Redis's default user */
    char *password; /* NULL: none is asked for */
    uint64_t database;
};

/* 0, or -EINVAL with a line in `error` that shows nothing of the URL but its scheme. */
int redis_address_parse(struct redis_address *address, const char *url, char *error, size_t error_size)
    MUST_USE;
/* Wipes the password. */
void redis_address_clear(struct redis_address *address);

/* ---- redis.c ---- */

enum { REDIS_READ_SIZE = 65536 };

struct redis_subscriber;

/* In LOOP_REDIS of every loop that has Redis open. */
struct redis_loop {
    struct loop *loop;
    struct redis_address address;
    struct redis *shared;
    struct redis_subscriber *subscriber; /* NULL before the first subscription */
    char read_buffer
        [REDIS_READ_SIZE]; /* libuv fills it and hands it over in one go, so that one does for all */
};

struct redis_loop *redis_loop_self(void);

/* ---- redis_connection.c ---- */

/* Commands that somebody waits for together. It lives on the waiting fiber's stack, so that it is taken out of
 * the connection's queue (redis_connection_forget) before that fiber goes on without an answer. */
struct redis_batch {
    struct wait wait;
    void (*on_done)(struct redis *redis); /* called in place of waking a fiber, when all have answered */
    struct arena *arena;
    struct redis_step *steps;
    size_t count;
    size_t left;    /* not yet answered */
    uint64_t first; /* the number of its first command on the connection */
};

/* A command that was sent and not yet answered. */
struct redis_pending {
    struct redis_batch *batch; /* NULL: nobody waits, the answer is dropped */
    uint64_t deadline_ns;
};

enum redis_state {
    REDIS_STATE_RESTING,
    REDIS_STATE_RESOLVING,
    REDIS_STATE_CONNECTING,
    REDIS_STATE_GREETING,
    REDIS_STATE_UP,
    REDIS_STATE_CLOSING
};

/* A fiber in redis_wait_ready. */
struct redis_ready_place {
    struct link link;
    struct wait wait;
};

enum { REDIS_GREETING_MOST = 5, REDIS_MAGIC = 0x72656469 };

struct redis {
    unsigned magic;
    enum redis_state state;
    struct redis_loop *owner;
    char *name;
    uint64_t timeout_ms;

    /* handles; `busy` counts those that are not closed yet, and the request for an address */
    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;
    uv_timer_t timer;
    uv_connect_t connect;
    uv_write_t write;
    uv_getaddrinfo_t resolve;
    unsigned busy;
    bool closing;
    struct wait *closed;

    /* out */
    struct flush flush;
    struct buf out;     /* this turn's commands */
    struct buf writing; /* what the socket had no room for; libuv has it */

    /* Commands are numbered; those from `head` on wait for an answer, in a ring that has number n at n % size. */
    struct redis_pending *ring;
    size_t ring_size; /* a power of two, or 0 */
    uint64_t head;
    uint64_t tail;
    uint64_t expired; /* all before this number have been given up */

    /* in */
    struct redisReader *reader;
    bool reader_is_large; /* its buffer has grown for an unusual reply */
    bool reader_is_empty; /* it ended with the last byte of a reply */
    uint64_t received_ns; /* when the last byte came */
    bool looked_again;    /* a deadline has passed and the socket was read since */
    uint64_t told_ns;     /* when an error that nobody waited for was last logged */

    /* away and back */
    struct link waiting_ready;
    unsigned failures;
    unsigned address_index; /* which of the host's addresses is tried */
    uint64_t up_since_ns;
    const char *failed_why; /* the last line that was logged about it */
    uint64_t failed_told_ns;
    struct arena greeting_arena;
    struct redis_batch greeting;
    struct redis_step greeting_steps[REDIS_GREETING_MOST];
    const char *greeting_why[REDIS_GREETING_MOST]; /* what a refusal means; NULL: nothing */

    char (*script_hashes)[41]; /* by index of embedded_scripts; "" where not known on this connection */

    /* of a connection that subscribes */
    void (*on_up)(struct redis *redis);
    void (*on_push)(struct redis *redis, const struct redis_value *value);
    void *listener;
    struct arena push_arena;
    struct redis_value push;
    uint64_t pinged_ns;
};

/* Begins to connect, and goes on for as long as it is not closed. */
struct redis *redis_connection_new(struct redis_loop *owner, const char *name, uint64_t timeout_ms);
/* What waits gets -ENOTCONN. Waits until all handles are closed, then frees it. */
void redis_connection_close(struct redis *redis);

/* Adds a command to what leaves at the end of the turn. `batch` may be NULL. Only while it is up or greeting. */
void redis_connection_add(struct redis *redis, const struct str *args, size_t count,
                          struct redis_batch *batch);
/* The same for all steps of a batch. */
void redis_connection_add_batch(struct redis *redis, struct redis_batch *batch);
/* Nobody waits for the batch any more: its unanswered steps get `result`. */
void redis_connection_forget(struct redis *redis, struct redis_batch *batch, int result);
/* Adds a command whose answers come as pushes. */
void redis_connection_add_push(struct redis *redis, const struct str *args, size_t count);

/* For redis_connect.c: */

void redis_timer_start(struct redis *redis, uint64_t ms);
/* Begins to read from the socket: 0 or libuv's error. */
int redis_read_start(struct redis *redis) MUST_USE;
/* How long a subscribed connection may be silent before it is asked for a sign of life. */
uint64_t redis_silence_ms(const struct redis *redis);
/* The attempt ended before there was a socket: says so in the log and rests. `why` is a literal; it tells one
 * failure from another. */
void redis_unreachable(struct redis *redis, const char *why, struct str detail);
/* The one way out of a connection that Redis, the network or time has ended: what waits gets -ECONNRESET. */
void redis_broken(struct redis *redis, const char *why, struct str detail);
void redis_broken_by(struct redis *redis, const char *why, int uv_error);
/* One of the handles is closed. */
void redis_release(struct redis *redis);

/* ---- redis_connect.c ---- */

/* Begins an attempt. */
void redis_connect(struct redis *redis);

/* ---- redis_reply.c ---- */

/* Appends the command as RESP. */
void redis_encode(struct buf *out, const struct str *args, size_t count);

/* Takes bytes in; false when they are no RESP. */
bool redis_reader_feed(struct redis *redis, const char *bytes, size_t size) MUST_USE;
/* 1: a reply is complete and stands in the oldest pending command's step (or in redis->push); 0: more bytes are
 * needed; -EPROTO: they are no RESP. */
int redis_reader_next(struct redis *redis) MUST_USE;
/* Gives memory back that an unusually large reply has taken, once it is not in use. */
void redis_reader_shrink(struct redis *redis);
void redis_reader_free(struct redis *redis);

/* ---- redis_subscribe.c ---- */

struct redis_subscriber {
    struct redis *redis;
    struct table subscriptions;
};

/* NULL is fine. Waits. */
void redis_subscriber_close(struct redis_subscriber *subscriber);

/* The text of schema/NAME.lua (redis_script.c). */
struct str redis_script_text(const char *name);

#endif
