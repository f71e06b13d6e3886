/* Targets, hosts and queries: what is taken is safe to route by, and what is decoded is text without NUL. */
#include "core/base/arena.h"
#include "core/base/escape.h"
#include "proto/url.h"
#include "test/fuzz/support.h"

#include <stdlib.h>

static void check_text(struct str text)
{
    CHECK(text.at && str_is_utf8(text) && !memchr(text.at, '\0', text.size));
}

static void check_host(struct str host)
{
    struct str name;
    int port;
    if (!url_parse_host(host, &name, &port))
        return;
    CHECK(name.size > 0 && name.size <= 255 && name.size <= host.size);
    CHECK(name.at >= host.at && name.at + name.size <= host.at + host.size);
    CHECK(port == -1 || (port > 0 && port <= UINT16_MAX));
    for (size_t i = 0; i < host.size; i++)
        CHECK(host.at[i] > ' ' && host.at[i] < 0x7f && !strchr("/?#@\\%", host.at[i]));
}

/* Segments put together again are the path; decoded, none leads elsewhere. */
static void check_path(struct arena *arena, struct str path)
{
    CHECK(path.size > 0 && path.at[0] == '/');
    struct buf joined = {0};
    struct str rest = path;
    struct str segment;
    while (url_next_segment(&rest, &segment)) {
        buf_add_char(&joined, '/');
        buf_add_str(&joined, segment);
        struct str decoded;
        if (url_decode_segment(arena, segment, &decoded))
            continue;
        check_text(decoded);
        CHECK(!str_equal(decoded, STR(".")) && !str_equal(decoded, STR("..")));
        CHECK(!memmem(decoded.at, decoded.size, "/../", 4) && !str_starts(decoded, STR("../")));
        CHECK(!memchr(decoded.at, '\\', decoded.size));
    }
    CHECK(rest.size == 0 && str_equal(buf_str(&joined), path));
    buf_clear(&joined);
}

static void check_target(struct arena *arena, struct str input)
{
    struct url_target target;
    if (url_parse_target(input, &target))
        return;
    check_path(arena, target.path);
    CHECK(!memchr(target.path.at, '?', target.path.size));
    if (target.authority.at)
        check_host(target.authority);
    /* The origin form of the same target is the same. */
    struct buf origin = {0};
    buf_add_str(&origin, target.path);
    if (target.query.at)
        buf_add_char(&origin, '?');
    buf_add_str(&origin, target.query);
    struct url_target again;
    CHECK(url_parse_target(buf_str(&origin), &again) == 0);
    CHECK(!again.authority.at && str_equal(again.path, target.path) && str_equal(again.query, target.query));
    buf_clear(&origin);
}

static void check_query(struct arena *arena, struct str query)
{
    static const char *const names[] = {"a", "", "limit", "a b", "\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct str value;
        if (!url_query(arena, query, names[i], &value))
            continue;
        check_text(value);
        CHECK(url_query_count(query, names[i]) > 0);
    }
}

/* What is encoded is decoded to itself. */
static void check_encoding(struct arena *arena, struct str input)
{
    struct buf encoded = {0};
    escape_percent_encode(&encoded, input);
    struct str decoded;
    bool fit = str_is_utf8(input) && !memchr(input.at, '\0', input.size);
    CHECK((url_decode_segment(arena, buf_str(&encoded), &decoded) == 0) == fit);
    CHECK(!fit || str_equal(decoded, input));
    buf_clear(&encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct arena arena;
    arena_init(&arena);
    struct str input = str_of((const char *)bytes, size);
    check_target(&arena, input);
    check_host(input);
    check_query(&arena, input);
    if (size)
        check_encoding(&arena, input);
    arena_clear(&arena);
    return 0;
}
