#ifndef CORE_DOMAIN_SECRET_H
#define CORE_DOMAIN_SECRET_H

#include "core/base/crypto.h"
#include "core/base/str.h"

#include <stdbool.h>

/*
 * Secrets that we make and a client presents: API keys, tokens, codes. Each is a prefix that tells what it is, 43
 * characters of [0-9A-Za-z] (256 random bits) and a checksum of 6, so that a mistyped or made-up one is refused without a
 * look-up. Only its keyed hash is stored.
 */

enum { SECRET_RANDOM_SIZE = 43, SECRET_CHECKSUM_SIZE = 6, SECRET_TEXT_MAX = 80, SECRET_SHOWN_SIZE = 4 };

/* Writes prefix, random characters, checksum and a NUL; returns the size. The caller wipes it (crypto_wipe) once it is shown. */
size_t secret_make(char text[SECRET_TEXT_MAX], const char *prefix);

/* Whether it has the prefix, the size, and the checksum that belongs to the rest. No secret is looked at in a time that
 * depends on it. */
bool secret_has_form(struct str text, const char *prefix);

/* The hash under which it is stored, keyed by the vault's hash key (core/domain/vault.h). */
void secret_hash(unsigned char out[CRYPTO_DIGEST_SIZE], struct str text);

#endif
