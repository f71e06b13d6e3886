#ifndef CORE_DOMAIN_AI_CACHE_H
#define CORE_DOMAIN_AI_CACHE_H

#include "core/base/arena.h"
#include "core/base/str.h"
#include "proto/ai/request.h"

/*
 * Answers of models, to be given again to the account that got them when it asks for exactly the same (ai_request_digest). In
 * Redis, for a time; nothing is lost with them but work. Only whole answers are put there, in the
 * shape of unstreamed ones.
 */

enum { AI_CACHE_BYTES_MAX = 256 * 1024 }; /* of one answer; a longer one is not kept */

/* -ENOENT: there is none. Waits. */
int ai_cache_get(struct arena *arena, int64_t account_id, const struct ai_request *request,
                 struct str *answer) MUST_USE;
/* Keeps it for so long. Does not wait. */
void ai_cache_put(int64_t account_id, const struct ai_request *request, int64_t seconds, struct str answer);

#endif
