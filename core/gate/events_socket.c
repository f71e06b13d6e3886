/*
 * Events over a WebSocket.
 *
 *              {"type":"auth"}              a first word, or GREET_MS           all that was missed is sent
 *   UNKNOWN ──▶ CHECKING ──▶ GREETED ──────────────────────────▶ CATCHING_UP ─────────────────────────────▶ LIVE
 *     └ 4401 after AUTH_MS      ▲ by header or ticket: begins here      ▲                                     │
 *                               └ and is over when it says where it was └──────── {"type":"resume"} ──────────┘
 *
 * While it is LIVE it has no fiber: the fanout of its account's audience gives it every event. What it says is answered in the
 * turn in which it comes; only auth and resume need a fiber, one at a time. One that resumes by a message says so first: until its
 * first word, or for GREET_MS, it is given nothing newer.
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
#include "core/gate/events_internal.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/metrics.h"
#include "core/gate/live.h"

#include <errno.h>
#include <stdlib.h>

enum {
    AUTH_MS = 10000,
    GREET_MS = 500,
    HELD_MAX = 65536, /* bytes of messages that wait for it to be live */
    MESSAGE_MAX = 16384,
    ROOM_BYTES = 128 * 1024, /* that wait for a client which catches up, before more is read for it */
    CLOSE_UNKNOWN = 4401,
    CLOSE_FORBIDDEN = 4403,
    CLOSE_TOO_MANY = 4429,
    CLOSE_AGAIN = 1013,
};

enum state { UNKNOWN, CHECKING, GREETED, CATCHING_UP, LIVE };

struct socket {
    struct ws *ws;
    enum state state;
    bool narrowed;
    bool busy;   /* a fiber works on it, and frees it if it is gone by then */
    bool gone;   /* the WebSocket is closed */
    bool ending; /* it was told to close */
    event_set kinds;
    int64_t live_from; /* the last number that it had, or let pass, when it became live */
    int64_t live_to;   /* and when it was no longer */
    struct audience *audience;
    struct fanout_member member;
    struct watched watched;
    struct wait wait;  /* for a first message, or for room */
    struct buf token;  /* of the first message */
    struct buf held;   /* what it said while it was greeted: messages, each ended by a NUL */
    struct buf resume; /* the last id that it has had, by a message; empty: none */
};

/* ---- what we say ---- */

static void say(struct socket *socket, struct buf *text)
{
    ws_send(socket->ws, true, buf_str(text));
    buf_clear(text);
}

static void say_error(struct socket *socket, const char *code, const char *message)
{
    struct buf text = {0};
    events_put_error(&text, code, message);
    say(socket, &text);
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

static void answer(struct socket *socket, const char *type)
{
    struct buf text = {0};
    struct json_out json = json_out_to(&text);
    bool live = socket->state == LIVE || socket->state == GREETED;
    fanout_catch_up(&socket->member);
    json_open(&json, '{');
    json_put_text(&json, "type", type);
    put_kinds(&json, socket->kinds);
    json_put_str(&json, "last_event_id", live ? feed_id(socket->audience->feed) : STR_NONE);
    json_put_text(&json, "timestamp", clock_iso_now());
    json_close(&json, '}');
    say(socket, &text);
}

static void end(struct socket *socket, int code, const char *reason)
{
    socket->ending = true;
    ws_close(socket->ws, code, str_from(reason));
    wait_done(&socket->wait, -ECANCELED);
}

static void refuse(struct socket *socket, enum api_error error, int code)
{
    say_error(socket, api_errors[error].code, api_errors[error].message);
    end(socket, code, api_errors[error].code);
}

/* ---- who listens ---- */

static void on_ended(struct watched *watched, enum credential_state state)
{
    struct socket *socket = CONTAINER_OF(watched, struct socket, watched);
    fanout_leave(&socket->member);
    if (state == CREDENTIAL_BANNED)
        end(socket, CLOSE_FORBIDDEN, "the account is banned");
    else
        end(socket, CLOSE_UNKNOWN, "the key or log-in no longer holds");
}

/* 0; -EMFILE: too many; errors of stores. Waits. */
static int enter(struct socket *socket, const struct principal *principal)
{
    socket->audience = audience_enter(principal->account_id);
    if (!socket->audience)
        return -EMFILE;
    int result = feed_wait(socket->audience->feed, clock_in_ms(EVENTS_WAIT_MS));
    if (result == 0)
        watch_begin(&socket->watched, principal, on_ended);
    return result == -ETIMEDOUT ? -ENOTCONN : result;
}

static void socket_free(struct socket *socket)
{
    fanout_leave(&socket->member);
    watch_end(&socket->watched);
    if (socket->audience)
        audience_leave(socket->audience);
    if (socket->token.size)
        crypto_wipe(socket->token.at, socket->token.size);
    buf_clear(&socket->token);
    buf_clear(&socket->resume);
    buf_clear(&socket->held);
    free(socket);
}

/* A fiber is through with it. */
static void let_go(struct socket *socket)
{
    socket->busy = false;
    if (socket->gone)
        socket_free(socket);
}

/* ---- catching up ---- */

static bool is_over(const struct socket *socket)
{
    return socket->gone || socket->ending;
}

static int wait_for_room(struct socket *socket)
{
    size_t most =
        (size_t)config->ws_queue_bytes / 2 < ROOM_BYTES ? (size_t)config->ws_queue_bytes / 2 : ROOM_BYTES;
    while (!is_over(socket) && ws_queued(socket->ws) > most) {
        socket->wait = WAIT_INIT;
        int result = wait_for(&socket->wait, "a subscriber to read", CLOCK_NEVER);
        if (result)
            return result;
    }
    return is_over(socket) ? -ECANCELED : 0;
}

static int send_event(void *arg, const struct event_told *event)
{
    struct socket *socket = arg;
    if (is_over(socket))
        return -ECANCELED;
    if (!(event_set_of(event->name) & socket->kinds))
        return 0;
    ws_send(socket->ws, true, event->body);
    return wait_for_room(socket);
}

/* Sends what comes after seq, but what came from `from` to `to`, which it has had, and makes it live. */
static int catch_up(struct socket *socket, int64_t seq, int64_t from, int64_t to)
{
    int result = events_replay(socket->audience, &seq, from, send_event, socket);
    if (result == 0 && seq < to)
        seq = to;
    if (result == 0)
        result = events_replay(socket->audience, &seq, INT64_MAX, send_event, socket);
    if (result || is_over(socket))
        return result;
    socket->state = LIVE;
    socket->live_from = seq;
    fanout_join(socket->audience->fanout, &socket->member, socket->ws, socket->kinds);
    return 0;
}

static void say_gap(struct socket *socket, const char *reason, struct str last_id)
{
    struct buf text = {0};
    if (!reason)
        return;
    events_put_gap(&text, reason, last_id);
    say(socket, &text);
}

/* The store went away in the middle: the client comes back with the last id it has had. */
static void give_up(struct socket *socket, int result)
{
    if (result && !is_over(socket))
        refuse(socket, ERROR_UNAVAILABLE, CLOSE_AGAIN);
}

static void run_resume(void *arg)
{
    struct socket *socket = arg;
    struct buf last_id = socket->resume;
    int64_t seq;
    const char *gap;
    socket->resume = (struct buf){0};
    int result = events_place(socket->audience, buf_str(&last_id), &seq, &gap);
    if (result == 0 && !is_over(socket)) {
        say_gap(socket, gap, buf_str(&last_id));
        result = catch_up(socket, seq, socket->live_from, socket->live_to);
        if (result == 0 && !is_over(socket))
            answer(socket, "resumed");
    }
    give_up(socket, result);
    buf_clear(&last_id);
    let_go(socket);
}

/* ---- what it says ---- */

static bool take_kinds(struct socket *socket, const struct json *message, bool needed, event_set *kinds)
{
    const struct json *list = json_member(message, "events");
    size_t count = json_count(list);
    *kinds = 0;
    if (!list && !needed)
        return true;
    if (json_type_of(list) != JSON_ARRAY || count > EVENT_PATTERNS_MAX) {
        say_error(socket, "invalid_events",
                  "events must be a list of at most 64 names, beginnings like job.*, or *");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct str pattern = json_string(json_item(list, i));
        event_set one = pattern.at ? event_set_of_pattern(pattern) : 0;
        *kinds |= one;
        if (!one) {
            say_error(socket, "unknown_event", "There is no event of such a name");
            return false;
        }
    }
    return true;
}

static void narrow(struct socket *socket, event_set kinds)
{
    socket->kinds = socket->narrowed ? socket->kinds | kinds : kinds;
    socket->narrowed = true;
}

static void set_resume(struct socket *socket, struct str last_id)
{
    socket->resume.size = 0;
    buf_add_str(&socket->resume, last_id);
}

static void on_auth(struct socket *socket, const struct json *message)
{
    struct str token = json_string(json_member(message, "token"));
    struct str last_id = json_string(json_member(message, "last_event_id"));
    event_set kinds;
    if (socket->state != UNKNOWN) {
        say_error(socket, "already_authenticated", "The stream knows whose it is");
        return;
    }
    if (!token.size) {
        say_error(socket, "invalid_message", "auth needs a token");
        return;
    }
    if (!take_kinds(socket, message, false, &kinds))
        return;
    if (json_member(message, "events"))
        narrow(socket, kinds);
    set_resume(socket, last_id);
    buf_add_str(&socket->token, token);
    socket->state = CHECKING;
    wait_done(&socket->wait, 0);
}

static void on_subscribe(struct socket *socket, const struct json *message)
{
    event_set kinds;
    if (!take_kinds(socket, message, true, &kinds))
        return;
    narrow(socket, kinds);
    if (socket->state == LIVE)
        fanout_want(&socket->member, socket->kinds);
    answer(socket, "subscribed");
}

static void on_unsubscribe(struct socket *socket, const struct json *message)
{
    event_set kinds;
    if (!take_kinds(socket, message, true, &kinds))
        return;
    socket->kinds &= ~kinds;
    socket->narrowed = true;
    if (socket->state == LIVE)
        fanout_want(&socket->member, socket->kinds);
    answer(socket, "unsubscribed");
}

static void on_resume(struct socket *socket, const struct json *message)
{
    struct str last_id = json_string(json_member(message, "last_event_id"));
    if (!last_id.size) {
        say_error(socket, "invalid_message", "resume needs a last_event_id");
    } else if (socket->state == CATCHING_UP) {
        say_error(socket, "resume_in_progress", "What was missed is being sent");
    } else {
        set_resume(socket, last_id);
        if (socket->state == GREETED)
            wait_done(&socket->wait, 0);
        if (socket->state != LIVE)
            return; /* it goes on there once it is known */
        fanout_catch_up(&socket->member);
        fanout_leave(&socket->member);
        socket->live_to = feed_place(socket->audience->feed);
        socket->state = CATCHING_UP;
        socket->busy = true;
        fiber_start(loop_self(), "event resume", run_resume, socket);
    }
}

static void on_ping(struct socket *socket, const struct json *message)
{
    (void)message;
    answer(socket, "pong");
}

static const struct {
    const char *type;
    void (*run)(struct socket *socket, const struct json *message);
    bool open; /* to one who has not said who he is */
} messages[] = {
    {"auth", on_auth, true},      {"subscribe", on_subscribe, false}, {"unsubscribe", on_unsubscribe, false},
    {"resume", on_resume, false}, {"ping", on_ping, false},
};

static void take_message(struct socket *socket, const struct json *message)
{
    struct str type = json_string(json_member(message, "type"));
    for (size_t i = 0; type.at && i < ARRAY_SIZE(messages); i++) {
        if (!str_equal(type, str_from(messages[i].type)))
            continue;
        if (socket->state == UNKNOWN && !messages[i].open)
            say_error(socket, "unauthorized", "The first message must be auth");
        else
            messages[i].run(socket, message);
        return;
    }
    say_error(socket, "unknown_type", "type must be auth, subscribe, unsubscribe, resume or ping");
}

/* Anything but where it was waits until it is live, so that answers have their place among events. */
static bool hold(struct socket *socket, const struct json *message, struct str text)
{
    bool resumes = str_equal(json_string(json_member(message, "type")), STR("resume"));
    if (socket->held.size == 0 && (socket->state != GREETED || resumes))
        return false;
    wait_done(&socket->wait, 0);
    buf_add_str(&socket->held, text);
    buf_add_char(&socket->held, '\0');
    if (socket->held.size > HELD_MAX)
        end(socket, CLOSE_TOO_MANY, "too many messages at once");
    return true;
}

static void read_message(struct socket *socket, struct str text, bool may_hold)
{
    struct arena arena;
    const char *error = "a message must be text";
    arena_init(&arena);
    const struct json *message = text.at ? json_read(&arena, text, &error) : NULL;
    if (!message)
        say_error(socket, "invalid_json", error);
    else if (!may_hold || !hold(socket, message, text))
        take_message(socket, message);
    arena_clear(&arena);
}

static void on_message(struct ws *ws, bool text, struct str payload)
{
    struct socket *socket = ws_owner(ws);
    if (!socket->ending)
        read_message(socket, text ? payload : STR_NONE, true);
}

/* JSON has no NUL. */
static void read_held(struct socket *socket)
{
    struct buf held = socket->held;
    struct str rest = buf_str(&held);
    struct str text;
    socket->held = (struct buf){0};
    while (rest.size && str_split(&rest, '\0', &text) && !is_over(socket))
        read_message(socket, text, false);
    buf_clear(&held);
}

static void on_flushed(struct ws *ws)
{
    struct socket *socket = ws_owner(ws);
    if (socket->state == CATCHING_UP)
        wait_done(&socket->wait, 0);
}

static void on_closed(struct ws *ws, int code)
{
    struct socket *socket = ws_owner(ws);
    (void)code;
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SOCKET, -1);
    socket->gone = true;
    fanout_leave(&socket->member);
    wait_done(&socket->wait, -ECANCELED);
    if (!socket->busy)
        socket_free(socket);
}

static const struct ws_events socket_events = {
    .message = on_message,
    .flushed = on_flushed,
    .closed = on_closed,
};

/* ---- the beginning ---- */

/* Who brings a token in the first message; false when it has ended. Waits. */
static bool check(struct request *request, struct socket *socket)
{
    enum api_error error = ERROR_INVALID_KEY;
    int result = wait_for(&socket->wait, "a first message", clock_in_ms(AUTH_MS));
    if (result == -ETIMEDOUT)
        end(socket, CLOSE_UNKNOWN, "no auth message came in time");
    if (result || is_over(socket))
        return false;
    socket->wait = WAIT_INIT;
    result = gate_verify_token(request, buf_str(&socket->token));
    if (result == -EACCES)
        refuse(socket, ERROR_INVALID_KEY, CLOSE_UNKNOWN);
    else if (result)
        refuse(socket, ERROR_UNAVAILABLE, CLOSE_AGAIN);
    else if (request->principal.must_sign)
        refuse(socket, ERROR_SIGNATURE_REQUIRED, CLOSE_UNKNOWN);
    else if (!gate_welcomes(request, &error))
        refuse(socket, error, error == ERROR_RATE_LIMITED ? CLOSE_TOO_MANY : CLOSE_FORBIDDEN);
    else
        result = enter(socket, &request->principal);
    if (result == -EMFILE)
        refuse(socket, ERROR_RATE_LIMITED, CLOSE_TOO_MANY);
    else if (result && !socket->ending)
        refuse(socket, ERROR_UNAVAILABLE, CLOSE_AGAIN);
    return !is_over(socket);
}

/* From its handshake on, or from where it was. */
static void begin(struct socket *socket, int64_t seq, struct str wished)
{
    const char *gap = NULL;
    int result = 0;
    struct buf by_message = socket->resume;
    struct str last_id = by_message.size ? buf_str(&by_message) : wished;
    socket->resume = (struct buf){0};
    socket->state = CATCHING_UP;
    if (last_id.at)
        result = events_place(socket->audience, last_id, &seq, &gap);
    if (result == 0 && !is_over(socket)) {
        say_gap(socket, gap, last_id);
        result = catch_up(socket, seq, INT64_MAX, seq);
    }
    give_up(socket, result);
    if (!is_over(socket) && by_message.size)
        answer(socket, "resumed");
    buf_clear(&by_message);
}

static void serve(struct request *request, struct socket *socket, struct str last_id)
{
    bool known = socket->audience != NULL;
    if (!known && !check(request, socket))
        return;
    if (socket->token.size)
        crypto_wipe(socket->token.at, socket->token.size);
    buf_clear(&socket->token);
    int64_t seq = feed_place(socket->audience->feed);
    bool greets = !last_id.at && socket->resume.size == 0;
    if (greets)
        socket->state = GREETED;
    if (!known)
        answer(socket, "authenticated");
    socket->wait = WAIT_INIT;
    if (greets && wait_for(&socket->wait, "a first word", clock_in_ms(GREET_MS)) == -ECANCELED)
        return;
    begin(socket, seq, last_id);
    if (!is_over(socket))
        read_held(socket);
}

/* Of one that is known before its handshake is answered: what is committed after that, it gets. False when it has replied. Waits. */
static bool enter_first(struct request *request, struct socket *socket)
{
    if (request->principal.kind == PRINCIPAL_NOBODY)
        return true;
    int result = enter(socket, &request->principal);
    if (result == -EMFILE) {
        reply_header(request, "Retry-After", "5");
        reply_error(request, ERROR_RATE_LIMITED, "The account has too many streams open");
    } else if (result) {
        reply_failure(request, result);
    }
    return result == 0;
}

void events_serve_socket(struct request *request, const struct events_wish *wish)
{
    struct socket *socket = mem_zalloc(sizeof *socket);
    const struct ws_options options = {.events = &socket_events, .owner = socket, .message_max = MESSAGE_MAX};
    socket->kinds = wish->kinds;
    socket->narrowed = wish->narrowed;
    socket->busy = true;
    if (!enter_first(request, socket) || !(socket->ws = gate_websocket(request, &options))) {
        socket_free(socket);
        return;
    }
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SOCKET, 1);
    fiber_set_deadline(CLOCK_NEVER);
    serve(request, socket, wish->last_id);
    let_go(socket);
}
