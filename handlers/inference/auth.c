/*
 * Accounts come and go here: register, log in, refresh, log out, change the password. core/gate/password.c guards the doors.
 */
#include "handlers/inference/inference.h"

#include "core/base/clock.h"
#include "core/base/id.h"
#include "core/domain/identity/login.h"
#include "core/domain/identity/password.h"

#include <errno.h>
#include <stdio.h>

enum {
    MADE_PASSWORD_SIZE = 24, /* 142 random bits */
};

/* What a failed step means to the client. */
static void auth_failure(struct request *request, int result)
{
    switch (result) {
    case -EBUSY:
        reply_header(request, "Retry-After", "1");
        reply_error(request, ERROR_RATE_LIMITED, "Too many passwords are being checked, please try again");
        return;
    case -EEXIST:
        reply_error(request, ERROR_CONFLICT, "There is an account with this e-mail address already");
        return;
    default: reply_failure(request, result);
    }
}

/* ---- several changes as one ---- */

/* A request with an Idempotency-Key has a transaction already, which its reply commits. */
static int open_scope(bool *own)
{
    *own = !pg_in_scope();
    return *own ? pg_scope_open() : 0;
}

static int close_scope(bool own, int result)
{
    return own ? pg_scope_close(result) : result;
}

/* ---- POST /api/auth/register ---- */

struct registration {
    struct str email;
    struct str organization;
    struct str password;
    char made[MADE_PASSWORD_SIZE + 1]; /* "" when the client has brought one */
    char hash[CRYPTO_PASSWORD_SIZE];
    struct account account;
    struct key_secrets secrets;
    struct key_row key;
};

static bool read_email(struct request *request, const struct json *body, struct str *email)
{
    struct str text;
    if (!request_string(request, body, "email", 1, ACCOUNT_EMAIL_MAX, &text))
        return false;
    if (account_email(request->arena, text, email))
        return true;
    reply_invalid(request, "email must be an e-mail address");
    return false;
}

static bool read_registration(struct request *request, struct registration *registration)
{
    const struct json *body = request_json(request);
    if (!body || !read_email(request, body, &registration->email) ||
        !inference_name(request, body, "organization", 1, ACCOUNT_ORGANIZATION_MAX,
                        &registration->organization))
        return false;
    if (request_has(body, "password"))
        return request_string(request, body, "password", PASSWORD_LEAST, PASSWORD_MOST,
                              &registration->password);
    id_random_base62(registration->made, MADE_PASSWORD_SIZE);
    registration->password = str_of(registration->made, MADE_PASSWORD_SIZE);
    return true;
}

static int make_account(struct request *request, struct registration *registration)
{
    static const struct key_options options = {.surface = "inference", .name = {"default", 7}};
    bool own;
    int result = open_scope(&own);
    if (result)
        return result;
    result = account_register(request->arena, registration->email, registration->organization,
                              str_from(registration->hash), &registration->account);
    if (result == 0)
        result = key_create(request->arena, registration->account.id, &options, &registration->secrets,
                            &registration->key);
    return close_scope(own, result);
}

void auth_register(struct request *request)
{
    struct registration registration = {.made = ""};
    if (!read_registration(request, &registration))
        return;
    int result = password_hash(registration.hash, registration.password);
    bool goes_on = result || gate_repeat(request);
    if (result == 0 && goes_on)
        result = make_account(request, &registration);
    if (result) {
        auth_failure(request, result);
    } else if (goes_on) {
        struct reply reply;
        inference_no_store(request);
        reply_begin(&reply, request);
        inference_put_account(&reply.json, &registration.account);
        json_put_text(&reply.json, "api_key", registration.secrets.text);
        json_put_str(&reply.json, "key_id", registration.key.ref);
        if (registration.made[0])
            json_put_text(&reply.json, "password", registration.made);
        reply_end(&reply, 201);
    }
    crypto_wipe(&registration, sizeof registration);
}

/* ---- POST /api/auth/login ---- */

static void put_tokens(struct json_out *out, const struct login_tokens *tokens)
{
    json_put_str(out, "token", tokens->token);
    json_put_text(out, "token_type", "Bearer");
    json_put_int(out, "expires_in", LOGIN_TOKEN_S);
    json_put_text(out, "refresh_token", tokens->refresh);
}

struct opening {
    struct account account;
    struct str hash; /* of the password that was right */
    struct login_tokens tokens;
    struct key_secrets secrets;
    struct key_row key;
};

static int begin_login(struct request *request, struct opening *opening)
{
    int64_t now_ms = clock_wall_ms();
    char name[CLOCK_ISO_SIZE + 6] = "login ";
    clock_format_iso(name + 6, now_ms);
    const struct key_options options = {
        .surface = "inference",
        .name = str_from(name),
        .expires_ms = now_ms + KEY_BY_LOGIN_S * INT64_C(1000),
        .by_login = true,
    };
    bool own;
    int result = open_scope(&own);
    if (result)
        return result;
    result = account_hold(opening->account.id, opening->hash);
    if (result == 0)
        result = login_begin(request->arena, opening->account.id, opening->account.ref, &opening->tokens);
    if (result == 0)
        result = key_create(request->arena, opening->account.id, &options, &opening->secrets, &opening->key);
    return close_scope(own, result);
}

static void reply_login(struct request *request, const struct opening *opening)
{
    struct reply reply;
    inference_no_store(request);
    reply_begin(&reply, request);
    json_put_text(&reply.json, "api_key", opening->secrets.text);
    json_put_str(&reply.json, "key_id", opening->key.ref);
    put_tokens(&reply.json, &opening->tokens);
    json_key(&reply.json, "account");
    json_open(&reply.json, '{');
    inference_put_account(&reply.json, &opening->account);
    json_close(&reply.json, '}');
    reply_end(&reply, 200);
}

void auth_login(struct request *request)
{
    const struct json *body = request_json(request);
    struct str text;
    struct str email;
    struct str password;
    struct str hash;
    int64_t account_id;
    if (!body || !request_string(request, body, "email", 1, ACCOUNT_EMAIL_MAX, &text) ||
        !request_string(request, body, "password", 1, PASSWORD_MOST, &password))
        return;
    if (!account_email(request->arena, text, &email))
        email = text;
    int result = gate_password(request, email, password, &account_id, &hash);
    if (result) {
        if (result == -EACCES)
            reply_error(request, ERROR_INVALID_LOGIN, NULL);
        else if (result != -EALREADY)
            auth_failure(request, result);
        return;
    }
    if (!gate_repeat(request))
        return;
    struct opening opening = {.hash = hash};
    result = account_get(request->arena, account_id, &opening.account);
    if (result == 0 && opening.account.is_banned) {
        reply_error(request, ERROR_BANNED, NULL);
        return;
    }
    if (result == 0)
        result = begin_login(request, &opening);
    if (result == -ENOENT) /* the password was changed meanwhile */
        reply_error(request, ERROR_INVALID_LOGIN, NULL);
    else if (result)
        auth_failure(request, result);
    else
        reply_login(request, &opening);
    crypto_wipe(&opening, sizeof opening);
}

/* ---- POST /api/auth/refresh ---- */

void auth_refresh(struct request *request)
{
    const struct json *body = request_json(request);
    struct str refresh;
    if (!body || !request_string(request, body, "refresh_token", 1, 1024, &refresh))
        return;
    struct login_tokens tokens;
    int result = login_refresh(request->arena, refresh, &tokens);
    if (result == -EACCES) {
        reply_error(request, ERROR_INVALID_TOKEN, "The refresh token is invalid or has expired");
    } else if (result) {
        reply_failure(request, result);
    } else {
        struct reply reply;
        inference_no_store(request);
        reply_begin(&reply, request);
        put_tokens(&reply.json, &tokens);
        reply_end(&reply, 200);
    }
    crypto_wipe(tokens.refresh, sizeof tokens.refresh);
}

/* ---- POST /api/auth/logout ---- */

/* One that ended a moment ago has what it asks for. */
void auth_logout(struct request *request)
{
    if (request->principal.kind != PRINCIPAL_LOGIN) {
        reply_error(request, ERROR_FORBIDDEN, "Only a log-in's token can log out; an API key is revoked");
        return;
    }
    int result = login_end(request->principal.login_id);
    if (result && result != -ENOENT)
        reply_failure(request, result);
    else
        reply_body(request, 204, NULL, STR_NONE);
}

/* ---- POST /api/auth/password ---- */

struct change {
    int64_t account_id;
    struct str old_hash; /* of the password that was right */
    char hash[CRYPTO_PASSWORD_SIZE];
};

/* All that takes long, and has no effect: -EACCES for the wrong password, -EALREADY when it has replied. */
static int prepare_change(struct request *request, struct str old, struct str new, struct change *change)
{
    struct account account;
    int result = account_get(request->arena, request->principal.account_id, &account);
    if (result)
        return result;
    struct str who = account.email.at ? account.email : account.ref;
    result = gate_password(request, who, old, &change->account_id, &change->old_hash);
    return result ? result : password_hash(change->hash, new);
}

/* -ENOENT: the password was changed meanwhile. */
static int make_change(const struct change *change)
{
    bool own;
    int result = open_scope(&own);
    if (result)
        return result;
    result = account_hold(change->account_id, change->old_hash);
    if (result == 0)
        result = account_set_password(change->account_id, str_from(change->hash));
    return close_scope(own, result);
}

/* The old password is right only once: a repetition is known before it is asked for. */
void auth_password(struct request *request)
{
    const struct json *body = request_json(request);
    struct str old;
    struct str new;
    struct change change;
    if (!body || !request_string(request, body, "old_password", 1, PASSWORD_MOST, &old) ||
        !request_string(request, body, "new_password", PASSWORD_LEAST, PASSWORD_MOST, &new) ||
        !gate_repeat_look(request))
        return;
    int result = prepare_change(request, old, new, &change);
    bool is_known = result == 0 || result == -EACCES;
    if (result == -EALREADY || (is_known && !gate_repeat(request)))
        return;
    if (result == 0)
        result = make_change(&change);
    if (result == -EACCES || result == -ENOENT)
        reply_error(request, ERROR_INVALID_LOGIN, "The old password is wrong");
    else if (result)
        auth_failure(request, result);
    else
        reply_body(request, 204, NULL, STR_NONE);
}
