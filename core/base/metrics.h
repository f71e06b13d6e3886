#ifndef CORE_BASE_METRICS_H
#define CORE_BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

/*
 * Counters, gauges and histograms, as one table. Each thread adds to a shard of its own without locks; a reader
 * sums the shards. A row may have one label whose values are known at start ("slots").
 */

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* clang-format off */
/*         id                      type       name                                    label      help */
#define METRICS(X) \
    X(M_CONNECTIONS,        GAUGE,     "wakegate_connections",                 NULL,      "Open client connections") \
    X(M_ACCEPTED,           COUNTER,   "wakegate_connections_accepted_total",  NULL,      "Client connections accepted") \
    X(M_REFUSED,            COUNTER,   "wakegate_connections_refused_total",   "why",     "Client connections closed at once because a cap was reached") \
    X(M_TLS_HANDSHAKES,     COUNTER,   "wakegate_tls_handshakes_total",        "kind",    "TLS handshakes by their end") \
    X(M_TIMED_OUT,          COUNTER,   "wakegate_connections_timed_out_total", "what",    "Client connections ended because the client was too slow") \
    X(M_WEBSOCKETS,         GAUGE,     "wakegate_websockets",                  NULL,      "Open WebSockets that end here") \
    X(M_REQUESTS,           COUNTER,   "wakegate_requests_total",              "code",    "Requests answered, by class of status") \
    X(M_REQUEST_SECONDS,    HISTOGRAM, "wakegate_request_seconds",             "surface", "Time from the end of a request's header to the end of its answer") \
    X(M_BYTES_IN,           COUNTER,   "wakegate_received_bytes_total",        NULL,      "Bytes read from clients") \
    X(M_BYTES_OUT,          COUNTER,   "wakegate_sent_bytes_total",            NULL,      "Bytes written to clients") \
    X(M_LIMITED,            COUNTER,   "wakegate_limited_total",               NULL,      "Requests refused by a rate limit") \
    X(M_LIMIT_LOCAL,        COUNTER,   "wakegate_limit_local_total",           NULL,      "Rate limit decisions made without Redis, because it was away") \
    X(M_LIMIT_ROUNDS,       COUNTER,   "wakegate_limit_round_trips_total",     NULL,      "Times that Redis was asked about rate limits") \
    X(M_FIBERS,             GAUGE,     "wakegate_fibers",                      NULL,      "Living fibers") \
    X(M_REDIS_COMMANDS,     COUNTER,   "wakegate_redis_commands_total",        NULL,      "Commands sent to Redis") \
    X(M_REDIS_FLUSHES,      COUNTER,   "wakegate_redis_writes_total",          NULL,      "Batches of commands written to Redis") \
    X(M_REDIS_ERRORS,       COUNTER,   "wakegate_redis_errors_total",          NULL,      "Redis commands that failed or got no answer in time") \
    X(M_REDIS_CONNECTS,     COUNTER,   "wakegate_redis_connects_total",        NULL,      "Connections to Redis made") \
    X(M_PG_STATEMENTS,      COUNTER,   "wakegate_pg_statements_total",         NULL,      "Statements sent to PostgreSQL") \
    X(M_PG_ERRORS,          COUNTER,   "wakegate_pg_errors_total",             NULL,      "Statements that failed") \
    X(M_PG_BATCHES,         COUNTER,   "wakegate_pg_write_batches_total",      NULL,      "Group commits") \
    X(M_PG_BATCHED,         COUNTER,   "wakegate_pg_batched_writes_total",     NULL,      "Writes committed in groups") \
    X(M_PG_CONNECTS,        COUNTER,   "wakegate_pg_connects_total",           NULL,      "Connections to PostgreSQL made") \
    X(M_JOBS_ADDED,         COUNTER,   "wakegate_jobs_added_total",            "kind",    "Jobs accepted") \
    X(M_JOBS_DONE,          COUNTER,   "wakegate_jobs_done_total",             "kind",    "Jobs done") \
    X(M_JOBS_RETRIED,       COUNTER,   "wakegate_jobs_retried_total",          "kind",    "Tries that failed and will be repeated") \
    X(M_JOBS_DEAD,          COUNTER,   "wakegate_jobs_dead_total",             "kind",    "Jobs put aside as dead") \
    X(M_JOBS_CRASHED,       COUNTER,   "wakegate_jobs_crashed_total",          "kind",    "Leases that ran out with no word from the worker") \
    X(M_JOBS_FENCED,        COUNTER,   "wakegate_jobs_fenced_total",           "kind",    "Effects refused because the worker had lost its lease") \
    X(M_JOBS_RERUNG,        COUNTER,   "wakegate_jobs_rerung_total",           NULL,      "Rows that were due and rung again by the reconciler") \
    X(M_JOBS_RUNNING,       GAUGE,     "wakegate_jobs_running",                NULL,      "Jobs in work here") \
    X(M_JOB_SECONDS,        HISTOGRAM, "wakegate_job_seconds",                 "kind",    "Time a job ran") \
    X(M_JOB_WAIT_SECONDS,   HISTOGRAM, "wakegate_job_wait_seconds",            "kind",    "Time from a job being due to its start") \
    X(M_POD_STARTS,         COUNTER,   "wakegate_pod_starts_total",            NULL,      "Pods started") \
    X(M_POD_ADOPTED,        COUNTER,   "wakegate_pod_adopted_total",           NULL,      "Living pods found again") \
    X(M_POD_START_FAILURES, COUNTER,   "wakegate_pod_start_failures_total",    NULL,      "Pods that did not become ready") \
    X(M_POD_STOPS,          COUNTER,   "wakegate_pod_stops_total",             NULL,      "Pods stopped") \
    X(M_POD_LOST,           COUNTER,   "wakegate_pod_lost_total",              NULL,      "Pods that ended without being asked") \
    X(M_POD_WAKE_SECONDS,   HISTOGRAM, "wakegate_pod_wake_seconds",            NULL,      "Time from start to ready") \
    X(M_MESSAGES_DIRECT,    COUNTER,   "wakegate_messages_direct_total",       NULL,      "Messages handed to an awake pod by the reactor") \
    X(M_MESSAGES_QUEUED,    COUNTER,   "wakegate_messages_queued_total",       NULL,      "Messages delivered by a worker") \
    X(M_EVENTS_TOLD,        COUNTER,   "wakegate_events_told_total",           NULL,      "Events numbered and published") \
    X(M_WEBHOOK_ATTEMPTS,   COUNTER,   "wakegate_webhook_attempts_total",      "outcome", "Attempts to deliver webhooks") \
    X(M_WEBHOOK_SECONDS,    HISTOGRAM, "wakegate_webhook_seconds",             NULL,      "Time that an attempt to deliver a webhook took") \
    X(M_WEBHOOK_FIRST_SECONDS, HISTOGRAM, "wakegate_webhook_first_seconds",    NULL,      "Time from an event's cause to the first attempt to deliver it") \
    X(M_WEBHOOK_IN_FLIGHT,  GAUGE,     "wakegate_webhook_in_flight",           NULL,      "Attempts to deliver webhooks that are under way here") \
    X(M_WEBHOOK_GIVEN_UP,   COUNTER,   "wakegate_webhook_given_up_total",      NULL,      "Deliveries that have failed at their last try") \
    X(M_WEBHOOK_DISABLED,   COUNTER,   "wakegate_webhook_disabled_total",      "reason",  "Webhook endpoints that were disabled because of their answers") \
    X(M_WEBHOOK_ENDPOINTS,  GAUGE,     "wakegate_webhook_endpoints",           "state",   "Webhook endpoints, of all servers: each worker says the same") \
    X(M_WEBHOOK_PENDING,    GAUGE,     "wakegate_webhook_pending",             NULL,      "Deliveries that wait for an attempt, 100000 at most, of all servers: each worker says the same") \
    X(M_WEBHOOK_OVERDUE,    GAUGE,     "wakegate_webhook_overdue_seconds",     NULL,      "How long the oldest delivery has been due, of endpoints that neither pause nor want order: each worker says the same") \
    X(M_EVENT_RELAY_SECONDS, HISTOGRAM, "wakegate_event_relay_seconds",        NULL,      "Time from an event's cause until it is numbered and published") \
    X(M_EVENTS_WAITING,     GAUGE,     "wakegate_events_waiting",              NULL,      "Events that wait to be numbered, 100000 at most, of all servers: each worker says the same") \
    X(M_EVENTS_OLDEST,      GAUGE,     "wakegate_events_oldest_seconds",       NULL,      "How long the oldest of them has waited: each worker says the same") \
    X(M_EVENTS_READ,        COUNTER,   "wakegate_events_read_total",           NULL,      "Events that streams had to read from PostgreSQL because Redis had not told them") \
    X(M_EVENT_STREAMS,      GAUGE,     "wakegate_event_streams",               "kind",    "Open event streams") \
    X(M_PROXY_REQUESTS,     COUNTER,   "wakegate_proxy_requests_total",        NULL,      "Requests to workspaces that were let in") \
    X(M_PROXY_HELD,         GAUGE,     "wakegate_proxy_held",                  NULL,      "Requests to workspaces that wait for a pod") \
    X(M_PROXY_FAILURES,     COUNTER,   "wakegate_proxy_failures_total",        NULL,      "Requests to workspaces that a pod did not answer, or not to the end") \
    X(M_AI_CALLS,           COUNTER,   "wakegate_ai_calls_total",              "outcome", "AI calls that a worker has ended, or given to another provider") \
    X(M_AI_RUNNING,         GAUGE,     "wakegate_ai_running",                  NULL,      "AI calls in work here") \
    X(M_AI_SECONDS,         HISTOGRAM, "wakegate_ai_seconds",                  NULL,      "Time an AI call took from its start at a worker") \
    X(M_AI_WAIT_SECONDS,    HISTOGRAM, "wakegate_ai_wait_seconds",             NULL,      "Time from the acceptance of an AI call to its start") \
    X(M_AI_FIRST_SECONDS,   HISTOGRAM, "wakegate_ai_first_seconds",            NULL,      "Time from the start of a streamed AI call to its first piece") \
    X(M_AI_TOKENS,          COUNTER,   "wakegate_ai_tokens_total",             NULL,      "Tokens of answers that were delivered") \
    X(M_AI_SETTLED,         COUNTER,   "wakegate_ai_settled_total",            NULL,      "Ends of AI calls that were committed") \
    X(M_AI_WAITING,         GAUGE,     "wakegate_ai_waiting",                  "provider", "AI calls that wait for a place at a provider, of all servers: each worker says the same") \
    X(M_AI_IN_FLIGHT,       GAUGE,     "wakegate_ai_in_flight",                "provider", "AI calls that a provider has at the moment, likewise") \
    X(M_AI_CAP,             GAUGE,     "wakegate_ai_cap",                      "provider", "AI calls that a provider may have, as much as it seems to bear, likewise") \
    X(M_AI_BREAKER,         GAUGE,     "wakegate_ai_breaker",                  "provider", "Whether calls go to a provider, likewise: 0 yes, 1 one at a time, 2 no") \
    X(M_AI_UNSETTLED,       GAUGE,     "wakegate_ai_unsettled",                NULL,      "Ends of AI calls that wait for their commit") \
    X(M_LEASE_SECONDS,      HISTOGRAM, "wakegate_lease_refill_seconds",        NULL,      "Time in which a slice of a balance was lent to Redis, or refused") \
    X(M_LEASE_GRANTS,       COUNTER,   "wakegate_lease_grants_total",          NULL,      "Slices of balances that were lent to Redis") \
    X(M_LEASE_REFUSED,      COUNTER,   "wakegate_lease_refused_total",         NULL,      "Slices refused because the account had not so much") \
    X(M_LEASE_RETURNS,      COUNTER,   "wakegate_lease_returns_total",         NULL,      "Leases taken back from Redis: idle, lost, or wanted") \
    X(M_TUNNELS,            GAUGE,     "wakegate_tunnels",                     NULL,      "Open connections between a client and a pod that have switched protocols")
/* clang-format on */

enum metric {
#define METRIC_ID(id, type, name, label, help) id,
    METRICS(METRIC_ID)
#undef METRIC_ID
        METRIC_COUNT
};

enum {
    METRIC_SLOTS = 16,  /* label values a row can have */
    METRIC_BUCKETS = 17 /* upper bounds in metric_bucket_us, then infinity */
};

struct metric_row {
    const char *name;
    const char *label;
    const char *help;
    enum metric_type type;
};

extern const struct metric_row metric_rows[METRIC_COUNT];
extern const uint64_t metric_bucket_us[METRIC_BUCKETS - 1];

/* Names slot `slot` of a labelled row. `value` stays the caller's, as it is. */
void metric_name_slot(enum metric metric, unsigned slot, const char *value);
/* NULL while the slot has no name. */
const char *metric_slot_name(enum metric metric, unsigned slot);

/* From any thread. Rows without a label use slot 0. Gauges may go down. */
void metric_add(enum metric metric, int64_t by);
void metric_add_slot(enum metric metric, unsigned slot, int64_t by);
void metric_observe_us(enum metric metric, unsigned slot, uint64_t us);

/* Sums over threads. `buckets` are not cumulative. */
int64_t metric_read(enum metric metric, unsigned slot);
void metric_read_histogram(enum metric metric, unsigned slot, uint64_t buckets[METRIC_BUCKETS],
                           uint64_t *sum_us);

#endif
