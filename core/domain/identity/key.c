/* API keys: see key.h. */
#include "core/domain/identity/key.h"

#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/identity/account.h"
#include "core/domain/vault.h"
#include "core/store/pg.h"

#include <errno.h>
#include <stdio.h>

#define SIGNING_PREFIX "wgss_"
#define SIGNING_PLACE "api_key.signing_secret"

static const struct {
    const char *surface;
    const char *prefix;
} kinds[] = {
#define KEY_KIND(surface_, prefix_) {.surface = (surface_), .prefix = (prefix_)},
    KEY_KINDS(KEY_KIND)
#undef KEY_KIND
};

#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define HOLDS(k) k ".revoked_at IS NULL AND (" k ".expires_at IS NULL OR " k ".expires_at > now())"
#define KEY_COLUMNS                                                                                               \
    "k.id, k.ref, k.account_id, a.name, k.surface, k.name, k.shown, array_to_string(k.scopes, ' '), "             \
    "array_to_string(k.allow_from, ' '), k.signing_secret IS NOT NULL, k.must_sign, " MS("k.created_at") ", " MS( \
        "k.expires_at") ", " MS("k.revoked_at") ", "                                                              \
                                                "(SELECT n.ref FROM api_key n WHERE n.id = k.rotated_to)"

#define FIND                                                                                                                    \
    "SELECT k.id, k.account_id, a.ref, k.surface, array_to_string(k.scopes, ' '), "                                             \
    "array_to_string(k.allow_from, ' '), k.must_sign, k.signing_secret IS NOT NULL, " ACCOUNT_IS_BANNED("a") ", " PLAN_COLUMNS( \
        "k.account_id",                                                                                                         \
        "k.surface") ", CASE WHEN NOT k.by_login THEN " MS("k.expires_at") " END FROM api_key k JOIN account a ON a.id = k.account_id WHERE " HOLDS("k")
static const struct pg_statement sql_find = {"key_find", FIND " AND k.hash = $1::bytea"};
static const struct pg_statement sql_find_id = {"key_find_id", FIND " AND k.id = $1::bigint"};
static const struct pg_statement sql_create = {
    "key_create",
    "WITH k AS (INSERT INTO api_key (account_id, ref, surface, name, shown, hash, scopes, allow_from, "
    "expires_at, signing_secret, must_sign, by_login) "
    "SELECT id, $2::text, $3::text, $4::text, $5::text, $6::bytea, $7::text[], $8::text[], "
    "to_timestamp($9::bigint / 1000.0), $10::bytea, $11::boolean, $12::boolean FROM account "
    "WHERE id = $1::bigint RETURNING *)" AUDIT("$13", "key.create", "k", "k.account_id",
                                               "k.ref") "SELECT " KEY_COLUMNS
                                                        " FROM k JOIN account a ON a.id = k.account_id"};
static const struct pg_statement sql_lock_account = {
    "key_lock_account", "SELECT 1 FROM account WHERE id = $1::bigint FOR NO KEY UPDATE"};
static const struct pg_statement sql_trim = {
    "key_trim",
    "WITH k AS (UPDATE api_key SET revoked_at = now() WHERE id IN (SELECT o.id FROM api_key o "
    "WHERE o.account_id = $1::bigint AND o.by_login AND " HOLDS(
        "o") " ORDER BY o.id DESC OFFSET $2::bigint) "
             "RETURNING *)" AUDIT("$3", "key.revoke", "k", "k.account_id", "k.ref") "SELECT count(*) FROM k"};
static const struct pg_statement sql_rotate = {
    "key_rotate",
    "WITH o AS (SELECT * FROM api_key WHERE id = $1::bigint AND rotated_to IS NULL AND " HOLDS(
        "api_key") " FOR NO KEY UPDATE), "
                   "k AS (INSERT INTO api_key (account_id, ref, surface, name, shown, hash, scopes, allow_from, expires_at, "
                   "signing_secret, must_sign, by_login) SELECT account_id, $2::text, surface, name, $3::text, $4::bytea, "
                   "scopes, allow_from, expires_at, CASE WHEN signing_secret IS NOT NULL THEN $5::bytea END, must_sign, "
                   "by_login FROM o RETURNING *), "
                   "u AS (UPDATE api_key SET rotated_to = k.id, expires_at = least(api_key.expires_at, "
                   "now() + $6::bigint * interval '1 second') FROM k WHERE api_key.id = $1::bigint)" AUDIT(
                       "$7", "key.rotate", "o", "o.account_id",
                       "o.ref") "SELECT " KEY_COLUMNS " FROM k JOIN account a ON a.id = k.account_id"};
static const struct pg_statement sql_revoke = {
    "key_revoke",
    "WITH k AS (UPDATE api_key SET revoked_at = now() WHERE (ref = $1::text OR id = $2::bigint) "
    "AND ($3::bigint = 0 OR account_id = $3::bigint) AND revoked_at IS NULL RETURNING *)" AUDIT(
        "$4", "key.revoke", "k", "k.account_id", "k.ref") "SELECT 1 FROM k"};
static const struct pg_statement sql_get = {
    "key_get",
    "SELECT " KEY_COLUMNS " FROM api_key k JOIN account a ON a.id = k.account_id "
    "WHERE (k.ref = $1::text OR k.id = $2::bigint) AND ($3::bigint = 0 OR k.account_id = $3::bigint)"};
static const struct pg_statement sql_list = {
    "key_list",
    "SELECT " KEY_COLUMNS " FROM api_key k JOIN account a ON a.id = k.account_id "
    "WHERE ($1::bigint = 0 OR k.account_id = $1::bigint) AND ($2::bigint = 0 OR k.id < $2::bigint) "
    "ORDER BY k.id DESC LIMIT $3::bigint"};
static const struct pg_statement sql_signing = {
    "key_signing",
    "SELECT ref, signing_secret FROM api_key WHERE id = $1::bigint AND signing_secret IS NOT NULL"};

static struct str bytes_of(const unsigned char *digest)
{
    return str_of((const char *)digest, CRYPTO_DIGEST_SIZE);
}

/* The kind's own pointers; NULL: no such surface. */
static const char *surface_of(struct str name)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_equal(name, str_from(kinds[i].surface)))
            return kinds[i].surface;
    return NULL;
}

const char *key_prefix(const char *surface)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strcmp(kinds[i].surface, surface) == 0)
            return kinds[i].prefix;
    return NULL;
}

/* ---- whose key is it? ---- */

/* False: the list is not one of ours, and who can't be told from where a key may come must not come at all. */
static bool read_networks(struct principal *principal, struct str list)
{
    struct str text;
    while (list.at && str_split(&list, ' ', &text)) {
        if (principal->network_count == PRINCIPAL_NETWORKS_MAX ||
            !network_parse(text, &principal->networks[principal->network_count]))
            return false;
        principal->network_count++;
    }
    return true;
}

static bool read_principal(const struct pg_rows *rows, const char *surface, struct principal *principal)
{
    struct str ref = pg_str(rows, 0, 2);
    *principal = (struct principal){
        .kind = PRINCIPAL_KEY,
        .key_id = pg_i64(rows, 0, 0),
        .account_id = pg_i64(rows, 0, 1),
        .scopes = scope_from_column(pg_str(rows, 0, 4), surface),
        .must_sign = pg_bool(rows, 0, 6),
        .can_sign = pg_bool(rows, 0, 7),
        .is_banned = pg_bool(rows, 0, 8),
        .lends_until_ms = pg_i64(rows, 0, 11), /* who logs in may make what lasts */
    };
    snprintf(principal->account_ref, sizeof principal->account_ref, "%.*s", STR_ARG(ref));
    plan_read(&principal->plan, surface, pg_str(rows, 0, 9), pg_str(rows, 0, 10));
    return read_networks(principal, pg_str(rows, 0, 5));
}

/* Takes the row of FIND. */
static int found(struct pg_rows *rows, const char *surface, struct principal *principal)
{
    bool holds = pg_count(rows) == 1 && str_equal(pg_str(rows, 0, 3), str_from(surface)) &&
                 read_principal(rows, surface, principal);
    pg_rows_free(rows);
    return holds ? 0 : -EACCES;
}

static int look_up(const unsigned char hash[CRYPTO_DIGEST_SIZE], const void *surface,
                   struct principal *principal)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_find, PG_VALUES(PG_BYTES(bytes_of(hash))), &rows);
    return result ? result : found(rows, surface, principal);
}

int key_look_up(int64_t id, const char *surface, struct principal *principal)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_find_id, PG_VALUES(PG_INT(id)), &rows);
    return result ? result : found(rows, surface, principal);
}

/* The hash of what may be a key: what it looks like is seen before anything is computed. */
static bool hash_key(unsigned char hash[CRYPTO_DIGEST_SIZE], struct str text, const char *surface)
{
    const char *prefix = key_prefix(surface);
    if (!prefix || !str_starts(text, str_from(prefix)) ||
        text.size != strlen(prefix) + SECRET_RANDOM_SIZE + SECRET_CHECKSUM_SIZE)
        return false;
    secret_hash(hash, text);
    return true;
}

bool key_is_known(struct str text, const char *surface)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    return hash_key(hash, text, surface) && verdict_is_known(LOOP_KEYS, hash);
}

int key_verify(struct str text, const char *surface, struct principal *principal)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    if (!hash_key(hash, text, surface))
        return -EACCES;
    /* A typing error, which PostgreSQL need not hear of. */
    if (!verdict_is_known(LOOP_KEYS, hash) && !secret_has_form(text, key_prefix(surface)))
        return -EACCES;
    return verdict_find(LOOP_KEYS, hash, look_up, surface, principal);
}

void key_close_loop(struct loop *loop)
{
    verdict_close_loop(loop, LOOP_KEYS);
}

/* ---- rows ---- */

static void from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct key_row *key)
{
    *key = (struct key_row){
        .id = pg_i64(rows, row, 0),
        .ref = pg_text(arena, rows, row, 1),
        .account_id = pg_i64(rows, row, 2),
        .account = pg_text(arena, rows, row, 3),
        .surface = pg_text(arena, rows, row, 4),
        .name = pg_text(arena, rows, row, 5),
        .shown = pg_text(arena, rows, row, 6),
        .scopes = pg_text(arena, rows, row, 7),
        .allow_from = pg_text(arena, rows, row, 8),
        .signs = pg_bool(rows, row, 9),
        .must_sign = pg_bool(rows, row, 10),
        .created_ms = pg_i64(rows, row, 11),
        .expires_ms = pg_i64(rows, row, 12),
        .revoked_ms = pg_i64(rows, row, 13),
        .rotated_to = pg_text(arena, rows, row, 14),
    };
}

/* The one row; frees the rows. -ENOENT: there is none. */
static int take_one(struct arena *arena, struct pg_rows *rows, struct key_row *key)
{
    bool found = pg_count(rows) == 1;
    if (found)
        from_row(arena, rows, 0, key);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

/* Only operators, who say so by no account, name a key by its number. */
static int64_t number_of(int64_t account_id, struct str ref)
{
    int64_t number;
    return account_id == 0 && str_to_i64(ref, &number) ? number : 0;
}

int key_get(struct arena *arena, int64_t account_id, struct str ref, struct key_row *row)
{
    struct pg_rows *rows;
    int result = pg_read(
        &sql_get, PG_VALUES(PG_TEXT(ref), PG_INT(number_of(account_id, ref)), PG_INT(account_id)), &rows);
    return result ? result : take_one(arena, rows, row);
}

int key_list(struct arena *arena, int64_t account_id, int64_t cursor, int64_t limit, struct key_row **out,
             size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_VALUES(PG_INT(account_id), PG_INT(cursor), PG_INT(limit)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        from_row(arena, rows, i, &(*out)[i]);
    pg_rows_free(rows);
    return 0;
}

/* ---- changes ---- */

/* All of a new key that is made here. */
struct made {
    char ref[KEY_REF_SIZE];
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct str shown;  /* in the secrets */
    struct str sealed; /* the signing secret; absent without */
};

static void make(struct arena *arena, const char *prefix, bool signs, struct key_secrets *secrets,
                 struct made *made)
{
    *made = (struct made){.sealed = STR_NONE};
    memcpy(made->ref, "key_", 4);
    id_random_base62(made->ref + 4, KEY_REF_SIZE - 5);
    size_t size = secret_make(secrets->text, prefix);
    secret_hash(made->hash, str_of(secrets->text, size));
    made->shown = str_of(secrets->text, strlen(prefix) + SECRET_SHOWN_SIZE);
    secrets->signing[0] = '\0';
    if (!signs)
        return;
    size = secret_make(secrets->signing, SIGNING_PREFIX);
    made->sealed = vault_seal(arena, str_of(secrets->signing, size), SIGNING_PLACE, str_from(made->ref));
}

static int insert(struct arena *arena, int64_t account_id, const struct key_options *options,
                  const struct made *made, struct key_row *row)
{
    struct str names[SCOPE_COUNT];
    size_t count = scope_names(options->scopes, names);
    struct pg_rows *rows;
    int result = pg_write(
        &sql_create,
        PG_VALUES(PG_INT(account_id), PG_TEXT(str_from(made->ref)), PG_TEXT(str_from(options->surface)),
                  PG_TEXT(options->name.at ? options->name : STR("")), PG_TEXT(made->shown),
                  PG_BYTES(bytes_of(made->hash)), options->scopes ? PG_TEXTS(names, count) : PG_NULL,
                  options->allow_count ? PG_TEXTS(options->allow_from, options->allow_count) : PG_NULL,
                  options->expires_ms ? PG_INT(options->expires_ms) : PG_NULL,
                  made->sealed.at ? PG_BYTES(made->sealed) : PG_NULL, PG_BOOL(options->must_sign),
                  PG_BOOL(options->by_login), AUDIT_WHO),
        &rows);
    return result ? result : take_one(arena, rows, row);
}

/* The account's row is locked meanwhile, so that of log-ins at the same time each sees the others' keys. */
static int insert_by_login(struct arena *arena, int64_t account_id, const struct key_options *options,
                           const struct made *made, struct key_row *row)
{
    bool in_scope = pg_in_scope();
    int result = in_scope ? 0 : pg_scope_open();
    if (result)
        return result;
    result = pg_write(&sql_lock_account, PG_VALUES(PG_INT(account_id)), NULL);
    if (result == 0)
        result = insert(arena, account_id, options, made, row);
    if (result == 0)
        result =
            pg_write(&sql_trim, PG_VALUES(PG_INT(account_id), PG_INT(KEYS_BY_LOGIN_MAX), AUDIT_WHO), NULL);
    return in_scope ? result : pg_scope_close(result);
}

int key_create(struct arena *arena, int64_t account_id, const struct key_options *options,
               struct key_secrets *secrets, struct key_row *row)
{
    const char *prefix = key_prefix(options->surface);
    if (!prefix || options->allow_count > PRINCIPAL_NETWORKS_MAX)
        return -EINVAL;
    struct made made;
    make(arena, prefix, options->signs || options->must_sign, secrets, &made);
    int result = options->by_login ? insert_by_login(arena, account_id, options, &made, row)
                                   : insert(arena, account_id, options, &made, row);
    if (result)
        crypto_wipe(secrets, sizeof *secrets);
    return result;
}

int key_rotate(struct arena *arena, int64_t account_id, struct str ref, int64_t overlap_s,
               struct key_secrets *secrets, struct key_row *row)
{
    struct key_row old;
    int result = key_get(arena, account_id, ref, &old);
    if (result)
        return result;
    if (old.rotated_to.at)
        return -EEXIST;
    struct made made;
    make(arena, key_prefix(surface_of(old.surface)), old.signs, secrets, &made);
    struct pg_rows *rows;
    result =
        pg_write(&sql_rotate,
                 PG_VALUES(PG_INT(old.id), PG_TEXT(str_from(made.ref)), PG_TEXT(made.shown),
                           PG_BYTES(bytes_of(made.hash)), made.sealed.at ? PG_BYTES(made.sealed) : PG_NULL,
                           PG_INT(overlap_s), AUDIT_WHO),
                 &rows);
    if (result == 0)
        result = take_one(arena, rows, row);
    if (result)
        crypto_wipe(secrets, sizeof *secrets);
    return result;
}

int key_revoke(int64_t account_id, struct str ref)
{
    struct pg_rows *rows;
    int result = pg_write(
        &sql_revoke,
        PG_VALUES(PG_TEXT(ref), PG_INT(number_of(account_id, ref)), PG_INT(account_id), AUDIT_WHO), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int key_signing_secret(struct arena *arena, int64_t key_id, struct str *secret)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_signing, PG_VALUES(PG_INT(key_id)), &rows);
    if (result)
        return result;
    bool signs = pg_count(rows) == 1;
    struct str ref = signs ? arena_str(arena, pg_str(rows, 0, 0)) : STR_NONE;
    struct str sealed = signs ? pg_bytes(arena, rows, 0, 1) : STR_NONE;
    pg_rows_free(rows);
    return signs ? vault_unseal(arena, sealed, SIGNING_PLACE, ref, secret) : -ENOENT;
}
