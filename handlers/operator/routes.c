/* The operator API's table: a route for each verb that is not the command line's alone. */
#include "handlers/operator/operator.h"

#include "core/operator/operator.h"

static const char *const prefixes[] = {"/admin", NULL};

#define ROUTE_READS(noun, verb, help)                                                                        \
    {"GET", "/admin/v1/" #noun "/" #verb, operator_handle, help, 0, 0, NULL},
#define ROUTE_CHANGES(noun, verb, help)                                                                      \
    {"POST", "/admin/v1/" #noun "/" #verb, operator_handle, help, 0, 0, NULL},
#define ROUTE_LOCAL(noun, verb, help)
#define ROUTE(noun, verb, how, help) ROUTE_##how(noun, verb, help)

/* clang-format off */
static const struct route routes[] = {OPERATOR_VERBS(ROUTE)};
/* clang-format on */

const struct surface surface_operator = {
    .name = "operator",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_object,
    .authenticator = &auth_operator,
};
