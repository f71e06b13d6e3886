/* Models and providers: what stands in whose place, what they cost, and that rows are seen soon and are safe to hold. */
#include "core/domain/catalogue_internal.h"

#include "core/base/config.h"
#include "core/domain/vault.h"
#include "test/unit/core/domain/identity_fixture.h"
#include "test/unit/support/until.h"

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
        {.name = "local", .kind = PROVIDER_OPENAI, .base_url = "http://127.0.0.1:2"}};
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
                                          .provider_count = 1,
                                          .models = models,
                                          .model_count = 4,
                                          .routes = routes,
                                          .route_count = 3};
    struct catalogue *catalogue = catalogue_make(&parts);
    const struct model *model = model_of(catalogue, "gpt-4");
    assert_string_equal(model->routes[0].provider->name, "local"); /* the only one of its kind */
    assert_int_equal(model->price_in, 2 * INT64_C(1000000));
    assert_int_equal(model->price_out, 60 * INT64_C(1000000)); /* as known */
    assert_true(model->max_output == 10 && model->default_output == 10 && model->cache_percent == 50);
    model = model_of(catalogue, "own/model");
    assert_int_equal(model->route_count, 2);
    assert_string_equal(model->routes[0].upstream_model, "llama");
    assert_string_equal(model->routes[1].provider->name, "sandbox");
    assert_null(model_of(catalogue, "gpt-4o"));
    assert_null(model_of(catalogue, "nowhere"));
    catalogue_unref(catalogue);
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
        cmocka_unit_test(rows_stand_in_place_of_what_the_program_knows),
        cmocka_unit_test(costs_are_exact_and_bounded),
        cmocka_unit_test(a_change_of_rows_is_seen_soon),
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
