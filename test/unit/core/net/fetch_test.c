/* The rules of core/net/fetch.h for whole answers, against a server that scripts its bytes. */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/run/sync.h"
#include "test/unit/core/net/fetch_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- answers ---- */

static void play_length(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.status, 200);
    assert_str(scene->answer.body, "hello");
    assert_int_equal(scene->answer.body.at[5], '\0');
    assert_str(scene->answer.type, "text/plain");
}

static void answer_with_a_length(void **state)
{
    (void)state;
    RUN(play_length, {OK_HELLO, KEEP});
}

static void play_untyped_hello(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.status, 200);
    assert_str(scene->answer.body, "hello");
    assert_null(scene->answer.type.at);
}

static void answer_in_chunks(void **state)
{
    (void)state;
    RUN(play_untyped_hello,
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
         KEEP});
}

static void answer_that_ends_with_the_connection(void **state)
{
    (void)state;
    RUN(play_untyped_hello, {"HTTP/1.1 200 OK\r\n\r\nhello", CLOSE});
}

static void interim_answers_are_skipped(void **state)
{
    (void)state;
    RUN(play_untyped_hello,
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", KEEP});
}

static void play_statuses(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.status, 204);
    assert_int_equal(scene->answer.body.size, 0);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.status, 503);
    assert_str(scene->answer.body, "busy");
    struct fetch_request head = request_to(scene, "HEAD", "/");
    assert_int_equal(fetch(&head, &scene->arena, &scene->answer), 0);
    assert_int_equal(scene->answer.status, 200);
    assert_int_equal(scene->answer.body.size, 0);
    assert_int_equal(scene->server.accepts, 1);
}

static void any_status_is_an_answer(void **state)
{
    (void)state;
    RUN(play_statuses, {"HTTP/1.1 204 No Content\r\n\r\n", KEEP},
        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy", KEEP},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", KEEP});
}

static void play_redirect(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.status, 302);
    assert_int_equal(scene->server.requests, 1);
}

static void redirects_are_not_followed(void **state)
{
    (void)state;
    RUN(play_redirect, {"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", KEEP});
}

/* ---- requests ---- */

static void play_request_bytes(struct scene *scene)
{
    static const char *const headers[] = {"Content-Type: application/json", "X-Id: 7", NULL};
    struct fetch_request request = request_to(scene, "POST", "/a%2Fb?c=d");
    request.body = STR("{}");
    request.headers = headers;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_sent(scene,
                arena_printf(&scene->arena,
                             "POST /a%%2Fb?c=d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n"
                             "Content-Type: application/json\r\nX-Id: 7\r\nContent-Length: 2\r\n\r\n{}",
                             scene->server.port));
    assert_int_equal(get(scene), 0);
    assert_sent(scene,
                arena_printf(&scene->arena, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n\r\n",
                             scene->server.port));
    assert_int_equal(post(scene, NULL), 0);
    assert_sent(
        scene,
        arena_printf(&scene->arena,
                     "POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\nContent-Length: 0\r\n\r\n",
                     scene->server.port));
    request = request_to(scene, "DELETE", "/x");
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_sent(scene,
                arena_printf(&scene->arena, "DELETE /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: */*\r\n\r\n",
                             scene->server.port));
}

/* Nothing of one request, and no cookie, gets into the next on the same handle. */
static void a_request_is_what_was_asked_for_and_no_more(void **state)
{
    (void)state;
    RUN(play_request_bytes,
        {"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n", KEEP});
}

static void play_large(struct scene *scene)
{
    enum { SIZE = 3 << 20 };
    char *body = mem_alloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        body[i] = (char)('a' + i % 23);
    struct fetch_request request = request_to(scene, "PUT", "/");
    request.body = str_of(body, SIZE);
    request.max_body_bytes = SIZE;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_true(str_equal(scene->answer.body, request.body));
    assert_null(memmem(scene->server.last.at, 300, "Expect", 6));
    free(body);
}

static void a_large_body_goes_both_ways_without_expect(void **state)
{
    (void)state;
    RUN(play_large, {NULL, KEEP});
}

static void play_unfit(struct scene *scene)
{
    static const char *const urls[] = {"",
                                       "127.0.0.1",
                                       "//127.0.0.1/",
                                       "ftp://127.0.0.1/",
                                       "file:///etc/hostname",
                                       "http://",
                                       "http:///x",
                                       "http://a b/",
                                       "http://127.0.0.1:99999/",
                                       "http://user:secret@127.0.0.1/",
                                       "http://127.0.0.1/\r\nX: y"};
    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        struct fetch_request request = request_to(scene, "GET", "/");
        request.url = urls[i];
        int result = fetch(&request, &scene->arena, &scene->answer);
        if (result != -EINVAL)
            fail_msg("%s: %d", urls[i], result);
    }
    static const char *const headers[] = {"X-Id: 7\r\nX-Admin: 1", NULL};
    struct fetch_request request = request_to(scene, "GET", "/");
    request.headers = headers;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EINVAL);
    assert_int_equal(scene->server.accepts, 0);
}

static void unfit_requests_are_refused(void **state)
{
    (void)state;
    RUN(play_unfit, {OK_HELLO, KEEP});
}

static void play_proxy(struct scene *scene)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    assert_int_equal(get(scene), 0);
    unsetenv("http_proxy");
    unsetenv("all_proxy");
}

static void proxies_of_the_environment_are_ignored(void **state)
{
    (void)state;
    RUN(play_proxy, {OK_HELLO, KEEP});
}

/* ---- what goes wrong ---- */

static void play_refused(struct scene *scene)
{
    int port;
    int unheard = bind_local("127.0.0.1", &port);
    struct fetch_request request = request_to(scene, "GET", "/");
    request.url = arena_printf(&scene->arena, "http://127.0.0.1:%d/", port);
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ECONNREFUSED);
    close(unheard);
}

static void a_refused_port(void **state)
{
    (void)state;
    RUN(play_refused, {OK_HELLO, KEEP});
}

enum { FILL = 4 };

/* A listener that answers no further connect, as its queue is full. */
struct deaf {
    int listener;
    int waiting[FILL];
    int port;
};

static void deaf_open(struct deaf *deaf)
{
    deaf->listener = bind_local("127.0.0.1", &deaf->port);
    assert_int_equal(listen(deaf->listener, 0), 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)deaf->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < FILL; i++) {
        deaf->waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int result = connect(deaf->waiting[i], (struct sockaddr *)&address, sizeof address);
        assert_true(result == 0 || errno == EINPROGRESS);
    }
}

static void deaf_close(struct deaf *deaf)
{
    for (int i = 0; i < FILL; i++)
        close(deaf->waiting[i]);
    close(deaf->listener);
}

static void play_connect_timeout(struct scene *scene)
{
    struct deaf deaf;
    deaf_open(&deaf);
    struct fetch_request request = request_to(scene, "GET", "/");
    request.url = arena_printf(&scene->arena, "http://127.0.0.1:%d/", deaf.port);
    request.connect_timeout_ms = 100;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ECONNREFUSED);
    request.connect_timeout_ms = PATIENCE_S * 1000;
    request.total_timeout_ms = 100;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ETIMEDOUT);
    /* The next socket has the number of the one that was given up. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(get(scene), 0);
        assert_str(scene->answer.body, "hello");
    }
    assert_int_equal(scene->server.accepts, 1);
    /* And so it is from one pool to the other. */
    for (int i = 0; i < 6; i++) {
        request.pool = i % 2 ? "odd" : NULL;
        request.connect_timeout_ms = 30 + (uint64_t)(i / 3) * 1000;
        request.total_timeout_ms = 60;
        int result = fetch(&request, &scene->arena, &scene->answer);
        assert_int_equal(result, i / 3 ? -ETIMEDOUT : -ECONNREFUSED);
        struct fetch_request next = request_to(scene, "GET", "/");
        next.pool = arena_printf(&scene->arena, "%d", i);
        assert_int_equal(fetch(&next, &scene->arena, &scene->answer), 0);
    }
    deaf_close(&deaf);
}

static void a_connect_that_takes_too_long(void **state)
{
    (void)state;
    RUN(play_connect_timeout, {OK_HELLO, KEEP});
}

/* "localhost" is looked for at ::1 first, where nobody listens. */
static void play_second_address(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "POST", "/");
    request.url = arena_printf(&scene->arena, "http://localhost:%d/", scene->server.port);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
        assert_str(scene->answer.body, "hello");
    }
    assert_int_equal(scene->server.accepts, 1);
}

static void a_names_second_address_is_tried(void **state)
{
    (void)state;
    RUN(play_second_address, {OK_HELLO, KEEP});
}

static void play_no_name(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    /* A label over 63 bytes: no question is sent for it. */
    request.url = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example/";
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EHOSTUNREACH);
}

static void a_name_that_does_not_exist(void **state)
{
    (void)state;
    RUN(play_no_name, {OK_HELLO, KEEP});
}

static void play_slow(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.total_timeout_ms = 100;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ETIMEDOUT);
    await_connection_end(&scene->server);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 2);
}

static void a_slow_answer(void **state)
{
    (void)state;
    RUN(play_slow, {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", HOLD}, {OK_HELLO, KEEP});
}

static void play_closed_before(struct scene *scene)
{
    assert_int_equal(get(scene), -ECONNABORTED);
    assert_int_equal(post(scene, "x"), -ECONNABORTED);
    assert_int_equal(scene->server.requests, 2);
}

static void closed_before_an_answer_on_a_fresh_connection(void **state)
{
    (void)state;
    RUN(play_closed_before, {"", CLOSE});
    RUN(play_closed_before, {"", RESET});
}

static void play_closed_midway(struct scene *scene)
{
    assert_int_equal(get(scene), -ECONNRESET);
    assert_null(scene->answer.body.at);
    assert_int_equal(post(scene, "x"), -ECONNRESET);
    assert_int_equal(scene->server.requests, 2);
}

static void closed_within_the_answer(void **state)
{
    (void)state;
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", CLOSE});
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", RESET});
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", CLOSE});
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CLOSE});
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\nContent-Le", CLOSE});
    RUN(play_closed_midway, {"HTTP/1.1 200 OK\r\n", CLOSE});
    RUN(play_closed_midway, {"HTTP/1.1 100 Continue\r\n\r\n", CLOSE});
}

static void play_not_http(struct scene *scene)
{
    assert_int_equal(get(scene), -EIO);
    assert_int_equal(post(scene, "x"), -EIO);
}

static void play_bad_chunk(struct scene *scene)
{
    assert_int_equal(get(scene), -ECONNRESET);
    assert_null(scene->answer.body.at);
}

static void what_is_not_http(void **state)
{
    (void)state;
    RUN(play_not_http, {"hello, this is a line\r\n", CLOSE});
    RUN(play_bad_chunk, {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", KEEP});
}

static void play_too_large(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.max_body_bytes = 5;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_str(scene->answer.body, "hello");
    request.max_body_bytes = 4;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EMSGSIZE);
    assert_null(scene->answer.body.at);
    assert_int_equal(scene->answer.status, 0);
    request.max_body_bytes = 0;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EMSGSIZE);
}

static void a_body_over_the_limit(void **state)
{
    (void)state;
    RUN(play_too_large, {OK_HELLO, KEEP});
    RUN(play_too_large,
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", KEEP});
}

static void play_switch(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.max_body_bytes = 1000;
    int result = fetch(&request, &scene->arena, &scene->answer);
    assert_true(result < 0 || scene->answer.status == 101);
    assert_int_equal(get(scene), 0);
    assert_str(scene->answer.body, "hello");
    assert_int_equal(scene->server.accepts, 2);
}

static void a_switch_of_protocols_is_no_interim_answer(void **state)
{
    (void)state;
    RUN(play_switch,
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nxyz", CLOSE},
        {OK_HELLO, KEEP});
}

static void every_error_has_words(void **state)
{
    (void)state;
    static const int errors[] = {-ECONNREFUSED, -ECONNABORTED, -ECONNRESET, -ETIMEDOUT, -EMSGSIZE, -EINVAL,
                                 -EHOSTUNREACH, -EACCES,       -EPROTO,     -EIO,       -ECANCELED};
    for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
        assert_string_not_equal(fetch_reason(errors[i]), fetch_reason(0));
}

/* ---- connections ---- */

static void play_reuse(struct scene *scene)
{
    for (int i = 0; i < 5; i++) {
        assert_int_equal(post(scene, "x"), 0);
        assert_str(scene->answer.body, "hello");
    }
    assert_int_equal(scene->server.accepts, 1);
    assert_int_equal(scene->server.requests, 5);
}

static void connections_are_kept(void **state)
{
    (void)state;
    RUN(play_reuse, {OK_HELLO, KEEP});
}

static void play_idle_closed(struct scene *scene)
{
    assert_int_equal(post(scene, "x"), 0);
    await_connection_end(&scene->server);
    assert_int_equal(post(scene, "y"), 0);
    assert_int_equal(scene->server.accepts, 2);
    assert_int_equal(scene->server.requests, 2);
}

static void a_connection_closed_while_idle_costs_nothing(void **state)
{
    (void)state;
    RUN(play_idle_closed, {OK_HELLO, CLOSE}, {OK_HELLO, KEEP});
}

static void play_post_once(struct scene *scene)
{
    assert_int_equal(post(scene, "x"), 0);
    assert_int_equal(post(scene, "y"), -ECONNRESET);
    assert_int_equal(scene->server.requests, 2);
    assert_int_equal(scene->server.accepts, 1);
    assert_int_equal(post(scene, "z"), 0);
    assert_int_equal(scene->server.accepts, 2);
}

static void a_post_is_never_sent_twice(void **state)
{
    (void)state;
    RUN(play_post_once, {OK_HELLO, KEEP}, {"", CLOSE}, {OK_HELLO, KEEP});
    RUN(play_post_once, {OK_HELLO, KEEP}, {"", RESET}, {OK_HELLO, KEEP});
}

struct pair {
    struct scene *scene;
    struct group group;
};

static void post_of_pair(void *arg)
{
    struct pair *pair = arg;
    assert_int_equal(post(pair->scene, "x"), 0);
    group_done(&pair->group);
}

/* Two kept connections: when one ends, the request must not go out on the other either. */
static void play_post_once_of_two(struct scene *scene)
{
    struct pair pair = {.scene = scene};
    for (int i = 0; i < 2; i++) {
        group_add(&pair.group);
        fiber_start(loop_self(), "post", post_of_pair, &pair);
    }
    assert_int_equal(group_wait(&pair.group, "posts", CLOCK_NEVER), 0);
    assert_int_equal(scene->server.accepts, 2);
    assert_int_equal(post(scene, "y"), -ECONNRESET);
    assert_int_equal(scene->server.requests, 3);
    assert_int_equal(scene->server.accepts, 2);
}

static void a_post_is_not_repeated_on_another_connection(void **state)
{
    (void)state;
    RUN(play_post_once_of_two, {OK_HELLO, KEEP}, {OK_HELLO, KEEP}, {"", CLOSE}, {OK_HELLO, KEEP});
}

static void play_get_again(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_int_equal(get(scene), 0);
    assert_str(scene->answer.body, "hello");
    assert_int_equal(scene->server.requests, 3);
    assert_int_equal(scene->server.accepts, 2);
}

static void a_get_is_repeated_on_a_fresh_connection(void **state)
{
    (void)state;
    RUN(play_get_again, {OK_HELLO, KEEP}, {"", CLOSE}, {OK_HELLO, KEEP});
}

struct crowd {
    struct scene *scene;
    struct group group;
    unsigned next;
};

static void post_own_body(void *arg)
{
    struct crowd *crowd = arg;
    struct arena arena;
    struct fetch_answer answer;
    arena_init(&arena);
    struct fetch_request request = request_to(crowd->scene, "POST", "/");
    unsigned number = crowd->next++;
    for (unsigned i = 0; i < 5; i++) {
        request.body = str_from(arena_printf(&arena, "fiber %u, call %u", number, i));
        assert_int_equal(fetch(&request, &arena, &answer), 0);
        assert_true(str_equal(answer.body, request.body));
    }
    arena_clear(&arena);
    group_done(&crowd->group);
}

static void play_crowd(struct scene *scene)
{
    struct crowd crowd = {.scene = scene};
    for (int i = 0; i < 50; i++) {
        group_add(&crowd.group);
        fiber_start(loop_self(), "post", post_own_body, &crowd);
    }
    assert_int_equal(group_wait(&crowd.group, "crowd", CLOCK_NEVER), 0);
    assert_int_equal(scene->server.requests, 250);
    assert_in_range(scene->server.accepts, 1, 50);
}

static void fifty_at_once_get_their_own_answers(void **state)
{
    (void)state;
    RUN(play_crowd, {NULL, KEEP});
}

/* ---- giving up ---- */

struct victim {
    struct scene *scene;
    struct group group;
    int result;
};

static void fetch_as_victim(void *arg)
{
    struct victim *victim = arg;
    victim->result = post(victim->scene, "x");
    group_done(&victim->group);
}

static struct fiber *victim_start(struct victim *victim)
{
    group_add(&victim->group);
    return fiber_start(loop_self(), "victim", fetch_as_victim, victim);
}

static void play_cancel(struct scene *scene)
{
    struct victim victim = {.scene = scene};
    struct fiber *fiber = victim_start(&victim);
    while (scene->server.requests == 0)
        assert_int_equal(fiber_sleep_ms(1), 0);
    fiber_cancel(fiber);
    assert_int_equal(group_wait(&victim.group, "victim", CLOCK_NEVER), 0);
    assert_int_equal(victim.result, -ECANCELED);
    await_connection_end(&scene->server);
}

static void cancelling_closes_the_connection_at_once(void **state)
{
    (void)state;
    RUN(play_cancel, {"", HOLD});
    RUN(play_cancel, {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", HOLD});
}

static void play_cancel_before(struct scene *scene)
{
    struct victim victim = {.scene = scene};
    fiber_cancel(victim_start(&victim));
    assert_int_equal(group_wait(&victim.group, "victim", CLOCK_NEVER), 0);
    assert_int_equal(victim.result, -ECANCELED);
    assert_int_equal(scene->server.accepts, 0);
    assert_int_equal(get(scene), 0);
}

static void a_cancelled_fiber_fetches_nothing(void **state)
{
    (void)state;
    RUN(play_cancel_before, {OK_HELLO, KEEP});
}

static void play_deadline(struct scene *scene)
{
    fiber_set_deadline(clock_in_ms(50));
    assert_int_equal(get(scene), -ECANCELED);
    await_connection_end(&scene->server);
    fiber_set_deadline(CLOCK_NEVER);
}

static void the_fibers_deadline_ends_a_fetch(void **state)
{
    (void)state;
    RUN(play_deadline, {"", HOLD});
}

static void a_loop_without_a_fetch_has_nothing_to_close(void **state)
{
    (void)state;
    struct loop loop;
    loop_open(&loop, 0);
    fetch_close_loop(&loop);
    loop_close(&loop);
}

static void get_once(void *arg)
{
    assert_int_equal(get(arg), 0);
}

static void a_client_is_closed_from_outside_a_fiber_too(void **state)
{
    (void)state;
    static const struct step steps[] = {{OK_HELLO, KEEP}};
    struct scene scene = {.play = NULL};
    struct loop loop;
    server_open_at(&scene.server, "127.0.0.1", steps, 1);
    loop_open(&loop, 0);
    fiber_main(&loop, "test", get_once, &scene);
    fetch_close_loop(&loop);
    loop_close(&loop);
    arena_clear(&scene.arena);
    server_close(&scene.server);
}

int main(void)
{
    fixture_begin("fetch_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answer_with_a_length),
        cmocka_unit_test(answer_in_chunks),
        cmocka_unit_test(answer_that_ends_with_the_connection),
        cmocka_unit_test(interim_answers_are_skipped),
        cmocka_unit_test(any_status_is_an_answer),
        cmocka_unit_test(redirects_are_not_followed),
        cmocka_unit_test(a_request_is_what_was_asked_for_and_no_more),
        cmocka_unit_test(a_large_body_goes_both_ways_without_expect),
        cmocka_unit_test(unfit_requests_are_refused),
        cmocka_unit_test(proxies_of_the_environment_are_ignored),
        cmocka_unit_test(a_refused_port),
        cmocka_unit_test(a_connect_that_takes_too_long),
        cmocka_unit_test(a_names_second_address_is_tried),
        cmocka_unit_test(a_name_that_does_not_exist),
        cmocka_unit_test(a_slow_answer),
        cmocka_unit_test(closed_before_an_answer_on_a_fresh_connection),
        cmocka_unit_test(closed_within_the_answer),
        cmocka_unit_test(what_is_not_http),
        cmocka_unit_test(a_body_over_the_limit),
        cmocka_unit_test(a_switch_of_protocols_is_no_interim_answer),
        cmocka_unit_test(every_error_has_words),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(a_connection_closed_while_idle_costs_nothing),
        cmocka_unit_test(a_post_is_never_sent_twice),
        cmocka_unit_test(a_post_is_not_repeated_on_another_connection),
        cmocka_unit_test(a_get_is_repeated_on_a_fresh_connection),
        cmocka_unit_test(fifty_at_once_get_their_own_answers),
        cmocka_unit_test(cancelling_closes_the_connection_at_once),
        cmocka_unit_test(a_cancelled_fiber_fetches_nothing),
        cmocka_unit_test(the_fibers_deadline_ends_a_fetch),
        cmocka_unit_test(a_loop_without_a_fetch_has_nothing_to_close),
        cmocka_unit_test(a_client_is_closed_from_outside_a_fiber_too),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_close();
    return failed;
}
