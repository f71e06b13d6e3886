#ifndef CORE_DOMAIN_INSTANCE_TOKEN_H
#define CORE_DOMAIN_INSTANCE_TOKEN_H

#include "core/base/crypto.h"
#include "core/base/str.h"
#include "core/domain/identity/principal.h"

#include <stdbool.h>

/*
 * What a pod shows when it calls the gateway: "wgi_{instance}_{64 hexadecimal digits}", the digits being made from the instance's id
 * under the vault's hash key. So nothing is stored, every server and worker makes and knows the same, and it holds until the
 * instance is deleted. It opens calls of models for the instance's account, and no more.
 */

enum { INSTANCE_TOKEN_SIZE = 4 + 63 + 1 + 2 * CRYPTO_DIGEST_SIZE + 1 };

/* Writes the token and a NUL. The id is one of an instance. The caller wipes it. */
void instance_token_make(char out[INSTANCE_TOKEN_SIZE], struct str instance_id);
/* Whether an Authorization field's value is one, by its form. */
bool instance_token_is_bearer(struct str authorization);
/* Whether it begins as one does. */
bool instance_token_has_prefix(struct str text);
/* Whether it is one of ours, be there such an instance or not: whoever shows it had it from us. */
bool instance_token_is_ours(struct str text);
/* As key_verify, for PRINCIPAL_POD: 0, -EACCES, or an error of pg_read. Waits, at most once per token, loop and KEY_VERDICT_MS. */
int instance_token_verify(struct str text, struct principal *principal) MUST_USE;

#endif
