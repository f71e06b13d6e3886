/* What a client says of a webhook endpoint, and whether that can be. */
#include "handlers/webhook_input.h"

#include "core/domain/event/event.h"
#include "core/net/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

void webhook_failure(struct request *request, int result)
{
    switch (result) {
    case -ENOENT: reply_error(request, ERROR_NOT_FOUND, "Webhook not found"); return;
    case -ENOSPC: reply_error(request, ERROR_WEBHOOK_LIMIT, NULL); return;
    case -EPERM:
        reply_error(request, ERROR_FORBIDDEN, "This webhook endpoint was disabled by the operator");
        return;
    case -EBUSY: reply_error(request, ERROR_WEBHOOK_DISABLED, NULL); return;
    default: reply_failure(request, result);
    }
}

bool webhook_ref(struct request *request, struct str *ref)
{
    *ref = request->params[0];
    bool fine = ref->size == WEBHOOK_REF_SIZE - 1 && str_is_base62_behind(*ref, STR("we_"));
    if (!fine)
        webhook_failure(request, -ENOENT);
    return fine;
}

/* ---- the URL ---- */

/* An address as the C library reads it, in all the spellings that it knows: "2130706433", "0x7f.1", "127.1". */
static bool read_address(struct arena *arena, struct str host, struct sockaddr_storage *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    const char *text = arena_dup(arena, host.at, host.size);
    memset(address, 0, sizeof *address);
    if (inet_aton(text, &v4->sin_addr)) {
        v4->sin_family = AF_INET;
        return true;
    }
    v6->sin6_family = AF_INET6;
    return inet_pton(AF_INET6, text, &v6->sin6_addr) == 1;
}

/* "localhost" and below it is loopback whatever a resolver says (RFC 6761 §6.3). */
static bool is_localhost(struct str host)
{
    static const struct str name = {"localhost", 9};
    if (host.size < name.size)
        return false;
    struct str end = str_of(host.at + host.size - name.size, name.size);
    return str_equal_nocase(end, name) &&
           (host.size == name.size || host.at[host.size - name.size - 1] == '.');
}

/* What can be seen at once is refused at once. What a name stands for is asked when a socket is opened, each time anew. */
static bool host_is_allowed(struct request *request, struct str host)
{
    struct sockaddr_storage address;
    if (host.at[host.size - 1] == '.')
        host.size--;
    if (is_localhost(host))
        host = STR("127.0.0.1");
    return !read_address(request->arena, host, &address) || guard_allows((const struct sockaddr *)&address);
}

static const char *url_problem(struct request *request, struct str url)
{
    struct url_target target;
    struct str host;
    int port;
    if (url.size > WEBHOOK_URL_MAX)
        return "url is too long";
    if (url.size == 0 || url.at[0] == '/' || url_parse_target(url, &target))
        return "url must be an absolute http or https URL without a user, a password or a fragment";
    if (!url_parse_host(target.authority, &host, &port))
        return "url's host can't be read";
    return host_is_allowed(request, host) ? NULL : "url's address is none that webhooks are delivered to";
}

static bool read_url(struct request *request, const struct json *body, struct str *url)
{
    if (!request_string(request, body, "url", 1, WEBHOOK_URL_MAX, url))
        return false;
    const char *problem = url_problem(request, *url);
    if (problem)
        reply_invalid(request, problem);
    return !problem;
}

/* ---- other members ---- */

static bool read_events(struct request *request, const struct json *body, struct webhook_change *change)
{
    const struct json *list = json_member(body, "events");
    size_t count = json_count(list);
    struct str *events = arena_alloc(request->arena, (WEBHOOK_EVENTS_MAX + 1) * sizeof *events);
    bool fine = json_type_of(list) == JSON_ARRAY && count > 0 && count <= WEBHOOK_EVENTS_MAX;
    for (size_t i = 0; fine && i < count; i++) {
        events[i] = json_string(json_item(list, i));
        fine = events[i].at;
    }
    change->events = events;
    change->event_count = count;
    struct str wrong;
    if (!fine)
        reply_invalid(request,
                      "events must be a list of 1 to 50 names like job.completed, kinds like job.*, or *");
    else if (!event_validate_patterns(events, count, &wrong))
        reply_invalid(request, event_unknown(request->arena, wrong));
    else
        return true;
    return false;
}

static const char *surface_find(struct str name)
{
    for (size_t i = 0; webhook_surfaces[i]; i++)
        if (str_equal(name, str_from(webhook_surfaces[i])))
            return webhook_surfaces[i];
    return NULL;
}

bool webhook_read_surface(struct request *request, const struct json *body, const char *name,
                          struct str *surface)
{
    *surface = STR_NONE;
    if (!request_has(body, name))
        return true;
    const char *found = surface_find(json_string(json_member(body, name)));
    *surface = str_from(found);
    if (!found)
        reply_invalid(request,
                      arena_printf(request->arena, "%s must be session, inference, provision or gpu", name));
    return found;
}

/* null, or an empty list: every surface's. */
static bool read_surfaces(struct request *request, const struct json *body, struct webhook_change *change)
{
    enum { SURFACES_MAX = 8 };
    const struct json *list = json_member(body, "surfaces");
    struct str *surfaces = arena_alloc(request->arena, SURFACES_MAX * sizeof *surfaces);
    size_t count = json_count(list);
    if (!list)
        return true;
    bool fine =
        json_type_of(list) == JSON_NULL || (json_type_of(list) == JSON_ARRAY && count <= SURFACES_MAX);
    for (size_t i = 0; fine && i < count; i++) {
        surfaces[i] = str_from(surface_find(json_string(json_item(list, i))));
        fine = surfaces[i].at;
    }
    change->surfaces = surfaces;
    change->surface_count = count;
    if (!fine)
        reply_invalid(request, "surfaces must be a list of session, inference, provision and gpu");
    return fine;
}

static bool is_printable(struct str text, unsigned char least)
{
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.at[i] < least || text.at[i] == 0x7f)
            return false;
    return true;
}

static bool read_description(struct request *request, const struct json *body, struct str *description)
{
    *description = STR_NONE;
    if (!json_member(body, "description"))
        return true;
    if (!request_has(body, "description")) {
        *description = STR("");
        return true;
    }
    if (!request_string(request, body, "description", 0, WEBHOOK_DESCRIPTION_MAX, description))
        return false;
    bool fine = is_printable(*description, 0x20);
    if (!fine)
        reply_invalid(request, "description must not contain control characters");
    return fine;
}

bool webhook_read_secret(struct request *request, const struct json *body, struct str *secret)
{
    *secret = STR_NONE;
    if (!request_has(body, "secret"))
        return true;
    if (!request_string(request, body, "secret", WEBHOOK_SECRET_LEAST, WEBHOOK_SECRET_MOST, secret))
        return false;
    bool fine = is_printable(*secret, 0x21);
    if (!fine)
        reply_invalid(request, "secret must not contain spaces or control characters");
    return fine;
}

static bool read_switch(struct request *request, const struct json *body, const char *name, bool *value,
                        const bool **given)
{
    if (!request_has(body, name))
        return true;
    *given = value;
    return request_flag(request, body, name, value);
}

bool webhook_read(struct request *request, bool is_new, struct webhook_input *input)
{
    const struct json *body = request_json(request);
    *input = (struct webhook_input){.change = {.url = STR_NONE}, .secret = STR_NONE};
    struct webhook_change *change = &input->change;
    return body && (!(is_new || request_has(body, "url")) || read_url(request, body, &change->url)) &&
           (!(is_new || request_has(body, "events")) || read_events(request, body, change)) &&
           read_surfaces(request, body, change) && read_description(request, body, &change->description) &&
           read_switch(request, body, "ordered", &input->ordered, &change->ordered) &&
           read_switch(request, body, "enabled", &input->enabled, &change->enabled) &&
           (!is_new || webhook_read_secret(request, body, &input->secret));
}
