#ifndef CORE_DOMAIN_IDENTITY_LOGIN_H
#define CORE_DOMAIN_IDENTITY_LOGIN_H

#include "core/base/arena.h"
#include "core/domain/identity/principal.h"
#include "core/domain/secret.h"
#include "core/run/loop.h"

/*
 * Log-ins: a person's session at the API. Its access token is a JWT of an hour (proto/jwt.h), its refresh token a secret of
 * ours ("wgr_") that is exchanged for a new pair each time. Who comes with one that was exchanged before has a copy, or lost the
 * answer: the log-in ends. A log-in that ended is refused everywhere within a second, whatever its JWT says.
 */

enum { LOGIN_TOKEN_S = 3600, LOGIN_REFRESH_S = 30 * 86400 };

struct login_tokens {
    struct str token; /* the JWT; in the arena */
    int64_t expires_s;
    char refresh[SECRET_TEXT_MAX];
    struct str ref; /* of the log-in */
};

/* Once per process, after the settings: the keys of JWT_SECRET and JWT_ALGORITHM. */
int login_init(char *error, size_t error_size) MUST_USE;
void login_clear(void);

/* Begins one for an account whose password was right. Waits. */
int login_begin(struct arena *arena, int64_t account_id, struct str account_ref, struct login_tokens *tokens)
    MUST_USE;
/* -EACCES: no such refresh token, or it ended, or the account is banned. Waits. */
int login_refresh(struct arena *arena, struct str refresh, struct login_tokens *tokens) MUST_USE;
/* Logs out. Waits. -ENOENT when it has ended already. */
int login_end(int64_t login_id) MUST_USE;
/* Whose JWT is it? As key_verify. Log-ins have all scopes of `surface`. */
int login_verify(struct arena *arena, struct str token, const char *surface, struct principal *principal)
    MUST_USE;
/* The same by its number, for who has shown a token before. Asks each time. */
int login_look_up(int64_t id, const char *surface, struct principal *principal) MUST_USE;
/* Whether it looks like one of ours at all: not an API key. */
bool login_has_form(struct str token);
void login_close_loop(struct loop *loop);
/* Removes log-ins that ended long ago. Waits. */
int login_forget(void) MUST_USE;

#endif
