#ifndef CORE_GATE_GATE_H
#define CORE_GATE_GATE_H

#include "core/domain/key.h"
#include "core/net/http.h"
#include "core/store/limit.h"
#include "proto/json.h"
#include "proto/url.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * The gate: what every request goes through, in this order: request id, surface by host or path, CORS, route (404, 405),
 * rate limit, authentication, handler, log line. A surface is a row of data, and so is a route.
 *
 * A surface that is chosen by host passes requests on: what it gets of a request is left as it came (its path may hold
 * what other surfaces refuse), and CORS is not ours to answer there.
 */

struct request;

/* Every error that the gate and the handlers give: one table. */
/* clang-format off */
#define API_ERRORS(X) \
    X(BAD_REQUEST,         400, "bad_request",         "Bad request") \
    X(INVALID_JSON,        400, "invalid_json",        "The body is not valid JSON") \
    X(INVALID_PARAMETER,   400, "invalid_parameter",   "A parameter is missing or invalid") \
    X(UNAUTHORIZED,        401, "unauthorized",        "API key required") \
    X(INVALID_KEY,         401, "invalid_api_key",     "Invalid API key") \
    X(FORBIDDEN,           403, "forbidden",           "Not allowed") \
    X(NOT_FOUND,           404, "not_found",           "Not found") \
    X(METHOD_NOT_ALLOWED,  405, "method_not_allowed",  "Method not allowed") \
    X(REQUEST_TIMEOUT,     408, "request_timeout",     "The request took too long to arrive") \
    X(BODY_TOO_LARGE,      413, "body_too_large",      "The body is too large") \
    X(URI_TOO_LONG,        414, "uri_too_long",        "The request line is too long") \
    X(UNSUPPORTED_TYPE,    415, "unsupported_media_type", "Content-Type must be application/json") \
    X(EXPECTATION,         417, "expectation_failed",  "Expect must be 100-continue") \
    X(UPGRADE_REQUIRED,    426, "upgrade_required",    "This is a WebSocket") \
    X(RATE_LIMITED,        429, "rate_limit_exceeded", "Too many requests") \
    X(HEADERS_TOO_LARGE,   431, "headers_too_large",   "The request's header is too large") \
    X(INTERNAL,            500, "internal_error",      "Internal error") \
    X(BAD_GATEWAY,         502, "bad_gateway",         "The pod's answer could not be used") \
    X(UNAVAILABLE,         503, "service_unavailable", "Temporarily unavailable, please try again") \
    X(TIMED_OUT,           503, "timed_out",           "This took too long, please try again") \
    X(GATEWAY_TIMEOUT,     504, "gateway_timeout",     "The pod did not answer in time") \
    X(VERSION,             505, "http_version",        "HTTP version not supported") \
    X(STORAGE_FULL,        507, "storage_full",        "There is no room left")
/* clang-format on */

enum api_error {
#define API_ERROR_ID(id, status, code, message) ERROR_##id,
    API_ERRORS(API_ERROR_ID)
#undef API_ERROR_ID
        API_ERROR_COUNT
};

struct api_error_row {
    int status;
    const char *code;
    const char *message;
};
extern const struct api_error_row api_errors[API_ERROR_COUNT];

enum { ROUTE_PARAMS_MAX = 4 };

enum route_flags {
    ROUTE_OPEN = 1,      /* no authentication */
    ROUTE_UNLIMITED = 2, /* no rate limit */
};

/* A row of a surface's table. `path` has segments in braces for parameters: "/session/{uuid}/chat". The method "*" is
 * any method, and the path of a slash and a "*" is any path. */
struct route {
    const char *method;
    const char *path;
    void (*handler)(struct request *request);
    const char *help;
    unsigned flags;
};

struct surface {
    const char *name;
    const char *const *prefixes; /* path prefixes, each a first segment like "/session"; NULL-terminated */
    /* Whether a request to this host (a Host field's name, without its port) is the surface's, whatever its path: asked
     * before any path is looked at. May set request->instance. NULL: chosen by path. */
    bool (*serves_host)(struct request *request, struct str host);
    /* For the printed table: those hosts, and what a request must bring (NULL: a key where there is `authenticate`). */
    const char *hosts;
    const char *access;
    const struct route *routes;
    size_t route_count;
    /* Puts the surface's error body into `out`. `message` is for people. */
    void (*render_error)(struct buf *out, int status, const char *code, const char *message);
    /* Sets request->principal. False when it has replied itself. May wait. NULL: every route is open. */
    bool (*authenticate)(struct request *request);
    /* The policy for each client address, or NULL. Called at each request, so that it may follow a setting. */
    const struct limit_policy *(*limit)(void);
};

struct request {
    struct http_request *http;
    struct arena *arena; /* the request's */
    const struct surface *surface;
    const struct route *route; /* NULL when none fits */
    struct str id;             /* X-Request-Id */
    struct str path;
    struct str query;
    struct str instance;                 /* the host's, of requests that are passed on to its pod */
    struct str params[ROUTE_PARAMS_MAX]; /* decoded, in the order of the path */
    size_t param_count;
    struct principal principal;
    const char *why; /* the error's code, for the log; NULL when all went well */
    char id_text[24];
    char client_text[64];
};

/* ---- set up, once ---- */

/* Checks and compiles the surfaces' tables; they must outlive the program's servers. `error` gets one line. The
 * last surface answers for every path that no other has. */
int gate_init(const struct surface *const *surfaces, size_t count, char *error, size_t error_size) MUST_USE;
/* Frees what gate_init made. */
void gate_clear(void);
/* Every route, one a line. */
void gate_print_routes(FILE *out);

/* ---- for http_server_options ---- */

void gate_handle(struct http_request *http);
void gate_ended(struct http_request *http);
void gate_malformed(struct http_request *http, int status, const char *reason);
/* Whether the peer is one of TRUSTED_PROXIES. */
bool gate_trusts(const struct sockaddr *peer);

/* ---- for handlers ---- */

/* The shapes of error bodies that surfaces share, for surface.render_error: {"error":"text"} and
 * {"error":{"code","message"}}. */
void render_error_text(struct buf *out, int status, const char *code, const char *message);
void render_error_object(struct buf *out, int status, const char *code, const char *message);

/* Replies with the error of the table; `message` NULL: the table's text. */
void reply_error(struct request *request, enum api_error error, const char *message);
/* The same for a negative errno value of a store: -ENOTCONN and its like become 503 with Retry-After, -ECANCELED
 * (the client left, or the deadline) 503, anything else 500. */
void reply_failure(struct request *request, int result);

/* An answer is built in a buffer of the loop's and sent by reply_end, which gives the buffer back:
 *     struct reply reply = reply_begin(request);
 *     json_put_str(&reply.json, "uuid", id);
 *     reply_end(&reply, 200);
 */
struct reply {
    struct request *request;
    struct buf body;
    struct json_out json; /* inside an object already */
};
void reply_begin(struct reply *reply, struct request *request);
void reply_end(struct reply *reply, int status);

void reply_header(struct request *request, const char *name, const char *value);

/* Time as the API writes it: "2025-11-10T12:00:00Z"; 0 gives null. */
void json_put_time(struct json_out *out, const char *name, int64_t unix_ms);

/* The body as a JSON object. NULL when it has replied itself. Waits. */
const struct json *request_json(struct request *request);
/* A member that must be a string of `least` to `most` characters (code points), valid UTF-8 and without NUL. Replies
 * and returns false when it is not. */
bool request_string(struct request *request, const struct json *body, const char *name, size_t least,
                    size_t most, struct str *value);
/* Query parameters `limit` (1 to most) and `cursor` (opaque to clients: a number of ours). Replies and returns false
 * when they can't be read. */
bool request_page(struct request *request, int64_t most, int64_t first, int64_t *limit, int64_t *cursor);
/* "wait=N" of the Prefer field (RFC 7240), at most `most`; 0 when absent. */
int64_t request_prefer_wait(struct request *request, int64_t most);

/* ---- parts of the gate, in files of their own ---- */

/* Who the client is: the peer, or what a trusted proxy says. IPv6 as its /64. Into request->client_text. */
struct str gate_client(struct request *request);
int gate_client_init(char *error, size_t error_size) MUST_USE;
/* Whether the peer is one of TRUSTED_PROXIES, so that what it says of the client counts. */
bool gate_peer_is_trusted(const struct request *request);
/* "https" or "http", as the client has it: by the connection, or by what a trusted proxy says (X-Forwarded-Proto). */
struct str gate_scheme(const struct request *request);

/* Adds the CORS fields; true when it has replied (a preflight). `allow` lists the path's methods. */
bool gate_cors(struct request *request, const char *allow);
/* Whether CORS_ORIGINS names this origin; "*" names none. */
bool gate_origin_is_listed(struct str origin);
/* Whether an Origin is that of a scheme ("https") and a Host field: by name and port, as a browser writes them. */
bool gate_is_same_origin(struct str origin, struct str scheme, struct str host);
/* Whether every Origin of the request is its own host, with the scheme that the client sees, or one of CORS_ORIGINS; so it
 * is when there is none. For what a foreign page must not do with a user's cookies. */
bool gate_origin_is_fine(const struct request *request);
int gate_cors_init(char *error, size_t error_size) MUST_USE;
void gate_cors_clear(void);

#endif
