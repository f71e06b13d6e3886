/*
 * Rate limits in Redis: one round trip for all that a take asks for.
 *
 * What is asked for alone costs an INCRBY, and so do leases, which need not agree with each other: what they give is kept.
 * Anything else is one script. A counter never says more than what was admitted or is in some loop's stock: what an INCRBY
 * added beyond the limit is taken off again, and nobody waits for that.
 */
#include "core/store/limit_internal.h"

#include "core/base/metrics.h"
#include "core/store/redis.h"

#include <errno.h>

enum { TTL_MARGIN_S = 10 /* reactors' clocks differ */, NUMBER_MAX = 20, SCRIPT_ARGS = 5 };

static struct str number(struct arena *arena, uint64_t value)
{
    char *text = arena_alloc(arena, NUMBER_MAX);
    return str_of(text, format_u64(text, value));
}

/* "limit:{name}:{who}:{window}" */
static struct str window_key(struct arena *arena, struct str key, uint64_t window)
{
    char *at = arena_alloc(arena, key.size + 1 + NUMBER_MAX);
    memcpy(at, key.at, key.size);
    at[key.size] = ':';
    return str_of(at, key.size + 1 + format_u64(at + key.size + 1, window));
}

static struct str redis_key(struct arena *arena, const struct asked *asked)
{
    if (asked->kind != LIMIT_BUCKET)
        return window_key(arena, asked->key, asked->window);
    struct str bucket = STR(":bucket");
    char *at = arena_alloc(arena, asked->key.size + bucket.size);
    memcpy(at, asked->key.at, asked->key.size);
    memcpy(at + asked->key.size, bucket.at, bucket.size);
    return str_of(at, asked->key.size + bucket.size);
}

static struct str ttl(struct arena *arena, uint64_t window_s)
{
    return number(arena, window_s + TTL_MARGIN_S);
}

/* ---- plain commands ---- */

enum { ADD_STEPS = 2 };

static void add_steps(struct arena *arena, struct redis_step steps[ADD_STEPS], struct str key,
                      struct str amount, struct str ttl_s)
{
    struct str *args = arena_alloc(arena, 7 * sizeof *args);
    args[0] = STR("INCRBY");
    args[1] = key;
    args[2] = amount;
    args[3] = STR("EXPIRE");
    args[4] = key;
    args[5] = ttl_s;
    args[6] = STR("NX");
    steps[0] = (struct redis_step){.args = args, .count = 3};
    steps[1] = (struct redis_step){.args = args + 3, .count = 4};
}

void limit_send_back(struct str key, uint64_t window, uint64_t window_s, uint64_t amount)
{
    struct arena arena;
    struct redis_step steps[ADD_STEPS];
    char less[1 + NUMBER_MAX] = "-";
    arena_init(&arena);
    /* With its TTL, should Redis have lost the key. */
    add_steps(&arena, steps, window_key(&arena, key, window), str_of(less, 1 + format_u64(less + 1, amount)),
              ttl(&arena, window_s));
    for (size_t i = 0; i < ADD_STEPS; i++)
        redis_send(redis_shared(), steps[i].args, steps[i].count);
    arena_clear(&arena);
}

/* A counter below 0: Redis has lost it, and was then given something back. */
static int read_added(struct asked *asked, const struct redis_step *step)
{
    const struct limit_policy *policy = &asked->charge->policy;
    if (step->result)
        return step->result;
    if (step->reply.type != REDIS_INTEGER)
        return -EIO;
    uint64_t after = step->reply.integer > 0 ? (uint64_t)step->reply.integer : 0;
    uint64_t room = limit_minus(policy->limit, limit_minus(after, asked->amount));
    asked->taken = room < asked->amount ? room : asked->amount;
    asked->counted = after - (asked->amount - asked->taken);
    if (asked->kind == LIMIT_COUNTED && asked->taken < asked->amount)
        asked->taken = 0;
    if (asked->taken < asked->amount)
        limit_send_back(asked->key, asked->window, policy->window_s, asked->amount - asked->taken);
    return 0;
}

static int ask_plainly(struct arena *arena, struct asked *asked, size_t count)
{
    struct redis_step steps[LIMITS_AT_ONCE * ADD_STEPS];
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (asked[i].amount) {
            add_steps(arena, steps + used, redis_key(arena, &asked[i]), number(arena, asked[i].amount),
                      ttl(arena, asked[i].charge->policy.window_s));
            used += ADD_STEPS;
        }
    int result = redis_steps(redis_shared(), arena, steps, used);
    const struct redis_step *step = steps;
    for (size_t i = 0; i < count && result == 0; i++)
        if (asked[i].amount) {
            result = read_added(&asked[i], step);
            step += ADD_STEPS;
        }
    return result;
}

/* ---- the script ---- */

static void put_args(struct arena *arena, const struct asked *asked, struct str args[SCRIPT_ARGS])
{
    const struct limit_policy *policy = &asked->charge->policy;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_of(asked);
        struct str price = number(arena, limit_price(&bucket, asked->charge->cost));
        args[0] = STR("bucket");
        args[1] = price;
        args[2] = number(arena, bucket.depth);
        args[3] = price;
        args[4] = STR("0");
        return;
    }
    args[0] = asked->kind == LIMIT_LEASED ? STR("lease") : STR("window");
    args[1] = number(arena, asked->charge->cost - asked->set_aside);
    args[2] = number(arena, policy->limit);
    args[3] = number(arena, asked->amount);
    args[4] = ttl(arena, policy->window_s);
}

static bool read_numbers(struct asked *asked, const struct redis_value *values)
{
    for (int i = 0; i < 2; i++)
        if (values[i].type != REDIS_INTEGER)
            return false;
    asked->taken = values[0].integer > 0 ? (uint64_t)values[0].integer : 0;
    asked->counted = values[1].integer > 0 ? (uint64_t)values[1].integer : 0;
    return true;
}

static int ask_script(struct arena *arena, struct asked *asked, size_t count)
{
    struct str args[LIMITS_AT_ONCE * (1 + SCRIPT_ARGS)];
    struct redis_value reply;
    size_t keys = 0;
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (asked[i].amount)
            args[keys++] = redis_key(arena, &asked[i]);
    for (size_t i = 0; i < count; i++)
        if (asked[i].amount)
            put_args(arena, &asked[i], args + keys + SCRIPT_ARGS * used++);
    int result =
        redis_script(redis_shared(), &reply, arena, "limit.lua", args, keys * (1 + SCRIPT_ARGS), keys);
    if (result)
        return result;
    if (reply.type != REDIS_ARRAY || reply.count != 1 + 2 * keys)
        return -EIO;
    const struct redis_value *values = reply.items + 1;
    for (size_t i = 0; i < count; i++)
        if (asked[i].amount) {
            if (!read_numbers(&asked[i], values))
                return -EIO;
            values += 2;
        }
    return 0;
}

/* ---- what is asked for ---- */

/* Whether commands that know nothing of each other do. */
static bool is_plain(const struct asked *asked, size_t count)
{
    size_t leases = 0;
    size_t counted = 0;
    for (size_t i = 0; i < count; i++) {
        if (asked[i].amount == 0)
            continue;
        if (asked[i].kind == LIMIT_BUCKET || (asked[i].kind == LIMIT_COUNTED && asked[i].amount != 1))
            return false;
        leases += asked[i].kind == LIMIT_LEASED;
        counted += asked[i].kind == LIMIT_COUNTED;
    }
    return counted == 0 || (counted == 1 && leases == 0);
}

static bool is_refused(const struct asked *asked)
{
    const struct limit_policy *policy = &asked->charge->policy;
    uint64_t cost = asked->charge->cost;
    if (asked->taken)
        return asked->set_aside + asked->taken < cost;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_of(asked);
        return limit_bucket_refuses(&bucket, cost, asked->counted);
    }
    if (asked->kind == LIMIT_LEASED)
        return asked->set_aside < cost;
    return cost > limit_minus(policy->limit, asked->counted);
}

int limit_ask(struct arena *arena, struct asked *asked, size_t count)
{
    if (!redis_is_up(redis_shared()))
        return -ENOTCONN;
    metric_add(M_LIMIT_ROUNDS, 1);
    int result = is_plain(asked, count) ? ask_plainly(arena, asked, count) : ask_script(arena, asked, count);
    if (result)
        return result;
    for (size_t i = 0; i < count; i++)
        asked[i].refuses = asked[i].amount && is_refused(&asked[i]);
    return 0;
}

/* ---- looking ---- */

/* Redis's clock in microseconds: the two texts that TIME answers with. */
static bool read_time(const struct redis_step *step, uint64_t *now_us)
{
    const struct redis_value *reply = &step->reply;
    uint64_t s;
    uint64_t us;
    if (step->result || reply->type != REDIS_ARRAY || reply->count != 2 ||
        !str_to_u64(reply->items[0].text, &s) || !str_to_u64(reply->items[1].text, &us))
        return false;
    *now_us = s * 1000000 + us;
    return true;
}

static int read_counted(struct asked *asked, const struct redis_step *step, uint64_t now_us)
{
    int64_t stored = 0;
    if (step->result)
        return step->result;
    if (step->reply.type != REDIS_NIL && !str_to_i64(step->reply.text, &stored))
        return -EIO;
    asked->counted = stored > 0 ? (uint64_t)stored : 0;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_of(asked);
        asked->counted = limit_minus(asked->counted, now_us);
        if (asked->counted > bucket.depth)
            asked->counted = bucket.depth;
    }
    return 0;
}

int limit_ask_counted(struct arena *arena, struct asked *asked, size_t count)
{
    struct redis_step steps[1 + LIMITS_AT_ONCE];
    struct str time[] = {STR("TIME")};
    uint64_t now_us;
    steps[0] = (struct redis_step){.args = time, .count = 1};
    for (size_t i = 0; i < count; i++) {
        struct str *args = arena_alloc(arena, 2 * sizeof *args);
        args[0] = STR("GET");
        args[1] = redis_key(arena, &asked[i]);
        steps[1 + i] = (struct redis_step){.args = args, .count = 2};
    }
    if (!redis_is_up(redis_shared()))
        return -ENOTCONN;
    metric_add(M_LIMIT_ROUNDS, 1);
    int result = redis_steps(redis_shared(), arena, steps, 1 + count);
    if (result == 0 && !read_time(&steps[0], &now_us))
        return -EIO;
    for (size_t i = 0; i < count && result == 0; i++)
        result = read_counted(&asked[i], &steps[1 + i], now_us);
    return result;
}

/* ---- giving back ---- */

void limit_ask_back(struct arena *arena, const struct asked *asked)
{
    struct bucket bucket = limit_bucket_of(asked);
    bool is_bucket = asked->kind == LIMIT_BUCKET;
    const struct str args[] = {
        redis_key(arena, asked), is_bucket ? STR("bucket") : STR("window"),
        number(arena, is_bucket ? limit_price(&bucket, asked->charge->cost) : asked->charge->cost)};
    struct redis_value reply;
    metric_add(M_LIMIT_ROUNDS, 1);
    /* An error costs the client what was to be given back, and no more. */
    if (redis_script(redis_shared(), &reply, arena, "limit_back.lua", args, ARRAY_SIZE(args), 1))
        return;
}
