/* Random names. */
#include "core/base/id.h"

#include "core/base/check.h"
#include "core/base/crypto.h"

#include <stdbool.h>
#include <stdint.h>

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

void id_random(char *out, size_t length)
{
    unsigned char random[64];
    CHECK(length > 0 && length <= sizeof random);
    crypto_random(random, length);
    for (size_t i = 0; i < length; i++)
        out[i] = base32[random[i] % 32];
    out[0] = base32[random[0] % 26];
    out[length] = '\0';
}

void id_random_base62(char *out, size_t length)
{
    size_t made = 0;
    while (made < length) {
        unsigned char random[64];
        crypto_random(random, sizeof random);
        for (size_t i = 0; i < sizeof random && made < length; i++)
            if (random[i] < 248) /* 4 * 62: beyond it the small digits would be likelier */
                out[made++] = base62[random[i] % 62];
    }
    out[length] = '\0';
}

void id_request(char out[ID_REQUEST_SIZE])
{
    static _Thread_local char prefix[10];
    static _Thread_local uint64_t counter;
    static _Thread_local bool seeded;
    if (UNLIKELY(!seeded)) {
        unsigned char random[sizeof prefix];
        crypto_random(random, sizeof random);
        for (size_t i = 0; i < sizeof prefix; i++)
            prefix[i] = base32[random[i] % 32];
        crypto_random(&counter, 4);
        seeded = true;
    }
    uint64_t count = counter++;
    for (size_t i = 0; i < sizeof prefix; i++)
        out[i] = prefix[i];
    for (size_t i = ID_REQUEST_SIZE - 2; i >= sizeof prefix; i--) {
        out[i] = base32[count % 32];
        count /= 32;
    }
    out[ID_REQUEST_SIZE - 1] = '\0';
}
