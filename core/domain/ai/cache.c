/* Answers that may be given again: see cache.h. */
#include "core/domain/ai/cache.h"

#include "core/base/escape.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdio.h>

enum { KEY_SIZE = 32 + 2 * CRYPTO_DIGEST_SIZE };

/* "ai:cache:{account}:{digest}" */
static struct str key_of(char out[KEY_SIZE], int64_t account_id, const struct ai_request *request)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char hex[2 * CRYPTO_DIGEST_SIZE + 1];
    ai_request_digest(request, digest);
    escape_hex(hex, digest, sizeof digest);
    hex[sizeof hex - 1] = '\0';
    int size = snprintf(out, KEY_SIZE, "ai:cache:%lld:%s", (long long)account_id, hex);
    CHECK(size < KEY_SIZE);
    return str_of(out, (size_t)size);
}

int ai_cache_get(struct arena *arena, int64_t account_id, const struct ai_request *request,
                 struct str *answer)
{
    char key[KEY_SIZE];
    struct redis_value reply;
    int result = redis_call(redis_shared(), &reply, arena, STR("GET"), key_of(key, account_id, request));
    if (result)
        return result;
    *answer = reply.text;
    return reply.type == REDIS_STRING ? 0 : -ENOENT;
}

void ai_cache_put(int64_t account_id, const struct ai_request *request, int64_t seconds, struct str answer)
{
    char key[KEY_SIZE];
    char digits[24];
    if (answer.size > AI_CACHE_BYTES_MAX || seconds <= 0)
        return;
    redis_send(redis_shared(), REDIS_ARGS(STR("SET"), key_of(key, account_id, request), answer, STR("EX"),
                                          str_of(digits, format_u64(digits, (uint64_t)seconds))));
}
