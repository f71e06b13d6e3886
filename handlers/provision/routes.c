/* The provision surface: its table and its errors. */
#include "handlers/provision/provision.h"

static const char *const prefixes[] = {"/oauth", "/.well-known/oauth-authorization-server", "/v1/provision",
                                       NULL};

/* OAuth's endpoints know their clients by themselves, and what may come once only, they know by itself. */
enum { OAUTH_ROUTE = ROUTE_OPEN | ROUTE_UNREPEATED };

static const struct route routes[] = {
    {"GET", "/.well-known/oauth-authorization-server", oauth_metadata,
     "What the OAuth server can do (RFC 8414)", ROUTE_OPEN | ROUTE_UNLIMITED, 0, NULL},
    {"GET", "/oauth/authorize", oauth_authorize, "Ask a user for consent: a page", OAUTH_ROUTE, 0, "oauth"},
    {"POST", "/oauth/authorize", oauth_authorize_answer, "The page's form: log in, allow or deny",
     OAUTH_ROUTE, 0, "oauth-login"},
    {"POST", "/oauth/token", oauth_token, "A code, a refresh token or a client's own right for tokens",
     OAUTH_ROUTE, 0, "oauth"},
    {"POST", "/oauth/revoke", oauth_token_revoke, "End a token (RFC 7009)", OAUTH_ROUTE, 0, "oauth"},
    {"POST", "/oauth/introspect", oauth_token_introspect,
     "What a token of the client's is good for (RFC 7662)", OAUTH_ROUTE, 0, "oauth"},
};

/* The seed's own words for what other surfaces call otherwise. */
static const char *word_of(int status, const char *code)
{
    if (status == 401)
        return "invalid_credentials";
    return status == 429 ? "rate_limited" : code;
}

static void render_error(struct buf *out, int status, const char *code, const char *message)
{
    render_error_details(out, status, word_of(status, code), message);
}

const struct surface surface_provision = {
    .name = "provision",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error,
    .authenticator = &auth_oauth,
};
