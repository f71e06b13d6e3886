/* The built-in provider: what it says is proto/ai/sandbox.h's, when it says it is decided here. */
#include "workers/ai/internal.h"

#include "core/base/crash.h"
#include "core/run/fiber.h"

#include <errno.h>

static int fail(struct ai_failure *failure, const struct sandbox_options *options)
{
    int64_t status = options->fail_status;
    ai_failure_make(failure,
                    status == 429   ? AI_FAULT_RATE
                    : status == 503 ? AI_FAULT_OVERLOAD
                    : status >= 500 ? AI_FAULT_SERVER
                                    : AI_FAULT_CLIENT,
                    STR("the sandbox was told to fail"));
    if (!failure->message.at)
        failure->message = STR("The sandbox was told to refuse");
    failure->upstream_status = (int)status;
    return -EPROTO;
}

/* It says nothing more, until it is given up. */
static int stall(struct ai_run *run, int64_t patience_ms, struct ai_failure *failure)
{
    uint64_t left_ms = ai_run_left_ms(run);
    int result = ai_run_send(run);
    if (result == 0)
        result = fiber_sleep_ms((uint64_t)patience_ms < left_ms ? (uint64_t)patience_ms : left_ms);
    if (result)
        return result;
    ai_failure_make(failure, AI_FAULT_TIMEOUT, STR("the sandbox was told to stall"));
    return -EPROTO;
}

static int stream(struct ai_run *run, const struct sandbox_options *options,
                  const struct sandbox_answer *answer, struct ai_failure *failure)
{
    struct str rest = answer->text;
    struct str piece;
    int result = 0;
    for (int64_t count = 0; result == 0 && sandbox_next_piece(&rest, &piece); count++) {
        if (count == options->stall_after)
            return stall(run, run->route->provider->idle_ms, failure);
        ai_chunk_from_text(&run->lines, &run->identity, count == 0, piece);
        buf_add_char(&run->lines, '\n');
        ai_run_keep_text(run, piece);
        run->usage.completion_tokens = count + 1;
        if (options->chunk_ms > 0 || run->lines.size >= AI_PIECE_BYTES)
            result = ai_run_send(run);
        if (result == 0 && options->chunk_ms > 0)
            result = fiber_sleep_ms((uint64_t)options->chunk_ms);
    }
    if (result)
        return result;
    ai_chunk_finish(&run->lines, &run->identity, answer->finish_reason);
    buf_add_char(&run->lines, '\n');
    if (run->identity.include_usage || run->end.meta.ends_with_usage) {
        ai_chunk_usage(&run->lines, &run->identity, &answer->usage);
        buf_add_char(&run->lines, '\n');
    }
    return 0;
}

int ai_sandbox_run(struct ai_run *run, struct buf *out, struct ai_failure *failure)
{
    struct sandbox_options options = run->route->provider->sandbox;
    struct sandbox_answer answer;
    sandbox_take_model(&options, str_from(run->route->upstream_model));
    if (run->request.choices > 1) {
        ai_failure_make(failure, AI_FAULT_CLIENT, STR_NONE);
        failure->message = STR("The sandbox answers with one choice only");
        failure->param = STR("n");
        return -EPROTO;
    }
    int result = options.delay_ms > 0 ? fiber_sleep_ms((uint64_t)options.delay_ms) : 0;
    if (result)
        return result;
    if (options.fail_status)
        return fail(failure, &options);
    CRASH_POINT("ai-called");
    sandbox_answer(&run->arena, &run->request, &options, run->end.meta.max_tokens, &answer);
    run->latency_ms = options.delay_ms;
    run->usage.prompt_tokens = answer.usage.prompt_tokens;
    if (run->streams)
        return stream(run, &options, &answer, failure);
    if (options.stall_after >= 0)
        return stall(run, run->route->provider->header_ms, failure);
    run->usage = answer.usage;
    ai_run_keep_text(run, answer.text);
    ai_answer_from_text(out, &run->identity, answer.text, answer.finish_reason, &answer.usage);
    return 0;
}
