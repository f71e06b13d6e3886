/* The operator's surface. */
#include "handlers/ops/ops.h"

static const struct route routes[] = {
    {"GET", "/health", ops_health, "Health of the server and its stores", 0, 0, NULL},
    {"GET", "/livez", ops_live, "200 while the process runs its loop", 0, 0, NULL},
    {"GET", "/readyz", ops_ready, "200 while it can take traffic", 0, 0, NULL},
    {"GET", "/metrics", ops_metrics, "Prometheus text format (bearer METRICS_TOKEN)", 0, 0, NULL},
    {"GET", "/openapi.json", ops_openapi, "This API's description (OpenAPI 3.1)", 0, 0, NULL},
    {"GET", "/docs", ops_docs, "The same to read, without script", 0, 0, NULL},
};

const struct surface surface_ops = {
    .name = "ops",
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_object,
};
