#ifndef CORE_DOMAIN_EVENT_WEBHOOK_INTERNAL_H
#define CORE_DOMAIN_EVENT_WEBHOOK_INTERNAL_H

#include "core/domain/event/webhook.h"
#include "core/store/pg.h"

/* What the files of webhooks share; nobody else includes it. */

#define WEBHOOK_MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
#define WEBHOOK_SECRET_PLACE "webhook_endpoint.secret"
#define WEBHOOK_OLD_SECRET_PLACE "webhook_endpoint.old_secret"

/* A new secret: "whsec_" and 32 random bytes in base64. */
struct str webhook_secret_make(struct arena *arena);

/* Columns of a `w`, with `a` its account; then what webhook_from_row reads them into. */
#define WEBHOOK_COLUMNS                                                                                                        \
    "w.id, w.ref, w.account_id, a.name, w.url, w.description, array_to_string(w.events, ' '), "                                \
    "array_to_string(w.surfaces, ' '), w.ordered, w.enabled, w.disabled_reason, " WEBHOOK_MS("w.disabled_at") ", " WEBHOOK_MS( \
        "w.failing_since") ", "                                                                                                \
                           "CASE WHEN w.paused_until > now() THEN " WEBHOOK_MS(                                                \
                               "w.paused_until") " END, "                                                                      \
                                                 "CASE WHEN w.old_secret_until > now() THEN " WEBHOOK_MS(                      \
                                                     "w.old_secret_until") " END, " WEBHOOK_MS("w.created_at") ", " WEBHOOK_MS("w.updated_at")
enum { WEBHOOK_COLUMN_COUNT = 17 };
void webhook_from_row(struct arena *arena, const struct pg_rows *rows, size_t row, struct webhook *webhook);

/* Rings the job whose number a statement has returned in this column, NULL or not, once it is committed. */
void webhook_ring_job(const struct pg_rows *rows, size_t row, int column, int64_t account_id);

#endif
