/*
 * `wakegate tail`: an account's events in the terminal, as they happen. Where the server is and whose events: WAKEGATE_URL and
 * FABSTIR_API_KEY, from the environment or from the file that `wakegate up` writes. It goes on by itself after a break, from
 * where it was; SIGINT and SIGTERM end it.
 *
 *     2025-11-10T12:00:00.123Z job.completed {"id": "job_…", …}
 */
#include "core/base/clock.h"
#include "core/base/config.h"
#include "core/base/escape.h"
#include "core/base/log.h"
#include "core/env_file.h"
#include "core/net/fetch.h"
#include "core/options.h"
#include "core/program.h"
#include "core/run/fiber.h"
#include "core/run/signal.h"
#include "proto/json.h"
#include "proto/sse_read.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECT_MS = 10000,
    SILENCE_MS = 60000, /* the server says something every SSE_COMMENT_SECONDS */
    PAUSE_FIRST_MS = 250,
    PAUSE_MOST_MS = 10000,
};
#define FOREVER_MS (UINT64_C(10) * 365 * 86400 * 1000)
#define CREDENTIALS ".wakegate/credentials.env"

static struct {
    struct loop loop;
    struct fiber *fiber; /* NULL: it has ended */
    struct signal_watch signals[2];
    const char *events;
    const char *last_id;
    const char *credentials;
    bool json;
    struct buf url;
    struct buf key;
    struct buf id;     /* the last one that was had */
    uint64_t pause_ms; /* before the next try */
    int status;        /* of the program */
} tail;

/* ---- where, and whose ---- */

/* The environment comes first. False: neither has it. */
static bool find(const struct env_file *file, const char *name, struct buf *value)
{
    const char *given = getenv(name);
    struct str text = given && given[0] ? str_from(given) : env_file_get(file, name);
    buf_add_str(value, text);
    if (text.size == 0)
        fprintf(stderr, "wakegate tail: %s must be set, or stand in %s\n", name, tail.credentials);
    return text.size > 0;
}

static bool find_all(void)
{
    struct env_file file = {.path = NULL};
    int result = env_file_open(&file, tail.credentials);
    if (result)
        fprintf(stderr, "wakegate tail: %s can't be read: %s\n", tail.credentials, log_errno(result));
    bool found =
        result == 0 && find(&file, "WAKEGATE_URL", &tail.url) && find(&file, "FABSTIR_API_KEY", &tail.key);
    env_file_close(&file);
    if (!found)
        return false;
    buf_add_text(&tail.url, "/v1/stream");
    if (tail.events) {
        buf_add_text(&tail.url, "?events=");
        escape_percent_encode(&tail.url, str_from(tail.events));
    }
    buf_add_char(&tail.url, '\0');
    buf_add_text(&tail.id, tail.last_id ? tail.last_id : "");
    return true;
}

/* ---- what comes ---- */

/* What JSON lets stand in a string and a terminal would obey: DEL, and U+0080 to U+009F. It stays JSON. */
static void print_safely(struct str text)
{
    struct buf out = {0};
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.at[i];
        unsigned char next = i + 1 < text.size ? (unsigned char)text.at[i + 1] : 0;
        char escaped[8];
        bool is_c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;
        if (c == 0x7f || is_c1) {
            snprintf(escaped, sizeof escaped, "\\u%04x", is_c1 ? next : c);
            buf_add_text(&out, escaped);
            i += is_c1;
        } else {
            buf_add_char(&out, text.at[i]);
        }
    }
    printf("%.*s\n", STR_ARG(buf_str(&out)));
    buf_clear(&out);
}

static void print_event(struct str text)
{
    struct arena arena;
    const char *error;
    struct buf data = {0};
    arena_init(&arena);
    const struct json *event = tail.json ? NULL : json_read(&arena, text, &error);
    if (event) {
        const struct json *member = json_member(event, "data");
        json_write_value(&data, member ? member : event);
        printf("%.*s %.*s ", STR_ARG(json_string(json_member(event, "timestamp"))),
               STR_ARG(json_string(json_member(event, "type"))));
        print_safely(buf_str(&data));
    } else {
        print_safely(text);
    }
    fflush(stdout);
    buf_clear(&data);
    arena_clear(&arena);
}

static void note_id(const struct sse_reader *reader)
{
    if (!reader->has_id)
        return;
    tail.id.size = 0;
    buf_add_str(&tail.id, buf_str(&reader->id));
}

static int read_events(struct fetch_stream *stream, struct sse_reader *reader)
{
    for (;;) {
        struct str piece;
        struct sse_event event;
        int result = fetch_read(stream, &piece, clock_in_ms(SILENCE_MS));
        if (result || piece.size == 0)
            return result ? result : -ECONNRESET;
        sse_reader_feed(reader, piece);
        while ((result = sse_reader_next(reader, &event)) == 1)
            print_event(event.data);
        note_id(reader);
        if (result)
            return result;
        tail.pause_ms = PAUSE_FIRST_MS;
    }
}

/* The server refuses, in its own words, and will go on doing so. */
static void refused(struct fetch_stream *stream, int status)
{
    struct str piece = STR("");
    int result = fetch_read(stream, &piece, clock_in_ms(CONNECT_MS));
    fprintf(stderr, "wakegate tail: status %d: %.*s\n", status, STR_ARG(result ? STR("") : piece));
    tail.status = 1;
}

static bool is_final(int status)
{
    return status >= 400 && status < 500 && status != 408 && status != 429;
}

/* 0: that was it. Else why it is to be tried again. */
static int listen_once(struct arena *arena)
{
    const char *const headers[] = {
        "Accept: text/event-stream",
        arena_printf(arena, "Authorization: Bearer %.*s", STR_ARG(buf_str(&tail.key))),
        tail.id.size ? arena_printf(arena, "Last-Event-ID: %.*s", STR_ARG(buf_str(&tail.id))) : NULL,
        NULL,
    };
    const struct fetch_request request = {
        .method = "GET",
        .url = tail.url.at,
        .body = STR_NONE,
        .headers = headers,
        .connect_timeout_ms = CONNECT_MS,
        .header_timeout_ms = CONNECT_MS,
        .total_timeout_ms = FOREVER_MS,
        .max_body_bytes = SIZE_MAX,
    };
    struct fetch_stream *stream;
    int result = fetch_open(&request, arena, &stream);
    if (result)
        return result;
    int status = fetch_stream_status(stream);
    if (status == 200) {
        struct sse_reader reader;
        sse_reader_init(&reader, 0);
        result = read_events(stream, &reader);
        sse_reader_clear(&reader);
    } else if (is_final(status)) {
        refused(stream, status);
    } else {
        result = -EAGAIN;
    }
    fetch_end(stream);
    return result;
}

static void run_tail(void *unused)
{
    int result;
    (void)unused;
    tail.pause_ms = PAUSE_FIRST_MS;
    do {
        struct arena arena;
        arena_init(&arena);
        result = listen_once(&arena);
        arena_clear(&arena);
        if (result == 0 || result == -ECANCELED)
            break;
        fprintf(stderr, "wakegate tail: %s; trying again\n", log_errno(result));
        result = fiber_sleep_ms(tail.pause_ms);
        tail.pause_ms = tail.pause_ms * 2 < PAUSE_MOST_MS ? tail.pause_ms * 2 : PAUSE_MOST_MS;
    } while (result == 0);
    fiber_hold();
    fetch_close_loop(&tail.loop);
    fiber_release();
    tail.fiber = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(tail.signals); i++)
        signal_close(&tail.signals[i]);
    loop_stop(&tail.loop);
}

static void on_terminate(void *unused)
{
    (void)unused;
    if (tail.fiber)
        fiber_cancel(tail.fiber);
}

int tail_main(int argc, char **argv)
{
    bool help = false;
    const struct option_row rows[] = {
        {"--events", &tail.events, NULL,
         "only these: names or beginnings, separated by commas (job.*,instance.ready)"},
        {"--last-event-id", &tail.last_id, NULL, "begin after this one, as far as the history reaches"},
        {"--credentials", &tail.credentials, NULL,
         "file with WAKEGATE_URL and FABSTIR_API_KEY (" CREDENTIALS ")"},
        {"--json", NULL, &tail.json, "each as the server sends it"},
        {"--help", NULL, &help, "this"},
    };
    tail.credentials = CREDENTIALS;
    if (options_read("tail", argc, argv, rows, ARRAY_SIZE(rows), NULL, 0) < 0)
        return 2;
    if (help) {
        puts("wakegate tail: an account's events, as they happen\n\nOptions:");
        options_help(rows, ARRAY_SIZE(rows));
        return 0;
    }
    if (!program_settings("tail", NULL) || !find_all())
        return 2;
    program_begin("tail");
    loop_open(&tail.loop, 0);
    fiber_guard_install();
    signal_open(&tail.loop, &tail.signals[0], SIGTERM, on_terminate, NULL);
    signal_open(&tail.loop, &tail.signals[1], SIGINT, on_terminate, NULL);
    tail.fiber = fiber_start(&tail.loop, "tail", run_tail, NULL);
    loop_run(&tail.loop);
    loop_close(&tail.loop);
    struct buf *const kept[] = {&tail.url, &tail.key, &tail.id};
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
        buf_clear(kept[i]);
    log_close();
    config_clear();
    return tail.status;
}
