/* The Redis client against a real redis-server: order, bytes, deadlines, cancellation, loss and return. */
#include "core/store/redis.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "core/store/embed.h"
#include "core/store/redis_internal.h"
#include "test/unit/support/services.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* In place of those in the binary: scripts whose answers are known. */
const struct embedded_file embedded_migrations[] = {{0}};
const size_t embedded_migration_count = 0;
#define PAIR_TEXT "return {KEYS[1], ARGV[1]}"
#define RESTORED_TEXT "return 0" /* what every connection begins with */
#define TWO_TEXT "return 2"
const struct embedded_file embedded_scripts[] = {
    {"pair.lua", PAIR_TEXT, sizeof PAIR_TEXT - 1},
    {"restored.lua", RESTORED_TEXT, sizeof RESTORED_TEXT - 1},
    {"two.lua", TWO_TEXT, sizeof TWO_TEXT - 1},
};
const size_t embedded_script_count = 3;

static struct services services;

/* ---- one loop with Redis open ---- */

static void set(const char *name, const char *value)
{
    char error[256];
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static void with_redis(void *arg)
{
    void (**body)(void) = arg;
    char error[256];
    assert_int_equal(redis_open_loop(loop_self(), error, sizeof error), 0);
    (*body)();
    redis_close_loop(loop_self());
}

static void run(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", with_redis, &body);
    loop_close(&loop);
}

static void ready(struct redis *redis)
{
    assert_int_equal(redis_wait_ready(redis, clock_in_ms(20000)), 0);
}

/* Lets the loop turn until it is so, at most 20 s. */
#define UNTIL(condition)                                                                                     \
    do {                                                                                                     \
        uint64_t until_ns_ = clock_in_ms(20000);                                                             \
        while (!(condition)) {                                                                               \
            assert_true(clock_now_ns() < until_ns_);                                                         \
            assert_int_equal(fiber_sleep_ms(1), 0);                                                          \
        }                                                                                                    \
    } while (0)

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    char error[256];
    services_start(&services, SERVICES_REDIS);
    return config_load(NULL, error, sizeof error);
}

static int teardown(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    log_close();
    return 0;
}

/* Each test finds the same settings, whatever another has set. */
static int defaults(void **state)
{
    (void)state;
    set("REDIS_URL", services.redis_url);
    set("REDIS_TIMEOUT_MS", "5000");
    return 0;
}

/* ---- the URL ---- */

static void url_parts_are_decoded(void **state)
{
    (void)state;
    static const struct {
        const char *url, *host, *port, *user, *password;
        uint64_t database;
        bool is_unix;
    } rows[] = {
        {"redis://localhost", "localhost", "6379", NULL, NULL, 0, false},
        {"redis://10.0.0.1:7000/", "10.0.0.1", "7000", NULL, NULL, 0, false},
        {"redis://:secret@r:1/3", "r", "1", NULL, "secret", 3, false},
        {"redis://me%40x:p%2Fa%3as%40s:w@[::1]:6380/12", "::1", "6380", "me@x", "p/a:s@s:w", 12, false},
        {"redis://u:@h", "h", "6379", "u", "", 0, false},
        {"unix:///run/redis.sock", "/run/redis.sock", NULL, NULL, NULL, 0, true},
        {"unix:///run/a%20b?db=7", "/run/a b", NULL, NULL, NULL, 7, true},
        {"unix://u:p@/run/redis.sock", "/run/redis.sock", NULL, "u", "p", 0, true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct redis_address address;
        char error[256] = "";
        assert_int_equal(redis_address_parse(&address, rows[i].url, error, sizeof error), 0);
        assert_string_equal(address.host, rows[i].host);
        assert_true(str_equal(str_from(address.port), str_from(rows[i].port)));
        assert_true(!address.user == !rows[i].user);
        assert_true(str_equal(str_from(address.user), str_from(rows[i].user)));
        assert_true(!address.password == !rows[i].password);
        assert_true(str_equal(str_from(address.password), str_from(rows[i].password)));
        assert_int_equal(address.database, rows[i].database);
        assert_int_equal(address.is_unix, rows[i].is_unix);
        redis_address_clear(&address);
    }
}

static void bad_url_is_refused_without_showing_it(void **state)
{
    (void)state;
    static const struct {
        const char *url, *says;
    } rows[] = {
        {"", "not set"},
        {"rediss://:hunter2@h", "TLS"},
        {"http://:hunter2@h", "redis://"},
        {"hunter2", "redis://"},
        {"redis://", "no host"},
        {"redis://hunter2@h", "no password"},
        {"redis://:hunter2%2@h", "percent"},
        {"redis://:hunter2@h:0", "port"},
        {"redis://:hunter2@h:65536", "port"},
        {"redis://:hunter2@h:", "port"},
        {"redis://:hunter2@[::1", "]"},
        {"redis://:hunter2@[::1]x", "between"},
        {"redis://:hunter2@h/x", "database"},
        {"redis://:hunter2@h/1?x=y", "?"},
        {"unix://hunter2/run/redis.sock", "unix:///path"},
        {"unix://", "no path"},
        {"unix:///s?db=x", "database"},
        {"unix:///s?password=hunter2", "?db="},
        {"unix:///aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaa",
         "too long"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct redis_address address;
        char error[256] = "";
        assert_int_equal(redis_address_parse(&address, rows[i].url, error, sizeof error), -EINVAL);
        assert_non_null(strstr(error, rows[i].says));
        assert_null(strstr(error, "hunter2"));
    }
}

/* ---- replies ---- */

static void every_type(void)
{
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    ready(redis);

    assert_int_equal(redis_call(redis, &reply, &arena, STR("GET"), STR("no such key")), 0);
    assert_int_equal(reply.type, REDIS_NIL);

    assert_int_equal(
        redis_call(redis, &reply, &arena, STR("SET"), STR("k\0\r\n$-1\r\n"), STR("\0\xff\r\n+OK\r\n")), 0);
    assert_int_equal(reply.type, REDIS_STATUS);
    assert_true(str_equal(reply.text, STR("OK")));
    assert_int_equal(redis_call(redis, &reply, &arena, STR("GET"), STR("k\0\r\n$-1\r\n")), 0);
    assert_int_equal(reply.type, REDIS_STRING);
    assert_true(str_equal(reply.text, STR("\0\xff\r\n+OK\r\n")));
    assert_int_equal(reply.text.at[reply.text.size], '\0');

    assert_int_equal(redis_call(redis, &reply, &arena, STR("SET"), STR("empty"), STR_NONE), 0);
    assert_int_equal(redis_call(redis, &reply, &arena, STR("GET"), STR("empty")), 0);
    assert_int_equal(reply.type, REDIS_STRING);
    assert_int_equal(reply.text.size, 0);

    assert_int_equal(redis_call(redis, &reply, &arena, STR("DECRBY"), STR("n"), STR("9223372036854775807")),
                     0);
    assert_int_equal(reply.type, REDIS_INTEGER);
    assert_true(reply.integer == -INT64_MAX);

    assert_int_equal(redis_call(redis, &reply, &arena, STR("EVAL"),
                                STR("return {1, {'a', {}, {{'deep'}}, false}, redis.status_reply('S')}"),
                                STR("0")),
                     0);
    assert_int_equal(reply.type, REDIS_ARRAY);
    assert_int_equal(reply.count, 3);
    assert_int_equal(reply.items[0].integer, 1);
    const struct redis_value *inner = &reply.items[1];
    assert_int_equal(inner->count, 4);
    assert_true(str_equal(inner->items[0].text, STR("a")));
    assert_int_equal(inner->items[1].type, REDIS_ARRAY);
    assert_int_equal(inner->items[1].count, 0);
    assert_true(str_equal(inner->items[2].items[0].items[0].text, STR("deep")));
    assert_int_equal(inner->items[3].type, REDIS_NIL);
    assert_int_equal(reply.items[2].type, REDIS_STATUS);

    int64_t errors = metric_read(M_REDIS_ERRORS, 0);
    assert_int_equal(redis_call(redis, &reply, &arena, STR("INCR"), STR("empty")), -EIO);
    assert_int_equal(reply.type, REDIS_ERROR);
    assert_true(str_starts(reply.text, STR("ERR ")));
    assert_int_equal(metric_read(M_REDIS_ERRORS, 0) - errors, 1);
    arena_clear(&arena);
}

static void replies_have_type_and_bytes_of_redis(void **state)
{
    (void)state;
    run(every_type);
}

static void large_value(void)
{
    enum { SIZE = 8 << 20 };
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    ready(redis);
    char *bytes = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (char)(i * 31 + i / 977);
    assert_int_equal(redis_call(redis, &reply, &arena, STR("SET"), STR("large"), str_of(bytes, SIZE)), 0);
    assert_int_equal(redis_call(redis, &reply, &arena, STR("GET"), STR("large")), 0);
    assert_true(str_equal(reply.text, str_of(bytes, SIZE)));
    assert_true(redis->out.capacity + redis->writing.capacity <= 65536);
    assert_null(redis->reader);

    /* Also when a small reply comes right behind it. */
    const struct str get[] = {STR("GET"), STR("large")};
    const struct str ping[] = {STR("PING")};
    struct redis_step steps[] = {{.args = get, .count = 2}, {.args = ping, .count = 1}};
    assert_int_equal(redis_steps(redis, &arena, steps, 2), 0);
    assert_int_equal(steps[0].reply.text.size, SIZE);
    assert_true(str_equal(steps[1].reply.text, STR("PONG")));
    assert_null(redis->reader);
    free(bytes);
    assert_int_equal(redis_call(redis, &reply, &arena, STR("DEL"), STR("large")), 0);
    assert_int_equal(reply.integer, 1);
    arena_clear(&arena);
}

static void large_value_comes_back_and_its_memory_is_released(void **state)
{
    (void)state;
    run(large_value);
}

/* ---- pipelining ---- */

enum { FIBERS = 100, ROUNDS = 100 };
static unsigned right_answers;
static struct group working;

static void echo_rounds(void *arg)
{
    unsigned number = *(unsigned *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct arena arena;
        struct redis_value reply;
        arena_init(&arena);
        char text[64];
        size_t size = (size_t)snprintf(text, sizeof text, "%u of %u", i, number);
        int result = redis_call(redis_shared(), &reply, &arena, STR("ECHO"), str_of(text, size));
        right_answers += result == 0 && str_equal(reply.text, str_of(text, size));
        arena_clear(&arena);
    }
    group_done(&working);
}

static void many_fibers(void)
{
    static unsigned numbers[FIBERS];
    ready(redis_shared());
    int64_t writes = metric_read(M_REDIS_FLUSHES, 0);
    int64_t commands = metric_read(M_REDIS_COMMANDS, 0);
    right_answers = 0;
    for (unsigned i = 0; i < FIBERS; i++) {
        numbers[i] = i;
        group_add(&working);
        fiber_start(loop_self(), "echo", echo_rounds, &numbers[i]);
    }
    assert_int_equal(group_wait(&working, "all", clock_in_ms(60000)), 0);
    assert_int_equal(right_answers, FIBERS * ROUNDS);
    assert_int_equal(metric_read(M_REDIS_COMMANDS, 0) - commands, FIBERS * ROUNDS);
    assert_true(metric_read(M_REDIS_FLUSHES, 0) - writes <= FIBERS * ROUNDS / 10);
}

static void each_of_100_fibers_gets_its_own_answers_in_few_writes(void **state)
{
    (void)state;
    run(many_fibers);
}

static void steps_and_sends(void)
{
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    ready(redis);
    int64_t writes = metric_read(M_REDIS_FLUSHES, 0);
    assert_true(redis_send(redis, REDIS_ARGS(STR("SET"), STR("steps"), STR("10"))));
    const struct str incr[] = {STR("INCR"), STR("steps")};
    const struct str wrong[] = {STR("LPUSH"), STR("steps"), STR("x")};
    struct redis_step steps[] = {
        {.args = incr, .count = 2}, {.args = wrong, .count = 3}, {.args = incr, .count = 2}};
    assert_int_equal(redis_steps(redis, &arena, steps, 3), 0);
    assert_int_equal(steps[0].result, 0);
    assert_int_equal(steps[0].reply.integer, 11);
    assert_int_equal(steps[1].result, -EIO);
    assert_true(str_starts(steps[1].reply.text, STR("WRONGTYPE")));
    assert_int_equal(steps[2].reply.integer, 12);
    assert_int_equal(metric_read(M_REDIS_FLUSHES, 0) - writes, 1);
    assert_int_equal(redis_steps(redis, &arena, NULL, 0), 0);

    int64_t errors = metric_read(M_REDIS_ERRORS, 0);
    assert_true(redis_send(redis, REDIS_ARGS(STR("LPUSH"), STR("steps"), STR("x"))));
    assert_int_equal(redis_call(redis, &reply, &arena, STR("GET"), STR("steps")), 0);
    assert_true(str_equal(reply.text, STR("12")));
    assert_int_equal(metric_read(M_REDIS_ERRORS, 0) - errors, 1);
    arena_clear(&arena);
}

static void steps_and_sends_keep_their_order_in_one_write(void **state)
{
    (void)state;
    run(steps_and_sends);
}

/* ---- a fiber that goes ---- */

struct waiter {
    struct redis *redis;
    const struct str *args;
    size_t count;
    int result;
    bool ended;
};

static void wait_for_reply(void *arg)
{
    struct waiter *waiter = arg;
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    waiter->result = redis_command(waiter->redis, &reply, &arena, waiter->args, waiter->count);
    arena_clear(&arena);
    waiter->ended = true;
}

#define WAITER(redis_, ...)                                                                                  \
    {                                                                                                        \
        .redis = (redis_), .args = (const struct str[]){__VA_ARGS__},                                        \
        .count = sizeof((const struct str[]){__VA_ARGS__}) / sizeof(struct str)                              \
    }

static void assert_in_sync(struct redis *redis)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(redis_call(redis, &reply, &arena, STR("ECHO"), STR("in sync")), 0);
        assert_true(str_equal(reply.text, STR("in sync")));
    }
    arena_clear(&arena);
}

static void cancel_before_the_reply(void)
{
    struct redis *redis = redis_shared();
    ready(redis);
    struct waiter waiter = WAITER(redis, STR("ECHO"), STR("for nobody"));
    struct fiber *fiber = fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    UNTIL(redis->head != redis->tail || waiter.ended);
    if (!waiter.ended)
        fiber_cancel(fiber);
    UNTIL(waiter.ended);
    assert_in_sync(redis);
    fiber = fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    uint64_t tail = redis->tail;
    waiter.ended = false;
    fiber_cancel(fiber);
    UNTIL(waiter.ended);
    assert_int_equal(waiter.result, -ECANCELED);
    assert_true(redis->tail == tail);
}

/* Redis needs many writes for this one, so that its first part is seen before its last. */
#define MANY_ITEMS                                                                                           \
    "local t = {} for i = 1, 400000 do t[i] = {'a rather long item number ' .. i, i} end return t"

static void cancel_within_the_reply(void)
{
    struct redis *redis = redis_shared();
    ready(redis);
    struct waiter waiter = WAITER(redis, STR("EVAL"), STR(MANY_ITEMS), STR("0"));
    uint64_t before_ns = redis->received_ns;
    struct fiber *fiber = fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    UNTIL(redis->received_ns != before_ns);
    assert_false(waiter.ended);
    fiber_cancel(fiber);
    UNTIL(waiter.ended);
    assert_int_equal(waiter.result, -ECANCELED);
    assert_in_sync(redis);
}

static void cancelled_fiber_leaves_the_connection_in_sync(void **state)
{
    (void)state;
    run(cancel_before_the_reply);
    set("REDIS_TIMEOUT_MS", "30000"); /* on a busy machine Redis works on it for seconds */
    run(cancel_within_the_reply);
}

/* ---- deadlines ---- */

static void stopped_redis(void)
{
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    ready(redis);
    assert_int_equal(kill(services.redis, SIGSTOP), 0);
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(redis_call(redis, &reply, &arena, STR("PING")), -ETIMEDOUT);
    uint64_t took_ms = (clock_now_ns() - begin_ns) / CLOCK_MS;
    assert_true(took_ms >= 200);
    /* Away: no later command waits for as long again. */
    assert_false(redis_is_up(redis));
    assert_int_equal(redis_call(redis, &reply, &arena, STR("PING")), -ENOTCONN);
    assert_false(redis_send(redis, REDIS_ARGS(STR("PING"))));
    assert_int_equal(redis_wait_ready(redis, clock_in_ms(300)), -ETIMEDOUT);
    assert_int_equal(kill(services.redis, SIGCONT), 0);
    ready(redis);
    assert_in_sync(redis);
    arena_clear(&arena);
}

static void hung_redis_times_out_and_is_noticed(void **state)
{
    (void)state;
    set("REDIS_TIMEOUT_MS", "200");
    run(stopped_redis);
}

static void others_reset(void)
{
    struct redis *redis = redis_shared();
    ready(redis);
    assert_int_equal(kill(services.redis, SIGSTOP), 0);
    struct waiter first = WAITER(redis, STR("PING"));
    struct waiter later = WAITER(redis, STR("PING"));
    fiber_start(loop_self(), "first", wait_for_reply, &first);
    assert_int_equal(fiber_sleep_ms(150), 0);
    fiber_start(loop_self(), "later", wait_for_reply, &later);
    UNTIL(first.ended && later.ended);
    assert_int_equal(first.result, -ETIMEDOUT);
    assert_int_equal(later.result, -ECONNRESET);
    assert_int_equal(kill(services.redis, SIGCONT), 0);
}

static void commands_behind_a_hung_one_are_reset(void **state)
{
    (void)state;
    set("REDIS_TIMEOUT_MS", "300");
    run(others_reset);
}

/* One that is slow alone (it blocks until another connection feeds it) is given up, and only that one. */
static void one_slow_command(void)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    struct redis *redis = redis_open("slow", 300);
    ready(redis);
    ready(redis_shared());
    struct waiter slow = WAITER(redis, STR("BLPOP"), STR("slow list"), STR("0"));
    fiber_start(loop_self(), "slow", wait_for_reply, &slow);
    UNTIL(redis->head != redis->tail);
    /* As if bytes came all the time. */
    UNTIL((redis->received_ns = clock_now_ns()) && slow.ended);
    assert_int_equal(slow.result, -ETIMEDOUT);
    assert_true(redis_is_up(redis));
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("RPUSH"), STR("slow list"), STR("x")), 0);
    assert_in_sync(redis);
    redis_close(redis);
    arena_clear(&arena);
}

static void slow_command_is_given_up_alone_while_bytes_come(void **state)
{
    (void)state;
    run(one_slow_command);
}

/* A loop that was held up itself must not take answers that wait in its socket for silence. */
static void busy_loop(void)
{
    struct redis *redis = redis_shared();
    ready(redis);
    struct waiter waiter = WAITER(redis, STR("PING"));
    fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    assert_int_equal(fiber_yield(), 0);
    /* The command leaves at the end of this turn; the next turn begins after its deadline. */
    assert_int_equal(fiber_sleep_ms(0), 0);
    usleep(400000);
    UNTIL(waiter.ended);
    assert_int_equal(waiter.result, 0);
    assert_true(redis_is_up(redis));
}

static void late_loop_reads_before_it_gives_up(void **state)
{
    (void)state;
    set("REDIS_TIMEOUT_MS", "200");
    run(busy_loop);
}

/* ---- loss and return ---- */

static void killed_redis(void)
{
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    struct redis *blocking = redis_open("blocking", 60000);
    ready(redis);
    ready(blocking);
    int64_t connects = metric_read(M_REDIS_CONNECTS, 0);
    struct waiter waiter = WAITER(blocking, STR("BLPOP"), STR("nothing"), STR("0"));
    fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    UNTIL(blocking->head != blocking->tail);
    assert_int_equal(fiber_sleep_ms(1), 0);
    services_redis_stop(&services);
    UNTIL(waiter.ended);
    assert_int_equal(waiter.result, -ECONNRESET);
    UNTIL(!redis_is_up(redis));
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(redis_call(redis, &reply, &arena, STR("PING")), -ENOTCONN);
    assert_true(clock_now_ns() - begin_ns < CLOCK_SECOND);
    /* It tries again, ever more rarely. */
    UNTIL(redis->failures >= 4);
    services_redis_start(&services);
    ready(redis);
    ready(blocking);
    assert_in_sync(redis);
    assert_in_sync(blocking);
    assert_int_equal(metric_read(M_REDIS_CONNECTS, 0) - connects, 2);
    redis_close(blocking);
    arena_clear(&arena);
}

static void killed_redis_is_reset_refused_and_found_again(void **state)
{
    (void)state;
    run(killed_redis);
}

static void no_redis(void)
{
    struct redis *redis = redis_shared();
    uint64_t begin_ns = clock_now_ns();
    assert_int_equal(redis_wait_ready(redis, clock_in_ms(600)), -ETIMEDOUT);
    uint64_t took_ms = (clock_now_ns() - begin_ns) / CLOCK_MS;
    /* 25, 50, 100, 200 ms at the least */
    assert_true(redis->failures >= 2);
    assert_true(redis->failures <= 5 + took_ms / 400);
}

static void absent_redis_is_tried_with_growing_pauses(void **state)
{
    (void)state;
    set("REDIS_URL", "unix:///nonexistent/redis.sock");
    run(no_redis);
}

static void close_while_waiting(void)
{
    struct redis *redis = redis_open("closing", 60000);
    ready(redis);
    struct waiter waiter = WAITER(redis, STR("BLPOP"), STR("nothing"), STR("0"));
    fiber_start(loop_self(), "waiter", wait_for_reply, &waiter);
    UNTIL(redis->head != redis->tail);
    redis_close(redis);
    UNTIL(waiter.ended);
    assert_int_equal(waiter.result, -ENOTCONN);
    /* At any moment of its making. */
    redis_close(redis_open("closing at once", 1000));
    redis = redis_open("closing soon", 1000);
    assert_int_equal(fiber_yield(), 0);
    redis_close(redis);
}

static void closing_answers_what_waits(void **state)
{
    (void)state;
    run(close_while_waiting);
    set("REDIS_URL", "redis://localhost:1");
    run(no_redis);
}

/* ---- who and where ---- */

static void admin(const struct str *args, size_t count)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    ready(redis_shared());
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, args, count), 0);
    arena_clear(&arena);
}

static void add_user(void)
{
    admin(REDIS_ARGS(STR("ACL"), STR("SETUSER"), STR("wake@gate"), STR("on"), STR(">p/a:s@s"), STR("~*"),
                     STR("&*"), STR("+@all"), STR("-config")));
}

static void is_user(void)
{
    struct arena arena;
    struct redis_value reply;
    char error[256];
    arena_init(&arena);
    ready(redis_shared());
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("ACL"), STR("WHOAMI")), 0);
    assert_true(str_equal(reply.text, STR("wake@gate")));
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("CLIENT"), STR("GETNAME")), 0);
    assert_true(str_equal(reply.text, STR("wakegate:shared")));
    assert_int_equal(redis_call(redis_shared(), &reply, &arena, STR("CLIENT"), STR("INFO")), 0);
    assert_non_null(strstr(reply.text.at, " db=5 "));
    /* A hosted Redis forbids CONFIG; INFO tells the policy too. */
    assert_int_equal(redis_check_server(error, sizeof error), 0);
    arena_clear(&arena);
}

static void stays_away(void)
{
    assert_int_equal(redis_wait_ready(redis_shared(), clock_in_ms(300)), -ETIMEDOUT);
    assert_true(redis_shared()->failures > 0);
    assert_non_null(strstr(redis_shared()->failed_why, "password"));
    assert_null(strstr(redis_shared()->failed_why, "hunter2"));
}

static void user_password_and_database_of_the_url_are_used(void **state)
{
    (void)state;
    char url[256];
    run(add_user);
    snprintf(url, sizeof url, "unix://wake%%40gate:p%%2Fa%%3As%%40s@%s?db=5",
             services.redis_url + strlen("unix://"));
    set("REDIS_URL", url);
    run(is_user);
    snprintf(url, sizeof url, "unix://wake%%40gate:hunter2@%s", services.redis_url + strlen("unix://"));
    set("REDIS_URL", url);
    run(stays_away);
    snprintf(url, sizeof url, "unix://:hunter2@%s", services.redis_url + strlen("unix://"));
    set("REDIS_URL", url);
    run(stays_away);
}

static uint16_t port;

/* A port that was free a moment ago, on which only this machine reaches the server. */
static void listen_on_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(descriptor, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(descriptor, (struct sockaddr *)&address, &size), 0);
    close(descriptor);
    port = ntohs(address.sin_port);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    admin(REDIS_ARGS(STR("CONFIG"), STR("SET"), STR("bind"), STR("127.0.0.1"), STR("port"), str_from(text)));
}

static void echo_once(void)
{
    ready(redis_shared());
    assert_in_sync(redis_shared());
}

static void host_names_are_resolved_and_each_address_is_tried(void **state)
{
    (void)state;
    char url[64];
    run(listen_on_tcp);
    /* Where localhost is ::1 too, nobody listens there. */
    snprintf(url, sizeof url, "redis://localhost:%u", port);
    set("REDIS_URL", url);
    run(echo_once);
    snprintf(url, sizeof url, "redis://127.0.0.1:%u/1", port);
    set("REDIS_URL", url);
    run(echo_once);
}

/* ---- the server check ---- */

static void check_server(void)
{
    char error[256] = "";
    ready(redis_shared());
    assert_int_equal(redis_check_server(error, sizeof error), 0);
    admin(REDIS_ARGS(STR("CONFIG"), STR("SET"), STR("maxmemory-policy"), STR("allkeys-lru")));
    assert_int_equal(redis_check_server(error, sizeof error), -EINVAL);
    assert_non_null(strstr(error, "allkeys-lru"));
    assert_non_null(strstr(error, "set maxmemory-policy noeviction"));
    admin(REDIS_ARGS(STR("CONFIG"), STR("SET"), STR("maxmemory-policy"), STR("volatile-ttl")));
    assert_int_equal(redis_check_server(error, sizeof error), -EINVAL);
    admin(REDIS_ARGS(STR("CONFIG"), STR("SET"), STR("maxmemory-policy"), STR("noeviction")));
    assert_int_equal(redis_check_server(error, sizeof error), 0);
}

static void redis_that_may_evict_is_refused(void **state)
{
    (void)state;
    run(check_server);
}

/* ---- scripts ---- */

static void assert_scripts_run(void)
{
    struct arena arena;
    struct redis_value reply;
    struct redis *redis = redis_shared();
    arena_init(&arena);
    assert_int_equal(redis_script(redis, &reply, &arena, "pair.lua", REDIS_ARGS(STR("k\0"), STR("v")), 1), 0);
    assert_int_equal(reply.count, 2);
    assert_true(str_equal(reply.items[0].text, STR("k\0")));
    assert_true(str_equal(reply.items[1].text, STR("v")));
    assert_int_equal(redis_script(redis, &reply, &arena, "two.lua", NULL, 0, 0), 0);
    assert_int_equal(reply.integer, 2);
    arena_clear(&arena);
}

static void scripts(void)
{
    ready(redis_shared());
    assert_scripts_run();
    int64_t commands = metric_read(M_REDIS_COMMANDS, 0);
    assert_scripts_run();
    assert_int_equal(metric_read(M_REDIS_COMMANDS, 0) - commands, 2);
    admin(REDIS_ARGS(STR("SCRIPT"), STR("FLUSH")));
    assert_scripts_run();
    services_redis_stop(&services);
    UNTIL(!redis_is_up(redis_shared()));
    services_redis_start(&services);
    ready(redis_shared());
    assert_scripts_run();
}

static void scripts_are_loaded_once_and_again_when_lost(void **state)
{
    (void)state;
    run(scripts);
}

/* ---- publish and subscribe ---- */

struct heard {
    unsigned count;
    struct str last;
    char bytes[64];
};

static void on_message(void *arg, struct str message)
{
    struct heard *heard = arg;
    heard->count++;
    memcpy(heard->bytes, message.at, message.size);
    heard->last = str_of(heard->bytes, message.size);
}

/* Publishes until somebody has heard it: a subscription takes a moment to reach Redis. */
static void publish(struct str channel, struct str message, int64_t listeners)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    UNTIL(redis_call(redis_shared(), &reply, &arena, STR("PUBLISH"), channel, message) == 0 &&
          reply.integer == listeners);
    arena_clear(&arena);
}

static void subscriptions(void)
{
    struct heard a = {0};
    struct heard b = {0};
    ready(redis_shared());
    redis_subscribe(STR("chan\0a"), on_message, &a);
    redis_subscribe(STR("b"), on_message, &b);
    publish(STR("chan\0a"), STR("\0one\r\n"), 1);
    UNTIL(a.count == 1);
    assert_true(str_equal(a.last, STR("\0one\r\n")));
    publish(STR("b"), STR("two"), 1);
    UNTIL(b.count == 1);

    redis_unsubscribe(STR("b"));
    publish(STR("b"), STR("three"), 0);
    publish(STR("chan\0a"), STR("four"), 1);
    UNTIL(a.count == 2);
    assert_int_equal(b.count, 1);

    services_redis_stop(&services);
    UNTIL(!redis_is_up(redis_shared()));
    redis_subscribe(STR("b"), on_message, &b);
    services_redis_start(&services);
    ready(redis_shared());
    publish(STR("chan\0a"), STR("five"), 1);
    publish(STR("b"), STR("six"), 1);
    UNTIL(a.count == 3 && b.count == 2);
    assert_true(str_equal(a.last, STR("five")));
    redis_unsubscribe(STR("chan\0a"));
    redis_unsubscribe(STR("b"));
}

static void subscriptions_survive_a_restart(void **state)
{
    (void)state;
    run(subscriptions);
}

static void silent_subscriber(void)
{
    struct heard heard = {0};
    ready(redis_shared());
    redis_subscribe(STR("quiet"), on_message, &heard);
    struct redis *redis = redis_loop_self()->subscriber->redis;
    ready(redis);
    int64_t commands = metric_read(M_REDIS_COMMANDS, 0);
    UNTIL(metric_read(M_REDIS_COMMANDS, 0) - commands >= 3); /* PINGs that are answered */
    assert_true(redis_is_up(redis));
    assert_int_equal(kill(services.redis, SIGSTOP), 0);
    UNTIL(!redis_is_up(redis));
    assert_int_equal(kill(services.redis, SIGCONT), 0);
    ready(redis);
    publish(STR("quiet"), STR("again"), 1);
    UNTIL(heard.count == 1);
    redis_unsubscribe(STR("quiet"));
}

static void hung_subscription_is_noticed_in_silence(void **state)
{
    (void)state;
    set("REDIS_TIMEOUT_MS", "50");
    run(silent_subscriber);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(url_parts_are_decoded),
        cmocka_unit_test(bad_url_is_refused_without_showing_it),
        cmocka_unit_test_setup(replies_have_type_and_bytes_of_redis, defaults),
        cmocka_unit_test_setup(large_value_comes_back_and_its_memory_is_released, defaults),
        cmocka_unit_test_setup(each_of_100_fibers_gets_its_own_answers_in_few_writes, defaults),
        cmocka_unit_test_setup(steps_and_sends_keep_their_order_in_one_write, defaults),
        cmocka_unit_test_setup(cancelled_fiber_leaves_the_connection_in_sync, defaults),
        cmocka_unit_test_setup(hung_redis_times_out_and_is_noticed, defaults),
        cmocka_unit_test_setup(commands_behind_a_hung_one_are_reset, defaults),
        cmocka_unit_test_setup(slow_command_is_given_up_alone_while_bytes_come, defaults),
        cmocka_unit_test_setup(late_loop_reads_before_it_gives_up, defaults),
        cmocka_unit_test_setup(killed_redis_is_reset_refused_and_found_again, defaults),
        cmocka_unit_test_setup(absent_redis_is_tried_with_growing_pauses, defaults),
        cmocka_unit_test_setup(closing_answers_what_waits, defaults),
        cmocka_unit_test_setup(user_password_and_database_of_the_url_are_used, defaults),
        cmocka_unit_test_setup(host_names_are_resolved_and_each_address_is_tried, defaults),
        cmocka_unit_test_setup(redis_that_may_evict_is_refused, defaults),
        cmocka_unit_test_setup(scripts_are_loaded_once_and_again_when_lost, defaults),
        cmocka_unit_test_setup(subscriptions_survive_a_restart, defaults),
        cmocka_unit_test_setup(hung_subscription_is_noticed_in_silence, defaults),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
