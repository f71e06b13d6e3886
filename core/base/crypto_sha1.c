/* SHA-1, by mbedTLS: libsodium has none, for good reason (see crypto.h). */
#include "core/base/crypto.h"

#include <mbedtls/sha1.h>

void crypto_sha1(unsigned char out[20], struct str message)
{
    CHECK(mbedtls_sha1((const unsigned char *)message.at, message.size, out) == 0);
}
