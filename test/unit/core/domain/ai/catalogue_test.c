/* Models and providers: what stands in whose place, what they cost, and that rows are seen soon and are safe to hold. */
#include "core/domain/ai/catalogue_internal.h"

#include "core/base/config.h"
#include "core/domain/vault.h"
#include "test/unit/core/domain/identity/fixture.h"
#include "test/unit/support/until.h"

#include <pthread.h>
#include <stdatomic.h>

static const struct model *model_of(struct catalogue *catalogue, const char *id)
{
    return catalogue_model(catalogue, str_from(id));
}

static struct catalogue *without_rows(void)
{
    const struct catalogue_parts none = {.provider_count = 0};
    return catalogue_make(&none);
}

static void without_providers_the_sandbox_answers_for_nothing(void **state)
{
    (void)state;
    struct catalogue *catalogue = without_rows();
    const struct model *model = model_of(catalogue, "gpt-4");
    assert_non_null(model);
    assert_int_equal(model->route_count, 1);
    assert_int_equal(model->routes[0].provider->kind, PROVIDER_SANDBOX);
    assert_true(model->price_in == 0 && model->price_out == 0);
    assert_non_null(model_of(catalogue, "claude-sonnet-4-0"));
    assert_non_null(model_of(catalogue, "sandbox"));
    assert_null(model_of(catalogue, "gpt-5000"));
    assert_null(model_of(catalogue, "gpt"));
    assert_null(model_of(catalogue, ""));
    for (size_t i = 1; i < catalogue_model_count(catalogue); i++)
        assert_true(
            strcmp(catalogue_model_at(catalogue, i - 1)->id.at, catalogue_model_at(catalogue, i)->id.at) < 0);
    catalogue_unref(catalogue);
}

static void a_provider_of_the_settings_gets_the_models_of_its_kind(void **state)
{
    (void)state;
    identity_set("OPENAI_API_KEY", "sk-test");
    identity_set("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/");
    struct catalogue *catalogue = without_rows();
    const struct model *model = model_of(catalogue, "gpt-4o-mini");
    assert_string_equal(model->routes[0].provider->name, "openai");
    assert_string_equal(model->routes[0].provider->base_url, "http://127.0.0.1:1/v1");
    assert_string_equal(model->routes[0].provider->api_key, "sk-test");
    assert_int_equal(model->price_in, 150000); /* 0.15 dollars a million */
    assert_null(model_of(catalogue, "claude-sonnet-4-0"));
    assert_int_equal(model_of(catalogue, "sandbox")->routes[0].provider->kind, PROVIDER_SANDBOX);
    catalogue_unref(catalogue);
    identity_set("OPENAI_API_KEY", "");
}

static void rows_stand_in_place_of_what_the_program_knows(void **state)
{
    (void)state;
    const struct provider providers[] = {
        {.name = "local", .kind = PROVIDER_OPENAI, .base_url = "http://127.0.0.1:2", .enabled = true},
        {.name = "openai", .kind = PROVIDER_OPENAI, .base_url = "http://127.0.0.1:3", .enabled = true}};
    const struct catalogue_row models[] = {
        {.id = STR("gpt-4"),
         .owned_by = STR("us"),
         .price_in = STR("0.000002"),
         .max_output = 10,
         .default_output = 4000,
         .context = -1,
         .cache_percent = 50,
         .enabled = true},
        {.id = STR("own/model"),
         .owned_by = STR("us"),
         .max_output = -1,
         .default_output = -1,
         .context = -1,
         .enabled = true},
        {.id = STR("gpt-4o"), .owned_by = STR("us"), .enabled = false},
        {.id = STR("nowhere"), .owned_by = STR("us"), .enabled = true},
    };
    const struct catalogue_route_row routes[] = {
        {STR("own/model"), STR("gone"), STR("x")},
        {STR("own/model"), STR("local"), STR("llama")},
        {STR("own/model"), STR("sandbox"), STR("own")},
    };
    const struct catalogue_parts parts = {.providers = providers,
                                          .provider_count = 2,
                                          .models = models,
                                          .model_count = 4,
                                          .routes = routes,
                                          .route_count = 3};
    struct catalogue *catalogue = catalogue_make(&parts);
    const struct model *model = model_of(catalogue, "gpt-4");
    assert_string_equal(model->routes[0].provider->name, "openai"); /* not another of the same kind */
    assert_true(model->routed_by_itself);
    assert_int_equal(model->price_in, 2 * INT64_C(1000000));
    assert_int_equal(model->price_out, 60 * INT64_C(1000000)); /* as known */
    assert_true(model->max_output == 10 && model->default_output == 10 && model->cache_percent == 50);
    model = model_of(catalogue, "own/model");
    assert_int_equal(model->route_count, 2);
    assert_string_equal(model->routes[0].upstream_model, "llama");
    assert_string_equal(model->routes[1].provider->name, "sandbox");
    assert_false(model->routed_by_itself);
    assert_null(model_of(catalogue, "gpt-4o"));
    assert_null(model_of(catalogue, "nowhere"));
    catalogue_unref(catalogue);
}

/* The one provider that is a row. */
static struct catalogue *with_provider(const struct provider *provider)
{
    const struct catalogue_parts parts = {.providers = provider, .provider_count = 1};
    return catalogue_make(&parts);
}

/* Neither by a provider that never heard of it, nor by the sandbox, which would be taken for the model itself. */
static void a_known_model_goes_to_no_other_of_its_kind_by_itself(void **state)
{
    (void)state;
    const struct provider row = {
        .name = "a-local", .kind = PROVIDER_OPENAI, .base_url = "http://127.0.0.1:2", .enabled = true};
    struct catalogue *catalogue = with_provider(&row);
    assert_null(model_of(catalogue, "gpt-4"));
    assert_null(model_of(catalogue, "claude-sonnet-4-0"));
    assert_non_null(model_of(catalogue, "sandbox"));
    const struct model *model = catalogue_any_model(catalogue, STR("gpt-4"));
    assert_non_null(model);
    assert_int_equal(model->route_count, 0);
    assert_int_equal(model->price_in, 0);
    catalogue_unref(catalogue);
}

static void a_key_of_the_settings_goes_to_no_url_of_a_row(void **state)
{
    (void)state;
    identity_set("OPENAI_API_KEY", "sk-settings");
    identity_set("OPENAI_BASE_URL", "https://settings.example/v1");
    struct provider row = {.name = "openai", .kind = PROVIDER_OPENAI, .max_in_flight = 3, .enabled = true};
    struct catalogue *catalogue = with_provider(&row);
    const struct provider *openai = catalogue_provider(catalogue, STR("openai"));
    assert_string_equal(openai->base_url, "https://settings.example/v1");
    assert_string_equal(openai->api_key, "sk-settings");
    assert_int_equal(openai->max_in_flight, 3);
    catalogue_unref(catalogue);
    row.base_url = "http://127.0.0.1:4";
    catalogue = with_provider(&row);
    assert_null(catalogue_provider(catalogue, STR("openai"))->api_key);
    catalogue_unref(catalogue);
    row.enabled = false;
    catalogue = with_provider(&row);
    assert_null(catalogue_provider(catalogue, STR("openai")));
    assert_non_null(catalogue_any_provider(catalogue, STR("openai")));
    catalogue_unref(catalogue);
    identity_set("OPENAI_API_KEY", "");
}

static void a_fallback_that_costs_is_paid_for(void **state)
{
    (void)state;
    const struct provider provider = {
        .name = "local", .kind = PROVIDER_OPENAI, .base_url = "http://127.0.0.1:2", .enabled = true};
    const struct catalogue_row row = {.id = STR("gpt-4"),
                                      .owned_by = STR("us"),
                                      .max_output = -1,
                                      .default_output = -1,
                                      .context = -1,
                                      .enabled = true};
    const struct catalogue_route_row routes[] = {{STR("gpt-4"), STR("sandbox"), STR("gpt-4")},
                                                 {STR("gpt-4"), STR("local"), STR("gpt-4")}};
    const struct catalogue_parts parts = {.providers = &provider,
                                          .provider_count = 1,
                                          .models = &row,
                                          .model_count = 1,
                                          .routes = routes,
                                          .route_count = 2};
    struct catalogue *catalogue = catalogue_make(&parts);
    assert_int_equal(model_of(catalogue, "gpt-4")->price_in, 30 * INT64_C(1000000));
    catalogue_unref(catalogue);
}

static void assert_url(const char *url, bool fine)
{
    if ((provider_url_problem(str_from(url)) == NULL) != fine)
        fail_msg("%s", url);
}

static void plain_http_is_for_local_and_private_hosts(void **state)
{
    (void)state;
    static const char *const fine[] = {
        "https://api.openai.com/v1", "https://api.example.com:8443",
        "http://127.0.0.1:8000/v1",  "http://localhost/v1",
        "http://10.1.2.3",           "http://172.31.0.1/v1/",
        "http://192.168.1.1",        "http://[::1]:80/v1",
        "http://[fd00::1]/v1",       "http://vllm:8000/v1",
        "http://vllm.ai.svc/v1",     "http://x.cluster.LOCAL",
    };
    static const char *const bad[] = {
        "",
        "api.openai.com",
        "ftp://127.0.0.1",
        "http://api.openai.com/v1",
        "http://",
        "http://172.32.0.1/v1",
        "http://[2001:db8::1]/",
        "http://8.8.8.8",
        "https://",
        "https://u:p@example.com",
        "https://a.b/?x",
        "https://a.b/#x",
        "https:/a.b",
        "https://a.b:0/",
        "https://a.b/\r\nx",
        "https://a.b/\x7f",
        "http://notlocal.example",
        "http://evillocal.com",
    };
    for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
        assert_url(fine[i], true);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_url(bad[i], false);
}

static void costs_are_exact_and_bounded(void **state)
{
    (void)state;
    const struct model model = {.price_in = 150000, .price_cached = 75000, .price_out = 600000};
    money cost;
    assert_true(model_cost_of(&model, 1000, 10, &cost) && cost == 156000000);
    assert_false(model_cost_of(&model, INT64_MAX, 1, &cost));
    assert_false(model_cost_of(&model, -1, 1, &cost));
    assert_false(model_cost_of(&model, MODEL_COST_MOST / 150000 + 1, 0, &cost));
    struct ai_usage usage = {.prompt_tokens = 100, .completion_tokens = 5};
    usage.details[AI_CACHED_TOKENS] = 60;
    assert_int_equal(model_cost(&model, &usage), 40 * 150000 + 60 * 75000 + 5 * 600000);
    usage.details[AI_CACHED_TOKENS] = 101; /* nonsense costs no more than the prompt */
    assert_int_equal(model_cost(&model, &usage), 100 * 75000 + 5 * 600000);
    usage.details[AI_CACHED_TOKENS] = -1;
    assert_int_equal(model_cost(&model, &usage), 100 * 150000 + 5 * 600000);
    usage.prompt_tokens = INT64_MAX;
    assert_int_equal(model_cost(&model, &usage), MODEL_COST_MOST);
}

static bool has(const char *id)
{
    struct catalogue *catalogue = catalogue_ref();
    bool found = model_of(catalogue, id) != NULL;
    catalogue_unref(catalogue);
    return found;
}

static void watch(void)
{
    catalogue_open(loop_self());
    struct catalogue *first = catalogue_ref();
    assert_int_equal(catalogue_wait(clock_in_ms(20000)), 0);
    identity_sql("INSERT INTO model (id, owned_by) VALUES ('mine', 'us')");
    identity_sql("INSERT INTO model_route VALUES ('mine', 1, 'sandbox', 'mine')");
    UNTIL(has("mine"));
    assert_null(model_of(first, "mine")); /* who holds one sees no change */
    assert_non_null(model_of(first, "gpt-4"));
    catalogue_unref(first);
    struct str sealed = vault_seal(&identity_arena, STR("sk-secret"), "provider.api_key", STR("openai"));
    struct buf hex = {0};
    for (size_t i = 0; i < sealed.size; i++)
        buf_printf(&hex, "%02x", (unsigned char)sealed.at[i]);
    identity_sql(
        "INSERT INTO provider (name, kind, base_url, api_key) VALUES ('openai', 'openai', 'http://127.0.0.1:3', "
        "decode('%.*s', 'hex'))",
        STR_ARG(buf_str(&hex)));
    buf_clear(&hex);
    UNTIL(!has("claude-sonnet-4-0"));
    struct catalogue *now = catalogue_ref();
    assert_string_equal(catalogue_provider(now, STR("openai"))->api_key, "sk-secret");
    assert_string_equal(model_of(now, "gpt-4")->routes[0].provider->base_url, "http://127.0.0.1:3");
    catalogue_unref(now);
    identity_sql("DELETE FROM model; DELETE FROM provider");
    UNTIL(!has("mine") && has("claude-sonnet-4-0"));
    catalogue_close();
    catalogue_clear();
}

/* ---- one snapshot after the other, while other threads read ---- */

enum { READERS = 3 };
static atomic_bool stop_reading;
static atomic_int reads;

static void *read_on(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop_reading)) {
        struct catalogue *catalogue = catalogue_ref();
        const struct model *model = model_of(catalogue, "gpt-4");
        CHECK(model && model->route_count == 1);
        CHECK(strcmp(model->routes[0].upstream_model, "gpt-4") == 0 && model->routes[0].provider->name);
        catalogue_unref(catalogue);
        atomic_fetch_add(&reads, 1);
    }
    return NULL;
}

static void swap(void)
{
    pthread_t readers[READERS];
    catalogue_open(loop_self());
    assert_int_equal(catalogue_wait(clock_in_ms(20000)), 0);
    atomic_store(&stop_reading, false);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_on, NULL), 0);
    for (int i = 0; i < 3; i++) {
        char id[16];
        snprintf(id, sizeof id, "swap%d", i);
        identity_sql("INSERT INTO model (id, owned_by) VALUES ('%s', 'us')", id);
        identity_sql("INSERT INTO model_route VALUES ('%s', 1, 'sandbox', 'x')", id);
        int before = atomic_load(&reads);
        UNTIL(has(id) && atomic_load(&reads) > before);
    }
    atomic_store(&stop_reading, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    identity_sql("DELETE FROM model");
    catalogue_close();
    catalogue_clear();
}

static void threads_read_while_snapshots_are_replaced(void **state)
{
    (void)state;
    identity_on_loop(swap);
}

/* ---- what can't be read ---- */

static void fail_to_read(void)
{
    identity_sql("INSERT INTO model (id, owned_by) VALUES ('kept', 'us')");
    identity_sql("INSERT INTO model_route VALUES ('kept', 1, 'sandbox', 'x')");
    catalogue_open(loop_self());
    assert_int_equal(catalogue_wait(clock_in_ms(20000)), 0);
    assert_true(has("kept"));
    /* The version can be read, and says that there is something new; what it is can't. */
    identity_sql(
        "ALTER TABLE model RENAME COLUMN owned_by TO hidden; UPDATE catalogue_version SET version = version + 1");
    struct catalogue *read;
    assert_int_not_equal(catalogue_read(&read), 0);
    assert_null(read);
    assert_true(has("kept") && has("gpt-4"));
    identity_sql("ALTER TABLE model RENAME COLUMN hidden TO owned_by; DELETE FROM model");
    UNTIL(!has("kept"));
    catalogue_close();
    catalogue_clear();
}

static void the_last_snapshot_stays_while_rows_cannot_be_read(void **state)
{
    (void)state;
    identity_on_loop(fail_to_read);
}

static void a_change_of_rows_is_seen_soon(void **state)
{
    (void)state;
    identity_on_loop(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_providers_the_sandbox_answers_for_nothing),
        cmocka_unit_test(a_provider_of_the_settings_gets_the_models_of_its_kind),
        cmocka_unit_test(a_known_model_goes_to_no_other_of_its_kind_by_itself),
        cmocka_unit_test(rows_stand_in_place_of_what_the_program_knows),
        cmocka_unit_test(a_key_of_the_settings_goes_to_no_url_of_a_row),
        cmocka_unit_test(a_fallback_that_costs_is_paid_for),
        cmocka_unit_test(plain_http_is_for_local_and_private_hosts),
        cmocka_unit_test(costs_are_exact_and_bounded),
        cmocka_unit_test(a_change_of_rows_is_seen_soon),
        cmocka_unit_test(threads_read_while_snapshots_are_replaced),
        cmocka_unit_test(the_last_snapshot_stays_while_rows_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
