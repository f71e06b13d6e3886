/*
 * Rate limits: what is admitted. See limit.h; limit_internal.h lists the files.
 *
 * A take goes, as often as it has to wait for another fiber's slice, from the top:
 *
 *   a refusal that is remembered? ──▶ refused
 *   a slice that another fiber is getting? ──▶ waits for it
 *   sets aside what leases have in stock
 *   anything that is not in stock? ──▶ one round trip to Redis, which takes all of it or nothing
 *   admitted: what was set aside is spent; refused: it goes back into stock
 *   no Redis? ──▶ by the loop's own count
 *
 * Nothing is set aside while a fiber waits for another's slice, so that no two wait for each other.
 */
#include "core/store/limit_internal.h"

#include "core/base/clock.h"
#include "core/store/redis.h"

#include <errno.h>

enum {
    SLICES = 200, /* a window's budget is leased in so many pieces */
    SLICE_MOST = 10000,
};

/* ---- a take's begin and end ---- */

static struct str key_for(struct arena *arena, const struct limit_charge *charge)
{
    size_t name_size = strlen(charge->policy.name);
    size_t size = 6 + name_size + 1 + charge->who.size;
    char *key = arena_alloc(arena, size);
    memcpy(key, "limit:", 6);
    memcpy(key + 6, charge->policy.name, name_size);
    key[6 + name_size] = ':';
    if (charge->who.size)
        memcpy(key + 7 + name_size, charge->who.at, charge->who.size);
    return str_of(key, size);
}

static enum limit_kind kind_of(const struct limit_policy *policy)
{
    if (policy->burst)
        return LIMIT_BUCKET;
    return policy->limit >= LIMIT_LEASE_FROM ? LIMIT_LEASED : LIMIT_COUNTED;
}

static void look_at_clock(struct take *take)
{
    take->now_ns = clock_now_ns();
    take->wall_ms = clock_wall_ms();
}

/* Looks at the clock too: which windows there are. */
static void begin_anew(struct take *take)
{
    look_at_clock(take);
    uint64_t now_s = (uint64_t)(take->wall_ms / 1000);
    for (size_t i = 0; i < take->count; i++) {
        struct asked *asked = &take->asked[i];
        uint64_t window_s = asked->charge->policy.window_s;
        asked->window = asked->kind == LIMIT_BUCKET ? 0 : now_s / window_s;
        asked->set_aside = 0;
        asked->amount = 0;
        asked->taken = 0;
        asked->counted = 0;
        asked->refuses = false;
        if (asked->tally)
            tally_turn(asked->tally, asked->window, window_s);
    }
}

static void take_open(struct take *take, const struct limit_charge *charges, size_t count,
                      struct tally *(*hold)(struct str key))
{
    CHECK(count <= LIMITS_AT_ONCE);
    arena_init(&take->arena);
    take->count = count;
    for (size_t i = 0; i < count; i++) {
        const struct limit_policy *policy = &charges[i].policy;
        struct asked *asked = &take->asked[i];
        CHECK(policy->limit && policy->window_s && charges[i].cost);
        asked->charge = &charges[i];
        asked->kind = kind_of(policy);
        asked->key = key_for(&take->arena, &charges[i]);
        asked->tally = hold(asked->key);
        asked->is_local = false;
    }
    begin_anew(take);
}

static void take_close(struct take *take)
{
    for (size_t i = 0; i < take->count; i++)
        if (take->asked[i].tally)
            tally_release(take->asked[i].tally);
    arena_clear(&take->arena);
}

/* ---- leases ---- */

/* A lease that may come to have what the charge wants without Redis being asked: another fiber asks, or the last of the budget
 * is set aside by one whose take may still be refused. */
static struct asked *find_busy(struct take *take)
{
    for (size_t i = 0; i < take->count; i++) {
        struct asked *asked = &take->asked[i];
        const struct tally *tally = asked->tally;
        if (asked->kind != LIMIT_LEASED || tally->left >= asked->charge->cost)
            continue;
        if (tally->refilling || (tally->set_aside && take->now_ns < tally->refused_ns))
            return asked;
    }
    return NULL;
}

/* Of each lease what the charge costs, or what there is and a slice of the rest. True when Redis need not be asked. */
static bool set_aside(struct take *take)
{
    bool in_stock = true;
    for (size_t i = 0; i < take->count; i++) {
        struct asked *asked = &take->asked[i];
        struct tally *tally = asked->tally;
        uint64_t cost = asked->charge->cost;
        if (asked->kind != LIMIT_LEASED) {
            asked->amount = cost;
            in_stock = false;
            continue;
        }
        asked->set_aside = limit_less(tally->left, cost);
        tally->left -= asked->set_aside;
        tally->set_aside += asked->set_aside;
        if (asked->set_aside == cost)
            continue;
        uint64_t amount = limit_less(asked->charge->policy.limit / SLICES, SLICE_MOST);
        amount = amount < tally->wanted ? tally->wanted : amount;
        asked->amount = amount < cost - asked->set_aside ? cost - asked->set_aside : amount;
        tally->refilling = true;
        in_stock = false;
    }
    return in_stock;
}

/* What was set aside is spent, or goes back into stock, and so does the slice that came. */
static void settle_lease(const struct take *take, struct asked *asked, bool admitted, uint64_t asked_ns)
{
    struct tally *tally = asked->tally;
    uint64_t cost = asked->charge->cost;
    uint64_t got = asked->set_aside + asked->taken;
    if (tally->window == asked->window) {
        tally->set_aside = limit_minus(tally->set_aside, asked->set_aside);
        tally->left += admitted ? got - cost : got;
        tally->spent += admitted ? cost : 0;
        if (asked->counted)
            tally->counted = asked->counted;
    }
    if (asked->taken < asked->amount && asked->counted)
        limit_remember(take, asked, asked_ns);
}

/* `result` is for those who wait. */
static void end_refill(struct asked *asked, int result)
{
    struct tally *tally = asked->tally;
    if (asked->amount) {
        tally->refilling = false;
        tally->wanted = tally->waiting_cost;
    }
    tally_wake(tally, result);
}

static void settle(struct take *take, bool admitted, int result, uint64_t asked_ns)
{
    for (size_t i = 0; i < take->count; i++) {
        struct asked *asked = &take->asked[i];
        if (asked->kind == LIMIT_LEASED) {
            settle_lease(take, asked, admitted, asked_ns);
            end_refill(asked, result);
        } else if (admitted) {
            if (asked->tally->window == asked->window)
                asked->tally->spent += asked->charge->cost;
        } else if (asked->refuses) {
            limit_remember(take, asked, asked_ns);
        }
    }
}

/* ---- taking ---- */

static bool is_refused(const struct take *take)
{
    for (size_t i = 0; i < take->count; i++)
        if (take->asked[i].refuses)
            return true;
    return false;
}

static bool is_remembered(struct take *take)
{
    bool remembered = false;
    for (size_t i = 0; i < take->count; i++)
        remembered |= limit_remembers(take, &take->asked[i]);
    return remembered;
}

/* Waits. */
static int take_from_redis(struct take *take)
{
    uint64_t asked_ns = take->now_ns;
    int result = limit_ask(&take->arena, take->asked, take->count);
    look_at_clock(take);
    /* That we were cancelled is not the affair of those who wait for the slice: one of them asks again. */
    settle(take, result == 0 && !is_refused(take), result == -ECANCELED ? 0 : result, asked_ns);
    return result;
}

/* Waits. */
static int take_all(struct take *take)
{
    for (;;) {
        if (is_remembered(take))
            return 0;
        const struct asked *busy = find_busy(take);
        if (!busy)
            break;
        int result = tally_wait(busy->tally, busy->charge->cost);
        if (result)
            return result;
        begin_anew(take);
    }
    if (!set_aside(take))
        return take_from_redis(take);
    settle(take, true, 0, take->now_ns);
    return 0;
}

int limit_take(const struct limit_charge *charges, size_t count, struct limit_verdict *verdict)
{
    struct take take;
    take_open(&take, charges, count, tally_hold);
    int result = take_all(&take);
    if (result && result != -ECANCELED) {
        begin_anew(&take);
        limit_take_locally(&take);
        result = 0;
    }
    if (result == 0)
        limit_tell_all(&take, verdict);
    take_close(&take);
    return result;
}

/* ---- without taking ---- */

bool limit_is_spent(const struct limit_charge *charge, struct limit_verdict *verdict)
{
    struct take take;
    take_open(&take, charge, 1, tally_hold_known);
    struct asked *asked = &take.asked[0];
    bool spent = asked->tally && limit_remembers(&take, asked);
    if (!spent && asked->tally && !redis_is_up(redis_shared())) {
        limit_look_locally(&take, asked);
        spent = asked->refuses;
    }
    if (spent)
        *verdict = limit_tell(&take, asked);
    take_close(&take);
    return spent;
}

int limit_look(const struct limit_charge *charges, size_t count, struct limit_verdict *verdicts)
{
    struct take take;
    take_open(&take, charges, count, tally_hold);
    int result = limit_ask_counted(&take.arena, take.asked, count);
    look_at_clock(&take);
    for (size_t i = 0; i < count; i++) {
        struct asked *asked = &take.asked[i];
        if (result)
            limit_look_locally(&take, asked);
        else if (asked->kind == LIMIT_LEASED)
            asked->kind = LIMIT_COUNTED; /* as the others see it */
        verdicts[i] = limit_tell(&take, asked);
        verdicts[i].allowed = verdicts[i].remaining > 0;
    }
    take_close(&take);
    return result == -ECANCELED ? result : 0;
}

/* ---- giving back ---- */

/* Of this loop's takes in this window, so that none of a window that has ended comes to this one. */
static bool give_back_counted(struct take *take, struct asked *asked)
{
    struct tally *tally = asked->tally;
    uint64_t cost = asked->charge->cost;
    if (tally->spent < cost)
        return false;
    tally->spent -= cost;
    if (asked->kind == LIMIT_LEASED) {
        tally->left += cost;
        tally_wake(tally, 0);
    } else {
        limit_ask_back(&take->arena, asked);
    }
    return true;
}

static bool give_back_to_bucket(struct take *take, const struct asked *asked)
{
    if (!redis_is_up(redis_shared()))
        return false;
    limit_ask_back(&take->arena, asked);
    return true;
}

void limit_give_back(const struct limit_charge *charge)
{
    struct take take;
    take_open(&take, charge, 1, tally_hold);
    struct asked *asked = &take.asked[0];
    bool given =
        asked->kind == LIMIT_BUCKET ? give_back_to_bucket(&take, asked) : give_back_counted(&take, asked);
    if (!given)
        limit_give_back_locally(&take, asked);
    asked->tally->refused_ns = 0;
    take_close(&take);
}
