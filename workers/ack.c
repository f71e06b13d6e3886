/*
 * The ends of stream entries. An entry is taken out of its lane (XACK, XDEL) when its durable job is leased, or when
 * its volatile job has ended; all that end in one turn of the loop go in one command a lane. For a volatile job the
 * entry's idle time is the lease: a heartbeat resets it, and who finds it too long takes the entry over.
 */
#include "workers/pool_internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum {
    ACK_MAX = 256, /* ids in one command */

};

bool stream_id_parse(struct str text, struct stream_id *id)
{
    struct str rest = text;
    struct str ms;
    return text.at && str_split(&rest, '-', &ms) && str_to_u64(ms, &id->ms) && rest.at &&
           str_to_u64(rest, &id->number);
}

struct str stream_id_format(char out[STREAM_ID_SIZE], struct stream_id id)
{
    size_t size = format_u64(out, id.ms);
    out[size++] = '-';
    size += format_u64(out + size, id.number);
    return str_of(out, size);
}

/* ---- out of the lane ---- */

void ack_add(struct pool *pool, struct entry entry)
{
    struct lane *lane = entry.lane;
    if (lane->ack_count == lane->ack_capacity) {
        lane->ack_capacity = lane->ack_capacity ? 2 * lane->ack_capacity : 64;
        lane->acks = mem_realloc(lane->acks, lane->ack_capacity * sizeof *lane->acks);
    }
    lane->acks[lane->ack_count++] = entry.id;
    loop_flush_later(pool->loop, &pool->ack_flush);
}

/* False when Redis is away; the ids are kept. */
static bool flush_lane(struct lane *lane)
{
    char digits[ACK_MAX][STREAM_ID_SIZE];
    struct str words[3 + ACK_MAX];
    while (lane->ack_count) {
        size_t count = lane->ack_count < ACK_MAX ? lane->ack_count : ACK_MAX;
        size_t first = lane->ack_count - count;
        for (size_t i = 0; i < count; i++)
            words[3 + i] = stream_id_format(digits[i], lane->acks[first + i]);
        words[0] = STR("XACK");
        words[1] = lane->key;
        words[2] = QUEUE_GROUP;
        if (!redis_send(redis_shared(), words, 3 + count))
            return false;
        words[1] = STR("XDEL");
        words[2] = lane->key;
        if (!redis_send(redis_shared(), words + 1, 2 + count))
            return false;
        lane->ack_count = first;
    }
    return true;
}

void ack_flush(struct flush *flush)
{
    struct pool *pool = CONTAINER_OF(flush, struct pool, ack_flush);
    for (size_t i = 0; i < pool->lane_count; i++)
        if (!flush_lane(&pool->lanes[i]))
            return;
}

/* ---- volatile jobs ---- */

void ack_give_back(struct run *run)
{
    struct arena arena;
    arena_init(&arena);
    char digits[STREAM_ID_SIZE];
    struct redis_value reply;
    const struct str words[] = {run->entry.lane->key,
                                QUEUE_GROUP,
                                stream_id_format(digits, run->entry.id),
                                STR("kind"),
                                str_from(job_policies[run->job.kind].name),
                                STR("tenant"),
                                run->job.tenant,
                                STR("payload"),
                                run->job.payload};
    int result = redis_script(redis_shared(), &reply, &arena, "give_back.lua", words,
                              ARRAY_SIZE(words) - (run->job.payload.at ? 0 : 2), 1);
    if (result)
        LOG(WARN, "a job could not be given back and waits for its lease to run out", LOG_ERRNO(result),
            LOG_TEXT("kind", job_policies[run->job.kind].name));
    arena_clear(&arena);
}

/* A command with a list of ids, of one lane. */
struct id_command {
    struct str *words;
    size_t count;
    size_t fixed; /* words before the first id */
};

static void id_command_init(struct id_command *command, struct arena *arena, struct pool *pool,
                            const struct lane *lane, uint64_t idle_ms, size_t most)
{
    char *digits = arena_alloc(arena, 20);
    const struct str words[] = {STR("XCLAIM"), lane->key, QUEUE_GROUP, str_from(pool->name),
                                str_of(digits, format_u64(digits, idle_ms))};
    command->words = arena_alloc(arena, (ARRAY_SIZE(words) + most + 1) * sizeof *words);
    memcpy(command->words, words, sizeof words);
    command->count = command->fixed = ARRAY_SIZE(words);
}

static void id_command_add(struct id_command *command, struct arena *arena, struct stream_id id)
{
    command->words[command->count++] = stream_id_format(arena_alloc(arena, STREAM_ID_SIZE), id);
}

void ack_heartbeat(struct pool *pool)
{
    struct arena arena;
    arena_init(&arena);
    struct redis_step *steps = arena_zalloc(&arena, pool->lane_count * sizeof *steps);
    struct id_command *commands = arena_zalloc(&arena, pool->lane_count * sizeof *commands);
    LIST_EACH (&pool->running, item, after) {
        const struct run *run = LIST_ENTRY(item, struct run, link);
        if (!run->entry.lane)
            continue;
        struct id_command *command = &commands[run->entry.lane - pool->lanes];
        if (!command->words)
            id_command_init(command, &arena, pool, run->entry.lane, 0, pool->jobs.count);
        id_command_add(command, &arena, run->entry.id);
    }
    size_t count = 0;
    for (size_t i = 0; i < pool->lane_count; i++) {
        if (!commands[i].words)
            continue;
        commands[i].words[commands[i].count++] = STR("JUSTID");
        steps[count].args = commands[i].words;
        steps[count++].count = commands[i].count;
    }
    int result = redis_steps(redis_shared(), &arena, steps, count);
    if (result)
        LOG(DEBUG, "no heartbeat for volatile jobs", LOG_ERRNO(result));
    arena_clear(&arena);
}

/* ---- entries of the dead ---- */

/* Times that the entry was handed out, from what XPENDING has said of it. */
static int64_t deliveries_of(const struct redis_value *pending, struct str id)
{
    for (size_t i = 0; i < pending->count; i++)
        if (pending->items[i].count == 4 && str_equal(pending->items[i].items[0].text, id))
            return pending->items[i].items[3].integer;
    return 0;
}

static struct str kind_field(const struct redis_value *entry)
{
    const struct redis_value *fields = &entry->items[1];
    for (size_t i = 0; i + 1 < fields->count; i += 2)
        if (str_equal(fields->items[i].text, STR("kind")))
            return fields->items[i + 1].text;
    return STR_NONE;
}

/* A volatile job that has ended three workers is dropped. A durable one's row counts for itself. */
static bool drop_killer(struct pool *pool, struct lane *lane, const struct redis_value *entry,
                        int64_t deliveries)
{
    enum job_kind kind;
    struct entry at = {.lane = lane};
    if (deliveries == 0 || job_kind_of(kind_field(entry), &kind) ||
        !stream_id_parse(entry->items[0].text, &at.id))
        return false;
    metric_add_slot(M_JOBS_CRASHED, kind, 1);
    if (deliveries < CRASHES_MAX)
        return false;
    metric_add_slot(M_JOBS_DEAD, kind, 1);
    LOG(ERROR, "job", LOG_TEXT("kind", job_policies[kind].name), LOG_STR("entry", entry->items[0].text),
        LOG_STR("lane", lane->key), LOG_TEXT("outcome", "dead"), LOG_INT("crashes", deliveries));
    ack_add(pool, at);
    return true;
}

static void take_entries(struct pool *pool, struct lane *lane, const struct redis_value *entries,
                         const struct redis_value *pending)
{
    struct intake intake = {.pool = pool};
    for (size_t i = 0; i < entries->count; i++) {
        const struct redis_value *entry = &entries->items[i];
        if (entry->count != 2 || drop_killer(pool, lane, entry, deliveries_of(pending, entry->items[0].text)))
            continue;
        if (pool->free > 0)
            intake_add(&intake, lane, entry);
    }
    intake_claim(&intake);
}

/* Claims the entries that XPENDING has listed; another worker may be faster, then Redis leaves them out. */
static int take_lane(struct pool *pool, struct arena *arena, struct lane *lane,
                     const struct redis_value *pending)
{
    size_t most = pending->count < pool->free ? pending->count : pool->free;
    struct id_command command;
    id_command_init(&command, arena, pool, lane, pool->lease_ms, most);
    for (size_t i = 0; i < most; i++) {
        struct stream_id id;
        if (pending->items[i].count == 4 && stream_id_parse(pending->items[i].items[0].text, &id))
            id_command_add(&command, arena, id);
    }
    if (command.count == command.fixed)
        return 0;
    struct redis_value entries;
    int result = redis_command(redis_shared(), &entries, arena, command.words, command.count);
    if (result == 0)
        take_entries(pool, lane, &entries, pending);
    return result;
}

void ack_take_over(struct pool *pool)
{
    struct arena arena;
    arena_init(&arena);
    struct redis_step *steps = arena_zalloc(&arena, pool->lane_count * sizeof *steps);
    char digits[20];
    struct str lease = str_of(digits, format_u64(digits, pool->lease_ms));
    for (size_t i = 0; i < pool->lane_count; i++) {
        const struct str words[] = {STR("XPENDING"), pool->lanes[i].key, QUEUE_GROUP, STR("IDLE"),
                                    lease,           STR("-"),           STR("+"),    STR("64")};
        struct str *copy = arena_alloc(&arena, sizeof words);
        steps[i].args = memcpy(copy, words, sizeof words);
        steps[i].count = ARRAY_SIZE(words);
    }
    int result = redis_steps(redis_shared(), &arena, steps, pool->lane_count);
    for (size_t i = 0; result == 0 && i < pool->lane_count && !pool->draining; i++)
        if (steps[i].result == 0 && steps[i].reply.count > 0)
            result = take_lane(pool, &arena, &pool->lanes[i], &steps[i].reply);
    arena_clear(&arena);
}

void ack_leave(struct pool *pool)
{
    struct arena arena;
    arena_init(&arena);
    struct str name = str_from(pool->name);
    struct redis_step *steps = arena_zalloc(&arena, 2 * pool->lane_count * sizeof *steps);
    struct redis_step *leave = steps + pool->lane_count;
    ack_flush(&pool->ack_flush);
    for (size_t i = 0; i < pool->lane_count; i++) {
        const struct str words[] = {STR("XPENDING"), pool->lanes[i].key, QUEUE_GROUP, STR("-"),
                                    STR("+"),        STR("1"),           name};
        struct str *copy = arena_alloc(&arena, sizeof words);
        steps[i].args = memcpy(copy, words, sizeof words);
        steps[i].count = ARRAY_SIZE(words);
    }
    int result = redis_steps(redis_shared(), &arena, steps, pool->lane_count);
    size_t count = 0;
    for (size_t i = 0; result == 0 && i < pool->lane_count; i++) {
        if (steps[i].result || steps[i].reply.count)
            continue;
        const struct str words[] = {STR("XGROUP"), STR("DELCONSUMER"), pool->lanes[i].key, QUEUE_GROUP, name};
        struct str *copy = arena_alloc(&arena, sizeof words);
        leave[count].args = memcpy(copy, words, sizeof words);
        leave[count++].count = ARRAY_SIZE(words);
    }
    if (result == 0)
        result = redis_steps(redis_shared(), &arena, leave, count);
    if (result)
        LOG(DEBUG, "the consumer stays in the groups", LOG_ERRNO(result));
    arena_clear(&arena);
}
