#ifndef CORE_STORE_REDIS_H
#define CORE_STORE_REDIS_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Redis, from fibers. A connection pipelines by itself: commands of one turn of the loop leave in one write, and
 * answers come back in order. It reconnects with backoff and jitter for as long as it is open.
 *
 * Errors of every call that waits:
 *   -ENOTCONN   Redis is away (at once: a command is not kept for later)
 *   -ECONNRESET the connection broke after the command was sent; it may or may not have been carried out
 *   -ETIMEDOUT  no answer within the timeout
 *   -EIO        Redis answered with an error; reply->text has it
 *   -ECANCELED  the fiber was cancelled; the command may still be carried out
 */

struct redis; /* one connection */

enum redis_type { REDIS_NIL, REDIS_STRING, REDIS_INTEGER, REDIS_ARRAY, REDIS_STATUS, REDIS_ERROR };

/* A reply, made in the arena that the caller gave. */
struct redis_value {
    enum redis_type type;
    int64_t integer;           /* of an INTEGER */
    struct str text;           /* of a STRING, STATUS or ERROR; NUL-terminated behind its size */
    struct redis_value *items; /* of an ARRAY */
    size_t count;
};

/*
 * Opens the loop's shared connection (config->redis_url) and begins to connect. A bad URL is -EINVAL with a line
 * in `error` that shows no password. Waits for nothing; redis_wait_ready does.
 */
int redis_open_loop(struct loop *loop, char *error, size_t error_size) MUST_USE;
/* Closes it: what waits gets -ENOTCONN. Waits until the handles are closed; on a fiber. */
void redis_close_loop(struct loop *loop);

/* The running loop's shared connection. */
struct redis *redis_shared(void);

/* A further connection to the same Redis, for blocking commands. `timeout_ms` is for each command. */
struct redis *redis_open(const char *name, uint64_t timeout_ms);
/* Waits until its handles are closed. */
void redis_close(struct redis *redis);

/* Waits until the connection is made: 0 or -ETIMEDOUT, -ECANCELED. */
int redis_wait_ready(struct redis *redis, uint64_t deadline_ns) MUST_USE;
bool redis_is_up(const struct redis *redis);

/* One command: `args` are the words, binary-safe. Waits. */
int redis_command(struct redis *redis, struct redis_value *reply, struct arena *arena, const struct str *args,
                  size_t count) MUST_USE;

#define REDIS_ARGS(...)                                                                                      \
    (const struct str[]){__VA_ARGS__}, sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str)
/* redis_call(redis, &reply, arena, STR("GET"), key) */
#define redis_call(redis, reply, arena, ...) redis_command((redis), (reply), (arena), REDIS_ARGS(__VA_ARGS__))

/* Sends without waiting for the answer; an error is counted and logged (rarely: at most once a second). Does
 * not wait and may be called from a callback. False when Redis is away. */
bool redis_send(struct redis *redis, const struct str *args, size_t count);

/* Several commands in one round trip. Each gets its own reply and result. Waits until all have answered. Returns
 * 0 or the first error that is not a command's own (-EIO is only in its result). */
struct redis_step {
    const struct str *args;
    size_t count;
    struct redis_value reply;
    int result;
};
int redis_steps(struct redis *redis, struct arena *arena, struct redis_step *steps, size_t count) MUST_USE;

/* Runs schema/NAME.lua by EVALSHA, loading it again when Redis has lost it. `name` as in embedded_scripts
 * ("ring.lua"). The first `keys` of `args` are KEYS, the rest ARGV. Waits. */
int redis_script(struct redis *redis, struct redis_value *reply, struct arena *arena, const char *name,
                 const struct str *args, size_t count, size_t keys) MUST_USE;
/* The same as redis_send sends: nobody waits for the answer, so nobody could load a script that Redis has lost. Its text goes along
 * each time: for short ones. At most REDIS_SCRIPT_ARGS_MAX `args`. Does not wait. False when Redis is away. */
enum { REDIS_SCRIPT_ARGS_MAX = 8 };
bool redis_send_script(struct redis *redis, const char *name, const struct str *args, size_t count,
                       size_t keys);

/*
 * Publish and subscribe. Each loop has one connection for all its subscriptions, opened at the first and
 * subscribed again after a reconnect; messages in between are lost, so a subscriber always has another way to
 * learn the truth. `message` is valid during the call, which must not wait.
 */
typedef void redis_on_message(void *arg, struct str message);
void redis_subscribe(struct str channel, redis_on_message *on_message, void *arg);
void redis_unsubscribe(struct str channel);

/* Waits. Checks what the product needs of the server: version >= 7.0 and a maxmemory-policy that evicts nothing.
 * 0, or an error with one line in `error`. */
int redis_check_server(char *error, size_t error_size) MUST_USE;

#endif
