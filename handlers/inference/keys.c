/* API keys as their owners handle them. */
#include "handlers/inference/inference.h"

#include "core/domain/identity/key.h"

#include <errno.h>

static void keys_failure(struct request *request, int result)
{
    switch (result) {
    case -ENOENT: reply_error(request, ERROR_NOT_FOUND, "API key not found"); return;
    case -EEXIST: reply_error(request, ERROR_CONFLICT, "This API key was rotated before"); return;
    default: reply_failure(request, result);
    }
}

/* ---- what a key looks like ---- */

static void put_scopes(struct request *request, struct json_out *out, const struct key_row *key)
{
    struct str names[SCOPE_COUNT];
    char *surface = arena_dup(request->arena, key->surface.at, key->surface.size);
    size_t count = scope_names(scope_from_column(key->scopes, surface), names);
    json_key(out, "scopes");
    json_open(out, '[');
    for (size_t i = 0; i < count; i++)
        json_put_str(out, NULL, names[i]);
    json_close(out, ']');
}

static void put_key(struct request *request, struct json_out *out, const struct key_row *key)
{
    json_put_str(out, "id", key->ref);
    json_put_text(out, "object", "api_key");
    json_put_str(out, "name", key->name);
    json_put_str(out, "surface", key->surface);
    json_put_str(out, "prefix", key->shown);
    put_scopes(request, out, key);
    json_put_words(out, "allow_from", key->allow_from);
    json_put_bool(out, "signing", key->signs);
    json_put_bool(out, "require_signature", key->must_sign);
    json_put_time(out, "created_at", key->created_ms);
    json_put_time(out, "expires_at", key->expires_ms);
    json_put_time(out, "revoked_at", key->revoked_ms);
    json_put_str(out, "rotated_to", key->rotated_to);
}

/* A new key, with what is shown this once; wipes it. */
static void reply_made(struct request *request, const struct key_row *key, struct key_secrets *secrets)
{
    struct reply reply;
    inference_no_store(request);
    reply_begin(&reply, request);
    put_key(request, &reply.json, key);
    json_put_text(&reply.json, "key", secrets->text);
    if (secrets->signing[0])
        json_put_text(&reply.json, "signing_secret", secrets->signing);
    reply_end(&reply, 201);
    crypto_wipe(secrets, sizeof *secrets);
}

/* ---- GET ---- */

/* GET /api/v1/api-keys */
void keys_list(struct request *request)
{
    int64_t limit;
    int64_t cursor;
    if (!request_page(request, INFERENCE_PAGE_MAX, 0, &limit, &cursor))
        return;
    struct key_row *keys;
    size_t count;
    int result = key_list(request->arena, request->principal.account_id, cursor, limit + 1, &keys, &count);
    if (result) {
        reply_failure(request, result);
        return;
    }
    bool more = page_has_next(limit, &count);
    struct reply reply;
    reply_list_begin(&reply, request, "list", "data");
    for (size_t i = 0; i < count; i++) {
        json_open(&reply.json, '{');
        put_key(request, &reply.json, &keys[i]);
        json_close(&reply.json, '}');
    }
    reply_list_end(&reply, more ? keys[count - 1].id : 0);
}

/* The {id} of the path when it can be one; else replies 404 and returns false. */
static bool key_ref(struct request *request, struct str *ref)
{
    *ref = request->params[0];
    bool fine = ref->size <= PRINCIPAL_REF_MAX && str_is_base62_behind(*ref, STR("key_"));
    if (!fine)
        keys_failure(request, -ENOENT);
    return fine;
}

/* GET /api/v1/api-keys/{id} */
void keys_get(struct request *request)
{
    struct str ref;
    struct key_row key;
    if (!key_ref(request, &ref))
        return;
    int result = key_get(request->arena, request->principal.account_id, ref, &key);
    if (result) {
        keys_failure(request, result);
        return;
    }
    struct reply reply;
    reply_begin(&reply, request);
    put_key(request, &reply.json, &key);
    reply_end(&reply, 200);
}

/* DELETE /api/v1/api-keys/{id} */
void keys_revoke(struct request *request)
{
    struct str ref;
    if (!key_ref(request, &ref))
        return;
    int result = key_revoke(request->principal.account_id, ref);
    if (result) {
        keys_failure(request, result);
        return;
    }
    reply_deleted(request, ref, "api_key");
}

/* ---- POST ---- */

/* POST /api/v1/api-keys */
void keys_create(struct request *request)
{
    struct key_options options = {.scopes = 0};
    struct key_secrets secrets;
    struct key_row key;
    if (!keys_read_options(request, &options))
        return;
    int result = key_create(request->arena, request->principal.account_id, &options, &secrets, &key);
    if (result)
        keys_failure(request, result);
    else
        reply_made(request, &key, &secrets);
}

/* POST /api/v1/api-keys/{id}/rotate */
void keys_rotate(struct request *request)
{
    struct str ref;
    int64_t overlap_s;
    const struct json *body;
    struct key_secrets secrets;
    struct key_row key;
    if (!key_ref(request, &ref) || !request_json_or_none(request, &body) ||
        !request_overlap(request, body, &overlap_s))
        return;
    int64_t account_id = request->principal.account_id;
    int result = key_get(request->arena, account_id, ref, &key);
    if (result == 0 && !keys_may_hold(request, &key)) {
        keys_refuse(request);
        return;
    }
    if (result == 0)
        result = key_rotate(request->arena, account_id, ref, overlap_s, &secrets, &key);
    if (result)
        keys_failure(request, result);
    else
        reply_made(request, &key, &secrets);
}
