#ifndef CORE_DOMAIN_INSTANCE_INTERNAL_H
#define CORE_DOMAIN_INSTANCE_INTERNAL_H

#include "core/domain/instance.h"

/* Adds (or finds) the job of the instance in the row at hand; part of the statement that makes it needed. */
#define JOB_ADD_SCALE "job_add('scale', 'scale', account_id::text, id, NULL, 0)"
#define JOB_ADD_DELIVER "job_add('deliver', 'deliver', account_id::text, id, NULL, 0)"

int instance_changed(struct arena *arena, struct pg_rows *rows, enum job_kind kind, struct instance *instance)
    MUST_USE;

#endif
