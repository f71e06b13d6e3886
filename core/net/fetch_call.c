/*
 * One request and its answer: what the request becomes for libcurl, what comes in, and what libcurl's result means. A call
 * is used again with its easy handle, on which everything that is the same for all requests is set once.
 */
#include "core/net/fetch_call.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <errno.h>
#include <stdlib.h>

enum {
    CALLS_KEPT = 512,    /* for the next requests */
    BUFFER_KEPT = 16384, /* of a kept call's buffers */
    HEAD_MAX =
        64 * 1024, /* bytes of header lines that an answer may have, interim ones and trailers included */
    NAME_LOOKUP_S = 10,      /* a name's addresses are good for so long */
    CONNECTION_IDLE_S = 60,  /* a connection is not used again after so long */
    CONNECTION_LIFE_S = 300, /* nor when it is so old */
};

/* ---- what comes in ---- */

static void call_wake(struct fetch_call *call)
{
    if (call->wakes)
        wait_done(&call->transfer.wait, 0);
}

static size_t call_refuse(struct fetch_call *call, int why)
{
    call->refused = why;
    return CURL_WRITEFUNC_ERROR;
}

static bool is_wanted(struct str name, const char *const *wanted)
{
    for (; wanted && *wanted; wanted++) {
        struct str want = str_from(*wanted);
        bool begins = want.size > 0 && want.at[want.size - 1] == '*';
        want.size -= begins;
        if (name.size >= want.size && str_equal_nocase(begins ? str_of(name.at, want.size) : name, want))
            return true;
    }
    return false;
}

static void keep_field(struct fetch_call *call, struct str name, struct str value)
{
    if (call->kept_count == FETCH_HEADERS_MAX || value.size > FETCH_HEADER_SIZE_MAX ||
        name.size > FETCH_HEADER_SIZE_MAX || !is_wanted(name, call->request->headers_wanted))
        return;
    buf_add_str(&call->kept, name);
    buf_add_str(&call->kept, value);
    call->kept_sizes[call->kept_count].name_size = name.size;
    call->kept_sizes[call->kept_count].value_size = value.size;
    call->kept_count++;
}

/* libcurl undoes a transfer coding though nobody has asked for it, and what a few bytes inflate to is held in memory. */
static bool is_coded(struct str name, struct str value)
{
    return str_equal_nocase(name, STR("Transfer-Encoding")) && !str_equal_nocase(value, STR("chunked")) &&
           !str_equal_nocase(value, STR("identity"));
}

static size_t on_field(struct fetch_call *call, struct str line)
{
    const char *colon = memchr(line.at, ':', line.size);
    if (!colon || line.at[0] == ' ' || line.at[0] == '\t')
        return line.size;
    size_t name_size = (size_t)(colon - line.at);
    size_t end = line.size;
    while (end > name_size + 1 && (line.at[end - 1] == '\n' || line.at[end - 1] == '\r'))
        end--;
    struct str name = str_trim(str_of(line.at, name_size));
    struct str value = str_trim(str_of(colon + 1, end - name_size - 1));
    if (is_coded(name, value))
        return call_refuse(call, FETCH_CODED);
    if (call->request->headers_wanted)
        keep_field(call, name, value);
    return line.size;
}

static void on_head_end(struct fetch_call *call)
{
    long status = 0;
    CHECK(curl_easy_getinfo(call->transfer.easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK);
    call->status = (int)status;
    /* An interim answer is followed by another, but for a switch of protocols, which nobody has asked for. */
    call->head_done = status >= 200 || status == 101;
    if (call->head_done)
        call_wake(call);
}

static size_t on_header(char *bytes, size_t one, size_t size, void *arg)
{
    (void)one;
    struct fetch_call *call = arg;
    struct str line = str_of(bytes, size);
    call->head_size += size;
    if (call->head_size > HEAD_MAX)
        return call_refuse(call, FETCH_TOO_LARGE);
    if (!call->answered) {
        call->answered = true;
        call->first_ns = clock_now_ns();
    }
    if (call->head_done) /* a trailer */
        return size;
    if (str_equal(line, STR("\r\n")) || str_equal(line, STR("\n"))) {
        on_head_end(call);
        return size;
    }
    if (!str_starts(line, STR("HTTP/")))
        return on_field(call, line);
    call->kept.size = 0;
    call->kept_count = 0;
    return size;
}

static size_t on_body(char *bytes, size_t one, size_t size, void *arg)
{
    (void)one;
    struct fetch_call *call = arg;
    const struct fetch_request *request = call->request;
    size_t left = request->max_body_bytes - call->taken;
    size_t some = size < left ? size : left;
    size_t held = call->body.size;
    if (held > 0 && (held >= call->window || some > call->window - held)) {
        call->transfer.paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    buf_add(&call->body, bytes, some);
    call->taken += some;
    if (some > 0)
        call_wake(call);
    return some == size ? size : call_refuse(call, request->truncate ? FETCH_CUT : FETCH_TOO_LARGE);
}

/* ---- what goes out ---- */

#define SET(call, option, value)                                                                             \
    CHECK(curl_easy_setopt((call)->transfer.easy, CURLOPT_##option, (value)) == CURLE_OK)

static void call_set_always(struct fetch_call *call)
{
    SET(call, NOSIGNAL, 1L);
    SET(call, PROXY, "");
    SET(call, PROTOCOLS_STR, "http,https");
    SET(call, HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(call, SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(call, FOLLOWLOCATION, 0L);
    SET(call, TCP_NODELAY, 1L);
    /* A URL with a password in it would be one that can't be logged. */
    SET(call, DISALLOW_USERNAME_IN_URL, 1L);
    /* A call that is given up while its name is looked up leaves that to the resolver's thread; otherwise the loop
     * would stop until the thread is done. */
    SET(call, QUICK_EXIT, 1L);
    SET(call, DNS_CACHE_TIMEOUT, (long)NAME_LOOKUP_S);
    SET(call, MAXAGE_CONN, (long)CONNECTION_IDLE_S);
    SET(call, MAXLIFETIME_CONN, (long)CONNECTION_LIFE_S);
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

/* Each sets all that another may have set for the request before. */
static void call_set_method(struct fetch_call *call, const struct fetch_request *request)
{
    if (request->body.at || is_one_of(request->method, body_methods)) {
        SET(call, POST, 1L);
        SET(call, POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
        SET(call, POSTFIELDS, request->body.at ? request->body.at : "");
    } else if (strcmp(request->method, "HEAD") == 0) {
        SET(call, NOBODY, 1L);
    } else {
        SET(call, HTTPGET, 1L);
    }
    SET(call, CUSTOMREQUEST, request->method);
}

/* A name without a value keeps libcurl from adding that field by itself. */
static char no_expect_text[] = "Expect:";
static char no_type_text[] = "Content-Type:";
static struct curl_slist no_expect = {no_expect_text, NULL};
static struct curl_slist no_type = {no_type_text, &no_expect};

/* Where libcurl finds whom the system trusts; NULL: nowhere in a folder. */
static const char *system_folder;

void fetch_calls_init(void)
{
    CURL *easy = curl_easy_init();
    char *folder = NULL;
    CHECK(easy && curl_easy_getinfo(easy, CURLINFO_CAPATH, &folder) == CURLE_OK);
    system_folder = folder; /* a constant of the library's */
    curl_easy_cleanup(easy);
}

/* Those of a request stand in place of the system's, its folder included. A kept connection is used again only by who trusts the
 * same: libcurl compares both. */
static void call_set_authorities(struct fetch_call *call, const struct fetch_request *request)
{
    if (!call->own_authorities && !request->authorities)
        return;
    struct curl_blob blob = {.flags = CURL_BLOB_NOCOPY};
    if (request->authorities) {
        blob.data = (char *)(uintptr_t)request->authorities; /* libcurl only reads it */
        blob.len = strlen(request->authorities);
    }
    SET(call, CAINFO_BLOB, request->authorities ? &blob : NULL);
    SET(call, CAPATH, request->authorities ? NULL : system_folder);
    call->own_authorities = request->authorities;
}

/* Nodes in the arena, as the caller's arena lives as long as the call. */
static void call_set_headers(struct fetch_call *call, const struct fetch_request *request,
                             struct arena *arena)
{
    struct curl_slist *list = &no_type;
    struct curl_slist **end = &list;
    for (const char *const *header = request->headers; header && *header; header++) {
        *end = arena_alloc(arena, sizeof **end);
        (*end)->data = (char *)(uintptr_t)*header; /* libcurl only reads it */
        (*end)->next = &no_type;
        end = &(*end)->next;
    }
    SET(call, HTTPHEADER, list);
}

/* ---- calls ---- */

static struct fetch_call *call_at(struct link *link)
{
    return CONTAINER_OF(link, struct fetch_call, transfer.link);
}

static struct fetch_call *call_new(struct fetch_client *client)
{
    struct fetch_call *call = mem_zalloc(sizeof *call);
    call->transfer.easy = curl_easy_init();
    CHECK(call->transfer.easy);
    fetch_transfer_init(&call->transfer, client);
    call_set_always(call);
    return call;
}

static struct fetch_call *call_take(struct fetch_client *client)
{
    struct link *kept = list_pop_front(&client->kept);
    if (!kept)
        return call_new(client);
    client->kept_count--;
    return call_at(kept);
}

static void call_free(struct fetch_call *call)
{
    curl_easy_cleanup(call->transfer.easy);
    buf_clear(&call->body);
    buf_clear(&call->given);
    buf_clear(&call->kept);
    free(call);
}

static void buffer_empty(struct buf *buffer)
{
    buffer->size = 0;
    if (buffer->capacity > BUFFER_KEPT)
        buf_clear(buffer);
}

void fetch_call_close(struct fetch_call *call)
{
    struct fetch_client *client = call->transfer.client;
    fetch_transfer_stop(&call->transfer);
    if (client->kept_count >= CALLS_KEPT) {
        call_free(call);
        return;
    }
    buffer_empty(&call->body);
    buffer_empty(&call->given);
    list_push_front(&client->kept, &call->transfer.link);
    client->kept_count++;
}

void fetch_calls_clear(struct fetch_client *client)
{
    struct link *item;
    while ((item = list_pop_front(&client->kept)) != NULL)
        call_free(call_at(item));
    client->kept_count = 0;
}

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

static void call_begin(struct fetch_call *call, const struct fetch_request *request)
{
    call->request = request;
    call->taken = 0;
    call->window = SIZE_MAX;
    call->answered = false;
    call->head_done = false;
    call->wakes = false;
    call->refused = FETCH_TAKEN;
    call->status = 0;
    call->head_size = 0;
    call->kept.size = 0;
    call->kept_count = 0;
    call->first_ns = 0;
    call->started_ns = clock_now_ns();
}

int fetch_call_open(const struct fetch_request *request, struct arena *arena, struct fetch_call **opened)
{
    CHECK(request->total_timeout_ms > 0);
    if (!request_is_fit(request))
        return -EINVAL;
    struct fetch_call *call = call_take(fetch_client_self());
    call_begin(call, request);
    SET(call, URL, request->url);
    SET(call, CONNECTTIMEOUT_MS, (long)request->connect_timeout_ms);
    call_set_method(call, request);
    call_set_headers(call, request, arena);
    call_set_authorities(call, request);
    call->transfer.repeatable = is_one_of(request->method, idempotent_methods);
    call->transfer.guard = request->guard;
    fetch_transfer_start(&call->transfer, request->pool, request->pool_connections);
    *opened = call;
    return 0;
}

/* ---- waiting ---- */

/* The moment `ms` after the call's start. */
static uint64_t call_at_ns(const struct fetch_call *call, uint64_t ms)
{
    return ms < (CLOCK_NEVER - call->started_ns) / CLOCK_MS ? call->started_ns + ms * CLOCK_MS : CLOCK_NEVER;
}

uint64_t fetch_call_ends_ns(const struct fetch_call *call)
{
    return call_at_ns(call, call->request->total_timeout_ms);
}

int fetch_call_wait(struct fetch_call *call, const char *what, uint64_t deadline_ns)
{
    if (call->transfer.ended)
        return 0;
    call->transfer.wait = WAIT_INIT;
    return wait_for(&call->transfer.wait, what, deadline_ns);
}

int fetch_call_wait_head(struct fetch_call *call)
{
    uint64_t own_ms = call->request->header_timeout_ms;
    uint64_t total_ms = call->request->total_timeout_ms;
    uint64_t deadline_ns = call_at_ns(call, own_ms && own_ms < total_ms ? own_ms : total_ms);
    int result = 0;
    call->wakes = true;
    while (result == 0 && !call->head_done && !call->transfer.ended)
        result = fetch_call_wait(call, "fetch: header", deadline_ns);
    call->wakes = false;
    return result;
}

/* ---- results ---- */

/* The connection ended before the answer did. */
static int call_broken(const struct fetch_call *call)
{
    long connects = 0;
    CHECK(curl_easy_getinfo(call->transfer.easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK);
    return call->answered || connects == 0 ? -ECONNRESET : -ECONNABORTED;
}

/* Told to the log, unless a client has named the peer: what that one does is no concern of the operator's. */
static int call_explained(const struct fetch_call *call, int result, const char *reason)
{
    const struct fetch_request *request = call->request;
    struct str url = str_of(request->url, strcspn(request->url, "?#"));
    if (request->guard)
        return result;
    LOG(WARN, "fetch failed", LOG_TEXT("method", request->method), LOG_STR("url", url),
        LOG_TEXT("reason", reason));
    return result;
}

static int call_failed(const struct fetch_call *call)
{
    const struct fetch_transfer *transfer = &call->transfer;
    if (transfer->repeat_refused)
        return -ECONNRESET;
    switch (transfer->code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_LOGIN_DENIED: return -EINVAL;
    case CURLE_COULDNT_RESOLVE_HOST: return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT: /* of the connect: the whole call's time is the wait's */
        return transfer->address_refused && transfer->opened < 0 ? -EACCES : -ECONNREFUSED;
    case CURLE_OK: /* ended within the header */
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE: return call_broken(call);
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
        return call_explained(call, -EPROTO, curl_easy_strerror(transfer->code));
    default: return call_explained(call, -EIO, curl_easy_strerror(transfer->code));
    }
}

int fetch_call_result(const struct fetch_call *call)
{
    switch (call->refused) {
    case FETCH_TAKEN: break;
    case FETCH_CUT: return 0;
    case FETCH_TOO_LARGE: return -EMSGSIZE;
    case FETCH_CODED: return call_explained(call, -EIO, "a transfer coding that was not asked for");
    }
    return call->transfer.code == CURLE_OK && call->head_done ? 0 : call_failed(call);
}

void fetch_call_head(const struct fetch_call *call, struct arena *arena, struct fetch_answer *answer)
{
    const char *type = NULL;
    CHECK(curl_easy_getinfo(call->transfer.easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK);
    answer->status = call->status;
    answer->type = type ? arena_str(arena, str_from(type)) : STR_NONE;
    answer->truncated = call->refused == FETCH_CUT;
    if (call->kept_count == 0)
        return;
    struct fetch_header *headers = arena_alloc(arena, call->kept_count * sizeof *headers);
    const char *next = arena_dup(arena, call->kept.at, call->kept.size);
    for (unsigned i = 0; i < call->kept_count; i++) {
        headers[i].name = str_of(next, call->kept_sizes[i].name_size);
        next += headers[i].name.size;
        headers[i].value = str_of(next, call->kept_sizes[i].value_size);
        next += headers[i].value.size;
    }
    answer->headers = headers;
    answer->header_count = call->kept_count;
}

static uint64_t since_us(const struct fetch_call *call, uint64_t at_ns)
{
    return at_ns ? (at_ns - call->started_ns + 999) / 1000 : 0;
}

void fetch_call_times(const struct fetch_call *call, struct fetch_times *times)
{
    times->connect_us = since_us(call, call->transfer.sent_ns);
    times->first_us = since_us(call, call->first_ns);
    times->total_us = since_us(call, call->transfer.ended ? call->transfer.ended_ns : clock_now_ns());
}
