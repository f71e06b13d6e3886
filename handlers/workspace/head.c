/*
 * What of a head goes on: the table of fields with a rule of their own, for requests and for answers, and our
 * parameter and cookie.
 */
#include "handlers/workspace/workspace.h"

#include "core/domain/instance/workspace.h"

enum {
    NAMED_MAX = 32,        /* names that Connection can name; those beyond are let be */
    PROXY_PREFIX_SIZE = 6, /* "proxy-" */
};

/* ---- our parameter ---- */

/* Whether a piece of a query is the parameter. */
static bool is_param(struct str piece, struct str name, struct str *value)
{
    if (!str_starts(piece, name))
        return false;
    *value = str_of(piece.at + name.size, piece.size - name.size);
    if (value->size == 0)
        return true;
    if (value->at[0] != '=')
        return false;
    value->at++;
    value->size--;
    return true;
}

bool head_next_param(struct str *query, struct str name, struct str *value)
{
    struct str piece;
    while (str_split(query, '&', &piece))
        if (is_param(piece, name, value))
            return true;
    return false;
}

struct str head_query_without(struct arena *arena, struct str query, struct str name)
{
    struct str rest = query;
    struct str value;
    if (!head_next_param(&rest, name, &value))
        return query;
    char *start = arena_alloc(arena, query.size + 1);
    char *at = start;
    struct str piece;
    bool first = true;
    while (str_split(&query, '&', &piece)) {
        if (is_param(piece, name, &value))
            continue;
        if (!first)
            *at++ = '&';
        first = false;
        memcpy(at, piece.at, piece.size);
        at += piece.size;
    }
    return first ? STR_NONE : str_of(start, (size_t)(at - start));
}

/* ---- our cookie ---- */

static bool is_cookie(struct str pair, struct str name, struct str *value)
{
    struct str rest = pair;
    struct str left;
    str_split(&rest, '=', &left);
    *value = rest.at ? str_trim(rest) : STR_NONE;
    return rest.at && str_equal(str_trim(left), name);
}

bool head_next_cookie(struct str *cookies, struct str name, struct str *value)
{
    struct str pair;
    while (str_split(cookies, ';', &pair))
        if (is_cookie(pair, name, value))
            return true;
    return false;
}

/* The field without our cookie; no field when nothing else is in it. */
static void put_cookies(struct buf *out, const struct http1_field *field)
{
    struct str ours = STR(WORKSPACE_COOKIE);
    struct str rest = field->value;
    struct str value;
    if (!head_next_cookie(&rest, ours, &value)) {
        http1_put_header(out, field->name, field->value);
        return;
    }
    rest = field->value;
    struct str pair;
    bool first = true;
    while (str_split(&rest, ';', &pair)) {
        pair = str_trim(pair);
        if (pair.size == 0 || is_cookie(pair, ours, &value))
            continue;
        if (first) {
            buf_add_str(out, field->name);
            buf_add_literal(out, ": ");
        } else {
            buf_add_literal(out, "; ");
        }
        first = false;
        buf_add_str(out, pair);
    }
    if (!first)
        buf_add_literal(out, "\r\n");
}

/* ---- rules ---- */

enum rule {
    PASS,
    DROP,
    COOKIE,     /* Cookie: without ours */
    LENGTH,     /* as the framing has it, not as it is spelled */
    SET_COOKIE, /* not ours, and for this host alone */
    SWITCH,     /* Upgrade: when both sides switch */
};

/* Fields with a rule of their own, in lower case; also all that begin with "proxy-" are dropped. What is not PASS here
 * can't be named by Connection: a client must not take away what we say of it. */
static const struct {
    struct str name;
    enum rule request;
    enum rule answer;
} rules[] = {
    {{"te", 2}, DROP, DROP},
    {{"date", 4}, PASS, DROP}, /* an answer has that of our server */
    {{"host", 4}, DROP, PASS}, /* stands first */
    {{"cookie", 6}, COOKIE, PASS},
    {{"expect", 6}, DROP, PASS}, /* answered by us */
    {{"trailer", 7}, DROP, DROP},
    {{"upgrade", 7}, DROP, SWITCH},
    {{"forwarded", 9}, DROP, PASS},
    {{"connection", 10}, DROP, DROP},
    {{"keep-alive", 10}, DROP, DROP},
    {{"set-cookie", 10}, PASS, SET_COOKIE},
    {{"x-request-id", 12}, DROP, DROP}, /* ours */
    {{"content-length", 14}, LENGTH, DROP},
    {{"http2-settings", 14}, DROP, PASS}, /* of an upgrade that we don't pass on */
    {{"x-forwarded-for", 15}, DROP, PASS},
    {{"x-forwarded-host", 16}, DROP, PASS},
    {{"x-forwarded-proto", 17}, DROP, PASS},
    {{"transfer-encoding", 17}, DROP, DROP},
};

static bool has_proxy_prefix(struct str name)
{
    return name.size > PROXY_PREFIX_SIZE &&
           str_equal_nocase(str_of(name.at, PROXY_PREFIX_SIZE), STR("proxy-"));
}

static enum rule rule_of(struct str name, bool request)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (rules[i].name.size == name.size && str_equal_nocase(rules[i].name, name))
            return request ? rules[i].request : rules[i].answer;
    return has_proxy_prefix(name) ? DROP : PASS;
}

/* The fields that Connection names: they are between it and us. */
struct named {
    struct str names[NAMED_MAX];
    size_t count;
};

static void find_named(struct named *named, const struct http1_field *fields, size_t count)
{
    static const struct str common[] = {{"keep-alive", 10}, {"close", 5}, {"upgrade", 7}};
    named->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (fields[i].name.size != 10 || !str_equal_nocase(fields[i].name, STR("connection")))
            continue;
        struct str list = fields[i].value;
        struct str name;
        while (named->count < NAMED_MAX && str_split(&list, ',', &name)) {
            name = str_trim(name);
            bool names_none = name.size == 0;
            for (size_t c = 0; c < ARRAY_SIZE(common); c++)
                names_none = names_none || str_equal_nocase(name, common[c]);
            if (!names_none)
                named->names[named->count++] = name;
        }
    }
}

static bool is_named(const struct named *named, struct str name)
{
    for (size_t i = 0; i < named->count; i++)
        if (str_equal_nocase(named->names[i], name))
            return true;
    return false;
}

/* ---- to the pod ---- */

/* What the proxies before us have said, when they are ours, then the peer. */
static void put_forwarded_for(struct buf *out, const struct head_request *request)
{
    const struct http1_head *head = request->head;
    buf_add_literal(out, "X-Forwarded-For: ");
    for (size_t i = 0; request->trusted && i < head->count; i++) {
        if (!str_equal_nocase(head->fields[i].name, STR("x-forwarded-for")) || !head->fields[i].value.size)
            continue;
        buf_add_str(out, head->fields[i].value);
        buf_add_literal(out, ", ");
    }
    buf_add_str(out, request->peer);
    buf_add_literal(out, "\r\n");
}

static void put_ours(struct buf *out, const struct head_request *request)
{
    const struct http1_head *head = request->head;
    put_forwarded_for(out, request);
    http1_put_header(out, STR("X-Forwarded-Proto"), request->scheme);
    http1_put_header(out, STR("X-Forwarded-Host"), head->host);
    http1_put_header(out, STR("X-Request-Id"), request->id);
    if (head->chunked)
        buf_add_literal(out, "Transfer-Encoding: chunked\r\n");
    if (request->upgrade) {
        buf_add_literal(out, "Connection: Upgrade\r\n");
        http1_put_header(out, STR("Upgrade"), head->upgrade);
    }
    buf_add_literal(out, "\r\n");
}

void head_put_request(struct buf *out, const struct head_request *request)
{
    const struct http1_head *head = request->head;
    struct named named;
    find_named(&named, head->fields, head->count);
    buf_add_str(out, head->method);
    buf_add_char(out, ' ');
    buf_add_str(out, request->target);
    buf_add_literal(out, " HTTP/1.1\r\n");
    http1_put_header(out, STR("Host"), head->host);
    for (size_t i = 0; i < head->count; i++) {
        const struct http1_field *field = &head->fields[i];
        switch (rule_of(field->name, true)) {
        case PASS:
            if (!is_named(&named, field->name))
                http1_put_header(out, field->name, field->value);
            break;
        case COOKIE: put_cookies(out, field); break;
        case LENGTH: http1_put_length(out, head->content_length); break;
        case DROP:
        case SET_COOKIE:
        case SWITCH: break;
        }
    }
    put_ours(out, request);
}

/* ---- to the client ---- */

/*
 * A pod is somebody's own program, and all workspaces stand below one domain. So a cookie that a pod sets for that
 * domain would go to everybody else's workspace; without Domain it is for this host alone. And a cookie by the name of
 * ours would take the place of ours, and lock its user out.
 */
static void add_set_cookie(struct http_request *http, const struct http1_field *field)
{
    struct str rest = field->value;
    struct str piece;
    struct str value;
    str_split(&rest, ';', &piece);
    if (is_cookie(piece, STR(WORKSPACE_COOKIE), &value))
        return;
    char *start = arena_alloc(&http->arena, field->value.size + 1);
    char *at = start + piece.size;
    memcpy(start, piece.at, piece.size);
    while (str_split(&rest, ';', &piece)) {
        struct str left = piece;
        struct str name;
        str_split(&left, '=', &name);
        if (str_equal_nocase(str_trim(name), STR("domain")))
            continue;
        *at++ = ';';
        memcpy(at, piece.at, piece.size);
        at += piece.size;
    }
    http_add_header(http, field->name, str_of(start, (size_t)(at - start)));
}

void head_add_answer(struct http_request *http, const struct http1_answer_head *answer)
{
    struct named named;
    find_named(&named, answer->fields, answer->count);
    for (size_t i = 0; i < answer->count; i++) {
        const struct http1_field *field = &answer->fields[i];
        switch (rule_of(field->name, false)) {
        case PASS:
            if (!is_named(&named, field->name))
                http_add_header(http, field->name, field->value);
            break;
        case SET_COOKIE: add_set_cookie(http, field); break;
        case SWITCH:
            if (answer->switched)
                http_add_header(http, field->name, field->value);
            break;
        case DROP:
        case COOKIE:
        case LENGTH: break;
        }
    }
}
