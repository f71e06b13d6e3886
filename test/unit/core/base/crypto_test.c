/* Hashes, comparison, wiping. */
#include "core/base/crypto.h"

#include "core/base/escape.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_hex(const unsigned char digest[CRYPTO_DIGEST_SIZE], const char *wanted)
{
    char hex[2 * CRYPTO_DIGEST_SIZE + 1];
    escape_hex(hex, digest, CRYPTO_DIGEST_SIZE);
    assert_string_equal(hex, wanted);
}

static void digests_are_blake2b_256(void **state)
{
    (void)state;
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_digest(digest, STR_NONE, NULL);
    assert_hex(digest, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    crypto_digest(digest, STR("abc"), NULL);
    assert_hex(digest, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    unsigned char key[CRYPTO_KEY_SIZE] = {1};
    crypto_digest(digest, STR("abc"), key);
    unsigned char other[CRYPTO_DIGEST_SIZE];
    key[31] = 1;
    crypto_digest(other, STR("abc"), key);
    assert_memory_not_equal(digest, other, sizeof other);
}

static void subkeys_differ_by_secret_and_purpose(void **state)
{
    (void)state;
    unsigned char a[CRYPTO_KEY_SIZE];
    unsigned char b[CRYPTO_KEY_SIZE];
    crypto_derive(a, STR("secret"), "one");
    crypto_derive(b, STR("secret"), "one");
    assert_memory_equal(a, b, sizeof a);
    crypto_derive(b, STR("secret"), "two");
    assert_memory_not_equal(a, b, sizeof a);
    crypto_derive(b, STR("other"), "one");
    assert_memory_not_equal(a, b, sizeof a);
}

static void comparison_is_exact(void **state)
{
    (void)state;
    assert_true(crypto_equal(STR("abc"), STR("abc")));
    assert_false(crypto_equal(STR("abc"), STR("abd")));
    assert_false(crypto_equal(STR("abc"), STR("abcd")));
    assert_false(crypto_equal(STR_NONE, STR("a")));
    assert_true(crypto_equal(STR_NONE, STR("")));
}

static void wiped_memory_is_zero(void **state)
{
    (void)state;
    char secret[] = "secret";
    crypto_wipe(secret, sizeof secret);
    for (size_t i = 0; i < sizeof secret; i++)
        assert_int_equal(secret[i], 0);
}

int main(void)
{
    crypto_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_blake2b_256),
        cmocka_unit_test(subkeys_differ_by_secret_and_purpose),
        cmocka_unit_test(comparison_is_exact),
        cmocka_unit_test(wiped_memory_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
