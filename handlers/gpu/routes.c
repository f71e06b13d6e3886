/* The gpu surface: its table and its errors. */
#include "handlers/gpu/gpu.h"

#include "handlers/webhooks.h"

static const char *const prefixes[] = {"/api/webhooks", NULL};

#define GPU_ROUTE(method, path, ...)                                                                         \
    {                                                                                                        \
        method, "/api" path, __VA_ARGS__                                                                     \
    }

static const struct route routes[] = {
    WEBHOOK_ROUTES(GPU_ROUTE, SCOPE_BIT(SCOPE_GPU_WEBHOOKS)),
};

const struct surface surface_gpu = {
    .name = "gpu",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_details,
    .authenticator = &auth_bearer,
    .takes_curl_json = true,
};
