#ifndef CORE_BASE_BASE64_H
#define CORE_BASE_BASE64_H

#include "core/base/str.h"

/* Base64 (RFC 4648). */

/* §5, for URLs and without padding: JWT, PKCE, tokens. */
void base64url_add(struct buf *out, struct str bytes);
/* Decodes into `out`, which has room for text.size * 3 / 4; returns the number of bytes. -EINVAL for anything that
 * base64url_add would not have written: padding, other characters, bits left over. */
int base64url_decode(unsigned char *out, struct str text) MUST_USE;

/* §4, with padding: "Basic" credentials and their like. Errors as above. `out` has room for text.size * 3 / 4. */
void base64_add(struct buf *out, struct str bytes);
int base64_decode(unsigned char *out, struct str text) MUST_USE;

#endif
