/*
 * Whether a request may do what it asks for: see the order in gate.h. Every refusal is answered here or by what this
 * calls.
 */
#include "core/gate/gate.h"

#include "core/domain/audit.h"

#include <errno.h>

/* ---- who ---- */

static void refuse(struct request *request, const struct authenticator *by, int result)
{
    bool missing = result == -ENOKEY;
    if (by->challenge)
        reply_header(request, "WWW-Authenticate",
                     missing ? by->challenge
                             : arena_printf(request->arena, "%s, error=\"invalid_token\"", by->challenge));
    reply_error(request, missing ? by->missing : by->wrong, NULL);
}

static bool authenticate(struct request *request, const struct authenticator *by)
{
    if (by->is_known && !by->is_known(request) && gate_address_is_spent(request))
        return false;
    int result = by->verify(request);
    if (result == 0 || (result == -ENOKEY && request->route->flags & ROUTE_ASKS_ITSELF))
        return true;
    if (result != -ENOKEY && result != -EACCES)
        reply_failure(request, result);
    else if (gate_limit_address(request))
        refuse(request, by, result);
    return false;
}

static bool comes_from_allowed(const struct request *request)
{
    const struct principal *principal = &request->principal;
    struct address address;
    if (principal->network_count == 0)
        return true;
    if (!gate_client_address(request, &address))
        return false;
    for (size_t i = 0; i < principal->network_count; i++)
        if (network_contains(&principal->networks[i], &address))
            return true;
    return false;
}

static bool is_welcome(struct request *request)
{
    bool banned = request->principal.is_banned;
    if (!banned && comes_from_allowed(request))
        return true;
    if (gate_limit_address(request))
        reply_error(request, banned ? ERROR_BANNED : ERROR_ADDRESS, NULL);
    return false;
}

/* ---- what ---- */

static bool has_scope(struct request *request, const struct authenticator *by)
{
    scope_set needed = request->route->scope;
    if ((request->principal.scopes & needed) == needed)
        return true;
    struct buf names = {0};
    scope_print(&names, needed);
    if (by->challenge)
        reply_header(request, "WWW-Authenticate",
                     arena_printf(request->arena, "%s, error=\"insufficient_scope\", scope=\"%.*s\"",
                                  by->challenge, STR_ARG(buf_str(&names))));
    reply_error(
        request, ERROR_SCOPE,
        arena_printf(request->arena, "The key or token lacks the scope %.*s", STR_ARG(buf_str(&names))));
    buf_clear(&names);
    return false;
}

/* For the audit record. Only what may change something has one. */
static void introduce(struct request *request)
{
    const struct principal *principal = &request->principal;
    struct str method = request->http->head->method;
    struct address address;
    char *text = arena_alloc(request->arena, ADDRESS_TEXT_SIZE);
    text[0] = '\0';
    if (str_equal(method, STR("GET")) || str_equal(method, STR("HEAD")))
        return;
    if (gate_client_address(request, &address))
        address_format(&address, text);
    const char *actor = "anonymous";
    switch (principal->kind) {
    case PRINCIPAL_NOBODY: break;
    case PRINCIPAL_KEY: actor = arena_printf(request->arena, "key %lld", (long long)principal->key_id); break;
    case PRINCIPAL_LOGIN:
        actor = arena_printf(request->arena, "login %lld", (long long)principal->login_id);
        break;
    case PRINCIPAL_CLIENT: actor = arena_printf(request->arena, "client %s", principal->client_id); break;
    case PRINCIPAL_OPERATOR: actor = "operator"; break;
    case PRINCIPAL_POD: actor = arena_printf(request->arena, "pod %s", principal->instance_id); break;
    }
    request->who = (struct audit_who){{str_from(actor), str_from(text), request->id}};
    audit_set(&request->who);
}

bool gate_welcomes(struct request *request, enum api_error *error)
{
    const struct principal *principal = &request->principal;
    scope_set needed = request->route->scope;
    bool is_fine = false;
    if (principal->is_banned)
        *error = ERROR_BANNED;
    else if (!comes_from_allowed(request))
        *error = ERROR_ADDRESS;
    else if ((principal->scopes & needed) != needed)
        *error = ERROR_SCOPE;
    else if (!gate_limit_late(request))
        *error = ERROR_RATE_LIMITED;
    else
        is_fine = true;
    return is_fine;
}

bool gate_admit(struct request *request)
{
    const struct authenticator *by =
        request->route->flags & ROUTE_OPEN ? NULL : request->surface->authenticator;
    if (by && (!authenticate(request, by) || !is_welcome(request)))
        return false;
    if (!gate_limit(request))
        return false;
    bool is_known = by && request->principal.kind != PRINCIPAL_NOBODY;
    if (is_known && (!has_scope(request, by) || !gate_signature(request)))
        return false;
    introduce(request);
    return request->route->flags & ROUTE_SLOW_START ? gate_repeat_key(request) : gate_repeat(request);
}
