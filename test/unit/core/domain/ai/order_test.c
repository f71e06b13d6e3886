/* Orders for AI calls: what may be asked for is what is reserved, and the routes are the model's. */
#include "core/domain/ai/order.h"

#include "core/base/clock.h"
#include "core/base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct arena arena;

static const struct provider first = {
    .name = "first", .max_in_flight = 8, .queue_calls = 101, .queue_bytes = 4096, .queue_wait_ms = 1500};
static const struct provider second = {
    .name = "second", .max_in_flight = 1, .queue_calls = 0, .queue_bytes = 1, .queue_wait_ms = 9000};
static const struct model model = {
    .id = {"m", 1},
    .owned_by = "tests",
    .price_in = 3000000,
    .price_out = 15000000,
    .max_output = 1000,
    .default_output = 200,
    .routes = {{&first, "a"}, {&second, "b"}},
    .route_count = 2,
};

static int setup(void **state)
{
    char error[256];
    (void)state;
    arena_init(&arena);
    return config_load(NULL, error, sizeof error);
}

static int teardown(void **state)
{
    (void)state;
    arena_clear(&arena);
    config_clear();
    return 0;
}

static struct ai_meta meta_of(const char *body)
{
    struct ai_request request;
    struct ai_refusal refusal;
    struct ai_meta meta = {
        .surface = STR("inference"), .request_id = STR("r"), .call_price = ai_order_call_price()};
    assert_int_equal(ai_request_parse(&arena, AI_COMPLETION, str_from(body), &request, &refusal), 0);
    ai_order_describe(&meta, &request, &model);
    return meta;
}

/* The whole bound of the prompt, and as many tokens of each choice as there can be. */
static void the_worst_case_is_reserved(void **state)
{
    (void)state;
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\",\"max_tokens\":10,\"n\":3}");
    struct ai_order order = {.durable = false};
    assert_int_equal(ai_order_call_price(), MONEY_DOLLAR / 1000);
    assert_true(ai_order_fill(&order, &arena, &meta, &model));
    assert_int_equal(order.call_price, MONEY_DOLLAR / 1000);
    assert_int_equal(order.prompt_price, meta.prompt_tokens * model.price_in);
    assert_int_equal(order.token_price, model.price_out);
    assert_int_equal(order.most, order.call_price + order.prompt_price + 30 * model.price_out);
    assert_true(meta.prompt_tokens >= 5);
}

static void who_says_no_number_gets_the_models(void **state)
{
    (void)state;
    assert_int_equal(meta_of("{\"model\":\"m\",\"prompt\":\"hello\"}").max_tokens, 200);
    assert_int_equal(meta_of("{\"model\":\"m\",\"prompt\":\"hello\",\"max_tokens\":7}").max_tokens, 7);
}

static void meta_travels_with_the_order(void **state)
{
    (void)state;
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\"}");
    struct ai_meta read;
    struct ai_order order = {.durable = false};
    assert_true(ai_order_fill(&order, &arena, &meta, &model));
    assert_int_equal(ai_meta_read(&arena, order.meta, &read), 0);
    assert_int_equal(read.prompt_tokens, meta.prompt_tokens);
    assert_int_equal(read.call_price, meta.call_price);
}

/* The first provider says how long a client waits. Half a line is one account's. */
static void routes_and_times_are_the_providers(void **state)
{
    (void)state;
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\"}");
    struct ai_order order = {.durable = false};
    assert_true(ai_order_fill(&order, &arena, &meta, &model));
    assert_int_equal(order.wait_ms, 1500);
    assert_int_equal(order.route_count, 2);
    assert_true(str_equal(order.routes[0].name, STR("first")) &&
                str_equal(order.routes[1].name, STR("second")));
    assert_int_equal(order.routes[0].most, 8);
    assert_int_equal(order.routes[0].calls_most, 101);
    assert_int_equal(order.routes[0].tenant_most, 51);
    assert_int_equal(order.routes[0].bytes_most, 4096);
    assert_int_equal(order.routes[1].tenant_most, 0);
}

static int64_t wait_of_job(int64_t age_ms)
{
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\"}");
    struct ai_order job = {.durable = true};
    meta.created_ms = clock_wall_ms() - age_ms;
    assert_true(ai_order_fill(&job, &arena, &meta, &model));
    return job.wait_ms;
}

/* A job waits for half of what a call may take; ordered again, for half of what is left of that since it was accepted. */
static void a_job_waits_for_half_of_its_time(void **state)
{
    (void)state;
    int64_t most_ms = config->ai_call_s * 1000;
    assert_in_range(wait_of_job(0), most_ms / 2 - 1000, most_ms / 2);
    assert_in_range(wait_of_job(most_ms / 2), most_ms / 4 - 1000, most_ms / 4);
    assert_int_equal(wait_of_job(most_ms), 1);
    assert_int_equal(wait_of_job(10 * most_ms), 1);
}

/* Price of the call, prompt and answer; what the provider had in its own cache at that price. */
static void an_end_costs_what_was_delivered(void **state)
{
    (void)state;
    struct model priced = model;
    struct ai_meta meta = {.call_price = 7};
    struct ai_usage usage = {.prompt_tokens = 100, .completion_tokens = 10};
    priced.price_cached = 1000000;
    assert_int_equal(ai_order_cost(&meta, &priced, &usage, MONEY_DOLLAR),
                     7 + 100 * model.price_in + 10 * model.price_out);
    usage.details[AI_CACHED_TOKENS] = 40;
    assert_int_equal(ai_order_cost(&meta, &priced, &usage, MONEY_DOLLAR),
                     7 + 60 * model.price_in + 40 * priced.price_cached + 10 * model.price_out);
    meta.call_price = 0; /* a pod's */
    usage = (struct ai_usage){.completion_tokens = 1};
    assert_int_equal(ai_order_cost(&meta, &priced, &usage, MONEY_DOLLAR), model.price_out);
}

/* Whatever a provider says that it has delivered. */
static void an_end_costs_no_more_than_was_reserved(void **state)
{
    (void)state;
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\",\"max_tokens\":10}");
    struct ai_order order = {.durable = false};
    struct ai_usage usage = {.prompt_tokens = meta.prompt_tokens, .completion_tokens = 10};
    assert_true(ai_order_fill(&order, &arena, &meta, &model));
    assert_int_equal(ai_order_cost(&meta, &model, &usage, order.most), order.most);
    usage.completion_tokens = 11;
    assert_int_equal(ai_order_cost(&meta, &model, &usage, order.most), order.most);
    usage.completion_tokens = INT64_MAX;
    assert_int_equal(ai_order_cost(&meta, &model, &usage, order.most), order.most);
    usage.completion_tokens = 9;
    assert_int_equal(ai_order_cost(&meta, &model, &usage, order.most), order.most - model.price_out);
}

static void what_nobody_could_pay_is_no_order(void **state)
{
    (void)state;
    struct ai_meta meta = meta_of("{\"model\":\"m\",\"prompt\":\"hello\"}");
    struct ai_order order = {.durable = false};
    meta.max_tokens = INT64_MAX / 4;
    meta.choices = 8;
    assert_false(ai_order_fill(&order, &arena, &meta, &model));
    meta.max_tokens = 1000000000;
    meta.choices = 1;
    assert_false(ai_order_fill(&order, &arena, &meta, &model));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_worst_case_is_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(who_says_no_number_gets_the_models, setup, teardown),
        cmocka_unit_test_setup_teardown(meta_travels_with_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(routes_and_times_are_the_providers, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_waits_for_half_of_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_costs_what_was_delivered, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_costs_no_more_than_was_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_could_pay_is_no_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
