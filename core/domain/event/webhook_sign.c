/* Signatures of deliveries: see webhook_sign.h. */
#include "core/domain/event/webhook_sign.h"

#include "core/base/base64.h"
#include "core/base/crypto.h"
#include "core/base/escape.h"

#include <stdio.h>

#define PREFIX "whsec_"

/* The seeds' own names for the same signature. */
static const struct {
    struct str surface;
    const char *header;
} own_names[] = {
    {{"provision", 9}, "X-Self-Signature"},
    {{"gpu", 3}, "X-Dumont-Signature"},
};

struct webhook_secret webhook_secret_read(struct arena *arena, struct str text)
{
    struct webhook_secret secret = {.text = arena_str(arena, text), .key = STR_NONE};
    size_t prefix = sizeof PREFIX - 1;
    secret.key = secret.text;
    if (!str_starts(text, STR(PREFIX)) || text.size == prefix)
        return secret;
    /* Some leave out the padding. */
    size_t size = text.size - prefix;
    char *padded = arena_alloc(arena, size + 3);
    memcpy(padded, text.at + prefix, size);
    while (size % 4)
        padded[size++] = '=';
    unsigned char *key = arena_alloc(arena, size * 3 / 4 + 1);
    int count = base64_decode(key, str_of(padded, size));
    if (count > 0)
        secret.key = str_of((const char *)key, (size_t)count);
    return secret;
}

static const char *hex_line(struct arena *arena, const char *name, const char *hex)
{
    return arena_printf(arena, "%s: %s", name, hex);
}

static void add_signature(struct buf *line, struct str key, struct str content)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_hmac_sha256(digest, key, content);
    buf_add_literal(line, " v1,");
    base64_add(line, str_of((const char *)digest, sizeof digest));
}

/* "id.timestamp.body" */
static struct str content_of(struct arena *arena, const struct webhook_message *message)
{
    char time[24];
    size_t time_size = format_u64(time, (uint64_t)message->at_s);
    size_t size = message->id.size + time_size + message->body.size + 2;
    char *content = arena_alloc(arena, size);
    char *to = content;
    memcpy(to, message->id.at, message->id.size);
    to += message->id.size;
    *to++ = '.';
    memcpy(to, time, time_size);
    to += time_size;
    *to++ = '.';
    memcpy(to, message->body.at, message->body.size);
    return str_of(content, size);
}

void webhook_sign(struct arena *arena, const struct webhook_message *message,
                  const struct webhook_secret *secret, const struct webhook_secret *old,
                  const char *headers[WEBHOOK_HEADERS_MAX])
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char hex[2 * CRYPTO_DIGEST_SIZE + 1];
    struct buf line = {0};
    size_t count = 0;
    crypto_hmac_sha256(digest, secret->text, message->body);
    escape_hex(hex, digest, sizeof digest);
    headers[count++] = "Content-Type: application/json";
    headers[count++] = "User-Agent: Wakegate";
    headers[count++] = hex_line(arena, "X-Webhook-Signature", hex);
    for (size_t i = 0; i < ARRAY_SIZE(own_names); i++)
        if (str_equal(message->surface, own_names[i].surface))
            headers[count++] = hex_line(arena, own_names[i].header, hex);
    headers[count++] = arena_printf(arena, "webhook-id: %.*s", STR_ARG(message->id));
    headers[count++] = arena_printf(arena, "webhook-timestamp: %lld", (long long)message->at_s);
    struct str content = content_of(arena, message);
    buf_add_literal(&line, "webhook-signature:");
    add_signature(&line, secret->key, content);
    if (old && old->text.at)
        add_signature(&line, old->key, content);
    headers[count++] = arena_dup(arena, line.at, line.size);
    headers[count] = NULL;
    CHECK(count < WEBHOOK_HEADERS_MAX);
    buf_clear(&line);
}
