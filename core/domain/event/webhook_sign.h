#ifndef CORE_DOMAIN_EVENT_WEBHOOK_SIGN_H
#define CORE_DOMAIN_EVENT_WEBHOOK_SIGN_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stddef.h>
#include <stdint.h>

/*
 * What a delivery says of itself and signs. Two schemes, over the exact bytes of the body:
 *
 *   X-Webhook-Signature   HMAC-SHA-256 of the body, lower-case hex; the key is the secret as its owner knows it, prefix and all.
 *                         Also as X-Self-Signature or X-Dumont-Signature, on events of that surface.
 *   webhook-signature     Standard Webhooks 1.0.0: "v1," and base64 of the HMAC-SHA-256 of "id.timestamp.body". Of "whsec_…"
 *                         the key is what the base64 behind the prefix stands for; any other secret is the key itself. Two
 *                         while an old secret signs along.
 */

struct webhook_secret {
    struct str text; /* as its owner knows it; absent: there is none */
    struct str key;  /* of Standard Webhooks */
};

/* Finds the key of a secret; both live in the arena. */
struct webhook_secret webhook_secret_read(struct arena *arena, struct str text);

struct webhook_message {
    struct str id;      /* webhook-id: the same at every attempt */
    struct str surface; /* of the event */
    struct str body;
    int64_t at_s; /* of the attempt */
};

enum { WEBHOOK_HEADERS_MAX = 8 };
/* Header lines, NULL-terminated, in the arena. `old`: NULL or the secret that signs along. */
void webhook_sign(struct arena *arena, const struct webhook_message *message,
                  const struct webhook_secret *secret, const struct webhook_secret *old,
                  const char *headers[WEBHOOK_HEADERS_MAX]);

#endif
