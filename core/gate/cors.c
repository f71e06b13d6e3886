/* Cross-origin requests (the Fetch standard's CORS protocol): CORS_ORIGINS, preflights, no credentials. */
#include "core/gate/gate.h"

#include "core/base/config.h"

#include <errno.h>
#include <stdlib.h>

enum { ORIGINS_MAX = 64 };

static struct str origins[ORIGINS_MAX];
static size_t origin_count;
static bool any_origin;

static bool looks_like_origin(struct str origin)
{
    for (size_t i = 0; i < origin.size; i++)
        if ((unsigned char)origin.at[i] <= ' ' || (unsigned char)origin.at[i] >= 0x7f)
            return false;
    bool scheme = str_starts(origin, STR("http://")) || str_starts(origin, STR("https://"));
    return scheme && origin.at[origin.size - 1] != '/';
}

int gate_cors_init(char *error, size_t error_size)
{
    struct str list = str_from(config->cors_origins);
    struct str piece;
    origin_count = 0;
    any_origin = false;
    while (str_split(&list, ',', &piece)) {
        piece = str_trim(piece);
        if (piece.size == 0)
            continue;
        if (str_equal(piece, STR("*"))) {
            any_origin = true;
            continue;
        }
        if (origin_count == ORIGINS_MAX || !looks_like_origin(piece)) {
            snprintf(error, error_size, "CORS_ORIGINS: \"%.*s\" is no origin like https://app.example.com",
                     STR_ARG(piece));
            return -EINVAL;
        }
        origins[origin_count++] = piece;
    }
    return 0;
}

void gate_cors_clear(void)
{
    origin_count = 0;
    any_origin = false;
}

bool gate_origin_is_listed(struct str origin)
{
    for (size_t i = 0; i < origin_count; i++)
        if (str_equal(origins[i], origin))
            return true;
    return false;
}

/* Without the port that the scheme has anyway, as browsers write it. */
static struct str without_default_port(struct str authority, struct str scheme)
{
    struct str port = str_equal(scheme, STR("https")) ? STR(":443") : STR(":80");
    if (authority.size > port.size &&
        str_equal(str_of(authority.at + authority.size - port.size, port.size), port))
        authority.size -= port.size;
    return authority;
}

bool gate_is_same_origin(struct str origin, struct str scheme, struct str host)
{
    struct str separator = STR("://");
    size_t start = scheme.size + separator.size;
    if (origin.size <= start || !str_equal_nocase(str_of(origin.at, scheme.size), scheme) ||
        !str_equal(str_of(origin.at + scheme.size, separator.size), separator))
        return false;
    struct str authority = str_of(origin.at + start, origin.size - start);
    return str_equal_nocase(without_default_port(authority, scheme), without_default_port(host, scheme));
}

bool gate_origin_is_fine(const struct request *request)
{
    const struct http1_head *head = request->http->head;
    for (size_t i = 0; i < head->count; i++) {
        struct str origin = head->fields[i].value;
        if (str_equal_nocase(head->fields[i].name, STR("origin")) &&
            !gate_is_same_origin(origin, gate_scheme(request), head->host) && !gate_origin_is_listed(origin))
            return false;
    }
    return true;
}

static void answer_preflight(struct request *request, const char *allow)
{
    struct str headers = http1_header(request->http->head, "access-control-request-headers");
    reply_header(request, "Access-Control-Allow-Methods", allow);
    if (headers.at)
        http_add_header(request->http, STR("Access-Control-Allow-Headers"), headers);
    reply_header(request, "Access-Control-Max-Age", "600");
    http_answer(request->http, 204, STR_NONE);
}

bool gate_cors(struct request *request, const char *allow)
{
    if (!any_origin && origin_count == 0)
        return false;
    const struct http1_head *head = request->http->head;
    struct str origin = http1_header(head, "origin");
    if (!any_origin)
        reply_header(request, "Vary", "Origin");
    if (!origin.at || !(any_origin || gate_origin_is_listed(origin)))
        return false;
    http_add_header(request->http, STR("Access-Control-Allow-Origin"), any_origin ? STR("*") : origin);
    bool preflight =
        str_equal(head->method, STR("OPTIONS")) && http1_header(head, "access-control-request-method").at;
    if (preflight && allow) {
        answer_preflight(request, allow);
        return true;
    }
    reply_header(request, "Access-Control-Expose-Headers",
                 "X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, "
                 "Idempotent-Replayed, Location, Preference-Applied, X-Job-Id, X-Cache");
    return false;
}
