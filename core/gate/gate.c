/* The way of a request through the gate, and the compiled route tables: see gate.h. */
#include "core/gate/gate.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/escape.h"
#include "core/base/id.h"
#include "core/base/log.h"
#include "core/base/metrics.h"

#include <errno.h>
#include <stdlib.h>

enum { SEGMENTS_MAX = 8, SURFACES_MAX = 16 };

/* A route's path, cut into segments once. */
struct pattern {
    struct str segments[SEGMENTS_MAX];
    size_t count;
    const struct route *route;
    struct gate_limits limits;
    bool any_path;
};

static struct {
    const struct surface *const *surfaces;
    size_t count;
    struct pattern *patterns[SURFACES_MAX];
} gate;

/* ---- tables ---- */

static bool is_param(struct str segment)
{
    return segment.size >= 2 && segment.at[0] == '{';
}

/* Cuts "/a/b" into "a", "b". False when there are too many. */
static bool cut(struct str path, struct str *segments, size_t *count)
{
    *count = 0;
    struct str rest = path.size ? str_of(path.at + 1, path.size - 1) : STR_NONE;
    struct str piece;
    while (str_split(&rest, '/', &piece)) {
        if (*count == SEGMENTS_MAX)
            return false;
        segments[(*count)++] = piece;
    }
    return true;
}

int gate_init(const struct surface *const *surfaces, size_t count, char *error, size_t error_size)
{
    CHECK(count > 0 && count <= SURFACES_MAX);
    gate.surfaces = surfaces;
    gate.count = count;
    for (size_t i = 0; i < count; i++) {
        const struct surface *surface = surfaces[i];
        gate.patterns[i] = mem_zalloc((surface->route_count + 1) * sizeof *gate.patterns[i]);
        for (size_t r = 0; r < surface->route_count; r++) {
            struct pattern *pattern = &gate.patterns[i][r];
            pattern->route = &surface->routes[r];
            pattern->any_path = strcmp(pattern->route->path, "/*") == 0;
            CHECK(cut(str_from(pattern->route->path), pattern->segments, &pattern->count));
            gate_limits_find(&pattern->limits, surface, pattern->route);
        }
        metric_name_slot(M_REQUEST_SECONDS, (unsigned)i, surface->name);
    }
    static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
    for (unsigned i = 0; i < ARRAY_SIZE(classes); i++)
        metric_name_slot(M_REQUESTS, i, classes[i]);
    int result = gate_client_init(error, error_size);
    return result ? result : gate_cors_init(error, error_size);
}

void gate_clear(void)
{
    for (size_t i = 0; i < gate.count; i++) {
        free(gate.patterns[i]);
        gate.patterns[i] = NULL;
    }
    gate_cors_clear();
    gate.count = 0;
}

static const char *access_text(const struct surface *surface, const struct route *route)
{
    if (route->flags & ROUTE_OPEN)
        return "open";
    if (surface->access)
        return surface->access;
    return surface->authenticator ? surface->authenticator->access : "open";
}

static void print_scopes(FILE *out, scope_set set)
{
    struct buf text = {0};
    scope_print(&text, set);
    if (!set)
        buf_add_char(&text, '-');
    fprintf(out, "%-18.*s ", STR_ARG(buf_str(&text)));
    buf_clear(&text);
}

void gate_print_routes(FILE *out)
{
    for (size_t i = 0; i < gate.count; i++) {
        const struct surface *surface = gate.surfaces[i];
        for (size_t r = 0; r < surface->route_count; r++) {
            const struct route *route = &surface->routes[r];
            char where[128];
            snprintf(where, sizeof where, "%s%s", surface->hosts ? surface->hosts : "", route->path);
            fprintf(out, "%-10s %-7s %-42s %-5s ", surface->name, route->method, where,
                    access_text(surface, route));
            print_scopes(out, route->scope);
            fprintf(out, "%-8s %s\n", gate.patterns[i][r].limits.count ? "limited" : "-", route->help);
        }
    }
}

static bool has_prefix(struct str path, const struct surface *surface)
{
    for (const char *const *prefix = surface->prefixes; prefix && *prefix; prefix++) {
        struct str text = str_from(*prefix);
        if (str_starts(path, text) && (path.size == text.size || path.at[text.size] == '/'))
            return true;
    }
    return false;
}

static size_t find_surface(struct str path)
{
    for (size_t i = 0; i + 1 < gate.count; i++)
        if (has_prefix(path, gate.surfaces[i]))
            return i;
    return gate.count - 1;
}

/* The surface that serves the host of a Host field; false when it is chosen by path. */
static bool find_surface_by_host(struct request *request, struct str host, size_t *surface)
{
    struct str name;
    int port;
    if (!url_parse_host(host, &name, &port))
        return false;
    for (size_t i = 0; i < gate.count; i++)
        if (gate.surfaces[i]->serves_host && gate.surfaces[i]->serves_host(request, name)) {
            *surface = i;
            return true;
        }
    return false;
}

/* `count` is of a path that could be cut; SIZE_MAX otherwise. */
static bool fits(const struct pattern *pattern, const struct str *segments, size_t count)
{
    if (pattern->any_path)
        return true;
    bool has_tail = pattern->route->flags & ROUTE_TAIL;
    if (count == SIZE_MAX || count < pattern->count || (count > pattern->count && !has_tail))
        return false;
    for (size_t i = 0; i < count; i++) {
        bool fine = i >= pattern->count || is_param(pattern->segments[i])
                        ? segments[i].size > 0
                        : str_equal(pattern->segments[i], segments[i]);
        if (!fine)
            return false;
    }
    return true;
}

static bool take_params(struct request *request, const struct pattern *pattern, const struct str *segments)
{
    for (size_t i = 0; !pattern->any_path && i < pattern->count; i++) {
        if (!is_param(pattern->segments[i]))
            continue;
        struct str text = segments[i];
        if (pattern->route->flags & ROUTE_TAIL && i + 1 == pattern->count)
            text.size = (size_t)(request->path.at + request->path.size - text.at);
        if (url_decode_segment(request->arena, text, &request->params[request->param_count]))
            return false;
        request->param_count++;
    }
    return true;
}

/* A HEAD request goes where GET goes; the server drops the body. */
static bool method_fits(const char *method, struct str asked)
{
    return str_equal(asked, str_from(method)) || strcmp(method, "*") == 0 ||
           (str_equal(asked, STR("HEAD")) && strcmp(method, "GET") == 0);
}

/* Finds the route. Where the path is known but not with this method, *allow gets the methods that it has; NULL: it
 * is not known. */
static void find_route(struct request *request, size_t surface, const char **allow)
{
    struct str segments[SEGMENTS_MAX];
    size_t count;
    char *methods = NULL;
    *allow = NULL;
    if (!cut(request->path, segments, &count))
        count = SIZE_MAX;
    for (struct pattern *pattern = gate.patterns[surface]; pattern->route; pattern++) {
        if (!fits(pattern, segments, count))
            continue;
        const char *method = pattern->route->method;
        if (method_fits(method, request->http->head->method)) {
            if (take_params(request, pattern, segments)) {
                request->route = pattern->route;
                request->limits = &pattern->limits;
            }
            return;
        }
        methods = methods ? arena_printf(request->arena, "%s, %s", methods, method)
                          : arena_strdup(request->arena, method);
    }
    *allow = methods;
}

/* ---- a request ---- */

static bool id_is_fine(struct str id)
{
    if (id.size < 1 || id.size > 128)
        return false;
    for (size_t i = 0; i < id.size; i++) {
        char c = id.at[i];
        bool fine = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
                    c == '_' || c == '-';
        if (!fine)
            return false;
    }
    return true;
}

static struct request *request_of(struct http_request *http)
{
    if (http->owner)
        return http->owner;
    struct request *request = arena_zalloc(&http->arena, sizeof *request);
    http->owner = request;
    request->http = http;
    request->arena = &http->arena;
    request->surface = gate.surfaces[gate.count - 1];
    struct str given = http1_header(http->head, "x-request-id");
    if (id_is_fine(given)) {
        request->id = given;
    } else {
        id_request(request->id_text);
        request->id = str_of(request->id_text, ID_REQUEST_SIZE - 1);
    }
    http_add_header(http, STR("X-Request-Id"), request->id);
    return request;
}

/* For a surface that passes requests on: what a request line may hold, and no more is asked. proto/http1.h has seen to
 * the form. */
static bool split_raw(struct str target, struct str *path, struct str *query)
{
    for (size_t i = 0; i < target.size; i++) {
        unsigned char c = (unsigned char)target.at[i];
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return false;
    }
    const char *end = target.at + target.size;
    const char *start = target.at;
    if (*start != '/' && *start != '*') { /* http://authority/path */
        start = (const char *)memchr(start, '/', target.size) + 2;
        while (start < end && *start != '/' && *start != '?')
            start++;
    }
    const char *mark = memchr(start, '?', (size_t)(end - start));
    *query = mark ? str_of(mark + 1, (size_t)(end - mark) - 1) : STR_NONE;
    *path = str_of(start, (size_t)((mark ? mark : end) - start));
    if (path->size == 0)
        *path = STR("/");
    return true;
}

/* Sets surface, path and query. False when it has replied. */
static bool read_target(struct request *request, size_t *surface)
{
    const struct http1_head *head = request->http->head;
    struct url_target target = {.path = STR_NONE};
    bool fine;
    if (find_surface_by_host(request, head->host, surface)) {
        request->surface = gate.surfaces[*surface];
        fine = split_raw(head->target, &target.path, &target.query);
    } else {
        fine = url_parse_target(head->target, &target) == 0;
        *surface = fine ? find_surface(target.path) : gate.count - 1;
        request->surface = gate.surfaces[*surface];
    }
    request->path = target.path;
    request->query = target.query;
    if (!fine)
        reply_error(request, ERROR_BAD_REQUEST, "The request's path can't be read");
    return fine;
}

void gate_handle(struct http_request *http)
{
    struct request *request = request_of(http);
    size_t surface;
    if (!read_target(request, &surface))
        return;
    const char *allow;
    find_route(request, surface, &allow);
    if (!request->surface->serves_host && gate_cors(request, allow))
        return;
    if (!request->route && allow) {
        reply_header(request, "Allow", allow);
        reply_error(request, ERROR_METHOD_NOT_ALLOWED, NULL);
        return;
    }
    if (!request->route) {
        reply_error(request, ERROR_NOT_FOUND, NULL);
        return;
    }
    fiber_set_name(request->route->path);
    if (!gate_admit(request))
        return;
    request->route->handler(request);
    gate_repeat_end(request);
}

void gate_malformed(struct http_request *http, int status, const char *reason)
{
    static const enum api_error by_status[] = {ERROR_REQUEST_TIMEOUT,   ERROR_URI_TOO_LONG,
                                               ERROR_HEADERS_TOO_LARGE, ERROR_METHOD_NOT_ALLOWED,
                                               ERROR_VERSION,           ERROR_EXPECTATION};
    struct request *request = request_of(http);
    struct str rest = http->head->target;
    struct str path;
    size_t surface;
    if (find_surface_by_host(request, http1_header(http->head, "host"), &surface))
        request->surface = gate.surfaces[surface];
    else if (str_split(&rest, '?', &path) && path.size && path.at[0] == '/')
        request->surface = gate.surfaces[find_surface(path)];
    enum api_error error = ERROR_BAD_REQUEST;
    for (size_t i = 0; i < ARRAY_SIZE(by_status); i++)
        if (api_errors[by_status[i]].status == status)
            error = by_status[i];
    reply_error(request, error, error == ERROR_BAD_REQUEST ? reason : NULL);
}

/* ---- the log line ---- */

static unsigned surface_index(const struct surface *surface)
{
    for (unsigned i = 0; i < gate.count; i++)
        if (gate.surfaces[i] == surface)
            return i;
    UNREACHABLE();
}

static void log_request(const struct request *request, uint64_t us)
{
    const struct http_request *http = request->http;
    struct buf *line = log_line_begin(LOG_INFO, "request");
    buf_add_literal(line, ",\"id\":\"");
    buf_add_str(line, request->id); /* checked, or ours: needs no escaping */
    buf_add_literal(line, "\",\"surface\":\"");
    buf_add_text(line, request->surface->name);
    buf_add_literal(line, "\",\"route\":\"");
    if (request->route) {
        buf_add_text(line, request->route->method);
        buf_add_char(line, ' ');
        buf_add_text(line, request->route->path);
    }
    buf_add_literal(line, "\",\"status\":");
    buf_add_u64(line, (uint64_t)http->status);
    buf_add_literal(line, ",\"us\":");
    buf_add_u64(line, us);
    buf_add_literal(line, ",\"bytes\":");
    buf_add_u64(line, http->bytes);
    buf_add_literal(line, ",\"peer\":\"");
    buf_add_str(line, http_peer_text(http));
    buf_add_char(line, '"');
    if (request->principal.account_id) {
        buf_add_literal(line, ",\"account\":");
        buf_add_i64(line, request->principal.account_id);
    }
    if (request->principal.key_id) {
        buf_add_literal(line, ",\"key\":");
        buf_add_i64(line, request->principal.key_id);
    }
    if (request->principal.login_id) {
        buf_add_literal(line, ",\"login\":");
        buf_add_i64(line, request->principal.login_id);
    }
    if (request->principal.client_id[0]) {
        buf_add_literal(line, ",\"client\":\"");
        buf_add_text(line, request->principal.client_id); /* ours: needs no escaping */
        buf_add_char(line, '"');
    }
    if (request->instance.at) {
        buf_add_literal(line, ",\"instance\":");
        escape_json(line, request->instance);
    }
    if (!request->route && request->path.at) {
        buf_add_literal(line, ",\"path\":");
        escape_json(line, str_of(request->path.at, request->path.size < 256 ? request->path.size : 256));
    }
    if (request->why) {
        buf_add_literal(line, ",\"why\":\"");
        buf_add_text(line, request->why);
        buf_add_char(line, '"');
    }
    log_line_end();
}

void gate_ended(struct http_request *http)
{
    struct request *request = request_of(http);
    uint64_t us = (clock_now_ns() - http->start_ns) / 1000;
    metric_add_slot(M_REQUESTS, (unsigned)(http->status / 100 - 1) % 5, 1);
    metric_observe_us(M_REQUEST_SECONDS, surface_index(request->surface), us);
    if (config->log_requests && log_enabled(LOG_INFO))
        log_request(request, us);
}
