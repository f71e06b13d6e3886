/*
 * Another ENCRYPTION_KEY, and a new seal key, while servers run: see vault.h.
 *
 *     vault_rotate (old ENCRYPTION_KEY)                          vault_forget (new ENCRYPTION_KEY)
 *     one transaction: every key is wrapped under both, ──▶ ──▶  values that a server of before has sealed since,
 *     and so is a new seal key; then value by value              then the wraps under the old, then keys without values
 *
 * A value is exchanged only where it is still the one that was read: its head and nonce tell. Every step may be repeated.
 */
#include "core/domain/vault_internal.h"

#include "core/base/escape.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdlib.h>

/*
 * Whatever is sealed. A table has a unique index that begins with two columns of text (or one, and ''), by which it is walked;
 * `row` is the SQL for what vault_seal was given as the row.
 *
 *     table          column            first     second      row
 */
#define SEALED(X)                                                                                            \
    X("api_key", "signing_secret", "ref", "''::text", "ref")                                                 \
    X("idempotency", "answer", "owner", "key", "owner || ':' || key")                                        \
    X("webhook_endpoint", "secret", "ref", "''::text", "ref")                                                \
    X("webhook_endpoint", "old_secret", "ref", "''::text", "ref")                                            \
    X("provider", "api_key", "name", "''::text", "name")

/* A page is so many rows; MARK_SIZE bytes, with the nonce, are of one sealing alone. */
#define PAGE_ROWS "100"
#define MARK_SIZE "17"
enum { PAGE_MOST = 100, MARK_BYTES = 17, TRIES = 10 };

struct sealed {
    const char *place;
    struct pg_statement page;
    struct pg_statement exchange;
};

/* clang-format off */
#define X(table, column, first, second, row)                                                                 \
    {table "." column,                                                                                       \
     {"vault_page_" table "_" column,                                                                        \
      "SELECT " first ", " second ", " row ", "                                                              \
      "CASE WHEN substring(" column " FROM 1 FOR 5) <> $1::bytea THEN " column " END FROM " table            \
      " WHERE (" first ", " second ") > ($2::text, $3::text) ORDER BY " first ", " second                    \
      " LIMIT " PAGE_ROWS},                                                                                  \
     {"vault_exchange_" table "_" column,                                                                    \
      "UPDATE " table " SET " column " = decode(v.new_value, 'hex') "                                        \
      "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS v (k1, k2, old_mark, new_value) "      \
      "WHERE " first " = v.k1 AND " second " = v.k2 "                                                        \
      "AND substring(" column " FROM 1 FOR " MARK_SIZE ") = decode(v.old_mark, 'hex')"}},
static const struct sealed places[] = {SEALED(X)};
#undef X
/* clang-format on */

static const struct pg_statement sql_lock = {"vault_lock", "SELECT pg_advisory_xact_lock(8316574923012)"};
static const struct pg_statement sql_all = {
    "vault_all", "SELECT id, purpose, wrapped_by, wrapped FROM vault_key ORDER BY id"};
static const struct pg_statement sql_add = {"vault_add",
                                            "INSERT INTO vault_key (id, purpose, wrapped_by, wrapped) "
                                            "VALUES ($1::bigint, $2::text, $3::text, $4::bytea)"};
static const struct pg_statement sql_forget_wraps = {
    "vault_forget_wraps",
    "DELETE FROM vault_key k WHERE wrapped_by <> $1::text "
    "AND EXISTS (SELECT FROM vault_key o WHERE o.id = k.id AND o.wrapped_by = $1::text)"};
/* A server that has not heard of the newest key may still seal by an older one, though not for a day. */
static const struct pg_statement sql_forget_keys = {
    "vault_forget_keys",
    "DELETE FROM vault_key WHERE purpose = 'seal' AND id < $1::bigint "
    "AND EXISTS (SELECT FROM vault_key WHERE id = $1::bigint AND created_at < now() - interval '1 day')"};

int vault_begin(struct pg_tx **tx)
{
    int result = pg_begin(tx);
    return result ? result : pg_query(*tx, &sql_lock, PG_NO_VALUES, NULL);
}

/* ---- values ---- */

struct pass {
    int64_t sealed; /* anew */
    int64_t left;   /* under an older key: it does not open, or others were quicker again and again */
};

/* Where a walk is, and what it found there. */
struct walk {
    const struct sealed *sealed;
    struct str head; /* of values that are under the newest key already */
    struct buf first;
    struct buf second;
    size_t rows;
    size_t closed; /* that do not open */
    size_t count;  /* of those that follow: to be exchanged */
    struct str firsts[PAGE_MOST];
    struct str seconds[PAGE_MOST];
    struct str marks[PAGE_MOST];
    struct str values[PAGE_MOST];
};

static struct str hex_of(struct arena *arena, struct str bytes)
{
    char *hex = arena_alloc(arena, 2 * bytes.size + 1);
    escape_hex(hex, bytes.at, bytes.size);
    return str_of(hex, 2 * bytes.size);
}

/* Seals one value anew and puts it down to be exchanged. */
static int seal_row(struct arena *arena, struct walk *walk, const struct pg_rows *rows, size_t i)
{
    struct str value = pg_bytes(arena, rows, i, 3);
    struct str row = pg_str(rows, i, 2);
    struct str plain;
    int result = vault_unseal(arena, value, walk->sealed->place, row, &plain);
    if (result == -EBADMSG)
        walk->closed++;
    if (result)
        return result == -EBADMSG ? 0 : result;
    struct str again = vault_seal(arena, plain, walk->sealed->place, row);
    crypto_wipe((char *)(uintptr_t)plain.at, plain.size); /* the arena's, and ours */
    walk->firsts[walk->count] = arena_str(arena, pg_str(rows, i, 0));
    walk->seconds[walk->count] = arena_str(arena, pg_str(rows, i, 1));
    walk->marks[walk->count] = hex_of(arena, str_of(value.at, MARK_BYTES));
    walk->values[walk->count] = hex_of(arena, again);
    walk->count++;
    return 0;
}

static int seal_rows(struct arena *arena, struct walk *walk, const struct pg_rows *rows)
{
    walk->rows = pg_count(rows);
    walk->closed = 0;
    walk->count = 0;
    CHECK(walk->rows <= PAGE_MOST);
    for (size_t i = 0; i < walk->rows; i++) {
        int result = pg_is_null(rows, i, 3) ? 0 : seal_row(arena, walk, rows, i);
        if (result)
            return result;
    }
    return 0;
}

static int exchange(const struct walk *walk, size_t *exchanged)
{
    struct pg_rows *rows = NULL;
    *exchanged = 0;
    if (walk->count == 0)
        return 0;
    int result = pg_write(&walk->sealed->exchange,
                          PG_VALUES(PG_TEXTS(walk->firsts, walk->count), PG_TEXTS(walk->seconds, walk->count),
                                    PG_TEXTS(walk->marks, walk->count), PG_TEXTS(walk->values, walk->count)),
                          &rows);
    if (result)
        return result == -EAGAIN ? 0 : result; /* a deadlock: all of it is to be tried again */
    *exchanged = pg_affected(rows);
    pg_rows_free(rows);
    return 0;
}

static void set_text(struct buf *text, struct str value)
{
    text->size = 0;
    buf_add_str(text, value);
}

/* The rows behind the walk's place; it stays there while `may_repeat` and others have changed a row meanwhile. */
static int walk_page(struct arena *arena, struct walk *walk, bool may_repeat, struct pass *pass, bool *again)
{
    struct pg_rows *rows;
    size_t exchanged = 0;
    int result = pg_read(&walk->sealed->page,
                         PG_VALUES(PG_BYTES(walk->head), PG_TEXT(str_of(walk->first.at, walk->first.size)),
                                   PG_TEXT(str_of(walk->second.at, walk->second.size))),
                         &rows);
    if (result)
        return result;
    result = seal_rows(arena, walk, rows);
    if (result == 0)
        result = exchange(walk, &exchanged);
    pass->sealed += (int64_t)exchanged;
    *again = may_repeat && exchanged < walk->count;
    if (result == 0 && !*again && walk->rows > 0) {
        pass->left += (int64_t)(walk->closed + walk->count - exchanged);
        set_text(&walk->first, pg_str(rows, walk->rows - 1, 0));
        set_text(&walk->second, pg_str(rows, walk->rows - 1, 1));
    }
    pg_rows_free(rows);
    return result;
}

static int walk_table(struct walk *walk, struct pass *pass)
{
    struct arena arena;
    int result = 0;
    int tries = 0;
    arena_init(&arena);
    buf_reserve(&walk->first, 1); /* '' is no NULL */
    buf_reserve(&walk->second, 1);
    do {
        bool again = false;
        result = walk_page(&arena, walk, tries < TRIES, pass, &again);
        tries = again ? tries + 1 : 0;
        arena_clear(&arena);
    } while (result == 0 && (tries || walk->rows == PAGE_MOST));
    buf_clear(&walk->first);
    buf_clear(&walk->second);
    return result;
}

/* Seals every value anew that is not under the newest key. */
static int seal_all(struct pass *pass)
{
    unsigned char head[VAULT_HEAD_SIZE];
    int result = 0;
    *pass = (struct pass){0};
    vault_head(head, vault_newest());
    struct walk *walk = mem_alloc(sizeof *walk); /* much for a fiber's stack */
    for (size_t i = 0; result == 0 && i < ARRAY_SIZE(places); i++) {
        int64_t left = pass->left;
        *walk = (struct walk){.sealed = &places[i], .head = str_of((const char *)head, sizeof head)};
        result = walk_table(walk, pass);
        if (pass->left > left)
            LOG(WARN, "sealed values stay as they are: their key is gone, or they are not of their rows",
                LOG_TEXT("place", places[i].place), LOG_INT("values", pass->left - left));
    }
    free(walk);
    return result;
}

/* ---- keys ---- */

static int add_wrap(struct pg_tx *tx, const struct vault_wrapping *wrapping, uint32_t id, const char *purpose,
                    const unsigned char key[CRYPTO_KEY_SIZE])
{
    unsigned char wrapped[VAULT_WRAPPED_SIZE];
    vault_wrap(wrapped, wrapping, id, purpose, key);
    return pg_query(tx, &sql_add,
                    PG_VALUES(PG_INT(id), PG_TEXT(str_from(purpose)), PG_TEXT(str_from(wrapping->name)),
                              PG_BYTES(str_of((const char *)wrapped, sizeof wrapped))),
                    NULL);
}

static bool is_wrapped_by(const struct pg_rows *rows, size_t i, const struct vault_wrapping *wrapping)
{
    return str_equal(pg_str(rows, i, 2), str_from(wrapping->name));
}

/* Wraps the key of row `i` under the new one too. */
static int wrap_again(struct pg_tx *tx, const struct pg_rows *rows, size_t i, const struct vault_wrapping *to,
                      struct vault_rotation *done)
{
    uint32_t id = (uint32_t)pg_i64(rows, i, 0);
    const char *purpose = str_equal(pg_str(rows, i, 1), STR("hash")) ? "hash" : "seal";
    unsigned char key[CRYPTO_KEY_SIZE];
    struct arena arena;
    for (size_t other = 0; other < pg_count(rows); other++)
        if (is_wrapped_by(rows, other, to) && pg_i64(rows, other, 0) == id)
            return 0;
    arena_init(&arena);
    int result = vault_unwrap(key, vault_wrapping(), id, purpose, pg_bytes(&arena, rows, i, 3));
    arena_clear(&arena);
    if (result == 0)
        result = add_wrap(tx, to, id, purpose, key);
    if (result == 0)
        done->keys++;
    crypto_wipe(key, sizeof key);
    return result;
}

/* A new seal key, wrapped under both. */
static int add_key(struct pg_tx *tx, uint32_t id, const struct vault_wrapping *to,
                   struct vault_rotation *done)
{
    unsigned char key[CRYPTO_KEY_SIZE];
    crypto_random(key, sizeof key);
    int result = add_wrap(tx, vault_wrapping(), id, "seal", key);
    if (result == 0)
        result = add_wrap(tx, to, id, "seal", key);
    if (result == 0)
        done->keys++;
    crypto_wipe(key, sizeof key);
    return result;
}

static int change_keys(struct pg_tx *tx, const struct pg_rows *rows, const struct vault_wrapping *to,
                       struct vault_rotation *done)
{
    bool has_begun = false; /* before it was interrupted: then the new seal key is there */
    uint32_t last = 0;
    for (size_t i = 0; i < pg_count(rows); i++) {
        bool is_new = is_wrapped_by(rows, i, to);
        if (!is_new && !is_wrapped_by(rows, i, vault_wrapping()))
            return -EBUSY;
        has_begun = has_begun || is_new;
        last = (uint32_t)pg_i64(rows, i, 0);
    }
    for (size_t i = 0; i < pg_count(rows); i++) {
        int result = is_wrapped_by(rows, i, vault_wrapping()) ? wrap_again(tx, rows, i, to, done) : 0;
        if (result)
            return result;
    }
    return has_begun ? 0 : add_key(tx, last + 1, to, done);
}

static int wrap_all(const struct vault_wrapping *to, struct vault_rotation *done)
{
    struct pg_tx *tx = NULL;
    struct pg_rows *rows = NULL;
    int result = vault_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &sql_all, PG_NO_VALUES, &rows);
    if (result == 0)
        result = change_keys(tx, rows, to, done);
    pg_rows_free(rows);
    return pg_end(tx, result);
}

int vault_rotate(struct str new_encryption_key, struct vault_rotation *done)
{
    enum { KEY_LEAST = 32 /* as config_load wants it */ };
    struct vault_wrapping to;
    struct pass pass;
    *done = (struct vault_rotation){0};
    if (new_encryption_key.size < KEY_LEAST)
        return -EINVAL;
    vault_wrapping_make(&to, new_encryption_key);
    int result = strcmp(to.name, vault_wrapping()->name) == 0 ? -EINVAL : wrap_all(&to, done);
    crypto_wipe(&to, sizeof to);
    if (result == 0)
        result = vault_read_again();
    if (result)
        return result;
    result = seal_all(&pass);
    done->values = pass.sealed;
    return result;
}

static int forget_rows(bool keys_too, int64_t *removed)
{
    struct pg_tx *tx = NULL;
    struct pg_rows *wraps = NULL;
    struct pg_rows *keys = NULL;
    int result = vault_begin(&tx);
    if (result == 0)
        result =
            pg_query(tx, &sql_forget_wraps, PG_VALUES(PG_TEXT(str_from(vault_wrapping()->name))), &wraps);
    if (result == 0 && keys_too)
        result = pg_query(tx, &sql_forget_keys, PG_VALUES(PG_INT(vault_newest())), &keys);
    if (result == 0)
        *removed = (int64_t)(pg_affected(wraps) + (keys ? pg_affected(keys) : 0));
    pg_rows_free(wraps);
    pg_rows_free(keys);
    return pg_end(tx, result);
}

int vault_forget(int64_t *removed)
{
    struct pass pass;
    *removed = 0;
    int result = vault_read_again();
    if (result == 0)
        result = seal_all(&pass);
    if (result == 0)
        result = forget_rows(pass.left == 0, removed);
    return result ? result : vault_read_again();
}
