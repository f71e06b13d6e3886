/*
 * Migrations: the embedded schema files, each applied once and for ever. Table schema_migration remembers name and
 * checksum. Blocking, on a connection of its own that has no time limits: a migration takes as long as it takes.
 */
#include "core/store/pg_internal.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/store/embed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHECKSUM_SIZE = 2 * CRYPTO_DIGEST_SIZE + 1 };

/* The key is ours alone; the lock goes with the session. */
static const char lock_sql[] = "SELECT pg_advisory_lock(8316574923011)";
static const char table_sql[] = "CREATE TABLE IF NOT EXISTS schema_migration ("
                                "name text PRIMARY KEY, checksum text NOT NULL, "
                                "applied_at timestamptz NOT NULL DEFAULT now())";
static const char exists_sql[] = "SELECT to_regclass('schema_migration') IS NOT NULL";
static const char list_sql[] = "SELECT name, checksum FROM schema_migration ORDER BY name";
static const char insert_sql[] = "INSERT INTO schema_migration (name, checksum) VALUES ($1, $2)";

struct migrator {
    PGconn *libpq;
    bool *applied; /* for each embedded migration */
    size_t missing;
    char *error;
    size_t error_size;
};

/* Our own files hold no secrets: the server's message may be shown. */
static void explain(struct migrator *m, const char *doing, const char *name, const PGresult *result)
{
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    snprintf(m->error, m->error_size, "%s%s%s: %s (SQLSTATE %s%s%s)", doing, name ? " " : "",
             name ? name : "", message ? message : "the connection was lost", sqlstate ? sqlstate : "none",
             position ? ", at character " : "", position ? position : "");
}

/* One SQL text, of one statement or several. NULL, explained, when it failed. */
static PGresult *run(struct migrator *m, const char *sql, const char *doing, const char *name)
{
    PGresult *result = PQexec(m->libpq, sql);
    if (pg_result_code(result) == 0)
        return result;
    explain(m, doing, name, result);
    PQclear(result);
    return NULL;
}

static int run_only(struct migrator *m, const char *sql, const char *doing, const char *name)
{
    PGresult *result = run(m, sql, doing, name);
    PQclear(result);
    return result ? 0 : -EIO;
}

static void checksum_of(char out[CHECKSUM_SIZE], const struct embedded_file *file)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_digest(digest, str_of(file->text, file->size), NULL);
    escape_hex(out, digest, sizeof digest);
}

static int compare_row(struct migrator *m, const char *name, const char *checksum)
{
    for (size_t i = 0; i < embedded_migration_count; i++) {
        const struct embedded_file *file = &embedded_migrations[i];
        char ours[CHECKSUM_SIZE];
        if (strcmp(file->name, name) != 0)
            continue;
        checksum_of(ours, file);
        if (strcmp(ours, checksum) != 0) {
            snprintf(m->error, m->error_size, "migration %s was changed after it had been applied", name);
            return -EPROTO;
        }
        m->applied[i] = true;
        m->missing--;
        return 0;
    }
    snprintf(m->error, m->error_size, "the database has migration %s, which this program does not know",
             name);
    return -EPROTO;
}

/* Reads what the database has; -EPROTO when that is not what we know. */
static int compare(struct migrator *m)
{
    PGresult *rows = run(m, list_sql, "reading schema_migration", NULL);
    if (!rows)
        return -EIO;
    int result = 0;
    for (int row = 0; result == 0 && row < PQntuples(rows); row++)
        result = compare_row(m, PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 1));
    PQclear(rows);
    return result;
}

static int remember(struct migrator *m, const struct embedded_file *file)
{
    char checksum[CHECKSUM_SIZE];
    checksum_of(checksum, file);
    const char *const values[] = {file->name, checksum};
    PGresult *result = PQexecParams(m->libpq, insert_sql, 2, NULL, values, NULL, NULL, 0);
    int code = pg_result_code(result) ? -EIO : 0;
    if (code)
        explain(m, "remembering migration", file->name, result);
    PQclear(result);
    return code;
}

static int apply(struct migrator *m, const struct embedded_file *file)
{
    int result = run_only(m, "BEGIN", "beginning migration", file->name);
    if (result == 0)
        result = run_only(m, file->text, "migration", file->name);
    /* A file with a COMMIT in it would be applied without being remembered, or by halves. */
    if (result == 0 && PQtransactionStatus(m->libpq) != PQTRANS_INTRANS) {
        snprintf(m->error, m->error_size, "migration %s ends its transaction", file->name);
        result = -EIO;
    }
    if (result == 0)
        result = remember(m, file);
    if (result == 0)
        result = run_only(m, "COMMIT", "committing migration", file->name);
    if (result == 0)
        LOG(INFO, "migration applied", LOG_TEXT("name", file->name));
    return result; /* after an error the connection is closed, which rolls back */
}

static int apply_missing(struct migrator *m)
{
    int result = run_only(m, lock_sql, "waiting for other starters", NULL);
    if (result == 0)
        result = run_only(m, table_sql, "making schema_migration", NULL);
    if (result == 0)
        result = compare(m);
    for (size_t i = 0; result == 0 && i < embedded_migration_count; i++)
        if (!m->applied[i])
            result = apply(m, &embedded_migrations[i]);
    return result;
}

static int check_all(struct migrator *m)
{
    PGresult *exists = run(m, exists_sql, "looking for schema_migration", NULL);
    if (!exists)
        return -EIO;
    bool has_table = PQgetvalue(exists, 0, 0)[0] == 't';
    PQclear(exists);
    int result = has_table ? compare(m) : 0;
    if (result == 0 && m->missing > 0) {
        snprintf(m->error, m->error_size, "the database lacks %zu of %zu migrations", m->missing,
                 embedded_migration_count);
        result = -EAGAIN;
    }
    return result;
}

static int with_database(int (*work)(struct migrator *m), char *error, size_t error_size)
{
    struct migrator m = {.missing = embedded_migration_count, .error = error, .error_size = error_size};
    int result = pg_url_check(error, error_size);
    if (result)
        return result;
    m.libpq =
        pg_connect("SET client_min_messages = warning; SET statement_timeout = 0; SET lock_timeout = 0; "
                   "SET idle_in_transaction_session_timeout = 0",
                   error, error_size);
    if (!m.libpq)
        return -ENOTCONN;
    m.applied = mem_zalloc((embedded_migration_count + 1) * sizeof *m.applied);
    result = work(&m);
    free(m.applied);
    PQfinish(m.libpq);
    return result;
}

int migrate_run(char *error, size_t error_size)
{
    return with_database(apply_missing, error, error_size);
}

int migrate_check(char *error, size_t error_size)
{
    return with_database(check_all, error, error_size);
}
