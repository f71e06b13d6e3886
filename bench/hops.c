/*
 * What the machine itself takes for a message that goes from process to process, each of which sleeps until it comes and does
 * nothing but hand it on: below it no service of as many processes can be.
 *
 *     hops PROCESSES RATE SECONDS
 *
 * Sends RATE messages a second, each when the one before is back. Prints
 *
 *     figures MESSAGES P50_US P99_US
 */
#include "bench/times.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES_MAX = 64, MESSAGE_SIZE = 512 };

static int links[PROCESSES_MAX + 1]
                [2]; /* from 0, which is ours, to the first process, and so on to us again */
static char message[MESSAGE_SIZE];

static void fail(const char *what)
{
    fprintf(stderr, "hops: %s\n", what);
    exit(1);
}

static void sleep_until(uint64_t at_us)
{
    struct timespec at = {.tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* Ends with us, or when the one before it has ended. */
static void hand_on(int from, int to)
{
    struct epoll_event event = {.events = EPOLLIN};
    char buffer[MESSAGE_SIZE];
    int epoll = epoll_create1(0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, from, &event) != 0)
        fail("epoll");
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue;
        ssize_t got = read(from, buffer, sizeof buffer);
        if (got <= 0 || write(to, buffer, (size_t)got) != got)
            _exit(0);
    }
}

static void start(int processes)
{
    for (int i = 0; i <= processes; i++)
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, links[i]) != 0)
            fail("socketpair");
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid == 0)
            hand_on(links[i][1], links[i + 1][0]);
    }
}

static uint32_t measure(int processes)
{
    uint64_t sent_us = now_us();
    if (write(links[0][0], message, sizeof message) != sizeof message)
        fail("write");
    for (size_t size = 0; size < sizeof message;) {
        ssize_t got = read(links[processes][1], message, sizeof message - size);
        if (got <= 0)
            fail("read");
        size += (size_t)got;
    }
    return (uint32_t)(now_us() - sent_us);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("usage: hops PROCESSES RATE SECONDS");
    int processes = atoi(argv[1]);
    uint64_t rate = strtoul(argv[2], NULL, 10);
    size_t count = rate * strtoul(argv[3], NULL, 10);
    uint32_t *times_us = calloc(count, sizeof *times_us);
    if (processes < 1 || processes > PROCESSES_MAX || count == 0 || !times_us)
        fail("arguments");
    start(processes);
    uint64_t began_us = now_us();
    for (size_t i = 0; i < count; i++) {
        sleep_until(began_us + i * 1000000 / rate);
        times_us[i] = measure(processes);
    }
    times_sort(times_us, count);
    printf("figures %zu %u %u\n", count, times_us[count / 2], times_us[count * 99 / 100]);
    return 0;
}
