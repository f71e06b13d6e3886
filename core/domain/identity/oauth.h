#ifndef CORE_DOMAIN_IDENTITY_OAUTH_H
#define CORE_DOMAIN_IDENTITY_OAUTH_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/domain/identity/principal.h"
#include "core/domain/secret.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The OAuth 2.0 server's rules (RFC 6749, 7636, 7009, 7662, 9207, 9700). Tokens are opaque: "wga_" access, "wgf_" refresh,
 * "wgc_" codes, secrets of ours of which only hashes are stored (core/domain/secret.h). All that a grant gave ends with it: a
 * code that comes twice and a refresh token that comes again revoke the grant.
 */

enum {
    OAUTH_CODE_S = 60,
    OAUTH_ACCESS_S = 3600,
    OAUTH_REFRESH_S = 30 * 86400,
    OAUTH_URI_MAX = 2000,
    OAUTH_URIS_MAX = 16
};

struct oauth_client {
    struct str id; /* "cli_…" or "test_…" */
    int64_t account_id;
    struct str account;
    struct str name;
    struct str redirect_uris; /* separated by spaces */
    struct str grants;        /* separated by spaces: authorization_code, refresh_token, client_credentials */
    scope_set scopes;
    bool is_public;
    bool is_test;
    int64_t created_ms;
    int64_t revoked_ms; /* 0: it holds */
};

struct oauth_client_options {
    struct str name;
    const struct str
        *redirect_uris; /* checked: absolute, https or a loopback http or a private-use scheme, no fragment */
    size_t uri_count;
    scope_set scopes; /* 0: all of the provision surface */
    bool is_public;
    bool is_test;
};

/* `secret` is shown once; "" for a public client. -EINVAL: a redirect URI is none, or a public client without one. Waits. */
int oauth_client_create(struct arena *arena, int64_t account_id, const struct oauth_client_options *options,
                        char secret[SECRET_TEXT_MAX], struct oauth_client *client) MUST_USE;
int oauth_client_get(struct arena *arena, struct str id, struct oauth_client *client)
    MUST_USE; /* -ENOENT, also when revoked, or its account is banned */
int oauth_client_list(struct arena *arena, struct oauth_client **clients, size_t *count) MUST_USE;
int oauth_client_revoke(struct str id) MUST_USE; /* and all its grants */
/* A new secret at once in place of the old one. */
int oauth_client_rotate(struct str id, char secret[SECRET_TEXT_MAX]) MUST_USE;
/* The client, if the secret is its own (absent: if it is public). -EACCES. Waits. */
int oauth_client_check(struct arena *arena, struct str id, struct str secret, struct oauth_client *client)
    MUST_USE;
/* Exact comparison with each registered one. */
bool oauth_client_has_uri(const struct oauth_client *client, struct str uri);
bool oauth_client_has_grant(const struct oauth_client *client, struct str grant);

struct oauth_tokens {
    char access[SECRET_TEXT_MAX];
    char refresh[SECRET_TEXT_MAX]; /* "" without */
    scope_set scopes;
    int64_t expires_in_s;
};

/* The user has said yes. `challenge` absent: without PKCE. Waits. */
int oauth_allow(const struct oauth_client *client, int64_t account_id, scope_set scopes,
                struct str redirect_uri, struct str challenge, char code[SECRET_TEXT_MAX]) MUST_USE;
/* `redirect_uri` and `verifier` absent when not sent. -EACCES: invalid_grant. One of any number that race succeeds; the others
 * revoke what it gave. Waits. */
int oauth_exchange_code(const struct oauth_client *client, struct str code, struct str redirect_uri,
                        struct str verifier, struct oauth_tokens *tokens) MUST_USE;
/* `wanted` 0: as before. -EACCES: invalid_grant; -EPERM: more than was granted (invalid_scope). */
int oauth_exchange_refresh(const struct oauth_client *client, struct str refresh, scope_set wanted,
                           struct oauth_tokens *tokens) MUST_USE;
/* client_credentials: for the client's own account. */
int oauth_client_tokens(const struct oauth_client *client, scope_set wanted, struct oauth_tokens *tokens)
    MUST_USE;

/* RFC 7009: ends the token, and for a refresh token its grant; 0 also when there is no such token of this client. */
int oauth_revoke(const struct oauth_client *client, struct str token) MUST_USE;

struct oauth_token_info {
    bool active;
    scope_set scopes;
    struct str client_id;
    struct str account_ref;
    bool is_refresh;
    int64_t issued_s;
    int64_t expires_s;
};
/* RFC 7662: what is not this client's is not active. */
int oauth_introspect(struct arena *arena, const struct oauth_client *client, struct str token,
                     struct oauth_token_info *info) MUST_USE;

/* As key_verify, for "wga_" tokens; believed for KEY_VERDICT_MS. */
int oauth_verify(struct str token, struct principal *principal) MUST_USE;
bool oauth_is_known(struct str token);
bool oauth_has_form(struct str token);
void oauth_close_loop(struct loop *loop);
/* Removes codes and tokens that ended long ago. Waits. */
int oauth_forget(void) MUST_USE;

#endif
