/*
 * Who may visit a workspace: whoever brings a signed link or the cookie that it was exchanged for. A browser that
 * follows a link is sent to the same place without it, so that the link stays neither in its address bar nor in a
 * Referer; everybody else is served at once.
 *
 * Browsers bring cookies along whoever has made them ask. So what changes something, and every upgrade, must come
 * from a page of this workspace or of CORS_ORIGINS, where an Origin says from where it comes.
 */
#include "handlers/workspace/workspace.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/instance/instance.h"
#include "core/domain/instance/workspace.h"

/* ---- link and cookie ---- */

static bool has_good_link(const struct request *request, struct str instance, int64_t now_s)
{
    struct str query = request->query;
    struct str token;
    while (head_next_param(&query, STR(WORKSPACE_PARAM), &token))
        if (workspace_verify(WORKSPACE_LINK, instance, token, now_s))
            return true;
    return false;
}

/* The cookie may be there several times: the pods of others can set cookies for the domain above. */
static bool has_good_cookie(const struct http1_head *head, struct str instance, int64_t now_s)
{
    for (size_t i = 0; i < head->count; i++) {
        struct str cookies = head->fields[i].value;
        struct str token;
        if (!str_equal_nocase(head->fields[i].name, STR("cookie")))
            continue;
        while (head_next_cookie(&cookies, STR(WORKSPACE_COOKIE), &token))
            if (workspace_verify(WORKSPACE_VISIT, instance, token, now_s))
                return true;
    }
    return false;
}

static void set_cookie(struct request *request, struct str instance, int64_t now_s)
{
    char token[WORKSPACE_TOKEN_SIZE];
    workspace_sign(token, WORKSPACE_VISIT, instance, now_s + config->cookie_s);
    bool secure = str_equal(gate_scheme(request), STR("https"));
    reply_header(request, "Set-Cookie",
                 arena_printf(request->arena,
                              WORKSPACE_COOKIE "=%s; Path=/; HttpOnly; SameSite=Lax; Max-Age=%lld%s", token,
                              (long long)config->cookie_s, secure ? "; Secure" : ""));
}

/* A path that begins with two slashes would be taken for another host: "/." before it changes nothing but that. */
static void redirect(struct request *request, struct str target)
{
    bool two = target.size > 1 && (target.at[1] == '/' || target.at[1] == '\\');
    reply_header(request, "Location",
                 arena_printf(request->arena, "%s%.*s", two ? "/." : "", STR_ARG(target)));
    reply_header(request, "Cache-Control", "no-store");
    reply_header(request, "Referrer-Policy", "no-referrer");
    http_answer(request->http, 302, STR_NONE);
}

/* The target in origin form, or "*", without our link; as it came when there was none. */
static struct str pod_target(struct request *request)
{
    struct str query = head_query_without(request->arena, request->query, STR(WORKSPACE_PARAM));
    struct str target = request->http->head->target;
    if (query.at == request->query.at && query.size == request->query.size && target.at[0] == '/')
        return target;
    struct str path = request->path;
    return query.at ? str_from(arena_printf(request->arena, "%.*s?%.*s", STR_ARG(path), STR_ARG(query)))
                    : path;
}

/* ---- methods ---- */

static bool is_safe(struct str method)
{
    return str_equal(method, STR("GET")) || str_equal(method, STR("HEAD")) ||
           str_equal(method, STR("OPTIONS"));
}

/* ---- all together ---- */

/* A link or cookie outlives a ban. While nobody can say, it counts: those who are banned have no pod that is awake. */
static bool is_banned(struct str instance)
{
    bool banned;
    int result = instance_owner_is_banned(instance, &banned);
    return result == 0 && banned;
}

bool access_admit(struct request *request, struct guest *guest)
{
    const struct http1_head *head = request->http->head;
    int64_t now_s = clock_wall_s();
    struct str instance = request->instance;
    /* To HTTP/2 without TLS nobody switches: RFC 9113 has taken it out. */
    guest->upgrade = head->upgrade.at && !http1_list_has(head->upgrade, "h2c");
    bool by_link = has_good_link(request, instance, now_s);
    if (!by_link && !has_good_cookie(head, instance, now_s)) {
        page_reply(request, PAGE_NO_ACCESS);
        return false;
    }
    if (is_banned(instance)) {
        reply_error(request, ERROR_BANNED, NULL);
        return false;
    }
    if ((guest->upgrade || !is_safe(head->method)) && !gate_origin_is_fine(request)) {
        reply_error(request, ERROR_FORBIDDEN, "Requests from this origin are not allowed");
        return false;
    }
    guest->target = pod_target(request);
    if (by_link)
        set_cookie(request, instance, now_s);
    if (by_link && page_is_wanted(head)) {
        redirect(request, guest->target);
        return false;
    }
    return true;
}
