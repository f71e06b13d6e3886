/*
 * Many WebSocket clients that come back at once, each for what it has missed.
 *
 *     storm PORT PATH COUNT HEADER BYTES
 *
 * Connects COUNT times to 127.0.0.1:PORT and asks for GET PATH with the header line HEADER, all of them before any answer is
 * read; waits until each has had its handshake's answer and BYTES behind it, and prints
 *
 *     figures COUNT DURATION_US P50_US P99_US MAX_US
 *
 * with the times from a client's connect until it has all. Another answer than 101, a connection that closes, a byte too many or a
 * stall ends it with status 1.
 */
#include "bench/times.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, STALL_MS = 30000, HEAD_MAX = 1024 };

struct client {
    int descriptor;
    bool asked;
    bool open; /* the handshake is answered */
    size_t head_size;
    char head[HEAD_MAX];
    size_t received;
    uint64_t began_us;
    uint64_t took_us;
};

static struct sockaddr_in server;
static char request[4096];
static size_t request_size;
static size_t wanted;
static size_t done;

static void fail(const char *what)
{
    fprintf(stderr, "storm: %s\n", what);
    exit(1);
}

static void begin(struct client *client, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = client};
    client->descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    client->began_us = now_us();
    if (client->descriptor < 0 ||
        (connect(client->descriptor, (const struct sockaddr *)&server, sizeof server) != 0 &&
         errno != EINPROGRESS) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, client->descriptor, &event) != 0)
        fail("the server can't be reached");
}

static void ask(struct client *client, int epoll)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (send(client->descriptor, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size ||
        epoll_ctl(epoll, EPOLL_CTL_MOD, client->descriptor, &event) != 0)
        fail("a request could not be sent");
    client->asked = true;
}

/* What stands behind the head counts. */
static void take_head(struct client *client, const char *bytes, size_t size)
{
    if (client->head_size + size >= HEAD_MAX)
        size = HEAD_MAX - 1 - client->head_size;
    memcpy(client->head + client->head_size, bytes, size);
    client->head_size += size;
    client->head[client->head_size] = '\0';
    const char *end = strstr(client->head, "\r\n\r\n");
    if (!end && client->head_size == HEAD_MAX - 1)
        fail("a head that is too long");
    if (!end)
        return;
    if (strncmp(client->head, "HTTP/1.1 101", 12) != 0)
        fail("no WebSocket there");
    client->open = true;
}

static void take(struct client *client)
{
    static char bytes[1 << 16];
    ssize_t got = recv(client->descriptor, bytes, client->open ? sizeof bytes : HEAD_MAX / 2, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        fail("a connection was closed");
    bool was_open = client->open;
    size_t before = client->head_size;
    if (!was_open)
        take_head(client, bytes, (size_t)got);
    if (was_open)
        client->received += (size_t)got;
    else if (client->open)
        client->received =
            before + (size_t)got - (size_t)(strstr(client->head, "\r\n\r\n") + 4 - client->head);
    if (client->received > wanted)
        fail("more came than was missed");
    if (client->open && client->received == wanted && !client->took_us) {
        client->took_us = now_us() - client->began_us;
        done++;
    }
}

static int compare(const void *left, const void *right)
{
    uint64_t one = ((const struct client *)left)->took_us;
    uint64_t other = ((const struct client *)right)->took_us;
    return one < other ? -1 : one > other;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: storm PORT PATH COUNT HEADER BYTES\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t count = strtoul(argv[3], NULL, 10);
    wanted = strtoul(argv[5], NULL, 10);
    request_size = (size_t)snprintf(
        request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n\r\n",
        argv[2], argv[4]);
    struct client *clients = calloc(count, sizeof *clients);
    int epoll = epoll_create1(0);
    uint64_t began_us = now_us();
    for (size_t i = 0; i < count; i++)
        begin(&clients[i], epoll);
    while (done < count) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, STALL_MS);
        if (ready <= 0)
            fail("stalled");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (!client->asked && events[i].events & EPOLLOUT)
                ask(client, epoll);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                take(client);
        }
    }
    uint64_t took_us = now_us() - began_us;
    qsort(clients, count, sizeof *clients, compare);
    printf("figures %zu %llu %llu %llu %llu\n", count, (unsigned long long)took_us,
           (unsigned long long)clients[count / 2].took_us,
           (unsigned long long)clients[count * 99 / 100].took_us,
           (unsigned long long)clients[count - 1].took_us);
    return 0;
}
