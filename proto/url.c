/* Request targets, query parameters and authorities: see url.h. */
#include "proto/url.h"

#include "core/base/escape.h"

#include <arpa/inet.h>
#include <errno.h>

enum { NAME_MAX_BYTES = 255, PORT_DIGITS_MAX = 5 };

static struct str str_from_index(struct str text, size_t index)
{
    return str_of(text.at + index, text.size - index);
}

/* ---- targets ---- */

static bool bytes_are_fit(struct str target)
{
    for (size_t i = 0; i < target.size; i++) {
        unsigned char c = (unsigned char)target.at[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return false;
    }
    return true;
}

/* The next byte of the text, decoded, taken off its front; 0 for a bad escape and for %00. */
static char take_byte(struct str *text)
{
    char c = text->at[0];
    size_t size = 1;
    if (c == '%') {
        size = text->size < 3 ? text->size : 3;
        if (escape_percent_decode(&c, str_of(text->at, size), false) != 1)
            return 0;
    }
    *text = str_from_index(*text, size);
    return c;
}

static bool only_dots(size_t dots, size_t count)
{
    return dots == count && (count == 1 || count == 2);
}

/* An encoded slash separates here as well: whoever gets the path from us may decode it before he splits it. */
static bool segment_is_fit(struct str segment)
{
    size_t dots = 0;
    size_t count = 0;
    while (segment.size) {
        char c = take_byte(&segment);
        if (c == 0 || c == '\\' || (c == '/' && only_dots(dots, count)))
            return false;
        dots = c == '/' ? 0 : dots + (c == '.');
        count = c == '/' ? 0 : count + 1;
    }
    return !only_dots(dots, count);
}

bool url_next_segment(struct str *path, struct str *segment)
{
    if (path->size == 0 || path->at[0] != '/')
        return false;
    const char *slash = memchr(path->at + 1, '/', path->size - 1);
    size_t end = slash ? (size_t)(slash - path->at) : path->size;
    *segment = str_of(path->at + 1, end - 1);
    *path = str_from_index(*path, end);
    return true;
}

/* Most paths: nothing in them that has to be decoded or looked at twice. */
static bool is_plain(struct str path)
{
    for (size_t i = 0; i < path.size; i++) {
        char c = path.at[i];
        if (c == '%' || c == '.' || c == '\\')
            return false;
    }
    return true;
}

static bool path_is_fit(struct str path)
{
    struct str segment;
    if (is_plain(path))
        return true;
    while (url_next_segment(&path, &segment))
        if (!segment_is_fit(segment))
            return false;
    return true;
}

/* Takes "http://authority" off the front. */
static bool take_authority(struct str *target, struct str *authority)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        struct str scheme = schemes[i];
        if (target->size < scheme.size || !str_equal_nocase(str_of(target->at, scheme.size), scheme))
            continue;
        struct str rest = str_from_index(*target, scheme.size);
        size_t end = 0;
        while (end < rest.size && rest.at[end] != '/' && rest.at[end] != '?')
            end++;
        *authority = str_of(rest.at, end);
        *target = str_from_index(rest, end);
        struct str name;
        int port;
        return url_parse_host(*authority, &name, &port);
    }
    return false;
}

int url_parse_target(struct str target, struct url_target *out)
{
    *out = (struct url_target){.path = STR_NONE};
    if (target.size == 0 || !bytes_are_fit(target))
        return -EINVAL;
    if (target.at[0] != '/' && !take_authority(&target, &out->authority))
        return -EINVAL;
    out->path = target;
    const char *mark = target.size ? memchr(target.at, '?', target.size) : NULL;
    if (mark) {
        out->path.size = (size_t)(mark - target.at);
        out->query = str_from_index(target, out->path.size + 1);
    }
    if (out->path.size == 0)
        out->path = STR("/");
    return path_is_fit(out->path) ? 0 : -EINVAL;
}

/* ---- decoding ---- */

static int decode(struct arena *arena, struct str text, bool plus_is_space, struct str *out)
{
    char *decoded = arena_alloc(arena, text.size + 1);
    int size = escape_percent_decode(decoded, text, plus_is_space);
    if (size < 0)
        return size;
    decoded[size] = '\0';
    *out = str_of(decoded, (size_t)size);
    bool nul = memchr(decoded, '\0', out->size) != NULL;
    return nul || !str_is_utf8(*out) ? -EINVAL : 0;
}

int url_decode_segment(struct arena *arena, struct str segment, struct str *out)
{
    return decode(arena, segment, false, out);
}

/* Whether the name, as it is spelled in a query, stands for `wanted`; costs no memory. */
static bool name_is(struct str spelled, struct str wanted)
{
    while (spelled.size && wanted.size) {
        char c = spelled.at[0] == '+' ? ' ' : spelled.at[0];
        if (c == '%')
            c = take_byte(&spelled);
        else
            spelled = str_from_index(spelled, 1);
        if (c == 0 || c != wanted.at[0])
            return false;
        wanted = str_from_index(wanted, 1);
    }
    return spelled.size == 0 && wanted.size == 0;
}

/* Takes parameters off the front of *query up to the next of this name; `value` is as it is spelled. */
static bool next_parameter(struct str *query, struct str name, struct str *value)
{
    struct str pair;
    while (str_split(query, '&', &pair)) {
        const char *equals = pair.size ? memchr(pair.at, '=', pair.size) : NULL;
        size_t end = equals ? (size_t)(equals - pair.at) : pair.size;
        *value = str_from_index(pair, equals ? end + 1 : end);
        if (name_is(str_of(pair.at, end), name))
            return true;
    }
    return false;
}

bool url_query(struct arena *arena, struct str query, const char *name, struct str *value)
{
    struct str spelled;
    return next_parameter(&query, str_from(name), &spelled) && decode(arena, spelled, true, value) == 0;
}

size_t url_query_count(struct str query, const char *name)
{
    struct str spelled;
    size_t count = 0;
    while (next_parameter(&query, str_from(name), &spelled))
        count++;
    return count;
}

/* ---- authorities ---- */

static bool is_ipv6(struct str text)
{
    char address[INET6_ADDRSTRLEN];
    unsigned char bytes[sizeof(struct in6_addr)];
    if (text.size >= sizeof address || memchr(text.at, '\0', text.size))
        return false;
    memcpy(address, text.at, text.size);
    address[text.size] = '\0';
    return inet_pton(AF_INET6, address, bytes) == 1;
}

static bool is_name(struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        char letter = (char)(c | 0x20);
        bool fit = (letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                   c == '_' || c == '~';
        if (!fit)
            return false;
    }
    return text.size > 0 && text.size <= NAME_MAX_BYTES;
}

/* `text` is what stands behind the name: nothing, or a colon and perhaps digits (RFC 3986 §3.2.3 lets them be
 * missing). */
static bool parse_port(struct str text, int *port)
{
    *port = -1;
    if (text.size == 0)
        return true;
    if (text.at[0] != ':' || text.size > 1 + PORT_DIGITS_MAX)
        return false;
    if (text.size == 1)
        return true;
    uint64_t number;
    if (!str_to_u64(str_from_index(text, 1), &number) || number == 0 || number > UINT16_MAX)
        return false;
    *port = (int)number;
    return true;
}

bool url_parse_host(struct str host, struct str *name, int *port)
{
    if (host.size == 0)
        return false;
    bool brackets = host.at[0] == '[';
    const char *end = memchr(host.at, brackets ? ']' : ':', host.size);
    if (!end && brackets)
        return false;
    size_t size = end ? (size_t)(end - host.at) : host.size;
    *name = brackets ? str_of(host.at + 1, size - 1) : str_of(host.at, size);
    if (!(brackets ? is_ipv6(*name) : is_name(*name)))
        return false;
    return parse_port(str_from_index(host, brackets ? size + 1 : size), port);
}
