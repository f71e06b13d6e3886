/* The operator's surface. */
#include "handlers/ops/ops.h"

static const struct route routes[] = {
    {"GET", "/health", ops_health, "Health of the server and its stores", 0},
    {"GET", "/livez", ops_live, "200 while the process runs its loop", 0},
    {"GET", "/readyz", ops_ready, "200 while it can take traffic", 0},
    {"GET", "/metrics", ops_metrics, "Prometheus text format (bearer METRICS_TOKEN)", 0},
};

const struct surface surface_ops = {
    .name = "ops",
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_object,
};
