/* Hashes, signatures, seals, passwords, comparison, wiping. */
#include "core/base/crypto.h"

#include "core/base/escape.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_hex(const unsigned char digest[CRYPTO_DIGEST_SIZE], const char *wanted)
{
    char hex[2 * CRYPTO_DIGEST_SIZE + 1];
    escape_hex(hex, digest, CRYPTO_DIGEST_SIZE);
    assert_string_equal(hex, wanted);
}

/* The bytes that `hex` spells, in `out`. */
static struct str bytes_of(const char *hex, unsigned char *out)
{
    size_t size = strlen(hex) / 2;
    for (size_t i = 0; i < size; i++) {
        char pair[] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return str_of((const char *)out, size);
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

/* FIPS 180-4's examples. */
static void sha_256_is_fips_180_4(void **state)
{
    (void)state;
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_sha256(digest, STR_NONE);
    assert_hex(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    crypto_sha256(digest, STR("abc"));
    assert_hex(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_sha256(digest, STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"));
    assert_hex(digest, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void hmac_sha_256_is_rfc_4231(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        const char *message;
        const char *mac;
    } cases[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {"0102030405060708090a0b0c0d0e0f10111213141516171819",
         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
    };
    unsigned char key[64];
    unsigned char message[64];
    unsigned char mac[CRYPTO_DIGEST_SIZE];
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        crypto_hmac_sha256(mac, bytes_of(cases[i].key, key), bytes_of(cases[i].message, message));
        assert_hex(mac, cases[i].mac);
    }
    /* A key longer than a block is hashed first. */
    unsigned char longer[131];
    memset(longer, 0xaa, sizeof longer);
    struct str long_key = str_of((const char *)longer, sizeof longer);
    crypto_hmac_sha256(mac, long_key, STR("Test Using Larger Than Block-Size Key - Hash Key First"));
    assert_hex(mac, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    crypto_hmac_sha256(
        mac, long_key,
        STR("This is a test using a larger than block-size key and a larger than block-size data. "
            "The key needs to be hashed before being used by the HMAC algorithm."));
    assert_hex(mac, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

static void signatures_are_rfc_8032(void **state)
{
    (void)state;
    static const struct {
        const char *seed;
        const char *public_key;
        const char *message;
        const char *signature;
    } cases[] = {
        {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
         "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
         "d25bf5f0595bbe24655141438e7a100b"},
        {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
         "387b2eaeb4302aeeb00d291612bb0c00"},
        {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
         "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
         "4a7c15e9716ed28dc027beceea1ec40a"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned char seed[CRYPTO_KEY_SIZE];
        unsigned char wanted[CRYPTO_SIGNATURE_SIZE];
        unsigned char bytes[2];
        unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE];
        unsigned char secret_key[CRYPTO_SECRET_KEY_SIZE];
        unsigned char signature[CRYPTO_SIGNATURE_SIZE];
        struct str message = bytes_of(cases[i].message, bytes);
        bytes_of(cases[i].seed, seed);
        crypto_ed25519_key(public_key, secret_key, seed);
        assert_hex(public_key, cases[i].public_key);
        crypto_ed25519_sign(signature, message, secret_key);
        bytes_of(cases[i].signature, wanted);
        assert_memory_equal(signature, wanted, sizeof wanted);
        struct str said = str_of((const char *)signature, sizeof signature);
        assert_true(crypto_ed25519_verify(said, message, public_key));
        assert_false(crypto_ed25519_verify(said, STR("another"), public_key));
        assert_false(crypto_ed25519_verify(str_of(said.at, said.size - 1), message, public_key));
        assert_false(crypto_ed25519_verify(STR_NONE, message, public_key));
        signature[i] ^= 1;
        assert_false(crypto_ed25519_verify(said, message, public_key));
    }
}

/* The examples of the paper that proposed GCM, numbers 13, 14 and 16. */
static void seals_are_aes_256_gcm(void **state)
{
    (void)state;
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    static const char key_16[] = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    static const struct {
        const char *key;
        const char *bound;
        const char *sealed;
        const char *plain;
    } cases[] = {
        {zeros, "", "000000000000000000000000530f8afbc74536b9a963b4f1c4cb738b", ""},
        {zeros, "",
         "000000000000000000000000cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
         "00000000000000000000000000000000"},
        {key_16, "feedfacedeadbeeffeedfacedeadbeefabaddad2",
         "cafebabefacedbaddecaf888522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48"
         "590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
         "b16aedf5aa0de657ba637b39"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned char key[CRYPTO_KEY_SIZE];
        unsigned char bound[32];
        unsigned char sealed[128];
        unsigned char wanted[64];
        unsigned char plain[64];
        bytes_of(cases[i].key, key);
        struct str whole = bytes_of(cases[i].sealed, sealed);
        struct str beside = bytes_of(cases[i].bound, bound);
        assert_int_equal(crypto_unseal(plain, whole, beside, key), 0);
        struct str right = bytes_of(cases[i].plain, wanted);
        assert_int_equal(whole.size, right.size + CRYPTO_SEAL_EXTRA);
        assert_memory_equal(plain, wanted, right.size);
    }
}

static void a_seal_opens_by_its_key_and_what_it_is_bound_to_alone(void **state)
{
    (void)state;
    unsigned char key[CRYPTO_KEY_SIZE] = {1, 2, 3};
    unsigned char bytes[6 + CRYPTO_SEAL_EXTRA];
    unsigned char again[sizeof bytes];
    unsigned char plain[sizeof bytes];
    struct str sealed = str_of((const char *)bytes, sizeof bytes);
    crypto_seal(bytes, STR("secret"), STR("row 1"), key);
    crypto_seal(again, STR("secret"), STR("row 1"), key);
    assert_memory_not_equal(bytes, again, sizeof bytes); /* a nonce of its own */
    assert_int_equal(crypto_unseal(plain, sealed, STR("row 1"), key), 0);
    assert_memory_equal(plain, "secret", 6);
    assert_int_equal(crypto_unseal(plain, sealed, STR("row 2"), key), -EBADMSG);
    assert_int_equal(crypto_unseal(plain, sealed, STR_NONE, key), -EBADMSG);
    for (size_t size = 0; size < sealed.size; size++)
        assert_int_equal(crypto_unseal(plain, str_of(sealed.at, size), STR("row 1"), key), -EBADMSG);
    for (size_t i = 0; i < 8 * sizeof bytes; i++) {
        bytes[i / 8] ^= (unsigned char)(1 << i % 8);
        assert_int_equal(crypto_unseal(plain, sealed, STR("row 1"), key), -EBADMSG);
        bytes[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    key[31] = 1;
    assert_int_equal(crypto_unseal(plain, sealed, STR("row 1"), key), -EBADMSG);
}

static void a_password_fits_its_own_hash(void **state)
{
    (void)state;
    char hash[CRYPTO_PASSWORD_SIZE];
    char other[CRYPTO_PASSWORD_SIZE];
    assert_int_equal(crypto_password_hash(hash, STR("correct horse\0battery")), 0);
    assert_int_equal(crypto_password_hash(other, STR("correct horse\0battery")), 0);
    assert_string_not_equal(hash, other); /* a salt of its own */
    assert_int_equal(strncmp(hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_true(crypto_password_fits(hash, STR("correct horse\0battery")));
    assert_false(crypto_password_fits(hash, STR("correct horse")));
    assert_false(crypto_password_fits(hash, STR("correct horse\0batterz")));
    assert_false(crypto_password_fits(hash, STR("")));
    assert_false(crypto_password_fits("", STR("correct horse")));
    assert_false(crypto_password_fits("no hash", STR("no hash")));
    /* From the tests of Argon2's reference implementation: another cost, and a hash that we did not make. */
    static const char reference[] =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert_true(crypto_password_fits(reference, STR("password")));
    assert_false(crypto_password_fits(reference, STR("passwore")));
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
        cmocka_unit_test(sha_256_is_fips_180_4),
        cmocka_unit_test(hmac_sha_256_is_rfc_4231),
        cmocka_unit_test(signatures_are_rfc_8032),
        cmocka_unit_test(seals_are_aes_256_gcm),
        cmocka_unit_test(a_seal_opens_by_its_key_and_what_it_is_bound_to_alone),
        cmocka_unit_test(a_password_fits_its_own_hash),
        cmocka_unit_test(subkeys_differ_by_secret_and_purpose),
        cmocka_unit_test(comparison_is_exact),
        cmocka_unit_test(wiped_memory_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
