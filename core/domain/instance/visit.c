/*
 * Visits: see visit.h. What a proxied request costs beyond its bytes is here: one look into a table, two counters and the
 * time, as long as the route is fresh.
 *
 *   visit_open ──route fresh──▶ in flight ──▶ visit_to_socket ──▶ visit_close
 *       │                          ▲                                 ▲
 *       └──▶ waits for the finder ─┘─────────────────────────────────┘
 */
#include "core/base/clock.h"
#include "core/domain/instance/visit_internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PLACE_MAGIC = 0x706c6163,
    VISIT_MAGIC = 0x76697374,
    SPARE_MAX = 1024,
    /* A route older than this is looked for anew beside the request that finds it so, which does not wait. */
    ROUTE_AHEAD_MS = VISIT_ROUTE_MS / 2,
};

struct visit {
    unsigned magic;
    struct link link; /* in visits->spare */
    struct place *place;
    enum visit_kind kind;
    int port;
    uint64_t generation;
};

/* ---- places ---- */

static struct str place_id(struct link *item)
{
    return LIST_ENTRY(item, struct place, link)->id;
}

struct visits *visits_self(void)
{
    struct loop *loop = loop_self();
    CHECK(loop && loop->slots[LOOP_VISIT]);
    return loop->slots[LOOP_VISIT];
}

static struct place *place_new(struct visits *visits, struct str id)
{
    struct place *place = mem_zalloc(sizeof *place);
    CHECK(id.size <= INSTANCE_ID_MAX);
    MAGIC_SET(place, PLACE_MAGIC);
    memcpy(place->id_text, id.at, id.size);
    place->id = str_of(place->id_text, id.size);
    place->visits = visits;
    place->used_ns = clock_now_ns();
    list_init(&place->waiting);
    table_add(&visits->by_id, &place->link);
    list_push_back(&visits->places, &place->all);
    visits_stir(visits);
    return place;
}

void place_free(struct place *place)
{
    MAGIC_CHECK(place, PLACE_MAGIC);
    CHECK(!place->finder && list_empty(&place->waiting) && place->requests == 0 && place->sockets == 0);
    MAGIC_CLEAR(place);
    table_remove(&place->visits->by_id, &place->link);
    list_remove(&place->all);
    free(place);
}

static struct place *place_of(struct visits *visits, struct str id)
{
    struct link *known = table_find(&visits->by_id, id);
    return known ? LIST_ENTRY(known, struct place, link) : place_new(visits, id);
}

/* ---- visits ---- */

static struct visit *visit_new(struct visits *visits)
{
    struct link *spare = list_pop_front(&visits->spare);
    if (!spare)
        return mem_alloc(sizeof(struct visit));
    visits->spare_count--;
    return LIST_ENTRY(spare, struct visit, link);
}

static void visit_free(struct visits *visits, struct visit *visit)
{
    MAGIC_CLEAR(visit);
    if (visits->spare_count == SPARE_MAX) {
        free(visit);
        return;
    }
    list_push_back(&visits->spare, &visit->link);
    visits->spare_count++;
}

static void enter(struct place *place, enum visit_kind kind, uint64_t now_ns)
{
    place->active_ns = now_ns;
    place->used_ns = now_ns;
    if (kind == VISIT_SOCKET) {
        place->sockets++;
        return;
    }
    place->requests++;
    /* A sleep waits for requests that it knows of: one more beside others makes no difference. */
    if (!place->is_told || place->told_requests == 0)
        place_tell(place, now_ns);
}

static void leave(struct place *place, enum visit_kind kind, uint64_t now_ns)
{
    unsigned *count = kind == VISIT_SOCKET ? &place->sockets : &place->requests;
    CHECK(*count > 0);
    (*count)--;
    place->used_ns = now_ns;
    if (place->requests == 0 && kind == VISIT_REQUEST)
        place->quiet_ns = now_ns;
}

int visit_open(struct str instance_id, enum visit_kind kind, uint64_t deadline_ns, struct visit **visit)
{
    struct visits *visits = visits_self();
    if (visits->closing)
        return -ECANCELED;
    struct place *place = place_of(visits, instance_id);
    uint64_t now_ns = clock_now_ns();
    if (!place_has_fresh_route(place, now_ns)) {
        int result = place_wait(place, deadline_ns);
        if (result)
            return result;
        now_ns = clock_now_ns();
    } else if (UNLIKELY(now_ns - place->looked_ns > ROUTE_AHEAD_MS * CLOCK_MS)) {
        place_find(place);
    }
    enter(place, kind, now_ns);
    *visit = visit_new(visits);
    **visit = (struct visit){.magic = VISIT_MAGIC,
                             .place = place,
                             .kind = kind,
                             .port = place->port,
                             .generation = place->generation};
    return 0;
}

int visit_port(const struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    return visit->port;
}

uint64_t visit_generation(const struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    return visit->generation;
}

void visit_active(struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    visit->place->active_ns = clock_now_ns();
}

void visit_unreachable(struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    struct place *place = visit->place;
    if (place->has_route && place->generation != visit->generation)
        return; /* there is a later pod already */
    place->has_route = false;
    place->is_suspect = true;
    place->suspect_generation = visit->generation;
    place_find(place);
}

void visit_to_socket(struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    CHECK(visit->kind == VISIT_REQUEST);
    uint64_t now_ns = clock_now_ns();
    enter(visit->place, VISIT_SOCKET, now_ns);
    leave(visit->place, VISIT_REQUEST, now_ns);
    visit->kind = VISIT_SOCKET;
}

void visit_close(struct visit *visit)
{
    MAGIC_CHECK(visit, VISIT_MAGIC);
    leave(visit->place, visit->kind, clock_now_ns());
    visit_free(visit->place->visits, visit);
}

/* ---- the loop's ---- */

void visit_open_loop(struct loop *loop)
{
    CHECK(!loop->slots[LOOP_VISIT]);
    struct visits *visits = mem_zalloc(sizeof *visits);
    visits->loop = loop;
    table_init(&visits->by_id, place_id);
    list_init(&visits->places);
    list_init(&visits->spare);
    loop->slots[LOOP_VISIT] = visits;
    visits_start_teller(visits);
}

static void end_fibers(struct visits *visits)
{
    visits->closing = true;
    visits_stir(visits);
    LIST_EACH (&visits->places, item, after) {
        struct place *place = LIST_ENTRY(item, struct place, all);
        if (place->finder)
            fiber_cancel(place->finder);
    }
    CHECK(group_wait(&visits->fibers, "visits to end", CLOCK_NEVER) == 0);
}

void visit_close_loop(struct loop *loop)
{
    struct visits *visits = loop->slots[LOOP_VISIT];
    if (!visits)
        return;
    fiber_hold();
    end_fibers(visits);
    visits_tell_end(visits);
    fiber_release();
    LIST_EACH (&visits->places, item, after)
        place_free(LIST_ENTRY(item, struct place, all));
    table_clear(&visits->by_id);
    struct link *spare;
    while ((spare = list_pop_front(&visits->spare)) != NULL)
        free(LIST_ENTRY(spare, struct visit, link));
    loop->slots[LOOP_VISIT] = NULL;
    free(visits);
}
