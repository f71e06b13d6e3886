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

static void render_error(struct buf *out, int status, const char *code, const char *message)
{
    (void)status;
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_key(&json, "error");
    json_open(&json, '{');
    json_put_text(&json, "code", code);
    json_put_text(&json, "message", message);
    json_key(&json, "details");
    json_open(&json, '{');
    json_close(&json, '}');
    json_close(&json, '}');
    json_close(&json, '}');
    buf_add_char(out, '\n');
}

const struct surface surface_gpu = {
    .name = "gpu",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error,
    .authenticator = &auth_bearer,
    .takes_curl_json = true,
};
