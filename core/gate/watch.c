/* What ends with its credentials: see watch.h. */
#include "core/gate/watch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/gate/audience.h"
#include "core/run/sync.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { AT_ONCE = 1000, NAME_SIZE = 48 };

struct watched_credential {
    struct link link;
    struct credential credential;
    char name[NAME_SIZE];
    struct link watched;
};

struct watch {
    struct table credentials;
    struct fiber *fiber;
    struct group fibers;
    struct wait wait; /* for a new one */
};

static struct str name_of(struct link *item)
{
    return str_from(LIST_ENTRY(item, struct watched_credential, link)->name);
}

static void name_it(char out[NAME_SIZE], const struct credential *credential)
{
    snprintf(out, NAME_SIZE, "%lld %lld", (long long)credential->key_id, (long long)credential->login_id);
}

static struct watched_credential *find(const struct watch *watch, const struct credential *credential)
{
    char name[NAME_SIZE];
    name_it(name, credential);
    struct link *item = table_find(&watch->credentials, str_from(name));
    return item ? LIST_ENTRY(item, struct watched_credential, link) : NULL;
}

static struct watched_credential *add(struct watch *watch, const struct credential *credential)
{
    struct watched_credential *added = mem_zalloc(sizeof *added);
    added->credential = *credential;
    name_it(added->name, credential);
    list_init(&added->watched);
    table_add(&watch->credentials, &added->link);
    /* It was good a moment ago, by what the loop believed. */
    wait_done(&watch->wait, 0);
    return added;
}

void watch_begin(struct watched *watched, const struct principal *principal,
                 void (*ended)(struct watched *watched, enum credential_state state))
{
    struct watch *watch = loop_self()->slots[LOOP_WATCH];
    struct credential credential = credential_of(principal);
    struct watched_credential *known = find(watch, &credential);
    watched->credential = known ? known : add(watch, &credential);
    watched->ended = ended;
    list_push_back(&watched->credential->watched, &watched->link);
}

void watch_end(struct watched *watched)
{
    struct watch *watch = loop_self()->slots[LOOP_WATCH];
    struct watched_credential *credential = watched->credential;
    if (!credential)
        return;
    watched->credential = NULL;
    list_remove(&watched->link);
    if (!list_empty(&credential->watched))
        return;
    table_remove(&watch->credentials, &credential->link);
    free(credential);
}

/* ---- looking ---- */

struct round {
    struct credential *all;
    size_t count;
};

static void collect(struct link *item, void *arg)
{
    struct round *round = arg;
    round->all[round->count++] = LIST_ENTRY(item, struct watched_credential, link)->credential;
}

/* Those whose credential has ended are told, one after the other; the last takes the credential away. */
static void tell(struct watch *watch, const struct credential *credential, enum credential_state state)
{
    struct watched_credential *ended = find(watch, credential);
    size_t count = 0;
    if (!ended)
        return;
    LIST_EACH (&ended->watched, item, after)
        count++;
    while (count-- > 0 && (ended = find(watch, credential)) != NULL) {
        struct watched *watched = LIST_ENTRY(ended->watched.next, struct watched, link);
        watch_end(watched);
        watched->ended(watched, state);
    }
}

static int look(struct watch *watch, const struct round *round)
{
    enum credential_state *states = mem_alloc((AT_ONCE + 1) * sizeof *states);
    int result = 0;
    for (size_t from = 0; result == 0 && from < round->count; from += AT_ONCE) {
        size_t count = round->count - from < AT_ONCE ? round->count - from : AT_ONCE;
        result = credential_look(round->all + from, count, states);
        for (size_t i = 0; result == 0 && i < count; i++)
            if (states[i] != CREDENTIAL_HOLDS)
                tell(watch, &round->all[from + i], states[i]);
    }
    free(states);
    return result;
}

static void run_watch(void *arg)
{
    struct watch *watch = arg;
    while (wait_for(&watch->wait, "the next look at credentials", clock_in_ms(WATCH_MS)) != -ECANCELED) {
        watch->wait = WAIT_INIT;
        struct round round = {.all = mem_alloc((watch->credentials.count + 1) * sizeof *round.all)};
        table_each(&watch->credentials, collect, &round);
        int result = look(watch, &round);
        free(round.all);
        audience_sweep(loop_self());
        /* Who can't ask can't know: PostgreSQL is away, and nothing can be revoked either. */
        if (result && result != -ENOTCONN && result != -ECANCELED)
            LOG(WARN, "credentials of open streams could not be looked at", LOG_ERRNO(result));
    }
    group_done(&watch->fibers);
}

void watch_open_loop(struct loop *loop)
{
    struct watch *watch = mem_zalloc(sizeof *watch);
    table_init(&watch->credentials, name_of);
    loop->slots[LOOP_WATCH] = watch;
    group_add(&watch->fibers);
    watch->fiber = fiber_start(loop, "credentials watch", run_watch, watch);
}

void watch_close_loop(struct loop *loop)
{
    struct watch *watch = loop->slots[LOOP_WATCH];
    if (!watch)
        return;
    fiber_hold();
    fiber_cancel(watch->fiber);
    CHECK(group_wait(&watch->fibers, "the watch", CLOCK_NEVER) == 0);
    fiber_release();
    CHECK(watch->credentials.count == 0);
    table_clear(&watch->credentials);
    free(watch);
    loop->slots[LOOP_WATCH] = NULL;
}
