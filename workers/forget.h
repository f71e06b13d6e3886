#ifndef WORKERS_FORGET_H
#define WORKERS_FORGET_H

#include "core/run/loop.h"

/* Removes what PostgreSQL need no longer keep: audit records past AUDIT_DAYS, answers kept for repeated requests, log-ins, OAuth
 * codes and tokens that ended, leases of money that are done. A table of such noun's own functions, each gone through once a minute; two workers that do it at
 * once do each other no harm. */
void forget_open(struct loop *loop);
/* Waits until its fiber has ended. */
void forget_close(void);

#endif
