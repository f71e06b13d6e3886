#ifndef HANDLERS_WORKSPACE_WORKSPACE_H
#define HANDLERS_WORKSPACE_WORKSPACE_H

#include "core/gate/gate.h"
#include "proto/http1_answer.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The workspace surface (contract.md, 2): hosts vs-code-{uuid}.DOMAIN are passed on to the session's pod, which is woken
 * for it, whatever the method and the path.
 *
 *   routes.c   the table; a request from its host to its answer
 *   access.c   who may: link, cookie, origin
 *   head.c     which fields go on, and which don't
 *   proxy.c    a request and its answer, streamed
 *   socket.c   a request that becomes something else (WebSocket)
 *   page.c     what is said when there is no answer of the pod's
 */
extern const struct surface surface_workspace;

/* ---- access.c ---- */

/* A request that may be passed on. */
struct guest {
    struct str target; /* for the pod: as it came, without our link */
    bool upgrade;      /* it asks for another protocol that a pod may speak */
};

/* Checks link, cookie and origin, and sets the cookie for who came by a link. False when it has replied. */
bool access_admit(struct request *request, struct guest *guest);

/* ---- head.c ---- */

/* A query without its parameters named `name`, in the arena unless there are none; absent when nothing is left. Only the
 * plain spelling counts: what we don't take for our parameter, we don't take out. */
struct str head_query_without(struct arena *arena, struct str query, struct str name);
/* The next value of the parameter in that spelling, from the front of *query on; false when there is none. */
bool head_next_param(struct str *query, struct str name, struct str *value);
/* The next value of the cookie, from the front of a Cookie field's *value on; false when there is none. */
bool head_next_cookie(struct str *cookies, struct str name, struct str *value);

/* What the head of a request to a pod is made of. */
struct head_request {
    const struct http1_head *head; /* the client's */
    struct str target;
    struct str scheme; /* as the client has it */
    struct str peer;   /* the address that we have the request from */
    struct str id;     /* X-Request-Id */
    bool trusted;      /* what the peer says of who asked it counts */
    bool upgrade;
};

/*
 * Puts the whole head. Everything that the client has sent goes on but what is between it and us (RFC 9110 §7.6.1), our
 * cookie, and what only we may say (X-Forwarded-*, X-Request-Id), which Connection can't name away. Lengths are as they
 * came: Content-Length, chunked or none.
 */
void head_put_request(struct buf *out, const struct head_request *request);

/* Adds the fields of a pod's answer to ours, by the same rules; with Upgrade when it has switched. */
void head_add_answer(struct http_request *http, const struct http1_answer_head *answer);

/* ---- proxy.c ---- */

struct visit;
struct upstream;

/* One request on its way to a pod and back. Lives on its handler's stack. */
struct proxy {
    struct request *request;
    struct http_request *http;
    struct head_request head;
    struct visit *visit;       /* NULL: none */
    struct upstream *upstream; /* NULL: none */
    const struct http1_answer_head *answer;
    uint64_t hold_until_ns;
    struct fiber *fiber;
    struct fiber *pump;    /* takes the request's body to the pod; NULL: none, or it has ended */
    struct wait *pump_end; /* of who waits for that */
    uint64_t moved;        /* pieces of the body that were taken there */
    int body_error;        /* why the client's body broke off */
};

/* Passes the request on and answers it. Waits. */
void proxy_run(struct request *request, const struct guest *guest);

/* ---- socket.c ---- */

/* The pod has switched protocols: so do we, and couple both connections. Takes visit and upstream. */
void socket_open(struct proxy *proxy);

/* ---- page.c ---- */

enum page {
    PAGE_NO_ACCESS,
    PAGE_UNKNOWN,
    PAGE_WAKING,
    PAGE_CROWDED,
    PAGE_FAILED,
    PAGE_AWAY,
    PAGE_UNREACHABLE,
    PAGE_SILENT,
    PAGE_COUNT
};

/* Whether it is a browser that asks for a page: GET or HEAD, and Accept has text/html. */
bool page_is_wanted(const struct http1_head *head);
/* Replies: a page for people, which asks again by itself where that helps, to who wants one; to others the surface's error. */
void page_reply(struct request *request, enum page page);

#endif
