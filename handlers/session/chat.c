/* Messages to a pod and their answers. */
#include "handlers/session/session.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/domain/instance/message.h"
#include "core/net/pod_call.h"
#include "core/store/bell.h"

#include <errno.h>

/* The pod is awake and nothing waits: the message goes straight to it. It is accepted, so it is handed over even
 * when the client leaves meanwhile. True when message->state says what came of it. */
static bool deliver(struct request *request, const struct accepted *accepted, struct message *message)
{
    const struct delivery delivery = {
        .instance_id = accepted->instance.id,
        .fence = accepted->instance.lease_fence,
        .port = accepted->instance.port,
    };
    struct fetch_answer answer = {0};
    int64_t left;
    fiber_hold();
    int result =
        pod_chat(request->arena, delivery.port, delivery.instance_id, message->id, message->text, &answer);
    const struct pod_answer outcome = {.result = result, .status = answer.status, .body = answer.body};
    result = delivery_record(request->arena, &delivery, message, &outcome, false, &left);
    fiber_release();
    metric_add(M_MESSAGES_DIRECT, result == 0);
    return result == 0;
}

/* A worker delivers it: waits for the bell, and looks by itself now and then. True when the message is settled. */
static bool wait_for_answer(struct request *request, struct bell_ear *ear, struct message *message,
                            uint64_t wait_ms)
{
    uint64_t deadline_ns = clock_in_ms(wait_ms);
    while (clock_now_ns() < deadline_ns) {
        uint64_t look_ns = clock_in_ms(BELL_LOOK_MS);
        int result = bell_ear_wait(ear, "the pod's answer", look_ns < deadline_ns ? look_ns : deadline_ns);
        if (result == -ECANCELED)
            return false;
        if (message_get(request->arena, message->id, message) == 0 && message->state != MESSAGE_QUEUED)
            return true;
    }
    return false;
}

/* The pod's JSON has its answer in "response", or is the answer. */
static void put_response(struct request *request, struct json_out *out, struct str answer)
{
    const char *error;
    const struct json *value = json_read(request->arena, answer, &error);
    const struct json *response = json_member(value, "response");
    if (value)
        json_put_value(out, "response", response ? response : value);
    else
        json_put_null(out, "response");
}

static struct str failure_text(struct request *request, struct str answer)
{
    const char *error;
    struct str text = json_string(json_member(json_read(request->arena, answer, &error), "error"));
    return text.at ? text : STR("the pod failed");
}

static void reply_settled(struct request *request, struct str uuid, const struct message *message)
{
    if (message->state == MESSAGE_FAILED) {
        struct str text = failure_text(request, message->answer);
        reply_error(request, ERROR_BAD_GATEWAY, arena_printf(request->arena, "%.*s", STR_ARG(text)));
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "uuid", uuid);
    json_put_text(&reply.json, "status", "delivered");
    json_put_text(&reply.json, "message", "Message delivered");
    json_put_str(&reply.json, "message_id", message->id);
    put_response(request, &reply.json, message->answer);
    reply_end(&reply, 200);
}

static void put_queued(struct json_out *out, struct str uuid, struct str message_id, bool awake)
{
    json_put_str(out, "uuid", uuid);
    json_put_text(out, "status", "queued");
    json_put_text(out, "message", awake ? "Pod is busy, message queued" : "Pod is waking up, message queued");
    json_put_str(out, "message_id", message_id);
}

static void reply_queued(struct request *request, struct str uuid, struct str message_id, bool awake)
{
    struct reply reply;
    reply_begin(&reply, request);
    put_queued(&reply.json, uuid, message_id, awake);
    reply_end(&reply, 202);
}

/* From here on the message is there for others to see, and a repetition is told no less than that. */
static bool commit(struct request *request, struct str uuid, struct str message_id, bool awake)
{
    struct reply reply;
    if (!request->idempotency)
        return true;
    reply_begin(&reply, request);
    put_queued(&reply.json, uuid, message_id, awake);
    return reply_commit(&reply, 202);
}

static void chat(struct request *request, struct bell_ear *ear, struct str uuid, struct message *message)
{
    int64_t wait_s = request_prefer_wait(request, SESSION_WAIT_MAX_S);
    struct accepted accepted;
    int result = message_accept(request->arena, request->principal.account_id, uuid, message->id,
                                message->text, str_from(bell_address()), &accepted);
    if (result) {
        session_failure(request, result);
        return;
    }
    bool awake = accepted.instance.state == INSTANCE_AWAKE;
    if (wait_s)
        reply_header(request, "Preference-Applied",
                     arena_printf(request->arena, "wait=%lld", (long long)wait_s));
    if (!commit(request, uuid, message->id, awake))
        return;
    bool settled = accepted.direct && deliver(request, &accepted, message);
    if (!settled && !accepted.direct) {
        uint64_t wait_ms = (uint64_t)(awake ? config->pod_answer_ms : 0);
        if (wait_ms < (uint64_t)wait_s * 1000)
            wait_ms = (uint64_t)wait_s * 1000;
        settled = wait_for_answer(request, ear, message, wait_ms);
    }
    if (settled)
        reply_settled(request, uuid, message);
    else
        reply_queued(request, uuid, message->id, awake);
}

/* POST /session/{uuid}/chat */
void session_chat(struct request *request)
{
    struct str uuid;
    if (!session_uuid(request, &uuid))
        return;
    const struct json *body = request_json(request);
    char id[MESSAGE_ID_SIZE];
    message_new_id(id);
    struct message message = {.id = arena_str(request->arena, str_from(id)), .state = MESSAGE_QUEUED};
    if (!body || !request_string(request, body, "message", 1, MESSAGE_TEXT_MAX, &message.text))
        return;
    struct bell_ear ear;
    bell_ear_open(&ear, message.id);
    chat(request, &ear, uuid, &message);
    bell_ear_close(&ear);
}

static void put_message(struct request *request, struct json_out *out, const struct message *message)
{
    json_open(out, '{');
    json_put_str(out, "message_id", message->id);
    json_put_str(out, "message", message->text);
    json_put_text(out, "status", message_state_name(message->state));
    switch (message->state) {
    case MESSAGE_QUEUED: json_put_null(out, "response"); break;
    case MESSAGE_DELIVERED: put_response(request, out, message->answer); break;
    case MESSAGE_FAILED:
        json_put_null(out, "response");
        json_put_str(out, "error", failure_text(request, message->answer));
        break;
    }
    json_put_time(out, "created_at", message->created_ms);
    json_put_time(out, "delivered_at", message->delivered_ms);
    json_close(out, '}');
}

/* GET /session/{uuid}/messages */
void session_messages(struct request *request)
{
    struct str uuid;
    int64_t limit;
    int64_t cursor;
    if (!session_uuid(request, &uuid) || !request_page(request, SESSION_PAGE_MAX, 0, &limit, &cursor))
        return;
    struct instance instance;
    int result = instance_get(request->arena, request->principal.account_id, uuid, &instance);
    struct message *messages = NULL;
    size_t count = 0;
    int64_t next = 0;
    if (result == 0)
        result = message_list(request->arena, uuid, cursor, limit, &messages, &count, &next);
    if (result) {
        session_failure(request, result);
        return;
    }
    struct reply reply;
    reply_list_begin(&reply, request, NULL, "messages");
    for (size_t i = 0; i < count; i++)
        put_message(request, &reply.json, &messages[i]);
    reply_list_end(&reply, next);
}
