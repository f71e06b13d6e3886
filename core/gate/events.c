/* Streams of events: what WebSockets and event streams have in common. See events.h. */
#include "core/gate/events.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/metrics.h"
#include "core/gate/events_internal.h"
#include "core/gate/live.h"

#include <errno.h>

enum { PAGE = 200 };

/* ---- where to begin, and what was missed ---- */

int events_place(struct audience *audience, struct str last_id, int64_t *seq, const char **gap)
{
    *gap = NULL;
    if (!last_id.at)
        return 0;
    int64_t found = feed_find(audience->feed, last_id);
    int result = found >= 0 ? 0 : event_place(audience->account_id, last_id, &found);
    if (result == 0 || result == -ESTALE)
        *seq = found;
    if (result == 0 || (result != -ESTALE && result != -ENOENT))
        return result;
    *gap = result == -ESTALE ? "expired" : "unknown";
    return 0;
}

static int64_t end_of(const struct audience *audience, int64_t last)
{
    int64_t place = feed_place(audience->feed);
    return last < place ? last : place;
}

static int replay_page(struct audience *audience, int64_t *seq, int64_t last,
                       int (*send)(void *arg, const struct event_told *event), void *arg)
{
    struct arena arena;
    struct event_told *events;
    size_t count;
    arena_init(&arena);
    int result = event_read_after(&arena, audience->account_id, *seq, PAGE, &events, &count);
    if (result == 0 && count == 0) { /* they are too old by now */
        result = send(arg, NULL);
        *seq = end_of(audience, last);
    }
    for (size_t i = 0; result == 0 && i < count && events[i].seq <= end_of(audience, last); i++) {
        if (events[i].seq > *seq + 1)
            result = send(arg, NULL);
        if (result == 0)
            result = send(arg, &events[i]);
        *seq = events[i].seq;
    }
    arena_clear(&arena);
    return result;
}

int events_replay(struct audience *audience, int64_t *seq, int64_t last,
                  int (*send)(void *arg, const struct event_told *event), void *arg)
{
    int result = 0;
    while (result == 0 && *seq < end_of(audience, last)) {
        const struct event_told *kept = feed_kept(audience->feed, *seq);
        if (kept) {
            ++*seq;
            result = send(arg, kept);
        } else {
            result = replay_page(audience, seq, last, send, arg);
        }
    }
    return result;
}

/* ---- messages of ours ---- */

void events_put_gap(struct buf *out, const char *reason, struct str last_id)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_text(&json, "type", "gap");
    json_put_text(&json, "reason", reason);
    json_put_str(&json, "last_event_id", last_id);
    json_put_text(&json, "timestamp", clock_iso_now());
    json_close(&json, '}');
}

void events_put_error(struct buf *out, const char *code, const char *message)
{
    struct json_out json = json_out_to(out);
    json_open(&json, '{');
    json_put_text(&json, "type", "error");
    json_put_text(&json, "code", code);
    json_put_text(&json, "message", message);
    json_close(&json, '}');
}

/* ---- GET …/stream ---- */

/* ?events=job.*,instance.ready */
static bool read_kinds(struct request *request, struct events_wish *wish)
{
    struct str list;
    struct str pattern;
    wish->kinds = EVENT_ALL;
    if (!url_query(request->arena, request->query, "events", &list))
        return true;
    wish->kinds = 0;
    wish->narrowed = true;
    for (size_t count = 0; str_split(&list, ',', &pattern); count++) {
        event_set kinds = count < EVENT_PATTERNS_MAX ? event_set_of_pattern(str_trim(pattern)) : 0;
        wish->kinds |= kinds;
        if (kinds)
            continue;
        reply_error(request, ERROR_INVALID_PARAMETER,
                    count < EVENT_PATTERNS_MAX ? event_unknown(request->arena, str_trim(pattern))
                                               : "events has too many names");
        return false;
    }
    return true;
}

/* A ticket stands for the key or log-in that asked for it. A request that says itself who it is needs none. */
static bool read_ticket(struct request *request)
{
    struct str ticket;
    enum api_error error;
    if (request->principal.kind != PRINCIPAL_NOBODY ||
        !url_query(request->arena, request->query, "ticket", &ticket))
        return true;
    int result = ticket_take(request->arena, ticket, request->surface->name, &request->principal);
    if (result == -EACCES)
        reply_error(request, ERROR_INVALID_TOKEN, "The ticket is invalid, was used, or has expired");
    else if (result)
        reply_failure(request, result);
    else if (!gate_welcomes(request, &error))
        reply_error(request, error, NULL);
    else
        return true;
    return false;
}

/* A client that says nothing of what it takes takes anything. */
static bool takes_event_stream(const struct request *request)
{
    struct str accept = http1_header(request->http->head, "accept");
    struct str kind;
    if (!accept.at)
        return true;
    while (str_split(&accept, ',', &kind)) {
        struct str type;
        if (str_split(&kind, ';', &type) &&
            (str_equal_nocase(str_trim(type), STR("text/event-stream")) ||
             str_equal_nocase(str_trim(type), STR("text/*")) || str_equal(str_trim(type), STR("*/*"))))
            return true;
    }
    return false;
}

/* An event stream can't be asked for before it is known who asks. */
static bool must_say_more(const struct request *request)
{
    struct str ticket;
    return request->http->head->upgrade.size == 0 && request->principal.kind == PRINCIPAL_NOBODY &&
           !url_query(request->arena, request->query, "ticket", &ticket);
}

void events_stream(struct request *request)
{
    const struct http1_head *head = request->http->head;
    struct events_wish wish = {.last_id = sse_last_id(request)};
    bool upgrades = head->upgrade.size > 0;
    if (wish.last_id.size == 0)
        wish.last_id = STR_NONE;
    if (must_say_more(request)) {
        reply_header(request, "WWW-Authenticate", request->surface->authenticator->challenge);
        reply_error(request, ERROR_UNAUTHORIZED, NULL);
    } else if (!upgrades && !takes_event_stream(request)) {
        reply_header(request, "Upgrade", "websocket");
        reply_error(request, ERROR_UPGRADE_REQUIRED,
                    "This is a WebSocket, or an event stream for who accepts text/event-stream");
    } else if (!upgrades && str_equal(head->method, STR("HEAD"))) {
        reply_body(request, 200, "text/event-stream; charset=utf-8", STR(""));
    } else if (read_kinds(request, &wish) && read_ticket(request)) {
        if (upgrades)
            events_serve_socket(request, &wish);
        else
            events_serve_sse(request, &wish);
    }
}

/* ---- POST …/stream/ticket ---- */

void events_ticket(struct request *request)
{
    char ticket[TICKET_TEXT_MAX];
    int result = ticket_make(&request->principal, ticket);
    if (result) {
        reply_failure(request, result);
        return;
    }
    struct reply reply;
    reply_header(request, "Cache-Control", "no-store");
    reply_begin(&reply, request);
    json_put_text(&reply.json, "ticket", ticket);
    json_put_int(&reply.json, "expires_in", TICKET_S);
    reply_end(&reply, 201);
    crypto_wipe(ticket, sizeof ticket);
}

/* ---- the loop's ---- */

void events_init(void)
{
    metric_name_slot(M_EVENT_STREAMS, EVENTS_SOCKET, "websocket");
    metric_name_slot(M_EVENT_STREAMS, EVENTS_SSE, "sse");
}

void events_open_loop(struct loop *loop)
{
    feed_open_loop(loop);
    audience_open_loop(loop);
    watch_open_loop(loop);
    listener_open_loop(loop);
}

void events_end_streams(struct loop *loop)
{
    events_end_sse(loop);
}

void events_close_loop(struct loop *loop)
{
    listener_close_loop(loop);
    watch_close_loop(loop);
    audience_close_loop(loop);
    feed_close_loop(loop);
}
