/* The tests' surface. */
#include "handlers/test/test.h"

static const char *const prefixes[] = {"/test", NULL};

static const struct route routes[] = {
    {"*", "/test/echo", test_echo, "What was received: method, target, body_bytes", ROUTE_UNREPEATED, 0,
     NULL},
    {"GET", "/test/websocket", test_websocket, "A WebSocket that sends back what it gets", 0, 0, NULL},
    {"GET", "/test/broadcast", test_subscribe, "A WebSocket that gets what is posted here", 0, 0, NULL},
    {"POST", "/test/broadcast", test_broadcast, "Sends the body to all of them", ROUTE_UNREPEATED, 0, NULL},
    {"GET", "/test/events", test_events, "Numbered server-sent events (count, pause_ms)", 0, 0, NULL},
};

const struct surface surface_test = {
    .name = "test",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_text,
};
