/* AES-256-GCM, by mbedTLS: libsodium has it only for processors with instructions for it. */
#include "core/base/crypto.h"

#include <errno.h>
#include <mbedtls/gcm.h>

enum { NONCE_SIZE = 12, TAG_SIZE = 16, KEY_BITS = 8 * CRYPTO_KEY_SIZE };

static const unsigned char *bytes_of(struct str text)
{
    return (const unsigned char *)text.at;
}

void crypto_seal(unsigned char *out, struct str plain, struct str bound,
                 const unsigned char key[CRYPTO_KEY_SIZE])
{
    unsigned char *ciphertext = out + NONCE_SIZE;
    mbedtls_gcm_context gcm;
    mbedtls_gcm_init(&gcm);
    CHECK(mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, KEY_BITS) == 0);
    crypto_random(out, NONCE_SIZE);
    CHECK(mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, plain.size, out, NONCE_SIZE, bytes_of(bound),
                                    bound.size, bytes_of(plain), ciphertext, TAG_SIZE,
                                    ciphertext + plain.size) == 0);
    mbedtls_gcm_free(&gcm);
}

int crypto_unseal(unsigned char *out, struct str sealed, struct str bound,
                  const unsigned char key[CRYPTO_KEY_SIZE])
{
    if (sealed.size < CRYPTO_SEAL_EXTRA)
        return -EBADMSG;
    size_t size = sealed.size - CRYPTO_SEAL_EXTRA;
    const unsigned char *ciphertext = bytes_of(sealed) + NONCE_SIZE;
    mbedtls_gcm_context gcm;
    mbedtls_gcm_init(&gcm);
    CHECK(mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, KEY_BITS) == 0);
    int result = mbedtls_gcm_auth_decrypt(&gcm, size, bytes_of(sealed), NONCE_SIZE, bytes_of(bound),
                                          bound.size, ciphertext + size, TAG_SIZE, ciphertext, out);
    mbedtls_gcm_free(&gcm);
    return result ? -EBADMSG : 0;
}
