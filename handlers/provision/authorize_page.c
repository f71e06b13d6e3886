/*
 * What the user sees: one page without script, for a phone as for a keyboard. Everything that did not come from us is escaped, and
 * the page's policy lets in its one style, its form, and nothing else.
 */
#include "handlers/provision/provision.h"

#include "core/base/base64.h"
#include "core/base/escape.h"

/* The policy names the hash of exactly this. */
#define PAGE_STYLE                                                                                           \
    "*{box-sizing:border-box}"                                                                               \
    "body{margin:0;min-height:100vh;display:grid;place-items:center;font:1.05rem/1.5 system-ui,sans-serif}"  \
    "main{width:100%;max-width:30rem;padding:1.5rem}"                                                        \
    "h1{font-size:1.35rem;line-height:1.3;overflow-wrap:anywhere}"                                           \
    "[role=alert]{border:2px solid #c22;border-radius:.4rem;padding:.6rem .8rem}"                            \
    "label{display:block;margin-top:1rem}"                                                                   \
    "input{width:100%;font:inherit;padding:.6rem;border:1px solid #767676;border-radius:.4rem}"              \
    ".answers{display:flex;flex-wrap:wrap;gap:.8rem;margin-top:1.5rem}"                                      \
    "button{flex:1 1 8rem;min-height:3rem;font:inherit;border:1px solid #767676;border-radius:.4rem;"        \
    "cursor:pointer}"                                                                                        \
    "button[value=allow]{background:#0b57d0;border-color:#0b57d0;color:#fff}"                                \
    ":focus-visible{outline:3px solid #e38400;outline-offset:2px}"                                           \
    "small{overflow-wrap:anywhere}"

/* ---- policy ---- */

/* What the form's answer may redirect to, as the policy writes it: scheme, host and port, or the scheme alone for what has no
 * host (and for IPv6 addresses, which it has no words for). Registered URIs have no byte that could end a directive. */
static struct str target_source(struct str uri)
{
    const char *colon = memchr(uri.at, ':', uri.size);
    size_t end = colon ? (size_t)(colon - uri.at) + 1 : uri.size;
    struct str rest = str_of(uri.at + end, uri.size - end);
    bool web = str_starts(uri, STR("http")) && str_starts(rest, STR("//"));
    if (!web || str_starts(rest, STR("//[")))
        return str_of(uri.at, end);
    for (end += 2; end < uri.size && uri.at[end] != '/' && uri.at[end] != '?';)
        end++;
    return str_of(uri.at, end);
}

static void add_style_hash(struct buf *out)
{
    unsigned char digest[CRYPTO_DIGEST_SIZE];
    crypto_sha256(digest, STR(PAGE_STYLE));
    buf_add_literal(out, "'sha256-");
    base64_add(out, str_of((const char *)digest, sizeof digest));
    buf_add_literal(out, "'");
}

/* `target` absent: there is no form. */
static void add_headers(struct request *request, struct str target)
{
    struct buf policy = {0};
    buf_add_literal(&policy, "default-src 'none'; style-src ");
    add_style_hash(&policy);
    buf_add_literal(&policy, "; form-action ");
    if (target.at) {
        buf_add_literal(&policy, "'self' ");
        buf_add_str(&policy, target_source(target));
    } else {
        buf_add_literal(&policy, "'none'");
    }
    buf_add_literal(&policy, "; frame-ancestors 'none'; base-uri 'none'");
    reply_header(request, "Content-Security-Policy", arena_dup(request->arena, policy.at, policy.size));
    buf_clear(&policy);
    reply_header(request, "X-Frame-Options", "DENY");
    reply_header(request, "X-Content-Type-Options", "nosniff");
    reply_header(request, "Referrer-Policy", "no-referrer");
    oauth_no_store(request);
}

/* ---- the page ---- */

static void begin_page(struct buf *out, struct str title)
{
    buf_add_literal(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                         "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    escape_html(out, title);
    buf_add_literal(out, "</title>\n<style>" PAGE_STYLE "</style>\n</head>\n<body>\n<main>\n<h1>");
    escape_html(out, title);
    buf_add_literal(out, "</h1>\n");
}

static void end_page(struct request *request, int status, const char *code, struct buf *body)
{
    static const char type[] = "text/html; charset=utf-8";
    buf_add_literal(body, "</main>\n</body>\n</html>\n");
    if (code)
        reply_error_body(request, status, code, type, buf_str(body));
    else
        reply_body(request, status, type, buf_str(body));
    buf_clear(body);
}

static void add_alert(struct buf *out, const char *alert)
{
    buf_add_literal(out, "<p role=\"alert\" id=\"alert\">");
    escape_html(out, str_from(alert));
    buf_add_literal(out, "</p>\n");
}

void consent_error(struct request *request, int status, const char *code, const char *text)
{
    struct buf body = {0};
    add_headers(request, STR_NONE);
    begin_page(&body, STR("This did not work"));
    add_alert(&body, text);
    end_page(request, status, code, &body);
}

static void add_scopes(struct buf *out, scope_set set)
{
    buf_add_literal(out, "<p>It will be allowed to:</p>\n<ul>\n");
    for (size_t i = 0; i < SCOPE_COUNT; i++) {
        if (!(set & SCOPE_BIT(i)))
            continue;
        buf_add_literal(out, "<li>");
        escape_html(out, str_from(scopes[i].help));
        buf_add_literal(out, "</li>\n");
    }
    buf_add_literal(out, "</ul>\n");
}

/* The request goes with the form as letters that no browser rewrites (line ends in a field's value would be). */
static void add_hidden(struct buf *out, const struct ask *ask, const char *token)
{
    buf_add_literal(out, "<input type=\"hidden\" name=\"request\" value=\"");
    base64url_add(out, ask->text);
    buf_add_literal(out, "\">\n<input type=\"hidden\" name=\"proof\" value=\"");
    escape_html(out, str_from(token));
    buf_add_literal(out, "\">\n");
}

static void add_log_in(struct buf *out, const struct consent *consent)
{
    const char *described = consent->alert ? " aria-describedby=\"alert\"" : "";
    buf_add_literal(out, "<label for=\"email\">E-mail address</label>\n"
                         "<input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"username\" "
                         "maxlength=\"254\" required");
    buf_add_text(out, consent->email.at ? "" : " autofocus");
    buf_add_text(out, described);
    buf_add_literal(out, " value=\"");
    escape_html(out, consent->email);
    buf_add_literal(out, "\">\n<label for=\"password\">Password</label>\n"
                         "<input id=\"password\" name=\"password\" type=\"password\" "
                         "autocomplete=\"current-password\" required");
    buf_add_text(out, consent->email.at ? " autofocus" : "");
    buf_add_text(out, described);
    buf_add_literal(out, ">\n");
}

static void add_user(struct buf *out, const struct ask *ask, const struct account *account)
{
    buf_add_literal(out, "<p>You are logged in as <strong>");
    escape_html(out, account->email.at ? account->email : account->name);
    buf_add_literal(out, "</strong>. <a href=\"/oauth/authorize?");
    escape_html(out, ask->text);
    buf_add_literal(out, "&amp;log_in_anew=1\">Not you?</a></p>\n");
}

static void add_answers(struct buf *out, bool log_in)
{
    buf_add_literal(out, "<div class=\"answers\">\n<button name=\"answer\" value=\"allow\">");
    buf_add_text(out, log_in ? "Log in and allow" : "Allow");
    buf_add_literal(out, "</button>\n<button name=\"answer\" value=\"deny\" formnovalidate>Deny</button>\n"
                         "</div>\n");
}

void consent_ask(struct request *request, const struct ask *ask, const struct consent *consent)
{
    struct buf body = {0};
    struct str target = target_source(ask->redirect_uri);
    add_headers(request, ask->redirect_uri);
    begin_page(&body, str_from(arena_printf(request->arena, "%.*s wants to use your account",
                                            STR_ARG(ask->client.name))));
    if (consent->alert)
        add_alert(&body, consent->alert);
    add_scopes(&body, ask->scopes);
    buf_add_literal(&body, "<form method=\"post\" action=\"/oauth/authorize\">\n");
    add_hidden(&body, ask, consent->token);
    if (consent->account)
        add_user(&body, ask, consent->account);
    else
        add_log_in(&body, consent);
    add_answers(&body, !consent->account);
    buf_add_literal(&body, "</form>\n<p><small>You will be sent on to ");
    escape_html(&body, target);
    buf_add_literal(&body, "</small></p>\n");
    end_page(request, consent->status, consent->status == 200 ? NULL : "consent_page", &body);
}
