/* What waits, as gauges: see backlog.h. */
#include "core/domain/event/backlog.h"

#include "core/base/metrics.h"
#include "core/store/pg.h"

enum { COUNTED_MOST = 100000 };

#define ENDPOINTS(condition)                                                                                 \
    "(SELECT count(*) FROM webhook_endpoint WHERE deleted_at IS NULL AND " condition ")"
#define SECONDS(since) "coalesce(greatest(extract(epoch FROM now() - " since "), 0), 0)::bigint"

/* What an ordered endpoint holds back for an object is due, and may not go: it is not late. */
static const struct pg_statement sql_measure = {
    "backlog",
    "SELECT (SELECT count(*) FROM (SELECT FROM event_outbox LIMIT $1::bigint) AS first_ones), " SECONDS(
        "(SELECT at FROM event_outbox ORDER BY number LIMIT 1)") ", "
                                                                 "(SELECT count(*) FROM (SELECT FROM webhook_due LIMIT $1::bigint) AS first_ones), " SECONDS(
                                                                     "(SELECT min(first.next_at) FROM webhook_endpoint w CROSS JOIN LATERAL (SELECT next_at FROM webhook_due due "
                                                                     "WHERE due.endpoint_id = w.id ORDER BY next_at LIMIT 1) AS first WHERE w.enabled AND w.deleted_at IS NULL "
                                                                     "AND NOT w.ordered AND coalesce(w.paused_until < now(), true))") ", " ENDPOINTS("enabled AND coalesce(paused_until < now(), true)") ", " ENDPOINTS("enabled AND paused_until >= now()") ", " ENDPOINTS("NOT enabled")};

static const struct {
    enum metric metric;
    unsigned slot;
} gauges[] = {
    {M_EVENTS_WAITING, 0},
    {M_EVENTS_OLDEST, 0},
    {M_WEBHOOK_PENDING, 0},
    {M_WEBHOOK_OVERDUE, 0},
    {M_WEBHOOK_ENDPOINTS, BACKLOG_ENABLED},
    {M_WEBHOOK_ENDPOINTS, BACKLOG_PAUSED},
    {M_WEBHOOK_ENDPOINTS, BACKLOG_DISABLED},
};

void backlog_name_metrics(void)
{
    metric_name_slot(M_WEBHOOK_ENDPOINTS, BACKLOG_ENABLED, "enabled");
    metric_name_slot(M_WEBHOOK_ENDPOINTS, BACKLOG_PAUSED, "paused");
    metric_name_slot(M_WEBHOOK_ENDPOINTS, BACKLOG_DISABLED, "disabled");
}

int backlog_measure(void)
{
    struct pg_rows *rows;
    int result = pg_read(&sql_measure, PG_VALUES(PG_INT(COUNTED_MOST)), &rows);
    if (result)
        return result;
    for (size_t i = 0; i < ARRAY_SIZE(gauges); i++)
        metric_add_slot(gauges[i].metric, gauges[i].slot,
                        pg_i64(rows, 0, (int)i) - metric_read(gauges[i].metric, gauges[i].slot));
    pg_rows_free(rows);
    return 0;
}
