#ifndef CORE_NET_FANOUT_H
#define CORE_NET_FANOUT_H

#include "core/net/ws.h"

/*
 * Messages to many WebSockets of one loop. A message is serialized once; at most FANOUT_TURN sockets are written to in a
 * turn of the loop, so that ten thousand of them don't stop it for everybody else; a socket that is several messages behind
 * gets them in one write. Every member gets every message sent after it joined that is of a kind that it wants, in order, or is
 * closed for reading too slowly.
 */

enum { FANOUT_TURN = 500 };

struct fanout;

/* A place in a fanout; part of the socket's owner. Zero-initialise. */
struct fanout_member {
    struct link link;
    struct ws *ws;
    struct fanout *fanout;
    uint64_t next;  /* the first message that it has not been given */
    uint64_t kinds; /* what it wants, a bit for each */
};
#define FANOUT_ALL (~(uint64_t)0)

struct fanout *fanout_open(struct loop *loop);
/* All members have left. Frees it when its handle is closed, in a later turn. */
void fanout_close(struct fanout *fanout);

void fanout_join(struct fanout *fanout, struct fanout_member *member, struct ws *ws, uint64_t kinds);
/* Gives it now what it is to get. */
void fanout_catch_up(struct fanout_member *member);
/* What it wants of messages sent from now on. */
void fanout_want(struct fanout_member *member, uint64_t kinds);
/* Safe on a member that has left or never joined. */
void fanout_leave(struct fanout_member *member);
/* `kinds` are those that the message is of. */
void fanout_send(struct fanout *fanout, bool text, struct str payload, uint64_t kinds);

#endif
