/*
 * What the files of rate limits share; nobody else includes it.
 *
 *   limit.c        the calls of limit.h: what is admitted
 *   limit_tell.c   what is told of it, and the arithmetic of buckets
 *   limit_tally.c  what a loop knows of each limit
 *   limit_redis.c  what Redis is asked
 *   limit_local.c  who is admitted while there is no Redis
 */
#ifndef CORE_STORE_LIMIT_INTERNAL_H
#define CORE_STORE_LIMIT_INTERNAL_H

#include "core/base/arena.h"
#include "core/base/list.h"
#include "core/store/limit.h"

/* How a limit is kept: a window that Redis counts, a window of which loops lease slices, a bucket. */
enum limit_kind { LIMIT_COUNTED, LIMIT_LEASED, LIMIT_BUCKET };

/* ---- limit_tally.c ---- */

/* What one loop knows of one limit and one `who`. */
struct tally {
    struct link in_table;
    struct link in_order; /* the most recently used first */
    struct str key;       /* "limit:{name}:{who}"; stands behind the struct */
    unsigned users;       /* fibers that hold it */
    uint64_t window_s;
    uint64_t window; /* since 1970; 0 for a bucket. What follows belongs to it. */

    /* A lease. What fibers that ask Redis for other limits have set aside of it may yet come back. */
    uint64_t left;
    uint64_t set_aside;
    uint64_t counted;    /* as Redis last said */
    bool refilling;      /* a fiber asks Redis for a slice */
    uint64_t wanted;     /* what those cost who waited when the last slice came */
    struct link waiting; /* struct tally_place, for the fiber that asks */
    uint64_t waiting_cost;

    uint64_t spent; /* of it by this loop, as Redis knows */

    /* A refusal that is remembered: takes of refused_cost and more are refused until refused_ns, while the limit is that.
     * Of a leased one: all that the stock has not. */
    uint64_t refused_ns; /* 0: none */
    uint64_t refused_cost;
    uint64_t refused_limit;
    uint64_t refused_burst;
    uint64_t refused_counted; /* as struct asked has it, at refused_at_ns */
    uint64_t refused_at_ns;

    /* Taken without Redis: in this window, or of a bucket that would be full at that moment. */
    uint64_t local;
    uint64_t local_full_ns;
};

/* Finds it or makes it, as the one used most recently. It stays until tally_release. */
struct tally *tally_hold(struct str key);
/* NULL when the loop knows nothing of it. */
struct tally *tally_hold_known(struct str key);
void tally_release(struct tally *tally);
/* Forgets what belongs to another window: the one before, or any, when the clock was set. */
void tally_turn(struct tally *tally, uint64_t window, uint64_t window_s);
/* Waits until tally_wake: 0, its result, or -ECANCELED. */
int tally_wait(struct tally *tally, uint64_t cost) MUST_USE;
void tally_wake(struct tally *tally, int result);

/* ---- limit.c ---- */

/* One charge at work. */
struct asked {
    const struct limit_charge *charge;
    enum limit_kind kind;
    struct str key;
    struct tally *tally; /* NULL: the loop knows nothing, and only wants to know whether it does */
    uint64_t window;
    uint64_t set_aside; /* of the lease's stock, at most the charge's cost */
    uint64_t
        amount; /* that Redis is asked for: of a lease a slice, or 0 where the stock does; else the cost */
    /* Answer: */
    uint64_t taken;
    uint64_t counted; /* with it: of a window its counter, of a bucket the microseconds until it is full */
    bool refuses;
    bool is_local; /* the answer is limit_local.c's */
};

struct take {
    struct arena arena;
    uint64_t now_ns; /* clock_now_ns */
    int64_t wall_ms; /* clock_wall_ms */
    size_t count;
    struct asked asked[LIMITS_AT_ONCE];
};

static inline uint64_t limit_minus(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

static inline uint64_t limit_less(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- limit_tell.c ---- */

/* A bucket's arithmetic, in microseconds: it is so far from being full, a take of one makes that `interval` more, and it may be
 * `depth` at most. */
struct bucket {
    uint64_t interval;
    uint64_t depth;
};
struct bucket limit_bucket(uint64_t limit, uint64_t window_s, uint64_t burst);
struct bucket limit_bucket_of(const struct asked *asked);
/* What a take of so many adds; UINT64_MAX when that is past counting. */
uint64_t limit_price(const struct bucket *bucket, uint64_t cost);
/* Whether it has less, when it is so far from being full. */
bool limit_bucket_refuses(const struct bucket *bucket, uint64_t cost, uint64_t counted);

/* As the answer is. */
struct limit_verdict limit_tell(const struct take *take, const struct asked *asked);
/* As limit_take tells of several. */
void limit_tell_all(const struct take *take, struct limit_verdict *verdict);

/* Remembers that the charge was refused, or that the lease has run dry; Redis was asked after `asked_ns`. */
void limit_remember(const struct take *take, const struct asked *asked, uint64_t asked_ns);
/* Whether the loop knows that it is refused; the answer then. */
bool limit_remembers(const struct take *take, struct asked *asked);

/* ---- limit_local.c ---- */

/* All or none, as limit_take. Fills in the answers. */
void limit_take_locally(struct take *take);
/* Answers without taking. */
void limit_look_locally(const struct take *take, struct asked *asked);
void limit_give_back_locally(const struct take *take, struct asked *asked);
/* How many are left of what is this loop's to give. */
uint64_t limit_left_locally(const struct asked *asked);
struct bucket limit_bucket_locally(const struct asked *asked);

/* ---- limit_redis.c ---- */

/* Waits for one round trip: takes `amount` of each that has one, all or none; of leases what there is, in any case. Fills in the
 * answers. 0 when Redis has answered, whatever it is; else nothing is known to be taken. */
int limit_ask(struct arena *arena, struct asked *asked, size_t count) MUST_USE;
/* Waits for one round trip: `counted` as it is. */
int limit_ask_counted(struct arena *arena, struct asked *asked, size_t count) MUST_USE;
/* Waits. Takes the charge's cost off. */
void limit_ask_back(struct arena *arena, const struct asked *asked);
/* Takes off a window's counter what is in it and was not spent. Does not wait. */
void limit_send_back(struct str key, uint64_t window, uint64_t window_s, uint64_t amount);

#endif
