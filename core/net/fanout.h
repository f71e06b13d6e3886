#ifndef CORE_NET_FANOUT_H
#define CORE_NET_FANOUT_H

#include "core/net/ws.h"

/*
 * Messages to many WebSockets of one loop. A message is serialized once; at most FANOUT_TURN sockets are written to in a
 * turn of the loop, so that ten thousand of them don't stop it for everybody else; a socket that is several messages behind
 * gets them in one write. Every member gets every message sent after it joined, in order, or is closed for reading too slowly.
 */

enum { FANOUT_TURN = 500 };

struct fanout;

/* A place in a fanout; part of the socket's owner. Zero-initialise. */
struct fanout_member {
    struct link link;
    struct ws *ws;
    struct fanout *fanout;
    uint64_t next; /* the first message that it has not been given */
};

struct fanout *fanout_open(struct loop *loop);
/* All members have left. Frees it when its handle is closed, in a later turn. */
void fanout_close(struct fanout *fanout);

void fanout_join(struct fanout *fanout, struct fanout_member *member, struct ws *ws);
/* Safe on a member that has left or never joined. */
void fanout_leave(struct fanout_member *member);
void fanout_send(struct fanout *fanout, bool text, struct str payload);

#endif
