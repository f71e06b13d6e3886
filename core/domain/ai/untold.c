/* Ends that Redis has not heard of: see untold.h. */
#include "core/domain/ai/untold.h"

#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/ai/worker.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdlib.h>

enum {
    WORDS_MAX = 16,
    BYTES_MAX = 64 << 20,
    TELL_MS = 1000 /* the beat that waits for it goes on after that */
};

struct untold {
    struct link link;
    struct link known;
    struct str id;
    struct str words[WORDS_MAX];
    size_t count;
    size_t size;
    uint64_t until_ns; /* when its lease has ended, at the latest */
    bool settled;
};

static struct {
    bool open;
    struct link all; /* in the order of their ends */
    struct table ids;
    size_t bytes;
} kept;

static struct str id_of(struct link *item)
{
    return LIST_ENTRY(item, struct untold, known)->id;
}

static struct untold *find(struct str id)
{
    struct link *item = kept.open ? table_find(&kept.ids, id) : NULL;
    return item ? LIST_ENTRY(item, struct untold, known) : NULL;
}

static void open_once(void)
{
    if (kept.open)
        return;
    kept.open = true;
    kept.bytes = 0;
    list_init(&kept.all);
    table_init(&kept.ids, id_of);
}

static struct str copy(char **at, struct str text)
{
    char *begin = *at;
    if (text.size)
        memcpy(begin, text.at, text.size);
    *at += text.size;
    return str_of(begin, text.size);
}

void ai_untold_keep(struct str id, const struct str *words, size_t count)
{
    size_t size = sizeof(struct untold) + id.size;
    CHECK(count <= WORDS_MAX);
    for (size_t i = 0; i < count; i++)
        size += words[i].size;
    open_once();
    if (find(id) || kept.bytes + size > BYTES_MAX) {
        LOG(WARN, "Redis is not told of the end of an AI call", LOG_STR("job", id));
        return;
    }
    struct untold *untold = mem_zalloc(size);
    char *at = (char *)(untold + 1);
    untold->id = copy(&at, id);
    for (size_t i = 0; i < count; i++)
        untold->words[i] = copy(&at, words[i]);
    untold->count = count;
    untold->size = size;
    untold->until_ns = clock_in_ms((uint64_t)config->ai_call_s * 1000);
    list_push_back(&kept.all, &untold->link);
    table_add(&kept.ids, &untold->known);
    kept.bytes += size;
}

bool ai_untold_has(struct str id)
{
    return find(id) != NULL;
}

bool ai_untold_settled(struct str id)
{
    struct untold *untold = find(id);
    if (untold)
        untold->settled = true;
    return untold != NULL;
}

static void drop(struct untold *untold)
{
    list_remove(&untold->link);
    table_remove(&kept.ids, &untold->known);
    kept.bytes -= untold->size;
    free(untold);
}

/* To no harm when Redis has heard of it already, has forgotten it, or has given it to another. */
static int tell(struct untold *untold)
{
    struct arena arena;
    struct redis_value reply;
    arena_init(&arena);
    int result = redis_script(redis_shared(), &reply, &arena, "ai.lua", untold->words, untold->count, 0);
    if (result == 0)
        LOG(INFO, "Redis is told of the end of an AI call", LOG_STR("job", untold->id),
            LOG_STR("answer", reply.text));
    arena_clear(&arena);
    return result;
}

static void drop_told(struct untold *untold)
{
    struct arena arena;
    arena_init(&arena);
    struct str id = arena_str(&arena, untold->id);
    bool settled = untold->settled;
    drop(untold);
    if (settled)
        ai_ended_forget(&id, 1);
    arena_clear(&arena);
}

void ai_untold_tell(void)
{
    uint64_t until_ns = clock_in_ms(TELL_MS);
    if (!kept.open)
        return;
    LIST_EACH (&kept.all, item, after) {
        struct untold *untold = LIST_ENTRY(item, struct untold, link);
        int result = tell(untold);
        if (result == 0 || clock_now_ns() >= untold->until_ns)
            drop_told(untold);
        else if (result != -EIO) /* that Redis refuses one says nothing of the others */
            return;
        if (clock_now_ns() >= until_ns)
            return;
    }
}

void ai_untold_clear(void)
{
    if (!kept.open)
        return;
    while (!list_empty(&kept.all))
        drop(LIST_ENTRY(kept.all.next, struct untold, link));
    table_clear(&kept.ids);
    kept.open = false;
}
