/* HTTP calls to a pod. */
#include "core/net/pod_call.h"

#include "core/base/config.h"
#include "proto/json.h"

#include <stdio.h>

static void pod_url(char out[64], int64_t port, const char *path)
{
    snprintf(out, 64, "http://127.0.0.1:%d%s", (int)port, path);
}

int pod_chat(struct arena *arena, int64_t port, struct str session, struct str message_id, struct str text,
             struct fetch_answer *answer)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    char url[64];
    pod_url(url, port, "/chat");
    struct buf body = {0};
    struct json_out out = json_out_to(&body);
    json_open(&out, '{');
    json_put_str(&out, "message", text);
    json_put_str(&out, "message_id", message_id);
    json_put_str(&out, "session", session);
    json_close(&out, '}');
    const struct fetch_request request = {
        .method = "POST",
        .url = url,
        .body = buf_str(&body),
        .headers = headers,
        .connect_timeout_ms = (uint64_t)config->pod_connect_ms,
        .total_timeout_ms = (uint64_t)config->pod_answer_ms,
        .max_body_bytes = POD_ANSWER_MAX,
    };
    int result = fetch(&request, arena, answer);
    buf_clear(&body);
    return result;
}

static bool says_ok(int64_t port, const char *path, uint64_t timeout_ms)
{
    char url[64];
    pod_url(url, port, path);
    const struct fetch_request request = {
        .method = "GET",
        .url = url,
        .connect_timeout_ms = (uint64_t)config->pod_connect_ms,
        .total_timeout_ms = timeout_ms,
        .max_body_bytes = 65536,
    };
    struct arena arena;
    struct fetch_answer answer;
    arena_init(&arena);
    bool ok = fetch(&request, &arena, &answer) == 0 && answer.status == 200;
    arena_clear(&arena);
    return ok;
}

bool pod_is_healthy(int64_t port)
{
    return says_ok(port, "/health", POD_HEALTH_MS);
}

bool pod_is_busy(int64_t port)
{
    return says_ok(port, "/busy", 1000);
}
