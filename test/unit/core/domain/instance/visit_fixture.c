/* Stores, a worker with pods that are stubs, and a loop that visits: see visit_fixture.h. */
#include "test/unit/core/domain/instance/visit_fixture.h"

#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/identity/key.h"
#include "core/net/fetch.h"
#include "core/store/bell.h"
#include "core/store/pg.h"
#include "core/store/redis.h"
#include "workers/pool.h"
#include "workers/scale.h"
#include "workers/sweep.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct services visit_services;

void visit_set(const char *name, const char *value)
{
    char error[256];
    if (config_set(name, value, error, sizeof error))
        fail_msg("%s", error);
}

int64_t visit_sql(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return services_sql(&visit_services, text);
}

/* ---- stubs ---- */

enum { STUBS_MAX = 64, IDS_MAX = 256 };

struct stub {
    char id[INSTANCE_ID_MAX + 1];
    int64_t generation;
    int port;
    int listener;
    pthread_t thread;
    bool used;
    bool alive;
    atomic_bool hangs;
};

static struct {
    pthread_mutex_t mutex;
    struct stub stubs[STUBS_MAX];
    int starts;
    atomic_uint start_ms;
} pods = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void answer(int connection)
{
    static const char fine[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    static const char none[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    char request[1024];
    ssize_t size = recv(connection, request, sizeof request - 1, 0);
    request[size > 0 ? size : 0] = '\0';
    bool health = strncmp(request, "GET /health ", 12) == 0;
    if (size > 0)
        send(connection, health ? fine : none, strlen(health ? fine : none), MSG_NOSIGNAL);
}

static void *stub_main(void *arg)
{
    struct stub *stub = arg;
    int hung[64];
    size_t hung_count = 0;
    int connection;
    while ((connection = accept(stub->listener, NULL, NULL)) >= 0) {
        if (atomic_load(&stub->hangs) && hung_count < ARRAY_SIZE(hung)) {
            hung[hung_count++] = connection;
            continue;
        }
        answer(connection);
        close(connection);
    }
    while (hung_count > 0)
        close(hung[--hung_count]);
    return NULL;
}

/* With the mutex held; NULL when there is none that lives. */
static struct stub *stub_find(const char *id)
{
    for (size_t i = 0; i < STUBS_MAX; i++)
        if (pods.stubs[i].used && strcmp(pods.stubs[i].id, id) == 0)
            return &pods.stubs[i];
    return NULL;
}

static int listen_at(int port)
{
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(bind(listener, (struct sockaddr *)&where, sizeof where) == 0);
    CHECK(listen(listener, 64) == 0);
    return listener;
}

static void stub_end(struct stub *stub)
{
    if (!stub->alive)
        return;
    stub->alive = false;
    shutdown(stub->listener, SHUT_RDWR);
    CHECK(pthread_join(stub->thread, NULL) == 0);
    close(stub->listener);
}

static void fill_in(const struct stub *stub, struct pod *pod, bool adopted)
{
    *pod = (struct pod){.pid = getpid(),
                        .started_at = 1,
                        .port = stub->port,
                        .generation = stub->generation,
                        .adopted = adopted};
}

static int driver_find(const char *id, struct pod *pod)
{
    pthread_mutex_lock(&pods.mutex);
    const struct stub *stub = stub_find(id);
    bool found = stub && stub->alive;
    if (found)
        fill_in(stub, pod, true);
    pthread_mutex_unlock(&pods.mutex);
    return found ? 0 : -ESRCH;
}

static int driver_start(const struct pod_spec *spec, struct pod *pod)
{
    if (driver_find(spec->instance_id, pod) == 0)
        return 0;
    int slept = fiber_sleep_ms(atomic_load(&pods.start_ms));
    if (slept)
        return slept;
    pthread_mutex_lock(&pods.mutex);
    struct stub *stub = stub_find(spec->instance_id);
    for (size_t i = 0; !stub; i++) {
        CHECK(i < STUBS_MAX);
        stub = pods.stubs[i].used ? NULL : &pods.stubs[i];
    }
    snprintf(stub->id, sizeof stub->id, "%s", spec->instance_id);
    stub->generation = spec->generation;
    stub->port = spec->port;
    stub->listener = listen_at(spec->port);
    stub->used = true;
    stub->alive = true;
    atomic_store(&stub->hangs, false);
    pods.starts++;
    CHECK(pthread_create(&stub->thread, NULL, stub_main, stub) == 0);
    fill_in(stub, pod, false);
    pthread_mutex_unlock(&pods.mutex);
    return 0;
}

static bool driver_alive(const char *id)
{
    struct pod pod;
    return driver_find(id, &pod) == 0;
}

static int driver_stop(const char *id)
{
    pthread_mutex_lock(&pods.mutex);
    struct stub *stub = stub_find(id);
    if (stub)
        stub_end(stub);
    pthread_mutex_unlock(&pods.mutex);
    return 0;
}

static int driver_destroy(const char *id)
{
    driver_stop(id);
    return 0;
}

static const struct pod_driver driver = {
    .name = "stub",
    .start = driver_start,
    .find = driver_find,
    .alive = driver_alive,
    .stop = driver_stop,
    .destroy = driver_destroy,
};

int stub_starts(void)
{
    pthread_mutex_lock(&pods.mutex);
    int starts = pods.starts;
    pthread_mutex_unlock(&pods.mutex);
    return starts;
}

bool stub_is_up(struct str id, int port, uint64_t generation)
{
    struct pod pod;
    return driver_find(id.at, &pod) == 0 && pod.port == port && (uint64_t)pod.generation == generation;
}

void stub_kill(struct str id)
{
    driver_stop(id.at);
}

void stub_hang(struct str id)
{
    pthread_mutex_lock(&pods.mutex);
    atomic_store(&stub_find(id.at)->hangs, true);
    pthread_mutex_unlock(&pods.mutex);
}

void stub_set_start_ms(unsigned ms)
{
    atomic_store(&pods.start_ms, ms);
}

static void stubs_end(void)
{
    pthread_mutex_lock(&pods.mutex);
    for (size_t i = 0; i < STUBS_MAX; i++) {
        stub_end(&pods.stubs[i]);
        pods.stubs[i].used = false;
    }
    pods.starts = 0;
    pthread_mutex_unlock(&pods.mutex);
}

/* ---- loops ---- */

static void open_stores(void)
{
    char error[256] = "";
    struct loop *loop = loop_self();
    CHECK(redis_open_loop(loop, error, sizeof error) == 0);
    CHECK(pg_open_loop(loop, error, sizeof error) == 0);
    bell_open_loop(loop);
    CHECK(redis_wait_ready(redis_shared(), clock_in_ms(20000)) == 0);
    CHECK(pg_wait_ready(clock_in_ms(20000)) == 0);
}

static void close_stores(void)
{
    struct loop *loop = loop_self();
    bell_close_loop(loop);
    fetch_close_loop(loop);
    pg_close_loop(loop);
    redis_close_loop(loop);
}

static void run_body(void *arg)
{
    void (**body)(void) = arg;
    open_stores();
    visit_open_loop(loop_self());
    (*body)();
    visit_close_loop(loop_self());
    close_stores();
}

void visit_on_loop(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", run_body, &body);
    loop_close(&loop);
}

static struct {
    atomic_bool working;
    atomic_bool stop;
    bool sweeps;
} worker;

static void run_worker(void *unused)
{
    static const struct job_handler handlers[] = {{JOB_SCALE, scale_run}};
    char error[256] = "";
    (void)unused;
    open_stores();
    scale_use(&driver);
    struct pool *pool = pool_open(loop_self(), handlers, ARRAY_SIZE(handlers), error, sizeof error);
    CHECK(pool);
    if (worker.sweeps)
        sweep_open(loop_self(), &driver);
    atomic_store(&worker.working, true);
    while (!atomic_load(&worker.stop))
        CHECK(fiber_sleep_ms(2) == 0);
    if (worker.sweeps)
        sweep_close();
    pool_close(pool);
    close_stores();
}

static void *worker_main(void *unused)
{
    struct loop loop;
    (void)unused;
    loop_open(&loop, 1);
    fiber_main(&loop, "worker", run_worker, NULL);
    loop_close(&loop);
    return NULL;
}

void beside_worker(void (*body)(void), bool sweeps)
{
    pthread_t thread;
    atomic_store(&worker.working, false);
    atomic_store(&worker.stop, false);
    worker.sweeps = sweeps;
    CHECK(pthread_create(&thread, NULL, worker_main, NULL) == 0);
    while (!atomic_load(&worker.working))
        usleep(1000);
    visit_on_loop(body);
    atomic_store(&worker.stop, true);
    CHECK(pthread_join(thread, NULL) == 0);
    stubs_end();
    visit_sql("DELETE FROM job; DELETE FROM instance");
}

/* ---- instances ---- */

struct str new_instance(void)
{
    static char ids[IDS_MAX][INSTANCE_ID_MAX + 1];
    static size_t count;
    struct arena arena;
    struct instance instance;
    CHECK(count < IDS_MAX);
    arena_init(&arena);
    assert_int_equal(instance_create(&arena, 1, "session", STR("visitor"), &instance), 0);
    snprintf(ids[count], sizeof ids[count], "%.*s", STR_ARG(instance.id));
    arena_clear(&arena);
    return str_from(ids[count++]);
}

void ask_to_sleep(struct str id)
{
    struct arena arena;
    struct instance instance;
    arena_init(&arena);
    assert_int_equal(instance_sleep(&arena, 1, id, &instance), 0);
    arena_clear(&arena);
}

struct instance row_of(struct str id)
{
    struct arena arena;
    struct instance instance;
    arena_init(&arena);
    assert_int_equal(instance_load(&arena, id, &instance), 0);
    arena_clear(&arena);
    instance.id = id;
    instance.user_id = STR_NONE;
    instance.fail_reason = STR_NONE;
    return instance;
}

struct visit *open_visit(struct str id, enum visit_kind kind)
{
    struct visit *visit = NULL;
    assert_int_equal(visit_open(id, kind, clock_in_ms(20000), &visit), 0);
    return visit;
}

/* ---- cmocka's ---- */

int visit_fixture_start(void **state)
{
    char error[512] = "";
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    fetch_init();
    services_start(&visit_services, SERVICES_POSTGRES | SERVICES_REDIS);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    visit_set("DATABASE_URL", visit_services.database_url);
    CHECK(migrate_run(error, sizeof error) == 0);
    queue_name_metrics();
    visit_sql("INSERT INTO account (name) VALUES ('visitors')");
    return 0;
}

int visit_fixture_stop(void **state)
{
    (void)state;
    services_stop(&visit_services);
    config_clear();
    log_close();
    return 0;
}

int fixture_defaults(void **state)
{
    char ports[32];
    int first = 21000 + getpid() % 80 * 100;
    (void)state;
    snprintf(ports, sizeof ports, "%d-%d", first, first + 99);
    visit_set("REDIS_URL", visit_services.redis_url);
    visit_set("POD_PORT_RANGE", ports);
    visit_set("POD_READY_TIMEOUT_MS", "5000");
    visit_set("POD_STOP_TIMEOUT_MS", "500");
    visit_set("WORKSPACE_HOLD_REQUESTS", "64");
    visit_set("WORKSPACE_HOLD_TOTAL", "2048");
    visit_set("IDLE_TIMEOUT_SECONDS", "120");
    visit_set("DRAIN_SECONDS", "30");
    stub_set_start_ms(0);
    return 0;
}
