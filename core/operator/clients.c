/* OAuth clients. */
#include "core/base/crypto.h"
#include "core/domain/identity/oauth.h"
#include "core/operator/verbs.h"

#include <errno.h>

#define CLIENT_ROW                                                                                           \
    {                                                                                                        \
        .name = "client", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its client_id"                \
    }

static void put_client(struct operator_call *call, const struct oauth_client *client, const char *secret)
{
    struct json_out *out = call->out;
    struct buf scopes_text = {0};
    scope_print(&scopes_text, client->scopes);
    json_open(out, '{');
    json_put_str(out, "client_id", client->id);
    json_put_str(out, "account", client->account);
    json_put_str(out, "name", client->name);
    operator_put_words(out, "redirect_uris", client->redirect_uris.at ? client->redirect_uris : STR(""));
    operator_put_words(out, "grants", client->grants.at ? client->grants : STR(""));
    operator_put_words(out, "scopes", scopes_text.at ? buf_str(&scopes_text) : STR(""));
    json_put_bool(out, "public", client->is_public);
    json_put_bool(out, "test", client->is_test);
    operator_put_time(out, "created_at", client->created_ms);
    operator_put_time(out, "revoked_at", client->revoked_ms);
    if (secret)
        json_put_text(out, "client_secret", secret);
    json_close(out, '}');
    buf_clear(&scopes_text);
}

static int no_such_client(struct operator_call *call)
{
    return operator_fail(call, -ENOENT, "there is no client %.*s", STR_ARG(operator_text(call, "client")));
}

const struct operator_argument operator_client_create_arguments[] = {
    {.name = "account",
     .flags = OPERATOR_REQUIRED,
     .help = "whose it is: name, e-mail address, user_… or number; made when there is none of that name"},
    {.name = "name", .flags = OPERATOR_REQUIRED, .help = "what users are told that asks them"},
    {.name = "redirect_uri", .help = "where users come back to; several are separated by spaces"},
    {.name = "scopes", .help = "what it may ask for, separated by spaces (all)"},
    {.name = "public", .type = OPERATOR_SWITCH, .help = "it can keep no secret (an app, a page)"},
    {.name = "test", .type = OPERATOR_SWITCH, .help = "for the sandbox"},
    {.name = NULL},
};

static int read_options(struct operator_call *call, struct oauth_client_options *options, struct str *uris)
{
    struct str scopes_text = operator_text(call, "scopes");
    *options = (struct oauth_client_options){
        .name = operator_text(call, "name"),
        .redirect_uris = uris,
        .is_public = operator_switch(call, "public"),
        .is_test = operator_switch(call, "test"),
    };
    if (str_utf8_length(options->name) > OPERATOR_NAME_MAX)
        return operator_fail(call, -EINVAL, "name has %d characters at most", OPERATOR_NAME_MAX);
    if (scopes_text.at && !(scope_parse(scopes_text, "provision", &options->scopes) && options->scopes)) {
        struct buf known = {0};
        scope_print(&known, scope_all("provision"));
        int result = operator_fail(call, -EINVAL, "scopes are: %.*s", STR_ARG(buf_str(&known)));
        buf_clear(&known);
        return result;
    }
    return operator_words(call, "redirect_uri", uris, OAUTH_URIS_MAX, &options->uri_count);
}

int operator_client_create(struct operator_call *call)
{
    struct account account;
    struct oauth_client_options options;
    struct oauth_client client;
    struct str uris[OAUTH_URIS_MAX];
    char secret[SECRET_TEXT_MAX];
    int result = read_options(call, &options, uris);
    if (result == 0)
        result = operator_account_or_new(call, &account);
    if (result)
        return result;
    result = oauth_client_create(call->arena, account.id, &options, secret, &client);
    if (result == -EINVAL)
        return operator_fail(
            call, result,
            "redirect_uri must be https, http on a loopback host, or a scheme of an app's own, "
            "without a fragment; a public client needs one");
    if (result)
        return result;
    call->shows_secret = secret[0];
    put_client(call, &client, secret[0] ? secret : NULL);
    crypto_wipe(secret, sizeof secret);
    return 0;
}

const struct operator_argument operator_client_list_arguments[] = {
    {.name = NULL},
};

int operator_client_list(struct operator_call *call)
{
    struct oauth_client *clients;
    size_t count;
    int result = oauth_client_list(call->arena, &clients, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++)
        put_client(call, &clients[i], NULL);
    json_close(call->out, ']');
    return 0;
}

const struct operator_argument operator_client_revoke_arguments[] = {
    CLIENT_ROW,
    {.name = NULL},
};

int operator_client_revoke(struct operator_call *call)
{
    struct str id = operator_text(call, "client");
    int result = oauth_client_revoke(id);
    if (result == -ENOENT)
        return no_such_client(call);
    if (result)
        return result;
    json_open(call->out, '{');
    json_put_str(call->out, "client_id", id);
    json_put_bool(call->out, "revoked", true);
    json_close(call->out, '}');
    return 0;
}

const struct operator_argument operator_client_rotate_arguments[] = {
    CLIENT_ROW,
    {.name = NULL},
};

int operator_client_rotate(struct operator_call *call)
{
    struct str id = operator_text(call, "client");
    char secret[SECRET_TEXT_MAX];
    int result = oauth_client_rotate(id, secret);
    if (result == -ENOENT)
        return operator_fail(call, result, "there is no client %.*s that has a secret", STR_ARG(id));
    if (result)
        return result;
    call->shows_secret = true;
    json_open(call->out, '{');
    json_put_str(call->out, "client_id", id);
    json_put_text(call->out, "client_secret", secret);
    json_close(call->out, '}');
    crypto_wipe(secret, sizeof secret);
    return 0;
}
