/*
 * What is said over a listener's WebSocket.
 *
 *   {"type":"auth","token"[,"last_event_id","events"]}      {"type":"authenticated",…}
 *   {"type":"subscribe","events":["job.*"]}                 {"type":"subscribed","events":[all that it gets now],…}; the first one
 *                                                            narrows "all", more of them add
 *   {"type":"unsubscribe","events":[…]}                      {"type":"unsubscribed",…}
 *   {"type":"resume","last_event_id"}                        what was missed, then {"type":"resumed",…}
 *   {"type":"ping"}                                          {"type":"pong",…}
 *
 * Answers have `last_event_id`, where a client that is cut now can go on; null while it catches up. What may be had twice is not:
 * a resume of one that is live already gives only what came before it was.
 */
#include "core/gate/listener.h"

#include "core/base/clock.h"

enum { HELD_MAX = 65536 /* bytes of messages that wait for it to be live */ };

/* ---- what we say ---- */

void listener_say(struct listener *listener, struct buf *text)
{
    ws_send(listener->ws, true, buf_str(text));
    buf_clear(text);
}

void listener_say_error(struct listener *listener, const char *code, const char *message)
{
    struct buf text = {0};
    events_put_error(&text, code, message);
    listener_say(listener, &text);
}

static void put_kinds(struct json_out *out, event_set kinds)
{
    json_key(out, "events");
    json_open(out, '[');
    if (kinds == EVENT_ALL)
        json_put_text(out, NULL, "*");
    for (size_t i = 0; kinds != EVENT_ALL && i < EVENT_COUNT; i++)
        if (kinds & ((event_set)1 << i))
            json_put_text(out, NULL, event_rows[i].name);
    json_close(out, ']');
}

void listener_answer(struct listener *listener, const char *type)
{
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    bool live = listener->state == LISTENER_LIVE || listener->state == LISTENER_GREETED;
    fanout_catch_up(&listener->member);
    json_open(&json, '{');
    json_put_text(&json, "type", type);
    put_kinds(&json, listener->kinds);
    json_put_str(&json, "last_event_id", live ? feed_id(listener->audience->feed) : STR_NONE);
    json_put_text(&json, "timestamp", clock_iso_now());
    json_close(&json, '}');
    listener_say(listener, &text);
}

/* ---- what it says ---- */

static bool take_kinds(struct listener *listener, const struct json *message, bool needed, event_set *kinds)
{
    const struct json *list = json_member(message, "events");
    size_t count = json_count(list);
    *kinds = 0;
    if (!list && !needed)
        return true;
    if (json_type_of(list) != JSON_ARRAY || count > EVENT_PATTERNS_MAX) {
        listener_say_error(listener, "invalid_events",
                           "events must be a list of at most 64 names, beginnings like job.*, or *");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct str pattern = json_string(json_item(list, i));
        event_set one = pattern.at ? event_set_of_pattern(pattern) : 0;
        *kinds |= one;
        if (!one) {
            struct arena arena;
            arena_init(&arena);
            listener_say_error(listener, "unknown_event", event_unknown(&arena, pattern));
            arena_clear(&arena);
            return false;
        }
    }
    return true;
}

static void narrow(struct listener *listener, event_set kinds)
{
    listener->kinds = listener->narrowed ? listener->kinds | kinds : kinds;
    listener->narrowed = true;
}

static void set_resume(struct listener *listener, struct str last_id)
{
    listener->resume.size = 0;
    buf_add_str(&listener->resume, last_id);
}

static void on_auth(struct listener *listener, const struct json *message)
{
    struct str token = json_string(json_member(message, "token"));
    struct str last_id = json_string(json_member(message, "last_event_id"));
    event_set kinds;
    if (listener->state != LISTENER_UNKNOWN) {
        listener_say_error(listener, "already_authenticated", "The stream knows whose it is");
        return;
    }
    if (!token.size) {
        listener_say_error(listener, "invalid_message", "auth needs a token");
        return;
    }
    if (!take_kinds(listener, message, false, &kinds))
        return;
    if (json_member(message, "events"))
        narrow(listener, kinds);
    set_resume(listener, last_id);
    buf_add_str(&listener->token, token);
    listener->state = LISTENER_CHECKING;
    wait_done(&listener->wait, 0);
}

static void on_subscribe(struct listener *listener, const struct json *message)
{
    event_set kinds;
    if (!take_kinds(listener, message, true, &kinds))
        return;
    narrow(listener, kinds);
    if (listener->state == LISTENER_LIVE)
        fanout_want(&listener->member, listener->kinds);
    listener_answer(listener, "subscribed");
}

static void on_unsubscribe(struct listener *listener, const struct json *message)
{
    event_set kinds;
    if (!take_kinds(listener, message, true, &kinds))
        return;
    listener->kinds &= ~kinds;
    listener->narrowed = true;
    if (listener->state == LISTENER_LIVE)
        fanout_want(&listener->member, listener->kinds);
    listener_answer(listener, "unsubscribed");
}

static void on_resume(struct listener *listener, const struct json *message)
{
    struct str last_id = json_string(json_member(message, "last_event_id"));
    if (!last_id.size) {
        listener_say_error(listener, "invalid_message", "resume needs a last_event_id");
    } else if (listener->state == LISTENER_CATCHING_UP) {
        listener_say_error(listener, "resume_in_progress", "What was missed is being sent");
    } else {
        set_resume(listener, last_id);
        if (listener->state == LISTENER_GREETED)
            listener_end_greeting(listener);
        if (listener->state != LISTENER_LIVE || listener->resume.size == 0)
            return; /* it goes on there: now, or once it is known */
        listener_resume(listener);
    }
}

static void on_ping(struct listener *listener, const struct json *message)
{
    (void)message;
    listener_answer(listener, "pong");
}

static const struct {
    const char *type;
    void (*run)(struct listener *listener, const struct json *message);
    bool open; /* to one who has not said who he is */
} messages[] = {
    {"auth", on_auth, true},      {"subscribe", on_subscribe, false}, {"unsubscribe", on_unsubscribe, false},
    {"resume", on_resume, false}, {"ping", on_ping, false},
};

static void take_message(struct listener *listener, const struct json *message)
{
    struct str type = json_string(json_member(message, "type"));
    for (size_t i = 0; type.at && i < ARRAY_SIZE(messages); i++) {
        if (!str_equal(type, str_from(messages[i].type)))
            continue;
        if (listener->state == LISTENER_UNKNOWN && !messages[i].open)
            listener_say_error(listener, "unauthorized", "The first message must be auth");
        else
            messages[i].run(listener, message);
        return;
    }
    listener_say_error(listener, "unknown_type", "type must be auth, subscribe, unsubscribe, resume or ping");
}

/* A first word that is not where it was ends the greeting. What is said before it is live waits, so that answers have their
 * place among events. */
static bool hold(struct listener *listener, const struct json *message, struct str text)
{
    bool resumes = str_equal(json_string(json_member(message, "type")), STR("resume"));
    if (listener->state == LISTENER_GREETED && !resumes) {
        listener_end_greeting(listener);
        if (listener->state == LISTENER_LIVE)
            return false;
    } else if (listener->held.size == 0) {
        return false;
    }
    buf_add_str(&listener->held, text);
    buf_add_char(&listener->held, '\0');
    if (listener->held.size > HELD_MAX)
        listener_end(listener, CLOSE_TOO_MANY, "too many messages at once");
    return true;
}

void listener_read_message(struct listener *listener, struct str text, bool may_hold)
{
    struct arena arena;
    const char *error = "a message must be text";
    arena_init(&arena);
    const struct json *message = text.at ? json_read(&arena, text, &error) : NULL;
    if (!message)
        listener_say_error(listener, "invalid_json", error);
    else if (!may_hold || !hold(listener, message, text))
        take_message(listener, message);
    arena_clear(&arena);
}

/* JSON has no NUL. */
void listener_read_held(struct listener *listener)
{
    struct buf held = listener->held;
    struct str rest = buf_str(&held);
    struct str text;
    listener->held = (struct buf){0};
    while (rest.size && str_split(&rest, '\0', &text) && !listener_is_over(listener))
        listener_read_message(listener, text, false);
    buf_clear(&held);
}
