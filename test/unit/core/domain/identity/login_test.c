/* Log-ins: their tokens, and the end of both. */
#include "core/domain/identity/login.h"

#include "core/domain/identity/key.h"
#include "core/domain/identity/plan.h"
#include "proto/jwt.h"
#include "test/unit/core/domain/identity/fixture.h"

static struct account ada;

static struct login_tokens begin(void)
{
    struct login_tokens tokens;
    assert_int_equal(login_begin(&identity_arena, ada.id, ada.ref, &tokens), 0);
    return tokens;
}

static int verify(struct str token)
{
    struct principal principal;
    return login_verify(&identity_arena, token, "inference", &principal);
}

static int refresh(const char *text, struct login_tokens *tokens)
{
    return login_refresh(&identity_arena, str_from(text), tokens);
}

/* ---- ---- */

static void know(void)
{
    struct principal principal;
    ada = identity_account("ada@example.com");
    assert_int_equal(plan_set(ada.id, "inference", STR("basic")), 0);
    struct login_tokens tokens = begin();
    assert_true(login_has_form(tokens.token));
    assert_false(login_has_form(STR("fsk-abc.def.ghi")));
    assert_false(login_has_form(STR("eyJhbGciOiJIUzI1NiJ9.e30")));
    assert_false(login_has_form(STR("eyJhbGciOiJIUzI1NiJ9.e30.a.b")));
    assert_false(login_has_form(STR_NONE));
    assert_in_range(tokens.expires_s, clock_wall_s() + LOGIN_TOKEN_S - 10, clock_wall_s() + LOGIN_TOKEN_S);
    assert_int_equal(login_verify(&identity_arena, tokens.token, "inference", &principal), 0);
    assert_int_equal(principal.kind, PRINCIPAL_LOGIN);
    assert_int_equal(principal.account_id, ada.id);
    assert_int_equal(principal.key_id, 0);
    assert_true(principal.login_id > 0);
    assert_true(str_equal(str_from(principal.account_ref), ada.ref));
    assert_true(principal.scopes == scope_all("inference"));
    assert_string_equal(principal.plan.name, "basic");
    assert_int_equal(login_verify(&identity_arena, tokens.token, "gpu", &principal), 0);
    assert_true(principal.scopes == scope_all("gpu"));
    assert_string_equal(principal.plan.name, "starter");
    assert_int_equal(identity_sql("SELECT count(*) FROM login l, audit a WHERE l::text LIKE '%%%s%%' "
                                  "OR a::text LIKE '%%%s%%'",
                                  tokens.refresh + 4, tokens.refresh + 4),
                     0);
    assert_int_equal(identity_audited("login.begin"), 1);
}

static void a_token_is_known_as_its_accounts(void **state)
{
    (void)state;
    identity_on_loop(know);
    identity_fixture_empty(NULL);
    identity_set("JWT_ALGORITHM", "EdDSA");
    identity_on_loop(know);
}

static void change_each_byte(void)
{
    ada = identity_account("ada@example.com");
    struct str token = begin().token;
    char *wrong = arena_dup(&identity_arena, token.at, token.size);
    for (size_t i = 0; i < token.size; i++) {
        char right = wrong[i];
        wrong[i] = right == 'A' ? 'B' : 'A';
        assert_int_equal(verify(str_of(wrong, token.size)), -EACCES);
        wrong[i] = right;
        assert_int_equal(verify(str_of(wrong, i)), -EACCES);
    }
    assert_int_equal(verify(str_of(wrong, token.size)), 0);
}

static void no_other_token_is_known(void **state)
{
    (void)state;
    identity_on_loop(change_each_byte);
}

/* A token that we might have signed, under the key of `secret`. */
static struct str sign(const char *secret, const char *issuer, const char *audience, struct str session,
                       int64_t expires_s)
{
    struct jwt_key key;
    struct buf text = {0};
    assert_int_equal(jwt_key_make(&key, "HS256", str_from(secret)), 0);
    const struct jwt_claims claims = {
        .issuer = str_from(issuer),
        .audience = str_from(audience),
        .subject = ada.ref,
        .session = session,
        .id = STR("x"),
        .issued_s = clock_wall_s(),
        .expires_s = expires_s,
    };
    jwt_write(&text, &key, &claims);
    struct str token = arena_str(&identity_arena, buf_str(&text));
    buf_clear(&text);
    return token;
}

static void claims(void)
{
    static const char ours[] = "a secret of more than thirty-two characters";
    static const char other[] = "another secret of more than thirty-two ones";
    ada = identity_account("ada@example.com");
    struct str ref = begin().ref;
    int64_t later = clock_wall_s() + 60;
    assert_int_equal(verify(sign(ours, "wakegate", "wakegate-api", ref, later)), 0);
    assert_int_equal(verify(sign(other, "wakegate", "wakegate-api", ref, later)), -EACCES);
    assert_int_equal(verify(sign(ours, "else", "wakegate-api", ref, later)), -EACCES);
    assert_int_equal(verify(sign(ours, "wakegate", "else", ref, later)), -EACCES);
    assert_int_equal(verify(sign(ours, "wakegate", "wakegate-api", STR("login_none"), later)), -EACCES);
    assert_int_equal(verify(sign(ours, "wakegate", "wakegate-api", ref, clock_wall_s() - 120)), -EACCES);
}

static void a_token_must_be_meant_for_us_and_name_a_log_in(void **state)
{
    (void)state;
    identity_set("JWT_SECRET", "a secret of more than thirty-two characters");
    identity_on_loop(claims);
}

static void a_short_secret_is_refused(void **state)
{
    (void)state;
    char error[256];
    if (config_set("JWT_SECRET", "short", error, sizeof error) == 0)
        assert_int_equal(login_init(error, sizeof error), -EINVAL);
    assert_non_null(strstr(error, "JWT_SECRET"));
    assert_null(strstr(error, "short\""));
}

/* ---- refreshing ---- */

static void refresh_and_reuse(void)
{
    struct login_tokens next;
    struct login_tokens third;
    ada = identity_account("ada@example.com");
    struct login_tokens tokens = begin();
    assert_int_equal(refresh(tokens.refresh, &next), 0);
    assert_true(str_equal(next.ref, tokens.ref));
    assert_string_not_equal(next.refresh, tokens.refresh);
    assert_int_equal(verify(next.token), 0);
    assert_int_equal(verify(tokens.token), 0);
    assert_int_equal(refresh(next.refresh, &third), 0);
    assert_int_equal(refresh(next.refresh, &tokens), -EACCES);
    uint64_t ended_ns = clock_now_ns();
    assert_string_equal(tokens.refresh, "");
    assert_int_equal(refresh(third.refresh, &tokens), -EACCES);
    UNTIL(verify(third.token) == -EACCES);
    assert_in_range((clock_now_ns() - ended_ns) / CLOCK_MS, 0, 1000);
    assert_int_equal(identity_audited("login.refresh"), 2);
    assert_int_equal(identity_audited("login.reuse"), 1);
}

static void a_refresh_token_that_comes_again_ends_the_log_in(void **state)
{
    (void)state;
    identity_on_loop(refresh_and_reuse);
}

static char raced[SECRET_TEXT_MAX];
static int won;

static void try_refresh(int number)
{
    struct login_tokens tokens;
    (void)number;
    int result = refresh(raced, &tokens);
    assert_true(result == 0 || result == -EACCES);
    won += result == 0;
}

static void race_to_refresh(void)
{
    ada = identity_account("ada@example.com");
    struct login_tokens tokens = begin();
    memcpy(raced, tokens.refresh, sizeof raced);
    won = 0;
    identity_race(100, try_refresh);
    assert_int_equal(won, 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM login WHERE revoked_at IS NULL"), 0);
    assert_int_equal(identity_audited("login.refresh"), 1);
    assert_int_equal(identity_audited("login.reuse"), 1);
}

static void of_a_hundred_that_race_one_succeeds_and_the_log_in_ends(void **state)
{
    (void)state;
    identity_on_loop(race_to_refresh);
}

static void wrong_refresh_tokens(void)
{
    struct login_tokens other;
    char unknown[SECRET_TEXT_MAX];
    ada = identity_account("ada@example.com");
    struct login_tokens tokens = begin();
    secret_make(unknown, "wgr_");
    assert_int_equal(refresh(unknown, &other), -EACCES);
    assert_int_equal(refresh("", &other), -EACCES);
    assert_int_equal(refresh("wgr_short", &other), -EACCES);
    assert_int_equal(login_refresh(&identity_arena, tokens.token, &other), -EACCES);
    identity_sql("UPDATE login SET expires_at = now() - interval '1 second'");
    assert_int_equal(refresh(tokens.refresh, &other), -EACCES);
    assert_int_equal(verify(tokens.token), -EACCES);
}

static void nothing_else_refreshes(void **state)
{
    (void)state;
    identity_on_loop(wrong_refresh_tokens);
}

/* ---- the end ---- */

static void end(void)
{
    struct principal principal;
    struct login_tokens other;
    ada = identity_account("ada@example.com");
    struct login_tokens tokens = begin();
    struct login_tokens stays = begin();
    assert_int_equal(login_verify(&identity_arena, tokens.token, "inference", &principal), 0);
    assert_int_equal(login_end(principal.login_id), 0);
    uint64_t ended_ns = clock_now_ns();
    UNTIL(verify(tokens.token) == -EACCES);
    assert_in_range((clock_now_ns() - ended_ns) / CLOCK_MS, 0, 1000);
    assert_int_equal(refresh(tokens.refresh, &other), -EACCES);
    assert_int_equal(login_end(principal.login_id), -ENOENT);
    assert_int_equal(verify(stays.token), 0);
    assert_int_equal(identity_audited("login.end"), 1);
}

static void a_log_in_that_ended_is_refused_within_a_second(void **state)
{
    (void)state;
    identity_on_loop(end);
}

static void ban(void)
{
    struct principal principal;
    ada = identity_account("ada@example.com");
    struct login_tokens tokens = begin();
    assert_int_equal(verify(tokens.token), 0);
    assert_int_equal(account_ban(ada.id, STR("spam"), 0), 0);
    UNTIL(login_verify(&identity_arena, tokens.token, "inference", &principal) == 0 && principal.is_banned);
}

static void a_banned_accounts_log_in_says_so(void **state)
{
    (void)state;
    identity_on_loop(ban);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, identity_fixture_empty)
        CASE(a_token_is_known_as_its_accounts),
        CASE(no_other_token_is_known),
        CASE(a_token_must_be_meant_for_us_and_name_a_log_in),
        CASE(a_short_secret_is_refused),
        CASE(a_refresh_token_that_comes_again_ends_the_log_in),
        CASE(of_a_hundred_that_race_one_succeeds_and_the_log_in_ends),
        CASE(nothing_else_refreshes),
        CASE(a_log_in_that_ended_is_refused_within_a_second),
        CASE(a_banned_accounts_log_in_says_so),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
