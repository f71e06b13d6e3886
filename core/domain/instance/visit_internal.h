/*
 * What the files of visits share; nobody else includes it.
 *
 *   visit.c        opening and closing, on the path of every request
 *   visit_find.c   where a pod listens: looking, waking, waiting
 *   visit_tell.c   what Redis and PostgreSQL are told, and the counts over all reactors
 */
#ifndef CORE_DOMAIN_INSTANCE_VISIT_INTERNAL_H
#define CORE_DOMAIN_INSTANCE_VISIT_INTERNAL_H

#include "core/base/clock.h"
#include "core/domain/instance/visit.h"
#include "core/run/sync.h"
#include "core/store/table.h"

/* An instance that is visited from this loop, or was a while ago. */
struct place {
    unsigned magic;
    struct link link; /* in visits->by_id */
    struct link all;  /* in visits->places */
    struct visits *visits;
    struct str id;
    char id_text[INSTANCE_ID_MAX + 1];

    /* Where the pod listens. */
    bool has_route;
    int port;
    uint64_t generation;
    uint64_t looked_ns; /* when the row was asked for that said so */

    /* Finding it. */
    struct fiber *finder; /* NULL when nobody looks */
    struct link waiting;  /* struct waiter */
    unsigned held;        /* of them, those that wait for the pod to wake */
    bool is_waking;
    bool is_suspect; /* the pod of this generation could not be reached */
    uint64_t suspect_generation;
    uint64_t looked_after_ns; /* when a scale job was last asked for because of that */

    /* Who is there. */
    unsigned requests;
    unsigned sockets;
    uint64_t quiet_ns; /* since when no request is in flight */
    uint64_t used_ns;  /* when a visit was last asked for, opened or closed */

    /* What Redis was told of it. */
    bool is_told;
    unsigned told_requests;
    unsigned told_sockets;
    uint64_t told_ns;

    /* Activity, and up to which of it the row knows. */
    uint64_t active_ns;
    uint64_t noted_ns;
    uint64_t note_tried_ns;
};

/* In LOOP_VISIT of every loop that proxies. */
struct visits {
    struct loop *loop;
    struct table by_id;
    struct link places;
    struct link spare; /* visits that ended, for the next ones */
    unsigned spare_count;
    unsigned held;       /* requests that wait for a pod to wake, all places together */
    struct wait *teller; /* NULL while it is at work */
    struct group fibers;
    bool is_noting;
    bool closing;
};

/* The running loop's. */
struct visits *visits_self(void);
/* The place must be nobody's: not visited, not waited for, not looked for. */
void place_free(struct place *place);

static inline bool place_has_fresh_route(const struct place *place, uint64_t now_ns)
{
    return place->has_route && now_ns - place->looked_ns < VISIT_ROUTE_MS * CLOCK_MS;
}

/* ---- visit_find.c ---- */

/* Waits for a route, at most until the deadline. */
int place_wait(struct place *place, uint64_t deadline_ns) MUST_USE;
/* Looks for the pod anew, unless somebody does already. Does not wait. */
void place_find(struct place *place);

/* ---- visit_tell.c ---- */

/* Tells Redis of the place; does not wait. What is sent to Redis after it arrives after it. */
void place_tell(struct place *place, uint64_t now_ns);
/* The same, unless Redis knows of the place anyway and will for some time. */
void place_tell_of(struct place *place, uint64_t now_ns);
/* Starts the teller's fiber, one of visits->fibers, which ends some time after visits->closing was set and it was stirred. */
void visits_start_teller(struct visits *visits);
/* Ends the teller's pause. */
void visits_stir(struct visits *visits);
/* Writes all activity that rows do not know of yet, and takes back what Redis was told. Waits. */
void visits_tell_end(struct visits *visits);

#endif
