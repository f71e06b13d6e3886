/*
 * A client asks, a user answers, the browser goes back (RFC 6749 §4.1, 7636, 9207, 9700).
 *
 * Nothing about a request is kept between the page and its form: the form brings the request's own query back, with a proof that
 * we have made it (authorize_user.c), and it is checked anew. Until the client and its redirect URI are known to be good,
 * errors are shown; from then on they are the client's to hear.
 */
#include "handlers/provision/provision.h"

#include "core/base/base64.h"
#include "core/base/escape.h"
#include "core/domain/audit.h"

#include <errno.h>

enum { CHALLENGE_SIZE = 43 /* SHA-256, as base64url */ };

/* ---- back to the client ---- */

static void add_parameter(struct buf *out, const char *name, struct str value)
{
    char last = out->at[out->size - 1];
    if (last != '?' && last != '&')
        buf_add_char(out, '&');
    buf_add_text(out, name);
    buf_add_char(out, '=');
    escape_percent_encode(out, value);
}

/* 303: whatever the browser has sent here, it GETs there, without the form (RFC 9700 §4.12). */
static void redirect(struct request *request, const struct ask *ask, const char *name, struct str value,
                     const char *description)
{
    struct buf target = {0};
    buf_add_str(&target, ask->redirect_uri);
    if (!memchr(ask->redirect_uri.at, '?', ask->redirect_uri.size))
        buf_add_char(&target, '?');
    add_parameter(&target, name, value);
    if (description)
        add_parameter(&target, "error_description", str_from(description));
    if (ask->state.at)
        add_parameter(&target, "state", ask->state);
    add_parameter(&target, "iss", gate_origin_of(request));
    reply_header(request, "Location", arena_dup(request->arena, target.at, target.size));
    crypto_wipe(target.at, target.size);
    buf_clear(&target);
    oauth_no_store(request);
    reply_header(request, "Referrer-Policy", "no-referrer");
    reply_body(request, 303, NULL, STR_NONE);
}

static void refuse(struct request *request, const struct ask *ask, const char *error, const char *description)
{
    request->why = error;
    redirect(request, ask, "error", str_from(error), description);
}

/* ---- what the client asks ---- */

struct parameters {
    struct str response_type;
    struct str scope;
    struct str challenge;
    struct str method;
    struct str prompt;
};

/* Finds the client and where the answer goes. False when it has replied, with a page: nothing here may redirect. */
static bool find_client(struct request *request, const struct input *input, struct ask *ask)
{
    struct str id;
    const struct input_field fields[] = {{"client_id", &id}, {"redirect_uri", &ask->redirect_uri}};
    const char *problem = input_take(request, input, fields, ARRAY_SIZE(fields));
    int result = problem || !id.at ? -ENOENT : oauth_client_get(request->arena, id, &ask->client);
    if (result && result != -ENOENT) {
        consent_error(request, 503, "service_unavailable",
                      "This can't be done at the moment. Please try again.");
        return false;
    }
    if (problem || result) {
        consent_error(request, 400, "invalid_client",
                      problem ? problem : "The application that sent you here is not known.");
        return false;
    }
    struct str uris = ask->client.redirect_uris;
    bool only_one = uris.size && !memchr(uris.at, ' ', uris.size);
    if (!ask->redirect_uri.at && only_one)
        ask->redirect_uri = uris;
    if (ask->redirect_uri.at && oauth_client_has_uri(&ask->client, ask->redirect_uri))
        return true;
    consent_error(
        request, 400, "invalid_redirect_uri",
        "The application that sent you here wants to be answered at an address that is not registered.");
    return false;
}

/* A challenge that only S256 can have made. */
static bool challenge_is_fit(struct request *request, struct str challenge)
{
    unsigned char *digest = arena_alloc(request->arena, CHALLENGE_SIZE);
    return challenge.size == CHALLENGE_SIZE && base64url_decode(digest, challenge) == CRYPTO_DIGEST_SIZE;
}

/* What is wrong with the PKCE part (RFC 7636 §4.4.1); NULL: nothing. A method that is left out would mean "plain". */
static const char *check_challenge(struct request *request, const struct ask *ask,
                                   const struct parameters *parameters)
{
    if (!parameters->challenge.at)
        return parameters->method.at   ? "code_challenge is missing"
               : ask->client.is_public ? "code_challenge is required"
                                       : NULL;
    if (!str_equal(parameters->method, STR("S256")))
        return "code_challenge_method must be S256";
    return challenge_is_fit(request, parameters->challenge) ? NULL : "code_challenge is none of S256";
}

/* The rest of the request; false when it has redirected with an error. */
static bool check_rest(struct request *request, struct ask *ask, const struct parameters *parameters)
{
    const char *problem = check_challenge(request, ask, parameters);
    ask->scopes = ask->client.scopes;
    if (!str_equal(parameters->response_type, STR("code")))
        refuse(request, ask, parameters->response_type.at ? "unsupported_response_type" : "invalid_request",
               "response_type must be code");
    else if (problem)
        refuse(request, ask, "invalid_request", problem);
    else if (!oauth_client_has_grant(&ask->client, STR("authorization_code")))
        refuse(request, ask, "unauthorized_client", "This client may not ask users");
    else if (parameters->scope.at && (!scope_parse(parameters->scope, "provision", &ask->scopes) ||
                                      !ask->scopes || (ask->scopes & ~ask->client.scopes)))
        refuse(request, ask, "invalid_scope", "A scope is unknown, or more than the client may have");
    else
        return true;
    return false;
}

/* Reads and checks `query`. False when it has replied. Waits. */
static bool read_ask(struct request *request, struct str query, struct ask *ask)
{
    struct parameters parameters;
    const struct input_field fields[] = {
        {"state", &ask->state},
        {"response_type", &parameters.response_type},
        {"scope", &parameters.scope},
        {"code_challenge", &parameters.challenge},
        {"code_challenge_method", &parameters.method},
        {"prompt", &parameters.prompt},
    };
    const struct input input = {.form = query};
    *ask = (struct ask){.text = query};
    if (!find_client(request, &input, ask))
        return false;
    const char *problem = input_take(request, &input, fields, ARRAY_SIZE(fields));
    if (problem) {
        refuse(request, ask, "invalid_request", problem);
        return false;
    }
    ask->challenge = parameters.challenge;
    ask->anew = str_equal(parameters.prompt, STR("login")) || url_query_count(query, "log_in_anew") > 0;
    return check_rest(request, ask, &parameters);
}

/* ---- what the user answers ---- */

/* Shows the page to who is logged in, or asks for it. */
static void show(struct request *request, const struct ask *ask, const struct account *account,
                 struct consent consent)
{
    consent.account = ask->anew ? NULL : account;
    consent.token = user_form_token(request, ask->text, account ? account->id : 0);
    consent_ask(request, ask, &consent);
}

/* Who the cookie says it is; false when it has replied. `account` is cleared when nobody is. */
static bool find_user(struct request *request, struct account *account, const struct account **user)
{
    int result = user_of_cookie(request, account);
    *user = result == 0 ? account : NULL;
    if (result == 0 || result == -ENOKEY)
        return true;
    consent_error(request, 503, "service_unavailable", "This can't be done at the moment. Please try again.");
    return false;
}

void oauth_authorize(struct request *request)
{
    struct ask ask;
    struct account account;
    const struct account *user;
    if (read_ask(request, request->query, &ask) && find_user(request, &account, &user))
        show(request, &ask, user, (struct consent){.status = 200});
}

static void give_code(struct request *request, const struct ask *ask, const struct account *account)
{
    char code[SECRET_TEXT_MAX];
    request->who.fields[0] = str_from(arena_printf(request->arena, "account %.*s", STR_ARG(account->ref)));
    audit_set(&request->who);
    int result = oauth_allow(&ask->client, account->id, ask->scopes, ask->redirect_uri, ask->challenge, code);
    if (result == -EACCES)
        refuse(request, ask, "access_denied", "The account or the client is no longer allowed to");
    else if (result)
        refuse(request, ask, result == -EIO ? "server_error" : "temporarily_unavailable", "Please try again");
    else
        redirect(request, ask, "code", str_from(code), NULL);
    crypto_wipe(code, sizeof code);
}

static void say_no(struct request *request, const struct ask *ask, const struct account *user,
                   struct str email, int result)
{
    struct consent consent = {.status = 403, .email = email};
    switch (result) {
    case -EALREADY: return;
    case -EACCES: consent.alert = "E-mail address or password is wrong."; break;
    case -EPERM: consent.alert = "This account is not allowed to."; break;
    default:
        reply_header(request, "Retry-After", "1");
        consent.status = 503;
        consent.alert = "This can't be done at the moment. Please try again.";
    }
    show(request, ask, user, consent);
}

struct answer {
    struct str ask; /* as the form has brought it */
    struct str token;
    struct str word;
    struct str email;
    struct str password;
};

/* The form's fields; false when it has replied. */
static bool read_answer(struct request *request, struct answer *answer)
{
    struct str encoded;
    const struct input_field fields[] = {
        {"request", &encoded},     {"proof", &answer->token},       {"answer", &answer->word},
        {"email", &answer->email}, {"password", &answer->password},
    };
    struct input input;
    if (!input_body(request, &input))
        return false;
    const char *problem = input_take(request, &input, fields, ARRAY_SIZE(fields));
    unsigned char *text = arena_alloc(request->arena, encoded.size + 1);
    int size = base64url_decode(text, encoded);
    answer->ask = str_of((const char *)text, size > 0 ? (size_t)size : 0);
    if (!problem && !input.json && size > 0)
        return true;
    consent_error(request, 400, "bad_request",
                  "This form is not complete. Please go back to the application and "
                  "begin again.");
    return false;
}

/* Who answers: by the cookie, or by address and password. */
static void answer_yes(struct request *request, const struct ask *ask, const struct answer *answer,
                       const struct account *user)
{
    struct account account;
    if (user && !ask->anew) {
        give_code(request, ask, user);
        return;
    }
    int result = user_log_in(request, answer->email, answer->password, &account);
    if (result) {
        say_no(request, ask, user, answer->email, result);
        return;
    }
    give_code(request, ask, &account);
}

void oauth_authorize_answer(struct request *request)
{
    struct answer answer;
    struct ask ask;
    struct account account;
    const struct account *user;
    if (!read_answer(request, &answer) || !read_ask(request, answer.ask, &ask) ||
        !find_user(request, &account, &user))
        return;
    if (!user_form_token_fits(request, ask.text, user ? user->id : 0, answer.token))
        show(request, &ask, user,
             (struct consent){.status = 403,
                              .email = answer.email,
                              .alert = "This page was open for too long, or did not come from here. Please "
                                       "answer once more."});
    else if (str_equal(answer.word, STR("deny")))
        refuse(request, &ask, "access_denied", "The user has said no");
    else if (str_equal(answer.word, STR("allow")))
        answer_yes(request, &ask, &answer, user);
    else
        show(request, &ask, user, (struct consent){.status = 400, .alert = "Please allow or deny."});
}
