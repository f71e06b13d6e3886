/* The account "demo", and what a client needs to try everything: `wakegate up` writes it into credentials.env. */
#include "core/base/crypto.h"
#include "core/base/id.h"
#include "core/domain/identity/key.h"
#include "core/domain/identity/oauth.h"
#include "core/domain/identity/password.h"
#include "core/domain/identity/plan.h"
#include "core/domain/money/ledger.h"
#include "core/operator/verbs.h"

#include <errno.h>

#define DEMO_NAME "demo"
#define DEMO_EMAIL "demo@localhost"
#define DEMO_DOLLARS "100"

enum { PASSWORD_SIZE = 24 /* base 62: 142 bits */, NAMES_MAX = 16 };

struct demo {
    struct operator_call *call;
    struct account account;
    struct str wanted[NAMES_MAX];
    size_t wanted_count;
};

static bool wants(const struct demo *demo, const char *name)
{
    for (size_t i = 0; i < demo->wanted_count; i++)
        if (str_equal(demo->wanted[i], str_from(name)))
            return true;
    return demo->wanted_count == 0;
}

static int make_key(const struct demo *demo, const char *name, const char *surface)
{
    struct key_secrets secrets;
    struct key_row row;
    if (!wants(demo, name))
        return 0;
    const struct key_options options = {.surface = surface, .name = STR("up")};
    int result = key_create(demo->call->arena, demo->account.id, &options, &secrets, &row);
    if (result)
        return result;
    json_put_text(demo->call->out, name, secrets.text);
    crypto_wipe(&secrets, sizeof secrets);
    return 0;
}

/* Address and password go together. */
static int make_login(const struct demo *demo)
{
    char password[PASSWORD_SIZE + 1];
    char hash[CRYPTO_PASSWORD_SIZE];
    if (!wants(demo, "FABSTIR_EMAIL") && !wants(demo, "FABSTIR_PASSWORD"))
        return 0;
    id_random_base62(password, PASSWORD_SIZE);
    int result = demo->account.email.at ? 0 : account_set_email(demo->account.id, STR(DEMO_EMAIL));
    if (result == 0)
        result = password_hash(hash, str_of(password, PASSWORD_SIZE));
    if (result == 0)
        result = account_set_password(demo->account.id, str_from(hash));
    if (result == 0) {
        struct str email = demo->account.email;
        json_put_str(demo->call->out, "FABSTIR_EMAIL", email.at ? email : STR(DEMO_EMAIL));
        json_put_text(demo->call->out, "FABSTIR_PASSWORD", password);
    }
    crypto_wipe(password, sizeof password);
    crypto_wipe(hash, sizeof hash);
    return result;
}

static int make_client(const struct demo *demo)
{
    /* Where the examples of OAuth clients listen. */
    const struct str uris[] = {STR("http://127.0.0.1:3000/callback"), STR("http://localhost:3000/callback")};
    char secret[SECRET_TEXT_MAX];
    struct oauth_client client;
    if (!wants(demo, "SELF_CLIENT_ID") && !wants(demo, "SELF_CLIENT_SECRET"))
        return 0;
    const struct oauth_client_options options = {
        .name = STR("Demo"),
        .redirect_uris = uris,
        .uri_count = ARRAY_SIZE(uris),
    };
    int result = oauth_client_create(demo->call->arena, demo->account.id, &options, secret, &client);
    if (result)
        return result;
    json_put_str(demo->call->out, "SELF_CLIENT_ID", client.id);
    json_put_text(demo->call->out, "SELF_CLIENT_SECRET", secret);
    crypto_wipe(secret, sizeof secret);
    return 0;
}

/* With a plan and a balance that whoever looks around does not come to the end of at once. */
static int make_account(struct demo *demo)
{
    struct str balance;
    int result = account_create(demo->call->arena, STR(DEMO_NAME), STR(DEMO_EMAIL), STR_NONE, STR_NONE,
                                &demo->account);
    if (result == 0)
        result = plan_set(demo->account.id, "inference", STR("pro"));
    return result ? result
                  : ledger_adjust(demo->call->arena, demo->account.id, true, STR(DEMO_DOLLARS), STR_NONE,
                                  &balance);
}

const struct operator_argument operator_demo_credentials_arguments[] = {
    {.name = "names",
     .flags = OPERATOR_WORD,
     .help = "which, separated by spaces: SESSION_API_KEY and so on (all)"},
    {.name = NULL},
};

int operator_demo_credentials(struct operator_call *call)
{
    struct demo demo = {.call = call};
    int result = operator_words(call, "names", demo.wanted, NAMES_MAX, &demo.wanted_count);
    if (result)
        return result;
    result = account_find(call->arena, STR(DEMO_NAME), &demo.account);
    if (result == -ENOENT)
        result = make_account(&demo);
    if (result)
        return result;
    call->shows_secret = true;
    json_open(call->out, '{');
    result = make_key(&demo, "SESSION_API_KEY", "session");
    if (result == 0)
        result = make_key(&demo, "FABSTIR_API_KEY", "inference");
    if (result == 0)
        result = make_key(&demo, "DUMONT_API_KEY", "gpu");
    if (result == 0)
        result = make_login(&demo);
    if (result == 0)
        result = make_client(&demo);
    json_close(call->out, '}');
    return result;
}
