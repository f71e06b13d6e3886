#ifndef CORE_DOMAIN_INSTANCE_WORKSPACE_H
#define CORE_DOMAIN_INSTANCE_WORKSPACE_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Who may visit a workspace, vs-code-{id}.DOMAIN: whoever has a signed link, or the cookie that was set when it was
 * followed. Both are a moment in time and a MAC over purpose, instance and that moment, under a key derived from
 * ENCRYPTION_KEY; a link can't be used as a cookie. Nothing is stored.
 */

#define WORKSPACE_COOKIE "wakegate_workspace"
#define WORKSPACE_PARAM "wakegate_link"
enum { WORKSPACE_TOKEN_SIZE = 64 /* with NUL; letters, digits, '-', '_' and '.' only */ };

enum workspace_token { WORKSPACE_LINK, WORKSPACE_VISIT /* the cookie */ };

/* Once, after the settings: derives the key. */
void workspace_init(void);

void workspace_sign(char out[WORKSPACE_TOKEN_SIZE], enum workspace_token kind, struct str instance_id,
                    int64_t until_unix_s);
/* In constant time; false when it is another instance's, another kind's, too old, or not ours. */
bool workspace_verify(enum workspace_token kind, struct str instance_id, struct str token,
                      int64_t now_unix_s);

/* The instance of a host name (without port), "vs-code-abc12345.localhost" under BASE_DOMAIN, in lower case; absent when it
 * is none. */
struct str workspace_of_host(struct arena *arena, struct str host);
/* "vs-code-abc12345.localhost". */
void workspace_put_host(struct buf *out, struct str instance_id);

#endif
