/* The table of metrics and its shards, one per thread. */
#include "core/base/metrics.h"

#include "core/base/check.h"
#include "core/base/list.h"

#include <pthread.h>
#include <stdatomic.h>

const struct metric_row metric_rows[METRIC_COUNT] = {
#define METRIC_ROW(id, type_, name_, label_, help_)                                                          \
    {.name = name_, .label = label_, .help = help_, .type = METRIC_##type_},
    METRICS(METRIC_ROW)
#undef METRIC_ROW
};

const uint64_t metric_bucket_us[METRIC_BUCKETS - 1] = {
    100,   250,    500,    1000,   2500,    5000,    10000,   25000,
    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 30000000,
};

struct histogram {
    _Atomic uint64_t buckets[METRIC_BUCKETS];
    _Atomic uint64_t sum_us;
};

/* Shards stay for the life of the process: what a thread has counted stays counted when it ends. */
struct shard {
    struct shard *next;
    _Atomic int64_t values[METRIC_COUNT][METRIC_SLOTS];
    struct histogram *_Atomic histograms[METRIC_COUNT][METRIC_SLOTS];
};

static const char *_Atomic slot_names[METRIC_COUNT][METRIC_SLOTS];
static struct shard *_Atomic shards;
static _Thread_local struct shard *own;

static struct shard *shard_own(void)
{
    if (UNLIKELY(!own)) {
        own = mem_zalloc(sizeof *own);
        own->next = atomic_load(&shards);
        while (!atomic_compare_exchange_weak(&shards, &own->next, own))
            continue;
    }
    return own;
}

void metric_name_slot(enum metric metric, unsigned slot, const char *value)
{
    CHECK(slot < METRIC_SLOTS);
    atomic_store_explicit(&slot_names[metric][slot], value, memory_order_release);
}

const char *metric_slot_name(enum metric metric, unsigned slot)
{
    return atomic_load_explicit(&slot_names[metric][slot], memory_order_acquire);
}

/* Only the owner writes, so a relaxed load and store do; a locked add would cost twenty times as much. */
static void own_add(_Atomic int64_t *value, int64_t by)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

static void own_add_u64(_Atomic uint64_t *value, uint64_t by)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

void metric_add(enum metric metric, int64_t by)
{
    own_add(&shard_own()->values[metric][0], by);
}

void metric_add_slot(enum metric metric, unsigned slot, int64_t by)
{
    own_add(&shard_own()->values[metric][slot < METRIC_SLOTS ? slot : METRIC_SLOTS - 1], by);
}

void metric_observe_us(enum metric metric, unsigned slot, uint64_t us)
{
    CHECK(slot < METRIC_SLOTS);
    struct histogram *_Atomic *at = &shard_own()->histograms[metric][slot];
    struct histogram *histogram = atomic_load_explicit(at, memory_order_relaxed);
    if (UNLIKELY(!histogram)) {
        histogram = mem_zalloc(sizeof *histogram);
        atomic_store_explicit(at, histogram, memory_order_release);
    }
    unsigned bucket = 0;
    while (bucket < METRIC_BUCKETS - 1 && us > metric_bucket_us[bucket])
        bucket++;
    own_add_u64(&histogram->buckets[bucket], 1);
    own_add_u64(&histogram->sum_us, us);
}

int64_t metric_read(enum metric metric, unsigned slot)
{
    int64_t sum = 0;
    for (struct shard *shard = atomic_load(&shards); shard; shard = shard->next)
        sum += atomic_load_explicit(&shard->values[metric][slot], memory_order_relaxed);
    return sum;
}

void metric_read_histogram(enum metric metric, unsigned slot, uint64_t buckets[METRIC_BUCKETS],
                           uint64_t *sum_us)
{
    *sum_us = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        buckets[i] = 0;
    for (struct shard *shard = atomic_load(&shards); shard; shard = shard->next) {
        struct histogram *histogram =
            atomic_load_explicit(&shard->histograms[metric][slot], memory_order_acquire);
        if (!histogram)
            continue;
        for (unsigned i = 0; i < METRIC_BUCKETS; i++)
            buckets[i] += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
        *sum_us += atomic_load_explicit(&histogram->sum_us, memory_order_relaxed);
    }
}
