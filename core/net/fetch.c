/*
 * HTTP calls from a fiber: what a request becomes for libcurl, and what libcurl's result means. How libcurl runs on
 * the loop is core/net/fetch_loop.c.
 */
#include "core/net/fetch.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/net/fetch_loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

enum {
    POOL_MAX = 128,        /* easy handles kept for the next call */
    BODY_KEPT_MAX = 65536, /* of a kept call's buffer */
};

struct call {
    struct fetch_transfer transfer;
    struct buf body;
    size_t max_body_bytes;
    bool answered;  /* a line of an answer has come */
    bool head_done; /* its whole header has */
    bool too_large;
};

static struct call *call_at(struct link *link)
{
    return CONTAINER_OF(link, struct call, transfer.link);
}

/* ---- what comes in ---- */

static size_t on_header(char *line, size_t one, size_t size, void *arg)
{
    (void)one;
    struct call *call = arg;
    struct str text = str_of(line, size);
    call->answered = true;
    if (str_starts(text, STR("HTTP/")))
        call->head_done = false;
    else if (str_equal(text, STR("\r\n")) || str_equal(text, STR("\n")))
        call->head_done = true;
    return size;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *arg)
{
    (void)one;
    struct call *call = arg;
    if (size > call->max_body_bytes - call->body.size) {
        call->too_large = true;
        return CURL_WRITEFUNC_ERROR;
    }
    buf_add(&call->body, bytes, size);
    return size;
}

/* ---- what goes out ---- */

#define SET(call, option, value)                                                                             \
    CHECK(curl_easy_setopt((call)->transfer.easy, CURLOPT_##option, (value)) == CURLE_OK)

static void call_set_always(struct call *call)
{
    SET(call, NOSIGNAL, 1L);
    SET(call, PROXY, "");
    SET(call, PROTOCOLS_STR, "http,https");
    SET(call, HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(call, FOLLOWLOCATION, 0L);
    SET(call, TCP_NODELAY, 1L);
    /* A URL with a password in it would be one that can't be logged. */
    SET(call, DISALLOW_USERNAME_IN_URL, 1L);
    /* A call that is given up while its name is looked up leaves that to the resolver's thread; otherwise the loop
     * would stop until the thread is done. */
    SET(call, QUICK_EXIT, 1L);
    SET(call, HEADERFUNCTION, on_header);
    SET(call, HEADERDATA, call);
    SET(call, WRITEFUNCTION, on_body);
    SET(call, WRITEDATA, call);
}

static bool is_one_of(const char *method, const char *const *methods)
{
    while (*methods && strcmp(method, *methods) != 0)
        methods++;
    return *methods;
}

/* RFC 9110 §9.2.2. */
static const char *const idempotent_methods[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", NULL};
/* These say that they have no body, by a Content-Length of 0. */
static const char *const body_methods[] = {"POST", "PUT", "PATCH", NULL};

static void call_set_method(struct call *call, const struct fetch_request *request)
{
    if (request->body.at || is_one_of(request->method, body_methods)) {
        SET(call, POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
        SET(call, POSTFIELDS, request->body.at ? request->body.at : "");
    } else if (strcmp(request->method, "HEAD") == 0) {
        SET(call, NOBODY, 1L);
    } else {
        SET(call, HTTPGET, 1L);
    }
    SET(call, CUSTOMREQUEST, request->method);
}

/* Nodes in the arena, as the caller's arena lives as long as the call. */
static struct curl_slist **add_header(struct arena *arena, struct curl_slist **end, const char *header)
{
    *end = arena_alloc(arena, sizeof **end);
    (*end)->data = (char *)(uintptr_t)header; /* libcurl only reads it */
    (*end)->next = NULL;
    return &(*end)->next;
}

static void call_set_headers(struct call *call, const struct fetch_request *request, struct arena *arena)
{
    struct curl_slist *list = NULL;
    struct curl_slist **end = &list;
    for (const char *const *header = request->headers; header && *header; header++)
        end = add_header(arena, end, *header);
    /* A name without a value keeps libcurl from adding that field by itself. */
    end = add_header(arena, end, "Content-Type:");
    add_header(arena, end, "Expect:");
    SET(call, HTTPHEADER, list);
}

/* ---- calls ---- */

static struct call *call_take(struct fetch_client *client)
{
    struct link *pooled = list_pop_front(&client->pooled);
    struct call old = {.body = {0}};
    struct call *call = NULL;
    if (pooled) {
        client->pooled_count--;
        call = call_at(pooled);
        old = *call;
    } else {
        call = mem_alloc(sizeof *call);
        old.transfer.easy = curl_easy_init();
        CHECK(old.transfer.easy);
    }
    *call = (struct call){.transfer = {.client = client, .easy = old.transfer.easy}, .body = old.body};
    return call;
}

static struct call *call_open(const struct fetch_request *request, struct arena *arena)
{
    struct call *call = call_take(fetch_client_self());
    call->max_body_bytes = request->max_body_bytes;
    call->transfer.repeatable = is_one_of(request->method, idempotent_methods);
    call_set_always(call);
    SET(call, URL, request->url);
    SET(call, CONNECTTIMEOUT_MS, (long)request->connect_timeout_ms);
    call_set_method(call, request);
    call_set_headers(call, request, arena);
    fetch_transfer_start(&call->transfer);
    return call;
}

static void call_free(struct call *call)
{
    curl_easy_cleanup(call->transfer.easy);
    buf_clear(&call->body);
    free(call);
}

static void call_close(struct call *call)
{
    struct fetch_client *client = call->transfer.client;
    fetch_transfer_stop(&call->transfer);
    if (client->pooled_count >= POOL_MAX) {
        call_free(call);
        return;
    }
    curl_easy_reset(call->transfer.easy);
    call->body.size = 0;
    if (call->body.capacity > BODY_KEPT_MAX)
        buf_clear(&call->body);
    list_push_front(&client->pooled, &call->transfer.link);
    client->pooled_count++;
}

/* ---- results ---- */

/* The connection ended before the answer did. */
static int call_broken(const struct call *call)
{
    long connects = 0;
    CHECK(curl_easy_getinfo(call->transfer.easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK);
    return call->answered || connects == 0 ? -ECONNRESET : -ECONNABORTED;
}

static int call_failed(const struct call *call, const struct fetch_request *request)
{
    if (call->too_large)
        return -EMSGSIZE;
    if (call->transfer.repeat_refused)
        return -ECONNRESET;
    switch (call->transfer.code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_LOGIN_DENIED: return -EINVAL;
    case CURLE_COULDNT_RESOLVE_HOST: return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT: /* of the connect: the whole call's time is the wait's */
        return -ECONNREFUSED;
    case CURLE_OK: /* ended within the header */
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE: return call_broken(call);
    default: break;
    }
    struct str url = str_of(request->url, strcspn(request->url, "?#"));
    LOG(WARN, "fetch failed", LOG_TEXT("method", request->method), LOG_STR("url", url),
        LOG_TEXT("reason", curl_easy_strerror(call->transfer.code)));
    return -EIO;
}

static int call_answer(const struct call *call, const struct fetch_request *request, struct arena *arena,
                       struct fetch_answer *answer)
{
    CURL *easy = call->transfer.easy;
    long status = 0;
    const char *type = NULL;
    if (call->transfer.code != CURLE_OK || !call->head_done)
        return call_failed(call, request);
    CHECK(curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK);
    CHECK(curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK);
    answer->status = (int)status;
    answer->body = arena_str(arena, buf_str(&call->body));
    answer->type = type ? arena_str(arena, str_from(type)) : STR_NONE;
    return 0;
}

/* ---- the interface ---- */

/* libcurl would guess: a scheme that is missing, a host behind a third slash. */
static bool url_is_whole(struct str url)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        size_t size = schemes[i].size;
        if (url.size > size && str_equal_nocase(str_of(url.at, size), schemes[i]))
            return !strchr("/?#", url.at[size]);
    }
    return false;
}

static bool request_is_fit(const struct fetch_request *request)
{
    for (const char *const *header = request->headers; header && *header; header++)
        if (strpbrk(*header, "\r\n"))
            return false;
    return url_is_whole(str_from(request->url));
}

int fetch(const struct fetch_request *request, struct arena *arena, struct fetch_answer *answer)
{
    CHECK(request->total_timeout_ms > 0);
    *answer = (struct fetch_answer){0};
    if (!request_is_fit(request))
        return -EINVAL;
    struct call *call = call_open(request, arena);
    int result = wait_for(&call->transfer.wait, "fetch", clock_in_ms(request->total_timeout_ms));
    if (call->transfer.wait.done)
        result = call_answer(call, request, arena, answer);
    call_close(call);
    return result;
}

void fetch_close_loop(struct loop *loop)
{
    struct fetch_client *client = loop->slots[LOOP_FETCH];
    if (!client)
        return;
    struct link *item;
    while ((item = list_pop_front(&client->pooled)) != NULL)
        call_free(call_at(item));
    fetch_client_close(client);
}

void fetch_init(void)
{
    /* TLS writes to a socket that its peer has closed. */
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    /* Otherwise looking up a name would stop the loop. */
    CHECK(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS);
}
