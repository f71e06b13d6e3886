#ifndef CORE_NET_POD_CALL_H
#define CORE_NET_POD_CALL_H

#include "core/net/fetch.h"

#include <stdbool.h>

/* What we say to a pod (contract.md, "what a pod is"), on 127.0.0.1. */

enum { POD_ANSWER_MAX = 1024 * 1024 };

/* POST /chat with {"message","message_id","session"}. Waits; errors as fetch. */
int pod_chat(struct arena *arena, int64_t port, struct str session, struct str message_id, struct str text,
             struct fetch_answer *answer) MUST_USE;

/* GET /health: true when the pod answers 200 within POD_HEALTH_MS. Waits. */
enum { POD_HEALTH_MS = 3000 };
bool pod_is_healthy(int64_t port);

/* GET /busy: true when the pod answers 200 within a second. Waits. */
bool pod_is_busy(int64_t port);

#endif
