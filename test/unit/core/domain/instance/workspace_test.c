/* Workspaces: who may visit one, and what its host is called. */
#include "core/domain/instance/workspace.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/domain/instance/instance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define UUID STR("abc23456defg7777")
enum { NOW = 1900000000 };

static void set(const char *name, const char *value)
{
    char error[256];
    assert_int_equal(config_set(name, value, error, sizeof error), 0);
}

static int setup(void **state)
{
    char error[256];
    (void)state;
    crypto_init();
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    set("ENCRYPTION_KEY", "an operator's secret of forty characters");
    workspace_init();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    config_clear();
    return 0;
}

static bool verify(enum workspace_token kind, const char *token)
{
    return workspace_verify(kind, UUID, str_from(token), NOW);
}

static void a_token_is_good_until_its_moment(void **state)
{
    char token[WORKSPACE_TOKEN_SIZE];
    (void)state;
    for (int64_t until = NOW + 1; until < INT64_C(1) << 59; until *= 7) {
        workspace_sign(token, WORKSPACE_LINK, UUID, until);
        assert_true(strlen(token) < WORKSPACE_TOKEN_SIZE);
        assert_int_equal(strspn(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."),
                         strlen(token));
        assert_true(workspace_verify(WORKSPACE_LINK, UUID, str_from(token), until - 1));
        assert_false(workspace_verify(WORKSPACE_LINK, UUID, str_from(token), until));
    }
}

static void a_token_is_for_one_instance_and_one_purpose(void **state)
{
    char link[WORKSPACE_TOKEN_SIZE];
    char visit[WORKSPACE_TOKEN_SIZE];
    (void)state;
    workspace_sign(link, WORKSPACE_LINK, UUID, NOW + 60);
    workspace_sign(visit, WORKSPACE_VISIT, UUID, NOW + 60);
    assert_true(verify(WORKSPACE_LINK, link));
    assert_true(verify(WORKSPACE_VISIT, visit));
    assert_false(verify(WORKSPACE_VISIT, link));
    assert_false(verify(WORKSPACE_LINK, visit));
    assert_false(workspace_verify(WORKSPACE_LINK, STR("abc23456defg7778"), str_from(link), NOW));
    assert_false(workspace_verify(WORKSPACE_LINK, STR("abc23456defg777"), str_from(link), NOW));
    assert_false(workspace_verify(WORKSPACE_LINK, STR_NONE, str_from(link), NOW));
}

static void a_token_with_any_byte_changed_added_or_missing_is_none(void **state)
{
    char token[WORKSPACE_TOKEN_SIZE];
    char other[WORKSPACE_TOKEN_SIZE + 1];
    (void)state;
    workspace_sign(token, WORKSPACE_VISIT, UUID, NOW + 60);
    size_t size = strlen(token);
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(other, token, size + 1);
            other[at] = (char)(other[at] ^ 1 << bit);
            assert_false(workspace_verify(WORKSPACE_VISIT, UUID, str_of(other, size), NOW));
        }
    for (size_t shorter = 0; shorter < size; shorter++)
        assert_false(workspace_verify(WORKSPACE_VISIT, UUID, str_of(token, shorter), NOW));
    snprintf(other, sizeof other, "0%s", token);
    assert_false(verify(WORKSPACE_VISIT, other));
    snprintf(other, sizeof other, "%s=", token);
    assert_false(verify(WORKSPACE_VISIT, other));
    assert_false(verify(WORKSPACE_VISIT, "."));
    assert_false(verify(WORKSPACE_VISIT, "ffffffffffffffffffffffff.x"));
    assert_false(workspace_verify(WORKSPACE_VISIT, UUID, STR_NONE, NOW));
}

static void another_operators_token_is_none(void **state)
{
    char token[WORKSPACE_TOKEN_SIZE];
    (void)state;
    workspace_sign(token, WORKSPACE_LINK, UUID, NOW + 60);
    set("ENCRYPTION_KEY", "another operator's secret, as long as that");
    workspace_init();
    assert_false(verify(WORKSPACE_LINK, token));
    set("ENCRYPTION_KEY", "an operator's secret of forty characters");
    workspace_init();
    assert_true(verify(WORKSPACE_LINK, token));
}

static void a_host_name_is_read_whatever_its_case_and_nothing_else_passes(void **state)
{
    static const struct {
        const char *host;
        const char *id; /* NULL: none */
    } rows[] = {
        {"vs-code-abc23456.example.org", "abc23456"},
        {"VS-Code-ABC23456.Example.ORG", "abc23456"},
        {"vs-code-a2345678901234567890123456789012345678901234567890123456789012.example.org",
         "a2345678901234567890123456789012345678901234567890123456789012"},
        {"vs-code-a23456789012345678901234567890123456789012345678901234567890123.example.org",
         "a23456789012345678901234567890123456789012345678901234567890123"},
        {"vs-code-a234567890123456789012345678901234567890123456789012345678901234.example.org", NULL},
        {"vs-code-abc2345.example.org", NULL},
        {"vs-code-2bc23456.example.org", NULL},
        {"vs-code-abc_3456.example.org", NULL},
        {"vs-code-abc23456.evil.example.org", NULL},
        {"vs-code-abc23456xexample.org", NULL},
        {"vs-code-abc23456.example.orgs", NULL},
        {"vs-code-abc23456.example.org.evil.net", NULL},
        {"vs-code-abc23456", NULL},
        {"vs-code-.example.org", NULL},
        {"x.vs-code-abc23456.example.org", NULL},
        {"abc23456.example.org", NULL},
        {"example.org", NULL},
        {"", NULL},
    };
    struct arena arena;
    (void)state;
    set("BASE_DOMAIN", "example.org");
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str id = workspace_of_host(&arena, str_from(rows[i].host));
        if (!str_equal(id, str_from(rows[i].id)) || (id.at != NULL) != (rows[i].id != NULL))
            fail_msg("%s: %.*s", rows[i].host, STR_ARG(id));
    }
    struct buf host = {0};
    workspace_put_host(&host, UUID);
    assert_true(str_equal(buf_str(&host), STR("vs-code-abc23456defg7777.example.org")));
    assert_true(str_equal(workspace_of_host(&arena, buf_str(&host)), UUID));
    buf_clear(&host);
    arena_clear(&arena);
    arena_thread_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_good_until_its_moment),
        cmocka_unit_test(a_token_is_for_one_instance_and_one_purpose),
        cmocka_unit_test(a_token_with_any_byte_changed_added_or_missing_is_none),
        cmocka_unit_test(another_operators_token_is_none),
        cmocka_unit_test(a_host_name_is_read_whatever_its_case_and_nothing_else_passes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
