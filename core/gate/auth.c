/* How surfaces know their clients: authenticators for the tables of surfaces. */
#include "core/gate/gate.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/domain/identity/key.h"
#include "core/domain/identity/login.h"
#include "core/domain/identity/oauth.h"
#include "core/domain/instance/token.h"

#include <errno.h>

#define BEARER_REALM "Bearer realm=\"wakegate\""

/* "Bearer" in any case, spaces, the token. A second Authorization field makes none of them count: two programs on the way could
 * differ on which is meant. */
struct str gate_bearer(const struct request *request)
{
    const struct http1_head *head = request->http->head;
    struct str value = STR_NONE;
    for (size_t i = 0; i < head->count; i++) {
        if (!str_equal_nocase(head->fields[i].name, STR("authorization")))
            continue;
        if (value.at)
            return STR_NONE;
        value = head->fields[i].value;
    }
    if (value.size < 8 || !str_equal_nocase(str_of(value.at, 7), STR("bearer ")))
        return STR_NONE;
    struct str token = str_trim(str_of(value.at + 7, value.size - 7));
    return token.size ? token : STR_NONE;
}

/* ---- X-API-Key ---- */

/* As with Authorization, two are none. */
static struct str api_key(const struct request *request)
{
    const struct http1_head *head = request->http->head;
    struct str key = http1_header(head, "x-api-key");
    return key.size && http1_header_count(head, "x-api-key") == 1 ? key : STR_NONE;
}

static int verify_api_key(struct request *request)
{
    struct str key = api_key(request);
    return key.at ? key_verify(key, request->surface->name, &request->principal) : -ENOKEY;
}

static bool api_key_is_known(struct request *request)
{
    struct str key = api_key(request);
    return !key.at || key_is_known(key, request->surface->name);
}

const struct authenticator auth_api_key = {
    .access = "key",
    .verify = verify_api_key,
    .is_known = api_key_is_known,
    .missing = ERROR_UNAUTHORIZED,
    .wrong = ERROR_INVALID_KEY,
};

/* ---- keys, log-ins and pods by bearer tokens ---- */

int gate_verify_token(struct request *request, struct str token)
{
    if (login_has_form(token))
        return login_verify(request->arena, token, request->surface->name, &request->principal);
    if (instance_token_has_prefix(token))
        return instance_token_verify(token, &request->principal);
    return key_verify(token, request->surface->name, &request->principal);
}

static int verify_bearer(struct request *request)
{
    struct str token = gate_bearer(request);
    return token.at ? gate_verify_token(request, token) : -ENOKEY;
}

/* A log-in's token shows by its signature that it is ours, and so does a pod's. */
static bool bearer_is_known(struct request *request)
{
    struct str token = gate_bearer(request);
    return !token.at || login_has_form(token) || instance_token_is_ours(token) ||
           key_is_known(token, request->surface->name);
}

const struct authenticator auth_bearer = {
    .access = "key",
    .verify = verify_bearer,
    .is_known = bearer_is_known,
    .missing = ERROR_UNAUTHORIZED,
    .wrong = ERROR_INVALID_KEY,
    .challenge = BEARER_REALM,
};

/* ---- OAuth access tokens ---- */

static int verify_oauth(struct request *request)
{
    struct str token = gate_bearer(request);
    return token.at ? oauth_verify(token, &request->principal) : -ENOKEY;
}

static bool oauth_token_is_known(struct request *request)
{
    struct str token = gate_bearer(request);
    return !token.at || oauth_is_known(token);
}

const struct authenticator auth_oauth = {
    .access = "oauth",
    .verify = verify_oauth,
    .is_known = oauth_token_is_known,
    .missing = ERROR_INVALID_TOKEN,
    .wrong = ERROR_INVALID_TOKEN,
    .challenge = BEARER_REALM,
};

/* ---- the operator ---- */

/* Digests are compared, so that the time tells nothing of the token's length either. */
static int verify_operator(struct request *request)
{
    unsigned char given[CRYPTO_DIGEST_SIZE];
    unsigned char right[CRYPTO_DIGEST_SIZE];
    struct str token = gate_bearer(request);
    struct str expected = str_from(config->admin_token);
    if (!token.at)
        return -ENOKEY;
    crypto_digest(given, token, NULL);
    crypto_digest(right, expected, NULL);
    bool fits =
        crypto_equal(str_of((const char *)given, sizeof given), str_of((const char *)right, sizeof right));
    if (!fits || expected.size == 0)
        return -EACCES;
    request->principal = (struct principal){.kind = PRINCIPAL_OPERATOR};
    return 0;
}

const struct authenticator auth_operator = {
    .access = "admin",
    .verify = verify_operator,
    .missing = ERROR_UNAUTHORIZED,
    .wrong = ERROR_INVALID_TOKEN,
    .challenge = BEARER_REALM,
};
