#ifndef CORE_DOMAIN_IDENTITY_KEY_H
#define CORE_DOMAIN_IDENTITY_KEY_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/domain/identity/principal.h"
#include "core/domain/identity/verdict.h"
#include "core/domain/secret.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * API keys of every surface: one thing, told apart by their prefix (core/domain/secret.h says how they look). What a loop
 * has learned of a key it believes for KEY_VERDICT_MS (core/domain/identity/verdict.h), so a revoked key, a banned account and a changed plan count everywhere
 * within a second.
 */

/*  surface      prefix */
#define KEY_KINDS(X)                                                                                         \
    X("session", "wgs_")                                                                                     \
    X("inference", "fsk-")                                                                                   \
    X("gpu", "dumont_sk_")                                                                                   \
    X("user", "sk_user_")

/* Keys that log-ins make hold for a while, and only the newest of an account. */
enum { KEY_NAME_MAX = 100, KEY_REF_SIZE = 27, KEY_BY_LOGIN_S = 30 * 86400, KEYS_BY_LOGIN_MAX = 20 };

/*
 * Whose key is it? Waits, at most once per key, loop and KEY_VERDICT_MS. 0; -EACCES: no such key, or revoked, expired or of
 * another surface; -ENOTCONN and the other errors of pg_read. A banned account's key is 0 with is_banned.
 */
int key_verify(struct str text, const char *surface, struct principal *principal) MUST_USE;
/* Whether key_verify would have to ask: an unknown key from an address that is over its limit need not be looked up. */
bool key_is_known(struct str text, const char *surface);

/* The same by its number, for who has shown it before. Asks each time. */
int key_look_up(int64_t id, const char *surface, struct principal *principal) MUST_USE;

/* Frees the loop's verdicts. */
void key_close_loop(struct loop *loop);

struct key_options {
    const char *surface;
    struct str name;
    scope_set scopes;             /* 0: all */
    const struct str *allow_from; /* checked by network_parse */
    size_t allow_count;
    int64_t expires_ms; /* 0: never */
    bool signs;         /* gets a signing secret */
    bool must_sign;     /* unsigned calls are refused */
    bool by_login;      /* made by a log-in: KEYS_BY_LOGIN_MAX of the account hold, older ones are revoked */
};

/* What a new key's owner is shown, once. The caller wipes it. */
struct key_secrets {
    char text[SECRET_TEXT_MAX];
    char signing[SECRET_TEXT_MAX]; /* "" without */
};

struct key_row {
    int64_t id;
    struct str ref; /* "key_…" */
    int64_t account_id;
    struct str account; /* its name */
    struct str surface;
    struct str name;
    struct str shown;      /* its first characters */
    struct str scopes;     /* separated by spaces; absent: all */
    struct str allow_from; /* separated by spaces; absent: anywhere */
    bool signs;
    bool must_sign;
    int64_t created_ms;
    int64_t expires_ms;    /* 0: never */
    int64_t revoked_ms;    /* 0: it holds */
    struct str rotated_to; /* the ref of the one in its place; absent: there is none */
};

/* Makes a key of an account. Waits. -EINVAL: no such surface; -ENOENT: no such account. */
int key_create(struct arena *arena, int64_t account_id, const struct key_options *options,
               struct key_secrets *secrets, struct key_row *row) MUST_USE;
/* A new one with the same rights; the old one holds for `overlap_s` more (0: no longer). Waits. -ENOENT: the account has none of that ref
 * that holds; -EEXIST: it was rotated before. */
int key_rotate(struct arena *arena, int64_t account_id, struct str ref, int64_t overlap_s,
               struct key_secrets *secrets, struct key_row *row) MUST_USE;
/* Waits. -ENOENT: the account has none of that ref that holds. account_id 0: any account's, for operators, and `ref` may
 * be the number. */
int key_revoke(int64_t account_id, struct str ref) MUST_USE;
/* Keys, newest first, below `cursor` (0: from the start); of all accounts for account_id 0. Waits; rows live in the arena. */
int key_list(struct arena *arena, int64_t account_id, int64_t cursor, int64_t limit, struct key_row **rows,
             size_t *count) MUST_USE;
/* As key_revoke names it, whether it holds or not. */
int key_get(struct arena *arena, int64_t account_id, struct str ref, struct key_row *row) MUST_USE;
/* The prefix of a surface's keys; NULL: it has none. */
const char *key_prefix(const char *surface);

/* The key's signing secret, opened. Waits. -ENOENT: it has none. */
int key_signing_secret(struct arena *arena, int64_t key_id, struct str *secret) MUST_USE;

#endif
