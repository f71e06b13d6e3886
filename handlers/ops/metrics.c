/* GET /metrics, for who has the token. */
#include "handlers/ops/ops.h"

#include "core/base/config.h"
#include "core/base/crypto.h"
#include "core/net/stream.h"
#include "proto/prometheus.h"

static bool may_read(const struct request *request)
{
    struct str given = http1_header(request->http->head, "authorization");
    struct str scheme = STR("Bearer ");
    if (!config->metrics_token[0] || given.size < scheme.size ||
        !str_equal_nocase(str_of(given.at, scheme.size), scheme))
        return false;
    return crypto_equal(str_of(given.at + scheme.size, given.size - scheme.size),
                        str_from(config->metrics_token));
}

void ops_metrics(struct request *request)
{
    if (!may_read(request)) {
        reply_header(request, "WWW-Authenticate", "Bearer");
        reply_error(request, ERROR_UNAUTHORIZED, "The metrics token is required");
        return;
    }
    struct buf body = stream_spare_take();
    prometheus_write(&body);
    reply_header(request, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    http_stream_begin(request->http, 200);
    if (http_stream_write(request->http, buf_str(&body)) == 0)
        http_stream_end(request->http);
    stream_spare_give(&body);
}
