/* Connections by client address: see peers.h. */
#include "core/net/peers.h"

#include "core/base/check.h"
#include "core/base/list.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct key {
    uint64_t high; /* the /64 */
    uint32_t v4;
    uint32_t family;
};

struct peer {
    struct peer *next;
    struct key key;
    unsigned count;
};

static struct peer *buckets[BUCKETS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static struct key key_of(const struct sockaddr *address)
{
    struct key key = {.family = AF_INET};
    if (address->sa_family == AF_INET) {
        key.v4 = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
    } else if (address->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6)) {
            memcpy(&key.v4, v6->s6_addr + 12, sizeof key.v4);
        } else {
            key.family = AF_INET6;
            memcpy(&key.high, v6->s6_addr, sizeof key.high);
        }
    }
    return key;
}

/* Who picks addresses to meet in one bucket has to own them: a connection needs an answer to its SYN. */
static struct peer **bucket_of(const struct key *key)
{
    uint64_t mixed = (key->high ^ key->v4 ^ (uint64_t)key->family << 40) * 0x9e3779b97f4a7c15u;
    return &buckets[mixed >> 52];
}

static bool is_same(const struct key *a, const struct key *b)
{
    return a->high == b->high && a->v4 == b->v4 && a->family == b->family;
}

struct peer *peers_take(const struct sockaddr *address, unsigned most)
{
    const struct key key = key_of(address);
    pthread_mutex_lock(&mutex);
    struct peer **bucket = bucket_of(&key);
    struct peer *peer = *bucket;
    while (peer && !is_same(&peer->key, &key))
        peer = peer->next;
    if (!peer) {
        peer = mem_zalloc(sizeof *peer);
        peer->key = key;
        peer->next = *bucket;
        *bucket = peer;
    }
    bool fits = peer->count < most;
    peer->count += fits;
    pthread_mutex_unlock(&mutex);
    return fits ? peer : NULL;
}

void peers_give(struct peer *peer)
{
    if (!peer)
        return;
    pthread_mutex_lock(&mutex);
    if (--peer->count == 0) {
        struct peer **at = bucket_of(&peer->key);
        while (*at != peer)
            at = &(*at)->next;
        *at = peer->next;
        free(peer);
    }
    pthread_mutex_unlock(&mutex);
}
