/* Hashes, random bytes and constant-time comparison, by libsodium. */
#include "core/base/crypto.h"

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
