#ifndef WORKERS_WEBHOOK_SEND_H
#define WORKERS_WEBHOOK_SEND_H

#include "core/domain/event/webhook_drain.h"

enum { WEBHOOK_ANSWER_KEPT = 4096, WEBHOOK_ANSWER_READ = 65536, WEBHOOK_GONE = 410 };

/* One attempt: sends the item, signed, and sets what came of it; texts live in `kept`, what is needed on the way in `scratch`. Waits,
 * for WEBHOOK_TIMEOUT_MS at most. */
void webhook_send(const struct webhook_target *target, struct webhook_item *item, struct arena *kept,
                  struct arena *scratch);

/* The beginning of an answer as it is kept: at most WEBHOOK_ANSWER_KEPT bytes, as UTF-8 without NUL; what is neither becomes
 * U+FFFD. Absent for an empty one. */
struct str webhook_answer_kept(struct arena *arena, struct str body);

#endif
