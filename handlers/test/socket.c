/* WebSockets for tests: an echo, and a broadcast over all loops of the process. */
#include "handlers/test/test.h"

#include "core/gate/live.h"
#include "core/net/fanout.h"

#include <pthread.h>
#include <stdlib.h>

enum { ECHO_MAX = 64 << 20, LOOPS_MAX = 256 };

/* ---- echo ---- */

static void echo(struct ws *ws, bool text, struct str payload)
{
    ws_send(ws, text, payload);
}

static void forget(struct ws *ws, int code)
{
    (void)ws;
    (void)code;
}

/* GET /test/websocket */
void test_websocket(struct request *request)
{
    static const struct ws_events events = {.message = echo, .closed = forget};
    const struct ws_options options = {.events = &events, .message_max = ECHO_MAX};
    struct ws *ws = gate_websocket(request, &options);
    (void)ws; /* it lives on by itself */
}

/* ---- broadcast ---- */

static struct {
    pthread_mutex_t mutex;
    struct loop *loops[LOOPS_MAX];
    size_t count;
} hub = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static long subscribers;

void test_open_loop(struct loop *loop)
{
    loop->slots[LOOP_TEST] = fanout_open(loop);
    pthread_mutex_lock(&hub.mutex);
    CHECK(hub.count < LOOPS_MAX);
    hub.loops[hub.count++] = loop;
    pthread_mutex_unlock(&hub.mutex);
}

void test_close_loop(struct loop *loop)
{
    pthread_mutex_lock(&hub.mutex);
    for (size_t i = 0; i < hub.count; i++)
        if (hub.loops[i] == loop)
            hub.loops[i] = hub.loops[--hub.count];
    pthread_mutex_unlock(&hub.mutex);
    if (loop->slots[LOOP_TEST])
        fanout_close(loop->slots[LOOP_TEST]);
    loop->slots[LOOP_TEST] = NULL;
}

static void ignore(struct ws *ws, bool text, struct str payload)
{
    (void)ws;
    (void)text;
    (void)payload;
}

static void leave(struct ws *ws, int code)
{
    (void)code;
    struct fanout_member *member = ws_owner(ws);
    fanout_leave(member);
    __atomic_sub_fetch(&subscribers, 1, __ATOMIC_RELAXED);
    free(member);
}

/* GET /test/broadcast */
void test_subscribe(struct request *request)
{
    static const struct ws_events events = {.message = ignore, .closed = leave};
    struct fanout_member *member = mem_zalloc(sizeof *member);
    const struct ws_options options = {.events = &events, .owner = member};
    struct ws *ws = gate_websocket(request, &options);
    if (!ws) {
        free(member);
        return;
    }
    __atomic_add_fetch(&subscribers, 1, __ATOMIC_RELAXED);
    fanout_join(loop_self()->slots[LOOP_TEST], member, ws, FANOUT_ALL);
}

static void send_here(void *arg)
{
    struct buf *text = arg;
    struct fanout *fanout = loop_self()->slots[LOOP_TEST];
    if (fanout)
        fanout_send(fanout, true, buf_str(text), FANOUT_ALL);
    buf_clear(text);
    free(text);
}

/* POST /test/broadcast */
void test_broadcast(struct request *request)
{
    struct str body;
    if (http_body(request->http, 1 << 20, &body)) {
        reply_error(request, ERROR_BODY_TOO_LARGE, NULL);
        return;
    }
    pthread_mutex_lock(&hub.mutex);
    for (size_t i = 0; i < hub.count; i++) {
        struct buf *copy = mem_zalloc(sizeof *copy);
        buf_add_str(copy, body);
        loop_post(hub.loops[i], send_here, copy);
    }
    pthread_mutex_unlock(&hub.mutex);
    struct reply reply;
    reply_begin(&reply, request);
    json_put_int(&reply.json, "subscribers", __atomic_load_n(&subscribers, __ATOMIC_RELAXED));
    reply_end(&reply, 200);
}
