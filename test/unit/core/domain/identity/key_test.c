/* API keys. */
#include "core/domain/identity/key.h"

#include "core/domain/identity/plan.h"
#include "core/domain/vault.h"
#include "test/unit/core/domain/identity/fixture.h"

static struct account ada;
static struct account bob;

static int setup_accounts(void)
{
    ada = identity_account("ada@example.com");
    bob = identity_account("bob@example.com");
    return 0;
}

static struct key_row make(const struct key_options *options, struct key_secrets *secrets)
{
    struct key_row row;
    assert_int_equal(key_create(&identity_arena, ada.id, options, secrets, &row), 0);
    return row;
}

static struct key_row make_plain(struct key_secrets *secrets)
{
    const struct key_options options = {.surface = "inference", .name = STR("plain")};
    return make(&options, secrets);
}

static int verify(const struct key_secrets *secrets)
{
    struct principal principal;
    return key_verify(str_from(secrets->text), "inference", &principal);
}

static int64_t dump_has(const char *text)
{
    return identity_sql("SELECT count(*) FROM api_key k, audit a WHERE k::text LIKE '%%%s%%' "
                        "OR a::text LIKE '%%%s%%'",
                        text, text);
}

/* ---- making and knowing ---- */

static void every_kind(void)
{
    static const struct {
        const char *surface;
        const char *prefix;
    } kinds[] = {
#define ROW(surface, prefix) {surface, prefix},
        KEY_KINDS(ROW)
#undef ROW
    };
    setup_accounts();
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct key_secrets secrets;
        struct principal principal;
        const struct key_options options = {.surface = kinds[i].surface, .name = STR("a key")};
        struct key_row row = make(&options, &secrets);
        struct str text = str_from(secrets.text);
        assert_true(str_starts(text, str_from(kinds[i].prefix)));
        assert_string_equal(secrets.signing, "");
        assert_true(str_starts(row.ref, STR("key_")));
        assert_true(str_starts(text, row.shown));
        assert_int_equal(row.shown.size, strlen(kinds[i].prefix) + SECRET_SHOWN_SIZE);
        assert_int_equal(key_verify(text, kinds[i].surface, &principal), 0);
        assert_int_equal(principal.kind, PRINCIPAL_KEY);
        assert_int_equal(principal.account_id, ada.id);
        assert_int_equal(principal.key_id, row.id);
        assert_true(str_equal(str_from(principal.account_ref), ada.ref));
        assert_true(principal.scopes == scope_all(kinds[i].surface));
        const char *const *plans = plan_names(kinds[i].surface);
        assert_ptr_equal(principal.plan.name, plans ? plans[0] : NULL);
        assert_false(principal.is_banned || principal.must_sign || principal.can_sign);
        assert_int_equal(principal.network_count, 0);
        for (size_t j = 0; j < ARRAY_SIZE(kinds); j++)
            if (j != i)
                assert_int_equal(key_verify(text, kinds[j].surface, &principal), -EACCES);
        assert_int_equal(dump_has(secrets.text), 0);
        assert_int_equal(dump_has(secrets.text + strlen(kinds[i].prefix) + SECRET_SHOWN_SIZE), 0);
    }
    struct key_secrets secrets;
    struct key_row row;
    const struct key_options nowhere = {.surface = "nowhere", .name = STR("a key")};
    const struct key_options fine = {.surface = "gpu", .name = STR("a key")};
    assert_int_equal(key_create(&identity_arena, ada.id, &nowhere, &secrets, &row), -EINVAL);
    assert_int_equal(key_create(&identity_arena, 999999, &fine, &secrets, &row), -ENOENT);
    assert_string_equal(secrets.text, "");
    assert_int_equal(identity_audited("key.create"), ARRAY_SIZE(kinds));
}

static void a_key_of_each_surface_is_known_there_alone_and_stored_nowhere(void **state)
{
    (void)state;
    identity_on_loop(every_kind);
}

static void wrong_texts(void)
{
    struct key_secrets secrets;
    struct principal principal;
    setup_accounts();
    make_plain(&secrets);
    size_t size = strlen(secrets.text);
    assert_false(key_is_known(str_from(secrets.text), "inference"));
    for (size_t i = 0; i < size; i++) {
        char wrong[SECRET_TEXT_MAX];
        memcpy(wrong, secrets.text, size + 1);
        wrong[i] = wrong[i] == 'x' ? 'y' : 'x';
        assert_int_equal(key_verify(str_from(wrong), "inference", &principal), -EACCES);
        assert_false(key_is_known(str_from(wrong), "inference"));
        assert_int_equal(key_verify(str_of(secrets.text, i), "inference", &principal), -EACCES);
    }
    char longer[SECRET_TEXT_MAX + 1];
    snprintf(longer, sizeof longer, "%sx", secrets.text);
    assert_int_equal(key_verify(str_from(longer), "inference", &principal), -EACCES);
    assert_int_equal(key_verify(STR_NONE, "inference", &principal), -EACCES);
    char unknown[SECRET_TEXT_MAX];
    secret_make(unknown, "fsk-");
    assert_int_equal(key_verify(str_from(unknown), "inference", &principal), -EACCES);
    assert_true(key_is_known(str_from(unknown), "inference"));
    assert_int_equal(verify(&secrets), 0);
    assert_true(key_is_known(str_from(secrets.text), "inference"));
    assert_false(key_is_known(str_from(secrets.text), "session"));
}

static void no_other_text_is_a_key(void **state)
{
    (void)state;
    identity_on_loop(wrong_texts);
}

static void everything_else(void)
{
    struct key_secrets secrets;
    struct principal principal;
    struct address address;
    const struct str from[] = {STR("192.0.2.0/24"), STR("2001:db8::/32"), STR("198.51.100.7")};
    const struct key_options options = {
        .surface = "inference",
        .name = STR("narrow"),
        .scopes = SCOPE_BIT(SCOPE_KEYS_READ) | SCOPE_BIT(SCOPE_AI_CALL),
        .allow_from = from,
        .allow_count = ARRAY_SIZE(from),
        .expires_ms = clock_wall_ms() + 3600000,
        .must_sign = true,
    };
    setup_accounts();
    assert_int_equal(plan_set(ada.id, "inference", STR("pro")), 0);
    assert_int_equal(plan_set_limit(ada.id, STR("inference-minute"), 77, 0), 0);
    struct key_row row = make(&options, &secrets);
    assert_int_equal(key_verify(str_from(secrets.text), "inference", &principal), 0);
    assert_true(principal.scopes == options.scopes);
    assert_int_equal(principal.network_count, 3);
    assert_true(address_parse(STR("2001:db8:1::1"), &address));
    assert_true(network_contains(&principal.networks[1], &address));
    assert_false(network_contains(&principal.networks[0], &address));
    assert_true(principal.must_sign && principal.can_sign);
    assert_string_equal(principal.plan.name, "pro");
    assert_int_equal(principal.plan.override_count, 1);
    assert_int_equal(principal.plan.overrides[0].most, 77);
    assert_true(str_equal(row.scopes, STR("keys:read ai:call")));
    assert_true(str_equal(row.allow_from, STR("192.0.2.0/24 2001:db8::/32 198.51.100.7")));
    assert_true(row.signs && row.must_sign);
    assert_int_equal(row.expires_ms, options.expires_ms);
    assert_int_equal(row.revoked_ms, 0);
    struct str signing;
    assert_int_equal(key_signing_secret(&identity_arena, row.id, &signing), 0);
    assert_true(str_equal(signing, str_from(secrets.signing)));
    assert_true(str_starts(signing, STR("wgss_")));
    assert_int_equal(dump_has(secrets.signing), 0);
    struct key_row plain = make_plain(&secrets);
    assert_int_equal(key_signing_secret(&identity_arena, plain.id, &signing), -ENOENT);
    identity_sql("UPDATE api_key SET signing_secret = (SELECT signing_secret FROM api_key WHERE id = %lld) "
                 "WHERE id = %lld",
                 (long long)row.id, (long long)plain.id);
    assert_int_equal(key_signing_secret(&identity_arena, plain.id, &signing), -EBADMSG);
}

static void a_verdict_holds_all_that_a_key_allows(void **state)
{
    (void)state;
    identity_on_loop(everything_else);
}

static void networks(void)
{
    struct key_secrets secrets;
    struct key_row row;
    struct str from[PRINCIPAL_NETWORKS_MAX + 1];
    struct key_options options = {.surface = "inference", .name = STR("many"), .allow_from = from};
    setup_accounts();
    for (size_t i = 0; i < ARRAY_SIZE(from); i++)
        from[i] = STR("192.0.2.1");
    options.allow_count = ARRAY_SIZE(from);
    assert_int_equal(key_create(&identity_arena, ada.id, &options, &secrets, &row), -EINVAL);
    options.allow_count = ARRAY_SIZE(from) - 1;
    make(&options, &secrets);
    assert_int_equal(verify(&secrets), 0);
    row = make(&options, &secrets);
    identity_sql("UPDATE api_key SET allow_from = '{nonsense}' WHERE id = %lld", (long long)row.id);
    assert_int_equal(verify(&secrets), -EACCES);
}

static void a_list_of_networks_that_cannot_be_read_shuts_the_key_out(void **state)
{
    (void)state;
    identity_on_loop(networks);
}

/* ---- the end of a key ---- */

/* From a change until the loop heeds it. */
static uint64_t ms_until_refused(const struct key_secrets *secrets, uint64_t changed_ns)
{
    UNTIL(verify(secrets) == -EACCES);
    return (clock_now_ns() - changed_ns) / CLOCK_MS;
}

static void end_one(void)
{
    struct key_secrets secrets;
    setup_accounts();
    struct key_row row = make_plain(&secrets);
    assert_int_equal(verify(&secrets), 0);
    assert_int_equal(key_revoke(bob.id, row.ref), -ENOENT);
    assert_int_equal(verify(&secrets), 0);
    assert_int_equal(key_revoke(ada.id, row.ref), 0);
    uint64_t revoked_ns = clock_now_ns();
    assert_in_range(ms_until_refused(&secrets, revoked_ns), 0, 1000);
    assert_int_equal(key_revoke(ada.id, row.ref), -ENOENT);
    assert_int_equal(key_get(&identity_arena, ada.id, row.ref, &row), 0);
    assert_in_range(row.revoked_ms, clock_wall_ms() - 60000, clock_wall_ms() + 1000);
    assert_int_equal(identity_audited("key.revoke"), 1);
}

static void a_revoked_key_is_refused_within_a_second(void **state)
{
    (void)state;
    identity_on_loop(end_one);
}

static void expire(void)
{
    struct key_secrets secrets;
    const struct key_options options = {
        .surface = "inference", .name = STR("short"), .expires_ms = clock_wall_ms() + 700};
    setup_accounts();
    uint64_t made_ns = clock_now_ns();
    make(&options, &secrets);
    assert_int_equal(verify(&secrets), 0);
    assert_in_range(ms_until_refused(&secrets, made_ns), 600, 1800);
}

static void an_expired_key_is_refused_within_a_second(void **state)
{
    (void)state;
    identity_on_loop(expire);
}

static void ban(void)
{
    struct key_secrets secrets;
    struct principal principal;
    setup_accounts();
    make_plain(&secrets);
    assert_int_equal(verify(&secrets), 0);
    assert_int_equal(account_ban(ada.id, STR("spam"), 0), 0);
    uint64_t banned_ns = clock_now_ns();
    UNTIL(key_verify(str_from(secrets.text), "inference", &principal) == 0 && principal.is_banned);
    assert_in_range((clock_now_ns() - banned_ns) / CLOCK_MS, 0, 1000);
}

static void a_banned_accounts_key_says_so_within_a_second(void **state)
{
    (void)state;
    identity_on_loop(ban);
}

/* ---- rotation ---- */

static void rotate(void)
{
    struct key_secrets old_secrets;
    struct key_secrets secrets;
    struct key_row row;
    const struct str from[] = {STR("192.0.2.0/24")};
    const struct key_options options = {
        .surface = "inference",
        .name = STR("turned"),
        .scopes = SCOPE_BIT(SCOPE_AI_CALL),
        .allow_from = from,
        .allow_count = 1,
        .must_sign = true,
    };
    setup_accounts();
    struct key_row old = make(&options, &old_secrets);
    assert_int_equal(key_rotate(&identity_arena, bob.id, old.ref, 0, &secrets, &row), -ENOENT);
    assert_int_equal(key_rotate(&identity_arena, ada.id, STR("key_none"), 0, &secrets, &row), -ENOENT);
    assert_int_equal(key_rotate(&identity_arena, ada.id, old.ref, 3600, &secrets, &row), 0);
    assert_string_not_equal(secrets.text, old_secrets.text);
    assert_true(str_equal(row.name, old.name) && str_equal(row.scopes, old.scopes) &&
                str_equal(row.allow_from, old.allow_from) && row.must_sign);
    struct str signing;
    assert_int_equal(key_signing_secret(&identity_arena, row.id, &signing), 0);
    assert_true(str_equal(signing, str_from(secrets.signing)));
    assert_int_equal(verify(&secrets), 0);
    assert_int_equal(verify(&old_secrets), 0);
    assert_int_equal(key_get(&identity_arena, ada.id, old.ref, &old), 0);
    assert_true(str_equal(old.rotated_to, row.ref));
    assert_in_range(old.expires_ms, clock_wall_ms() + 3590000, clock_wall_ms() + 3601000);
    assert_int_equal(key_rotate(&identity_arena, ada.id, old.ref, 0, &secrets, &row), -EEXIST);
    struct key_row plain = make_plain(&old_secrets);
    assert_int_equal(key_rotate(&identity_arena, ada.id, plain.ref, 0, &secrets, &row), 0);
    assert_string_equal(secrets.signing, "");
    assert_int_equal(verify(&old_secrets), -EACCES);
    assert_int_equal(key_revoke(ada.id, row.ref), 0);
    assert_int_equal(key_rotate(&identity_arena, ada.id, row.ref, 0, &secrets, &row), -ENOENT);
    assert_int_equal(identity_audited("key.rotate"), 2);
}

static void a_rotated_key_holds_for_its_overlap_beside_the_new_one(void **state)
{
    (void)state;
    identity_on_loop(rotate);
}

static void no_longer_than_before(void)
{
    struct key_secrets secrets;
    struct key_row row;
    const struct key_options options = {
        .surface = "inference", .name = STR("short"), .expires_ms = clock_wall_ms() + 60000};
    setup_accounts();
    struct key_row old = make(&options, &secrets);
    assert_int_equal(key_rotate(&identity_arena, ada.id, old.ref, 3600, &secrets, &row), 0);
    assert_int_equal(row.expires_ms, options.expires_ms);
    assert_int_equal(key_get(&identity_arena, ada.id, old.ref, &old), 0);
    assert_int_equal(old.expires_ms, options.expires_ms);
}

static void an_overlap_lengthens_no_life(void **state)
{
    (void)state;
    identity_on_loop(no_longer_than_before);
}

static struct str turned;
static int turns;

static void try_rotate(int number)
{
    struct key_secrets secrets;
    struct key_row row;
    (void)number;
    int result = key_rotate(&identity_arena, ada.id, turned, 60, &secrets, &row);
    assert_true(result == 0 || result == -EEXIST || result == -ENOENT);
    turns += result == 0;
}

static void race_to_rotate(void)
{
    struct key_secrets secrets;
    setup_accounts();
    turned = make_plain(&secrets).ref;
    turns = 0;
    identity_race(20, try_rotate);
    assert_int_equal(turns, 1);
    assert_int_equal(identity_sql("SELECT count(*) FROM api_key"), 2);
}

static void of_rotations_that_race_one_succeeds(void **state)
{
    (void)state;
    identity_on_loop(race_to_rotate);
}

/* ---- log-ins' keys ---- */

static const struct key_options by_login = {.surface = "inference", .name = {"login", 5}, .by_login = true};

static void log_in(int number)
{
    struct key_secrets secrets;
    struct key_row row;
    (void)number;
    assert_int_equal(key_create(&identity_arena, ada.id, &by_login, &secrets, &row), 0);
}

static void pile_up(void)
{
    struct key_secrets first;
    struct key_secrets by_hand;
    setup_accounts();
    make_plain(&by_hand);
    make(&by_login, &first);
    for (int i = 0; i < KEYS_BY_LOGIN_MAX - 1; i++)
        log_in(i);
    assert_int_equal(verify(&first), 0);
    identity_race(40, log_in);
    assert_int_equal(
        identity_sql(
            "SELECT count(*) FROM api_key WHERE by_login AND revoked_at IS NULL AND account_id = %lld",
            (long long)ada.id),
        KEYS_BY_LOGIN_MAX);
    UNTIL(verify(&first) == -EACCES);
    assert_int_equal(verify(&by_hand), 0);
    assert_int_equal(identity_audited("key.revoke"), 40);
}

static void of_log_ins_keys_only_the_newest_hold(void **state)
{
    (void)state;
    identity_on_loop(pile_up);
}

/* ---- lists ---- */

static void list(void)
{
    struct key_secrets secrets;
    struct key_row *rows;
    struct key_row row;
    size_t count;
    setup_accounts();
    struct key_row first = make_plain(&secrets);
    make_plain(&secrets);
    struct key_row third = make_plain(&secrets);
    const struct key_options options = {.surface = "gpu", .name = STR("of bob")};
    assert_int_equal(key_create(&identity_arena, bob.id, &options, &secrets, &row), 0);
    assert_int_equal(key_list(&identity_arena, ada.id, 0, 2, &rows, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(rows[0].id, third.id);
    assert_int_equal(key_list(&identity_arena, ada.id, rows[1].id, 2, &rows, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(rows[0].id, first.id);
    assert_int_equal(key_list(&identity_arena, 0, 0, 10, &rows, &count), 0);
    assert_int_equal(count, 4);
    assert_true(str_equal(rows[0].account, STR("bob@example.com")));
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)first.id);
    assert_int_equal(key_get(&identity_arena, bob.id, first.ref, &row), -ENOENT);
    assert_int_equal(key_get(&identity_arena, ada.id, str_from(number), &row), -ENOENT);
    assert_int_equal(key_revoke(ada.id, str_from(number)), -ENOENT);
    assert_int_equal(key_get(&identity_arena, 0, str_from(number), &row), 0);
    assert_true(str_equal(row.ref, first.ref));
    assert_int_equal(key_revoke(0, str_from(number)), 0);
    assert_int_equal(key_revoke(0, third.ref), 0);
}

static void an_account_sees_its_own_keys_and_an_operator_all(void **state)
{
    (void)state;
    identity_on_loop(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup(name, identity_fixture_empty)
        CASE(a_key_of_each_surface_is_known_there_alone_and_stored_nowhere),
        CASE(no_other_text_is_a_key),
        CASE(a_verdict_holds_all_that_a_key_allows),
        CASE(a_list_of_networks_that_cannot_be_read_shuts_the_key_out),
        CASE(a_revoked_key_is_refused_within_a_second),
        CASE(an_expired_key_is_refused_within_a_second),
        CASE(a_banned_accounts_key_says_so_within_a_second),
        CASE(a_rotated_key_holds_for_its_overlap_beside_the_new_one),
        CASE(an_overlap_lengthens_no_life),
        CASE(of_rotations_that_race_one_succeeds),
        CASE(of_log_ins_keys_only_the_newest_hold),
        CASE(an_account_sees_its_own_keys_and_an_operator_all),
#undef CASE
    };
    return cmocka_run_group_tests(tests, identity_fixture_start, identity_fixture_stop);
}
