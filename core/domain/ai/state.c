/* Providers as the queue sees them: see state.h. */
#include "core/domain/ai/state.h"

#include "core/store/redis.h"

#include <errno.h>

enum { NUMBERS = 4 };

const char *ai_breaker_name(enum ai_breaker breaker)
{
    static const char *const names[] = {
        [AI_BREAKER_CLOSED] = "closed", [AI_BREAKER_PROBING] = "probing", [AI_BREAKER_OPEN] = "open"};
    return names[breaker];
}

/* {waiting, in flight, cap, breaker} */
static bool read_state(const struct redis_value *value, const struct provider *provider,
                       struct ai_state *state)
{
    if (value->type != REDIS_ARRAY || value->count != NUMBERS)
        return false;
    const struct redis_value *numbers = value->items;
    *state = (struct ai_state){
        .waiting = numbers[0].integer,
        .in_flight = numbers[1].integer,
        .cap = numbers[2].integer < provider->max_in_flight ? numbers[2].integer : provider->max_in_flight,
        .breaker = numbers[3].integer == 2   ? AI_BREAKER_OPEN
                   : numbers[3].integer == 1 ? AI_BREAKER_PROBING
                                             : AI_BREAKER_CLOSED,
    };
    return true;
}

int ai_state_read(struct arena *arena, const struct provider *const *providers, size_t count,
                  struct ai_state **states)
{
    struct redis_value reply;
    struct str *words = arena_alloc(arena, (count + 1) * sizeof *words);
    *states = arena_zalloc(arena, (count + 1) * sizeof **states);
    words[0] = STR("look");
    for (size_t i = 0; i < count; i++)
        words[1 + i] = str_from(providers[i]->name);
    int result = redis_script(redis_shared(), &reply, arena, "ai.lua", words, count + 1, 0);
    if (result == 0 && (reply.type != REDIS_ARRAY || reply.count != count))
        result = -EIO;
    for (size_t i = 0; result == 0 && i < count; i++)
        result = read_state(&reply.items[i], providers[i], &(*states)[i]) ? 0 : -EIO;
    return result;
}
