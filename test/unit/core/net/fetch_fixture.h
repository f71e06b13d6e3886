#ifndef TEST_UNIT_CORE_NET_FETCH_FIXTURE_H
#define TEST_UNIT_CORE_NET_FETCH_FIXTURE_H

#include "core/net/fetch.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

/*
 * A server that scripts its bytes, for the tests of core/net/fetch.h: it reads whole requests, and the n-th one is answered
 * by the n-th step (the last step answers all later ones). Each scene ends with an empty loop and as many open descriptors
 * as before.
 */

#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
#define OK_CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

enum { CONNECTIONS_MAX = 2048, PATIENCE_S = 20 };

struct server;

struct step {
    const char *reply; /* NULL: 200 with the request's body */
    enum {
        KEEP,
        CLOSE,
        RESET,
        HOLD, /* waits for the client to close */
        MORE, /* the server's `more` goes on */
    } then;
};

struct server {
    int listener;
    int port;
    const struct step *steps;
    unsigned step_count;
    pthread_t thread;
    pthread_t connections[CONNECTIONS_MAX];
    _Atomic unsigned accepts;
    _Atomic unsigned requests;
    bool (*more)(struct server *server, int socket); /* true: keeps the connection */
    _Atomic size_t sent;                             /* bytes, for `more` to tell */
    sem_t go;                                        /* the same: the test lets it go on */
    sem_t ended;                                     /* posted for each connection that is over */
    pthread_mutex_t mutex;
    struct buf last; /* the last request, head and body */
};

/* On 127.0.0.1 or another address of this machine's own. */
void server_open_at(struct server *server, const char *address, const struct step *steps,
                    unsigned step_count);
void server_close(struct server *server);
/* False when the peer has gone. */
bool send_all(int socket, struct str text);

/* A bound socket of ours on `address`, and its port. */
int bind_local(const char *address, int *port);

/* Blocks the loop: what is waited for must come without another turn of it. */
void await_connection_end(struct server *server);

/* One test: a server, a loop, a fiber. */
struct scene {
    struct server server;
    struct arena arena;
    struct fetch_answer answer;
    void (*play)(struct scene *scene);
};

int count_descriptors(void);

/* Plays it on a fiber. */
void run_steps(void (*play)(struct scene *), bool (*more)(struct server *, int), const struct step *steps,
               unsigned step_count);

#define RUN_MORE(play, more, ...)                                                                            \
    run_steps((play), (more), (const struct step[]){__VA_ARGS__},                                            \
              sizeof((const struct step[]){__VA_ARGS__}) / sizeof(struct step))
#define RUN(play, ...) RUN_MORE(play, NULL, __VA_ARGS__)

struct fetch_request request_to(struct scene *scene, const char *method, const char *path);
int get(struct scene *scene);
int post(struct scene *scene, const char *body);

void assert_str(struct str actual, const char *expected);
/* The last request was this. */
void assert_sent(struct scene *scene, const char *expected);

/* What every such program begins with. */
void fixture_begin(const char *program);

#endif
