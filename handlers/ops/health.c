/* Health of this loop's connections to the stores. The answer is ready before the question: asking costs nothing. */
#include "handlers/ops/ops.h"

#include "core/base/clock.h"
#include "core/run/sync.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    WATCH_MS = 1000,
    WATCH_DOWN_MS = 20, /* while something is down: its return is seen at once */
};

struct watch {
    struct fiber *fiber;
    struct group running;
    bool redis;
    bool postgres;
};

static _Atomic bool draining;
static const struct pg_statement sql_ping = {"health_ping", "SELECT 1"};

/* One that is known to be away is not asked: its client knocks by itself. */
static void look(struct watch *watch)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    watch->redis =
        redis_is_up(redis_shared()) && redis_call(redis_shared(), &reply, &arena, STR("PING")) == 0;
    watch->postgres = pg_is_up() && pg_read(&sql_ping, PG_NO_VALUES, NULL) == 0;
    arena_clear(&arena);
}

static void watch_run(void *arg)
{
    struct watch *watch = arg;
    do
        look(watch);
    while (fiber_sleep_ms(watch->redis && watch->postgres ? WATCH_MS : WATCH_DOWN_MS) == 0);
    group_done(&watch->running);
}

void ops_watch_open(struct loop *loop)
{
    struct watch *watch = mem_zalloc(sizeof *watch);
    loop->slots[LOOP_GATE] = watch;
    group_add(&watch->running);
    watch->fiber = fiber_start(loop, "health", watch_run, watch);
}

void ops_watch_close(struct loop *loop)
{
    struct watch *watch = loop->slots[LOOP_GATE];
    if (!watch)
        return;
    fiber_hold();
    if (watch->running.count)
        fiber_cancel(watch->fiber);
    CHECK(group_wait(&watch->running, "health watch", CLOCK_NEVER) == 0);
    fiber_release();
    free(watch);
    loop->slots[LOOP_GATE] = NULL;
}

void ops_set_draining(void)
{
    atomic_store(&draining, true);
}

/* The watch looks each second; a connection known to be down is down at once. */
static bool redis_is_healthy(void)
{
    const struct watch *watch = loop_self()->slots[LOOP_GATE];
    return watch && watch->redis && redis_is_up(redis_shared());
}

static bool postgres_is_healthy(void)
{
    const struct watch *watch = loop_self()->slots[LOOP_GATE];
    return watch && watch->postgres && pg_is_up();
}

static void put_part(struct json_out *out, const char *name, bool healthy)
{
    json_put_text(out, name, healthy ? "healthy" : "unhealthy");
}

static void reply_health(struct request *request, bool accepting)
{
    bool redis = redis_is_healthy();
    bool postgres = postgres_is_healthy();
    bool healthy = redis && postgres && accepting;
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "status", healthy ? "healthy" : "degraded");
    put_part(&reply.json, "redis", redis);
    put_part(&reply.json, "postgres", postgres);
    json_put_text(&reply.json, "timestamp", clock_iso_now());
    reply_end(&reply, healthy ? 200 : 503);
}

/* GET /health */
void ops_health(struct request *request)
{
    reply_health(request, true);
}

/* GET /livez */
void ops_live(struct request *request)
{
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "status", "alive");
    reply_end(&reply, 200);
}

/* GET /readyz */
void ops_ready(struct request *request)
{
    reply_health(request, !atomic_load(&draining));
}
