/* Deliveries of webhooks: what was sent, what came back, and once more. */
#include "handlers/webhooks.h"

#include "core/base/clock.h"
#include "core/domain/event/event.h"
#include "core/domain/event/webhook_delivery.h"
#include "handlers/webhook_input.h"

#include <errno.h>

static void put_delivery(struct json_out *out, const struct webhook_delivery *delivery)
{
    json_put_text(out, "id", delivery->ref);
    json_put_text(out, "object", "webhook_delivery");
    json_put_str(out, "webhook", delivery->webhook);
    json_put_str(out, "event", delivery->event);
    json_put_str(out, "event_id", delivery->event_id);
    json_put_str(out, "surface", delivery->surface);
    json_put_str(out, "status", delivery->status);
    json_put_int(out, "attempt_count", delivery->attempts);
    json_put_time(out, "last_attempt_at", delivery->last_ms);
    if (delivery->last_status)
        json_put_int(out, "last_status", delivery->last_status);
    else
        json_put_null(out, "last_status");
    json_put_str(out, "last_error", delivery->last_error);
    json_put_time(out, "next_attempt_at", delivery->next_ms);
    json_put_time(out, "created_at", delivery->created_ms);
}

static void reply_delivery(struct request *request, int status, const struct webhook_delivery *delivery)
{
    struct reply reply;
    reply_begin(&reply, request);
    put_delivery(&reply.json, delivery);
    reply_end(&reply, status);
}

static void put_attempt(struct json_out *out, const struct webhook_attempt *attempt)
{
    json_open(out, '{');
    json_put_int(out, "number", attempt->number);
    json_put_time(out, "at", attempt->at_ms);
    json_put_bool(out, "ok", attempt->ok);
    if (attempt->status)
        json_put_int(out, "status", attempt->status);
    else
        json_put_null(out, "status");
    if (attempt->took_ms >= 0)
        json_put_int(out, "duration_ms", attempt->took_ms);
    else
        json_put_null(out, "duration_ms");
    json_put_str(out, "error", attempt->error);
    json_put_str(out, "answer", attempt->answer);
    json_close(out, '}');
}

/* ?status= of a list or a replay; `allowed` is NULL-terminated. */
static bool read_status(struct request *request, const char *const *allowed, const char *message,
                        struct str *status)
{
    if (!url_query(request->arena, request->query, "status", status)) {
        *status = STR_NONE;
        return true;
    }
    for (; *allowed; allowed++)
        if (str_equal(*status, str_from(*allowed)))
            return true;
    reply_invalid(request, message);
    return false;
}

/* GET …/webhooks/{id}/deliveries */
void webhooks_deliveries(struct request *request)
{
    static const char *const states[] = {"pending", "delivered", "failed", NULL};
    struct str ref;
    struct str status;
    int64_t limit;
    int64_t cursor;
    struct webhook_delivery *deliveries;
    size_t count;
    int64_t next;
    if (!webhook_ref(request, &ref) || !request_page(request, WEBHOOK_PAGE_MAX, 0, &limit, &cursor) ||
        !read_status(request, states, "status must be pending, delivered or failed", &status))
        return;
    int result = webhook_deliveries_list(request->arena, request->principal.account_id, ref, status, cursor,
                                         limit, &deliveries, &count, &next);
    if (result) {
        webhook_failure(request, result);
        return;
    }
    struct reply reply;
    reply_list_begin(&reply, request, "list", "data");
    for (size_t i = 0; i < count; i++) {
        json_open(&reply.json, '{');
        put_delivery(&reply.json, &deliveries[i]);
        json_close(&reply.json, '}');
    }
    reply_list_end(&reply, next);
}

/* The {delivery} of the path as its number. */
static bool delivery_id(struct request *request, int64_t *id)
{
    bool fine = webhook_delivery_parse(request->params[0], id);
    if (!fine)
        reply_error(request, ERROR_NOT_FOUND, "Delivery not found");
    return fine;
}

static void delivery_failure(struct request *request, int result)
{
    if (result == -ENOENT)
        reply_error(request, ERROR_NOT_FOUND, "Delivery not found");
    else
        webhook_failure(request, result);
}

/* GET …/webhooks/deliveries/{delivery} */
void webhooks_delivery(struct request *request)
{
    int64_t id;
    struct webhook_delivery delivery;
    if (!delivery_id(request, &id))
        return;
    int result = webhook_delivery_get(request->arena, request->principal.account_id, id, &delivery);
    if (result) {
        delivery_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    put_delivery(&reply.json, &delivery);
    json_put_str(&reply.json, "body", delivery.body);
    json_key(&reply.json, "attempts");
    json_open(&reply.json, '[');
    for (size_t i = 0; i < delivery.log_count; i++)
        put_attempt(&reply.json, &delivery.log[i]);
    json_close(&reply.json, ']');
    reply_end(&reply, 200);
}

/* ---- once more ---- */

/* POST …/webhooks/deliveries/{delivery}/replay */
void webhooks_replay_one(struct request *request)
{
    int64_t id;
    struct webhook_delivery delivery;
    if (!delivery_id(request, &id))
        return;
    int result = webhook_delivery_replay(request->arena, request->principal.account_id, id, &delivery);
    if (result)
        delivery_failure(request, result);
    else
        reply_delivery(request, 202, &delivery);
}

/* ?since=: a time, or Unix seconds. */
static bool read_since(struct request *request, int64_t *since_ms)
{
    struct str text;
    int64_t seconds;
    bool fine = url_query(request->arena, request->query, "since", &text);
    if (fine && str_to_i64(text, &seconds) && seconds >= 0 && seconds < INT64_C(253402300800))
        *since_ms = seconds * 1000;
    else
        fine = fine && clock_parse_iso(text, since_ms) && *since_ms >= 0;
    if (!fine)
        reply_invalid(request, "since must be a time like 2026-01-31T12:00:00Z, or Unix seconds");
    return fine;
}

/* POST …/webhooks/{id}/replay */
void webhooks_replay(struct request *request)
{
    static const char *const states[] = {"failed", NULL};
    struct str ref;
    struct str status;
    int64_t since_ms;
    int64_t count;
    if (!webhook_ref(request, &ref) || !read_since(request, &since_ms) ||
        !read_status(request, states, "status must be failed", &status))
        return;
    int result =
        webhook_replay_since(request->principal.account_id, ref, since_ms, status.at != NULL, &count);
    if (result) {
        webhook_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    json_put_str(&reply.json, "webhook", ref);
    json_put_int(&reply.json, "replayed", count);
    reply_end(&reply, 202);
}

/* ---- a test ---- */

static bool read_event(struct request *request, const struct json *body, struct str *event)
{
    const struct str test = STR("webhook.test"); /* never happens: not in the catalogue */
    *event = test;
    if (!request_has(body, "event"))
        return true;
    if (!request_string(request, body, "event", 1, EVENT_NAME_MAX, event))
        return false;
    bool fine = str_equal(*event, test) || event_find(*event) != EVENT_COUNT;
    if (!fine)
        reply_invalid(request, event_unknown(request->arena, *event));
    return fine;
}

/* A worker has many deliveries of an endpoint in hand at once. */
enum { WEBHOOK_TEST_DATA_MAX = 65536 };

/* The body's `data`, or what says that this is a test. */
static bool read_data(struct request *request, const struct json *body, struct str ref, struct str *data)
{
    const struct json *given = json_member(body, "data");
    struct buf text = {0};
    if (request_has(body, "data") && json_type_of(given) != JSON_OBJECT) {
        reply_invalid(request, "data must be an object");
        return false;
    }
    if (request_has(body, "data")) {
        json_write_value(&text, given);
    } else {
        struct json_out out = json_out_to(&text);
        json_open(&out, '{');
        json_put_str(&out, "webhook_id", ref);
        json_put_bool(&out, "test", true);
        json_close(&out, '}');
    }
    *data = arena_str(request->arena, buf_str(&text));
    buf_clear(&text);
    if (data->size > WEBHOOK_TEST_DATA_MAX)
        reply_invalid(request, "data has more than 65536 bytes");
    return data->size <= WEBHOOK_TEST_DATA_MAX;
}

/* POST …/webhooks/{id}/test */
void webhooks_test(struct request *request)
{
    struct str ref;
    struct str event;
    struct str surface;
    struct str data;
    const struct json *body;
    struct webhook_delivery delivery;
    if (!webhook_ref(request, &ref) || !request_json_or_none(request, &body) ||
        !read_event(request, body, &event) || !webhook_read_surface(request, body, "surface", &surface) ||
        !read_data(request, body, ref, &data))
        return;
    if (!surface.at)
        surface = str_from(request->surface->name);
    int result =
        webhook_test(request->arena, request->principal.account_id, ref, surface, event, data, &delivery);
    if (result)
        webhook_failure(request, result);
    else
        reply_delivery(request, 202, &delivery);
}
