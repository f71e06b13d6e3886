/* The rules of core/net/fetch.h for answers that are read as they come. */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/net/fetch_loop.h"
#include "core/run/sync.h"
#include "test/unit/core/net/fetch_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void); /* gcc has no header for it */
#endif

#define HEAD(fields) "HTTP/1.1 200 OK\r\n" fields "\r\n"

static struct fetch_stream *open_stream(struct scene *scene, const struct fetch_request *request)
{
    struct fetch_stream *stream;
    assert_int_equal(fetch_open(request, &scene->arena, &stream), 0);
    return stream;
}

static void assert_reads(struct fetch_stream *stream, const char *expected)
{
    struct str piece;
    assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
    assert_str(piece, expected);
}

/* Reads up to the end or an error; the bytes are added to *body, if that is wanted. */
static int read_all(struct fetch_stream *stream, struct buf *body)
{
    struct str piece;
    for (;;) {
        int result = fetch_read(stream, &piece, CLOCK_NEVER);
        if (result || piece.size == 0)
            return result;
        if (body)
            buf_add_str(body, piece);
    }
}

static void let_go(struct scene *scene)
{
    assert_int_equal(sem_post(&scene->server.go), 0);
}

/* ---- as it comes ---- */

static bool say_two(struct server *server, int socket)
{
    sem_wait(&server->go);
    send_all(socket, STR("3\r\ntwo\r\n"));
    sem_wait(&server->go);
    return send_all(socket, STR("0\r\n\r\n"));
}

static void play_pieces(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "POST", "/");
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_int_equal(fetch_stream_status(stream), 206);
    assert_str(fetch_stream_answer(stream)->type, "text/event-stream");
    assert_reads(stream, "one");
    let_go(scene);
    assert_reads(stream, "two");
    let_go(scene);
    assert_reads(stream, "");
    assert_reads(stream, "");
    fetch_end(stream);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 1);
}

static void pieces_come_one_by_one_and_the_connection_is_kept(void **state)
{
    (void)state;
    RUN_MORE(
        play_pieces, say_two,
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial Content\r\nContent-Type: text/event-stream\r\n"
         "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
         MORE},
        {OK_HELLO, KEEP});
}

static void play_head_alone(struct scene *scene)
{
    for (int i = 0; i < 2; i++) {
        const struct fetch_request request = request_to(scene, i ? "GET" : "HEAD", "/");
        struct fetch_stream *stream = open_stream(scene, &request);
        assert_reads(stream, "");
        fetch_end(stream);
    }
    assert_int_equal(scene->server.accepts, 1);
    fetch_end(NULL);
}

static void an_answer_without_a_body_ends_at_once(void **state)
{
    (void)state;
    RUN(play_head_alone, {HEAD("Content-Length: 7\r\n"), KEEP}, {"HTTP/1.1 204 No Content\r\n\r\n", KEEP});
}

/* All has come before it is read, and the end not been read: there is nothing that would have to be closed for it. */
static void play_unread_end(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    for (int i = 0; i < 3; i++) {
        struct fetch_stream *stream = open_stream(scene, &request);
        assert_reads(stream, "hello");
        fetch_end(stream);
    }
    assert_int_equal(scene->server.accepts, 1);
}

static void a_whole_answer_keeps_its_connection(void **state)
{
    (void)state;
    RUN(play_unread_end, {OK_HELLO, KEEP});
}

/* ---- headers that are wanted ---- */

static const char *const wanted[] = {"retry-after", "X-RateLimit-*", NULL};

static void assert_kept(const struct fetch_answer *answer)
{
    assert_str(fetch_header(answer, "Retry-After"), "7");
    assert_str(fetch_header(answer, "x-ratelimit-limit"), "a b");
    assert_str(fetch_header(answer, "x-ratelimit-empty"), "");
    assert_non_null(fetch_header(answer, "x-ratelimit-empty").at);
    assert_null(fetch_header(answer, "X-Other").at);
    assert_null(fetch_header(answer, "x-ratelimit-interim").at);
    assert_null(fetch_header(answer, "x-ratelimit-trailer").at);
    assert_int_equal(answer->header_count, 3);
    assert_str(answer->headers[1].name, "x-rateLIMIT-Limit");
}

static void play_wanted(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.headers_wanted = wanted;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_kept(&scene->answer);
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_kept(fetch_stream_answer(stream));
    assert_int_equal(read_all(stream, NULL), 0);
    assert_kept(fetch_stream_answer(stream));
    assert_str(fetch_stream_header(stream, "retry-AFTER"), "7");
    fetch_end(stream);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->answer.header_count, 0);
    assert_null(fetch_header(&scene->answer, "Retry-After").at);
}

static void headers_are_kept_that_are_wanted(void **state)
{
    (void)state;
    RUN(play_wanted,
        {"HTTP/1.1 103 Early Hints\r\nX-RateLimit-Interim: 1\r\n\r\n"
         "HTTP/1.1 200 OK\r\nRETRY-After:7\r\nX-Other: 1\r\nx-rateLIMIT-Limit: \t a b \r\nX-RateLimit: 3\r\n"
         "X-RateLimit-Empty:\r\nTransfer-Encoding: chunked\r\n\r\n"
         "1\r\nx\r\n0\r\nX-RateLimit-Trailer: 1\r\n\r\n",
         KEEP});
}

static void play_many_wanted(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.headers_wanted = wanted;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_int_equal(scene->answer.header_count, FETCH_HEADERS_MAX);
    assert_null(fetch_header(&scene->answer, "x-ratelimit-long").at);
    assert_int_equal(fetch_header(&scene->answer, "x-ratelimit-fits").size, FETCH_HEADER_SIZE_MAX);
    assert_str(scene->answer.body, "hello");
}

static void headers_that_are_kept_are_bounded(void **state)
{
    (void)state;
    struct buf reply = {0};
    buf_add_text(&reply, "HTTP/1.1 200 OK\r\n");
    buf_printf(&reply, "X-RateLimit-Long: %0*d\r\n", FETCH_HEADER_SIZE_MAX + 1, 0);
    buf_printf(&reply, "X-RateLimit-Fits: %0*d\r\n", FETCH_HEADER_SIZE_MAX, 0);
    for (int i = 0; i < FETCH_HEADERS_MAX * 2; i++)
        buf_printf(&reply, "X-RateLimit-%d: %d\r\n", i, i);
    buf_add_text(&reply, "Content-Length: 5\r\n\r\nhello");
    buf_add_char(&reply, '\0');
    RUN(play_many_wanted, {reply.at, KEEP});
    buf_clear(&reply);
}

/* ---- time ---- */

static void play_header_deadline(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    struct fetch_stream *stream;
    request.header_timeout_ms = 100;
    assert_int_equal(fetch_open(&request, &scene->arena, &stream), -ETIMEDOUT);
    assert_null(stream);
    await_connection_end(&scene->server);
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ETIMEDOUT);
    await_connection_end(&scene->server);
}

static void the_header_has_a_deadline_of_its_own(void **state)
{
    (void)state;
    RUN(play_header_deadline, {"", HOLD});
    RUN(play_header_deadline, {"HTTP/1.1 200 OK\r\nContent-Le", HOLD});
    RUN(play_header_deadline, {"HTTP/1.1 100 Continue\r\n\r\n", HOLD});
}

static void play_body_after_header_deadline(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    struct str piece;
    request.header_timeout_ms = 5000;
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_reads(stream, "one");
    for (int i = 0; i < 3; i++)
        assert_int_equal(fetch_read(stream, &piece, clock_in_ms(20)), -ETIMEDOUT);
    let_go(scene);
    assert_reads(stream, "two");
    let_go(scene);
    assert_reads(stream, "");
    fetch_end(stream);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 1);
}

static void a_silent_peer_may_be_asked_again(void **state)
{
    (void)state;
    RUN_MORE(play_body_after_header_deadline, say_two, {OK_CHUNKED "3\r\none\r\n", MORE}, {OK_HELLO, KEEP});
}

static bool pour(struct server *server, int socket)
{
    static const char bytes[65536] = "endless";
    while (send_all(socket, str_of(bytes, sizeof bytes)))
        server->sent += sizeof bytes;
    return false;
}

static void play_total(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    struct str piece;
    request.total_timeout_ms = 150;
    request.max_body_bytes = SIZE_MAX;
    uint64_t began_ns = clock_now_ns();
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_int_equal(read_all(stream, NULL), -ETIMEDOUT);
    assert_true(clock_now_ns() - began_ns >= 150 * CLOCK_MS);
    assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), -ETIMEDOUT);
    fetch_end(stream);
    await_connection_end(&scene->server);
}

static void the_whole_time_ends_silence_and_an_endless_answer(void **state)
{
    (void)state;
    RUN(play_total, {OK_CHUNKED, HOLD});
    RUN_MORE(play_total, pour, {HEAD(""), MORE});
}

static void play_times(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(get(scene), 0);
        const struct fetch_times *times = &scene->answer.times;
        assert_in_range(times->connect_us, 1, times->first_us);
        assert_in_range(times->first_us, 1, times->total_us);
    }
    struct fetch_stream *stream = open_stream(scene, &request);
    const struct fetch_times head = fetch_stream_answer(stream)->times;
    assert_int_equal(fiber_sleep_ms(20), 0);
    let_go(scene);
    let_go(scene);
    assert_int_equal(read_all(stream, NULL), 0);
    const struct fetch_times end = fetch_stream_answer(stream)->times;
    assert_int_equal(head.first_us, end.first_us);
    assert_true(end.total_us >= head.first_us + 20000);
    fetch_end(stream);
    struct fetch_request late = request_to(scene, "GET", "/");
    late.total_timeout_ms = 30;
    assert_int_equal(fetch(&late, &scene->arena, &scene->answer), -ETIMEDOUT);
    assert_true(scene->answer.times.total_us >= 30000);
    assert_int_equal(scene->answer.times.first_us, 0);
}

static void times_are_told_also_of_what_fails(void **state)
{
    (void)state;
    RUN_MORE(play_times, say_two, {OK_HELLO, KEEP}, {OK_HELLO, KEEP}, {OK_CHUNKED "3\r\none\r\n", MORE},
             {"", HOLD});
}

/* ---- size ---- */

static void play_cut(struct scene *scene)
{
    struct buf body = {0};
    struct fetch_request request = request_to(scene, "GET", "/");
    request.max_body_bytes = 100000;
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_int_equal(read_all(stream, &body), -EMSGSIZE);
    assert_int_equal(body.size, 100000);
    assert_int_equal(read_all(stream, &body), -EMSGSIZE);
    fetch_end(stream);
    await_connection_end(&scene->server);
    request.truncate = true;
    stream = open_stream(scene, &request);
    body.size = 0;
    assert_int_equal(read_all(stream, &body), 0);
    assert_int_equal(body.size, 100000);
    assert_true(fetch_stream_answer(stream)->truncated);
    fetch_end(stream);
    await_connection_end(&scene->server);
    buf_clear(&body);
}

static void an_endless_stream_is_cut(void **state)
{
    (void)state;
    RUN_MORE(play_cut, pour, {HEAD(""), MORE});
    RUN_MORE(play_cut, pour, {HEAD("Content-Length: 9999999999999\r\n"), MORE});
}

static void play_truncate(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.truncate = true;
    request.max_body_bytes = 5;
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_str(scene->answer.body, "hello");
    assert_false(scene->answer.truncated);
    for (size_t most = 0; most < 5; most += 2) {
        request.max_body_bytes = most;
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
        assert_int_equal(scene->answer.status, 200);
        assert_str(scene->answer.body, arena_dup(&scene->arena, "hello", most));
        assert_true(scene->answer.truncated);
        await_connection_end(&scene->server);
    }
    assert_int_equal(get(scene), 0);
    assert_false(scene->answer.truncated);
}

static void a_body_is_cut_where_the_request_says(void **state)
{
    (void)state;
    RUN(play_truncate, {OK_HELLO, KEEP});
    RUN(play_truncate, {OK_CHUNKED "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", KEEP});
}

static size_t heap_bytes(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return __sanitizer_get_current_allocated_bytes();
#else
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

enum { LARGE = 64 << 20, WINDOW = 64 * 1024 };

/* What the byte at this place is. */
static char byte_at(size_t at)
{
    return (char)(at * 2654435761U >> 13);
}

static void assert_bytes(struct str piece, size_t from)
{
    for (size_t i = 0; i < piece.size; i++)
        if (piece.at[i] != byte_at(from + i))
            fail_msg("another byte at %zu", from + i);
}

static bool send_large(struct server *server, int socket)
{
    static char bytes[65536];
    for (size_t at = 0; at < LARGE; at += sizeof bytes) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = byte_at(at + i);
        if (!send_all(socket, str_of(bytes, sizeof bytes)))
            return false;
        server->sent += sizeof bytes;
    }
    return true;
}

static void play_slow_reader(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    struct str piece;
    size_t got = 0;
    size_t most = 0;
    request.max_body_bytes = LARGE;
    request.window_bytes = WINDOW;
    assert_int_equal(get(scene), 0);
    size_t before = heap_bytes();
    struct fetch_stream *stream = open_stream(scene, &request);
    for (;;) {
        assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
        if (piece.size == 0)
            break;
        assert_bytes(piece, got);
        got += piece.size;
        assert_in_range(piece.size, 1, WINDOW);
        /* Slow at times: everything that may wait, waits. */
        if (got < LARGE / 2)
            assert_int_equal(got % 7 == 0 ? fiber_sleep_ms(3) : fiber_yield(), 0);
        size_t now = heap_bytes();
        most = now > before && now - before > most ? now - before : most;
    }
    assert_int_equal(got, LARGE);
    /* Window, piece, libcurl's buffer, and what it has kept back. */
    assert_in_range(most, WINDOW, 2 * WINDOW + 64 * 1024);
    fetch_end(stream);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 1);
}

static void a_large_answer_to_a_slow_reader_takes_little_memory(void **state)
{
    (void)state;
    RUN_MORE(play_slow_reader, send_large, {OK_HELLO, KEEP}, {HEAD("Content-Length: 67108864\r\n"), MORE},
             {OK_HELLO, KEEP});
}

/* A reader that does not read at all. */
static void play_no_reader(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.max_body_bytes = SIZE_MAX;
    assert_int_equal(get(scene), 0);
    size_t before = heap_bytes();
    struct fetch_stream *stream = open_stream(scene, &request);
    size_t sent = 0;
    for (int quiet = 0; quiet < 10; quiet = sent == scene->server.sent ? quiet + 1 : 0) {
        sent = scene->server.sent;
        assert_int_equal(fiber_sleep_ms(20), 0);
    }
    assert_in_range(heap_bytes(), before + FETCH_WINDOW, before + FETCH_WINDOW + 64 * 1024);
    struct str piece;
    assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
    assert_in_range(piece.size, FETCH_WINDOW - 32 * 1024, FETCH_WINDOW);
    fetch_end(stream);
    await_connection_end(&scene->server);
}

static void an_answer_that_nobody_reads_is_not_taken(void **state)
{
    (void)state;
    RUN_MORE(play_no_reader, pour, {OK_HELLO, KEEP}, {HEAD(""), MORE});
}

/* ---- pauses ---- */

enum { JUMBLE = 400000 };

static unsigned next_random(unsigned *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static void fill(char *bytes, size_t at, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_at(at + i);
}

static bool send_jumble(int socket, unsigned seed, bool chunked)
{
    char bytes[9000 + 16];
    for (size_t at = 0; at < JUMBLE;) {
        size_t size = 1 + next_random(&seed) % (next_random(&seed) % 4 ? 40 : 9000);
        if (size > JUMBLE - at)
            size = JUMBLE - at;
        int head = chunked ? sprintf(bytes, "%zx\r\n", size) : 0;
        fill(bytes + head, at, size);
        if (chunked)
            memcpy(bytes + (size_t)head + size, "\r\n", 2);
        if (!send_all(socket, str_of(bytes, (size_t)head + size + (chunked ? 2 : 0))))
            return false;
        at += size;
    }
    return !chunked || send_all(socket, STR("0\r\n\r\n"));
}

static bool jumble_chunked(struct server *server, int socket)
{
    return send_jumble(socket, server->requests, true);
}

static bool jumble_plain(struct server *server, int socket)
{
    return send_jumble(socket, server->requests, false);
}

static void play_jumble(struct scene *scene)
{
    unsigned seed = 7;
    for (int round = 0; round < 12; round++) {
        struct fetch_request request = request_to(scene, "GET", "/");
        request.window_bytes = 1 + next_random(&seed) % 30000;
        struct fetch_stream *stream = open_stream(scene, &request);
        struct str piece;
        size_t got = 0;
        do {
            assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
            assert_bytes(piece, got);
            got += piece.size;
            unsigned nap = next_random(&seed) % 16;
            if (nap < 4)
                assert_int_equal(nap ? fiber_yield() : fiber_sleep_ms(1), 0);
        } while (piece.size);
        assert_int_equal(got, JUMBLE);
        fetch_end(stream);
    }
    assert_int_equal(scene->server.accepts, 1);
}

static void pausing_loses_and_doubles_nothing(void **state)
{
    (void)state;
    RUN_MORE(play_jumble, jumble_chunked, {OK_CHUNKED, MORE});
    RUN_MORE(play_jumble, jumble_plain, {HEAD("Content-Length: 400000\r\n"), MORE});
}

/* ---- peers that go wrong ---- */

static void play_broken(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    struct buf body = {0};
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_int_equal(read_all(stream, &body), -ECONNRESET);
    assert_str(buf_str(&body), "hel");
    assert_int_equal(read_all(stream, &body), -ECONNRESET);
    fetch_end(stream);
    buf_clear(&body);
    assert_int_equal(get(scene), 0);
    assert_str(scene->answer.body, "hello");
    assert_int_equal(scene->server.accepts, 2);
}

static void what_came_before_a_break_is_given_first(void **state)
{
    (void)state;
    RUN(play_broken, {HEAD("Content-Length: 5\r\n") "hel", CLOSE}, {OK_HELLO, KEEP});
    RUN(play_broken, {OK_CHUNKED "3\r\nhel\r\n", CLOSE}, {OK_HELLO, KEEP});
    RUN(play_broken, {OK_CHUNKED "3\r\nhel\r\n5\r\n", RESET}, {OK_HELLO, KEEP});
    RUN(play_broken, {OK_CHUNKED "3\r\nhel\r\nxyz\r\n", HOLD}, {OK_HELLO, KEEP});
    RUN(play_broken, {OK_CHUNKED "3\r\nhello\r\n", HOLD}, {OK_HELLO, KEEP});
    RUN(play_broken, {OK_CHUNKED "3\r\nhel\r\nfffffffffffffffffffff\r\n", HOLD}, {OK_HELLO, KEEP});
}

static void play_no_head(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "POST", "/");
    struct fetch_stream *stream;
    assert_int_equal(fetch_open(&request, &scene->arena, &stream), -ECONNABORTED);
    assert_null(stream);
    assert_int_equal(fetch_open(&request, &scene->arena, &stream), -ECONNRESET);
    assert_null(stream);
}

static void a_break_before_the_header_is_told_by_open(void **state)
{
    (void)state;
    RUN(play_no_head, {"", CLOSE}, {"HTTP/1.1 200 OK\r\n", RESET});
}

/* What comes behind the end is not the next request's answer. */
static void play_excess(struct scene *scene)
{
    assert_int_equal(get(scene), 0);
    assert_str(scene->answer.body, "hello");
    assert_int_equal(get(scene), 0);
    assert_str(scene->answer.body, "right");
}

static void bytes_behind_an_answer_are_no_answer(void **state)
{
    (void)state;
    RUN(play_excess, {OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", KEEP},
        {HEAD("Content-Length: 5\r\n") "right", KEEP});
    RUN(play_excess,
        {OK_CHUNKED "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", KEEP},
        {HEAD("Content-Length: 5\r\n") "right", KEEP});
    /* More than is read at once. */
    struct buf reply = {0};
    buf_add_text(&reply, OK_HELLO);
    while (reply.size < 60000)
        buf_add_text(&reply, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong");
    buf_add_char(&reply, '\0');
    RUN(play_excess, {reply.at, KEEP}, {HEAD("Content-Length: 5\r\n") "right", KEEP});
    buf_clear(&reply);
}

static bool endless_fields(struct server *server, int socket)
{
    (void)server;
    while (send_all(socket, STR("X-More: and more, and more, and more\r\n")))
        continue;
    return false;
}

static bool endless_interims(struct server *server, int socket)
{
    (void)server;
    while (send_all(socket, STR("HTTP/1.1 102 Processing\r\n\r\n")))
        continue;
    return false;
}

static bool endless_field(struct server *server, int socket)
{
    (void)server;
    while (send_all(socket, STR("and more, and more, and more, and more, and more, and more, and more")))
        continue;
    return false;
}

static void play_endless_head(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    struct fetch_stream *stream;
    size_t before = heap_bytes();
    int result = fetch_open(&request, &scene->arena, &stream);
    assert_true(result == -EMSGSIZE || result == -EIO);
    assert_null(stream);
    await_connection_end(&scene->server);
    assert_true(heap_bytes() < before + 512 * 1024);
}

static void an_endless_header_is_given_up(void **state)
{
    (void)state;
    RUN_MORE(play_endless_head, endless_fields, {"HTTP/1.1 200 OK\r\n", MORE});
    RUN_MORE(play_endless_head, endless_interims, {"", MORE});
    RUN_MORE(play_endless_head, endless_field, {"HTTP/1.1 200 OK\r\nX-Long: ", MORE});
}

static void play_coded(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    struct fetch_stream *stream;
    assert_int_equal(fetch_open(&request, &scene->arena, &stream), -EIO);
    assert_int_equal(get(scene), -EIO);
}

static void a_coding_that_could_inflate_is_refused(void **state)
{
    (void)state;
    RUN(play_coded, {HEAD("Transfer-Encoding: gzip, chunked\r\n"), HOLD});
    RUN(play_coded, {HEAD("Transfer-Encoding: deflate\r\n"), HOLD});
}

/* ---- giving up ---- */

struct victim {
    struct scene *scene;
    struct group group;
    void (*at_read)(struct victim *); /* NULL: reads on */
    int opened;
    int read;
};

static void stream_as_victim(void *arg)
{
    struct victim *victim = arg;
    struct arena arena;
    struct fetch_stream *stream;
    struct str piece;
    struct fetch_request request = request_to(victim->scene, "GET", "/");
    request.max_body_bytes = SIZE_MAX;
    arena_init(&arena);
    victim->opened = fetch_open(&request, &arena, &stream);
    if (victim->opened == 0 && victim->at_read)
        victim->at_read(victim);
    while (victim->opened == 0 && victim->read == 0)
        victim->read = fetch_read(stream, &piece, CLOCK_NEVER);
    fetch_end(stream);
    arena_clear(&arena);
    group_done(&victim->group);
}

static struct fiber *victim_start(struct victim *victim)
{
    group_add(&victim->group);
    return fiber_start(loop_self(), "victim", stream_as_victim, victim);
}

/* Cancels it when the server has the request and some time has gone by. */
static void victim_cancel(struct victim *victim, struct fiber *fiber)
{
    while (victim->scene->server.requests == 0)
        assert_int_equal(fiber_sleep_ms(1), 0);
    assert_int_equal(fiber_sleep_ms(20), 0);
    fiber_cancel(fiber);
    assert_int_equal(group_wait(&victim->group, "victim", CLOCK_NEVER), 0);
    await_connection_end(&victim->scene->server);
}

static void play_cancel_head(struct scene *scene)
{
    struct victim victim = {.scene = scene};
    victim_cancel(&victim, victim_start(&victim));
    assert_int_equal(victim.opened, -ECANCELED);
}

static void play_cancel_read(struct scene *scene)
{
    struct victim victim = {.scene = scene};
    victim_cancel(&victim, victim_start(&victim));
    assert_int_equal(victim.opened, 0);
    assert_int_equal(victim.read, -ECANCELED);
}

static void hang(struct victim *victim)
{
    (void)victim;
    assert_int_equal(fiber_sleep_ms(PATIENCE_S * 1000), -ECANCELED);
}

/* Window full, libcurl paused, the reader elsewhere. */
static void play_cancel_paused(struct scene *scene)
{
    struct victim victim = {.scene = scene, .at_read = hang};
    victim_cancel(&victim, victim_start(&victim));
    assert_int_equal(victim.read, -ECANCELED);
}

static void play_cancel_at_start(struct scene *scene)
{
    struct victim victim = {.scene = scene};
    fiber_cancel(victim_start(&victim));
    assert_int_equal(group_wait(&victim.group, "victim", CLOCK_NEVER), 0);
    assert_int_equal(victim.opened, -ECANCELED);
    assert_int_equal(scene->server.accepts, 0);
}

static void cancelling_works_at_every_wait(void **state)
{
    (void)state;
    RUN(play_cancel_at_start, {OK_HELLO, KEEP});
    RUN(play_cancel_head, {"", HOLD});
    RUN(play_cancel_head, {"HTTP/1.1 200 OK\r\nContent-Le", HOLD});
    RUN(play_cancel_read, {OK_CHUNKED, HOLD});
    RUN(play_cancel_read, {OK_CHUNKED "3\r\nhel\r\n", HOLD});
    RUN_MORE(play_cancel_read, pour, {HEAD(""), MORE});
    RUN_MORE(play_cancel_paused, pour, {HEAD(""), MORE});
}

static void play_end_midway(struct scene *scene)
{
    const struct fetch_request request = request_to(scene, "GET", "/");
    struct str piece;
    struct fetch_stream *stream = open_stream(scene, &request);
    fetch_end(stream);
    await_connection_end(&scene->server);
    stream = open_stream(scene, &request);
    assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
    assert_int_equal(fiber_sleep_ms(10), 0);
    fetch_end(stream);
    await_connection_end(&scene->server);
    /* A resume was asked for in this very turn. */
    stream = open_stream(scene, &request);
    assert_int_equal(fiber_sleep_ms(10), 0);
    assert_int_equal(fetch_read(stream, &piece, CLOCK_NEVER), 0);
    fetch_end(stream);
    await_connection_end(&scene->server);
    assert_int_equal(scene->server.accepts, 3);
}

static void ending_midway_closes_at_once(void **state)
{
    (void)state;
    RUN_MORE(play_end_midway, pour, {HEAD(""), MORE});
    RUN(play_end_midway, {OK_CHUNKED "3\r\nhel\r\n", HOLD});
}

/* ---- many ---- */

enum { STREAMS = 1000, ROUNDS = 5 };

struct many {
    struct group group;
    struct scene *scene;
    int port;
    int listener;
    unsigned good;
    unsigned open;
    unsigned most;
};

/* All requests first; then a piece to each, round after round. */
static void *serve_many(void *arg)
{
    struct many *many = arg;
    static int sockets[STREAMS];
    char bytes[4096];
    for (int i = 0; i < STREAMS; i++) {
        sockets[i] = accept(many->listener, NULL, NULL);
        CHECK(sockets[i] >= 0 && recv(sockets[i], bytes, sizeof bytes, 0) > 0);
        send_all(sockets[i], STR(OK_CHUNKED));
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < STREAMS; i++)
            send_all(sockets[i], STR("5\r\npiece\r\n"));
    for (int i = 0; i < STREAMS; i++) {
        send_all(sockets[i], STR("0\r\n\r\n"));
        close(sockets[i]);
    }
    return NULL;
}

static void stream_of_many(void *arg)
{
    struct many *many = arg;
    struct arena arena;
    struct buf body = {0};
    struct fetch_stream *stream;
    struct fetch_request request = request_to(many->scene, "GET", "/");
    arena_init(&arena);
    request.url = arena_printf(&arena, "http://127.0.0.1:%d/", many->port);
    int result = fetch_open(&request, &arena, &stream);
    many->open++;
    many->most = many->open > many->most ? many->open : many->most;
    if (result == 0)
        result = read_all(stream, &body);
    many->good += result == 0 && str_equal(buf_str(&body), STR("piecepiecepiecepiecepiece"));
    many->open--;
    fetch_end(stream);
    buf_clear(&body);
    arena_clear(&arena);
    group_done(&many->group);
}

static void play_many(struct scene *scene)
{
    struct many many = {.scene = scene};
    pthread_t thread;
    many.listener = bind_local("127.0.0.1", &many.port);
    assert_int_equal(listen(many.listener, STREAMS), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve_many, &many), 0);
    for (int i = 0; i < STREAMS; i++) {
        group_add(&many.group);
        fiber_start(loop_self(), "stream", stream_of_many, &many);
    }
    assert_int_equal(group_wait(&many.group, "streams", CLOCK_NEVER), 0);
    pthread_join(thread, NULL);
    close(many.listener);
    assert_int_equal(many.good, STREAMS);
    assert_in_range(many.most, STREAMS / 2, STREAMS);
}

static void a_thousand_streams_at_once(void **state)
{
    (void)state;
    RUN(play_many, {OK_HELLO, KEEP});
}

/* ---- pools ---- */

static void play_pools(struct scene *scene)
{
    static const char *const names[] = {NULL, "a", "b", "a", "b", NULL, "a"};
    struct fetch_request request = request_to(scene, "GET", "/");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        request.pool = names[i];
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    }
    assert_int_equal(scene->server.accepts, 3);
}

static void pools_share_no_connection(void **state)
{
    (void)state;
    RUN(play_pools, {OK_HELLO, KEEP});
}

/* More pools than are kept: the oldest is closed with its connection, one in use is not. */
static void play_many_pools(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.pool = "held";
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_reads(stream, "one");
    for (int i = 0; i < 140; i++) {
        request.pool = arena_printf(&scene->arena, "pool %d", i);
        request.url = "http://127.0.0.1:1/";
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -ECONNREFUSED);
    }
    assert_int_equal(get(scene), 0);
    let_go(scene);
    assert_reads(stream, "two");
    let_go(scene);
    assert_reads(stream, "");
    fetch_end(stream);
}

static void pools_that_nobody_uses_are_closed(void **state)
{
    (void)state;
    RUN_MORE(play_many_pools, say_two, {OK_CHUNKED "3\r\none\r\n", MORE}, {OK_HELLO, KEEP});
}

/* A pool that is idle is closed with its connections, one that is not isn't. */
static void play_sweep(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.pool = "held";
    struct fetch_stream *stream = open_stream(scene, &request);
    assert_reads(stream, "one");
    assert_int_equal(get(scene), 0);
    fetch_client_sweep(fetch_client_self(), CLOCK_SECOND * 3600);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 2);
    fetch_client_sweep(fetch_client_self(), 0);
    await_connection_end(&scene->server);
    let_go(scene);
    assert_reads(stream, "two");
    let_go(scene);
    assert_reads(stream, "");
    fetch_end(stream);
    assert_int_equal(get(scene), 0);
    assert_int_equal(scene->server.accepts, 3);
}

static void idle_pools_are_swept(void **state)
{
    (void)state;
    RUN_MORE(play_sweep, say_two, {OK_CHUNKED "3\r\none\r\n", MORE}, {OK_HELLO, KEEP});
}

struct queue {
    struct scene *scene;
    struct group group;
    unsigned good;
};

static void get_in_pool(void *arg)
{
    struct queue *queue = arg;
    struct arena arena;
    struct fetch_answer answer;
    struct fetch_request request = request_to(queue->scene, "GET", "/");
    arena_init(&arena);
    request.pool = "capped";
    request.pool_connections = 2;
    /* Time in the queue is not a connect's. */
    request.connect_timeout_ms = 10;
    queue->good += fetch(&request, &arena, &answer) == 0;
    arena_clear(&arena);
    group_done(&queue->group);
}

static bool say_slowly(struct server *server, int socket)
{
    (void)server;
    usleep(10000);
    return send_all(socket, STR("hello"));
}

static void play_cap(struct scene *scene)
{
    struct queue queue = {.scene = scene};
    for (int i = 0; i < 20; i++) {
        group_add(&queue.group);
        fiber_start(loop_self(), "get", get_in_pool, &queue);
    }
    assert_int_equal(group_wait(&queue.group, "queue", CLOCK_NEVER), 0);
    assert_int_equal(queue.good, 20);
    assert_int_equal(scene->server.accepts, 2);
}

static void a_pool_has_no_more_connections_than_it_may(void **state)
{
    (void)state;
    RUN_MORE(play_cap, say_slowly, {HEAD("Content-Length: 5\r\n"), MORE});
}

int main(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    fixture_begin("fetch_stream_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_one_by_one_and_the_connection_is_kept),
        cmocka_unit_test(an_answer_without_a_body_ends_at_once),
        cmocka_unit_test(a_whole_answer_keeps_its_connection),
        cmocka_unit_test(headers_are_kept_that_are_wanted),
        cmocka_unit_test(headers_that_are_kept_are_bounded),
        cmocka_unit_test(the_header_has_a_deadline_of_its_own),
        cmocka_unit_test(a_silent_peer_may_be_asked_again),
        cmocka_unit_test(the_whole_time_ends_silence_and_an_endless_answer),
        cmocka_unit_test(times_are_told_also_of_what_fails),
        cmocka_unit_test(an_endless_stream_is_cut),
        cmocka_unit_test(a_body_is_cut_where_the_request_says),
        cmocka_unit_test(a_large_answer_to_a_slow_reader_takes_little_memory),
        cmocka_unit_test(an_answer_that_nobody_reads_is_not_taken),
        cmocka_unit_test(pausing_loses_and_doubles_nothing),
        cmocka_unit_test(what_came_before_a_break_is_given_first),
        cmocka_unit_test(a_break_before_the_header_is_told_by_open),
        cmocka_unit_test(bytes_behind_an_answer_are_no_answer),
        cmocka_unit_test(an_endless_header_is_given_up),
        cmocka_unit_test(a_coding_that_could_inflate_is_refused),
        cmocka_unit_test(cancelling_works_at_every_wait),
        cmocka_unit_test(ending_midway_closes_at_once),
        cmocka_unit_test(a_thousand_streams_at_once),
        cmocka_unit_test(pools_share_no_connection),
        cmocka_unit_test(pools_that_nobody_uses_are_closed),
        cmocka_unit_test(idle_pools_are_swept),
        cmocka_unit_test(a_pool_has_no_more_connections_than_it_may),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_close();
    return failed;
}
