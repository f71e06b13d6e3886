#ifndef WORKERS_AI_AI_H
#define WORKERS_AI_AI_H

#include "core/run/loop.h"

#include <stdint.h>

/* The worker's part in AI calls: it asks providers, passes on what they say, and sees to it that every call is settled. */

/* Begins to take calls, AI_WORKER_CALLS at once, as soon as the catalogue has been read. Needs stores, catalogue and events open. */
void ai_open(struct loop *loop);
/* Takes no more; those that run may end until the deadline, then go to other workers, or end where something was delivered. Waits. */
void ai_drain(uint64_t deadline_ns);
/* After ai_drain, when it was opened. Waits until what has ended is settled, or PostgreSQL has been away for too long: another worker
 * does it then. */
void ai_close(void);

#endif
