#ifndef CORE_DOMAIN_INSTANCE_INTERNAL_H
#define CORE_DOMAIN_INSTANCE_INTERNAL_H

#include "core/domain/instance/instance.h"
#include "core/store/redis.h"

/* Adds (or finds) the job of the instance in the row at hand; part of the statement that makes it needed. */
#define JOB_ADD_SCALE "job_add('scale', 'scale', account_id::text, id, NULL, 0)"
#define JOB_ADD_DELIVER "job_add('deliver', 'deliver', account_id::text, id, NULL, 0)"

/* Adds an event of the instance in the row at hand; as the last column of a statement that changes it. The rest of its data is
 * when, under the name `at`. Then event_added is called. */
#define EVENT_ADD(name, at)                                                                                  \
    "event_add(account_id, surface, '" name "', jsonb_build_object('uuid', id, 'user_id', user_id, '" at     \
    "', event_time(now())))"

/* Reads one row of INSTANCE_COLUMNS; -ENOENT. */
int instance_read(struct arena *arena, const struct pg_statement *statement, const struct pg_value *values,
                  size_t count, struct instance *instance) MUST_USE;
/* Takes what a statement of the kind "columns, job id" has returned: publishes, rings, frees. -ENOENT: no row. */
int instance_changed(struct arena *arena, struct pg_rows *rows, enum job_kind kind, struct instance *instance)
    MUST_USE;

/* The key of its snapshot in Redis. */
struct str instance_snapshot_key(struct arena *arena, struct str id);
/* What its GET has brought, or else the row from PostgreSQL. Waits. -ENOENT also for a deleted one. */
int instance_from_snapshot(struct arena *arena, struct str id, const struct redis_step *get,
                           struct instance *instance) MUST_USE;

#endif
