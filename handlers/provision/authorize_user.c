/*
 * The user before the page: a cookie once they have logged in, a password before that; and the form's proof.
 *
 * A pod of anyone's may live on a host below ours: it can't read our cookies, but under plain HTTP it can put its own in
 * front of the browser, and its pages count as the same site. So the proof is bound to the request that it allows, to a
 * cookie, and to who is logged in, and a form from any other page is refused where the browser tells.
 */
#include "handlers/provision/provision.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/escape.h"
#include "core/base/id.h"
#include "core/domain/identity/password.h"

#include <errno.h>

enum { LOGIN_S = 12 * 3600, FORM_S = 600, NONCE_SIZE = 32, MAC_SIZE = 2 * CRYPTO_DIGEST_SIZE };

/* ---- cookies ---- */

static bool is_secure(const struct request *request)
{
    return str_equal(gate_scheme(request), STR("https"));
}

/* The prefix makes browsers refuse it from any other host and without TLS (RFC 6265bis §4.1.3.2). */
static const char *cookie_name(struct request *request, const char *name)
{
    return is_secure(request) ? arena_printf(request->arena, "__Host-%s", name) : name;
}

static void set_cookie(struct request *request, const char *name, const char *value, int64_t for_s)
{
    reply_header(request, "Set-Cookie",
                 arena_printf(request->arena, "%s=%s; HttpOnly; SameSite=Lax; Max-Age=%lld; %s",
                              cookie_name(request, name), value, (long long)for_s,
                              is_secure(request) ? "Path=/; Secure" : "Path=/oauth"));
}

/* The first of that name; absent without. */
static struct str get_cookie(struct request *request, const char *name)
{
    const struct http1_head *head = request->http->head;
    struct str wanted = str_from(cookie_name(request, name));
    for (size_t i = 0; i < head->count; i++) {
        struct str list = head->fields[i].value;
        struct str pair;
        if (!str_equal_nocase(head->fields[i].name, STR("cookie")))
            continue;
        while (str_split(&list, ';', &pair)) {
            struct str found;
            if (str_split(&pair, '=', &found) && pair.at && str_equal(str_trim(found), wanted))
                return str_trim(pair);
        }
    }
    return STR_NONE;
}

/* ---- proofs ---- */

/* Keyed by a key of its own for each use. Of several parts the sizes count too. */
static void make_mac(char out[MAC_SIZE + 1], const char *use, const struct str *parts, size_t count)
{
    unsigned char key[CRYPTO_KEY_SIZE];
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    struct buf text = {0};
    for (size_t i = 0; i < count; i++) {
        buf_add_u64(&text, parts[i].size);
        buf_add_char(&text, ':');
        buf_add_str(&text, parts[i]);
    }
    crypto_derive(key, str_from(config->encryption_key), use);
    crypto_digest(digest, buf_str(&text), key);
    escape_hex(out, digest, sizeof digest);
    crypto_wipe(key, sizeof key);
    buf_clear(&text);
}

static struct str number_text(struct request *request, int64_t number)
{
    return str_from(arena_printf(request->arena, "%lld", (long long)number));
}

/* ---- who is logged in ---- */

#define LOGIN_COOKIE "wg_login"
#define LOGIN_USE "oauth login"

/* Bound to the password too: a new one ends what the old one began. */
static void login_mac(char out[MAC_SIZE + 1], struct str id, struct str until, struct str password_hash)
{
    const struct str parts[] = {id, until, password_hash};
    make_mac(out, LOGIN_USE, parts, ARRAY_SIZE(parts));
}

static void set_login(struct request *request, int64_t account_id, struct str password_hash)
{
    char mac[MAC_SIZE + 1];
    struct str id = number_text(request, account_id);
    struct str until = number_text(request, clock_wall_s() + LOGIN_S);
    login_mac(mac, id, until, password_hash);
    set_cookie(request, LOGIN_COOKIE,
               arena_printf(request->arena, "%.*s.%.*s.%s", STR_ARG(id), STR_ARG(until), mac), LOGIN_S);
}

int user_of_cookie(struct request *request, struct account *account)
{
    struct str rest = get_cookie(request, LOGIN_COOKIE);
    struct str id = STR_NONE;
    struct str until = STR_NONE;
    struct str hash = STR_NONE;
    int64_t number;
    int64_t until_s;
    char mac[MAC_SIZE + 1];
    if (!str_split(&rest, '.', &id) || !str_split(&rest, '.', &until) || rest.size != MAC_SIZE ||
        !str_to_i64(id, &number) || !str_to_i64(until, &until_s) || clock_wall_s() >= until_s)
        return -ENOKEY;
    int result = account_get(request->arena, number, account);
    if (result == 0 && !account->is_banned && account->email.at)
        result = account_password(request->arena, account->email, &number, &hash);
    if (result && result != -ENOENT)
        return result;
    login_mac(mac, id, until, hash);
    return hash.at && crypto_equal(rest, str_of(mac, MAC_SIZE)) ? 0 : -ENOKEY;
}

int user_log_in(struct request *request, struct str email, struct str password, struct account *account)
{
    struct str address;
    struct str hash;
    int64_t id;
    if (!account_email(request->arena, email, &address) || password.size > PASSWORD_MOST)
        return -EACCES;
    int result = gate_password(request, address, password.at ? password : STR(""), &id, &hash);
    if (result == 0)
        result = account_get(request->arena, id, account);
    if (result == 0 && account->is_banned)
        return -EPERM;
    if (result == 0)
        set_login(request, id, hash);
    return result == -ENOENT ? -EACCES : result;
}

/* ---- the form ---- */

#define FORM_COOKIE "wg_form"
#define FORM_USE "oauth form"

static void form_mac(struct request *request, char out[MAC_SIZE + 1], struct str ask, int64_t account_id,
                     struct str nonce, struct str until)
{
    const struct str parts[] = {until, nonce, number_text(request, account_id), ask};
    make_mac(out, FORM_USE, parts, ARRAY_SIZE(parts));
}

const char *user_form_token(struct request *request, struct str ask, int64_t account_id)
{
    char mac[MAC_SIZE + 1];
    char fresh[NONCE_SIZE + 1];
    struct str nonce = get_cookie(request, FORM_COOKIE);
    if (nonce.size != NONCE_SIZE) { /* a second tab goes on with the first one's */
        id_random_base62(fresh, NONCE_SIZE);
        nonce = str_of(fresh, NONCE_SIZE);
        set_cookie(request, FORM_COOKIE, fresh, LOGIN_S);
    }
    struct str until = number_text(request, clock_wall_s() + FORM_S);
    form_mac(request, mac, ask, account_id, nonce, until);
    return arena_printf(request->arena, "%.*s.%s", STR_ARG(until), mac);
}

/* Browsers say from where a form was sent, to whom they trust to have sent it themselves (W3C Fetch Metadata). */
static bool is_from_here(const struct request *request)
{
    const struct http1_head *head = request->http->head;
    struct str site = http1_header(head, "sec-fetch-site");
    return !site.at || str_equal(site, STR("same-origin"));
}

bool user_form_token_fits(struct request *request, struct str ask, int64_t account_id, struct str token)
{
    char mac[MAC_SIZE + 1];
    struct str until = STR_NONE;
    struct str nonce = get_cookie(request, FORM_COOKIE);
    int64_t until_s;
    if (nonce.size != NONCE_SIZE || !str_split(&token, '.', &until) || !token.at || !is_from_here(request))
        return false;
    form_mac(request, mac, ask, account_id, nonce, until);
    return crypto_equal(token, str_of(mac, MAC_SIZE)) && str_to_i64(until, &until_s) &&
           clock_wall_s() < until_s;
}
