/*
 * RESP (Redis serialization protocol, version 2): commands into bytes by hand, replies out of bytes by hiredis's
 * reader, which calls back for every value. Values are made where they are wanted: in the step and the arena of
 * whoever waits. Where nobody does, or nobody does any more, nothing is made.
 */
#include "core/store/redis_internal.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <hiredis/read.h>
#include <string.h>

enum {
    LARGE_SIZE = 65536,   /* of the reader's buffer: beyond it memory is given back */
    ITEMS_MOST = 1 << 24, /* of an array: more is a mistake in the bytes */
    FRAME_SIZE = 24,      /* what "$<size>\r\n" and "\r\n" take at most around a word */
};

/* ---- out ---- */

static char *encode_size(char *at, char type, size_t size)
{
    *at++ = type;
    at += format_u64(at, size);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

void redis_encode(struct buf *out, const struct str *args, size_t count)
{
    size_t room = FRAME_SIZE;
    for (size_t i = 0; i < count; i++)
        room += args[i].size + FRAME_SIZE;
    char *at = buf_reserve(out, room);
    char *begin = at;
    at = encode_size(at, '*', count);
    for (size_t i = 0; i < count; i++) {
        at = encode_size(at, '$', args[i].size);
        if (args[i].size)
            memcpy(at, args[i].at, args[i].size);
        at += args[i].size;
        *at++ = '\r';
        *at++ = '\n';
    }
    out->size += (size_t)(at - begin);
}

/* ---- in ---- */

/* What hiredis is given where no value is made: it wants something that is not NULL. */
static struct redis_value nowhere;

static struct redis_batch *oldest_batch(const struct redis *redis)
{
    return redis->ring[redis->head & (redis->ring_size - 1)].batch;
}

/*
 * Where the value of this task belongs, and the arena for its text; NULL when nobody wants it. Asked anew for each
 * value: a fiber may go while its reply is half read, and its arena with it, so that a parent that was made before is
 * not looked at either.
 */
static struct redis_value *place_of(const redisReadTask *task, struct arena **arena)
{
    struct redis *redis = task->privdata;
    struct redis_value *root;
    if (redis->head != redis->tail) {
        struct redis_batch *batch = oldest_batch(redis);
        if (!batch)
            return NULL;
        root = &batch->steps[redis->head - batch->first].reply;
        *arena = batch->arena;
    } else {
        root = &redis->push;
        *arena = &redis->push_arena;
    }
    if (!task->parent)
        return root;
    struct redis_value *parent = task->parent->obj;
    return &parent->items[task->idx];
}

static void *make_nowhere(const redisReadTask *task, struct str text)
{
    struct redis *redis = task->privdata;
    if (task->parent || task->type != REDIS_REPLY_ERROR)
        return &nowhere;
    metric_add(M_REDIS_ERRORS, 1);
    uint64_t now_ns = clock_now_ns();
    if (redis->told_ns == 0 || now_ns - redis->told_ns >= CLOCK_SECOND) {
        redis->told_ns = now_ns;
        LOG(WARN, "redis refused a command that nobody waits for", LOG_TEXT("connection", redis->name),
            LOG_STR("reply", text));
    }
    return &nowhere;
}

static void *make_string(const redisReadTask *task, char *bytes, size_t size)
{
    struct arena *arena;
    struct redis_value *value = place_of(task, &arena);
    if (!value)
        return make_nowhere(task, str_of(bytes, size));
    value->type = task->type == REDIS_REPLY_ERROR    ? REDIS_ERROR
                  : task->type == REDIS_REPLY_STATUS ? REDIS_STATUS
                                                     : REDIS_STRING;
    value->text = str_of(arena_dup(arena, bytes, size), size);
    return value;
}

/* hiredis changed the type of the count with version 1. */
#if HIREDIS_MAJOR >= 1
typedef size_t item_count;
#else
typedef int item_count;
#endif

static void *make_array(const redisReadTask *task, item_count count)
{
    struct arena *arena;
    struct redis_value *value = place_of(task, &arena);
    if (!value)
        return &nowhere;
    if (count > (item_count)ITEMS_MOST)
        return NULL;
    value->type = REDIS_ARRAY;
    value->count = (size_t)count;
    value->items = count ? arena_zalloc(arena, (size_t)count * sizeof *value->items) : NULL;
    return value;
}

static void *make_integer(const redisReadTask *task, long long number)
{
    struct arena *arena;
    struct redis_value *value = place_of(task, &arena);
    if (!value)
        return &nowhere;
    value->type = REDIS_INTEGER;
    value->integer = number;
    return value;
}

static void *make_nil(const redisReadTask *task)
{
    struct arena *arena;
    struct redis_value *value = place_of(task, &arena);
    if (!value)
        return &nowhere;
    value->type = REDIS_NIL;
    return value;
}

static redisReplyObjectFunctions makers = {
    .createString = make_string,
    .createArray = make_array,
    .createInteger = make_integer,
    .createNil = make_nil,
};

bool redis_reader_feed(struct redis *redis, const char *bytes, size_t size)
{
    if (!redis->reader) {
        redis->reader = redisReaderCreateWithFunctions(&makers);
        CHECK(redis->reader);
        redis->reader->privdata = redis;
    }
    if (redisReaderFeed(redis->reader, bytes, size) != REDIS_OK)
        return false;
    redis->reader_is_large = redis->reader_is_large || redis->reader->len > LARGE_SIZE;
    redis->reader_is_empty = false;
    return true;
}

int redis_reader_next(struct redis *redis)
{
    void *reply = NULL;
    if (redisReaderGetReply(redis->reader, &reply) != REDIS_OK)
        return -EPROTO;
    if (!reply)
        return 0;
    redis->reader_is_empty = redis->reader->pos == redis->reader->len;
    return 1;
}

void redis_reader_shrink(struct redis *redis)
{
    if (redis->reader_is_large && redis->reader_is_empty)
        redis_reader_free(redis);
}

void redis_reader_free(struct redis *redis)
{
    if (redis->reader)
        redisReaderFree(redis->reader);
    redis->reader = NULL;
    redis->reader_is_large = false;
    redis->reader_is_empty = false;
}
