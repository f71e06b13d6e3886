/* See fetch_fixture.h. */
#include "test/unit/core/net/fetch_fixture.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/run/fiber.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the server ---- */

struct connection {
    struct server *server;
    int socket;
};

static size_t body_length(const struct buf *request, size_t head)
{
    const char *field = memmem(request->at, head, "Content-Length: ", 16);
    return field ? strtoul(field + 16, NULL, 10) : 0;
}

/* Reads one request into `request`; returns the size of its head, 0 at the end of the connection. */
static size_t read_request(int socket, struct buf *request)
{
    request->size = 0;
    for (;;) {
        char *end = request->size ? memmem(request->at, request->size, "\r\n\r\n", 4) : NULL;
        size_t head = end ? (size_t)(end - request->at) + 4 : 0;
        if (head && request->size >= head + body_length(request, head))
            return head;
        ssize_t count = recv(socket, buf_reserve(request, 65536), 65536, 0);
        if (count <= 0)
            return 0;
        request->size += (size_t)count;
    }
}

bool send_all(int socket, struct str text)
{
    while (text.size) {
        ssize_t count = send(socket, text.at, text.size, MSG_NOSIGNAL);
        if (count <= 0)
            return false;
        text = str_of(text.at + count, text.size - (size_t)count);
    }
    return true;
}

static void send_reply(int socket, const struct step *step, const struct buf *request, size_t head)
{
    if (step->reply) {
        send_all(socket, str_from(step->reply));
        return;
    }
    struct buf reply = {0};
    buf_printf(&reply, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", request->size - head);
    buf_add(&reply, request->at + head, request->size - head);
    send_all(socket, buf_str(&reply));
    buf_clear(&reply);
}

static void end_connection(int socket, const struct step *step)
{
    char byte;
    if (step->then == HOLD)
        while (recv(socket, &byte, 1, 0) > 0)
            continue;
    if (step->then == RESET)
        setsockopt(socket, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
}

static void *serve_connection(void *arg)
{
    struct connection *connection = arg;
    struct server *server = connection->server;
    struct buf request = {0};
    size_t head;
    while ((head = read_request(connection->socket, &request)) > 0) {
        pthread_mutex_lock(&server->mutex);
        server->last.size = 0;
        buf_add_str(&server->last, buf_str(&request));
        pthread_mutex_unlock(&server->mutex);
        unsigned number = atomic_fetch_add(&server->requests, 1);
        const struct step *step =
            &server->steps[number < server->step_count ? number : server->step_count - 1];
        send_reply(connection->socket, step, &request, head);
        if (step->then == KEEP || (step->then == MORE && server->more(server, connection->socket)))
            continue;
        end_connection(connection->socket, step);
        break;
    }
    close(connection->socket);
    sem_post(&server->ended);
    buf_clear(&request);
    free(connection);
    return NULL;
}

static void *serve(void *arg)
{
    struct server *server = arg;
    for (;;) {
        int socket = accept(server->listener, NULL, NULL);
        if (socket < 0)
            return NULL;
        /* A test that goes wrong ends. */
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = PATIENCE_S},
                   sizeof(struct timeval));
        struct connection *connection = mem_zalloc(sizeof *connection);
        *connection = (struct connection){server, socket};
        unsigned number = atomic_fetch_add(&server->accepts, 1);
        CHECK(number < CONNECTIONS_MAX);
        CHECK(pthread_create(&server->connections[number], NULL, serve_connection, connection) == 0);
    }
}

int bind_local(const char *name, int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(name)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, size) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    *port = ntohs(address.sin_port);
    return listener;
}

void server_open_at(struct server *server, const char *address, const struct step *steps, unsigned step_count)
{
    memset(server, 0, sizeof *server);
    server->steps = steps;
    server->step_count = step_count;
    server->listener = bind_local(address, &server->port);
    CHECK(listen(server->listener, CONNECTIONS_MAX) == 0);
    sem_init(&server->go, 0, 0);
    sem_init(&server->ended, 0, 0);
    pthread_mutex_init(&server->mutex, NULL);
    CHECK(pthread_create(&server->thread, NULL, serve, server) == 0);
}

void server_close(struct server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    for (unsigned i = 0; i < server->accepts; i++)
        pthread_join(server->connections[i], NULL);
    close(server->listener);
    sem_destroy(&server->go);
    sem_destroy(&server->ended);
    pthread_mutex_destroy(&server->mutex);
    buf_clear(&server->last);
}

void await_connection_end(struct server *server)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S / 2;
    assert_int_equal(sem_timedwait(&server->ended, &until), 0);
}

/* ---- one test ---- */

int count_descriptors(void)
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
    fetch_close_loop(loop_self());
}

void run_steps(void (*play)(struct scene *), bool (*more)(struct server *, int), const struct step *steps,
               unsigned step_count)
{
    int before = count_descriptors();
    struct scene scene = {.play = play};
    struct loop loop;
    server_open_at(&scene.server, "127.0.0.1", steps, step_count);
    scene.server.more = more;
    loop_open(&loop, 0);
    arena_init(&scene.arena);
    fiber_main(&loop, "test", play_on_fiber, &scene);
    arena_clear(&scene.arena);
    loop_close(&loop);
    server_close(&scene.server);
    assert_int_equal(count_descriptors(), before);
}

struct fetch_request request_to(struct scene *scene, const char *method, const char *path)
{
    return (struct fetch_request){
        .method = method,
        .url = arena_printf(&scene->arena, "http://127.0.0.1:%d%s", scene->server.port, path),
        .connect_timeout_ms = PATIENCE_S * 1000,
        .total_timeout_ms = PATIENCE_S * 1000,
        .max_body_bytes = 1 << 20,
    };
}

int get(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    return fetch(&request, &scene->arena, &scene->answer);
}

int post(struct scene *scene, const char *body)
{
    struct fetch_request request = request_to(scene, "POST", "/");
    request.body = str_from(body);
    return fetch(&request, &scene->arena, &scene->answer);
}

void assert_str(struct str actual, const char *expected)
{
    if (!str_equal(actual, str_from(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(actual), expected);
}

void assert_sent(struct scene *scene, const char *expected)
{
    pthread_mutex_lock(&scene->server.mutex);
    assert_str(buf_str(&scene->server.last), expected);
    pthread_mutex_unlock(&scene->server.mutex);
}

void fixture_begin(const char *program)
{
    log_open(program, LOG_ERROR);
    fetch_init();
    /* libuv keeps a descriptor or two from the first loop on. */
    struct loop loop;
    loop_open(&loop, 0);
    loop_close(&loop);
}
