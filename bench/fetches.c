/*
 * HTTP calls to a server on 127.0.0.1, or streams from it, on one thread: by fetch() of core/net/fetch.h on fibers, or by
 * libcurl's multi interface on epoll as its documentation shows it. And the server of the streams.
 *
 *     fetches PORT calls|chunks fetch|plain AT_ONCE SECONDS
 *     figures DONE FAILED DURATION_US CPU_US
 *
 *     fetches serve CHUNKS_PER_SECOND
 *     port PORT
 *
 * A call is a POST of some hundred bytes with the headers of a webhook; a stream never ends, and a chunk is one event of it.
 * The server sends each of its streams a chunk in turn, at a rate that it keeps: so each arrives alone, as tokens do, and what
 * counts is the time of the CPU.
 */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/net/fetch.h"
#include "core/run/fiber.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE_MAX = 4096, CHUNK_SIZE = 110, BODY_SIZE = 400, ANSWER_MAX = 65536 };

#define CHUNK_HEAD "64\r\ndata: "
#define CHUNK_TAIL "\n\n\r\n"

static struct {
    char url[64];
    char body[BODY_SIZE + 1];
    bool chunks;
    unsigned at_once;
    uint64_t ends_ns;
} plan;

static struct {
    uint64_t done;
    uint64_t failed;
} figures;

static const char *const headers[] = {"Content-Type: application/json",
                                      "User-Agent: Wakegate",
                                      "webhook-id: msg_2b7c1f0e5d6a4c3b",
                                      "webhook-timestamp: 1735689600",
                                      "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                                      NULL};

/* ---- by fetch() ---- */

static struct fetch_request request_new(void)
{
    return (struct fetch_request){
        .method = "POST",
        .url = plan.url,
        .body = str_of(plan.body, BODY_SIZE),
        .headers = headers,
        .connect_timeout_ms = 5000,
        .total_timeout_ms = 600000,
        .max_body_bytes = plan.chunks ? SIZE_MAX : ANSWER_MAX,
    };
}

static void call_by_fetch(struct arena *arena)
{
    const struct fetch_request request = request_new();
    struct fetch_answer answer;
    if (fetch(&request, arena, &answer) == 0 && answer.status == 200)
        figures.done++;
    else
        figures.failed++;
}

static void stream_by_fetch(struct arena *arena)
{
    const struct fetch_request request = request_new();
    struct fetch_stream *stream;
    struct str piece;
    uint64_t bytes = 0;
    if (fetch_open(&request, arena, &stream)) {
        figures.failed++;
        return;
    }
    while (clock_now_ns() < plan.ends_ns && fetch_read(stream, &piece, plan.ends_ns) == 0 && piece.size)
        bytes += piece.size;
    figures.done += bytes / 100;
    fetch_end(stream);
}

static unsigned running;

static void run_by_fetch(void *arg)
{
    (void)arg;
    struct arena arena;
    arena_init(&arena);
    do {
        plan.chunks ? stream_by_fetch(&arena) : call_by_fetch(&arena);
        arena_clear(&arena);
    } while (clock_now_ns() < plan.ends_ns && figures.failed < plan.at_once);
    if (--running == 0)
        loop_stop(loop_self());
}

static void measure_fetch(void)
{
    struct loop loop;
    fetch_init();
    log_open("fetches", LOG_ERROR);
    loop_open(&loop, 0);
    running = plan.at_once;
    for (unsigned i = 0; i < plan.at_once; i++)
        fiber_start(&loop, "fetch", run_by_fetch, NULL);
    loop_run(&loop);
    fetch_close_loop(&loop);
    loop_close(&loop);
    log_close();
}

/* ---- by libcurl alone ---- */

struct plain {
    CURL *easy;
    struct curl_slist *headers;
    char answer[ANSWER_MAX];
    size_t size;
};

static struct {
    CURLM *multi;
    int epoll;
    uint64_t timer_ns;
    struct plain *calls;
} plain;

static int on_socket(CURL *easy, curl_socket_t descriptor, int what, void *arg, void *known)
{
    (void)easy;
    (void)arg;
    struct epoll_event event = {
        .events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
        .data.fd = descriptor,
    };
    if (what == CURL_POLL_REMOVE)
        epoll_ctl(plain.epoll, EPOLL_CTL_DEL, descriptor, NULL);
    else
        epoll_ctl(plain.epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &event);
    curl_multi_assign(plain.multi, descriptor, what == CURL_POLL_REMOVE ? NULL : &plain);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    (void)arg;
    plain.timer_ns = timeout_ms < 0 ? CLOCK_NEVER : clock_in_ms((uint64_t)timeout_ms);
    return 0;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *arg)
{
    (void)one;
    struct plain *call = arg;
    if (plan.chunks) {
        call->size += size;
        return size;
    }
    if (size > sizeof call->answer - call->size)
        return 0;
    memcpy(call->answer + call->size, bytes, size);
    call->size += size;
    return size;
}

static void plain_start(struct plain *call)
{
    call->size = 0;
    curl_easy_setopt(call->easy, CURLOPT_URL, plan.url);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE, (long)BODY_SIZE);
    curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, plan.body);
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
    curl_multi_add_handle(plain.multi, call->easy);
}

static void plain_open(struct plain *call)
{
    call->easy = curl_easy_init();
    for (size_t i = 0; headers[i]; i++)
        call->headers = curl_slist_append(call->headers, headers[i]);
    call->headers = curl_slist_append(call->headers, "Expect:");
    curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(call->easy, CURLOPT_NOSIGNAL, 1L);
    plain_start(call);
}

static void plain_finish(void)
{
    const CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(plain.multi, &left)) != NULL) {
        struct plain *call = NULL;
        long status = 0;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)(void *)&call);
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        figures.done += code == CURLE_OK && status == 200;
        figures.failed += code != CURLE_OK || status != 200;
        curl_multi_remove_handle(plain.multi, call->easy);
        if (clock_now_ns() < plan.ends_ns)
            plain_start(call);
    }
}

static void measure_plain(void)
{
    struct epoll_event events[256];
    int live;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    plain.multi = curl_multi_init();
    plain.epoll = epoll_create1(EPOLL_CLOEXEC);
    plain.timer_ns = CLOCK_NEVER;
    plain.calls = mem_zalloc(plan.at_once * sizeof *plain.calls);
    curl_multi_setopt(plain.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(plain.multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(plain.multi, CURLMOPT_MAXCONNECTS, 4096L);
    for (unsigned i = 0; i < plan.at_once; i++)
        plain_open(&plain.calls[i]);
    for (uint64_t now_ns = 0; now_ns < plan.ends_ns && figures.failed < plan.at_once;
         now_ns = clock_now_ns()) {
        uint64_t until_ns = plain.timer_ns < plan.ends_ns ? plain.timer_ns : plan.ends_ns;
        now_ns = clock_now_ns();
        int wait_ms = until_ns <= now_ns ? 0 : (int)((until_ns - now_ns) / CLOCK_MS) + 1;
        int count = epoll_wait(plain.epoll, events, 256, wait_ms);
        for (int i = 0; i < count; i++) {
            unsigned what = events[i].events;
            curl_multi_socket_action(
                plain.multi, events[i].data.fd,
                (what & EPOLLIN ? CURL_CSELECT_IN : 0) | (what & EPOLLOUT ? CURL_CSELECT_OUT : 0), &live);
        }
        if (plain.timer_ns <= clock_now_ns()) {
            plain.timer_ns = CLOCK_NEVER;
            curl_multi_socket_action(plain.multi, CURL_SOCKET_TIMEOUT, 0, &live);
        }
        plain_finish();
    }
    for (unsigned i = 0; plan.chunks && i < plan.at_once; i++)
        figures.done += plain.calls[i].size / 100;
}

/* ---- the server of streams ---- */

static int listen_local(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, AT_ONCE_MAX) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        abort();
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

/* The request is not looked at: it is small, and there in one piece. */
static int accept_stream(int listener)
{
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    char request[4096];
    int one = 1;
    int stream = accept(listener, NULL, NULL);
    setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (recv(stream, request, sizeof request, 0) <= 0 ||
        send(stream, head, sizeof head - 1, MSG_NOSIGNAL) <= 0) {
        close(stream);
        return -1;
    }
    return stream;
}

static void serve(unsigned per_second)
{
    static int streams[AT_ONCE_MAX];
    unsigned count = 0;
    char chunk[CHUNK_SIZE];
    memset(chunk, 'x', sizeof chunk);
    memcpy(chunk, CHUNK_HEAD, strlen(CHUNK_HEAD));
    size_t size = 4 + 100 + 2;
    memcpy(chunk + size - strlen(CHUNK_TAIL), CHUNK_TAIL, strlen(CHUNK_TAIL));
    struct pollfd incoming = {.fd = listen_local(), .events = POLLIN};
    uint64_t next_ns = clock_now_ns();
    for (unsigned at = 0;; at = count ? (at + 1) % count : 0) {
        uint64_t now_ns = clock_now_ns();
        bool idle = count == 0 || now_ns < next_ns;
        while ((at == 0 || idle) && count < AT_ONCE_MAX && poll(&incoming, 1, count == 0 ? -1 : 0) > 0) {
            streams[count] = accept_stream(incoming.fd);
            count += streams[count] >= 0;
        }
        while (clock_now_ns() < next_ns)
            continue;
        /* After a pause it does not catch up. */
        next_ns = (count ? next_ns + CLOCK_SECOND / per_second : 0);
        if (next_ns + CLOCK_MS * 100 < now_ns)
            next_ns = now_ns;
        if (count && send(streams[at], chunk, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN) {
            close(streams[at]);
            streams[at] = streams[--count];
            at = 0;
        }
    }
}

/* ---- both ---- */

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        serve((unsigned)strtoul(argv[2], NULL, 10));
    if (argc != 6) {
        fprintf(stderr,
                "usage: fetches PORT calls|chunks fetch|plain AT_ONCE SECONDS | serve CHUNKS_PER_SECOND\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    snprintf(plan.url, sizeof plan.url, "http://127.0.0.1:%s/health", argv[1]);
    memset(plan.body, 'x', BODY_SIZE);
    plan.chunks = strcmp(argv[2], "chunks") == 0;
    plan.at_once = (unsigned)strtoul(argv[4], NULL, 10);
    if (plan.at_once < 1 || plan.at_once > AT_ONCE_MAX)
        return 2;
    uint64_t began_ns = clock_now_ns();
    uint64_t cpu_before_us = cpu_us();
    plan.ends_ns = began_ns + strtoull(argv[5], NULL, 10) * CLOCK_SECOND;
    strcmp(argv[3], "fetch") == 0 ? measure_fetch() : measure_plain();
    printf("figures %llu %llu %llu %llu\n", (unsigned long long)figures.done,
           (unsigned long long)figures.failed, (unsigned long long)((clock_now_ns() - began_ns) / 1000),
           (unsigned long long)(cpu_us() - cpu_before_us));
    return 0;
}
