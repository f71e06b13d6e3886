/* What clients present as proof: its form, and the hash that is kept of it. See secret.h. */
#include "core/domain/secret.h"

#include "core/base/id.h"
#include "core/domain/vault.h"

/* The characters behind the random ones: no secret themselves, they only catch typing errors. */
static void checksum(struct str body, char out[SECRET_CHECKSUM_SIZE])
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static _Thread_local unsigned char key[CRYPTO_KEY_SIZE];
    static _Thread_local bool is_made;
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    if (UNLIKELY(!is_made)) {
        crypto_derive(key, STR("wakegate"), "api key checksum");
        is_made = true;
    }
    crypto_digest(digest, body, key);
    for (size_t i = 0; i < SECRET_CHECKSUM_SIZE; i++)
        out[i] = letters[digest[i] % 62];
}

size_t secret_make(char text[SECRET_TEXT_MAX], const char *prefix)
{
    size_t size = strlen(prefix);
    CHECK(size + SECRET_RANDOM_SIZE + SECRET_CHECKSUM_SIZE < SECRET_TEXT_MAX);
    memcpy(text, prefix, size);
    id_random_base62(text + size, SECRET_RANDOM_SIZE);
    size += SECRET_RANDOM_SIZE;
    checksum(str_of(text, size), text + size);
    size += SECRET_CHECKSUM_SIZE;
    text[size] = '\0';
    return size;
}

bool secret_has_form(struct str text, const char *prefix)
{
    char expected[SECRET_CHECKSUM_SIZE];
    struct str start = str_from(prefix);
    if (text.size != start.size + SECRET_RANDOM_SIZE + SECRET_CHECKSUM_SIZE || !str_starts(text, start))
        return false;
    struct str body = str_of(text.at, text.size - SECRET_CHECKSUM_SIZE);
    checksum(body, expected);
    return crypto_equal(str_of(expected, sizeof expected), str_of(text.at + body.size, sizeof expected));
}

void secret_hash(unsigned char out[CRYPTO_DIGEST_SIZE], struct str text)
{
    crypto_digest(out, text, vault_hash_key());
}
