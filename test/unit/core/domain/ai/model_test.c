/* What tokens cost: exact, bounded, and whatever a provider says of them. */
#include "core/domain/ai/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct model model = {.price_in = 3, .price_out = 15, .price_cached = 1};

static void each_kind_of_token_has_its_price(void **state)
{
    (void)state;
    struct ai_usage usage = {.prompt_tokens = 10, .completion_tokens = 4};
    assert_int_equal(model_cost(&model, &usage), 10 * 3 + 4 * 15);
    usage.details[AI_CACHED_TOKENS] = 6;
    assert_int_equal(model_cost(&model, &usage), 4 * 3 + 6 * 1 + 4 * 15);
    usage.details[AI_REASONING_TOKENS] = 3; /* part of the answer's */
    assert_int_equal(model_cost(&model, &usage), 4 * 3 + 6 * 1 + 4 * 15);
}

/* Of a prompt no more than all can have been cached, and no less than none. */
static void a_cached_part_is_within_its_prompt(void **state)
{
    (void)state;
    struct ai_usage usage = {.prompt_tokens = 10};
    usage.details[AI_CACHED_TOKENS] = 11;
    assert_int_equal(model_cost(&model, &usage), 10);
    usage.details[AI_CACHED_TOKENS] = -1;
    assert_int_equal(model_cost(&model, &usage), 30);
}

/* What is too much to be counted is the most, never less and never negative. */
static void a_cost_has_an_end(void **state)
{
    (void)state;
    struct ai_usage usage = {.prompt_tokens = 1, .completion_tokens = INT64_MAX};
    money cost;
    assert_int_equal(model_cost(&model, &usage), MODEL_COST_MOST);
    usage.completion_tokens = -1;
    assert_int_equal(model_cost(&model, &usage), MODEL_COST_MOST);
    assert_true(model_cost_of(&model, 10, 4, &cost));
    assert_int_equal(cost, 90);
    assert_false(model_cost_of(&model, INT64_MAX, 1, &cost));
    assert_false(model_cost_of(&model, -1, 1, &cost));
    assert_true(model_cost_of(&model, MODEL_COST_MOST / 3, 0, &cost));
    assert_false(model_cost_of(&model, MODEL_COST_MOST / 3 + 1, 0, &cost));
}

static void what_is_free_costs_nothing(void **state)
{
    (void)state;
    static const struct model free_model = {.price_in = 0};
    struct ai_usage usage = {.prompt_tokens = 1000000, .completion_tokens = 1000000};
    assert_int_equal(model_cost(&free_model, &usage), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_token_has_its_price),
        cmocka_unit_test(a_cached_part_is_within_its_prompt),
        cmocka_unit_test(a_cost_has_an_end),
        cmocka_unit_test(what_is_free_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
