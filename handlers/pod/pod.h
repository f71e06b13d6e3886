#ifndef HANDLERS_POD_POD_H
#define HANDLERS_POD_POD_H

#include "core/gate/gate.h"

/*
 * The pod that comes along: what `wakegate pod` serves on $PORT (contract.md, "what a pod is"). It answers each
 * message by saying it back with its number; that is enough to see a session wake, work and remember.
 */
extern const struct surface surface_pod;

void pod_page(struct request *request);
void pod_health(struct request *request);
void pod_chat_message(struct request *request);

/* The journal: which messages were answered, and how. It outlives the pod, so that a message that comes again gets
 * the answer it got. */
int journal_open(const char *folder) MUST_USE;
void journal_close(void);
/* The answer given to the message, or absent. Valid until the next journal_add. */
struct str journal_find(struct str message_id);
/* How many messages were answered in this workspace. */
int64_t journal_count(void);
/* Remembers; on the disk when it returns. Waits. */
int journal_add(struct str message_id, struct str answer) MUST_USE;

#endif
