/* The workspace surface: its hosts, its one route, its errors. */
#include "handlers/workspace/workspace.h"

#include "core/domain/instance/workspace.h"

static bool serves_host(struct request *request, struct str host)
{
    request->instance = workspace_of_host(request->arena, host);
    return request->instance.at != NULL;
}

static void visit_workspace(struct request *request)
{
    struct guest guest;
    fiber_set_name("workspace");
    if (access_admit(request, &guest))
        proxy_run(request, &guest);
}

static const struct route routes[] = {
    {"*", "/*", visit_workspace, "A session's pod, woken for it: HTTP and WebSocket", 0, 0, NULL},
};

const struct surface surface_workspace = {
    .name = "workspace",
    .serves_host = serves_host,
    .hosts = "vs-code-{uuid}.DOMAIN",
    .access = "link",
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_text,
};
