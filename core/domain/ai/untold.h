#ifndef CORE_DOMAIN_AI_UNTOLD_H
#define CORE_DOMAIN_AI_UNTOLD_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Ends of calls that Redis could not be told of, because it was away for longer than a call's fiber waits for it: the worker's beat
 * tells it when it is back, and with that the call's place and what was reserved for it are free. The worker alone uses this, on its
 * loop. What dies with the process is found by another worker, as all that it held.
 */

/* Copies the words of the step. When too much is kept already it is left out: its money comes back with its lease. */
void ai_untold_keep(struct str id, const struct str *words, size_t count);
bool ai_untold_has(struct str id);
/* Its end is committed. False: it is not kept here; true: it is taken out of Redis once that has been told. */
bool ai_untold_settled(struct str id);
/* Tells what is kept, for a moment at most. Waits. */
void ai_untold_tell(void);
/* Drops what is left. */
void ai_untold_clear(void);

#endif
