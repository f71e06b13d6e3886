/* Accounts, for operators. */
#include "core/base/crypto.h"
#include "core/base/id.h"
#include "core/domain/identity/password.h"
#include "core/operator/verbs.h"

#include <errno.h>
#include <stdio.h>

enum { MADE_PASSWORD_SIZE = 24 /* base 62: 142 bits */ };

/* ---- for all nouns ---- */

/* "inference=pro gpu=starter" as an object. */
static void put_plans(struct json_out *out, struct str plans)
{
    struct str plan;
    json_key(out, "plans");
    json_open(out, '{');
    while (str_split(&plans, ' ', &plan)) {
        struct str surface;
        char name[32];
        if (!str_split(&plan, '=', &surface) || !plan.at)
            continue;
        snprintf(name, sizeof name, "%.*s", STR_ARG(surface));
        json_put_str(out, name, plan);
    }
    json_close(out, '}');
}

void operator_put_account(struct json_out *out, const struct account *account)
{
    json_put_int(out, "id", account->id);
    json_put_str(out, "ref", account->ref);
    json_put_str(out, "name", account->name);
    json_put_str(out, "email", account->email);
    json_put_str(out, "organization", account->organization);
    put_plans(out, account->plans);
    json_put_bool(out, "banned", account->is_banned);
    json_put_str(out, "ban_reason", account->is_banned ? account->ban_reason : STR_NONE);
    operator_put_time(out, "banned_until", account->is_banned ? account->banned_until_ms : 0);
    operator_put_time(out, "created_at", account->created_ms);
}

static void put_account_object(struct operator_call *call, const struct account *account,
                               const char *password)
{
    json_open(call->out, '{');
    operator_put_account(call->out, account);
    if (password)
        json_put_text(call->out, "password", password);
    json_close(call->out, '}');
}

int operator_account(struct operator_call *call, struct account *account)
{
    struct str who = operator_text(call, "account");
    int result = account_find(call->arena, who, account);
    return result == -ENOENT ? operator_fail(call, result, "there is no account %.*s", STR_ARG(who)) : result;
}

int operator_account_or_all(struct operator_call *call, struct account *account)
{
    *account = (struct account){.id = 0};
    return operator_text(call, "account").at ? operator_account(call, account) : 0;
}

/* So that a name never looks like the other ways to tell an account, and nobody's address is taken. */
static int check_name(struct operator_call *call, struct str name)
{
    uint64_t number;
    bool other =
        str_to_u64(name, &number) || str_starts(name, STR("user_")) || memchr(name.at, '@', name.size);
    if (other || str_utf8_length(name) > OPERATOR_NAME_MAX)
        return operator_fail(call, -EINVAL,
                             "an account's name has 1 to %d characters, is no number, does not begin with "
                             "user_ and has no @",
                             OPERATOR_NAME_MAX);
    return 0;
}

int operator_account_or_new(struct operator_call *call, struct account *account)
{
    struct str name = operator_text(call, "account");
    int result = account_find(call->arena, name, account);
    if (result != -ENOENT)
        return result;
    if (check_name(call, name))
        return operator_account(call, account);
    result = account_create(call->arena, name, STR_NONE, STR_NONE, STR_NONE, account);
    return result == -EEXIST ? operator_account(call, account) : result; /* another was faster */
}

int operator_show_account(struct operator_call *call, int64_t id)
{
    struct account account;
    int result = account_get(call->arena, id, &account);
    if (result == 0)
        put_account_object(call, &account, NULL);
    return result;
}

/* ---- passwords ---- */

static int hash_password(struct operator_call *call, struct str password, char hash[CRYPTO_PASSWORD_SIZE])
{
    size_t length = str_utf8_length(password);
    if (length < PASSWORD_LEAST || password.size > PASSWORD_MOST)
        return operator_fail(call, -EINVAL, "a password has %d to %d characters", PASSWORD_LEAST,
                             PASSWORD_MOST);
    return password_hash(hash, password);
}

/* ---- verbs ---- */

const struct operator_argument operator_account_create_arguments[] = {
    {.name = "name", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "what operators call it"},
    {.name = "email", .help = "address to log in with"},
    {.name = "organization", .help = "whom it belongs to"},
    {.name = "password",
     .help = "12 to 1024 characters; made, and shown, when there is an address and no password",
     .variable = "WAKEGATE_PASSWORD"},
    {.name = NULL},
};

/* What `made` gets, when it is the one to be used, is in the answer. */
static int create_hash(struct operator_call *call, bool can_log_in, char made[MADE_PASSWORD_SIZE + 1],
                       char hash[CRYPTO_PASSWORD_SIZE])
{
    struct str password = operator_text(call, "password");
    made[0] = hash[0] = '\0';
    if (!can_log_in)
        return password.at ? operator_fail(call, -EINVAL, "a password is of no use without email") : 0;
    if (!password.at) {
        id_random_base62(made, MADE_PASSWORD_SIZE);
        password = str_from(made);
    }
    return hash_password(call, password, hash);
}

int operator_account_create(struct operator_call *call)
{
    struct account account;
    struct str email = operator_text(call, "email");
    struct str organization = operator_text(call, "organization");
    char made[MADE_PASSWORD_SIZE + 1];
    char hash[CRYPTO_PASSWORD_SIZE];
    int result = check_name(call, operator_text(call, "name"));
    if (result)
        return result;
    if (email.at && !account_email(call->arena, email, &email))
        return operator_fail(call, -EINVAL, "email is no e-mail address");
    if (str_utf8_length(organization) > ACCOUNT_ORGANIZATION_MAX)
        return operator_fail(call, -EINVAL, "organization has %d characters at most",
                             ACCOUNT_ORGANIZATION_MAX);
    result = create_hash(call, email.at, made, hash);
    if (result == 0)
        result = account_create(call->arena, operator_text(call, "name"), email, organization,
                                hash[0] ? str_from(hash) : STR_NONE, &account);
    if (result == -EEXIST)
        result = operator_fail(call, result, "there is an account of that name or address already");
    if (result == 0) {
        call->shows_secret = made[0];
        put_account_object(call, &account, made[0] ? made : NULL);
    }
    crypto_wipe(made, sizeof made);
    crypto_wipe(hash, sizeof hash);
    return result;
}

const struct operator_argument operator_account_list_arguments[] = {
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

static void put_accounts(struct operator_call *call, const struct account *accounts, size_t count)
{
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++)
        put_account_object(call, &accounts[i], NULL);
    json_close(call->out, ']');
}

int operator_account_list(struct operator_call *call)
{
    struct account *accounts;
    int64_t limit, cursor;
    size_t count;
    int result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = account_list(call->arena, cursor, limit, &accounts, &count);
    if (result == 0)
        put_accounts(call, accounts, count);
    return result;
}

const struct operator_argument operator_account_show_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = NULL},
};

int operator_account_show(struct operator_call *call)
{
    struct account account;
    int result = operator_account(call, &account);
    if (result == 0)
        put_account_object(call, &account, NULL);
    return result;
}

const struct operator_argument operator_account_password_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_REQUIRED | OPERATOR_WORD),
    {.name = "password",
     .flags = OPERATOR_REQUIRED,
     .help = "12 to 1024 characters",
     .variable = "WAKEGATE_PASSWORD"},
    {.name = NULL},
};

int operator_account_password(struct operator_call *call)
{
    struct account account;
    char hash[CRYPTO_PASSWORD_SIZE];
    int result = operator_account(call, &account);
    if (result)
        return result;
    if (!account.email.at)
        return operator_fail(call, -EINVAL, "account %.*s has no e-mail address to log in with",
                             STR_ARG(account.name));
    result = hash_password(call, operator_text(call, "password"), hash);
    if (result == 0)
        result = account_set_password(account.id, str_from(hash));
    if (result == 0)
        put_account_object(call, &account, NULL);
    crypto_wipe(hash, sizeof hash);
    return result;
}
