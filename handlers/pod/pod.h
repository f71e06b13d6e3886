#ifndef HANDLERS_POD_POD_H
#define HANDLERS_POD_POD_H

#include "core/gate/gate.h"

/*
 * The pod that comes along: what `wakegate pod` serves on $PORT (contract.md, "what a pod is"). It asks a model by the
 * gateway that started it, as a chat that goes on; where it knows of no gateway it says back what it hears, with a number, which is
 * enough to see a session wake, work and remember.
 */
extern const struct surface surface_pod;

void pod_page(struct request *request);
void pod_health(struct request *request);
void pod_chat_message(struct request *request);

/* The gateway, as the environment names it: WAKEGATE_URL, WAKEGATE_TOKEN, WAKEGATE_MODEL. */
bool gateway_is_known(void);
/* The model's answer to `text`, after what was said before. The same message asked of again gets the answer that it got, and pays
 * for one. 0 and *answer; -EAGAIN: not now, it may be asked again; -EPROTO: it
 * refuses, or fails. With these *answer says why, for people. Waits. */
int gateway_chat(struct arena *arena, struct str id, struct str text, struct str *answer) MUST_USE;

/* The journal: which messages were answered, and how. It outlives the pod, so that a message that comes again gets
 * the answer it got. */
int journal_open(const char *folder) MUST_USE;
void journal_close(void);
/* The answer given to the message, or absent. Valid until the next journal_add. */
struct str journal_find(struct str message_id);
/* How many messages were answered in this workspace. */
int64_t journal_count(void);
/* What was said last, oldest first: calls back with each message and its answer, the last `most` of them. */
void journal_each(size_t most, void (*each)(struct str message, struct str answer, void *arg), void *arg);
/* Remembers; on the disk when it returns. Waits. */
int journal_add(struct str message_id, struct str message, struct str answer) MUST_USE;

#endif
