/*
 * AI calls: a fiber for each. It finds model and provider in the catalogue as it is now, lets the provider's kind do the rest, and ends
 * the call in one of these ways:
 *
 *   an answer                          200, charged
 *   a failure, nothing was delivered   to the model's next provider; where there is none, the client gets the error, for nothing
 *   a failure in the middle            the stream ends with the error, what was delivered is charged
 *   the client has left                the provider is left at once, what was delivered is charged
 *   another worker has it              nothing
 */
#include "workers/ai/ai.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/ai/order.h"
#include "core/run/sync.h"
#include "workers/ai/internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
    SETTLE_MS = 10000,
    START_PAUSE_MS = 200,
    SEND_FOR_MS =
        2500, /* a piece is sent again for so long: Redis, or who listens, may be about to come back */
    SEND_PAUSE_MS = 100,
    GONE = 410
};

static struct {
    struct loop *loop;
    struct group fibers;
    struct group openings;
    struct fiber *opening; /* NULL: it has ended */
    bool opened;
} ai;

static ai_provider_run *const runners[PROVIDER_KINDS] = {
    [PROVIDER_SANDBOX] = ai_sandbox_run,
    [PROVIDER_OPENAI] = ai_http_run,
    [PROVIDER_ANTHROPIC] = ai_http_run,
};

/* ---- what is sent on ---- */

/* What is sent twice counts once: pieces are numbered. */
static int send_piece(struct ai_run *run)
{
    uint64_t until_ns = clock_in_ms(SEND_FOR_MS);
    for (;;) {
        int result = ai_task_piece(run->task, buf_str(&run->lines), run->usage.completion_tokens);
        if (result == 0 || result == -ECANCELED || result == -ESTALE || clock_now_ns() >= until_ns)
            return result;
        if (fiber_sleep_ms(SEND_PAUSE_MS))
            return -ECANCELED;
    }
}

static void count_first(const struct ai_run *run)
{
    metric_observe_us(M_AI_FIRST_SECONDS, 0, (clock_now_ns() - run->started_ns) / 1000);
}

int ai_run_send(struct ai_run *run)
{
    if (run->lines.size == 0)
        return 0;
    bool first = !run->task->begun;
    int result = send_piece(run);
    if (result)
        return result;
    run->lines.size = 0;
    run->delivers = true;
    run->sent_text = run->text.size;
    run->sent_usage = run->usage;
    if (first) {
        count_first(run);
        CRASH_POINT("ai-first-piece");
    }
    return 0;
}

/* Cut off between two characters. */
void ai_run_keep_text(struct ai_run *run, struct str text)
{
    size_t room = AI_TEXT_MAX - run->text.size;
    if (text.size > room)
        for (text.size = room; text.size > 0 && (text.at[text.size] & 0xc0) == 0x80;)
            text.size--;
    buf_add_str(&run->text, text);
}

uint64_t ai_run_left_ms(const struct ai_run *run)
{
    uint64_t now_ns = clock_now_ns();
    return now_ns + CLOCK_MS < run->deadline_ns ? (run->deadline_ns - now_ns) / CLOCK_MS : 1;
}

/* ---- before ---- */

static const struct model_route *find_route(const struct model *model, struct str provider)
{
    for (size_t i = 0; model && i < model->route_count; i++)
        if (str_equal(provider, str_from(model->routes[i].provider->name)))
            return &model->routes[i];
    return NULL;
}

/* Its time is the provider's, but it is over before its money may be given back (core/domain/money/lease.h), wherever it was spent:
 * in line, or with a worker or a Redis that was lost. False: it is over already. */
static bool set_deadline(struct ai_run *run)
{
    int64_t spent_ms = run->end.started_ms - run->end.meta.created_ms;
    int64_t left_ms = config->ai_call_s * 1000 - AI_CALL_MARGIN_MS - spent_ms;
    int64_t total_ms = run->route->provider->total_ms;
    total_ms = total_ms < left_ms ? total_ms : left_ms;
    run->deadline_ns = clock_in_ms(total_ms > 0 ? (uint64_t)total_ms : 1);
    return left_ms > 0;
}

static void fail_late(struct ai_failure *failure)
{
    ai_failure_make(failure, AI_FAULT_TIMEOUT, STR("its time was over before it began"));
    failure->elsewhere = failure->health = false;
    failure->code = "queue_timeout";
    failure->message = STR(AI_TOO_LATE_MESSAGE);
}

static int read_call(struct ai_run *run, struct ai_failure *failure)
{
    struct ai_task *task = run->task;
    struct ai_refusal refusal = {.message = STR_NONE};
    struct ai_meta *meta = &run->end.meta;
    run->catalogue = catalogue_ref();
    run->model = catalogue_model(run->catalogue, meta->model);
    run->route = find_route(run->model, task->provider);
    if (!run->route) {
        ai_failure_make(failure, AI_FAULT_MODEL, STR("it is no longer in the catalogue"));
        return -EPROTO;
    }
    if (!set_deadline(run)) {
        fail_late(failure);
        return -EPROTO;
    }
    if (ai_request_parse(&run->arena, meta->kind, task->body, &run->request, &refusal)) {
        ai_failure_make(failure, AI_FAULT_CLIENT, STR_NONE);
        failure->message = refusal.message;
        failure->param = refusal.param;
        return -EPROTO;
    }
    run->streams = task->streamed && task->channel.at;
    run->identity = (struct ai_identity){
        .kind = meta->kind,
        .id = run->end.id,
        .model = meta->model,
        .created_s = meta->created_ms / 1000,
        .choices = run->request.choices,
        .prompt_tokens = run->request.prompt_tokens,
        .secret = str_from(run->route->provider->api_key),
        .include_usage = meta->wants_usage,
    };
    return 0;
}

/* A durable one becomes this worker's row. -ENOENT: it has ended. */
static int start_row(struct ai_run *run)
{
    if (!run->task->durable)
        return 0;
    fiber_hold(); /* who cancels it wants it to end as a call of ours */
    int result = ai_job_start(run->end.id, ai_worker_name(), AI_DURABLE_LEASE_MS, &run->end.fence);
    fiber_release();
    return result;
}

/* ---- after ---- */

static struct ai_learned lesson_of(const struct ai_run *run, const struct ai_failure *failure)
{
    struct ai_learned learned = {.latency_ms = run->latency_ms};
    if (!failure) {
        learned.lesson = run->pause_ms > 0 ? AI_LESSON_RATE : AI_LESSON_OK;
        learned.retry_ms = run->pause_ms;
    } else if (failure->health || failure->fault == AI_FAULT_QUOTA) {
        learned.lesson = failure->fault == AI_FAULT_RATE ? AI_LESSON_RATE : AI_LESSON_FAIL;
        learned.retry_ms = failure->retry_after_ms > 0 ? failure->retry_after_ms : 0;
    }
    return learned;
}

static void free_run(struct ai_run *run)
{
    if (run->task)
        ai_task_free(run->task);
    ai_http_close(run);
    catalogue_unref(run->catalogue);
    buf_clear(&run->lines);
    buf_clear(&run->text);
    arena_clear(&run->arena);
    free(run);
}

static void count_end(const struct ai_run *run)
{
    const struct ai_end *end = &run->end;
    unsigned slot = end->status == AI_COMPLETED ? 0 : end->status == AI_JOB_FAILED ? 1 : 2;
    metric_add_slot(M_AI_CALLS, slot, 1);
    metric_observe_us(M_AI_SECONDS, 0, (clock_now_ns() - run->started_ns) / 1000);
    metric_add(M_AI_TOKENS, end->completion_tokens);
}

/* The last word. What is ours to settle goes on to be. */
static void finish(struct ai_run *run, const struct ai_learned *learned, int status, struct str payload)
{
    struct ai_end *end = &run->end;
    end->cost =
        run->delivers && run->model ? ai_order_cost(&end->meta, run->model, &run->usage, run->task->most) : 0;
    end->prompt_tokens = run->delivers ? run->usage.prompt_tokens : 0;
    end->completion_tokens = run->delivers ? run->usage.completion_tokens : 0;
    end->ended_ms = clock_wall_ms();
    end->text = run->delivers ? buf_str(&run->text) : STR_NONE;
    end->provider = run->task->provider;
    CRASH_POINT("ai-answered");
    int result = ai_task_finish(run->task, end, learned, status, payload);
    CRASH_POINT("ai-finished");
    if (result == 0) {
        count_end(run);
        ai_settle_take(end);
    }
    free_run(run);
}

/* The call ends before its answer does: what was not sent on does not count. */
static void drop_unsent(struct ai_run *run)
{
    run->usage = run->sent_usage;
    run->text.size = run->sent_text;
}

static void log_failure(const struct ai_run *run, const struct ai_failure *failure, const char *what)
{
    LOG(WARN, what, LOG_STR("job", run->end.id), LOG_STR("provider", run->task->provider),
        LOG_TEXT("code", failure->code), LOG_INT("status", failure->upstream_status),
        LOG_STR("detail", failure->detail));
}

static void end_failed(struct ai_run *run, const struct ai_failure *failure)
{
    struct ai_learned learned = lesson_of(run, failure);
    if (!run->delivers && failure->elsewhere) {
        int result = ai_task_again(run->task, &learned, false);
        if (result == 0) {
            log_failure(run, failure, "an AI call goes to the next provider");
            metric_add_slot(M_AI_CALLS, 3, 1);
        }
        if (result != -ENOENT) {
            free_run(run);
            return;
        }
    }
    if (failure->health)
        log_failure(run, failure, "a provider has failed");
    struct buf body = {0};
    ai_put_error(&body, failure);
    drop_unsent(run);
    run->end.status = AI_JOB_FAILED;
    run->end.code = str_from(failure->code);
    run->end.message = failure->message;
    finish(run, &learned, failure->status, buf_str(&body));
    buf_clear(&body);
}

/* Whoever cancelled it by its id may not be who waits for it. */
static void end_left(struct ai_run *run)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    static const struct ai_failure cancelled = {.status = GONE,
                                                .type = "invalid_request_error",
                                                .code = "cancelled",
                                                .message = {"The call was cancelled", 22}};
    struct buf body = {0};
    ai_put_error(&body, &cancelled);
    drop_unsent(run);
    run->end.status = AI_CANCELLED;
    run->end.code = str_from(cancelled.code);
    run->end.message = cancelled.message;
    finish(run, &nothing, cancelled.status, buf_str(&body));
    buf_clear(&body);
}

/* This worker leaves: others may do it, unless something was delivered. */
static void end_leaving(struct ai_run *run)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    int result = run->delivers ? -ENOENT : ai_task_again(run->task, &nothing, true);
    if (result != -ENOENT) {
        free_run(run);
        return;
    }
    if (run->task->left) {
        end_left(run);
        return;
    }
    if (run->task->durable && !run->delivers) { /* Redis does not know it, or is away: its row will be due */
        free_run(run);
        return;
    }
    struct ai_failure failure;
    ai_failure_make(&failure, AI_FAULT_BROKEN, STR("the worker leaves"));
    failure.elsewhere = failure.health = false;
    failure.message = STR("The gateway is restarting");
    end_failed(run, &failure);
}

/* The row of a durable one has ended, as when it was cancelled: what Redis has of it goes. */
static void end_ended(struct ai_run *run)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    run->end.status = AI_CANCELLED;
    run->end.ended_ms = clock_wall_ms();
    if (ai_task_finish(run->task, &run->end, &nothing, 410, STR("")) == 0)
        ai_ended_forget(&run->end.id, 1);
    free_run(run);
}

static void end_whole(struct ai_run *run, struct str answer)
{
    struct ai_learned learned = lesson_of(run, NULL);
    if (run->streams && !run->delivers)
        count_first(run);
    run->delivers = true;
    run->end.status = AI_COMPLETED;
    if (run->streams) {
        finish(run, &learned, 200, buf_str(&run->lines));
        return;
    }
    run->end.answer = answer;
    finish(run, &learned, 200, run->end.answer);
}

/* ---- a call ---- */

static void run_provider(struct ai_run *run)
{
    struct ai_failure failure;
    struct buf answer = {0};
    int result = read_call(run, &failure);
    if (result == 0) {
        CRASH_POINT("ai-claimed");
        result = runners[run->route->provider->kind](run, &answer, &failure);
    }
    fiber_hold(); /* it has come to its end, and that is told */
    if (result == -ESTALE || run->task->stale)
        free_run(run);
    else if (run->task->left || result == -EPIPE)
        end_left(run);
    else if (result == 0)
        end_whole(run, buf_str(&answer));
    else if (result == -EPROTO)
        end_failed(run, &failure);
    else
        end_leaving(run);
    fiber_release();
    buf_clear(&answer);
}

/* Nobody can say what it is: it ends as it is, for nothing. */
static void end_unreadable(struct ai_run *run)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    LOG(ERROR, "an AI call has no description that can be read", LOG_STR("job", run->end.id));
    run->end.status = AI_JOB_FAILED;
    run->end.code = STR("internal_error");
    run->end.ended_ms = clock_wall_ms();
    if (ai_task_finish(run->task, &run->end, &nothing, 500, STR("{}")) == 0)
        ai_ended_forget(&run->end.id, 1);
    free_run(run);
}

static int read_meta(struct ai_run *run)
{
    int result = ai_meta_read(&run->arena, run->task->meta, &run->end.meta);
    int64_t waited_ms = run->end.started_ms - run->end.meta.created_ms;
    metric_observe_us(M_AI_WAIT_SECONDS, 0, (uint64_t)(waited_ms > 0 ? waited_ms : 0) * 1000);
    return result;
}

static void run_call(void *arg)
{
    struct ai_run *run = arg;
    int result = read_meta(run) ? -EINVAL : start_row(run);
    if (result == 0) {
        run_provider(run);
    } else if (result == -EINVAL) {
        end_unreadable(run);
    } else if (result == -ENOENT) {
        end_ended(run);
    } else if (run->task->left) {
        run->end.fence = -1; /* nobody else will begin it */
        end_left(run);
    } else { /* PostgreSQL is away, or we leave: it stays at the head of the line */
        int slept = fiber_sleep_ms(START_PAUSE_MS);
        (void)slept;
        end_leaving(run);
    }
    metric_add(M_AI_RUNNING, -1);
    group_done(&ai.fibers);
}

static void on_task(struct ai_task *task)
{
    struct ai_run *run = mem_zalloc(sizeof *run);
    arena_init(&run->arena);
    run->task = task;
    run->started_ns = clock_now_ns();
    run->end = (struct ai_end){
        .id = arena_str(&run->arena, task->id),
        .account_id = task->account_id,
        .generation = task->generation,
        .started_ms = clock_wall_ms(),
        .streamed = task->streamed,
    };
    metric_add(M_AI_RUNNING, 1);
    group_add(&ai.fibers);
    task->fiber = fiber_start(ai.loop, "AI call", run_call, run);
}

/* ---- all of them ---- */

static void cancel_task(struct ai_task *task, void *unused)
{
    (void)unused;
    if (task->fiber)
        fiber_cancel(task->fiber);
}

/* Who does not know any provider yet would say of every call that there is none for it. */
static void run_opening(void *unused)
{
    (void)unused;
    const struct ai_worker_options options = {
        .room = config->ai_worker_calls,
        .run = on_task,
        .recover = ai_settle_recover,
    };
    if (catalogue_wait(CLOCK_NEVER) == 0) {
        ai_worker_open(ai.loop, &options);
        ai_durable_open(ai.loop);
        ai_watch_open(ai.loop);
        ai.opened = true;
    }
    ai.opening = NULL;
    group_done(&ai.openings);
}

void ai_open(struct loop *loop)
{
    static const char *const outcomes[] = {"completed", "failed", "cancelled", "passed on"};
    for (unsigned i = 0; i < ARRAY_SIZE(outcomes); i++)
        metric_name_slot(M_AI_CALLS, i, outcomes[i]);
    ai.loop = loop;
    ai.opened = false;
    ai_settle_open(loop);
    group_add(&ai.openings);
    ai.opening = fiber_start(loop, "AI calls begin", run_opening, NULL);
}

void ai_drain(uint64_t deadline_ns)
{
    if (ai.opening)
        fiber_cancel(ai.opening);
    CHECK(group_wait(&ai.openings, "AI calls to begin", CLOCK_NEVER) == 0);
    if (ai.opened) {
        ai_durable_close();
        ai_watch_close();
        ai_worker_drain(deadline_ns);
        ai_worker_each(cancel_task, NULL);
    }
    CHECK(group_wait(&ai.fibers, "AI calls that end", CLOCK_NEVER) == 0);
}

void ai_close(void)
{
    if (!ai.loop)
        return;
    if (ai.opened)
        ai_worker_close();
    ai_settle_close(clock_in_ms(SETTLE_MS));
    ai.loop = NULL;
}
