#ifndef CORE_GATE_LISTENER_H
#define CORE_GATE_LISTENER_H

#include "core/gate/audience.h"
#include "core/gate/events_internal.h"
#include "core/gate/watch.h"

/*
 * A WebSocket that listens to events.
 *
 *              {"type":"auth"}              a first word, or GREET_MS           all that was missed is sent
 *   UNKNOWN ──▶ CHECKING ──▶ GREETED ──────────────────────────▶ CATCHING_UP ─────────────────────────────▶ LIVE
 *     └ 4401 after AUTH_MS      ▲ by header or ticket: begins here      ▲                                     │
 *                               └ and is over when it says where it was └──────── {"type":"resume"} ──────────┘
 *
 * While it is LIVE it has no fiber: the fanout of its account's audience gives it every event. What it says is answered in the
 * turn in which it comes; only auth and resume need a fiber, one at a time. One that resumes by a message says so first: until its
 * first word, or for GREET_MS, it is given nothing newer.
 */

enum {
    CLOSE_UNKNOWN = 4401,
    CLOSE_FORBIDDEN = 4403,
    CLOSE_TOO_MANY = 4429,
    CLOSE_AGAIN = 1013,
};

enum listener_state {
    LISTENER_UNKNOWN,
    LISTENER_CHECKING,
    LISTENER_GREETED,
    LISTENER_CATCHING_UP,
    LISTENER_LIVE
};

struct listener {
    struct ws *ws;
    enum listener_state state;
    bool narrowed;
    bool gone;     /* the WebSocket is closed */
    bool ending;   /* it was told to close */
    unsigned busy; /* fibers that work on it; the last one frees it if it is gone by then */
    event_set kinds;
    int64_t place;     /* the last number before its handshake was answered, or it was known */
    int64_t live_from; /* the last number that it had, or let pass, when it became live */
    int64_t live_to;   /* and when it was no longer */
    struct audience *audience;
    struct fanout_member member;
    struct watched watched;
    struct link greeted;
    uint64_t greeted_ns;
    struct wait wait;  /* for a first message, or for room */
    struct buf token;  /* of the first message */
    struct buf held;   /* what it said while it was greeted: messages, each ended by a NUL */
    struct buf resume; /* the last id that it has had, by a message; empty: none */
};

/* ---- listener.c ---- */

/* Closed, or told to close. */
bool listener_is_over(const struct listener *listener);
/* Begins to close it; what works on it ends. */
void listener_end(struct listener *listener, int code, const char *reason);
/* The same with an error said before. */
void listener_refuse(struct listener *listener, enum api_error error, int code);
/* A fiber that has counted itself in `busy` is through with it. */
void listener_let_go(struct listener *listener);

/* ---- listener_catch_up.c ---- */

/* Sends what comes after listener->place, or after the last id that it has had: by a message, or else as it was wished. It is live
 * then, unless it is over. Waits. */
void listener_begin(struct listener *listener, struct str wished);
/* A live one goes back to where it says. */
void listener_resume(struct listener *listener);
/* Until its first word, or for a while, it is given nothing. */
void listener_greet(struct listener *listener);
void listener_end_greeting(struct listener *listener);

/* ---- listener_words.c ---- */

/* Sends the text and clears it. */
void listener_say(struct listener *listener, struct buf *text);
void listener_say_error(struct listener *listener, const char *code, const char *message);
/* {"type",…} with what it listens to and where it stands. */
void listener_answer(struct listener *listener, const char *type);
/* What it says; absent: no text. `may_hold`: it may have to wait until it is live. */
void listener_read_message(struct listener *listener, struct str text, bool may_hold);
/* What had to wait. */
void listener_read_held(struct listener *listener);

#endif
