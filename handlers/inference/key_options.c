/*
 * What a new key is to be like. Nobody gives away more than he has: a key that is made or rotated has no scope that the
 * caller has not, may come from nowhere that the caller may not, holds no longer, and signs its requests if the caller must.
 */
#include "handlers/inference/inference.h"

#include "core/base/clock.h"
#include "core/domain/identity/key.h"

/* The surfaces whose keys an account makes for itself. */
static const char *const surfaces[] = {"inference", "session", "gpu"};

/* ---- what the caller may give ---- */

static bool is_within(const struct network *network, const struct principal *principal)
{
    for (size_t i = 0; i < principal->network_count; i++)
        if (network->bits >= principal->networks[i].bits &&
            network_contains(&principal->networks[i], &network->address))
            return true;
    return principal->network_count == 0;
}

/* Of another surface the caller has no scopes: only who has all of his own may make keys there. */
static bool may_give_scopes(const struct principal *principal, const char *surface, scope_set wanted)
{
    scope_set all = scope_all("inference");
    return strcmp(surface, "inference") == 0 ? (wanted & ~principal->scopes) == 0
                                             : (principal->scopes & all) == all;
}

/* 0: for ever. */
static bool may_hold_until(const struct principal *principal, int64_t expires_ms)
{
    int64_t most_ms = principal->lends_until_ms;
    return most_ms == 0 || (expires_ms > 0 && expires_ms <= most_ms);
}

void keys_refuse(struct request *request)
{
    reply_error(request, ERROR_SCOPE, "A key can't be given more than the caller has");
}

bool keys_may_hold(struct request *request, const struct key_row *key)
{
    const struct principal *principal = &request->principal;
    const char *surface = arena_dup(request->arena, key->surface.at, key->surface.size);
    struct str list = key->allow_from;
    struct str text;
    if (!may_give_scopes(principal, surface, scope_from_column(key->scopes, surface)) ||
        !may_hold_until(principal, key->expires_ms) || (principal->network_count > 0 && list.size == 0) ||
        (principal->must_sign && !key->must_sign))
        return false;
    while (list.size && str_split(&list, ' ', &text)) {
        struct network network;
        if (!network_parse(text, &network) || !is_within(&network, principal))
            return false;
    }
    return true;
}

/* ---- members of the body ---- */

static bool read_surface(struct request *request, const struct json *body, const char **surface)
{
    struct str name = json_string(json_member(body, "surface"));
    *surface = surfaces[0];
    if (!request_has(body, "surface"))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(surfaces); i++)
        if (str_equal(name, str_from(surfaces[i]))) {
            *surface = surfaces[i];
            return true;
        }
    reply_invalid(request, "surface must be inference, session or gpu");
    return false;
}

/* Absent: all that the caller has, and what comes to it later if that is everything. */
static bool read_scopes(struct request *request, const struct json *body, struct key_options *options)
{
    const struct json *list = json_member(body, "scopes");
    const struct principal *principal = &request->principal;
    options->scopes = 0;
    if (!request_has(body, "scopes")) {
        scope_set all = scope_all("inference");
        if (strcmp(options->surface, "inference") == 0 && principal->scopes != all)
            options->scopes = principal->scopes;
        if (may_give_scopes(principal, options->surface, options->scopes))
            return true;
        keys_refuse(request);
        return false;
    }
    bool fine = json_type_of(list) == JSON_ARRAY && json_count(list) > 0;
    for (size_t i = 0; fine && i < json_count(list); i++) {
        enum scope scope = scope_find(json_string(json_item(list, i)));
        fine = scope != SCOPE_COUNT && strcmp(scopes[scope].surface, options->surface) == 0;
        if (fine)
            options->scopes |= SCOPE_BIT(scope);
    }
    if (!fine)
        reply_invalid(request, "scopes must be a list of scopes that the surface has");
    else if (!may_give_scopes(principal, options->surface, options->scopes))
        keys_refuse(request);
    else
        return true;
    return false;
}

static bool read_expiry(struct request *request, const struct json *body, int64_t *expires_ms)
{
    static const int64_t longest_s = INT64_C(100) * 366 * 86400;
    static const int64_t last_ms =
        INT64_C(253402300799000); /* of the year 9999: what can be written in four digits */
    int64_t now_ms = clock_wall_ms();
    int64_t seconds;
    *expires_ms = request->principal.lends_until_ms;
    if (request_has(body, "expires_in") && request_has(body, "expires_at")) {
        reply_invalid(request, "expires_in and expires_at can't both be given");
        return false;
    }
    if (request_has(body, "expires_in")) {
        if (!json_to_i64(json_member(body, "expires_in"), &seconds) || seconds < 1 || seconds > longest_s) {
            reply_invalid(request,
                          "expires_in must be a whole number of seconds, of a hundred years at most");
            return false;
        }
        *expires_ms = now_ms + seconds * 1000;
    } else if (request_has(body, "expires_at")) {
        struct str text = json_string(json_member(body, "expires_at"));
        if (!text.at || !clock_parse_iso(text, expires_ms) || *expires_ms <= now_ms ||
            *expires_ms > last_ms) {
            reply_invalid(request, "expires_at must be a time to come, like 2030-01-31T12:00:00Z");
            return false;
        }
    }
    bool fine = may_hold_until(&request->principal, *expires_ms);
    if (!fine)
        keys_refuse(request);
    return fine;
}

/* The caller's own networks, as text, for a key that is given none. */
static void take_own_networks(struct request *request, struct str *texts, struct key_options *options)
{
    const struct principal *principal = &request->principal;
    for (size_t i = 0; i < principal->network_count; i++) {
        const struct network *network = &principal->networks[i];
        bool v4 = address_is_v4(&network->address) && network->bits >= 96;
        char text[ADDRESS_TEXT_SIZE];
        address_format(&network->address, text);
        texts[i] =
            str_from(arena_printf(request->arena, "%s/%u", text, v4 ? network->bits - 96 : network->bits));
    }
    options->allow_count = principal->network_count;
}

static bool read_networks(struct request *request, const struct json *body, struct key_options *options)
{
    const char *name = request_has(body, "ips") ? "ips" : "allow_from";
    const struct json *list = json_member(body, name);
    struct str *texts = arena_alloc(request->arena, PRINCIPAL_NETWORKS_MAX * sizeof *texts);
    options->allow_from = texts;
    if (!request_has(body, name)) {
        take_own_networks(request, texts, options);
        return true;
    }
    size_t count = json_count(list);
    bool fine = json_type_of(list) == JSON_ARRAY && count > 0 && count <= PRINCIPAL_NETWORKS_MAX &&
                !(request_has(body, "ips") && request_has(body, "allow_from"));
    bool within = true;
    for (size_t i = 0; fine && i < count; i++) {
        struct network network;
        texts[i] = json_string(json_item(list, i));
        fine = network_parse(texts[i], &network);
        within = within && fine && is_within(&network, &request->principal);
    }
    options->allow_count = count;
    if (!fine)
        reply_invalid(request,
                      "allow_from must be a list of 1 to 16 addresses or networks, like 192.0.2.0/24");
    else if (!within)
        keys_refuse(request);
    return fine && within;
}

bool keys_read_options(struct request *request, struct key_options *options)
{
    const struct json *body = request_json(request);
    if (!body || !inference_name(request, body, "name", 0, KEY_NAME_MAX, &options->name) ||
        !read_surface(request, body, &options->surface) || !read_scopes(request, body, options) ||
        !read_expiry(request, body, &options->expires_ms) || !read_networks(request, body, options) ||
        !request_flag(request, body, "signing", &options->signs) ||
        !request_flag(request, body, "require_signature", &options->must_sign))
        return false;
    options->must_sign |= request->principal.must_sign;
    options->signs |= options->must_sign;
    return true;
}
