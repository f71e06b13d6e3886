/* Heads of requests: see http1_head.h; and what http1.h has for looking at their fields. */
#include "proto/http1_head.h"

#include "proto/http1_fields.h"
#include "proto/url.h"

/* The fields that say where a request ends and what becomes of its connection. */
enum known {
    KNOWN_HOST,
    KNOWN_LENGTH,
    KNOWN_ENCODING,
    KNOWN_CONNECTION,
    KNOWN_EXPECT,
    KNOWN_UPGRADE,
    KNOWN_COUNT,
};

static const struct str known_names[KNOWN_COUNT] = {
    [KNOWN_HOST] = {"host", 4},
    [KNOWN_LENGTH] = {"content-length", 14},
    [KNOWN_ENCODING] = {"transfer-encoding", 17},
    [KNOWN_CONNECTION] = {"connection", 10},
    [KNOWN_EXPECT] = {"expect", 6},
    [KNOWN_UPGRADE] = {"upgrade", 7},
};

/* What a head has of them. Connection and Expect are lists, which may be spread over several fields. */
struct known_fields {
    size_t counts[KNOWN_COUNT];
    struct str values[KNOWN_COUNT]; /* of the last field of each */
    bool closes;
    bool keeps;
    bool upgrades;
    bool expects_continue;
    bool expects_more;
};

struct refusal {
    int status;
    const char *reason;
};

/* ---- fields ---- */

struct str http1_header(const struct http1_head *head, const char *name)
{
    return http1_fields_find(head->fields, head->count, name);
}

size_t http1_header_count(const struct http1_head *head, const char *name)
{
    struct str wanted = str_from(name);
    size_t count = 0;
    for (size_t i = 0; i < head->count; i++)
        count += str_equal_nocase(head->fields[i].name, wanted);
    return count;
}

bool http1_list_has(struct str list, const char *token)
{
    struct str wanted = str_from(token);
    struct str piece;
    while (str_split(&list, ',', &piece))
        if (str_equal_nocase(str_trim(piece), wanted))
            return true;
    return false;
}

static void note_expect(struct known_fields *known, struct str list)
{
    struct str piece;
    while (str_split(&list, ',', &piece)) {
        bool goes_on = str_equal_nocase(str_trim(piece), STR("100-continue"));
        known->expects_continue |= goes_on;
        known->expects_more |= !goes_on && str_trim(piece).size;
    }
}

static void note_field(struct known_fields *known, enum known which, struct str value)
{
    known->counts[which]++;
    known->values[which] = value;
    if (which == KNOWN_CONNECTION) {
        known->closes |= http1_list_has(value, "close");
        known->keeps |= http1_list_has(value, "keep-alive");
        known->upgrades |= http1_list_has(value, "upgrade");
    }
    if (which == KNOWN_EXPECT)
        note_expect(known, value);
}

static struct known_fields gather(const struct http1_head *head)
{
    struct known_fields known = {0};
    for (size_t i = 0; i < head->count; i++)
        for (enum known which = 0; which < KNOWN_COUNT; which++)
            if (head->fields[i].name.size == known_names[which].size &&
                str_equal_nocase(head->fields[i].name, known_names[which]))
                note_field(&known, which, head->fields[i].value);
    return known;
}

/* ---- rules ---- */

static struct refusal check_host(struct http1_head *head, const struct known_fields *known)
{
    struct str name;
    int port;
    if (known->counts[KNOWN_HOST] > 1)
        return (struct refusal){400, "more than one Host"};
    if (known->counts[KNOWN_HOST] == 0)
        return head->http10 ? (struct refusal){0} : (struct refusal){400, "no Host"};
    head->host = known->values[KNOWN_HOST];
    return url_parse_host(head->host, &name, &port) ? (struct refusal){0} : (struct refusal){400, "bad Host"};
}

/* The authority of an absolute-form target; absent for another form. */
static struct str authority_of(struct str target)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        struct str scheme = schemes[i];
        if (target.size < scheme.size || !str_equal_nocase(str_of(target.at, scheme.size), scheme))
            continue;
        size_t end = scheme.size;
        while (end < target.size && target.at[end] != '/' && target.at[end] != '?')
            end++;
        return str_of(target.at + scheme.size, end - scheme.size);
    }
    return STR_NONE;
}

static struct refusal check_target(struct http1_head *head, const struct known_fields *known)
{
    (void)known;
    struct str target = head->target;
    if (str_equal(head->method, STR("CONNECT")))
        return (struct refusal){405, "CONNECT is not served"};
    if (memchr(target.at, '#',
               target.size)) /* a fragment is the client's own; programs differ on what it belongs to */
        return (struct refusal){400, "bad request target"};
    if (target.at[0] == '/')
        return (struct refusal){0};
    if (str_equal(target, STR("*")) && str_equal(head->method, STR("OPTIONS")))
        return (struct refusal){0};
    struct str authority = authority_of(target);
    if (!authority.at)
        return (struct refusal){400, "bad request target"};
    if (!head->host.at || !str_equal_nocase(authority, head->host))
        return (struct refusal){400, "the target's authority is not the Host"};
    return (struct refusal){0};
}

static struct refusal check_framing(struct http1_head *head, const struct known_fields *known)
{
    size_t encodings = known->counts[KNOWN_ENCODING];
    size_t lengths = known->counts[KNOWN_LENGTH];
    if (encodings && lengths)
        return (struct refusal){400, "Content-Length and Transfer-Encoding"};
    if (lengths > 1)
        return (struct refusal){400, "more than one Content-Length"};
    if (encodings > 1 || (encodings && head->http10))
        return (struct refusal){400, "bad Transfer-Encoding"};
    if (encodings && !str_equal_nocase(known->values[KNOWN_ENCODING], STR("chunked")))
        return (struct refusal){400, "bad Transfer-Encoding"};
    if (lengths && !str_to_u64(known->values[KNOWN_LENGTH], &head->content_length))
        return (struct refusal){400, "bad Content-Length"};
    head->chunked = encodings == 1;
    head->has_body = head->chunked || head->content_length > 0;
    return (struct refusal){0};
}

static struct refusal check_expect(struct http1_head *head, const struct known_fields *known)
{
    if (head->http10) /* RFC 9110 §10.1.1 */
        return (struct refusal){0};
    head->expect_continue = known->expects_continue;
    return known->expects_more ? (struct refusal){417, "Expect is not 100-continue"} : (struct refusal){0};
}

int http1_head_check(struct http1_head *head, const char **reason)
{
    static struct refusal (*const checks[])(struct http1_head *, const struct known_fields *) = {
        check_host, check_target, check_framing, check_expect};
    const struct known_fields known = gather(head);
    for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
        struct refusal refusal = checks[i](head, &known);
        *reason = refusal.reason;
        if (refusal.status)
            return refusal.status;
    }
    head->keep_alive = !known.closes && (known.keeps || !head->http10);
    /* An Upgrade that is empty or comes in several fields is none (RFC 9110 §7.8 lets us ignore it). */
    struct str upgrade = known.values[KNOWN_UPGRADE];
    if (known.upgrades && known.counts[KNOWN_UPGRADE] == 1 && upgrade.size && !head->http10 &&
        !head->has_body)
        head->upgrade = upgrade;
    return 0;
}
