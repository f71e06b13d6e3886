/*
 * The rules of core/net/fetch.h over TLS. The server speaks by proto/tls.h, on a thread, with one connection after the other;
 * that its certificate is trusted, or not, is told to each of libcurl's handles as it is made.
 */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/net/fetch_loop.h"
#include "core/run/fiber.h"
#include "proto/tls.h"
#include "test/unit/core/net/fetch_fixture.h"
#include "test/unit/support/tls_peer.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { LARGE = 3000000 };

static const char *trusted; /* a file, or NULL: what the system trusts */

CURL *curl_easy_init(void)
{
    CURL *(*real)(void);
    void *found = dlsym(RTLD_NEXT, "curl_easy_init");
    memcpy(&real, &found, sizeof real);
    CURL *easy = real();
    if (trusted)
        CHECK(curl_easy_setopt(easy, CURLOPT_CAINFO, trusted) == CURLE_OK);
    return easy;
}

/* ---- the server ---- */

static struct tls_server {
    int listener;
    int port;
    struct tls_context *context;
    pthread_t thread;
    _Atomic unsigned accepts;
    _Atomic unsigned requests;
    _Atomic unsigned ended; /* connections */
} server;

static bool push(int socket, struct tls *session)
{
    struct buf *output = tls_output(session);
    bool sent = send_all(socket, buf_str(output));
    output->size = 0;
    return sent;
}

static bool pull(int socket, struct tls *session)
{
    char bytes[16384];
    ssize_t size = recv(socket, bytes, sizeof bytes, 0);
    if (size > 0)
        tls_feed(session, bytes, (size_t)size);
    return size > 0;
}

/* Without a body. False at the connection's end. */
static bool read_request(int socket, struct tls *session)
{
    struct buf request = {0};
    bool whole = false;
    for (;;) {
        ssize_t size = tls_read(session, buf_reserve(&request, 4096), 4096);
        request.size += size > 0 ? (size_t)size : 0;
        whole = request.size && memmem(request.at, request.size, "\r\n\r\n", 4);
        if (whole || size < 0 || (size == 0 && !pull(socket, session)))
            break;
    }
    buf_clear(&request);
    return whole;
}

static char byte_at(size_t at)
{
    return (char)(at * 2654435761U >> 13);
}

static bool answer(int socket, struct tls *session)
{
    char bytes[20000];
    int head = sprintf(bytes, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", LARGE);
    if (tls_write(session, bytes, (size_t)head) || !push(socket, session))
        return false;
    size_t size;
    for (size_t at = 0; at < LARGE; at += size) {
        size = 1 + at % sizeof bytes;
        size = size < LARGE - at ? size : LARGE - at;
        for (size_t i = 0; i < size; i++)
            bytes[i] = byte_at(at + i);
        if (tls_write(session, bytes, size) || !push(socket, session))
            return false;
    }
    return true;
}

static void serve_connection(int socket)
{
    struct tls *session = tls_new(server.context);
    int done = 0;
    while (done == 0) {
        done = tls_handshake(session);
        push(socket, session);
        if (done == 0 && !pull(socket, session))
            break;
    }
    while (done == 1 && read_request(socket, session)) {
        server.requests++;
        if (!answer(socket, session))
            break;
    }
    tls_free(session);
    close(socket);
    server.ended++;
}

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        int socket = accept(server.listener, NULL, NULL);
        if (socket < 0)
            return NULL;
        server.accepts++;
        serve_connection(socket);
    }
}

static char trusted_file[] = "/tmp/fetch_tls_test.XXXXXX";

static void server_begin(const char *name)
{
    struct tls_made made;
    tls_made_order(&made, &(struct tls_order){.curve = MBEDTLS_ECP_DP_SECP256R1, .names = {name}});
    int file = mkstemp(trusted_file);
    size_t size = strlen(made.chain.at);
    assert_int_equal(write(file, made.chain.at, size), (ssize_t)size);
    close(file);
    memset(&server, 0, sizeof server);
    server.context = tls_context_of(&made, 1, NULL);
    tls_made_clear(&made);
    server.listener = bind_local("127.0.0.1", &server.port);
    assert_int_equal(listen(server.listener, 16), 0);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void server_end(void)
{
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.listener);
    tls_context_unref(server.context);
    unlink(trusted_file);
    memset(trusted_file + sizeof trusted_file - 7, 'X', 6);
    trusted = NULL;
}

static struct fetch_request request_of(struct scene *scene, const char *host)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.url = arena_printf(&scene->arena, "https://%s:%d/", host, server.port);
    request.max_body_bytes = LARGE;
    return request;
}

/* Connections that are over, so that their descriptors are. */
static void await_ended(unsigned count)
{
    while (server.ended < count)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(server.accepts, count);
}

/* ---- the rules ---- */

static void play_streams(struct scene *scene)
{
    trusted = trusted_file;
    struct fetch_request request = request_of(scene, "localhost");
    for (size_t window = 100; window < 2 * LARGE; window *= 9) {
        struct fetch_stream *stream;
        struct str piece;
        size_t got = 0;
        request.window_bytes = window;
        assert_int_equal(fetch_open(&request, &scene->arena, &stream), 0);
        do {
            assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
            for (size_t i = 0; i < piece.size; i++)
                if (piece.at[i] != byte_at(got + i))
                    fail_msg("another byte at %zu", got + i);
            got += piece.size;
            if (got % 5 == 0)
                assert_int_equal(got % 3 ? fiber_yield() : fiber_sleep_ms(1), 0);
        } while (piece.size);
        assert_int_equal(got, LARGE);
        fetch_end(stream);
    }
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_int_equal(scene->answer.body.size, LARGE);
    assert_int_equal(server.accepts, 1);
    fetch_client_sweep(fetch_client_self(), 0);
    await_ended(1);
}

/* What TLS has decrypted and not given away makes no socket readable. */
static void pausing_over_tls_loses_nothing(void **state)
{
    (void)state;
    server_begin("localhost");
    RUN(play_streams, {OK_HELLO, KEEP});
    server_end();
}

static void play_end_midway(struct scene *scene)
{
    trusted = trusted_file;
    struct fetch_request request = request_of(scene, "localhost");
    for (unsigned i = 1; i <= 3; i++) {
        struct fetch_stream *stream;
        struct str piece;
        request.window_bytes = 1000;
        assert_int_equal(fetch_open(&request, &scene->arena, &stream), 0);
        assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
        fetch_end(stream);
        await_ended(i);
    }
}

static void ending_midway_closes_a_tls_connection(void **state)
{
    (void)state;
    server_begin("localhost");
    RUN(play_end_midway, {OK_HELLO, KEEP});
    server_end();
}

static void play_untrusted(struct scene *scene)
{
    struct fetch_request request = request_of(scene, "localhost");
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EPROTO);
    await_ended(1);
    assert_int_equal(server.requests, 0);
}

static void a_certificate_that_nobody_vouches_for_is_refused(void **state)
{
    (void)state;
    server_begin("localhost");
    RUN(play_untrusted, {OK_HELLO, KEEP});
    server_end();
}

static void play_other_host(struct scene *scene)
{
    trusted = trusted_file;
    struct fetch_request request = request_of(scene, "localhost");
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EPROTO);
    await_ended(1);
    assert_int_equal(server.requests, 0);
}

static void a_certificate_of_another_host_is_refused(void **state)
{
    (void)state;
    server_begin("other.test");
    RUN(play_other_host, {OK_HELLO, KEEP});
    server_end();
}

static void play_no_tls(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.url = arena_printf(&scene->arena, "https://127.0.0.1:%d/", scene->server.port);
    request.total_timeout_ms = 300;
    int result = fetch(&request, &scene->arena, &scene->answer);
    assert_true(result == -EPROTO || result == -ETIMEDOUT);
    assert_int_equal(scene->server.requests, 0);
}

static void a_server_without_tls_gets_no_request(void **state)
{
    (void)state;
    RUN(play_no_tls, {OK_HELLO, KEEP});
}

int main(void)
{
    fixture_begin("fetch_tls_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pausing_over_tls_loses_nothing),
        cmocka_unit_test(ending_midway_closes_a_tls_connection),
        cmocka_unit_test(a_certificate_that_nobody_vouches_for_is_refused),
        cmocka_unit_test(a_certificate_of_another_host_is_refused),
        cmocka_unit_test(a_server_without_tls_gets_no_request),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_close();
    return failed;
}
