/*
 * What is taken for a pod's answer: raw bytes and what becomes of them. Each vector is fed whole, in threes and byte by
 * byte, by a new parser and by one that has read an answer before; all must come to the same.
 */
#include "proto/http1_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* What a parser made of some bytes. */
struct outcome {
    int status;  /* of the head; 0: none was complete */
    bool ended;  /* HTTP1_END */
    bool failed; /* HTTP1_ERROR */
    size_t left; /* bytes after the end */
    struct buf body;
    size_t fields;
    bool has_length;
    uint64_t content_length;
    bool chunked;
    bool has_body;
    bool to_end;
    bool keep_alive;
    bool switched;
};

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct outcome *outcome = arg;
    buf_add(&outcome->body, bytes, size);
}

static void note_head(struct outcome *outcome, const struct http1_answer_head *head)
{
    assert_int_equal(outcome->status, 0);
    outcome->status = head->status;
    outcome->fields = head->count;
    outcome->has_length = head->has_length;
    outcome->content_length = head->content_length;
    outcome->chunked = head->chunked;
    outcome->has_body = head->has_body;
    outcome->to_end = head->to_end;
    outcome->keep_alive = head->keep_alive;
    outcome->switched = head->switched;
}

/* Every feed gets a heap block of exactly its size: a read past it is found. */
static size_t feed_exactly(struct http1_answer *parser, const char *bytes, size_t size,
                           enum http1_event *event)
{
    char *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    if (size)
        memcpy(exact, bytes, size);
    size_t taken = http1_answer_feed(parser, exact, size, event);
    free(exact);
    assert_true(taken <= size);
    return taken;
}

static void feed_all(struct http1_answer *parser, struct str bytes, size_t step, struct outcome *outcome)
{
    size_t at = 0;
    bool ask_again = false; /* a head may be an answer's end: the next call says so even without bytes */
    while ((at < bytes.size || ask_again) && !outcome->ended && !outcome->failed) {
        size_t size = ask_again ? 0 : bytes.size - at < step ? bytes.size - at : step;
        enum http1_event event;
        size_t taken = feed_exactly(parser, bytes.at + at, size, &event);
        at += taken;
        ask_again = event == HTTP1_HEAD;
        switch (event) {
        case HTTP1_MORE: assert_int_equal(taken, size); break;
        case HTTP1_HEAD: note_head(outcome, http1_answer_head(parser)); break;
        case HTTP1_END: outcome->ended = true; break;
        case HTTP1_ERROR:
            outcome->failed = true;
            assert_non_null(http1_answer_error(parser));
            break;
        }
    }
    outcome->left = bytes.size - at;
}

enum before { NOTHING, AN_ANSWER, AN_ERROR, HALF_A_BODY, BEFORES };

static void run(struct str bytes, size_t step, bool to_head, enum before before, struct outcome *outcome)
{
    static const char *const befores[BEFORES] = {
        "",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 2x",
        "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    };
    struct arena arena;
    struct arena older;
    arena_init(&older);
    arena_init(&arena);
    *outcome = (struct outcome){0};
    struct http1_answer *parser = http1_answer_new(on_body, outcome);
    http1_answer_begin(parser, &older, true);
    struct outcome ignored = {0};
    http1_answer_begin(parser, &older, false);
    feed_all(parser, str_from(befores[before]), SIZE_MAX, &ignored);
    arena_clear(&older);
    outcome->body.size = 0;
    http1_answer_begin(parser, &arena, to_head);
    feed_all(parser, bytes, step, outcome);
    if (!outcome->ended && http1_answer_end(parser)) {
        assert_false(outcome->failed);
        assert_true(outcome->to_end);
        outcome->ended = true;
    }
    http1_answer_free(parser);
    arena_clear(&arena);
}

struct vector {
    const char *name;
    struct str bytes;
    int status;       /* of the head; 0: none */
    const char *body; /* as far as it came */
    const char *end;  /* "end", "cut" (more is needed) or "error" */
    size_t left;      /* bytes behind the end */
};

#define S "HTTP/1.1 200 OK\r\n"
#define CHUNKED S "Transfer-Encoding: chunked\r\n\r\n"
#define LENGTH(n) S "Content-Length: " #n "\r\n\r\n"
#define V(name_, bytes_, status_, body_, end_, left_)                                                        \
    {                                                                                                        \
        name_, {bytes_, sizeof(bytes_) - 1}, status_, body_, end_, left_                                     \
    }

/* clang-format off */
static const struct vector vectors[] = {
    V("length", LENGTH(3) "abc", 200, "abc", "end", 0),
    V("length 0", LENGTH(0), 200, "", "end", 0),
    V("length, more behind", LENGTH(3) "abcHTTP/1.1", 200, "abc", "end", 8),
    V("length 0, more behind", LENGTH(0) "x", 200, "", "end", 1),
    V("length, cut off", LENGTH(3) "ab", 200, "ab", "cut", 0),
    V("length with zeros before", LENGTH(003) "abc", 200, "abc", "end", 0),
    V("to the end of the connection", S "\r\nabc\r\n0\r\n\r\n", 200, "abc\r\n0\r\n\r\n", "end", 0),
    V("to the end, empty", S "\r\n", 200, "", "end", 0),
    V("1.0", "HTTP/1.0 200 OK\r\n\r\nabc", 200, "abc", "end", 0),
    V("1.0 with a length", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nabc", 200, "a", "end", 2),
    V("no reason", "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", 200, "a", "end", 0),
    V("empty reason", "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na", 200, "a", "end", 0),
    V("status 599", "HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", 599, "", "end", 0),
    V("no space after colon, bytes over 0x7f", S "Content-Length:1\r\nA:\xff\r\n\r\na", 200, "a", "end", 0),
    V("head cut off", S "A: b\r\n", 0, "", "cut", 0),

    /* status lines */
    V("0.9", "HTTP/0.9 200 OK\r\n\r\n", 0, "", "error", 0),
    V("1.2", "HTTP/1.2 200 OK\r\n\r\n", 0, "", "error", 0),
    V("2", "HTTP/2 200\r\n\r\n", 0, "", "error", 0),
    V("2.0", "HTTP/2.0 200 OK\r\n\r\n", 0, "", "error", 0),
    V("3", "HTTP/3 200\r\n\r\n", 0, "", "error", 0),
    V("11.1", "HTTP/11.1 200 OK\r\n\r\n", 0, "", "error", 0),
    V("body alone", "<html>", 0, "", "error", 0),
    V("RTSP", "RTSP/1.0 200 OK\r\n\r\n", 0, "", "error", 0),
    V("ICE", "ICE/1.0 200 OK\r\n\r\n", 0, "", "error", 0),
    V("lower case", "http/1.1 200 OK\r\n\r\n", 0, "", "error", 0),
    V("a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, "", "error", 0),
    V("TLS alert", "\x15\x03\x01\x00\x02\x02\x46", 0, "", "error", 0),
    V("h2 settings", "\0\0\0\x04\0\0\0\0\0", 0, "", "error", 0),
    V("empty line before", "\r\n" LENGTH(0), 0, "", "error", 0),
    V("LF before", "\n" LENGTH(0), 0, "", "error", 0),
    V("space before", " " LENGTH(0), 0, "", "error", 0),
    V("two spaces", "HTTP/1.1  200 OK\r\n\r\n", 0, "", "error", 0),
    V("tab for space", "HTTP/1.1\t200 OK\r\n\r\n", 0, "", "error", 0),
    V("tab before the reason", "HTTP/1.1 200\tOK\r\n\r\n", 0, "", "error", 0),
    V("no space before the reason", "HTTP/1.1 200OK\r\n\r\n", 0, "", "error", 0),
    V("status 099", "HTTP/1.1 099 No\r\n\r\n", 0, "", "error", 0),
    V("status 000", "HTTP/1.1 000 No\r\n\r\n", 0, "", "error", 0),
    V("status 600", "HTTP/1.1 600 No\r\n\r\n", 0, "", "error", 0),
    V("status 999", "HTTP/1.1 999 No\r\n\r\n", 0, "", "error", 0),
    V("status of two digits", "HTTP/1.1 20 OK\r\n\r\n", 0, "", "error", 0),
    V("status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0, "", "error", 0),
    V("signed status", "HTTP/1.1 +20 OK\r\n\r\n", 0, "", "error", 0),
    V("no status", "HTTP/1.1 OK\r\n\r\n", 0, "", "error", 0),
    V("bare LF after the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", 0, "", "error", 0),
    V("bare LF after the status", "HTTP/1.1 200\nContent-Length: 0\r\n\r\n", 0, "", "error", 0),
    V("bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", 0, "", "error", 0),

    /* fields */
    V("obs-fold", S "A: b\r\n c\r\n\r\n", 0, "", "error", 0),
    V("obs-fold with tab", S "A: b\r\n\tc\r\n\r\n", 0, "", "error", 0),
    V("obs-fold of nothing", S "A:\r\n b\r\n\r\n", 0, "", "error", 0),
    V("fold before the first field", S " A: b\r\n\r\n", 0, "", "error", 0),
    V("bare LF after a field", S "A: b\nC: d\r\n\r\n", 0, "", "error", 0),
    V("bare LF at the end", S "A: b\r\n\n", 0, "", "error", 0),
    V("bare CR in a value", S "A: b\rc\r\n\r\n", 0, "", "error", 0),
    V("space before colon", S "A : b\r\n\r\n", 0, "", "error", 0),
    V("empty name", S ": b\r\n\r\n", 0, "", "error", 0),
    V("no colon", S "Ab\r\n\r\n", 0, "", "error", 0),
    V("NUL in a value", S "A: b\0c\r\n\r\n", 0, "", "error", 0),
    V("NUL in a name", S "A\0B: c\r\n\r\n", 0, "", "error", 0),
    V("control in a value", S "A: b\001c\r\n\r\n", 0, "", "error", 0),
    V("byte over 0x7f in a name", S "A\xe4: b\r\n\r\n", 0, "", "error", 0),

    /* framing */
    V("length and chunked", S "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("chunked and length", S "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("two lengths, same", S "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 0, "", "error", 0),
    V("two lengths", S "Content-Length: 3\r\ncontent-length: 4\r\n\r\nabc", 0, "", "error", 0),
    V("length list", S "Content-Length: 3, 3\r\n\r\nabc", 0, "", "error", 0),
    V("length with plus", S "Content-Length: +3\r\n\r\nabc", 0, "", "error", 0),
    V("length with minus", S "Content-Length: -3\r\n\r\nabc", 0, "", "error", 0),
    V("length in hex", S "Content-Length: 0x3\r\n\r\nabc", 0, "", "error", 0),
    V("length with a space inside", S "Content-Length: 3 3\r\n\r\nabc", 0, "", "error", 0),
    V("empty length", S "Content-Length:\r\n\r\nabc", 0, "", "error", 0),
    V("length too large", S "Content-Length: 18446744073709551616\r\n\r\nabc", 0, "", "error", 0),
    V("TE identity", S "Transfer-Encoding: identity\r\n\r\nabc", 0, "", "error", 0),
    V("TE gzip, chunked", S "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("TE chunked, gzip", S "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("TE chunked twice", S "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("two TE", S "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("empty TE", S "Transfer-Encoding:\r\n\r\nabc", 0, "", "error", 0),
    V("empty TE and length", S "Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", 0, "", "error", 0),
    V("TE xchunked", S "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("TE with vertical tab", S "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("TE on 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("length and chunked of a 304", "HTTP/1.1 304 N\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "", "error", 0),

    /* chunks */
    V("chunked", CHUNKED "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, "abc0123456789", "end", 0),
    V("chunked in capitals", S "Transfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", 200, "a", "end", 0),
    V("chunked, empty", CHUNKED "0\r\n\r\n", 200, "", "end", 0),
    V("chunked, more behind", CHUNKED "1\r\na\r\n0\r\n\r\nHTTP", 200, "a", "end", 4),
    V("chunked, cut off", CHUNKED "3\r\nab", 200, "ab", "cut", 0),
    V("chunked, cut off before the last", CHUNKED "1\r\na\r\n", 200, "a", "cut", 0),
    V("chunked, cut off in the trailers", CHUNKED "1\r\na\r\n0\r\n", 200, "a", "cut", 0),
    V("chunk extension", CHUNKED "3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n", 200, "abc", "end", 0),
    V("trailers are dropped", CHUNKED "1\r\na\r\n0\r\nX: y\r\nSet-Cookie: b\r\n\r\n", 200, "a", "end", 0),
    V("trailer with a fold", CHUNKED "1\r\na\r\n0\r\nX: y\r\n z\r\n\r\n", 200, "a", "error", 0),
    V("trailer with a length", CHUNKED "1\r\na\r\n0\r\nContent-Length: 3\r\n\r\nabc", 200, "a", "error", 0),
    V("chunk size too large", CHUNKED "10000000000000000\r\na", 200, "", "error", 0),
    V("chunk size with 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("chunk size with minus", CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("chunk size garbage", CHUNKED "g\r\n\r\n", 200, "", "error", 0),
    V("no chunk size", CHUNKED "\r\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("space before the chunk size", CHUNKED " 3\r\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("space after the chunk size", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("bare LF after the chunk size", CHUNKED "3\nabc\r\n0\r\n\r\n", 200, "", "error", 0),
    V("chunk longer than its size", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 200, "abc", "error", 0),
    V("chunk without its end", CHUNKED "3\r\nabc0\r\n\r\n", 200, "abc", "error", 0),
    V("bare LF after a chunk", CHUNKED "3\r\nabc\n0\r\n\r\n", 200, "abc", "error", 0),
    V("bare LF at the end of the chunks", CHUNKED "1\r\na\r\n0\r\n\n", 200, "a", "error", 0),

    /* answers without a body */
    V("204", "HTTP/1.1 204 No Content\r\n\r\nHTTP", 204, "", "end", 4),
    V("204 with length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, "", "end", 0),
    V("204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, "", "end", 3),
    V("204 with chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, "", "end", 5),
    V("304", "HTTP/1.1 304 Not Modified\r\n\r\nHTTP", 304, "", "end", 4),
    V("304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, "", "end", 0),
    V("304 with chunks", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, "", "end", 0),

    /* informational answers */
    V("100 first", "HTTP/1.1 100 Continue\r\n\r\n" LENGTH(1) "a", 200, "a", "end", 0),
    V("102, 103 and 104 first", "HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\nHTTP/1.1 104 U\r\nA: b\r\n\r\n" LENGTH(1) "a", 200, "a", "end", 0),
    V("199 first, with close", "HTTP/1.1 199 M\r\nConnection: close\r\n\r\n" LENGTH(1) "a", 200, "a", "end", 0),
    V("100 with length 0", "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" LENGTH(1) "a", 200, "a", "end", 0),
    V("100 alone", "HTTP/1.1 100 Continue\r\n\r\n", 0, "", "cut", 0),
    V("100 with a length", "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc" LENGTH(0), 0, "", "error", 0),
    V("103 with a length", "HTTP/1.1 103 Early\r\nContent-Length: 3\r\n\r\nabc" LENGTH(0), 0, "", "error", 0),
    V("104 with chunks", "HTTP/1.1 104 Odd\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" LENGTH(0), 0, "", "error", 0),
    V("empty line after 100", "HTTP/1.1 100 Continue\r\n\r\n\r\n" LENGTH(0), 0, "", "error", 0),
    V("garbage after 100", "HTTP/1.1 100 Continue\r\n\r\nabc" LENGTH(0), 0, "", "error", 0),

    /* switching */
    V("101", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01" "a", 101, "", "end", 3),
    V("101 after 100", "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", 101, "", "end", 0),
    V("101 with length 0", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\nabc", 101, "", "end", 3),
    V("101 without Upgrade", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\nabc", 0, "", "error", 0),
    V("101 without Connection", "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\nabc", 0, "", "error", 0),
    V("101 with a length", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc", 0, "", "error", 0),
    V("101 with chunks", "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", "error", 0),
    V("200 with Upgrade is HTTP", S "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc", 200, "abc", "end", 0),
};
/* clang-format on */

static const char *end_of(const struct outcome *outcome)
{
    return outcome->failed ? "error" : outcome->ended ? "end" : "cut";
}

static void check(const struct vector *vector, size_t step, enum before before)
{
    struct outcome outcome;
    run(vector->bytes, step, false, before, &outcome);
    bool same_body = outcome.body.size == strlen(vector->body) &&
                     memcmp(vector->body, outcome.body.size ? outcome.body.at : "", outcome.body.size) == 0;
    bool same_left = outcome.failed || outcome.left == vector->left;
    if (outcome.status != vector->status || strcmp(end_of(&outcome), vector->end) != 0 || !same_body ||
        !same_left)
        fail_msg("%s, %zu bytes at a time, before it %d: status %d, %s, %zu left, body \"%.*s\"",
                 vector->name, step, (int)before, outcome.status, end_of(&outcome), outcome.left,
                 STR_ARG(buf_str(&outcome.body)));
    buf_clear(&outcome.body);
}

static void every_vector_comes_to_the_same_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++)
        for (enum before before = NOTHING; before < BEFORES; before++) {
            check(&vectors[i], SIZE_MAX, before);
            check(&vectors[i], 3, before);
            check(&vectors[i], 1, before);
        }
}

static void an_answer_to_head_has_no_body_and_keeps_its_fields(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool has_length;
        bool chunked;
        bool keep_alive;
    } rows[] = {
        {S "Content-Length: 5\r\n\r\n", true, false, true},
        {S "Transfer-Encoding: chunked\r\n\r\n", false, true, true},
        {S "\r\n", false, false, true},
        {S "Connection: close\r\n\r\n", false, false, false},
        {"HTTP/1.1 100 C\r\n\r\n" S "Content-Length: 5\r\n\r\n", true, false, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", true, false, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outcome outcome;
        struct buf bytes = {0};
        buf_add_text(&bytes, rows[i].bytes);
        buf_add_literal(&bytes, "HTTP/");
        run(buf_str(&bytes), i % 2 ? 1 : SIZE_MAX, true, NOTHING, &outcome);
        assert_true(outcome.ended);
        assert_int_equal(outcome.status, 200);
        assert_int_equal(outcome.left, 5);
        assert_false(outcome.has_body);
        assert_false(outcome.to_end);
        assert_int_equal(outcome.has_length, rows[i].has_length);
        assert_int_equal(outcome.chunked, rows[i].chunked);
        assert_int_equal(outcome.keep_alive, rows[i].keep_alive);
        if (rows[i].has_length)
            assert_int_equal(outcome.content_length, 5);
        assert_int_equal(outcome.body.size, 0);
        buf_clear(&bytes);
    }
}

static void what_the_head_says_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        bool has_length;
        bool has_body;
        bool to_end;
        bool keep_alive;
    } rows[] = {
        {LENGTH(3) "abc", true, true, false, true},
        {LENGTH(0), true, true, false, true},
        {CHUNKED "0\r\n\r\n", false, true, false, true},
        {S "\r\nabc", false, true, true, false},
        {S "Connection: close\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {S "Connection: close, foo\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {S "Connection: foo, CLOSE\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {S "Connection: keep-alive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", true, true, false,
         false},
        {S "Connection: keep-alive, close\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {S "Connection: close, keep-alive\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {CHUNKED "0\r\nConnection: close\r\n\r\n", false, true, false, true},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true, true, false, false},
        {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", true, true, false, true},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false, true, true, false},
        {"HTTP/1.1 204 No\r\n\r\n", false, false, false, true},
        {"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", true, false, false, true},
        {"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", true, false, false, false},
        {"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", false, false, false, false},
        {"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", true, false, false, true},
        {"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", false, false, false, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outcome outcome;
        run(str_from(rows[i].bytes), i % 2 ? 1 : SIZE_MAX, false, i % BEFORES, &outcome);
        if (!outcome.ended || outcome.has_length != rows[i].has_length ||
            outcome.has_body != rows[i].has_body || outcome.to_end != rows[i].to_end ||
            outcome.keep_alive != rows[i].keep_alive || outcome.switched != (outcome.status == 101))
            fail_msg("%s", rows[i].bytes);
        buf_clear(&outcome.body);
    }
}

static void fields_are_kept_as_sent_and_found_by_name(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct http1_answer *parser = http1_answer_new(on_body, NULL);
    http1_answer_begin(parser, &arena, false);
    static const char bytes[] =
        "HTTP/1.1 103 Early\r\nX-Early: 1\r\n\r\nHTTP/1.1 404 Gone Fishing\r\n"
        "Set-Cookie:  a=b ; c \t\r\nset-cookie: d\r\nX_Y:\r\nContent-Length: 0\r\n\r\n";
    enum http1_event event;
    assert_int_equal(http1_answer_feed(parser, bytes, sizeof bytes - 1, &event), sizeof bytes - 1);
    assert_int_equal(event, HTTP1_HEAD);
    const struct http1_answer_head *head = http1_answer_head(parser);
    assert_int_equal(head->status, 404);
    assert_int_equal(head->count, 4);
    assert_true(str_equal(head->fields[0].name, STR("Set-Cookie")));
    assert_true(str_equal(head->fields[0].value, STR("a=b ; c")));
    assert_true(str_equal(head->fields[1].name, STR("set-cookie")));
    assert_true(str_equal(http1_answer_header(head, "set-cookie"), STR("a=b ; c")));
    assert_non_null(http1_answer_header(head, "x_y").at);
    assert_int_equal(http1_answer_header(head, "x_y").size, 0);
    assert_null(http1_answer_header(head, "x-early").at);
    http1_answer_free(parser);
    arena_clear(&arena);
}

/* ---- bounds ---- */

static void fill(struct buf *bytes, char c, size_t count)
{
    memset(buf_reserve(bytes, count), c, count);
    bytes->size += count;
}

/* True when the bytes are an answer, false when they are an error; frees them. */
static bool is_answer(struct buf *bytes)
{
    bool ended[2];
    for (int way = 0; way < 2; way++) {
        struct outcome outcome;
        run(buf_str(bytes), way ? 1 : SIZE_MAX, false, AN_ANSWER, &outcome);
        assert_true(outcome.ended != outcome.failed);
        ended[way] = outcome.ended;
        buf_clear(&outcome.body);
    }
    assert_int_equal(ended[0], ended[1]);
    buf_clear(bytes);
    return ended[0];
}

static bool takes_head_of(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, S "Content-Length: 0\r\nX: ");
    fill(&bytes, 'x', size - strlen("OK") - strlen("Content-Length0") - 4 - strlen("X") - 4);
    buf_add_literal(&bytes, "\r\n\r\n");
    return is_answer(&bytes);
}

static bool takes_reason_of(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, "HTTP/1.1 204 ");
    fill(&bytes, 'x', size);
    buf_add_literal(&bytes, "\r\n\r\n");
    return is_answer(&bytes);
}

static bool takes_fields(unsigned count)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, S "Content-Length: 0\r\n");
    for (unsigned i = 1; i < count; i++)
        buf_printf(&bytes, "X%u: a\r\n", i);
    buf_add_literal(&bytes, "\r\n");
    return is_answer(&bytes);
}

static bool takes_informational(unsigned count, size_t field_size)
{
    struct buf bytes = {0};
    for (unsigned i = 0; i < count; i++) {
        buf_add_literal(&bytes, "HTTP/1.1 103 \r\nX: ");
        fill(&bytes, 'x', field_size - strlen("X") - 4);
        buf_add_literal(&bytes, "\r\n\r\n");
    }
    buf_add_literal(&bytes, "HTTP/1.1 204 \r\n\r\n");
    return is_answer(&bytes);
}

static void heads_are_bounded_exactly(void **state)
{
    (void)state;
    assert_true(takes_head_of(HTTP1_HEADERS_MAX));
    assert_false(takes_head_of(HTTP1_HEADERS_MAX + 1));
    assert_false(takes_head_of(10 * HTTP1_HEADERS_MAX));
    assert_true(takes_reason_of(HTTP1_HEADERS_MAX));
    assert_false(takes_reason_of(HTTP1_HEADERS_MAX + 1));
    assert_true(takes_fields(HTTP1_FIELDS_MAX));
    assert_false(takes_fields(HTTP1_FIELDS_MAX + 1));
}

static void informational_heads_are_bounded_in_number_and_in_all(void **state)
{
    (void)state;
    assert_true(takes_informational(HTTP1_INFORMATIONAL_MAX, 5));
    assert_false(takes_informational(HTTP1_INFORMATIONAL_MAX + 1, 5));
    assert_true(takes_informational(4, HTTP1_HEADERS_MAX / 4));
    assert_false(takes_informational(4, HTTP1_HEADERS_MAX / 4 + 1));
}

static bool takes_trailers(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, CHUNKED "0\r\n");
    for (size_t i = 0; i < size / 8; i++)
        buf_add_literal(&bytes, "X: yyy\r\n");
    buf_add_literal(&bytes, "\r\n");
    return is_answer(&bytes);
}

static bool takes_chunks_with_extensions(unsigned count, size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, CHUNKED);
    for (unsigned i = 0; i < count; i++) {
        buf_add_literal(&bytes, "1;");
        fill(&bytes, 'x', size);
        buf_add_literal(&bytes, "\r\na\r\n");
    }
    buf_add_literal(&bytes, "0\r\n\r\n");
    return is_answer(&bytes);
}

/* An answer may be without end, so its chunks' extensions are bounded one by one. */
static void trailers_and_extensions_are_bounded(void **state)
{
    (void)state;
    assert_true(takes_trailers(HTTP1_HEADERS_MAX));
    assert_false(takes_trailers(HTTP1_HEADERS_MAX + 8));
    assert_true(takes_chunks_with_extensions(1, 16000));
    assert_false(takes_chunks_with_extensions(1, 17000));
    assert_true(takes_chunks_with_extensions(50, 1000));
}

/* What is fed after an error is taken and stays an error; what comes after the end is not taken. */
static void errors_and_ends_stay(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct outcome outcome = {0};
    struct http1_answer *parser = http1_answer_new(on_body, &outcome);
    enum http1_event event;
    http1_answer_begin(parser, &arena, false);
    http1_answer_feed(parser, "nonsense", 8, &event);
    assert_int_equal(event, HTTP1_ERROR);
    assert_int_equal(http1_answer_feed(parser, LENGTH(0), sizeof LENGTH(0) - 1, &event),
                     sizeof LENGTH(0) - 1);
    assert_int_equal(event, HTTP1_ERROR);
    assert_false(http1_answer_end(parser));
    http1_answer_begin(parser, &arena, false);
    assert_int_equal(http1_answer_feed(parser, LENGTH(1) "ab", sizeof LENGTH(1) + 1, &event),
                     sizeof LENGTH(1) - 1);
    assert_int_equal(event, HTTP1_HEAD);
    assert_int_equal(http1_answer_feed(parser, "ab", 2, &event), 1);
    assert_int_equal(event, HTTP1_END);
    assert_int_equal(http1_answer_feed(parser, "b", 1, &event), 0);
    assert_int_equal(event, HTTP1_END);
    assert_int_equal(outcome.body.size, 1);
    http1_answer_free(parser);
    arena_clear(&arena);
    buf_clear(&outcome.body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_comes_to_the_same_however_it_is_cut),
        cmocka_unit_test(an_answer_to_head_has_no_body_and_keeps_its_fields),
        cmocka_unit_test(what_the_head_says_is_told),
        cmocka_unit_test(fields_are_kept_as_sent_and_found_by_name),
        cmocka_unit_test(heads_are_bounded_exactly),
        cmocka_unit_test(informational_heads_are_bounded_in_number_and_in_all),
        cmocka_unit_test(trailers_and_extensions_are_bounded),
        cmocka_unit_test(errors_and_ends_stay),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_thread_clear();
    return failed;
}
