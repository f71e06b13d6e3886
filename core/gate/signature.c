/*
 * Signed requests. A client whose key has a signing secret sends
 *
 *     X-Wakegate-Timestamp: 1763800000
 *     X-Wakegate-Signature: v1=<hex of HMAC-SHA256(secret, text)>
 *
 * over the text "METHOD\nTARGET\nTIMESTAMP\nHEX(SHA256(body))", TARGET being the request line's as it was sent, query and
 * all. So nobody on the way can change or redirect it, and what was recorded is good for five minutes only.
 */
#include "core/gate/gate.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/domain/identity/key.h"

#include <errno.h>

enum { SIGNATURE_WINDOW_S = 300, HEX_DIGEST_SIZE = 2 * CRYPTO_DIGEST_SIZE };

static void sign(struct request *request, struct str secret, struct str timestamp, struct str body,
                 char out[HEX_DIGEST_SIZE + 1])
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char hex[HEX_DIGEST_SIZE + 1];
    struct buf text = {0};
    crypto_sha256(digest, body);
    escape_hex(hex, digest, sizeof digest);
    buf_add_str(&text, request->http->head->method);
    buf_add_char(&text, '\n');
    buf_add_str(&text, request->http->head->target);
    buf_add_char(&text, '\n');
    buf_add_str(&text, timestamp);
    buf_add_char(&text, '\n');
    buf_add_text(&text, hex);
    crypto_hmac_sha256(digest, secret, buf_str(&text));
    escape_hex(out, digest, sizeof digest);
    buf_clear(&text);
}

static bool is_recent(struct str timestamp)
{
    int64_t then_s;
    int64_t now_s = clock_wall_s();
    return str_to_i64(timestamp, &then_s) && then_s >= now_s - SIGNATURE_WINDOW_S &&
           then_s <= now_s + SIGNATURE_WINDOW_S;
}

/* A key that has no secret can't have signed anything. */
static int read_secret(struct request *request, struct str *secret)
{
    if (!request->principal.can_sign)
        return -EACCES;
    int result = key_signing_secret(request->arena, request->principal.key_id, secret);
    return result == -ENOENT ? -EACCES : result;
}

static int check(struct request *request, struct str given, struct str body)
{
    struct str timestamp = http1_header(request->http->head, "x-wakegate-timestamp");
    struct str secret;
    char expected[3 + HEX_DIGEST_SIZE + 1] = "v1=";
    if (!is_recent(timestamp))
        return -EACCES;
    int result = read_secret(request, &secret);
    if (result)
        return result;
    sign(request, secret, timestamp, body, expected + 3);
    crypto_wipe((char *)(uintptr_t)secret.at, secret.size);
    return crypto_equal(given, str_from(expected)) ? 0 : -EACCES;
}

bool gate_signature(struct request *request)
{
    struct str given = http1_header(request->http->head, "x-wakegate-signature");
    struct str body;
    if (!given.at && !request->principal.must_sign)
        return true;
    if (!given.at) {
        reply_error(request, ERROR_SIGNATURE_REQUIRED, NULL);
        return false;
    }
    if (!request_body(request, &body))
        return false;
    int result = check(request, given, body);
    if (result == -EACCES)
        reply_error(request, ERROR_INVALID_SIGNATURE, NULL);
    else if (result)
        reply_failure(request, result);
    return result == 0;
}
