/*
 * What is said when a pod has not answered: to people a small page that asks again by itself where that helps, without
 * script, to programs the surface's error. Both have the same status and Retry-After.
 */
#include "handlers/workspace/workspace.h"

#include "core/net/stream.h"

struct page_row {
    enum api_error error;
    const char *message;   /* of the error */
    const char *title;     /* of the page */
    const char *text;      /* below it */
    const char *retry_s;   /* Retry-After; NULL: none */
    const char *refresh_s; /* when the page asks again; NULL: not by itself */
    bool link;             /* to ask again at once */
};

static const struct page_row rows[PAGE_COUNT] = {
    [PAGE_NO_ACCESS] = {ERROR_UNAUTHORIZED, "A link to this workspace is required",
                        "This workspace needs a link",
                        "Open it with a fresh link to it. Links are good for a short time only.", NULL, NULL,
                        false},
    [PAGE_UNKNOWN] = {ERROR_NOT_FOUND, "Workspace not found", "There is no such workspace",
                      "It has been deleted.", NULL, NULL, false},
    [PAGE_WAKING] = {ERROR_UNAVAILABLE, "The workspace is waking up, please try again",
                     "Your workspace is waking up", "It opens here by itself in a moment.", "1", "1", true},
    [PAGE_CROWDED] = {ERROR_UNAVAILABLE, "Too many requests wait for this workspace, please try again",
                      "Your workspace is waking up",
                      "Many are waiting for it. It opens here by itself in a moment.", "2", "2", true},
    [PAGE_FAILED] = {ERROR_UNAVAILABLE, "The workspace could not be started; try again later",
                     "Your workspace could not be started",
                     "The next try follows here by itself in ten seconds.", "10", "10", true},
    [PAGE_AWAY] = {ERROR_UNAVAILABLE, "Temporarily unavailable, please try again",
                   "Your workspace can't be reached at the moment", "The next try follows here by itself.",
                   "1", "2", true},
    [PAGE_UNREACHABLE] = {ERROR_BAD_GATEWAY, "The workspace does not answer",
                          "Your workspace does not answer", "The program in it has ended the connection.",
                          NULL, NULL, true},
    [PAGE_SILENT] = {ERROR_GATEWAY_TIMEOUT, "The workspace did not answer in time",
                     "Your workspace did not answer in time", "The program in it may be busy.", NULL, NULL,
                     true},
};

/* The policy lets in exactly this style and nothing else. */
#define PAGE_STYLE                                                                                           \
    "body{margin:0;min-height:100vh;display:grid;place-items:center;"                                        \
    "font:1.1rem/1.5 system-ui,sans-serif;text-align:center}"                                                \
    "main{max-width:32rem;padding:1.5rem}h1{font-size:1.4rem}"
#define PAGE_STYLE_HASH "sha256-RuLLl89Rsvq2aAKLi2jzRUCbHMebgc30fhz5vfMIkLs="

bool page_is_wanted(const struct http1_head *head)
{
    if (!str_equal(head->method, STR("GET")) && !str_equal(head->method, STR("HEAD")))
        return false;
    struct str list = http1_header(head, "accept");
    struct str piece;
    while (str_split(&list, ',', &piece)) {
        struct str media;
        str_split(&piece, ';', &media);
        if (str_equal_nocase(str_trim(media), STR("text/html")))
            return true;
    }
    return false;
}

static void put_page(struct buf *out, const struct page_row *row)
{
    buf_add_literal(out, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
                         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                         "<meta name=\"color-scheme\" content=\"light dark\">\n");
    if (row->refresh_s)
        buf_printf(out, "<meta http-equiv=\"refresh\" content=\"%s\">\n", row->refresh_s);
    buf_printf(out, "<title>%s</title>\n<style>" PAGE_STYLE "</style>\n<main>\n<h1>%s</h1>\n<p>%s</p>\n",
               row->title, row->title, row->text);
    if (row->link)
        buf_add_literal(out, "<p><a href=\"\">Try now</a></p>\n");
    buf_add_literal(out, "</main>\n</html>\n");
}

void page_reply(struct request *request, enum page page)
{
    const struct page_row *row = &rows[page];
    if (row->retry_s)
        reply_header(request, "Retry-After", row->retry_s);
    reply_header(request, "Cache-Control", "no-store");
    if (!page_is_wanted(request->http->head)) {
        reply_error(request, row->error, row->message);
        return;
    }
    struct buf body = stream_spare_take();
    put_page(&body, row);
    request->why = api_errors[row->error].code;
    reply_header(request, "Content-Type", "text/html; charset=utf-8");
    reply_header(request, "Content-Security-Policy",
                 "default-src 'none'; style-src '" PAGE_STYLE_HASH "'; base-uri 'none'; form-action 'none'");
    reply_header(request, "X-Content-Type-Options", "nosniff");
    http_answer(request->http, api_errors[row->error].status, buf_str(&body));
    stream_spare_give(&body);
}
