/* The pod's surface: only its own machine reaches it, so it asks for no key. */
#include "handlers/pod/pod.h"

static const struct route routes[] = {
    {"GET", "/", pod_page, "A page for people", 0, 0, NULL},
    {"GET", "/health", pod_health, "200 once the pod is ready", 0, 0, NULL},
    {"POST", "/chat", pod_chat_message, "A message from the user", ROUTE_UNREPEATED, 0, NULL},
};

const struct surface surface_pod = {
    .name = "pod",
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_text,
};
