/*
 * While there is no Redis each loop admits its share of a limit, as if there were as many loops as this server has: first what it
 * still has of a lease, then by a count of its own.
 */
#include "core/store/limit_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"

#include <unistd.h>

static uint64_t share_of(uint64_t whole)
{
    static _Thread_local uint64_t cores;
    if (cores == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cores = online > 0 ? (uint64_t)online : 1;
    }
    uint64_t share = whole / (config->reactors ? (uint64_t)config->reactors : cores);
    return share ? share : 1;
}

struct bucket limit_bucket_locally(const struct asked *asked)
{
    const struct limit_policy *policy = &asked->charge->policy;
    return limit_bucket(share_of(policy->limit), policy->window_s, share_of(policy->burst));
}

static bool is_in_stock(const struct asked *asked)
{
    return asked->kind == LIMIT_LEASED && asked->tally->left >= asked->charge->cost;
}

uint64_t limit_left_locally(const struct asked *asked)
{
    const struct tally *tally = asked->tally;
    uint64_t left = limit_minus(share_of(asked->charge->policy.limit), tally->local);
    return asked->kind == LIMIT_LEASED ? left + tally->left : left;
}

void limit_look_locally(const struct take *take, struct asked *asked)
{
    const struct tally *tally = asked->tally;
    uint64_t cost = asked->charge->cost;
    asked->is_local = true;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_locally(asked);
        uint64_t full_in_us = limit_minus(tally->local_full_ns, take->now_ns) / 1000;
        asked->counted = limit_less(full_in_us, bucket.depth);
        asked->refuses = limit_bucket_refuses(&bucket, cost, asked->counted);
    } else {
        uint64_t left = limit_minus(share_of(asked->charge->policy.limit), tally->local);
        asked->refuses = left < cost && !is_in_stock(asked);
    }
}

static void charge_locally(const struct take *take, struct asked *asked)
{
    struct tally *tally = asked->tally;
    uint64_t cost = asked->charge->cost;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_locally(asked);
        asked->counted += limit_price(&bucket, cost);
        tally->local_full_ns = take->now_ns + asked->counted * 1000;
    } else if (is_in_stock(asked)) {
        tally->left -= cost;
        tally->spent += cost;
    } else {
        tally->local += cost;
    }
}

void limit_take_locally(struct take *take)
{
    bool is_refused = false;
    for (size_t i = 0; i < take->count; i++) {
        limit_look_locally(take, &take->asked[i]);
        is_refused |= take->asked[i].refuses;
    }
    for (size_t i = 0; i < take->count && !is_refused; i++)
        charge_locally(take, &take->asked[i]);
    metric_add(M_LIMIT_LOCAL, 1);
}

void limit_give_back_locally(const struct take *take, struct asked *asked)
{
    struct tally *tally = asked->tally;
    uint64_t cost = asked->charge->cost;
    if (asked->kind == LIMIT_BUCKET) {
        struct bucket bucket = limit_bucket_locally(asked);
        uint64_t full_in_us = limit_minus(tally->local_full_ns, take->now_ns) / 1000;
        tally->local_full_ns = take->now_ns + limit_minus(full_in_us, limit_price(&bucket, cost)) * 1000;
    } else {
        tally->local = limit_minus(tally->local, cost);
    }
}
