/* Pods' tokens: made from the id alone, good for one instance, and as long as there is one. */
#include "core/domain/instance/token.h"

#include "core/domain/identity/key.h"
#include "core/domain/vault.h"
#include "test/unit/core/domain/identity/fixture.h"

#define POD "abcdefgh12345678"

static void make_instance(int64_t account_id)
{
    (void)identity_sql("INSERT INTO instance (id, surface, account_id, user_id) VALUES ('" POD
                       "', 'session', %lld, 'ada') RETURNING seq",
                       (long long)account_id);
}

static int verify(const char *token, struct principal *principal)
{
    key_close_loop(loop_self()); /* what the loop knows of it */
    return instance_token_verify(str_from(token), principal);
}

static void known_while_there_is_one(void)
{
    char token[INSTANCE_TOKEN_SIZE];
    struct principal principal;
    struct account ada = identity_account("ada@example.com");
    instance_token_make(token, STR(POD));
    assert_true(instance_token_is_ours(str_from(token)));
    assert_int_equal(verify(token, &principal), -EACCES);
    make_instance(ada.id);
    assert_int_equal(verify(token, &principal), 0);
    assert_int_equal(principal.kind, PRINCIPAL_POD);
    assert_int_equal(principal.account_id, ada.id);
    assert_true(principal.scopes == SCOPE_BIT(SCOPE_AI_CALL));
    assert_string_equal(principal.instance_id, POD);
    assert_string_equal(principal.plan.name, "free");
    (void)identity_sql("UPDATE instance SET deleted_at = now() WHERE id = '" POD "' RETURNING seq");
    assert_int_equal(verify(token, &principal), -EACCES);
    key_close_loop(loop_self());
}

static void instance_is_known_by_its_token(void **state)
{
    (void)state;
    identity_on_loop(known_while_there_is_one);
}

static void others_are_not_ours(void)
{
    char token[INSTANCE_TOKEN_SIZE];
    char other[INSTANCE_TOKEN_SIZE];
    instance_token_make(token, STR(POD));
    for (size_t i = 0; i < strlen(token); i++) {
        memcpy(other, token, sizeof token);
        other[i] = other[i] == 'a' ? 'b' : 'a';
        assert_false(instance_token_is_ours(str_from(other)));
    }
    static const char *const made_up[] = {"", "wgi_", "wgi__", "wgi_" POD, "wgi_" POD "_", "fsk-abc"};
    for (size_t i = 0; i < ARRAY_SIZE(made_up); i++)
        assert_false(instance_token_is_ours(str_from(made_up[i])));
    assert_false(instance_token_is_ours(str_of(token, strlen(token) - 1)));
    instance_token_make(other, STR("abcdefgh12345679"));
    assert_string_not_equal(token + strlen(token) - 64, other + strlen(other) - 64);
}

static void no_byte_may_be_another(void **state)
{
    (void)state;
    identity_on_loop(others_are_not_ours);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(instance_is_known_by_its_token, identity_fixture_empty),
        cmocka_unit_test_setup(no_byte_may_be_another, identity_fixture_empty),
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
