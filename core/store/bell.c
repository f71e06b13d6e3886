/*
 * Bells over Redis's publish and subscribe: see bell.h. A loop's address is a channel that only it listens to; a
 * message is the topic that rings. Topics are told apart here, so that opening an ear costs Redis nothing.
 */
#include "core/store/bell.h"

#include "core/base/clock.h"
#include "core/base/id.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <stdio.h>
#include <stdlib.h>

enum { ADDRESS_RANDOM = 20 };

struct bells {
    char address[BELL_ADDRESS_SIZE];
    struct table ears;
};

static struct str topic_of(struct link *item)
{
    return LIST_ENTRY(item, struct bell_ear, link)->topic;
}

static struct bells *bells_self(void)
{
    struct loop *loop = loop_self();
    CHECK(loop && loop->slots[LOOP_BELL]);
    return loop->slots[LOOP_BELL];
}

static void ring_here(void *arg, struct str topic)
{
    struct bells *bells = arg;
    for (struct link *item = table_find(&bells->ears, topic); item;
         item = table_find_next(&bells->ears, item, topic))
        wait_done(&LIST_ENTRY(item, struct bell_ear, link)->wait, 0);
}

void bell_open_loop(struct loop *loop)
{
    CHECK(!loop->slots[LOOP_BELL]);
    struct bells *bells = mem_zalloc(sizeof *bells);
    char random[ADDRESS_RANDOM + 1];
    id_random(random, ADDRESS_RANDOM);
    snprintf(bells->address, sizeof bells->address, "bell:%s", random);
    table_init(&bells->ears, topic_of);
    loop->slots[LOOP_BELL] = bells;
    redis_subscribe(str_from(bells->address), ring_here, bells);
}

void bell_close_loop(struct loop *loop)
{
    struct bells *bells = loop->slots[LOOP_BELL];
    if (!bells)
        return;
    redis_unsubscribe(str_from(bells->address));
    table_clear(&bells->ears);
    loop->slots[LOOP_BELL] = NULL;
    free(bells);
}

const char *bell_address(void)
{
    return bells_self()->address;
}

void bell_ear_open(struct bell_ear *ear, struct str topic)
{
    ear->topic = topic;
    ear->wait = WAIT_INIT;
    table_add(&bells_self()->ears, &ear->link);
}

void bell_ear_close(struct bell_ear *ear)
{
    table_remove(&bells_self()->ears, &ear->link);
}

int bell_ear_wait(struct bell_ear *ear, const char *what, uint64_t deadline_ns)
{
    int result = wait_for(&ear->wait, what, deadline_ns);
    if (result == 0)
        ear->wait = WAIT_INIT;
    return result;
}

void bell_ring(struct str address, struct str topic)
{
    struct bells *bells = loop_self()->slots[LOOP_BELL];
    if (address.size == 0)
        return;
    if (bells && str_equal(address, str_from(bells->address)))
        ring_here(bells, topic);
    else
        redis_send(redis_shared(), REDIS_ARGS(STR("PUBLISH"), address, topic));
}
