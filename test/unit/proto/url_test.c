/* The rules of proto/url.h: which targets and authorities are taken, what they are split into, what is decoded. */
#include "proto/url.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        literal, sizeof(literal) - 1                                                                         \
    }

static struct arena arena;

static int set_up(void **state)
{
    (void)state;
    arena_init(&arena);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    arena_clear(&arena);
    arena_thread_clear();
    return 0;
}

static void assert_str(struct str actual, const char *expected)
{
    if (!expected)
        assert_null(actual.at);
    else if (!actual.at || !str_equal(actual, str_from(expected)))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(actual), expected);
}

/* In memory that ends with the text, so that a look beyond is seen. */
static struct str exact(struct str text)
{
    char *copy = mem_alloc(text.size ? text.size : 1);
    if (text.size)
        memcpy(copy, text.at, text.size);
    return str_of(copy, text.size);
}

static void free_exact(struct str text)
{
    free((void *)(uintptr_t)text.at);
}

static void targets_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *target, *path, *query, *authority;
    } rows[] = {
        {"/", "/", NULL, NULL},
        {"/?", "/", "", NULL},
        {"/a/b?c=d", "/a/b", "c=d", NULL},
        {"/a?b?c/../d", "/a", "b?c/../d", NULL},
        {"/a//b/", "/a//b/", NULL, NULL},
        {"//host/x", "//host/x", NULL, NULL},
        {"/a%2Fb/%C3%A9", "/a%2Fb/%C3%A9", NULL, NULL},
        {"/.../.a/a./..a/a..b/%2e%2e%2e", "/.../.a/a./..a/a..b/%2e%2e%2e", NULL, NULL},
        {"/a?%zz", "/a", "%zz", NULL},
        {"/a..%2F..b%2f%2F", "/a..%2F..b%2f%2F", NULL, NULL},
        {"/a;b=c:@!$&'()*+,=~|{}", "/a;b=c:@!$&'()*+,=~|{}", NULL, NULL},
        {"http://example.com/a?b", "/a", "b", "example.com"},
        {"HTTPS://Example.com:8443/", "/", NULL, "Example.com:8443"},
        {"http://example.com", "/", NULL, "example.com"},
        {"http://[::1]:80?x", "/", "x", "[::1]:80"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct url_target out;
        struct str target = exact(str_from(rows[i].target));
        assert_int_equal(url_parse_target(target, &out), 0);
        assert_str(out.path, rows[i].path);
        assert_str(out.query, rows[i].query);
        assert_str(out.authority, rows[i].authority);
        free_exact(target);
    }
}

static void ambiguous_targets_are_refused(void **state)
{
    (void)state;
    static const struct str rows[] = {
        TEXT(""),
        TEXT("*"),
        TEXT("a"),
        TEXT("?a"),
        TEXT("example.com:443"),
        TEXT("ftp://example.com/"),
        TEXT("http:/a"),
        TEXT("http:///a"),
        TEXT("http://user@example.com/"),
        TEXT("http://example.com:0/"),
        TEXT("http://exa mple/"),
        TEXT("/a b"),
        TEXT("/a\tb"),
        TEXT("/a\0b"),
        TEXT("/a\x7f"),
        TEXT("/\xc3\xa9"),
        TEXT("/a#b"),
        TEXT("/a?b#c"),
        TEXT("/a?b c"),
        TEXT("/."),
        TEXT("/.."),
        TEXT("/a/./b"),
        TEXT("/a/../b"),
        TEXT("/a/.."),
        TEXT("/../"),
        TEXT("/%2e"),
        TEXT("/%2E/a"),
        TEXT("/.%2e"),
        TEXT("/%2e./x"),
        TEXT("/%2E%2e/x"),
        TEXT("http://example.com/../x"),
        TEXT("/..%2Fa"),
        TEXT("/a%2f../b"),
        TEXT("/a%2F%2E"),
        TEXT("/%2F..%2F"),
        TEXT("/a\\b"),
        TEXT("/..\\b"),
        TEXT("/a%5Cb"),
        TEXT("/%"),
        TEXT("/%4"),
        TEXT("/%4/a"),
        TEXT("/%zz"),
        TEXT("/%4g"),
        TEXT("/a%00b"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct url_target out;
        struct str target = exact(rows[i]);
        if (url_parse_target(target, &out) != -EINVAL)
            fail_msg("taken: %.*s", STR_ARG(rows[i]));
        free_exact(target);
    }
}

static void a_path_is_walked_by_segments(void **state)
{
    (void)state;
    struct str path = STR("/a/b%2Fc//d/");
    static const char *const expected[] = {"a", "b%2Fc", "", "d", ""};
    struct str segment;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_true(url_next_segment(&path, &segment));
        assert_str(segment, expected[i]);
    }
    assert_false(url_next_segment(&path, &segment));
    path = STR("/");
    assert_true(url_next_segment(&path, &segment));
    assert_int_equal(segment.size, 0);
    assert_false(url_next_segment(&path, &segment));
}

static void a_segment_is_decoded_once(void **state)
{
    (void)state;
    static const struct {
        const char *segment, *decoded;
    } rows[] = {{"", ""},         {"a", "a"},     {"a%2Fb", "a/b"},
                {"%252F", "%2F"}, {"a+b", "a+b"}, {"%C3%A9%20", "\xc3\xa9 "},
                {"%", NULL},      {"%1", NULL},   {"%g0", NULL},
                {"a%00", NULL},   {"%ff", NULL},  {"%ED%A0%80", NULL}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str out;
        struct str segment = exact(str_from(rows[i].segment));
        assert_int_equal(url_decode_segment(&arena, segment, &out), rows[i].decoded ? 0 : -EINVAL);
        if (rows[i].decoded)
            assert_str(out, rows[i].decoded);
        free_exact(segment);
    }
}

static void query_parameters_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *query, *name, *value;
    } rows[] = {
        {"a=1&b=2", "b", "2"},
        {"a=1&a=2", "a", "1"},
        {"a=1&b=2", "c", NULL},
        {"ab=1&a=2", "a", "2"},
        {"a=1&ab=2", "ab", "2"},
        {"a", "a", ""},
        {"a=", "a", ""},
        {"&&a=1&", "a", "1"},
        {"a=b=c", "a", "b=c"},
        {"a=1;b=2", "b", NULL},
        {"a=x+y%2B%26%3D", "a", "x y+&="},
        {"%61=1", "a", "1"},
        {"page+size=3", "page size", "3"},
        {"=1", "", "1"},
        {"", "a", NULL},
        {"a=%zz", "a", NULL},
        {"a=%00", "a", NULL},
        {"a=%ff", "a", NULL},
        {"%zz=1&a=2", "a", "2"},
        {"a%=1&a=2", "a", "2"},
        {"a=%C3%A9", "a", "\xc3\xa9"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str value = STR_NONE;
        struct str query = exact(str_from(rows[i].query));
        bool found = url_query(&arena, query, rows[i].name, &value);
        if (found != (rows[i].value != NULL))
            fail_msg("%s in %s", rows[i].name, rows[i].query);
        if (found)
            assert_str(value, rows[i].value);
        free_exact(query);
    }
    struct str value;
    assert_false(url_query(&arena, STR_NONE, "a", &value));
}

static void parameters_are_counted_in_any_spelling(void **state)
{
    (void)state;
    assert_int_equal(url_query_count(STR("a=1&b=2&%61=3&a&A=4&aa=5&=a"), "a"), 3);
    assert_int_equal(url_query_count(STR("a=%zz&a=%00"), "a"), 2);
    assert_int_equal(url_query_count(STR("b=a"), "a"), 0);
    assert_int_equal(url_query_count(STR_NONE, "a"), 0);
}

static void authorities_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *host, *name;
        int port;
    } rows[] = {
        {"example.com", "example.com", -1},
        {"Example.com:80", "Example.com", 80},
        {"a_b-c.d~", "a_b-c.d~", -1},
        {"127.0.0.1:65535", "127.0.0.1", 65535},
        {"localhost:", "localhost", -1},
        {"[::1]", "::1", -1},
        {"[2001:db8::1]:8080", "2001:db8::1", 8080},
        {"[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4", 1},
        {"example.com.", "example.com.", -1},
        {"h:00080", "h", 80},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str name;
        int port = 0;
        struct str host = exact(str_from(rows[i].host));
        assert_true(url_parse_host(host, &name, &port));
        assert_str(name, rows[i].name);
        assert_int_equal(port, rows[i].port);
        free_exact(host);
    }
}

static void what_is_no_authority_is_refused(void **state)
{
    (void)state;
    static const struct str rows[] = {
        TEXT(""),
        TEXT(":80"),
        TEXT("user@host"),
        TEXT("a:b@host"),
        TEXT("host:0"),
        TEXT("host:65536"),
        TEXT("host:-1"),
        TEXT("host:+1"),
        TEXT("host:8a"),
        TEXT("host: 8"),
        TEXT("host:000080"),
        TEXT("host:1:2"),
        TEXT("::1"),
        TEXT("[::1"),
        TEXT("[]"),
        TEXT("[::1]x"),
        TEXT("[::1]80"),
        TEXT("[1.2.3.4]"),
        TEXT("[fe80::1%25eth0]"),
        TEXT("[v1.a]"),
        TEXT("[::\0001]"),
        TEXT("a b"),
        TEXT("a/b"),
        TEXT("a,b"),
        TEXT("a%41"),
        TEXT("h\0st"),
        TEXT("\xc3\xa9"),
        TEXT("host\r"),
        TEXT("a?b"),
        TEXT("a#b"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str name;
        int port;
        struct str host = exact(rows[i]);
        if (url_parse_host(host, &name, &port))
            fail_msg("taken: %.*s", STR_ARG(rows[i]));
        free_exact(host);
    }
    char longest[256];
    memset(longest, 'a', sizeof longest);
    struct str name;
    int port;
    assert_true(url_parse_host(str_of(longest, 255), &name, &port));
    assert_false(url_parse_host(str_of(longest, 256), &name, &port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_split),
        cmocka_unit_test(ambiguous_targets_are_refused),
        cmocka_unit_test(a_path_is_walked_by_segments),
        cmocka_unit_test(a_segment_is_decoded_once),
        cmocka_unit_test(query_parameters_are_found),
        cmocka_unit_test(parameters_are_counted_in_any_spelling),
        cmocka_unit_test(authorities_are_split),
        cmocka_unit_test(what_is_no_authority_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
