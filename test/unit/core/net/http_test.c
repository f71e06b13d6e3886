/*
 * The HTTP server as its clients meet it: a loop in a thread, raw blocking sockets against it. Targets choose what
 * the handler does.
 */
#include "core/net/http_internal.h"
#include "core/net/stream_internal.h"

#include "core/base/check.h"
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#if !defined(__SANITIZE_ADDRESS__)
#include <malloc.h>
#endif

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
/* Of sanitizer/allocator_interface.h, which gcc has not. */
extern size_t __sanitizer_get_current_allocated_bytes(void);
#endif

enum { CLIENT_TIMEOUT_S = 20, STREAM_PIECE = 16384, BIG = 8 << 20 };

/* ---- the server and its handlers ---- */

static struct {
    pthread_t thread;
    struct loop loop;
    struct http_server *server;
    uv_sem_t ready;
    struct wait stop;
    uint64_t drain_ms;
    size_t max_connections;
    int port;
    bool running;
    struct wait *gate; /* of the handler that waits at it */
    struct http_request *at_gate;
    char big[BIG];
} at;

static _Atomic int handled;
static _Atomic int ended;
static _Atomic int canceled;
static _Atomic int last_result; /* of the wait or write that a handler gave up on */
static _Atomic int waiting;     /* handlers at the gate */
static _Atomic size_t most_queued;

static void answer_text(struct http_request *request, int status, const char *text)
{
    http_add_header(request, STR("Content-Type"), STR("text/plain"));
    http_answer(request, status, str_from(text));
}

static void say_hello(struct http_request *request)
{
    answer_text(request, 200, "hello");
}

/* Answers with its own target, so that the order of answers shows. */
static void say_target(struct http_request *request)
{
    http_answer(request, 200, request->head->target);
}

static int pass_gate(struct http_request *request)
{
    struct wait wait = WAIT_INIT;
    at.gate = &wait;
    at.at_gate = request;
    waiting++;
    int result = wait_for(&wait, "the gate", CLOCK_NEVER);
    waiting--;
    at.gate = NULL;
    at.at_gate = NULL;
    return result;
}

static void wait_at_gate(struct http_request *request)
{
    int result = pass_gate(request);
    last_result = result;
    if (result)
        canceled++;
    else
        answer_text(request, 200, "released");
}

static void wait_at_gate_held(struct http_request *request)
{
    fiber_hold();
    int result = pass_gate(request);
    fiber_release();
    last_result = result;
    answer_text(request, 200, "done");
}

static void sleep_a_little(struct http_request *request)
{
    if (fiber_sleep_ms(5) == 0)
        say_target(request);
}

static void answer_body(struct http_request *request, size_t max_bytes)
{
    struct str body;
    int result = http_body(request, max_bytes, &body);
    last_result = result;
    switch (result) {
    case 0: http_answer(request, 200, body); return;
    case -EMSGSIZE: answer_text(request, 413, "too large"); return;
    case -ETIMEDOUT: answer_text(request, 408, "too slow"); return;
    case -EBADMSG: answer_text(request, 400, "broken"); return;
    default: canceled++;
    }
}

static void echo(struct http_request *request)
{
    answer_body(request, BIG);
}

static void echo_little(struct http_request *request)
{
    answer_body(request, 1000);
}

static void echo_nothing(struct http_request *request)
{
    answer_body(request, 0);
}

static void echo_late(struct http_request *request)
{
    if (pass_gate(request) == 0)
        answer_body(request, BIG);
}

static void answer_big(struct http_request *request)
{
    http_answer(request, 200, str_of(at.big, BIG));
}

/* "/size/N": N bytes. */
static void answer_size(struct http_request *request)
{
    struct str target = request->head->target;
    uint64_t size = 0;
    CHECK(str_to_u64(str_of(target.at + 6, target.size - 6), &size) && size <= BIG);
    http_answer(request, 200, str_of(at.big, (size_t)size));
}

static void stream_three(struct http_request *request)
{
    http_stream_begin(request, 200);
    const char *const pieces[] = {"one", "", "two", "three"};
    for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
        if (http_stream_write(request, str_from(pieces[i])) || fiber_sleep_ms(1))
            return;
    http_stream_end(request);
}

static void stream_cut_short(struct http_request *request)
{
    http_stream_begin(request, 200);
    (void)!http_stream_write(request, STR("one"));
}

static void stream_for_ever(struct http_request *request)
{
    http_stream_begin(request, 200);
    int result;
    while ((result = http_stream_write(request, str_of(at.big, STREAM_PIECE))) == 0) {
        size_t queued = conn_queued(request->conn);
        if (queued > most_queued)
            most_queued = queued;
        if (fiber_canceled())
            break;
    }
    last_result = result;
    canceled++;
}

static void answer_nothing(struct http_request *request)
{
    (void)request;
}

static const struct {
    const char *target;
    void (*handle)(struct http_request *request);
} handlers[] = {
    {"/hello", say_hello},
    {"/gate", wait_at_gate},
    {"/gate-held", wait_at_gate_held},
    {"/echo", echo},
    {"/echo-little", echo_little},
    {"/echo-nothing", echo_nothing},
    {"/echo-late", echo_late},
    {"/big", answer_big},
    {"/stream", stream_three},
    {"/stream-cut", stream_cut_short},
    {"/stream-ever", stream_for_ever},
    {"/nothing", answer_nothing},
};

static void handle(struct http_request *request)
{
    handled++;
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++)
        if (str_equal(request->head->target, str_from(handlers[i].target))) {
            handlers[i].handle(request);
            return;
        }
    if (str_starts(request->head->target, STR("/sleep")))
        sleep_a_little(request);
    else if (str_starts(request->head->target, STR("/size/")))
        answer_size(request);
    else
        say_target(request);
}

static void on_ended(struct http_request *request)
{
    assert_int_not_equal(request->status, 0);
    ended++;
}

static void on_malformed(struct http_request *request, int status, const char *reason)
{
    http_answer(request, status, str_from(arena_printf(&request->arena, "{\"error\":\"%s\"}", reason)));
}

static void server_task(void *unused)
{
    (void)unused;
    const struct http_server_options options = {
        .address = "127.0.0.1",
        .max_connections = at.max_connections,
        .handle = handle,
        .ended = on_ended,
        .malformed = on_malformed,
    };
    CHECK(http_server_open(&at.loop, &options, &at.server) == 0);
    at.port = http_server_port(at.server);
    uv_sem_post(&at.ready);
    CHECK(wait_for(&at.stop, "stop", CLOCK_NEVER) == 0);
    http_server_drain(at.server, clock_in_ms(at.drain_ms));
    http_server_close(at.server);
}

static void *server_thread(void *unused)
{
    (void)unused;
    loop_open(&at.loop, 0);
    fiber_main(&at.loop, "test", server_task, NULL);
    stream_close_loop(&at.loop);
    loop_close(&at.loop);
    return NULL;
}

static void set(const char *name, const char *value)
{
    char error[128];
    if (config_set(name, value, error, sizeof error) != 0)
        fail_msg("%s", error);
}

/* Settings stand at their defaults before each test, which starts the server itself after changing some. */
static int setup(void **state)
{
    (void)state;
    char error[256];
    assert_int_equal(config_load(NULL, error, sizeof error), 0);
    handled = ended = canceled = last_result = waiting = 0;
    most_queued = 0;
    at.max_connections = 5000;
    at.drain_ms = 10000;
    at.stop = WAIT_INIT;
    return 0;
}

static void start(void)
{
    assert_int_equal(uv_sem_init(&at.ready, 0), 0);
    assert_int_equal(pthread_create(&at.thread, NULL, server_thread, NULL), 0);
    uv_sem_wait(&at.ready);
    at.running = true;
}

static void do_stop(void *unused)
{
    (void)unused;
    wait_done(&at.stop, 0);
}

static void begin_stop(uint64_t drain_ms)
{
    at.drain_ms = drain_ms;
    loop_post(&at.loop, do_stop, NULL);
}

static void end_stop(void)
{
    pthread_join(at.thread, NULL);
    uv_sem_destroy(&at.ready);
    at.running = false;
}

/* Every test ends with a drain that finds nothing in its way, and an empty loop. */
static int teardown(void **state)
{
    (void)state;
    if (at.running) {
        begin_stop(10000);
        end_stop();
    }
    config_clear();
    return 0;
}

struct called {
    void (*run)(void *arg);
    void *arg;
    uv_sem_t done;
};

static void on_call(void *arg)
{
    struct called *called = arg;
    called->run(called->arg);
    uv_sem_post(&called->done);
}

/* Runs it on the server's loop and waits until it has run. */
static void on_loop(void (*run)(void *arg), void *arg)
{
    struct called called = {.run = run, .arg = arg};
    assert_int_equal(uv_sem_init(&called.done, 0), 0);
    loop_post(&at.loop, on_call, &called);
    uv_sem_wait(&called.done);
    uv_sem_destroy(&called.done);
}

static void do_open_gate(void *unused)
{
    (void)unused;
    CHECK(at.gate != NULL);
    wait_done(at.gate, 0);
}

static void count_connections(void *out)
{
    *(size_t *)out = at.server->conn_count;
}

static size_t connections(void)
{
    size_t count;
    on_loop(count_connections, &count);
    return count;
}

static void read_body_size(void *out)
{
    *(size_t *)out = at.at_gate ? at.at_gate->body.size : 0;
}

static void pause_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

#define EVENTUALLY(condition)                                                                                \
    do {                                                                                                     \
        uint64_t give_up = clock_in_ms(CLIENT_TIMEOUT_S * 1000);                                             \
        while (!(condition)) {                                                                               \
            if (clock_now_ns() > give_up)                                                                    \
                fail_msg("never: %s", #condition);                                                           \
            pause_ms(2);                                                                                     \
        }                                                                                                    \
    } while (0)

/* ---- the client ---- */

struct client {
    int socket;
    struct buf in; /* read, not yet looked at */
    int reads;
};

struct answer {
    int status;
    char head[4096];
    struct buf body;
};

static void set_timeouts(int descriptor)
{
    struct timeval limit = {.tv_sec = CLIENT_TIMEOUT_S};
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static int try_connect(int receive_bytes)
{
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(descriptor >= 0);
    set_timeouts(descriptor);
    if (receive_bytes)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)at.port)};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(descriptor, (struct sockaddr *)&where, sizeof where) == 0)
        return descriptor;
    int result = -errno;
    close(descriptor);
    return result;
}

static struct client client_open(void)
{
    struct client client = {.socket = try_connect(0)};
    assert_true(client.socket >= 0);
    return client;
}

static void client_close(struct client *client)
{
    close(client->socket);
    buf_clear(&client->in);
}

static void client_send(struct client *client, const void *bytes, size_t size)
{
    const char *next = bytes;
    while (size) {
        ssize_t sent = send(client->socket, next, size, MSG_NOSIGNAL);
        if (sent < 0)
            fail_msg("send: %s", strerror(errno));
        next += sent;
        size -= (size_t)sent;
    }
}

static void client_say(struct client *client, const char *text)
{
    client_send(client, text, strlen(text));
}

static void client_get(struct client *client, const char *target)
{
    char request[256];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    client_say(client, request);
}

/* Reads some more; 0 at the end, a negative errno when the server broke off. */
static ssize_t client_more(struct client *client)
{
    ssize_t count = recv(client->socket, buf_reserve(&client->in, 262144), 262144, 0);
    if (count < 0)
        return -errno;
    client->in.size += (size_t)count;
    client->reads++;
    return count;
}

static void client_need(struct client *client, size_t size)
{
    while (client->in.size < size) {
        ssize_t count = client_more(client);
        if (count <= 0)
            fail_msg("the server ended after %zu of %zu bytes: %s", client->in.size, size,
                     count ? strerror((int)-count) : "end of stream");
    }
}

static void assert_ended(struct client *client)
{
    assert_int_equal(client->in.size, 0);
    ssize_t count = client_more(client);
    if (count > 0)
        fail_msg("not the end: %.*s", (int)count, client->in.at);
    if (count < 0)
        fail_msg("not a clean end: %s", strerror((int)-count));
}

/* Ended, cleanly or not. */
static void assert_gone(struct client *client)
{
    ssize_t count;
    while ((count = client_more(client)) > 0)
        client->in.size = 0;
    assert_int_not_equal(count, -EAGAIN);
}

static size_t line_from(struct client *client, size_t from)
{
    for (size_t i = from;; i++) {
        client_need(client, i + 2);
        if (client->in.at[i] == '\r' && client->in.at[i + 1] == '\n')
            return i;
    }
}

static void read_chunks(struct client *client, struct buf *body)
{
    for (;;) {
        size_t end = line_from(client, 0);
        size_t size = strtoul(client->in.at, NULL, 16);
        buf_consume(&client->in, end + 2);
        client_need(client, size + 2);
        buf_add(body, client->in.at, size);
        assert_memory_equal(client->in.at + size, "\r\n", 2);
        buf_consume(&client->in, size + 2);
        if (size == 0)
            return;
    }
}

/* One answer; `has_body` is false after HEAD. */
static void read_answer(struct client *client, struct answer *answer, bool has_body)
{
    *answer = (struct answer){0};
    size_t end = 0;
    while ((end = line_from(client, end)) + 4 > client->in.size ||
           memcmp(client->in.at + end, "\r\n\r\n", 4) != 0) {
        client_need(client, end + 4);
        if (memcmp(client->in.at + end, "\r\n\r\n", 4) == 0)
            break;
        end += 2;
    }
    assert_true(end + 3 < sizeof answer->head);
    memcpy(answer->head, client->in.at, end + 2);
    buf_consume(&client->in, end + 4);
    assert_int_equal(sscanf(answer->head, "HTTP/1.1 %d ", &answer->status), 1);
    const char *length = strstr(answer->head, "\r\nContent-Length: ");
    if (!has_body || answer->status == 100 || answer->status == 204)
        return;
    if (strstr(answer->head, "\r\nTransfer-Encoding: chunked\r\n")) {
        assert_null(length);
        read_chunks(client, &answer->body);
    } else if (length) {
        size_t size = strtoul(length + strlen("\r\nContent-Length: "), NULL, 10);
        client_need(client, size);
        buf_add(&answer->body, client->in.at, size);
        buf_consume(&client->in, size);
    } else {
        while (client_more(client) > 0)
            continue;
        buf_add(&answer->body, client->in.at, client->in.size);
        client->in.size = 0;
    }
}

static bool says_close(const struct answer *answer)
{
    return strstr(answer->head, "\r\nConnection: close\r\n") != NULL;
}

static void expect(struct client *client, int status, const char *body)
{
    struct answer answer;
    read_answer(client, &answer, true);
    if (answer.status != status || answer.body.size != strlen(body) ||
        memcmp(body, answer.body.size ? answer.body.at : "", answer.body.size) != 0)
        fail_msg("wanted %d \"%s\", got %d \"%.*s\"", status, body, answer.status,
                 STR_ARG(buf_str(&answer.body)));
    buf_clear(&answer.body);
}

/* ---- answers ---- */

static void a_connection_is_kept_for_more_requests(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    for (int i = 0; i < 3; i++) {
        client_get(&client, "/hello");
        struct answer answer;
        read_answer(&client, &answer, true);
        assert_int_equal(answer.status, 200);
        assert_false(says_close(&answer));
        assert_non_null(strstr(answer.head, "\r\nDate: "));
        assert_non_null(strstr(answer.head, "\r\nContent-Type: text/plain\r\n"));
        buf_clear(&answer.body);
    }
    client_say(&client, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    struct answer last;
    read_answer(&client, &last, true);
    assert_true(says_close(&last));
    buf_clear(&last.body);
    assert_ended(&client);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(handled, 4);
    assert_int_equal(ended, 4);
}

static void send_pipeline(struct client *client, const char *prefix, int count)
{
    struct buf requests = {0};
    for (int i = 0; i < count; i++)
        buf_printf(&requests, "GET %s%d HTTP/1.1\r\nHost: a\r\n\r\n", prefix, i);
    client_send(client, requests.at, requests.size);
    buf_clear(&requests);
}

static void expect_pipeline(struct client *client, const char *prefix, int count)
{
    for (int i = 0; i < count; i++) {
        char target[64];
        snprintf(target, sizeof target, "%s%d", prefix, i);
        expect(client, 200, target);
    }
}

static void pipelined_requests_are_answered_in_order_in_one_write(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    send_pipeline(&client, "/", 16);
    expect_pipeline(&client, "/", 16);
    assert_int_equal(client.in.size, 0);
    assert_int_equal(client.reads, 1);
    client_close(&client);
}

static void pipelined_requests_wait_for_the_one_before(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    send_pipeline(&client, "/sleep", 16);
    expect_pipeline(&client, "/sleep", 16);
    client_get(&client, "/gate");
    send_pipeline(&client, "/", 3000); /* more than is kept while one runs */
    EVENTUALLY(waiting == 1);
    assert_int_equal(handled, 17);
    on_loop(do_open_gate, NULL);
    expect(&client, 200, "released");
    expect_pipeline(&client, "/", 3000);
    client_close(&client);
}

static void head_and_old_clients_get_what_they_understand(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    struct answer answer;
    client_say(&client, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    read_answer(&client, &answer, false);
    assert_non_null(strstr(answer.head, "\r\nContent-Length: 5\r\n"));
    client_say(&client, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    read_answer(&client, &answer, false);
    assert_int_equal(answer.status, 200);
    client_say(&client, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    read_answer(&client, &answer, true);
    assert_non_null(strstr(answer.head, "\r\nConnection: keep-alive\r\n"));
    buf_clear(&answer.body);
    client_say(&client, "GET /hello HTTP/1.0\r\n\r\n");
    read_answer(&client, &answer, true);
    assert_true(says_close(&answer));
    assert_int_equal(answer.body.size, 5);
    buf_clear(&answer.body);
    assert_ended(&client);
    client_close(&client);
}

static void a_stream_is_chunked_or_runs_to_the_end(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    struct answer answer;
    client_get(&client, "/stream");
    read_answer(&client, &answer, true);
    assert_non_null(strstr(answer.head, "chunked"));
    assert_int_equal(answer.body.size, 11);
    assert_memory_equal(answer.body.at, "onetwothree", 11);
    buf_clear(&answer.body);
    client_get(&client, "/hello"); /* the connection goes on */
    expect(&client, 200, "hello");
    client_say(&client, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    read_answer(&client, &answer, true);
    assert_null(strstr(answer.head, "chunked"));
    assert_true(says_close(&answer));
    assert_int_equal(answer.body.size, 11);
    buf_clear(&answer.body);
    client_close(&client);
    /* One that the handler left without an end must not look whole. */
    client = client_open();
    client_get(&client, "/stream-cut");
    while (client_more(&client) > 0)
        continue;
    buf_add_char(&client.in, '\0');
    assert_non_null(strstr(client.in.at, "3\r\none\r\n"));
    assert_null(strstr(client.in.at, "0\r\n\r\n"));
    client_close(&client);
}

static void a_handler_without_an_answer_is_a_500(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_get(&client, "/nothing");
    expect(&client, 500, "");
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    client_close(&client);
}

/* ---- bodies ---- */

static void post(struct client *client, const char *target, const char *field, const char *body, size_t size)
{
    char head[256];
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\n%sContent-Length: %zu\r\n\r\n", target, field,
             size);
    client_say(client, head);
    client_send(client, body, size);
}

static void expect_big(struct client *client, size_t size)
{
    struct answer answer;
    read_answer(client, &answer, true);
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body.size, size);
    assert_memory_equal(answer.body.at, at.big, size);
    buf_clear(&answer.body);
}

static void bodies_come_whole_whatever_their_size(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    const size_t sizes[] = {0, 1, SMALL_BODY, SMALL_BODY + 1, STREAM_READ_SIZE, 1 << 20};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        post(&client, "/echo", "", at.big, sizes[i]);
        expect_big(&client, sizes[i]);
    }
    client_say(&client, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 64; i++) {
        client_say(&client, "4000\r\n");
        client_send(&client, at.big + i * 0x4000, 0x4000);
        client_say(&client, "\r\n");
    }
    client_say(&client, "0\r\nX: dropped\r\n\r\n");
    expect_big(&client, 1 << 20);
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    client_close(&client);
}

/* A pipelined request behind a body in the same segment. */
static void what_follows_a_body_is_the_next_request(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_say(&client,
               "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
               "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n"
               "\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(&client, 200, "abc");
    expect(&client, 200, "def");
    expect(&client, 200, "hello");
    client_close(&client);
}

/* What came before the handler asked is given to it; what it could not take meanwhile, too. */
static void a_body_may_come_before_the_handler_asks_for_it(void **state)
{
    (void)state;
    set("BODY_TIMEOUT_SECONDS", "1");
    start();
    struct client client = client_open();
    post(&client, "/echo-late", "", at.big, 420000);
    size_t there = 0;
    while (there < 256 * 1024) {
        on_loop(read_body_size, &there);
        pause_ms(2);
    }
    /* The client is not at fault while it is us who don't take its bytes. */
    pause_ms(1600);
    on_loop(do_open_gate, NULL);
    expect_big(&client, 420000);
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    client_close(&client);
}

static void a_body_too_large_is_refused_before_it_is_kept(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_say(&client, "POST /echo-little HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    struct answer answer;
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 413);
    assert_true(says_close(&answer));
    buf_clear(&answer.body);
    assert_ended(&client);
    client_close(&client);
    client = client_open();
    client_say(&client, "POST /echo-little HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n");
    client_send(&client, at.big, 1000);
    client_say(&client, "\r\n1\r\nx\r\n");
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 413);
    assert_true(says_close(&answer));
    buf_clear(&answer.body);
    assert_ended(&client);
    client_close(&client);
    client = client_open(); /* one that is small enough to be there already leaves the connection usable */
    post(&client, "/echo-little", "", at.big, 1001);
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 413);
    buf_clear(&answer.body);
    client_close(&client);
    client = client_open();
    client_say(&client,
               "POST /echo-nothing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    expect(&client, 413, "too large");
    assert_ended(&client);
    client_close(&client);
}

static void expect_continue_is_answered_when_the_body_is_wanted(void **state)
{
    (void)state;
    set("BODY_TIMEOUT_SECONDS", "1");
    start();
    struct client client = client_open();
    client_say(&client,
               "POST /echo-late HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    EVENTUALLY(waiting == 1);
    pause_ms(1600); /* the client waits for us: no time of its own runs */
    assert_int_equal(recv(client.socket, at.big, 1, MSG_DONTWAIT), -1);
    on_loop(do_open_gate, NULL);
    expect(&client, 100, "");
    client_say(&client, "abc");
    expect(&client, 200, "abc");
    client_say(
        &client,
        "POST /echo-little HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3000\r\n\r\n");
    expect(&client, 413, "too large");
    assert_ended(&client);
    client_close(&client);
    client = client_open(); /* one that does not wait for it */
    client_say(&client,
               "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    struct answer answer;
    read_answer(&client, &answer, true);
    if (answer.status == 100)
        read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 200);
    buf_clear(&answer.body);
    client_close(&client);
}

static void a_broken_body_ends_the_connection_with_an_answer(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_say(&client,
               "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
    expect(&client, 400, "broken");
    assert_ended(&client);
    client_close(&client);
}

/* The answer comes through although the client keeps on sending what nobody reads. */
static void an_early_answer_reaches_a_client_that_still_sends(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    post(&client, "/hello", "", at.big, 4 << 20);
    expect(&client, 200, "hello");
    assert_ended(&client);
    client_close(&client);
}

/* ---- malformed ---- */

static void malformed_requests_get_the_error_body_and_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status;
    } rows[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405},
        {"\x16\x03\x01\x02\x01\x01", 400},
        {"nonsense\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    };
    start();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct client client = client_open();
        client_get(&client, "/hello");
        client_say(&client, rows[i].bytes);
        client_get(&client, "/hello"); /* must not be looked at */
        expect(&client, 200, "hello");
        struct answer answer;
        read_answer(&client, &answer, true);
        assert_int_equal(answer.status, rows[i].status);
        assert_true(says_close(&answer));
        assert_true(str_starts(buf_str(&answer.body), STR("{\"error\":\"")));
        buf_clear(&answer.body);
        assert_ended(&client);
        client_close(&client);
    }
    assert_int_equal(handled, ARRAY_SIZE(rows));
    struct client client = client_open();
    client_say(&client, "GET /");
    client_send(&client, at.big, 10000);
    client_say(&client, " HTTP/1.1\r\n");
    struct answer answer;
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 414);
    buf_clear(&answer.body);
    client_close(&client);
}

/* An upgrade that is not ours is ignored; no request comes out of nothing behind it. */
static void an_upgrade_is_ignored(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_say(&client, "GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
                        "GET /two HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(&client, 200, "/one");
    expect(&client, 200, "/two");
    assert_int_equal(handled, 2);
    client_close(&client);
}

/* ---- time ---- */

static void a_slow_header_is_a_408(void **state)
{
    (void)state;
    set("HEADER_TIMEOUT_SECONDS", "1");
    start();
    struct client silent = client_open();
    struct client client = client_open();
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    client_say(&client, "GET / HTTP/1.1\r\nHos");
    struct answer answer;
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 408);
    assert_true(says_close(&answer));
    buf_clear(&answer.body);
    assert_ended(&client);
    client_close(&client);
    assert_ended(&silent); /* it never said anything: nothing is said to it */
    client_close(&silent);
}

static void a_body_that_stalls_is_given_up(void **state)
{
    (void)state;
    set("BODY_TIMEOUT_SECONDS", "1");
    start();
    struct client client = client_open();
    post(&client, "/echo", "", at.big, 0);
    expect(&client, 200, "");
    client_say(&client, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\nabc");
    expect(&client, 408, "too slow");
    assert_int_equal(last_result, -ETIMEDOUT);
    assert_ended(&client);
    client_close(&client);
    client = client_open(); /* so small that the handler does not start before it is there */
    client_say(&client, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc");
    struct answer answer;
    read_answer(&client, &answer, true);
    assert_int_equal(answer.status, 408);
    buf_clear(&answer.body);
    client_close(&client);
}

static void an_idle_connection_is_closed(void **state)
{
    (void)state;
    set("KEEPALIVE_TIMEOUT_SECONDS", "1");
    start();
    struct client client = client_open();
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    uint64_t before = clock_now_ns();
    client_say(&client, "\r\n"); /* no request: it neither begins one nor buys time */
    assert_ended(&client);
    uint64_t took = clock_now_ns() - before;
    assert_true(took > 700 * CLOCK_MS && took < 10 * CLOCK_SECOND);
    client_close(&client);
}

static void a_handler_has_its_time(void **state)
{
    (void)state;
    set("REQUEST_TIMEOUT_SECONDS", "1");
    start();
    struct client client = client_open();
    client_get(&client, "/gate");
    expect(&client, 500, "");
    assert_int_equal(last_result, -ECANCELED);
    client_close(&client);
}

/* ---- slow readers ---- */

static void a_reader_that_stalls_holds_bounded_memory_and_is_closed(void **state)
{
    (void)state;
    set("WRITE_TIMEOUT_SECONDS", "1");
    start();
    struct client client = {.socket = try_connect(4096)};
    client_get(&client, "/stream-ever");
    EVENTUALLY(canceled == 1);
    assert_int_equal(last_result, -ECANCELED);
    assert_true(most_queued >= (size_t)config->queue_bytes / 2);
    assert_true(most_queued <= (size_t)config->queue_bytes + STREAM_PIECE + 64);
    EVENTUALLY(connections() == 0);
    assert_gone(&client);
    client_close(&client);
}

static void a_slow_reader_that_goes_on_gets_everything(void **state)
{
    (void)state;
    set("WRITE_TIMEOUT_SECONDS", "1");
    set("KEEPALIVE_TIMEOUT_SECONDS", "1");
    start();
    struct client client = {.socket = try_connect(65536)};
    client_get(&client, "/big");
    uint64_t before = clock_now_ns();
    size_t total = 0;
    while (total < BIG) {
        char piece[65536];
        ssize_t count = recv(client.socket, piece, sizeof piece, 0);
        if (count <= 0)
            fail_msg("ended after %zu bytes", total);
        total += (size_t)count;
        pause_ms(count / 2500); /* 2.5 MB a second: 3 s in all */
    }
    assert_true(clock_now_ns() - before > 2 * CLOCK_SECOND);
    client_close(&client);
}

/* Requests behind a large answer wait until it is taken, and are then answered. */
static void requests_behind_a_large_answer_are_answered(void **state)
{
    (void)state;
    start();
    struct client client = {.socket = try_connect(65536)};
    for (int i = 0; i < 3; i++)
        client_get(&client, "/big");
    client_get(&client, "/hello");
    EVENTUALLY(handled >= 1);
    assert_true(handled < 3);
    for (int i = 0; i < 3; i++)
        expect_big(&client, BIG);
    expect(&client, 200, "hello");
    client_close(&client);
}

/* ---- clients that leave ---- */

static void a_client_that_leaves_cancels_its_handler(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_get(&client, "/gate");
    EVENTUALLY(waiting == 1);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(canceled, 1);
    assert_int_equal(last_result, -ECANCELED);
    client = client_open(); /* by a reset */
    client_get(&client, "/gate");
    EVENTUALLY(waiting == 1);
    struct linger at_once = {.l_onoff = 1};
    setsockopt(client.socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(canceled, 2);
    client = client_open(); /* in the middle of a body */
    client_say(&client, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\nabc");
    EVENTUALLY(handled == 3);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(canceled, 3);
    client = client_open(); /* of a stream */
    client_get(&client, "/stream-ever");
    assert_true(client_more(&client) > 0);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(canceled, 4);
    client = client_open(); /* of a head */
    client_say(&client, "GET / HT");
    EVENTUALLY(connections() == 1);
    client_close(&client);
    EVENTUALLY(connections() == 0);
    assert_int_equal(ended, 4);
}

/* The connection's memory is the handler's as long as it runs. */
static void a_handler_that_holds_outlives_its_client(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_get(&client, "/gate-held");
    client_get(&client, "/hello");
    EVENTUALLY(waiting == 1);
    struct linger at_once = {.l_onoff = 1};
    setsockopt(client.socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    client_close(&client);
    client = client_open(); /* by the time it is served the other's end was noticed */
    client_get(&client, "/hello");
    expect(&client, 200, "hello");
    assert_int_equal(connections(), 2);
    on_loop(do_open_gate, NULL);
    EVENTUALLY(connections() == 1);
    assert_int_equal(last_result, 0);
    assert_int_equal(ended, 2);
    client_close(&client);
}

/* One that has closed its side, but still reads, gets what could be answered at once, all of it. */
static void a_half_closed_client_gets_what_was_answered(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_say(&client,
               "GET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /par");
    shutdown(client.socket, SHUT_WR);
    expect(&client, 200, "hello");
    expect(&client, 200, "hello");
    assert_ended(&client);
    client_close(&client);
    /* Of some of these little, of others much is left when the kernel has taken what it does at once. */
    for (size_t size = 400000; size <= BIG; size += 200000) {
        client = (struct client){.socket = try_connect(65536)};
        char target[64];
        snprintf(target, sizeof target, "/size/%zu", size);
        int before = ended;
        client_get(&client, target);
        shutdown(client.socket, SHUT_WR);
        EVENTUALLY(ended > before);
        pause_ms(5); /* for the server to see the end of its input before any more of the answer is taken */
        expect_big(&client, size);
        assert_ended(&client);
        client_close(&client);
    }
    EVENTUALLY(connections() == 0);
}

/* ---- many, and the end ---- */

static void connections_over_the_cap_are_closed_at_once(void **state)
{
    (void)state;
    at.max_connections = 3;
    start();
    struct client clients[3];
    for (int i = 0; i < 3; i++) {
        clients[i] = client_open();
        client_get(&clients[i], "/hello");
        expect(&clients[i], 200, "hello");
    }
    for (int i = 0; i < 5; i++) {
        struct client refused = client_open();
        assert_gone(&refused);
        client_close(&refused);
    }
    for (int i = 0; i < 3; i++) {
        client_get(&clients[i], "/hello");
        expect(&clients[i], 200, "hello");
        client_close(&clients[i]);
    }
    EVENTUALLY(connections() == 0);
    struct client again = client_open();
    client_get(&again, "/hello");
    expect(&again, 200, "hello");
    client_close(&again);
}

static size_t heap_bytes(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#elif defined(__SANITIZE_THREAD__)
    return 0;
#else
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

static void read_heap(void *out)
{
    *(size_t *)out = heap_bytes();
}

static void count_fibers(void *out)
{
    *(unsigned *)out = at.loop.fiber_count;
}

static double server_cpu_seconds(void)
{
    clockid_t id;
    struct timespec used;
    assert_int_equal(pthread_getcpuclockid(at.thread, &id), 0);
    assert_int_equal(clock_gettime(id, &used), 0);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

enum { IDLE = 1000 };

static void an_idle_connection_costs_little_memory_no_fiber_and_no_cpu(void **state)
{
    (void)state;
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    if (files.rlim_cur < 2 * IDLE + 100) {
        files.rlim_cur = 2 * IDLE + 100;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    }
    start();
    static struct client clients[IDLE + 1];
    size_t before = 0;
    for (int i = 0; i <= IDLE; i++) {
        clients[i] = client_open();
        client_get(&clients[i], "/hello");
        expect(&clients[i], 200, "hello");
        post(&clients[i], "/echo", "", at.big, 5000);
        expect_big(&clients[i], 5000);
        buf_clear(&clients[i].in);
        if (i == 0) /* what the first one warmed up is the loop's */
            on_loop(read_heap, &before);
    }
    size_t after;
    on_loop(read_heap, &after);
    size_t each = (after - before) / IDLE;
    print_message("an idle connection: %zu bytes\n", each);
    assert_true(after >= before && each <= 4096);
    unsigned fibers;
    on_loop(count_fibers, &fibers);
    assert_int_equal(fibers, 1); /* the test's own */
    double used = server_cpu_seconds();
    pause_ms(1000);
    used = server_cpu_seconds() - used;
    print_message("%d idle connections: %.1f ms of CPU a second\n", IDLE, used * 1000);
    assert_true(used < 0.03);
    for (int i = 0; i <= IDLE; i++)
        client_close(&clients[i]);
    EVENTUALLY(connections() == 0);
    used = server_cpu_seconds();
    pause_ms(500);
    assert_true(server_cpu_seconds() - used < 0.005);
}

static void a_drain_ends_the_idle_and_waits_for_the_busy(void **state)
{
    (void)state;
    start();
    struct client fresh = client_open();
    struct client idle = client_open();
    client_get(&idle, "/hello");
    expect(&idle, 200, "hello");
    struct client slow = {.socket = try_connect(65536)};
    client_get(&slow, "/big"); /* answered, and not yet taken */
    EVENTUALLY(ended == 2);
    struct client busy = client_open();
    client_get(&busy, "/gate");
    client_get(&busy, "/hello");
    EVENTUALLY(waiting == 1);
    EVENTUALLY(connections() == 4);
    begin_stop(60000);
    assert_ended(&fresh);
    assert_ended(&idle);
    assert_int_equal(try_connect(0), -ECONNREFUSED);
    expect_big(&slow, BIG);
    assert_ended(&slow);
    on_loop(do_open_gate, NULL);
    struct answer answer;
    read_answer(&busy, &answer, true);
    assert_int_equal(answer.status, 200);
    assert_true(says_close(&answer));
    buf_clear(&answer.body);
    assert_ended(&busy);
    client_close(&fresh);
    client_close(&idle);
    client_close(&slow);
    client_close(&busy);
    uint64_t before = clock_now_ns();
    end_stop();
    assert_true(clock_now_ns() - before < 30 * CLOCK_SECOND);
    assert_int_equal(canceled, 0);
    assert_int_equal(handled, 3);
}

static void a_drain_cuts_off_what_does_not_end(void **state)
{
    (void)state;
    start();
    struct client stream = {.socket = try_connect(4096)};
    client_get(&stream, "/stream-ever");
    struct client busy = client_open();
    client_get(&busy, "/gate");
    struct client half = client_open();
    client_say(&half, "GET / HTT");
    EVENTUALLY(waiting == 1 && most_queued > 0 && connections() == 3);
    uint64_t before = clock_now_ns();
    begin_stop(300);
    end_stop();
    uint64_t took = clock_now_ns() - before;
    assert_true(took >= 300 * CLOCK_MS && took < 15 * CLOCK_SECOND);
    assert_int_equal(canceled, 2);
    assert_gone(&stream);
    assert_gone(&busy);
    assert_gone(&half);
    client_close(&stream);
    client_close(&busy);
    client_close(&half);
}

static void open_task(void *unused)
{
    (void)unused;
    struct http_server_options options = {.address = "not an address", .handle = handle, .ended = on_ended};
    struct http_server *server = NULL;
    assert_int_equal(http_server_open(loop_self(), &options, &server), -EINVAL);
    int taken = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in where = {.sin_family = AF_INET};
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof where;
    assert_int_equal(bind(taken, (struct sockaddr *)&where, size), 0);
    assert_int_equal(listen(taken, 1), 0);
    assert_int_equal(getsockname(taken, (struct sockaddr *)&where, &size), 0);
    options.address = "127.0.0.1";
    options.port = ntohs(where.sin_port);
    assert_int_equal(http_server_open(loop_self(), &options, &server), -EADDRINUSE);
    close(taken);
    options.port = 0;
    struct http_server *second = NULL;
    assert_int_equal(http_server_open(loop_self(), &options, &server), 0);
    options.port = http_server_port(server);
    assert_int_equal(http_server_open(loop_self(), &options, &second),
                     0); /* each loop has its own listener */
    http_server_drain(server, clock_in_ms(1000));
    http_server_close(server);
    http_server_drain(second, clock_in_ms(1000));
    http_server_close(second);
    options.address = "::1";
    options.port = 0;
    if (http_server_open(loop_self(), &options, &server) == 0) {
        http_server_drain(server, clock_in_ms(1000));
        http_server_close(server);
    }
}

static void opening_says_what_is_wrong(void **state)
{
    (void)state;
    struct loop loop;
    loop_open(&loop, 0);
    fiber_main(&loop, "test", open_task, NULL);
    stream_close_loop(&loop);
    loop_close(&loop);
}

static void read_peer(void *unused)
{
    (void)unused;
    assert_int_equal(http_peer(at.at_gate)->sa_family, AF_INET);
    assert_true(str_equal(http_peer_text(at.at_gate), STR("127.0.0.1")));
}

static void the_peer_is_known(void **state)
{
    (void)state;
    start();
    struct client client = client_open();
    client_get(&client, "/gate");
    EVENTUALLY(waiting == 1);
    on_loop(read_peer, NULL);
    on_loop(do_open_gate, NULL);
    expect(&client, 200, "released");
    client_close(&client);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    http_init();
    for (size_t i = 0; i < BIG; i++)
        at.big[i] = (char)('a' + i % 23);
    const struct CMUnitTest tests[] = {
        TEST(a_connection_is_kept_for_more_requests),
        TEST(pipelined_requests_are_answered_in_order_in_one_write),
        TEST(pipelined_requests_wait_for_the_one_before),
        TEST(head_and_old_clients_get_what_they_understand),
        TEST(a_stream_is_chunked_or_runs_to_the_end),
        TEST(a_handler_without_an_answer_is_a_500),
        TEST(bodies_come_whole_whatever_their_size),
        TEST(what_follows_a_body_is_the_next_request),
        TEST(a_body_may_come_before_the_handler_asks_for_it),
        TEST(a_body_too_large_is_refused_before_it_is_kept),
        TEST(expect_continue_is_answered_when_the_body_is_wanted),
        TEST(a_broken_body_ends_the_connection_with_an_answer),
        TEST(an_early_answer_reaches_a_client_that_still_sends),
        TEST(malformed_requests_get_the_error_body_and_the_end),
        TEST(an_upgrade_is_ignored),
        TEST(a_slow_header_is_a_408),
        TEST(a_body_that_stalls_is_given_up),
        TEST(an_idle_connection_is_closed),
        TEST(a_handler_has_its_time),
        TEST(a_reader_that_stalls_holds_bounded_memory_and_is_closed),
        TEST(a_slow_reader_that_goes_on_gets_everything),
        TEST(requests_behind_a_large_answer_are_answered),
        TEST(a_client_that_leaves_cancels_its_handler),
        TEST(a_handler_that_holds_outlives_its_client),
        TEST(a_half_closed_client_gets_what_was_answered),
        TEST(connections_over_the_cap_are_closed_at_once),
        TEST(an_idle_connection_costs_little_memory_no_fiber_and_no_cpu),
        TEST(a_drain_ends_the_idle_and_waits_for_the_busy),
        TEST(a_drain_cuts_off_what_does_not_end),
        TEST(opening_says_what_is_wrong),
        TEST(the_peer_is_known),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_close();
    return failed;
}
