#ifndef CORE_DOMAIN_IDENTITY_OAUTH_INTERNAL_H
#define CORE_DOMAIN_IDENTITY_OAUTH_INTERNAL_H

#include "core/domain/identity/oauth.h"
#include "core/store/pg.h"

/* What the files of the OAuth rules share. */

#define OAUTH_SURFACE "provision"
#define OAUTH_SECRET_PREFIX "wgcs_"
#define OAUTH_ACCESS_PREFIX "wga_"
#define OAUTH_REFRESH_PREFIX "wgf_"
#define OAUTH_CODE_PREFIX "wgc_"

/* The stored hash of a secret, as a value for a statement: `hash` holds its bytes. Absent (and what is not of the prefix's
 * form, which nobody has): NULL, which no stored hash equals. */
struct pg_value oauth_hash(unsigned char hash[CRYPTO_DIGEST_SIZE], struct str text, const char *prefix);

/* A new secret and its hash, likewise. */
struct pg_value oauth_new(char text[SECRET_TEXT_MAX], unsigned char hash[CRYPTO_DIGEST_SIZE],
                          const char *prefix);

#endif
