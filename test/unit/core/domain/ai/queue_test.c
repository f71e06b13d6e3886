/*
 * The queue of AI calls (schema/ai.lua and its two ends) against a real Redis: who runs, who waits, who pays, and what is left
 * when somebody dies. One loop plays the server and the worker.
 */
#include "core/domain/ai/queue.h"
#include "core/domain/ai/state.h"
#include "core/domain/ai/worker.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/log.h"
#include "core/run/sync.h"
#include "core/store/redis.h"
#include "test/unit/support/services.h"
#include "test/unit/support/until.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TASKS_MAX = 512 };

static struct services services;
static struct arena arena;
static struct ai_task *tasks[TASKS_MAX]; /* in the order in which they came */
static size_t task_count;
static size_t recovered;

/* ---- the worker ---- */

static void take(struct ai_task *task)
{
    assert_true(task_count < TASKS_MAX);
    tasks[task_count++] = task;
}

static void recover(const struct str *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ai_end end;
        if (ai_ended_read(&arena, ids[i], &end) == 0)
            recovered++;
    }
    ai_ended_forget(ids, count);
}

static void open_worker(int64_t room)
{
    const struct ai_worker_options options = {.room = room, .run = take, .recover = recover};
    task_count = 0;
    ai_worker_open(loop_self(), &options);
}

static const struct ai_learned well = {.lesson = AI_LESSON_OK, .latency_ms = 5};

static struct ai_end end_of(const struct ai_task *task, money cost)
{
    struct ai_end end = {.id = task->id,
                         .account_id = task->account_id,
                         .status = AI_COMPLETED,
                         .cost = cost,
                         .ended_ms = clock_wall_ms()};
    assert_int_equal(ai_meta_read(&arena, task->meta, &end.meta), 0);
    return end;
}

static int finish(struct ai_task *task, money cost, const char *payload)
{
    struct ai_end end = end_of(task, cost);
    int result = ai_task_finish(task, &end, &well, 200, str_from(payload));
    ai_task_free(task);
    return result;
}

/* ---- the server ---- */

PRINTF_LIKE(1, 2) static struct str redis_text(const char *format, ...)
{
    char text[256];
    struct str words[24];
    size_t count = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct str rest = str_from(arena_strdup(&arena, text));
    while (count < ARRAY_SIZE(words) && str_split(&rest, ' ', &words[count]))
        count++;
    struct redis_value reply;
    assert_int_equal(redis_command(redis_shared(), &reply, &arena, words, count), 0);
    if (reply.type == REDIS_INTEGER)
        return str_from(arena_printf(&arena, "%lld", (long long)reply.integer));
    return reply.text;
}

#define redis_number(...) number_of(redis_text(__VA_ARGS__))

static int64_t number_of(struct str text)
{
    int64_t number = 0;
    return str_to_i64(text, &number) ? number : 0;
}

struct client {
    struct ai_call call;
    struct ai_order order;
    char id[AI_ID_SIZE];
    struct buf meta;
};

static void prepare(struct client *client, int64_t account_id, const char *provider, int64_t most)
{
    struct ai_meta meta = {
        .surface = STR("inference"), .model = STR("gpt-4"), .request_id = STR("r"), .choices = 1};
    ai_new_id(client->id);
    client->meta = (struct buf){0};
    ai_meta_write(&client->meta, &meta);
    client->order = (struct ai_order){
        .id = str_from(client->id),
        .account_id = account_id,
        .meta = buf_str(&client->meta),
        .body = STR("{\"a\":1}\nmore"),
        .limit = -1,
        .wait_ms = 20000,
        .route_count = 1,
    };
    client->order.routes[0] = (struct ai_route){str_from(provider), most, 100, 60, 1 << 20};
}

static enum ai_entry submit(struct client *client)
{
    enum ai_entry entry;
    int64_t retry_ms;
    assert_int_equal(ai_submit(&client->call, &client->order, &entry, &retry_ms), 0);
    assert_true(entry == AI_ACCEPTED || retry_ms >= 0);
    return entry;
}

static void hear_end(struct client *client, const char *payload)
{
    const struct ai_message *message;
    assert_int_equal(ai_next(&client->call, &message, clock_in_ms(5000)), 0);
    assert_int_equal(message->said, AI_END);
    assert_true(str_equal(message->rest, STR("200")));
    assert_true(str_equal(message->payload, str_from(payload)));
    ai_call_close(&client->call);
    buf_clear(&client->meta);
}

/* Closes one that nobody answered. */
static void drop(struct client *client)
{
    ai_call_leave(&client->call);
    buf_clear(&client->meta);
}

static struct ai_state state_of(const char *name, int64_t most)
{
    const struct provider provider = {.name = name, .max_in_flight = most};
    const struct provider *const providers[] = {&provider};
    struct ai_state *states;
    assert_int_equal(ai_state_read(&arena, providers, 1, &states), 0);
    return states[0];
}

/* ---- loops ---- */

static void on_loop(void *arg)
{
    void (**body)(void) = arg;
    char error[256];
    arena_init(&arena);
    CHECK(redis_open_loop(loop_self(), error, sizeof error) == 0);
    CHECK(redis_wait_ready(redis_shared(), clock_in_ms(20000)) == 0);
    redis_text("FLUSHALL");
    ai_open_loop(loop_self());
    open_worker(100);
    UNTIL(redis_number("ZCARD ai:workers") == 1);
    (*body)();
    for (size_t i = 0; i < task_count; i++)
        assert_null(tasks[i]);
    ai_worker_close();
    ai_close_loop(loop_self());
    redis_close_loop(loop_self());
    arena_clear(&arena);
}

static void run(void (*body)(void))
{
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", on_loop, &body);
    loop_close(&loop);
}

static struct ai_task *next_task(size_t number)
{
    UNTIL(task_count > number);
    struct ai_task *task = tasks[number];
    tasks[number] = NULL;
    return task;
}

static int setup(void **state)
{
    (void)state;
    char error[256];
    signal(SIGPIPE, SIG_IGN);
    crypto_init();
    services_start(&services, SERVICES_REDIS);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    return config_set("REDIS_URL", services.redis_url, error, sizeof error);
}

static int teardown(void **state)
{
    (void)state;
    services_stop(&services);
    config_clear();
    log_close();
    return 0;
}

/* ---- tests ---- */

static void check_round_trip(void)
{
    struct client client;
    prepare(&client, 7, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    assert_true(str_equal(task->id, client.order.id) && str_equal(task->body, client.order.body));
    assert_true(str_equal(task->provider, STR("p1")) && task->account_id == 7 && task->try == 1 &&
                task->route == 1);
    assert_int_equal(redis_number("HGET ai:provider:p1 busy"), 1);
    assert_int_equal(finish(task, 0, "answer\nof two lines"), 0);
    hear_end(&client, "answer\nof two lines");
    assert_int_equal(redis_number("HGET ai:provider:p1 busy"), 0);
    assert_int_equal(redis_number("ZCARD ai:ended"), 1);
    ai_ended_forget(&client.order.id, 1);
    UNTIL(redis_number("DBSIZE") <= 3); /* provider, worker's two */
}

static void a_call_goes_to_a_worker_and_back(void **state)
{
    (void)state;
    run(check_round_trip);
}

/* Two tenants, one with many calls before the other's few: each in turn. */
static void check_turns(void)
{
    struct client clients[13];
    for (int i = 0; i < 13; i++) {
        prepare(&clients[i], i < 10 ? 1 : 2, "p1", 1);
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    static const int64_t expected[] = {1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < 13; i++) {
        struct ai_task *task = next_task(i);
        assert_int_equal(task->account_id, expected[i]);
        assert_int_equal(task_count, i + 1);
        assert_int_equal(finish(task, 0, "x"), 0);
    }
    for (int i = 0; i < 13; i++)
        hear_end(&clients[i], "x");
    assert_int_equal(redis_number("HGET ai:provider:p1 queued"), 0);
    assert_int_equal(redis_number("HGET ai:provider:p1 bytes"), 0);
}

static void tenants_take_turns(void **state)
{
    (void)state;
    run(check_turns);
}

static void check_bounds(void)
{
    struct client clients[8];
    for (int i = 0; i < 8; i++) {
        prepare(&clients[i], i < 6 ? 1 : 2, "p1", 1);
        clients[i].order.routes[0].calls_most = 4;
        clients[i].order.routes[0].tenant_most = 3;
        enum ai_entry entry = submit(&clients[i]);
        assert_int_equal(entry, i < 4 || i == 6 ? AI_ACCEPTED : i < 6 ? AI_TENANT_FULL : AI_FULL);
        if (entry != AI_ACCEPTED)
            buf_clear(&clients[i].meta);
    }
    static const int accepted[] = {0, 1, 2, 3, 6};
    for (size_t i = 0; i < ARRAY_SIZE(accepted); i++)
        assert_int_equal(finish(next_task(i), 0, "x"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(accepted); i++)
        hear_end(&clients[accepted[i]], "x");
}

static void lines_are_bounded_for_all_and_for_each(void **state)
{
    (void)state;
    run(check_bounds);
}

static void check_cancel(void)
{
    struct client clients[3];
    enum ai_cancel_outcome outcome;
    for (int i = 0; i < 3; i++) {
        prepare(&clients[i], 1, "p1", 1);
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    struct ai_task *task = next_task(0);
    assert_int_equal(ai_cancel(2, clients[1].order.id, false, &outcome), 0);
    assert_int_equal(outcome, AI_CANCEL_NONE); /* another account's */
    assert_int_equal(ai_cancel(1, clients[0].order.id, true, &outcome), 0);
    assert_int_equal(outcome, AI_CANCEL_RUNNING);
    assert_false(task->left);
    assert_int_equal(ai_cancel(1, clients[1].order.id, true, &outcome), 0);
    assert_int_equal(outcome, AI_CANCEL_REMOVED);
    drop(&clients[1]);
    ai_call_close(&clients[0].call);
    buf_clear(&clients[0].meta);
    UNTIL(task->left);
    assert_int_equal(finish(task, 0, "x"), 0);
    assert_int_equal(finish(next_task(1), 0, "x"), 0);
    hear_end(&clients[2], "x");
    assert_int_equal(redis_number("HGET ai:provider:p1 queued"), 0);
}

static void a_client_that_leaves_ends_its_call(void **state)
{
    (void)state;
    run(check_cancel);
}

/* What is reserved and what comes back, to the picodollar. */
static void check_money(void)
{
    struct client client;
    redis_text("HSET lease:1 gen 3 applied 1 free 1000");
    redis_text("SET spend:1:19700101 0");
    prepare(&client, 1, "p1", 10);
    client.order.most = 700;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    assert_int_equal(redis_number("HGET lease:1 free"), 300);
    struct ai_task *task = next_task(0);
    assert_true(task->most == 700 && task->generation == 3);
    assert_int_equal(finish(task, 123, "x"), 0);
    hear_end(&client, "x");
    assert_int_equal(redis_number("HGET lease:1 free"), 877);
    /* A lease of another generation gets nothing back. */
    prepare(&client, 1, "p1", 10);
    client.order.most = 800;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    redis_text("HSET lease:1 gen 4 free 5");
    assert_int_equal(finish(next_task(1), 1, "x"), 0);
    hear_end(&client, "x");
    assert_int_equal(redis_number("HGET lease:1 free"), 5);
}

static void what_was_not_spent_comes_back(void **state)
{
    (void)state;
    run(check_money);
}

/* Pieces keep their order, and once one was delivered a call is not tried again. */
static void check_pieces(void)
{
    struct client client;
    const struct ai_message *message;
    prepare(&client, 1, "p1", 10);
    client.order.streamed = true;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    for (int i = 0; i < 5; i++) {
        char text[24];
        snprintf(text, sizeof text, "piece %d", i);
        assert_int_equal(ai_task_piece(task, str_from(text), i + 1), 0);
    }
    for (int i = 0; i < 5; i++) {
        char text[24];
        snprintf(text, sizeof text, "piece %d", i);
        assert_int_equal(ai_next(&client.call, &message, clock_in_ms(5000)), 0);
        assert_int_equal(message->said, AI_PIECE);
        assert_true(str_equal(message->payload, str_from(text)));
    }
    assert_int_equal(redis_number("HGET ai:call:%s o", client.id), 5);
    assert_int_equal(ai_task_again(task, &well, true), -ENOENT);
    assert_int_equal(finish(task, 0, "end"), 0);
    hear_end(&client, "end");
}

static void pieces_come_in_order(void **state)
{
    (void)state;
    run(check_pieces);
}

/* A provider that fails is left for the next one of the list, and after five failures in a row for a while by all. */
static void check_fallback(void)
{
    static const struct ai_learned failed = {.lesson = AI_LESSON_FAIL};
    struct client client;
    size_t came = 0;
    for (int i = 0; i < 5; i++) {
        prepare(&client, 1, "bad", 10);
        client.order.routes[1] = client.order.routes[0];
        client.order.routes[1].name = STR("good");
        client.order.route_count = 2;
        assert_int_equal(submit(&client), AI_ACCEPTED);
        struct ai_task *task = next_task(came++);
        assert_true(str_equal(task->provider, STR("bad")));
        assert_int_equal(ai_task_again(task, &failed, false), 0);
        ai_task_free(task);
        task = next_task(came++);
        assert_true(str_equal(task->provider, STR("good")) && task->try == 2 && task->route == 2);
        assert_int_equal(ai_task_again(task, &failed, false), -ENOENT);
        assert_int_equal(finish(task, 0, "x"), 0);
        hear_end(&client, "x");
    }
    prepare(&client, 1, "bad", 10);
    assert_int_equal(submit(&client), AI_OUT_OF_ORDER);
    buf_clear(&client.meta);
    /* A second later one call finds out, and closes the breaker. */
    enum ai_entry entry = AI_OUT_OF_ORDER;
    for (int i = 0; i < 300 && entry != AI_ACCEPTED; i++) {
        assert_int_equal(fiber_sleep_ms(10), 0);
        prepare(&client, 1, "bad", 10);
        entry = submit(&client);
        if (entry != AI_ACCEPTED)
            buf_clear(&client.meta);
    }
    assert_int_equal(entry, AI_ACCEPTED);
    struct client second;
    prepare(&second, 1, "bad", 10);
    assert_int_equal(submit(&second), AI_ACCEPTED);
    struct ai_task *probe = next_task(came++);
    assert_int_equal(fiber_sleep_ms(20), 0);
    assert_int_equal(task_count, came); /* one at a time */
    assert_int_equal(finish(probe, 0, "x"), 0);
    assert_int_equal(finish(next_task(came++), 0, "x"), 0);
    hear_end(&client, "x");
    hear_end(&second, "x");
}

static void a_provider_that_fails_is_left_alone(void **state)
{
    (void)state;
    run(check_fallback);
}

/* A worker that is gone: its calls run again, but not those of which something was delivered. */
static void check_taken_over(void)
{
    struct client clients[2];
    const struct ai_message *message;
    redis_text("SET ai:worker:other 10 PX 60000");
    redis_text("ZADD ai:workers -5 other");
    for (int i = 0; i < 2; i++) {
        prepare(&clients[i], 1, "p1", 10);
        clients[i].order.streamed = true;
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    assert_int_equal(task_count, 0);
    assert_int_equal(redis_number("HLEN ai:held:other"), 2);
    redis_text("HSET ai:call:%s e 1 o 3 h 10 j 1 v 2 n 1000", clients[1].id);
    redis_text("DEL ai:worker:other");
    struct ai_task *task = next_task(0);
    assert_true(str_equal(task->id, clients[0].order.id) && task->try == 2);
    assert_int_equal(finish(task, 0, "x"), 0);
    hear_end(&clients[0], "x");
    assert_int_equal(ai_next(&clients[1].call, &message, clock_in_ms(5000)), 0);
    assert_int_equal(message->said, AI_FAILED);
    assert_true(str_equal(message->rest, STR("worker_lost")));
    struct ai_end end;
    assert_int_equal(ai_ended_read(&arena, clients[1].order.id, &end), 0);
    assert_true(end.cost == 17 && end.status == AI_JOB_FAILED && end.completion_tokens == 3);
    ai_call_close(&clients[1].call);
    buf_clear(&clients[1].meta);
    assert_int_equal(redis_number("HGET ai:provider:p1 busy"), 0);
    UNTIL(recovered == 2); /* nobody has committed their ends: five seconds later they are found */
    assert_int_equal(redis_number("ZCARD ai:ended"), 0);
}

static void calls_of_a_dead_worker_are_taken_over(void **state)
{
    (void)state;
    run(check_taken_over);
}

/* A call that was pushed and did not arrive. */
static void check_lost_push(void)
{
    struct client client;
    prepare(&client, 1, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    struct str id = arena_str(&arena, task->id);
    ai_task_free(task);
    task = next_task(1);
    assert_true(str_equal(task->id, id) && task->try == 2);
    assert_int_equal(finish(task, 0, "x"), 0);
    hear_end(&client, "x");
}

static void a_push_that_is_lost_is_found_out(void **state)
{
    (void)state;
    run(check_lost_push);
}

/* Redis is emptied while a call runs: its answer comes all the same, and it is still the worker's to settle. */
static void check_emptied(void)
{
    struct client client;
    prepare(&client, 1, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    redis_text("FLUSHALL");
    assert_int_equal(finish(task, 0, "x"), 0);
    hear_end(&client, "x");
}

static void an_emptied_redis_loses_no_answer(void **state)
{
    (void)state;
    run(check_emptied);
}

/* One that waits for too long is ended where it waits, and its client is told. */
static void check_late(void)
{
    struct client clients[2];
    const struct ai_message *message;
    for (int i = 0; i < 2; i++) {
        prepare(&clients[i], 1, "p1", 1);
        clients[i].order.wait_ms = 300;
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    struct ai_task *task = next_task(0);
    assert_int_equal(ai_next(&clients[1].call, &message, clock_in_ms(5000)), 0);
    assert_int_equal(message->said, AI_FAILED);
    assert_true(str_equal(message->rest, STR("queue_timeout")));
    ai_call_close(&clients[1].call);
    buf_clear(&clients[1].meta);
    assert_int_equal(finish(task, 0, "x"), 0);
    hear_end(&clients[0], "x");
    assert_int_equal(task_count, 1);
}

static void who_waits_too_long_is_told(void **state)
{
    (void)state;
    run(check_late);
}

/* How seldom calls came before says nothing of how long one waits in line: after an idle hour a line is as good as ever. */
static void check_burst_after_idling(void)
{
    struct client clients[8];
    prepare(&clients[0], 1, "p1", 1);
    assert_int_equal(submit(&clients[0]), AI_ACCEPTED);
    redis_text("HSET ai:provider:p1 last 1000");
    assert_int_equal(finish(next_task(0), 0, "x"), 0);
    hear_end(&clients[0], "x");
    redis_text("HSET ai:provider:p1 last 1000");
    for (int i = 1; i < 8; i++) {
        prepare(&clients[i], 1, "p1", 1);
        clients[i].order.wait_ms = 10000;
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    assert_int_equal(state_of("p1", 10).waiting, 6);
    for (int i = 1; i < 8; i++) {
        assert_int_equal(finish(next_task((size_t)i), 0, "x"), 0);
        hear_end(&clients[i], "x");
    }
    prepare(&clients[0], 1, "p1", 1);
    assert_int_equal(submit(&clients[0]), AI_ACCEPTED);
    assert_int_equal(finish(next_task(8), 0, "x"), 0);
    hear_end(&clients[0], "x");
}

static void a_burst_after_an_idle_time_is_not_refused(void **state)
{
    (void)state;
    run(check_burst_after_idling);
}

/* A stream whose worker could not say how it ended: its place and its money come back, and its client hears of it. */
static void check_end_untold(void)
{
    struct client client;
    const struct ai_message *message;
    redis_text("HSET lease:1 gen 3 applied 1 free 1000");
    prepare(&client, 1, "p1", 10);
    client.order.streamed = true;
    client.order.most = 700;
    client.order.call_price = 10;
    client.order.token_price = 2;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    assert_int_equal(ai_task_piece(task, STR("piece"), 3), 0);
    ai_task_free(task);
    assert_int_equal(ai_next(&client.call, &message, clock_in_ms(5000)), 0);
    assert_int_equal(ai_next(&client.call, &message, clock_in_ms(5000)), 0);
    assert_int_equal(message->said, AI_FAILED);
    assert_true(str_equal(message->rest, STR("worker_lost")));
    ai_call_close(&client.call);
    buf_clear(&client.meta);
    assert_int_equal(redis_number("HGET ai:provider:p1 busy"), 0);
    assert_int_equal(redis_number("HGET lease:1 free"), 984);
}

static void an_end_that_was_not_told_frees_the_place(void **state)
{
    (void)state;
    run(check_end_untold);
}

/* Hashes that vanish, of a call that runs and of one that waits, leave no trace in the counters. */
static void check_vanished(void)
{
    struct client clients[3];
    for (int i = 0; i < 3; i++) {
        prepare(&clients[i], 1, i == 0 ? "p1" : "p2", 1);
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    ai_task_free(next_task(0));
    redis_text("DEL ai:call:%s", clients[0].id);
    redis_text("DEL ai:call:%s", clients[2].id);
    assert_int_equal(redis_number("HGET ai:provider:p2 queued"), 1);
    assert_int_equal(finish(next_task(1), 0, "x"), 0);
    hear_end(&clients[1], "x");
    assert_int_equal(redis_number("HGET ai:provider:p2 queued"), 0);
    assert_int_equal(redis_number("HGET ai:provider:p2 bytes"), 0);
    UNTIL(redis_number("HGET ai:provider:p1 busy") == 0);
    drop(&clients[0]);
    drop(&clients[2]);
}

static void calls_that_vanish_are_not_counted(void **state)
{
    (void)state;
    run(check_vanished);
}

/* Its time to wait has passed while it ran: placed again, it may wait once more. */
static void check_again_late(void)
{
    static const struct ai_learned failed = {.lesson = AI_LESSON_FAIL};
    struct client first;
    struct client second;
    prepare(&first, 1, "p2", 1);
    assert_int_equal(submit(&first), AI_ACCEPTED);
    prepare(&second, 1, "p1", 1);
    second.order.wait_ms = 1;
    second.order.routes[1] = first.order.routes[0];
    second.order.route_count = 2;
    assert_int_equal(submit(&second), AI_ACCEPTED);
    struct ai_task *task = next_task(1);
    UNTIL(redis_number("HGET ai:call:%s l", second.id) < clock_wall_ms());
    assert_int_equal(ai_task_again(task, &failed, false), 0);
    ai_task_free(task);
    assert_int_equal(finish(next_task(0), 0, "x"), 0);
    hear_end(&first, "x");
    assert_int_equal(finish(next_task(2), 0, "y"), 0);
    hear_end(&second, "y");
}

static void a_call_placed_again_has_time_again(void **state)
{
    (void)state;
    run(check_again_late);
}

/* A call from before the breaker opened runs on: another finds out all the same. */
static void check_probe(void)
{
    static const struct ai_learned failed = {.lesson = AI_LESSON_FAIL};
    struct client old;
    struct client client;
    prepare(&old, 1, "p1", 10);
    assert_int_equal(submit(&old), AI_ACCEPTED);
    for (size_t i = 0; i < 5; i++) {
        prepare(&client, 1, "p1", 10);
        assert_int_equal(submit(&client), AI_ACCEPTED);
        struct ai_task *task = next_task(1 + i);
        struct ai_end end = end_of(task, 0);
        assert_int_equal(ai_task_finish(task, &end, &failed, 200, STR("x")), 0);
        ai_task_free(task);
        hear_end(&client, "x");
    }
    UNTIL(redis_number("HGET ai:provider:p1 open") < clock_wall_ms());
    prepare(&client, 1, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    assert_int_equal(finish(next_task(6), 0, "x"), 0);
    hear_end(&client, "x");
    assert_int_equal(finish(next_task(0), 0, "x"), 0);
    hear_end(&old, "x");
}

static void a_long_call_does_not_keep_the_breaker_open(void **state)
{
    (void)state;
    run(check_probe);
}

/* The word that a client has left was lost: the next piece brings it again. */
static void check_left_unheard(void)
{
    struct client client;
    prepare(&client, 1, "p1", 10);
    client.order.streamed = true;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    drop(&client);
    assert_false(task->left);
    assert_int_equal(ai_task_piece(task, STR("piece"), 1), 0);
    UNTIL(task->left);
    struct ai_end end = end_of(task, 0);
    assert_int_equal(ai_task_finish(task, &end, &well, 499, STR("")), 0);
    ai_task_free(task);
}

static void pieces_that_nobody_wants_end_the_call(void **state)
{
    (void)state;
    run(check_left_unheard);
}

static void check_cancel_unheard(void)
{
    struct client client;
    prepare(&client, 1, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    struct ai_task *task = next_task(0);
    redis_text("HSET ai:call:%s x 1", client.id);
    redis_text("SADD ai:left:%s %s", ai_worker_name().at, client.id);
    UNTIL(task->left);
    assert_int_equal(finish(task, 0, "x"), 0);
    hear_end(&client, "x");
    UNTIL(redis_number("EXISTS ai:left:%s", ai_worker_name().at) == 0);
}

/* Redis knows that the client has left, and its word to the worker was lost: the next beat brings it. */
static void a_cancel_that_the_worker_missed_comes_with_its_beat(void **state)
{
    (void)state;
    run(check_cancel_unheard);
}

/* The connection is gone at that moment, and Redis has lost nothing. */
static void break_connection(void)
{
    struct redis_value reply;
    redis_send(redis_shared(),
               REDIS_ARGS(STR("CLIENT"), STR("KILL"), STR("TYPE"), STR("normal"), STR("SKIPME"), STR("no")));
    int result;
    do
        result = redis_call(redis_shared(), &reply, &arena, STR("PING"));
    while (result == 0);
}

static void check_cancel_lost(void)
{
    struct client clients[2];
    for (int i = 0; i < 2; i++) {
        prepare(&clients[i], 1, "p1", 1);
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    struct ai_task *task = next_task(0);
    break_connection();
    for (int i = 0; i < 2; i++) {
        ai_call_close(&clients[i].call);
        buf_clear(&clients[i].meta);
    }
    UNTIL(task->left);
    assert_int_equal(redis_number("HGET ai:provider:p1 queued"), 0);
    struct ai_end end = end_of(task, 0);
    assert_int_equal(ai_task_finish(task, &end, &well, 410, STR("")), 0);
    ai_task_free(task);
}

/* The client leaves while Redis is away: the call is stopped, or taken out of its line, once it is back. */
static void a_cancel_that_redis_missed_is_repeated(void **state)
{
    (void)state;
    run(check_cancel_lost);
}

/* Away, having lost nothing, for as long as nobody finds its socket. */
static void hide_redis(bool hidden)
{
    char path[160];
    char away[168];
    snprintf(path, sizeof path, "%s", services.redis_url + sizeof "unix://" - 1);
    path[strcspn(path, "?")] = '\0';
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(hidden ? rename(path, away) : rename(away, path), 0);
    if (hidden)
        break_connection();
}

static void check_end_while_away(void)
{
    struct client client;
    redis_text("HSET lease:1 gen 3 applied 1 free 1000");
    redis_text("SET spend:1:20260101 700");
    prepare(&client, 1, "p1", 10);
    client.order.most = 700;
    assert_int_equal(submit(&client), AI_ACCEPTED);
    redis_text("HSET ai:call:%s y 20260101", client.id);
    struct ai_task *task = next_task(0);
    struct str id = str_from(client.id);
    hide_redis(true);
    assert_int_equal(finish(task, 10, "x"), 0);
    ai_ended_forget(&id, 1); /* it is committed */
    hide_redis(false);
    hear_end(&client, "x");
    UNTIL(redis_number("EXISTS ai:call:%s", client.id) == 0);
    assert_int_equal(redis_number("HGET lease:1 free"), 990);
    assert_int_equal(redis_number("GET spend:1:20260101"), 10);
    assert_int_equal(redis_number("HGET ai:provider:p1 busy"), 0);
    assert_int_equal(redis_number("ZCARD ai:ended"), 0);
    assert_int_equal(task_count, 1); /* nobody was given it again */
}

/* A call ends while Redis is away for longer than that is waited for, and is settled: what it had reserved comes back with Redis. */
static void an_end_is_told_when_redis_is_back(void **state)
{
    (void)state;
    run(check_end_while_away);
}

static void assert_state(struct ai_state state, int64_t waiting, int64_t in_flight, int64_t cap,
                         enum ai_breaker breaker)
{
    assert_int_equal(state.waiting, waiting);
    assert_int_equal(state.in_flight, in_flight);
    assert_int_equal(state.cap, cap);
    assert_int_equal(state.breaker, breaker);
}

static void check_state(void)
{
    static const struct ai_learned failed = {.lesson = AI_LESSON_FAIL};
    struct client clients[3];
    assert_state(state_of("p1", 2), 0, 0, 2, AI_BREAKER_CLOSED);
    for (int i = 0; i < 3; i++) {
        prepare(&clients[i], 1, "p1", 2);
        assert_int_equal(submit(&clients[i]), AI_ACCEPTED);
    }
    assert_state(state_of("p1", 2), 1, 2, 2, AI_BREAKER_CLOSED);
    for (size_t i = 0; i < 3; i++) {
        struct ai_task *task = next_task(i);
        struct ai_end end = end_of(task, 0);
        assert_int_equal(ai_task_finish(task, &end, &failed, 502, STR("x")), 0);
        ai_task_free(task);
        drop(&clients[i]);
    }
    assert_state(state_of("p1", 2), 0, 0, 1, AI_BREAKER_CLOSED); /* has shrunk */
    redis_text("HSET ai:provider:p1 open %lld half 1", (long long)clock_wall_ms() + 60000);
    assert_int_equal(state_of("p1", 2).breaker, AI_BREAKER_OPEN);
    redis_text("HSET ai:provider:p1 open %lld", (long long)clock_wall_ms() - 1);
    assert_int_equal(state_of("p1", 2).breaker, AI_BREAKER_PROBING);
}

/* What operators are shown of a provider. */
static void a_provider_shows_its_state(void **state)
{
    (void)state;
    run(check_state);
}

/* However few calls it has, one that takes none does not stand in the way of those that do. */
static void check_full_worker(void)
{
    ai_worker_take(false);
    UNTIL(redis_number("ZRANK ai:workers %s", ai_worker_name().at) == 0 &&
          redis_number("ZSCORE ai:workers %s", ai_worker_name().at) >= 1000000);
    struct client client;
    prepare(&client, 1, "p1", 10);
    assert_int_equal(submit(&client), AI_ACCEPTED);
    assert_int_equal(redis_number("HGET ai:provider:p1 queued"), 1);
    ai_worker_take(true);
    assert_int_equal(finish(next_task(0), 0, "x"), 0);
    hear_end(&client, "x");
}

static void a_worker_that_takes_nothing_stands_last(void **state)
{
    (void)state;
    run(check_full_worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_goes_to_a_worker_and_back),
        cmocka_unit_test(tenants_take_turns),
        cmocka_unit_test(lines_are_bounded_for_all_and_for_each),
        cmocka_unit_test(a_client_that_leaves_ends_its_call),
        cmocka_unit_test(what_was_not_spent_comes_back),
        cmocka_unit_test(pieces_come_in_order),
        cmocka_unit_test(a_provider_that_fails_is_left_alone),
        cmocka_unit_test(calls_of_a_dead_worker_are_taken_over),
        cmocka_unit_test(a_push_that_is_lost_is_found_out),
        cmocka_unit_test(an_emptied_redis_loses_no_answer),
        cmocka_unit_test(who_waits_too_long_is_told),
        cmocka_unit_test(a_burst_after_an_idle_time_is_not_refused),
        cmocka_unit_test(an_end_that_was_not_told_frees_the_place),
        cmocka_unit_test(calls_that_vanish_are_not_counted),
        cmocka_unit_test(a_call_placed_again_has_time_again),
        cmocka_unit_test(a_long_call_does_not_keep_the_breaker_open),
        cmocka_unit_test(pieces_that_nobody_wants_end_the_call),
        cmocka_unit_test(a_cancel_that_the_worker_missed_comes_with_its_beat),
        cmocka_unit_test(a_cancel_that_redis_missed_is_repeated),
        cmocka_unit_test(an_end_is_told_when_redis_is_back),
        cmocka_unit_test(a_provider_shows_its_state),
        cmocka_unit_test(a_worker_that_takes_nothing_stands_last),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
