/* The inference surface: its table, its errors as the SDKs for OpenAI's API read them, and what its handlers share. */
#include "handlers/inference/inference.h"

#include "core/gate/events.h"
#include "handlers/webhooks.h"

static const char *const prefixes[] = {"/api/auth", "/api/v1", "/v1", NULL};

#define READ_KEYS SCOPE_BIT(SCOPE_KEYS_READ)
#define WRITE_KEYS SCOPE_BIT(SCOPE_KEYS_WRITE)
#define READ_ACCOUNT SCOPE_BIT(SCOPE_ACCOUNT_READ)
#define CALL_MODELS SCOPE_BIT(SCOPE_AI_CALL)
#define READ_JOBS SCOPE_BIT(SCOPE_JOBS_READ)
#define WRITE_ACCOUNT SCOPE_BIT(SCOPE_ACCOUNT_WRITE)

/* Each is served twice: SDKs leave out "/api". */
#define BOTH(method, path, ...)                                                                              \
    {method, "/api/v1" path, __VA_ARGS__},                                                                   \
    {                                                                                                        \
        method, "/v1" path, __VA_ARGS__                                                                      \
    }

static const struct route routes[] = {
    {"POST", "/api/auth/register", auth_register, "Make an account and its first API key",
     ROUTE_OPEN | ROUTE_SLOW_START, 0, "register"},
    {"POST", "/api/auth/login", auth_login, "A new API key and a log-in's token, for a password",
     ROUTE_OPEN | ROUTE_SLOW_START, 0, "login"},
    {"POST", "/api/auth/refresh", auth_refresh, "A log-in's next token", ROUTE_OPEN, 0, NULL},
    {"POST", "/api/auth/logout", auth_logout, "End the log-in whose token this is", 0, SCOPE_NONE_NEEDED,
     NULL},
    {"POST", "/api/auth/password", auth_password,
     "Change the password; ends all log-ins and the keys that they made", ROUTE_SLOW_START, WRITE_ACCOUNT,
     NULL},
    BOTH("GET", "/api-keys", keys_list, "The account's API keys, newest first (limit, cursor)", 0, READ_KEYS,
         NULL),
    BOTH("POST", "/api-keys", keys_create, "Make an API key, which is shown this once", 0, WRITE_KEYS, NULL),
    BOTH("GET", "/api-keys/{id}", keys_get, "One API key", 0, READ_KEYS, NULL),
    BOTH("DELETE", "/api-keys/{id}", keys_revoke, "Revoke an API key", 0, WRITE_KEYS, NULL),
    BOTH("POST", "/api-keys/{id}/rotate", keys_rotate,
         "A new API key in place of this one, which holds for overlap_seconds more", 0, WRITE_KEYS, NULL),
    WEBHOOK_ROUTES(BOTH, SCOPE_BIT(SCOPE_WEBHOOKS)),
    BOTH("GET", "/account", account_show, "The account, its balance, its plan and what is left of its limits",
         0, READ_ACCOUNT, NULL),
    BOTH("POST", "/account/deposit", money_deposit, "Add to the balance", 0, WRITE_ACCOUNT, NULL),
    BOTH("GET", "/usage", money_usage,
         "Requests, tokens and cost by day, model and key (from, to, limit, cursor)", 0, READ_ACCOUNT, NULL),
    BOTH("GET", "/models", models_list, "The models that there are", 0, CALL_MODELS, NULL),
    BOTH("GET", "/models/{id}", models_get, "One model", ROUTE_TAIL, CALL_MODELS, NULL),
    BOTH("POST", "/completions", calls_complete,
         "Complete a prompt by a model (stream, Prefer: respond-async)", ROUTE_SLOW_START, CALL_MODELS, NULL),
    BOTH("POST", "/chat/completions", calls_chat, "The next message of a chat by a model (the same)",
         ROUTE_SLOW_START, CALL_MODELS, NULL),
    BOTH("GET", "/jobs", jobs_list, "The account's AI calls, newest first (status, limit, cursor)", 0,
         READ_JOBS, NULL),
    BOTH("GET", "/jobs/{id}", jobs_get, "One AI call: its state, answer and cost", 0, READ_JOBS, NULL),
    BOTH("DELETE", "/jobs/{id}", jobs_cancel, "Cancel an AI call, at its provider too", ROUTE_SLOW_START,
         CALL_MODELS, NULL),
    BOTH("GET", "/stream", events_stream, "The account's events, as a WebSocket or as server-sent events",
         ROUTE_ASKS_ITSELF, SCOPE_BIT(SCOPE_EVENTS), NULL),
    BOTH("POST", "/stream/ticket", events_ticket,
         "A ticket that opens one stream, for a client without headers", 0, SCOPE_BIT(SCOPE_EVENTS), NULL),
    BOTH("GET", "/whoami", account_whoami, "Whose key or token this is, and what it may do", 0,
         SCOPE_NONE_NEEDED, NULL),
};

static const char *type_of(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    }
    return status >= 500 ? "api_error" : "invalid_request_error";
}

static void render_error(struct buf *out, int status, const char *code, const char *message)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_key(&json, "error");
    json_open(&json, '{');
    json_put_text(&json, "message", message);
    json_put_text(&json, "type", type_of(status));
    json_put_text(&json, "code", code);
    json_put_null(&json, "param");
    json_close(&json, '}');
    json_close(&json, '}');
    buf_add_char(out, '\n');
}

const struct surface surface_inference = {
    .name = "inference",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error,
    .authenticator = &auth_bearer,
    .takes_curl_json = true,
};

/* ---- what the handlers share ---- */

/* C0, DEL and C1 (which UTF-8 writes as C2 80 to C2 9F). */
static bool is_printable(struct str text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.at[i];
        unsigned char next = i + 1 < text.size ? (unsigned char)text.at[i + 1] : 0xff;
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && next < 0xa0))
            return false;
    }
    return true;
}

bool inference_name(struct request *request, const struct json *body, const char *name, size_t least,
                    size_t most, struct str *value)
{
    *value = STR("");
    if (least == 0 && !request_has(body, name))
        return true;
    if (!request_string(request, body, name, least, most, value))
        return false;
    if (is_printable(*value))
        return true;
    reply_invalid(request, arena_printf(request->arena, "%s must not contain control characters", name));
    return false;
}

void inference_no_store(struct request *request)
{
    reply_header(request, "Cache-Control", "no-store");
}

void inference_put_account(struct json_out *out, const struct account *account)
{
    json_put_str(out, "id", account->ref);
    json_put_str(out, "email", account->email);
    json_put_str(out, "organization", account->organization);
    json_put_time(out, "created_at", account->created_ms);
}
