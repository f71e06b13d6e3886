/*
 * `wakegate up`: what is started in which order, and stopped in which.
 *
 *     PostgreSQL ──▶ migrate ──┬──▶ serve ───────────────┬──▶ "Wakegate listens on ..."
 *     Redis ───────────────────┼──▶ work, work ...       │
 *                              └──▶ admin demo ──────────┘   (once)
 *
 * Stopping goes the other way: serve answers what it has, the workers end their jobs, then the servers go. Every
 * child gets a signal when this process dies, so that none is left behind when it is killed. Pods are the
 * workers' children, not ours, and outlive them.
 */
#include "core/up.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "core/up_listen.h"
#include "core/up_part.h"
#include "core/up_place.h"
#include "core/up_postgres.h"
#include "core/up_redis.h"
#include "core/up_say.h"
#include "core/up_settings.h"
#include "proto/json.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WORKERS_MAX = 64,
    SERVE_READY_MS = 60000,
    SERVER_STOP_MS = 60000, /* for PostgreSQL and Redis */
    DRAIN_EXTRA_MS = 5000,  /* what serve and work get over the time that requests and jobs have */
    PORT_WAIT_MS = 500,     /* for the port of an earlier run that was killed this moment */
    POLL_MS = 5,
    EXIT_USAGE = 2,
};

#define PODS_ADDRESS "127.0.0.1"

struct options {
    const char *data;
    int port; /* -1: as in the settings */
    int workers;
    bool verbose;
};

struct up {
    struct options options;
    struct up_place place;
    char program[PATH_MAX]; /* ours */
    char *port_file;
    int port;      /* serve's; 0 until it has taken a free one */
    int pods_port; /* likewise, where it listens for pods */
    struct up_listen listen;
    struct part postgres;
    struct part redis;
    struct part serve;
    struct part workers[WORKERS_MAX];
    struct fiber *fiber;
    struct signal_watch interrupt;
    struct signal_watch terminate;
    struct signal_watch hangup;
    bool hangs_up;
    bool stopping;
    bool failed;
};

/* ---- children that are this program ---- */

/* The file that we were started from, or another name of it when it was replaced since. */
static void find_program(char program[PATH_MAX])
{
    struct stat running, named;
    ssize_t size = readlink("/proc/self/exe", program, PATH_MAX - 1);
    program[size > 0 ? size : 0] = '\0';
    if (stat("/proc/self/exe", &running) || stat(program, &named) || running.st_dev != named.st_dev ||
        running.st_ino != named.st_ino)
        strcpy(program, "/proc/self/exe");
}

static bool is_secure(void)
{
    return config->tls_dev || config->tls_cert[0];
}

/* Under TLS pods may not trust our certificate, and it may be for another name: they have a listener of their own, in plain. */
static bool hears_pods(void)
{
    return is_secure() && !*config->pod_gateway_url;
}

static int prepare_serve(struct part *part, struct arena *arena, struct child_options *options)
{
    struct up *up = part->context;
    unlink(up->port_file);
    const char *argv[] = {"wakegate",    "serve",       "--env-file", up->place.settings,
                          "--port-file", up->port_file, NULL};
    const char *variables[] = {arena_printf(arena, "PORT=%d", up->port), NULL, NULL};
    if (hears_pods() && !*config->pod_listen)
        variables[1] = arena_printf(arena, "POD_LISTEN=%s:%d", PODS_ADDRESS, up->pods_port);
    options->program = up->program;
    options->argv = memcpy(arena_alloc(arena, sizeof argv), argv, sizeof argv);
    options->variables = memcpy(arena_alloc(arena, sizeof variables), variables, sizeof variables);
    return 0;
}

static const char *pods_address(struct arena *arena)
{
    int port;
    if (!*config->pod_listen)
        return PODS_ADDRESS;
    char *address = arena_alloc(arena, PROGRAM_ADDRESS_SIZE);
    int result = program_read_listen("POD_LISTEN", config->pod_listen, address, &port);
    CHECK(result == 0); /* serve listens there */
    return address;
}

/* Where pods call models: as the settings have it, or serve, once its port is known. */
static int add_gateway(struct up *up, struct arena *arena, struct child_options *options)
{
    struct up_listen listen;
    struct buf url = {0};
    if (*config->pod_gateway_url)
        return 0;
    while ((hears_pods() ? up->pods_port : up->port) == 0) {
        int result = fiber_sleep_ms(POLL_MS);
        if (result)
            return result;
    }
    if (hears_pods())
        CHECK(up_listen_parse(&listen, pods_address(arena), up->pods_port) == 0);
    else
        CHECK(up_listen_parse(&listen, config->listen_address, up->port) == 0);
    up_listen_url(&listen, false, &url);
    const char *variables[] = {arena_printf(arena, "POD_GATEWAY_URL=%.*s", STR_ARG(buf_str(&url))), NULL};
    options->variables = memcpy(arena_alloc(arena, sizeof variables), variables, sizeof variables);
    buf_clear(&url);
    return 0;
}

static int prepare_work(struct part *part, struct arena *arena, struct child_options *options)
{
    struct up *up = part->context;
    const char *argv[] = {"wakegate", "work", "--stop-pods", "--env-file", up->place.settings, NULL};
    options->program = up->program;
    options->argv = memcpy(arena_alloc(arena, sizeof argv), argv, sizeof argv);
    return add_gateway(up, arena, options);
}

/* The numbers in the file that serve writes when it listens; false: it is not whole. */
static bool read_ports(const char *path, int *port, int *pods_port)
{
    char ends[2] = "";
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    int read = fscanf(file, "%d%c%d%c", port, &ends[0], pods_port, &ends[1]);
    fclose(file);
    return hears_pods() ? read == 4 && ends[1] == '\n' : read == 2 && ends[0] == '\n';
}

static int wait_serve_ready(struct part *part)
{
    struct up *up = part->context;
    uint64_t deadline_ns = clock_in_ms(SERVE_READY_MS);
    int port = 0;
    int pods_port = 0;
    while (!read_ports(up->port_file, &port, &pods_port)) {
        if (child_ended(part->child))
            return -ESRCH;
        if (clock_now_ns() >= deadline_ns)
            return -ETIMEDOUT;
        int result = fiber_sleep_ms(POLL_MS);
        if (result)
            return result;
    }
    up->port = port; /* free ones are kept when serve is started again */
    up->pods_port = pods_port;
    CHECK(up_listen_parse(&up->listen, config->listen_address, port) == 0);
    /* Asked in plain: under TLS it says in plain that it speaks TLS, which shows as well that it is there. */
    return part_ask(part, (const struct sockaddr *)&up->listen.address, up->listen.size,
                    STR("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                    is_secure() ? STR("HTTP/1.1 400") : STR("HTTP/1.1 200"), deadline_ns);
}

static const struct part_kind serve_kind = {
    .prepare = prepare_serve,
    .wait_ready = wait_serve_ready,
    .death_signal = SIGKILL,
    .stop_signal = SIGTERM,
};

static const struct part_kind work_kind = {
    .prepare = prepare_work,
    .death_signal = SIGKILL,
    .stop_signal = SIGTERM,
};

static int run_migrations(struct up *up)
{
    char *log = up_path(up->place.log, "migrate.log");
    const char *argv[] = {"wakegate", "migrate", "--env-file", up->place.settings, NULL};
    int result = up_run("bring the database's schema up to date", log,
                        &(struct child_options){.program = up->program, .argv = argv}, NULL);
    free(log);
    return result;
}

/* ---- credentials ---- */

/* Their answer goes through memory only: the file of credentials alone keeps them. */
static int make_credentials(struct up *up, struct arena *arena, const char *names, const struct json **made)
{
    const char *reason;
    struct buf answer = {0};
    char *log = up_path(up->place.log, "admin.log");
    const char *argv[] = {"wakegate", "admin",  "demo",       "credentials",      "--names",
                          names,      "--json", "--env-file", up->place.settings, NULL};
    int result = up_run("make credentials", log,
                        &(struct child_options){.program = up->program, .argv = argv}, &answer);
    free(log);
    if (result == 0) {
        *made = json_read(arena, str_trim(buf_str(&answer)), &reason);
        if (json_type_of(*made) != JSON_OBJECT) {
            up_say("can't make credentials: `wakegate admin` did not answer with them");
            result = -EPROTO;
        }
    }
    if (answer.at)
        crypto_wipe(answer.at, answer.capacity);
    buf_clear(&answer);
    return result;
}

static bool wipe_member(struct str name, const struct json *value, void *arg)
{
    struct str text = json_string(value);
    (void)name;
    (void)arg;
    if (text.size)
        crypto_wipe((char *)(uintptr_t)text.at, text.size);
    return true;
}

/* ---- starting ---- */

static void set_part(struct up *up, struct part *part, const struct part_kind *kind, const char *name,
                     const char *log)
{
    bool server = kind == &up_postgres || kind == &up_redis;
    *part = (struct part){
        .kind = kind,
        .name = name,
        .log = up->options.verbose && !server ? NULL : up_path(up->place.log, log),
        .context = server ? (void *)&up->place : (void *)up,
        .stop_ms = server ? SERVER_STOP_MS : (uint64_t)config->drain_s * 1000 + DRAIN_EXTRA_MS,
    };
}

static int check_port(struct up *up)
{
    const char *address = config->listen_address;
    uint64_t deadline_ns = clock_in_ms(PORT_WAIT_MS);
    for (;;) {
        int result = up_listen_check_free(address, up->port);
        if (result == -EINVAL)
            up_say("LISTEN_ADDRESS must be an IPv4 or IPv6 address, not \"%.60s\"", address);
        else if (result && (result != -EADDRINUSE || clock_now_ns() >= deadline_ns))
            up_say("can't listen on port %d of %s: %s%s", up->port, address, strerror(-result),
                   result == -EADDRINUSE ? " (--port N takes another, --port 0 a free one)" : "");
        else if (result == 0)
            return 0;
        else
            result = fiber_sleep_ms(POLL_MS);
        if (result)
            return result;
    }
}

/* Folders, lock and settings; `missing` gets the names of credentials that are to be made. */
static int prepare(struct up *up, struct buf *missing)
{
    char error[UP_ERROR_SIZE];
    int result = up_place_open(&up->place, up->options.data, error);
    if (result == 0)
        result = up_settings_make(&up->place, error);
    if (result == 0)
        result = up_credentials_missing(&up->place, up_postgres_is_new(&up->place), missing, error);
    if (result == 0)
        result = config_load(up->place.settings, error, sizeof error);
    if (result) {
        up_say("%s", error);
        return result;
    }
    up->port_file = up_path(up->place.run, "port");
    up->port = up->options.port >= 0 ? up->options.port : (int)config->port;
    return check_port(up);
}

static int start_servers(struct up *up)
{
    set_part(up, &up->postgres, &up_postgres, "PostgreSQL", "postgres.log");
    set_part(up, &up->redis, &up_redis, "Redis", "redis.log");
    part_begin(&up->postgres);
    part_begin(&up->redis);
    int result = part_wait_started(&up->postgres);
    if (result == 0)
        result = run_migrations(up);
    return result ? result : part_wait_started(&up->redis);
}

static int start_ours(struct up *up, struct arena *arena, const char *missing, const struct json **made)
{
    set_part(up, &up->serve, &serve_kind, "serve", "serve.log");
    part_begin(&up->serve);
    for (int i = 0; i < up->options.workers; i++) {
        set_part(up, &up->workers[i], &work_kind, "work", "work.log");
        part_begin(&up->workers[i]);
    }
    int result = missing ? make_credentials(up, arena, missing, made) : 0;
    if (result == 0)
        result = part_wait_started(&up->serve);
    /* A worker gives no sign of being ready; one with bad settings has ended by now. */
    for (int i = 0; result == 0 && i < up->options.workers; i++)
        result = part_lives(&up->workers[i]) ? 0 : -ESRCH;
    return result;
}

/* ---- telling ---- */

/* As a word of a shell command. */
static void add_word(struct buf *text, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+:,@%";
    if (word[strspn(word, plain)] == '\0') {
        buf_add_text(text, word);
        return;
    }
    buf_add_char(text, '\'');
    for (; *word; word++)
        if (*word == '\'')
            buf_add_literal(text, "'\\''");
        else
            buf_add_char(text, *word);
    buf_add_char(text, '\'');
}

static void tell(struct up *up, struct str url)
{
    struct buf text = {0};
    buf_printf(&text, "Wakegate listens on %.*s\n", STR_ARG(url));
    buf_printf(&text, "Credentials are in %s, settings in %s, logs in %s. Try:\n\n    . ",
               up->place.credentials, up->place.settings, up->place.log);
    add_word(&text, up->place.credentials);
    buf_add_literal(&text, "\n    curl --json '{\"user_id\":\"ada\"}' -H \"X-API-Key: $SESSION_API_KEY\" "
                           "$WAKEGATE_URL/session/create\n\nCtrl-C stops it.\n");
    fwrite(text.at, 1, text.size, stdout);
    fflush(stdout);
    buf_clear(&text);
}

static int publish(struct up *up, const struct json *made)
{
    char error[UP_ERROR_SIZE];
    struct buf url = {0};
    up_listen_url(&up->listen, is_secure(), &url);
    int result = up_credentials_save(&up->place, buf_str(&url), made, error);
    if (result)
        up_say("%s", error);
    else
        tell(up, buf_str(&url));
    buf_clear(&url);
    return result;
}

static int start_all(struct up *up)
{
    struct arena arena;
    struct buf missing = {0};
    const struct json *made = NULL;
    arena_init(&arena);
    int result = prepare(up, &missing);
    buf_add_char(&missing, '\0');
    if (result == 0)
        result = start_servers(up);
    if (result == 0)
        result = start_ours(up, &arena, missing.at[0] ? missing.at : NULL, &made);
    if (result == 0)
        result = publish(up, made);
    json_each(made, wipe_member, NULL);
    buf_clear(&missing);
    arena_clear(&arena);
    return result;
}

/* ---- stopping ---- */

static void free_part(struct part *part)
{
    free((char *)(uintptr_t)part->log);
}

static void stop_all(struct up *up)
{
    part_stop(&up->serve);
    for (int i = 0; i < up->options.workers; i++)
        part_cancel(&up->workers[i]);
    for (int i = 0; i < up->options.workers; i++)
        part_stop(&up->workers[i]);
    part_cancel(&up->redis);
    part_stop(&up->postgres);
    part_stop(&up->redis);
    free_part(&up->serve);
    free_part(&up->redis);
    free_part(&up->postgres);
    for (int i = 0; i < up->options.workers; i++)
        free_part(&up->workers[i]);
}

/* The first asks for an end in order; a second no longer waits for requests and jobs in work. */
static void on_signal(void *arg)
{
    struct up *up = arg;
    if (!up->stopping) {
        up->stopping = true;
        up_say("stopping");
        fiber_cancel(up->fiber);
        return;
    }
    part_kill(&up->serve);
    for (int i = 0; i < up->options.workers; i++)
        part_kill(&up->workers[i]);
}

static void watch_signals(struct up *up)
{
    struct sigaction before;
    /* nohup: to outlive the terminal was asked for. */
    bool outlive = sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    signal_open(loop_self(), &up->interrupt, SIGINT, on_signal, up);
    signal_open(loop_self(), &up->terminate, SIGTERM, on_signal, up);
    up->hangs_up = !outlive;
    if (up->hangs_up)
        signal_open(loop_self(), &up->hangup, SIGHUP, on_signal, up);
}

static void run(void *arg)
{
    struct up *up = arg;
    up->fiber = fiber_self();
    watch_signals(up);
    int result = start_all(up);
    if (result == 0) {
        struct wait forever = WAIT_INIT;
        result = wait_for(&forever, "a signal", CLOCK_NEVER);
    }
    up->failed = result != -ECANCELED;
    up->stopping = true;
    fiber_hold();
    stop_all(up);
    fiber_release();
    signal_close(&up->interrupt);
    signal_close(&up->terminate);
    if (up->hangs_up)
        signal_close(&up->hangup);
}

/* ---- the command line ---- */

static bool parse_number(const char *option, const char *text, int least, int most, int *number)
{
    uint64_t value;
    if (!text)
        return true;
    if (!str_to_u64(str_from(text), &value) || value < (uint64_t)least || value > (uint64_t)most) {
        up_say("%s needs a whole number from %d to %d, not \"%.40s\"", option, least, most, text);
        return false;
    }
    *number = (int)value;
    return true;
}

/* False when there is nothing to run: *status is the exit status then. */
static bool parse_options(int argc, char **argv, struct options *options, int *status)
{
    const char *port = NULL;
    const char *workers = NULL;
    bool help = false;
    const struct option_row rows[] = {
        {"--data", &options->data, NULL, "folder of data, logs, settings and credentials (.wakegate)"},
        {"--port", &port, NULL, "port to listen on, 0 for a free one (PORT in settings.env: 8080)"},
        {"--workers", &workers, NULL, "worker processes, 1 to 64 (1)"},
        {"--verbose", NULL, &options->verbose, "show the log of serve and work here, not in DIR/log"},
        {"--help", NULL, &help, "this"},
    };
    *options = (struct options){.data = ".wakegate", .port = -1, .workers = 1};
    *status = EXIT_USAGE;
    if (options_read("up", argc, argv, rows, ARRAY_SIZE(rows), NULL, 0) < 0 ||
        !parse_number("--port", port, 0, 65535, &options->port) ||
        !parse_number("--workers", workers, 1, WORKERS_MAX, &options->workers))
        return false;
    if (!help)
        return true;
    puts(
        "wakegate up: everything on this machine, with a PostgreSQL and a Redis of its own, until Ctrl-C\n\nOptions:");
    options_help(rows, ARRAY_SIZE(rows));
    puts("\nSettings are read from settings.env in that folder and from the environment, which wins.");
    *status = EXIT_SUCCESS;
    return false;
}

int up_main(int argc, char **argv)
{
    struct up *up = mem_zalloc(sizeof *up);
    int status;
    if (!parse_options(argc, argv, &up->options, &status)) {
        free(up);
        return status;
    }
    up->place.lock = -1;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    up_settings_own_environment();
    find_program(up->program);
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "up", run, up);
    loop_close(&loop);
    bool failed = up->failed;
    up_place_close(&up->place);
    free(up->port_file);
    free(up);
    config_clear();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
