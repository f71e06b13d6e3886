/*
 * What the front door lets in: raw bytes and what becomes of them. The table is test/vectors/http1/requests.txt, which
 * also says how it is written; each of its cases is fed whole, in pieces, and behind a good request on the same
 * connection, and all must come to the same.
 */
#include "proto/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define TABLE "test/vectors/http1/requests.txt"

enum { VECTORS_MAX = 1000, LETS_MAX = 50 };

struct vector {
    unsigned line; /* of the table */
    struct str name;
    struct buf bytes;
    struct buf wanted; /* as an outcome's text */
};

/* A name for bytes: "let NAME bytes". */
struct let {
    struct str name;
    struct buf bytes;
};

static struct vector vectors[VECTORS_MAX];
static size_t vector_count;
static struct let lets[LETS_MAX];
static size_t let_count;
static struct buf table;

/* ---- the table ---- */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = memchr(digits, c, 16);
    assert_non_null(at);
    return (int)(at - digits);
}

/* "${NAME}" or "${NAME*3}", without its frame. */
static void put_let(struct buf *out, struct str text)
{
    struct str name;
    uint64_t times = 1;
    assert_true(str_split(&text, '*', &name));
    if (text.at)
        assert_true(str_to_u64(text, &times));
    for (size_t i = 0; i < let_count; i++) {
        if (!str_equal(lets[i].name, name))
            continue;
        while (times--)
            buf_add_str(out, buf_str(&lets[i].bytes));
        return;
    }
    fail_msg(TABLE ": no let %.*s", STR_ARG(name));
}

/* Takes an escape or a let off the front of the text, which begins with '\\' or "${". */
static size_t put_special(struct buf *out, struct str text)
{
    static const char names[] = "rnt0\\";
    static const char bytes[] = "\r\n\t\0\\";
    if (text.at[0] == '$') {
        const char *end = memchr(text.at, '}', text.size);
        assert_non_null(end);
        put_let(out, str_of(text.at + 2, (size_t)(end - text.at) - 2));
        return (size_t)(end - text.at) + 1;
    }
    assert_true(text.size >= 2);
    if (text.at[1] == 'x') {
        assert_true(text.size >= 4);
        buf_add_char(out, (char)(hex_digit(text.at[2]) << 4 | hex_digit(text.at[3])));
        return 4;
    }
    const char *name = memchr(names, text.at[1], sizeof names - 1);
    assert_non_null(name);
    buf_add_char(out, bytes[name - names]);
    return 2;
}

static void put_bytes(struct buf *out, struct str text)
{
    while (text.size) {
        bool special = text.at[0] == '\\' || (text.size > 1 && text.at[0] == '$' && text.at[1] == '{');
        size_t size = 1;
        if (special)
            size = put_special(out, text);
        else
            buf_add_char(out, text.at[0]);
        text = str_of(text.at + size, text.size - size);
    }
}

static bool take_prefix(struct str *text, struct str prefix)
{
    if (!str_starts(*text, prefix))
        return false;
    *text = str_of(text->at + prefix.size, text->size - prefix.size);
    return true;
}

static void add_let(struct str text)
{
    assert_true(let_count < LETS_MAX);
    struct let *let = &lets[let_count];
    assert_true(str_split(&text, ' ', &let->name));
    put_bytes(&let->bytes, text);
    let_count++;
}

static void read_line(struct str line, unsigned number)
{
    if (line.size == 0 || line.at[0] == '#' || line.at[0] == '[')
        return;
    if (take_prefix(&line, STR("let "))) {
        add_let(line);
        return;
    }
    if (take_prefix(&line, STR("== "))) {
        assert_true(vector_count < VECTORS_MAX);
        vectors[vector_count++] = (struct vector){.line = number, .name = line};
        return;
    }
    assert_true(vector_count > 0);
    struct vector *vector = &vectors[vector_count - 1];
    if (take_prefix(&line, STR("> "))) {
        put_bytes(&vector->bytes, line);
    } else if (take_prefix(&line, STR("< "))) {
        put_bytes(&vector->wanted, line);
        buf_add_char(&vector->wanted, '\n');
    } else {
        fail_msg(TABLE ":%u: can't be read", number);
    }
}

static int read_table(void **state)
{
    (void)state;
    FILE *file = fopen(TABLE, "r");
    if (!file)
        fail_msg("no " TABLE ": run it from the root of the tree");
    size_t got;
    while ((got = fread(buf_reserve(&table, 4096), 1, 4096, file)) > 0)
        table.size += got;
    fclose(file);
    struct str rest = buf_str(&table);
    struct str line;
    for (unsigned number = 1; str_split(&rest, '\n', &line); number++)
        read_line(line, number);
    assert_true(vector_count > 300);
    return 0;
}

static int free_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < vector_count; i++) {
        buf_clear(&vectors[i].bytes);
        buf_clear(&vectors[i].wanted);
    }
    for (size_t i = 0; i < let_count; i++)
        buf_clear(&lets[i].bytes);
    buf_clear(&table);
    arena_thread_clear();
    return 0;
}

/* ---- a connection ---- */

/* What a parser made of some bytes. */
struct outcome {
    struct buf text;        /* in the table's words: a line for each request, then how it ended */
    unsigned requests;      /* complete ones */
    unsigned heads;         /* HTTP1_HEAD events */
    int status;             /* of the error, 0: none */
    bool closed;            /* by a request that wants no other behind it */
    struct buf body;        /* of the last request */
    struct http1_head head; /* of the last one, without texts */
};

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct outcome *outcome = arg;
    buf_add(&outcome->body, bytes, size);
}

static void note_request(struct outcome *outcome, const struct http1_head *head)
{
    outcome->requests++;
    outcome->closed = !head->keep_alive;
    buf_add_str(&outcome->text, head->method);
    buf_add_char(&outcome->text, ' ');
    buf_add_str(&outcome->text, head->target);
    if (outcome->body.size)
        buf_add_char(&outcome->text, ' ');
    buf_add_str(&outcome->text, buf_str(&outcome->body));
    buf_add_char(&outcome->text, '\n');
}

static void note_end(struct outcome *outcome, struct str unfinished)
{
    bool more = unfinished.size % 2; /* half an empty line */
    for (size_t i = 0; i < unfinished.size; i++)
        more |= unfinished.at[i] != '\r' && unfinished.at[i] != '\n';
    if (outcome->status)
        buf_printf(&outcome->text, "%d\n", outcome->status);
    else if (outcome->closed)
        buf_add_literal(&outcome->text, "close\n");
    else if (more)
        buf_add_literal(&outcome->text, "more\n");
}

static void note_event(struct outcome *outcome, const struct http1_parser *parser, enum http1_event event)
{
    const char *reason;
    switch (event) {
    case HTTP1_MORE: break;
    case HTTP1_HEAD:
        outcome->heads++;
        outcome->head = *http1_head(parser);
        assert_true(outcome->head.has_body);
        break;
    case HTTP1_END:
        outcome->head = *http1_head(parser);
        note_request(outcome, http1_head(parser));
        break;
    case HTTP1_ERROR:
        outcome->status = http1_error(parser, &reason);
        assert_non_null(reason);
        assert_true(outcome->status >= 400 && outcome->status <= 505);
        break;
    }
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
    assert_true(taken <= size);
    assert_true(taken > 0 || *event == HTTP1_ERROR);
    assert_true(*event != HTTP1_MORE || taken == size);
    return taken;
}

/* Feeds `step` bytes at a time, to the end of what a server would read. */
static void run(struct str bytes, size_t step, struct outcome *outcome)
{
    *outcome = (struct outcome){0};
    struct arena arena;
    arena_init(&arena);
    struct http1_parser *parser = http1_new(on_body, outcome);
    http1_begin(parser, &arena);
    size_t start = 0; /* of the present request */
    for (size_t at = 0; at < bytes.size && !outcome->status && !outcome->closed;) {
        size_t size = bytes.size - at < step ? bytes.size - at : step;
        enum http1_event event;
        at += feed_exactly(parser, bytes.at + at, size, &event);
        note_event(outcome, parser, event);
        if (event != HTTP1_END)
            continue;
        arena_clear(&arena);
        http1_begin(parser, &arena);
        start = at;
        if (at < bytes.size)
            outcome->body.size = 0;
    }
    note_end(outcome, str_of(bytes.at + start, bytes.size - start));
    http1_free(parser);
    arena_clear(&arena);
}

static void outcome_clear(struct outcome *outcome)
{
    buf_clear(&outcome->body);
    buf_clear(&outcome->text);
}

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" H
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

/* `before`: what the outcome's text has before what the vector wants. Says what is wrong, so that one run shows all. */
static bool comes_to(const struct vector *vector, const char *way, struct str bytes, size_t step,
                     struct str before)
{
    struct outcome outcome;
    run(bytes, step, &outcome);
    struct str got = buf_str(&outcome.text);
    struct str wanted = buf_str(&vector->wanted);
    bool right =
        str_starts(got, before) && str_equal(str_of(got.at + before.size, got.size - before.size), wanted);
    if (!right)
        print_error(TABLE ":%u: %.*s, %s:\n%.*swanted:\n%.*s", vector->line, STR_ARG(vector->name), way,
                    STR_ARG(got), STR_ARG(wanted));
    outcome_clear(&outcome);
    return right;
}

static void every_vector_comes_to_the_same_whole_in_pieces_and_pipelined(void **state)
{
    (void)state;
    const struct str none = STR("");
    const struct str before = STR("POST /good body\n");
    unsigned wrong = 0;
    for (size_t i = 0; i < vector_count; i++) {
        const struct vector *vector = &vectors[i];
        struct buf behind = {0};
        buf_add_literal(&behind, "POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        buf_add_str(&behind, buf_str(&vector->bytes));
        wrong += !comes_to(vector, "whole", buf_str(&vector->bytes), SIZE_MAX, none);
        wrong += !comes_to(vector, "byte by byte", buf_str(&vector->bytes), 1, none);
        wrong += !comes_to(vector, "pipelined", buf_str(&behind), SIZE_MAX, before);
        wrong += !comes_to(vector, "pipelined byte by byte", buf_str(&behind), 1, before);
        wrong += !comes_to(vector, "pipelined in sevens", buf_str(&behind), 7, before);
        buf_clear(&behind);
    }
    assert_int_equal(wrong, 0);
}

/* ---- every byte in every place ---- */

static bool is_alnum(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool is_one_of(unsigned char c, const char *set)
{
    return c && strchr(set, c);
}

static bool is_token_byte(unsigned char c)
{
    return is_alnum(c) || is_one_of(c, "!#$%&'*+-.^_`|~");
}

static bool is_value_byte(unsigned char c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

static bool is_target_byte(unsigned char c)
{
    return c > ' ' && c < 0x7f && c != '#';
}

static bool is_none(unsigned char c)
{
    (void)c;
    return false;
}

static bool is_space(unsigned char c)
{
    return c == ' ';
}

static bool is_zero(unsigned char c)
{
    return c == '0';
}

static bool is_space_or_zero(unsigned char c)
{
    return c == ' ' || c == '0';
}

static bool is_name_byte_or_colon(unsigned char c)
{
    return is_token_byte(c) || c == ':';
}

static bool is_host_byte(unsigned char c)
{
    return is_alnum(c) || is_one_of(c, "-._~");
}

static bool is_quoted_byte(unsigned char c)
{
    return is_value_byte(c) && c != '"';
}

static bool is_extension_byte(unsigned char c)
{
    return is_token_byte(c) || c == ';';
}

static bool is_extension_end(unsigned char c)
{
    return is_token_byte(c) || c == '=';
}

static bool is_slash(unsigned char c)
{
    return c == '/';
}

static const struct {
    const char *name, *before, *behind;
    bool (*fits)(unsigned char c);
} places[] = {
    {"before the method", "", GET "\r\n", is_none},
    {"in the method", "G", "ET / HTTP/1.1\r\n" H "\r\n", is_none},
    {"behind the method", "GET", "/ HTTP/1.1\r\n" H "\r\n", is_space},
    {"before the target", "GET ", "/a HTTP/1.1\r\n" H "\r\n", is_slash},
    {"in the path", "GET /a", "b HTTP/1.1\r\n" H "\r\n", is_target_byte},
    {"in the query", "GET /?a", "b HTTP/1.1\r\n" H "\r\n", is_target_byte},
    {"behind the target", "GET /a ", "HTTP/1.1\r\n" H "\r\n", is_none},
    {"in the version", "GET / HTTP/1.", "1\r\n" H "\r\n", is_none},
    {"behind the version", "GET / HTTP/1.1", "\r\n" H "\r\n", is_none},
    {"between CR and LF", "GET / HTTP/1.1\r", "\n" H "\r\n", is_none},
    {"at the start of a line", GET "X: a\r\n", "Y: b\r\n\r\n", is_token_byte},
    {"in a name", GET "X", "Y: b\r\n\r\n", is_name_byte_or_colon},
    {"before a colon", GET "X", ": b\r\n\r\n", is_name_byte_or_colon},
    {"behind a colon", GET "X:", "b\r\n\r\n", is_value_byte},
    {"in a value", GET "X: a", "b\r\n\r\n", is_value_byte},
    {"for a value", GET "X:", "\r\n\r\n", is_value_byte},
    {"behind a value", GET "X: a", "\r\n\r\n", is_value_byte},
    {"between CR and LF behind a value", GET "X: a\r", "\n\r\n", is_none},
    {"before the last line", GET "X: a\r\n", "\r\n", is_none},
    {"in the last line", GET "X: a\r\n\r", "\n", is_none},
    {"in Host", "GET / HTTP/1.1\r\nHost: a", "b\r\n\r\n", is_host_byte},
    {"in Connection", GET "Connection: a", "b\r\n\r\n", is_value_byte},
    {"behind close", GET "Connection: close", "\r\n\r\n", is_value_byte},
    {"in Upgrade", GET "Upgrade: a", "b\r\n\r\n", is_value_byte},
    {"before a length", POST "Content-Length:", "1\r\n\r\na", is_space_or_zero},
    {"in a length", POST "Content-Length: 0", "1\r\n\r\na", is_zero},
    {"behind a length", POST "Content-Length: 1", "\r\n\r\na", is_space},
    {"before chunked", POST "Transfer-Encoding:", "chunked\r\n\r\n0\r\n\r\n", is_space},
    {"in chunked", POST "Transfer-Encoding: chu", "nked\r\n\r\n0\r\n\r\n", is_none},
    {"behind chunked", POST "Transfer-Encoding: chunked", "\r\n\r\n0\r\n\r\n", is_space},
    {"before a size", CHUNKED, "1\r\na\r\n0\r\n\r\n", is_zero},
    {"behind a size", CHUNKED "1", "\r\na\r\n0\r\n\r\n", is_none},
    {"between CR and LF behind a size", CHUNKED "1\r", "\na\r\n0\r\n\r\n", is_none},
    {"at the start of an extension", CHUNKED "1;", "a=b\r\na\r\n0\r\n\r\n", is_extension_byte},
    {"in an extension's name", CHUNKED "1;a", "b=c\r\na\r\n0\r\n\r\n", is_extension_byte},
    {"behind an extension's name", CHUNKED "1;a", "\r\na\r\n0\r\n\r\n", is_extension_end},
    {"for an extension's value", CHUNKED "1;a=", "\r\na\r\n0\r\n\r\n", is_token_byte},
    {"in an extension's value", CHUNKED "1;a=b", "c\r\na\r\n0\r\n\r\n", is_extension_byte},
    {"in a quoted value", CHUNKED "1;a=\"b", "c\"\r\na\r\n0\r\n\r\n", is_quoted_byte},
    {"behind a backslash", CHUNKED "1;a=\"b\\", "c\"\r\na\r\n0\r\n\r\n", is_value_byte},
    {"behind a quoted value", CHUNKED "1;a=\"b\"", "\r\na\r\n0\r\n\r\n", is_none},
    {"behind the data", CHUNKED "1\r\na", "\r\n0\r\n\r\n", is_none},
    {"between CR and LF behind the data", CHUNKED "1\r\na\r", "\n0\r\n\r\n", is_none},
    {"before the last size", CHUNKED "1\r\na\r\n", "0\r\n\r\n", is_zero},
    {"behind the last size", CHUNKED "0", "\r\n\r\n", is_zero},
    {"before the end", CHUNKED "0\r\n", "\r\n", is_none},
    {"in the end", CHUNKED "0\r\n\r", "\n", is_none},
    {"at the start of a trailer", CHUNKED "0\r\n", "X: a\r\n\r\n", is_token_byte},
    {"in a trailer's name", CHUNKED "0\r\nX", "Y: a\r\n\r\n", is_name_byte_or_colon},
    {"in a trailer's value", CHUNKED "0\r\nX: a", "b\r\n\r\n", is_value_byte},
    {"between CR and LF behind a trailer", CHUNKED "0\r\nX: a\r", "\n\r\n", is_none},
};

static bool is_by_rule(const char *name, struct str bytes, unsigned char c, bool fits)
{
    struct outcome outcome;
    run(bytes, SIZE_MAX, &outcome);
    bool taken = outcome.requests == 1 && !outcome.status;
    if (taken != fits)
        print_error("%s, 0x%02x: %s, %u requests, status %d\n", name, (unsigned)c,
                    taken ? "taken" : "refused", outcome.requests, outcome.status);
    outcome_clear(&outcome);
    return taken == fits;
}

static void every_byte_in_every_place_is_taken_or_refused_by_rule(void **state)
{
    (void)state;
    unsigned wrong = 0;
    for (size_t i = 0; i < ARRAY_SIZE(places) * 256; i++) {
        unsigned char c = (unsigned char)(i % 256);
        struct buf bytes = {0};
        buf_add_text(&bytes, places[i / 256].before);
        buf_add_char(&bytes, (char)c);
        buf_add_text(&bytes, places[i / 256].behind);
        wrong += !is_by_rule(places[i / 256].name, buf_str(&bytes), c, places[i / 256].fits(c));
        buf_clear(&bytes);
    }
    assert_int_equal(wrong, 0);
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
    fill(&bytes, 'x', size - strlen("GET / HTTP/1.1"));
    buf_add_literal(&bytes, " HTTP/1.1\r\n" H "\r\n");
    return status_of(&bytes);
}

static int status_with_headers(size_t size)
{
    struct buf bytes = {0};
    buf_add_literal(&bytes, "GET / HTTP/1.1\r\n" H "X:");
    fill(&bytes, 'x', size - strlen(H "X:\r\n"));
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
    assert_int_equal(status_with_fields(HTTP1_FIELDS_MAX, "a_"), 200);
    assert_int_equal(status_with_fields(HTTP1_FIELDS_MAX + 1, "a_"), 431);
    struct buf trailers = {0};
    buf_add_literal(&trailers, CHUNKED "0\r\n");
    for (int i = 0; i < 4000; i++)
        buf_printf(&trailers, "X%d: y\r\n", i);
    buf_add_literal(&trailers, "\r\n");
    assert_int_equal(status_of(&trailers), 400);
}

static void what_stands_around_a_body_is_bounded(void **state)
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
    struct buf smallest = {0};
    buf_add_literal(&smallest, CHUNKED);
    for (int i = 0; i < 20000; i++)
        buf_add_literal(&smallest, "1\r\na\r\n");
    buf_add_literal(&smallest, "0\r\n\r\n");
    assert_int_equal(status_of(&smallest), 200);
    struct buf zeros = {0};
    buf_add_literal(&zeros, CHUNKED "2\r\nab\r\n");
    fill(&zeros, '0', 17000);
    assert_int_equal(status_of(&zeros), 400);
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
        {"GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: close\r\nConnection: keep-alive\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: closed, xclose\r\n\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Proxy-Connection: close\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n" H "Proxy-Connection: keep-alive\r\n\r\n", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct outcome outcome;
        run(str_from(rows[i].bytes), SIZE_MAX, &outcome);
        assert_int_equal(outcome.requests, 1);
        if (outcome.closed == rows[i].keeps)
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
    assert_true(outcome.head.expect_continue);
    assert_int_equal(outcome.head.content_length, 3);
    assert_false(outcome.head.chunked);
    outcome_clear(&outcome);
    run(STR("POST / HTTP/1.0\r\n" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), SIZE_MAX, &outcome);
    assert_int_equal(outcome.heads, 1);
    assert_false(outcome.head.expect_continue);
    outcome_clear(&outcome);
}

static void an_upgrade_is_told_where_it_may_be_followed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        const char *upgrade;
    } rows[] = {
        {GET "\r\n", NULL},
        {GET "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "websocket"},
        {GET "Upgrade: WebSocket\r\nConnection: keep-alive, UPGRADE\r\n\r\n", "WebSocket"},
        {GET "Connection: keep-alive\r\nUpgrade: h2c\r\nConnection: x,upgrade ,\r\n\r\n", "h2c"},
        {GET "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", "h2c, websocket"},
        {POST "Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 0\r\n\r\n", "a"},
        {GET "Connection: upgrade\r\nUpgrade:\r\n\r\n", NULL},
        {GET "Upgrade: websocket\r\n\r\n", NULL},
        {GET "Connection: upgrade\r\n\r\n", NULL},
        {GET "Connection: upgraded, x-upgrade\r\nUpgrade: websocket\r\n\r\n", NULL},
        {GET "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: websocket\r\n\r\n", NULL},
        {GET "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na", NULL},
        {GET "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         NULL},
        {"GET / HTTP/1.0\r\n" H "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct arena arena;
        arena_init(&arena);
        struct outcome outcome = {0};
        struct http1_parser *parser = http1_new(on_body, &outcome);
        http1_begin(parser, &arena);
        struct str rest = str_from(rows[i].bytes);
        enum http1_event event = HTTP1_MORE;
        while (event != HTTP1_END) {
            size_t taken = http1_feed(parser, rest.at, rest.size, &event);
            assert_int_not_equal(event, HTTP1_ERROR);
            rest = str_of(rest.at + taken, rest.size - taken);
        }
        struct str upgrade = http1_head(parser)->upgrade;
        if (!upgrade.at != !rows[i].upgrade || !str_equal(upgrade, str_from(rows[i].upgrade)))
            fail_msg("%s: \"%.*s\"", rows[i].bytes, STR_ARG(upgrade));
        http1_free(parser);
        outcome_clear(&outcome);
        arena_clear(&arena);
    }
}

static void empty_lines_begin_no_request(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t skipped;
    } rows[] = {
        {"G", 0},
        {"\r\nG", 2},
        {"\r\n\r\n\r\n\r\nG", 8},
        {"\r\n\r\n\r\n\r\n\r\n", 8},
        {"\n", 0},
        {"\r\r", 1},
        {"\r\n\n", 2},
        {"\r\n\r", 3},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct http1_parser *parser = http1_new(NULL, NULL);
        size_t skipped = 0;
        for (const char *at = rows[i].bytes; *at && http1_skip_empty(parser, at, 1); at++)
            skipped++;
        assert_int_equal(skipped, rows[i].skipped);
        http1_free(parser);
        parser = http1_new(NULL, NULL);
        assert_int_equal(http1_skip_empty(parser, rows[i].bytes, strlen(rows[i].bytes)), rows[i].skipped);
        http1_free(parser);
    }
}

/* A lone CR is still one when its request begins in other hands than it was skipped by. */
static void half_an_empty_line_is_not_forgotten(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    struct http1_parser *parser = http1_new(NULL, NULL);
    enum http1_event event;
    assert_int_equal(http1_skip_empty(parser, "\r", 1), 1);
    http1_begin(parser, &arena);
    http1_feed(parser, "G", 1, &event);
    assert_int_equal(event, HTTP1_ERROR);
    http1_free(parser);
    arena_clear(&arena);
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
        struct buf bytes = {0};
        for (int k = 0; k < 2; k++)
            buf_add_str(&bytes, buf_str(&vectors[(size_t)rand() % vector_count].bytes));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_comes_to_the_same_whole_in_pieces_and_pipelined),
        cmocka_unit_test(every_byte_in_every_place_is_taken_or_refused_by_rule),
        cmocka_unit_test(sizes_are_bounded_exactly),
        cmocka_unit_test(dropped_fields_are_bounded_too),
        cmocka_unit_test(what_stands_around_a_body_is_bounded),
        cmocka_unit_test(keep_alive_follows_version_and_connection),
        cmocka_unit_test(expect_continue_is_told),
        cmocka_unit_test(an_upgrade_is_told_where_it_may_be_followed),
        cmocka_unit_test(empty_lines_begin_no_request),
        cmocka_unit_test(half_an_empty_line_is_not_forgotten),
        cmocka_unit_test(fields_are_kept_as_sent_but_underscores),
        cmocka_unit_test(answers_cannot_be_split),
        cmocka_unit_test(lists_are_split_at_commas),
        cmocka_unit_test(any_bytes_in_any_pieces_come_to_an_end),
    };
    return cmocka_run_group_tests(tests, read_table, free_table);
}
