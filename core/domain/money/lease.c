/* Money lent to Redis: see lease.h. */
#include "core/domain/money/lease.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/metrics.h"
#include "core/domain/money/ledger_internal.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
    KEY_SIZE = 64,
    WAIT_PAUSE_MS = 10,
    IMPATIENT_TRIES = 20,
    WAIT_MOST_MS = 4000, /* what is to be waited for is decided within two seconds */
    SWEEP_AT_ONCE = 200,
    FORGET_AT_ONCE = 5000,
    MARGIN_S = 5, /* for a charge that is on its way as its call's time ends */
    SPEND_KEPT_S = 2 * 86400
};

#define LEASE_KEY "lease:%lld"
#define EPOCH_KEY STR("lease:epoch")
#define RUN_KEY STR("lease:run")

/* Picodollars to dollars, and back; whole picodollars are exact in both directions. */
#define DOLLARS(pico) "(" pico "::bigint * 0.000000000001)"
#define PICO(dollars) "trunc((" dollars ") * 1000000000000)::bigint"

static const struct pg_statement sql_grant = {
    "lease_grant",
    "SELECT outcome, generation, grant_no, " PICO(
        "amount") " FROM lease_grant($1::bigint, $2::bigint, "
                  "$3::bigint, $4::bigint, " DOLLARS("$5") ", $6::bigint, " DOLLARS("$7") ", $8::boolean)"};
static const struct pg_statement sql_fence = {
    "lease_fence",
    "SELECT lease_fence($1::bigint, $2::bigint, CASE WHEN $4::boolean THEN " DOLLARS("$3") " END)"};
/* Money that lies idle, and generations that Redis may have something of although they are closed. */
static const struct pg_statement sql_list = {
    "lease_list",
    "(SELECT account_id, generation FROM wallet_lease WHERE state = 'open' "
    "AND touched_at < clock_timestamp() - $1::bigint * interval '1 second' LIMIT $2::bigint) UNION ALL "
    "(SELECT account_id, generation FROM wallet_lease WHERE state = 'closed' AND fenced_at IS NULL LIMIT $2::bigint)"};
static const struct pg_statement sql_room = {
    "lease_room", "SELECT generation, grant_no, epoch, " PICO(
                      "granted - charged - returned") " FROM wallet_lease "
                                                      "WHERE account_id = $1::bigint AND state = 'open'"};
static const struct pg_statement sql_end = {"lease_end", "SELECT lease_end($1::bigint, $2::bigint)"};
static const struct pg_statement sql_forget = {
    "lease_forget",
    "DELETE FROM wallet_lease WHERE (account_id, generation) IN (SELECT account_id, generation "
    "FROM wallet_lease WHERE state = 'done' AND closed_at < now() - $1::bigint * interval '1 day' "
    "ORDER BY closed_at LIMIT $2::bigint)"};
static const struct pg_statement sql_spent = {
    "lease_spent", "SELECT " PICO("least(spent, 9000000)") " FROM wallet WHERE account_id = $1::bigint "
                                                           "AND spend_day = $2::text::date"};

/* ---- Redis ---- */

/* What Redis has of a lease. */
struct seen {
    int64_t epoch;
    int64_t generation; /* 0: no key */
    int64_t applied;
    money free;
    int64_t past;
};

struct offer {
    int64_t generation;
    int64_t number;
    money amount;
};

static struct str lease_key(char key[KEY_SIZE], int64_t account_id)
{
    return str_of(key, (size_t)snprintf(key, KEY_SIZE, LEASE_KEY, (long long)account_id));
}

static struct str number(char text[KEY_SIZE], int64_t value)
{
    return str_of(text, (size_t)snprintf(text, KEY_SIZE, "%lld", (long long)value));
}

static int look(struct arena *arena, int64_t account_id, struct seen *seen)
{
    char key[KEY_SIZE];
    struct redis_value reply;
    const struct str args[] = {lease_key(key, account_id), EPOCH_KEY, RUN_KEY};
    int64_t *const fields[] = {&seen->epoch, &seen->generation, &seen->applied, &seen->free, &seen->past};
    int result = redis_script(redis_shared(), &reply, arena, "lease_look.lua", args, 3, 3);
    if (result)
        return result;
    if (reply.type != REDIS_ARRAY || reply.count != ARRAY_SIZE(fields))
        return -EIO;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (!str_to_i64(reply.items[i].text, fields[i]))
            return -EIO;
    return 0;
}

/* False in `applied`: Redis has lost something since the grant was made, or its generation is over. */
static int apply(struct arena *arena, int64_t account_id, int64_t epoch, const struct offer *offer,
                 bool *applied)
{
    char key[KEY_SIZE];
    char texts[4][KEY_SIZE];
    struct redis_value reply;
    const struct str args[] = {lease_key(key, account_id),      EPOCH_KEY,
                               number(texts[0], epoch),         number(texts[1], offer->generation),
                               number(texts[2], offer->number), number(texts[3], offer->amount)};
    int result = redis_script(redis_shared(), &reply, arena, "lease_apply.lua", args, ARRAY_SIZE(args), 2);
    *applied = result == 0 && reply.integer >= 0;
    return result;
}

/* What was free; *was_there false: Redis did not have that generation. */
static int take(struct arena *arena, int64_t account_id, int64_t generation, money *free_there,
                bool *was_there)
{
    char key[KEY_SIZE];
    char text[KEY_SIZE];
    struct redis_value reply;
    const struct str args[] = {lease_key(key, account_id), number(text, generation)};
    *free_there = 0;
    int result = redis_script(redis_shared(), &reply, arena, "lease_take.lua", args, 2, 1);
    *was_there = result == 0 && reply.type == REDIS_STRING;
    if (*was_there && !str_to_i64(reply.text, free_there))
        return -EIO;
    /* Below nothing, as a call that cost more than it had reserved leaves it: there is nothing to give back. */
    if (*free_there < 0)
        *free_there = 0;
    return result;
}

/* ---- a slice ---- */

enum outcome { GRANT, ENOUGH, LATER, HELD, NONE };

static enum outcome outcome_of(struct str name)
{
    static const char *const names[] = {
        [GRANT] = "grant", [ENOUGH] = "enough", [LATER] = "wait", [HELD] = "held", [NONE] = "none",
    };
    size_t i = 0;
    while (!str_equal(name, str_from(names[i]))) {
        i++;
        CHECK(i < ARRAY_SIZE(names));
    }
    return (enum outcome)i;
}

/*
 * With others' writes in one commit, where a wallet that somebody else holds is not waited for: so no two such groups wait for each
 * other, and no connection of the pool is needed, which callers may hold all of. With patience, in its turn.
 */
static int ask(int64_t account_id, const struct seen *seen, money needed, bool patient, enum outcome *outcome,
               struct offer *offer)
{
    struct pg_rows *rows;
    const struct pg_value values[] = {
        PG_INT(account_id), PG_INT(seen->epoch), PG_INT(seen->generation), PG_INT(seen->applied),
        PG_INT(seen->free), PG_INT(seen->past),  PG_INT(needed),           PG_BOOL(patient),
    };
    int result = patient ? ledger_write(&sql_grant, values, ARRAY_SIZE(values), &rows)
                         : pg_write(&sql_grant, values, ARRAY_SIZE(values), &rows);
    if (result)
        return result;
    *outcome = outcome_of(pg_str(rows, 0, 0));
    *offer = (struct offer){pg_i64(rows, 0, 1), pg_i64(rows, 0, 2), pg_i64(rows, 0, 3)};
    pg_rows_free(rows);
    return 0;
}

/* -EAGAIN: look again soon; -EALREADY: at once. */
static int try_refill(struct arena *arena, int64_t account_id, money needed, bool patient)
{
    struct seen seen;
    struct offer offer;
    enum outcome outcome = NONE;
    bool applied;
    int result = look(arena, account_id, &seen);
    if (result || (seen.generation && seen.free >= needed))
        return result;
    result = ask(account_id, &seen, needed, patient, &outcome, &offer);
    if (result)
        return result;
    switch (outcome) {
    case ENOUGH: return 0;
    case LATER: return -EAGAIN;
    case HELD: return -EBUSY;
    case NONE: return -EDQUOT;
    case GRANT: break;
    }
    CRASH_POINT("lease-granted");
    result = apply(arena, account_id, seen.epoch, &offer, &applied);
    metric_add(M_LEASE_GRANTS, result == 0 && applied);
    return result ? result : applied ? 0 : -EALREADY;
}

static int refill(int64_t account_id, money needed)
{
    uint64_t begun_ns = clock_now_ns();
    uint64_t until_ns = clock_in_ms(WAIT_MOST_MS);
    for (unsigned tries = 0;; tries++) {
        struct arena arena;
        arena_init(&arena);
        int result = try_refill(&arena, account_id, needed, tries >= IMPATIENT_TRIES);
        arena_clear(&arena);
        if (result != -EAGAIN && result != -EALREADY) {
            metric_observe_us(M_LEASE_SECONDS, 0, (clock_now_ns() - begun_ns) / 1000);
            metric_add(M_LEASE_REFUSED, result == -EDQUOT);
            return result;
        }
        if (clock_now_ns() > until_ns)
            return -ETIMEDOUT;
        if (result == -EAGAIN && fiber_sleep_ms(WAIT_PAUSE_MS))
            return -ECANCELED;
    }
}

/* ---- callers that share ---- */

/* On its fiber's stack, in the list of its account's refill until that one has an answer for it. */
struct waiter {
    struct link link;
    struct wait wait;
    money needed;
};

/* A fiber that refills an account for those who wait, round after round, and ends when nobody does. */
struct refill {
    struct link link;
    struct leases *leases;
    int64_t account_id;
    struct link waiting;
};

struct leases {
    struct link refills;
    struct group fibers;
};

static struct leases *leases_here(void)
{
    struct loop *loop = loop_self();
    struct leases *leases = loop->slots[LOOP_LEASE];
    if (!leases) {
        leases = mem_zalloc(sizeof *leases);
        list_init(&leases->refills);
        loop->slots[LOOP_LEASE] = leases;
    }
    return leases;
}

static money most_needed(const struct link *waiting)
{
    money most = 0;
    LIST_EACH (waiting, item, after) {
        const struct waiter *waiter = LIST_ENTRY(item, struct waiter, link);
        if (waiter->needed > most)
            most = waiter->needed;
    }
    return most;
}

/* Tells those who need at least so much. */
static void answer(struct link *waiting, money needed, int result)
{
    LIST_EACH (waiting, item, after) {
        struct waiter *waiter = LIST_ENTRY(item, struct waiter, link);
        if (waiter->needed < needed)
            continue;
        list_remove(&waiter->link);
        wait_done(&waiter->wait, result);
    }
}

static void run_refill(void *arg)
{
    struct refill *own = arg;
    struct link round;
    list_init(&round);
    fiber_hold();
    while (!list_empty(&own->waiting)) {
        /* Who comes while this round runs may not be refused by what it has seen. */
        for (struct link *first; (first = list_pop_front(&own->waiting));)
            list_push_back(&round, first);
        while (!list_empty(&round)) {
            money needed = most_needed(&round);
            int result = refill(own->account_id, needed);
            /* Who needs less may still get that. */
            bool is_refusal = result == -EDQUOT || result == -EBUSY;
            answer(&round, is_refusal ? needed : 0, result);
        }
    }
    fiber_release();
    list_remove(&own->link);
    group_done(&own->leases->fibers);
    free(own);
}

static struct refill *refill_of(struct leases *leases, int64_t account_id)
{
    LIST_EACH (&leases->refills, item, after) {
        struct refill *own = LIST_ENTRY(item, struct refill, link);
        if (own->account_id == account_id)
            return own;
    }
    struct refill *own = mem_zalloc(sizeof *own);
    own->leases = leases;
    own->account_id = account_id;
    list_init(&own->waiting);
    list_init(&own->link);
    list_push_back(&leases->refills, &own->link);
    group_add(&leases->fibers);
    fiber_start(loop_self(), "lease refill", run_refill, own);
    return own;
}

int lease_refill(int64_t account_id, int64_t generation, int64_t applied, money needed)
{
    /* What the caller saw may be long past; the look that follows tells. */
    (void)generation;
    (void)applied;
    struct waiter waiter = {.wait = WAIT_INIT, .needed = needed};
    list_init(&waiter.link);
    list_push_back(&refill_of(leases_here(), account_id)->waiting, &waiter.link);
    int result = wait_for(&waiter.wait, "a lease", CLOCK_NEVER);
    list_remove(&waiter.link);
    return result;
}

void lease_close_loop(struct loop *loop)
{
    struct leases *leases = loop->slots[LOOP_LEASE];
    if (!leases)
        return;
    fiber_hold();
    CHECK(group_wait(&leases->fibers, "lease refills", CLOCK_NEVER) == 0);
    fiber_release();
    free(leases);
    loop->slots[LOOP_LEASE] = NULL;
}

/* ---- taking back ---- */

static int fence(int64_t account_id, int64_t generation, money free_there, bool was_there)
{
    return ledger_write(
        &sql_fence, PG_VALUES(PG_INT(account_id), PG_INT(generation), PG_INT(free_there), PG_BOOL(was_there)),
        NULL);
}

/* Once Redis has answered, what it gave must be written down. */
static int recall(struct arena *arena, int64_t account_id, int64_t generation)
{
    money free_there;
    bool was_there;
    fiber_hold();
    int result = take(arena, account_id, generation, &free_there, &was_there);
    metric_add(M_LEASE_RETURNS, result == 0);
    CRASH_POINT("lease-taken");
    if (result == 0)
        result = fence(account_id, generation, free_there, was_there);
    fiber_release();
    return result;
}

int lease_recall(int64_t account_id)
{
    struct arena arena;
    struct seen seen;
    arena_init(&arena);
    int result = look(&arena, account_id, &seen);
    if (result == 0 && seen.generation)
        result = recall(&arena, account_id, seen.generation);
    arena_clear(&arena);
    return result;
}

static int end_leases(void)
{
    return ledger_write(&sql_end, PG_VALUES(PG_INT(config->ai_call_s + MARGIN_S), PG_INT(SWEEP_AT_ONCE)),
                        NULL);
}

/* One that fails holds up no other. The first failure of one, or that of a store. */
static int recall_listed(const struct pg_rows *rows)
{
    int first = 0;
    for (size_t i = 0; i < pg_count(rows) && !fiber_canceled(); i++) {
        struct arena arena;
        arena_init(&arena);
        int result = recall(&arena, pg_i64(rows, i, 0), pg_i64(rows, i, 1));
        arena_clear(&arena);
        if (result && !ledger_is_ones_own(result))
            return result;
        first = first ? first : result;
    }
    return first;
}

int lease_sweep(void)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_VALUES(PG_INT(config->lease_idle_s), PG_INT(SWEEP_AT_ONCE)), &rows);
    if (result)
        return result;
    result = recall_listed(rows);
    pg_rows_free(rows);
    if (result && !ledger_is_ones_own(result))
        return result;
    int ended = end_leases();
    return ended ? ended : result;
}

int lease_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(LEASE_KEPT_DAYS), PG_INT(FORGET_AT_ONCE)), FORGET_AT_ONCE);
}

/* ---- a check ---- */

struct room {
    int64_t generation; /* 0: no lease is open */
    int64_t number;
    int64_t epoch;
    money left;
};

static int read_room(int64_t account_id, struct room *room)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_room, PG_VALUES(PG_INT(account_id)), &rows);
    if (result)
        return result;
    *room = (struct room){0};
    if (pg_count(rows))
        *room = (struct room){pg_i64(rows, 0, 0), pg_i64(rows, 0, 1), pg_i64(rows, 0, 2), pg_i64(rows, 0, 3)};
    pg_rows_free(rows);
    return 0;
}

/* Between two looks at PostgreSQL in which nothing was granted, what is left there only became less, and Redis never has more
 * than that free. */
int lease_is_sound(int64_t account_id, bool *sound)
{
    struct room before, after;
    struct seen seen;
    struct arena arena;
    int result = read_room(account_id, &before);
    *sound = true;
    if (result || before.generation == 0)
        return result;
    arena_init(&arena);
    result = look(&arena, account_id, &seen);
    arena_clear(&arena);
    if (result == 0)
        result = read_room(account_id, &after);
    if (result)
        return result;
    bool same = before.generation == after.generation && before.number == after.number &&
                seen.generation == before.generation && seen.epoch == before.epoch;
    *sound = !same || (seen.free >= 0 && seen.free <= before.left);
    return 0;
}

/* ---- what was spent today ---- */

int lease_load_spend(int64_t account_id)
{
    struct arena arena;
    struct pg_rows *rows;
    struct redis_value reply;
    char day[16];
    char texts[3][KEY_SIZE];
    struct tm parts;
    time_t now = (time_t)clock_wall_s();
    CHECK(gmtime_r(&now, &parts) && strftime(day, sizeof day, "%Y%m%d", &parts));
    int result = pg_read(&sql_spent, PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(day))), &rows);
    if (result)
        return result;
    money spent = pg_count(rows) ? pg_i64(rows, 0, 0) : 0;
    pg_rows_free(rows);
    snprintf(texts[0], KEY_SIZE, "spend:%lld:%s", (long long)account_id, day);
    arena_init(&arena);
    result = redis_call(redis_shared(), &reply, &arena, STR("SET"), str_from(texts[0]),
                        number(texts[1], spent), STR("NX"), STR("EX"), number(texts[2], SPEND_KEPT_S));
    arena_clear(&arena);
    return result;
}
