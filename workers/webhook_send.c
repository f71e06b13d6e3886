/* One attempt to deliver: see webhook_send.h. */
#include "workers/webhook_send.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/metrics.h"
#include "core/domain/event/event.h"
#include "core/net/fetch.h"

#include <errno.h>

static const struct {
    int result;
    const char *why;
} reasons[] = {
    {-EACCES, "The address is none that webhooks are delivered to"},
    {-EHOSTUNREACH, "The host's name was not found"},
    {-ECONNREFUSED, "No connection"},
    {-ECONNABORTED, "The connection was closed without an answer"},
    {-ECONNRESET, "The connection broke off"},
    {-ETIMEDOUT, "No whole answer in time"},
    {-EMSGSIZE, "The answer's header is too large"},
    {-EINVAL, "The URL can't be used"},
    {-ECANCELED, "The worker was told to stop: whether it arrived is not known"},
};

static const char *reason_of(int result)
{
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].result == result)
            return reasons[i].why;
    return "The answer could not be read";
}

/* The size of the UTF-8 sequence at the start of `text`, or 0. */
static size_t sequence_at(struct str text)
{
    unsigned char first = (unsigned char)text.at[0];
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    return size <= text.size && first && str_is_utf8(str_of(text.at, size)) ? size : 0;
}

struct str webhook_answer_kept(struct arena *arena, struct str body)
{
    static const struct str replacement = {"\xef\xbf\xbd", 3};
    struct buf out = {0};
    if (body.size == 0)
        return STR_NONE;
    while (body.size && out.size < WEBHOOK_ANSWER_KEPT) {
        size_t size = sequence_at(body);
        struct str piece = size ? str_of(body.at, size) : replacement;
        if (out.size + piece.size > WEBHOOK_ANSWER_KEPT)
            break;
        buf_add_str(&out, piece);
        body.at += size ? size : 1;
        body.size -= size ? size : 1;
    }
    struct str kept = arena_str(arena, buf_str(&out));
    buf_clear(&out);
    return kept;
}

/* What a whole answer means. */
static void judge(struct webhook_item *item, const struct fetch_answer *answer, struct arena *kept)
{
    item->verdict = answer->status >= 200 && answer->status < 300 ? WEBHOOK_DELIVERED : WEBHOOK_FAILED;
    item->status = answer->status;
    item->answer = webhook_answer_kept(kept, answer->body);
    if (item->verdict == WEBHOOK_DELIVERED)
        return;
    if (answer->status >= 300 && answer->status < 400)
        item->error = STR("Redirects are not followed");
    else if (answer->status == WEBHOOK_GONE)
        item->error = STR("The endpoint is gone: it was disabled");
    else
        item->error = str_from(arena_printf(kept, "Status %d", answer->status));
    item->asked_s = webhook_retry_after_s(fetch_header(answer, "retry-after"), clock_wall_s());
}

/* An id has the time of its event in it; that of a test has none. */
static void observe_first(const struct webhook_item *item)
{
    int64_t at_us = event_id_us(item->event_id);
    int64_t us = item->begun_ms * 1000 - at_us;
    if (item->attempts == 0 && at_us >= 0)
        metric_observe_us(M_WEBHOOK_FIRST_SECONDS, 0, us > 0 ? (uint64_t)us : 0);
}

void webhook_send(const struct webhook_target *target, struct webhook_item *item, struct arena *kept,
                  struct arena *scratch)
{
    static const char *const wanted[] = {"retry-after", NULL};
    const char *headers[WEBHOOK_HEADERS_MAX];
    struct fetch_answer answer;
    item->begun_ms = clock_wall_ms();
    const struct webhook_message message = {
        .id = item->event_id,
        .surface = item->surface,
        .body = item->body,
        .at_s = item->begun_ms / 1000,
    };
    bool both = target->old.text.at && target->old_until_ms > item->begun_ms;
    webhook_sign(scratch, &message, &target->secret, both ? &target->old : NULL, headers);
    const struct fetch_request request = {
        .method = "POST",
        .url = target->url,
        .body = item->body,
        .headers = headers,
        .headers_wanted = wanted,
        .connect_timeout_ms = (uint64_t)config->webhook_timeout_ms,
        .total_timeout_ms = (uint64_t)config->webhook_timeout_ms,
        .max_body_bytes = WEBHOOK_ANSWER_READ,
        .truncate = true,
        .guard = true,
        .pool = "webhook",
    };
    uint64_t start_ns = clock_now_ns();
    observe_first(item);
    metric_add(M_WEBHOOK_IN_FLIGHT, 1);
    int result = fetch(&request, scratch, &answer);
    metric_add(M_WEBHOOK_IN_FLIGHT, -1);
    uint64_t took_ns = clock_now_ns() - start_ns;
    item->took_ms = (int64_t)(took_ns / CLOCK_MS);
    if (result == 0) {
        judge(item, &answer, kept);
    } else {
        item->verdict = result == -ECANCELED ? WEBHOOK_STOPPED : WEBHOOK_FAILED;
        item->status = answer.status;
        item->error = str_from(reason_of(result));
    }
    metric_add_slot(M_WEBHOOK_ATTEMPTS, item->verdict, 1);
    metric_observe_us(M_WEBHOOK_SECONDS, 0, took_ns / 1000);
}
