/* The pod's calls of models, by the gateway that started it. */
#include "handlers/pod/pod.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/net/fetch.h"

#include <errno.h>
#include <stdlib.h>

enum {
    HISTORY = 16,              /* exchanges that the model is told of, */
    HISTORY_BYTES = 64 * 1024, /* the last of them, of so many bytes */
    ANSWER_BYTES = 1024 * 1024,
    HURRY_MS = 1000, /* the pod's own answer must still come in time */
    AGAIN_MS = 500,  /* between two questions what has become of a call that is under way */
};

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

bool gateway_is_known(void)
{
    return *variable("WAKEGATE_URL") && *variable("WAKEGATE_TOKEN");
}

/* ---- what is asked ---- */

static void put_message(struct json_out *out, const char *role, struct str text)
{
    json_open(out, '{');
    json_put_text(out, "role", role);
    json_put_str(out, "content", text);
    json_close(out, '}');
}

struct history {
    struct json_out *out;
    size_t bytes; /* of all of it, then of what is left */
};

static void count_exchange(struct str message, struct str answer, void *arg)
{
    struct history *history = arg;
    history->bytes += message.size + answer.size;
}

/* The oldest are left out until the rest fits. */
static void put_exchange(struct str message, struct str answer, void *arg)
{
    struct history *history = arg;
    bool fits = history->bytes <= HISTORY_BYTES;
    history->bytes -= message.size + answer.size;
    if (!fits)
        return;
    put_message(history->out, "user", message);
    put_message(history->out, "assistant", answer);
}

static void put_request(struct buf *body, struct str text)
{
    struct json_out out = json_out_to(body);
    struct history history = {.out = &out};
    json_open(&out, '{');
    json_put_text(&out, "model",
                  *variable("WAKEGATE_MODEL") ? variable("WAKEGATE_MODEL") : config->pod_model);
    json_key(&out, "messages");
    json_open(&out, '[');
    journal_each(HISTORY, count_exchange, &history);
    journal_each(HISTORY, put_exchange, &history);
    put_message(&out, "user", text);
    json_close(&out, ']');
    json_close(&out, '}');
}

/* ---- what is answered ---- */

/* Of an earlier try, which died with its answer: it goes on, and is waited for. */
static bool is_under_way(const struct fetch_answer *got)
{
    return got->status == 202 || got->status == 409;
}

static int read_answer(struct arena *arena, const struct fetch_answer *got, struct str *answer)
{
    const char *reason;
    const struct json *body = json_read(arena, got->body, &reason);
    const struct json *message = json_member(json_item(json_member(body, "choices"), 0), "message");
    if (is_under_way(got)) {
        *answer = STR("The model is still at it");
        return -EAGAIN;
    }
    if (got->status == 200) {
        *answer = json_string(json_member(message, "content"));
        if (answer->at)
            return 0;
        *answer = STR("The model gave no text");
        return -EPROTO;
    }
    *answer = json_string(json_member(json_member(body, "error"), "message"));
    if (!answer->at)
        *answer = str_from(arena_printf(arena, "The gateway answered with status %d", got->status));
    return got->status == 429 || got->status == 503 ? -EAGAIN : -EPROTO;
}

/* The same for each try of a message, so that the gateway makes one call of them. What is asked is part of it: another model, or
 * another past, is another call. */
static const char *idempotency_key(struct arena *arena, struct str id, struct str body)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char digits[2 * CRYPTO_DIGEST_SIZE + 1];
    struct buf text = {0};
    buf_add_str(&text, id);
    buf_add_char(&text, '\n');
    buf_add_str(&text, body);
    crypto_digest(digest, buf_str(&text), NULL);
    buf_clear(&text);
    escape_hex(digits, digest, sizeof digest);
    return arena_printf(arena, "Idempotency-Key: message-%.*s", (int)(sizeof digits - 1), digits);
}

static uint64_t left_ms(uint64_t until_ns)
{
    uint64_t now_ns = clock_now_ns();
    return now_ns + CLOCK_MS < until_ns ? (until_ns - now_ns) / CLOCK_MS : 1;
}

int gateway_chat(struct arena *arena, struct str id, struct str text, struct str *answer)
{
    struct fetch_answer got = {0};
    struct buf body = {0};
    put_request(&body, text);
    const char *headers[] = {"Content-Type: application/json",
                             arena_printf(arena, "Authorization: Bearer %s", variable("WAKEGATE_TOKEN")),
                             idempotency_key(arena, id, buf_str(&body)), NULL};
    int64_t most_ms =
        config->pod_answer_ms > 2 * HURRY_MS ? config->pod_answer_ms - HURRY_MS : config->pod_answer_ms / 2;
    uint64_t until_ns = clock_in_ms((uint64_t)most_ms);
    struct fetch_request request = {
        .method = "POST",
        .url = arena_printf(arena, "%s/v1/chat/completions", variable("WAKEGATE_URL")),
        .body = buf_str(&body),
        .headers = headers,
        .connect_timeout_ms = (uint64_t)config->pod_connect_ms,
        .total_timeout_ms = left_ms(until_ns),
        .max_body_bytes = ANSWER_BYTES,
    };
    int result = fetch(&request, arena, &got);
    while (result == 0 && is_under_way(&got) && left_ms(until_ns) > 2 * AGAIN_MS) {
        result = fiber_sleep_ms(AGAIN_MS);
        request.total_timeout_ms = left_ms(until_ns);
        if (result == 0)
            result = fetch(&request, arena, &got);
    }
    buf_clear(&body);
    if (result == 0)
        return read_answer(arena, &got, answer);
    LOG(WARN, "the gateway can't be asked", LOG_ERRNO(result));
    *answer = STR("The gateway can't be reached");
    return -EAGAIN;
}
