/*
 * What OAuth clients are given: grants, codes and tokens. See oauth.h.
 *
 *     user says yes ──▶ grant + code ──▶ access + refresh ──▶ access + refresh ──▶ …
 *                                  │                    │
 *                                  └── comes again ─────┴──▶ the grant ends, and all that it gave
 *
 * What counts once (a code, a refresh token) is taken by one UPDATE that asks for its not being used, in the statement that
 * stores what is given for it: of any number that race, one changes the row. Whoever finds it changed then says so in a
 * second statement, which sees what the first one committed and ends the grant.
 */
#include "core/domain/identity/oauth_internal.h"

#include "core/base/base64.h"
#include "core/domain/audit.h"
#include "core/domain/identity/account.h"

#include <errno.h>

enum {
    VERIFIER_LEAST = 43,
    VERIFIER_MOST = 128,
    CHALLENGE_MAX = 44, /* of 32 bytes: 43 characters */
    FORGET_AT_ONCE = 5000
};

/* A grant `g` that holds. */
#define GRANT_HOLDS                                                                                          \
    "g.revoked_at IS NULL AND NOT EXISTS (SELECT FROM account a WHERE a.id = g.account_id "                  \
    "AND " ACCOUNT_IS_BANNED("a") ") "
#define IN_SECONDS(placeholder) "now() + " placeholder "::bigint * interval '1 second'"

/* clang-format off */

static const struct pg_statement sql_allow = {
    "oauth_allow",
    "WITH g AS (INSERT INTO oauth_grant (client_id, account_id, scopes) "
    "SELECT c.id, a.id, $3::text[] FROM oauth_client c, account a "
    "WHERE c.id = $1::text AND c.revoked_at IS NULL AND a.id = $2::bigint AND NOT " ACCOUNT_IS_BANNED("a") " "
    "RETURNING id, client_id, account_id), "
    "k AS (INSERT INTO oauth_code (hash, grant_id, redirect_uri, challenge, expires_at) "
    "SELECT $4::bytea, g.id, $5::text, $6::text, " IN_SECONDS("$7") " FROM g)"
    AUDIT("$8", "oauth.allow", "g", "g.account_id", "g.client_id")
    "SELECT 1 FROM g"};

/* The challenge of a code that was asked for without PKCE is NULL, and so must the verifier's be (RFC 9700 §4.8.2). */
static const struct pg_statement sql_exchange_code = {
    "oauth_exchange_code",
    "WITH k AS (UPDATE oauth_code k SET used_at = now() FROM oauth_grant g "
    "WHERE k.hash = $1::bytea AND k.used_at IS NULL AND k.expires_at > now() AND g.id = k.grant_id "
    "AND g.client_id = $2::text AND " GRANT_HOLDS
    "AND ($3::text IS NULL OR k.redirect_uri = $3::text) AND k.challenge IS NOT DISTINCT FROM $4::text "
    "RETURNING g.id, g.scopes, g.account_id, g.client_id), "
    "t AS (INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
    "SELECT $5::bytea, id, 'access', scopes, " IN_SECONDS("$6") " FROM k), "
    "r AS (INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
    "SELECT $7::bytea, id, 'refresh', scopes, " IN_SECONDS("$8") " FROM k WHERE $7::bytea IS NOT NULL)"
    AUDIT("$9", "oauth.exchange", "k", "k.account_id", "k.client_id")
    "SELECT array_to_string(scopes, ' ') FROM k"};
static const struct pg_statement sql_code_again = {
    "oauth_code_again",
    "WITH g AS (UPDATE oauth_grant g SET revoked_at = now() FROM oauth_code k WHERE k.hash = $1::bytea "
    "AND k.used_at IS NOT NULL AND g.id = k.grant_id AND g.client_id = $2::text AND g.revoked_at IS NULL "
    "RETURNING g.account_id, g.client_id)"
    AUDIT("$3", "oauth.code_again", "g", "g.account_id", "g.client_id")
    "SELECT 1 FROM g"};

/* The new refresh token has what the old one had, whatever the access token is to have (RFC 6749 §6). */
static const struct pg_statement sql_exchange_refresh = {
    "oauth_exchange_refresh",
    "WITH k AS (UPDATE oauth_token k SET used_at = now() FROM oauth_grant g "
    "WHERE k.hash = $1::bytea AND k.kind = 'refresh' AND k.used_at IS NULL AND k.revoked_at IS NULL "
    "AND k.expires_at > now() AND g.id = k.grant_id AND g.client_id = $2::text AND " GRANT_HOLDS
    "AND ($3::text[] IS NULL OR $3::text[] <@ k.scopes) "
    "RETURNING g.id, k.scopes, coalesce($3::text[], k.scopes) AS wanted, g.account_id, g.client_id), "
    "t AS (INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
    "SELECT $4::bytea, id, 'access', wanted, " IN_SECONDS("$5") " FROM k), "
    "r AS (INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
    "SELECT $6::bytea, id, 'refresh', scopes, " IN_SECONDS("$7") " FROM k)"
    AUDIT("$8", "oauth.refresh", "k", "k.account_id", "k.client_id")
    "SELECT array_to_string(wanted, ' ') FROM k"};
static const struct pg_statement sql_refresh_again = {
    "oauth_refresh_again",
    "WITH g AS (UPDATE oauth_grant g SET revoked_at = now() FROM oauth_token k WHERE k.hash = $1::bytea "
    "AND k.kind = 'refresh' AND k.used_at IS NOT NULL AND g.id = k.grant_id AND g.client_id = $2::text "
    "AND g.revoked_at IS NULL RETURNING g.account_id, g.client_id)"
    AUDIT("$3", "oauth.refresh_again", "g", "g.account_id", "g.client_id")
    "SELECT 1 FROM g"};
static const struct pg_statement sql_refresh_holds = {
    "oauth_refresh_holds",
    "SELECT 1 FROM oauth_token k JOIN oauth_grant g ON g.id = k.grant_id WHERE k.hash = $1::bytea "
    "AND k.kind = 'refresh' AND k.used_at IS NULL AND k.revoked_at IS NULL AND k.expires_at > now() "
    "AND g.client_id = $2::text AND " GRANT_HOLDS};

static const struct pg_statement sql_client_tokens = {
    "oauth_client_tokens",
    "WITH g AS (INSERT INTO oauth_grant (client_id, account_id, scopes) "
    "SELECT c.id, c.account_id, $2::text[] FROM oauth_client c "
    "WHERE c.id = $1::text AND c.revoked_at IS NULL RETURNING id, client_id, account_id, scopes), "
    "t AS (INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
    "SELECT $3::bytea, id, 'access', scopes, " IN_SECONDS("$4") " FROM g)"
    AUDIT("$5", "oauth.client_token", "g", "g.account_id", "g.client_id")
    "SELECT array_to_string(scopes, ' ') FROM g"};

static const struct pg_statement sql_revoke = {
    "oauth_revoke",
    "WITH t AS (UPDATE oauth_token t SET revoked_at = now() FROM oauth_grant g WHERE t.hash = $1::bytea "
    "AND t.revoked_at IS NULL AND g.id = t.grant_id AND g.client_id = $2::text "
    "RETURNING g.id, t.kind, g.account_id, g.client_id), "
    "e AS (UPDATE oauth_grant g SET revoked_at = now() FROM t WHERE g.id = t.id AND t.kind = 'refresh' "
    "AND g.revoked_at IS NULL)"
    AUDIT("$3", "oauth.revoke", "t", "t.account_id", "t.client_id")
    "SELECT 1 FROM t"};
static const struct pg_statement sql_introspect = {
    "oauth_introspect",
    "SELECT array_to_string(t.scopes, ' '), g.client_id, a.ref, t.kind = 'refresh', "
    "floor(extract(epoch FROM t.created_at))::bigint, floor(extract(epoch FROM t.expires_at))::bigint "
    "FROM oauth_token t JOIN oauth_grant g ON g.id = t.grant_id JOIN account a ON a.id = g.account_id "
    "WHERE t.hash = $1::bytea AND g.client_id = $2::text AND t.used_at IS NULL AND t.revoked_at IS NULL "
    "AND t.expires_at > now() AND g.revoked_at IS NULL AND NOT " ACCOUNT_IS_BANNED("a")};

/* Codes and tokens are kept a day longer than they hold, so that who comes late is told from who comes again; a grant goes
 * with the last of them. Says how many codes or tokens went. */
#define LONG_AGO "now() - interval '1 day'"
#define FORGET(name, table)                                                                                  \
    {                                                                                                        \
        name, "WITH gone AS (DELETE FROM " table " WHERE hash IN (SELECT hash FROM " table                   \
              " WHERE expires_at < " LONG_AGO " LIMIT $1::bigint) RETURNING grant_id), "                     \
              "ended AS (DELETE FROM oauth_grant g USING gone WHERE g.id = gone.grant_id AND NOT EXISTS "              \
              "(SELECT FROM oauth_token t WHERE t.grant_id = g.id AND t.expires_at >= " LONG_AGO ") "        \
              "AND NOT EXISTS "                                                                              \
              "(SELECT FROM oauth_code k WHERE k.grant_id = g.id AND k.expires_at >= " LONG_AGO ")) "        \
              "SELECT count(*) FROM gone"                                                                    \
    }
static const struct pg_statement sql_forget_codes = FORGET("oauth_forget_codes", "oauth_code");
static const struct pg_statement sql_forget_tokens = FORGET("oauth_forget_tokens", "oauth_token");

/* clang-format on */

/* ---- codes ---- */

int oauth_allow(const struct oauth_client *client, int64_t account_id, scope_set allowed,
                struct str redirect_uri, struct str challenge, char code[SECRET_TEXT_MAX])
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct str names[SCOPE_COUNT];
    size_t count = scope_names(allowed, names);
    struct pg_value hashed = oauth_new(code, hash, OAUTH_CODE_PREFIX);
    struct pg_rows *rows;
    int result =
        pg_write(&sql_allow,
                 PG_VALUES(PG_TEXT(client->id), PG_INT(account_id), PG_TEXTS(names, count), hashed,
                           PG_TEXT(redirect_uri), PG_TEXT(challenge), PG_INT(OAUTH_CODE_S), AUDIT_WHO),
                 &rows);
    if (result == 0) {
        result = pg_count(rows) ? 0 : -EACCES;
        pg_rows_free(rows);
    }
    if (result)
        crypto_wipe(code, SECRET_TEXT_MAX);
    return result;
}

/* RFC 7636 §4.1. */
static bool verifier_is_fit(struct str verifier)
{
    for (size_t i = 0; i < verifier.size; i++) {
        char c = verifier.at[i];
        char letter = (char)(c | 0x20);
        if (!((letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c))))
            return false;
    }
    return verifier.size >= VERIFIER_LEAST && verifier.size <= VERIFIER_MOST;
}

/* S256 (RFC 7636 §4.2). */
static struct str challenge_of(char out[CHALLENGE_MAX], struct str verifier)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    struct buf text = {0};
    crypto_sha256(digest, verifier);
    base64url_add(&text, str_of((const char *)digest, sizeof digest));
    CHECK(text.size < CHALLENGE_MAX);
    memcpy(out, text.at, text.size);
    struct str challenge = str_of(out, text.size);
    buf_clear(&text);
    return challenge;
}

/* Runs a statement that gives the scopes of new tokens, or no row. */
static int give(const struct pg_statement *statement, const struct pg_value *values, size_t count,
                struct oauth_tokens *tokens, bool *given)
{
    struct pg_rows *rows;
    int result = pg_write(statement, values, count, &rows);
    *given = false;
    if (result)
        return result;
    *given = pg_count(rows) == 1;
    if (*given)
        tokens->scopes = scope_from_column(pg_str(rows, 0, 0), OAUTH_SURFACE);
    pg_rows_free(rows);
    return 0;
}

/* What was not given is nobody's to see. */
static int keep_if(bool given, int result, int none, struct oauth_tokens *tokens)
{
    tokens->expires_in_s = OAUTH_ACCESS_S;
    if (given)
        return 0;
    crypto_wipe(tokens, sizeof *tokens);
    return result ? result : none;
}

int oauth_exchange_code(const struct oauth_client *client, struct str code, struct str redirect_uri,
                        struct str verifier, struct oauth_tokens *tokens)
{
    unsigned char code_hash[CRYPTO_DIGEST_SIZE];
    unsigned char access_hash[CRYPTO_DIGEST_SIZE];
    unsigned char refresh_hash[CRYPTO_DIGEST_SIZE];
    char challenge[CHALLENGE_MAX];
    *tokens = (struct oauth_tokens){.expires_in_s = 0};
    struct pg_value hashed = oauth_hash(code_hash, code, OAUTH_CODE_PREFIX);
    if (hashed.type == PG_VALUE_NULL)
        return -EACCES;
    bool given = false;
    int result = 0;
    if (!verifier.at || verifier_is_fit(verifier)) {
        struct pg_value access = oauth_new(tokens->access, access_hash, OAUTH_ACCESS_PREFIX);
        bool refreshes = oauth_client_has_grant(client, STR("refresh_token"));
        struct pg_value refresh =
            refreshes ? oauth_new(tokens->refresh, refresh_hash, OAUTH_REFRESH_PREFIX) : PG_NULL;
        struct pg_value fits = PG_TEXT(verifier.at ? challenge_of(challenge, verifier) : STR_NONE);
        result = give(&sql_exchange_code,
                      PG_VALUES(hashed, PG_TEXT(client->id), PG_TEXT(redirect_uri), fits, access,
                                PG_INT(OAUTH_ACCESS_S), refresh, PG_INT(OAUTH_REFRESH_S), AUDIT_WHO),
                      tokens, &given);
    }
    if (result == 0 && !given)
        result = pg_write(&sql_code_again, PG_VALUES(hashed, PG_TEXT(client->id), AUDIT_WHO), NULL);
    return keep_if(given, result, -EACCES, tokens);
}

/* ---- refresh tokens ---- */

/* Why nothing was given for it. Used: the grant ends. Fine but for the scopes: -EPERM. */
static int why_not_refreshed(struct pg_value hashed, const struct oauth_client *client, bool narrowed)
{
    int result = pg_write(&sql_refresh_again, PG_VALUES(hashed, PG_TEXT(client->id), AUDIT_WHO), NULL);
    if (result || !narrowed)
        return result ? result : -EACCES;
    struct pg_rows *rows;
    result = pg_read(&sql_refresh_holds, PG_VALUES(hashed, PG_TEXT(client->id)), &rows);
    if (result)
        return result;
    bool holds = pg_count(rows) == 1;
    pg_rows_free(rows);
    return holds ? -EPERM : -EACCES;
}

int oauth_exchange_refresh(const struct oauth_client *client, struct str refresh, scope_set wanted,
                           struct oauth_tokens *tokens)
{
    unsigned char old_hash[CRYPTO_DIGEST_SIZE];
    unsigned char access_hash[CRYPTO_DIGEST_SIZE];
    unsigned char refresh_hash[CRYPTO_DIGEST_SIZE];
    struct str names[SCOPE_COUNT];
    *tokens = (struct oauth_tokens){.expires_in_s = 0};
    struct pg_value hashed = oauth_hash(old_hash, refresh, OAUTH_REFRESH_PREFIX);
    if (hashed.type == PG_VALUE_NULL)
        return -EACCES;
    size_t count = scope_names(wanted, names);
    struct pg_value set = wanted ? PG_TEXTS(names, count) : PG_NULL;
    struct pg_value access = oauth_new(tokens->access, access_hash, OAUTH_ACCESS_PREFIX);
    struct pg_value next = oauth_new(tokens->refresh, refresh_hash, OAUTH_REFRESH_PREFIX);
    bool given;
    int result = give(&sql_exchange_refresh,
                      PG_VALUES(hashed, PG_TEXT(client->id), set, access, PG_INT(OAUTH_ACCESS_S), next,
                                PG_INT(OAUTH_REFRESH_S), AUDIT_WHO),
                      tokens, &given);
    if (result == 0 && !given)
        result = why_not_refreshed(hashed, client, wanted != 0);
    return keep_if(given, result, -EACCES, tokens);
}

/* ---- a client for itself ---- */

int oauth_client_tokens(const struct oauth_client *client, scope_set wanted, struct oauth_tokens *tokens)
{
    unsigned char access_hash[CRYPTO_DIGEST_SIZE];
    struct str names[SCOPE_COUNT];
    *tokens = (struct oauth_tokens){.expires_in_s = 0};
    if (wanted & ~client->scopes)
        return -EPERM;
    size_t count = scope_names(wanted ? wanted : client->scopes, names);
    struct pg_value access = oauth_new(tokens->access, access_hash, OAUTH_ACCESS_PREFIX);
    bool given;
    int result = give(
        &sql_client_tokens,
        PG_VALUES(PG_TEXT(client->id), PG_TEXTS(names, count), access, PG_INT(OAUTH_ACCESS_S), AUDIT_WHO),
        tokens, &given);
    return keep_if(given, result, -EACCES, tokens);
}

/* ---- ending and asking ---- */

static struct pg_value hash_of_token(unsigned char hash[CRYPTO_DIGEST_SIZE], struct str token)
{
    struct pg_value hashed = oauth_hash(hash, token, OAUTH_ACCESS_PREFIX);
    return hashed.type == PG_VALUE_NULL ? oauth_hash(hash, token, OAUTH_REFRESH_PREFIX) : hashed;
}

int oauth_revoke(const struct oauth_client *client, struct str token)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct pg_value hashed = hash_of_token(hash, token);
    if (hashed.type == PG_VALUE_NULL)
        return 0;
    return pg_write(&sql_revoke, PG_VALUES(hashed, PG_TEXT(client->id), AUDIT_WHO), NULL);
}

int oauth_introspect(struct arena *arena, const struct oauth_client *client, struct str token,
                     struct oauth_token_info *info)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    *info = (struct oauth_token_info){.active = false};
    struct pg_value hashed = hash_of_token(hash, token);
    if (hashed.type == PG_VALUE_NULL)
        return 0;
    struct pg_rows *rows;
    int result = pg_read(&sql_introspect, PG_VALUES(hashed, PG_TEXT(client->id)), &rows);
    if (result)
        return result;
    if (pg_count(rows) == 1)
        *info = (struct oauth_token_info){
            .active = true,
            .scopes = scope_from_column(pg_str(rows, 0, 0), OAUTH_SURFACE),
            .client_id = arena_str(arena, pg_str(rows, 0, 1)),
            .account_ref = arena_str(arena, pg_str(rows, 0, 2)),
            .is_refresh = pg_bool(rows, 0, 3),
            .issued_s = pg_i64(rows, 0, 4),
            .expires_s = pg_i64(rows, 0, 5),
        };
    pg_rows_free(rows);
    return 0;
}

static int forget(const struct pg_statement *statement)
{
    int64_t gone;
    do {
        struct pg_rows *rows;
        int result = pg_write(statement, PG_VALUES(PG_INT(FORGET_AT_ONCE)), &rows);
        if (result)
            return result;
        gone = pg_i64(rows, 0, 0);
        pg_rows_free(rows);
    } while (gone == FORGET_AT_ONCE);
    return 0;
}

int oauth_forget(void)
{
    int result = forget(&sql_forget_codes);
    return result ? result : forget(&sql_forget_tokens);
}
