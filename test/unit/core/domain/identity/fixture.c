/* Stores, a vault, and a loop for tests of identity: see fixture.h. */
#include "test/unit/core/domain/identity/fixture.h"

#include "core/base/log.h"
#include "core/domain/identity/key.h"
#include "core/domain/identity/login.h"
#include "core/domain/vault.h"

#include <signal.h>
#include <stdlib.h>

struct arena identity_arena;
static struct services services;

int64_t identity_sql(const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return services_sql(&services, text);
}

int64_t identity_sql_text(const char *text)
{
    return services_sql(&services, text);
}

void identity_set(const char *name, const char *value)
{
    char error[256];
    if (config_set(name, value, error, sizeof error))
        fail_msg("%s", error);
}

struct account identity_account(const char *email)
{
    struct account account;
    assert_int_equal(account_register(&identity_arena, str_from(email), STR("ACME"), STR("hash"), &account),
                     0);
    return account;
}

int64_t identity_audited(const char *action)
{
    return identity_sql("SELECT count(*) FROM audit WHERE action = '%s'", action);
}

/* ---- loops ---- */

static void run_body(void *arg)
{
    char error[512] = "";
    void (**body)(void) = arg;
    struct loop *loop = loop_self();
    CHECK(pg_open_loop(loop, error, sizeof error) == 0);
    CHECK(pg_wait_ready(clock_in_ms(20000)) == 0);
    if (vault_open(error, sizeof error))
        fail_msg("%s", error);
    if (login_init(error, sizeof error))
        fail_msg("%s", error);
    (*body)();
    login_clear();
    key_close_loop(loop);
    login_close_loop(loop);
    pg_close_loop(loop);
    vault_close();
}

void identity_on_loop(void (*body)(void))
{
    struct loop loop;
    arena_init(&identity_arena);
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_body, &body);
    loop_close(&loop);
    arena_clear(&identity_arena);
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

void identity_race(int count, void (*run)(int number))
{
    struct racer *racers = mem_zalloc((size_t)count * sizeof *racers);
    struct group group = {0};
    for (int i = 0; i < count; i++) {
        racers[i] = (struct racer){.group = &group, .run = run, .number = i};
        group_add(&group);
        fiber_start(loop_self(), "racer", run_racer, &racers[i]);
    }
    assert_int_equal(group_wait(&group, "racers", CLOCK_NEVER), 0);
    free(racers);
}

/* ---- cmocka's ---- */

int identity_fixture_start(void **state)
{
    char error[512] = "";
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&services, SERVICES_POSTGRES);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    identity_set("DATABASE_URL", services.database_url);
    identity_set("ENCRYPTION_KEY", "an operator's secret of forty characters");
    if (migrate_run(error, sizeof error))
        fail_msg("%s", error);
    return 0;
}

int identity_fixture_stop(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    log_close();
    return 0;
}

int identity_fixture_empty(void **state)
{
    (void)state;
    identity_set("JWT_ALGORITHM", "HS256");
    identity_set("JWT_SECRET", "");
    identity_set("AUDIT_DAYS", "365");
    identity_sql("TRUNCATE account, audit, api_key, login, account_plan, account_limit CASCADE");
    return 0;
}
