/* GET /: what people see who open their workspace and run no program of their own in it. */
#include "handlers/pod/pod.h"

#include "core/net/stream.h"

void pod_page(struct request *request)
{
    struct buf body = stream_spare_take();
    buf_add_literal(&body,
                    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                    "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Your workspace</title>\n"
                    "<h1>Your workspace is awake</h1>\n<p>Messages answered here: ");
    buf_add_i64(&body, journal_count());
    buf_add_literal(
        &body, "</p>\n<p>It runs the pod that comes with Wakegate. WAKEGATE_POD_COMMAND puts any program "
               "that listens on $PORT in its place.</p>\n</html>\n");
    reply_header(request, "Content-Type", "text/html; charset=utf-8");
    reply_header(request, "Content-Security-Policy",
                 "default-src 'none'; base-uri 'none'; form-action 'none'");
    reply_header(request, "Cache-Control", "no-store");
    http_answer(request->http, 200, buf_str(&body));
    stream_spare_give(&body);
}
