#ifndef PROTO_PROMETHEUS_H
#define PROTO_PROMETHEUS_H

#include "core/base/str.h"

/* What a scrape is answered with: "Content-Type: " PROMETHEUS_TYPE. */
#define PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Appends all rows of core/base/metrics.h in the Prometheus text exposition format 0.0.4. Times are in seconds; of a
 * row with a label, the slots that have a name. */
void prometheus_write(struct buf *out);

#endif
