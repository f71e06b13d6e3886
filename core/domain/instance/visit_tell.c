/*
 * What is told of visits. To Redis: who visits which instance from this loop, in the hash visits:ID, so that a sleep can
 * wait for requests in flight and a status can count them. To PostgreSQL: when an instance was last active.
 *
 * Redis hears of the first request at once, of other changes at most once a second, and of the last one when there was
 * none for a second; what it heard is said again every few seconds, in case Redis was emptied. Telling never waits. One
 * statement notes the activity of many instances.
 */
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/instance/internal.h"
#include "core/domain/instance/visit_internal.h"
#include "core/store/bell.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdlib.h>

enum {
    TICK_MS = 100,
    TELL_MS = 1000,  /* between two words about one place */
    AGAIN_MS = 3000, /* the same word once more; well below VISIT_KEEP_S */
    FORGET_MS = 30000,
    NOTE_LEAST_MS = 250,
    NOTE_MOST_MS = 10000,
    KEY_SIZE = sizeof "visits:" + INSTANCE_ID_MAX,
};

static bool is_older(uint64_t then_ns, uint64_t now_ns, uint64_t ms)
{
    return now_ns - then_ns >= ms * CLOCK_MS;
}

/* ---- Redis ---- */

static struct str visits_key(char out[KEY_SIZE], struct str id)
{
    CHECK(id.size <= INSTANCE_ID_MAX);
    memcpy(out, "visits:", 7);
    memcpy(out + 7, id.at, id.size);
    return str_of(out, 7 + id.size);
}

/* "requests sockets seconds-since-1970". */
static struct str word_of(const struct place *place, char out[64])
{
    const uint64_t numbers[] = {place->told_requests, place->told_sockets, (uint64_t)clock_wall_s()};
    size_t size = 0;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        size += format_u64(out + size, numbers[i]);
        out[size++] = ' ';
    }
    return str_of(out, size - 1);
}

static void tell(struct place *place, unsigned requests, uint64_t now_ns)
{
    char key[KEY_SIZE];
    char word[64];
    char ttl[24];
    place->told_requests = requests;
    place->told_sockets = place->sockets;
    place->told_ns = now_ns;
    struct str name = visits_key(key, place->id);
    place->is_told = redis_send(redis_shared(), REDIS_ARGS(STR("HSET"), name, str_from(bell_address()),
                                                           word_of(place, word))) &&
                     redis_send(redis_shared(),
                                REDIS_ARGS(STR("EXPIRE"), name, str_of(ttl, format_u64(ttl, VISIT_KEEP_S))));
}

static void untell(struct place *place)
{
    char key[KEY_SIZE];
    redis_send(redis_shared(), REDIS_ARGS(STR("HDEL"), visits_key(key, place->id), str_from(bell_address())));
    place->is_told = false;
}

void place_tell(struct place *place, uint64_t now_ns)
{
    tell(place, place->requests, now_ns);
}

void place_tell_of(struct place *place, uint64_t now_ns)
{
    if (!place->is_told || is_older(place->told_ns, now_ns, AGAIN_MS))
        tell(place, place->requests, now_ns);
}

/* Requests that follow each other closely are one long one to Redis. */
static bool is_quiet(const struct place *place, uint64_t now_ns)
{
    return place->requests == 0 && is_older(place->quiet_ns, now_ns, TELL_MS);
}

static void keep_told(struct place *place, uint64_t now_ns)
{
    bool quiet = is_quiet(place, now_ns);
    if (quiet && place->sockets == 0 && !place->finder && !place_has_fresh_route(place, now_ns)) {
        if (place->is_told)
            untell(place);
        return;
    }
    unsigned requests = place->requests || quiet ? place->requests : place->told_requests;
    bool changed = requests != place->told_requests || place->sockets != place->told_sockets;
    if (!place->is_told || is_older(place->told_ns, now_ns, changed ? TELL_MS : AGAIN_MS))
        tell(place, requests, now_ns);
}

/* ---- PostgreSQL ---- */

/* What one statement notes. */
struct notes {
    struct arena arena;
    struct str ids[INSTANCE_ACTIVE_MAX];
    int64_t ages_ms[INSTANCE_ACTIVE_MAX];
    uint64_t active_ns[INSTANCE_ACTIVE_MAX];
    bool noted[INSTANCE_ACTIVE_MAX];
    size_t count;
};

static uint64_t note_every_ms(void)
{
    uint64_t eighth_ms = (uint64_t)config->idle_timeout_s * 1000 / 8;
    return eighth_ms < NOTE_LEAST_MS ? NOTE_LEAST_MS : eighth_ms > NOTE_MOST_MS ? NOTE_MOST_MS : eighth_ms;
}

static bool is_to_note(const struct place *place, uint64_t now_ns)
{
    return place->active_ns > place->noted_ns && is_older(place->note_tried_ns, now_ns, note_every_ms());
}

/* Takes places whose activity is to be noted, whenever that was tried last if `all`. */
static void gather(struct visits *visits, struct notes *notes, uint64_t began_ns, bool all)
{
    uint64_t now_ns = clock_now_ns();
    notes->count = 0;
    LIST_EACH (&visits->places, item, after) {
        struct place *place = LIST_ENTRY(item, struct place, all);
        bool wanted = all ? place->active_ns > place->noted_ns && place->note_tried_ns < began_ns
                          : is_to_note(place, now_ns);
        if (!wanted || notes->count == INSTANCE_ACTIVE_MAX)
            continue;
        place->note_tried_ns = now_ns;
        notes->ids[notes->count] = arena_str(&notes->arena, place->id);
        notes->ages_ms[notes->count] = (int64_t)((now_ns - place->active_ns) / CLOCK_MS);
        notes->active_ns[notes->count++] = place->active_ns;
    }
}

static int note(struct visits *visits, struct notes *notes)
{
    int result = instance_was_active(notes->ids, notes->ages_ms, notes->count, notes->noted);
    for (size_t i = 0; result == 0 && i < notes->count; i++) {
        struct link *item = table_find(&visits->by_id, notes->ids[i]);
        if (item && notes->noted[i])
            LIST_ENTRY(item, struct place, link)->noted_ns = notes->active_ns[i];
    }
    return result;
}

static void note_all(struct visits *visits, bool all)
{
    struct notes *notes = mem_zalloc(sizeof *notes);
    uint64_t began_ns = clock_now_ns();
    int result = 0;
    do {
        arena_init(&notes->arena);
        gather(visits, notes, began_ns, all);
        if (notes->count)
            result = note(visits, notes);
        arena_clear(&notes->arena);
    } while (result == 0 && notes->count == INSTANCE_ACTIVE_MAX);
    if (result)
        LOG(WARN, "activity could not be noted", LOG_ERRNO(result));
    free(notes);
}

static void run_note(void *arg)
{
    struct visits *visits = arg;
    fiber_hold();
    note_all(visits, false);
    fiber_release();
    visits->is_noting = false;
    group_done(&visits->fibers);
}

/* In a fiber of its own: while PostgreSQL is slow, Redis is told all the same. */
static void start_noting(struct visits *visits)
{
    visits->is_noting = true;
    group_add(&visits->fibers);
    fiber_start(visits->loop, "visits' activity", run_note, visits);
}

/* ---- the teller ---- */

static bool is_forgotten(const struct place *place, uint64_t now_ns)
{
    return place->requests == 0 && place->sockets == 0 && !place->finder && !place->is_told &&
           list_empty(&place->waiting) && is_older(place->used_ns, now_ns, FORGET_MS);
}

static void look_at_places(struct visits *visits)
{
    uint64_t now_ns = clock_now_ns();
    bool to_note = false;
    LIST_EACH (&visits->places, item, after) {
        struct place *place = LIST_ENTRY(item, struct place, all);
        keep_told(place, now_ns);
        to_note |= is_to_note(place, now_ns);
        if (is_forgotten(place, now_ns))
            place_free(place);
    }
    if (to_note && !visits->is_noting)
        start_noting(visits);
}

static void run_teller(void *arg)
{
    struct visits *visits = arg;
    fiber_hold(); /* it ends with the loop's visits, not before */
    while (!visits->closing) {
        struct wait wait = WAIT_INIT;
        uint64_t until_ns = list_empty(&visits->places) ? CLOCK_NEVER : clock_in_ms(TICK_MS);
        visits->teller = &wait;
        int result = wait_for(&wait, "visits", until_ns);
        visits->teller = NULL;
        if (result == -ETIMEDOUT)
            look_at_places(visits);
    }
    fiber_release();
    group_done(&visits->fibers);
}

void visits_start_teller(struct visits *visits)
{
    group_add(&visits->fibers);
    fiber_start(visits->loop, "visits", run_teller, visits);
}

void visits_stir(struct visits *visits)
{
    if (visits->teller)
        wait_done(visits->teller, 0);
}

void visits_tell_end(struct visits *visits)
{
    note_all(visits, true);
    LIST_EACH (&visits->places, item, after) {
        struct place *place = LIST_ENTRY(item, struct place, all);
        if (place->is_told)
            untell(place);
    }
    /* An answer to something behind it tells that it has left. */
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    int result = redis_call(redis_shared(), &reply, &arena, STR("PING"));
    if (result)
        LOG(WARN, "open visits could not be taken back; they count for some seconds more", LOG_ERRNO(result));
    arena_clear(&arena);
}

/* ---- over all reactors ---- */

static bool read_word(struct str word, int64_t numbers[3])
{
    struct str piece;
    for (size_t i = 0; i < 3; i++)
        if (!str_split(&word, ' ', &piece) || !str_to_i64(piece, &numbers[i]))
            return false;
    return true;
}

/* What a reactor that died has left behind is as old as that. */
static void sum(const struct redis_value *fields, bool *known, int64_t *requests, int64_t *sockets)
{
    int64_t now_s = clock_wall_s();
    *known = false;
    *requests = 0;
    *sockets = 0;
    for (size_t i = 1; fields->type == REDIS_ARRAY && i < fields->count; i += 2) {
        int64_t numbers[3];
        if (!read_word(fields->items[i].text, numbers) || now_s - numbers[2] > VISIT_KEEP_S)
            continue;
        *known = true;
        *requests += numbers[0];
        *sockets += numbers[1];
    }
}

int visits_count(struct arena *arena, struct str instance_id, bool *known, int64_t *requests,
                 int64_t *sockets)
{
    char key[KEY_SIZE];
    struct redis_value fields;
    int result = redis_call(redis_shared(), &fields, arena, STR("HGETALL"), visits_key(key, instance_id));
    if (result == 0)
        sum(&fields, known, requests, sockets);
    return result;
}

int visits_show(struct arena *arena, int64_t account_id, struct str instance_id, struct instance *instance,
                int64_t *requests, int64_t *sockets)
{
    char key[KEY_SIZE];
    const struct str get[] = {STR("GET"), instance_snapshot_key(arena, instance_id)};
    const struct str all[] = {STR("HGETALL"), visits_key(key, instance_id)};
    struct redis_step steps[] = {{.args = get, .count = ARRAY_SIZE(get)},
                                 {.args = all, .count = ARRAY_SIZE(all)}};
    bool known;
    int result = redis_steps(redis_shared(), arena, steps, ARRAY_SIZE(steps));
    if (result == -ECANCELED)
        return result;
    /* Without an answer the reply is empty. */
    sum(&steps[1].reply, &known, requests, sockets);
    result = instance_from_snapshot(arena, instance_id, &steps[0], instance);
    return result == 0 && instance->account_id != account_id ? -ENOENT : result;
}
