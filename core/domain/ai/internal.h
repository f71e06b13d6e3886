#ifndef CORE_DOMAIN_AI_INTERNAL_H
#define CORE_DOMAIN_AI_INTERNAL_H

#include "core/domain/ai/queue.h"

/* What the two ends of the queue of AI calls share; nobody else includes it. */

enum { AI_KEY_SIZE = 64 };

/* "ai:call:{id}", in `out`. */
struct str ai_key(char out[AI_KEY_SIZE], struct str id);

#endif
