/* Stores, accounts and calls for tests of money: see ledger_fixture.h. */
#include "test/unit/core/domain/money/ledger_fixture.h"

#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/money/ledger_internal.h"
#include "core/store/pg.h"
#include "core/store/redis.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct services ledger_services;
static int64_t accounts_made;

int64_t ledger_sql(const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return services_sql(&ledger_services, text);
}

void ledger_set(const char *name, const char *value)
{
    char error[256];
    if (config_set(name, value, error, sizeof error))
        fail_msg("%s", error);
}

int64_t ledger_account(const char *available)
{
    int64_t account = ledger_sql("INSERT INTO account (name) VALUES ('money %lld') RETURNING id",
                                 (long long)++accounts_made);
    if (strcmp(available, "0") != 0)
        ledger_sql("SELECT ledger_move(%lld, 'credit', %s, 'given %lld')", (long long)account, available,
                   (long long)account);
    return account;
}

bool ledger_has(int64_t account, const char *available, const char *leased)
{
    return ledger_sql(
               "SELECT count(*) FROM wallet WHERE account_id = %lld AND available = %s AND leased = %s",
               (long long)account, available, leased) == 1;
}

void ledger_assert_sound(void)
{
    struct arena arena;
    struct ledger_violation *violations;
    size_t count;
    size_t accounts;
    arena_init(&arena);
    assert_int_equal(ledger_check(&arena, 0, &violations, &count, &accounts), 0);
    for (size_t i = 0; i < count; i++)
        print_error("account %lld: %.*s\n", (long long)violations[i].account_id, STR_ARG(violations[i].what));
    assert_int_equal(count, 0);
    arena_clear(&arena);
}

/* ---- calls ---- */

static struct str number(char text[32], int64_t value)
{
    return str_of(text, (size_t)snprintf(text, 32, "%lld", (long long)value));
}

/* KEYS: the lease. ARGV: need. Returns the generation it was reserved on, or 0, and what was seen. */
static const char reserve_script[] = "local l = redis.call('HMGET', KEYS[1], 'gen', 'applied', 'free') "
                                     "if not l[1] then return {0, 0, 0} end "
                                     "if tonumber(l[3]) < tonumber(ARGV[1]) then "
                                     "return {0, tonumber(l[1]), tonumber(l[2])} end "
                                     "redis.call('HINCRBY', KEYS[1], 'free', '-' .. ARGV[1]) "
                                     "return {1, tonumber(l[1]), tonumber(l[2])}";
/* ARGV: generation, what is given back. */
static const char settle_script[] = "if redis.call('HGET', KEYS[1], 'gen') == ARGV[1] then "
                                    "redis.call('HINCRBY', KEYS[1], 'free', ARGV[2]) end return 1";

static int try_reserve(struct ledger_call *call, int64_t account, money need, int64_t *generation,
                       int64_t *applied)
{
    char key[48], text[32];
    struct arena arena;
    struct redis_value reply;
    snprintf(key, sizeof key, "lease:%lld", (long long)account);
    arena_init(&arena);
    int result = redis_call(redis_shared(), &reply, &arena, STR("EVAL"), str_from(reserve_script), STR("1"),
                            str_from(key), number(text, need));
    if (result == 0) {
        *generation = reply.items[1].integer;
        *applied = reply.items[2].integer;
        *call = (struct ledger_call){account, *generation, need};
        result = reply.items[0].integer ? 0 : -EAGAIN;
    }
    arena_clear(&arena);
    return result;
}

int ledger_reserve_here(struct ledger_call *call, int64_t account, money need)
{
    int64_t generation, applied;
    return try_reserve(call, account, need, &generation, &applied);
}

int ledger_reserve(struct ledger_call *call, int64_t account, money need)
{
    for (;;) {
        int64_t generation, applied;
        int result = try_reserve(call, account, need, &generation, &applied);
        if (result == -EAGAIN)
            result = lease_refill(account, generation, applied, need);
        else
            return result;
        if (result)
            return result;
    }
}

int ledger_settle_here(const struct ledger_call *call, money cost)
{
    char key[48], texts[2][32];
    struct arena arena;
    struct redis_value reply;
    snprintf(key, sizeof key, "lease:%lld", (long long)call->account);
    arena_init(&arena);
    int result = redis_call(redis_shared(), &reply, &arena, STR("EVAL"), str_from(settle_script), STR("1"),
                            str_from(key), number(texts[0], call->generation),
                            number(texts[1], call->reserved - cost));
    arena_clear(&arena);
    return result;
}

int ledger_charge(const struct ledger_call *call, money cost, const char *ref)
{
    static const struct pg_statement charge = {"test_charge",
                                               "SELECT ledger_charge(ARRAY[$1::bigint], ARRAY[$2::bigint], "
                                               "ARRAY[$3::bigint * 0.000000000001], ARRAY[$4::text])"};
    return ledger_write(
        &charge,
        PG_VALUES(PG_INT(call->account), PG_INT(call->generation), PG_INT(cost), PG_TEXT(str_from(ref))),
        NULL);
}

int ledger_end_call(const struct ledger_call *call, money cost, const char *ref)
{
    int result = ledger_settle_here(call, cost);
    return result ? result : ledger_charge(call, cost, ref);
}

/* ---- loops ---- */

static void open_stores(void)
{
    char error[512] = "";
    struct loop *loop = loop_self();
    CHECK(redis_open_loop(loop, error, sizeof error) == 0);
    CHECK(pg_open_loop(loop, error, sizeof error) == 0);
    CHECK(redis_wait_ready(redis_shared(), clock_in_ms(20000)) == 0);
    CHECK(pg_wait_ready(clock_in_ms(20000)) == 0);
}

static void close_stores(void)
{
    lease_close_loop(loop_self());
    pg_close_loop(loop_self());
    redis_close_loop(loop_self());
}

static void run_body(void *arg)
{
    void (**body)(void) = arg;
    open_stores();
    (*body)();
    close_stores();
}

void ledger_on_loop(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_body, &body);
    loop_close(&loop);
}

struct thread {
    pthread_t thread;
    void (*body)(int number);
    int number;
};

static void run_numbered(void *arg)
{
    const struct thread *own = arg;
    open_stores();
    own->body(own->number);
    close_stores();
}

static void *thread_main(void *arg)
{
    struct thread *own = arg;
    struct loop loop;
    loop_open(&loop, (unsigned)own->number);
    fiber_main(&loop, "test", run_numbered, own);
    loop_close(&loop);
    return NULL;
}

void ledger_on_loops(int count, void (*body)(int number))
{
    struct thread threads[8];
    assert_in_range(count, 1, ARRAY_SIZE(threads));
    for (int i = 0; i < count; i++) {
        threads[i] = (struct thread){.body = body, .number = i};
        CHECK(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]) == 0);
    }
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i].thread, NULL) == 0);
}

struct racer {
    struct group *group;
    void (*run)(int number);
    int number;
};

static void run_racer(void *arg)
{
    const struct racer *racer = arg;
    racer->run(racer->number);
    group_done(racer->group);
}

void ledger_race(int count, void (*run)(int number))
{
    struct racer *racers = mem_zalloc((size_t)count * sizeof *racers);
    struct group group = {0};
    for (int i = 0; i < count; i++) {
        racers[i] = (struct racer){.group = &group, .run = run, .number = i};
        group_add(&group);
        fiber_start(loop_self(), "racer", run_racer, &racers[i]);
    }
    CHECK(group_wait(&group, "racers", CLOCK_NEVER) == 0);
    free(racers);
}

/* ---- cmocka's ---- */

int ledger_fixture_start(void **state)
{
    char error[512] = "";
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&ledger_services, SERVICES_POSTGRES | SERVICES_REDIS);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    ledger_set("DATABASE_URL", ledger_services.database_url);
    ledger_set("REDIS_URL", ledger_services.redis_url);
    if (migrate_run(error, sizeof error))
        fail_msg("%s", error);
    return 0;
}

int ledger_fixture_stop(void **state)
{
    (void)state;
    services_stop(&ledger_services);
    config_clear();
    log_close();
    return 0;
}

int ledger_fixture_empty(void **state)
{
    (void)state;
    ledger_set("AI_CALL_SECONDS", "600");
    ledger_set("LEASE_IDLE_SECONDS", "300");
    ledger_set("PAYMENT_RATES", "USD=1,USDC=1,ETH=1");
    ledger_sql("TRUNCATE account, audit, ledger_transfer, wallet CASCADE");
    services_redis_stop(&ledger_services);
    services_redis_start(&ledger_services);
    return 0;
}
