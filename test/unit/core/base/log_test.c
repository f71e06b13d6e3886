/* The log: each test has stderr as a pipe or a file and looks at what came out. */
#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static int kept_stderr;
static int read_end;

/* stderr becomes a pipe. */
static void capture(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    kept_stderr = dup(STDERR_FILENO);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    read_end = ends[0];
}

/* stderr is again what it was; `text` gets what was still in the pipe. */
static void release(struct buf *text)
{
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    ssize_t count;
    while ((count = read(read_end, buf_reserve(text, 65536), 65536)) > 0)
        text->size += (size_t)count;
    close(read_end);
    buf_add_char(text, '\0');
}

static size_t count_lines(const struct buf *text)
{
    size_t count = 0;
    for (size_t i = 0; i < text->size; i++)
        count += text->at[i] == '\n';
    return count;
}

static void a_line_is_one_json_object(void **state)
{
    (void)state;
    struct buf text = {0};
    capture();
    log_open("test", LOG_INFO);
    LOG(INFO, "hello", LOG_TEXT("text", "a\"b\r\n\xff"), LOG_INT("number", -5), LOG_BOOL("yes", true),
        LOG_TEXT("none", NULL), LOG_ERRNO(-ENOENT));
    LOG(DEBUG, "not shown", LOG_INT("n", 1));
    LOG(ERROR, "bare", LOG_BOOL("no", false));
    log_close();
    release(&text);
    assert_int_equal(count_lines(&text), 2);
    assert_int_equal(strncmp(text.at, "{\"time\":\"20", 11), 0);
    assert_non_null(strstr(
        text.at,
        "Z\",\"level\":\"info\",\"program\":\"test\",\"msg\":\"hello\",\"text\":\"a\\\"b\\r\\n\\ufffd\","
        "\"number\":-5,\"yes\":true,\"none\":\"\",\"error\":\"No such file or directory\"}\n"));
    assert_non_null(
        strstr(text.at, "\"level\":\"error\",\"program\":\"test\",\"msg\":\"bare\",\"no\":false}\n"));
    buf_clear(&text);
}

static void levels_below_the_least_are_off(void **state)
{
    (void)state;
    log_open("test", LOG_WARN);
    assert_false(log_enabled(LOG_INFO));
    assert_true(log_enabled(LOG_WARN));
    assert_true(log_enabled(LOG_ERROR));
    log_close();
}

static void a_line_made_by_hand_is_written_too(void **state)
{
    (void)state;
    struct buf text = {0};
    capture();
    log_open("test", LOG_INFO);
    struct buf *line = log_line_begin(LOG_INFO, "request");
    buf_add_literal(line, ",\"status\":200");
    log_line_end();
    log_flush(); /* without the writer's help */
    struct pollfd ready = {.fd = read_end, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 1);
    log_close();
    release(&text);
    assert_non_null(strstr(text.at, "\"msg\":\"request\",\"status\":200}\n"));
    buf_clear(&text);
}

static void the_writer_writes_by_itself(void **state)
{
    (void)state;
    struct buf text = {0};
    capture();
    log_open("test", LOG_INFO);
    struct pollfd ready = {.fd = read_end, .events = POLLIN};
    for (int i = 0; i < 3; i++) {
        LOG(INFO, "line", LOG_INT("i", i));
        assert_int_equal(poll(&ready, 1, 5000), 1);
        char taken[4096];
        assert_true(read(read_end, taken, sizeof taken) > 0);
    }
    log_close();
    release(&text);
    buf_clear(&text);
}

enum { THREADS = 4, LINES = 2000 };

static void *log_much(void *unused)
{
    (void)unused;
    for (int i = 0; i < LINES; i++)
        LOG(INFO, "many", LOG_INT("i", i));
    return NULL;
}

static void *read_all(void *out)
{
    struct buf *text = out;
    ssize_t count;
    while ((count = read(read_end, buf_reserve(text, 65536), 65536)) > 0)
        text->size += (size_t)count;
    return NULL;
}

/* What threads that have ended have logged is not lost, nor torn, with log_flush in between. */
static void lines_of_many_threads_stay_whole(void **state)
{
    (void)state;
    struct buf text = {0};
    struct buf rest = {0};
    capture();
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_all, &text), 0);
    log_open("test", LOG_INFO);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_much, NULL), 0);
    for (int i = 0; i < 50; i++)
        log_flush();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    log_close();
    dup2(kept_stderr, STDERR_FILENO); /* the pipe's last writer: the reader meets the end */
    assert_int_equal(pthread_join(reader, NULL), 0);
    release(&rest);
    buf_clear(&rest);
    assert_int_equal(log_dropped(), 0);
    assert_int_equal(count_lines(&text), THREADS * LINES);
    struct str left = buf_str(&text);
    struct str line;
    while (str_split(&left, '\n', &line)) {
        if (line.size == 0)
            continue;
        assert_true(str_starts(line, STR("{\"time\":\"")));
        assert_int_equal(line.at[line.size - 1], '}');
    }
    buf_clear(&text);
}

static double cpu_seconds(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* stderr may be non-blocking because a parent made it so. Lines are kept up to a bound, then counted, nothing
 * spins meanwhile, and what was kept comes when the reader goes on. */
static void a_reader_that_stands_still_costs_lines_not_time(void **state)
{
    (void)state;
    struct buf text = {0};
    struct buf rest = {0};
    capture();
    assert_int_equal(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK), 0);
    log_open("test", LOG_INFO);
    char filler[1001];
    memset(filler, 'x', 1000);
    filler[1000] = '\0';
    for (int i = 0; log_dropped() == 0; i++) {
        assert_true(i < 20000);
        LOG(INFO, "much", LOG_TEXT("filler", filler));
    }
    double before = cpu_seconds();
    struct timespec while_it_stands = {.tv_nsec = 300 * 1000 * 1000};
    nanosleep(&while_it_stands, NULL);
    assert_true(cpu_seconds() - before < 0.1);
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_all, &text), 0);
    log_close();
    dup2(kept_stderr, STDERR_FILENO);
    assert_int_equal(pthread_join(reader, NULL), 0);
    release(&rest);
    buf_clear(&rest);
    assert_true(text.size > 4000000 && text.size < 10000000);
    assert_int_equal(text.at[text.size - 1], '\n');
    buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_json_object),
        cmocka_unit_test(levels_below_the_least_are_off),
        cmocka_unit_test(a_line_made_by_hand_is_written_too),
        cmocka_unit_test(the_writer_writes_by_itself),
        cmocka_unit_test(lines_of_many_threads_stay_whole),
        cmocka_unit_test(a_reader_that_stands_still_costs_lines_not_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
