/*
 * Redis for fibers: the calls of redis.h, on top of redis_connection.c. redis_internal.h lists the client's files.
 *
 * A command needs no allocation: its record stands on the waiting fiber's stack, its bytes go into the
 * connection's buffer, its reply into the caller's arena.
 */
#include "core/store/redis_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- per loop ---- */

struct redis_loop *redis_loop_self(void)
{
    struct loop *loop = loop_self();
    CHECK(loop && loop->slots[LOOP_REDIS]);
    return loop->slots[LOOP_REDIS];
}

int redis_open_loop(struct loop *loop, char *error, size_t error_size)
{
    CHECK(!loop->slots[LOOP_REDIS]);
    struct redis_address address;
    int result = redis_address_parse(&address, config->redis_url, error, error_size);
    if (result)
        return result;
    struct redis_loop *owner = mem_alloc(sizeof *owner);
    owner->loop = loop;
    owner->address = address;
    owner->subscriber = NULL;
    owner->shared = redis_connection_new(owner, "shared", (uint64_t)config->redis_timeout_ms);
    loop->slots[LOOP_REDIS] = owner;
    return 0;
}

void redis_close_loop(struct loop *loop)
{
    struct redis_loop *owner = loop->slots[LOOP_REDIS];
    if (!owner)
        return;
    redis_subscriber_close(owner->subscriber);
    redis_connection_close(owner->shared);
    loop->slots[LOOP_REDIS] = NULL;
    redis_address_clear(&owner->address);
    free(owner);
}

struct redis *redis_shared(void)
{
    return redis_loop_self()->shared;
}

struct redis *redis_open(const char *name, uint64_t timeout_ms)
{
    return redis_connection_new(redis_loop_self(), name, timeout_ms);
}

void redis_close(struct redis *redis)
{
    redis_connection_close(redis);
}

bool redis_is_up(const struct redis *redis)
{
    MAGIC_CHECK(redis, REDIS_MAGIC);
    return redis->state == REDIS_STATE_UP;
}

int redis_wait_ready(struct redis *redis, uint64_t deadline_ns)
{
    if (redis_is_up(redis))
        return 0;
    struct redis_ready_place place = {.wait = WAIT_INIT};
    list_push_back(&redis->waiting_ready, &place.link);
    int result = wait_for(&place.wait, "redis to come up", deadline_ns);
    list_remove(&place.link);
    return result;
}

/* ---- commands ---- */

static int refuse(struct redis_step *steps, size_t count, int result)
{
    for (size_t i = 0; i < count; i++) {
        steps[i].result = result;
        steps[i].reply = (struct redis_value){0};
    }
    metric_add(M_REDIS_ERRORS, (int64_t)count);
    return result;
}

int redis_steps(struct redis *redis, struct arena *arena, struct redis_step *steps, size_t count)
{
    if (fiber_canceled())
        return refuse(steps, count, -ECANCELED);
    if (!redis_is_up(redis))
        return refuse(steps, count, -ENOTCONN);
    if (count == 0)
        return 0;
    struct redis_batch batch = {.wait = WAIT_INIT, .arena = arena, .steps = steps, .count = count};
    redis_connection_add_batch(redis, &batch);
    /* The connection keeps the time; no timer of the fiber's is needed. */
    int result = wait_for(&batch.wait, "redis", CLOCK_NEVER);
    if (!batch.wait.done)
        redis_connection_forget(redis, &batch, result);
    return result;
}

int redis_command(struct redis *redis, struct redis_value *reply, struct arena *arena, const struct str *args,
                  size_t count)
{
    struct redis_step step = {.args = args, .count = count};
    int result = redis_steps(redis, arena, &step, 1);
    *reply = step.reply;
    return result ? result : step.result;
}

bool redis_send(struct redis *redis, const struct str *args, size_t count)
{
    if (!redis_is_up(redis))
        return false;
    redis_connection_add(redis, args, count, NULL);
    return true;
}

/* ---- the server ---- */

/* The rest of the line that begins with `name` and a colon; absent when there is none. */
static struct str info_field(struct str info, struct str name)
{
    struct str line;
    while (str_split(&info, '\n', &line))
        if (str_starts(line, name) && line.size > name.size && line.at[name.size] == ':') {
            size_t end = line.size - (line.at[line.size - 1] == '\r');
            return str_of(line.at + name.size + 1, end - name.size - 1);
        }
    return STR_NONE;
}

/* The policy by CONFIG, or by INFO where a hosted Redis forbids CONFIG; absent when neither tells. */
static struct str eviction_policy(const struct redis_step *by_config, const struct redis_step *by_info)
{
    const struct redis_value *pair = &by_config->reply;
    if (by_config->result == 0 && pair->type == REDIS_ARRAY && pair->count == 2)
        return pair->items[1].text;
    return by_info->result == 0 ? info_field(by_info->reply.text, STR("maxmemory_policy")) : STR_NONE;
}

static int check_version(struct str version, char *error, size_t error_size)
{
    struct str rest = version;
    struct str major;
    uint64_t number;
    if (str_split(&rest, '.', &major) && str_to_u64(major, &number) && number >= 7)
        return 0;
    snprintf(error, error_size, "Redis 7.0 or newer is needed; this one says \"%.*s\"", STR_ARG(version));
    return -EINVAL;
}

static int check_policy(struct str policy, char *error, size_t error_size)
{
    if (str_equal(policy, STR("noeviction")))
        return 0;
    if (!policy.at)
        snprintf(error, error_size,
                 "Redis does not tell its maxmemory-policy: allow this user CONFIG GET or INFO");
    else
        snprintf(error, error_size,
                 "Redis has maxmemory-policy %.*s, which throws away jobs: set maxmemory-policy noeviction",
                 STR_ARG(policy));
    return -EINVAL;
}

int redis_check_server(char *error, size_t error_size)
{
    struct arena arena;
    arena_init(&arena);
    const struct str server[] = {STR("INFO"), STR("server")};
    const struct str policy[] = {STR("CONFIG"), STR("GET"), STR("maxmemory-policy")};
    const struct str memory[] = {STR("INFO"), STR("memory")};
    struct redis_step steps[] = {
        {.args = server, .count = ARRAY_SIZE(server)},
        {.args = policy, .count = ARRAY_SIZE(policy)},
        {.args = memory, .count = ARRAY_SIZE(memory)},
    };
    int result = redis_steps(redis_shared(), &arena, steps, ARRAY_SIZE(steps));
    if (result)
        snprintf(error, error_size, "Redis does not answer: %s", strerror(-result));
    else if (steps[0].result)
        snprintf(error, error_size, "Redis refuses INFO: %.*s", STR_ARG(steps[0].reply.text));
    if (result == 0)
        result = steps[0].result;
    if (result == 0)
        result = check_version(info_field(steps[0].reply.text, STR("redis_version")), error, error_size);
    if (result == 0)
        result = check_policy(eviction_policy(&steps[1], &steps[2]), error, error_size);
    arena_clear(&arena);
    return result;
}
