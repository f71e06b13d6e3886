/*
 * `wakegate pod`: the pod that comes along. It listens on 127.0.0.1:$PORT, keeps its journal in $WAKEGATE_WORKSPACE
 * (or the folder it is started in), and on SIGTERM ends its requests and leaves.
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/net/fetch.h"
#include "core/net/stream.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "handlers/pod/pod.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { POD_DRAIN_MS = 5000, POD_CONNECTIONS = 1000 };

static struct {
    struct loop loop;
    struct http_server *server;
    struct signal_watch signals[2];
    bool closing;
} pod;

static void close_pod(void *unused)
{
    (void)unused;
    http_server_drain(pod.server, clock_in_ms(POD_DRAIN_MS));
    http_server_close(pod.server);
    fetch_close_loop(&pod.loop);
    stream_close_loop(&pod.loop);
    for (size_t i = 0; i < ARRAY_SIZE(pod.signals); i++)
        signal_close(&pod.signals[i]);
    loop_stop(&pod.loop);
}

static void on_terminate(void *unused)
{
    (void)unused;
    if (pod.closing)
        return;
    pod.closing = true;
    fiber_start(&pod.loop, "close", close_pod, NULL);
}

int pod_main(int argc, char **argv)
{
    static const struct surface *const surfaces[] = {&surface_pod};
    char error[256];
    if (options_read("pod", argc, argv, NULL, 0, NULL, 0) < 0 || !program_settings("pod", NULL))
        return 2;
    if (!getenv("PORT") || gate_init(surfaces, ARRAY_SIZE(surfaces), error, sizeof error)) {
        fputs("wakegate pod: PORT must be set\n", stderr);
        return 2;
    }
    const char *folder = getenv("WAKEGATE_WORKSPACE");
    int result = journal_open(folder && folder[0] ? folder : ".");
    if (result) {
        fprintf(stderr, "wakegate pod: the workspace can't be used: %s\n", log_errno(result));
        return 1;
    }
    program_begin("pod");
    loop_open(&pod.loop, 0);
    fiber_guard_install();
    const struct http_server_options options = {
        .address = "127.0.0.1",
        .port = (int)config->port,
        .max_connections = POD_CONNECTIONS,
        .handle = gate_handle,
        .ended = gate_ended,
        .malformed = gate_malformed,
    };
    result = http_server_open(&pod.loop, &options, &pod.server);
    if (result) {
        fprintf(stderr, "wakegate pod: can't listen on port %d: %s\n", (int)config->port, log_errno(result));
    } else {
        signal_open(&pod.loop, &pod.signals[0], SIGTERM, on_terminate, NULL);
        signal_open(&pod.loop, &pod.signals[1], SIGINT, on_terminate, NULL);
        LOG(INFO, "pod listening", LOG_INT("port", config->port), LOG_INT("messages", journal_count()));
        loop_run(&pod.loop);
    }
    loop_close(&pod.loop);
    journal_close();
    gate_clear();
    log_close();
    config_clear();
    return result ? 1 : 0;
}
