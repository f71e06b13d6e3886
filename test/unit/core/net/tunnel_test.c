/*
 * The rules of core/net/tunnel.h: a fiber makes two connections to a listening socket of the test's and couples them; their
 * far ends, plain sockets, play the client and the pod. Each test ends with an empty loop and as many open descriptors as
 * before.
 */
#include "core/net/tunnel.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/run/fiber.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#if !defined(__SANITIZE_ADDRESS__)
#include <malloc.h>
#endif

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
/* Of sanitizer/allocator_interface.h, which gcc has not. */
extern size_t __sanitizer_get_current_allocated_bytes(void);
#endif

enum { PATIENCE_S = 20, MIB = 1 << 20, BIG = 64 * MIB, BLOCK = 64 * 1024, HOLD_MAX = 768 * 1024 };

struct scene {
    void (*play)(struct scene *scene);
    int listener;
    struct sockaddr_in address;
    struct stream *client; /* the near ends; gone once `ended` is counted and both are closed */
    struct stream *pod;
    int descriptors; /* open beside the connections' */
    int client_end;  /* the far ends; -1 once the test has closed one */
    int pod_end;
    unsigned active;
    unsigned ended;
    uint64_t bytes_in;
    uint64_t bytes_out;
};

static int count_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void play_on_fiber(void *arg)
{
    struct scene *scene = arg;
    scene->play(scene);
}

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

static void run_scene(void (*play)(struct scene *))
{
    int before = count_descriptors();
    struct scene *scene = mem_zalloc(sizeof *scene);
    struct loop *loop = mem_zalloc(sizeof *loop);
    socklen_t size = sizeof scene->address;
    *scene = (struct scene){.play = play, .client_end = -1, .pod_end = -1};
    scene->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    scene->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(scene->listener, (struct sockaddr *)&scene->address, size) == 0);
    CHECK(getsockname(scene->listener, (struct sockaddr *)&scene->address, &size) == 0);
    CHECK(listen(scene->listener, 2) == 0);
    loop_open(loop, 0);
    fiber_main(loop, "test", play_on_fiber, scene);
    close_end(&scene->client_end);
    close_end(&scene->pod_end);
    close(scene->listener);
    stream_close_loop(loop);
    loop_close(loop);
    assert_int_equal(count_descriptors(), before);
    free(loop);
    free(scene);
}

static size_t allocated(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks + mallinfo2().hblkhd;
#endif
}

static uint64_t patience(void)
{
    return clock_in_ms(PATIENCE_S * 1000);
}

/* ---- the near ends ---- */

static void on_active(void *arg)
{
    struct scene *scene = arg;
    assert_int_equal(scene->ended, 0);
    scene->active++;
}

static void on_ended(void *arg, uint64_t bytes_in, uint64_t bytes_out)
{
    struct scene *scene = arg;
    scene->ended++;
    scene->bytes_in = bytes_in;
    scene->bytes_out = bytes_out;
}

/* What a stream tells before it is a tunnel's: that the pod may have ended already. */
static void on_early_bytes(struct stream *stream, const char *bytes, size_t size)
{
    (void)bytes;
    (void)size;
    (void)stream;
    fail_msg("bytes before the tunnel");
}

static void on_early_end(struct stream *stream, int error)
{
    (void)stream;
    assert_int_equal(error, 0);
}

static const struct stream_events early_events = {
    .bytes = on_early_bytes,
    .ended = on_early_end,
    .failed = on_early_end,
};

static struct stream *connect_near(struct scene *scene, int *far)
{
    struct stream *stream = stream_new(loop_self(), &early_events, NULL);
    assert_int_equal(stream_connect(stream, (struct sockaddr *)&scene->address, patience()), 0);
    *far = accept(scene->listener, NULL, NULL);
    assert_true(*far >= 0);
    struct timeval so_long = {.tv_sec = PATIENCE_S};
    setsockopt(*far, SOL_SOCKET, SO_RCVTIMEO, &so_long, sizeof so_long);
    setsockopt(*far, SOL_SOCKET, SO_SNDTIMEO, &so_long, sizeof so_long);
    return stream;
}

static void connect_both(struct scene *scene)
{
    scene->client = connect_near(scene, &scene->client_end);
    scene->pod = connect_near(scene, &scene->pod_end);
    scene->descriptors = count_descriptors() - 4; /* libuv has opened some of its own with the first stream */
}

static void couple(struct scene *scene, bool frames, const char *early_client, const char *early_pod)
{
    struct buf from_client = {0};
    struct buf from_pod = {0};
    struct tunnel_options options = {frames, on_active, on_ended, scene};
    buf_add_text(&from_client, early_client);
    buf_add_text(&from_pod, early_pod);
    tunnel_open(scene->client, &from_client, scene->pod, &from_pod, &options);
    assert_null(from_client.at);
    assert_null(from_pod.at);
    assert_int_equal(scene->ended, 0);
}

static void open_tunnel(struct scene *scene)
{
    connect_both(scene);
    couple(scene, false, "", "");
}

/* Lets the loop turn until the tunnel is gone, streams and all. */
static void await_end(struct scene *scene)
{
    int left = scene->descriptors + (scene->client_end >= 0) + (scene->pod_end >= 0);
    uint64_t until_ns = patience();
    while (!scene->ended || count_descriptors() > left) {
        assert_true(clock_now_ns() < until_ns);
        assert_int_equal(fiber_sleep_ms(1), 0);
    }
    assert_int_equal(fiber_sleep_ms(1), 0); /* for what would be told twice */
    assert_int_equal(scene->ended, 1);
}

static void sweep(struct scene *scene, uint64_t after_ms)
{
    uv_update_time(&loop_self()->uv);
    scene->client->events->sweep(scene->client, uv_now(&loop_self()->uv) + after_ms);
}

/* ---- the far ends ---- */

static void say(int end, const char *text)
{
    assert_int_equal(send(end, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void reset(int *end)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(*end, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close_end(end);
}

/* Exactly these bytes come, while the loop turns. */
static void hear(int end, const char *expected)
{
    char bytes[256];
    size_t size = 0;
    uint64_t until_ns = patience();
    while (size < strlen(expected)) {
        ssize_t count = recv(end, bytes + size, sizeof bytes - size, MSG_DONTWAIT);
        if (count < 0) {
            assert_int_equal(errno, EAGAIN);
            assert_true(clock_now_ns() < until_ns);
            assert_int_equal(fiber_sleep_ms(1), 0);
            continue;
        }
        assert_true(count > 0);
        size += (size_t)count;
    }
    if (!str_equal(str_of(bytes, size), str_from(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", (int)size, bytes, expected);
}

/* The end comes, in order or not. */
static int hear_end(int end)
{
    char byte;
    ssize_t count;
    uint64_t until_ns = patience();
    while ((count = recv(end, &byte, 1, MSG_DONTWAIT)) < 0 && errno == EAGAIN) {
        assert_true(clock_now_ns() < until_ns);
        assert_int_equal(fiber_sleep_ms(1), 0);
    }
    assert_true(count <= 0);
    return count < 0 ? -errno : 0;
}

/* What is sent: at any place the bytes of this from that place modulo PERIOD on; BLOCK more so that none wraps. */
enum { PERIOD = MIB };
static char pattern[PERIOD + BLOCK];

static void fill_pattern(void)
{
    for (size_t i = 0; i < PERIOD; i++)
        pattern[i] = (char)((i * 31 + i / 4096) & 0xff);
    memcpy(pattern + PERIOD, pattern, BLOCK);
}

/* A far end that writes or reads much, in a thread. */
struct worker {
    pthread_t thread;
    int end;
    size_t size;
    bool then_shut;
    _Atomic size_t done;
    _Atomic unsigned wrong; /* blocks with a byte that differed */
    _Atomic bool at_end;    /* the reader has read the end behind its last byte */
    _Atomic bool ended;
};

static void *write_much(void *arg)
{
    struct worker *worker = arg;
    while (worker->done < worker->size) {
        size_t left = worker->size - worker->done;
        ssize_t count =
            send(worker->end, pattern + worker->done % PERIOD, left < BLOCK ? left : BLOCK, MSG_NOSIGNAL);
        if (count <= 0)
            break;
        worker->done += (size_t)count;
    }
    if (worker->then_shut)
        shutdown(worker->end, SHUT_WR);
    worker->ended = true;
    return NULL;
}

static void *read_much(void *arg)
{
    struct worker *worker = arg;
    char *block = mem_alloc(BLOCK);
    ssize_t count;
    while (worker->done < worker->size && (count = recv(worker->end, block, BLOCK, 0)) > 0) {
        if (memcmp(block, pattern + worker->done % PERIOD, (size_t)count) != 0)
            worker->wrong++;
        worker->done += (size_t)count;
    }
    worker->at_end = worker->then_shut && recv(worker->end, block, 1, 0) == 0;
    free(block);
    worker->ended = true;
    return NULL;
}

static void worker_start(struct worker *worker, void *(*run)(void *), int end, size_t size, bool then_shut)
{
    *worker = (struct worker){.end = end, .size = size, .then_shut = then_shut};
    CHECK(pthread_create(&worker->thread, NULL, run, worker) == 0);
}

static void worker_join(struct worker *worker)
{
    uint64_t until_ns = patience();
    while (!worker->ended) {
        assert_true(clock_now_ns() < until_ns);
        assert_int_equal(fiber_sleep_ms(1), 0);
    }
    pthread_join(worker->thread, NULL);
    assert_int_equal(worker->done, worker->size);
    assert_int_equal(worker->wrong, 0);
}

/* Lets the loop turn until the writer can write no more. */
static void await_standstill(struct worker *writer)
{
    size_t last = 0;
    for (int still = 0; still < 20;) {
        assert_int_equal(fiber_sleep_ms(2), 0);
        still = writer->done && writer->done == last ? still + 1 : 0;
        last = writer->done;
    }
}

/* ---- passing on ---- */

static void play_both_ways(struct scene *scene)
{
    open_tunnel(scene);
    say(scene->client_end, "hello");
    hear(scene->pod_end, "hello");
    assert_true(scene->active > 0);
    say(scene->pod_end, "good day");
    hear(scene->client_end, "good day");
    assert_true(scene->active > 1);
    close_end(&scene->client_end);
    assert_int_equal(hear_end(scene->pod_end), 0);
    close_end(&scene->pod_end);
    await_end(scene);
    assert_int_equal(scene->bytes_in, 5);
    assert_int_equal(scene->bytes_out, 8);
}

static void bytes_pass_both_ways_and_are_counted(void **state)
{
    (void)state;
    run_scene(play_both_ways);
}

static void play_early(struct scene *scene)
{
    connect_both(scene);
    say(scene->client_end, "late");
    say(scene->pod_end, "later");
    couple(scene, false, "early ", "earlier ");
    hear(scene->pod_end, "early late");
    hear(scene->client_end, "earlier later");
    close_end(&scene->pod_end);
    assert_int_equal(hear_end(scene->client_end), 0);
    close_end(&scene->client_end);
    await_end(scene);
    assert_int_equal(scene->bytes_in, 10);
    assert_int_equal(scene->bytes_out, 13);
}

static void what_came_early_passes_first(void **state)
{
    (void)state;
    run_scene(play_early);
}

/* ---- ending ---- */

static void play_client_is_done(struct scene *scene)
{
    open_tunnel(scene);
    say(scene->client_end, "request");
    shutdown(scene->client_end, SHUT_WR);
    hear(scene->pod_end, "request");
    assert_int_equal(hear_end(scene->pod_end), 0);
    say(scene->pod_end, "answer, ");
    hear(scene->client_end, "answer, ");
    say(scene->pod_end, "its end");
    shutdown(scene->pod_end, SHUT_WR);
    hear(scene->client_end, "its end");
    assert_int_equal(hear_end(scene->client_end), 0);
    await_end(scene);
    assert_int_equal(scene->bytes_in, 7);
    assert_int_equal(scene->bytes_out, 15);
}

static void play_pod_is_done(struct scene *scene)
{
    open_tunnel(scene);
    say(scene->pod_end, "greeting");
    shutdown(scene->pod_end, SHUT_WR);
    hear(scene->client_end, "greeting");
    assert_int_equal(hear_end(scene->client_end), 0);
    say(scene->client_end, "thanks");
    hear(scene->pod_end, "thanks");
    close_end(&scene->client_end);
    assert_int_equal(hear_end(scene->pod_end), 0);
    await_end(scene);
}

static void one_direction_may_end_before_the_other(void **state)
{
    (void)state;
    run_scene(play_client_is_done);
    run_scene(play_pod_is_done);
}

static void await_near_end(struct stream *stream)
{
    uint64_t until_ns = patience();
    stream_read(stream, true);
    while (!stream->ended) {
        assert_true(clock_now_ns() < until_ns);
        assert_int_equal(fiber_sleep_ms(1), 0);
    }
}

static void play_pod_had_ended(struct scene *scene)
{
    connect_both(scene);
    shutdown(scene->pod_end, SHUT_WR);
    await_near_end(scene->pod);
    couple(scene, false, "", "last words");
    hear(scene->client_end, "last words");
    assert_int_equal(hear_end(scene->client_end), 0);
    say(scene->client_end, "farewell");
    shutdown(scene->client_end, SHUT_WR);
    hear(scene->pod_end, "farewell");
    assert_int_equal(hear_end(scene->pod_end), 0);
    await_end(scene);
}

static void play_both_had_ended(struct scene *scene)
{
    connect_both(scene);
    shutdown(scene->pod_end, SHUT_WR);
    shutdown(scene->client_end, SHUT_WR);
    await_near_end(scene->pod);
    await_near_end(scene->client);
    couple(scene, false, "in", "");
    hear(scene->pod_end, "in");
    assert_int_equal(hear_end(scene->pod_end), 0);
    assert_int_equal(hear_end(scene->client_end), 0);
    await_end(scene);
}

static void a_side_that_had_ended_before_is_noticed(void **state)
{
    (void)state;
    run_scene(play_pod_had_ended);
    run_scene(play_both_had_ended);
}

static void play_pod_fails(struct scene *scene)
{
    open_tunnel(scene);
    say(scene->client_end, "hello");
    hear(scene->pod_end, "hello");
    say(scene->pod_end, "last words");
    reset(&scene->pod_end); /* in the same turn, so they are still queued when it is seen */
    hear(scene->client_end, "last words");
    assert_true(hear_end(scene->client_end) <= 0);
    await_end(scene);
}

static void play_client_fails(struct scene *scene)
{
    open_tunnel(scene);
    say(scene->client_end, "last words");
    reset(&scene->client_end);
    hear(scene->pod_end, "last words");
    assert_true(hear_end(scene->pod_end) <= 0);
    await_end(scene);
}

static void when_one_side_fails_both_are_closed(void **state)
{
    (void)state;
    run_scene(play_pod_fails);
    run_scene(play_client_fails);
}

/* It is not read, so the failure shows when something is written to it. */
static void play_writing_fails(struct scene *scene)
{
    open_tunnel(scene);
    shutdown(scene->pod_end, SHUT_WR);
    assert_int_equal(hear_end(scene->client_end), 0);
    reset(&scene->pod_end);
    uint64_t until_ns = patience();
    while (!scene->ended && clock_now_ns() < until_ns) {
        send(scene->client_end, "x", 1, MSG_NOSIGNAL);
        assert_int_equal(fiber_sleep_ms(1), 0);
    }
    await_end(scene);
}

static void a_side_that_takes_nothing_any_more_ends_the_tunnel(void **state)
{
    (void)state;
    run_scene(play_writing_fails);
}

static void play_cut(struct scene *scene)
{
    open_tunnel(scene);
    assert_null(scene->client->events->drain);
    say(scene->client_end, "hello");
    hear(scene->pod_end, "hello");
    scene->client->events->cut(scene->client);
    assert_int_equal(hear_end(scene->client_end), 0);
    assert_int_equal(hear_end(scene->pod_end), 0);
    await_end(scene);
}

static void a_cut_closes_both(void **state)
{
    (void)state;
    run_scene(play_cut);
}

/* ---- frames ---- */

static void play_frames(struct scene *scene)
{
    connect_both(scene);
    couple(scene, true, "\x89\x81xxxxa", "");
    hear(scene->pod_end, "\x89\x81xxxxa");
    assert_int_equal(scene->active, 0);
    say(scene->pod_end, "\x8a\x01z"); /* a pong */
    hear(scene->client_end, "\x8a\x01z");
    assert_int_equal(scene->active, 0);
    say(scene->client_end, "\x81"); /* a text, in two pieces */
    hear(scene->pod_end, "\x81");
    assert_int_equal(scene->active, 0);
    say(scene->client_end, "\x82xxxxhi");
    hear(scene->pod_end, "\x82xxxxhi");
    assert_int_equal(scene->active, 1);
    say(scene->pod_end, "\x89\x01z\x82\x01y\x89\x01z"); /* a binary one between pings */
    hear(scene->client_end, "\x89\x01z\x82\x01y\x89\x01z");
    assert_int_equal(scene->active, 2);
    say(scene->pod_end, "\x88\x02zz");
    close_end(&scene->client_end);
    close_end(&scene->pod_end);
    await_end(scene);
    assert_int_equal(scene->active, 2);
}

static void of_frames_only_data_is_activity(void **state)
{
    (void)state;
    run_scene(play_frames);
}

/* ---- much ---- */

static void play_much_both_ways(struct scene *scene)
{
    struct worker writers[2];
    struct worker readers[2];
    open_tunnel(scene);
    worker_start(&readers[0], read_much, scene->pod_end, BIG, true);
    worker_start(&readers[1], read_much, scene->client_end, BIG, true);
    worker_start(&writers[0], write_much, scene->client_end, BIG, true);
    worker_start(&writers[1], write_much, scene->pod_end, BIG, true);
    for (int i = 0; i < 2; i++) {
        worker_join(&writers[i]);
        worker_join(&readers[i]);
        assert_true(readers[i].at_end);
    }
    await_end(scene);
    assert_int_equal(scene->bytes_in, BIG);
    assert_int_equal(scene->bytes_out, BIG);
}

static void much_passes_both_ways_at_once_unharmed(void **state)
{
    (void)state;
    run_scene(play_much_both_ways);
}

/* The pod writes as fast as it can and ends; the client reads nothing for a while. */
static void play_slow_client(struct scene *scene)
{
    struct worker writer;
    struct worker reader;
    size_t before = allocated();
    open_tunnel(scene);
    worker_start(&writer, write_much, scene->pod_end, BIG, true);
    await_standstill(&writer);
    assert_true(writer.done < BIG);
    size_t held = allocated() - before;
    if (held > HOLD_MAX)
        fail_msg("%zu bytes held", held);
    say(scene->client_end, "still here"); /* the other way is free */
    hear(scene->pod_end, "still here");
    worker_start(&reader, read_much, scene->client_end, BIG, true);
    worker_join(&writer);
    worker_join(&reader);
    assert_true(reader.at_end);
    close_end(&scene->client_end);
    await_end(scene);
}

static void a_slow_reader_holds_little_and_loses_nothing(void **state)
{
    (void)state;
    run_scene(play_slow_client);
}

/* ---- time ---- */

static void play_stalled(struct scene *scene)
{
    struct worker writer;
    open_tunnel(scene);
    worker_start(&writer, write_much, scene->client_end, BIG, false);
    await_standstill(&writer);
    uint64_t limit_ms = (uint64_t)config->write_timeout_s * 1000;
    sweep(scene, 0);
    sweep(scene, limit_ms / 2);
    assert_int_equal(scene->ended, 0);
    sweep(scene, limit_ms + 1);
    assert_int_equal(scene->ended, 1);
    pthread_join(writer.thread, NULL);
    await_end(scene);
}

static void a_side_that_stalls_ends_the_tunnel(void **state)
{
    (void)state;
    run_scene(play_stalled);
}

static void play_half_dead(struct scene *scene)
{
    uint64_t limit_ms = (uint64_t)config->proxy_timeout_s * 1000;
    open_tunnel(scene);
    sweep(scene, 100 * limit_ms); /* whole, it may be silent as long as it likes */
    assert_int_equal(scene->ended, 0);
    shutdown(scene->client_end, SHUT_WR);
    assert_int_equal(hear_end(scene->pod_end), 0);
    sweep(scene, 0);
    sweep(scene, limit_ms / 2);
    say(scene->pod_end, "not yet");
    hear(scene->client_end, "not yet");
    sweep(scene, limit_ms + 1000);
    assert_int_equal(scene->ended, 0);
    sweep(scene, 2 * limit_ms + 2000);
    assert_int_equal(scene->ended, 1);
    await_end(scene);
}

static void half_a_tunnel_may_not_be_silent_for_ever(void **state)
{
    (void)state;
    run_scene(play_half_dead);
}

/* libuv opens descriptors of its own with the first loop. */
static void open_first_loop(void)
{
    struct loop loop;
    loop_open(&loop, 0);
    loop_close(&loop);
}

int main(void)
{
    char error[256];
    signal(SIGPIPE, SIG_IGN);
    CHECK(config_load(NULL, error, sizeof error) == 0);
    open_first_loop();
    fill_pattern();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_pass_both_ways_and_are_counted),
        cmocka_unit_test(what_came_early_passes_first),
        cmocka_unit_test(one_direction_may_end_before_the_other),
        cmocka_unit_test(a_side_that_had_ended_before_is_noticed),
        cmocka_unit_test(when_one_side_fails_both_are_closed),
        cmocka_unit_test(a_side_that_takes_nothing_any_more_ends_the_tunnel),
        cmocka_unit_test(a_cut_closes_both),
        cmocka_unit_test(of_frames_only_data_is_activity),
        cmocka_unit_test(much_passes_both_ways_at_once_unharmed),
        cmocka_unit_test(a_slow_reader_holds_little_and_loses_nothing),
        cmocka_unit_test(a_side_that_stalls_ends_the_tunnel),
        cmocka_unit_test(half_a_tunnel_may_not_be_silent_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
