#ifndef CORE_UP_REDIS_H
#define CORE_UP_REDIS_H

#include "core/base/str.h"
#include "core/up_part.h"
#include "core/up_place.h"

/* The private Redis of `wakegate up`: a unix socket only, nothing evicted, its commands on disk within a second. */

extern const struct part_kind up_redis; /* the part's context is its struct up_place */

/* Appends its REDIS_URL. */
void up_redis_url(const struct up_place *place, struct buf *url);

#endif
