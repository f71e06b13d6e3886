/* Tokens: given, ended, asked about. See provision.h. */
#include "handlers/provision/provision.h"

#include <errno.h>

/* A request for tokens. */
struct exchange {
    struct oauth_client client;
    struct str client_id;
    struct str client_secret;
    struct str grant_type;
    struct str code;
    struct str redirect_uri;
    struct str verifier;
    struct str refresh;
    struct str scope;
    struct oauth_tokens tokens;
};

/* ---- grants: 0; -EINVAL: a parameter is missing; -EPERM: invalid_scope; -EACCES: invalid_grant ---- */

static int give_for_code(struct exchange *x)
{
    if (!x->code.at)
        return -EINVAL;
    return oauth_exchange_code(&x->client, x->code, x->redirect_uri, x->verifier, &x->tokens);
}

/* The scopes that are asked for, 0 when none are. */
static bool read_scope(const struct exchange *x, scope_set *wanted)
{
    *wanted = 0;
    return !x->scope.at || (scope_parse(x->scope, "provision", wanted) && *wanted);
}

static int give_for_refresh(struct exchange *x)
{
    scope_set wanted;
    if (!x->refresh.at)
        return -EINVAL;
    if (!read_scope(x, &wanted))
        return -EPERM;
    return oauth_exchange_refresh(&x->client, x->refresh, wanted, &x->tokens);
}

static int give_to_client(struct exchange *x)
{
    scope_set wanted;
    if (!read_scope(x, &wanted))
        return -EPERM;
    return oauth_client_tokens(&x->client, wanted, &x->tokens);
}

static const struct grant {
    const char *name;
    int (*give)(struct exchange *x);
    const char *needs; /* what it can't do without */
} grants[] = {
    {"authorization_code", give_for_code, "code is required"},
    {"refresh_token", give_for_refresh, "refresh_token is required"},
    {"client_credentials", give_to_client, NULL},
};

static const struct grant *find_grant(struct str name)
{
    for (size_t i = 0; i < ARRAY_SIZE(grants); i++)
        if (str_equal(name, str_from(grants[i].name)))
            return &grants[i];
    return NULL;
}

/* ---- the answer ---- */

static void put_scopes(struct json_out *json, scope_set set)
{
    struct buf names = {0};
    scope_print(&names, set);
    json_put_str(json, "scope", buf_str(&names));
    buf_clear(&names);
}

static void reply_tokens(struct request *request, const struct oauth_tokens *tokens)
{
    struct reply reply;
    oauth_no_store(request);
    reply_begin(&reply, request);
    json_put_text(&reply.json, "access_token", tokens->access);
    json_put_text(&reply.json, "token_type", "Bearer");
    json_put_int(&reply.json, "expires_in", tokens->expires_in_s);
    if (tokens->refresh[0])
        json_put_text(&reply.json, "refresh_token", tokens->refresh);
    put_scopes(&reply.json, tokens->scopes);
    reply_end(&reply, 200);
}

static void reply_exchange(struct request *request, const struct exchange *x, const struct grant *grant,
                           int result)
{
    switch (result) {
    case 0: reply_tokens(request, &x->tokens); return;
    case -EINVAL: oauth_error(request, 400, "invalid_request", grant->needs); return;
    case -EPERM:
        oauth_error(request, 400, "invalid_scope", "A scope is unknown, or more than the client may have");
        return;
    case -EACCES:
        oauth_error(request, 400, "invalid_grant",
                    "The code or token is invalid, has expired, was used before, or is another client's");
        return;
    default: oauth_failure(request, result);
    }
}

static bool read_exchange(struct request *request, struct exchange *x)
{
    const struct input_field fields[] = {
        {"client_id", &x->client_id},       {"client_secret", &x->client_secret},
        {"grant_type", &x->grant_type},     {"code", &x->code},
        {"redirect_uri", &x->redirect_uri}, {"code_verifier", &x->verifier},
        {"refresh_token", &x->refresh},     {"scope", &x->scope},
    };
    struct input input;
    if (!input_body(request, &input))
        return false;
    const char *problem = input_take(request, &input, fields, ARRAY_SIZE(fields));
    if (problem)
        oauth_error(request, 400, "invalid_request", problem);
    return !problem;
}

void oauth_token(struct request *request)
{
    struct exchange x = {.client_id = STR_NONE};
    if (!read_exchange(request, &x) || !oauth_client_of(request, x.client_id, x.client_secret, &x.client))
        return;
    if (!x.grant_type.at) {
        oauth_error(request, 400, "invalid_request", "grant_type is required");
        return;
    }
    const struct grant *grant = find_grant(x.grant_type);
    if (!grant) {
        oauth_error(request, 400, "unsupported_grant_type",
                    "grant_type must be authorization_code, refresh_token or client_credentials");
        return;
    }
    if (!oauth_client_has_grant(&x.client, x.grant_type)) {
        oauth_error(request, 400, "unauthorized_client", "This client may not use this grant");
        return;
    }
    reply_exchange(request, &x, grant, grant->give(&x));
    crypto_wipe(&x.tokens, sizeof x.tokens);
}

/* ---- revocation and introspection ---- */

/* The client and its "token" parameter; what kind it is, the token says itself, so its hint is not looked at. */
static bool read_token(struct request *request, struct oauth_client *client, struct str *token)
{
    struct str id;
    struct str secret;
    const struct input_field fields[] = {{"client_id", &id}, {"client_secret", &secret}, {"token", token}};
    struct input input;
    if (!input_body(request, &input))
        return false;
    const char *problem = input_take(request, &input, fields, ARRAY_SIZE(fields));
    if (problem) {
        oauth_error(request, 400, "invalid_request", problem);
        return false;
    }
    if (!oauth_client_of(request, id, secret, client))
        return false;
    if (!token->at)
        oauth_error(request, 400, "invalid_request", "token is required");
    return token->at != NULL;
}

void oauth_token_revoke(struct request *request)
{
    struct oauth_client client;
    struct str token;
    if (!read_token(request, &client, &token))
        return;
    int result = oauth_revoke(&client, token);
    if (result) {
        oauth_failure(request, result);
        return;
    }
    oauth_no_store(request);
    reply_body(request, 200, NULL, STR_NONE);
}

static void put_info(struct json_out *json, const struct oauth_token_info *info, struct str issuer)
{
    put_scopes(json, info->scopes);
    json_put_str(json, "client_id", info->client_id);
    json_put_str(json, "sub", info->account_ref);
    json_put_text(json, "token_type", info->is_refresh ? "refresh_token" : "Bearer");
    json_put_int(json, "iat", info->issued_s);
    json_put_int(json, "exp", info->expires_s);
    json_put_str(json, "iss", issuer);
}

/* RFC 7662 §2.1: not for everybody, so not for clients without a secret. */
void oauth_token_introspect(struct request *request)
{
    struct oauth_client client;
    struct oauth_token_info info;
    struct str token;
    if (!read_token(request, &client, &token))
        return;
    if (client.is_public) {
        oauth_error(request, 401, "invalid_client", "Clients without a secret can't ask about tokens");
        return;
    }
    int result = oauth_introspect(request->arena, &client, token, &info);
    if (result) {
        oauth_failure(request, result);
        return;
    }
    struct reply reply;
    oauth_no_store(request);
    reply_begin(&reply, request);
    json_put_bool(&reply.json, "active", info.active);
    if (info.active)
        put_info(&reply.json, &info, gate_origin_of(request));
    reply_end(&reply, 200);
}
