/* The session surface: its table, its key, its errors. */
#include "handlers/session/session.h"

#include <errno.h>

static const char *const prefixes[] = {"/session", NULL};

#define READ SCOPE_BIT(SCOPE_SESSION_READ)
#define WRITE SCOPE_BIT(SCOPE_SESSION_WRITE)

static const struct route routes[] = {
    {"POST", "/session/create", session_create, "Make a session; its pod sleeps", 0, WRITE, NULL},
    {"GET", "/session", session_list, "The key's sessions, newest first (?user_id=, limit, cursor)", 0, READ,
     NULL},
    {"GET", "/session/{uuid}/status", session_status, "State, pods that are ready, messages that wait", 0,
     READ, NULL},
    {"POST", "/session/{uuid}/wake", session_wake, "Wake the pod", 0, WRITE, NULL},
    {"POST", "/session/{uuid}/sleep", session_sleep, "Put the pod to sleep once it has no work", 0, WRITE,
     NULL},
    {"POST", "/session/{uuid}/chat", session_chat,
     "A message to the pod; kept while it sleeps (Prefer: wait=N)", 0, WRITE, NULL},
    {"GET", "/session/{uuid}/messages", session_messages,
     "Messages and answers, oldest first (limit, cursor)", 0, READ, NULL},
    {"DELETE", "/session/{uuid}", session_delete, "End the session, its pod and its workspace", 0, WRITE,
     NULL},
};

const struct surface surface_session = {
    .name = "session",
    .prefixes = prefixes,
    .routes = routes,
    .route_count = ARRAY_SIZE(routes),
    .render_error = render_error_text,
    .authenticator = &auth_api_key,
};

/* Ids are checked before they become part of a key or a statement. */
bool session_uuid(struct request *request, struct str *uuid)
{
    *uuid = request->params[0];
    bool fine = instance_id_is_valid(*uuid);
    if (!fine)
        session_failure(request, -ENOENT);
    return fine;
}

void session_failure(struct request *request, int result)
{
    switch (result) {
    case -ENOENT: reply_error(request, ERROR_NOT_FOUND, "Session not found"); return;
    case -EBUSY:
        reply_header(request, "Retry-After", "10");
        reply_error(request, ERROR_UNAVAILABLE, "The pod could not be started; try again later");
        return;
    case -ENOSPC:
        reply_header(request, "Retry-After", "10");
        reply_error(request, ERROR_RATE_LIMITED, "Too many messages are waiting for this pod");
        return;
    default: reply_failure(request, result);
    }
}

const char *session_status_name(const struct instance *instance)
{
    switch (instance->state) {
    case INSTANCE_ASLEEP:
        if (instance->desired)
            return "waking";
        return instance->woken ? "sleeping" : "created";
    case INSTANCE_WAKING: return "waking";
    case INSTANCE_AWAKE: return "active";
    case INSTANCE_DRAINING: return "sleeping";
    case INSTANCE_FAILED: return "failed";
    }
    UNREACHABLE();
}
