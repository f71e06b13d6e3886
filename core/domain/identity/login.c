/* Log-ins: see login.h. */
#include "core/domain/identity/login.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/identity/account.h"
#include "core/domain/identity/verdict.h"
#include "core/store/pg.h"
#include "proto/jwt.h"

#include <errno.h>
#include <stdio.h>

#define REFRESH_PREFIX "wgr_"
#define ISSUER "wakegate"
#define AUDIENCE "wakegate-api"

enum { REF_SIZE = 29, TOKEN_ID_SIZE = 23, FORGET_AT_ONCE = 5000 };

static const struct pg_statement sql_begin = {
    "login_begin",
    "WITH l AS (INSERT INTO login (ref, account_id, refresh_hash, expires_at) VALUES ($1::text, $2::bigint, "
    "$3::bytea, now() + $4::bigint * interval '1 second') RETURNING *)" AUDIT(
        "$5", "login.begin", "l", "l.account_id", "l.ref") "SELECT 1 FROM l"};
static const struct pg_statement sql_refresh = {
    "login_refresh", "WITH l AS (UPDATE login SET refresh_hash = $2::bytea, spent_hash = $1::bytea, "
                     "expires_at = now() + $3::bigint * interval '1 second' WHERE refresh_hash = $1::bytea "
                     "AND revoked_at IS NULL AND expires_at > now() AND NOT EXISTS (SELECT FROM account a "
                     "WHERE a.id = login.account_id AND " ACCOUNT_IS_BANNED("a") ") RETURNING *)" AUDIT(
                         "$4", "login.refresh", "l", "l.account_id",
                         "l.ref") "SELECT l.ref, a.ref FROM l JOIN account a ON a.id = l.account_id"};
static const struct pg_statement sql_reuse = {
    "login_reuse",
    "WITH l AS (UPDATE login SET revoked_at = now() WHERE spent_hash = $1::bytea AND revoked_at IS NULL "
    "RETURNING *)" AUDIT("$2", "login.reuse", "l", "l.account_id", "l.ref") "SELECT 1 FROM l"};
static const struct pg_statement sql_end = {
    "login_end",
    "WITH l AS (UPDATE login SET revoked_at = now() WHERE id = $1::bigint AND revoked_at IS NULL "
    "RETURNING *)" AUDIT("$2", "login.end", "l", "l.account_id", "l.ref") "SELECT 1 FROM l"};
#define FIND                                                                                                 \
    "SELECT l.id, l.account_id, a.ref, " ACCOUNT_IS_BANNED("a") ", " PLAN_COLUMNS(                           \
        "l.account_id", "$2::text") " FROM login l JOIN account a ON a.id = l.account_id "                   \
                                    "WHERE l.revoked_at IS NULL AND l.expires_at > now()"
static const struct pg_statement sql_find = {"login_find", FIND " AND l.ref = $1::text"};
static const struct pg_statement sql_find_id = {"login_find_id", FIND " AND l.id = $1::bigint"};

static const struct pg_statement sql_forget = {
    "login_forget", "DELETE FROM login WHERE id IN (SELECT id FROM login "
                    "WHERE expires_at < now() - interval '1 day' ORDER BY expires_at LIMIT $1::bigint)"};

static struct jwt_key jwt_key;

static struct str bytes_of(const unsigned char *digest)
{
    return str_of((const char *)digest, CRYPTO_DIGEST_SIZE);
}

int login_init(char *error, size_t error_size)
{
    unsigned char derived[CRYPTO_KEY_SIZE];
    struct str secret = str_from(config->jwt_secret);
    if (secret.size && secret.size < 32) {
        snprintf(error, error_size, "JWT_SECRET must have at least 32 characters");
        return -EINVAL;
    }
    crypto_derive(derived, str_from(config->encryption_key), "jwt");
    if (secret.size == 0)
        secret = bytes_of(derived);
    int result = jwt_key_make(&jwt_key, config->jwt_algorithm, secret);
    if (result)
        snprintf(error, error_size, "JWT_ALGORITHM must be HS256 or EdDSA");
    crypto_wipe(derived, sizeof derived);
    return result;
}

void login_clear(void)
{
    jwt_key_clear(&jwt_key);
}

/* ---- what a client holds ---- */

static struct str write_token(struct arena *arena, struct str ref, struct str account_ref, int64_t expires_s)
{
    char id[TOKEN_ID_SIZE];
    struct buf text = {0};
    id_random_base62(id, TOKEN_ID_SIZE - 1);
    const struct jwt_claims claims = {
        .issuer = STR(ISSUER),
        .audience = STR(AUDIENCE),
        .subject = account_ref,
        .session = ref,
        .id = str_of(id, TOKEN_ID_SIZE - 1),
        .issued_s = expires_s - LOGIN_TOKEN_S,
        .expires_s = expires_s,
    };
    jwt_write(&text, &jwt_key, &claims);
    struct str token = arena_str(arena, buf_str(&text));
    crypto_wipe(text.at, text.size);
    buf_clear(&text);
    return token;
}

/* A refresh token and its hash. */
static void make_refresh(struct login_tokens *tokens, unsigned char hash[CRYPTO_DIGEST_SIZE])
{
    size_t size = secret_make(tokens->refresh, REFRESH_PREFIX);
    secret_hash(hash, str_of(tokens->refresh, size));
}

static void fill_in(struct arena *arena, struct str ref, struct str account_ref, struct login_tokens *tokens)
{
    tokens->ref = arena_str(arena, ref);
    tokens->expires_s = clock_wall_s() + LOGIN_TOKEN_S;
    tokens->token = write_token(arena, ref, account_ref, tokens->expires_s);
}

int login_begin(struct arena *arena, int64_t account_id, struct str account_ref, struct login_tokens *tokens)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    char ref[REF_SIZE] = "login_";
    id_random_base62(ref + 6, REF_SIZE - 7);
    make_refresh(tokens, hash);
    int result = pg_write(&sql_begin,
                          PG_VALUES(PG_TEXT(str_from(ref)), PG_INT(account_id), PG_BYTES(bytes_of(hash)),
                                    PG_INT(LOGIN_REFRESH_S), AUDIT_WHO),
                          NULL);
    if (result == 0)
        fill_in(arena, str_from(ref), account_ref, tokens);
    else
        crypto_wipe(tokens->refresh, sizeof tokens->refresh);
    return result;
}

/* It does not hold. If it did once, somebody has a copy: a look of its own, that sees what a swap at the same time has left. */
static int end_reused(const unsigned char *spent)
{
    int result = pg_write(&sql_reuse, PG_VALUES(PG_BYTES(bytes_of(spent)), AUDIT_WHO), NULL);
    return result ? result : -EACCES;
}

int login_refresh(struct arena *arena, struct str refresh, struct login_tokens *tokens)
{
    unsigned char old[CRYPTO_DIGEST_SIZE];
    unsigned char new[CRYPTO_DIGEST_SIZE];
    if (!secret_has_form(refresh, REFRESH_PREFIX))
        return -EACCES;
    secret_hash(old, refresh);
    make_refresh(tokens, new);
    struct pg_rows *rows;
    int result = pg_write(
        &sql_refresh,
        PG_VALUES(PG_BYTES(bytes_of(old)), PG_BYTES(bytes_of(new)), PG_INT(LOGIN_REFRESH_S), AUDIT_WHO),
        &rows);
    if (result == 0) {
        bool held = pg_count(rows) == 1;
        if (held)
            fill_in(arena, pg_str(rows, 0, 0), pg_str(rows, 0, 1), tokens);
        pg_rows_free(rows);
        result = held ? 0 : end_reused(old);
    }
    if (result)
        crypto_wipe(tokens->refresh, sizeof tokens->refresh);
    return result;
}

int login_end(int64_t login_id)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_end, PG_VALUES(PG_INT(login_id), AUDIT_WHO), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int login_forget(void)
{
    return pg_remove(&sql_forget, PG_VALUES(PG_INT(FORGET_AT_ONCE)), FORGET_AT_ONCE);
}

/* ---- whose token is it? ---- */

/* Three parts, the first of them an object in base64url: no API key has a dot. */
bool login_has_form(struct str token)
{
    size_t dots = 0;
    if (token.size > JWT_MAX || !str_starts(token, STR("ey")))
        return false;
    for (size_t i = 0; i < token.size; i++)
        dots += token.at[i] == '.';
    return dots == 2;
}

struct sought {
    struct str ref;
    const char *surface;
};

/* Takes the row of FIND. */
static int found(struct pg_rows *rows, const char *surface, struct principal *principal)
{
    bool holds = pg_count(rows) == 1;
    if (holds) {
        struct str ref = pg_str(rows, 0, 2);
        *principal = (struct principal){
            .kind = PRINCIPAL_LOGIN,
            .login_id = pg_i64(rows, 0, 0),
            .account_id = pg_i64(rows, 0, 1),
            .scopes = scope_all(surface),
            .is_banned = pg_bool(rows, 0, 3),
        };
        snprintf(principal->account_ref, sizeof principal->account_ref, "%.*s", STR_ARG(ref));
        plan_read(&principal->plan, surface, pg_str(rows, 0, 4), pg_str(rows, 0, 5));
    }
    pg_rows_free(rows);
    return holds ? 0 : -EACCES;
}

static int look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *arg, struct principal *principal)
{
    (void)hash;
    const struct sought *sought = arg;
    struct pg_rows *rows;
    int result =
        pg_read(&sql_find, PG_VALUES(PG_TEXT(sought->ref), PG_TEXT(str_from(sought->surface))), &rows);
    return result ? result : found(rows, sought->surface, principal);
}

int login_look_up(int64_t id, const char *surface, struct principal *principal)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_find_id, PG_VALUES(PG_INT(id), PG_TEXT(str_from(surface))), &rows);
    return result ? result : found(rows, surface, principal);
}

int login_verify(struct arena *arena, struct str token, const char *surface, struct principal *principal)
{
    struct jwt_claims claims;
    const char *why;
    int result =
        jwt_read(arena, token, &jwt_key, 1, STR(ISSUER), STR(AUDIENCE), clock_wall_s(), &claims, &why);
    if (result)
        return result;
    const struct sought sought = {.ref = claims.session, .surface = surface};
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct str seen = str_from(arena_printf(arena, "%s %.*s", surface, STR_ARG(claims.session)));
    crypto_digest(hash, seen, NULL);
    return verdict_find(LOOP_LOGINS, hash, look_up, &sought, principal);
}

void login_close_loop(struct loop *loop)
{
    verdict_close_loop(loop, LOOP_LOGINS);
}
