/* Audiences: see audience.h. */
#include "core/gate/audience.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/store/table.h"

#include <stdlib.h>

struct audiences {
    struct loop *loop;
    struct table by_account;
};

static struct str name_of(struct link *item)
{
    const struct audience *audience = LIST_ENTRY(item, struct audience, link);
    return str_of(audience->name, audience->name_size);
}

static void on_event(void *owner, const struct event_told *event)
{
    struct audience *audience = owner;
    fanout_send(audience->fanout, true, event->body, event_set_of(event->name));
    LIST_EACH (&audience->readers, item, after)
        wait_done(&LIST_ENTRY(item, struct audience_reader, link)->wait, 0);
}

static struct audience *find(const struct audiences *audiences, int64_t account_id)
{
    char name[24];
    struct link *item =
        table_find(&audiences->by_account, str_of(name, format_u64(name, (uint64_t)account_id)));
    return item ? LIST_ENTRY(item, struct audience, link) : NULL;
}

static struct audience *audience_new(struct audiences *audiences, int64_t account_id)
{
    struct audience *audience = mem_zalloc(sizeof *audience);
    audience->account_id = account_id;
    audience->name_size = format_u64(audience->name, (uint64_t)account_id);
    list_init(&audience->readers);
    audience->fanout = fanout_open(audiences->loop);
    audience->feed = feed_open(account_id, on_event, audience);
    table_add(&audiences->by_account, &audience->link);
    return audience;
}

static void audience_free(struct audiences *audiences, struct audience *audience)
{
    CHECK(audience->streams == 0 && list_empty(&audience->readers));
    table_remove(&audiences->by_account, &audience->link);
    feed_close(audience->feed);
    fanout_close(audience->fanout);
    free(audience);
}

struct audience *audience_enter(int64_t account_id)
{
    struct audiences *audiences = loop_self()->slots[LOOP_AUDIENCE];
    struct audience *audience = find(audiences, account_id);
    if (!audience)
        audience = audience_new(audiences, account_id);
    if (audience->streams >= (unsigned)config->event_streams)
        return NULL;
    audience->streams++;
    return audience;
}

void audience_leave(struct audience *audience)
{
    if (--audience->streams == 0)
        audience->empty_ns = clock_now_ns();
}

void audience_read(struct audience *audience, struct audience_reader *reader)
{
    reader->wait = WAIT_INIT;
    list_push_back(&audience->readers, &reader->link);
}

void audience_stop_reading(struct audience_reader *reader)
{
    list_remove(&reader->link);
}

/* ---- the loop's ---- */

struct visit {
    void (*visit)(struct audience *audience, void *arg);
    void *arg;
};

static void visit_one(struct link *item, void *arg)
{
    const struct visit *visit = arg;
    visit->visit(LIST_ENTRY(item, struct audience, link), visit->arg);
}

void audience_each(struct loop *loop, void (*visit)(struct audience *audience, void *arg), void *arg)
{
    const struct audiences *audiences = loop->slots[LOOP_AUDIENCE];
    struct visit one = {visit, arg};
    if (audiences)
        table_each(&audiences->by_account, visit_one, &one);
}

struct sweep {
    struct audience *found[64];
    size_t count;
    bool all;
};

static void collect(struct link *item, void *arg)
{
    struct sweep *sweep = arg;
    struct audience *audience = LIST_ENTRY(item, struct audience, link);
    bool is_over = sweep->all || (audience->streams == 0 &&
                                  clock_now_ns() - audience->empty_ns > AUDIENCE_LINGER_MS * CLOCK_MS);
    if (is_over && sweep->count < ARRAY_SIZE(sweep->found))
        sweep->found[sweep->count++] = audience;
}

static void sweep_all(struct audiences *audiences, bool all)
{
    struct sweep sweep;
    do {
        sweep = (struct sweep){.all = all};
        table_each(&audiences->by_account, collect, &sweep);
        for (size_t i = 0; i < sweep.count; i++)
            audience_free(audiences, sweep.found[i]);
    } while (sweep.count == ARRAY_SIZE(sweep.found));
}

void audience_sweep(struct loop *loop)
{
    sweep_all(loop->slots[LOOP_AUDIENCE], false);
}

void audience_open_loop(struct loop *loop)
{
    struct audiences *audiences = mem_zalloc(sizeof *audiences);
    audiences->loop = loop;
    table_init(&audiences->by_account, name_of);
    loop->slots[LOOP_AUDIENCE] = audiences;
}

void audience_close_loop(struct loop *loop)
{
    struct audiences *audiences = loop->slots[LOOP_AUDIENCE];
    if (!audiences)
        return;
    sweep_all(audiences, true);
    table_clear(&audiences->by_account);
    free(audiences);
    loop->slots[LOOP_AUDIENCE] = NULL;
}
