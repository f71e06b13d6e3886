/* Requests: the same events and bodies whole and in pieces, in order, within the bounds that http1.h states. */
#include "proto/http1.h"
#include "test/fuzz/support.h"

struct connection {
    struct http1_parser *parser;
    struct arena arena;
    struct buf *transcript;
    enum fuzz_way way;
    bool in_body; /* HEAD was there, END not yet */
    uint64_t body_bytes;
};

static void on_body(void *arg, const char *bytes, size_t size)
{
    struct connection *connection = arg;
    CHECK(connection->in_body && size > 0);
    connection->body_bytes += size;
    buf_add(connection->transcript, bytes, size);
}

static bool has_only_visible(struct str text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.at[i] <= ' ' || text.at[i] == 0x7f)
            return false;
    return text.size > 0;
}

static void check_field(const struct http1_field *field)
{
    CHECK(has_only_visible(field->name));
    CHECK(!memchr(field->name.at, '_', field->name.size) && !memchr(field->name.at, ':', field->name.size));
    CHECK(field->value.at);
    for (size_t i = 0; i < field->value.size; i++) {
        unsigned char c = (unsigned char)field->value.at[i];
        CHECK((c >= ' ' || c == '\t') && c != 0x7f);
    }
    CHECK(str_equal(field->value, str_trim(field->value)));
}

static void check_head(const struct http1_head *head)
{
    CHECK(has_only_visible(head->method) && has_only_visible(head->target));
    CHECK(head->method.size + head->target.size <= HTTP1_LINE_MAX);
    CHECK(head->count <= HTTP1_FIELDS_MAX);
    size_t sum = 0;
    for (size_t i = 0; i < head->count; i++) {
        check_field(&head->fields[i]);
        sum += head->fields[i].name.size + head->fields[i].value.size;
    }
    CHECK(sum <= HTTP1_HEADERS_MAX);
    size_t hosts = http1_header_count(head, "host");
    CHECK(hosts == 1 || (hosts == 0 && head->http10 && !head->host.at));
    size_t lengths = http1_header_count(head, "content-length");
    size_t encodings = http1_header_count(head, "transfer-encoding");
    CHECK(lengths + encodings <= 1);
    CHECK(head->chunked == (encodings == 1) && !(head->chunked && head->http10));
    CHECK(lengths || head->content_length == 0);
    CHECK(head->has_body == (head->chunked || head->content_length > 0));
    CHECK(!head->upgrade.at || (!head->http10 && !head->has_body && head->upgrade.size));
    CHECK(!head->expect_continue || !head->http10);
}

static void put_head(struct buf *out, const struct http1_head *head)
{
    buf_printf(out, "%.*s %.*s host=%.*s length=%llu upgrade=%.*s %d%d%d%d%d\n", STR_ARG(head->method),
               STR_ARG(head->target), STR_ARG(head->host), (unsigned long long)head->content_length,
               STR_ARG(head->upgrade), head->http10, head->chunked, head->has_body, head->expect_continue,
               head->keep_alive);
    for (size_t i = 0; i < head->count; i++) {
        buf_add_str(out, head->fields[i].name);
        buf_add_char(out, ':');
        buf_add_str(out, head->fields[i].value);
        buf_add_char(out, '\n');
    }
}

static void on_head(struct connection *connection)
{
    const struct http1_head *head = http1_head(connection->parser);
    CHECK(!connection->in_body && head->has_body);
    connection->in_body = true;
    connection->body_bytes = 0;
    check_head(head);
    buf_add_literal(connection->transcript, "HEAD ");
    put_head(connection->transcript, head);
}

static void on_end(struct connection *connection)
{
    const struct http1_head *head = http1_head(connection->parser);
    CHECK(connection->in_body == head->has_body);
    CHECK(!head->has_body || head->chunked || connection->body_bytes == head->content_length);
    check_head(head);
    buf_add_literal(connection->transcript, "END ");
    put_head(connection->transcript, head);
    connection->in_body = false;
    arena_clear(&connection->arena);
    http1_begin(connection->parser, &connection->arena);
}

static void on_error(struct connection *connection)
{
    static const int known[] = {400, 405, 414, 417, 431, 505};
    const char *reason = NULL;
    int status = http1_error(connection->parser, &reason);
    bool found = false;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        found = found || known[i] == status;
    CHECK(found && reason);
    buf_printf(connection->transcript, "ERROR %d", status);
}

static bool feed(void *arg, const char *bytes, size_t size)
{
    struct connection *connection = arg;
    for (size_t at = 0; at < size;) {
        enum http1_event event = HTTP1_ERROR;
        size_t taken = http1_feed(connection->parser, bytes + at, size - at, &event);
        CHECK(taken <= size - at);
        at += taken;
        switch (event) {
        case HTTP1_MORE: CHECK(at == size); break;
        case HTTP1_HEAD: on_head(connection); break;
        case HTTP1_END:
            on_end(connection);
            if (connection->way == FUZZ_IN_PIECES)
                at += http1_skip_empty(connection->parser, bytes + at, size - at);
            break;
        case HTTP1_ERROR: on_error(connection); return false;
        }
        CHECK(taken > 0);
    }
    return true;
}

static void run(struct str input, enum fuzz_way way, struct buf *transcript)
{
    struct connection connection = {.transcript = transcript, .way = way};
    arena_init(&connection.arena);
    connection.parser = http1_new(on_body, &connection);
    http1_begin(connection.parser, &connection.arena);
    fuzz_feed(input, way, feed, &connection);
    http1_free(connection.parser);
    arena_clear(&connection.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_compare(str_of((const char *)bytes, size), run);
    return 0;
}
