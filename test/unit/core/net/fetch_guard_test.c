/*
 * A guarded fetch connects to no address of this machine, however it is spelled and whatever a name's lookup says: the
 * listener counts. Names end with ".test" and are looked up by this program itself.
 */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/net/guard.h"
#include "core/run/sync.h"
#include "test/unit/core/net/fetch_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- names ---- */

/* What each further lookup answers, the last one for good; an answer is a list. */
static const char *const *lookups;
static _Atomic unsigned lookup_count;
static _Atomic bool lookups_hang;
static sem_t lookup_go;

static struct addrinfo *add_address(struct addrinfo *rest, struct str text, const char *service)
{
    struct addrinfo *info = mem_zalloc(sizeof *info);
    char copy[64];
    CHECK(text.size < sizeof copy);
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    bool v6 = strchr(copy, ':');
    uint16_t port = htons((uint16_t)(service ? atoi(service) : 0));
    info->ai_family = v6 ? AF_INET6 : AF_INET;
    info->ai_socktype = SOCK_STREAM;
    info->ai_protocol = IPPROTO_TCP;
    info->ai_addrlen = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    info->ai_addr = mem_zalloc(info->ai_addrlen);
    info->ai_addr->sa_family = (sa_family_t)info->ai_family;
    struct sockaddr_in *v4_at = (struct sockaddr_in *)(void *)info->ai_addr;
    struct sockaddr_in6 *v6_at = (struct sockaddr_in6 *)(void *)info->ai_addr;
    CHECK(inet_pton(info->ai_family, copy, v6 ? (void *)&v6_at->sin6_addr : (void *)&v4_at->sin_addr) == 1);
    v4_at->sin_port = port; /* at the same place in both */
    info->ai_next = rest;
    return info;
}

/* In place of the C library's, for libcurl's resolver thread. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    (void)name;
    (void)hints;
    unsigned number = atomic_fetch_add(&lookup_count, 1);
    if (lookups_hang)
        sem_wait(&lookup_go);
    unsigned at = 0;
    while (at < number && lookups[at + 1])
        at++;
    struct str list = str_from(lookups[at]);
    *found = NULL;
    /* From its end, so that the first comes first. */
    while (list.size) {
        size_t start = list.size;
        while (start > 0 && list.at[start - 1] != ' ')
            start--;
        *found = add_address(*found, str_of(list.at + start, list.size - start), service);
        list.size = start ? start - 1 : 0;
    }
    return *found ? 0 : EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *rest = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = rest;
    }
}

static void answer_lookups(const char *const *answers)
{
    lookups = answers;
    lookup_count = 0;
}

static void allow_networks(const char *networks)
{
    char error[256];
    CHECK(config_set("WEBHOOK_ALLOW_NETWORKS", networks, error, sizeof error) == 0);
    CHECK(guard_init(error, sizeof error) == 0);
}

/* ---- spellings ---- */

/* Hosts that all are this machine, or may come to be. */
static const char *const spellings[] = {
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0x7f.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "2130706433",
    "0",
    "0.0.0.0",
    "0x0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "foo.localhost",
    "127.0.0.1.",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%251]",
    "[fec0::1]",
    "[fc00::1]",
    "[ff02::1]",
    "10.0.0.1",
    "192.168.0.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "198.18.0.1",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "①②⑦.0.0.1",
    "loop.test",
    "mapped.test",
    "any.test",
};

static int fetch_guarded(struct scene *scene, const char *host)
{
    struct fetch_request request = request_to(scene, "POST", "/");
    request.url = arena_printf(&scene->arena, "http://%s:%d/", host, scene->server.port);
    request.guard = true;
    return fetch(&request, &scene->arena, &scene->answer);
}

static void play_spellings(struct scene *scene)
{
    for (size_t i = 0; i < ARRAY_SIZE(spellings); i++) {
        int result = fetch_guarded(scene, spellings[i]);
        /* A host that is none is refused as such, and a scope id may be of no interface. */
        if (result != -EACCES && result != -EINVAL && result != -EHOSTUNREACH)
            fail_msg("%s: %d", spellings[i], result);
    }
    assert_int_equal(fetch_guarded(scene, "127.0.0.1"), -EACCES);
    assert_int_equal(fetch_guarded(scene, "2130706433"), -EACCES);
    assert_int_equal(fetch_guarded(scene, "[::ffff:127.0.0.1]"), -EACCES);
    assert_int_equal(fetch_guarded(scene, "loop.test"), -EACCES);
    assert_int_equal(scene->server.accepts, 0);
}

static void no_spelling_of_this_machine_is_connected_to(void **state)
{
    (void)state;
    static const char *const answers[] = {"::1 127.0.0.1 ::ffff:127.0.0.1 0.0.0.0 10.0.0.1", NULL};
    answer_lookups(answers);
    allow_networks("");
    RUN(play_spellings, {OK_HELLO, KEEP});
}

/* That these would come through shows that it was the guard that stopped them. */
static void play_unguarded(struct scene *scene)
{
    unsigned reached = 0;
    for (size_t i = 0; i < ARRAY_SIZE(spellings); i++)
        if (strstr(spellings[i], "127") || strstr(spellings[i], "0x7f") || strstr(spellings[i], "017") ||
            strstr(spellings[i], "localhost") || strstr(spellings[i], ".test") ||
            strstr(spellings[i], "2130"))
            reached += fetch_guarded(scene, spellings[i]) == 0;
    assert_in_range(reached, 15, ARRAY_SIZE(spellings));
    assert_int_equal(scene->server.requests, reached);
}

static void the_same_spellings_come_through_where_they_are_allowed(void **state)
{
    (void)state;
    static const char *const answers[] = {"127.0.0.1", NULL};
    answer_lookups(answers);
    allow_networks("127.0.0.1");
    RUN(play_unguarded, {OK_HELLO, KEEP});
}

/* ---- names that change their answer ---- */

/* 127.0.0.1 is the internet here, and 127.0.0.2 is not. */
static struct server forbidden;

static const struct step forbidden_steps[] = {{OK_HELLO, KEEP}};

static int fetch_name(struct scene *scene, const char *name, int port, const char *pool)
{
    struct fetch_request request = request_to(scene, "POST", "/");
    request.url = arena_printf(&scene->arena, "http://%s:%d/", name, port);
    request.guard = true;
    request.pool = pool;
    return fetch(&request, &scene->arena, &scene->answer);
}

static void play_rebind(struct scene *scene)
{
    assert_int_equal(fetch_name(scene, "rebind.test", scene->server.port, "first"), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(
            fetch_name(scene, arena_printf(&scene->arena, "rebind%d.test", i), forbidden.port, NULL),
            -EACCES);
    assert_int_equal(fetch_name(scene, "rebind.test", forbidden.port, "second"), -EACCES);
    assert_int_equal(scene->server.accepts, 1);
    assert_int_equal(forbidden.accepts, 0);
}

static void a_name_that_changes_its_answer_is_refused(void **state)
{
    (void)state;
    static const char *const answers[] = {"127.0.0.1", "127.0.0.2", NULL};
    server_open_at(&forbidden, "127.0.0.2", forbidden_steps, 1);
    answer_lookups(answers);
    allow_networks("127.0.0.1");
    RUN(play_rebind, {OK_HELLO, KEEP});
    server_close(&forbidden);
}

static void play_mixed(struct scene *scene)
{
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fetch_name(scene, "mixed.test", scene->server.port, NULL), 0);
        /* Those that are refused cost no time, and half of the connect's least of all. */
        assert_in_range(scene->answer.times.total_us, 1, PATIENCE_S * 1000000 / 4);
        assert_str(scene->answer.body, "hello");
        await_connection_end(&scene->server);
    }
    assert_int_equal(fetch_name(scene, "mixed.test", forbidden.port, NULL), -ECONNREFUSED);
    assert_int_equal(forbidden.accepts, 0);
}

static void of_several_addresses_only_the_allowed_are_tried(void **state)
{
    (void)state;
    static const char *const answers[] = {"127.0.0.2 ::1 127.0.0.1 10.0.0.1", NULL};
    server_open_at(&forbidden, "127.0.0.2", forbidden_steps, 1);
    answer_lookups(answers);
    allow_networks("127.0.0.1");
    RUN(play_mixed, {OK_HELLO, CLOSE});
    server_close(&forbidden);
}

/* No socket gets there: 255.255.255.255 is no peer for TCP. */
static void play_no_route(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "GET", "/");
    request.url = arena_printf(&scene->arena, "http://noroute.test:%d/", scene->server.port);
    assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
    assert_in_range(scene->answer.times.total_us, 1, PATIENCE_S * 1000000 / 4);
}

static void an_address_without_a_route_costs_no_time(void **state)
{
    (void)state;
    static const char *const answers[] = {"255.255.255.255 255.255.255.255 127.0.0.1", NULL};
    answer_lookups(answers);
    RUN(play_no_route, {OK_HELLO, KEEP});
}

static void play_redirect(struct scene *scene)
{
    assert_int_equal(fetch_name(scene, "127.0.0.1", scene->server.port, NULL), 0);
    assert_int_equal(scene->answer.status, 307);
    assert_int_equal(scene->server.requests, 1);
}

static void a_redirect_leads_nowhere(void **state)
{
    (void)state;
    allow_networks("127.0.0.1");
    RUN(play_redirect,
        {"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n",
         KEEP});
}

/* ---- kept connections ---- */

static void play_kept(struct scene *scene)
{
    struct fetch_request request = request_to(scene, "POST", "/");
    for (int i = 0; i < 3; i++) {
        request.guard = false;
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), 0);
        request.guard = true;
        assert_int_equal(fetch(&request, &scene->arena, &scene->answer), -EACCES);
        request.pool = "named";
    }
    assert_int_equal(scene->server.requests, 3);
    assert_int_equal(scene->server.accepts, 2);
    struct fetch_stream *stream;
    assert_int_equal(fetch_open(&request, &scene->arena, &stream), -EACCES);
    assert_null(stream);
}

static void a_connection_opened_without_the_guard_is_not_used_under_it(void **state)
{
    (void)state;
    allow_networks("");
    RUN(play_kept, {OK_HELLO, KEEP});
}

/* ---- lookups are off the loop ---- */

struct looker {
    struct scene *scene;
    struct group group;
    int result;
};

static void fetch_hanging_name(void *arg)
{
    struct looker *looker = arg;
    looker->result = fetch_name(looker->scene, "hang.test", looker->scene->server.port, NULL);
    group_done(&looker->group);
}

static void play_hanging_lookup(struct scene *scene)
{
    struct looker looker = {.scene = scene};
    lookups_hang = true;
    group_add(&looker.group);
    fiber_start(loop_self(), "looker", fetch_hanging_name, &looker);
    while (lookup_count == 0)
        assert_int_equal(fiber_sleep_ms(1), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(fetch_name(scene, "127.0.0.1", scene->server.port, NULL), 0);
    lookups_hang = false;
    sem_post(&lookup_go);
    assert_int_equal(group_wait(&looker.group, "looker", CLOCK_NEVER), 0);
    assert_int_equal(looker.result, 0);
}

static void a_name_server_that_does_not_answer_stops_nobody_else(void **state)
{
    (void)state;
    static const char *const answers[] = {"127.0.0.1", NULL};
    answer_lookups(answers);
    allow_networks("127.0.0.1");
    RUN(play_hanging_lookup, {OK_HELLO, KEEP});
}

/* ---- descriptors ---- */

enum { CHURNERS = 24, CHURNS = 60 };

struct churn {
    struct scene *scene;
    struct group group;
    int refused_port;
    unsigned seed;
    unsigned good;
    unsigned bad;
};

/* One call of some kind by some pool: looked up or not, refused, given up, or good. */
static void churn_once(struct churn *churn, unsigned dice)
{
    struct arena arena;
    struct fetch_answer answer;
    struct fetch_request request = request_to(churn->scene, "GET", "/");
    arena_init(&arena);
    request.pool = arena_printf(&arena, "pool %u", dice % 7);
    request.guard = dice / 7 % 2;
    bool fails = dice / 14 % 3 == 0;
    const char *host = dice / 42 % 3 ? "127.0.0.1" : arena_printf(&arena, "n%u.test", dice % 5000);
    request.url =
        arena_printf(&arena, "http://%s:%d/", host, fails ? churn->refused_port : churn->scene->server.port);
    bool hurried = dice / 126 % 4 == 0;
    request.total_timeout_ms = hurried ? 1 : 5000;
    int result = fetch(&request, &arena, &answer);
    churn->good += result == 0;
    churn->bad += !hurried && result != (fails ? -ECONNREFUSED : 0);
    arena_clear(&arena);
}

static void churn_on_fiber(void *arg)
{
    struct churn *churn = arg;
    for (int i = 0; i < CHURNS; i++) {
        churn->seed = churn->seed * 1664525 + 1013904223;
        churn_once(churn, churn->seed >> 8);
    }
    group_done(&churn->group);
}

static void play_churn(struct scene *scene)
{
    struct churn churn = {.scene = scene, .seed = 3};
    int unheard = bind_local("127.0.0.1", &churn.refused_port);
    for (int i = 0; i < CHURNERS; i++) {
        group_add(&churn.group);
        fiber_start(loop_self(), "churn", churn_on_fiber, &churn);
    }
    assert_int_equal(group_wait(&churn.group, "churn", CLOCK_NEVER), 0);
    close(unheard);
    assert_int_equal(churn.bad, 0);
    assert_in_range(churn.good, CHURNERS * CHURNS / 3, CHURNERS * CHURNS);
}

/* A number that one pool's libcurl has closed is the next one's socket, or its resolver's. */
static void descriptors_go_from_pool_to_pool(void **state)
{
    (void)state;
    static const char *const answers[] = {"127.0.0.1", NULL};
    answer_lookups(answers);
    allow_networks("127.0.0.1");
    RUN(play_churn, {OK_HELLO, KEEP});
}

int main(void)
{
    sem_init(&lookup_go, 0, 0);
    fixture_begin("fetch_guard_test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_spelling_of_this_machine_is_connected_to),
        cmocka_unit_test(the_same_spellings_come_through_where_they_are_allowed),
        cmocka_unit_test(a_name_that_changes_its_answer_is_refused),
        cmocka_unit_test(of_several_addresses_only_the_allowed_are_tried),
        cmocka_unit_test(an_address_without_a_route_costs_no_time),
        cmocka_unit_test(a_redirect_leads_nowhere),
        cmocka_unit_test(a_connection_opened_without_the_guard_is_not_used_under_it),
        cmocka_unit_test(descriptors_go_from_pool_to_pool),
        cmocka_unit_test(a_name_server_that_does_not_answer_stops_nobody_else),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    config_clear();
    log_close();
    return failed;
}
