/*
 * Publish and subscribe: one connection of the loop's own, as RESP 2 allows a subscribed connection little else.
 * The table of subscriptions is what is wanted; each time the connection comes up it is told all of them.
 */
#include "core/store/redis_internal.h"

#include "core/base/config.h"

#include <stdlib.h>

struct subscription {
    struct link link;
    struct str channel; /* stands behind the struct */
    redis_on_message *on_message;
    void *arg;
};

static struct str channel_of(struct link *item)
{
    return LIST_ENTRY(item, struct subscription, link)->channel;
}

static struct subscription *find(const struct redis_subscriber *subscriber, struct str channel)
{
    struct link *item = table_find(&subscriber->subscriptions, channel);
    return item ? LIST_ENTRY(item, struct subscription, link) : NULL;
}

/* ["message", channel, text]; what else comes confirms what we asked for. */
static void on_push(struct redis *redis, const struct redis_value *push)
{
    if (push->type != REDIS_ARRAY || push->count != 3 || !str_equal(push->items[0].text, STR("message")))
        return;
    struct subscription *subscription = find(redis->listener, push->items[1].text);
    if (subscription)
        subscription->on_message(subscription->arg, push->items[2].text);
}

static void tell(struct link *item, void *arg)
{
    redis_connection_add_push(arg, REDIS_ARGS(STR("SUBSCRIBE"), channel_of(item)));
}

static void on_up(struct redis *redis)
{
    struct redis_subscriber *subscriber = redis->listener;
    table_each(&subscriber->subscriptions, tell, redis);
}

static struct redis_subscriber *subscriber_new(struct redis_loop *owner)
{
    struct redis_subscriber *subscriber = mem_zalloc(sizeof *subscriber);
    table_init(&subscriber->subscriptions, channel_of);
    subscriber->redis = redis_connection_new(owner, "subscriber", (uint64_t)config->redis_timeout_ms);
    subscriber->redis->on_up = on_up;
    subscriber->redis->on_push = on_push;
    subscriber->redis->listener = subscriber;
    return subscriber;
}

void redis_subscriber_close(struct redis_subscriber *subscriber)
{
    if (!subscriber)
        return;
    redis_connection_close(subscriber->redis);
    table_clear(&subscriber->subscriptions);
    free(subscriber);
}

void redis_subscribe(struct str channel, redis_on_message *on_message, void *arg)
{
    struct redis_loop *owner = redis_loop_self();
    if (!owner->subscriber)
        owner->subscriber = subscriber_new(owner);
    CHECK(!find(owner->subscriber, channel));
    struct subscription *subscription = mem_alloc(sizeof *subscription + channel.size);
    char *kept = (char *)(subscription + 1);
    memcpy(kept, channel.at, channel.size);
    subscription->channel = str_of(kept, channel.size);
    subscription->on_message = on_message;
    subscription->arg = arg;
    table_add(&owner->subscriber->subscriptions, &subscription->link);
    if (redis_is_up(owner->subscriber->redis))
        tell(&subscription->link, owner->subscriber->redis);
}

void redis_unsubscribe(struct str channel)
{
    struct redis_subscriber *subscriber = redis_loop_self()->subscriber;
    struct subscription *subscription = subscriber ? find(subscriber, channel) : NULL;
    CHECK(subscription);
    if (redis_is_up(subscriber->redis))
        redis_connection_add_push(subscriber->redis, REDIS_ARGS(STR("UNSUBSCRIBE"), subscription->channel));
    table_remove(&subscriber->subscriptions, &subscription->link);
    free(subscription);
}
