#ifndef PROTO_AI_FAILURE_H
#define PROTO_AI_FAILURE_H

#include "core/base/arena.h"
#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/* What goes wrong with a call of a provider, what that means for us, and what the client is told of it. */

/*
 * fault, status for the client, type and code of the error object, may another provider be tried, does it speak of the
 * provider's health (cap, breaker), message for the client (NULL: the provider's own, sanitised)
 */
#define AI_FAULTS(X)                                                                                         \
    X(AI_FAULT_CLIENT, 400, "invalid_request_error", "invalid_request", false, false, NULL)                  \
    X(AI_FAULT_CONTEXT, 400, "invalid_request_error", "context_length_exceeded", false, false, NULL)         \
    X(AI_FAULT_FILTER, 400, "invalid_request_error", "content_filter", false, false, NULL)                   \
    X(AI_FAULT_TOO_LARGE, 413, "invalid_request_error", "request_too_large", false, false,                   \
      "The provider takes no request as large as this")                                                      \
    X(AI_FAULT_MODEL, 404, "invalid_request_error", "model_not_available", true, false,                      \
      "The model is not available from its provider")                                                        \
    X(AI_FAULT_AUTH, 502, "server_error", "provider_error", true, false,                                     \
      "The provider did not accept this gateway")                                                            \
    X(AI_FAULT_QUOTA, 503, "server_error", "provider_unavailable", true, false,                              \
      "The provider does not serve this gateway at the moment")                                              \
    X(AI_FAULT_RATE, 429, "rate_limit_error", "provider_rate_limited", true, true,                           \
      "The provider has too many requests at the moment; try again later")                                   \
    X(AI_FAULT_OVERLOAD, 503, "server_error", "provider_overloaded", true, true,                             \
      "The provider is overloaded; try again later")                                                         \
    X(AI_FAULT_SERVER, 502, "server_error", "provider_error", true, true, "The provider failed")             \
    X(AI_FAULT_PROTOCOL, 502, "server_error", "provider_error", true, true,                                  \
      "The provider's answer could not be read")                                                             \
    X(AI_FAULT_UNREACHABLE, 502, "server_error", "provider_unavailable", true, true,                         \
      "The provider could not be reached")                                                                   \
    X(AI_FAULT_TIMEOUT, 504, "server_error", "provider_timeout", true, true,                                 \
      "The provider did not answer in time")                                                                 \
    X(AI_FAULT_BROKEN, 502, "server_error", "provider_error", true, true, "The provider broke off its answer")

#define AI_FAULT_ENUM(name, status, type, code, elsewhere, health, message) name,
enum ai_fault { AI_FAULTS(AI_FAULT_ENUM) AI_FAULT_COUNT };
#undef AI_FAULT_ENUM

struct ai_failure {
    enum ai_fault fault;
    int status; /* for the client */
    const char *type;
    const char *code;
    struct str message;     /* for the client: says nothing of keys, accounts and hosts of the operator's */
    struct str param;       /* as the provider named it; or absent */
    bool elsewhere;         /* the next provider of the model may be tried */
    bool health;            /* counts against the provider */
    int64_t retry_after_ms; /* as the provider wants it; -1: it did not say. At most AI_RETRY_AFTER_MAX_MS */
    int upstream_status;    /* for the log; 0: there was no answer */
    struct str detail;      /* for the log: the provider's words, sanitised as well; or absent */
};

enum { AI_FAILURE_TEXT_MAX = 500 /* bytes of message and detail */, AI_RETRY_AFTER_MAX_MS = 3600 * 1000 };

/* A failure that is no answer of the provider's; `detail`, absent or constant, is for the log. */
void ai_failure_make(struct ai_failure *failure, enum ai_fault fault, struct str detail);

/* Copies what the failure points to into the arena, for who keeps it longer than that of its reader. */
void ai_failure_keep(struct arena *arena, struct ai_failure *failure);

/* The words of a provider, in the arena, for the eyes of others: keys and what looks like one are struck out, as is every `secret`
 * (absent: none) in it, control characters are blanks, and what is over AI_FAILURE_TEXT_MAX is cut off. */
struct str ai_sanitise(struct arena *arena, struct str text, struct str secret);

/* The error object of the API, as the data of an event in a stream or as a body: {"error":{message, type, code, param}}. */
void ai_put_error(struct buf *out, const struct ai_failure *failure);

/* ---- what providers say of their limits ---- */

/* -1: not said. Times are at most AI_RETRY_AFTER_MAX_MS. */
struct ai_rate {
    int64_t retry_after_ms;
    int64_t requests_left;
    int64_t requests_reset_ms; /* until there are requests again */
    int64_t tokens_left;
    int64_t tokens_reset_ms;
};

/* Retry-After (RFC 9110 §10.2.3): seconds, also with a fraction as some send, or an HTTP date, from `now_ms` (Unix). -1: neither. */
int64_t ai_read_retry_after(struct str value, int64_t now_ms);
/* A span as in x-ratelimit-reset-requests: "1s", "6m0s", "20ms", "1h2m3.5s"; seconds without a unit. Rounded up. -1: none. */
int64_t ai_read_span(struct str value);
/* From `now_ms` to a time of RFC 3339, as in anthropic-ratelimit-requests-reset; 0 when it is past. -1: none. */
int64_t ai_read_time(struct str value, int64_t now_ms);

#endif
