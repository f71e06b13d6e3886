/* The private Redis of `wakegate up`. */
#include "core/up_redis.h"

#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/up_leftover.h"
#include "core/up_say.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/un.h>

enum { READY_MS = 300000 /* a long append-only file is read first */ };

/* clang-format off */
static const char *const fixed[] = {
    "--port", "0", /* no TCP */
    "--unixsocketperm", "700",
    "--daemonize", "no",
    "--appendonly", "yes",
    "--appendfsync", "everysec",
    "--save", "",
    "--maxmemory-policy", "noeviction", /* jobs and nonces are not to be dropped */
};
/* clang-format on */

static const char *socket_path(const struct up_place *place, struct arena *arena)
{
    return arena_printf(arena, "%s/redis.sock", place->run);
}

static int prepare(struct part *part, struct arena *arena, struct child_options *options)
{
    const struct up_place *place = part->context;
    int result = leftover_stop(&(struct leftover){
        .name = "redis-server", .folder = place->redis, .stop_signal = SIGTERM, .kill_signal = SIGKILL});
    if (result == -ETIMEDOUT)
        up_say("a Redis of an earlier run in %s does not end", place->redis);
    if (result)
        return result;
    char *program = arena_alloc(arena, PATH_MAX);
    if (!child_find_program("redis-server", program, PATH_MAX)) {
        up_say("redis-server is not installed: make install-deps");
        return -ENOENT;
    }
    const char *own[] = {"--unixsocket", socket_path(place, arena), "--dir", place->redis, NULL};
    const char **argv = arena_alloc(arena, (1 + ARRAY_SIZE(fixed) + ARRAY_SIZE(own)) * sizeof *argv);
    argv[0] = program;
    memcpy(argv + 1, fixed, sizeof fixed);
    memcpy(argv + 1 + ARRAY_SIZE(fixed), own, sizeof own);
    options->argv = argv;
    return 0;
}

static int wait_ready(struct part *part)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct arena arena;
    arena_init(&arena);
    const char *path = socket_path(part->context, &arena);
    CHECK(strlen(path) < sizeof address.sun_path);
    strcpy(address.sun_path, path);
    arena_clear(&arena);
    return part_ask(part, (const struct sockaddr *)&address, sizeof address, STR("PING\r\n"),
                    STR("+PONG\r\n"), clock_in_ms(READY_MS));
}

const struct part_kind up_redis = {
    .prepare = prepare,
    .wait_ready = wait_ready,
    .death_signal = SIGTERM,
    .stop_signal = SIGTERM,
};

/* Encodes a path's segments, and leaves its slashes. */
static void add_path(struct buf *url, struct str path)
{
    struct str segment;
    for (bool first = true; str_split(&path, '/', &segment); first = false) {
        if (!first)
            buf_add_char(url, '/');
        escape_percent_encode(url, segment);
    }
}

void up_redis_url(const struct up_place *place, struct buf *url)
{
    buf_add_literal(url, "unix://");
    add_path(url, str_from(place->run));
    buf_add_literal(url, "/redis.sock");
}
