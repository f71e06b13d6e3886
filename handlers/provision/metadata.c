/* What the OAuth server can do (RFC 8414): see provision.h. */
#include "handlers/provision/provision.h"

static void put_list(struct json_out *json, const char *name, const char *const *words)
{
    json_key(json, name);
    json_open(json, '[');
    for (; *words; words++)
        json_put_text(json, NULL, *words);
    json_close(json, ']');
}

static void put_scopes(struct json_out *json)
{
    json_key(json, "scopes_supported");
    json_open(json, '[');
    for (size_t i = 0; i < SCOPE_COUNT; i++)
        if (strcmp(scopes[i].surface, "provision") == 0)
            json_put_text(json, NULL, scopes[i].name);
    json_close(json, ']');
}

void oauth_metadata(struct request *request)
{
    static const struct {
        const char *name;
        const char *path;
    } endpoints[] = {
        {"authorization_endpoint", "/oauth/authorize"},
        {"token_endpoint", "/oauth/token"},
        {"revocation_endpoint", "/oauth/revoke"},
        {"introspection_endpoint", "/oauth/introspect"},
    };
    static const struct {
        const char *name;
        const char *words[5];
    } lists[] = {
        {"response_types_supported", {"code"}},
        {"response_modes_supported", {"query"}},
        {"grant_types_supported", {"authorization_code", "refresh_token", "client_credentials"}},
        {"code_challenge_methods_supported", {"S256"}},
        {"token_endpoint_auth_methods_supported", {"client_secret_basic", "client_secret_post", "none"}},
        {"revocation_endpoint_auth_methods_supported", {"client_secret_basic", "client_secret_post", "none"}},
        {"introspection_endpoint_auth_methods_supported", {"client_secret_basic", "client_secret_post"}},
    };
    struct str issuer = gate_origin_of(request);
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "issuer", issuer);
    for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
        json_put_text(&reply.json, endpoints[i].name,
                      arena_printf(request->arena, "%.*s%s", STR_ARG(issuer), endpoints[i].path));
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        put_list(&reply.json, lists[i].name, lists[i].words);
    put_scopes(&reply.json);
    json_put_bool(&reply.json, "authorization_response_iss_parameter_supported", true);
    reply_end(&reply, 200);
}
