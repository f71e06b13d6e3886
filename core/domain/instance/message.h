#ifndef CORE_DOMAIN_INSTANCE_MESSAGE_H
#define CORE_DOMAIN_INSTANCE_MESSAGE_H

#include "core/domain/instance/instance.h"

/*
 * Messages from a user to their pod. Accepted means committed. They are handed over in the order of acceptance, one
 * at a time per instance, by whoever holds the instance's delivery lease: the reactor that accepted one while the
 * pod was awake and nothing waited, else a worker's deliver job. The lease has a fence, so a holder that comes back
 * late records nothing. A pod sees a message again only if the holder died between its answer and the commit; the
 * message's id tells it so.
 *
 *                 the pod answered 2xx
 *   queued ───────────────────────────────▶ delivered
 *     │
 *     └── it answered something else, or MESSAGE_TRIES found no answer ──▶ failed
 */

enum { MESSAGE_ID_SIZE = 32, MESSAGE_TEXT_MAX = 65536, MESSAGE_TRIES = 5 };

enum message_state { MESSAGE_QUEUED, MESSAGE_DELIVERED, MESSAGE_FAILED };

struct message {
    struct str id;
    struct str text;
    struct str answer; /* JSON of the pod, or of ours saying why it failed; absent while queued */
    int64_t seq;
    int64_t tries;
    int64_t created_ms;
    int64_t delivered_ms; /* 0 while queued */
    enum message_state state;
};

const char *message_state_name(enum message_state state);

/* An accepted message. */
struct accepted {
    struct instance instance;
    bool direct; /* the caller holds the lease and hands it to the pod now */
};

/* A new message's id, so that its bell can be listened for before it is accepted. */
void message_new_id(char out[MESSAGE_ID_SIZE]);

/* Accepts a message and asks for the pod to be awake. Waits for the commit. `notify` is the bell to ring when it is
 * delivered or failed. -ENOENT, -EBUSY (failed instance), -ENOSPC (too many wait), and the errors of pg_write. */
int message_accept(struct arena *arena, int64_t account_id, struct str instance_id, struct str id,
                   struct str text, struct str notify, struct accepted *accepted) MUST_USE;

/* -ENOENT. Waits. */
int message_get(struct arena *arena, struct str id, struct message *message) MUST_USE;

/* Those of an instance, oldest first, after the cursor (0: from the first). `next`: 0 when this is the last page. */
int message_list(struct arena *arena, struct str instance_id, int64_t after, int64_t limit,
                 struct message **messages, size_t *count, int64_t *next) MUST_USE;

/* ---- delivery ---- */

/* What stands behind a lease: proves in each statement that it still is ours. */
struct delivery {
    struct str instance_id;
    int64_t fence;
    int64_t port;
};

/* Takes the lease of an awake instance with waiting messages. -ENOENT: nothing to do, or another holds it. */
int delivery_take(struct arena *arena, struct str instance_id, struct delivery *delivery) MUST_USE;
/* The oldest that waits; -ENOENT. */
int delivery_next(struct arena *arena, const struct delivery *delivery, struct message *message) MUST_USE;

/* What came of handing a message to the pod (core/net/pod_call.h). */
struct pod_answer {
    int result; /* 0, or why there was no answer */
    int status; /* HTTP */
    struct str body;
};

/*
 * Records what came of one message; then the lease goes on (`keep`) or ends. Waits, without regard to cancellation:
 * the pod has seen the message. 0: it is delivered or failed for good, message->state and ->answer are set, and *left
 * says how many wait. -EAGAIN: the pod could not be reached or gave no answer: the message waits for another try, the
 * lease is given up, and a scale job looks after the pod. -ESTALE: the lease was lost, nothing was recorded.
 */
int delivery_record(struct arena *arena, const struct delivery *delivery, struct message *message,
                    const struct pod_answer *answer, bool keep, int64_t *left) MUST_USE;

#endif
