/*
 * The process's data keys, and sealing with them: see vault.h. How they are changed is in vault_rotate.c.
 *
 *     ENCRYPTION_KEY ──derives──▶ wrapping key ──wraps──▶ data keys (vault_key) ──seal──▶ values (tables of others)
 */
#include "core/domain/vault_internal.h"

#include "core/base/config.h"
#include "core/base/escape.h"
#include "core/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const struct pg_statement sql_keys = {
    "vault_keys", "SELECT id, purpose, wrapped FROM vault_key WHERE wrapped_by = $1::text ORDER BY id"};
static const struct pg_statement sql_count = {"vault_count", "SELECT count(*) FROM vault_key"};
static const struct pg_statement sql_make = {
    "vault_make", "INSERT INTO vault_key (id, purpose, wrapped_by, wrapped) "
                  "SELECT k.id, k.purpose, $1::text, k.wrapped FROM "
                  "(VALUES (1, 'hash', $2::bytea), (2, 'seal', $3::bytea)) AS k (id, purpose, wrapped) "
                  "WHERE NOT EXISTS (SELECT FROM vault_key)"};

enum { VERSION = 1, HASH_ID = 1, FIRST_SEAL_ID = 2 };

/* What the loops' threads share. The lock is never held while a fiber waits. The hash key stays as vault_open has set it. */
static struct {
    pthread_rwlock_t lock;
    struct vault_key *seals; /* in the order of their ids */
    size_t seal_count;
    unsigned char hash[CRYPTO_KEY_SIZE];
    struct vault_wrapping wrapping;
    bool is_open;
} vault = {.lock = PTHREAD_RWLOCK_INITIALIZER};

/* ---- wrapping ---- */

void vault_wrapping_make(struct vault_wrapping *wrapping, struct str encryption_key)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_derive(wrapping->key, encryption_key, "vault wrap");
    crypto_digest(digest, STR("vault wrapped by"), wrapping->key);
    escape_hex(wrapping->name, digest, (sizeof wrapping->name - 1) / 2);
}

static struct str bound_to(char bound[VAULT_BOUND_SIZE], uint32_t id, const char *purpose)
{
    int size = snprintf(bound, VAULT_BOUND_SIZE, "vault_key:%u:%s", id, purpose);
    CHECK(size > 0 && size < VAULT_BOUND_SIZE);
    return str_of(bound, (size_t)size);
}

void vault_wrap(unsigned char wrapped[VAULT_WRAPPED_SIZE], const struct vault_wrapping *wrapping, uint32_t id,
                const char *purpose, const unsigned char key[CRYPTO_KEY_SIZE])
{
    char bound[VAULT_BOUND_SIZE];
    crypto_seal(wrapped, str_of((const char *)key, CRYPTO_KEY_SIZE), bound_to(bound, id, purpose),
                wrapping->key);
}

int vault_unwrap(unsigned char key[CRYPTO_KEY_SIZE], const struct vault_wrapping *wrapping, uint32_t id,
                 const char *purpose, struct str wrapped)
{
    char bound[VAULT_BOUND_SIZE];
    if (wrapped.size != VAULT_WRAPPED_SIZE)
        return -EBADMSG;
    return crypto_unseal(key, wrapped, bound_to(bound, id, purpose), wrapping->key);
}

const struct vault_wrapping *vault_wrapping(void)
{
    CHECK(vault.is_open);
    return &vault.wrapping;
}

/* ---- the set of keys ---- */

static void forget_seals(struct vault_key *seals, size_t count)
{
    if (seals)
        crypto_wipe(seals, count * sizeof *seals);
    free(seals);
}

/* One that was read earlier, and comes later, does not put back what was known before. */
static void use_seals(struct vault_key *seals, size_t count)
{
    pthread_rwlock_wrlock(&vault.lock);
    bool is_newer = vault.seal_count == 0 || seals[count - 1].id >= vault.seals[vault.seal_count - 1].id;
    struct vault_key *spare = is_newer ? vault.seals : seals;
    size_t spare_count = is_newer ? vault.seal_count : count;
    if (is_newer) {
        vault.seals = seals;
        vault.seal_count = count;
    }
    pthread_rwlock_unlock(&vault.lock);
    forget_seals(spare, spare_count);
}

/* Opens the rows' keys: -ENOENT without the key for hashes or one that seals, -EBADMSG when one does not open. */
static int take_keys(struct arena *arena, const struct pg_rows *rows, const struct vault_wrapping *wrapping,
                     unsigned char hash[CRYPTO_KEY_SIZE])
{
    struct vault_key *seals = mem_zalloc(pg_count(rows) * sizeof *seals);
    size_t count = 0;
    bool has_hash = false;
    int result = 0;
    for (size_t i = 0; result == 0 && i < pg_count(rows); i++) {
        uint32_t id = (uint32_t)pg_i64(rows, i, 0);
        bool is_hash = str_equal(pg_str(rows, i, 1), STR("hash"));
        unsigned char *to = is_hash ? hash : seals[count].key;
        result = vault_unwrap(to, wrapping, id, is_hash ? "hash" : "seal", pg_bytes(arena, rows, i, 2));
        has_hash = has_hash || is_hash;
        if (!is_hash)
            seals[count++].id = id;
    }
    if (result == 0 && (!has_hash || count == 0))
        result = -ENOENT;
    if (result)
        forget_seals(seals, count);
    else
        use_seals(seals, count);
    return result;
}

/* Reads the keys that are wrapped under `wrapping`. */
static int read_keys(const struct vault_wrapping *wrapping, unsigned char hash[CRYPTO_KEY_SIZE])
{
    struct arena arena;
    struct pg_rows *rows;
    int result = pg_read(&sql_keys, PG_VALUES(PG_TEXT(str_from(wrapping->name))), &rows);
    if (result)
        return result;
    arena_init(&arena);
    result = take_keys(&arena, rows, wrapping, hash);
    arena_clear(&arena);
    pg_rows_free(rows);
    return result;
}

int vault_read_again(void)
{
    unsigned char hash[CRYPTO_KEY_SIZE];
    int result = read_keys(&vault.wrapping, hash);
    crypto_wipe(hash, sizeof hash);
    return result;
}

/* Makes the first two keys, unless there are some: of several that begin at once, with whatever ENCRYPTION_KEY, one does. */
static int make_keys(const struct vault_wrapping *wrapping)
{
    unsigned char key[CRYPTO_KEY_SIZE];
    unsigned char hash[VAULT_WRAPPED_SIZE];
    unsigned char seal[VAULT_WRAPPED_SIZE];
    /* API keys were hashed under this one before there was a vault. */
    crypto_derive(key, str_from(config->encryption_key), "api key hash");
    vault_wrap(hash, wrapping, HASH_ID, "hash", key);
    crypto_random(key, sizeof key);
    vault_wrap(seal, wrapping, FIRST_SEAL_ID, "seal", key);
    crypto_wipe(key, sizeof key);
    struct pg_tx *tx = NULL;
    int result = vault_begin(&tx);
    if (result == 0)
        result = pg_query(tx, &sql_make,
                          PG_VALUES(PG_TEXT(str_from(wrapping->name)),
                                    PG_BYTES(str_of((const char *)hash, sizeof hash)),
                                    PG_BYTES(str_of((const char *)seal, sizeof seal))),
                          NULL);
    return pg_end(tx, result);
}

static int open_keys(const struct vault_wrapping *wrapping)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_count, PG_NO_VALUES, &rows);
    if (result)
        return result;
    bool is_empty = pg_i64(rows, 0, 0) == 0;
    pg_rows_free(rows);
    if (is_empty)
        result = make_keys(wrapping);
    /* Whether or not the outcome is known, and whoever has made them: what counts is what is there. */
    if (result && result != -ECONNRESET)
        return result;
    return read_keys(wrapping, vault.hash);
}

int vault_open(char *error, size_t error_size)
{
    CHECK(!vault.is_open);
    vault_wrapping_make(&vault.wrapping, str_from(config->encryption_key));
    int result = open_keys(&vault.wrapping);
    vault.is_open = result == 0;
    if (result == 0)
        return 0;
    vault_close();
    if (result == -ENOENT)
        snprintf(error, error_size,
                 "ENCRYPTION_KEY is not the one that this database's keys are wrapped under");
    else if (result == -EBADMSG)
        snprintf(error, error_size,
                 "a row of vault_key does not open: it is damaged, or stands in another's place");
    else
        snprintf(error, error_size, "the vault's keys can't be read: %s", log_errno(result));
    return result == -ENOENT || result == -EBADMSG ? -EACCES : result;
}

void vault_close(void)
{
    forget_seals(vault.seals, vault.seal_count);
    vault.seals = NULL;
    vault.seal_count = 0;
    vault.is_open = false;
    crypto_wipe(vault.hash, sizeof vault.hash);
    crypto_wipe(&vault.wrapping, sizeof vault.wrapping);
}

const unsigned char *vault_hash_key(void)
{
    CHECK(vault.is_open);
    return vault.hash;
}

/* A copy of the seal key of that id, or of the newest for 0; false when it is not known. */
static bool copy_key(uint32_t id, struct vault_key *key)
{
    bool found = false;
    pthread_rwlock_rdlock(&vault.lock);
    for (size_t i = vault.seal_count; !found && i-- > 0;) {
        found = id == 0 || vault.seals[i].id == id;
        if (found)
            *key = vault.seals[i];
    }
    pthread_rwlock_unlock(&vault.lock);
    return found;
}

uint32_t vault_newest(void)
{
    struct vault_key newest;
    CHECK(copy_key(0, &newest));
    crypto_wipe(newest.key, sizeof newest.key);
    return newest.id;
}

/* ---- values ---- */

void vault_head(unsigned char head[VAULT_HEAD_SIZE], uint32_t key_id)
{
    head[0] = VERSION;
    for (size_t i = 0; i < 4; i++)
        head[1 + i] = (unsigned char)(key_id >> (24 - 8 * i));
}

static struct str bound_to_row(struct arena *arena, const char *place, struct str row)
{
    size_t place_size = strlen(place);
    size_t size = place_size + 1 + row.size;
    char *bound = arena_alloc(arena, size);
    memcpy(bound, place, place_size);
    bound[place_size] = ':';
    if (row.size)
        memcpy(bound + place_size + 1, row.at, row.size);
    return str_of(bound, size);
}

struct str vault_seal(struct arena *arena, struct str plain, const char *place, struct str row)
{
    struct vault_key key;
    size_t size = plain.size + VAULT_EXTRA;
    unsigned char *sealed = arena_alloc(arena, size);
    CHECK(copy_key(0, &key));
    vault_head(sealed, key.id);
    crypto_seal(sealed + VAULT_HEAD_SIZE, plain, bound_to_row(arena, place, row), key.key);
    crypto_wipe(&key, sizeof key);
    return str_of((const char *)sealed, size);
}

int vault_unseal(struct arena *arena, struct str sealed, const char *place, struct str row, struct str *plain)
{
    const unsigned char *head = (const unsigned char *)sealed.at;
    struct vault_key key;
    if (sealed.size < VAULT_EXTRA || head[0] != VERSION)
        return -EBADMSG;
    uint32_t id = (uint32_t)head[1] << 24 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 8 | head[4];
    if (id == 0)
        return -EBADMSG;
    if (!copy_key(id, &key)) {
        int result = vault_read_again();
        if (result)
            return result == -ENOENT ? -EBADMSG : result;
        if (!copy_key(id, &key))
            return -EBADMSG;
    }
    size_t size = sealed.size - VAULT_EXTRA;
    unsigned char *out = arena_alloc(arena, size + 1);
    int result = crypto_unseal(out, str_of(sealed.at + VAULT_HEAD_SIZE, sealed.size - VAULT_HEAD_SIZE),
                               bound_to_row(arena, place, row), key.key);
    crypto_wipe(&key, sizeof key);
    out[size] = '\0';
    if (result == 0)
        *plain = str_of((const char *)out, size);
    return result;
}
