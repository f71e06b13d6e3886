/* What pods show: see token.h. */
#include "core/domain/instance/token.h"

#include "core/base/escape.h"
#include "core/domain/identity/account.h"
#include "core/domain/identity/verdict.h"
#include "core/domain/secret.h"
#include "core/domain/vault.h"
#include "core/store/pg.h"

#include <errno.h>
#include <stdio.h>

#define PREFIX "wgi_"

enum { ID_MAX = 63, DIGITS = 2 * CRYPTO_DIGEST_SIZE };

static const struct pg_statement sql_find = {
    "instance_token_find",
    "SELECT i.account_id, a.ref, " ACCOUNT_IS_BANNED("a") ", " PLAN_COLUMNS(
        "i.account_id", "'inference'") " FROM instance i JOIN account a ON a.id = i.account_id "
                                       "WHERE i.id = $1::text AND i.deleted_at IS NULL"};

void instance_token_make(char out[INSTANCE_TOKEN_SIZE], struct str instance_id)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char digits[DIGITS + 1];
    struct buf text = {0};
    CHECK(instance_id.size > 0 && instance_id.size <= ID_MAX);
    buf_add_literal(&text, "instance token:");
    buf_add_str(&text, instance_id);
    crypto_digest(digest, buf_str(&text), vault_hash_key());
    escape_hex(digits, digest, sizeof digest);
    snprintf(out, INSTANCE_TOKEN_SIZE, PREFIX "%.*s_%s", STR_ARG(instance_id), digits);
    crypto_wipe(digest, sizeof digest);
    crypto_wipe(digits, sizeof digits);
    buf_clear(&text);
}

/* The instance's id in it; absent when it can't be one. */
static struct str id_of(struct str text)
{
    struct str rest = str_starts(text, STR(PREFIX)) ? str_of(text.at + 4, text.size - 4) : STR_NONE;
    if (rest.size < DIGITS + 2 || rest.size > ID_MAX + 1 + DIGITS || rest.at[rest.size - DIGITS - 1] != '_')
        return STR_NONE;
    struct str id = str_of(rest.at, rest.size - DIGITS - 1);
    for (size_t i = 0; i < id.size; i++)
        if (!((id.at[i] >= 'a' && id.at[i] <= 'z') || (id.at[i] >= '0' && id.at[i] <= '9')))
            return STR_NONE;
    return id;
}

bool instance_token_has_prefix(struct str text)
{
    return str_starts(text, STR(PREFIX));
}

bool instance_token_is_bearer(struct str authorization)
{
    static const struct str scheme = {"Bearer ", 7};
    if (authorization.size <= scheme.size || !str_equal_nocase(str_of(authorization.at, scheme.size), scheme))
        return false;
    return instance_token_has_prefix(
        str_trim(str_of(authorization.at + scheme.size, authorization.size - scheme.size)));
}

bool instance_token_is_ours(struct str text)
{
    char right[INSTANCE_TOKEN_SIZE];
    struct str id = id_of(text);
    if (!id.at)
        return false;
    instance_token_make(right, id);
    bool ours = crypto_equal(text, str_from(right));
    crypto_wipe(right, sizeof right);
    return ours;
}

static int look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *arg, struct principal *principal)
{
    const struct str *id = arg;
    struct pg_rows *rows;
    (void)hash;
    int result = pg_read(&sql_find, PG_VALUES(PG_TEXT(*id)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found) {
        struct str ref = pg_str(rows, 0, 1);
        *principal = (struct principal){
            .kind = PRINCIPAL_POD,
            .account_id = pg_i64(rows, 0, 0),
            .scopes = SCOPE_BIT(SCOPE_AI_CALL),
            .is_banned = pg_bool(rows, 0, 2),
        };
        snprintf(principal->account_ref, sizeof principal->account_ref, "%.*s", STR_ARG(ref));
        snprintf(principal->instance_id, sizeof principal->instance_id, "%.*s", STR_ARG(*id));
        plan_read(&principal->plan, "inference", pg_str(rows, 0, 3), pg_str(rows, 0, 4));
    }
    pg_rows_free(rows);
    return found ? 0 : -EACCES;
}

int instance_token_verify(struct str text, struct principal *principal)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    if (!instance_token_is_ours(text))
        return -EACCES;
    struct str id = id_of(text);
    secret_hash(hash, text);
    return verdict_find(LOOP_KEYS, hash, look_up, &id, principal);
}
