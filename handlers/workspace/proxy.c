/*
 * A request on its way to a pod and the answer on its way back, both streamed: a piece is read when the one before has
 * been taken on, so that whoever is slow slows the other and nobody's memory fills.
 *
 *   visit (held while the pod wakes) ─▶ connection ─▶ head, and a body that is here ─▶ answer's head ─▶ its body
 *                                                     └▶ a longer body: the pump, a fiber of its own
 *
 * The pump goes on while the answer comes, for pods that answer as they read; it ends with the answer at the latest.
 * What was not read of the request's body then closes the client's connection, what was not sent of it the pod's.
 */
#include "handlers/workspace/workspace.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/visit.h"
#include "core/net/upstream.h"

#include <errno.h>

enum {
    LOST_MAX = 2,  /* tries that are made good by another */
    PAUSE_MS = 30, /* after the first; longer after the next */
};

/* ---- the visit ---- */

static void reply_unvisited(struct request *request, int result)
{
    switch (result) {
    case -ENOENT: page_reply(request, PAGE_UNKNOWN); return;
    case -ETIMEDOUT: page_reply(request, PAGE_WAKING); return;
    case -EUSERS: page_reply(request, PAGE_CROWDED); return;
    case -EBUSY: page_reply(request, PAGE_FAILED); return;
    case -ECANCELED:
    case -ENOTCONN:
    case -ECONNRESET:
    case -EAGAIN: page_reply(request, PAGE_AWAY); return;
    default: reply_failure(request, result);
    }
}

/* False when it has replied. */
static bool open_visit(struct proxy *proxy)
{
    metric_add(M_PROXY_HELD, 1);
    int result = visit_open(proxy->request->instance, VISIT_REQUEST, proxy->hold_until_ns, &proxy->visit);
    metric_add(M_PROXY_HELD, -1);
    if (result == 0)
        return true;
    proxy->visit = NULL;
    reply_unvisited(proxy->request, result);
    return false;
}

static void close_visit(struct proxy *proxy)
{
    if (proxy->visit)
        visit_close(proxy->visit);
    proxy->visit = NULL;
}

/* ---- the request's body ---- */

static void put_piece(const struct proxy *proxy, struct str piece)
{
    struct buf *out = upstream_out(proxy->upstream);
    bool chunked = proxy->http->head->chunked;
    if (piece.size && chunked)
        buf_printf(out, "%zx\r\n", piece.size);
    buf_add_str(out, piece);
    if (piece.size && chunked)
        buf_add_literal(out, "\r\n");
}

static void put_end(const struct proxy *proxy)
{
    if (proxy->http->head->chunked)
        buf_add_literal(upstream_out(proxy->upstream), "0\r\n\r\n");
}

/* Until the body is through, or one side breaks off. */
static void pump_body(struct proxy *proxy)
{
    struct str piece;
    for (;;) {
        int result = http_body_piece(proxy->http, &piece);
        if (result) {
            proxy->body_error = result;
            return;
        }
        if (piece.size == 0)
            break;
        put_piece(proxy, piece);
        visit_active(proxy->visit);
        proxy->moved++;
        if (upstream_send(proxy->upstream, false))
            return; /* it takes no more, and may have answered */
        proxy->moved++;
    }
    put_end(proxy);
    int result = upstream_send(proxy->upstream, true);
    (void)result; /* what became of it, the answer tells */
}

static void run_pump(void *arg)
{
    struct proxy *proxy = arg;
    pump_body(proxy);
    proxy->pump = NULL;
    if (proxy->pump_end)
        wait_done(proxy->pump_end, 0);
    else if (proxy->body_error)
        fiber_cancel(proxy->fiber); /* there is no answer to half a request */
}

static void stop_pump(struct proxy *proxy)
{
    if (!proxy->pump)
        return;
    struct wait wait = WAIT_INIT;
    proxy->pump_end = &wait;
    fiber_cancel(proxy->pump);
    fiber_hold();
    int result = wait_for(&wait, "the end of the request's body", CLOCK_NEVER);
    CHECK(result == 0);
    fiber_release();
}

/* ---- the request ---- */

static int send_request(struct proxy *proxy)
{
    struct http_request *http = proxy->http;
    head_put_request(upstream_out(proxy->upstream), &proxy->head);
    if (http->head->has_body && http_body_is_here(http)) {
        struct str body;
        int result = http_body_piece(http, &body);
        if (result)
            return result;
        put_piece(proxy, body);
        put_end(proxy);
    } else if (http->head->has_body) {
        proxy->pump = fiber_start(loop_self(), "workspace body", run_pump, proxy);
    }
    int result = upstream_send(proxy->upstream, !proxy->pump);
    return result == -ECONNRESET ? 0 : result; /* it may have answered before it closed */
}

/* A pod is not silent while it takes a body. */
static int wait_for_head(struct proxy *proxy)
{
    bool to_head = str_equal(proxy->http->head->method, STR("HEAD"));
    for (;;) {
        uint64_t moved = proxy->moved;
        int result = upstream_head(proxy->upstream, proxy->request->arena, to_head,
                                   clock_in_ms((uint64_t)config->proxy_timeout_s * 1000), &proxy->answer);
        if (result != -ETIMEDOUT || moved == proxy->moved)
            return result;
    }
}

/* One try: 0 when the answer's head is there. */
static int exchange(struct proxy *proxy, bool fresh, bool *reused)
{
    struct upstream_target target;
    upstream_target_local(&target, visit_port(proxy->visit), visit_generation(proxy->visit));
    int result = upstream_open(&target, fresh, (uint64_t)config->pod_connect_ms, &proxy->upstream, reused);
    if (result) {
        proxy->upstream = NULL;
        return result;
    }
    result = send_request(proxy);
    if (result == 0)
        result = wait_for_head(proxy);
    if (result == 0 && proxy->answer->switched && !proxy->head.upgrade)
        return -EPROTO; /* to something that nobody has asked for */
    return result;
}

static void reply_failed(struct proxy *proxy, int result)
{
    struct request *request = proxy->request;
    if (proxy->body_error == -ETIMEDOUT) {
        reply_error(request, ERROR_REQUEST_TIMEOUT, NULL);
        return;
    }
    if (proxy->body_error == -EBADMSG) {
        reply_error(request, ERROR_BAD_REQUEST, "The body's framing is broken");
        return;
    }
    if (result == -ECANCELED || result == -EMFILE) {
        page_reply(request, PAGE_AWAY);
        return;
    }
    metric_add(M_PROXY_FAILURES, 1);
    LOG(INFO, "a pod did not answer", LOG_STR("id", request->id), LOG_STR("instance", request->instance),
        LOG_INT("port", proxy->visit ? visit_port(proxy->visit) : 0), LOG_ERRNO(result));
    page_reply(request, result == -ETIMEDOUT ? PAGE_SILENT : PAGE_UNREACHABLE);
}

/* RFC 9110 §9.2.2: asking twice is asking once. */
static bool is_repeatable(const struct http1_head *head)
{
    static const struct str methods[] = {{"GET", 3},   {"HEAD", 4}, {"OPTIONS", 7},
                                         {"TRACE", 5}, {"PUT", 3},  {"DELETE", 6}};
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (str_equal(head->method, methods[i]))
            return !head->has_body;
    return false;
}

static void close_upstream(struct proxy *proxy)
{
    if (proxy->upstream)
        upstream_close(proxy->upstream);
    proxy->upstream = NULL;
}

/*
 * Gets the answer's head. False when it has replied.
 *
 * A pod may close a connection that was used before at the moment when we use it again: what may be asked twice then is,
 * on a fresh one. Where that is closed too, or nobody takes it, the pod has ended without our knowing, or is about to:
 * after a pause in which a process can end the visit begins anew, and is held until there is another pod.
 */
static bool get_answer(struct proxy *proxy)
{
    bool repeatable = is_repeatable(proxy->http->head);
    bool fresh = false;
    for (unsigned lost = 0;; lost++) {
        if (!proxy->visit && !open_visit(proxy))
            return false;
        bool reused = false;
        int result = exchange(proxy, fresh, &reused);
        if (result == 0)
            return true;
        bool no_pod = !reused && (result == -ECONNREFUSED || result == -ECONNRESET ||
                                  (result == -ETIMEDOUT && !proxy->upstream));
        bool again = result == -ECONNREFUSED || (result == -ECONNRESET && repeatable);
        if (!again || lost == LOST_MAX || (no_pod && fiber_sleep_ms(PAUSE_MS << 2 * lost))) {
            if (no_pod)
                visit_unreachable(proxy->visit);
            reply_failed(proxy, result);
            return false;
        }
        close_upstream(proxy);
        fresh = true;
        if (no_pod) {
            visit_unreachable(proxy->visit);
            close_visit(proxy);
        }
    }
}

/* ---- the answer ---- */

static bool is_event_stream(const struct http1_answer_head *answer)
{
    struct str type = http1_answer_header(answer, "content-type");
    struct str media;
    return str_split(&type, ';', &media) && str_equal_nocase(str_trim(media), STR("text/event-stream"));
}

static void begin_answer(struct proxy *proxy)
{
    const struct http1_answer_head *answer = proxy->answer;
    head_add_answer(proxy->http, answer);
    if (answer->has_length && answer->status != 204)
        http_stream_begin_sized(proxy->http, answer->status, answer->content_length);
    else if (answer->has_body)
        http_stream_begin(proxy->http, answer->status);
    else
        http_stream_begin_empty(proxy->http, answer->status);
}

static int next_piece(struct proxy *proxy, struct str *piece)
{
    for (;;) {
        uint64_t moved = proxy->moved;
        int result =
            upstream_body(proxy->upstream, clock_in_ms((uint64_t)config->proxy_timeout_s * 1000), piece);
        if (result != -ETIMEDOUT || moved == proxy->moved)
            return result;
    }
}

static int copy_body(struct proxy *proxy, bool counts)
{
    bool done = !proxy->answer->has_body;
    while (!done) {
        struct str piece;
        int result = next_piece(proxy, &piece);
        if (result)
            return result;
        done = piece.size == 0 || upstream_is_done(proxy->upstream);
        if (counts)
            visit_active(proxy->visit);
        if (http_stream_write(proxy->http, piece))
            return -ECANCELED; /* the client's doing, whatever it was */
    }
    return 0;
}

/* What breaks off here can only be told by closing the client's connection, which the server does with an answer that
 * was not ended. */
static void pass_answer(struct proxy *proxy)
{
    /* A forgotten tab keeps an event stream open: that keeps no pod awake, and no sleep waits for its end. */
    bool events = is_event_stream(proxy->answer);
    if (events)
        visit_to_socket(proxy->visit);
    begin_answer(proxy);
    int result = copy_body(proxy, !events);
    if (result == 0) {
        http_stream_end(proxy->http);
        return;
    }
    bool by_client = result == -ECANCELED || proxy->body_error;
    proxy->request->why = by_client ? "client_left" : result == -ETIMEDOUT ? "pod_silent" : "pod_left";
    metric_add(M_PROXY_FAILURES, !by_client);
}

/* Longer for a program, which sees nothing meanwhile; a browser soon shows our page. */
static uint64_t hold_until(const struct http1_head *head)
{
    bool page = str_equal(head->method, STR("GET")) && page_is_wanted(head);
    return clock_in_ms((uint64_t)(page ? config->hold_page_s : config->hold_s) * 1000);
}

void proxy_run(struct request *request, const struct guest *guest)
{
    struct http_request *http = request->http;
    struct proxy proxy = {
        .request = request,
        .http = http,
        .head = {.head = http->head,
                 .target = guest->target,
                 .scheme = gate_scheme(request),
                 .peer = http_peer_text(http),
                 .id = request->id,
                 .trusted = gate_peer_is_trusted(request),
                 .upgrade = guest->upgrade},
        .hold_until_ns = hold_until(http->head),
        .fiber = fiber_self(),
    };
    metric_add(M_PROXY_REQUESTS, 1);
    fiber_set_deadline(CLOCK_NEVER); /* it runs as long as bytes move */
    if (get_answer(&proxy)) {
        if (proxy.answer->switched)
            socket_open(&proxy);
        else
            pass_answer(&proxy);
    }
    stop_pump(&proxy);
    close_upstream(&proxy);
    close_visit(&proxy);
}
