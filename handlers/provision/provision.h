#ifndef HANDLERS_PROVISION_PROVISION_H
#define HANDLERS_PROVISION_PROVISION_H

#include "core/domain/identity/account.h"
#include "core/domain/identity/oauth.h"
#include "core/gate/gate.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * The provision surface (contract.md, 1): so far the OAuth 2.0 server.
 *
 *   routes.c          the table, the surface's errors
 *   input.c           parameters of a query, a form or a JSON body; who the client is; OAuth's errors
 *   token.c           POST /oauth/token, /oauth/revoke, /oauth/introspect
 *   authorize.c       GET and POST /oauth/authorize: a request for a user's consent, from its parameters to the redirect
 *   authorize_user.c  the user's cookie and password, and the form's proof that it is ours
 *   authorize_page.c  what the user sees
 *   metadata.c        GET /.well-known/oauth-authorization-server
 */
extern const struct surface surface_provision;

/* ---- input.c ---- */

/* Parameters, from a query or form, or the members of a JSON object. */
struct input {
    struct str form;
    const struct json *json; /* NULL: it is a form */
};

/* Where the value of a parameter goes: absent when it has none (RFC 6749 §3.2: an empty one is none). */
struct input_field {
    const char *name;
    struct str *value;
};

/* Takes the fields' values. NULL, or what is wrong with one: it comes twice, or is no text. All values are set then too. */
const char *input_take(struct request *request, const struct input *input, const struct input_field *fields,
                       size_t count);

/* The body of a request to an OAuth endpoint: a form (RFC 6749), or JSON, also where it says text/plain or nothing, as a fetch()
 * with a text does. False when it has replied. Waits. */
bool input_body(struct request *request, struct input *input);

/* RFC 6749 §5.2: {"error","error_description"}. */
void oauth_error(struct request *request, int status, const char *error, const char *description);
/* The same for a store's negative errno value. */
void oauth_failure(struct request *request, int result);
/* What all answers with tokens have (RFC 6749 §5.1). */
void oauth_no_store(struct request *request);

/* The client, by HTTP Basic or by these two parameters (RFC 6749 §2.3.1), never both. False when it has replied. Waits. */
bool oauth_client_of(struct request *request, struct str client_id, struct str client_secret,
                     struct oauth_client *client);

/* ---- token.c, metadata.c ---- */

void oauth_token(struct request *request);
void oauth_token_revoke(struct request *request);
void oauth_token_introspect(struct request *request);
void oauth_metadata(struct request *request);

/* ---- authorize.c ---- */

void oauth_authorize(struct request *request);
void oauth_authorize_answer(struct request *request);

/* A client's request for consent, checked. */
struct ask {
    struct str text; /* the query that it came as */
    struct oauth_client client;
    struct str redirect_uri;
    struct str state; /* absent: none */
    struct str challenge;
    scope_set scopes;
    bool anew; /* the user is to log in, even with a cookie */
};

/* ---- authorize_user.c ---- */

/* Whose cookie the request brings. -ENOKEY: it has none that is good, or the account is banned. Waits. */
int user_of_cookie(struct request *request, struct account *account) MUST_USE;

/* Checks e-mail address and password, as often as the throttle lets it, and sets the cookie. -EACCES: wrong; -EPERM: banned; -EBUSY: too many at
 * once; -EALREADY: it has replied. Waits. */
int user_log_in(struct request *request, struct str email, struct str password, struct account *account)
    MUST_USE;

/* The proof that a form is ours: for this request of a client's, this browser and this user (0: nobody is logged in), for
 * some minutes. Sets a cookie that goes with it. */
const char *user_form_token(struct request *request, struct str ask, int64_t account_id);
bool user_form_token_fits(struct request *request, struct str ask, int64_t account_id, struct str token);

/* ---- authorize_page.c ---- */

struct consent {
    int status;
    const char *alert;             /* what went wrong; NULL: nothing */
    struct str email;              /* what was typed before; may be absent */
    const struct account *account; /* who is logged in; NULL: asks for it */
    const char *token;             /* user_form_token */
};

/* Replies with the page that asks the user. */
void consent_ask(struct request *request, const struct ask *ask, const struct consent *consent);
/* Replies with a page that says why nothing can be asked. `text` is ours. */
void consent_error(struct request *request, int status, const char *code, const char *text);

#endif
