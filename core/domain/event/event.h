#ifndef CORE_DOMAIN_EVENT_EVENT_H
#define CORE_DOMAIN_EVENT_EVENT_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "core/run/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Events: what an account is told, by streams and by webhooks.
 *
 * A statement that changes something adds its events itself, by the SQL function event_add or event_add_all (schema/009_event.sql),
 * and who runs it calls event_added(). Once that is committed a relay gives each account's events numbers without gaps, puts
 * them into table `event` and publishes them. So nobody hears of what is not committed, and all who listen agree on the order.
 */

/* clang-format off */
/*  id                   name                    surfaces                           members of its data                                  what has happened */
#define EVENTS(X) \
    X(INSTANCE_CREATED,    "instance.created",     "session provision gpu",           "uuid:text user_id:text created_at:time",            "An instance was made") \
    X(INSTANCE_READY,      "instance.ready",       "session provision gpu",           "uuid:text user_id:text ready_at:time",              "Its pod is awake and takes requests") \
    X(INSTANCE_HIBERNATED, "instance.hibernated",  "session provision gpu",           "uuid:text user_id:text hibernated_at:time",         "It sleeps, after it was awake") \
    X(INSTANCE_DELETED,    "instance.deleted",     "session provision gpu",           "uuid:text user_id:text deleted_at:time",            "It was deleted") \
    X(MESSAGE_DELIVERED,   "message.delivered",    "session",                         "uuid:text user_id:text message_id:text delivered_at:time", "A pod has answered a message") \
    X(JOB_COMPLETED,       "job.completed",        "inference provision devices",     "id:text status:text model:text created_at:time completed_at:time tokens_used:integer cost:money error:error", "An AI call was answered") \
    X(JOB_FAILED,          "job.failed",           "inference provision devices",     "id:text status:text model:text created_at:time completed_at:time tokens_used:integer cost:money error:error", "An AI call has failed") \
    X(BILLING_LOW_BALANCE, "billing.low_balance",  "inference gpu",                   "balance:money threshold:money currency:text",       "The balance has come below 10 dollars") \
    X(WEBHOOK_DISABLED,    "webhook.disabled",     "inference session provision gpu", "webhook_id:text url:text reason:text",              "A webhook was disabled, because its target kept failing") \
    X(INSTANCE_UPGRADED,   "instance.upgraded",    "provision",                       "instanceId:text previousTier:text newTier:text",    "It has another tier; told once that API is served") \
    X(INSTANCE_ALERT,      "instance.usage_alert", "provision",                       "instanceId:text alert:text current:integer threshold:integer", "It uses much of what its tier gives; told once that API is served") \
    X(FAILOVER_TRIGGERED,  "failover.triggered",   "gpu",                             "instance_id:text",                                  "Its GPU host was lost, it goes on without; told once that API is served") \
    X(SNAPSHOT_COMPLETED,  "snapshot.completed",   "gpu",                             "instance_id:text snapshot_id:text",                 "A snapshot is whole; told once that API is served")
/* clang-format on */

enum event {
#define EVENT_ID(id, name, surfaces, data, help) EVENT_##id,
    EVENTS(EVENT_ID)
#undef EVENT_ID
        EVENT_COUNT
};

struct event_row {
    const char *name;
    const char *surfaces; /* whose events have it, separated by spaces */
    const char *data;     /* name:type of each member, separated by spaces; event_print knows the types */
    const char *help;
};
extern const struct event_row event_rows[EVENT_COUNT];

enum {
    EVENT_NAME_MAX = 64,
    EVENT_ID_SIZE = 33,      /* "evt_" and 29 digits of ours, of which the first 14 are the time */
    EVENT_PATTERNS_MAX = 64, /* in one list */
};

/* ---- names and patterns ---- */

/* The event of that name; EVENT_COUNT: there is none. */
enum event event_find(struct str name);
/* A pattern is a name, "job.*" for all that begin so, or "*". */
bool event_name_matches(struct str pattern, struct str name);
/* Whether each fits at least one name of the catalogue. False: *wrong is the first that does not. */
bool event_validate_patterns(const struct str *patterns, size_t count, struct str *wrong);
/* For who gave a name that is none: says so, and which there are. */
const char *event_unknown(struct arena *arena, struct str name);

/* Sets of events, for who sees many of them. Names that the catalogue lacks (a newer server's) are one more member. */
typedef uint64_t event_set;
#define EVENT_OTHERS ((event_set)1 << 63)
#define EVENT_ALL (~(event_set)0)
event_set event_set_of(struct str name);
/* What a pattern stands for; 0: nothing, it is no good. */
event_set event_set_of_pattern(struct str pattern);

/* The catalogue, a JSON object a line: name, surfaces, help, and the schema of its data as OpenAPI has it. */
void event_print(FILE *out);

/* ---- telling ---- */

/* For the fiber whose statement has added events: once it is committed the loop's relay is rung. Without it they would be found
 * within EVENT_LOOK_MS. */
enum { EVENT_LOOK_MS = 1000 };
void event_added(void);

/* The loop's relay. After the stores were opened; closing waits, on a fiber, before they are closed. */
void event_open_loop(struct loop *loop);
void event_close_loop(struct loop *loop);

/* When the event of this id happened, in microseconds since 1970; -1: the id is none of an event's. */
int64_t event_id_us(struct str id);

/* The channel on which an account's events are published, and a message there: for each event a line, "seq id name body". */
enum { EVENT_CHANNEL_SIZE = 32 };
struct str event_channel(char out[EVENT_CHANNEL_SIZE], int64_t account_id);

/* One event as subscribers get it. */
struct event_told {
    int64_t seq;
    struct str id;
    struct str name;
    struct str body; /* {"id","type","timestamp","data"} */
};
/* Takes the next one off a message. False at its end, and when it is none of ours. */
bool event_next(struct str *message, struct event_told *event);

/* ---- reading ---- */

/* Stands before an account's first event; no event has it. */
#define EVENT_START "evt_00000000000000000000000000000"

/* The last event of each account, in the order of `accounts`: 0 and EVENT_START where there was none yet. One statement, however
 * many. Waits. */
struct event_head {
    int64_t seq;
    char id[EVENT_ID_SIZE];
};
int event_heads(const int64_t *accounts, size_t count, struct event_head *heads) MUST_USE;
/* Those after `seq`, at most `most`, in order. Waits. */
int event_read_after(struct arena *arena, int64_t account_id, int64_t seq, size_t most,
                     struct event_told **events, size_t *count) MUST_USE;

/*
 * Where a client that has had the event `id` goes on: *seq is its number. -ESTALE: what came after it is not all kept any more, *seq is in front of the oldest that is. -ENOENT: it is none of this
 * account's, or none at all. Waits.
 */
int event_place(int64_t account_id, struct str id, int64_t *seq) MUST_USE;

/* Removes what is older than EVENT_DAYS, some thousands at a time. Waits. */
int event_forget(void) MUST_USE;

#endif
