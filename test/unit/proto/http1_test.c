/*
 * What the front door lets in: raw bytes and what becomes of them. Each vector is fed whole, byte by byte, and
 * behind a good request on the same connection; all three must come to the same.
 */
#include "proto/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* What a parser made of some bytes. */
struct outcome {
    unsigned requests; /* complete ones */
    unsigned heads;    /* HTTP1_HEAD events */
    int status;        /* of the error, 0: none */
    struct buf body;   /* of the last request */
    struct buf method; /* of the last head */
    struct buf target;
    size_t fields;
    bool keep_alive;
    bool expect_continue;
    bool chunked;
    uint64_t content_length;
};

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct outcome *outcome = arg;
    buf_add(&outcome->body, bytes, size);
}

static void note_head(struct outcome *outcome, const struct http1_head *head)
{
    outcome->method.size = 0;
    outcome->target.size = 0;
    buf_add_str(&outcome->method, head->method);
    buf_add_str(&outcome->target, head->target);
    outcome->fields = head->count;
    outcome->keep_alive = head->keep_alive;
    outcome->expect_continue = head->expect_continue;
    outcome->chunked = head->chunked;
    outcome->content_length = head->content_length;
}

/* Every feed gets a heap block of exactly its size: a read past it is found. */
static size_t feed_exactly(struct http1_parser *parser, const char *bytes, size_t size,
                           enum http1_event *event)
{
    char *exact = malloc(size);
    assert_non_null(exact);
    memcpy(exact, bytes, size);
    size_t taken = http1_feed(parser, exact, size, event);
    free(exact);
    return taken;
}

/* Feeds `step` bytes at a time. */
static void run(struct str bytes, size_t step, struct outcome *outcome)
{
    *outcome = (struct outcome){0};
    struct arena arena;
    arena_init(&arena);
    struct http1_parser *parser = http1_new(on_body, outcome);
    http1_begin(parser, &arena);
    for (size_t at = 0; at < bytes.size && !outcome->status;) {
        size_t size = bytes.size - at < step ? bytes.size - at : step;
        enum http1_event event;
        size_t taken = feed_exactly(parser, bytes.at + at, size, &event);
        assert_true(taken <= size);
        assert_true(taken > 0 || event == HTTP1_ERROR);
        at += taken;
        const char *reason;
        switch (event) {
        case HTTP1_MORE: assert_int_equal(taken, size); break;
        case HTTP1_HEAD:
            outcome->heads++;
            assert_true(http1_head(parser)->has_body);
            note_head(outcome, http1_head(parser));
            break;
        case HTTP1_END:
            outcome->requests++;
            note_head(outcome, http1_head(parser));
            arena_clear(&arena);
            http1_begin(parser, &arena);
            if (at < bytes.size)
                outcome->body.size = 0;
            break;
        case HTTP1_ERROR:
            outcome->status = http1_error(parser, &reason);
            assert_non_null(reason);
            assert_true(outcome->status >= 400 && outcome->status <= 505);
            break;
        }
    }
    http1_free(parser);
    arena_clear(&arena);
}

static void outcome_clear(struct outcome *outcome)
{
    buf_clear(&outcome->body);
    buf_clear(&outcome->method);
    buf_clear(&outcome->target);
}

struct vector {
    const char *name;
    struct str bytes;
    unsigned requests; /* that become complete */
    int status;        /* of the error; 0: none */
    const char *body;  /* of the last request; NULL: don't look */
};

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" H
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define GOOD GET "\r\n"
#define V(name_, bytes_, requests_, status_, body_)                                                          \
    {                                                                                                        \
        name_, {bytes_, sizeof(bytes_) - 1}, requests_, status_, body_                                       \
    }

/* clang-format off */
static const struct vector vectors[] = {
    V("plain", GOOD, 1, 0, ""),
    V("two", GOOD GOOD, 2, 0, ""),
    V("body", POST "Content-Length: 3\r\n\r\nabc", 1, 0, "abc"),
    V("body, then another", POST "Content-Length: 3\r\n\r\nabc" POST "Content-Length: 2\r\n\r\nde", 2, 0, "de"),
    V("length 0", POST "Content-Length: 0\r\n\r\n" GOOD, 2, 0, ""),
    V("length with zeros before", POST "Content-Length: 003\r\n\r\nabc", 1, 0, "abc"),
    V("incomplete body", POST "Content-Length: 3\r\n\r\nab", 0, 0, "ab"),
    V("incomplete head", GET, 0, 0, ""),
    V("no space after colon", "GET / HTTP/1.1\r\nHost:a\r\n\r\n", 1, 0, ""),
    V("1.0 without Host", "GET / HTTP/1.0\r\n\r\n", 1, 0, ""),
    V("empty lines before", "\r\n\r\n" GOOD "\r\n" GOOD, 2, 0, ""),
    V("query, star, bytes over 0x7f in a value", "OPTIONS * HTTP/1.1\r\n" H "X: \xff\r\n\r\n", 1, 0, ""),

    /* field syntax */
    V("obs-fold", GET "X: a\r\n b\r\n\r\n", 0, 400, ""),
    V("obs-fold with tab", GET "X: a\r\n\tb\r\n\r\n", 0, 400, ""),
    V("fold before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0, 400, ""),
    V("bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 0, 400, ""),
    V("bare LF after a field", GET "X: a\nY: b\r\n\r\n", 0, 400, ""),
    V("bare LF at the end", GET "\n", 0, 400, ""),
    V("bare CR in a value", GET "X: a\rb\r\n\r\n", 0, 400, ""),
    V("bare CR after the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", 0, 400, ""),
    V("space before colon", GET "X : a\r\n\r\n", 0, 400, ""),
    V("tab before colon", GET "X\t: a\r\n\r\n", 0, 400, ""),
    V("empty name", GET ": a\r\n\r\n", 0, 400, ""),
    V("no colon", GET "Xa\r\n\r\n", 0, 400, ""),
    V("NUL in a value", GET "X: a\0b\r\n\r\n", 0, 400, ""),
    V("NUL in a name", GET "X\0Y: a\r\n\r\n", 0, 400, ""),
    V("NUL in the target", "GET /\0 HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("control in a value", GET "X: a\001b\r\n\r\n", 0, 400, ""),
    V("byte over 0x7f in a name", GET "X\xe4: a\r\n\r\n", 0, 400, ""),

    /* Host */
    V("no Host", "GET / HTTP/1.1\r\nX: a\r\n\r\n", 0, 400, ""),
    V("two Hosts", GET H "\r\n", 0, 400, ""),
    V("two different Hosts", GET "HOST: b\r\n\r\n", 0, 400, ""),
    V("two Hosts in 1.0", "GET / HTTP/1.0\r\n" H H "\r\n", 0, 400, ""),
    V("Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 0, 400, ""),
    V("Host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 0, 400, ""),
    V("Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 0, 400, ""),
    V("Host with space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 0, 400, ""),
    V("Host with port", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 1, 0, ""),

    /* versions and request lines */
    V("0.9", "GET /\r\n\r\n", 0, 505, ""),
    V("0.9 spelled out", "GET / HTTP/0.9\r\n" H "\r\n", 0, 505, ""),
    V("1.2", "GET / HTTP/1.2\r\n" H "\r\n", 0, 505, ""),
    V("2.0", "GET / HTTP/2.0\r\n" H "\r\n", 0, 505, ""),
    V("h2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 505, ""),
    V("3", "GET / HTTP/3\r\n" H "\r\n", 0, 505, ""),
    V("11.1", "GET / HTTP/11.1\r\n" H "\r\n", 0, 505, ""),
    V("RTSP", "GET / RTSP/1.0\r\n" H "\r\n", 0, 505, ""),
    V("RTSP's own method", "DESCRIBE / RTSP/1.1\r\n" H "\r\n", 0, 505, ""),
    V("ICE", "SOURCE / ICE/1.0\r\n" H "\r\n", 0, 505, ""),
    V("lower-case protocol", "GET / http/1.1\r\n" H "\r\n", 0, 400, ""),
    V("lower-case method", "get / HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("unknown method", "FROB / HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("two spaces before the target", "GET  / HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("two spaces before the version", "GET /  HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("tab for space", "GET\t/ HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("space at the start", " GET / HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("no target", "GET  HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("target without slash", "GET a HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("star for GET", "GET * HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 0, 405, ""),
    V("CONNECT with a body", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\nabc", 0, 405, ""),
    V("absolute-form", "GET http://a/b HTTP/1.1\r\n" H "\r\n", 1, 0, ""),
    V("absolute-form, other case", "GET HTTP://A/b HTTP/1.1\r\n" H "\r\n", 1, 0, ""),
    V("absolute-form without path", "GET https://a?q HTTP/1.1\r\n" H "\r\n", 1, 0, ""),
    V("absolute-form, other authority", "GET http://b/ HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("absolute-form, userinfo", "GET http://u@a/ HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("absolute-form, other port", "GET http://a:81/ HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("absolute-form, other scheme", "GET ftp://a/ HTTP/1.1\r\n" H "\r\n", 0, 400, ""),
    V("absolute-form in 1.0 without Host", "GET http://a/ HTTP/1.0\r\n\r\n", 0, 400, ""),
    V("TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0, 400, ""),
    V("garbage", "\xff\xfe\xfd", 0, 400, ""),

    /* framing */
    V("length and chunked", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("chunked and length", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("two lengths, same", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 0, 400, ""),
    V("two lengths", POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 0, 400, ""),
    V("length list", POST "Content-Length: 3, 3\r\n\r\nabc", 0, 400, ""),
    V("length with plus", POST "Content-Length: +3\r\n\r\nabc", 0, 400, ""),
    V("length with minus", POST "Content-Length: -3\r\n\r\nabc", 0, 400, ""),
    V("length in hex", POST "Content-Length: 0x3\r\n\r\nabc", 0, 400, ""),
    V("length with a space inside", POST "Content-Length: 3 3\r\n\r\nabc", 0, 400, ""),
    V("length with a comma", POST "Content-Length: 3,\r\n\r\nabc", 0, 400, ""),
    V("empty length", POST "Content-Length:\r\n\r\n", 0, 400, ""),
    V("length too large", POST "Content-Length: 18446744073709551616\r\n\r\nabc", 0, 400, ""),
    V("TE not chunked", POST "Transfer-Encoding: identity\r\n\r\n", 0, 400, ""),
    V("TE gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("TE chunked, gzip", POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("TE chunked twice", POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("two TE", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("TE with vertical tab", POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("TE xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("TE quoted", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("empty TE and length", POST "Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", 0, 400, ""),
    V("TE on 1.0", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400, ""),
    V("space before TE's colon", POST "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc", 0, 400, ""),

    /* chunks */
    V("chunked", CHUNKED "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", 1, 0, "abc0123456789"),
    V("chunked in capitals", POST "Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", 1, 0, "a"),
    V("chunked, empty, then another", CHUNKED "0\r\n\r\n" GOOD, 2, 0, ""),
    V("chunk extension", CHUNKED "3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n", 1, 0, "abc"),
    V("trailers are dropped", CHUNKED "1\r\na\r\n0\r\nX: y\r\nHost: b\r\n\r\n" POST "Content-Length: 1\r\n\r\nz", 2, 0, "z"),
    V("trailer with a fold", CHUNKED "1\r\na\r\n0\r\nX: y\r\n z\r\n\r\n", 0, 400, "a"),
    V("chunk size too large", CHUNKED "10000000000000000\r\na", 0, 400, ""),
    V("chunk size far too large", CHUNKED "ffffffffffffffffffffffffffffffff\r\na", 0, 400, ""),
    V("chunk size with 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("chunk size with plus", CHUNKED "+3\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("chunk size with minus", CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("chunk size garbage", CHUNKED "g\r\n\r\n", 0, 400, ""),
    V("no chunk size", CHUNKED "\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("space before the chunk size", CHUNKED " 3\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("space after the chunk size", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("bare LF after the chunk size", CHUNKED "3\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("bare LF in an extension", CHUNKED "3;a\n\r\nabc\r\n0\r\n\r\n", 0, 400, ""),
    V("chunk longer than its size", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 0, 400, "abc"),
    V("chunk without its end", CHUNKED "3\r\nabc0\r\n\r\n", 0, 400, "abc"),
    V("bare LF after a chunk", CHUNKED "3\r\nabc\n0\r\n\r\n", 0, 400, "abc"),

    /* upgrades are not our business: the next request is HTTP again */
    V("websocket upgrade", GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" GOOD, 2, 0, ""),
    V("h2c upgrade", GET "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n" GOOD, 2, 0, ""),
    V("h2c upgrade with a body", POST "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc" POST "Content-Length: 1\r\n\r\nz", 2, 0, "z"),
    V("upgrade with chunks", POST "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" GOOD, 2, 0, ""),
};
/* clang-format on */

static void check(const struct vector *vector, const char *way, struct str bytes, size_t step,
                  unsigned before)
{
    struct outcome outcome;
    run(bytes, step, &outcome);
    bool same_body = !vector->body ||
                     (outcome.body.size == strlen(vector->body) &&
                      memcmp(vector->body, outcome.body.size ? outcome.body.at : "", outcome.body.size) == 0);
    if (outcome.requests != vector->requests + before || outcome.status != vector->status || !same_body)
        fail_msg("%s, %s: %u requests, status %d, body \"%.*s\"", vector->name, way, outcome.requests,
                 outcome.status, STR_ARG(buf_str(&outcome.body)));
    outcome_clear(&outcome);
}

static void every_vector_comes_to_the_same_whole_bytewise_and_pipelined(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        const struct vector *vector = &vectors[i];
        struct buf behind = {0};
        buf_add_literal(&behind, POST "Content-Length: 4\r\n\r\ngood");
        buf_add_str(&behind, vector->bytes);
        check(vector, "whole", vector->bytes, SIZE_MAX, 0);
        check(vector, "byte by byte", vector->bytes, 1, 0);
        check(vector, "pipelined", buf_str(&behind), SIZE_MAX, 1);
        check(vector, "pipelined byte by byte", buf_str(&behind), 1, 1);
        check(vector, "in threes", buf_str(&behind), 3, 1);
        buf_clear(&behind);
    }
}

/* Status of a request with so many bytes in its request line, headers, fields, extensions. */
static int status_of(struct buf *bytes)
{
    int statuses[2];
    for (int way = 0; way < 2; way++) {
        struct outcome outcome;
        run(buf_str(bytes), way ? 1 : SIZE_MAX, &outcome);
        statuses[way] = outcome.requests ? 200 : outcome.status;
        outcome_clear(&outcome);
    }
    assert_int_equal(statuses[0], statuses[1]);
    buf_clear(bytes);
    return statuses[0];
}

static void fill(struct buf *bytes, char c, size_t count)
{
    memset(buf_reserve(bytes, count), c, count);
    bytes->size += count;
}

static int status_with_line(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, "GET /");
    fill(&bytes, 'x', size - strlen("GET/"));
    buf_add_literal(&bytes, " HTTP/1.1\r\n" H "\r\n");
    return status_of(&bytes);
}

static int status_with_headers(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, "GET / HTTP/1.1\r\n" H "X:");
    fill(&bytes, 'x', size - strlen("Hosta") - 4 - strlen("X") - 4);
    buf_add_literal(&bytes, "\r\n\r\n");
    return status_of(&bytes);
}

static int status_with_fields(unsigned count, const char *name)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, "GET / HTTP/1.1\r\n" H);
    for (unsigned i = 1; i < count; i++)
        buf_printf(&bytes, "%s%u: a\r\n", name, i);
    buf_add_literal(&bytes, "\r\n");
    return status_of(&bytes);
}

static void sizes_are_bounded_exactly(void **state)
{
    (void)state;
    assert_int_equal(status_with_line(HTTP1_LINE_MAX - 1), 200);
    assert_int_equal(status_with_line(HTTP1_LINE_MAX), 200);
    assert_int_equal(status_with_line(HTTP1_LINE_MAX + 1), 414);
    assert_int_equal(status_with_line(10 * HTTP1_LINE_MAX), 414);
    assert_int_equal(status_with_headers(HTTP1_HEADERS_MAX - 1), 200);
    assert_int_equal(status_with_headers(HTTP1_HEADERS_MAX), 200);
    assert_int_equal(status_with_headers(HTTP1_HEADERS_MAX + 1), 431);
    assert_int_equal(status_with_fields(HTTP1_FIELDS_MAX, "X"), 200);
    assert_int_equal(status_with_fields(HTTP1_FIELDS_MAX + 1, "X"), 431);
    struct buf long_method = {0};
    fill(&long_method, 'A', 100000);
    assert_int_equal(status_of(&long_method), 400);
}

/* Names that are dropped cost as much as others: they can't be sent without end. */
static void dropped_fields_are_bounded_too(void **state)
{
    (void)state;
    assert_int_equal(status_with_fields(4000, "a_"), 431);
    struct buf trailers = {0};
    buf_add_literal(&trailers, CHUNKED "0\r\n");
    for (int i = 0; i < 4000; i++)
        buf_printf(&trailers, "X%d: y\r\n", i);
    buf_add_literal(&trailers, "\r\n");
    assert_int_equal(status_of(&trailers), 431);
}

static void chunk_extensions_are_bounded(void **state)
{
    (void)state;
    struct buf one = {0};
    buf_add_literal(&one, CHUNKED "1;");
    fill(&one, 'x', 20000);
    buf_add_literal(&one, "\r\na\r\n0\r\n\r\n");
    assert_int_equal(status_of(&one), 400);
    struct buf many = {0};
    buf_add_literal(&many, CHUNKED);
    for (int i = 0; i < 3000; i++)
        buf_add_literal(&many, "1;ab=\"cd\"\r\na\r\n");
    buf_add_literal(&many, "0\r\n\r\n");
    assert_int_equal(status_of(&many), 400);
    struct buf few = {0};
    buf_add_literal(&few, CHUNKED);
    for (int i = 0; i < 100; i++)
        buf_add_literal(&few, "1;ab=\"cd\"\r\na\r\n");
    buf_add_literal(&few, "0\r\n\r\n");
    assert_int_equal(status_of(&few), 200);
}

static void keep_alive_follows_version_and_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool keeps;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: foo, CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: keep-alive, close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n" H "\r\n", false},
        {"GET / HTTP/1.0\r\n" H "Connection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n" H "Connection: Keep-Alive, foo\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outcome outcome;
        run(str_from(rows[i].bytes), SIZE_MAX, &outcome);
        assert_int_equal(outcome.requests, 1);
        if (outcome.keep_alive != rows[i].keeps)
            fail_msg("%s", rows[i].bytes);
        outcome_clear(&outcome);
    }
}

static void expect_continue_is_told(void **state)
{
    (void)state;
    struct outcome outcome;
    run(STR(POST "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n"), SIZE_MAX, &outcome);
    assert_int_equal(outcome.heads, 1);
    assert_true(outcome.expect_continue);
    assert_int_equal(outcome.content_length, 3);
    assert_false(outcome.chunked);
    outcome_clear(&outcome);
    run(STR("POST / HTTP/1.0\r\n" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), SIZE_MAX, &outcome);
    assert_int_equal(outcome.heads, 1);
    assert_false(outcome.expect_continue);
    outcome_clear(&outcome);
}

static void fields_are_kept_as_sent_but_underscores(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct http1_parser *parser = http1_new(NULL, NULL);
    http1_begin(parser, &arena);
    enum http1_event event;
    struct str bytes =
        STR("GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-One:  1 \t \r\nX_One: 2\r\nx-one: 3\r\nEmpty:\r\n\r\n");
    assert_int_equal(http1_feed(parser, bytes.at, bytes.size, &event), bytes.size);
    assert_int_equal(event, HTTP1_END);
    const struct http1_head *head = http1_head(parser);
    assert_true(str_equal(head->method, STR("GET")));
    assert_true(str_equal(head->target, STR("/a?b=c")));
    assert_true(str_equal(head->host, STR("a")));
    assert_int_equal(head->count, 4);
    assert_true(str_equal(head->fields[1].name, STR("X-One")));
    assert_true(str_equal(http1_header(head, "x-one"), STR("1")));
    assert_int_equal(http1_header_count(head, "x-one"), 2);
    assert_non_null(http1_header(head, "empty").at);
    assert_int_equal(http1_header(head, "empty").size, 0);
    assert_null(http1_header(head, "x_one").at);
    assert_null(http1_header(head, "none").at);
    http1_free(parser);
    arena_clear(&arena);
}

static void answers_cannot_be_split(void **state)
{
    (void)state;
    struct buf out = {0};
    http1_put_status(&out, 200);
    http1_put_status(&out, 404);
    http1_put_status(&out, 299);
    http1_put_header(&out, STR("A"), str_of("b\r\nC: d\0e", 9));
    http1_put_header(&out, STR("E"), STR_NONE);
    buf_add_char(&out, '\0');
    assert_string_equal(out.at, "HTTP/1.1 200 OK\r\nHTTP/1.1 404 Not Found\r\nHTTP/1.1 299 Unknown\r\n"
                                "A: b  C: d e\r\nE: \r\n");
    buf_clear(&out);
}

static void lists_are_split_at_commas(void **state)
{
    (void)state;
    assert_true(http1_list_has(STR("Upgrade"), "upgrade"));
    assert_true(http1_list_has(STR("a ,\t upGrade ,b"), "upgrade"));
    assert_false(http1_list_has(STR("upgrades, x-upgrade"), "upgrade"));
    assert_false(http1_list_has(STR_NONE, "upgrade"));
    assert_false(http1_list_has(STR(""), "upgrade"));
}

/* Whatever comes, in whatever pieces, ends in an event. */
static void any_bytes_in_any_pieces_come_to_an_end(void **state)
{
    (void)state;
    srand(7);
    for (int round = 0; round < 3000; round++) {
        const struct vector *vector = &vectors[(size_t)rand() % ARRAY_SIZE(vectors)];
        struct buf bytes = {0};
        buf_add_str(&bytes, vector->bytes);
        buf_add_str(&bytes, vectors[(size_t)rand() % ARRAY_SIZE(vectors)].bytes);
        for (int k = rand() % 4; k > 0; k--)
            bytes.at[(size_t)rand() % bytes.size] = (char)rand();
        struct outcome whole;
        struct outcome pieces;
        run(buf_str(&bytes), SIZE_MAX, &whole);
        run(buf_str(&bytes), 1 + (size_t)rand() % 20, &pieces);
        assert_int_equal(whole.requests, pieces.requests);
        assert_int_equal(whole.status != 0, pieces.status != 0);
        outcome_clear(&whole);
        outcome_clear(&pieces);
        buf_clear(&bytes);
    }
}

static int teardown(void **state)
{
    (void)state;
    arena_thread_clear();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_comes_to_the_same_whole_bytewise_and_pipelined),
        cmocka_unit_test(sizes_are_bounded_exactly),
        cmocka_unit_test(dropped_fields_are_bounded_too),
        cmocka_unit_test(chunk_extensions_are_bounded),
        cmocka_unit_test(keep_alive_follows_version_and_connection),
        cmocka_unit_test(expect_continue_is_told),
        cmocka_unit_test(fields_are_kept_as_sent_but_underscores),
        cmocka_unit_test(answers_cannot_be_split),
        cmocka_unit_test(lists_are_split_at_commas),
        cmocka_unit_test(any_bytes_in_any_pieces_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
