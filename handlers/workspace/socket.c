/*
 * A request that has become something else: after the pod's 101 both connections are coupled, and no fiber is left. The
 * visit lives as long as they do; data that passes is activity, a WebSocket's pings are not.
 */
#include "handlers/workspace/workspace.h"

#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/domain/instance/visit.h"
#include "core/net/tunnel.h"
#include "core/net/upstream.h"

#include <stdlib.h>

struct socket {
    struct visit *visit;
    uint64_t start_ns;
    char instance[INSTANCE_ID_MAX + 1];
};

static void on_active(void *arg)
{
    struct socket *socket = arg;
    visit_active(socket->visit);
}

static void on_ended(void *arg, uint64_t bytes_in, uint64_t bytes_out)
{
    struct socket *socket = arg;
    metric_add(M_TUNNELS, -1);
    if (config->log_requests)
        LOG(INFO, "socket ended", LOG_TEXT("instance", socket->instance), LOG_INT("bytes_in", bytes_in),
            LOG_INT("bytes_out", bytes_out), LOG_INT("ms", (clock_now_ns() - socket->start_ns) / CLOCK_MS));
    visit_close(socket->visit);
    free(socket);
}

void socket_open(struct proxy *proxy)
{
    head_add_answer(proxy->http, proxy->answer);
    struct buf early_client;
    struct stream *client = http_switch(proxy->http, &early_client);
    if (!client)
        return; /* it has left */
    struct buf early_pod;
    struct stream *pod = upstream_take(proxy->upstream, &early_pod);
    struct socket *socket = mem_zalloc(sizeof *socket);
    socket->visit = proxy->visit;
    socket->start_ns = clock_now_ns();
    memcpy(socket->instance, proxy->request->instance.at, proxy->request->instance.size);
    proxy->upstream = NULL;
    proxy->visit = NULL;
    visit_to_socket(socket->visit);
    metric_add(M_TUNNELS, 1);
    const struct tunnel_options options = {
        .frames = str_equal_nocase(proxy->http->head->upgrade, STR("websocket")),
        .active = on_active,
        .ended = on_ended,
        .arg = socket,
    };
    tunnel_open(client, &early_client, pod, &early_pod, &options);
}
