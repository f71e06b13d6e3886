/* Whose access token is it? See oauth.h. */
#include "core/domain/identity/oauth_internal.h"

#include "core/domain/identity/account.h"
#include "core/domain/identity/verdict.h"

#include <errno.h>

/* A banned developer's client is as banned as a banned user. */
/* clang-format off */
static const struct pg_statement sql_verify = {
    "oauth_verify",
    "SELECT g.id, g.account_id, a.ref, g.client_id, c.is_test, array_to_string(t.scopes, ' '), "
    ACCOUNT_IS_BANNED("a") " OR " ACCOUNT_IS_BANNED("o") ", "
    PLAN_COLUMNS("g.account_id", "'" OAUTH_SURFACE "'") " "
    "FROM oauth_token t JOIN oauth_grant g ON g.id = t.grant_id "
    "JOIN oauth_client c ON c.id = g.client_id JOIN account a ON a.id = g.account_id "
    "JOIN account o ON o.id = c.account_id "
    "WHERE t.hash = $1::bytea AND t.kind = 'access' AND t.revoked_at IS NULL AND t.expires_at > now() "
    "AND g.revoked_at IS NULL AND c.revoked_at IS NULL"};
/* clang-format on */

static void copy_text(char out[PRINCIPAL_REF_MAX], struct str text)
{
    CHECK(text.size < PRINCIPAL_REF_MAX);
    memcpy(out, text.at, text.size);
    out[text.size] = '\0';
}

static void read_principal(const struct pg_rows *rows, struct principal *principal)
{
    principal->kind = PRINCIPAL_CLIENT;
    principal->grant_id = pg_i64(rows, 0, 0);
    principal->account_id = pg_i64(rows, 0, 1);
    copy_text(principal->account_ref, pg_str(rows, 0, 2));
    copy_text(principal->client_id, pg_str(rows, 0, 3));
    principal->is_test = pg_bool(rows, 0, 4);
    principal->scopes = scope_from_column(pg_str(rows, 0, 5), OAUTH_SURFACE);
    principal->is_banned = pg_bool(rows, 0, 6);
    plan_read(&principal->plan, OAUTH_SURFACE, pg_str(rows, 0, 7), pg_str(rows, 0, 8));
}

static int look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *unused,
                   struct principal *principal)
{
    struct pg_rows *rows;
    (void)unused;
    int result =
        pg_read(&sql_verify, PG_VALUES(PG_BYTES(str_of((const char *)hash, CRYPTO_DIGEST_SIZE))), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found)
        read_principal(rows, principal);
    pg_rows_free(rows);
    return found ? 0 : -EACCES;
}

bool oauth_has_form(struct str token)
{
    return secret_has_form(token, OAUTH_ACCESS_PREFIX);
}

bool oauth_is_known(struct str token)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    if (!oauth_has_form(token))
        return true;
    secret_hash(hash, token);
    return verdict_is_known(LOOP_TOKENS, hash);
}

int oauth_verify(struct str token, struct principal *principal)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    if (!oauth_has_form(token))
        return -EACCES;
    secret_hash(hash, token);
    return verdict_find(LOOP_TOKENS, hash, look_up, NULL, principal);
}

void oauth_close_loop(struct loop *loop)
{
    verdict_close_loop(loop, LOOP_TOKENS);
}
