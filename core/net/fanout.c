/*
 * Messages to many: see fanout.h.
 *
 * Members stand in two lists: `current` have been given everything, `behind` have not. A message is put into the ring and
 * all of `current` goes, in one step, to the end of `behind`, from whose front members are served. So who is first in
 * `behind` has waited longest, and the oldest message that anybody still needs is the one that it needs.
 */
#include "core/net/fanout.h"

#include <stdlib.h>
#include <uv.h>

struct slot {
    struct ws_message *message;
    uint64_t kinds;
};

struct fanout {
    struct loop *loop;
    uv_idle_t turn; /* active while members are behind */
    struct link current;
    struct link behind;
    size_t count;
    struct slot *ring; /* of messages first … end - 1; a power of two long */
    size_t ring_size;
    uint64_t first;
    uint64_t end;
};

static struct slot *slot(const struct fanout *fanout, uint64_t number)
{
    return &fanout->ring[number & (fanout->ring_size - 1)];
}

static void grow(struct fanout *fanout)
{
    size_t size = fanout->ring_size ? fanout->ring_size * 2 : 16;
    struct slot *ring = mem_zalloc(size * sizeof *ring);
    for (uint64_t i = fanout->first; i < fanout->end; i++)
        ring[i & (size - 1)] = *slot(fanout, i);
    free(fanout->ring);
    fanout->ring = ring;
    fanout->ring_size = size;
}

/* Lets go of what nobody needs any more. */
static void trim(struct fanout *fanout)
{
    uint64_t needed = fanout->end;
    if (!list_empty(&fanout->behind))
        needed = LIST_ENTRY(fanout->behind.next, struct fanout_member, link)->next;
    for (; fanout->first < needed; fanout->first++)
        ws_message_free(slot(fanout, fanout->first)->message);
}

static void serve(struct fanout *fanout, struct fanout_member *member)
{
    list_remove(&member->link);
    list_push_back(&fanout->current, &member->link);
    for (; member->next < fanout->end; member->next++) {
        const struct slot *next = slot(fanout, member->next);
        if (next->kinds & member->kinds)
            ws_send_message(member->ws, next->message);
    }
}

static void on_turn(uv_idle_t *turn)
{
    struct fanout *fanout = turn->data;
    for (int i = 0; i < FANOUT_TURN && !list_empty(&fanout->behind); i++)
        serve(fanout, LIST_ENTRY(fanout->behind.next, struct fanout_member, link));
    trim(fanout);
    if (list_empty(&fanout->behind))
        uv_idle_stop(turn);
}

struct fanout *fanout_open(struct loop *loop)
{
    struct fanout *fanout = mem_zalloc(sizeof *fanout);
    fanout->loop = loop;
    list_init(&fanout->current);
    list_init(&fanout->behind);
    CHECK(uv_idle_init(&loop->uv, &fanout->turn) == 0);
    fanout->turn.data = fanout;
    return fanout;
}

static void on_closed(uv_handle_t *handle)
{
    struct fanout *fanout = handle->data;
    free(fanout->ring);
    free(fanout);
}

void fanout_close(struct fanout *fanout)
{
    CHECK(fanout->count == 0);
    trim(fanout);
    uv_close((uv_handle_t *)&fanout->turn, on_closed);
}

void fanout_join(struct fanout *fanout, struct fanout_member *member, struct ws *ws, uint64_t kinds)
{
    *member = (struct fanout_member){.ws = ws, .fanout = fanout, .next = fanout->end, .kinds = kinds};
    list_push_back(&fanout->current, &member->link);
    fanout->count++;
}

void fanout_leave(struct fanout_member *member)
{
    struct fanout *fanout = member->fanout;
    if (!fanout)
        return;
    list_remove(&member->link);
    member->fanout = NULL;
    fanout->count--;
    trim(fanout);
}

void fanout_catch_up(struct fanout_member *member)
{
    struct fanout *fanout = member->fanout;
    if (!fanout || member->next == fanout->end)
        return;
    serve(fanout, member);
    trim(fanout);
}

void fanout_want(struct fanout_member *member, uint64_t kinds)
{
    fanout_catch_up(member);
    member->kinds = kinds;
}

void fanout_send(struct fanout *fanout, bool text, struct str payload, uint64_t kinds)
{
    if (fanout->count == 0)
        return;
    if (fanout->end - fanout->first == fanout->ring_size)
        grow(fanout);
    *slot(fanout, fanout->end++) = (struct slot){ws_message_new(text, payload), kinds};
    struct link *current = &fanout->current;
    if (!list_empty(current)) { /* all of it, to the end of `behind` */
        current->next->prev = fanout->behind.prev;
        fanout->behind.prev->next = current->next;
        current->prev->next = &fanout->behind;
        fanout->behind.prev = current->prev;
        list_init(current);
    }
    uv_idle_start(&fanout->turn, on_turn);
}
