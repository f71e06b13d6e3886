/* The OAuth server's rules, against a real PostgreSQL. */
#include "core/domain/identity/oauth.h"

#include "test/unit/core/domain/identity/fixture.h"

#include <stdlib.h>

#define BACK "https://app.example/back"
#define VERIFIER "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  /* RFC 7636, appendix B */
#define CHALLENGE "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" /* likewise */
#define BOTH (SCOPE_BIT(SCOPE_PROVISION_CREATE) | SCOPE_BIT(SCOPE_PROVISION_READ))

static struct account owner;
static struct account user;
static struct oauth_client client; /* confidential, may have BOTH */
static char client_secret[SECRET_TEXT_MAX];

static struct oauth_client new_client(const char *uri, bool is_public, char secret[SECRET_TEXT_MAX])
{
    struct oauth_client made;
    struct str uris[] = {str_from(uri)};
    const struct oauth_client_options options = {.name = STR("App"),
                                                 .redirect_uris = uris,
                                                 .uri_count = uri ? 1 : 0,
                                                 .scopes = BOTH,
                                                 .is_public = is_public};
    assert_int_equal(oauth_client_create(&identity_arena, owner.id, &options, secret, &made), 0);
    return made;
}

static void set_up(void)
{
    owner = identity_account("owner@example.org");
    user = identity_account("user@example.org");
    client = new_client(BACK, false, client_secret);
}

static struct str new_code(struct str challenge)
{
    char code[SECRET_TEXT_MAX];
    assert_int_equal(oauth_allow(&client, user.id, BOTH, STR(BACK), challenge, code), 0);
    return arena_str(&identity_arena, str_from(code));
}

static int exchange(struct str code, struct oauth_tokens *tokens)
{
    return oauth_exchange_code(&client, code, STR(BACK), STR_NONE, tokens);
}

static struct oauth_tokens new_tokens(void)
{
    struct oauth_tokens tokens;
    assert_int_equal(exchange(new_code(STR_NONE), &tokens), 0);
    return tokens;
}

static bool is_active(const char *token)
{
    struct oauth_token_info info;
    assert_int_equal(oauth_introspect(&identity_arena, &client, str_from(token), &info), 0);
    return info.active;
}

/* Each test: the accounts and the client, then its body. */
#define TEST(name)                                                                                           \
    static void name##_body(void);                                                                           \
    static void name##_on_loop(void)                                                                         \
    {                                                                                                        \
        set_up();                                                                                            \
        name##_body();                                                                                       \
        oauth_close_loop(loop_self());                                                                       \
    }                                                                                                        \
    static void name(void **state)                                                                           \
    {                                                                                                        \
        (void)state;                                                                                         \
        identity_on_loop(name##_on_loop);                                                                    \
    }                                                                                                        \
    static void name##_body(void)

/* ---- clients ---- */

static int create_with(const char *uri, bool is_public)
{
    char secret[SECRET_TEXT_MAX];
    struct oauth_client made;
    struct str uris[] = {str_from(uri)};
    const struct oauth_client_options options = {
        .name = STR("x"), .redirect_uris = uris, .uri_count = uri ? 1 : 0, .is_public = is_public};
    return oauth_client_create(&identity_arena, owner.id, &options, secret, &made);
}

TEST(redirect_uris_are_https_or_loopback_or_an_apps_own)
{
    static const char *const good[] = {
        BACK,
        "https://app.example",
        "https://app.example:8443/a?b=c",
        "http://localhost:3000/cb",
        "http://127.0.0.1/cb",
        "http://[::1]:9/cb",
        "com.example.app:/cb",
        "com.example.app://x",
    };
    static const char *const bad[] = {
        "",
        "/back",
        "app.example/back",
        "http://app.example/back",
        "https:///back",
        "https:back",
        "https://user@app.example/",
        "https://app.example/#x",
        "https://app.example/a b",
        "https://app.example/\"",
        "https://app.example/\r\nx",
        "https://app.example/é",
        "javascript:alert(1)",
        "data:text/html,x",
        "app:/cb",
        "http://localhost.example/cb",
        "http://127.0.0.1.example/",
        "com.example.app:",
        "1.2:/x",
        "https://app.example:0/",
        "https://app.example;x/",
        "https://*/",
    };
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (create_with(good[i], true))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (create_with(bad[i], true) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
}

TEST(a_uri_has_a_longest)
{
    char uri[OAUTH_URI_MAX + 2];
    memset(uri, 'a', sizeof uri);
    memcpy(uri, "https://app.example/", 20);
    uri[OAUTH_URI_MAX] = '\0';
    assert_int_equal(create_with(uri, true), 0);
    uri[OAUTH_URI_MAX] = 'a';
    uri[OAUTH_URI_MAX + 1] = '\0';
    assert_int_equal(create_with(uri, true), -EINVAL);
}

TEST(what_a_client_may_follows_from_its_kind)
{
    char secret[SECRET_TEXT_MAX];
    struct oauth_client app = new_client(BACK, true, secret);
    struct oauth_client server = new_client(NULL, false, secret);
    assert_true(oauth_client_has_grant(&client, STR("authorization_code")));
    assert_true(oauth_client_has_grant(&client, STR("client_credentials")));
    assert_false(oauth_client_has_grant(&app, STR("client_credentials")));
    assert_true(oauth_client_has_grant(&app, STR("refresh_token")));
    assert_false(oauth_client_has_grant(&server, STR("authorization_code")));
    assert_false(oauth_client_has_grant(&client, STR("")));
    assert_false(oauth_client_has_grant(&client, STR("authorization_code refresh_token")));
    assert_int_equal(create_with(NULL, true), -EINVAL);
    assert_true(str_starts(client.id, STR("cli_")));
    assert_int_equal(identity_audited("client.create"), 3);
}

TEST(a_redirect_uri_counts_exactly)
{
    static const char *const others[] = {
        BACK "/",
        BACK "?",
        BACK "?x=1",
        BACK "#",
        "https://app.example/Back",
        "https://APP.example/back",
        "https://app.example:443/back",
        "https://app.example/bac",
        "https://app.example/%62ack",
        "",
        " " BACK,
        BACK " ",
    };
    assert_true(oauth_client_has_uri(&client, STR(BACK)));
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (oauth_client_has_uri(&client, str_from(others[i])))
            fail_msg("fits: %s", others[i]);
}

TEST(a_client_is_who_has_its_secret)
{
    struct oauth_client found;
    struct oauth_client app;
    char none[SECRET_TEXT_MAX];
    char renewed[SECRET_TEXT_MAX];
    app = new_client(BACK, true, none);
    assert_string_equal(none, "");
    struct str secret = str_from(client_secret);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, secret, &found), 0);
    assert_true(str_equal(found.id, client.id));
    assert_int_equal(found.scopes, BOTH);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, STR_NONE, &found), -EACCES);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, STR("x"), &found), -EACCES);
    assert_int_equal(oauth_client_check(&identity_arena, app.id, secret, &found), -EACCES);
    assert_int_equal(oauth_client_check(&identity_arena, app.id, STR_NONE, &found), 0);
    assert_int_equal(oauth_client_check(&identity_arena, STR("cli_x' OR '1"), secret, &found), -EACCES);
    assert_int_equal(oauth_client_rotate(client.id, renewed), 0);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, secret, &found), -EACCES);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, str_from(renewed), &found), 0);
    assert_int_equal(oauth_client_rotate(app.id, renewed), -ENOENT);
}

TEST(a_revoked_client_is_gone_with_all_it_was_given)
{
    struct oauth_client found;
    struct principal principal;
    struct oauth_tokens tokens = new_tokens();
    assert_int_equal(oauth_client_revoke(client.id), 0);
    assert_int_equal(oauth_client_revoke(client.id), -ENOENT);
    assert_int_equal(oauth_client_get(&identity_arena, client.id, &found), -ENOENT);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, str_from(client_secret), &found),
                     -EACCES);
    assert_int_equal(oauth_verify(str_from(tokens.access), &principal), -EACCES);
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.refresh), 0, &tokens), -EACCES);
    assert_int_equal(oauth_client_tokens(&client, 0, &tokens), -EACCES);
    char code[SECRET_TEXT_MAX];
    assert_int_equal(oauth_allow(&client, user.id, BOTH, STR(BACK), STR_NONE, code), -EACCES);
    assert_string_equal(code, "");
}

TEST(a_banned_account_has_no_clients_and_allows_nothing)
{
    struct oauth_client found;
    struct oauth_tokens tokens = new_tokens();
    struct principal principal;
    char code[SECRET_TEXT_MAX];
    assert_int_equal(account_ban(user.id, STR("spam"), 0), 0);
    assert_int_equal(oauth_allow(&client, user.id, BOTH, STR(BACK), STR_NONE, code), -EACCES);
    assert_int_equal(oauth_verify(str_from(tokens.access), &principal), 0);
    assert_true(principal.is_banned);
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.refresh), 0, &tokens), -EACCES);
    assert_int_equal(account_ban(owner.id, STR("spam"), 0), 0);
    assert_int_equal(oauth_client_get(&identity_arena, client.id, &found), -ENOENT);
    assert_int_equal(oauth_client_check(&identity_arena, client.id, str_from(client_secret), &found),
                     -EACCES);
}

/* ---- codes ---- */

TEST(a_code_gives_tokens_once_and_ends_them_when_it_comes_again)
{
    struct oauth_tokens tokens;
    struct oauth_tokens again;
    struct str code = new_code(STR_NONE);
    assert_int_equal(exchange(code, &tokens), 0);
    assert_int_equal(tokens.scopes, BOTH);
    assert_int_equal(tokens.expires_in_s, OAUTH_ACCESS_S);
    assert_true(is_active(tokens.access));
    assert_true(is_active(tokens.refresh));
    assert_int_equal(exchange(code, &again), -EACCES);
    assert_string_equal(again.access, "");
    assert_false(is_active(tokens.access));
    assert_false(is_active(tokens.refresh));
    assert_int_equal(identity_audited("oauth.code_again"), 1);
}

TEST(a_code_is_bound_to_client_uri_and_challenge)
{
    struct oauth_tokens tokens;
    char secret[SECRET_TEXT_MAX];
    struct oauth_client other = new_client(BACK, false, secret);
    struct str code = new_code(STR(CHALLENGE));
    struct str back = STR(BACK);
    struct str verifier = STR(VERIFIER);
    char long_verifier[130];
    memset(long_verifier, 'a', sizeof long_verifier);
    assert_int_equal(oauth_exchange_code(&other, code, back, verifier, &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, STR(BACK "/"), verifier, &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, back, STR_NONE, &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, back, STR(CHALLENGE), &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, back, STR("short"), &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, back, str_of(long_verifier, 130), &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, back, verifier, &tokens), 0);
    assert_true(is_active(tokens.access));
}

TEST(who_asked_without_a_challenge_can_bring_no_verifier)
{
    struct oauth_tokens tokens;
    struct str code = new_code(STR_NONE);
    assert_int_equal(oauth_exchange_code(&client, code, STR(BACK), STR(VERIFIER), &tokens), -EACCES);
    assert_int_equal(oauth_exchange_code(&client, code, STR_NONE, STR_NONE, &tokens), 0);
}

TEST(another_client_with_a_used_code_ends_nothing)
{
    char secret[SECRET_TEXT_MAX];
    struct oauth_client other = new_client(BACK, false, secret);
    struct oauth_tokens tokens;
    struct oauth_tokens stolen;
    struct str code = new_code(STR_NONE);
    assert_int_equal(exchange(code, &tokens), 0);
    assert_int_equal(oauth_exchange_code(&other, code, STR(BACK), STR_NONE, &stolen), -EACCES);
    assert_true(is_active(tokens.access));
}

TEST(an_old_code_is_none)
{
    struct oauth_tokens tokens;
    struct str code = new_code(STR_NONE);
    identity_sql("UPDATE oauth_code SET expires_at = now()");
    assert_int_equal(exchange(code, &tokens), -EACCES);
    assert_int_equal(exchange(STR("wgc_made_up"), &tokens), -EACCES);
    assert_int_equal(exchange(STR(""), &tokens), -EACCES);
    assert_int_equal(identity_sql("SELECT count(*) FROM oauth_token"), 0);
}

static struct str raced;
static int raced_won;
static int raced_lost;
static struct oauth_tokens raced_tokens;

static void race_code(int number)
{
    struct oauth_tokens tokens;
    (void)number;
    int result = exchange(raced, &tokens);
    raced_lost += result == -EACCES;
    if (result == 0) {
        raced_won++;
        raced_tokens = tokens;
    }
}

static void race_refresh(int number)
{
    struct oauth_tokens tokens;
    (void)number;
    int result = oauth_exchange_refresh(&client, raced, 0, &tokens);
    raced_won += result == 0;
    raced_lost += result == -EACCES;
}

TEST(of_a_hundred_that_race_with_a_code_one_succeeds_and_what_it_got_ends)
{
    raced = new_code(STR_NONE);
    raced_won = raced_lost = 0;
    identity_race(100, race_code);
    assert_int_equal(raced_won, 1);
    assert_int_equal(raced_lost, 99);
    assert_false(is_active(raced_tokens.access));
    assert_int_equal(identity_sql("SELECT count(*) FROM oauth_token"), 2);
    assert_int_equal(identity_audited("oauth.exchange"), 1);
    assert_int_equal(identity_audited("oauth.code_again"), 1);
}

TEST(of_a_hundred_that_race_with_a_refresh_token_one_succeeds)
{
    struct oauth_tokens tokens = new_tokens();
    raced = str_from(tokens.refresh);
    raced_won = raced_lost = 0;
    identity_race(100, race_refresh);
    assert_int_equal(raced_won, 1);
    assert_int_equal(raced_lost, 99);
    assert_false(is_active(tokens.access));
    assert_int_equal(identity_audited("oauth.refresh_again"), 1);
}

/* ---- refresh tokens ---- */

TEST(a_refresh_token_is_exchanged_once_and_ends_the_family_when_it_comes_again)
{
    struct oauth_tokens first = new_tokens();
    struct oauth_tokens second;
    struct oauth_tokens third;
    assert_int_equal(oauth_exchange_refresh(&client, str_from(first.refresh), 0, &second), 0);
    assert_string_not_equal(first.refresh, second.refresh);
    assert_true(is_active(first.access));
    assert_false(is_active(first.refresh));
    assert_true(is_active(second.access));
    assert_int_equal(oauth_exchange_refresh(&client, str_from(first.refresh), 0, &third), -EACCES);
    assert_false(is_active(first.access));
    assert_false(is_active(second.access));
    assert_int_equal(oauth_exchange_refresh(&client, str_from(second.refresh), 0, &third), -EACCES);
}

TEST(a_refresh_narrows_its_access_token_only)
{
    scope_set one = SCOPE_BIT(SCOPE_PROVISION_READ);
    struct oauth_tokens tokens = new_tokens();
    struct oauth_tokens narrow;
    struct oauth_tokens wide;
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.refresh), one, &narrow), 0);
    assert_int_equal(narrow.scopes, one);
    assert_int_equal(
        oauth_exchange_refresh(&client, str_from(narrow.refresh), BOTH | SCOPE_BIT(SCOPE_PAYMENTS), &wide),
        -EPERM);
    assert_int_equal(oauth_exchange_refresh(&client, str_from(narrow.refresh), 0, &wide), 0);
    assert_int_equal(wide.scopes, BOTH);
}

TEST(a_refresh_token_is_its_clients)
{
    char secret[SECRET_TEXT_MAX];
    struct oauth_client other = new_client(BACK, false, secret);
    struct oauth_tokens tokens = new_tokens();
    struct oauth_tokens stolen;
    assert_int_equal(oauth_exchange_refresh(&other, str_from(tokens.refresh), 0, &stolen), -EACCES);
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.access), 0, &stolen), -EACCES);
    identity_sql("UPDATE oauth_token SET expires_at = now() WHERE kind = 'refresh'");
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.refresh), 0, &stolen), -EACCES);
    assert_int_equal(oauth_exchange_refresh(&client, str_from(tokens.refresh), BOTH, &stolen), -EACCES);
    assert_true(is_active(tokens.access));
}

/* ---- a client for itself ---- */

TEST(a_client_gets_for_itself_what_it_may_and_no_more)
{
    struct oauth_tokens tokens;
    struct principal principal;
    assert_int_equal(oauth_client_tokens(&client, SCOPE_BIT(SCOPE_PAYMENTS), &tokens), -EPERM);
    assert_int_equal(oauth_client_tokens(&client, 0, &tokens), 0);
    assert_string_equal(tokens.refresh, "");
    assert_int_equal(tokens.scopes, BOTH);
    assert_int_equal(oauth_verify(str_from(tokens.access), &principal), 0);
    assert_int_equal(principal.account_id, owner.id);
}

/* ---- verifying ---- */

TEST(a_token_tells_whose_it_is)
{
    struct oauth_tokens tokens = new_tokens();
    struct str token = str_from(tokens.access);
    struct principal principal;
    assert_true(oauth_has_form(token));
    assert_false(oauth_is_known(token));
    assert_int_equal(oauth_verify(token, &principal), 0);
    assert_true(oauth_is_known(token));
    assert_int_equal(principal.kind, PRINCIPAL_CLIENT);
    assert_int_equal(principal.account_id, user.id);
    assert_true(str_equal(str_from(principal.account_ref), user.ref));
    assert_true(str_equal(str_from(principal.client_id), client.id));
    assert_int_equal(principal.scopes, BOTH);
    assert_false(principal.is_banned);
    assert_false(principal.is_test);
    assert_int_equal(oauth_verify(str_from(tokens.refresh), &principal), -EACCES);
    assert_true(oauth_is_known(STR("Made up, so nobody need be asked")));
}

TEST(a_revoked_token_is_refused_within_a_second)
{
    struct oauth_tokens tokens = new_tokens();
    struct str token = str_from(tokens.access);
    struct principal principal;
    assert_int_equal(oauth_verify(token, &principal), 0);
    assert_int_equal(oauth_revoke(&client, token), 0);
    uint64_t since = clock_now_ns();
    while (oauth_verify(token, &principal) == 0)
        assert_int_equal(fiber_sleep_ms(10), 0);
    assert_true(clock_now_ns() - since < CLOCK_SECOND);
    assert_true(is_active(tokens.refresh));
}

TEST(revoking_is_for_ones_own_and_a_refresh_token_ends_its_grant)
{
    char secret[SECRET_TEXT_MAX];
    struct oauth_client other = new_client(BACK, false, secret);
    struct oauth_tokens tokens = new_tokens();
    struct oauth_token_info info;
    assert_int_equal(oauth_revoke(&other, str_from(tokens.refresh)), 0);
    assert_true(is_active(tokens.access));
    assert_int_equal(oauth_introspect(&identity_arena, &other, str_from(tokens.access), &info), 0);
    assert_false(info.active);
    assert_int_equal(oauth_revoke(&client, str_from(tokens.refresh)), 0);
    assert_int_equal(oauth_revoke(&client, str_from(tokens.refresh)), 0);
    assert_int_equal(oauth_revoke(&client, STR("whatever")), 0);
    assert_false(is_active(tokens.access));
    assert_int_equal(identity_audited("oauth.revoke"), 1);
}

TEST(introspection_tells_what_a_token_is)
{
    struct oauth_tokens tokens = new_tokens();
    struct oauth_token_info info;
    assert_int_equal(oauth_introspect(&identity_arena, &client, str_from(tokens.refresh), &info), 0);
    assert_true(info.active && info.is_refresh);
    assert_int_equal(info.scopes, BOTH);
    assert_true(str_equal(info.client_id, client.id));
    assert_true(str_equal(info.account_ref, user.ref));
    assert_int_equal(info.expires_s - info.issued_s, OAUTH_REFRESH_S);
    identity_sql("UPDATE oauth_token SET expires_at = now()");
    assert_false(is_active(tokens.refresh));
}

/* ---- keeping house ---- */

TEST(nothing_that_is_presented_is_stored)
{
    struct oauth_tokens tokens = new_tokens();
    const char *secrets[] = {tokens.access, tokens.refresh, client_secret};
    for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
        assert_int_equal(
            identity_sql("SELECT count(*) FROM oauth_token t, oauth_client c, oauth_code k, audit a WHERE "
                         "position(convert_to('%s', 'UTF8') in t.hash || c.secret_hash || k.hash) > 0 OR "
                         "a::text LIKE '%%%s%%'",
                         secrets[i] + 5, secrets[i] + 5),
            0);
}

TEST(what_ended_long_ago_is_forgotten)
{
    struct oauth_tokens old = new_tokens();
    identity_sql("UPDATE oauth_code SET expires_at = now() - interval '25 hours'");
    assert_int_equal(oauth_forget(), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM oauth_code"), 0);
    assert_true(is_active(old.access));
    identity_sql("UPDATE oauth_token SET expires_at = now() - interval '25 hours'");
    struct oauth_tokens held = new_tokens();
    assert_int_equal(oauth_forget(), 0);
    assert_int_equal(identity_sql("SELECT count(*) FROM oauth_token"), 2);
    assert_int_equal(identity_sql("SELECT count(*) FROM oauth_grant"), 1);
    assert_true(is_active(held.refresh));
}

#define RUN(name) cmocka_unit_test_setup(name, identity_fixture_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(redirect_uris_are_https_or_loopback_or_an_apps_own),
        RUN(a_uri_has_a_longest),
        RUN(what_a_client_may_follows_from_its_kind),
        RUN(a_redirect_uri_counts_exactly),
        RUN(a_client_is_who_has_its_secret),
        RUN(a_revoked_client_is_gone_with_all_it_was_given),
        RUN(a_banned_account_has_no_clients_and_allows_nothing),
        RUN(a_code_gives_tokens_once_and_ends_them_when_it_comes_again),
        RUN(a_code_is_bound_to_client_uri_and_challenge),
        RUN(who_asked_without_a_challenge_can_bring_no_verifier),
        RUN(another_client_with_a_used_code_ends_nothing),
        RUN(an_old_code_is_none),
        RUN(of_a_hundred_that_race_with_a_code_one_succeeds_and_what_it_got_ends),
        RUN(of_a_hundred_that_race_with_a_refresh_token_one_succeeds),
        RUN(a_refresh_token_is_exchanged_once_and_ends_the_family_when_it_comes_again),
        RUN(a_refresh_narrows_its_access_token_only),
        RUN(a_refresh_token_is_its_clients),
        RUN(a_client_gets_for_itself_what_it_may_and_no_more),
        RUN(a_token_tells_whose_it_is),
        RUN(a_revoked_token_is_refused_within_a_second),
        RUN(revoking_is_for_ones_own_and_a_refresh_token_ends_its_grant),
        RUN(introspection_tells_what_a_token_is),
        RUN(nothing_that_is_presented_is_stored),
        RUN(what_ended_long_ago_is_forgotten),
    };
    return cmocka_run_group_tests_name("oauth", tests, identity_fixture_start, identity_fixture_stop);
}
