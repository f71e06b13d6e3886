/*
 * Connecting, the part that blocks: name lookups and the handshake. Runs in the thread pool for a loop and directly for
 * migrations. Nothing that it reports shows the URL: a password with a bare '@' in it makes half of itself a host name.
 */
#include "core/store/pg_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

enum { CONNECT_MS = 5000 };

int pg_url_check(char *error, size_t error_size)
{
    if (config->database_url[0] == '\0') {
        snprintf(error, error_size, "DATABASE_URL is not set");
        return -EINVAL;
    }
    char *reason = NULL;
    PQconninfoOption *options = PQconninfoParse(config->database_url, &reason);
    PQfreemem(reason);
    if (!options) {
        snprintf(error, error_size, "DATABASE_URL is not a URL that libpq can read");
        return -EINVAL;
    }
    PQconninfoFree(options);
    return 0;
}

void pg_redact(char *out, size_t out_size, const char *message)
{
    bool quoted = false;
    size_t used = 0;
    for (const char *c = message; *c && used + 1 < out_size; c++) {
        if (*c == '\n' && c[1] == '\0')
            break;
        bool mark = *c == '"';
        if (mark || !quoted)
            out[used++] = *c == '\n' || *c == '\t' ? ' ' : *c;
        if (mark)
            quoted = !quoted;
    }
    out[used] = '\0';
}

void pg_settings(char sql[PG_SETTINGS_SIZE])
{
    long long statement_ms = config->pg_timeout_ms;
    /* A fiber may wait for something else in the middle of a transaction, but not for ever. */
    long long idle_ms = statement_ms > 2500 ? 2 * statement_ms : 5000;
    /* The server looks every second whether the client of a running statement is still there, so that closing a
     * connection is enough to stop what it does. */
    int size = snprintf(sql, PG_SETTINGS_SIZE,
                        "SET statement_timeout = %lld; SET idle_in_transaction_session_timeout = %lld; "
                        "SET client_connection_check_interval = 1000; SET client_min_messages = warning; "
                        "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex'",
                        statement_ms, idle_ms);
    CHECK(size > 0 && size < PG_SETTINGS_SIZE);
}

static void ignore_notice(void *unused, const PGresult *notice)
{
    (void)unused;
    (void)notice;
}

/* As PQconnectdbParams does it, but with our receiver for notices from the first on: libpq's own would write to the log
 * what is no line of the log. */
static void finish_connecting(PGconn *connection)
{
    uint64_t deadline_ns = clock_in_ms(CONNECT_MS);
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    PQsetNoticeReceiver(connection, ignore_notice, NULL);
    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED && clock_now_ns() < deadline_ns) {
        struct pollfd waiting = {
            .fd = PQsocket(connection),
            .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT,
        };
        uint64_t left_ms = (deadline_ns - clock_now_ns()) / CLOCK_MS + 1;
        if (poll(&waiting, 1, (int)left_ms) > 0)
            state = PQconnectPoll(connection);
    }
}

PGconn *pg_connect(const char *settings_sql, char *error, size_t error_size)
{
    /* What stands before dbname, the URL may override; what stands behind it, not. */
    static const char *const names[] = {"keepalives_idle",
                                        "keepalives_interval",
                                        "keepalives_count",
                                        "fallback_application_name",
                                        "dbname",
                                        "client_encoding",
                                        NULL};
    const char *const values[] = {"15", "5", "3", "wakegate", config->database_url, "UTF8", NULL};
    PGconn *connection = PQconnectStartParams(names, values, 1);
    CHECK(connection);
    if (PQstatus(connection) != CONNECTION_BAD)
        finish_connecting(connection);
    if (PQstatus(connection) == CONNECTION_OK) {
        PGresult *result = PQexec(connection, settings_sql);
        bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (done)
            return connection;
    }
    const char *reason = PQerrorMessage(connection);
    pg_redact(error, error_size, *reason ? reason : "no answer in time");
    PQfinish(connection);
    return NULL;
}
