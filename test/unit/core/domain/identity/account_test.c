/* Accounts. */
#include "core/domain/identity/account.h"

#include "core/domain/identity/key.h"
#include "core/domain/identity/login.h"
#include "core/domain/identity/plan.h"
#include "test/unit/core/domain/identity/fixture.h"

static void addresses_are_taken_in_lower_case_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *email;
    } cases[] = {
        {"ada@example.com", "ada@example.com"},
        {"Ada.Lovelace+x@Example.COM", "ada.lovelace+x@example.com"},
        {"a@localhost", "a@localhost"},
        {"o'brien@a-b.example", "o'brien@a-b.example"},
        {"", NULL},
        {"ada", NULL},
        {"@example.com", NULL},
        {"ada@", NULL},
        {"ada@example", NULL},
        {"ada@@example.com", NULL},
        {"ada@b@example.com", NULL},
        {".ada@example.com", NULL},
        {"ada.@example.com", NULL},
        {"a..da@example.com", NULL},
        {"ada@example..com", NULL},
        {"ada@.example.com", NULL},
        {"ada@example.com.", NULL},
        {"ada@-a.com", NULL},
        {"ada@a-.com", NULL},
        {"ada @example.com", NULL},
        {"ada@exam ple.com", NULL},
        {"ada@example.com\n", NULL},
        {"ada\x01@example.com", NULL},
        {"\"ada\"@example.com", NULL},
        {"ada,bob@example.com", NULL},
        {"ad\xc3\xa4@example.com", NULL},
        {"ada@ex\xc3\xa4mple.com", NULL},
        {"ada@[127.0.0.1]", NULL},
    };
    struct arena arena;
    arena_init(&arena);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct str email;
        bool fine = account_email(&arena, str_from(cases[i].text), &email);
        if (fine != (cases[i].email != NULL) || (fine && !str_equal(email, str_from(cases[i].email))))
            fail_msg("\"%s\" is taken wrongly", cases[i].text);
    }
    arena_clear(&arena);
}

static void addresses_are_as_long_as_mail_has_them(void **state)
{
    (void)state;
    struct arena arena;
    struct str email;
    char text[300];
    arena_init(&arena);
    memset(text, 'a', sizeof text);
    memcpy(text + 64, "@b.com", 6);
    assert_true(account_email(&arena, str_of(text, 70), &email));
    memset(text, 'a', sizeof text);
    memcpy(text + 65, "@b.com", 6);
    assert_false(account_email(&arena, str_of(text, 71), &email));
    memset(text, 'a', sizeof text);
    text[1] = '@';
    for (size_t i = 60; i < sizeof text; i += 50)
        text[i] = '.';
    assert_true(account_email(&arena, str_of(text, 254), &email));
    assert_false(account_email(&arena, str_of(text, 255), &email));
    arena_clear(&arena);
}

/* ---- ---- */

static void make_and_find(void)
{
    struct account made = identity_account("ada@example.com");
    struct account found;
    char number[24];
    assert_true(str_starts(made.ref, STR("user_")));
    assert_true(str_equal(made.name, STR("ada@example.com")));
    assert_true(str_equal(made.organization, STR("ACME")));
    assert_false(made.is_banned);
    snprintf(number, sizeof number, "%lld", (long long)made.id);
    const struct str ways[] = {STR("ada@example.com"), STR("ADA@example.com"), made.ref, str_from(number)};
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        assert_int_equal(account_find(&identity_arena, ways[i], &found), 0);
        assert_int_equal(found.id, made.id);
    }
    assert_int_equal(account_find(&identity_arena, STR("nobody"), &found), -ENOENT);
    assert_int_equal(account_find(&identity_arena, STR(""), &found), -ENOENT);
    assert_int_equal(account_get(&identity_arena, made.id + 1, &found), -ENOENT);
    identity_sql("INSERT INTO account (name) VALUES ('%s')", number);
    assert_int_equal(account_find(&identity_arena, str_from(number), &found), 0);
    assert_int_not_equal(found.id, made.id);
    assert_null(found.email.at);
}

static void an_account_is_found_by_name_address_ref_or_number(void **state)
{
    (void)state;
    identity_on_loop(make_and_find);
}

static int registered;

static void try_register(int number)
{
    struct account account;
    (void)number;
    int result = account_register(&identity_arena, STR("ada@example.com"), STR("ACME"), STR("h"), &account);
    assert_true(result == 0 || result == -EEXIST);
    registered += result == 0;
}

static void race_to_register(void)
{
    registered = 0;
    identity_race(20, try_register);
    assert_int_equal(registered, 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM account"), 1);
    assert_int_equal(identity_audited("account.register"), 1);
}

static void an_address_is_taken_once_however_many_race(void **state)
{
    (void)state;
    identity_on_loop(race_to_register);
}

static void passwords(void)
{
    struct account account = identity_account("ada@example.com");
    int64_t id = 0;
    struct str hash;
    assert_int_equal(account_password(&identity_arena, STR("ada@example.com"), &id, &hash), 0);
    assert_int_equal(id, account.id);
    assert_true(str_equal(hash, STR("hash")));
    assert_int_equal(account_password(&identity_arena, STR("bob@example.com"), &id, &hash), -ENOENT);
    identity_sql("INSERT INTO account (name, email) VALUES ('c', 'c@example.com')");
    assert_int_equal(account_password(&identity_arena, STR("c@example.com"), &id, &hash), 0);
    assert_null(hash.at);
    assert_int_equal(account_set_password(account.id, STR("other")), 0);
    assert_int_equal(account_password(&identity_arena, STR("ada@example.com"), &id, &hash), 0);
    assert_true(str_equal(hash, STR("other")));
    assert_int_equal(account_set_password(999999, STR("other")), -ENOENT);
    assert_int_equal(identity_audited("account.password"), 1);
}

static void a_password_is_known_by_the_address(void **state)
{
    (void)state;
    identity_on_loop(passwords);
}

static void end_by_password(void)
{
    struct account account = identity_account("ada@example.com");
    struct login_tokens tokens;
    struct key_secrets by_hand;
    struct key_secrets by_login;
    struct key_row row;
    struct principal principal;
    const struct key_options hand = {.surface = "inference", .name = STR("by hand")};
    const struct key_options login = {.surface = "inference", .name = STR("login"), .by_login = true};
    assert_int_equal(login_begin(&identity_arena, account.id, account.ref, &tokens), 0);
    assert_int_equal(key_create(&identity_arena, account.id, &hand, &by_hand, &row), 0);
    assert_int_equal(key_create(&identity_arena, account.id, &login, &by_login, &row), 0);
    assert_int_equal(account_set_password(account.id, STR("other")), 0);
    assert_int_equal(login_verify(&identity_arena, tokens.token, "inference", &principal), -EACCES);
    assert_int_equal(login_refresh(&identity_arena, str_from(tokens.refresh), &tokens), -EACCES);
    assert_int_equal(key_verify(str_from(by_login.text), "inference", &principal), -EACCES);
    assert_int_equal(key_verify(str_from(by_hand.text), "inference", &principal), 0);
}

static void a_new_password_ends_what_the_old_one_gave(void **state)
{
    (void)state;
    identity_on_loop(end_by_password);
}

static void ban(void)
{
    struct account account = identity_account("ada@example.com");
    assert_int_equal(account_ban(account.id, STR("spam"), 0), 0);
    assert_int_equal(account_get(&identity_arena, account.id, &account), 0);
    assert_true(account.is_banned);
    assert_true(str_equal(account.ban_reason, STR("spam")));
    assert_int_equal(account.banned_until_ms, 0);
    int64_t until_ms = clock_wall_ms() + 60000;
    assert_int_equal(account_ban(account.id, STR("again"), until_ms), 0);
    assert_int_equal(account_get(&identity_arena, account.id, &account), 0);
    assert_true(account.is_banned);
    assert_int_equal(account.banned_until_ms, until_ms);
    assert_int_equal(account_ban(account.id, STR("again"), clock_wall_ms() - 1000), 0);
    assert_int_equal(account_get(&identity_arena, account.id, &account), 0);
    assert_false(account.is_banned);
    assert_int_equal(account_ban(account.id, STR("again"), 0), 0);
    assert_int_equal(account_unban(account.id), 0);
    assert_int_equal(account_get(&identity_arena, account.id, &account), 0);
    assert_false(account.is_banned);
    assert_int_equal(account_ban(999999, STR("nobody"), 0), -ENOENT);
    assert_int_equal(identity_audited("account.ban"), 4);
    assert_int_equal(identity_audited("account.unban"), 1);
}

static void a_ban_ends_by_itself_or_by_an_operator(void **state)
{
    (void)state;
    identity_on_loop(ban);
}

static void list(void)
{
    struct account *accounts;
    size_t count;
    identity_sql("INSERT INTO account (name) SELECT 'n' || i FROM generate_series(1, 5) i");
    struct account last = identity_account("ada@example.com");
    assert_int_equal(plan_set(last.id, "inference", STR("pro")), 0);
    assert_int_equal(account_list(&identity_arena, 0, 4, &accounts, &count), 0);
    assert_int_equal(count, 4);
    assert_int_equal(accounts[0].id, last.id);
    assert_true(str_equal(accounts[0].plans, STR("inference=pro")));
    assert_int_equal(account_list(&identity_arena, accounts[3].id, 4, &accounts, &count), 0);
    assert_int_equal(count, 2);
    assert_true(str_equal(accounts[1].name, STR("n1")));
    assert_null(accounts[1].plans.at);
}

static void accounts_are_listed_newest_first_page_by_page(void **state)
{
    (void)state;
    identity_on_loop(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, identity_fixture_empty)
        CASE(addresses_are_taken_in_lower_case_or_refused),
        CASE(addresses_are_as_long_as_mail_has_them),
        CASE(an_account_is_found_by_name_address_ref_or_number),
        CASE(an_address_is_taken_once_however_many_race),
        CASE(a_password_is_known_by_the_address),
        CASE(a_new_password_ends_what_the_old_one_gave),
        CASE(a_ban_ends_by_itself_or_by_an_operator),
        CASE(accounts_are_listed_newest_first_page_by_page),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
