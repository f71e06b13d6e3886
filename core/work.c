/*
 * `wakegate work`: the worker pool. Any number of them; this one looks after the pods of its machine.
 *
 *   SIGTERM, SIGINT   no new jobs, running ones may end (DRAIN_SECONDS), the rest are given back; pods live on
 *                     unless --stop-pods was given
 *   SIGUSR1           the suspended fibers, into the log
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/log.h"
#include "core/domain/ai/catalogue.h"
#include "core/domain/event/event.h"
#include "core/domain/vault.h"
#include "core/net/stream.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "workers/ai/ai.h"
#include "workers/deliver.h"
#include "workers/forget.h"
#include "workers/ping.h"
#include "workers/pods/driver.h"
#include "workers/pool.h"
#include "workers/scale.h"
#include "workers/sweep.h"
#include "workers/treasury.h"
#include "workers/webhook.h"

#include <signal.h>
#include <stdio.h>

static const struct job_handler handlers[] = {
    {JOB_SCALE, scale_run}, {JOB_DELIVER, deliver_run},    {JOB_WEBHOOK, webhook_run},
    {JOB_PING, ping_run},   {JOB_PING_VOLATILE, ping_run},
};

static struct {
    struct loop loop;
    const struct pod_driver *driver;
    struct pool *pool;
    struct http_server *metrics;
    struct signal_watch signals[3];
    bool stop_pods;
    bool stores_open;
    bool driver_open;
    bool sweeping;
    bool calling;
    bool started;
    bool closing;
    bool failed;
} work;

static void close_worker(void *unused)
{
    (void)unused;
    fiber_hold();
    uint64_t drained_ns = clock_in_ms((uint64_t)config->drain_s * 1000);
    if (work.pool)
        pool_drain(work.pool, drained_ns);
    if (work.calling)
        ai_drain(drained_ns);
    ai_close();
    if (work.sweeping) {
        sweep_close();
        forget_close();
        treasury_close();
        webhook_sweep_close();
        if (work.stop_pods)
            sweep_stop_pods();
    }
    pool_close(work.pool);
    if (work.driver_open)
        work.driver->close();
    program_close_metrics(work.metrics);
    catalogue_close();
    if (work.stores_open)
        program_close_stores(&work.loop);
    stream_close_loop(&work.loop);
    for (size_t i = 0; i < ARRAY_SIZE(work.signals); i++)
        signal_close(&work.signals[i]);
    fiber_release();
    loop_stop(&work.loop);
}

/* While it starts, `start` closes it once it is through: what is half open can't be closed. */
static void on_terminate(void *unused)
{
    (void)unused;
    if (work.closing)
        return;
    work.closing = true;
    LOG(INFO, "draining", LOG_INT("seconds", config->drain_s));
    if (work.started)
        fiber_start(&work.loop, "close", close_worker, NULL);
}

static void on_list(void *unused)
{
    (void)unused;
    loop_log_fibers(&work.loop);
}

static bool open_all(void)
{
    char error[512];
    if (!program_check_stores("work") ||
        !program_open_metrics(&work.loop, program_answer_metrics, program_metrics_ended, &work.metrics))
        return false;
    if (work.driver->open(sweep_pod_ended, NULL, error, sizeof error)) {
        fprintf(stderr, "wakegate work: %s\n", error);
        return false;
    }
    work.driver_open = true;
    catalogue_open(&work.loop);
    event_open_loop(&work.loop);
    scale_use(work.driver);
    sweep_open(&work.loop, work.driver);
    forget_open(&work.loop);
    treasury_open(&work.loop);
    webhook_sweep_open(&work.loop);
    work.sweeping = true;
    work.pool = pool_open(&work.loop, handlers, ARRAY_SIZE(handlers), error, sizeof error);
    if (!work.pool)
        fprintf(stderr, "wakegate work: %s\n", error);
    else
        ai_open(&work.loop);
    work.calling = work.pool != NULL;
    return work.calling;
}

static void start(void *unused)
{
    (void)unused;
    work.failed = !open_all();
    work.started = true;
    if (!work.failed)
        LOG(INFO, "working", LOG_INT("concurrency", config->worker_concurrency));
    if (work.closing)
        fiber_start(&work.loop, "close", close_worker, NULL);
    else if (work.failed)
        on_terminate(NULL);
}

static bool settings_are_fit(void)
{
    if (!program_can_open_stores("work"))
        return false;
    if (!scale_ports_are_fit())
        fputs("wakegate work: POD_PORT_RANGE must be FIRST-LAST, within 1-65535\n", stderr);
    return scale_ports_are_fit();
}

int work_main(int argc, char **argv)
{
    const char *env_file = NULL;
    bool help = false;
    const struct option_row rows[] = {
        {"--env-file", &env_file, NULL, "file of NAME=value lines; the environment wins"},
        {"--stop-pods", NULL, &work.stop_pods, "at the end stop this machine's pods too"},
        {"--help", NULL, &help, "this"},
    };
    if (options_read("work", argc, argv, rows, ARRAY_SIZE(rows), NULL, 0) < 0)
        return 2;
    if (help) {
        puts("wakegate work: the worker pool\n\nOptions:");
        options_help(rows, ARRAY_SIZE(rows));
        puts("\nSettings, from the environment:");
        config_print_help(stdout);
        return 0;
    }
    if (!program_settings("work", env_file) || !settings_are_fit())
        return 2;
    program_begin("work");
    webhook_name_metrics();
    work.driver = &pod_driver_process;
    loop_open(&work.loop, 0);
    fiber_guard_install();
    signal_open(&work.loop, &work.signals[0], SIGTERM, on_terminate, NULL);
    signal_open(&work.loop, &work.signals[1], SIGINT, on_terminate, NULL);
    signal_open(&work.loop, &work.signals[2], SIGUSR1, on_list, NULL);
    work.stores_open = program_open_stores(&work.loop);
    if (work.stores_open) {
        fiber_start(&work.loop, "start", start, NULL);
    } else {
        work.failed = true;
        work.started = true;
        on_terminate(NULL);
    }
    loop_run(&work.loop);
    loop_close(&work.loop);
    catalogue_clear();
    vault_close();
    LOG(INFO, "stopped", LOG_BOOL("clean", !work.failed));
    log_close();
    config_clear();
    return work.failed ? 1 : 0;
}
