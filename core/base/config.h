#ifndef CORE_BASE_CONFIG_H
#define CORE_BASE_CONFIG_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Settings: one table feeds the parser, `--help` and the README. Values come from the environment and from a
 * file of NAME=value lines (--env-file), the environment winning. After config_load the struct is read-only.
 */

enum setting_type {
    SETTING_TEXT,
    SETTING_SECRET, /* a text that is never shown; empty or of `least` bytes at least */
    SETTING_NUMBER,
    SETTING_SWITCH, /* 1/0, true/false, on/off */
};

/* clang-format off */
/*  type    field                  name                          default          least, most            help */
#define SETTINGS(X) \
    X(TEXT,   listen_address,        "LISTEN_ADDRESS",             "127.0.0.1",     0, 0,                  "Address the reactor listens on") \
    X(NUMBER, port,                  "PORT",                       "8080",          0, 65535,              "Port the reactor listens on; 0 takes a free one") \
    X(NUMBER, reactors,              "REACTORS",                   "0",             0, 256,                "Reactor threads; 0: one per core") \
    X(TEXT,   tls_cert,              "TLS_CERT",                    "",              0, 0,                  "PEM file of a certificate chain, or several separated by commas (chosen by server name); PORT speaks TLS then") \
    X(TEXT,   tls_key,               "TLS_KEY",                     "",              0, 0,                  "PEM file of the private key, one for each TLS_CERT") \
    X(SWITCH, tls_dev,               "TLS_DEV",                     "0",             0, 1,                  "A self-signed certificate for BASE_DOMAIN and localhost, made at the start; for development") \
    X(NUMBER, tls_handshakes,        "TLS_HANDSHAKES",              "2",             1, 64,                 "TLS handshakes computed at once, per reactor; more wait their turn") \
    X(TEXT,   base_domain,           "BASE_DOMAIN",                "localhost",     0, 0,                  "Domain under which workspaces and users get their host names") \
    X(SECRET, database_url,          "DATABASE_URL",               "",              0, 0,                  "PostgreSQL, as a libpq URL") \
    X(SECRET, redis_url,             "REDIS_URL",                  "",              0, 0,                  "Redis: redis://[user:password@]host:port[/db] or unix:///path[?db=n]") \
    X(SECRET, encryption_key,        "ENCRYPTION_KEY",             "",              32, 0,                  "Operator's secret, at least 32 characters: what is secret at rest is sealed under it") \
    X(SECRET, jwt_secret,            "JWT_SECRET",                 "",              32, 0,                  "Secret of log-ins' tokens (JWT), at least 32 characters; empty: made from ENCRYPTION_KEY") \
    X(TEXT,   jwt_algorithm,         "JWT_ALGORITHM",              "HS256",         0, 0,                  "Their algorithm: HS256 or EdDSA") \
    X(SECRET, admin_token,           "ADMIN_TOKEN",                "",              32, 0,                  "Bearer token of the operator API (/admin/v1), at least 32 characters; empty: there is none") \
    X(TEXT,   public_url,            "PUBLIC_URL",                 "",              0, 0,                  "https://name under which clients know this server, for OAuth's issuer; empty: as each request has it") \
    X(TEXT,   cors_origins,          "CORS_ORIGINS",               "",              0, 0,                  "Origins that browsers may call from, separated by commas, or *") \
    X(TEXT,   trusted_proxies,       "TRUSTED_PROXIES",            "",              0, 0,                  "Addresses or networks (CIDR) whose X-Forwarded-For counts") \
    X(SECRET, metrics_token,         "METRICS_TOKEN",              "",              0, 0,                  "Bearer token for GET /metrics; empty: only METRICS_LISTEN serves it") \
    X(TEXT,   metrics_listen,        "METRICS_LISTEN",             "",              0, 0,                  "address:port of the operator's own listener: /metrics without a token (serve and work), and health (serve)") \
    X(NUMBER, session_rate,          "SESSION_RATE_PER_MINUTE",    "100",           1, 1000000000,         "Requests a minute and client address on the session surface") \
    X(NUMBER, address_rate,          "ADDRESS_RATE_PER_MINUTE",    "6000",          1, 1000000000,         "Requests a minute and client address on the inference, gpu and OAuth routes, whatever the plan") \
    X(NUMBER, login_rate,            "LOGIN_RATE_PER_MINUTE",      "20",            1, 1000000000,         "Log-ins a minute and client address") \
    X(NUMBER, register_rate,         "REGISTER_RATE_PER_HOUR",     "20",            1, 1000000000,         "Registrations an hour and client address") \
    X(NUMBER, password_hashes,       "PASSWORD_HASHES",            "2",             1, 64,                 "Passwords hashed at once (19 MiB and a core each); more wait their turn, and soon are refused") \
    X(NUMBER, audit_days,            "AUDIT_DAYS",                 "365",           1, 36500,              "Days that audit records are kept") \
    X(SECRET, openai_key,            "OPENAI_API_KEY",              "",              0, 0,                  "Key of the provider \"openai\"; empty: there is none, unless a row says so") \
    X(TEXT,   openai_url,            "OPENAI_BASE_URL",             "https://api.openai.com/v1", 0, 0,      "Where it is, or any other that speaks its API") \
    X(SECRET, anthropic_key,         "ANTHROPIC_API_KEY",           "",              0, 0,                  "Key of the provider \"anthropic\"; empty: there is none, unless a row says so") \
    X(TEXT,   anthropic_url,         "ANTHROPIC_BASE_URL",          "https://api.anthropic.com", 0, 0,      "Where it is, or any other that speaks its API") \
    X(TEXT,   call_price,            "CALL_PRICE_USD",              "0.001",         0, 0,                  "US dollars that an API call of the inference surface costs, besides its tokens") \
    X(TEXT,   payment_rates,         "PAYMENT_RATES",               "USD=1,USDC=1,ETH=1", 0, 0,             "Currencies that deposits may have, and the US dollars that one of each is credited as") \
    X(NUMBER, ai_call_s,             "AI_CALL_SECONDS",             "600",           1, 86400,              "The longest an AI call may take, from its acceptance until it is charged") \
    X(NUMBER, ai_head_s,             "AI_HEAD_SECONDS",             "45",            1, 3600,               "Silence after which a streamed answer begins with comments, and errors have no status of their own any more") \
    X(NUMBER, ai_cache_s,            "AI_CACHE_SECONDS",            "3600",          1, 31536000,           "Time an AI answer may be given again to who asks for that, where the model has no time of its own") \
    X(NUMBER, lease_idle_s,          "LEASE_IDLE_SECONDS",          "300",           1, 86400,              "Time without a call after which money lent to Redis is taken back") \
    X(NUMBER, ai_job_days,           "AI_JOB_DAYS",                 "30",            1, 36500,              "Days that AI jobs are kept after their end") \
    X(NUMBER, event_days,            "EVENT_DAYS",                  "7",             1, 3650,               "Days that events are kept, so that a stream can go on after them") \
    X(NUMBER, event_streams,         "EVENT_STREAMS_PER_ACCOUNT",   "1000",          1, 10000000,           "Open event streams of an account, per reactor; more are refused") \
    X(NUMBER, idle_timeout_s,        "IDLE_TIMEOUT_SECONDS",       "120",           1, 31536000,           "Seconds without activity after which a pod is put to sleep") \
    X(NUMBER, max_body_bytes,        "MAX_BODY_BYTES",             "1048576",       1024, 1073741824,      "Largest JSON body") \
    X(NUMBER, max_connections,       "MAX_CONNECTIONS",            "20000",         16, 10000000,          "Client connections in all; more are closed at once") \
    X(NUMBER, max_per_address,       "MAX_CONNECTIONS_PER_ADDRESS", "16000",         1, 10000000,           "Client connections from one address (IPv6: one /64) that is no trusted proxy; more are closed at once") \
    X(NUMBER, descriptor_reserve,    "DESCRIPTOR_RESERVE",          "64",            8, 1000000,            "File descriptors that connections may not use: kept for Redis, PostgreSQL and METRICS_LISTEN") \
    X(NUMBER, header_timeout_s,      "HEADER_TIMEOUT_SECONDS",     "10",            1, 3600,               "Time a client has for a request's header") \
    X(NUMBER, body_timeout_s,        "BODY_TIMEOUT_SECONDS",       "30",            1, 3600,               "Time without a byte of a request's body after which it is given up") \
    X(NUMBER, body_rate,             "MIN_BODY_BYTES_PER_SECOND",   "500",           0, 1000000000,         "Average rate below which a request body is given up, after its first BODY_TIMEOUT_SECONDS; 0: any") \
    X(NUMBER, keepalive_timeout_s,   "KEEPALIVE_TIMEOUT_SECONDS",  "75",            1, 86400,              "Time an idle connection is kept") \
    X(NUMBER, request_timeout_s,     "REQUEST_TIMEOUT_SECONDS",    "90",            1, 3600,               "Time a handler has for its answer") \
    X(NUMBER, write_timeout_s,       "WRITE_TIMEOUT_SECONDS",      "30",            1, 3600,               "Time a client may take nothing of its answer") \
    X(NUMBER, queue_bytes,           "OUTPUT_QUEUE_BYTES",          "262144",        16384, 1073741824,     "Output kept for a client that reads slowly, before its handler has to wait") \
    X(NUMBER, ws_message_bytes,      "WEBSOCKET_MESSAGE_BYTES",     "1048576",       1024, 1073741824,      "Largest message taken from a WebSocket client, inflated") \
    X(NUMBER, ws_queue_bytes,        "WEBSOCKET_QUEUE_BYTES",       "1048576",       16384, 1073741824,     "Output kept for a WebSocket client that reads slowly, before it is closed with 4008") \
    X(NUMBER, ws_ping_s,             "WEBSOCKET_PING_SECONDS",      "25",            1, 3600,               "Silence after which a WebSocket client is pinged") \
    X(NUMBER, ws_timeout_s,          "WEBSOCKET_TIMEOUT_SECONDS",   "60",            1, 7200,               "Silence after which a WebSocket client is taken for gone") \
    X(NUMBER, sse_comment_s,         "SSE_COMMENT_SECONDS",         "15",            1, 3600,               "Silence after which an event stream gets a comment, so that nobody on the way gives it up") \
    X(NUMBER, link_s,                "WORKSPACE_LINK_SECONDS",      "300",           1, 31536000,           "Time a workspace_url is good for") \
    X(NUMBER, cookie_s,              "WORKSPACE_COOKIE_SECONDS",    "43200",         1, 31536000,           "Time a browser that followed one may come back") \
    X(NUMBER, hold_s,                "WORKSPACE_HOLD_SECONDS",      "25",            1, 3600,               "Time a request to a workspace that wakes up is held") \
    X(NUMBER, hold_page_s,           "WORKSPACE_PAGE_SECONDS",      "3",             1, 3600,               "The same for a browser, which then gets a page that asks again by itself") \
    X(NUMBER, hold_per_instance,     "WORKSPACE_HOLD_REQUESTS",     "64",            1, 1000000,            "Requests held for one workspace, per reactor") \
    X(NUMBER, hold_total,            "WORKSPACE_HOLD_TOTAL",        "2048",          1, 1000000,            "Requests held for all workspaces, per reactor") \
    X(NUMBER, proxy_timeout_s,       "PROXY_TIMEOUT_SECONDS",       "60",            1, 86400,              "Time a pod may be silent in the middle of a proxied request") \
    X(NUMBER, drain_s,               "DRAIN_SECONDS",              "30",            0, 3600,               "Time that requests and jobs in work have to end after SIGTERM") \
    X(TEXT,   webhook_allow,         "WEBHOOK_ALLOW_NETWORKS",      "",              0, 0,                  "Addresses or networks (CIDR) that webhooks may be delivered to though they are no public ones; for development and tests") \
    X(NUMBER, pg_pool,               "PG_POOL_SIZE",               "4",             1, 64,                 "Connections for transactions, per loop") \
    X(NUMBER, redis_timeout_ms,      "REDIS_TIMEOUT_MS",           "1000",          10, 60000,             "Time a Redis command has") \
    X(NUMBER, pg_timeout_ms,         "PG_TIMEOUT_MS",              "10000",         10, 600000,            "Time a statement has") \
    X(NUMBER, worker_concurrency,    "WORKER_CONCURRENCY",         "256",           1, 100000,             "Jobs a worker runs at once") \
    X(NUMBER, ai_worker_calls,       "AI_WORKER_CALLS",             "4096",          1, 100000,             "AI calls a worker runs at once") \
    X(NUMBER, job_lease_s,           "JOB_LEASE_SECONDS",          "60",            1, 3600,               "Time a job is a worker's without a sign of life; longer than any job kind's time limit") \
    X(NUMBER, reconcile_ms,          "RECONCILE_MS",               "1000",          50, 600000,            "Pause between two looks for rows that are due and were not rung") \
    X(TEXT,   data_dir,              "WAKEGATE_DATA_DIR",          ".wakegate",     0, 0,                  "Folder of pods' workspaces") \
    X(TEXT,   pod_command,           "WAKEGATE_POD_COMMAND",       "",              0, 0,                  "What a pod runs, by /bin/sh -c; empty: the pod that comes along") \
    X(TEXT,   pod_gateway_url,       "POD_GATEWAY_URL",            "",              0, 0,                  "URL under which pods reach this gateway, to call models; empty: they are told none, and the pod that comes along says back what it hears") \
    X(TEXT,   pod_listen,            "POD_LISTEN",                 "",              0, 0,                  "address:port of a plain listener that answers pods' calls of models and nothing else, where the front door speaks TLS: a POD_GATEWAY_URL for this machine") \
    X(TEXT,   pod_model,             "POD_MODEL",                  "gpt-4o-mini",   0, 0,                  "Model that the pod that comes along chats by") \
    X(TEXT,   pod_sandbox,           "POD_SANDBOX",                "auto",          0, 0,                  "bubblewrap for pods: auto (where it works), on (or refuse to start) or off") \
    X(TEXT,   pod_user,              "POD_USER",                   "nobody",        0, 0,                  "User that pods run as when the worker is root; empty: root") \
    X(TEXT,   pod_ports,             "POD_PORT_RANGE",             "20000-29999",   0, 0,                  "Ports given to pods") \
    X(NUMBER, pod_memory_mb,         "POD_MEMORY_MB",              "4096",          64, 1048576,           "Address space of a pod's processes") \
    X(NUMBER, pod_files,             "POD_FILES",                  "1024",          16, 1048576,           "Open files of a pod's processes") \
    X(NUMBER, pod_processes,         "POD_PROCESSES",              "512",           8, 1048576,            "Processes of a pod's user; counted only where pods have a user of their own") \
    X(NUMBER, pod_connect_ms,        "POD_CONNECT_TIMEOUT_MS",     "1000",          10, 600000,            "Time a connection to a pod has") \
    X(NUMBER, pod_ready_ms,          "POD_READY_TIMEOUT_MS",       "20000",         100, 600000,           "Time a started pod has to answer /health with 200") \
    X(NUMBER, pod_answer_ms,         "POD_ANSWER_TIMEOUT_MS",      "30000",         100, 600000,           "Time a pod has to answer a message") \
    X(NUMBER, pod_stop_ms,           "POD_STOP_TIMEOUT_MS",        "10000",         100, 600000,           "Time a pod has to end after SIGTERM before it is killed") \
    X(NUMBER, webhook_timeout_ms,    "WEBHOOK_TIMEOUT_MS",         "15000",         100, 60000,            "Time an attempt to deliver a webhook has in all") \
    X(NUMBER, webhook_in_flight,     "WEBHOOK_IN_FLIGHT",          "64",            1, 1000,               "Attempts at once to one webhook endpoint") \
    X(NUMBER, webhook_endpoints,     "WEBHOOK_ENDPOINTS",          "50",            1, 100000,             "Webhook endpoints that an account may have") \
    X(NUMBER, webhook_days,          "WEBHOOK_DAYS",               "7",             1, 36500,              "Days that webhook deliveries and their attempts are kept") \
    X(TEXT,   log_level,             "LOG_LEVEL",                  "info",          0, 0,                  "debug, info, warn or error") \
    X(SWITCH, test_endpoints,        "WAKEGATE_TEST_ENDPOINTS",     "0",             0, 1,                  "Serves /test/*: an echo WebSocket and others that only tests want") \
    X(SWITCH, log_requests,          "LOG_REQUESTS",               "1",             0, 1,                  "A line for each request")
/* clang-format on */

struct config {
#define SETTING_FIELD_TEXT(field) const char *field;
#define SETTING_FIELD_SECRET(field) const char *field;
#define SETTING_FIELD_NUMBER(field) int64_t field;
#define SETTING_FIELD_SWITCH(field) bool field;
#define SETTING_FIELD(type, field, name, fallback, least, most, help) SETTING_FIELD_##type(field)
    SETTINGS(SETTING_FIELD)
#undef SETTING_FIELD
};

struct setting {
    const char *name;
    const char *fallback;
    const char *help;
    int64_t least;
    int64_t most;
    size_t offset; /* in struct config */
    enum setting_type type;
};

extern const struct setting settings[];
extern const size_t setting_count;

/* The loaded settings; zero before config_load. */
extern const struct config *config;

/*
 * Loads the settings: defaults, then `env_file` unless NULL, then the environment. On a bad value or a line
 * that can't be read returns -EINVAL with one line, which names the setting and no secret's value, in `error`.
 * A name in the file that is no setting of ours is an error: it would be a typing error that nobody sees.
 */
int config_load(const char *env_file, char *error, size_t error_size) MUST_USE;

/* Sets one value as the environment would; for tests and for command line options. */
int config_set(const char *name, const char *value, char *error, size_t error_size) MUST_USE;

/* The table as text: for --help, and as Markdown rows for the README. */
void config_print_help(FILE *out);
void config_print_markdown(FILE *out);

/* Frees what config_load keeps; for leak checkers. */
void config_clear(void);

#endif
