/* The private PostgreSQL of `wakegate up`. */
#include "core/up_postgres.h"

#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/up_leftover.h"
#include "core/up_say.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OWNER "wakegate" /* the role and the database */

enum {
    READY_MS = 600000, /* after a crash the log is replayed first */
    READY_POLL_MS = 5,
    STATUS_LINE = 8, /* of postmaster.pid, as pg_ctl reads it */
};

static const char *const where[] = {"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql*/bin"};

/* clang-format off */
/* The port only names the socket. Parallel workers and JIT cost more than they give for short statements. */
static const char *const fixed[] = {
    "-c", "listen_addresses=",
    "-c", "port=5432",
    "-c", "unix_socket_permissions=0700",
    "-c", "max_connections=200",
    "-c", "shared_buffers=128MB",
    "-c", "fsync=on",
    "-c", "synchronous_commit=on",
    "-c", "wal_compression=on",
    "-c", "max_wal_size=1GB",
    "-c", "checkpoint_timeout=15min",
    "-c", "random_page_cost=1.1",
    "-c", "jit=off",
    "-c", "max_parallel_workers_per_gather=0",
    "-c", "logging_collector=off",
    "-c", "log_destination=stderr",
    "-c", "log_checkpoints=off",
    "-c", "log_statement=none",
    "-c", "timezone=UTC",
    "-c", "log_timezone=UTC",
};
/* clang-format on */

static const char *const plain_locale[] = {"LC_ALL=C", NULL};

/* ---- the programs ---- */

/* The version in /usr/lib/postgresql/15/bin/postgres or /usr/pgsql-15/bin/postgres; 0 without one. */
static int version_of(const char *path)
{
    size_t at = strcspn(path, "0123456789");
    return path[at] ? atoi(path + at) : 0;
}

static bool is_program(const char *path)
{
    struct stat found;
    return access(path, X_OK) == 0 && stat(path, &found) == 0 && S_ISREG(found.st_mode);
}

/* Finds `postgres`: of exactly the version `wanted`, or the newest for 0. */
static const char *find_installed(struct arena *arena, int wanted)
{
    const char *best = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(where); i++) {
        glob_t found;
        if (glob(where[i], 0, NULL, &found))
            continue;
        for (size_t j = 0; j < found.gl_pathc; j++) {
            const char *path = arena_printf(arena, "%s/postgres", found.gl_pathv[j]);
            bool fits = wanted ? version_of(path) == wanted : !best || version_of(path) > version_of(best);
            if (fits && is_program(path))
                best = path;
        }
        globfree(&found);
    }
    return best;
}

/* The major version that a cluster was made by, or 0. */
static int cluster_version(const char *data, struct arena *arena)
{
    int version = 0;
    FILE *file = fopen(arena_printf(arena, "%s/PG_VERSION", data), "re");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &version) != 1)
        version = 0;
    fclose(file);
    return version;
}

static const char *find_program(const char *data, struct arena *arena)
{
    int wanted = cluster_version(data, arena);
    const char *program = find_installed(arena, wanted);
    char *in_path = arena_alloc(arena, PATH_MAX);
    /* What is in PATH has no version to be seen: it says itself when it is the wrong one. */
    if (!program && child_find_program("postgres", in_path, PATH_MAX))
        program = in_path;
    if (!program && wanted)
        up_say("the database in %s was made by PostgreSQL %d, which is not installed", data, wanted);
    else if (!program)
        up_say("PostgreSQL is not installed: make install-deps");
    return program;
}

/* ---- making the cluster, once ---- */

/* Runs a program as PostgreSQL's user. */
static int run_tool(struct part *part, const char *what, const char *const *argv)
{
    const struct up_place *place = part->context;
    struct child_options options = {
        .argv = argv, .variables = plain_locale, .user = place->other_user ? &place->postgres_user : NULL};
    return up_run(what, part->log, &options, NULL);
}

/*
 * A cluster is made beside its place and moved there when it is whole, so that one whose making was interrupted
 * is not taken for it. The database is made by a single-user server, which needs no client and no running one.
 */
static int make_cluster(struct part *part, const char *program, const char *data, struct arena *arena)
{
    const char *fresh = arena_printf(arena, "%s.new", data);
    const char *folder = arena_printf(arena, "%.*s", (int)(strrchr(program, '/') - program), program);
    up_say("making the database in %s", data);
    const char *clear[] = {"/bin/rm", "-rf", "--", fresh, NULL};
    const char *make[] = {arena_printf(arena, "%s/initdb", folder),
                          "-D",
                          fresh,
                          "-U",
                          OWNER,
                          "-A",
                          "trust",
                          "-E",
                          "UTF8",
                          "--locale=C",
                          "--no-instructions",
                          NULL};
    const char *script =
        "printf 'CREATE DATABASE " OWNER "\\n' | \"$0\" --single -c exit_on_error=on -D \"$1\" postgres";
    const char *create[] = {"/bin/sh", "-c", script, program, fresh, NULL};
    int result = run_tool(part, "clear the folder of the database", clear);
    if (result == 0)
        result = run_tool(part, "make the database cluster", make);
    if (result == 0)
        result = run_tool(part, "make the database", create);
    if (result == 0 && rename(fresh, data)) {
        result = -errno;
        up_say("can't make the folder %s: %s", data, strerror(errno));
    }
    return result;
}

/* ---- each start ---- */

static const char *data_path(const struct up_place *place, struct arena *arena)
{
    return arena_printf(arena, "%s/data", place->postgres);
}

/*
 * PostgreSQL refuses to start while the pid in this file belongs to a living process of its user, whichever it
 * is; in a container pids come again. We hold the folder's lock and have seen that nobody works in the folder, so the
 * file is an old one.
 */
static int clear_remains(const char *data, struct arena *arena)
{
    const char *pid_file = arena_printf(arena, "%s/postmaster.pid", data);
    if (access(pid_file, F_OK))
        return 0;
    int result = leftover_stop(&(struct leftover){
        .name = "postgres", .folder = data, .stop_signal = SIGINT, .kill_signal = SIGQUIT});
    if (result == -ETIMEDOUT)
        up_say("a PostgreSQL of an earlier run in %s does not end", data);
    if (result == 0)
        (void)unlink(pid_file);
    return result;
}

static int prepare(struct part *part, struct arena *arena, struct child_options *options)
{
    const struct up_place *place = part->context;
    const char *data = data_path(place, arena);
    const char *program = find_program(data, arena);
    if (!program)
        return -ENOENT;
    int result = access(data, F_OK) ? make_cluster(part, program, data, arena) : clear_remains(data, arena);
    if (result)
        return result;
    const char *own[] = {"-D", data, "-k", place->postgres_run, NULL};
    const char **argv = arena_alloc(arena, (1 + ARRAY_SIZE(fixed) + ARRAY_SIZE(own)) * sizeof *argv);
    argv[0] = program;
    memcpy(argv + 1, fixed, sizeof fixed);
    memcpy(argv + 1 + ARRAY_SIZE(fixed), own, sizeof own);
    options->argv = argv;
    options->variables = plain_locale;
    options->user = place->other_user ? &place->postgres_user : NULL;
    return 0;
}

/* Reads what the server writes about itself: its pid first, "ready" in the eighth line once it takes connections. */
static bool is_ready(const char *pid_file, pid_t pid)
{
    char text[1024];
    int descriptor = open(pid_file, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    ssize_t got = read(descriptor, text, sizeof text);
    close(descriptor);
    struct str rest = str_of(text, got > 0 ? (size_t)got : 0);
    struct str line = STR_NONE;
    uint64_t writer;
    if (!str_split(&rest, '\n', &line) || !str_to_u64(str_trim(line), &writer) || writer != (uint64_t)pid)
        return false;
    for (int number = 2; number <= STATUS_LINE; number++)
        if (!str_split(&rest, '\n', &line))
            return false;
    return str_equal(str_trim(line), STR("ready"));
}

static int wait_ready(struct part *part)
{
    struct arena arena;
    arena_init(&arena);
    const char *pid_file = arena_printf(&arena, "%s/postmaster.pid", data_path(part->context, &arena));
    uint64_t deadline_ns = clock_in_ms(READY_MS);
    int result = 0;
    while (result == 0 && !is_ready(pid_file, child_pid(part->child))) {
        if (child_ended(part->child))
            result = -ESRCH;
        else if (clock_now_ns() >= deadline_ns)
            result = -ETIMEDOUT;
        else
            result = fiber_sleep_ms(READY_POLL_MS);
    }
    arena_clear(&arena);
    return result;
}

const struct part_kind up_postgres = {
    .prepare = prepare,
    .wait_ready = wait_ready,
    .death_signal = SIGINT,
    .stop_signal = SIGINT, /* ends sessions, then itself, in order */
};

bool up_postgres_is_new(const struct up_place *place)
{
    char *data = up_path(place->postgres, "data");
    bool is_new = access(data, F_OK) != 0;
    free(data);
    return is_new;
}

void up_postgres_url(const struct up_place *place, struct buf *url)
{
    buf_add_literal(url, "postgresql:///" OWNER "?user=" OWNER "&port=5432&host=");
    escape_percent_encode(url, str_from(place->postgres_run));
}
