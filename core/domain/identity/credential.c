/* Credentials of what stays open: see credential.h. */
#include "core/domain/identity/credential.h"

#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/domain/identity/account.h"
#include "core/domain/identity/key.h"
#include "core/domain/identity/login.h"
#include "core/domain/secret.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdlib.h>

#define TICKET_PREFIX "wgt_"
#define TICKET_KEY "ticket:"

enum { HASH_HEX = 2 * CRYPTO_DIGEST_SIZE, TICKET_KEY_SIZE = sizeof TICKET_KEY - 1 + HASH_HEX };

static const struct pg_statement sql_look = {
    "credential_look",
    "SELECT held.place, a.id IS NOT NULL FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY "
    "AS held (key_id, login_id, place) "
    "LEFT JOIN api_key k ON k.id = held.key_id AND k.revoked_at IS NULL "
    "AND (k.expires_at IS NULL OR k.expires_at > now()) "
    "LEFT JOIN login l ON l.id = held.login_id AND l.revoked_at IS NULL AND l.expires_at > now() "
    "LEFT JOIN account a ON a.id = coalesce(k.account_id, l.account_id) "
    "WHERE a.id IS NULL OR " ACCOUNT_IS_BANNED("a")};

struct credential credential_of(const struct principal *principal)
{
    return (struct credential){.key_id = principal->key_id, .login_id = principal->login_id};
}

int credential_look(const struct credential *all, size_t count, enum credential_state *states)
{
    struct pg_rows *rows;
    int64_t *keys = mem_alloc((2 * count + 1) * sizeof *keys);
    int64_t *logins = keys + count;
    for (size_t i = 0; i < count; i++) {
        keys[i] = all[i].key_id;
        logins[i] = all[i].login_id;
        states[i] = CREDENTIAL_HOLDS;
    }
    int result = pg_read(&sql_look, PG_VALUES(PG_INTS(keys, count), PG_INTS(logins, count)), &rows);
    free(keys);
    if (result)
        return result;
    for (size_t i = 0; i < pg_count(rows); i++)
        states[pg_i64(rows, i, 0) - 1] = pg_bool(rows, i, 1) ? CREDENTIAL_BANNED : CREDENTIAL_ENDED;
    pg_rows_free(rows);
    return 0;
}

/* ---- tickets ---- */

/* Redis knows a ticket by its hash alone. */
static struct str ticket_key(char out[TICKET_KEY_SIZE + 1], struct str text)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    secret_hash(hash, text);
    memcpy(out, TICKET_KEY, sizeof TICKET_KEY - 1);
    escape_hex(out + sizeof TICKET_KEY - 1, hash, sizeof hash);
    return str_of(out, TICKET_KEY_SIZE);
}

int ticket_make(const struct principal *principal, char text[TICKET_TEXT_MAX])
{
    char key[TICKET_KEY_SIZE + 1];
    struct arena arena;
    struct redis_value reply;
    struct buf names = {0};
    scope_print(&names, principal->scopes);
    struct str secret = str_of(text, secret_make(text, TICKET_PREFIX));
    arena_init(&arena);
    struct str value = str_from(arena_printf(&arena, "%lld %lld %.*s", (long long)principal->key_id,
                                             (long long)principal->login_id, STR_ARG(buf_str(&names))));
    int result = redis_call(redis_shared(), &reply, &arena, STR("SET"), ticket_key(key, secret), value,
                            STR("EX"), str_from(arena_printf(&arena, "%d", TICKET_S)));
    arena_clear(&arena);
    buf_clear(&names);
    if (result)
        crypto_wipe(text, TICKET_TEXT_MAX);
    return result;
}

/* Whom the ticket's text in Redis means: "key login scope scope …". */
static int principal_of(struct str value, const char *surface, struct principal *principal)
{
    struct str number;
    int64_t key_id;
    int64_t login_id;
    scope_set names;
    if (!str_split(&value, ' ', &number) || !str_to_i64(number, &key_id) || !value.at ||
        !str_split(&value, ' ', &number) || !str_to_i64(number, &login_id) || !value.at ||
        !scope_parse(value, surface, &names))
        return -EACCES;
    int result =
        key_id ? key_look_up(key_id, surface, principal) : login_look_up(login_id, surface, principal);
    if (result == 0)
        principal->scopes &= names;
    return result;
}

int ticket_take(struct arena *arena, struct str text, const char *surface, struct principal *principal)
{
    char key[TICKET_KEY_SIZE + 1];
    struct redis_value reply;
    if (!secret_has_form(text, TICKET_PREFIX))
        return -EACCES;
    int result = redis_call(redis_shared(), &reply, arena, STR("GETDEL"), ticket_key(key, text));
    if (result)
        return result;
    return reply.type == REDIS_STRING ? principal_of(reply.text, surface, principal) : -EACCES;
}
