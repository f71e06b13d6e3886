/* Scopes: sets of them as text, as columns and as lists. */
#include "core/domain/identity/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void every_scope_is_found_by_its_name_alone(void **state)
{
    (void)state;
    for (size_t i = 0; i < SCOPE_COUNT; i++)
        assert_int_equal(scope_find(str_from(scopes[i].name)), i);
    assert_int_equal(scope_find(STR("keys:rea")), SCOPE_COUNT);
    assert_int_equal(scope_find(STR("KEYS:READ")), SCOPE_COUNT);
    assert_int_equal(scope_find(STR("")), SCOPE_COUNT);
    assert_int_equal(scope_find(STR_NONE), SCOPE_COUNT);
}

static void a_surface_has_its_own_scopes_alone(void **state)
{
    (void)state;
    assert_true(scope_all("session") == (SCOPE_BIT(SCOPE_SESSION_READ) | SCOPE_BIT(SCOPE_SESSION_WRITE)));
    assert_true(scope_all("nowhere") == 0);
    assert_true((scope_all("inference") & scope_all("provision")) == 0);
}

static void a_list_is_separated_by_single_spaces(void **state)
{
    (void)state;
    scope_set set;
    assert_true(scope_parse(STR("session:write session:read"), "session", &set));
    assert_true(set == scope_all("session"));
    assert_true(scope_parse(STR("session:read"), "session", &set));
    assert_true(set == SCOPE_BIT(SCOPE_SESSION_READ));
    static const char *const bad[] = {"",
                                      " ",
                                      "session:read ",
                                      " session:read",
                                      "session:read  session:write",
                                      "session:read,session:write",
                                      "session:read\tsession:write",
                                      "session:fly",
                                      "keys:read",
                                      "session:read keys:read"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (scope_parse(str_from(bad[i]), "session", &set))
            fail_msg("\"%s\" is no list", bad[i]);
}

static void a_set_is_written_in_the_order_of_the_table(void **state)
{
    (void)state;
    struct buf out = {0};
    scope_print(&out, SCOPE_BIT(SCOPE_SESSION_WRITE) | SCOPE_BIT(SCOPE_SESSION_READ));
    assert_true(str_equal(buf_str(&out), STR("session:read session:write")));
    buf_clear(&out);
    scope_print(&out, 0);
    assert_int_equal(out.size, 0);
    struct str names[SCOPE_COUNT];
    assert_int_equal(scope_names(SCOPE_BIT(SCOPE_WEBHOOKS) | SCOPE_BIT(SCOPE_KEYS_READ), names), 2);
    assert_true(str_equal(names[0], STR("keys:read")));
    assert_true(str_equal(names[1], STR("webhooks")));
}

static void a_column_of_none_is_all_and_names_that_went_are_nothing(void **state)
{
    (void)state;
    assert_true(scope_from_column(STR_NONE, "inference") == scope_all("inference"));
    assert_true(scope_from_column(STR(""), "inference") == 0);
    assert_true(scope_from_column(STR("keys:read gone:by"), "inference") == SCOPE_BIT(SCOPE_KEYS_READ));
    assert_true(scope_from_column(STR("session:read keys:read"), "inference") == SCOPE_BIT(SCOPE_KEYS_READ));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scope_is_found_by_its_name_alone),
        cmocka_unit_test(a_surface_has_its_own_scopes_alone),
        cmocka_unit_test(a_list_is_separated_by_single_spaces),
        cmocka_unit_test(a_set_is_written_in_the_order_of_the_table),
        cmocka_unit_test(a_column_of_none_is_all_and_names_that_went_are_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
