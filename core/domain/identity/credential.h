#ifndef CORE_DOMAIN_IDENTITY_CREDENTIAL_H
#define CORE_DOMAIN_IDENTITY_CREDENTIAL_H

#include "core/base/arena.h"
#include "core/domain/identity/principal.h"

/*
 * Credentials of what stays open after they were shown: whether they still hold, and tickets that stand for them.
 *
 * A ticket ("wgt_") is for a client that can't send its key along, as a browser's WebSocket: it works once, on any server,
 * within TICKET_S, and gives what the key or log-in that asked for it may do, and no more than that when it is used.
 */

enum { TICKET_S = 60, TICKET_TEXT_MAX = 80, TICKET_SCOPES_MAX = 512 };

/* A key or a log-in, by its number; the other one is 0. */
struct credential {
    int64_t key_id;
    int64_t login_id;
};
struct credential credential_of(const struct principal *principal);

enum credential_state { CREDENTIAL_HOLDS, CREDENTIAL_ENDED, CREDENTIAL_BANNED };

/* What became of each; one statement, however many. Waits. */
int credential_look(const struct credential *all, size_t count, enum credential_state *states) MUST_USE;

/* Makes a ticket; ends with a NUL. The caller wipes it. Waits. -ENOTCONN and the other errors of redis.h. */
int ticket_make(const struct principal *principal, char text[TICKET_TEXT_MAX]) MUST_USE;
/* Uses it up. -EACCES: no such ticket, or used, or too old, or what it stood for has ended. Errors of stores. Waits. */
int ticket_take(struct arena *arena, struct str text, const char *surface, struct principal *principal)
    MUST_USE;

#endif
