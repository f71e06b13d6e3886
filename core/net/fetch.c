/*
 * HTTP calls from a fiber: whole answers and streams, on core/net/fetch_call.c, which knows what a request is for libcurl,
 * and core/net/fetch_loop.c, which runs libcurl on the loop.
 */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/net/fetch_call.h"

#include <errno.h>
#include <signal.h>

enum { STREAM_MAGIC = 0x66737472 };

struct fetch_stream {
    unsigned magic;
    struct fetch_call *call;
    struct fetch_answer answer;
    uint64_t ends_ns;
    bool over; /* the end has been read, with this */
    int result;
};

struct str fetch_header(const struct fetch_answer *answer, const char *name)
{
    for (size_t i = 0; i < answer->header_count; i++)
        if (str_equal_nocase(answer->headers[i].name, str_from(name)))
            return answer->headers[i].value;
    return STR_NONE;
}

static const struct {
    int result;
    const char *words;
} reasons[] = {
    {-ECONNREFUSED, "connection refused, or not answered in time"},
    {-ECONNABORTED, "connection closed without an answer"},
    {-ECONNRESET, "connection closed before the answer was complete"},
    {-ETIMEDOUT, "no answer in time"},
    {-EMSGSIZE, "answer too large"},
    {-EINVAL, "not a URL that can be fetched"},
    {-EHOSTUNREACH, "host name not found"},
    {-EACCES, "address not allowed"},
    {-EPROTO, "no TLS connection, or a certificate that is not the host's"},
    {-EIO, "not an HTTP answer"},
    {-ECANCELED, "given up"},
};

const char *fetch_reason(int result)
{
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].result == result)
            return reasons[i].words;
    return "unknown";
}

/* ---- whole answers ---- */

int fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer)
{
    struct fetch_call *call;
    *answer = (struct fetch_answer){0};
    int result = fetch_call_open(request, arena, &call);
    if (result)
        return result;
    if (request->header_timeout_ms)
        result = fetch_call_wait_head(call);
    if (result == 0)
        result = fetch_call_wait(call, "fetch", fetch_call_ends_ns(call));
    if (result == 0)
        result = fetch_call_result(call);
    if (result == 0) {
        fetch_call_head(call, arena, answer);
        answer->body = arena_str(arena, buf_str(&call->body));
    }
    fetch_call_times(call, &answer->times);
    fetch_call_close(call);
    return result;
}

/* ---- streams ---- */

int fetch_open(const struct fetch_request *request, struct arena *arena, struct fetch_stream **opened)
{
    struct fetch_call *call;
    *opened = NULL;
    int result = fetch_call_open(request, arena, &call);
    if (result)
        return result;
    call->window = request->window_bytes ? request->window_bytes : FETCH_WINDOW;
    result = fetch_call_wait_head(call);
    if (result == 0 && !call->head_done)
        result = fetch_call_result(call);
    if (result) {
        fetch_call_close(call);
        return result;
    }
    call->wakes = true;
    struct fetch_stream *stream = arena_zalloc(arena, sizeof *stream);
    MAGIC_SET(stream, STREAM_MAGIC);
    stream->call = call;
    stream->ends_ns = fetch_call_ends_ns(call);
    fetch_call_head(call, arena, &stream->answer);
    *opened = stream;
    return 0;
}

const struct fetch_answer *fetch_stream_answer(struct fetch_stream *stream)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    fetch_call_times(stream->call, &stream->answer.times);
    return &stream->answer;
}

int fetch_stream_status(const struct fetch_stream *stream)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    return stream->answer.status;
}

struct str fetch_stream_header(const struct fetch_stream *stream, const char *name)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    return fetch_header(&stream->answer, name);
}

/* What came, to the reader; what the reader had takes what comes next. */
static void stream_give(struct fetch_stream *stream, struct str *piece)
{
    struct fetch_call *call = stream->call;
    struct buf read = call->given;
    call->given = call->body;
    call->body = read;
    *piece = buf_str(&call->given);
    if (call->transfer.paused)
        fetch_transfer_resume(&call->transfer);
}

static int stream_end(struct fetch_stream *stream)
{
    if (!stream->over) {
        stream->over = true;
        stream->result = fetch_call_result(stream->call);
        stream->answer.truncated = stream->call->refused == FETCH_CUT;
    }
    return stream->result;
}

int fetch_read(struct fetch_stream *stream, struct str *piece, uint64_t deadline_ns)
{
    MAGIC_CHECK(stream, STREAM_MAGIC);
    struct fetch_call *call = stream->call;
    *piece = STR("");
    call->given.size = 0;
    /* An answer that comes without a pause would never meet a wait. */
    if (fiber_canceled())
        return -ECANCELED;
    if (!call->transfer.ended && clock_now_ns() >= stream->ends_ns)
        return -ETIMEDOUT;
    uint64_t until_ns = deadline_ns < stream->ends_ns ? deadline_ns : stream->ends_ns;
    while (call->body.size == 0 && !call->transfer.ended) {
        int result = fetch_call_wait(call, "fetch_read", until_ns);
        if (result)
            return result;
    }
    if (call->body.size == 0)
        return stream_end(stream);
    stream_give(stream, piece);
    return 0;
}

void fetch_end(struct fetch_stream *stream)
{
    if (!stream)
        return;
    MAGIC_CHECK(stream, STREAM_MAGIC);
    fetch_call_close(stream->call);
    MAGIC_CLEAR(stream);
}

/* ---- loops and processes ---- */

void fetch_close_loop(struct loop *loop)
{
    struct fetch_client *client = loop->slots[LOOP_FETCH];
    if (!client)
        return;
    fetch_calls_clear(client);
    fetch_client_close(client);
}

void fetch_init(void)
{
    /* TLS writes to a socket that its peer has closed. */
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    fetch_calls_init();
    /* Otherwise looking up a name would stop the loop. */
    CHECK(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS);
}
