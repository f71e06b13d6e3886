/*
 * How a connection to Redis comes up: address, socket, greeting.
 *
 *   -> AUTH [user] password    where REDIS_URL has one
 *   -> SELECT database         where it is not 0
 *   -> CLIENT SETNAME name     so that CLIENT LIST shows who is who; a refusal does not matter
 *   -> EVAL restored.lua       which forgets what must not be believed of another run of Redis
 *   -> PING                    answered with an error by a Redis that still reads its data
 */
#include "core/store/redis_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

enum { KEEPALIVE_S = 30 };

static void is_up(struct redis *redis)
{
    redis->state = REDIS_STATE_UP;
    redis->up_since_ns = clock_now_ns();
    redis->looked_again = false;
    redis->pinged_ns = 0;
    uv_timer_stop(&redis->timer);
    metric_add(M_REDIS_CONNECTS, 1);
    if (redis->failed_why)
        LOG(INFO, "redis connected", LOG_TEXT("connection", redis->name),
            LOG_INT("failures", redis->failures));
    redis->failed_why = NULL;
    struct link *item;
    while ((item = list_pop_front(&redis->waiting_ready)) != NULL)
        wait_done(&LIST_ENTRY(item, struct redis_ready_place, link)->wait, 0);
    if (redis->on_up) {
        redis->on_up(redis);
        redis_timer_start(redis, redis_silence_ms(redis));
    }
}

static void on_greeted(struct redis *redis)
{
    for (size_t i = 0; i < redis->greeting.count; i++) {
        const struct redis_step *step = &redis->greeting_steps[i];
        /* A user who may not PING may well do the rest. */
        if (step->result == 0 || !redis->greeting_why[i] || str_starts(step->reply.text, STR("NOPERM")))
            continue;
        redis_broken(redis, redis->greeting_why[i], step->reply.text);
        return;
    }
    arena_clear(&redis->greeting_arena);
    is_up(redis);
}

static void greet_with(struct redis *redis, const char *why, const struct str *args, size_t count)
{
    size_t i = redis->greeting.count++;
    CHECK(i < REDIS_GREETING_MOST);
    struct str *kept = arena_alloc(&redis->greeting_arena, count * sizeof *kept);
    memcpy(kept, args, count * sizeof *kept);
    redis->greeting_steps[i] = (struct redis_step){.args = kept, .count = count};
    redis->greeting_why[i] = why;
}

static void greet(struct redis *redis)
{
    const struct redis_address *address = &redis->owner->address;
    char database[20];
    struct str user = str_from(address->user);
    struct str password = str_from(address->password);
    redis->state = REDIS_STATE_GREETING;
    redis->looked_again = false;
    redis_timer_start(redis, (uint64_t)config->redis_timeout_ms);
    redis->greeting = (struct redis_batch){
        .on_done = on_greeted, .arena = &redis->greeting_arena, .steps = redis->greeting_steps};
    if (user.at)
        greet_with(redis, "redis refuses the user or password of REDIS_URL",
                   REDIS_ARGS(STR("AUTH"), user, password));
    else if (password.at)
        greet_with(redis, "redis refuses the password of REDIS_URL", REDIS_ARGS(STR("AUTH"), password));
    if (address->database)
        greet_with(redis, "redis refuses the database of REDIS_URL",
                   REDIS_ARGS(STR("SELECT"), str_of(database, format_u64(database, address->database))));
    greet_with(redis, NULL, REDIS_ARGS(STR("CLIENT"), STR("SETNAME"), str_from(redis->name)));
    greet_with(
        redis, "redis is not ready",
        REDIS_ARGS(STR("EVAL"), redis_script_text("restored.lua"), STR("0"), STR("lease:*"), STR("spend:*")));
    greet_with(redis, "redis is not ready", REDIS_ARGS(STR("PING")));
    redis_connection_add_batch(redis, &redis->greeting);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct redis *redis = connect->data;
    if (redis->state == REDIS_STATE_CLOSING)
        return;
    if (status == 0)
        status = redis_read_start(redis);
    if (status < 0)
        redis_broken_by(redis, "redis can't be reached", status);
    else
        greet(redis);
}

/* Connecting, and greeting after it, have the time of a command of the shared connection: other connections may
 * allow their commands to block for long, but this does not block. */
static void connecting(struct redis *redis)
{
    redis->state = REDIS_STATE_CONNECTING;
    redis->busy++;
    redis->handle.any.data = redis;
    redis_timer_start(redis, (uint64_t)config->redis_timeout_ms);
}

static void connect_unix(struct redis *redis)
{
    CHECK(uv_pipe_init(&redis->owner->loop->uv, &redis->handle.pipe, 0) == 0);
    connecting(redis);
    uv_pipe_connect(&redis->connect, &redis->handle.pipe, redis->owner->address.host, on_connected);
}

static void connect_tcp(struct redis *redis, const struct sockaddr *address)
{
    CHECK(uv_tcp_init(&redis->owner->loop->uv, &redis->handle.tcp) == 0);
    connecting(redis);
    int result = uv_tcp_connect(&redis->connect, &redis->handle.tcp, address, on_connected);
    if (result == 0)
        result = uv_tcp_nodelay(&redis->handle.tcp, 1);
    if (result == 0)
        result = uv_tcp_keepalive(&redis->handle.tcp, 1, KEEPALIVE_S);
    if (result < 0)
        redis_broken_by(redis, "redis can't be reached", result);
}

static void resolve_failed(struct redis *redis, int code)
{
    redis_unreachable(redis, "redis's host has no address", str_from(uv_strerror(code)));
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *addresses)
{
    struct redis *redis = resolve->data;
    if (!redis->closing && status < 0)
        resolve_failed(redis, status);
    if (!redis->closing && status == 0) {
        /* One address an attempt; the one that worked is kept. */
        unsigned count = 0;
        for (struct addrinfo *each = addresses; each; each = each->ai_next)
            count++;
        struct addrinfo *chosen = addresses;
        for (unsigned i = redis->address_index % count; i > 0; i--)
            chosen = chosen->ai_next;
        connect_tcp(redis, chosen->ai_addr);
    }
    uv_freeaddrinfo(addresses);
    redis_release(redis);
}

void redis_connect(struct redis *redis)
{
    const struct redis_address *address = &redis->owner->address;
    if (address->is_unix) {
        connect_unix(redis);
        return;
    }
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    redis->state = REDIS_STATE_RESOLVING;
    int result = uv_getaddrinfo(&redis->owner->loop->uv, &redis->resolve, on_resolved, address->host,
                                address->port, &hints);
    if (result < 0)
        resolve_failed(redis, result);
    else
        redis->busy++;
}
