#ifndef WORKERS_TREASURY_H
#define WORKERS_TREASURY_H

#include "core/run/loop.h"

/* What happens to money by itself: idle and lost leases come back (core/domain/money/lease.h), subscriptions are renewed
 * (core/domain/money/subscription.h). Two workers that do it at once do each other no harm. */
void treasury_open(struct loop *loop);
/* Waits until its fiber has ended. */
void treasury_close(void);

#endif
