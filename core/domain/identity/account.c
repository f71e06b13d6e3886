/* Accounts: see account.h. */
#include "core/domain/identity/account.h"

#include "core/domain/audit.h"
#include "core/store/pg.h"

#include <errno.h>

enum { LOCAL_MAX = 64, LABEL_MAX = 63 };

#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define ACCOUNT_COLUMNS                                                                                      \
    "a.id, a.ref, a.name, a.email, a.organization, "                                                         \
    "(SELECT string_agg(p.surface || '=' || p.plan, ' ' ORDER BY p.surface) FROM account_plan p "            \
    "WHERE p.account_id = a.id), " ACCOUNT_IS_BANNED("a") ", a.ban_reason, " MS("a.banned_until") ", " MS(   \
        "a.created_at")

static const struct pg_statement sql_register = {
    "account_register",
    "WITH a AS (INSERT INTO account (name, email, organization, password) "
    "VALUES ($1::text, $1::text, $2::text, $3::text) RETURNING *)" AUDIT(
        "$4", "account.register", "a", "a.id", "a.ref") "SELECT " ACCOUNT_COLUMNS " FROM a"};
static const struct pg_statement sql_create = {
    "account_create",
    "WITH a AS (INSERT INTO account (name, email, organization, password) "
    "VALUES ($1::text, $2::text, $3::text, $4::text) ON CONFLICT DO NOTHING RETURNING *)" AUDIT(
        "$5", "account.create", "a", "a.id", "a.ref") "SELECT " ACCOUNT_COLUMNS " FROM a"};
/* What is called like a number of another's is meant by its name. */
static const struct pg_statement sql_find = {
    "account_find", "SELECT " ACCOUNT_COLUMNS " FROM account a WHERE a.name = $1::text OR a.ref = $1::text "
                    "OR a.email = lower($1::text) OR a.id = $2::bigint "
                    "ORDER BY a.name = $1::text DESC, a.ref = $1::text DESC, a.id = $2::bigint LIMIT 1"};
static const struct pg_statement sql_get = {"account_get", "SELECT " ACCOUNT_COLUMNS
                                                           " FROM account a WHERE a.id = $1::bigint"};
static const struct pg_statement sql_list = {
    "account_list", "SELECT " ACCOUNT_COLUMNS " FROM account a WHERE $1::bigint = 0 OR a.id < $1::bigint "
                    "ORDER BY a.id DESC LIMIT $2::bigint"};
static const struct pg_statement sql_list_banned = {
    "account_list_banned",
    "SELECT " ACCOUNT_COLUMNS
    " FROM account a WHERE ($1::bigint = 0 OR a.id < $1::bigint) AND " ACCOUNT_IS_BANNED(
        "a") " ORDER BY a.id DESC LIMIT $2::bigint"};
static const struct pg_statement sql_set_email = {
    "account_set_email",
    "WITH a AS (UPDATE account SET email = $2::text WHERE id = $1::bigint RETURNING *)" AUDIT(
        "$3", "account.email", "a", "a.id", "a.ref") "SELECT 1 FROM a"};
static const struct pg_statement sql_password = {"account_password",
                                                 "SELECT id, password FROM account WHERE email = $1::text"};
/* Who knew the old password may have logged in with it: all that log-ins gave ends with it. */
static const struct pg_statement sql_set_password = {
    "account_set_password",
    "WITH a AS (UPDATE account SET password = $2::text WHERE id = $1::bigint RETURNING *), "
    "l AS (UPDATE login SET revoked_at = now() WHERE account_id = $1::bigint AND revoked_at IS NULL), "
    "k AS (UPDATE api_key SET revoked_at = now() WHERE account_id = $1::bigint AND by_login AND revoked_at IS "
    "NULL)" AUDIT("$3", "account.password", "a", "a.id", "a.ref") "SELECT 1 FROM a"};
static const struct pg_statement sql_hold = {
    "account_hold",
    "SELECT 1 FROM account WHERE id = $1::bigint AND ($2::text IS NULL OR password = $2::text) "
    "FOR NO KEY UPDATE"};
static const struct pg_statement sql_ban = {
    "account_ban",
    "WITH a AS (UPDATE account SET banned_at = now(), ban_reason = $2::text, "
    "banned_until = to_timestamp($3::bigint / 1000.0) WHERE id = $1::bigint RETURNING *)" AUDIT(
        "$4", "account.ban", "a", "a.id", "a.ref") "SELECT 1 FROM a"};
static const struct pg_statement sql_unban = {
    "account_unban", "WITH a AS (UPDATE account SET banned_at = NULL, ban_reason = NULL, banned_until = NULL "
                     "WHERE id = $1::bigint RETURNING *)" AUDIT("$2", "account.unban", "a", "a.id",
                                                                "a.ref") "SELECT 1 FROM a"};

/* ---- addresses ---- */

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* RFC 5322 §3.2.3's dot-atom, in lower case. */
static bool local_is_fine(struct str local)
{
    if (local.size == 0 || local.size > LOCAL_MAX)
        return false;
    struct str atom;
    while (str_split(&local, '.', &atom)) {
        if (atom.size == 0)
            return false;
        for (size_t i = 0; i < atom.size; i++)
            if (!is_letter_or_digit(atom.at[i]) && !memchr("!#$%&'*+-/=?^_`{|}~", atom.at[i], 19))
                return false;
    }
    return true;
}

static bool host_is_fine(struct str host)
{
    bool has_dot = host.size && memchr(host.at, '.', host.size);
    if (!has_dot && !str_equal(host, STR("localhost")))
        return false;
    struct str label;
    while (str_split(&host, '.', &label)) {
        if (label.size == 0 || label.size > LABEL_MAX || label.at[0] == '-' ||
            label.at[label.size - 1] == '-')
            return false;
        for (size_t i = 0; i < label.size; i++)
            if (!is_letter_or_digit(label.at[i]) && label.at[i] != '-')
                return false;
    }
    return true;
}

bool account_email(struct arena *arena, struct str text, struct str *email)
{
    if (text.size == 0 || text.size > ACCOUNT_EMAIL_MAX)
        return false;
    char *lower = arena_dup(arena, text.at, text.size);
    for (size_t i = 0; i < text.size; i++)
        if (lower[i] >= 'A' && lower[i] <= 'Z')
            lower[i] = (char)(lower[i] - 'A' + 'a');
    const char *at = memchr(lower, '@', text.size);
    if (!at)
        return false;
    size_t local_size = (size_t)(at - lower);
    *email = str_of(lower, text.size);
    return local_is_fine(str_of(lower, local_size)) &&
           host_is_fine(str_of(at + 1, text.size - local_size - 1));
}

/* ---- rows ---- */

static void from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct account *account)
{
    *account = (struct account){
        .id = pg_i64(rows, row, 0),
        .ref = pg_text(arena, rows, row, 1),
        .name = pg_text(arena, rows, row, 2),
        .email = pg_text(arena, rows, row, 3),
        .organization = pg_text(arena, rows, row, 4),
        .plans = pg_text(arena, rows, row, 5),
        .is_banned = pg_bool(rows, row, 6),
        .ban_reason = pg_text(arena, rows, row, 7),
        .banned_until_ms = pg_i64(rows, row, 8),
        .created_ms = pg_i64(rows, row, 9),
    };
}

/* The one row; frees the rows. -ENOENT: there is none. */
static int take_one(struct arena *arena, struct pg_rows *rows, struct account *account)
{
    bool found = pg_count(rows) == 1;
    if (found)
        from_row(arena, rows, 0, account);
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int account_register(struct arena *arena, struct str email, struct str organization, struct str password_hash,
                     struct account *account)
{
    struct pg_rows *rows;
    int result =
        pg_write(&sql_register,
                 PG_VALUES(PG_TEXT(email), PG_TEXT(organization), PG_TEXT(password_hash), AUDIT_WHO), &rows);
    return result ? result : take_one(arena, rows, account);
}

int account_create(struct arena *arena, struct str name, struct str email, struct str organization,
                   struct str password_hash, struct account *account)
{
    struct pg_rows *rows;
    int result = pg_write(
        &sql_create,
        PG_VALUES(PG_TEXT(name), PG_TEXT(email), PG_TEXT(organization), PG_TEXT(password_hash), AUDIT_WHO),
        &rows);
    if (result == 0 && take_one(arena, rows, account))
        result = -EEXIST;
    return result;
}

int account_find(struct arena *arena, struct str who, struct account *account)
{
    struct pg_rows *rows;
    int64_t id = 0;
    str_to_i64(who, &id);
    int result = pg_read(&sql_find, PG_VALUES(PG_TEXT(who), PG_INT(id)), &rows);
    return result ? result : take_one(arena, rows, account);
}

int account_get(struct arena *arena, int64_t id, struct account *account)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_get, PG_VALUES(PG_INT(id)), &rows);
    return result ? result : take_one(arena, rows, account);
}

static int list(const struct pg_statement *statement, struct arena *arena, int64_t cursor, int64_t limit,
                struct account **accounts, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(statement, PG_VALUES(PG_INT(cursor), PG_INT(limit)), &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *accounts = arena_alloc(arena, *count * sizeof **accounts);
    for (size_t i = 0; i < *count; i++)
        from_row(arena, rows, i, &(*accounts)[i]);
    pg_rows_free(rows);
    return 0;
}

int account_list(struct arena *arena, int64_t cursor, int64_t limit, struct account **accounts, size_t *count)
{
    return list(&sql_list, arena, cursor, limit, accounts, count);
}

int account_list_banned(struct arena *arena, int64_t cursor, int64_t limit, struct account **accounts,
                        size_t *count)
{
    return list(&sql_list_banned, arena, cursor, limit, accounts, count);
}

int account_password(struct arena *arena, struct str email, int64_t *id, struct str *password_hash)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_password, PG_VALUES(PG_TEXT(email)), &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    if (found) {
        *id = pg_i64(rows, 0, 0);
        *password_hash = pg_text(arena, rows, 0, 1);
    }
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

/* ---- changes ---- */

/* A change of one account that returns a row when there is such an account. */
static int change(const struct pg_statement *statement, const struct pg_value *values, size_t count)
{
    struct pg_rows *rows;
    int result = pg_write(statement, values, count, &rows);
    if (result)
        return result;
    bool found = pg_count(rows) == 1;
    pg_rows_free(rows);
    return found ? 0 : -ENOENT;
}

int account_set_email(int64_t id, struct str email)
{
    return change(&sql_set_email, PG_VALUES(PG_INT(id), PG_TEXT(email), AUDIT_WHO));
}

int account_hold(int64_t id, struct str password_hash)
{
    CHECK(pg_in_scope());
    return change(&sql_hold, PG_VALUES(PG_INT(id), PG_TEXT(password_hash)));
}

/* Log-ins of the same moment are waited for first: the statement that ends them must see them. */
int account_set_password(int64_t id, struct str password_hash)
{
    bool in_scope = pg_in_scope();
    int result = in_scope ? 0 : pg_scope_open();
    if (result)
        return result;
    result = account_hold(id, STR_NONE);
    if (result == 0)
        result = change(&sql_set_password, PG_VALUES(PG_INT(id), PG_TEXT(password_hash), AUDIT_WHO));
    return in_scope ? result : pg_scope_close(result);
}

int account_ban(int64_t id, struct str reason, int64_t until_ms)
{
    return change(&sql_ban,
                  PG_VALUES(PG_INT(id), PG_TEXT(reason), until_ms ? PG_INT(until_ms) : PG_NULL, AUDIT_WHO));
}

int account_unban(int64_t id)
{
    return change(&sql_unban, PG_VALUES(PG_INT(id), AUDIT_WHO));
}
