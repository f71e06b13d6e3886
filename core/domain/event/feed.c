/* Feeds: see feed.h. */
#include "core/domain/event/feed.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdlib.h>

enum {
    KEPT_MAX = 512, /* a power of two */
    KEPT_BYTES_MAX = 256 * 1024,
    KEPT_MS = 30000,
    PENDING_MAX = 1 << 20,
    PAGE = 500,
    AT_ONCE = 1000, /* feeds in one look */
    SOON_MS = 100,  /* a new feed is looked at again: Redis may have heard of it a moment too late */
};

struct kept {
    struct event_told event; /* its texts stand behind it */
    uint64_t since_ns;
    size_t size;
};

struct feed {
    struct link link; /* in feeds.by_account */
    struct link place_link;
    int64_t account_id;
    char name[24]; /* the account's number */
    size_t name_size;
    feed_on_event *on_event;
    void *owner;
    bool ready;
    bool behind; /* events are missing */
    int64_t seq;
    char id[EVENT_ID_SIZE];
    uint64_t look_ns;
    struct buf pending; /* what Redis said while it was behind */
    struct link waiting;
    struct kept **kept; /* a ring by number */
    int64_t kept_first;
    size_t kept_count;
    size_t kept_bytes;
};

struct feed_waiter {
    struct link link;
    struct wait wait;
};

struct feeds {
    struct table by_account;
    struct link all;
    struct fiber *fiber;
    struct group fibers;
    struct wait wait; /* for work */
};

static struct str name_of(struct link *item)
{
    const struct feed *feed = LIST_ENTRY(item, struct feed, link);
    return str_of(feed->name, feed->name_size);
}

static struct feeds *feeds_self(void)
{
    struct feeds *feeds = loop_self()->slots[LOOP_FEED];
    CHECK(feeds);
    return feeds;
}

static struct feed *find(const struct feeds *feeds, int64_t account_id)
{
    char name[24];
    struct link *item = table_find(&feeds->by_account, str_of(name, format_u64(name, (uint64_t)account_id)));
    return item ? LIST_ENTRY(item, struct feed, link) : NULL;
}

/* ---- what is kept ---- */

static struct kept **kept_slot(const struct feed *feed, int64_t seq)
{
    return &feed->kept[(uint64_t)seq % KEPT_MAX];
}

static void drop_oldest(struct feed *feed)
{
    struct kept **oldest = kept_slot(feed, feed->kept_first++);
    feed->kept_count--;
    feed->kept_bytes -= (*oldest)->size;
    free(*oldest);
    *oldest = NULL;
}

static struct str put(char **at, struct str text)
{
    char *start = *at;
    memcpy(start, text.at, text.size);
    *at += text.size;
    return str_of(start, text.size);
}

static struct kept *kept_new(const struct event_told *event)
{
    size_t size = sizeof(struct kept) + event->id.size + event->name.size + event->body.size;
    struct kept *kept = mem_alloc(size);
    char *at = (char *)(kept + 1);
    kept->since_ns = clock_now_ns();
    kept->size = size;
    kept->event = (struct event_told){.seq = event->seq,
                                      .id = put(&at, event->id),
                                      .name = put(&at, event->name),
                                      .body = put(&at, event->body)};
    return kept;
}

static void keep(struct feed *feed, const struct event_told *event)
{
    struct kept *kept = kept_new(event);
    bool follows = event->seq == feed->kept_first + (int64_t)feed->kept_count;
    while (feed->kept_count &&
           (!follows || feed->kept_count == KEPT_MAX || feed->kept_bytes + kept->size > KEPT_BYTES_MAX))
        drop_oldest(feed);
    if (!feed->kept)
        feed->kept = mem_zalloc(KEPT_MAX * sizeof *feed->kept);
    if (feed->kept_count == 0)
        feed->kept_first = event->seq;
    *kept_slot(feed, event->seq) = kept;
    feed->kept_count++;
    feed->kept_bytes += kept->size;
}

static void drop_old(struct feed *feed)
{
    uint64_t now_ns = clock_now_ns();
    while (feed->kept_count && now_ns - (*kept_slot(feed, feed->kept_first))->since_ns > KEPT_MS * CLOCK_MS)
        drop_oldest(feed);
    if (feed->kept_count == 0) {
        free(feed->kept);
        feed->kept = NULL;
    }
}

const struct event_told *feed_kept(const struct feed *feed, int64_t seq)
{
    bool is_kept = seq + 1 >= feed->kept_first && seq + 1 < feed->kept_first + (int64_t)feed->kept_count;
    return is_kept ? &(*kept_slot(feed, seq + 1))->event : NULL;
}

int64_t feed_find(const struct feed *feed, struct str id)
{
    if (feed->ready && str_equal(id, feed_id(feed)))
        return feed->seq;
    for (int64_t seq = feed->kept_first; seq < feed->kept_first + (int64_t)feed->kept_count; seq++)
        if (str_equal(id, (*kept_slot(feed, seq))->event.id))
            return seq;
    return -1;
}

/* ---- handing on ---- */

static void hand_on(struct feed *feed, const struct event_told *event)
{
    feed->seq = event->seq;
    memcpy(feed->id, event->id.at, EVENT_ID_SIZE);
    keep(feed, event);
    feed->on_event(feed->owner, event);
}

/* False when one before it is missing. */
static bool take(struct feed *feed, struct str message)
{
    struct event_told event;
    while (event_next(&message, &event)) {
        if (event.seq > feed->seq + 1)
            return false;
        if (event.seq == feed->seq + 1)
            hand_on(feed, &event);
    }
    return true;
}

static void fall_behind(struct feed *feed, struct str message)
{
    feed->behind = true;
    /* What is too much for now is read. */
    if (feed->pending.size + message.size <= PENDING_MAX)
        buf_add_str(&feed->pending, message);
    wait_done(&feeds_self()->wait, 0);
}

static void on_message(void *arg, struct str message)
{
    struct feed *feed = arg;
    if (!feed->ready || feed->behind || !take(feed, message))
        fall_behind(feed, message);
}

/* ---- open and close ---- */

struct feed *feed_open(int64_t account_id, feed_on_event *on_event, void *owner)
{
    struct feeds *feeds = feeds_self();
    CHECK(!find(feeds, account_id));
    struct feed *feed = mem_zalloc(sizeof *feed);
    feed->account_id = account_id;
    feed->name_size = format_u64(feed->name, (uint64_t)account_id);
    feed->on_event = on_event;
    feed->owner = owner;
    memcpy(feed->id, EVENT_START, EVENT_ID_SIZE);
    list_init(&feed->waiting);
    list_push_back(&feeds->all, &feed->place_link);
    table_add(&feeds->by_account, &feed->link);
    char channel[EVENT_CHANNEL_SIZE];
    redis_subscribe(event_channel(channel, account_id), on_message, feed);
    wait_done(&feeds->wait, 0);
    return feed;
}

static void wake_waiting(struct feed *feed, int result)
{
    struct link *item;
    while ((item = list_pop_front(&feed->waiting)) != NULL)
        wait_done(&LIST_ENTRY(item, struct feed_waiter, link)->wait, result);
}

void feed_close(struct feed *feed)
{
    char channel[EVENT_CHANNEL_SIZE];
    redis_unsubscribe(event_channel(channel, feed->account_id));
    wake_waiting(feed, -ECANCELED);
    table_remove(&feeds_self()->by_account, &feed->link);
    list_remove(&feed->place_link);
    while (feed->kept_count)
        drop_oldest(feed);
    free(feed->kept);
    buf_clear(&feed->pending);
    free(feed);
}

int feed_wait(struct feed *feed, uint64_t deadline_ns)
{
    if (feed->ready)
        return 0;
    struct feed_waiter waiter = {.wait = WAIT_INIT};
    list_push_back(&feed->waiting, &waiter.link);
    int result = wait_for(&waiter.wait, "an account's last event", deadline_ns);
    list_remove(&waiter.link);
    return result;
}

int64_t feed_place(const struct feed *feed)
{
    return feed->seq;
}

struct str feed_id(const struct feed *feed)
{
    return str_of(feed->id, EVENT_ID_SIZE);
}

/* ---- the loop's fiber ---- */

/* What Redis said meanwhile; false when there still is something missing. */
static bool take_pending(struct feed *feed)
{
    struct buf pending = feed->pending;
    feed->pending = (struct buf){0};
    bool all = take(feed, buf_str(&pending));
    buf_clear(&pending);
    return all;
}

/* Reads a page of what is missing. */
static int catch_up(struct feeds *feeds, int64_t account_id)
{
    struct arena arena;
    struct event_told *events;
    size_t count;
    struct feed *feed = find(feeds, account_id);
    arena_init(&arena);
    int result = feed ? event_read_after(&arena, account_id, feed->seq, PAGE, &events, &count) : 0;
    feed = find(feeds, account_id); /* it may be another one by now, or none */
    if (result == 0 && feed && feed->ready) {
        metric_add(M_EVENTS_READ, (int64_t)count);
        for (size_t i = 0; i < count; i++)
            if (events[i].seq > feed->seq) /* what is missing even here was forgotten */
                hand_on(feed, &events[i]);
        /* After a full page more is there; after any other, only what was said meanwhile. */
        if (count < PAGE)
            feed->behind = !take_pending(feed);
    }
    arena_clear(&arena);
    return result;
}

static void see_head(struct feed *feed, const struct event_head *head)
{
    if (feed->ready) {
        feed->behind |= head->seq > feed->seq;
        feed->look_ns = clock_in_ms(FEED_LOOK_MS);
        drop_old(feed);
        return;
    }
    feed->ready = true;
    feed->seq = head->seq;
    memcpy(feed->id, head->id, EVENT_ID_SIZE);
    feed->behind = !take_pending(feed);
    feed->look_ns = clock_in_ms(SOON_MS);
    wake_waiting(feed, 0);
}

/* Looks at the heads of those whose turn it is, up to AT_ONCE. */
static int look(struct feeds *feeds, size_t *count)
{
    int64_t accounts[AT_ONCE];
    uint64_t now_ns = clock_now_ns();
    *count = 0;
    LIST_EACH (&feeds->all, item, after) {
        const struct feed *feed = LIST_ENTRY(item, struct feed, place_link);
        if (*count < AT_ONCE && (!feed->ready || feed->look_ns <= now_ns))
            accounts[(*count)++] = feed->account_id;
    }
    if (*count == 0)
        return 0;
    struct event_head *heads = mem_alloc(*count * sizeof *heads);
    int result = event_heads(accounts, *count, heads);
    for (size_t i = 0; i < *count; i++) {
        struct feed *feed = find(feeds, accounts[i]);
        if (feed && result == 0)
            see_head(feed, &heads[i]);
        else if (feed && !feed->ready)
            wake_waiting(feed, result);
    }
    free(heads);
    return result;
}

static bool is_behind(const struct feed *feed)
{
    return feed->ready && feed->behind;
}

/* A page for each that is behind, in turn, until none is. */
static int catch_all_up(struct feeds *feeds)
{
    int result = 0;
    bool any = true;
    while (result == 0 && any) {
        any = false;
        int64_t accounts[AT_ONCE];
        size_t count = 0;
        LIST_EACH (&feeds->all, item, after) {
            const struct feed *feed = LIST_ENTRY(item, struct feed, place_link);
            if (count < AT_ONCE && is_behind(feed))
                accounts[count++] = feed->account_id;
        }
        for (size_t i = 0; result == 0 && i < count; i++)
            result = catch_up(feeds, accounts[i]);
        any = count > 0;
    }
    return result;
}

static uint64_t next_look(const struct feeds *feeds)
{
    uint64_t at_ns = clock_in_ms(FEED_LOOK_MS);
    LIST_EACH ((struct link *)(uintptr_t)&feeds->all, item, after) {
        const struct feed *feed = LIST_ENTRY(item, struct feed, place_link);
        if (feed->look_ns < at_ns)
            at_ns = feed->look_ns;
    }
    return at_ns;
}

static void run_feeds(void *arg)
{
    struct feeds *feeds = arg;
    uint64_t at_ns = clock_in_ms(FEED_LOOK_MS);
    while (wait_for(&feeds->wait, "work on feeds", at_ns) != -ECANCELED) {
        size_t count;
        feeds->wait = WAIT_INIT;
        int result;
        do
            result = look(feeds, &count);
        while (result == 0 && count == AT_ONCE);
        if (result == 0)
            result = catch_all_up(feeds);
        /* PostgreSQL is away, or out of order: it is asked again a little later. */
        at_ns = result ? clock_in_ms(SOON_MS) : next_look(feeds);
        if (result && result != -ENOTCONN && result != -ECANCELED)
            LOG(WARN, "events could not be read", LOG_ERRNO(result));
    }
    group_done(&feeds->fibers);
}

void feed_open_loop(struct loop *loop)
{
    struct feeds *feeds = mem_zalloc(sizeof *feeds);
    table_init(&feeds->by_account, name_of);
    list_init(&feeds->all);
    loop->slots[LOOP_FEED] = feeds;
    group_add(&feeds->fibers);
    feeds->fiber = fiber_start(loop, "event feeds", run_feeds, feeds);
}

void feed_close_loop(struct loop *loop)
{
    struct feeds *feeds = loop->slots[LOOP_FEED];
    if (!feeds)
        return;
    fiber_hold();
    fiber_cancel(feeds->fiber);
    CHECK(group_wait(&feeds->fibers, "feeds", CLOCK_NEVER) == 0);
    fiber_release();
    CHECK(list_empty(&feeds->all));
    table_clear(&feeds->by_account);
    free(feeds);
    loop->slots[LOOP_FEED] = NULL;
}
