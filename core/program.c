/* What the programs have in common: settings, stores, the metrics listener. */
#include "core/program.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/ai/provider.h"
#include "core/domain/event/event.h"
#include "core/domain/event/webhook.h"
#include "core/domain/identity/key.h"
#include "core/domain/identity/login.h"
#include "core/domain/identity/oauth.h"
#include "core/domain/instance/instance.h"
#include "core/domain/money/lease.h"
#include "core/domain/vault.h"
#include "core/net/fetch.h"
#include "core/net/guard.h"
#include "core/net/stream.h"
#include "core/run/sync.h"
#include "core/store/bell.h"
#include "core/store/limit.h"
#include "core/store/pg.h"
#include "core/store/queue.h"
#include "core/store/redis.h"
#include "proto/prometheus.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

enum { STORES_WAIT_MS = 15000 };

bool program_settings(const char *program, const char *env_file)
{
    char error[512];
    crypto_init();
    if (config_load(env_file, error, sizeof error) == 0 && guard_init(error, sizeof error) == 0 &&
        provider_check_settings(error, sizeof error) == 0)
        return true;
    fprintf(stderr, "wakegate %s: %s\n", program, error);
    return false;
}

bool program_can_open_stores(const char *program)
{
    const char *missing = !config->database_url[0]     ? "DATABASE_URL"
                          : !config->redis_url[0]      ? "REDIS_URL"
                          : !config->encryption_key[0] ? "ENCRYPTION_KEY"
                                                       : NULL;
    if (missing)
        fprintf(stderr, "wakegate %s: %s must be set\n", program, missing);
    return !missing;
}

static enum log_level log_level(void)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strcmp(names[i], config->log_level) == 0)
            return (enum log_level)i;
    return LOG_INFO;
}

void program_begin(const char *program)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    /* Sockets to providers and webhooks as well as from clients: the soft limit is made for programs with few. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    fetch_init();
    http_init();
    queue_name_metrics();
    log_open(program, log_level());
}

bool program_open_stores(struct loop *loop)
{
    char error[512];
    if (redis_open_loop(loop, error, sizeof error) != 0 || pg_open_loop(loop, error, sizeof error) != 0) {
        fprintf(stderr, "wakegate: %s\n", error);
        return false;
    }
    bell_open_loop(loop);
    return true;
}

static int check_stores(char *error, size_t error_size)
{
    uint64_t deadline_ns = clock_in_ms(STORES_WAIT_MS);
    if (redis_wait_ready(redis_shared(), deadline_ns)) {
        snprintf(error, error_size, "Redis (REDIS_URL) does not answer");
        return -ENOTCONN;
    }
    if (pg_wait_ready(deadline_ns)) {
        snprintf(error, error_size, "PostgreSQL (DATABASE_URL) does not answer");
        return -ENOTCONN;
    }
    return redis_check_server(error, error_size);
}

struct migrate_task {
    char error[512];
    int result;
};

static void check_migrations(void *arg)
{
    struct migrate_task *task = arg;
    task->result = migrate_check(task->error, sizeof task->error);
}

bool program_check_stores(const char *program)
{
    struct migrate_task task = {.result = 0};
    int result = check_stores(task.error, sizeof task.error);
    if (result == 0) {
        thread_run("migrations", check_migrations, &task);
        result = task.result;
    }
    if (result == 0)
        result = vault_open(task.error, sizeof task.error);
    if (result)
        fprintf(stderr, "wakegate %s: %s\n", program, task.error);
    return result == 0;
}

void program_close_stores(struct loop *loop)
{
    fiber_hold();
    event_close_loop(loop);
    webhook_close_loop();
    bell_close_loop(loop);
    limit_close_loop(loop);
    key_close_loop(loop);
    login_close_loop(loop);
    oauth_close_loop(loop);
    instance_owner_close_loop(loop);
    lease_close_loop(loop);
    fetch_close_loop(loop);
    pg_close_loop(loop);
    redis_close_loop(loop);
    fiber_release();
}

/* ---- metrics ---- */

void program_answer_metrics(struct http_request *request)
{
    struct str path = request->head->target;
    if (!str_equal(path, STR("/metrics"))) {
        http_answer(request, 404, STR("this is not here\n"));
        return;
    }
    struct buf body = stream_spare_take();
    prometheus_write(&body);
    http_add_header(request, STR("Content-Type"), STR("text/plain; version=0.0.4; charset=utf-8"));
    http_answer(request, 200, buf_str(&body));
    stream_spare_give(&body);
}

void program_metrics_ended(struct http_request *request)
{
    (void)request;
}

static void metrics_malformed(struct http_request *request, int status, const char *reason)
{
    http_answer(request, status, str_from(reason));
}

int program_read_listen(const char *setting, const char *value, char address[PROGRAM_ADDRESS_SIZE], int *port)
{
    int64_t number;
    const char *colon = strrchr(value, ':');
    size_t size = colon ? (size_t)(colon - value) : 0;
    if (size == 0 || size >= PROGRAM_ADDRESS_SIZE || !str_to_i64(str_from(colon + 1), &number) ||
        number < 0 || number > 65535) {
        fprintf(stderr, "wakegate: %s must be an address, a colon and a port\n", setting);
        return -EINVAL;
    }
    memcpy(address, value, size);
    address[size] = '\0';
    *port = (int)number;
    return 0;
}

bool program_open_metrics(struct loop *loop, void (*handle)(struct http_request *request),
                          void (*ended)(struct http_request *request), struct http_server **server)
{
    char address[PROGRAM_ADDRESS_SIZE];
    int port;
    *server = NULL;
    if (!config->metrics_listen[0])
        return true;
    if (program_read_listen("METRICS_LISTEN", config->metrics_listen, address, &port))
        return false;
    const struct http_server_options options = {
        .address = address,
        .port = port,
        .max_connections = 16,
        .reserved = true,
        .handle = handle,
        .ended = ended,
        .malformed = metrics_malformed,
    };
    int result = http_server_open(loop, &options, server);
    if (result)
        fprintf(stderr, "wakegate: METRICS_LISTEN can't be listened on: %s\n", log_errno(result));
    return result == 0;
}

void program_close_metrics(struct http_server *server)
{
    if (!server)
        return;
    http_server_drain(server, clock_now_ns());
    http_server_close(server);
}
