/* API keys of every surface, for operators. */
#include "core/domain/identity/key.h"

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/operator/verbs.h"
#include "proto/network.h"

#include <errno.h>

enum { DEFAULT_OVERLAP_S = 0, OVERLAP_MAX_S = 90 * 86400 };

#define KEY_ROW                                                                                              \
    {                                                                                                        \
        .name = "key", .flags = OPERATOR_REQUIRED | OPERATOR_WORD, .help = "its number or key_…"           \
    }

static void put_key(struct json_out *out, const struct key_row *row)
{
    json_put_int(out, "id", row->id);
    json_put_str(out, "ref", row->ref);
    json_put_str(out, "account", row->account);
    json_put_str(out, "surface", row->surface);
    json_put_str(out, "name", row->name);
    json_put_str(out, "shown", row->shown);
    operator_put_words(out, "scopes", row->scopes);
    operator_put_words(out, "allow_from", row->allow_from);
    json_put_bool(out, "signing", row->signs);
    json_put_bool(out, "require_signature", row->must_sign);
    operator_put_time(out, "created_at", row->created_ms);
    operator_put_time(out, "expires_at", row->expires_ms);
    operator_put_time(out, "revoked_at", row->revoked_ms);
}

/* A key that was made: the one time that it is seen. */
static void show_key(struct operator_call *call, const struct key_row *row, const struct key_secrets *secrets)
{
    call->shows_secret = true;
    json_open(call->out, '{');
    put_key(call->out, row);
    json_put_text(call->out, "key", secrets->text);
    if (secrets->signing[0])
        json_put_text(call->out, "signing_secret", secrets->signing);
    json_close(call->out, '}');
}

/* ---- making ---- */

const struct operator_argument operator_key_create_arguments[] = {
    {.name = "account",
     .flags = OPERATOR_REQUIRED,
     .help = "name, e-mail address, user_… or number; made when there is none of that name"},
    {.name = "surface", .flags = OPERATOR_REQUIRED, .help = "session, inference, gpu or user"},
    {.name = "name", .help = "what people call the key"},
    {.name = "scopes", .help = "what it may do, separated by spaces (all that the surface has)"},
    {.name = "allow_from", .help = "addresses and networks that it may come from, separated by spaces (any)"},
    {.name = "expires_in", .type = OPERATOR_NUMBER, .help = "seconds that it holds (for ever)"},
    {.name = "signing", .type = OPERATOR_SWITCH, .help = "it gets a secret to sign requests with"},
    {.name = "require_signature",
     .type = OPERATOR_SWITCH,
     .help = "the same, and requests without a signature are refused"},
    {.name = NULL},
};

static int read_scopes(struct operator_call *call, const char *surface, scope_set *set)
{
    struct str list = operator_text(call, "scopes");
    *set = 0;
    if (!list.at || (scope_parse(list, surface, set) && *set))
        return 0;
    struct buf known = {0};
    scope_print(&known, scope_all(surface));
    int result =
        operator_fail(call, -EINVAL, "scopes of surface %s are: %.*s", surface, STR_ARG(buf_str(&known)));
    buf_clear(&known);
    return result;
}

static int read_networks(struct operator_call *call, struct str *words, size_t *count)
{
    struct network network;
    int result = operator_words(call, "allow_from", words, PRINCIPAL_NETWORKS_MAX, count);
    for (size_t i = 0; result == 0 && i < *count; i++)
        if (!network_parse(words[i], &network))
            result =
                operator_fail(call, -EINVAL, "allow_from: %.*s is no address and no network (10.0.0.0/8)",
                              STR_ARG(words[i]));
    return result;
}

/* The table's own pointer; NULL: keys of no surface are called so. */
static const char *surface_of(struct str name)
{
    static const char *const surfaces[] = {
#define KEY_SURFACE(surface, prefix) surface,
        KEY_KINDS(KEY_SURFACE)
#undef KEY_SURFACE
    };
    for (size_t i = 0; i < ARRAY_SIZE(surfaces); i++)
        if (str_equal(name, str_from(surfaces[i])))
            return surfaces[i];
    return NULL;
}

static int read_options(struct operator_call *call, struct key_options *options, struct str *networks)
{
    static const int64_t longest_s = INT64_C(100) * 365 * 86400;
    int64_t expires_s = operator_number(call, "expires_in", 0);
    *options = (struct key_options){
        .surface = surface_of(operator_text(call, "surface")),
        .name = operator_text(call, "name").at ? operator_text(call, "name") : STR(""),
        .allow_from = networks,
        .must_sign = operator_switch(call, "require_signature"),
        .signs = operator_switch(call, "signing") || operator_switch(call, "require_signature"),
    };
    if (!options->surface)
        return operator_fail(call, -EINVAL, "there is no surface %.*s with keys",
                             STR_ARG(operator_text(call, "surface")));
    if (str_utf8_length(options->name) > KEY_NAME_MAX)
        return operator_fail(call, -EINVAL, "name has %d characters at most", KEY_NAME_MAX);
    if (operator_text(call, "expires_in").at && (expires_s < 1 || expires_s > longest_s))
        return operator_fail(call, -EINVAL, "expires_in must be 1 second to a hundred years");
    options->expires_ms = expires_s ? clock_wall_ms() + expires_s * 1000 : 0;
    int result = read_scopes(call, options->surface, &options->scopes);
    return result ? result : read_networks(call, networks, &options->allow_count);
}

int operator_key_create(struct operator_call *call)
{
    struct account account;
    struct key_options options;
    struct key_secrets secrets;
    struct key_row row;
    struct str networks[PRINCIPAL_NETWORKS_MAX];
    int result = read_options(call, &options, networks);
    if (result == 0)
        result = operator_account_or_new(call, &account);
    if (result)
        return result;
    result = key_create(call->arena, account.id, &options, &secrets, &row);
    if (result == 0)
        show_key(call, &row, &secrets);
    crypto_wipe(&secrets, sizeof secrets);
    return result;
}

/* ---- the rest ---- */

const struct operator_argument operator_key_list_arguments[] = {
    OPERATOR_ACCOUNT(OPERATOR_WORD),
    OPERATOR_LIMIT,
    OPERATOR_CURSOR,
    {.name = NULL},
};

int operator_key_list(struct operator_call *call)
{
    struct account account;
    struct key_row *rows;
    int64_t limit, cursor;
    size_t count = 0;
    int result = operator_page(call, &limit, &cursor);
    if (result == 0)
        result = operator_account_or_all(call, &account);
    if (result == 0)
        result = key_list(call->arena, account.id, cursor, limit, &rows, &count);
    if (result)
        return result;
    json_open(call->out, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(call->out, '{');
        put_key(call->out, &rows[i]);
        json_close(call->out, '}');
    }
    json_close(call->out, ']');
    return 0;
}

static int no_such_key(struct operator_call *call)
{
    return operator_fail(call, -ENOENT, "no such key holds");
}

const struct operator_argument operator_key_revoke_arguments[] = {
    KEY_ROW,
    {.name = NULL},
};

int operator_key_revoke(struct operator_call *call)
{
    struct key_row row;
    int result = key_get(call->arena, 0, operator_text(call, "key"), &row);
    if (result == 0)
        result = key_revoke(0, row.ref);
    if (result == 0)
        result = key_get(call->arena, 0, row.ref, &row);
    if (result == -ENOENT)
        return no_such_key(call);
    if (result)
        return result;
    json_open(call->out, '{');
    put_key(call->out, &row);
    json_close(call->out, '}');
    return 0;
}

const struct operator_argument operator_key_rotate_arguments[] = {
    KEY_ROW,
    {.name = "overlap", .type = OPERATOR_NUMBER, .help = "seconds that the old one still holds (0)"},
    {.name = NULL},
};

int operator_key_rotate(struct operator_call *call)
{
    struct key_row old, row;
    struct key_secrets secrets;
    int64_t overlap_s = operator_number(call, "overlap", DEFAULT_OVERLAP_S);
    if (overlap_s > OVERLAP_MAX_S)
        return operator_fail(call, -EINVAL, "overlap must be 0 to %d seconds", OVERLAP_MAX_S);
    int result = key_get(call->arena, 0, operator_text(call, "key"), &old);
    if (result == 0)
        result = key_rotate(call->arena, old.account_id, old.ref, overlap_s, &secrets, &row);
    if (result == -ENOENT)
        return no_such_key(call);
    if (result == -EEXIST)
        return operator_fail(call, result, "key %.*s was rotated already", STR_ARG(old.ref));
    if (result)
        return result;
    show_key(call, &row, &secrets);
    crypto_wipe(&secrets, sizeof secrets);
    return 0;
}
