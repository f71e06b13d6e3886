/*
 * AI calls whose answer comes as server-sent events, as OpenAI's API sends them: a chunk for each, and "[DONE]" at the end.
 *
 * The head is sent with the first chunk, so that until then an error has its own status; a client that waits for longer than
 * AI_HEAD_SECONDS is shown that it is not forgotten, at the price that all that follows comes under status 200. From then on an
 * error is an event with an error object, and no "[DONE]" follows.
 *
 * What the cache of answers is to get is put together again from the chunks as they pass (proto/ai/openai_gather.h).
 *
 * With an Idempotency-Key the events are kept, to be given again as they were, if they are no more than STREAM_KEEP_MAX.
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/ai/cache.h"
#include "core/gate/live.h"
#include "core/net/stream.h"
#include "handlers/inference/call.h"
#include "proto/ai/openai_gather.h"
#include "proto/sse.h"

#include <errno.h>

enum { STREAM_KEEP_MAX = 1024 * 1024 };

struct answer {
    struct call *call;
    struct sse sse;
    struct buf kept;
    struct openai_gathering *gathering; /* NULL: the cache gets nothing */
    uint64_t head_ns;                   /* when the head must be sent */
    bool begun;
    bool keeps;
    bool whole; /* it came to its end */
};

static void begin(struct answer *answer)
{
    if (answer->begun)
        return;
    answer->begun = true;
    sse_begin(&answer->sse, answer->call->request);
}

/* Sends events, and the head before them. 0; -ECANCELED: the client is gone, or as good as gone. */
static int send_events(struct answer *answer, struct str events)
{
    begin(answer);
    if (answer->keeps && answer->kept.size + events.size <= STREAM_KEEP_MAX)
        buf_add_str(&answer->kept, events);
    else
        answer->keeps = false;
    return sse_write(&answer->sse, events) ? -ECANCELED : 0;
}

/* A chunk a line, each of which is one event. */
static void put_chunks(const struct answer *answer, struct buf *events, struct str lines)
{
    struct str line;
    while (lines.size && str_split(&lines, '\n', &line)) {
        bool is_usage = line.size && answer->gathering && openai_gather_add(answer->gathering, line);
        if (line.size && !(is_usage && !answer->call->ai.include_usage))
            sse_put_event(events, STR_NONE, STR_NONE, line);
    }
}

static int send_chunks(struct answer *answer, struct str lines, bool last)
{
    struct buf events = stream_spare_take();
    put_chunks(answer, &events, lines);
    if (last)
        sse_put_event(&events, STR_NONE, STR_NONE, AI_DONE);
    int result = events.size ? send_events(answer, buf_str(&events)) : 0;
    stream_spare_give(&events);
    return result;
}

/* ---- ends ---- */

/* In the middle of an answer. `body` is an error as it would be one. Nothing follows. */
static void send_error(struct answer *answer, struct str body)
{
    struct buf events = stream_spare_take();
    if (body.size && body.at[body.size - 1] == '\n')
        body.size--; /* a body's own; it would be a line of data */
    sse_put_event(&events, STR_NONE, STR_NONE, body);
    int result = send_events(answer, buf_str(&events));
    (void)result; /* it has left */
    stream_spare_give(&events);
}

static void send_api_error(struct answer *answer, enum api_error error)
{
    const struct api_error_row *row = &api_errors[error];
    struct request *request = answer->call->request;
    struct buf body = stream_spare_take();
    request->why = row->code;
    request->surface->render_error(&body, row->status, row->code, row->message);
    send_error(answer, buf_str(&body));
    stream_spare_give(&body);
}

static void fail(struct answer *answer, enum api_error error)
{
    if (answer->begun)
        send_api_error(answer, error);
    else
        call_reply_void(answer->call, error, NULL, 1);
}

static void keep(const struct answer *answer)
{
    struct buf body = {0};
    if (answer->gathering && openai_gather_answer(answer->gathering, &body))
        call_keep(answer->call, buf_str(&body));
    buf_clear(&body);
}

static void finish(struct answer *answer, const struct ai_message *message)
{
    int status = message->said == AI_END ? call_status(message) : 0;
    if (message->said == AI_FAILED) {
        fail(answer, call_error_of(message->rest));
    } else if (status < 400) {
        answer->whole = send_chunks(answer, message->payload, true) == 0;
        keep(answer);
    } else if (answer->begun && message->payload.size == 0) {
        send_api_error(answer, call_error_of_status(status));
    } else if (answer->begun) {
        answer->call->request->why = "provider_error";
        send_error(answer, message->payload);
    } else {
        call_reply(answer->call, status, message->payload);
    }
}

static void give_up(struct answer *answer, int result)
{
    switch (result) {
    case -ETIME: fail(answer, ERROR_QUEUE_TIMEOUT); break;
    case -ETIMEDOUT: fail(answer, ERROR_CALL_TIMEOUT); break;
    case -EPIPE:
        if (answer->begun)
            send_api_error(answer, ERROR_CALL_LOST);
        else
            call_reply_lost(answer->call);
        break;
    case -ESHUTDOWN: fail(answer, ERROR_SERVER_ENDS); break;
    default: /* the client has left */
        if (!answer->begun)
            reply_failure(answer->call->request, result);
    }
}

/* ---- the way ---- */

static uint64_t next_comment_ns(const struct answer *answer)
{
    return answer->begun ? sse_comment_ns(&answer->sse) : answer->head_ns;
}

static int show_life(struct answer *answer)
{
    begin(answer);
    return sse_comment(&answer->sse) ? -ECANCELED : 0;
}

/* Passes on until the last message, which is *message then. */
static int pass_on(struct answer *answer, const struct ai_message **message)
{
    struct call *call = answer->call;
    for (;;) {
        uint64_t comment_ns = next_comment_ns(answer);
        bool comment_first = comment_ns < call->until_ns;
        int result = call_next(call, message, comment_first ? comment_ns : call->until_ns);
        if (result == -ETIMEDOUT && comment_first) {
            result = show_life(answer);
        } else if (result == 0) {
            if ((*message)->said != AI_PIECE)
                return 0;
            call->line_until_ns = CLOCK_NEVER;
            result = send_chunks(answer, (*message)->payload, false);
            ai_taken(&call->heard);
        }
        if (result)
            return result;
    }
}

static struct openai_gathering *gather(const struct call *call)
{
    const struct ai_identity identity = {
        .kind = call->meta.kind,
        .id = call->order.id,
        .model = call->meta.model,
        .created_s = call->meta.created_ms / 1000,
        .choices = call->ai.choices,
    };
    return call->caches ? openai_gather_new(&identity, AI_CACHE_BYTES_MAX) : NULL;
}

void call_stream(struct call *call)
{
    struct answer answer = {
        .call = call,
        .head_ns = clock_in_ms((uint64_t)config->ai_head_s * 1000),
        .keeps = call->request->idempotency != NULL,
    };
    const struct ai_message *message;
    if (!call_submit(call))
        return;
    answer.gathering = gather(call);
    int result = pass_on(&answer, &message);
    if (result)
        give_up(&answer, result);
    else
        finish(&answer, message);
    if (result == -ETIME)
        ai_call_leave(&call->heard);
    else
        ai_call_close(&call->heard);
    if (answer.whole && answer.keeps)
        (void)gate_repeat_keep(call->request, 200, buf_str(&answer.kept));
    if (answer.begun)
        sse_end(&answer.sse);
    openai_gather_free(answer.gathering);
    buf_clear(&answer.kept);
}
