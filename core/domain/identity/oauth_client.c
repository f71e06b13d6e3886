/* OAuth clients: the programs that users let act for them, and who they are. See oauth.h. */
#include "core/domain/identity/oauth_internal.h"

#include "core/base/id.h"
#include "core/domain/audit.h"
#include "core/domain/identity/account.h"
#include "proto/url.h"

#include <arpa/inet.h>
#include <errno.h>

enum { ID_RANDOM_SIZE = 22, ID_MAX = 5 + ID_RANDOM_SIZE, GRANTS_MAX = 3 };

#define CLIENT_COLUMNS                                                                                       \
    "c.id, c.account_id, a.name, c.name, array_to_string(c.redirect_uris, ' '), "                            \
    "array_to_string(c.grants, ' '), array_to_string(c.scopes, ' '), c.secret_hash IS NULL, c.is_test, "     \
    "(extract(epoch FROM c.created_at) * 1000)::bigint, (extract(epoch FROM c.revoked_at) * 1000)::bigint "

/* clang-format off */

static const struct pg_statement sql_create = {
    "oauth_client_create",
    "WITH i AS (INSERT INTO oauth_client (id, account_id, name, secret_hash, redirect_uris, scopes, grants, "
    "is_test) VALUES ($1::text, $2::bigint, $3::text, $4::bytea, $5::text[], $6::text[], $7::text[], "
    "$8::boolean) RETURNING *)"
    AUDIT("$9", "client.create", "i", "i.account_id", "i.id")
    "SELECT " CLIENT_COLUMNS "FROM i c JOIN account a ON a.id = c.account_id"};
static const struct pg_statement sql_get = {
    "oauth_client_get",
    "SELECT " CLIENT_COLUMNS "FROM oauth_client c JOIN account a ON a.id = c.account_id "
    "WHERE c.id = $1::text AND c.revoked_at IS NULL AND NOT " ACCOUNT_IS_BANNED("a")};
/* A public client's secret is NULL, and so is one that did not come. */
static const struct pg_statement sql_check = {
    "oauth_client_check",
    "SELECT " CLIENT_COLUMNS "FROM oauth_client c JOIN account a ON a.id = c.account_id "
    "WHERE c.id = $1::text AND c.secret_hash IS NOT DISTINCT FROM $2::bytea AND c.revoked_at IS NULL "
    "AND NOT " ACCOUNT_IS_BANNED("a")};
static const struct pg_statement sql_list = {
    "oauth_client_list",
    "SELECT " CLIENT_COLUMNS "FROM oauth_client c JOIN account a ON a.id = c.account_id "
    "ORDER BY c.created_at DESC, c.id LIMIT 10000"};
static const struct pg_statement sql_revoke = {
    "oauth_client_revoke",
    "WITH i AS (UPDATE oauth_client SET revoked_at = now() WHERE id = $1::text AND revoked_at IS NULL "
    "RETURNING id, account_id), "
    "g AS (UPDATE oauth_grant SET revoked_at = now() FROM i WHERE client_id = i.id AND revoked_at IS NULL)"
    AUDIT("$2", "client.revoke", "i", "i.account_id", "i.id")
    "SELECT 1 FROM i"};
static const struct pg_statement sql_rotate = {
    "oauth_client_rotate",
    "WITH i AS (UPDATE oauth_client SET secret_hash = $2::bytea WHERE id = $1::text AND revoked_at IS NULL "
    "AND secret_hash IS NOT NULL RETURNING id, account_id)"
    AUDIT("$3", "client.rotate", "i", "i.account_id", "i.id")
    "SELECT 1 FROM i"};

/* clang-format on */

struct pg_value oauth_hash(unsigned char hash[CRYPTO_DIGEST_SIZE], struct str text, const char *prefix)
{
    if (!text.at || !secret_has_form(text, prefix))
        return PG_NULL;
    secret_hash(hash, text);
    return PG_BYTES(str_of((const char *)hash, CRYPTO_DIGEST_SIZE));
}

struct pg_value oauth_new(char text[SECRET_TEXT_MAX], unsigned char hash[CRYPTO_DIGEST_SIZE],
                          const char *prefix)
{
    secret_hash(hash, str_of(text, secret_make(text, prefix)));
    return PG_BYTES(str_of((const char *)hash, CRYPTO_DIGEST_SIZE));
}

/* ---- redirect URIs ---- */

/* Letters, digits and what RFC 3986 §2.2 and §2.3 name, and '%'; nothing that would have to be escaped in a header field. No
 * '#': a fragment is what RFC 6749 §3.1.2 forbids. */
static bool is_uri_text(struct str uri)
{
    static const char others[] = "-._~:/?[]@!$&'()*+,;=%";
    for (size_t i = 0; i < uri.size; i++) {
        char c = uri.at[i];
        char letter = (char)(c | 0x20);
        if (!((letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || (c && strchr(others, c))))
            return false;
    }
    return uri.size > 0 && uri.size <= OAUTH_URI_MAX;
}

/* RFC 8252 §7.3, and the name that developers type. */
static bool is_loopback(struct str host)
{
    char text[INET6_ADDRSTRLEN];
    struct in_addr v4;
    struct in6_addr v6;
    if (str_equal_nocase(host, STR("localhost")))
        return true;
    if (host.size >= sizeof text)
        return false;
    memcpy(text, host.at, host.size);
    text[host.size] = '\0';
    if (inet_pton(AF_INET, text, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* `rest` is what stands behind "https:". */
static bool is_web(struct str rest, bool secure)
{
    if (!str_starts(rest, STR("//")))
        return false;
    size_t end = 2;
    while (end < rest.size && rest.at[end] != '/' && rest.at[end] != '?')
        end++;
    struct str name;
    int port;
    return url_parse_host(str_of(rest.at + 2, end - 2), &name, &port) && (secure || is_loopback(name));
}

/* A private-use scheme (RFC 8252 §7.1): a domain name turned around. Its dot also keeps "javascript:" and its like out. */
static bool is_private_scheme(struct str scheme)
{
    for (size_t i = 0; i < scheme.size; i++) {
        char letter = (char)(scheme.at[i] | 0x20);
        bool fine = (letter >= 'a' && letter <= 'z') ||
                    (i > 0 && ((scheme.at[i] >= '0' && scheme.at[i] <= '9') || strchr("+-.", scheme.at[i])));
        if (!fine)
            return false;
    }
    return scheme.size > 0 && memchr(scheme.at, '.', scheme.size);
}

static bool uri_is_fit(struct str uri)
{
    if (!is_uri_text(uri))
        return false;
    const char *colon = memchr(uri.at, ':', uri.size);
    if (!colon)
        return false;
    struct str scheme = str_of(uri.at, (size_t)(colon - uri.at));
    struct str rest = str_of(colon + 1, uri.size - scheme.size - 1);
    bool secure = str_equal_nocase(scheme, STR("https"));
    if (secure || str_equal_nocase(scheme, STR("http")))
        return is_web(rest, secure);
    return is_private_scheme(scheme) && rest.size > 0;
}

/* ---- rows ---- */

static void read_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct oauth_client *client)
{
    *client = (struct oauth_client){
        .id = arena_str(arena, pg_str(rows, row, 0)),
        .account_id = pg_i64(rows, row, 1),
        .account = arena_str(arena, pg_str(rows, row, 2)),
        .name = arena_str(arena, pg_str(rows, row, 3)),
        .redirect_uris = arena_str(arena, pg_str(rows, row, 4)),
        .grants = arena_str(arena, pg_str(rows, row, 5)),
        .scopes = scope_from_column(pg_str(rows, row, 6), OAUTH_SURFACE),
        .is_public = pg_bool(rows, row, 7),
        .is_test = pg_bool(rows, row, 8),
        .created_ms = pg_i64(rows, row, 9),
        .revoked_ms = pg_i64(rows, row, 10),
    };
}

/* Takes the result of a statement for one client: `none` when it found nothing. */
static int take_one(struct arena *arena, int result, struct pg_rows *rows, int none,
                    struct oauth_client *client)
{
    if (result)
        return result;
    size_t count = pg_count(rows);
    if (count)
        read_row(arena, rows, 0, client);
    pg_rows_free(rows);
    return count ? 0 : none;
}

/* An id of ours; anything else need not be looked up. */
static bool id_is_fit(struct str id)
{
    for (size_t i = 0; i < id.size; i++) {
        char letter = (char)(id.at[i] | 0x20);
        if (!((letter >= 'a' && letter <= 'z') || (id.at[i] >= '0' && id.at[i] <= '9') || id.at[i] == '_'))
            return false;
    }
    return id.size > 0 && id.size <= ID_MAX;
}

static size_t grants_of(const struct oauth_client_options *options, struct str grants[GRANTS_MAX])
{
    size_t count = 0;
    if (options->uri_count) {
        grants[count++] = STR("authorization_code");
        grants[count++] = STR("refresh_token");
    }
    if (!options->is_public)
        grants[count++] = STR("client_credentials");
    return count;
}

static bool options_are_fit(const struct oauth_client_options *options)
{
    if (options->uri_count > OAUTH_URIS_MAX || (options->is_public && options->uri_count == 0) ||
        (options->scopes & ~scope_all(OAUTH_SURFACE)))
        return false;
    for (size_t i = 0; i < options->uri_count; i++)
        if (!uri_is_fit(options->redirect_uris[i]))
            return false;
    return true;
}

int oauth_client_create(struct arena *arena, int64_t account_id, const struct oauth_client_options *options,
                        char secret[SECRET_TEXT_MAX], struct oauth_client *client)
{
    secret[0] = '\0';
    if (!options_are_fit(options))
        return -EINVAL;
    char random[ID_RANDOM_SIZE + 1];
    id_random_base62(random, ID_RANDOM_SIZE);
    const char *id = arena_printf(arena, "%s%s", options->is_test ? "test_" : "cli_", random);
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct pg_value hashed = options->is_public ? PG_NULL : oauth_new(secret, hash, OAUTH_SECRET_PREFIX);
    struct str names[SCOPE_COUNT];
    size_t name_count = scope_names(options->scopes ? options->scopes : scope_all(OAUTH_SURFACE), names);
    struct str grants[GRANTS_MAX];
    size_t grant_count = grants_of(options, grants);
    struct pg_rows *rows = NULL;
    int result =
        pg_write(&sql_create,
                 PG_VALUES(PG_TEXT(str_from(id)), PG_INT(account_id), PG_TEXT(options->name), hashed,
                           PG_TEXTS(options->redirect_uris, options->uri_count), PG_TEXTS(names, name_count),
                           PG_TEXTS(grants, grant_count), PG_BOOL(options->is_test), AUDIT_WHO),
                 &rows);
    result = take_one(arena, result, rows, -EIO, client);
    if (result)
        crypto_wipe(secret, SECRET_TEXT_MAX);
    return result;
}

int oauth_client_get(struct arena *arena, struct str id, struct oauth_client *client)
{
    struct pg_rows *rows = NULL;
    if (!id_is_fit(id))
        return -ENOENT;
    int result = pg_read(&sql_get, PG_VALUES(PG_TEXT(id)), &rows);
    return take_one(arena, result, rows, -ENOENT, client);
}

int oauth_client_check(struct arena *arena, struct str id, struct str secret, struct oauth_client *client)
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    struct pg_rows *rows = NULL;
    struct pg_value hashed = oauth_hash(hash, secret, OAUTH_SECRET_PREFIX);
    if (!id_is_fit(id) || (secret.at && hashed.type == PG_VALUE_NULL))
        return -EACCES;
    int result = pg_read(&sql_check, PG_VALUES(PG_TEXT(id), hashed), &rows);
    return take_one(arena, result, rows, -EACCES, client);
}

int oauth_client_list(struct arena *arena, struct oauth_client **clients, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_NO_VALUES, &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *clients = arena_alloc(arena, *count * sizeof **clients);
    for (size_t i = 0; i < *count; i++)
        read_row(arena, rows, i, &(*clients)[i]);
    pg_rows_free(rows);
    return 0;
}

/* A statement that gives a row for what it has changed. */
static int change(const struct pg_statement *statement, const struct pg_value *values, size_t count)
{
    struct pg_rows *rows;
    int result = pg_write(statement, values, count, &rows);
    if (result)
        return result;
    size_t changed = pg_count(rows);
    pg_rows_free(rows);
    return changed ? 0 : -ENOENT;
}

int oauth_client_revoke(struct str id)
{
    return id_is_fit(id) ? change(&sql_revoke, PG_VALUES(PG_TEXT(id), AUDIT_WHO)) : -ENOENT;
}

int oauth_client_rotate(struct str id, char secret[SECRET_TEXT_MAX])
{
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    secret[0] = '\0';
    if (!id_is_fit(id))
        return -ENOENT;
    struct pg_value hashed = oauth_new(secret, hash, OAUTH_SECRET_PREFIX);
    int result = change(&sql_rotate, PG_VALUES(PG_TEXT(id), hashed, AUDIT_WHO));
    if (result)
        crypto_wipe(secret, SECRET_TEXT_MAX);
    return result;
}

static bool list_has(struct str list, struct str wanted)
{
    struct str piece;
    while (str_split(&list, ' ', &piece))
        if (piece.size && str_equal(piece, wanted))
            return true;
    return false;
}

bool oauth_client_has_uri(const struct oauth_client *client, struct str uri)
{
    return list_has(client->redirect_uris, uri);
}

bool oauth_client_has_grant(const struct oauth_client *client, struct str grant)
{
    return list_has(client->grants, grant);
}
