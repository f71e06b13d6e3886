#ifndef CORE_NET_PEERS_H
#define CORE_NET_PEERS_H

#include <sys/socket.h>

/*
 * How many connections each client address has, over all loops of the process: the kernel spreads one client's connections
 * over them, so a count per loop would be no cap. Looked at once a connection, under a mutex. IPv6 counts by its /64, which
 * is what one customer gets.
 */

struct peer;

/* Counts one more; NULL when the address has `most` already. */
struct peer *peers_take(const struct sockaddr *address, unsigned most);
/* Counts one less. NULL is let be. */
void peers_give(struct peer *peer);

#endif
