/* What is told of a limit, what of it is remembered, and the arithmetic of buckets: see limit_internal.h. */
#include "core/store/limit_internal.h"

#include "core/base/clock.h"

enum { REMEMBER_MS = 1000 /* something may have been given back elsewhere */ };

/* So that a moment in microseconds and it together are a whole number to Lua too. */
static const uint64_t DEPTH_MOST = UINT64_C(1) << 52;

static uint64_t round_up(uint64_t amount, uint64_t unit)
{
    return amount / unit + (amount % unit != 0);
}

/* ---- buckets ---- */

struct bucket limit_bucket(uint64_t limit, uint64_t window_s, uint64_t burst)
{
    struct bucket bucket = {.interval = round_up(window_s * 1000000, limit)};
    if (__builtin_mul_overflow(bucket.interval, burst, &bucket.depth) || bucket.depth > DEPTH_MOST)
        bucket.depth = DEPTH_MOST;
    return bucket;
}

struct bucket limit_bucket_of(const struct asked *asked)
{
    const struct limit_policy *policy = &asked->charge->policy;
    return limit_bucket(policy->limit, policy->window_s, policy->burst);
}

uint64_t limit_price(const struct bucket *bucket, uint64_t cost)
{
    uint64_t price;
    return __builtin_mul_overflow(bucket->interval, cost, &price) ? UINT64_MAX : price;
}

bool limit_bucket_refuses(const struct bucket *bucket, uint64_t cost, uint64_t counted)
{
    return limit_price(bucket, cost) > limit_minus(bucket->depth, counted);
}

/* ---- telling ---- */

static struct limit_verdict tell_window(const struct take *take, const struct asked *asked, uint64_t left)
{
    const struct limit_policy *policy = &asked->charge->policy;
    uint64_t ends_s = (asked->window + 1) * policy->window_s;
    uint64_t wait_s = limit_minus(ends_s, (uint64_t)(take->wall_ms / 1000));
    return (struct limit_verdict){
        .name = policy->name,
        .limit = policy->limit,
        .remaining = limit_less(left, policy->limit),
        .reset_unix_s = (int64_t)ends_s,
        .retry_after_s = wait_s ? wait_s : 1,
        .allowed = !asked->refuses,
    };
}

/* A bucket shows as many as the limit has, though it may hold more. */
static struct limit_verdict tell_bucket(const struct take *take, const struct asked *asked,
                                        const struct bucket *bucket)
{
    const struct limit_policy *policy = &asked->charge->policy;
    uint64_t shown = limit_less(policy->limit, bucket->depth / bucket->interval);
    uint64_t room_us = limit_minus(bucket->depth, asked->counted);
    uint64_t shown_in_us = limit_minus(limit_price(bucket, shown), room_us);
    uint64_t wait_us = limit_minus(limit_price(bucket, asked->charge->cost), room_us);
    uint64_t wait_s = round_up(wait_us, 1000000);
    uint64_t reset_ms = (uint64_t)take->wall_ms + round_up(shown_in_us, 1000);
    return (struct limit_verdict){
        .name = policy->name,
        .limit = policy->limit,
        .remaining = limit_less(room_us / bucket->interval, shown),
        .reset_unix_s = (int64_t)round_up(reset_ms, 1000),
        .retry_after_s = wait_s ? wait_s : 1,
        .allowed = !asked->refuses,
    };
}

struct limit_verdict limit_tell(const struct take *take, const struct asked *asked)
{
    const struct tally *tally = asked->tally;
    uint64_t limit = asked->charge->policy.limit;
    uint64_t left = limit_minus(limit, asked->counted);
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = asked->is_local ? limit_bucket_locally(asked) : limit_bucket_of(asked);
        return tell_bucket(take, asked, &bucket);
    }
    if (asked->is_local)
        left = limit_left_locally(asked);
    else if (asked->kind == LIMIT_LEASED && tally->window == asked->window)
        left = limit_minus(limit, tally->counted) + tally->left;
    return tell_window(take, asked, left);
}

void limit_tell_all(const struct take *take, struct limit_verdict *verdict)
{
    *verdict = (struct limit_verdict){.allowed = true};
    for (size_t i = 0; i < take->count; i++) {
        struct limit_verdict one = limit_tell(take, &take->asked[i]);
        bool is_stronger = verdict->allowed != one.allowed ? !one.allowed
                           : one.allowed                   ? one.remaining < verdict->remaining
                                                           : one.retry_after_s > verdict->retry_after_s;
        if (!verdict->name || is_stronger)
            *verdict = one;
    }
}

/* ---- remembered refusals ---- */

void limit_remember(const struct take *take, const struct asked *asked, uint64_t asked_ns)
{
    const struct limit_charge *charge = asked->charge;
    struct tally *tally = asked->tally;
    if (tally->window != asked->window)
        return;
    tally->refused_ns = asked_ns + REMEMBER_MS * CLOCK_MS;
    tally->refused_cost = charge->cost;
    tally->refused_limit = charge->policy.limit;
    tally->refused_burst = charge->policy.burst;
    tally->refused_counted = asked->counted;
    tally->refused_at_ns = take->now_ns;
    if (asked->kind != LIMIT_BUCKET)
        return;
    struct bucket bucket = limit_bucket_of(asked);
    uint64_t room_us = limit_minus(bucket.depth, asked->counted);
    uint64_t wait_us = limit_minus(limit_price(&bucket, charge->cost), room_us);
    if (wait_us < REMEMBER_MS * 1000)
        tally->refused_ns = asked_ns + wait_us * 1000;
}

bool limit_remembers(const struct take *take, struct asked *asked)
{
    const struct limit_charge *charge = asked->charge;
    const struct tally *tally = asked->tally;
    if (take->now_ns >= tally->refused_ns || tally->refused_limit != charge->policy.limit ||
        tally->refused_burst != charge->policy.burst)
        return false;
    if (asked->kind == LIMIT_LEASED ? tally->left >= charge->cost || tally->set_aside
                                    : charge->cost < tally->refused_cost)
        return false;
    asked->refuses = true;
    asked->counted = tally->refused_counted;
    if (asked->kind == LIMIT_BUCKET)
        asked->counted = limit_minus(asked->counted, (take->now_ns - tally->refused_at_ns) / 1000);
    return true;
}
