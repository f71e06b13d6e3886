#ifndef CORE_SERVE_TLS_H
#define CORE_SERVE_TLS_H

#include "core/base/check.h"

#include <stddef.h>

struct tls_context;

/*
 * What TLS_CERT, TLS_KEY and TLS_DEV say, read anew: *context is NULL when none of them is set. `old`, which may be NULL, gives
 * its ticket keys. 0, or -EINVAL with one line in `error`. Reads files; for the start and for a SIGHUP.
 */
int serve_tls_load(struct tls_context *old, struct tls_context **context, char *error, size_t error_size)
    MUST_USE;

#endif
