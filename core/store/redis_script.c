/*
 * Scripts by EVALSHA. Redis itself tells a script's hash (SCRIPT LOAD), once on each connection; a Redis that has
 * lost its scripts (restarted, flushed) is given them again.
 */
#include "core/store/redis_internal.h"

#include "core/store/embed.h"

#include <errno.h>

enum { HASH_SIZE = 40 };

static size_t index_of(const char *name)
{
    for (size_t i = 0; i < embedded_script_count; i++)
        if (strcmp(embedded_scripts[i].name, name) == 0)
            return i;
    UNREACHABLE();
}

struct str redis_script_text(const char *name)
{
    const struct embedded_file *script = &embedded_scripts[index_of(name)];
    return str_of(script->text, script->size);
}

/* Waits. The connection may break and be made anew meanwhile: `hash` is the caller's own copy. */
static int load(struct redis *redis, struct redis_value *reply, struct arena *arena, size_t index,
                char hash[HASH_SIZE + 1])
{
    const struct embedded_file *script = &embedded_scripts[index];
    int result =
        redis_call(redis, reply, arena, STR("SCRIPT"), STR("LOAD"), str_of(script->text, script->size));
    if (result)
        return result;
    if (reply->type != REDIS_STRING || reply->text.size != HASH_SIZE)
        return -EIO;
    memcpy(hash, reply->text.at, HASH_SIZE + 1);
    if (!redis->script_hashes)
        redis->script_hashes = mem_zalloc(embedded_script_count * sizeof *redis->script_hashes);
    memcpy(redis->script_hashes[index], hash, HASH_SIZE + 1);
    return 0;
}

static bool is_lost(int result, const struct redis_value *reply)
{
    return result == -EIO && str_starts(reply->text, STR("NOSCRIPT"));
}

int redis_script(struct redis *redis, struct redis_value *reply, struct arena *arena, const char *name,
                 const struct str *args, size_t count, size_t keys)
{
    size_t index = index_of(name);
    char hash[HASH_SIZE + 1] = "";
    char keys_text[20];
    if (redis->script_hashes)
        memcpy(hash, redis->script_hashes[index], sizeof hash);
    int result = hash[0] ? 0 : load(redis, reply, arena, index, hash);
    if (result)
        return result;
    struct str *words = arena_alloc(arena, (count + 3) * sizeof *words);
    words[0] = STR("EVALSHA");
    words[1] = str_of(hash, HASH_SIZE);
    words[2] = str_of(keys_text, format_u64(keys_text, keys));
    for (size_t i = 0; i < count; i++)
        words[3 + i] = args[i];
    result = redis_command(redis, reply, arena, words, count + 3);
    if (!is_lost(result, reply))
        return result;
    result = load(redis, reply, arena, index, hash);
    return result ? result : redis_command(redis, reply, arena, words, count + 3);
}

bool redis_send_script(struct redis *redis, const char *name, const struct str *args, size_t count,
                       size_t keys)
{
    struct str words[3 + REDIS_SCRIPT_ARGS_MAX];
    char keys_text[20];
    CHECK(count <= REDIS_SCRIPT_ARGS_MAX);
    words[0] = STR("EVAL");
    words[1] = redis_script_text(name);
    words[2] = str_of(keys_text, format_u64(keys_text, keys));
    for (size_t i = 0; i < count; i++)
        words[3 + i] = args[i];
    return redis_send(redis, words, 3 + count);
}
