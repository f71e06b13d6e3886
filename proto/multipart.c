/*
 * multipart/form-data: see multipart.h.
 *
 *     PREAMBLE ──delimiter──▶ BOUNDARY ──CR LF──▶ HEAD ──empty line──▶ CONTENT ──delimiter──▶ BOUNDARY …
 *                                 └──"--"──▶ CLOSED ──CR LF──▶ EPILOGUE
 *
 * A delimiter is CR LF "--" and the boundary. A CR can stand at its front alone, so when the bytes at hand end within
 * what may be one, how much of it was seen is all that has to be kept: if it was none, those bytes are given out from
 * the parser's own copy of the delimiter, and the search goes on behind them.
 *
 * Its CR LF may also be the one that ends the line before a part's content, or not there at all in front of the first
 * one. Both states therefore begin as if a CR LF had just been seen that belongs to nobody.
 */
#include "proto/multipart.h"

#include <errno.h>
#include <stdlib.h>

enum { DELIMITER_MAX = 4 + MULTIPART_BOUNDARY_MAX, LINE_END = 2 /* bytes of CR LF */ };

enum state {
    PREAMBLE,
    BOUNDARY,
    BOUNDARY_CR,
    BOUNDARY_DASH,
    HEAD,
    CONTENT,
    CLOSED,
    CLOSED_CR,
    EPILOGUE,
    BROKEN,
};

struct multipart {
    enum state state;
    const char *error;
    char delimiter[DELIMITER_MAX];
    size_t delimiter_size;
    size_t matched;  /* bytes of a delimiter that were just seen */
    size_t borrowed; /* of these, what belongs to nobody: 0 or LINE_END */
    size_t preamble; /* bytes */
    size_t padding;
    unsigned parts;
    unsigned fields_seen; /* of the head: a bit for each row of `fields` */
    struct multipart_part part;
    struct str data;
    size_t head_size;
    char head[MULTIPART_HEAD_MAX]; /* the part's names point into it */
};

static int refuse(struct multipart *parser, const char *reason)
{
    parser->state = BROKEN;
    parser->error = reason;
    return -EINVAL;
}

/* ---- parameters, of Content-Type and Content-Disposition ---- */

static struct str from_index(struct str text, size_t index)
{
    return str_of(text.at + index, text.size - index);
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c);
}

/* tchar of RFC 9110 §5.6.2 */
static bool is_token_byte(char c)
{
    return is_alnum(c) || is_one_of(c, "!#$%&'*+-.^_`|~");
}

static struct str take_token(struct str *text)
{
    size_t size = 0;
    while (size < text->size && is_token_byte(text->at[size]))
        size++;
    struct str token = str_of(text->at, size);
    *text = from_index(*text, size);
    return token;
}

/* A backslash before one of these hides it; before anything else it stands for itself. */
static bool is_escape(struct str text, size_t index)
{
    return text.at[index] == '\\' && index + 1 < text.size &&
           (text.at[index + 1] == '"' || text.at[index + 1] == '\\');
}

/* What stands between quotes, not unescaped. `text` begins with the first of them. */
static bool take_quoted(struct str *text, struct str *inner)
{
    size_t at = 1;
    while (at < text->size && text->at[at] != '"')
        at += is_escape(*text, at) ? 2 : 1;
    if (at >= text->size)
        return false;
    *inner = str_of(text->at + 1, at - 1);
    *text = from_index(*text, at + 1);
    return true;
}

struct parameter {
    struct str name; /* absent: there was none between two semicolons */
    struct str value;
    bool quoted;
};

/* Takes the next of `*( OWS ";" OWS [ parameter ] )` (RFC 9110 §5.6.6). 1; 0 at the end; -EINVAL. */
static int take_parameter(struct str *text, struct parameter *parameter)
{
    *parameter = (struct parameter){.name = STR_NONE};
    *text = str_trim(*text);
    if (text->size == 0)
        return 0;
    if (text->at[0] != ';')
        return -EINVAL;
    *text = str_trim(from_index(*text, 1));
    if (text->size == 0 || text->at[0] == ';')
        return 1;
    parameter->name = take_token(text);
    if (parameter->name.size == 0 || text->size == 0 || text->at[0] != '=')
        return -EINVAL;
    *text = from_index(*text, 1);
    parameter->quoted = text->size && text->at[0] == '"';
    if (parameter->quoted)
        return take_quoted(text, &parameter->value) ? 1 : -EINVAL;
    parameter->value = take_token(text);
    return parameter->value.size ? 1 : -EINVAL;
}

static bool boundary_is_fit(struct str boundary)
{
    if (boundary.size == 0 || boundary.size > MULTIPART_BOUNDARY_MAX || boundary.at[boundary.size - 1] == ' ')
        return false;
    for (size_t i = 0; i < boundary.size; i++)
        if (!is_alnum(boundary.at[i]) && !is_one_of(boundary.at[i], "'()+_,-./:=? "))
            return false;
    return true;
}

int multipart_boundary(struct str content_type, struct str *boundary)
{
    static const struct str type = {"multipart/form-data", 19};
    struct str rest = str_trim(content_type);
    *boundary = STR_NONE;
    if (rest.size < type.size || !str_equal_nocase(str_of(rest.at, type.size), type))
        return -EINVAL;
    rest = from_index(rest, type.size);
    struct parameter parameter;
    int result;
    while ((result = take_parameter(&rest, &parameter)) > 0) {
        if (!str_equal_nocase(parameter.name, STR("boundary")))
            continue;
        if (boundary->at)
            return -EINVAL;
        *boundary = parameter.value;
    }
    return result == 0 && boundary_is_fit(*boundary) ? 0 : -EINVAL;
}

/* ---- a part's head ---- */

/* Unescapes what stood between quotes, in place: it lies in the parser's head. */
static struct str unescape(struct multipart *parser, struct str quoted)
{
    char *to = parser->head + (quoted.at - parser->head);
    size_t size = 0;
    for (size_t i = 0; i < quoted.size; i++) {
        char c = quoted.at[i];
        if (is_escape(quoted, i)) {
            c = quoted.at[++i];
        } else if (str_starts(from_index(quoted, i), STR("%22"))) {
            c = '"';
            i += 2;
        }
        to[size++] = c;
    }
    return str_of(to, size);
}

/* A tab is the one control character that check_head_byte lets pass. */
static bool text_is_fit(struct str text)
{
    return str_is_utf8(text) && !(text.size && memchr(text.at, '\t', text.size));
}

static int set_parameter(struct multipart *parser, const struct parameter *parameter)
{
    struct str *place = str_equal_nocase(parameter->name, STR("name"))       ? &parser->part.name
                        : str_equal_nocase(parameter->name, STR("filename")) ? &parser->part.filename
                                                                             : NULL;
    if (!place)
        return 0;
    if (place->at)
        return refuse(parser, "a part with two names");
    if (!text_is_fit(parameter->value))
        return refuse(parser, "a part's name is not UTF-8 text");
    *place = parameter->quoted ? unescape(parser, parameter->value) : parameter->value;
    return 0;
}

static int take_disposition(struct multipart *parser, struct str value)
{
    if (!str_equal_nocase(take_token(&value), STR("form-data")))
        return refuse(parser, "a part's Content-Disposition is not form-data");
    struct parameter parameter;
    int result;
    while ((result = take_parameter(&value, &parameter)) > 0)
        if (set_parameter(parser, &parameter))
            return -EINVAL;
    if (result < 0)
        return refuse(parser, "a part's Content-Disposition is malformed");
    return 0;
}

static int take_type(struct multipart *parser, struct str value)
{
    if (!text_is_fit(value))
        return refuse(parser, "a part's Content-Type is not UTF-8 text");
    parser->part.content_type = value;
    return 0;
}

/* What is encoded would be stored as it is sent, and read as something else by whoever decodes it. */
static int take_encoding(struct multipart *parser, struct str value)
{
    static const char *const plain[] = {"binary", "8bit", "7bit"};
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        if (str_equal_nocase(value, str_from(plain[i])))
            return 0;
    return refuse(parser, "a part's Content-Transfer-Encoding is not supported");
}

/* Each at most once; all others mean nothing (RFC 7578 §4.8). */
static const struct {
    const char *name;
    int (*take)(struct multipart *parser, struct str value);
} fields[] = {
    {"content-disposition", take_disposition},
    {"content-type", take_type},
    {"content-transfer-encoding", take_encoding},
};

static int take_field(struct multipart *parser, struct str line)
{
    struct str name = take_token(&line);
    if (name.size == 0 || line.size == 0 || line.at[0] != ':')
        return refuse(parser, "a field of a part is malformed");
    struct str value = str_trim(from_index(line, 1));
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (!str_equal_nocase(name, str_from(fields[i].name)))
            continue;
        if (parser->fields_seen & (1u << i))
            return refuse(parser, "a field of a part stands there twice");
        parser->fields_seen |= 1u << i;
        return fields[i].take(parser, value);
    }
    return 0;
}

/* The head is complete; each of its lines ends in CR LF and holds neither. */
static int take_head(struct multipart *parser)
{
    struct str rest = str_of(parser->head, parser->head_size - LINE_END);
    struct str line;
    for (unsigned count = 0; rest.size; count++) {
        const char *end = memchr(rest.at, '\r', rest.size);
        line = str_of(rest.at, (size_t)(end - rest.at));
        rest = from_index(rest, line.size + LINE_END);
        if (count == MULTIPART_FIELDS_MAX)
            return refuse(parser, "a part with too many fields");
        if (take_field(parser, line))
            return -EINVAL;
    }
    if (!parser->part.name.at)
        return refuse(parser, "a part without a name");
    return 0;
}

static int check_head_byte(struct multipart *parser, char c)
{
    bool after_cr = parser->head_size && parser->head[parser->head_size - 1] == '\r';
    if (after_cr != (c == '\n'))
        return refuse(parser, "a line of a part's head does not end in CR LF");
    unsigned char code = (unsigned char)c;
    if ((code < 0x20 && c != '\t' && c != '\r' && c != '\n') || code == 0x7f)
        return refuse(parser, "a control character in a part's head");
    if (parser->head_size == sizeof parser->head)
        return refuse(parser, "a part's head is too large");
    return 0;
}

/* After a line's end: whether the line was empty. */
static bool head_is_complete(const struct multipart *parser)
{
    const char *end = parser->head + parser->head_size;
    return parser->head_size == LINE_END ||
           (parser->head_size >= 2 * LINE_END && memcmp(end - 2 * LINE_END, "\r\n\r\n", 2 * LINE_END) == 0);
}

/* ---- the body ---- */

static void expect_delimiter(struct multipart *parser, enum state state)
{
    parser->state = state;
    parser->matched = LINE_END;
    parser->borrowed = LINE_END;
}

static size_t match(const struct multipart *parser, size_t from, const char *bytes, size_t size)
{
    size_t left = parser->delimiter_size - from;
    size_t count = 0;
    while (count < size && count < left && bytes[count] == parser->delimiter[from + count])
        count++;
    return count;
}

static size_t found_delimiter(struct multipart *parser, size_t taken)
{
    parser->state = BOUNDARY;
    parser->matched = 0;
    parser->borrowed = 0;
    parser->padding = 0;
    return taken;
}

/* Goes on with a delimiter of which a part was seen in earlier bytes. */
static size_t resume_delimiter(struct multipart *parser, const char *bytes, size_t size)
{
    size_t count = match(parser, parser->matched, bytes, size);
    parser->matched += count;
    if (parser->matched == parser->delimiter_size)
        return found_delimiter(parser, count);
    if (count < size) {
        parser->data = str_of(parser->delimiter + parser->borrowed, parser->matched - parser->borrowed);
        parser->matched = 0;
        parser->borrowed = 0;
    }
    return count;
}

/* Takes bytes up to the next delimiter, or that delimiter, which changes the state. What belongs to the content is in
 * parser->data then. */
static size_t scan(struct multipart *parser, const char *bytes, size_t size)
{
    parser->data = STR_NONE;
    if (parser->matched)
        return resume_delimiter(parser, bytes, size);
    for (size_t at = 0; at < size;) {
        const char *cr = memchr(bytes + at, '\r', size - at);
        if (!cr)
            break;
        at = (size_t)(cr - bytes);
        size_t count = match(parser, 0, cr, size - at);
        bool whole = count == parser->delimiter_size;
        if (whole && at == 0)
            return found_delimiter(parser, count);
        if (whole || at + count == size) {
            /* what is whole is found again by the next step */
            parser->matched = whole ? 0 : count;
            parser->data = str_of(bytes, at);
            return whole ? at : size;
        }
        at += count;
    }
    parser->data = str_of(bytes, size);
    return size;
}

static size_t read_preamble(struct multipart *parser, const char *bytes, size_t size)
{
    size_t taken = scan(parser, bytes, size);
    parser->preamble += parser->data.size;
    if (parser->preamble > MULTIPART_PREAMBLE_MAX)
        refuse(parser, "too much before the first boundary");
    return taken;
}

static size_t read_content(struct multipart *parser, const char *bytes, size_t size,
                           enum multipart_event *event)
{
    size_t taken = scan(parser, bytes, size);
    if (parser->state == BOUNDARY)
        *event = MULTIPART_PART_END;
    else if (parser->data.size)
        *event = MULTIPART_DATA;
    return taken;
}

static void begin_head(struct multipart *parser)
{
    parser->state = HEAD;
    parser->head_size = 0;
    parser->fields_seen = 0;
    parser->part = (struct multipart_part){.name = STR_NONE};
    if (++parser->parts > MULTIPART_PARTS_MAX)
        refuse(parser, "too many parts");
}

static bool pads(struct multipart *parser, char c)
{
    return (c == ' ' || c == '\t') && ++parser->padding <= MULTIPART_PADDING_MAX;
}

/* A byte behind a delimiter says what kind it is. */
static void read_boundary(struct multipart *parser, char c)
{
    enum state state = parser->state;
    if (state == BOUNDARY && c == '-' && parser->padding == 0)
        parser->state = BOUNDARY_DASH;
    else if (state == BOUNDARY && c == '\r')
        parser->state = BOUNDARY_CR;
    else if (state == BOUNDARY_CR && c == '\n')
        begin_head(parser);
    else if (state == BOUNDARY_DASH && c == '-')
        parser->state = CLOSED;
    else if (state == CLOSED && c == '\r')
        parser->state = CLOSED_CR;
    else if (state == CLOSED_CR && c == '\n')
        parser->state = EPILOGUE;
    else if (!((state == BOUNDARY || state == CLOSED) && pads(parser, c)))
        refuse(parser, "a line begins with the boundary and goes on");
}

static size_t read_head(struct multipart *parser, const char *bytes, size_t size, enum multipart_event *event)
{
    for (size_t i = 0; i < size; i++) {
        if (check_head_byte(parser, bytes[i]))
            return i;
        parser->head[parser->head_size++] = bytes[i];
        if (bytes[i] != '\n' || !head_is_complete(parser))
            continue;
        if (take_head(parser) == 0) {
            expect_delimiter(parser, CONTENT);
            *event = MULTIPART_PART;
        }
        return i + 1;
    }
    return size;
}

/* Goes on within the present state; takes nothing only with an event or when it has changed what the next step does. */
static size_t step(struct multipart *parser, const char *bytes, size_t size, enum multipart_event *event)
{
    switch (parser->state) {
    case PREAMBLE: return read_preamble(parser, bytes, size);
    case HEAD: return read_head(parser, bytes, size, event);
    case CONTENT: return read_content(parser, bytes, size, event);
    case BOUNDARY:
    case BOUNDARY_CR:
    case BOUNDARY_DASH:
    case CLOSED:
    case CLOSED_CR: read_boundary(parser, bytes[0]); return 1;
    case EPILOGUE: return size;
    case BROKEN: break;
    }
    return 0;
}

size_t multipart_feed(struct multipart *parser, const char *bytes, size_t size, enum multipart_event *event)
{
    size_t taken = 0;
    *event = MULTIPART_MORE;
    while (taken < size && *event == MULTIPART_MORE && parser->state != BROKEN)
        taken += step(parser, bytes + taken, size - taken, event);
    if (parser->state == BROKEN)
        *event = MULTIPART_ERROR;
    return taken;
}

enum multipart_event multipart_finish(struct multipart *parser)
{
    if (parser->state == EPILOGUE || parser->state == CLOSED)
        return MULTIPART_END;
    if (parser->state != BROKEN)
        refuse(parser, "the body ends before its last boundary");
    return MULTIPART_ERROR;
}

struct multipart *multipart_new(struct str boundary)
{
    CHECK(boundary.size > 0 && boundary.size <= MULTIPART_BOUNDARY_MAX);
    struct multipart *parser = mem_zalloc(sizeof *parser);
    memcpy(parser->delimiter, "\r\n--", 4);
    memcpy(parser->delimiter + 4, boundary.at, boundary.size);
    parser->delimiter_size = 4 + boundary.size;
    expect_delimiter(parser, PREAMBLE);
    return parser;
}

void multipart_free(struct multipart *parser)
{
    free(parser);
}

const struct multipart_part *multipart_part(const struct multipart *parser)
{
    return &parser->part;
}

struct str multipart_data(const struct multipart *parser)
{
    return parser->data;
}

const char *multipart_error(const struct multipart *parser)
{
    return parser->error;
}
