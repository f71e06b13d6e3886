#ifndef CORE_UP_POSTGRES_H
#define CORE_UP_POSTGRES_H

#include "core/base/str.h"
#include "core/up_part.h"
#include "core/up_place.h"

#include <stdbool.h>

/*
 * The private PostgreSQL of `wakegate up`: a unix socket in a closed folder only, whoever gets to it is trusted.
 * Its first start makes the cluster and the database.
 */

extern const struct part_kind up_postgres; /* the part's context is its struct up_place */

/* True before the first start: there is no database yet. */
bool up_postgres_is_new(const struct up_place *place);

/* Appends its DATABASE_URL. */
void up_postgres_url(const struct up_place *place, struct buf *url);

#endif
