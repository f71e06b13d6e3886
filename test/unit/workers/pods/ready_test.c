/* Waiting for a pod to answer: a real server as the pod of the process driver, over real connections. */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/net/fetch.h"
#include "core/run/loop.h"
#include "core/run/sync.h"
#include "workers/pods/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Answers /health with 503 until it was asked `REFUSALS` times, after `DELAY` seconds without a listener. */
#define SERVER                                                                                               \
    "exec /usr/bin/python3 -c '\n"                                                                           \
    "import http.server, os, time\n"                                                                         \
    "asked = 0\n"                                                                                            \
    "class Handler(http.server.BaseHTTPRequestHandler):\n"                                                   \
    "    def do_GET(self):\n"                                                                                \
    "        global asked\n"                                                                                 \
    "        asked += 1\n"                                                                                   \
    "        self.send_response(200 if self.path == \"/health\" and asked > refusals else 503)\n"            \
    "        self.send_header(\"Content-Length\", \"2\")\n"                                                  \
    "        self.end_headers()\n"                                                                           \
    "        self.wfile.write(b\"ok\")\n"                                                                    \
    "time.sleep(delay)\n"                                                                                    \
    "http.server.HTTPServer((\"127.0.0.1\", int(os.environ[\"PORT\"])), Handler).serve_forever()\n"          \
    "'"

static const struct pod_driver *const driver = &pod_driver_process;
static char data_dir[64];
static struct loop loop;

static void set(const char *name, const char *value)
{
    char error[256];
    if (config_set(name, value, error, sizeof error) < 0)
        fail_msg("%s", error);
}

/* The server above with its two variables set. */
static void set_server(const char *delay, int refusals)
{
    char command[2048];
    const char *imports = strstr(SERVER, "asked = 0");
    snprintf(command, sizeof command, "%.*sdelay = %s\nrefusals = %d\n%s", (int)(imports - SERVER), SERVER,
             delay, refusals, imports);
    set("WAKEGATE_POD_COMMAND", command);
}

static int listener_open(int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int free_port(void)
{
    int port;
    close(listener_open(&port));
    return port;
}

static int start(int port)
{
    struct pod pod;
    struct pod_spec spec = {.instance_id = "pod1", .generation = 1, .port = port};
    assert_int_equal(driver->start(&spec, &pod), 0);
    return port;
}

static uint64_t cpu_ms(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void (*body)(void);

static void run_body(void *unused)
{
    (void)unused;
    char error[512] = "";
    if (driver->open(NULL, NULL, error, sizeof error) < 0)
        fail_msg("%s", error);
    body();
    assert_int_equal(driver->stop("pod1"), 0);
    assert_int_equal(driver->destroy("pod1"), 0);
    driver->close();
    fetch_close_loop(&loop);
}

static int setup(void **state)
{
    (void)state;
    strcpy(data_dir, "/tmp/wakegate-ready-XXXXXX");
    assert_non_null(mkdtemp(data_dir));
    set("WAKEGATE_DATA_DIR", data_dir);
    set("POD_SANDBOX", "off");
    set("POD_USER", "");
    set("POD_READY_TIMEOUT_MS", "20000");
    loop_open(&loop, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_close(&loop);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", data_dir);
    return system(command);
}

static void run(void (*test)(void))
{
    body = test;
    fiber_main(&loop, "test", run_body, NULL);
}

static void becomes_ready(void)
{
    set_server("0.3", 3);
    int port = start(free_port());
    uint64_t cpu_before_ms = cpu_ms();
    uint64_t begun_ns = clock_now_ns();
    assert_int_equal(pod_wait_ready(driver, "pod1", port), 0);
    assert_true(clock_now_ns() - begun_ns >= 300 * CLOCK_MS);
    /* Far more than it takes, even with sanitizers; a loop that spins takes all there is. */
    assert_true(cpu_ms() - cpu_before_ms < 200);
    assert_int_equal(pod_wait_ready(driver, "pod1", port), 0);
}

static void test_it_waits_for_a_listener_and_for_200(void **state)
{
    (void)state;
    run(becomes_ready);
}

static void ends_early(void)
{
    set("WAKEGATE_POD_COMMAND", "sleep 0.2; exit 3");
    int port = start(free_port());
    assert_int_equal(pod_wait_ready(driver, "pod1", port), -ESRCH);
}

static void test_a_pod_that_ends_is_told_at_once(void **state)
{
    (void)state;
    run(ends_early);
}

static void never_ready(void)
{
    set("POD_READY_TIMEOUT_MS", "400");
    set_server("0", 1000000);
    int port = start(free_port());
    uint64_t begun_ns = clock_now_ns();
    assert_int_equal(pod_wait_ready(driver, "pod1", port), -ETIMEDOUT);
    uint64_t took_ms = (clock_now_ns() - begun_ns) / CLOCK_MS;
    assert_true(took_ms >= 400 && took_ms < 5000);
}

static void test_a_pod_that_is_never_ready_ends_at_the_deadline(void **state)
{
    (void)state;
    run(never_ready);
}

/* Accepts by its backlog and says nothing. */
static void silent(void)
{
    set("POD_READY_TIMEOUT_MS", "400");
    set("WAKEGATE_POD_COMMAND", "exec sleep 1000");
    int port;
    int listener = listener_open(&port);
    assert_int_equal(listen(listener, 8), 0);
    start(port);
    uint64_t begun_ns = clock_now_ns();
    assert_int_equal(pod_wait_ready(driver, "pod1", port), -ETIMEDOUT);
    assert_true(clock_now_ns() - begun_ns < 5000 * CLOCK_MS);
    close(listener);
}

static void test_a_pod_that_says_nothing_ends_at_the_deadline(void **state)
{
    (void)state;
    run(silent);
}

struct waiter {
    struct group group;
    int port;
    int result;
};

static void run_waiter(void *arg)
{
    struct waiter *waiter = arg;
    waiter->result = pod_wait_ready(driver, "pod1", waiter->port);
    group_done(&waiter->group);
}

static void canceled(void)
{
    set("WAKEGATE_POD_COMMAND", "exec sleep 1000");
    struct waiter waiter = {.port = start(free_port())};
    group_add(&waiter.group);
    struct fiber *fiber = fiber_start(&loop, "waiter", run_waiter, &waiter);
    assert_int_equal(fiber_sleep_ms(20), 0);
    fiber_cancel(fiber);
    assert_int_equal(group_wait(&waiter.group, "waiter", CLOCK_NEVER), 0);
    assert_int_equal(waiter.result, -ECANCELED);
}

static void test_waiting_can_be_canceled(void **state)
{
    (void)state;
    run(canceled);
}

int main(void)
{
    char error[256];
    if (config_load(NULL, error, sizeof error) < 0)
        return 1;
    /* cmocka leaves a failed test by longjmp, which can't leave a fiber: it ends the program instead. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    fetch_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_waits_for_a_listener_and_for_200, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pod_that_ends_is_told_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pod_that_is_never_ready_ends_at_the_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pod_that_says_nothing_ends_at_the_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_can_be_canceled, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
