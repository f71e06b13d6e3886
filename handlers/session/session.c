/* A session as a resource: create, list, status, delete. */
#include "handlers/session/session.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/domain/instance/visit.h"
#include "core/domain/instance/workspace.h"
#include "core/store/bell.h"

#include <errno.h>
#include <stdio.h>

enum { DELETE_WAIT_MS = 15000 };

/* User ids stand in listings and logs: no control characters. */
static bool is_printable(struct str text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((unsigned char)text.at[i] < 0x20 || text.at[i] == 0x7f)
            return false;
    return true;
}

/* POST /session/create */
void session_create(struct request *request)
{
    const struct json *body = request_json(request);
    struct str user_id;
    if (!body || !request_string(request, body, "user_id", 1, INSTANCE_USER_MAX, &user_id))
        return;
    if (!is_printable(user_id)) {
        reply_error(request, ERROR_INVALID_PARAMETER, "user_id must not contain control characters");
        return;
    }
    struct instance instance;
    int result =
        instance_create(request->arena, request->principal.account_id, "session", user_id, &instance);
    if (result) {
        session_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "uuid", instance.id);
    json_put_str(&reply.json, "user_id", instance.user_id);
    json_put_text(&reply.json, "status", "created");
    json_put_time(&reply.json, "created_at", instance.created_ms);
    reply_end(&reply, 201);
}

static int replicas(const struct instance *instance)
{
    return instance->state == INSTANCE_AWAKE || instance->state == INSTANCE_DRAINING ? 1 : 0;
}

/* ":8080" of a Host field; empty when it names no port. */
static struct str port_of(struct str host)
{
    size_t at = host.size;
    while (at > 0 && host.at[at - 1] >= '0' && host.at[at - 1] <= '9')
        at--;
    return at > 0 && at < host.size && host.at[at - 1] == ':' ? str_of(host.at + at - 1, host.size - at + 1)
                                                              : STR("");
}

/* The link that opens the session's workspace in a browser, by the way on which this request has come. */
static struct str workspace_url(struct request *request, struct str uuid)
{
    char token[WORKSPACE_TOKEN_SIZE];
    struct buf url = {0};
    workspace_sign(token, WORKSPACE_LINK, uuid, clock_wall_s() + config->link_s);
    buf_add_str(&url, gate_scheme(request));
    buf_add_literal(&url, "://");
    workspace_put_host(&url, uuid);
    buf_add_str(&url, port_of(request->http->head->host));
    buf_add_literal(&url, "/?" WORKSPACE_PARAM "=");
    buf_add_text(&url, token);
    struct str text = arena_str(request->arena, buf_str(&url));
    buf_clear(&url);
    return text;
}

/* GET /session/{uuid}/status */
void session_status(struct request *request)
{
    struct str uuid;
    if (!session_uuid(request, &uuid))
        return;
    struct instance instance;
    int64_t requests;
    int64_t sockets;
    int result =
        visits_show(request->arena, request->principal.account_id, uuid, &instance, &requests, &sockets);
    if (result) {
        session_failure(request, result);
        return;
    }
    bool delivers = instance.lease_until_ms > clock_wall_ms();
    bool awake = instance.state == INSTANCE_AWAKE;
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "uuid", instance.id);
    json_key(&reply.json, "session");
    json_open(&reply.json, '{');
    json_put_str(&reply.json, "user_id", instance.user_id);
    json_put_text(&reply.json, "status", session_status_name(&instance));
    json_put_time(&reply.json, "created_at", instance.created_ms);
    json_put_time(&reply.json, "last_activity", instance.last_activity_ms);
    if (instance.fail_reason.at)
        json_put_str(&reply.json, "failure", instance.fail_reason);
    json_close(&reply.json, '}');
    json_put_int(&reply.json, "queue_length", instance.queued);
    json_put_int(&reply.json, "replicas", replicas(&instance));
    json_put_int(&reply.json, "connections", requests + sockets + delivers);
    json_put_time(&reply.json, "sleeps_at",
                  awake ? instance.last_activity_ms + config->idle_timeout_s * 1000 : 0);
    json_put_str(&reply.json, "workspace_url", workspace_url(request, uuid));
    json_put_text(&reply.json, "timestamp", clock_iso_now());
    reply_end(&reply, 200);
}

/* GET /session */
void session_list(struct request *request)
{
    int64_t limit;
    int64_t cursor;
    if (!request_page(request, SESSION_PAGE_MAX, INT64_MAX, &limit, &cursor))
        return;
    struct str user_id = STR_NONE;
    if (url_query(request->arena, request->query, "user_id", &user_id) && !str_is_utf8(user_id)) {
        reply_error(request, ERROR_INVALID_PARAMETER, "user_id must be UTF-8");
        return;
    }
    struct instance *instances;
    size_t count;
    int64_t next;
    int result = instance_list(request->arena, request->principal.account_id, "session", user_id, cursor,
                               limit, &instances, &count, &next);
    if (result) {
        session_failure(request, result);
        return;
    }
    struct reply reply;
    reply_list_begin(&reply, request, NULL, "sessions");
    for (size_t i = 0; i < count; i++) {
        json_open(&reply.json, '{');
        json_put_str(&reply.json, "uuid", instances[i].id);
        json_put_str(&reply.json, "user_id", instances[i].user_id);
        json_put_text(&reply.json, "status", session_status_name(&instances[i]));
        json_put_int(&reply.json, "replicas", replicas(&instances[i]));
        json_put_time(&reply.json, "created_at", instances[i].created_ms);
        json_put_time(&reply.json, "last_activity", instances[i].last_activity_ms);
        json_close(&reply.json, '}');
    }
    reply_list_end(&reply, next);
}

/* Waits until the worker has removed everything, so that the answer's words are true; for a bounded time, since the
 * deletion itself is committed. */
static void wait_until_gone(struct bell_ear *ear, struct str uuid)
{
    uint64_t deadline_ns = clock_in_ms(DELETE_WAIT_MS);
    bool gone = false;
    while (!gone && clock_now_ns() < deadline_ns) {
        uint64_t look_ns = clock_in_ms(BELL_LOOK_MS);
        if (bell_ear_wait(ear, "the pod's end", look_ns < deadline_ns ? look_ns : deadline_ns) ==
                -ECANCELED ||
            instance_is_gone(uuid, &gone))
            return;
    }
}

static void put_terminated(struct json_out *out, struct str uuid)
{
    json_put_str(out, "uuid", uuid);
    json_put_text(out, "status", "terminated");
    json_put_text(out, "message", "Session and all resources deleted");
}

/* The worker sees the deletion only once it is committed. */
static bool commit(struct request *request, struct str uuid)
{
    struct reply reply;
    if (!request->idempotency)
        return true;
    reply_begin(&reply, request);
    put_terminated(&reply.json, uuid);
    return reply_commit(&reply, 200);
}

/* DELETE /session/{uuid} */
void session_delete(struct request *request)
{
    struct str uuid;
    if (!session_uuid(request, &uuid))
        return;
    struct bell_ear ear;
    bell_ear_open(&ear, uuid);
    int result =
        instance_delete(request->arena, request->principal.account_id, uuid, str_from(bell_address()));
    bool committed = result == 0 && commit(request, uuid);
    if (committed)
        wait_until_gone(&ear, uuid);
    bell_ear_close(&ear);
    if (result)
        session_failure(request, result);
    if (!committed)
        return;
    struct reply reply;
    reply_begin(&reply, request);
    put_terminated(&reply.json, uuid);
    reply_end(&reply, 200);
}
