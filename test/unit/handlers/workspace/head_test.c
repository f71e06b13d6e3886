/* What of a head goes on to a pod, and what of its answer to the client. Heads are read by the real parsers. */
#include "handlers/workspace/workspace.h"

#include "core/domain/instance/workspace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COOKIE WORKSPACE_COOKIE
#define LINK WORKSPACE_PARAM

static struct arena arena;
static struct http1_parser *parser;
static struct http1_answer *answer_parser;
static struct buf out;
static struct http_request http;

static void on_body(void *arg, const char *bytes, size_t size)
{
    (void)arg;
    (void)bytes;
    (void)size;
}

static int setup(void **state)
{
    (void)state;
    arena_init(&arena);
    parser = http1_new(on_body, NULL);
    answer_parser = http1_answer_new(on_body, NULL);
    http = (struct http_request){0};
    arena_init(&http.arena);
    http.fields = http.few_fields;
    http.field_capacity = HTTP_ANSWER_FIELDS;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http1_free(parser);
    http1_answer_free(answer_parser);
    buf_clear(&out);
    arena_clear(&http.arena);
    arena_clear(&arena);
    arena_thread_clear();
    return 0;
}

/* ---- requests ---- */

/* The head of a request with these fields, each ended by CR LF. */
static const struct http1_head *request_head(const char *line, const char *fields)
{
    http1_free(parser);
    parser = http1_new(on_body, NULL);
    http1_begin(parser, &arena);
    const char *text =
        arena_printf(&arena, "%s\r\nHost: vs-code-abcdefgh.localhost:8080\r\n%s\r\n", line, fields);
    enum http1_event event;
    http1_feed(parser, text, strlen(text), &event);
    assert_true(event == HTTP1_HEAD || event == HTTP1_END);
    return http1_head(parser);
}

/* What the pod gets, from the first byte to the last. */
static const char *forward(const struct head_request *request)
{
    out.size = 0;
    head_put_request(&out, request);
    return arena_dup(&arena, out.at, out.size);
}

static struct head_request request_of(const char *line, const char *fields)
{
    return (struct head_request){
        .head = request_head(line, fields),
        .target = STR("/"),
        .scheme = STR("http"),
        .peer = STR("192.0.2.7"),
        .id = STR("req-1"),
    };
}

#define OURS                                                                                                 \
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"                                              \
    "X-Forwarded-Host: vs-code-abcdefgh.localhost:8080\r\nX-Request-Id: req-1\r\n"

/* `passed`: the fields that are expected between Host and ours. */
static void check_request(const char *line, const char *fields, const char *passed)
{
    struct head_request request = request_of(line, fields);
    const char *expected =
        arena_printf(&arena, "%.*s / HTTP/1.1\r\nHost: vs-code-abcdefgh.localhost:8080\r\n%s" OURS "\r\n",
                     (int)strcspn(line, " "), line, passed);
    assert_string_equal(forward(&request), expected);
}

static void test_fields_go_on_as_they_are(void **state)
{
    (void)state;
    static const char fields[] =
        "user-AGENT: x/1  (y)\r\nAccept: */*\r\nAccept: text/html\r\nRange: bytes=0-\r\n"
        "Authorization: Bearer abc\r\nX-Empty:\r\nOrigin: http://a\r\nVia: 1.1 a\r\n"
        "Date: now\r\nSet-Cookie: not=mine\r\nX-Real-IP: 1.2.3.4\r\n";
    check_request("GET / HTTP/1.1", fields,
                  "user-AGENT: x/1  (y)\r\nAccept: */*\r\nAccept: text/html\r\nRange: bytes=0-\r\n"
                  "Authorization: Bearer abc\r\nX-Empty: \r\nOrigin: http://a\r\nVia: 1.1 a\r\n"
                  "Date: now\r\nSet-Cookie: not=mine\r\nX-Real-IP: 1.2.3.4\r\n");
}

static void test_what_is_between_the_client_and_us_stays_here(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "Connection: close\r\n",
        "CONNECTION: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
        "proxy-Anything: x\r\n",
        "TE: trailers\r\n",
        "Trailer: X-Sum\r\n",
        "Upgrade: h2c\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Expect: 100-continue\r\n",
        "Forwarded: for=1.2.3.4\r\n",
        "X-Forwarded-For: 1.2.3.4\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: elsewhere\r\n",
        "X-Request-Id: theirs\r\n",
        "X-Named: 1\r\nConnection: close, x-NAMED ,,x-other\r\nX-Other: 2\r\n",
        "Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\nConnection: x-b\r\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        check_request("GET / HTTP/1.1", fields[i], "");
}

static void test_connection_takes_away_nothing_that_we_say(void **state)
{
    (void)state;
    check_request(
        "GET / HTTP/1.1",
        "Connection: host, x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-request-id, cookie\r\n"
        "Cookie: a=1\r\n",
        "Cookie: a=1\r\n");
    check_request("POST / HTTP/1.1", "Connection: content-length\r\nContent-Length: 5\r\n",
                  "Content-Length: 5\r\n");
    check_request("GET / HTTP/1.1", "Proxying: x\r\nProxy: y\r\nConnection: close\r\n",
                  "Proxying: x\r\nProxy: y\r\n");
}

static void test_so_many_named_fields_and_no_more(void **state)
{
    (void)state;
    struct buf fields = {0};
    buf_add_text(&fields, "Connection: x-0");
    for (int i = 1; i < 3000; i++)
        buf_printf(&fields, ",x-%d", i);
    buf_add_text(&fields, "\r\nX-0: a\r\nX-31: b\r\nX-32: c\r\n");
    buf_add_char(&fields, '\0');
    check_request("GET / HTTP/1.1", fields.at, "X-32: c\r\n");
    buf_clear(&fields);
}

static void test_lengths_are_as_they_came(void **state)
{
    (void)state;
    check_request("POST / HTTP/1.1", "Content-Length: 17\r\n", "Content-Length: 17\r\n");
    check_request("POST / HTTP/1.1", "Content-Length: 0\r\n", "Content-Length: 0\r\n");
    check_request("POST / HTTP/1.1", "Content-Length: 0018\r\n", "Content-Length: 18\r\n");
    check_request("POST / HTTP/1.1", "", "");
    struct head_request request = request_of("POST / HTTP/1.1", "Transfer-Encoding: Chunked\r\n");
    assert_string_equal(forward(&request), "POST / HTTP/1.1\r\nHost: vs-code-abcdefgh.localhost:8080\r\n" OURS
                                           "Transfer-Encoding: chunked\r\n\r\n");
}

static void test_http_1_0_becomes_http_1_1(void **state)
{
    (void)state;
    check_request("GET / HTTP/1.0", "Connection: keep-alive\r\n", "");
}

static void test_an_upgrade_goes_on_when_it_is_one(void **state)
{
    (void)state;
    struct head_request request = request_of(
        "GET / HTTP/1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
                          "Sec-WebSocket-Key: x\r\nSec-WebSocket-Extensions: permessage-deflate; a=b\r\n");
    request.upgrade = true;
    assert_string_equal(forward(&request),
                        "GET / HTTP/1.1\r\nHost: vs-code-abcdefgh.localhost:8080\r\nSec-WebSocket-Key: x\r\n"
                        "Sec-WebSocket-Extensions: permessage-deflate; a=b\r\n" OURS
                        "Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n");
}

static void test_who_asked_is_said_by_trusted_proxies_alone(void **state)
{
    (void)state;
    static const char fields[] = "X-Forwarded-For: 10.0.0.1\r\nX-A: 1\r\nX-Forwarded-For:\r\n"
                                 "x-forwarded-for: 10.0.0.2, 10.0.0.3\r\n";
    struct head_request request = request_of("GET / HTTP/1.1", fields);
    assert_non_null(strstr(forward(&request), "\r\nX-Forwarded-For: 192.0.2.7\r\n"));
    request.trusted = true;
    assert_non_null(
        strstr(forward(&request), "\r\nX-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7\r\n"));
    request.scheme = STR("https");
    assert_non_null(strstr(forward(&request), "\r\nX-Forwarded-Proto: https\r\n"));
}

static void test_our_cookie_stays_here_and_others_go_on(void **state)
{
    (void)state;
    static const struct {
        const char *came;
        const char *goes; /* NULL: no field */
    } rows[] = {
        {"a=1", "a=1"},
        {"a=1;b=2;  c=3", "a=1;b=2;  c=3"},
        {"a=" COOKIE, "a=" COOKIE},
        {"x" COOKIE "=1", "x" COOKIE "=1"},
        {COOKIE "2=1", COOKIE "2=1"},
        {"Wakegate_workspace=1", "Wakegate_workspace=1"},
        {COOKIE, COOKIE},
        {COOKIE "=t", NULL},
        {COOKIE "=", NULL},
        {" ; " COOKIE "=t ;", NULL},
        {COOKIE " = t", NULL},
        {COOKIE "=t; a=1", "a=1"},
        {"a=1; " COOKIE "=t", "a=1"},
        {"a=1;" COOKIE "=t;b=2=3; c", "a=1; b=2=3; c"},
        {COOKIE "=t; a=1; " COOKIE "=u; b=\"x; " COOKIE "=v; c=2", "a=1; b=\"x; c=2"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_request("GET / HTTP/1.1", arena_printf(&arena, "Cookie: %s\r\n", rows[i].came),
                      rows[i].goes ? arena_printf(&arena, "Cookie: %s\r\n", rows[i].goes) : "");
    check_request("GET / HTTP/1.1", "Cookie: a=1\r\nCookie: " COOKIE "=t\r\ncookie: b=2; " COOKIE "=u\r\n",
                  "Cookie: a=1\r\ncookie: b=2\r\n");
}

static void test_every_token_is_found(void **state)
{
    (void)state;
    struct str value;
    struct str cookies = STR("a=1; " COOKIE "=one;" COOKIE "=two; b; " COOKIE "= three ");
    static const char *const tokens[] = {"one", "two", "three"};
    for (size_t i = 0; i < ARRAY_SIZE(tokens); i++) {
        assert_true(head_next_cookie(&cookies, STR(COOKIE), &value));
        assert_true(str_equal(value, str_from(tokens[i])));
    }
    assert_false(head_next_cookie(&cookies, STR(COOKIE), &value));
    struct str query = STR("a=1&" LINK "=one&" LINK "&" LINK "=t=o&" LINK "s=no");
    assert_true(head_next_param(&query, STR(LINK), &value) && str_equal(value, STR("one")));
    assert_true(head_next_param(&query, STR(LINK), &value) && value.size == 0);
    assert_true(head_next_param(&query, STR(LINK), &value) && str_equal(value, STR("t=o")));
    assert_false(head_next_param(&query, STR(LINK), &value));
    struct str none = STR_NONE;
    assert_false(head_next_param(&none, STR(LINK), &value));
}

static void test_our_parameter_is_taken_out_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *came;
        const char *left; /* NULL: no query */
    } rows[] = {
        {"", ""},
        {"a=1", "a=1"},
        {"a=%zz&&b=+&;c", "a=%zz&&b=+&;c"},
        {LINK "s=1", LINK "s=1"},
        {"a=" LINK, "a=" LINK},
        {"a=1?" LINK "=2", "a=1?" LINK "=2"},
        {"wakegate%5Flink=t", "wakegate%5Flink=t"},
        {"Wakegate_link=t", "Wakegate_link=t"},
        {LINK "=t", NULL},
        {LINK, NULL},
        {LINK "=", NULL},
        {LINK "=t&" LINK "=u", NULL},
        {"a=1&" LINK "=t", "a=1"},
        {LINK "=t&a=1", "a=1"},
        {"a=1&" LINK "=t&b=%20&b=2", "a=1&b=%20&b=2"},
        {"&" LINK "=t&", "&"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str left = head_query_without(&arena, str_from(rows[i].came), STR(LINK));
        assert_true(str_equal(left, str_from(rows[i].left)));
        assert_true((left.at == NULL) == (rows[i].left == NULL));
    }
    assert_null(head_query_without(&arena, STR_NONE, STR(LINK)).at);
}

/* ---- answers ---- */

static const struct http1_answer_head *answer_head(const char *status, const char *fields)
{
    http1_answer_free(answer_parser);
    answer_parser = http1_answer_new(on_body, NULL);
    http1_answer_begin(answer_parser, &arena, false);
    const char *text = arena_printf(&arena, "HTTP/1.1 %s\r\n%s\r\n", status, fields);
    enum http1_event event;
    http1_answer_feed(answer_parser, text, strlen(text), &event);
    assert_int_equal(event, HTTP1_HEAD);
    return http1_answer_head(answer_parser);
}

static void check_answer(const char *status, const char *fields, const char *expected)
{
    http.field_count = 0;
    out.size = 0;
    head_add_answer(&http, answer_head(status, fields));
    for (size_t i = 0; i < http.field_count; i++)
        http1_put_header(&out, http.fields[i].name, http.fields[i].value);
    assert_string_equal(arena_dup(&arena, out.at ? out.at : "", out.size), expected);
}

static void test_an_answers_fields_go_on_as_they_are(void **state)
{
    (void)state;
    static const char fields[] =
        "Server: x\r\nContent-Type: text/html\r\nETag: \"a\"\r\nLocation: //b\r\nVary: *\r\n"
        "Content-Encoding: br\r\nX-Frame-Options: DENY\r\nHost: odd\r\nCookie: odd\r\n"
        "Access-Control-Allow-Origin: *\r\nLink: <a>, <b>\r\nlink: <c>\r\n";
    check_answer("200 OK", fields, fields);
}

static void test_what_is_between_the_pod_and_us_stays_here(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "Connection: close\r\n",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        "Proxy-Authenticate: Basic\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
        "Content-Length: 5\r\n",
        "Upgrade: h2,h2c\r\nConnection: Upgrade\r\n",
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "X-Request-Id: theirs\r\n",
        "X-Named: 1\r\nConnection: x-named\r\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        check_answer("200 OK", fields[i], "");
}

static void test_a_switch_says_to_what(void **state)
{
    (void)state;
    check_answer("101 Switching Protocols",
                 "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n"
                 "Sec-WebSocket-Protocol: a\r\nDate: now\r\n",
                 "Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: a\r\n");
}

static void test_a_pods_cookie_is_for_its_own_host(void **state)
{
    (void)state;
    static const struct {
        const char *came;
        const char *goes; /* NULL: no field */
    } rows[] = {
        {"a=1", "a=1"},
        {"a=1; Path=/; HttpOnly", "a=1; Path=/; HttpOnly"},
        {"a=domain; path=/domain=x", "a=domain; path=/domain=x"},
        {"a=1; Domain=localhost", "a=1"},
        {"a=1; DOMAIN = .localhost ; Path=/", "a=1; Path=/"},
        {"a=1;domain;Secure;\tdomain=x", "a=1;Secure"},
        {"domain=1; Domain=x", "domain=1"},
        {"", ""},
        {"x" COOKIE "=1; Domain=x", "x" COOKIE "=1"},
        {COOKIE "=t; Path=/", NULL},
        {" " COOKIE " =t", NULL},
        {COOKIE "=", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        check_answer("200 OK", arena_printf(&arena, "Set-Cookie: %s\r\n", rows[i].came),
                     rows[i].goes ? arena_printf(&arena, "Set-Cookie: %s\r\n", rows[i].goes) : "");
}

static void test_many_fields_keep_their_order(void **state)
{
    (void)state;
    struct buf fields = {0};
    for (int i = 0; i < 98; i++)
        buf_printf(&fields, "X-%d: %d\r\n", i, i);
    buf_add_char(&fields, '\0');
    check_answer("200 OK", fields.at, fields.at);
    buf_clear(&fields);
}

/* ---- origins ---- */

static void test_an_origin_is_scheme_name_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *origin;
        const char *scheme;
        const char *host;
        bool same;
    } rows[] = {
        {"http://a.localhost", "http", "a.localhost", true},
        {"http://a.localhost:8080", "http", "a.localhost:8080", true},
        {"http://a.localhost", "http", "a.localhost:80", true},
        {"http://a.localhost:80", "http", "a.localhost", true},
        {"https://a.localhost", "https", "a.localhost:443", true},
        {"HTTPS://A.LocalHost", "https", "a.localhost", true},
        {"https://a.localhost", "http", "a.localhost", false},
        {"http://a.localhost", "https", "a.localhost", false},
        {"http://a.localhost:8081", "http", "a.localhost:8080", false},
        {"http://a.localhost", "http", "a.localhost:8080", false},
        {"http://a.localhost:443", "http", "a.localhost", false},
        {"https://a.localhost:80", "https", "a.localhost", false},
        {"http://b.localhost", "http", "a.localhost", false},
        {"http://xa.localhost", "http", "a.localhost", false},
        {"http://a.localhost.evil", "http", "a.localhost", false},
        {"http://a.localhost/", "http", "a.localhost", false},
        {"http:/a.localhost", "http", "a.localhost", false},
        {"//a.localhost", "http", "a.localhost", false},
        {"a.localhost", "http", "a.localhost", false},
        {"http://", "http", "a.localhost", false},
        {"null", "http", "a.localhost", false},
        {"", "http", "a.localhost", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(
            gate_is_same_origin(str_from(rows[i].origin), str_from(rows[i].scheme), str_from(rows[i].host)),
            rows[i].same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fields_go_on_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_between_the_client_and_us_stays_here, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connection_takes_away_nothing_that_we_say, setup, teardown),
        cmocka_unit_test_setup_teardown(test_so_many_named_fields_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths_are_as_they_came, setup, teardown),
        cmocka_unit_test_setup_teardown(test_http_1_0_becomes_http_1_1, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_upgrade_goes_on_when_it_is_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_asked_is_said_by_trusted_proxies_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_our_cookie_stays_here_and_others_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_token_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_our_parameter_is_taken_out_and_nothing_else, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_answers_fields_go_on_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_between_the_pod_and_us_stays_here, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_switch_says_to_what, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pods_cookie_is_for_its_own_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_fields_keep_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_origin_is_scheme_name_and_port, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
