#ifndef PROTO_JWT_H
#define PROTO_JWT_H

#include "core/base/arena.h"
#include "core/base/crypto.h"
#include "core/base/str.h"

#include <stdint.h>

/*
 * JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, for the log-ins that we make ourselves. The algorithm is the
 * key's and not the token's: one algorithm for each key, "none" and all others are refused, "kid" only picks the key.
 */

enum jwt_algorithm { JWT_HS256, JWT_EDDSA };

struct jwt_key {
    enum jwt_algorithm algorithm;
    char kid[17];                                     /* hexadecimal, told in the header */
    unsigned char secret[CRYPTO_SECRET_KEY_SIZE];     /* HS256 uses the first 32 bytes */
    unsigned char public_key[CRYPTO_PUBLIC_KEY_SIZE]; /* of EdDSA */
};

/* Makes the key from a secret text of any length and the algorithm's name ("HS256", "EdDSA"). -EINVAL: another name. */
int jwt_key_make(struct jwt_key *key, const char *algorithm, struct str secret) MUST_USE;
void jwt_key_clear(struct jwt_key *key);

/* Whose it is and how long it holds. Times are Unix seconds. An absent text is not written. */
struct jwt_claims {
    struct str issuer;
    struct str audience;
    struct str subject; /* the account's ref */
    struct str session; /* "sid": the log-in's ref */
    struct str id;      /* "jti" */
    int64_t issued_s;
    int64_t not_before_s; /* 0: not said */
    int64_t expires_s;
};

enum { JWT_MAX = 4096, JWT_LEEWAY_S = 60 };

void jwt_write(struct buf *out, const struct jwt_key *key, const struct jwt_claims *claims);

/*
 * Reads and checks a token: its form, header ("alg" and "kid" of one of the keys, "typ" JWT or absent, no "crit"),
 * signature, then issuer, audience, exp, nbf and iat at `now_s` with JWT_LEEWAY_S. "sub", "iat" and "exp" must be there; times
 * are whole numbers. `claims` point into the arena.
 * 0; -EACCES: refused, `*why` tells it in a word for the log ("signature", "expired", …).
 */
int jwt_read(struct arena *arena, struct str token, const struct jwt_key *keys, size_t key_count,
             struct str issuer, struct str audience, int64_t now_s, struct jwt_claims *claims,
             const char **why) MUST_USE;

#endif
