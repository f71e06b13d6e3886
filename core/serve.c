/*
 * `wakegate serve`: the reactor. One thread per loop, each with its own listener on the same port, its own
 * connections to the stores, and nothing shared. The main thread has the first loop and the signals.
 *
 *   SIGTERM, SIGINT   no new connections, requests in work may end (DRAIN_SECONDS), then exit 0
 *   SIGUSR1           the suspended fibers, into the log
 */
#include "core/serve.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "handlers/ops/ops.h"
#include "handlers/session/session.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

const struct surface *const serve_surfaces[] = {&surface_session, &surface_ops};
const size_t serve_surface_count = ARRAY_SIZE(serve_surfaces);

struct reactor {
    struct loop loop;
    pthread_t thread;
    struct http_server *server;
    struct http_server *metrics; /* the first reactor's */
    struct signal_watch signals[3];
    int port;
    bool opened;
    bool closing;
    bool failed;
};

static struct {
    struct reactor *reactors;
    unsigned count;
    unsigned running;
    bool started;
    bool closing;
    const char *port_file;
} serve;

/* ---- one reactor ---- */

static void close_reactor(void *arg)
{
    struct reactor *reactor = arg;
    fiber_hold();
    if (reactor->server) {
        http_server_drain(reactor->server, clock_in_ms((uint64_t)config->drain_s * 1000));
        http_server_close(reactor->server);
    }
    program_close_metrics(reactor->metrics);
    ops_watch_close(&reactor->loop);
    program_close_stores(&reactor->loop);
    http_close_loop(&reactor->loop);
    if (reactor->loop.index == 0)
        for (size_t i = 0; i < ARRAY_SIZE(reactor->signals); i++)
            signal_close(&reactor->signals[i]);
    fiber_release();
    loop_stop(&reactor->loop);
}

static void begin_close(void *arg)
{
    struct reactor *reactor = arg;
    if (reactor->closing)
        return;
    reactor->closing = true;
    fiber_start(&reactor->loop, "close", close_reactor, reactor);
}

static bool listen_here(struct reactor *reactor, int port)
{
    const struct http_server_options options = {
        .address = config->listen_address,
        .port = port,
        .max_connections = (size_t)(config->max_connections / serve.count + 1),
        .handle = gate_handle,
        .ended = gate_ended,
        .malformed = gate_malformed,
    };
    int result = http_server_open(&reactor->loop, &options, &reactor->server);
    if (result) {
        fprintf(stderr, "wakegate serve: can't listen on %s port %d: %s\n", config->listen_address, port,
                log_errno(result));
        return false;
    }
    reactor->port = http_server_port(reactor->server);
    return true;
}

static void *reactor_main(void *arg)
{
    struct reactor *reactor = arg;
    loop_open(&reactor->loop, (unsigned)(reactor - serve.reactors));
    fiber_guard_install();
    if (program_open_stores(&reactor->loop)) {
        ops_watch_open(&reactor->loop);
        if (!listen_here(reactor, serve.reactors[0].port))
            LOG(ERROR, "a reactor can't listen", LOG_INT("reactor", reactor->loop.index));
    }
    __atomic_store_n(&reactor->opened, true, __ATOMIC_RELEASE);
    loop_run(&reactor->loop);
    loop_close(&reactor->loop);
    return NULL;
}

/* ---- the first one, which starts and ends the others ---- */

/* While it starts, `start` closes it once it is through: there may be reactors that are not counted yet. */
static void on_terminate(void *arg)
{
    (void)arg;
    LOG(INFO, "draining", LOG_INT("seconds", config->drain_s));
    ops_set_draining();
    serve.closing = true;
    if (!serve.started)
        return;
    for (unsigned i = 0; i < serve.running; i++)
        loop_post(&serve.reactors[i].loop, begin_close, &serve.reactors[i]);
}

static void list_fibers(void *arg)
{
    loop_log_fibers(arg);
}

static void on_list(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < serve.running; i++)
        loop_post(&serve.reactors[i].loop, list_fibers, &serve.reactors[i].loop);
}

/* SO_REUSEPORT would let two servers share the port without a word: a plain bind tells. */
static bool port_is_free(void)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)config->port)};
    int descriptor = config->port ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (descriptor < 0 || uv_ip4_addr(config->listen_address, (int)config->port, &where) != 0) {
        if (descriptor >= 0)
            close(descriptor);
        return true; /* the real bind will say what is wrong */
    }
    int on = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool is_free = bind(descriptor, (struct sockaddr *)&where, sizeof where) == 0 || errno != EADDRINUSE;
    close(descriptor);
    if (!is_free)
        fprintf(stderr, "wakegate serve: port %d of %s is in use\n", (int)config->port,
                config->listen_address);
    return is_free;
}

static bool write_port_file(const char *path, int port)
{
    FILE *file = path ? fopen(path, "we") : NULL;
    bool written = !path || (file && fprintf(file, "%d\n", port) > 0);
    if (file)
        written = fclose(file) == 0 && written;
    if (!written)
        fprintf(stderr, "wakegate serve: can't write %s\n", path);
    return written;
}

static bool start_others(void)
{
    for (unsigned i = 1; i < serve.count; i++) {
        struct reactor *reactor = &serve.reactors[i];
        /* Signals belong to the main thread. */
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int result = pthread_create(&reactor->thread, NULL, reactor_main, reactor);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (result) {
            fprintf(stderr, "wakegate serve: can't start a thread\n");
            return false;
        }
        serve.running++;
        while (!__atomic_load_n(&reactor->opened, __ATOMIC_ACQUIRE))
            if (fiber_sleep_ms(1))
                return false;
    }
    return true;
}

static void start(void *arg)
{
    struct reactor *first = arg;
    first->failed = !program_check_stores("serve") || !port_is_free() ||
                    !listen_here(first, (int)config->port) ||
                    !program_open_metrics(&first->loop, &first->metrics) || !start_others() ||
                    !write_port_file(serve.port_file, first->port);
    serve.started = true;
    if (!first->failed)
        LOG(INFO, "listening", LOG_TEXT("address", config->listen_address), LOG_INT("port", first->port),
            LOG_INT("reactors", serve.count));
    if (first->failed || serve.closing)
        on_terminate(NULL);
}

static bool run_all(void)
{
    struct reactor *first = &serve.reactors[0];
    loop_open(&first->loop, 0);
    fiber_guard_install();
    signal_open(&first->loop, &first->signals[0], SIGTERM, on_terminate, NULL);
    signal_open(&first->loop, &first->signals[1], SIGINT, on_terminate, NULL);
    signal_open(&first->loop, &first->signals[2], SIGUSR1, on_list, NULL);
    serve.running = 1;
    if (program_open_stores(&first->loop)) {
        ops_watch_open(&first->loop);
        fiber_start(&first->loop, "start", start, first);
    } else {
        first->failed = true;
        begin_close(first);
    }
    loop_run(&first->loop);
    for (unsigned i = 1; i < serve.running; i++)
        pthread_join(serve.reactors[i].thread, NULL);
    loop_close(&first->loop);
    return !first->failed;
}

static bool settings_are_fit(void)
{
    const char *missing = !config->database_url[0]     ? "DATABASE_URL"
                          : !config->redis_url[0]      ? "REDIS_URL"
                          : !config->encryption_key[0] ? "ENCRYPTION_KEY"
                                                       : NULL;
    if (missing)
        fprintf(stderr, "wakegate serve: %s must be set\n", missing);
    return !missing;
}

int serve_main(int argc, char **argv)
{
    const char *env_file = NULL;
    bool help = false;
    const struct option_row rows[] = {
        {"--env-file", &env_file, NULL, "file of NAME=value lines; the environment wins"},
        {"--port-file", &serve.port_file, NULL, "file to write the port to, once it is listened on"},
        {"--help", NULL, &help, "this"},
    };
    if (options_read("serve", argc, argv, rows, ARRAY_SIZE(rows), NULL, 0) < 0)
        return 2;
    if (help) {
        puts("wakegate serve: the reactor\n\nOptions:");
        options_help(rows, ARRAY_SIZE(rows));
        puts("\nSettings, from the environment:");
        config_print_help(stdout);
        return 0;
    }
    char error[256];
    if (!program_settings("serve", env_file) || !settings_are_fit())
        return 2;
    if (gate_init(serve_surfaces, serve_surface_count, error, sizeof error)) {
        fprintf(stderr, "wakegate serve: %s\n", error);
        return 2;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    serve.count = config->reactors ? (unsigned)config->reactors : cores > 0 ? (unsigned)cores : 1;
    serve.reactors = mem_zalloc(serve.count * sizeof *serve.reactors);
    program_begin("serve");
    bool fine = run_all();
    LOG(INFO, "stopped", LOG_BOOL("clean", fine));
    free(serve.reactors);
    gate_clear();
    log_close();
    config_clear();
    return fine ? 0 : 1;
}

int routes_main(int argc, char **argv)
{
    char error[256];
    if (options_read("routes", argc, argv, NULL, 0, NULL, 0) < 0)
        return 2;
    if (gate_init(serve_surfaces, serve_surface_count, error, sizeof error))
        return 2;
    gate_print_routes(stdout);
    gate_clear();
    return 0;
}
