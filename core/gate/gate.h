#ifndef CORE_GATE_GATE_H
#define CORE_GATE_GATE_H

#include "core/domain/audit.h"
#include "core/domain/identity/principal.h"
#include "core/net/http.h"
#include "core/store/limit.h"
#include "proto/json.h"
#include "proto/url.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * The gate: what every request goes through, in this order: request id, surface by host or path, CORS, route (404, 405),
 * authentication (401), ban and address (403), rate limits (429), scope (403), signature (401), idempotency (409, 422, or the
 * first answer again), handler, log line. A surface is a row of data, and so is a route.
 *
 * Rate limits come behind authentication because most are the account's, and all are taken in one step. So that keys can't
 * be guessed at any speed, a request without a good one is charged to its address, and an address that is known to have
 * nothing left is refused before its key is looked up.
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
    X(BAD_IDEMPOTENCY,     400, "invalid_idempotency_key", "Idempotency-Key must have 1 to 255 printable characters") \
    X(UNAUTHORIZED,        401, "unauthorized",        "API key required") \
    X(INVALID_KEY,         401, "invalid_api_key",     "Invalid API key") \
    X(INVALID_TOKEN,       401, "invalid_token",       "The access token is invalid or has expired") \
    X(INVALID_LOGIN,       401, "invalid_credentials", "E-mail address or password is wrong") \
    X(SIGNATURE_REQUIRED,  401, "signature_required",  "This key's requests must be signed") \
    X(INVALID_SIGNATURE,   401, "invalid_signature",   "The request's signature does not fit") \
    X(PAYMENT_REFUSED,     402, "payment_refused",     "The payment was refused") \
    X(INSUFFICIENT_BALANCE, 402, "insufficient_balance", "Insufficient balance") \
    X(SPENDING_LIMIT,      402, "spending_limit_reached", "The daily spending limit is reached") \
    X(FORBIDDEN,           403, "forbidden",           "Not allowed") \
    X(BANNED,              403, "account_banned",      "This account is banned") \
    X(ADDRESS,             403, "address_not_allowed", "This key can't be used from your address") \
    X(SCOPE,               403, "insufficient_scope",  "The key or token lacks the scope for this") \
    X(NOT_FOUND,           404, "not_found",           "Not found") \
    X(MODEL_NOT_AVAILABLE, 404, "model_not_available", "Model not available") \
    X(METHOD_NOT_ALLOWED,  405, "method_not_allowed",  "Method not allowed") \
    X(REQUEST_TIMEOUT,     408, "request_timeout",     "The request took too long to arrive") \
    X(WEBHOOK_LIMIT,       403, "webhook_limit_reached", "This account can't have more webhook endpoints") \
    X(CONFLICT,            409, "already_exists",      "There is one already") \
    X(JOB_ENDED,           409, "job_ended",           "The job has ended already") \
    X(WEBHOOK_DISABLED,    409, "webhook_disabled",    "This webhook endpoint is disabled") \
    X(STILL_RUNNING,       409, "idempotency_in_progress", "A request with this Idempotency-Key is being worked on") \
    X(CALL_CANCELLED,      410, "cancelled",           "The call was cancelled") \
    X(BODY_TOO_LARGE,      413, "body_too_large",      "The body is too large") \
    X(URI_TOO_LONG,        414, "uri_too_long",        "The request line is too long") \
    X(UNSUPPORTED_TYPE,    415, "unsupported_media_type", "Content-Type must be application/json") \
    X(EXPECTATION,         417, "expectation_failed",  "Expect must be 100-continue") \
    X(OTHER_REQUEST,       422, "idempotency_key_reused", "This Idempotency-Key came with another request before") \
    X(UPGRADE_REQUIRED,    426, "upgrade_required",    "This is a WebSocket") \
    X(RATE_LIMITED,        429, "rate_limit_exceeded", "Too many requests") \
    X(HEADERS_TOO_LARGE,   431, "headers_too_large",   "The request's header is too large") \
    X(INTERNAL,            500, "internal_error",      "Internal error") \
    X(BAD_GATEWAY,         502, "bad_gateway",         "The pod's answer could not be used") \
    X(CALL_LOST,           502, "call_lost",           "The call could not be brought to its end") \
    X(UNAVAILABLE,         503, "service_unavailable", "Temporarily unavailable, please try again") \
    X(TIMED_OUT,           503, "timed_out",           "This took too long, please try again") \
    X(SERVER_ENDS,         503, "server_restarting",   "The server restarts, please try again") \
    X(OVERLOADED,          503, "overloaded",          "Too many calls wait for this model, please try again") \
    X(QUEUE_TIMEOUT,       503, "queue_timeout",       "The call waited for too long for a free place, please try again") \
    X(PROVIDER_OUT,        503, "provider_unavailable", "The model's providers are out of order, please try again") \
    X(GATEWAY_TIMEOUT,     504, "gateway_timeout",     "The pod did not answer in time") \
    X(CALL_TIMEOUT,        504, "call_timeout",        "The call took longer than calls may take") \
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
    ROUTE_UNREPEATED =
        4, /* a POST or DELETE without an effect, or that passes its body on: no Idempotency-Key */
    ROUTE_ASKS_ITSELF =
        16, /* credentials may come later: who brings none is let in as nobody, and the handler asks */
    ROUTE_TAIL = 32, /* the path's last parameter is all that is left of it, slashes included */
    ROUTE_SLOW_START =
        8, /* the handler calls gate_repeat itself, once it has done what takes long and has no effect: the transaction that
            * comes with an Idempotency-Key has one of few connections */
};

/* A row of a surface's table. `path` has segments in braces for parameters: "/session/{uuid}/chat". The method "*" is
 * any method, and the path of a slash and a "*" is any path. */
struct route {
    const char *method;
    const char *path;
    void (*handler)(struct request *request);
    const char *help;
    unsigned flags;
    scope_set scope; /* what the key or token must have, all of it; 0: nothing */
    const char *
        limit; /* the class in the table of plans (core/domain/identity/plan.h) that its limits have; NULL: those for all routes */
};

/* How a surface knows its clients. 0: request->principal is set. -ENOKEY: the request brings no credentials; -EACCES: they
 * are wrong; other errors of a store. May wait. `is_known` (may be NULL) tells without waiting whether it would have to ask. */
struct authenticator {
    const char *access; /* for the printed table: "key" */
    int (*verify)(struct request *request);
    bool (*is_known)(struct request *request);
    enum api_error missing; /* the answer to -ENOKEY, and to -EACCES */
    enum api_error wrong;
    const char *challenge; /* WWW-Authenticate (RFC 9110 §11.6.1), or NULL */
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
    const struct authenticator *authenticator; /* NULL: every route is open */
    /* JSON is taken as such under application/x-www-form-urlencoded too: it is what `curl -d` says of everything, and the
     * surface's own examples are such lines. */
    bool takes_curl_json;
};

struct idempotency;

/* The rows of the table of plans that count for a route, whoever asks. */
struct gate_limits {
    unsigned char ids[PLAN_LIMIT_COUNT];
    unsigned char count;
};

struct request {
    struct http_request *http;
    struct arena *arena; /* the request's */
    const struct surface *surface;
    const struct route *route;        /* NULL when none fits */
    const struct gate_limits *limits; /* the route's */
    struct str id;                    /* X-Request-Id */
    struct str path;
    struct str query;
    struct str instance;                 /* the host's, of requests that are passed on to its pod */
    struct str params[ROUTE_PARAMS_MAX]; /* decoded, in the order of the path */
    size_t param_count;
    struct principal principal;
    struct audit_who who;            /* the same for the audit record */
    struct idempotency *idempotency; /* of a request with an Idempotency-Key, until its answer is kept */
    struct str body;                 /* once it was read as a whole */
    bool body_read;
    bool committed_early;
    int (*end_with)(void *arg); /* request_end_with */
    void *end_arg;
    bool (*again)(void *arg, int status, struct str body); /* request_again */
    void *again_arg;
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

/* The shapes of error bodies that surfaces share, for surface.render_error: {"error":"text"}, {"error":{"code","message"}}, and the
 * same with "details":{}. */
void render_error_text(struct buf *out, int status, const char *code, const char *message);
void render_error_object(struct buf *out, int status, const char *code, const char *message);
void render_error_details(struct buf *out, int status, const char *code, const char *message);

/* Replies with the error of the table; `message` NULL: the table's text. */
void reply_error(struct request *request, enum api_error error, const char *message);
/* 400 with a message that names the parameter. */
void reply_invalid(struct request *request, const char *message);
/* What a DELETE answers: 200 with {"id","object","deleted":true}. */
void reply_deleted(struct request *request, struct str id, const char *object);
/* The same as reply_error for a negative errno value of a store: -ENOTCONN and its like become 503 with Retry-After, -ECANCELED
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
/* Any other body, with its Content-Type; for a status without a body `type` NULL. All answers of handlers that are not
 * streamed go this way: it keeps the answer to a request with an Idempotency-Key first, and may wait then. */
void reply_body(struct request *request, int status, const char *type, struct str body);
/* An error in a body of the handler's own making, with its word for the log. */
void reply_error_body(struct request *request, int status, const char *code, const char *type,
                      struct str body);

/*
 * For a handler that waits for others after its effect (a worker sees only what is committed): commits the effect of a
 * request with an Idempotency-Key now, with this answer as the one to give again unless the handler's final reply gets
 * kept. Does nothing for other requests. False when it could not, and has replied. Waits.
 */
bool request_commit(struct request *request, int status, struct str body);
/* The same with an answer that was built, in place of reply_end. */
bool reply_commit(struct reply *reply, int status);
/* As request_commit, for a final reply that may take up to `running_s` to come, where the others allow REQUEST_TIMEOUT_SECONDS. */
bool request_commit_for(struct request *request, int status, struct str body, int64_t running_s);
/* What else is done in the transaction in which the final answer to a request that was committed early is kept or forgotten:
 * by the next reply, or by request_undo. `work` may wait. */
void request_end_with(struct request *request, int (*work)(void *arg), void *arg);
/* Before gate_repeat: who may know better than the early answer by now, which a repetition would get, or 409 while it may get better.
 * `again` replies, or returns false. May wait. */
void request_again(struct request *request, bool (*again)(void *arg, int status, struct str body), void *arg);
/* What was committed early has been taken back: a repetition begins anew, and the reply that follows is not kept. Waits. */
void request_undo(struct request *request);

/* Words separated by spaces, as an array. */
void json_put_words(struct json_out *out, const char *name, struct str words);
/* Time as the API writes it: "2025-11-10T12:00:00Z"; 0 gives null. */
void json_put_time(struct json_out *out, const char *name, int64_t unix_ms);

/* The whole body, at most MAX_BODY_BYTES. False when it has replied itself. Waits. */
bool request_body(struct request *request, struct str *body);
/* The body as a JSON object. NULL when it has replied itself. Waits. */
const struct json *request_json(struct request *request);
/* The same where it may be left out: *body NULL for an empty one. False when it has replied itself. Waits. */
bool request_json_or_none(struct request *request, const struct json **body);
/* Whether the body (NULL: none) has the member; null is as good as absent. */
bool request_has(const struct json *body, const char *name);
/* A member that may be left out; both reply and return false when it is not as it should be. A bool, false when it is absent; */
bool request_flag(struct request *request, const struct json *body, const char *name, bool *flag);
/* "overlap_seconds", for which what a rotation replaces holds on: a week at most, 0 when it is absent. */
bool request_overlap(struct request *request, const struct json *body, int64_t *overlap_s);
/* A member that must be a string of `least` to `most` characters (code points), valid UTF-8 and without NUL. Replies
 * and returns false when it is not. */
bool request_string(struct request *request, const struct json *body, const char *name, size_t least,
                    size_t most, struct str *value);
/* Query parameters `limit` (1 to most) and `cursor` (opaque to clients: a number of ours). Replies and returns false
 * when they can't be read. */
bool request_page(struct request *request, int64_t most, int64_t first, int64_t *limit, int64_t *cursor);
/* Of a list that was read with one row more than `limit`: whether there is a page behind this one. *count becomes this one's. */
bool page_has_next(int64_t limit, size_t *count);
/* The list itself: {"object","…":[ and ],"next_cursor"}. `object` may be NULL; `next` is where the next page begins, 0 where there is
 * none. Between the two come the rows. */
void reply_list_begin(struct reply *reply, struct request *request, const char *object, const char *rows);
void reply_list_end(struct reply *reply, int64_t next);
/* "wait=N" of the Prefer field (RFC 7240), at most `most`; 0 when absent. */
int64_t request_prefer_wait(struct request *request, int64_t most);
/* Whether the Prefer field has a preference of that name: "respond-async". */
bool request_prefers(const struct request *request, const char *name);

/* ---- parts of the gate, in files of their own ---- */

/* Who the client is: the peer, or what a trusted proxy says. False: it has no IP address. */
bool gate_client_address(const struct request *request, struct address *address);
/* The same as a word for limits: IPv6 as its /64. Into request->client_text. */
struct str gate_client(struct request *request);
int gate_client_init(char *error, size_t error_size) MUST_USE;
/* Whether the peer is one of TRUSTED_PROXIES, so that what it says of the client counts. */
bool gate_peer_is_trusted(const struct request *request);
/* "https" or "http", as the client has it: by the connection, or by what a trusted proxy says (X-Forwarded-Proto). */
struct str gate_scheme(const struct request *request);

/* For credentials that came otherwise than in the request's head: whether who request->principal is by now may have what the route
 * is for. Replies nothing: false, and *error says why not. Waits. */
bool gate_welcomes(struct request *request, enum api_error *error);
/* Authentication to idempotency (admit.c): true when the handler is to run. Waits. */
bool gate_admit(struct request *request);

/* Limits (limits.c). Finds those that count for a route. */
void gate_limits_find(struct gate_limits *limits, const struct surface *surface, const struct route *route);
/* All that the request must be charged with are taken in one step; false when it has replied 429. */
bool gate_limit(struct request *request);
/* For a request without good credentials: its address alone is charged. False when it has replied 429. */
bool gate_limit_address(struct request *request);
/* Charges all limits of who it turned out to be, whose address was charged before. Replies nothing. Waits. */
bool gate_limit_late(struct request *request);
/* Whether the address is known to have nothing left; it has replied 429 then. Does not wait. */
bool gate_address_is_spent(struct request *request);
/* For handlers: charges one limit of the table to `who` (bytes of our own making: a digest, an id). False when it has replied. */
bool gate_charge(struct request *request, enum plan_limit_id limit, struct str who, uint64_t cost);
void gate_give_back(struct request *request, enum plan_limit_id limit, struct str who, uint64_t cost);
/* Whether the password is that of the account with this e-mail address, throttled (password.c): 0, *account_id and its *hash
 * then; -EACCES: it is not; -EALREADY: it has replied 429; -EBUSY: too many are being checked; errors of stores. Waits. */
int gate_password(struct request *request, struct str email, struct str password, int64_t *account_id,
                  struct str *hash) MUST_USE;
/* What the principal has left, for the account's answer: the rows of its surface and plan. Waits. */
int gate_look_at_limits(struct request *request, struct limit_verdict verdicts[LIMITS_AT_ONCE], size_t *count)
    MUST_USE;

/* Authenticators (auth.c): X-API-Key for keys of the surface's name; Authorization: Bearer for its keys or a log-in's JWT; the
 * same for OAuth access tokens; ADMIN_TOKEN. */
extern const struct authenticator auth_api_key, auth_bearer, auth_oauth, auth_operator;
/* Whose token is it (a key or a log-in's JWT), however it came? As authenticator.verify. Waits. */
int gate_verify_token(struct request *request, struct str token) MUST_USE;
/* The credentials behind "Bearer " (RFC 6750 §2.1); absent when there are none. */
struct str gate_bearer(const struct request *request);
/* Signed requests (signature.c; README, "signed requests"). False when it has replied. Waits. */
bool gate_signature(struct request *request);
/* Idempotency-Key (repeat.c): true when the handler is to run, or to go on. Waits. */
bool gate_repeat(struct request *request);
/* What a repetition gets, before anything is opened for it: for handlers whose slow start (ROUTE_SLOW_START) would not succeed twice.
 * False when it has replied; true promises nothing. Waits. */
bool gate_repeat_look(struct request *request);
/* Its form alone: false when it has replied 400. */
bool gate_repeat_key(struct request *request);
/* The answer is about to be sent, and its fields are added: keeps it and commits. False: it could not, and another is to be
 * sent. Waits. */
bool gate_repeat_keep(struct request *request, int status, struct str body);
/* After the handler: what it has left open (it replied nothing, or streamed) is taken back. Waits. */
void gate_repeat_end(struct request *request);
/* scheme://host[:port] as the client has it, or PUBLIC_URL; in the request's arena. */
struct str gate_origin_of(struct request *request);

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
