/* Accounts and API keys: see key.h. */
#include "core/domain/key.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/id.h"
#include "core/base/list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { SECRET_SIZE = 43, CHECKSUM_SIZE = 6, VERDICTS = 1024 };

/* The key's kinds, one for each surface that has keys. */
static const struct {
    const char *surface;
    const char *prefix;
} kinds[] = {
    {"session", "wgs_"},
};

static const struct pg_statement sql_find = {
    "key_find", "SELECT id, account_id, surface FROM api_key WHERE hash = $1::bytea AND revoked_at IS NULL "
                "AND (expires_at IS NULL OR expires_at > now())"};
static const struct pg_statement sql_create = {
    "key_create", "WITH owner AS (INSERT INTO account (name) VALUES ($1::text) "
                  "ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id) "
                  "INSERT INTO api_key (account_id, surface, name, shown, hash) "
                  "SELECT id, $2::text, $3::text, $4::text, $5::bytea FROM owner RETURNING id"};
static const struct pg_statement sql_revoke = {
    "key_revoke", "UPDATE api_key SET revoked_at = now() WHERE id = $1::bigint AND revoked_at IS NULL"};
static const struct pg_statement sql_list = {
    "key_list", "SELECT k.id, a.name, k.surface, k.name, k.shown, "
                "to_char(k.created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
                "to_char(k.revoked_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
                "FROM api_key k JOIN account a ON a.id = k.account_id ORDER BY k.id DESC LIMIT 10000"};

/* What a loop knows of keys, direct-mapped by their hash: an older verdict gives way. */
struct verdict {
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    uint64_t until_ns;
    struct principal principal;
    const char *surface; /* NULL: no such key */
};

struct verdicts {
    unsigned char hash_key[CRYPTO_KEY_SIZE];
    unsigned char checksum_key[CRYPTO_KEY_SIZE];
    struct verdict slots[VERDICTS];
};

static struct verdicts *verdicts(void)
{
    struct loop *loop = loop_self();
    struct verdicts *own = loop->slots[LOOP_KEYS];
    if (UNLIKELY(!own)) {
        own = mem_zalloc(sizeof *own);
        crypto_derive(own->hash_key, str_from(config->encryption_key), "api key hash");
        crypto_derive(own->checksum_key, STR("wakegate"), "api key checksum");
        loop->slots[LOOP_KEYS] = own;
    }
    return own;
}

void key_close_loop(struct loop *loop)
{
    struct verdicts *own = loop->slots[LOOP_KEYS];
    if (!own)
        return;
    crypto_wipe(own, sizeof *own);
    free(own);
    loop->slots[LOOP_KEYS] = NULL;
}

static const char *surface_name(struct str surface)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (str_equal(surface, str_from(kinds[i].surface)))
            return kinds[i].surface;
    return NULL;
}

/* The characters that stand behind the secret: no secret themselves, they only catch typing errors. */
static void checksum(const struct verdicts *own, struct str text, char out[CHECKSUM_SIZE])
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_digest(digest, text, own->checksum_key);
    for (size_t i = 0; i < CHECKSUM_SIZE; i++)
        out[i] = letters[digest[i] % 62];
}

static bool has_shape(struct str text, const char *surface)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct str prefix = str_from(kinds[i].prefix);
        if (strcmp(kinds[i].surface, surface) == 0)
            return text.size == prefix.size + SECRET_SIZE + CHECKSUM_SIZE && str_starts(text, prefix);
    }
    return false;
}

/* Of a key that has the shape. */
static bool checksum_fits(const struct verdicts *own, struct str text)
{
    char expected[CHECKSUM_SIZE];
    struct str body = str_of(text.at, text.size - CHECKSUM_SIZE);
    checksum(own, body, expected);
    return memcmp(expected, text.at + body.size, CHECKSUM_SIZE) == 0;
}

static int look_up(struct verdict *verdict)
{
    struct pg_rows *rows;
    struct verdict found = *verdict;
    int result =
        pg_read(&sql_find, PG_VALUES(PG_BYTES(str_of((const char *)found.hash, sizeof found.hash))), &rows);
    if (result)
        return result;
    found.surface = NULL;
    if (pg_count(rows) == 1) {
        found.principal.key_id = pg_i64(rows, 0, 0);
        found.principal.account_id = pg_i64(rows, 0, 1);
        found.surface = surface_name(pg_str(rows, 0, 2));
    }
    found.until_ns = clock_in_ms(KEY_VERDICT_MS);
    pg_rows_free(rows);
    *verdict = found;
    return 0;
}

int key_verify(struct str text, const char *surface, struct principal *principal)
{
    struct verdicts *own = verdicts();
    if (!has_shape(text, surface))
        return -EACCES;
    struct verdict wanted = {.surface = NULL};
    crypto_digest(wanted.hash, text, own->hash_key);
    size_t index;
    memcpy(&index, wanted.hash, sizeof index);
    struct verdict *slot = &own->slots[index % VERDICTS];
    if (memcmp(slot->hash, wanted.hash, sizeof wanted.hash) == 0 && clock_now_ns() < slot->until_ns) {
        wanted = *slot;
    } else if (!checksum_fits(own, text)) {
        return -EACCES; /* a typing error, which PostgreSQL need not hear of */
    } else {
        int result = look_up(&wanted);
        if (result)
            return result;
        *slot = wanted;
    }
    if (!wanted.surface || strcmp(wanted.surface, surface) != 0)
        return -EACCES;
    *principal = wanted.principal;
    return 0;
}

int key_create(const char *account, const char *surface, const char *name, char text[KEY_TEXT_MAX],
               int64_t *id)
{
    struct verdicts *own = verdicts();
    const char *prefix = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strcmp(kinds[i].surface, surface) == 0)
            prefix = kinds[i].prefix;
    if (!prefix)
        return -EINVAL;
    size_t prefix_size = strlen(prefix);
    memcpy(text, prefix, prefix_size);
    id_random_base62(text + prefix_size, SECRET_SIZE);
    size_t size = prefix_size + SECRET_SIZE;
    checksum(own, str_of(text, size), text + size);
    size += CHECKSUM_SIZE;
    text[size] = '\0';
    unsigned char hash[CRYPTO_DIGEST_SIZE];
    crypto_digest(hash, str_of(text, size), own->hash_key);
    struct pg_rows *rows;
    int result = pg_write(&sql_create,
                          PG_VALUES(PG_TEXT(str_from(account)), PG_TEXT(str_from(surface)),
                                    PG_TEXT(str_from(name)), PG_TEXT(str_of(text, prefix_size + 4)),
                                    PG_BYTES(str_of((const char *)hash, sizeof hash))),
                          &rows);
    if (result)
        return result;
    *id = pg_i64(rows, 0, 0);
    pg_rows_free(rows);
    return 0;
}

int key_revoke(int64_t id)
{
    struct pg_rows *rows;
    int result = pg_write(&sql_revoke, PG_VALUES(PG_INT(id)), &rows);
    if (result)
        return result;
    size_t revoked = pg_affected(rows);
    pg_rows_free(rows);
    return revoked ? 0 : -ENOENT;
}

int key_list(struct arena *arena, struct key_row **out, size_t *count)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_list, PG_NO_VALUES, &rows);
    if (result)
        return result;
    *count = pg_count(rows);
    *out = arena_alloc(arena, *count * sizeof **out);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct key_row){
            .id = pg_i64(rows, i, 0),
            .account = arena_str(arena, pg_str(rows, i, 1)),
            .surface = arena_str(arena, pg_str(rows, i, 2)),
            .name = arena_str(arena, pg_str(rows, i, 3)),
            .shown = arena_str(arena, pg_str(rows, i, 4)),
            .created_at = arena_str(arena, pg_str(rows, i, 5)),
            .revoked_at = pg_is_null(rows, i, 6) ? STR_NONE : arena_str(arena, pg_str(rows, i, 6)),
        };
    pg_rows_free(rows);
    return 0;
}
