/*
 * AI calls from the side of who runs them: see worker.h. What is sent to Redis and what comes back: schema/ai.lua.
 *
 * Calls are pushed on a channel, and one that is lost there still counts as ours in Redis. So each beat compares what Redis
 * says that we hold with what we do; a call that two looks in a row say is ours, and that we have not, is put back.
 */
#include "core/domain/ai/worker.h"

#include "core/base/clock.h"
#include "core/base/id.h"
#include "core/base/log.h"
#include "core/domain/ai/internal.h"
#include "core/domain/ai/untold.h"
#include "core/run/sync.h"
#include "core/store/redis.h"
#include "core/store/table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BEAT_MS = 1000,
    LAST_WORD_TRIES = 12, /* for the end of a call, while Redis is away */
    LAST_WORD_PAUSE_MS = 250,
    ROOM_WAIT_MS = 60000, /* in which a client takes something, or its server has died */
    NAME_SIZE = 48,
    SUSPECTS_MAX = 256,
};

static struct {
    struct loop *loop;
    struct ai_worker_options options;
    char name[NAME_SIZE];
    char channel[NAME_SIZE + 8];
    struct table tasks;
    struct fiber *beat;
    struct group fibers;
    struct wait *empty;                      /* who waits for the last task to end */
    char suspects[SUSPECTS_MAX][AI_ID_SIZE]; /* Redis says that they are ours */
    size_t suspect_count;
    bool draining;
    bool full; /* takes nothing for now */
} worker;

struct str ai_key(char out[AI_KEY_SIZE], struct str id)
{
    CHECK(id.size < AI_KEY_SIZE - sizeof "ai:call:");
    memcpy(out, "ai:call:", 8);
    memcpy(out + 8, id.at, id.size);
    return str_of(out, 8 + id.size);
}

/* ---- what comes ---- */

static struct str id_of(struct link *item)
{
    return LIST_ENTRY(item, struct ai_task, link)->id;
}

static struct ai_task *find(struct str id)
{
    struct link *item = table_find(&worker.tasks, id);
    return item ? LIST_ENTRY(item, struct ai_task, link) : NULL;
}

static bool read_number(struct str *head, int64_t *number)
{
    struct str word;
    return str_split(head, ' ', &word) && str_to_i64(word, number);
}

/* Copies the message behind the struct, and lets what was read of it point there. */
static struct ai_task *task_new(const struct ai_task *read, const char *from, size_t size)
{
    struct ai_task *task = mem_alloc(sizeof *task + size);
    char *copy = (char *)(task + 1);
    memcpy(copy, from, size);
    *task = *read;
    struct str *texts[] = {&task->id, &task->provider, &task->channel, &task->meta, &task->body};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i]->at)
            texts[i]->at = copy + (texts[i]->at - from);
    return task;
}

/* "ID TRY PROVIDER ROUTE ACCOUNT FLAGS MOST GENERATION CHANNEL META-SIZE\nMETA BODY" */
static void on_run(struct str text, struct str head, struct str rest)
{
    struct ai_task task = {.fiber = NULL};
    struct str flags;
    int64_t try;
    int64_t meta_size;
    if (!str_split(&head, ' ', &task.id) || !read_number(&head, &try) ||
        !str_split(&head, ' ', &task.provider) || !read_number(&head, &task.route) ||
        !read_number(&head, &task.account_id) || !str_split(&head, ' ', &flags) ||
        !read_number(&head, &task.most) || !read_number(&head, &task.generation) ||
        !str_split(&head, ' ', &task.channel) || !read_number(&head, &meta_size) || meta_size < 0 ||
        (size_t)meta_size > rest.size || task.id.size >= AI_ID_SIZE) {
        LOG(ERROR, "an AI call can't be read", LOG_INT("bytes", text.size));
        return;
    }
    task.try = (uint64_t)try;
    task.streamed = memchr(flags.at, 's', flags.size) != NULL;
    task.durable = memchr(flags.at, 'd', flags.size) != NULL;
    if (str_equal(task.channel, STR("-")))
        task.channel = STR_NONE;
    task.meta = str_of(rest.at, (size_t)meta_size);
    task.body = str_of(rest.at + meta_size, rest.size - (size_t)meta_size);
    struct ai_task *known = find(task.id);
    if (known && known->try >= task.try)
        return;
    if (known) { /* it was taken for dead, and has it again: the older run ends without effect */
        known->stale = true;
        if (known->fiber)
            fiber_cancel(known->fiber);
    }
    struct ai_task *made = task_new(&task, text.at, text.size);
    table_add(&worker.tasks, &made->link);
    worker.options.run(made);
}

static struct ai_task *find_run(struct str *head)
{
    struct str id;
    int64_t try;
    if (!str_split(head, ' ', &id) || !read_number(head, &try))
        return NULL;
    struct link *item = table_find(&worker.tasks, id);
    for (; item; item = table_find_next(&worker.tasks, item, id))
        if (LIST_ENTRY(item, struct ai_task, link)->try == (uint64_t)try)
            return LIST_ENTRY(item, struct ai_task, link);
    return NULL;
}

static void on_left(struct str head)
{
    struct ai_task *task = find_run(&head);
    if (!task || task->left)
        return;
    task->left = true;
    if (task->fiber)
        fiber_cancel(task->fiber);
}

static void on_taken(struct str head)
{
    struct ai_task *task = find_run(&head);
    int64_t taken;
    if (!task || !read_number(&head, &taken) || (uint64_t)taken <= task->taken)
        return;
    task->taken = (uint64_t)taken;
    if (task->room && task->sent - task->taken <= AI_WINDOW_BYTES)
        wait_done(task->room, 0);
}

static void on_message(void *unused, struct str text)
{
    (void)unused;
    const char *end = memchr(text.at, '\n', text.size);
    struct str head = str_of(text.at, end ? (size_t)(end - text.at) : 0);
    struct str kind;
    if (!end || !str_split(&head, ' ', &kind) || kind.size != 1 || !head.at)
        return;
    struct str rest = str_of(end + 1, text.size - (size_t)(end + 1 - text.at));
    switch (kind.at[0]) {
    case 'r': on_run(text, head, rest); return;
    case 'x': on_left(head); return;
    case 'a': on_taken(head); return;
    default: LOG(WARN, "a message to this worker can't be read", LOG_INT("bytes", text.size)); return;
    }
}

/* ---- the beat ---- */

static int script(struct redis_value *reply, struct arena *arena, const struct str *words, size_t count)
{
    int result = redis_script(redis_shared(), reply, arena, "ai.lua", words, count, 0);
    if (result == -EIO)
        LOG(WARN, "the queue of AI calls refuses", LOG_STR("step", words[0]), LOG_STR("reply", reply->text));
    return result;
}

static bool was_suspected(struct str id)
{
    for (size_t i = 0; i < worker.suspect_count; i++)
        if (str_equal(str_from(worker.suspects[i]), id))
            return true;
    return false;
}

/* It never came here, or has ended here while Redis was away: what Redis has of it is seen to as if this worker had died. */
static void give_up_lost(struct arena *arena, struct str id)
{
    struct redis_value reply;
    const struct str words[] = {STR("lost"), str_from(worker.name), id};
    if (!find(id) && script(&reply, arena, words, ARRAY_SIZE(words)) == 0 && reply.integer > 0)
        LOG(WARN, "an AI call that Redis says is here is not, and is placed again or ended",
            LOG_STR("job", id));
}

static void look_for_lost(struct arena *arena)
{
    struct redis_value reply;
    char key[NAME_SIZE + 16];
    snprintf(key, sizeof key, "ai:held:%s", worker.name);
    if (redis_call(redis_shared(), &reply, arena, STR("HKEYS"), str_from(key)) || reply.type != REDIS_ARRAY)
        return;
    char(*next)[AI_ID_SIZE] = arena_zalloc(arena, SUSPECTS_MAX * sizeof *next);
    size_t count = 0;
    for (size_t i = 0; i < reply.count; i++) {
        struct str id = reply.items[i].text;
        if (find(id) || ai_untold_has(id) || id.size >= AI_ID_SIZE)
            continue;
        if (was_suspected(id))
            give_up_lost(arena, id);
        else if (count < SUSPECTS_MAX)
            memcpy(next[count++], id.at, id.size);
    }
    memcpy(worker.suspects, next, sizeof worker.suspects);
    worker.suspect_count = count;
}

static void take_beat(struct arena *arena, const struct redis_value *reply)
{
    if (reply->type != REDIS_ARRAY || reply->count != 4)
        return;
    for (size_t i = 0; i < reply->items[3].count; i++)
        on_left(reply->items[3].items[i].text);
    if (reply->items[0].integer != (int64_t)worker.tasks.count)
        look_for_lost(arena);
    else
        worker.suspect_count = 0;
    if (reply->items[1].integer > 0)
        LOG(WARN, "AI calls of a worker that is gone were taken over",
            LOG_INT("calls", reply->items[1].integer));
    const struct redis_value *ended = &reply->items[2];
    if (ended->count == 0 || !worker.options.recover)
        return;
    struct str *ids = arena_alloc(arena, ended->count * sizeof *ids);
    for (size_t i = 0; i < ended->count; i++)
        ids[i] = ended->items[i].text;
    worker.options.recover(ids, ended->count);
}

static void beat_once(void)
{
    struct arena arena;
    struct redis_value reply;
    char room[24];
    char life[24];
    arena_init(&arena);
    const struct str words[] = {
        STR("beat"), str_from(worker.name),
        str_of(room, format_u64(room, worker.draining || worker.full ? 0 : (uint64_t)worker.options.room)),
        str_of(life, format_u64(life, AI_WORKER_LIFE_MS))};
    if (script(&reply, &arena, words, ARRAY_SIZE(words)) == 0) {
        ai_untold_tell();
        take_beat(&arena, &reply);
    }
    arena_clear(&arena);
}

static void run_beat(void *unused)
{
    (void)unused;
    int result = redis_wait_ready(redis_shared(), CLOCK_NEVER);
    while (result == 0) {
        beat_once();
        result = fiber_sleep_ms(BEAT_MS);
    }
    group_done(&worker.fibers);
}

void ai_worker_open(struct loop *loop, const struct ai_worker_options *options)
{
    char host[24] = "";
    char random[9];
    CHECK(!worker.loop);
    gethostname(host, sizeof host - 1);
    for (char *c = host; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-' || *c == '.'))
            *c = '-';
    id_random(random, sizeof random - 1);
    worker.loop = loop;
    worker.options = *options;
    worker.draining = worker.full = false;
    worker.suspect_count = 0;
    snprintf(worker.name, sizeof worker.name, "%s-%d-%s", host, (int)getpid(), random);
    snprintf(worker.channel, sizeof worker.channel, "ai:work:%s", worker.name);
    table_init(&worker.tasks, id_of);
    redis_subscribe(str_from(worker.channel), on_message, NULL);
    group_add(&worker.fibers);
    worker.beat = fiber_start(loop, "AI worker's beat", run_beat, NULL);
}

void ai_worker_drain(uint64_t deadline_ns)
{
    CHECK(worker.loop);
    worker.draining = true;
    beat_once();
    struct wait empty = WAIT_INIT;
    worker.empty = &empty;
    if (worker.tasks.count > 0 && wait_for(&empty, "AI calls that run", deadline_ns))
        LOG(INFO, "AI calls are given to other workers", LOG_INT("calls", worker.tasks.count));
    worker.empty = NULL;
}

void ai_worker_close(void)
{
    struct arena arena;
    struct redis_value reply;
    if (!worker.loop)
        return;
    CHECK(worker.tasks.count == 0);
    fiber_hold();
    fiber_cancel(worker.beat);
    CHECK(group_wait(&worker.fibers, "the AI worker's beat", CLOCK_NEVER) == 0);
    ai_untold_tell();
    ai_untold_clear();
    arena_init(&arena);
    const struct str words[] = {STR("leave"), str_from(worker.name)};
    int result = script(&reply, &arena, words, ARRAY_SIZE(words));
    if (result)
        LOG(DEBUG, "the queue of AI calls was not told that this worker leaves", LOG_ERRNO(result));
    arena_clear(&arena);
    redis_unsubscribe(str_from(worker.channel));
    table_clear(&worker.tasks);
    worker.loop = NULL;
    fiber_release();
}

unsigned ai_worker_tasks(void)
{
    return (unsigned)worker.tasks.count;
}

struct visiting {
    void (*visit)(struct ai_task *task, void *arg);
    void *arg;
};

static void visit_task(struct link *item, void *arg)
{
    const struct visiting *visiting = arg;
    visiting->visit(LIST_ENTRY(item, struct ai_task, link), visiting->arg);
}

void ai_worker_each(void (*visit)(struct ai_task *task, void *arg), void *arg)
{
    struct visiting visiting = {visit, arg};
    table_each(&worker.tasks, visit_task, &visiting);
}

void ai_worker_take(bool takes)
{
    worker.full = !takes;
}

struct str ai_worker_name(void)
{
    return str_from(worker.name);
}

/* ---- a task's words ---- */

/* Room for the client's next pieces. */
static int wait_room(struct ai_task *task)
{
    int result = 0;
    uint64_t taken = task->taken;
    while (result == 0 && task->sent - task->taken > AI_WINDOW_BYTES) {
        struct wait wait = WAIT_INIT;
        task->room = &wait;
        result = wait_for(&wait, "the client to take its answer", clock_in_ms(ROOM_WAIT_MS));
        task->room = NULL;
        if (result == -ETIMEDOUT && task->taken > taken)
            result = 0;
        taken = task->taken;
    }
    return result == -ETIMEDOUT ? -EPIPE : result;
}

static void add_piece_head(struct buf *message, const struct ai_task *task)
{
    buf_printf(message, "c %.*s %llu %llu %s\n", STR_ARG(task->id), (unsigned long long)task->try,
               (unsigned long long)task->number, worker.name);
}

/* The first piece is a step of the script: with it the call becomes this worker's for good. */
static int send_first(struct ai_task *task, struct str message, struct str tokens)
{
    struct arena arena;
    struct redis_value reply;
    char try[24];
    arena_init(&arena);
    const struct str words[] = {STR("begin"), task->id,      str_of(try, format_u64(try, task->try)),
                                tokens,       task->channel, message};
    int result = script(&reply, &arena, words, ARRAY_SIZE(words));
    if (result == 0 && reply.integer < 0)
        result = -ESTALE;
    else if (result == 0 && reply.integer == 0)
        result = -EPIPE;
    arena_clear(&arena);
    return result;
}

static int send_more(const struct ai_task *task, struct str message, struct str tokens)
{
    struct arena arena;
    char key[AI_KEY_SIZE];
    arena_init(&arena);
    const struct str note[] = {STR("HSET"), ai_key(key, task->id), STR("o"), tokens};
    const struct str publish[] = {STR("PUBLISH"), task->channel, message};
    struct redis_step steps[] = {{.args = publish, .count = ARRAY_SIZE(publish)},
                                 {.args = note, .count = ARRAY_SIZE(note)}};
    int result = redis_steps(redis_shared(), &arena, steps, ARRAY_SIZE(steps));
    if (result == 0 && steps[0].result == 0 && steps[0].reply.integer == 0)
        result = -EPIPE;
    arena_clear(&arena);
    return result;
}

int ai_task_piece(struct ai_task *task, struct str payload, int64_t tokens)
{
    char digits[24];
    struct buf message = {0};
    CHECK(task->channel.at && tokens >= 0);
    if (task->stale)
        return -ESTALE;
    int result = wait_room(task);
    if (result)
        return result;
    add_piece_head(&message, task);
    buf_add_str(&message, payload);
    struct str count = str_of(digits, format_u64(digits, (uint64_t)tokens));
    result =
        task->begun ? send_more(task, buf_str(&message), count) : send_first(task, buf_str(&message), count);
    buf_clear(&message);
    if (result == -ESTALE)
        task->stale = true;
    if (result)
        return result;
    task->begun = true;
    task->number++;
    task->sent += payload.size;
    return 0;
}

/* ---- ends ---- */

/* A step that must be taken: repeated while Redis is away, and to no harm when it was taken already. */
static int insist(struct redis_value *reply, struct arena *arena, const struct str *words, size_t count)
{
    int result = -ENOTCONN;
    fiber_hold();
    for (int tries = 0; tries < LAST_WORD_TRIES; tries++) {
        result = script(reply, arena, words, count);
        if (result == 0 || result == -EIO)
            break;
        int slept = fiber_sleep_ms(LAST_WORD_PAUSE_MS);
        CHECK(slept == 0);
    }
    fiber_release();
    return result;
}

static const char *const lessons[] = {
    [AI_LESSON_NONE] = "", [AI_LESSON_OK] = "ok", [AI_LESSON_RATE] = "rate", [AI_LESSON_FAIL] = "fail"};

static struct str number_word(struct arena *arena, int64_t number)
{
    return str_from(arena_printf(arena, "%lld", (long long)number));
}

/* Whether the step was carried out. */
static bool was_taken(const struct ai_task *task, struct str answer)
{
    bool broke = str_equal(answer, STR("broke"));
    if (broke)
        LOG(WARN, "a provider keeps failing and is left alone for a while",
            LOG_STR("provider", task->provider));
    return broke || str_equal(answer, STR("ok"));
}

int ai_task_finish(struct ai_task *task, const struct ai_end *end, const struct ai_learned *learned,
                   int status, struct str payload)
{
    struct arena arena;
    struct redis_value reply;
    struct buf record = {0};
    if (task->stale)
        return -ESTALE;
    arena_init(&arena);
    ai_end_write(&record, end);
    struct str rest = str_from(arena_printf(&arena, "%llu %d", (unsigned long long)task->number, status));
    const struct str words[] = {STR("finish"),
                                task->id,
                                number_word(&arena, (int64_t)task->try),
                                number_word(&arena, end->cost),
                                str_from(lessons[learned->lesson]),
                                number_word(&arena, learned->latency_ms),
                                number_word(&arena, learned->retry_ms),
                                buf_str(&record),
                                STR("e"),
                                rest,
                                payload};
    int result = insist(&reply, &arena, words, ARRAY_SIZE(words));
    bool lost = result == 0 && str_equal(reply.text, STR("lost"));
    bool gone = result != 0 || (!lost && !was_taken(task, reply.text));
    if (result)
        ai_untold_keep(task->id, words, ARRAY_SIZE(words));
    /* Redis has forgotten it, or is away for long: what was done counts all the same, and the row's id that it counts once. */
    if (gone && task->channel.at) {
        struct buf message = {0};
        buf_printf(&message, "e %.*s %llu %.*s\n", STR_ARG(task->id), (unsigned long long)task->try,
                   STR_ARG(rest));
        buf_add_str(&message, payload);
        redis_send(redis_shared(), REDIS_ARGS(STR("PUBLISH"), task->channel, buf_str(&message)));
        buf_clear(&message);
    }
    buf_clear(&record);
    arena_clear(&arena);
    task->stale = lost;
    return lost ? -ESTALE : 0;
}

int ai_task_again(struct ai_task *task, const struct ai_learned *learned, bool same)
{
    struct arena arena;
    struct redis_value reply;
    if (task->stale)
        return -ESTALE;
    arena_init(&arena);
    const struct str words[] = {STR("again"),
                                task->id,
                                number_word(&arena, (int64_t)task->try),
                                str_from(lessons[learned->lesson]),
                                number_word(&arena, learned->latency_ms),
                                number_word(&arena, learned->retry_ms),
                                same ? STR("1") : STR("0")};
    int result = insist(&reply, &arena, words, ARRAY_SIZE(words));
    if (result == 0 && str_equal(reply.text, STR("lost")))
        result = -ESTALE;
    else if (result || !was_taken(task, reply.text))
        result = -ENOENT;
    arena_clear(&arena);
    return result;
}

void ai_task_free(struct ai_task *task)
{
    CHECK(!task->room);
    table_remove(&worker.tasks, &task->link);
    free(task);
    if (worker.tasks.count == 0 && worker.empty)
        wait_done(worker.empty, 0);
}

/* ---- ends that lie in Redis ---- */

int ai_ended_read(struct arena *arena, struct str id, struct ai_end *end)
{
    char key[AI_KEY_SIZE];
    struct redis_value reply;
    if (!ai_job_id_is_valid(id))
        return -ENOENT;
    int result = redis_call(redis_shared(), &reply, arena, STR("HMGET"), ai_key(key, id), STR("a"), STR("g"),
                            STR("m"), STR("z"));
    if (result)
        return result;
    *end = (struct ai_end){.id = arena_str(arena, id)};
    bool fine = reply.count == 4 && str_to_i64(reply.items[0].text, &end->account_id) &&
                str_to_i64(reply.items[1].text, &end->generation) &&
                ai_meta_read(arena, reply.items[2].text, &end->meta) == 0 &&
                ai_end_read(arena, reply.items[3].text, end) == 0;
    return fine ? 0 : -ENOENT;
}

void ai_ended_forget(const struct str *ids, size_t count)
{
    struct arena arena;
    arena_init(&arena);
    struct str *members = arena_alloc(&arena, (count + 2) * sizeof *members);
    struct str *keys = arena_alloc(&arena, (count + 1) * sizeof *keys);
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (ai_untold_settled(ids[i]))
            continue;
        members[2 + left] = ids[i];
        keys[1 + left++] = ai_key(arena_alloc(&arena, AI_KEY_SIZE), ids[i]);
    }
    members[0] = STR("ZREM");
    members[1] = STR("ai:ended");
    keys[0] = STR("UNLINK");
    if (left) {
        redis_send(redis_shared(), members, left + 2);
        redis_send(redis_shared(), keys, left + 1);
    }
    arena_clear(&arena);
}
