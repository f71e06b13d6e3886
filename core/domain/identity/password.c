/*
 * Password hashing on the thread pool, so many at once per process: see password.h.
 *
 *     password_hash ──place free──▶ on the thread pool ──▶ done: the place goes to the first that waits, on whatever loop
 *          ├──none free──▶ waits its turn ─┘
 *          └──too many wait──▶ -EBUSY
 */
#include "core/domain/identity/password.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/list.h"
#include "core/run/loop.h"
#include "core/run/sync.h"

#include <errno.h>
#include <pthread.h>

enum { WAITING_PER_PLACE = 4 };

/* A fiber's place in the line, on its stack. */
struct turn {
    struct link link;
    struct loop *loop;
    struct wait wait;
};

/* Of the process: loops on any thread share the places. */
static struct {
    pthread_mutex_t lock;
    struct link waiting;
    int64_t running;
    int64_t waiting_count;
} line = {.lock = PTHREAD_MUTEX_INITIALIZER, .waiting = {&line.waiting, &line.waiting}};

static void on_turn(void *arg)
{
    struct turn *turn = arg;
    wait_done(&turn->wait, 0);
}

/* A turn that has come is on its way to the fiber's stack, so the wait is not cut short. It is a short one: all those before
 * it hash, and nothing else. */
static int take_place(void)
{
    struct turn turn = {.loop = loop_self(), .wait = WAIT_INIT};
    bool waits = false;
    int result = 0;
    pthread_mutex_lock(&line.lock);
    if (line.running < config->password_hashes) {
        line.running++;
    } else if (line.waiting_count < WAITING_PER_PLACE * config->password_hashes) {
        list_push_back(&line.waiting, &turn.link);
        line.waiting_count++;
        waits = true;
    } else {
        result = -EBUSY;
    }
    pthread_mutex_unlock(&line.lock);
    if (!waits)
        return result;
    fiber_hold();
    CHECK(wait_for(&turn.wait, "password hashing", CLOCK_NEVER) == 0);
    fiber_release();
    return 0;
}

static void give_place(void)
{
    pthread_mutex_lock(&line.lock);
    struct link *first = list_pop_front(&line.waiting);
    if (first)
        line.waiting_count--;
    else
        line.running--;
    pthread_mutex_unlock(&line.lock);
    if (first) {
        struct turn *turn = LIST_ENTRY(first, struct turn, link);
        loop_post(turn->loop, on_turn, turn);
    }
}

/* Runs it on the thread pool when its turn has come, unless the client has left meanwhile. */
static int run(void (*work)(void *arg), void *arg)
{
    int result = take_place();
    if (result)
        return result;
    if (fiber_canceled())
        result = -ECANCELED;
    else
        thread_run("password hashing", work, arg);
    give_place();
    return result;
}

struct hashing {
    char *out;
    struct str password;
    int result;
};

static void hash_work(void *arg)
{
    struct hashing *hashing = arg;
    hashing->result = crypto_password_hash(hashing->out, hashing->password);
}

int password_hash(char out[CRYPTO_PASSWORD_SIZE], struct str password)
{
    struct hashing hashing = {.out = out, .password = password};
    int result = run(hash_work, &hashing);
    if (result)
        return result;
    return hashing.result == -ENOMEM ? -EBUSY
                                     : hashing.result; /* there is memory again when others are done */
}

struct checking {
    char hash[CRYPTO_PASSWORD_SIZE];
    struct str password;
    bool fits;
};

static void check_work(void *arg)
{
    struct checking *checking = arg;
    checking->fits = crypto_password_fits(checking->hash, checking->password);
}

int password_check(struct str hash, struct str password, bool *fits)
{
    /* Costs what our hashes cost. It belongs to no known password, and would not be believed if it did. */
    static const char nobodys[] =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    bool is_somebodys = hash.at && hash.size < CRYPTO_PASSWORD_SIZE;
    struct str text = is_somebodys ? hash : str_from(nobodys);
    struct checking checking = {.password = password};
    memcpy(checking.hash, text.at, text.size);
    int result = run(check_work, &checking);
    *fits = result == 0 && is_somebodys && checking.fits;
    crypto_wipe(checking.hash, sizeof checking.hash);
    return result;
}
