/*
 * Calls of an HTTP API over kept connections: as many as go, or so many a second.
 *
 *     calls PORT PATH KEY BODY SECONDS CONNECTIONS RATE
 *
 * POSTs BODY to PATH, with KEY as a bearer token. With RATE 0 each connection asks again as soon as it has its answer; otherwise RATE
 * calls a second begin at even times, whatever becomes of those before, on a connection that is idle, of which there are at most
 * CONNECTIONS. Prints
 *
 *     figures CALLS DURATION_US P50_US P99_US FIRST_P50_US FIRST_P99_US CPU_US
 *
 * with the times from the sending of a request to the last and to the first byte of its answer's body. An answer other than 200, and a
 * connection that ends, ends it with status 1. Answers are told to be over by their Content-Length or by their last chunk.
 */
#include "bench/times.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, ANSWER_MAX = 1 << 20, SAMPLES_MAX = 1 << 22, STALL_MS = 20000 };

struct connection {
    int descriptor;
    bool busy;
    uint64_t sent_us;
    uint64_t first_us;
    size_t size;  /* of the answer so far */
    size_t head;  /* of its header; 0: not all there */
    size_t whole; /* of all of it; 0: chunked */
    char *answer;
    struct connection *next; /* that is idle */
};

static struct sockaddr_in server;
static struct connection *connections;
static struct connection *idle;
static size_t made;
static size_t most;
static int epoll;
static char *request;
static size_t request_size;
static uint32_t *whole_us;
static uint32_t *first_us;
static size_t samples;
static size_t in_flight;

static void fail(const char *what, const struct connection *connection)
{
    fprintf(stderr, "calls: %s\n%.*s\n", what, connection ? (int)connection->size : 0,
            connection ? connection->answer : "");
    exit(1);
}

static struct connection *open_connection(void)
{
    struct connection *connection = &connections[made++];
    int one = 1;
    connection->descriptor = socket(AF_INET, SOCK_STREAM, 0);
    connection->answer = malloc(ANSWER_MAX + 1);
    if (connection->descriptor < 0 || !connection->answer ||
        connect(connection->descriptor, (const struct sockaddr *)&server, sizeof server) != 0)
        fail("the server can't be reached", NULL);
    setsockopt(connection->descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(connection->descriptor, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->descriptor, &event) != 0)
        fail("epoll", NULL);
    return connection;
}

/* False: all connections are busy. */
static bool begin_call(void)
{
    struct connection *connection = idle;
    if (connection)
        idle = connection->next;
    else if (made < most)
        connection = open_connection();
    else
        return false;
    connection->busy = true;
    connection->size = connection->head = connection->whole = 0;
    connection->first_us = 0;
    connection->sent_us = now_us();
    in_flight++;
    if (send(connection->descriptor, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size)
        fail("a request could not be sent", connection);
    return true;
}

static void read_head(struct connection *connection)
{
    connection->answer[connection->size] = '\0';
    const char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end)
        return;
    connection->head = (size_t)(end - connection->answer) + 4;
    if (strncmp(connection->answer, "HTTP/1.1 200", 12) != 0)
        fail("an answer is none", connection);
    const char *length = strcasestr(connection->answer, "\r\ncontent-length:");
    if (length && length < end)
        connection->whole = connection->head + strtoul(length + 17, NULL, 10);
}

static bool is_over(const struct connection *connection)
{
    static const char last[] = "\r\n0\r\n\r\n";
    if (!connection->head)
        return false;
    if (connection->whole)
        return connection->size >= connection->whole;
    return connection->size >= connection->head + sizeof last - 1 &&
           memcmp(connection->answer + connection->size - sizeof last + 1, last, sizeof last - 1) == 0;
}

static void take(struct connection *connection)
{
    ssize_t got =
        recv(connection->descriptor, connection->answer + connection->size, ANSWER_MAX - connection->size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || !connection->busy)
        fail("a connection has ended", connection);
    connection->size += (size_t)got;
    if (!connection->head)
        read_head(connection);
    if (connection->head && connection->size > connection->head && !connection->first_us)
        connection->first_us = now_us();
    if (!is_over(connection))
        return;
    if (samples < SAMPLES_MAX) {
        first_us[samples] = (uint32_t)(connection->first_us - connection->sent_us);
        whole_us[samples++] = (uint32_t)(now_us() - connection->sent_us);
    }
    connection->busy = false;
    connection->next = idle;
    idle = connection;
    in_flight--;
}

static void wait_for_answers(uint64_t until_us)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_us();
    uint64_t left_us = until_us > now ? until_us - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left_us / 1000000),
                               .tv_nsec = (long)(left_us % 1000000) * 1000};
    int count = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    for (int i = 0; i < count; i++)
        take(events[i].data.ptr);
}

static void run(uint64_t seconds, uint64_t rate)
{
    uint64_t began = now_us();
    uint64_t until = began + seconds * 1000000;
    uint64_t begun = 0;
    while (now_us() < until) {
        uint64_t due = rate ? began + begun * 1000000 / rate : 0;
        if (rate && due > now_us()) {
            wait_for_answers(due);
        } else if (begin_call()) {
            begun++;
        } else {
            wait_for_answers(until);
        }
    }
    uint64_t stall = now_us() + STALL_MS * 1000;
    while (in_flight > 0) {
        wait_for_answers(stall);
        if (now_us() >= stall)
            fail("an answer does not come", NULL);
    }
    uint64_t duration = now_us() - began;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (samples == 0)
        fail("no call was answered", NULL);
    times_sort(whole_us, samples);
    times_sort(first_us, samples);
    printf("figures %zu %llu %u %u %u %u %llu\n", samples, (unsigned long long)duration,
           whole_us[samples / 2], whole_us[samples * 99 / 100], first_us[samples / 2],
           first_us[samples * 99 / 100],
           (unsigned long long)((uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                                (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)));
}

int main(int argc, char **argv)
{
    if (argc != 8)
        fail("usage: calls PORT PATH KEY BODY SECONDS CONNECTIONS RATE", NULL);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    most = (size_t)atoi(argv[6]);
    connections = calloc(most, sizeof *connections);
    whole_us = calloc(SAMPLES_MAX, sizeof *whole_us);
    first_us = calloc(SAMPLES_MAX, sizeof *first_us);
    epoll = epoll_create1(0);
    int size = asprintf(&request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        argv[2], argv[3], strlen(argv[4]), argv[4]);
    if (!connections || !whole_us || !first_us || epoll < 0 || size < 0)
        fail("no memory", NULL);
    request_size = (size_t)size;
    run((uint64_t)atoi(argv[5]), (uint64_t)atoi(argv[7]));
    return 0;
}
