/*
 * `wakegate serve`: the reactor. One thread per loop, each with its own listener on the same port, its own
 * connections to the stores, and nothing shared. The main thread has the first loop and the signals.
 *
 *   SIGTERM, SIGINT   no new connections, requests in work may end (DRAIN_SECONDS), then exit 0
 *   SIGHUP            certificates are read anew; connections go on with what they have
 *   SIGUSR1           the suspended fibers, into the log
 */
#include "core/gate/events.h"
#include "core/gate/gate.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/ai/catalogue.h"
#include "core/domain/ai/queue.h"
#include "core/domain/event/event.h"
#include "core/domain/identity/login.h"
#include "core/domain/instance/token.h"
#include "core/domain/instance/visit.h"
#include "core/domain/instance/workspace.h"
#include "core/domain/vault.h"
#include "core/net/stream.h"
#include "core/net/upstream.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "core/serve_tls.h"
#include "handlers/gpu/gpu.h"
#include "handlers/inference/inference.h"
#include "handlers/operator/operator.h"
#include "handlers/ops/ops.h"
#include "handlers/provision/provision.h"
#include "handlers/session/session.h"
#include "handlers/test/test.h"
#include "handlers/workspace/workspace.h"
#include "proto/tls.h"
#include "proto/websocket.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first one that has a path's prefix serves it. The tests' is left out unless it is asked for. */
static const struct surface *const surfaces[] = {
    &surface_test,     &surface_workspace, &surface_session,   &surface_provision,
    &surface_operator, &surface_gpu,       &surface_inference, &surface_ops,
};

static int init_gate(char *error, size_t error_size)
{
    size_t skipped = config->test_endpoints ? 0 : 1;
    events_init();
    return gate_init(surfaces + skipped, ARRAY_SIZE(surfaces) - skipped, error, error_size);
}

enum { HURRY_MS = 2000 };

struct reactor {
    struct loop loop;
    pthread_t thread;
    struct http_server *server;
    struct http_server *metrics; /* the first reactor's */
    struct http_server *pods;    /* NULL: pods come by the front door */
    struct signal_watch signals[4];
    int port;
    int pods_port; /* 0: there is none */
    struct wait hurried;
    struct wait pods_left;
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
    struct tls_context *tls; /* the main thread's; each server has a reference of its own */
    const char *port_file;
} serve;

/* ---- one reactor ---- */

static bool open_rooms(struct loop *loop)
{
    if (!program_open_stores(loop))
        return false;
    ai_open_loop(loop);
    event_open_loop(loop);
    events_open_loop(loop);
    visit_open_loop(loop);
    ops_watch_open(loop);
    test_open_loop(loop);
    return true;
}

static void close_rooms(struct loop *loop)
{
    test_close_loop(loop);
    ops_watch_close(loop);
    events_close_loop(loop);
    upstream_close_loop(loop);
    visit_close_loop(loop);
    ai_close_loop(loop);
    if (loop->index == 0)
        catalogue_close();
    program_close_stores(loop);
}

/* AI calls that have not ended shortly before all connections are cut: their clients are told. */
static void hurry_calls(void *arg)
{
    struct reactor *reactor = arg;
    uint64_t drain_ms = (uint64_t)config->drain_s * 1000;
    uint64_t margin_ms = drain_ms / 4 < HURRY_MS ? drain_ms / 4 : HURRY_MS;
    if (fiber_sleep_ms(drain_ms - margin_ms) == 0)
        ai_end_waits(&reactor->loop);
    wait_done(&reactor->hurried, 0);
}

static void drain_pods(void *arg)
{
    struct reactor *reactor = arg;
    fiber_hold();
    if (reactor->pods) {
        http_server_drain(reactor->pods, clock_in_ms((uint64_t)config->drain_s * 1000));
        http_server_close(reactor->pods);
    }
    fiber_release();
    wait_done(&reactor->pods_left, 0);
}

static void drain(struct reactor *reactor)
{
    fiber_start(&reactor->loop, "pods' calls at the end", drain_pods, reactor);
    struct fiber *hurry = fiber_start(&reactor->loop, "AI calls at the end", hurry_calls, reactor);
    http_server_drain(reactor->server, clock_in_ms((uint64_t)config->drain_s * 1000));
    if (!reactor->hurried.done)
        fiber_cancel(hurry);
    CHECK(wait_for(&reactor->hurried, "AI calls at the end", CLOCK_NEVER) == 0);
    CHECK(wait_for(&reactor->pods_left, "pods' calls at the end", CLOCK_NEVER) == 0);
}

static void close_reactor(void *arg)
{
    struct reactor *reactor = arg;
    fiber_hold();
    events_end_streams(&reactor->loop);
    if (reactor->server) {
        drain(reactor);
        http_server_close(reactor->server);
    }
    program_close_metrics(reactor->metrics);
    close_rooms(&reactor->loop);
    if (reactor->loop.index == 0)
        for (size_t i = 0; i < ARRAY_SIZE(reactor->signals); i++)
            signal_close(&reactor->signals[i]);
    fiber_release();
    loop_stop(&reactor->loop);
}

/* What streams and parsers keep for the next one, after the last one. */
static void end_loop(struct loop *loop)
{
    stream_close_loop(loop);
    websocket_close_thread();
    loop_close(loop);
}

static void begin_close(void *arg)
{
    struct reactor *reactor = arg;
    if (reactor->closing)
        return;
    reactor->closing = true;
    fiber_start(&reactor->loop, "close", close_reactor, reactor);
}

static void internal_ended(struct http_request *request)
{
    if (request->owner) /* the gate's */
        gate_ended(request);
}

static bool listen_here(struct reactor *reactor, int port)
{
    const struct http_server_options options = {
        .address = config->listen_address,
        .port = port,
        .tls = serve.tls,
        .max_connections = (size_t)(config->max_connections / serve.count + 1),
        .is_trusted = gate_trusts,
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

/* Pods are on this machine or its network, and may trust other authorities than signed our certificate. */
static void answer_pod(struct http_request *request)
{
    struct str token = http1_header(request->head, "authorization");
    if (instance_token_is_bearer(token))
        gate_handle(request);
    else
        http_answer(request, 404, STR("pods' calls alone are answered here\n"));
}

/* POD_LISTEN is heard by every reactor, as the front door is. */
static bool listen_to_pods(struct reactor *reactor)
{
    char address[PROGRAM_ADDRESS_SIZE];
    int port;
    if (!config->pod_listen[0])
        return true;
    if (program_read_listen("POD_LISTEN", config->pod_listen, address, &port))
        return false;
    const struct http_server_options options = {
        .address = address,
        .port = reactor == serve.reactors ? port : serve.reactors[0].pods_port,
        .max_connections = (size_t)(config->max_connections / serve.count + 1),
        .handle = answer_pod,
        .ended = internal_ended,
        .malformed = gate_malformed,
    };
    int result = http_server_open(&reactor->loop, &options, &reactor->pods);
    if (result) {
        fprintf(stderr, "wakegate serve: POD_LISTEN can't be listened on: %s\n", log_errno(result));
        return false;
    }
    reactor->pods_port = http_server_port(reactor->pods);
    return true;
}

static void *reactor_main(void *arg)
{
    struct reactor *reactor = arg;
    loop_open(&reactor->loop, (unsigned)(reactor - serve.reactors));
    fiber_guard_install();
    if (open_rooms(&reactor->loop) &&
        (!listen_here(reactor, serve.reactors[0].port) || !listen_to_pods(reactor)))
        LOG(ERROR, "a reactor can't listen", LOG_INT("reactor", reactor->loop.index));
    __atomic_store_n(&reactor->opened, true, __ATOMIC_RELEASE);
    loop_run(&reactor->loop);
    end_loop(&reactor->loop);
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

struct reload {
    struct reactor *reactor;
    struct tls_context *context;
};

static void use_certificates(void *arg)
{
    struct reload *reload = arg;
    if (reload->reactor->server && !reload->reactor->closing)
        http_server_set_tls(reload->reactor->server, reload->context);
    tls_context_unref(reload->context);
    free(reload);
}

/* Files are read on the loop here: they are small, and it happens once in months. */
static void on_reload(void *arg)
{
    (void)arg;
    char error[512];
    struct tls_context *context;
    if (serve_tls_load(serve.tls, &context, error, sizeof error)) {
        LOG(ERROR, "the certificates were not read anew, the old ones stay", LOG_TEXT("why", error));
        return;
    }
    if (!context)
        return;
    for (unsigned i = 0; i < serve.running; i++) {
        struct reload *reload = mem_alloc(sizeof *reload);
        *reload = (struct reload){&serve.reactors[i], tls_context_ref(context)};
        loop_post(&serve.reactors[i].loop, use_certificates, reload);
    }
    tls_context_unref(serve.tls);
    serve.tls = context;
    LOG(INFO, "certificates were read anew", LOG_INT("reactors", serve.running));
}

/* Connections get what the system allows but for a reserve, and for what is open already. */
static void limit_descriptors(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    int64_t own = config->descriptor_reserve + (int64_t)serve.count * (config->pg_pool + 16);
    int64_t limit = files.rlim_cur > INT32_MAX ? INT32_MAX : (int64_t)files.rlim_cur;
    limit = limit > own + 16 ? limit - own : 16;
    if (limit < config->max_connections)
        LOG(WARN, "the limit on open files is below MAX_CONNECTIONS", LOG_INT("connections", limit));
    stream_set_limit(limit);
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

/* METRICS_LISTEN tells health too, also when the public port is full. */
static void answer_internal(struct http_request *request)
{
    static const char *const paths[] = {"/health", "/livez", "/readyz"};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
        if (str_equal(request->head->target, str_from(paths[i]))) {
            gate_handle(request);
            return;
        }
    program_answer_metrics(request);
}

/* The front door's, and in a second line that for pods, where there is one. */
static bool write_port_file(const char *path, const struct reactor *first)
{
    FILE *file = path ? fopen(path, "we") : NULL;
    bool written = !path || (file && fprintf(file, "%d\n", first->port) > 0);
    if (file && first->pods)
        written = fprintf(file, "%d\n", first->pods_port) > 0 && written;
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

/* Models are there before the first request for one. */
static bool read_catalogue(struct loop *loop)
{
    catalogue_open(loop);
    bool fine = catalogue_wait(clock_in_ms((uint64_t)config->pg_timeout_ms)) == 0;
    if (!fine)
        fputs("wakegate serve: models and providers could not be read\n", stderr);
    return fine;
}

static void start(void *arg)
{
    struct reactor *first = arg;
    first->failed = !program_check_stores("serve") || !port_is_free() || !read_catalogue(&first->loop) ||
                    !listen_here(first, (int)config->port) || !listen_to_pods(first) ||
                    !program_open_metrics(&first->loop, answer_internal, internal_ended, &first->metrics) ||
                    !start_others() || !write_port_file(serve.port_file, first);
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
    signal_open(&first->loop, &first->signals[3], SIGHUP, on_reload, first);
    serve.running = 1;
    if (open_rooms(&first->loop)) {
        fiber_start(&first->loop, "start", start, first);
    } else {
        first->failed = true;
        begin_close(first);
    }
    loop_run(&first->loop);
    for (unsigned i = 1; i < serve.running; i++)
        pthread_join(serve.reactors[i].thread, NULL);
    end_loop(&first->loop);
    return !first->failed;
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
    char error[512];
    if (!program_settings("serve", env_file) || !program_can_open_stores("serve"))
        return 2;
    if (init_gate(error, sizeof error) || login_init(error, sizeof error)) {
        fprintf(stderr, "wakegate serve: %s\n", error);
        return 2;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    serve.count = config->reactors ? (unsigned)config->reactors : cores > 0 ? (unsigned)cores : 1;
    serve.reactors = mem_zalloc(serve.count * sizeof *serve.reactors);
    program_begin("serve");
    workspace_init();
    limit_descriptors();
    bool fine = serve_tls_load(NULL, &serve.tls, error, sizeof error) == 0;
    if (fine)
        fine = run_all();
    else
        fprintf(stderr, "wakegate serve: %s\n", error);
    tls_context_unref(serve.tls);
    LOG(INFO, "stopped", LOG_BOOL("clean", fine));
    free(serve.reactors);
    catalogue_clear();
    gate_clear();
    login_clear();
    vault_close();
    log_close();
    config_clear();
    return fine ? 0 : 1;
}

int routes_main(int argc, char **argv)
{
    char error[256];
    if (options_read("routes", argc, argv, NULL, 0, NULL, 0) < 0)
        return 2;
    if (init_gate(error, sizeof error))
        return 2;
    gate_print_routes(stdout);
    gate_clear();
    return 0;
}
