#ifndef CORE_DOMAIN_EVENT_BACKLOG_H
#define CORE_DOMAIN_EVENT_BACKLOG_H

#include "core/base/check.h"

/*
 * What waits in PostgreSQL to be told, as gauges: events for their relay, deliveries of webhooks for an attempt. The counts are
 * bounded, so that to ask costs the same when a million wait.
 */

enum backlog_endpoints { BACKLOG_ENABLED, BACKLOG_PAUSED, BACKLOG_DISABLED };

/* Before threads. */
void backlog_name_metrics(void);
/* Sets the gauges. Waits. */
int backlog_measure(void) MUST_USE;

#endif
