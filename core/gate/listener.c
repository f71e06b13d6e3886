/* A listener from its handshake to its end: see listener.h. */
#include "core/gate/listener.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/metrics.h"
#include "core/gate/live.h"

#include <errno.h>
#include <stdlib.h>

enum { AUTH_MS = 10000, MESSAGE_MAX = 16384 };

/* ---- the end ---- */

bool listener_is_over(const struct listener *listener)
{
    return listener->gone || listener->ending;
}

void listener_end(struct listener *listener, int code, const char *reason)
{
    listener->ending = true;
    ws_close(listener->ws, code, str_from(reason));
    wait_done(&listener->wait, -ECANCELED);
}

void listener_refuse(struct listener *listener, enum api_error error, int code)
{
    listener_say_error(listener, api_errors[error].code, api_errors[error].message);
    listener_end(listener, code, api_errors[error].code);
}

/* ---- who listens ---- */

static void on_ended(struct watched *watched, enum credential_state state)
{
    struct listener *listener = CONTAINER_OF(watched, struct listener, watched);
    fanout_leave(&listener->member);
    if (state == CREDENTIAL_BANNED)
        listener_end(listener, CLOSE_FORBIDDEN, "the account is banned");
    else
        listener_end(listener, CLOSE_UNKNOWN, "the key or log-in no longer holds");
}

/* 0; -EMFILE: too many; errors of stores. Waits. */
static int enter(struct listener *listener, const struct principal *principal)
{
    listener->audience = audience_enter(principal->account_id);
    if (!listener->audience)
        return -EMFILE;
    int result = feed_wait(listener->audience->feed, clock_in_ms(EVENTS_WAIT_MS));
    if (result == 0)
        watch_begin(&listener->watched, principal, on_ended);
    return result == -ETIMEDOUT ? -ENOTCONN : result;
}

static void listener_free(struct listener *listener)
{
    list_remove(&listener->greeted);
    fanout_leave(&listener->member);
    watch_end(&listener->watched);
    if (listener->audience)
        audience_leave(listener->audience);
    if (listener->token.size)
        crypto_wipe(listener->token.at, listener->token.size);
    buf_clear(&listener->token);
    buf_clear(&listener->resume);
    buf_clear(&listener->held);
    free(listener);
}

/* A fiber is through with it. */
void listener_let_go(struct listener *listener)
{
    if (--listener->busy == 0 && listener->gone)
        listener_free(listener);
}

/* ---- what its WebSocket tells ---- */

static void on_message(struct ws *ws, bool text, struct str payload)
{
    struct listener *listener = ws_owner(ws);
    listener->ws = ws; /* it may come along with the handshake */
    if (!listener->ending)
        listener_read_message(listener, text ? payload : STR_NONE, true);
}

static void on_flushed(struct ws *ws)
{
    struct listener *listener = ws_owner(ws);
    if (listener->state == LISTENER_CATCHING_UP)
        wait_done(&listener->wait, 0);
}

static void on_closed(struct ws *ws, int code)
{
    struct listener *listener = ws_owner(ws);
    (void)code;
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SOCKET, -1);
    listener->gone = true;
    fanout_leave(&listener->member);
    wait_done(&listener->wait, -ECANCELED);
    list_remove(&listener->greeted);
    if (listener->busy == 0)
        listener_free(listener);
}

static const struct ws_events socket_events = {
    .message = on_message,
    .flushed = on_flushed,
    .closed = on_closed,
};

/* ---- the beginning ---- */

/* Who brings a token in the first message; false when it has ended. Waits. */
static bool check(struct request *request, struct listener *listener)
{
    enum api_error error = ERROR_INVALID_KEY;
    int result = wait_for(&listener->wait, "a first message", clock_in_ms(AUTH_MS));
    if (result == -ETIMEDOUT)
        listener_end(listener, CLOSE_UNKNOWN, "no auth message came in time");
    if (result || listener_is_over(listener))
        return false;
    listener->wait = WAIT_INIT;
    result = gate_verify_token(request, buf_str(&listener->token));
    if (result == -EACCES)
        listener_refuse(listener, ERROR_INVALID_KEY, CLOSE_UNKNOWN);
    else if (result)
        listener_refuse(listener, ERROR_UNAVAILABLE, CLOSE_AGAIN);
    else if (request->principal.must_sign)
        listener_refuse(listener, ERROR_SIGNATURE_REQUIRED, CLOSE_UNKNOWN);
    else if (!gate_welcomes(request, &error))
        listener_refuse(listener, error, error == ERROR_RATE_LIMITED ? CLOSE_TOO_MANY : CLOSE_FORBIDDEN);
    else
        result = enter(listener, &request->principal);
    if (result == -EMFILE)
        listener_refuse(listener, ERROR_RATE_LIMITED, CLOSE_TOO_MANY);
    else if (result && !listener->ending)
        listener_refuse(listener, ERROR_UNAVAILABLE, CLOSE_AGAIN);
    return !listener_is_over(listener);
}

/* Who came unknown. */
static void serve_unknown(struct request *request, struct listener *listener, struct str last_id)
{
    if (!check(request, listener))
        return;
    crypto_wipe(listener->token.at, listener->token.size);
    buf_clear(&listener->token);
    listener->place = feed_place(listener->audience->feed);
    bool greets = !last_id.at && listener->resume.size == 0;
    if (greets)
        listener_greet(listener);
    listener_answer(listener, "authenticated");
    if (!greets)
        listener_begin(listener, last_id);
}

/* One that is known before its handshake is answered: what is committed after that, it gets. False when it has replied. Waits. */
static bool enter_first(struct request *request, struct listener *listener, struct str last_id)
{
    int result = enter(listener, &request->principal);
    if (result == -EMFILE) {
        reply_header(request, "Retry-After", "5");
        reply_error(request, ERROR_RATE_LIMITED, "The account has too many streams open");
    } else if (result) {
        reply_failure(request, result);
    }
    if (result)
        return false;
    listener->place = feed_place(listener->audience->feed);
    if (last_id.at)
        listener->state = LISTENER_CATCHING_UP;
    else
        listener_greet(listener);
    return true;
}

void events_serve_socket(struct request *request, const struct events_wish *wish)
{
    struct listener *listener = mem_zalloc(sizeof *listener);
    const struct ws_options options = {
        .events = &socket_events, .owner = listener, .message_max = MESSAGE_MAX};
    bool known = request->principal.kind != PRINCIPAL_NOBODY;
    list_init(&listener->greeted);
    listener->kinds = wish->kinds;
    listener->narrowed = wish->narrowed;
    listener->busy = 1;
    if ((known && !enter_first(request, listener, wish->last_id)) ||
        !(listener->ws = gate_websocket(request, &options))) {
        listener_free(listener);
        return;
    }
    metric_add_slot(M_EVENT_STREAMS, EVENTS_SOCKET, 1);
    fiber_set_deadline(CLOCK_NEVER);
    if (!known)
        serve_unknown(request, listener, wish->last_id);
    else if (wish->last_id.at)
        listener_begin(listener, wish->last_id);
    listener_let_go(listener);
}
