/* Rate plans: the table says what the five APIs promise, and an account's own limits stand in place of its plan's. */
#include "core/domain/identity/plan.h"

#include "core/store/limit.h"
#include "test/unit/core/domain/identity/fixture.h"

static int setup(void **state)
{
    char error[256];
    (void)state;
    return config_load(NULL, error, sizeof error);
}

static int teardown(void **state)
{
    (void)state;
    config_clear();
    return 0;
}

/* ---- the table ---- */

static void assert_row(enum plan_limit_id id, const char *plan, enum plan_who who, int64_t most,
                       int64_t window_s, int64_t burst)
{
    struct plan_limit row = plan_limit(id);
    if (plan)
        assert_string_equal(row.plan, plan);
    else
        assert_null(row.plan);
    assert_int_equal(row.who, who);
    assert_int_equal(row.most, most);
    assert_int_equal(row.window_s, window_s);
    assert_int_equal(row.burst, burst);
}

/* The numbers of the published APIs. */
static void limits_are_the_published_ones(void **state)
{
    (void)state;
    enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };
    assert_row(PLAN_LIMIT_SESSION_ADDRESS, NULL, PER_ADDRESS, 100, MINUTE, 0);
    assert_row(PLAN_LIMIT_INFERENCE_FREE_M, "free", PER_ACCOUNT, 10, MINUTE, 0);
    assert_row(PLAN_LIMIT_INFERENCE_FREE_D, "free", PER_ACCOUNT, 100, DAY, 0);
    assert_row(PLAN_LIMIT_INFERENCE_BASIC_M, "basic", PER_ACCOUNT, 100, MINUTE, 0);
    assert_row(PLAN_LIMIT_INFERENCE_BASIC_D, "basic", PER_ACCOUNT, 10000, DAY, 0);
    assert_row(PLAN_LIMIT_INFERENCE_PRO_M, "pro", PER_ACCOUNT, 1000, MINUTE, 0);
    assert_row(PLAN_LIMIT_INFERENCE_PRO_D, "pro", PER_ACCOUNT, 100000, DAY, 0);
    assert_row(PLAN_LIMIT_PROVISION_CREATE, NULL, PER_CLIENT, 100, HOUR, 0);
    assert_row(PLAN_LIMIT_PROVISION_STATUS, NULL, PER_CLIENT, 1000, HOUR, 0);
    assert_row(PLAN_LIMIT_PROVISION_UPGRADE, NULL, PER_CLIENT, 10, HOUR, 0);
    assert_row(PLAN_LIMIT_DEVICE_ORACLE, NULL, PER_DEVICE, 100, DAY, 0);
    assert_row(PLAN_LIMIT_DEVICE_DREAMS, NULL, PER_DEVICE, 20, DAY, 0);
    assert_row(PLAN_LIMIT_DEVICE_TELEGRAMS, NULL, PER_DEVICE, 50, DAY, 0);
    assert_row(PLAN_LIMIT_DEVICE_POSTCARDS, NULL, PER_DEVICE, 10, DAY, 0);
    assert_row(PLAN_LIMIT_DEVICE_TOKENS, NULL, PER_DEVICE, 10000, DAY, 0);
    assert_row(PLAN_LIMIT_GPU_STARTER, "starter", PER_KEY, 10, MINUTE, 20);
    assert_row(PLAN_LIMIT_GPU_PRO, "pro", PER_KEY, 60, MINUTE, 120);
    assert_row(PLAN_LIMIT_GPU_ENTERPRISE, "enterprise", PER_KEY, 300, MINUTE, 600);
}

static void settings_count_as_they_are_now(void **state)
{
    (void)state;
    identity_set("SESSION_RATE_PER_MINUTE", "7");
    assert_int_equal(plan_limit(PLAN_LIMIT_SESSION_ADDRESS).most, 7);
    identity_set("SESSION_RATE_PER_MINUTE", "100");
    assert_int_equal(plan_limit(PLAN_LIMIT_SESSION_ADDRESS).most, 100);
}

/* What the limits make of a row: a name that is part of a key, and never more at once than they take. */
static void rows_can_be_limits(void **state)
{
    (void)state;
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz-";
    for (int i = 0; i < PLAN_LIMIT_COUNT; i++) {
        struct plan_limit row = plan_limit((enum plan_limit_id)i);
        size_t together = 0;
        assert_int_equal(strspn(row.name, letters), strlen(row.name));
        assert_true(row.most > 0 && row.window_s > 0 && row.burst >= 0);
        assert_true(plan_limit_exists(str_from(row.name)));
        for (int j = 0; j < PLAN_LIMIT_COUNT; j++) {
            struct plan_limit other = plan_limit((enum plan_limit_id)j);
            bool same_plan = !row.plan || !other.plan || strcmp(row.plan, other.plan) == 0;
            together += strcmp(row.surface, other.surface) == 0 && same_plan;
            /* Of one name are rows of different plans, or of different surfaces. */
            assert_false(i != j && same_plan && strcmp(row.surface, other.surface) == 0 &&
                         strcmp(row.name, other.name) == 0);
        }
        assert_true(!row.plan || together <= LIMITS_AT_ONCE);
    }
    assert_false(plan_limit_exists(STR("inference")));
    assert_false(plan_limit_exists(STR_NONE));
}

/* ---- plans ---- */

static void assert_names(const char *surface, const char *expected)
{
    char names[128] = "";
    for (const char *const *name = plan_names(surface); *name; name++) {
        if (names[0])
            strcat(names, " ");
        strcat(names, *name);
    }
    assert_string_equal(names, expected);
}

static void plans_have_an_order_and_the_first_is_the_default(void **state)
{
    (void)state;
    assert_names("inference", "free basic pro enterprise");
    assert_names("gpu", "starter pro enterprise");
    assert_names("user", "free starter growth enterprise");
    assert_null(plan_names("session"));
    assert_null(plan_names("nothing"));
    assert_string_equal(plan_find("gpu", STR("pro")), "pro");
    assert_ptr_equal(plan_find("gpu", STR("pro")), plan_names("gpu")[1]);
    assert_null(plan_find("gpu", STR("free")));
    assert_null(plan_find("gpu", STR("pr")));
    assert_null(plan_find("session", STR("free")));
}

static void a_plan_is_read_as_it_is_kept(void **state)
{
    (void)state;
    struct plan plan;
    plan_read(&plan, "inference", STR_NONE, STR_NONE);
    assert_string_equal(plan.name, "free");
    assert_int_equal(plan.override_count, 0);
    plan_read(&plan, "inference", STR("pro"), STR("inference-day=5/0 inference-minute=7/9"));
    assert_ptr_equal(plan.name, plan_find("inference", STR("pro")));
    assert_int_equal(plan.override_count, 2);
    assert_ptr_equal(plan.overrides[0].name, plan_limit(PLAN_LIMIT_INFERENCE_FREE_D).name);
    assert_int_equal(plan.overrides[0].most, 5);
    assert_int_equal(plan.overrides[0].burst, 0);
    assert_string_equal(plan.overrides[1].name, "inference-minute");
    assert_int_equal(plan.overrides[1].most, 7);
    assert_int_equal(plan.overrides[1].burst, 9);
    plan_read(&plan, "session", STR("pro"), STR("session=3/0"));
    assert_null(plan.name);
    assert_int_equal(plan.override_count, 1);
}

/* Rows of the table, plans and limits may go in a later version. */
static void what_is_not_in_the_table_is_left_out(void **state)
{
    (void)state;
    struct plan plan;
    plan_read(
        &plan, "gpu", STR("platinum"),
        STR("gone=1/2 gpu-minute=4/5 inference-minute=9/9 gpu-minute=0/5 gpu-minute=x/5 gpu-minute=7 =1/1  "));
    assert_string_equal(plan.name, "starter");
    assert_int_equal(plan.override_count, 1);
    assert_int_equal(plan.overrides[0].most, 4);
    /* More than there is room for. */
    plan_read(
        &plan, "session", STR_NONE,
        STR("session=1/0 session=2/0 session=3/0 session=4/0 session=5/0 session=6/0 session=7/0 session=8/0 "
            "session=9/0"));
    assert_int_equal(plan.override_count, PLAN_OVERRIDES_MAX);
}

/* ---- an account's ---- */

static struct plan get(int64_t account, const char *surface)
{
    struct plan plan;
    assert_int_equal(plan_get(&identity_arena, account, surface, &plan), 0);
    return plan;
}

static void setting_plans(void)
{
    int64_t id = identity_account("a@example.com").id;
    int64_t other = identity_account("b@example.com").id;
    assert_string_equal(get(id, "inference").name, "free");
    assert_int_equal(plan_set(id, "inference", STR("basic")), 0);
    assert_int_equal(plan_set(id, "inference", STR("pro")), 0);
    assert_int_equal(plan_set(id, "gpu", STR("enterprise")), 0);
    assert_string_equal(get(id, "inference").name, "pro");
    assert_string_equal(get(id, "gpu").name, "enterprise");
    assert_string_equal(get(other, "inference").name, "free");
    assert_null(get(id, "session").name);
    assert_int_equal(identity_audited("plan.set"), 3);
    assert_int_equal(
        identity_sql("SELECT count(*) FROM audit WHERE action = 'plan.set' AND account_id = %lld "
                     "AND object = 'inference=pro' AND actor = 'worker'",
                     (long long)id),
        1);
    assert_int_equal(plan_set(id, "inference", STR("starter")), -EINVAL);
    assert_int_equal(plan_set(id, "session", STR("free")), -EINVAL);
    assert_int_equal(plan_set(id + 1000, "inference", STR("pro")), -ENOENT);
    assert_int_equal(identity_audited("plan.set"), 3);
    struct plan plan;
    assert_int_equal(plan_get(&identity_arena, id + 1000, "inference", &plan), -ENOENT);
}

static void a_plan_is_set_and_recorded(void **state)
{
    (void)state;
    identity_on_loop(setting_plans);
}

static void setting_limits(void)
{
    int64_t id = identity_account("a@example.com").id;
    assert_int_equal(plan_set_limit(id, STR("inference-minute"), 3, 0), 0);
    assert_int_equal(plan_set_limit(id, STR("inference-minute"), 5, 8), 0);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), 1000000000, 1000000000), 0);
    struct plan plan = get(id, "inference");
    assert_int_equal(plan.override_count, 1);
    assert_string_equal(plan.overrides[0].name, "inference-minute");
    assert_int_equal(plan.overrides[0].most, 5);
    assert_int_equal(plan.overrides[0].burst, 8);
    assert_int_equal(get(id, "gpu").overrides[0].most, 1000000000);
    assert_int_equal(plan_set_limit(id, STR("inference-minute"), 0, 0), 0);
    assert_int_equal(plan_set_limit(id, STR("inference-minute"), 0, 0), 0); /* there is none */
    assert_int_equal(get(id, "inference").override_count, 0);
    assert_int_equal(identity_audited("plan.limit"), 4);
    assert_int_equal(plan_set_limit(id, STR("inference"), 1, 0), -EINVAL);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), -1, 0), -EINVAL);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), 1, -1), -EINVAL);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), 1000000001, 0), -EINVAL);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), 1, 1000000001), -EINVAL);
    assert_int_equal(plan_set_limit(id + 1000, STR("gpu-minute"), 1, 0), -ENOENT);
    assert_int_equal(plan_set_limit(id + 1000, STR("gpu-minute"), 0, 0), -ENOENT);
    assert_int_equal(identity_audited("plan.limit"), 4);
}

/* A statement of another file, with names that come to mind first. */
static const struct pg_statement sql_columns = {
    "test_plan_columns",
    "SELECT " PLAN_COLUMNS(
        "l.id", "p.surface") " FROM account l, (SELECT 'inference' AS surface) p WHERE l.id = $1::bigint"};

static void reading_columns(void)
{
    int64_t id = identity_account("a@example.com").id;
    int64_t other = identity_account("b@example.com").id;
    struct pg_rows *found;
    assert_int_equal(plan_set(id, "inference", STR("pro")), 0);
    assert_int_equal(plan_set(id, "gpu", STR("enterprise")), 0);
    assert_int_equal(plan_set_limit(id, STR("inference-day"), 3, 4), 0);
    assert_int_equal(plan_set_limit(id, STR("gpu-minute"), 5, 6), 0);
    assert_int_equal(plan_set_limit(other, STR("inference-minute"), 1, 0), 0);
    assert_int_equal(pg_read(&sql_columns, PG_VALUES(PG_INT(id)), &found), 0);
    assert_int_equal(pg_count(found), 1);
    assert_true(str_equal(pg_str(found, 0, 0), STR("pro")));
    assert_true(str_equal(pg_str(found, 0, 1), STR("gpu-minute=5/6 inference-day=3/4")));
    pg_rows_free(found);
    assert_int_equal(pg_read(&sql_columns, PG_VALUES(PG_INT(other)), &found), 0);
    assert_true(pg_is_null(found, 0, 0));
    assert_true(str_equal(pg_str(found, 0, 1), STR("inference-minute=1/0")));
    pg_rows_free(found);
}

static void columns_are_the_accounts_own_in_any_statement(void **state)
{
    (void)state;
    identity_on_loop(reading_columns);
}

static void a_limit_of_its_own_is_set_and_recorded(void **state)
{
    (void)state;
    identity_on_loop(setting_limits);
}

static void too_many_limits(void)
{
    static const char *const names[] = {"session",     "inference-minute", "inference-day", "gpu-minute",
                                        "user-minute", "device-tokens",    "device-oracle", "device-dreams"};
    int64_t id = identity_account("a@example.com").id;
    for (size_t i = 0; i < PLAN_OVERRIDES_MAX; i++)
        assert_int_equal(plan_set_limit(id, str_from(names[i]), 10, 0), 0);
    assert_int_equal(plan_set_limit(id, STR("inference-key"), 10, 0), -EINVAL);
    assert_int_equal(plan_set_limit(id, STR("session"), 11, 0), 0);
    assert_int_equal(plan_set_limit(id, STR("session"), 0, 0), 0);
    assert_int_equal(plan_set_limit(id, STR("inference-key"), 10, 0), 0);
}

static void an_account_has_only_so_many_of_its_own(void **state)
{
    (void)state;
    identity_on_loop(too_many_limits);
}

int main(void)
{
    const struct CMUnitTest table[] = {
        cmocka_unit_test(limits_are_the_published_ones),
        cmocka_unit_test(settings_count_as_they_are_now),
        cmocka_unit_test(rows_can_be_limits),
        cmocka_unit_test(plans_have_an_order_and_the_first_is_the_default),
        cmocka_unit_test(a_plan_is_read_as_it_is_kept),
        cmocka_unit_test(what_is_not_in_the_table_is_left_out),
    };
    const struct CMUnitTest accounts[] = {
        cmocka_unit_test_setup(a_plan_is_set_and_recorded, identity_fixture_empty),
        cmocka_unit_test_setup(columns_are_the_accounts_own_in_any_statement, identity_fixture_empty),
        cmocka_unit_test_setup(a_limit_of_its_own_is_set_and_recorded, identity_fixture_empty),
        cmocka_unit_test_setup(an_account_has_only_so_many_of_its_own, identity_fixture_empty),
    };
    int failed = cmocka_run_group_tests(table, setup, teardown);
    return failed + cmocka_run_group_tests(accounts, identity_fixture_start, identity_fixture_stop);
}
