/*
 * Idempotency-Key: the first answer to a POST or DELETE is kept with its effect and given again (core/domain/idempotency.h).
 *
 *     gate_repeat ─▶ handler ─▶ gate_repeat_keep: kept and committed, then sent           below 500, but for 408 and 429
 *          │            │                          or taken back, then sent               others: nothing has happened
 *          │            │                          or committed alone, then sent          below 500, of nobody we know
 *          │            └─ request_commit: kept and committed, it goes on ─▶ gate_repeat_keep: the final answer
 *          │                                                               └▶ request_undo: nothing has happened
 *          └─ replies: the answer again, 409, 422, 400
 *
 * What is kept of an answer is its body and the fields that the handler added, as "name size, value size, name, value" for each,
 * then a size of 0 and the body. What the gate adds is each request's own.
 */
#include "core/gate/gate.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/domain/idempotency.h"
#include "core/domain/vault.h"
#include "core/net/stream.h"

#include <errno.h>

struct repeat {
    struct idempotency which;
    size_t first_field; /* of the handler's */
};

static struct repeat *repeat_of(const struct request *request)
{
    return CONTAINER_OF(request->idempotency, struct repeat, which);
}

/* ---- an answer as bytes ---- */

/* Fields of each answer's own, which a handler may have added. */
static bool is_kept_field(struct str name)
{
    static const char *const own[] = {"Retry-After", "X-Request-Id", "X-RateLimit-Limit",
                                      "X-RateLimit-Remaining", "X-RateLimit-Reset"};
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        if (str_equal_nocase(name, str_from(own[i])))
            return false;
    return true;
}

static void put_size(struct buf *out, size_t size)
{
    uint32_t number = (uint32_t)size;
    CHECK(number == size);
    buf_add(out, &number, sizeof number);
}

static void put_field(struct buf *out, struct str name, struct str value)
{
    put_size(out, name.size);
    put_size(out, value.size);
    buf_add_str(out, name);
    buf_add_str(out, value);
}

/* `type`: of a body that is not about to be sent, so that no field says it yet; NULL: one does. */
static struct buf answer_put(const struct request *request, const char *type, struct str body)
{
    const struct http_request *http = request->http;
    struct buf out = {0};
    for (size_t i = repeat_of(request)->first_field; i < http->field_count; i++)
        if (is_kept_field(http->fields[i].name))
            put_field(&out, http->fields[i].name, http->fields[i].value);
    if (type)
        put_field(&out, STR("Content-Type"), str_from(type));
    put_size(&out, 0);
    buf_add_str(&out, body);
    return out;
}

static void answer_clear(struct buf *answer)
{
    if (answer->at)
        crypto_wipe(answer->at, answer->size); /* it may show a secret */
    buf_clear(answer);
}

static bool take(struct str *rest, size_t size, struct str *piece)
{
    if (rest->size < size)
        return false;
    *piece = str_of(rest->at, size);
    *rest = str_of(rest->at + size, rest->size - size);
    return true;
}

static bool take_size(struct str *rest, size_t *size)
{
    struct str piece;
    uint32_t number;
    if (!take(rest, sizeof number, &piece))
        return false;
    memcpy(&number, piece.at, sizeof number);
    *size = number;
    return true;
}

/* Adds the fields and leaves the body. */
static bool take_fields(struct request *request, struct str *rest)
{
    for (;;) {
        size_t name_size;
        size_t value_size;
        struct str name;
        struct str value;
        if (!take_size(rest, &name_size))
            return false;
        if (name_size == 0)
            return true;
        if (!take_size(rest, &value_size) || !take(rest, name_size, &name) || !take(rest, value_size, &value))
            return false;
        http_add_header(request->http, name, value);
    }
}

static void answer_again(struct request *request, int status, struct str answer)
{
    size_t before = request->http->field_count;
    if (!take_fields(request, &answer)) {
        request->http->field_count = before;
        LOG(ERROR, "a kept answer can't be read", LOG_STR("request", request->id));
        reply_error(request, ERROR_INTERNAL, NULL);
        return;
    }
    reply_header(request, "Idempotent-Replayed", "true");
    http_answer(request->http, status, answer);
}

/* The handler's word in place of the kept one, where it has one. */
static bool answer_better(struct request *request, int status, struct str answer)
{
    size_t before = request->http->field_count;
    bool better = answer.at && take_fields(request, &answer);
    request->http->field_count = before;
    return better && request->again(request->again_arg, status, answer);
}

/* ---- which request it is ---- */

static bool may_repeat(const struct request *request)
{
    struct str method = request->http->head->method;
    if (request->surface->serves_host || request->route->flags & ROUTE_UNREPEATED)
        return false;
    return str_equal(method, STR("POST")) || str_equal(method, STR("DELETE"));
}

static bool key_is_fine(const struct http1_head *head, struct str key)
{
    if (key.size < 1 || key.size > IDEMPOTENCY_KEY_MAX || http1_header_count(head, "idempotency-key") != 1)
        return false;
    for (size_t i = 0; i < key.size; i++)
        if (key.at[i] < 0x20 || key.at[i] > 0x7e)
            return false;
    return true;
}

/* What the key or token may do, and from where, as a word: an answer may show a secret of the same reach. */
static const char *rights_of(struct request *request)
{
    enum { RIGHTS_SIZE = 16 /* bytes of a digest */ };
    const struct principal *principal = &request->principal;
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    char *word = arena_alloc(request->arena, 2 * RIGHTS_SIZE + 1);
    struct buf text = {0};
    buf_add_u64(&text, principal->scopes);
    buf_add_char(&text, principal->must_sign ? '!' : '.');
    for (size_t i = 0; i < principal->network_count; i++) {
        buf_add(&text, principal->networks[i].address.bytes, sizeof principal->networks[i].address.bytes);
        buf_add_u64(&text, principal->networks[i].bits);
        buf_add_char(&text, ' ');
    }
    crypto_digest(digest, buf_str(&text), NULL);
    buf_clear(&text);
    escape_hex(word, digest, RIGHTS_SIZE);
    return word;
}

/* Who sends it: tenants must not get each other's answers, and their keys may be the same. Keys of one account share answers
 * when they may do the same: so a repetition with a rotated key is one, and a narrow key is not shown what a wider one made. */
static struct str owner_of(struct request *request)
{
    const struct principal *principal = &request->principal;
    const char *surface = request->surface->name;
    const char *text = NULL;
    switch (principal->kind) {
    case PRINCIPAL_NOBODY: {
        struct str address = gate_client(request);
        text = arena_printf(request->arena, "%s:address:%.*s", surface, STR_ARG(address));
        break;
    }
    case PRINCIPAL_KEY:
    case PRINCIPAL_LOGIN:
        text = arena_printf(request->arena, "%s:%lld:%s", surface, (long long)principal->account_id,
                            rights_of(request));
        break;
    case PRINCIPAL_CLIENT:
        text = arena_printf(request->arena, "%s:%lld:%s:%s", surface, (long long)principal->account_id,
                            principal->client_id, rights_of(request));
        break;
    case PRINCIPAL_OPERATOR: text = arena_printf(request->arena, "%s:operator", surface); break;
    case PRINCIPAL_POD:
        text = arena_printf(request->arena, "%s:pod:%s", surface, principal->instance_id);
        break;
    }
    return str_from(text);
}

/* Under a key of ours: a body may hold a password, and what is stored must be no help in guessing it. */
static void digest(const struct request *request, struct str body, unsigned char out[CRYPTO_DIGEST_SIZE])
{
    struct buf text = {0};
    unsigned char of_body[CRYPTO_DIGEST_SIZE];
    crypto_digest(of_body, body, vault_hash_key());
    buf_add_str(&text, request->http->head->method);
    buf_add_char(&text, ' ');
    buf_add_str(&text, request->path);
    buf_add_char(&text, '?');
    buf_add_str(&text, request->query);
    buf_add_char(&text, '\n');
    buf_add(&text, of_body, sizeof of_body);
    crypto_digest(out, buf_str(&text), vault_hash_key());
    buf_clear(&text);
}

/* ---- the way through ---- */

typedef int repeat_ask(struct arena *arena, const struct idempotency *which, enum idempotency_state *state,
                       int *status, struct str *answer);

/* False: it has replied. */
static bool ask(struct request *request, struct repeat *repeat, repeat_ask *ask_store)
{
    enum idempotency_state state = IDEMPOTENCY_NEW;
    int status = 0;
    struct str answer = STR_NONE;
    int result = ask_store(request->arena, &repeat->which, &state, &status, &answer);
    if (result) {
        reply_failure(request, result);
        return false;
    }
    if (state != IDEMPOTENCY_NEW && request->again && answer_better(request, status, answer))
        return false;
    switch (state) {
    case IDEMPOTENCY_NEW: return true;
    case IDEMPOTENCY_DONE: answer_again(request, status, answer); return false;
    case IDEMPOTENCY_RUNNING:
        reply_header(request, "Retry-After", "1");
        reply_error(request, ERROR_STILL_RUNNING, NULL);
        return false;
    case IDEMPOTENCY_OTHER: reply_error(request, ERROR_OTHER_REQUEST, NULL); return false;
    }
    UNREACHABLE();
}

bool gate_repeat_key(struct request *request)
{
    struct str key = http1_header(request->http->head, "idempotency-key");
    bool fine = LIKELY(!key.at) || !may_repeat(request) || key_is_fine(request->http->head, key);
    if (!fine)
        reply_error(request, ERROR_BAD_IDEMPOTENCY, NULL);
    return fine;
}

/* Which request it is; *repeat NULL: none that may be repeated. False: it has replied. */
static bool name(struct request *request, struct repeat **repeat)
{
    struct str key = http1_header(request->http->head, "idempotency-key");
    struct str body;
    *repeat = NULL;
    if (LIKELY(!key.at) || !may_repeat(request))
        return true;
    if (!gate_repeat_key(request) || !request_body(request, &body))
        return false;
    *repeat = arena_zalloc(request->arena, sizeof **repeat);
    (*repeat)->which.owner = owner_of(request);
    (*repeat)->which.key = key;
    digest(request, body, (*repeat)->which.request);
    return true;
}

bool gate_repeat_look(struct request *request)
{
    struct repeat *repeat;
    return name(request, &repeat) && (!repeat || ask(request, repeat, idempotency_look));
}

bool gate_repeat(struct request *request)
{
    struct repeat *repeat;
    if (!name(request, &repeat))
        return false;
    if (LIKELY(!repeat))
        return true;
    if (!ask(request, repeat, idempotency_begin))
        return false;
    repeat->first_field = request->http->field_count;
    request->idempotency = &repeat->which;
    return true;
}

static bool is_kept_status(int status)
{
    return status < 500 && status != 408 && status != 429;
}

/* Refusals of nobody in particular are not kept: there is no end of those who could fill the table with them. */
static bool is_passed(const struct request *request, int status)
{
    return request->principal.kind == PRINCIPAL_NOBODY && status >= 400 && is_kept_status(status);
}

/* Another answer takes this one's place: what the handler said of its own goes, but for the body's type. */
static void drop_fields(const struct repeat *repeat, struct http_request *http)
{
    size_t left = repeat->first_field;
    for (size_t i = left; i < http->field_count; i++)
        if (str_equal(http->fields[i].name, STR("Content-Type")))
            http->fields[left++] = http->fields[i];
    http->field_count = left;
}

static int change(struct request *request, bool undo, int status, struct str answer)
{
    return undo ? idempotency_undo(request->idempotency)
                : idempotency_finish(request->arena, request->idempotency, status, answer);
}

/* With what goes with it, in one transaction. */
static int change_all(struct request *request, bool undo, int status, struct str answer)
{
    if (!request->end_with)
        return change(request, undo, status, answer);
    fiber_hold();
    int result = pg_scope_open();
    if (result == 0) {
        result = request->end_with(request->end_arg);
        result = pg_scope_close(result ? result : change(request, undo, status, answer));
    }
    fiber_release();
    return result;
}

/* The effect is committed: whether this succeeds changes nothing but what a repetition is told. */
static void finish(struct request *request, int status, struct str answer)
{
    int result = change_all(request, false, status, answer);
    if (result)
        LOG(WARN, "the final answer to a request was not kept", LOG_STR("request", request->id),
            LOG_ERRNO(result));
}

bool gate_repeat_keep(struct request *request, int status, struct str body)
{
    const struct repeat *repeat = repeat_of(request);
    bool passed = is_passed(request, status);
    bool kept = is_kept_status(status) && !passed;
    int result = 0;
    struct buf answer = kept ? answer_put(request, NULL, body) : (struct buf){0};
    if (request->committed_early)
        finish(request, status, kept ? buf_str(&answer) : STR_NONE);
    else if (kept)
        result = idempotency_keep(request->arena, &repeat->which, status, buf_str(&answer), 0);
    else if (passed)
        result = idempotency_pass();
    else
        idempotency_drop();
    answer_clear(&answer);
    request->idempotency = NULL;
    if (result)
        drop_fields(repeat, request->http);
    return result == 0;
}

bool request_commit(struct request *request, int status, struct str body)
{
    return request_commit_for(request, status, body, config->request_timeout_s);
}

bool request_commit_for(struct request *request, int status, struct str body, int64_t running_s)
{
    if (!request->idempotency || request->committed_early)
        return true;
    struct buf answer = answer_put(request, "application/json", body);
    int result = idempotency_keep(request->arena, request->idempotency, status, buf_str(&answer), running_s);
    answer_clear(&answer);
    if (result) {
        drop_fields(repeat_of(request), request->http);
        request->idempotency = NULL;
        reply_failure(request, result);
        return false;
    }
    request->committed_early = true;
    return true;
}

void request_end_with(struct request *request, int (*work)(void *arg), void *arg)
{
    request->end_with = work;
    request->end_arg = arg;
}

void request_again(struct request *request, bool (*again)(void *arg, int status, struct str body), void *arg)
{
    request->again = again;
    request->again_arg = arg;
}

void request_undo(struct request *request)
{
    if (!request->idempotency || !request->committed_early)
        return;
    int result = change_all(request, true, 0, STR_NONE);
    if (result)
        LOG(WARN, "the early answer to a request was not taken back", LOG_STR("request", request->id),
            LOG_ERRNO(result));
    request->idempotency = NULL;
}

bool reply_commit(struct reply *reply, int status)
{
    json_close(&reply->json, '}');
    buf_add_char(&reply->body, '\n');
    bool done = request_commit(reply->request, status, buf_str(&reply->body));
    stream_spare_give(&reply->body);
    return done;
}

void gate_repeat_end(struct request *request)
{
    if (LIKELY(!request->idempotency))
        return;
    if (request->committed_early)
        finish(request, 0, STR_NONE);
    else
        idempotency_drop();
    request->idempotency = NULL;
}
