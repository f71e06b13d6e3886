/*
 * Bells over Redis's publish and subscribe: see bell.h. A loop's address is a channel that only it listens to; a
 * message is the topic that rings. Topics are told apart here, so that opening an ear costs Redis nothing.
 *
 * Announcements go out without an address, so there Redis tells the topics apart: "announce:{topic}" is a channel that a
 * loop listens to from its first ear for it to its last. Its messages say nothing beyond that.
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
    struct table channels;
};

#define ANNOUNCE "announce:"
enum { CHANNEL_MAX = sizeof ANNOUNCE - 1 + BELL_TOPIC_MAX };

/* What the loop listens to for announcements of one topic. */
struct bell_channel {
    struct link link;
    struct bells *bells;
    unsigned ears;
    size_t name_size;
    char name[CHANNEL_MAX];
};

static struct str topic_of(struct link *item)
{
    return LIST_ENTRY(item, struct bell_ear, link)->topic;
}

static struct str channel_topic(const struct bell_channel *channel)
{
    size_t before = sizeof ANNOUNCE - 1;
    return str_of(channel->name + before, channel->name_size - before);
}

static struct str channel_topic_of(struct link *item)
{
    return channel_topic(LIST_ENTRY(item, struct bell_channel, link));
}

static struct str channel_name(char out[CHANNEL_MAX], struct str topic)
{
    CHECK(topic.size <= BELL_TOPIC_MAX);
    memcpy(out, ANNOUNCE, sizeof ANNOUNCE - 1);
    memcpy(out + sizeof ANNOUNCE - 1, topic.at, topic.size);
    return str_of(out, sizeof ANNOUNCE - 1 + topic.size);
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
    table_init(&bells->channels, channel_topic_of);
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
    table_clear(&bells->channels);
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
    ear->channel = NULL;
    table_add(&bells_self()->ears, &ear->link);
}

static void on_announced(void *arg, struct str message)
{
    struct bell_channel *channel = arg;
    (void)message;
    ring_here(channel->bells, channel_topic(channel));
}

static struct bell_channel *channel_new(struct bells *bells, struct str topic)
{
    struct bell_channel *channel = mem_zalloc(sizeof *channel);
    struct str name = channel_name(channel->name, topic);
    channel->bells = bells;
    channel->name_size = name.size;
    table_add(&bells->channels, &channel->link);
    redis_subscribe(name, on_announced, channel);
    return channel;
}

static void channel_leave(struct bells *bells, struct bell_channel *channel)
{
    if (--channel->ears)
        return;
    redis_unsubscribe(str_of(channel->name, channel->name_size));
    table_remove(&bells->channels, &channel->link);
    free(channel);
}

void bell_ear_open_announced(struct bell_ear *ear, struct str topic)
{
    struct bells *bells = bells_self();
    struct link *known = table_find(&bells->channels, topic);
    bell_ear_open(ear, topic);
    ear->channel = known ? LIST_ENTRY(known, struct bell_channel, link) : channel_new(bells, topic);
    ear->channel->ears++;
}

void bell_ear_close(struct bell_ear *ear)
{
    struct bells *bells = bells_self();
    table_remove(&bells->ears, &ear->link);
    if (ear->channel)
        channel_leave(bells, ear->channel);
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

void bell_announce(struct str topic)
{
    struct bells *bells = loop_self()->slots[LOOP_BELL];
    char name[CHANNEL_MAX];
    if (bells)
        ring_here(bells, topic);
    redis_send(redis_shared(), REDIS_ARGS(STR("PUBLISH"), channel_name(name, topic), STR("")));
}
