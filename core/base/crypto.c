/* Hashes, signatures, random bytes and constant-time comparison, by libsodium. */
#include "core/base/crypto.h"

#include <errno.h>
#include <sodium.h>

void crypto_init(void)
{
    CHECK(sodium_init() >= 0);
}

void crypto_random(void *out, size_t size)
{
    randombytes_buf(out, size);
}

void crypto_digest(unsigned char out[CRYPTO_DIGEST_SIZE], struct str message,
                   const unsigned char key[CRYPTO_KEY_SIZE])
{
    CHECK(crypto_generichash(out, CRYPTO_DIGEST_SIZE, (const unsigned char *)message.at, message.size, key,
                             key ? CRYPTO_KEY_SIZE : 0) == 0);
}

void crypto_sha256(unsigned char out[CRYPTO_DIGEST_SIZE], struct str message)
{
    CHECK(crypto_hash_sha256(out, (const unsigned char *)message.at, message.size) == 0);
}

void crypto_hmac_sha256(unsigned char out[CRYPTO_DIGEST_SIZE], struct str key, struct str message)
{
    crypto_auth_hmacsha256_state state;
    CHECK(crypto_auth_hmacsha256_init(&state, (const unsigned char *)key.at, key.size) == 0);
    CHECK(crypto_auth_hmacsha256_update(&state, (const unsigned char *)message.at, message.size) == 0);
    CHECK(crypto_auth_hmacsha256_final(&state, out) == 0);
    crypto_wipe(&state, sizeof state);
}

void crypto_ed25519_key(unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE],
                        unsigned char secret_key[CRYPTO_SECRET_KEY_SIZE],
                        const unsigned char seed[CRYPTO_KEY_SIZE])
{
    CHECK(crypto_sign_ed25519_seed_keypair(public_key, secret_key, seed) == 0);
}

void crypto_ed25519_sign(unsigned char out[CRYPTO_SIGNATURE_SIZE], struct str message,
                         const unsigned char secret_key[CRYPTO_SECRET_KEY_SIZE])
{
    CHECK(crypto_sign_ed25519_detached(out, NULL, (const unsigned char *)message.at, message.size,
                                       secret_key) == 0);
}

bool crypto_ed25519_verify(struct str signature, struct str message,
                           const unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE])
{
    return signature.size == CRYPTO_SIGNATURE_SIZE &&
           crypto_sign_ed25519_verify_detached((const unsigned char *)signature.at,
                                               (const unsigned char *)message.at, message.size,
                                               public_key) == 0;
}

int crypto_password_hash(char out[CRYPTO_PASSWORD_SIZE], struct str password)
{
    enum { PASSES = 2, MEMORY_BYTES = 19 << 20 };
    _Static_assert((int)CRYPTO_PASSWORD_SIZE >= (int)crypto_pwhash_argon2id_STRBYTES, "room for the text");
    return crypto_pwhash_argon2id_str(out, password.at, password.size, PASSES, MEMORY_BYTES) ? -ENOMEM : 0;
}

bool crypto_password_fits(const char *hash, struct str password)
{
    return crypto_pwhash_argon2id_str_verify(hash, password.at, password.size) == 0;
}

void crypto_derive(unsigned char out[CRYPTO_KEY_SIZE], struct str secret, const char *purpose)
{
    unsigned char root[CRYPTO_KEY_SIZE];
    crypto_digest(root, secret, NULL);
    crypto_digest(out, str_from(purpose), root);
    crypto_wipe(root, sizeof root);
}

bool crypto_equal(struct str a, struct str b)
{
    return a.size == b.size && (a.size == 0 || sodium_memcmp(a.at, b.at, a.size) == 0);
}

void crypto_wipe(void *memory, size_t size)
{
    sodium_memzero(memory, size);
}
