/*
 * What a loop knows of limits: leases, remembered refusals, and counts while Redis is away. See limit_internal.h.
 *
 * The table keeps the names last used; when it is full, the one that was not used for longest goes. What it still has of a lease
 * goes back to Redis.
 */
#include "core/store/limit_internal.h"

#include "core/base/clock.h"
#include "core/run/fiber.h"
#include "core/store/table.h"

#include <stdlib.h>

enum { TALLIES_MOST = 16384 };

struct limits {
    struct table tallies;
    struct link order;
};

/* A fiber in tally_wait. */
struct tally_place {
    struct link link;
    struct wait wait;
};

static struct str key_of(struct link *item)
{
    return LIST_ENTRY(item, struct tally, in_table)->key;
}

static struct limits *limits_self(void)
{
    struct loop *loop = loop_self();
    if (UNLIKELY(!loop->slots[LOOP_LIMIT])) {
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
        if (tally->users)
            continue;
        if (tally->left && (uint64_t)clock_wall_s() / tally->window_s == tally->window)
            limit_send_back(tally->key, tally->window, tally->window_s, tally->left);
        tally_free(limits, tally);
        return;
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

static struct tally *hold(struct limits *limits, struct tally *tally)
{
    list_remove(&tally->in_order);
    list_push_front(&limits->order, &tally->in_order);
    tally->users++;
    return tally;
}

struct tally *tally_hold_known(struct str key)
{
    struct limits *limits = limits_self();
    struct link *item = table_find(&limits->tallies, key);
    return item ? hold(limits, LIST_ENTRY(item, struct tally, in_table)) : NULL;
}

struct tally *tally_hold(struct str key)
{
    struct tally *tally = tally_hold_known(key);
    struct limits *limits = limits_self();
    return tally ? tally : hold(limits, tally_new(limits, key));
}

void tally_release(struct tally *tally)
{
    tally->users--;
}

void tally_turn(struct tally *tally, uint64_t window, uint64_t window_s)
{
    if (LIKELY(tally->window == window && tally->window_s == window_s))
        return;
    tally->window = window;
    tally->window_s = window_s;
    tally->left = 0;
    tally->set_aside = 0;
    tally->counted = 0;
    tally->wanted = 0;
    tally->spent = 0;
    tally->refused_ns = 0;
    tally->local = 0;
}

int tally_wait(struct tally *tally, uint64_t cost)
{
    struct tally_place place = {.wait = WAIT_INIT};
    list_push_back(&tally->waiting, &place.link);
    tally->waiting_cost += cost;
    int result = wait_for(&place.wait, "a share of a rate limit", CLOCK_NEVER);
    tally->waiting_cost -= cost;
    list_remove(&place.link);
    return result;
}

void tally_wake(struct tally *tally, int result)
{
    struct link *item;
    while ((item = list_pop_front(&tally->waiting)) != NULL)
        wait_done(&LIST_ENTRY(item, struct tally_place, link)->wait, result);
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
