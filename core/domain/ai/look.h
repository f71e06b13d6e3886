#ifndef CORE_DOMAIN_AI_LOOK_H
#define CORE_DOMAIN_AI_LOOK_H

#include "core/base/arena.h"
#include "core/domain/ai/job.h"

/*
 * One AI job as it is at this moment, wherever that stands: in Redis while it waits or runs, or has ended a moment ago, else in its row.
 * A call whose client waits has no row before it ends.
 */

/* -ENOENT: the account has none of that id. Waits. */
int ai_look(struct arena *arena, int64_t account_id, struct str id, struct ai_job *job) MUST_USE;

#endif
