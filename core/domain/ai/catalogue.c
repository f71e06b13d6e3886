/* The process's snapshot, and who looks after it: see catalogue.h. */
#include "core/domain/ai/catalogue_internal.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/domain/vault.h"
#include "core/run/sync.h"
#include "core/store/pg.h"

#include <errno.h>
#include <pthread.h>

enum { LOOK_MS = 1000, TRIES = 3 };

static const struct pg_statement sql_version = {"catalogue_version", "SELECT version FROM catalogue_version"};
static const struct pg_statement sql_providers = {
    "catalogue_providers",
    "SELECT name, kind, base_url, api_key, max_in_flight, queue_calls, queue_bytes, queue_wait_ms, connect_ms, header_ms, "
    "idle_ms, total_ms, native_completions, delay_ms, chunk_ms, fail_status, stall_after, answer_tokens, enabled, ca "
    "FROM provider ORDER BY name"};
static const struct pg_statement sql_models = {
    "catalogue_models",
    "SELECT id, owned_by, money_text(price_in), money_text(price_out), money_text(price_cached), coalesce(max_output, -1), "
    "coalesce(default_output, -1), coalesce(context, -1), cache_seconds, cache_percent, enabled, "
    "extract(epoch FROM created_at)::bigint FROM model ORDER BY id"};
static const struct pg_statement sql_routes = {
    "catalogue_routes",
    "SELECT model_id, provider, upstream_model FROM model_route ORDER BY model_id, position"};

static struct {
    pthread_mutex_t mutex; /* for `now` */
    struct catalogue *now;
    struct fiber *fiber;
    struct group fibers;
    struct wait *waiter; /* for the first look */
    int64_t version;     /* of the rows in it; 0: none were read */
    bool read;
} all = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct catalogue *catalogue_ref(void)
{
    pthread_mutex_lock(&all.mutex);
    struct catalogue *catalogue = all.now;
    CHECK(catalogue);
    atomic_fetch_add(&catalogue->references, 1);
    pthread_mutex_unlock(&all.mutex);
    return catalogue;
}

static void replace(struct catalogue *catalogue)
{
    pthread_mutex_lock(&all.mutex);
    struct catalogue *old = all.now;
    all.now = catalogue;
    pthread_mutex_unlock(&all.mutex);
    catalogue_unref(old);
}

/* ---- rows ---- */

static int read_version(int64_t *version)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_version, PG_NO_VALUES, &rows);
    if (result)
        return result;
    *version = pg_count(rows) ? pg_i64(rows, 0, 0) : 0;
    pg_rows_free(rows);
    return 0;
}

static struct str text_at(struct arena *arena, const struct pg_rows *rows, size_t row, int column)
{
    return pg_is_null(rows, row, column) ? STR_NONE : arena_str(arena, pg_str(rows, row, column));
}

/* A key that can't be opened leaves its provider without one: it says so to whoever calls it. */
static int open_key(struct arena *arena, const struct pg_rows *rows, size_t row, struct provider *provider)
{
    struct str sealed = pg_bytes(arena, rows, row, 3);
    struct str key;
    provider->api_key = NULL;
    if (!sealed.at)
        return 0;
    int result = vault_unseal(arena, sealed, "provider.api_key", str_from(provider->name), &key);
    if (result == -EBADMSG) {
        LOG(ERROR, "a provider's key can't be opened", LOG_TEXT("provider", provider->name));
        return 0;
    }
    if (result == 0)
        provider->api_key = key.at; /* it ends with a NUL, and wipe_keys knows no other copy */
    return result;
}

static int provider_from_row(struct arena *arena, const struct pg_rows *rows, size_t row,
                             struct provider *provider)
{
    struct str url = text_at(arena, rows, row, 2);
    int64_t *const numbers[] = {&provider->max_in_flight, &provider->queue_calls, &provider->queue_bytes,
                                &provider->queue_wait_ms, &provider->connect_ms,  &provider->header_ms,
                                &provider->idle_ms,       &provider->total_ms};
    provider->name = arena_str(arena, pg_str(rows, row, 0)).at;
    if (!provider_kind_find(pg_str(rows, row, 1), &provider->kind))
        return -EINVAL;
    provider->base_url = url.at;
    provider->ca = text_at(arena, rows, row, 19).at;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        *numbers[i] = pg_i64(rows, row, 4 + (int)i);
    provider->native_completions = pg_bool(rows, row, 12);
    provider->enabled = pg_bool(rows, row, 18);
    provider->sandbox = (struct sandbox_options){
        .delay_ms = pg_i64(rows, row, 13),
        .chunk_ms = pg_i64(rows, row, 14),
        .fail_status = pg_i64(rows, row, 15),
        .stall_after = pg_i64(rows, row, 16),
        .answer_tokens = pg_i64(rows, row, 17),
    };
    return open_key(arena, rows, row, provider);
}

static int read_providers(struct arena *arena, struct catalogue_parts *parts)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_providers, PG_NO_VALUES, &rows);
    if (result)
        return result;
    struct provider *providers = arena_zalloc(arena, (pg_count(rows) + 1) * sizeof *providers);
    parts->providers = providers;
    for (size_t row = 0; result == 0 && row < pg_count(rows); row++)
        result = provider_from_row(arena, rows, row, &providers[parts->provider_count++]);
    pg_rows_free(rows);
    return result;
}

static int read_models(struct arena *arena, struct catalogue_parts *parts)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_models, PG_NO_VALUES, &rows);
    if (result)
        return result;
    struct catalogue_row *models = arena_alloc(arena, (pg_count(rows) + 1) * sizeof *models);
    for (size_t row = 0; row < pg_count(rows); row++)
        models[row] = (struct catalogue_row){
            .id = text_at(arena, rows, row, 0),
            .owned_by = text_at(arena, rows, row, 1),
            .price_in = text_at(arena, rows, row, 2),
            .price_out = text_at(arena, rows, row, 3),
            .price_cached = text_at(arena, rows, row, 4),
            .max_output = pg_i64(rows, row, 5),
            .default_output = pg_i64(rows, row, 6),
            .context = pg_i64(rows, row, 7),
            .cache_s = pg_i64(rows, row, 8),
            .cache_percent = pg_i64(rows, row, 9),
            .enabled = pg_bool(rows, row, 10),
            .created_s = pg_i64(rows, row, 11),
        };
    parts->models = models;
    parts->model_count = pg_count(rows);
    pg_rows_free(rows);
    return 0;
}

static int read_routes(struct arena *arena, struct catalogue_parts *parts)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_routes, PG_NO_VALUES, &rows);
    if (result)
        return result;
    struct catalogue_route_row *routes = arena_alloc(arena, (pg_count(rows) + 1) * sizeof *routes);
    for (size_t row = 0; row < pg_count(rows); row++)
        routes[row] = (struct catalogue_route_row){
            .model = text_at(arena, rows, row, 0),
            .provider = text_at(arena, rows, row, 1),
            .upstream_model = text_at(arena, rows, row, 2),
        };
    parts->routes = routes;
    parts->route_count = pg_count(rows);
    pg_rows_free(rows);
    return 0;
}

static void wipe_keys(const struct catalogue_parts *parts)
{
    for (size_t i = 0; i < parts->provider_count; i++)
        if (parts->providers[i].api_key)
            crypto_wipe((char *)(uintptr_t)parts->providers[i].api_key, strlen(parts->providers[i].api_key));
}

/* The three reads are of one state when the version is the same before and after them. */
static int read_all(int64_t version, struct catalogue **made)
{
    struct arena arena;
    struct catalogue_parts parts = {.provider_count = 0};
    int64_t after = 0;
    arena_init(&arena);
    int result = read_providers(&arena, &parts);
    if (result == 0)
        result = read_models(&arena, &parts);
    if (result == 0)
        result = read_routes(&arena, &parts);
    if (result == 0)
        result = read_version(&after);
    if (result == 0 && after != version)
        result = -EAGAIN;
    if (result == 0)
        *made = catalogue_make(&parts);
    wipe_keys(&parts);
    arena_clear(&arena);
    return result;
}

/* *made is NULL when the rows are those of `known`. */
static int read_rows(int64_t known, int64_t *version, struct catalogue **made)
{
    int result = -EAGAIN;
    *made = NULL;
    for (int tries = 0; result == -EAGAIN && tries < TRIES; tries++) {
        result = read_version(version);
        if (result == 0 && *version != known)
            result = read_all(*version, made);
    }
    return result;
}

int catalogue_read(struct catalogue **catalogue)
{
    int64_t version;
    return read_rows(0, &version, catalogue);
}

static int look(void)
{
    int64_t version;
    struct catalogue *made;
    int result = read_rows(all.version, &version, &made);
    if (result == 0 && made) {
        replace(made);
        all.version = version;
    }
    return result;
}

static void run_looks(void *unused)
{
    (void)unused;
    do {
        int result = look();
        if (result == 0) {
            all.read = true;
            if (all.waiter)
                wait_done(all.waiter, 0);
        } else if (result != -ENOTCONN && result != -ECANCELED && result != -EAGAIN) {
            LOG(WARN, "models and providers could not be read", LOG_ERRNO(result));
        }
    } while (fiber_sleep_ms(LOOK_MS) == 0);
    group_done(&all.fibers);
}

void catalogue_open(struct loop *loop)
{
    const struct catalogue_parts none = {.provider_count = 0};
    CHECK(!all.now);
    all.version = 0;
    all.read = false;
    replace(catalogue_make(&none));
    group_add(&all.fibers);
    all.fiber = fiber_start(loop, "catalogue", run_looks, NULL);
}

int catalogue_wait(uint64_t deadline_ns)
{
    if (all.read)
        return 0;
    struct wait wait = WAIT_INIT;
    all.waiter = &wait;
    int result = wait_for(&wait, "models and providers", deadline_ns);
    all.waiter = NULL;
    return result;
}

void catalogue_close(void)
{
    if (!all.fiber)
        return;
    fiber_hold();
    fiber_cancel(all.fiber);
    CHECK(group_wait(&all.fibers, "the catalogue's looks", CLOCK_NEVER) == 0);
    all.fiber = NULL;
    fiber_release();
}

void catalogue_clear(void)
{
    CHECK(!all.fiber);
    replace(NULL);
}
