/*
 * Holds many WebSockets open to a server that broadcasts, and publishes to them.
 *
 *     subscribers PORT PATH COUNT [HEADER PUBLISH_PATH BODY]
 *
 * Opens COUNT of them with GET PATH and says "open COUNT". Then, for each line "SECONDS SIZE" on its standard input, it
 * publishes messages of SIZE bytes by POST PATH for so long, two on their way at a time, waits until every subscriber has
 * every one, and prints
 *
 *     figures MESSAGES DELIVERIES DURATION_US P50_US P99_US
 *
 * with the times from a POST to the last subscriber's last byte. With the three more words every request has that header line,
 * and what is published is a POST of BODY, as JSON, to PUBLISH_PATH; SIZE is what it makes the server send. It ends with its input. What comes in is counted, not
 * looked at: frames of one size in order, nothing else; so the server must not ping meanwhile. A connection that closes, or a
 * stall, ends it with status 1.
 */
#include "bench/times.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, IN_FLIGHT = 2, MESSAGES_MAX = 1 << 20, STALL_MS = 30000, SIZE_MAX_BYTES = 60000 };

static struct sockaddr_in server;
static const char *path;
static const char *header = "X-Bench: 1";
static const char *publish_path;
static const char *publish_body; /* NULL: letters */
static size_t count;
static int epoll;
static int publisher;
static uint64_t received; /* bytes of all subscribers since the last line */

static void fail(const char *what)
{
    fprintf(stderr, "subscribers: %s\n", what);
    exit(1);
}

static int connect_server(void)
{
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    if (descriptor < 0 || connect(descriptor, (const struct sockaddr *)&server, sizeof server) != 0)
        fail("the server can't be reached");
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return descriptor;
}

static void send_all(int descriptor, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(descriptor, bytes, size, MSG_NOSIGNAL);
        if (sent < 0)
            fail("the server closed");
        bytes += sent;
        size -= (size_t)sent;
    }
}

/* The socket is in epoll, non-blocking; its descriptor tells it from the publisher's. */
static void watch(int descriptor)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    fcntl(descriptor, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0)
        fail("epoll");
}

static void subscribe(void)
{
    int descriptor = connect_server();
    char text[4096];
    int size =
        snprintf(text, sizeof text,
                 "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n\r\n",
                 path, header);
    send_all(descriptor, text, (size_t)size);
    size_t have = 0;
    for (;;) {
        ssize_t got = recv(descriptor, text + have, sizeof text - 1 - have, 0);
        if (got <= 0)
            fail("no answer to the handshake");
        have += (size_t)got;
        text[have] = '\0';
        char *end = strstr(text, "\r\n\r\n");
        if (end && (strncmp(text, "HTTP/1.1 101", 12) != 0 || end + 4 != text + have))
            fail("no WebSocket there");
        if (end)
            break;
    }
    watch(descriptor);
}

static void take(int descriptor)
{
    static char bytes[1 << 18];
    ssize_t got = recv(descriptor, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        fail(descriptor == publisher ? "the publisher's connection closed"
                                     : "a subscriber's connection closed");
    if (descriptor != publisher)
        received += (uint64_t)got;
}

static int compare(const void *left, const void *right)
{
    uint64_t one = *(const uint64_t *)left;
    uint64_t other = *(const uint64_t *)right;
    return one < other ? -1 : one > other;
}

static void publish(const char *body, size_t size)
{
    static char request[SIZE_MAX_BYTES + 512];
    int head = snprintf(request, sizeof request,
                        "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s\r\n"
                        "Content-Length: %zu\r\n\r\n",
                        publish_path, publish_body ? "application/json" : "text/plain", header, size);
    memcpy(request + head, body, size);
    send_all(publisher, request, (size_t)head + size);
}

/* Waits for bytes and counts them. */
static void turn(void)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, STALL_MS);
    if (ready == 0)
        fail("stalled");
    for (int i = 0; i < ready; i++)
        take(events[i].data.fd);
}

static void measure(uint64_t duration_us, size_t size)
{
    static char body[SIZE_MAX_BYTES];
    static uint64_t times_us[MESSAGES_MAX]; /* when it was sent, then how long it took */
    memset(body, 'x', size);
    uint64_t each = count * (size + (size < 126 ? 2 : 4));
    uint64_t began_us = now_us();
    uint64_t sent = 0;
    uint64_t done = 0;
    received = 0;
    publisher = connect_server();
    watch(publisher);
    for (;;) {
        uint64_t at_us = now_us();
        for (; done < sent && received >= (done + 1) * each; done++)
            times_us[done] = at_us - times_us[done];
        bool over = at_us - began_us >= duration_us || sent == MESSAGES_MAX;
        if (over && done == sent)
            break;
        for (; !over && sent < done + IN_FLIGHT && sent < MESSAGES_MAX; sent++) {
            times_us[sent] = at_us;
            publish(publish_body ? publish_body : body, publish_body ? strlen(publish_body) : size);
        }
        turn();
    }
    uint64_t took_us = now_us() - began_us;
    close(publisher);
    if (received != done * each)
        fail("more came in than was sent");
    qsort(times_us, done, sizeof *times_us, compare);
    printf("figures %llu %llu %llu %llu %llu\n", (unsigned long long)done, (unsigned long long)(done * count),
           (unsigned long long)took_us, (unsigned long long)times_us[done / 2],
           (unsigned long long)times_us[done * 99 / 100]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 7) {
        fprintf(stderr, "usage: subscribers PORT PATH COUNT [HEADER PUBLISH_PATH BODY]\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    path = argv[2];
    count = strtoul(argv[3], NULL, 10);
    publish_path = path;
    if (argc == 7) {
        header = argv[4];
        publish_path = argv[5];
        publish_body = argv[6];
    }
    epoll = epoll_create1(0);
    for (size_t i = 0; i < count; i++)
        subscribe();
    printf("open %zu\n", count);
    fflush(stdout);

    char line[64];
    unsigned long seconds;
    unsigned long size;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%lu %lu", &seconds, &size) != 2 || size < 1 || size > SIZE_MAX_BYTES)
            fail("SECONDS SIZE expected");
        measure(seconds * 1000000, size);
    }
    return 0;
}
