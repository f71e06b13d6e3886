/* Money for answers that need no provider: see charge.h. */
#include "core/domain/ai/charge.h"

#include "core/base/clock.h"
#include "core/domain/money/lease.h"
#include "core/store/redis.h"

#include <errno.h>
#include <stdio.h>

enum { TRIES = 8, DAY_SIZE = 9 };

/* One attempt. -EAGAIN: what was missing is there now. */
static int try_charge(int64_t account_id, const struct str words[4], money price, enum ai_entry *entry,
                      int64_t *generation)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    int result = redis_script(redis_shared(), &reply, &arena, "ai_charge.lua", words, 4, 0);
    struct str word = result == 0 && reply.count > 0 ? reply.items[0].text : STR_NONE;
    if (str_equal(word, STR("spend"))) {
        *entry = AI_SPENT;
    } else if (str_equal(word, STR("ok"))) {
        *entry = AI_ACCEPTED;
        result = reply.count == 2 && str_to_i64(reply.items[1].text, generation) ? 0 : -EIO;
    } else if (str_equal(word, STR("load"))) {
        result = lease_load_spend(account_id);
        result = result ? result : -EAGAIN;
    } else if (str_equal(word, STR("short"))) {
        int64_t applied = 0;
        bool fine = reply.count == 3 && str_to_i64(reply.items[1].text, generation) &&
                    str_to_i64(reply.items[2].text, &applied);
        result = fine ? lease_refill(account_id, *generation, applied, price) : -EIO;
        result = result ? result : -EAGAIN;
    } else if (result == 0) {
        result = -EIO;
    }
    arena_clear(&arena);
    return result;
}

int ai_charge(int64_t account_id, money price, money limit, enum ai_entry *entry, int64_t *generation)
{
    char account[24];
    char need[24];
    char most[24];
    char now[CLOCK_ISO_SIZE];
    char day[DAY_SIZE];
    clock_format_iso(now, clock_wall_ms());
    snprintf(day, sizeof day, "%.4s%.2s%.2s", now, now + 5, now + 8);
    snprintf(account, sizeof account, "%lld", (long long)account_id);
    snprintf(need, sizeof need, "%lld", (long long)price);
    snprintf(most, sizeof most, "%lld", (long long)(limit < 0 ? -1 : limit));
    const struct str words[4] = {str_from(account), str_from(need), str_from(most), str_from(day)};
    int result = -EAGAIN;
    for (int tries = 0; result == -EAGAIN && tries < TRIES; tries++)
        result = try_charge(account_id, words, price, entry, generation);
    if (result == -EDQUOT) {
        *entry = AI_NO_MONEY;
        return 0;
    }
    return result;
}
