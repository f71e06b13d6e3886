/* What a loop has learned of keys, log-ins and tokens: see verdict.h. */
#include "core/domain/identity/verdict.h"

#include "core/base/clock.h"
#include "core/base/list.h"
#include "core/run/fiber.h"

#include <errno.h>
#include <stdlib.h>

enum { VERDICTS = 1024 };

struct verdict {
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    uint64_t until_ns;
    bool holds;
    struct principal principal;
};

/* Direct-mapped by the hash: an older verdict gives way. */
struct verdicts {
    struct link askers;
    struct verdict slots[VERDICTS];
};

/* One that waits for a look-up; on its fiber's stack. The first of those with the same hash asks, for all. */
struct asker {
    struct link link;
    const unsigned char *hash;
    struct principal *principal;
    struct wait wait;
};

static struct verdicts *verdicts_of(enum loop_slot slot)
{
    struct loop *loop = loop_self();
    struct verdicts *own = loop->slots[slot];
    if (UNLIKELY(!own)) {
        own = mem_zalloc(sizeof *own);
        list_init(&own->askers);
        loop->slots[slot] = own;
    }
    return own;
}

void verdict_close_loop(struct loop *loop, enum loop_slot slot)
{
    struct verdicts *own = loop->slots[slot];
    if (!own)
        return;
    CHECK(list_empty(&own->askers));
    crypto_wipe(own, sizeof *own);
    free(own);
    loop->slots[slot] = NULL;
}

static bool same_hash(const unsigned char *a, const unsigned char *b)
{
    return crypto_equal(str_of((const char *)a, CRYPTO_DIGEST_SIZE),
                        str_of((const char *)b, CRYPTO_DIGEST_SIZE));
}

static struct verdict *slot_of(struct verdicts *own, const unsigned char *hash)
{
    size_t index;
    memcpy(&index, hash, sizeof index);
    return &own->slots[index % VERDICTS];
}

static bool is_fresh(const struct verdict *verdict)
{
    return clock_now_ns() < verdict->until_ns;
}

bool verdict_is_known(enum loop_slot slot, const unsigned char hash[CRYPTO_DIGEST_SIZE])
{
    const struct verdict *verdict = slot_of(verdicts_of(slot), hash);
    return is_fresh(verdict) && same_hash(verdict->hash, hash);
}

/* That something is nobody's drives out nothing that holds: who makes up keys can't make others' be looked up. */
static void remember(struct verdicts *own, const unsigned char *hash, uint64_t asked_ns, int result,
                     const struct principal *principal)
{
    struct verdict *verdict = slot_of(own, hash);
    bool others_hold = verdict->holds && is_fresh(verdict) && !same_hash(verdict->hash, hash);
    if (result == -EACCES && others_hold)
        return;
    memcpy(verdict->hash, hash, sizeof verdict->hash);
    verdict->until_ns = asked_ns + KEY_VERDICT_MS * CLOCK_MS;
    verdict->holds = result == 0;
    if (verdict->holds)
        verdict->principal = *principal;
}

static struct asker *find_asker(struct verdicts *own, const unsigned char *hash)
{
    LIST_EACH (&own->askers, item, after) {
        struct asker *asker = LIST_ENTRY(item, struct asker, link);
        if (same_hash(asker->hash, hash))
            return asker;
    }
    return NULL;
}

static void tell_others(struct verdicts *own, struct asker *self, int result)
{
    list_remove(&self->link);
    LIST_EACH (&own->askers, item, after) {
        struct asker *asker = LIST_ENTRY(item, struct asker, link);
        if (!same_hash(asker->hash, self->hash))
            continue;
        if (result == 0)
            *asker->principal = *self->principal;
        list_remove(&asker->link);
        wait_done(&asker->wait, result);
    }
}

int verdict_find(enum loop_slot slot, const unsigned char hash[CRYPTO_DIGEST_SIZE], verdict_look_up *look_up,
                 const void *arg, struct principal *principal)
{
    struct verdicts *own = verdicts_of(slot);
    const struct verdict *known = slot_of(own, hash);
    if (is_fresh(known) && same_hash(known->hash, hash)) {
        if (known->holds)
            *principal = known->principal;
        return known->holds ? 0 : -EACCES;
    }
    struct asker asker = {.hash = hash, .principal = principal, .wait = WAIT_INIT};
    bool others_ask = find_asker(own, hash) != NULL;
    list_init(&asker.link);
    list_push_back(&own->askers, &asker.link);
    int result;
    if (others_ask) {
        result = wait_for(&asker.wait, "a verdict", CLOCK_NEVER);
        list_remove(&asker.link);
        return result;
    }
    uint64_t asked_ns = clock_now_ns();
    /* For all who wait, so not to be cut short when this client leaves; the store's own time is bounded. */
    fiber_hold();
    result = look_up(hash, arg, principal);
    fiber_release();
    if (result == 0 || result == -EACCES)
        remember(own, hash, asked_ns, result, principal);
    tell_others(own, &asker, result);
    return result;
}
