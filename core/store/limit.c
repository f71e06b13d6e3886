/*
 * Fixed windows of the wall clock, counted in Redis: see limit.h.
 *
 * Redis counts every take, refused ones too: a counter above its limit refuses as well as one that stands at it, and
 * one INCRBY needs no script. A leased limit counts slices: what a loop was given of the window's budget it spends
 * without asking. What it does not spend until the window ends nobody else can: a loop holds half a percent at most.
 *
 * The table keeps leases, and local counts while Redis is away, for the names last used; when it is full the one
 * not used for longest goes. A lease that goes is lost budget, never too much.
 */
#include "core/store/limit.h"

#include "core/base/clock.h"
#include "core/base/metrics.h"
#include "core/run/fiber.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdlib.h>

enum {
    TALLIES_MOST = 4096,
    SLICES = 200, /* a window's budget is leased in so many pieces */
    SLICE_MOST = 10000,
    TTL_MARGIN_S = 10, /* reactors' clocks differ */
};

/* What one loop knows of one policy and one `who`. */
struct tally {
    struct link in_table;
    struct link in_order; /* the most recently used first */
    struct str key;       /* stands behind the struct */
    uint64_t window;
    uint64_t left;    /* of the lease */
    uint64_t counted; /* as Redis last said */
    uint64_t local;   /* taken without Redis in this window */
    bool refilling;   /* a fiber asks Redis for a slice */
    unsigned users;   /* fibers that hold it */
    unsigned waiting_count;
    struct link waiting; /* for the one that asks */
    uint64_t wanted;     /* how many waited when the last slice came */
};

struct limits {
    struct table tallies;
    struct link order;
};

struct tally_place {
    struct link link;
    struct wait wait;
};

/* One take. */
struct take {
    const struct limit_policy *policy;
    struct limit_verdict *verdict;
    struct arena *arena;
    struct str key; /* "limit:{name}:{who}" */
    int64_t now_s;
    uint64_t window;
};

/* ---- time and answers ---- */

static void take_look_at_clock(struct take *take)
{
    take->now_s = clock_wall_s();
    take->window = (uint64_t)take->now_s / take->policy->window_s;
}

static int answer(const struct take *take, bool allowed, uint64_t remaining)
{
    uint64_t ends_s = (take->window + 1) * take->policy->window_s;
    uint64_t left_s = ends_s - (uint64_t)take->now_s;
    *take->verdict = (struct limit_verdict){
        .limit = take->policy->limit,
        .remaining = remaining,
        .reset_unix_s = (int64_t)ends_s,
        .retry_after_s = left_s ? left_s : 1,
        .allowed = allowed,
    };
    return 0;
}

static uint64_t minus(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

/* ---- Redis ---- */

/* Waits. Adds to the window's counter and tells what it is then. */
static int count_in_redis(const struct take *take, uint64_t amount, uint64_t *counted)
{
    char amount_text[20];
    char ttl_text[20];
    char *key = arena_alloc(take->arena, take->key.size + 1 + 20);
    memcpy(key, take->key.at, take->key.size);
    key[take->key.size] = ':';
    size_t key_size = take->key.size + 1;
    key_size += format_u64(key + key_size, take->window);
    const struct str add[] = {STR("INCRBY"), str_of(key, key_size),
                              str_of(amount_text, format_u64(amount_text, amount))};
    const struct str expire[] = {
        STR("EXPIRE"), str_of(key, key_size),
        str_of(ttl_text, format_u64(ttl_text, take->policy->window_s + TTL_MARGIN_S)), STR("NX")};
    struct redis_step steps[] = {
        {.args = add, .count = ARRAY_SIZE(add)},
        {.args = expire, .count = ARRAY_SIZE(expire)},
    };
    int result = redis_steps(redis_shared(), take->arena, steps, ARRAY_SIZE(steps));
    if (result == 0)
        result = steps[0].result;
    if (result)
        return result;
    if (steps[0].reply.type != REDIS_INTEGER || steps[0].reply.integer < 0)
        return -EIO;
    *counted = (uint64_t)steps[0].reply.integer;
    return 0;
}

/* ---- tallies ---- */

static struct str key_of(struct link *item)
{
    return LIST_ENTRY(item, struct tally, in_table)->key;
}

static struct limits *limits_self(void)
{
    struct loop *loop = loop_self();
    if (!loop->slots[LOOP_LIMIT]) {
        struct limits *limits = mem_zalloc(sizeof *limits);
        table_init(&limits->tallies, key_of);
        list_init(&limits->order);
        loop->slots[LOOP_LIMIT] = limits;
    }
    return loop->slots[LOOP_LIMIT];
}

static void tally_free(struct limits *limits, struct tally *tally)
{
    CHECK(tally->users == 0);
    table_remove(&limits->tallies, &tally->in_table);
    list_remove(&tally->in_order);
    free(tally);
}

/* Drops the one that was not used for longest. Those in use stay, even if that means one too many for a while. */
static void make_room(struct limits *limits)
{
    for (struct link *item = limits->order.prev; item != &limits->order; item = item->prev) {
        struct tally *tally = LIST_ENTRY(item, struct tally, in_order);
        if (tally->users == 0) {
            tally_free(limits, tally);
            return;
        }
    }
}

static struct tally *tally_new(struct limits *limits, struct str key)
{
    if (limits->tallies.count >= TALLIES_MOST)
        make_room(limits);
    struct tally *tally = mem_zalloc(sizeof *tally + key.size);
    char *kept = (char *)(tally + 1);
    memcpy(kept, key.at, key.size);
    tally->key = str_of(kept, key.size);
    list_init(&tally->waiting);
    list_init(&tally->in_order);
    table_add(&limits->tallies, &tally->in_table);
    return tally;
}

static struct tally *tally_hold(struct str key)
{
    struct limits *limits = limits_self();
    struct link *item = table_find(&limits->tallies, key);
    struct tally *tally = item ? LIST_ENTRY(item, struct tally, in_table) : tally_new(limits, key);
    list_remove(&tally->in_order);
    list_push_front(&limits->order, &tally->in_order);
    tally->users++;
    return tally;
}

/* Looks at the clock and forgets what belongs to another window: the next one, or any, when the clock was set. */
static void tally_turn(struct tally *tally, struct take *take)
{
    take_look_at_clock(take);
    if (tally->window == take->window)
        return;
    tally->window = take->window;
    tally->left = 0;
    tally->counted = 0;
    tally->local = 0;
    tally->wanted = 0;
}

static void wake_waiting(struct tally *tally, int result)
{
    struct link *item;
    while ((item = list_pop_front(&tally->waiting)) != NULL)
        wait_done(&LIST_ENTRY(item, struct tally_place, link)->wait, result);
}

/* Waits. Gets a slice, at least as much as is being waited for; all who wait for it learn how it ended. */
static int tally_refill(struct tally *tally, const struct take *take)
{
    uint64_t amount = take->policy->limit / SLICES;
    uint64_t counted;
    if (amount > SLICE_MOST)
        amount = SLICE_MOST;
    if (amount < tally->wanted)
        amount = tally->wanted;
    if (amount == 0)
        amount = 1;
    tally->refilling = true;
    int result = count_in_redis(take, amount, &counted);
    tally->refilling = false;
    if (result == 0 && tally->window == take->window) {
        uint64_t before = minus(counted, amount);
        uint64_t budget = minus(take->policy->limit, before);
        tally->left += budget < amount ? budget : amount;
        tally->counted = counted;
    }
    tally->wanted = tally->waiting_count;
    /* That we were cancelled is not the others' affair: one of them asks again. */
    wake_waiting(tally, result == -ECANCELED ? 0 : result);
    return result;
}

static int tally_wait(struct tally *tally)
{
    struct tally_place place = {.wait = WAIT_INIT};
    list_push_back(&tally->waiting, &place.link);
    tally->waiting_count++;
    int result = wait_for(&place.wait, "a share of a rate limit", CLOCK_NEVER);
    tally->waiting_count--;
    list_remove(&place.link);
    return result;
}

/* ---- three ways to take ---- */

static int take_counted(struct take *take)
{
    uint64_t counted;
    uint64_t limit = take->policy->limit;
    take_look_at_clock(take);
    int result = count_in_redis(take, 1, &counted);
    return result ? result : answer(take, counted <= limit, minus(limit, counted));
}

static int take_leased(struct take *take, struct tally *tally)
{
    uint64_t limit = take->policy->limit;
    for (;;) {
        tally_turn(tally, take);
        if (tally->left > 0) {
            tally->left--;
            return answer(take, true, minus(limit, tally->counted) + tally->left);
        }
        if (tally->counted >= limit)
            return answer(take, false, 0);
        int result = tally->refilling ? tally_wait(tally) : tally_refill(tally, take);
        if (result)
            return result;
    }
}

static int take_local(struct take *take, struct tally *tally)
{
    uint64_t limit = take->policy->limit;
    tally_turn(tally, take);
    bool allowed = tally->local < limit;
    if (allowed)
        tally->local++;
    metric_add(M_LIMIT_LOCAL, 1);
    return answer(take, allowed, limit - tally->local);
}

static struct str key_for(struct arena *arena, const struct limit_policy *policy, struct str who)
{
    size_t name_size = strlen(policy->name);
    char *key = arena_alloc(arena, 6 + name_size + 1 + who.size);
    memcpy(key, "limit:", 6);
    memcpy(key + 6, policy->name, name_size);
    key[6 + name_size] = ':';
    if (who.size)
        memcpy(key + 6 + name_size + 1, who.at, who.size);
    return str_of(key, 6 + name_size + 1 + who.size);
}

int limit_take(const struct limit_policy *policy, struct str who, struct limit_verdict *verdict)
{
    struct arena arena;
    arena_init(&arena);
    struct take take = {.policy = policy, .verdict = verdict, .arena = &arena};
    struct tally *tally = NULL;
    take.key = key_for(&arena, policy, who);
    if (policy->limit >= LIMIT_LEASE_FROM)
        tally = tally_hold(take.key);
    int result = tally ? take_leased(&take, tally) : take_counted(&take);
    if (result && result != -ECANCELED) {
        if (!tally)
            tally = tally_hold(take.key);
        result = take_local(&take, tally);
    }
    if (tally)
        tally->users--;
    arena_clear(&arena);
    return result;
}

void limit_close_loop(struct loop *loop)
{
    struct limits *limits = loop->slots[LOOP_LIMIT];
    if (!limits)
        return;
    LIST_EACH (&limits->order, item, after)
        tally_free(limits, LIST_ENTRY(item, struct tally, in_order));
    table_clear(&limits->tallies);
    loop->slots[LOOP_LIMIT] = NULL;
    free(limits);
}
