/* Waking and sleeping on request. */
#include "handlers/session/session.h"

/* POST /session/{uuid}/wake */
void session_wake(struct request *request)
{
    struct str uuid;
    if (!session_uuid(request, &uuid))
        return;
    struct instance instance;
    int result = instance_wake(request->arena, request->principal.account_id, uuid, &instance);
    if (result) {
        session_failure(request, result);
        return;
    }
    bool awake = instance.state == INSTANCE_AWAKE;
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "uuid", instance.id);
    json_put_text(&reply.json, "action", "wake");
    json_put_text(&reply.json, "status", awake ? "active" : "queued");
    reply_end(&reply, awake ? 200 : 202);
}

/* POST /session/{uuid}/sleep */
void session_sleep(struct request *request)
{
    struct str uuid;
    if (!session_uuid(request, &uuid))
        return;
    struct instance instance;
    int result = instance_sleep(request->arena, request->principal.account_id, uuid, &instance);
    if (result) {
        session_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "uuid", instance.id);
    json_put_text(&reply.json, "action", "sleep");
    json_put_text(&reply.json, "status", "sleeping");
    json_put_text(&reply.json, "message", "Pod queued for sleep");
    reply_end(&reply, 202);
}
