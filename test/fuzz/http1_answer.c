/*
 * Answers of pods: the same events and bodies whole and in pieces, in order, framed as their heads say. The input's
 * first byte says which of the first eight answers are to HEAD; the answers follow each other on one connection.
 */
#include "proto/http1_answer.h"
#include "test/fuzz/support.h"

struct connection {
    struct http1_answer *parser;
    struct arena arena;
    struct buf *transcript;
    unsigned to_heads;
    bool to_head; /* the answer at hand */
    bool has_head;
    uint64_t body_bytes;
};

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct connection *connection = arg;
    CHECK(connection->has_head && size > 0);
    connection->body_bytes += size;
    buf_add(connection->transcript, bytes, size);
}

static void begin(struct connection *connection)
{
    connection->to_head = connection->to_heads & 1;
    connection->to_heads >>= 1;
    connection->has_head = false;
    connection->body_bytes = 0;
    arena_clear(&connection->arena);
    http1_answer_begin(connection->parser, &connection->arena, connection->to_head);
}

static void check_head(const struct connection *connection, const struct http1_answer_head *head)
{
    CHECK((head->status >= 200 && head->status <= 999) || head->status == 101);
    CHECK(head->switched == (head->status == 101));
    CHECK(head->count <= HTTP1_FIELDS_MAX);
    size_t sum = 0;
    for (size_t i = 0; i < head->count; i++) {
        const struct http1_field *field = &head->fields[i];
        CHECK(field->name.size > 0 && field->value.at);
        CHECK(!memchr(field->name.at, '\n', field->name.size) &&
              !memchr(field->name.at, ' ', field->name.size));
        CHECK(!memchr(field->value.at, '\r', field->value.size));
        CHECK(!memchr(field->value.at, '\n', field->value.size));
        CHECK(!memchr(field->value.at, '\0', field->value.size));
        sum += field->name.size + field->value.size;
    }
    CHECK(sum <= HTTP1_HEADERS_MAX);
    bool never = connection->to_head || head->status == 204 || head->status == 304 || head->switched;
    CHECK(!(never && head->has_body));
    CHECK(!(head->has_length && head->chunked));
    CHECK(!head->to_end || (head->has_body && !head->has_length && !head->chunked && !head->keep_alive));
}

static void on_head(struct connection *connection)
{
    const struct http1_answer_head *head = http1_answer_head(connection->parser);
    CHECK(!connection->has_head);
    connection->has_head = true;
    check_head(connection, head);
    buf_printf(connection->transcript, "HEAD %d length=%llu %d%d%d%d%d%d\n", head->status,
               (unsigned long long)(head->has_length ? head->content_length : 0), head->has_length,
               head->chunked, head->has_body, head->to_end, head->keep_alive, head->switched);
    for (size_t i = 0; i < head->count; i++) {
        buf_add_str(connection->transcript, head->fields[i].name);
        buf_add_char(connection->transcript, ':');
        buf_add_str(connection->transcript, head->fields[i].value);
        buf_add_char(connection->transcript, '\n');
    }
}

static void on_end(struct connection *connection)
{
    const struct http1_answer_head *head = http1_answer_head(connection->parser);
    CHECK(connection->has_head);
    CHECK(head->has_body || connection->body_bytes == 0);
    CHECK(!head->has_body || !head->has_length || connection->body_bytes == head->content_length);
    buf_add_literal(connection->transcript, "END\n");
}

/* One call; false when nothing further can come on this connection. */
static bool feed_once(struct connection *connection, const char *bytes, size_t size, size_t *at)
{
    enum http1_event event = HTTP1_ERROR;
    size_t taken = http1_answer_feed(connection->parser, bytes + *at, size - *at, &event);
    CHECK(taken <= size - *at);
    *at += taken;
    switch (event) {
    case HTTP1_MORE: CHECK(*at == size); return true;
    case HTTP1_HEAD: {
        on_head(connection);
        const struct http1_answer_head *head = http1_answer_head(connection->parser);
        bool is_over = !head->has_body || (head->has_length && head->content_length == 0);
        /* Nothing more need come for its end, which is asked for at once, so that all ways are alike. */
        return !is_over || feed_once(connection, bytes, size, at);
    }
    case HTTP1_END: {
        on_end(connection);
        bool goes_on = http1_answer_head(connection->parser)->keep_alive &&
                       !http1_answer_head(connection->parser)->switched;
        if (goes_on)
            begin(connection);
        return goes_on;
    }
    case HTTP1_ERROR:
        CHECK(http1_answer_error(connection->parser));
        buf_add_literal(connection->transcript, "ERROR");
        return false;
    }
    UNREACHABLE();
}

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct connection *connection = arg;
    bool goes_on = true;
    for (size_t at = 0; at < size && goes_on;) {
        size_t before = at;
        goes_on = feed_once(connection, bytes, size, &at);
        CHECK(at > before || !goes_on);
    }
    if (!goes_on)
        connection->transcript = NULL;
    return goes_on;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    struct connection connection = {.transcript = transcript, .to_heads = fuzz_take_byte(&input)};
    arena_init(&connection.arena);
    connection.parser = http1_answer_new(on_body, &connection);
    begin(&connection);
    fuzz_feed(input, way, feed, &connection);
    if (connection.transcript)
        buf_add_text(transcript, http1_answer_end(connection.parser) ? "ended\n" : "cut off\n");
    http1_answer_free(connection.parser);
    arena_clear(&connection.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    return 0;
}
