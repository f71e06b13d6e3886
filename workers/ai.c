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
#include "workers/ai.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crash.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/run/sync.h"
#include "workers/ai_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { SETTLE_MS = 10000, START_PAUSE_MS = 200 };

static struct {
    struct loop *loop;
    struct group fibers;
} ai;

static ai_provider_run *const runners[PROVIDER_KINDS] = {
    [PROVIDER_SANDBOX] = ai_sandbox_run,
    [PROVIDER_OPENAI] = ai_http_run,
    [PROVIDER_ANTHROPIC] = ai_http_run,
};

/* ---- what is sent on ---- */

int ai_run_send(struct ai_run *run)
{
    if (run->lines.size == 0)
        return 0;
    bool first = !run->task->begun;
    int result = ai_task_piece(run->task, buf_str(&run->lines), run->usage.completion_tokens);
    run->lines.size = 0;
    if (result)
        return result;
    run->delivers = true;
    if (first) {
        metric_observe_us(M_AI_FIRST_SECONDS, 0, (clock_now_ns() - run->started_ns) / 1000);
        CRASH_POINT("ai-first-piece");
    }
    return 0;
}

void ai_run_keep_text(struct ai_run *run, struct str text)
{
    if (run->text.size + text.size <= AI_TEXT_MAX)
        buf_add_str(&run->text, text);
}

/* ---- before ---- */

static const struct model_route *find_route(const struct model *model, struct str provider)
{
    for (size_t i = 0; model && i < model->route_count; i++)
        if (str_equal(provider, str_from(model->routes[i].provider->name)))
            return &model->routes[i];
    return NULL;
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
    return ai_job_start(run->end.id, ai_worker_name(), AI_DURABLE_LEASE_MS, &run->end.fence);
}

/* ---- after ---- */

/* What was delivered, and no more than was reserved. */
static money cost_of(const struct ai_run *run)
{
    if (!run->delivers || !run->model)
        return 0;
    money cost = run->end.meta.call_price + model_cost(run->model, &run->usage);
    return cost < run->task->most ? cost : run->task->most;
}

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
    end->cost = cost_of(run);
    end->prompt_tokens = run->delivers ? run->usage.prompt_tokens : 0;
    end->completion_tokens = run->delivers ? run->usage.completion_tokens : 0;
    end->ended_ms = clock_wall_ms();
    end->text = arena_str(&run->arena, buf_str(&run->text));
    end->provider = arena_str(&run->arena, run->task->provider);
    CRASH_POINT("ai-answered");
    int result = ai_task_finish(run->task, end, learned, status, payload);
    CRASH_POINT("ai-finished");
    ai_task_free(run->task);
    run->task = NULL;
    if (result == 0) {
        struct arena arena = run->arena;
        arena_init(&run->arena);
        count_end(run);
        ai_settle_take(&arena, end);
    }
    free_run(run);
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
    run->end.status = AI_JOB_FAILED;
    run->end.code = str_from(failure->code);
    run->end.message = arena_str(&run->arena, failure->message);
    struct str payload = arena_str(&run->arena, buf_str(&body));
    buf_clear(&body);
    finish(run, &learned, failure->status, payload);
}

static void end_left(struct ai_run *run)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    run->end.status = AI_CANCELLED;
    run->end.code = STR("cancelled");
    finish(run, &nothing, 499, STR(""));
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
    struct ai_failure failure;
    ai_failure_make(&failure, AI_FAULT_BROKEN, STR("the worker leaves"));
    failure.elsewhere = failure.health = false;
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
    run->delivers = true;
    run->end.status = AI_COMPLETED;
    if (run->streams) {
        finish(run, &learned, 200, buf_str(&run->lines));
        return;
    }
    run->end.answer = arena_str(&run->arena, answer);
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
    if (result == 0)
        end_whole(run, buf_str(&answer));
    else if (result == -ESTALE || run->task->stale)
        free_run(run);
    else if (run->task->left || result == -EPIPE)
        end_left(run);
    else if (result == -EPROTO)
        end_failed(run, &failure);
    else
        end_leaving(run);
    buf_clear(&answer);
}

static void run_call(void *arg)
{
    static const struct ai_learned nothing = {.lesson = AI_LESSON_NONE};
    struct ai_run *run = arg;
    int result = start_row(run);
    if (result == 0) {
        run_provider(run);
    } else if (result == -ENOENT) {
        end_ended(run);
    } else { /* PostgreSQL is away, or we leave: it stays at the head of the line */
        int slept = fiber_sleep_ms(START_PAUSE_MS);
        (void)slept;
        result = ai_task_again(run->task, &nothing, true);
        if (result)
            LOG(WARN, "an AI job could not be begun, and waits for its row to be due",
                LOG_STR("job", run->end.id));
        free_run(run);
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
    if (ai_meta_read(&run->arena, arena_str(&run->arena, task->meta), &run->end.meta)) {
        LOG(ERROR, "an AI call has no description that can be read", LOG_STR("job", task->id));
        free_run(run);
        return;
    }
    int64_t waited_ms = run->end.started_ms - run->end.meta.created_ms;
    metric_observe_us(M_AI_WAIT_SECONDS, 0, (uint64_t)(waited_ms > 0 ? waited_ms : 0) * 1000);
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

void ai_open(struct loop *loop)
{
    static const char *const outcomes[] = {"completed", "failed", "cancelled", "passed on"};
    for (unsigned i = 0; i < ARRAY_SIZE(outcomes); i++)
        metric_name_slot(M_AI_CALLS, i, outcomes[i]);
    const struct ai_worker_options options = {
        .room = config->ai_worker_calls,
        .run = on_task,
        .recover = ai_settle_recover,
    };
    ai.loop = loop;
    ai_settle_open(loop);
    ai_worker_open(loop, &options);
    ai_durable_open(loop);
}

void ai_drain(uint64_t deadline_ns)
{
    ai_durable_close();
    ai_worker_drain(deadline_ns);
    ai_worker_each(cancel_task, NULL);
    CHECK(group_wait(&ai.fibers, "AI calls that end", CLOCK_NEVER) == 0);
}

void ai_close(void)
{
    if (!ai.loop)
        return;
    ai_worker_close();
    ai_settle_close(clock_in_ms(SETTLE_MS));
    ai.loop = NULL;
}
