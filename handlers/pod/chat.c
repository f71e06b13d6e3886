/* The pod's answers. */
#include "handlers/pod/pod.h"

#include <errno.h>

enum { MESSAGE_MAX = 65536, ID_MAX = 64 };

/* GET /health */
void pod_health(struct request *request)
{
    struct reply reply;
    reply_begin(&reply, request);
    json_put_text(&reply.json, "status", "healthy");
    reply_end(&reply, 200);
}

/* A message that comes again was answered, but the one who asked died before it could say so. */
static bool answer_again(struct request *request, struct str id)
{
    struct str answer = journal_find(id);
    if (!answer.at)
        return false;
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "response", answer);
    reply_end(&reply, 200);
    return true;
}

/* 0 and the answer; else it has replied. */
static int answer_to(struct request *request, struct str id, struct str text, struct str *answer)
{
    if (!gateway_is_known()) {
        *answer = str_from(arena_printf(request->arena, "You said: %.*s (message %lld of this workspace)",
                                        STR_ARG(text), (long long)journal_count() + 1));
        return 0;
    }
    int result = gateway_chat(request->arena, id, text, answer);
    if (result == -EAGAIN)
        reply_header(request, "Retry-After", "1");
    if (result)
        reply_error(request, result == -EAGAIN ? ERROR_UNAVAILABLE : ERROR_BAD_GATEWAY,
                    arena_printf(request->arena, "%.*s", STR_ARG(*answer)));
    return result;
}

/* POST /chat */
void pod_chat_message(struct request *request)
{
    const struct json *body = request_json(request);
    struct str text;
    struct str id;
    struct str answer;
    if (!body || !request_string(request, body, "message", 1, MESSAGE_MAX, &text) ||
        !request_string(request, body, "message_id", 1, ID_MAX, &id) || answer_again(request, id) ||
        answer_to(request, id, text, &answer))
        return;
    int result = journal_add(id, text, answer);
    if (result) {
        reply_error(request, result == -ENOSPC ? ERROR_STORAGE_FULL : ERROR_INTERNAL,
                    "The workspace can't be written");
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "response", answer);
    reply_end(&reply, 200);
}
