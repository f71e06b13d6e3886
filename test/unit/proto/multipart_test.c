/*
 * The rules of proto/multipart.h. A body and what becomes of it stand side by side, both as text; each body is fed whole,
 * byte by byte and in other pieces, and must come to the same.
 */
#include "proto/multipart.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
size_t __sanitizer_get_current_allocated_bytes(void); /* gcc 12 comes without the header for it */
#endif

/* ---- what a parser makes of a body, as text: <name|filename|type>content</> ... END or ERROR ---- */

static void put_name(struct buf *out, struct str name)
{
    buf_add_str(out, name.at ? name : STR("-"));
}

static void put_part(struct buf *out, const struct multipart_part *part)
{
    buf_add_char(out, '<');
    put_name(out, part->name);
    buf_add_char(out, '|');
    put_name(out, part->filename);
    buf_add_char(out, '|');
    put_name(out, part->content_type);
    buf_add_char(out, '>');
}

static void put_event(struct buf *out, struct multipart *parser, enum multipart_event event)
{
    switch (event) {
    case MULTIPART_MORE: break;
    case MULTIPART_PART: put_part(out, multipart_part(parser)); break;
    case MULTIPART_DATA:
        assert_true(multipart_data(parser).size > 0);
        buf_add_str(out, multipart_data(parser));
        break;
    case MULTIPART_PART_END: buf_add_literal(out, "</>"); break;
    case MULTIPART_END: buf_add_literal(out, "END"); break;
    case MULTIPART_ERROR:
        assert_non_null(multipart_error(parser));
        buf_add_literal(out, "ERROR");
        break;
    }
}

/* Every feed gets a block of exactly its size, gone once its last event was looked at. */
static enum multipart_event feed_piece(struct multipart *parser, const char *bytes, size_t size,
                                       struct buf *out)
{
    char *exact = mem_alloc(size);
    memcpy(exact, bytes, size);
    enum multipart_event event = MULTIPART_MORE;
    for (size_t at = 0; at < size && event != MULTIPART_ERROR;) {
        size_t taken = multipart_feed(parser, exact + at, size - at, &event);
        assert_true(taken <= size - at);
        assert_true(taken > 0 || event == MULTIPART_DATA || event == MULTIPART_ERROR);
        assert_true(event != MULTIPART_MORE || taken == size - at);
        assert_int_not_equal(event, MULTIPART_END);
        put_event(out, parser, event);
        at += taken;
    }
    free(exact);
    return event;
}

/* `step` bytes at a time, or pieces of any size when it is 0. `boundary` must be one. */
static void run(struct str boundary, struct str body, size_t step, struct buf *out)
{
    struct multipart *parser = multipart_new(boundary);
    enum multipart_event event = MULTIPART_MORE;
    for (size_t at = 0; at < body.size && event != MULTIPART_ERROR;) {
        size_t size = step ? step : 1 + (size_t)rand() % 12;
        size = size < body.size - at ? size : body.size - at;
        event = feed_piece(parser, body.at + at, size, out);
        at += size;
    }
    if (event != MULTIPART_ERROR)
        put_event(out, parser, multipart_finish(parser));
    assert_int_equal(multipart_finish(parser), multipart_finish(parser));
    multipart_free(parser);
}

static void check(const char *name, struct str boundary, struct str body, struct str expected)
{
    static const size_t steps[] = {SIZE_MAX, 1, 2, 3, 7, 0, 0};
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct buf out = {0};
        run(boundary, body, steps[i], &out);
        if (!str_equal(buf_str(&out), expected))
            fail_msg("%s, way %zu: \"%.*s\" is not \"%.*s\"", name, i, STR_ARG(buf_str(&out)),
                     STR_ARG(expected));
        buf_clear(&out);
    }
}

struct vector {
    const char *name;
    struct str body;
    struct str expected;
};

/* clang-format off */
#define TEXT(literal_) {literal_, sizeof(literal_) - 1}
#define V(name_, body_, expected_) {name_, TEXT(body_), TEXT(expected_)}
#define CD "Content-Disposition: form-data; "
/* A part with these fields or this name and the content "x", and the end. */
#define HEADED(fields_) "--b\r\n" fields_ "\r\n\r\nx\r\n--b--\r\n"
#define NAMED(parameters_) HEADED(CD parameters_)
#define PART(content_) "--b\r\n" CD "name=a\r\n\r\n" content_
#define END "\r\n--b--\r\n"

static const struct vector framing[] = {
    V("one part", PART("x") END, "<a|-|->x</>END"),
    V("two parts", PART("x") "\r\n" PART("y") END, "<a|-|->x</><a|-|->y</>END"),
    V("nothing in it", PART("") END, "<a|-|-></>END"),
    V("nothing in it, by RFC 2046's grammar", "--b\r\n" CD "name=a\r\n\r\n--b--\r\n", "<a|-|-></>END"),
    V("no parts", "--b--\r\n", "END"),
    V("nothing behind the last boundary", PART("x") "\r\n--b--", "<a|-|->x</>END"),
    V("an epilogue", PART("x") END "gone\r\n--b\r\n\r\n--b--\0\r", "<a|-|->x</>END"),
    V("a preamble", "This is a message\r\nin MIME\r\n" PART("x") END, "<a|-|->x</>END"),
    V("an empty line before", "\r\n" PART("x") END, "<a|-|->x</>END"),
    V("the boundary not at a line's front", "x--b\r\n" PART("x--b\r\n") END, "<a|-|->x--b\r\n</>END"),
    V("padding", "--b \t\r\n" CD "name=a\r\n\r\nx\r\n--b-- \t\r\n", "<a|-|->x</>END"),
    V("padding behind the last boundary", PART("x") "\r\n--b-- ", "<a|-|->x</>END"),
    V("beginnings of a boundary", PART("\r\r\n\r\n-\r\n--\r\n--B\r\n-b\r\n--\r\n\r") END,
      "<a|-|->\r\r\n\r\n-\r\n--\r\n--B\r\n-b\r\n--\r\n\r</>END"),
    V("bare line feeds before a boundary", PART("x\n--b--\n") END, "<a|-|->x\n--b--\n</>END"),
    V("bare carriage returns", PART("x\r--b--\r") END, "<a|-|->x\r--b--\r</>END"),
    V("NUL in the content", PART("\0x\0") END, "<a|-|->\0x\0</>END"),

    V("an empty body", "", "ERROR"),
    V("no boundary at all", "hello", "ERROR"),
    V("cut in the boundary", "--", "ERROR"),
    V("cut behind the boundary", "--b", "ERROR"),
    V("cut in the head", "--b\r\n" CD, "ERROR"),
    V("cut in the content", PART("x"), "<a|-|->xERROR"),
    V("cut at what may be a boundary", PART("x\r\n--"), "<a|-|->xERROR"),
    V("cut in the last boundary", PART("x") "\r\n--b-", "<a|-|->x</>ERROR"),
    V("cut in the last line end", PART("x") "\r\n--b--\r", "<a|-|->x</>ERROR"),
    V("no last boundary", PART("x") "\r\n--b\r\n", "<a|-|->x</>ERROR"),
    V("a longer boundary", PART("x") "\r\n--bb\r\n", "<a|-|->x</>ERROR"),
    V("a longer boundary first", "--bb\r\n", "ERROR"),
    V("a longer last boundary", PART("x") "\r\n--b--x", "<a|-|->x</>ERROR"),
    V("one dash", PART("x") "\r\n--b-\r\n", "<a|-|->x</>ERROR"),
    V("dashes behind padding", PART("x") "\r\n--b --\r\n", "<a|-|->x</>ERROR"),
    V("a bare line feed behind the boundary", "--b\n" CD "name=a\r\n\r\nx" END, "ERROR"),
    V("a bare carriage return behind the boundary", "--b\r" CD "name=a\r\n\r\nx" END, "ERROR"),
    V("a bare line feed behind the last boundary", PART("x") "\r\n--b--\n", "<a|-|->x</>ERROR"),
};

static const struct vector heads[] = {
    V("type", HEADED(CD "name=a; filename=f\r\nContent-Type: text/plain; charset=utf-8"), "<a|f|text/plain; charset=utf-8>x</>END"),
    V("no type", NAMED("name=a; filename=f"), "<a|f|->x</>END"),
    V("other fields mean nothing", HEADED("X-A: b\r\nContent-Length: 7\r\n" CD "name=a\r\nX-A:"), "<a|-|->x</>END"),
    V("spelled otherwise", HEADED("CONTENT-disposition:\t Form-DATA ;\tNAME=a;FileName=f \t"), "<a|f|->x</>END"),
    V("empty parameters", NAMED("; name=a;; filename=f;"), "<a|f|->x</>END"),
    V("unknown parameters", NAMED("name=a; size=3; x=\"y\""), "<a|-|->x</>END"),
    V("7bit", HEADED(CD "name=a\r\nContent-Transfer-Encoding: 7bit"), "<a|-|->x</>END"),
    V("8bit", HEADED(CD "name=a\r\nContent-Transfer-Encoding: 8Bit"), "<a|-|->x</>END"),
    V("binary", HEADED(CD "name=a\r\nContent-Transfer-Encoding: binary"), "<a|-|->x</>END"),

    V("base64", HEADED(CD "name=a\r\nContent-Transfer-Encoding: base64"), "ERROR"),
    V("quoted-printable", HEADED(CD "name=a\r\nContent-Transfer-Encoding: quoted-printable"), "ERROR"),
    V("no encoding's name", HEADED(CD "name=a\r\nContent-Transfer-Encoding:"), "ERROR"),
    V("an empty head", "--b\r\n\r\nx" END, "ERROR"),
    V("no disposition", HEADED("Content-Type: text/plain"), "ERROR"),
    V("two dispositions", HEADED(CD "name=a\r\n" CD "name=a"), "ERROR"),
    V("two types", HEADED(CD "name=a\r\nContent-Type: a/b\r\ncontent-type: a/b"), "ERROR"),
    V("two encodings", HEADED(CD "name=a\r\nContent-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: 7bit"), "ERROR"),
    V("an attachment", HEADED("Content-Disposition: attachment; name=a"), "ERROR"),
    V("a longer word than form-data", HEADED("Content-Disposition: form-datas; name=a"), "ERROR"),
    V("no name", NAMED("filename=f"), "ERROR"),
    V("two names", NAMED("name=a; Name=a"), "ERROR"),
    V("two file names", NAMED("name=a; filename=f; filename=f"), "ERROR"),
    V("no semicolon", NAMED("name=a filename=f"), "ERROR"),
    V("no equals sign", NAMED("name"), "ERROR"),
    V("no value", NAMED("name="), "ERROR"),
    V("space at the equals sign", NAMED("name = a"), "ERROR"),
    V("folded", HEADED("Content-Disposition: form-data;\r\n name=a"), "ERROR"),
    V("space before the colon", HEADED("Content-Disposition : form-data; name=a"), "ERROR"),
    V("no colon", HEADED(CD "name=a\r\nX"), "ERROR"),
    V("a line of one byte", "--b\r\nX\r\n\r\nx" END, "ERROR"),
    V("a line of one byte and nothing more", "--b\r\nX\r\n", "ERROR"),
    V("no field name", HEADED(CD "name=a\r\n: x"), "ERROR"),
    V("a bare line feed", HEADED(CD "name=a\nX: y"), "ERROR"),
    V("a bare carriage return", HEADED(CD "name=a\rX: y"), "ERROR"),
    V("a line feed in the place of the empty line", "--b\r\n" CD "name=a\r\n\nx" END, "ERROR"),
    V("NUL", HEADED(CD "name=a\r\nX: \0"), "ERROR"),
    V("a control character", HEADED(CD "name=a\r\nX: \x1b"), "ERROR"),
    V("DEL", HEADED(CD "name=a\r\nX: \x7f"), "ERROR"),
    V("a type that is not UTF-8", HEADED(CD "name=a\r\nContent-Type: \xff"), "ERROR"),
    V("a type with a tab", HEADED(CD "name=a\r\nContent-Type: a/b;\tc"), "ERROR"),
};

static const struct vector names[] = {
    V("empty", NAMED("name=\"\"; filename=\"\""), "<||->x</>END"),
    V("a semicolon", NAMED("name=\"a; filename=\\\"f\""), "<a; filename=\"f|-|->x</>END"),
    V("%22", NAMED("name=\"%22a%22%22\""), "<\"a\"\"|-|->x</>END"),
    V("%22 without quotes", NAMED("name=%22"), "<%22|-|->x</>END"),
    V("escaped quotes", NAMED("name=\"\\\"a\\\"\""), "<\"a\"|-|->x</>END"),
    V("escaped backslashes", NAMED("name=\"a\\\\\"; filename=\"\\\\\\\"\""), "<a\\|\\\"|->x</>END"),
    V("an escaped backslash before %22", NAMED("name=\"\\\\%22\""), "<\\\"|-|->x</>END"),
    V("a path with backslashes", NAMED("name=a; filename=\"C:\\dir\\f.txt\""), "<a|C:\\dir\\f.txt|->x</>END"),
    V("a path upwards is what it is", NAMED("name=a; filename=\"../../etc/passwd\""), "<a|../../etc/passwd|->x</>END"),
    V("other percent signs", NAMED("name=\"100%0D%0A%00%2%\""), "<100%0D%0A%00%2%|-|->x</>END"),
    V("UTF-8", NAMED("name=\"n\xc3\xa9\"; filename=\"\xe2\x82\xac\""), "<n\xc3\xa9|\xe2\x82\xac|->x</>END"),
    V("filename*", NAMED("name=a; filename*=UTF-8''%e2%82%ac"), "<a|-|->x</>END"),
    V("filename* beside filename", NAMED("name=a; filename=f; filename*=utf-8''g"), "<a|f|->x</>END"),

    V("not UTF-8", NAMED("name=\"n\xe9\""), "ERROR"),
    V("a file name that is not UTF-8", NAMED("name=a; filename=\"\xc0\xaf\""), "ERROR"),
    V("a tab", NAMED("name=\"a\tb\""), "ERROR"),
    V("NUL", NAMED("name=a; filename=\"f\0.txt\""), "ERROR"),
    V("a line feed", NAMED("name=\"a\nb\""), "ERROR"),
    V("an open quote", NAMED("name=\"a"), "ERROR"),
    V("an open quote behind a backslash", NAMED("name=\"a\\\""), "ERROR"),
    V("text behind a quote", NAMED("name=\"a\"b"), "ERROR"),
    V("a space in a bare name", NAMED("name=a b"), "ERROR"),
};

/* Bodies as these clients sent them. */
static const struct {
    const char *type;
    struct vector vector;
} clients[] = {
    {"multipart/form-data; boundary=------------------------b13f87d1f6d4b996",
     V("curl 7.88", "--------------------------b13f87d1f6d4b996\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ntwo words"
       "\r\n--------------------------b13f87d1f6d4b996\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n"
       "Content-Type: application/octet-stream\r\n\r\n\0\r\n--no\r\n\r\n--------------------------b13f87d1f6d4b996--\r\n",
       "<title|-|->two words</><file|a.bin|application/octet-stream>\0\r\n--no\r\n</>END")},
    {"multipart/form-data; boundary=------------------------04bd16e3be3f7446",
     V("curl 7.88, odd names", "--------------------------04bd16e3be3f7446\r\nContent-Disposition: form-data; name=\"file\"; "
       "filename=\"we%22ird\\na;me.txt\"\r\nContent-Type: text/plain\r\n\r\nhi\r\n\r\n--------------------------04bd16e3be3f7446\r\n"
       "Content-Disposition: form-data; name=\"u\"; filename=\"n\xc3\xa9\xe2\x82\xac.txt\"\r\nContent-Type: text/plain\r\n\r\nu"
       "\r\n--------------------------04bd16e3be3f7446--\r\n",
       "<file|we\"ird\\na;me.txt|text/plain>hi\r\n</><u|n\xc3\xa9\xe2\x82\xac.txt|text/plain>u</>END")},
    {"multipart/form-data; boundary=------------------------2498024f81d22f90",
     V("curl 7.88, --form-escape", "--------------------------2498024f81d22f90\r\nContent-Disposition: form-data; name=\"file\"; "
       "filename=\"we\\\"ird\\\\na;me.txt\"\r\nContent-Type: text/plain\r\n\r\nhi\r\n\r\n--------------------------2498024f81d22f90--\r\n",
       "<file|we\"ird\\na;me.txt|text/plain>hi\r\n</>END")},
    {"multipart/form-data; boundary=02bd592621afec55061104fb24f46143",
     V("python3-requests 2.28", "--02bd592621afec55061104fb24f46143\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ntwo words"
       "\r\n--02bd592621afec55061104fb24f46143\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n\r\n--no\r\n"
       "\r\n--02bd592621afec55061104fb24f46143--\r\n",
       "<title|-|->two words</><file|a.bin|->\r\n--no\r\n</>END")},
    {"multipart/form-data; boundary=14352233bdd5c5cc27a10c5939d88e42",
     V("python3-requests 2.28, odd names", "--14352233bdd5c5cc27a10c5939d88e42\r\nContent-Disposition: form-data; name=\"q%22x\"; "
       "filename=\"n\xc3\xa9%22\\\\.txt\"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\r\n--14352233bdd5c5cc27a10c5939d88e42--\r\n",
       "<q\"x|n\xc3\xa9\"\\.txt|text/plain; charset=utf-8></>END")},
    {"multipart/form-data; boundary=----formdata-undici-085550581197",
     V("Node 20's fetch", "------formdata-undici-085550581197\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ntwo words"
       "\r\n------formdata-undici-085550581197\r\nContent-Disposition: form-data; name=\"a%22b%0D%0Ac\"; filename=\"n\xc3\xa9%22%22.txt\"\r\n"
       "Content-Type: application/octet-stream\r\n\r\nx\r\n--\r\n\r\n------formdata-undici-085550581197--\r\n",
       "<title|-|->two words</><a\"b%0D%0Ac|n\xc3\xa9\"\".txt|application/octet-stream>x\r\n--\r\n</>END")},
    {"multipart/form-data; boundary=----formdata-undici-058224351063",
     V("Node 20's fetch, an empty form", "------formdata-undici-058224351063--\r\n", "END")},
};
/* clang-format on */

static void check_all(const struct vector *vectors, size_t count)
{
    srand(7);
    for (size_t i = 0; i < count; i++)
        check(vectors[i].name, STR("b"), vectors[i].body, vectors[i].expected);
}

static void bodies_are_framed_alike_in_any_pieces(void **state)
{
    (void)state;
    check_all(framing, ARRAY_SIZE(framing));
}

static void heads_are_read_strictly(void **state)
{
    (void)state;
    check_all(heads, ARRAY_SIZE(heads));
}

static void names_are_unescaped_as_clients_escape_them(void **state)
{
    (void)state;
    check_all(names, ARRAY_SIZE(names));
}

static void bodies_of_real_clients_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        const struct vector *vector = &clients[i].vector;
        struct str boundary;
        assert_int_equal(multipart_boundary(str_from(clients[i].type), &boundary), 0);
        check(vector->name, boundary, vector->body, vector->expected);
    }
}

/* ---- the boundary ---- */

#define BOUNDARY_70 "0123456789012345678901234567890123456789012345678901234567890123456789"

static void boundaries_are_found_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *type, *boundary;
    } rows[] = {
        {"multipart/form-data; boundary=b", "b"},
        {" Multipart/FORM-data ;\tBOUNDARY=b ", "b"},
        {"multipart/form-data; charset=utf-8; boundary=b;", "b"},
        {"multipart/form-data; x=\"; boundary=c\"; boundary=b", "b"},
        {"multipart/form-data; boundary=\"'()+_,-./:=? b\"", "'()+_,-./:=? b"},
        {"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
         "----WebKitFormBoundary7MA4YWxkTrZu0gW"},
        {"multipart/form-data; boundary=" BOUNDARY_70, BOUNDARY_70},

        {"", NULL},
        {"multipart/form-data", NULL},
        {"multipart/form-data;", NULL},
        {"multipart/form-data; boundary", NULL},
        {"multipart/form-data; boundary=", NULL},
        {"multipart/form-data; boundary=\"\"", NULL},
        {"multipart/form-data; boundary=\"b", NULL},
        {"multipart/form-data; boundary=\"b \"", NULL},
        {"multipart/form-data; boundary=\"b\\\"\"", NULL},
        {"multipart/form-data; boundary=\"b\r\"", NULL},
        {"multipart/form-data; boundary=\"b\xc3\xa9\"", NULL},
        {"multipart/form-data; boundary=b%", NULL},
        {"multipart/form-data; boundary=a/b", NULL},
        {"multipart/form-data; boundary=b; boundary=b", NULL},
        {"multipart/form-data; boundary=b x", NULL},
        {"multipart/form-data, boundary=b", NULL},
        {"multipart/form-data boundary=b", NULL},
        {"multipart/form-data2; boundary=b", NULL},
        {"multipart/mixed; boundary=b", NULL},
        {"multipart/form-data; boundary=" BOUNDARY_70 "0", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str boundary;
        int result = multipart_boundary(str_from(rows[i].type), &boundary);
        assert_int_equal(result, rows[i].boundary ? 0 : -EINVAL);
        if (result == 0 && !str_equal(boundary, str_from(rows[i].boundary)))
            fail_msg("%s: \"%.*s\"", rows[i].type, STR_ARG(boundary));
    }
    struct str boundary;
    assert_int_equal(multipart_boundary(STR_NONE, &boundary), -EINVAL);
    assert_int_equal(multipart_boundary(STR("multipart/form-data; boundary=\"a\0b\""), &boundary), -EINVAL);
}

static void the_longest_boundary_works(void **state)
{
    (void)state;
    check("70 bytes", STR(BOUNDARY_70),
          STR("--" BOUNDARY_70 "\r\n" CD "name=a\r\n\r\n\r\n--" BOUNDARY_70 "\r\n--" BOUNDARY_70 "--"),
          STR("<a|-|-></>ERROR"));
    check("70 bytes, nearly", STR(BOUNDARY_70),
          STR("--" BOUNDARY_70 "\r\n" CD "name=a\r\n\r\n\r\n--01234567890123456789\r\n--" BOUNDARY_70 "--"),
          STR("<a|-|->\r\n--01234567890123456789</>END"));
}

/* ---- bounds ---- */

static void fill(struct buf *bytes, char c, size_t count)
{
    memset(buf_reserve(bytes, count), c, count);
    bytes->size += count;
}

/* Whether the body is taken to its end; the same whole and byte by byte. Frees it. */
static bool is_taken(struct buf *body)
{
    bool taken[2];
    for (int way = 0; way < 2; way++) {
        struct buf out = {0};
        run(STR("b"), buf_str(body), way ? 1 : SIZE_MAX, &out);
        buf_add_char(&out, '\0');
        taken[way] = strstr(out.at, "END") != NULL;
        buf_clear(&out);
    }
    buf_clear(body);
    assert_int_equal(taken[0], taken[1]);
    return taken[0];
}

static bool takes_parts(unsigned count)
{
    struct buf body = {0};
    for (unsigned i = 0; i < count; i++)
        buf_add_literal(&body, PART("x") "\r\n");
    buf_add_literal(&body, "--b--");
    return is_taken(&body);
}

static bool takes_fields(unsigned count)
{
    struct buf body = {0};
    buf_add_literal(&body, "--b\r\n" CD "name=a\r\n");
    for (unsigned i = 1; i < count; i++)
        buf_add_literal(&body, "X:\r\n");
    buf_add_literal(&body, "\r\nx" END);
    return is_taken(&body);
}

static bool takes_head(size_t size)
{
    struct buf body = {0};
    buf_add_literal(&body, "--b\r\n" CD "name=");
    fill(&body, 'a', size - strlen(CD "name=\r\n\r\n"));
    buf_add_literal(&body, "\r\n\r\nx" END);
    return is_taken(&body);
}

static bool takes_preamble(size_t size, const char *then)
{
    struct buf body = {0};
    fill(&body, 'x', size);
    buf_add_text(&body, then);
    return is_taken(&body);
}

static bool takes_padding(size_t size, const char *boundary, const char *then)
{
    struct buf body = {0};
    buf_add_text(&body, boundary);
    fill(&body, ' ', size);
    buf_add_text(&body, then);
    return is_taken(&body);
}

static void sizes_are_bounded_exactly(void **state)
{
    (void)state;
    assert_true(takes_parts(MULTIPART_PARTS_MAX));
    assert_false(takes_parts(MULTIPART_PARTS_MAX + 1));
    assert_true(takes_fields(MULTIPART_FIELDS_MAX));
    assert_false(takes_fields(MULTIPART_FIELDS_MAX + 1));
    assert_true(takes_head(MULTIPART_HEAD_MAX));
    assert_false(takes_head(MULTIPART_HEAD_MAX + 1));
    assert_true(takes_preamble(MULTIPART_PREAMBLE_MAX, "\r\n--b--"));
    assert_false(takes_preamble(MULTIPART_PREAMBLE_MAX + 1, "\r\n--b--"));
    assert_true(takes_preamble(MULTIPART_PREAMBLE_MAX - 4, "\r\n--\r\n--b--"));
    assert_false(takes_preamble(MULTIPART_PREAMBLE_MAX - 3, "\r\n--\r\n--b--"));
    assert_true(takes_padding(MULTIPART_PADDING_MAX, "--b", "\r\n" CD "name=a\r\n\r\nx" END));
    assert_false(takes_padding(MULTIPART_PADDING_MAX + 1, "--b", "\r\n" CD "name=a\r\n\r\nx" END));
    assert_true(takes_padding(MULTIPART_PADDING_MAX, "--b--", ""));
    assert_false(takes_padding(MULTIPART_PADDING_MAX + 1, "--b--", ""));
}

/* What never ends is refused when its bound is reached, not when it has ended. */
static void an_endless_preamble_or_head_is_refused_while_it_comes(void **state)
{
    (void)state;
    static const char *const beginnings[] = {"", "--b\r\nX: ", "--b\r\n" CD "name=\"", "--b"};
    for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++) {
        struct multipart *parser = multipart_new(STR("b"));
        struct str beginning = str_from(beginnings[i]);
        enum multipart_event event;
        assert_int_equal(multipart_feed(parser, beginning.at, beginning.size, &event), beginning.size);
        assert_int_equal(event, MULTIPART_MORE);
        size_t fed = 0;
        while (event == MULTIPART_MORE) {
            char space = ' ';
            multipart_feed(parser, &space, 1, &event);
            assert_true(++fed <= MULTIPART_HEAD_MAX);
        }
        assert_int_equal(event, MULTIPART_ERROR);
        multipart_free(parser);
    }
}

static size_t allocated_bytes(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks;
#endif
}

static void an_upload_of_any_size_takes_no_memory(void **state)
{
    (void)state;
    struct multipart *parser = multipart_new(STR("b"));
    assert_true(malloc_usable_size(parser) < 12 * 1024);
    enum multipart_event event;
    struct str head = STR(PART(""));
    assert_int_equal(multipart_feed(parser, head.at, head.size, &event), head.size);
    assert_int_equal(event, MULTIPART_PART);
    static const char block[65536] = "\r\n--";
    uint64_t sum = 0;
    size_t before = allocated_bytes();
    for (int i = 0; i < 1024; i++) {
        for (size_t at = 0; at < sizeof block;) {
            at += multipart_feed(parser, block + at, sizeof block - at, &event);
            assert_int_equal(event, MULTIPART_DATA);
            sum += multipart_data(parser).size;
        }
    }
    assert_int_equal(allocated_bytes(), before);
    assert_int_equal(sum, 1024 * sizeof block);
    assert_true(str_equal(multipart_part(parser)->name, STR("a")));
    multipart_free(parser);
}

static void a_parts_names_last_until_the_next_part(void **state)
{
    (void)state;
    struct multipart *parser = multipart_new(STR("b"));
    struct str body = STR(PART("x") "\r\n--b\r\n" CD "name=c\r\n\r\n");
    enum multipart_event event = MULTIPART_MORE;
    size_t at = 0;
    while (event != MULTIPART_PART_END) {
        at += multipart_feed(parser, body.at + at, body.size - at, &event);
        assert_true(event == MULTIPART_MORE || str_equal(multipart_part(parser)->name, STR("a")));
    }
    while (event != MULTIPART_PART)
        at += multipart_feed(parser, body.at + at, body.size - at, &event);
    assert_true(str_equal(multipart_part(parser)->name, STR("c")));
    assert_int_equal(at, body.size);
    multipart_free(parser);
}

static void an_error_stays_one(void **state)
{
    (void)state;
    struct multipart *parser = multipart_new(STR("b"));
    enum multipart_event event;
    multipart_feed(parser, "--b\n", 4, &event);
    assert_int_equal(event, MULTIPART_ERROR);
    const char *reason = multipart_error(parser);
    assert_non_null(reason);
    multipart_feed(parser, "--b--", 5, &event);
    assert_int_equal(event, MULTIPART_ERROR);
    multipart_feed(parser, "", 0, &event);
    assert_int_equal(event, MULTIPART_ERROR);
    assert_int_equal(multipart_finish(parser), MULTIPART_ERROR);
    assert_string_equal(multipart_error(parser), reason);
    multipart_free(parser);
    multipart_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_are_framed_alike_in_any_pieces),
        cmocka_unit_test(heads_are_read_strictly),
        cmocka_unit_test(names_are_unescaped_as_clients_escape_them),
        cmocka_unit_test(bodies_of_real_clients_are_read),
        cmocka_unit_test(boundaries_are_found_or_refused),
        cmocka_unit_test(the_longest_boundary_works),
        cmocka_unit_test(sizes_are_bounded_exactly),
        cmocka_unit_test(an_endless_preamble_or_head_is_refused_while_it_comes),
        cmocka_unit_test(an_upload_of_any_size_takes_no_memory),
        cmocka_unit_test(a_parts_names_last_until_the_next_part),
        cmocka_unit_test(an_error_stays_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
