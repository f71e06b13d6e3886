/*
 * New TLS connections, one after the other in each of some threads: handshake, one GET, its answer read until the server
 * closes. It has asked for the close, so that the ports in TIME_WAIT are the server's.
 *
 *     handshakes PORT tls12|tls13 full|resumed PATH THREADS SECONDS
 *     figures CONNECTIONS FAILED RESUMED DURATION_US P50_US P99_US
 *
 * "resumed": each thread makes one connection first, unmeasured, and comes back with its ticket ever after. Certificates
 * are not checked against anything, signatures are.
 */
#include "bench/times.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 64, TIMES_MAX = 1 << 18, IO_TIMEOUT_S = 10 };

static struct {
    SSL_CTX *context;
    struct sockaddr_in server;
    char request[512];
    bool resume;
    uint64_t ends_ns;
} plan;

struct worker {
    pthread_t thread;
    SSL_SESSION *session;
    uint64_t connections;
    uint64_t failed;
    uint64_t resumed;
    uint32_t *times_us; /* of the first TIMES_MAX */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int connect_server(void)
{
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval timeout = {.tv_sec = IO_TIMEOUT_S};
    int one = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(descriptor, (const struct sockaddr *)&plan.server, sizeof plan.server) == 0)
        return descriptor;
    close(descriptor);
    return -1;
}

/* Sends the request and reads all of the answer. */
static bool ask(SSL *tls)
{
    char answer[16384];
    size_t have = 0;
    int got;
    if (SSL_write(tls, plan.request, (int)strlen(plan.request)) <= 0)
        return false;
    while ((got = SSL_read(tls, answer + (have < 12 ? have : 12), (int)(sizeof answer - 12))) > 0)
        have += (size_t)got;
    return have >= 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0;
}

/* One connection from its SYN to its end. */
static bool visit(struct worker *worker, bool prime)
{
    int descriptor = connect_server();
    if (descriptor < 0)
        return false;
    SSL *tls = SSL_new(plan.context);
    SSL_set_fd(tls, descriptor);
    SSL_set_tlsext_host_name(tls, "localhost");
    if (worker->session)
        SSL_set_session(tls, worker->session);
    bool good = SSL_connect(tls) == 1 && ask(tls);
    if (good && SSL_session_reused(tls))
        worker->resumed++;
    if (good && prime)
        worker->session = SSL_get1_session(tls);
    /* a session whose connection did not end in order would not be used again */
    SSL_set_shutdown(tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls);
    close(descriptor);
    return good;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    ERR_clear_error();
    if (plan.resume && !visit(worker, true)) {
        worker->failed++;
        return NULL;
    }
    worker->resumed = 0;
    for (;;) {
        uint64_t began_ns = now_ns();
        if (began_ns >= plan.ends_ns)
            return NULL;
        if (!visit(worker, false)) {
            ERR_clear_error();
            worker->failed++;
            continue;
        }
        if (worker->connections < TIMES_MAX)
            worker->times_us[worker->connections] = (uint32_t)((now_ns() - began_ns) / 1000);
        worker->connections++;
    }
}

static void print_figures(struct worker *workers, size_t count, uint64_t duration_us)
{
    uint64_t connections = 0;
    uint64_t failed = 0;
    uint64_t resumed = 0;
    size_t times = 0;
    uint32_t *all_us = calloc(count * TIMES_MAX, sizeof *all_us);
    if (!all_us)
        abort();
    for (size_t i = 0; i < count; i++) {
        struct worker *worker = &workers[i];
        size_t some = worker->connections < TIMES_MAX ? worker->connections : TIMES_MAX;
        memcpy(all_us + times, worker->times_us, some * sizeof *all_us);
        times += some;
        connections += worker->connections;
        failed += worker->failed;
        resumed += worker->resumed;
    }
    times_sort(all_us, times);
    printf("figures %llu %llu %llu %llu %u %u\n", (unsigned long long)connections, (unsigned long long)failed,
           (unsigned long long)resumed, (unsigned long long)duration_us, times ? all_us[times / 2] : 0,
           times ? all_us[times * 99 / 100] : 0);
    free(all_us);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: handshakes PORT tls12|tls13 full|resumed PATH THREADS SECONDS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int version = strcmp(argv[2], "tls12") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    size_t count = strtoul(argv[5], NULL, 10);
    if (count < 1 || count > THREADS_MAX)
        return 2;
    plan.server = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    plan.resume = strcmp(argv[3], "resumed") == 0;
    snprintf(plan.request, sizeof plan.request,
             "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", argv[4]);
    plan.context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(plan.context, version);
    SSL_CTX_set_max_proto_version(plan.context, version);
    SSL_CTX_set_session_cache_mode(plan.context, SSL_SESS_CACHE_OFF);

    static struct worker workers[THREADS_MAX];
    uint64_t began_ns = now_ns();
    plan.ends_ns = began_ns + strtoull(argv[6], NULL, 10) * 1000000000;
    for (size_t i = 0; i < count; i++) {
        workers[i].times_us = calloc(TIMES_MAX, sizeof *workers[i].times_us);
        if (!workers[i].times_us || pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            abort();
    }
    for (size_t i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    print_figures(workers, count, (now_ns() - began_ns) / 1000);
    return 0;
}
