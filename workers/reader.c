/*
 * The reader: one fiber, one connection, one command at a time over all lanes.
 *
 * Each answer comes with the lengths of the lanes, from which the next read is planned: every lane that has
 * something gets an equal share of the free slots. When the last read brought nothing it is one that blocks. That one
 * may bring an entry of each lane; those beyond the free slots are kept in hand until slots get free.
 */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdio.h>

enum {
    SHARE_MAX = 128,    /* entries of one lane in one read */
    PAUSE_MAX_MS = 2000 /* between attempts while Redis refuses */
};

struct reader {
    struct pool *pool;
    struct arena arena; /* of one read */
    struct str *words;
    struct redis_step *steps; /* the read, then a length for each lane */
    unsigned turn;
    unsigned failures;
    bool prepared;
    bool brought; /* the last read brought something */
};

/* ---- the groups ---- */

static bool reply_begins(const struct redis_step *step, struct str prefix)
{
    return step->result == -EIO && str_starts(step->reply.text, prefix);
}

/*
 * Learns the connection's id and makes the groups that are missing. A group that had to be made tells that the
 * stream was lost, and its rings with it.
 */
static int prepare(struct reader *reader)
{
    struct pool *pool = reader->pool;
    int result = redis_wait_ready(pool->redis, CLOCK_NEVER);
    if (result)
        return result;
    struct redis_value reply;
    result = redis_call(pool->redis, &reply, &reader->arena, STR("CLIENT"), STR("ID"));
    if (result)
        return result;
    snprintf(pool->redis_id, sizeof pool->redis_id, "%lld", (long long)reply.integer);
    struct redis_step *steps = arena_zalloc(&reader->arena, pool->lane_count * sizeof *steps);
    for (size_t i = 0; i < pool->lane_count; i++) {
        const struct str words[] = {STR("XGROUP"), STR("CREATE"), pool->lanes[i].key,
                                    QUEUE_GROUP,   STR("0"),      STR("MKSTREAM")};
        struct str *copy = arena_alloc(&reader->arena, sizeof words);
        steps[i].args = memcpy(copy, words, sizeof words);
        steps[i].count = ARRAY_SIZE(words);
    }
    result = redis_steps(pool->redis, &reader->arena, steps, pool->lane_count);
    if (result)
        return result;
    bool made = false;
    for (size_t i = 0; i < pool->lane_count; i++) {
        made |= steps[i].result == 0;
        if (steps[i].result && !reply_begins(&steps[i], STR("BUSYGROUP"))) {
            LOG(WARN, "Redis refuses the consumer group", LOG_STR("reply", steps[i].reply.text));
            return steps[i].result;
        }
    }
    if (made) {
        pool->rings_lost = true;
        reconciler_wake(pool);
    }
    return 0;
}

/* ---- one read ---- */

/* The lanes to read, into `chosen`, with the entries that each may bring. Their number. */
static size_t plan(struct reader *reader, struct lane **chosen, size_t *share, bool *blocks)
{
    struct pool *pool = reader->pool;
    size_t count = 0;
    /* From another lane each time, so that when there are more lanes than slots each has its turn. */
    for (size_t i = 0; i < pool->lane_count && reader->brought; i++) {
        struct lane *lane = &pool->lanes[(reader->turn + i) % pool->lane_count];
        if (lane->length > 0)
            chosen[count++] = lane;
    }
    reader->turn += (unsigned)(count > pool->free ? pool->free : 1);
    *blocks = count == 0;
    for (size_t i = 0; *blocks && i < pool->lane_count; i++)
        chosen[count++] = &pool->lanes[i];
    if (!*blocks && count > pool->free)
        count = pool->free;
    *share = pool->free / count;
    if (*share > SHARE_MAX)
        *share = SHARE_MAX;
    if (*share == 0)
        *share = 1;
    return count;
}

static void make_steps(struct reader *reader)
{
    struct pool *pool = reader->pool;
    struct lane **chosen = arena_alloc(&reader->arena, pool->lane_count * sizeof *chosen);
    size_t share;
    bool blocks;
    size_t count = plan(reader, chosen, &share, &blocks);
    struct str *word = reader->words = arena_alloc(&reader->arena, (9 + 4 * pool->lane_count) * sizeof *word);
    reader->steps = arena_zalloc(&reader->arena, (1 + pool->lane_count) * sizeof *reader->steps);
    *word++ = STR("XREADGROUP");
    *word++ = STR("GROUP");
    *word++ = QUEUE_GROUP;
    *word++ = str_from(pool->name);
    *word++ = STR("COUNT");
    char *digits = arena_alloc(&reader->arena, 20);
    *word++ = str_of(digits, format_u64(digits, share));
    if (blocks) {
        *word++ = STR("BLOCK");
        digits = arena_alloc(&reader->arena, 20);
        *word++ = str_of(digits, format_u64(digits, READ_BLOCK_MS));
    }
    *word++ = STR("STREAMS");
    for (size_t i = 0; i < count; i++)
        *word++ = chosen[i]->key;
    for (size_t i = 0; i < count; i++)
        *word++ = STR(">");
    reader->steps[0].args = reader->words;
    reader->steps[0].count = (size_t)(word - reader->words);
    for (size_t i = 0; i < pool->lane_count; i++) {
        reader->steps[1 + i].args = word;
        reader->steps[1 + i].count = 2;
        *word++ = STR("XLEN");
        *word++ = pool->lanes[i].key;
    }
}

static struct lane *lane_of(struct pool *pool, struct str key)
{
    for (size_t i = 0; i < pool->lane_count; i++)
        if (str_equal(pool->lanes[i].key, key))
            return &pool->lanes[i];
    return NULL;
}

/* Hands out what was read. What finds no free slot waits in hand, but not for so long that another worker, who sees
 * it lie, might have begun it. */
static void hand_out(struct reader *reader, const struct redis_value *reply)
{
    struct pool *pool = reader->pool;
    struct intake intake = {.pool = pool};
    uint64_t late_ns = clock_in_ms(pool->lease_ms / 4);
    reader->brought = reply->type == REDIS_ARRAY && reply->count > 0;
    for (size_t i = 0; i < reply->count; i++) {
        const struct redis_value *stream = &reply->items[i];
        struct lane *lane = stream->count == 2 ? lane_of(pool, stream->items[0].text) : NULL;
        for (size_t j = 0; lane && j < stream->items[1].count; j++) {
            if (pool->free == 0) {
                intake_claim(&intake);
                if (pool_slot_wait(pool) || clock_now_ns() > late_ns)
                    return;
            }
            intake_add(&intake, lane, &stream->items[1].items[j]);
        }
    }
    intake_claim(&intake);
}

static int read_once(struct reader *reader)
{
    struct pool *pool = reader->pool;
    make_steps(reader);
    pool->reading = true;
    int result = redis_steps(pool->redis, &reader->arena, reader->steps, 1 + pool->lane_count);
    pool->reading = false;
    if (result == 0)
        result = reader->steps[0].result;
    if (result == -EIO)
        LOG(WARN, "Redis refuses to read the lanes", LOG_STR("reply", reader->steps[0].reply.text));
    if (result)
        return result;
    for (size_t i = 0; i < pool->lane_count; i++) {
        const struct redis_step *step = &reader->steps[1 + i];
        pool->lanes[i].length = step->result == 0 ? (uint64_t)step->reply.integer : 0;
    }
    hand_out(reader, &reader->steps[0].reply);
    return 0;
}

/* The first failure is repeated at once (Redis was emptied: the groups are made again); from then on with a pause. */
static void pause_after(struct reader *reader)
{
    uint64_t ms = reader->failures ? UINT64_C(25) << (reader->failures < 8 ? reader->failures : 8) : 0;
    reader->failures++;
    int canceled = fiber_sleep_ms(jitter_ms(ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS));
    (void)canceled; /* the caller looks whether the pool drains */
}

void reader_run(void *arg)
{
    struct pool *pool = arg;
    struct reader reader = {.pool = pool};
    arena_init(&reader.arena);
    while (!pool->draining) {
        int result = 0;
        if (!reader.prepared)
            result = prepare(&reader);
        if (result == 0) {
            reader.prepared = true;
            result = pool_slot_wait(pool);
        }
        if (result == 0)
            result = read_once(&reader);
        arena_clear(&reader.arena);
        if (result == 0) {
            reader.failures = 0;
            continue;
        }
        reader.prepared = false;
        if (!pool->draining)
            pause_after(&reader);
    }
    pool->reader = NULL;
    group_done(&pool->intake);
}

/* A read that blocks is ended by Redis, so that no entry is lost on its way; any other wait by cancelling. */
void reader_wake(struct pool *pool)
{
    if (!pool->reader)
        return;
    const struct str words[] = {STR("CLIENT"), STR("UNBLOCK"), str_from(pool->redis_id)};
    if (pool->reading)
        redis_send(redis_shared(), words, ARRAY_SIZE(words));
    else
        fiber_cancel(pool->reader);
}
