/*
 * The log.
 *
 *   thread A ── buffer A ──┐
 *   thread B ── buffer B ──┼── writer thread ── write(2)
 *
 * A buffer has a mutex that only its thread and the writer take. The writer sleeps until a buffer goes from
 * empty to not empty, then waits GATHER_MS so that many lines go out in one write.
 */
#include "core/base/log.h"

#include "core/base/clock.h"
#include "core/base/escape.h"
#include "core/base/list.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    GATHER_MS = 20,
    KEEP_MAX = 4 << 20, /* bytes a thread may gather while the reader of the log stands still */
};

struct source {
    struct link all;
    pthread_mutex_t mutex;
    struct buf lines;
    struct buf line; /* the one being made */
};

static struct {
    pthread_mutex_t mutex; /* guards sources, pending, stopping */
    pthread_cond_t wake;
    struct link sources;
    bool pending;
    bool stopping;
    bool running;
    pthread_t writer;
    enum log_level least;
    char program[16];
    _Atomic uint64_t dropped;
} state = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .sources = {&state.sources, &state.sources},
    .least = LOG_INFO,
    .program = "wakegate",
};

static _Thread_local struct source *own;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* A thread's buffers stay until log_close, so that lines of a thread that has ended are still written. */
static struct source *source_own(void)
{
    if (LIKELY(own))
        return own;
    own = mem_zalloc(sizeof *own);
    pthread_mutex_init(&own->mutex, NULL);
    pthread_mutex_lock(&state.mutex);
    list_push_back(&state.sources, &own->all);
    pthread_mutex_unlock(&state.mutex);
    return own;
}

static void write_all(const char *at, size_t size)
{
    while (size) {
        ssize_t written = write(STDERR_FILENO, at, size);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            /* stderr may be a pipe that somebody else has made non-blocking. */
            struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
            if (errno == EAGAIN && poll(&room, 1, -1) > 0)
                continue;
            return; /* nobody listens; there is no one to tell */
        }
        at += written;
        size -= (size_t)written;
    }
}

/* Takes what each thread has gathered and writes it. Two callers never write the same bytes. */
static void drain(void)
{
    pthread_mutex_lock(&state.mutex);
    state.pending = false;
    LIST_EACH (&state.sources, item, after) {
        struct source *source = LIST_ENTRY(item, struct source, all);
        pthread_mutex_lock(&source->mutex);
        struct buf lines = source->lines;
        source->lines = (struct buf){0};
        pthread_mutex_unlock(&source->mutex);
        if (lines.size) {
            /* Sources are only added, at the end, so the walk survives the unlocked write. */
            pthread_mutex_unlock(&state.mutex);
            write_all(lines.at, lines.size);
            pthread_mutex_lock(&state.mutex);
            after = item->next;
        }
        pthread_mutex_lock(&source->mutex);
        if (!source->lines.at && lines.capacity <= 1 << 16) {
            lines.size = 0;
            source->lines = lines;
            lines = (struct buf){0};
        }
        pthread_mutex_unlock(&source->mutex);
        buf_clear(&lines);
    }
    pthread_mutex_unlock(&state.mutex);
}

static void *writer_main(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&state.mutex);
        while (!state.pending && !state.stopping)
            pthread_cond_wait(&state.wake, &state.mutex);
        bool stopping = state.stopping;
        pthread_mutex_unlock(&state.mutex);
        if (stopping)
            return NULL;
        struct timespec pause = {.tv_nsec = GATHER_MS * 1000000L};
        nanosleep(&pause, NULL);
        drain();
    }
}

void log_open(const char *program, enum log_level least)
{
    strncpy(state.program, program, sizeof state.program - 1);
    state.least = least;
    CHECK(!state.running);
    state.stopping = false;
    /* Signals belong to the loops. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&state.writer, NULL, writer_main, NULL) == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    state.running = true;
}

void log_flush(void)
{
    drain();
}

void log_close(void)
{
    if (state.running) {
        pthread_mutex_lock(&state.mutex);
        state.stopping = true;
        pthread_cond_signal(&state.wake);
        pthread_mutex_unlock(&state.mutex);
        pthread_join(state.writer, NULL);
        state.running = false;
    }
    drain();
    struct link *item;
    while ((item = list_pop_front(&state.sources)) != NULL) {
        struct source *source = LIST_ENTRY(item, struct source, all);
        buf_clear(&source->lines);
        buf_clear(&source->line);
        pthread_mutex_destroy(&source->mutex);
        free(source);
    }
    own = NULL;
}

bool log_enabled(enum log_level level)
{
    return level >= state.least;
}

const char *log_errno(int code)
{
    return strerror(code < 0 ? -code : code);
}

struct buf *log_line_begin(enum log_level level, const char *message)
{
    struct source *source = source_own();
    struct buf *line = &source->line;
    int64_t now_ms = clock_coarse_wall_ms();
    unsigned ms = (unsigned)(now_ms % 1000);
    static _Thread_local int64_t second = -1;
    static _Thread_local char iso[CLOCK_ISO_SIZE];
    if (UNLIKELY(second != now_ms / 1000)) {
        second = now_ms / 1000;
        clock_format_iso(iso, now_ms);
    }
    char fraction[5] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
    line->size = 0;
    buf_add_literal(line, "{\"time\":\"");
    buf_add(line, iso, 19);
    buf_add(line, fraction, sizeof fraction);
    buf_add_literal(line, "\",\"level\":\"");
    buf_add_text(line, level_names[level]);
    buf_add_literal(line, "\",\"program\":\"");
    buf_add_text(line, state.program);
    buf_add_literal(line, "\",\"msg\":\"");
    buf_add_text(line, message);
    buf_add_char(line, '"');
    return line;
}

void log_line_end(void)
{
    struct source *source = own;
    buf_add_literal(&source->line, "}\n");
    pthread_mutex_lock(&source->mutex);
    bool was_empty = source->lines.size == 0;
    if (source->lines.size + source->line.size > KEEP_MAX)
        atomic_fetch_add_explicit(&state.dropped, 1, memory_order_relaxed);
    else
        buf_add(&source->lines, source->line.at, source->line.size);
    pthread_mutex_unlock(&source->mutex);
    if (!was_empty)
        return;
    pthread_mutex_lock(&state.mutex);
    state.pending = true;
    pthread_cond_signal(&state.wake);
    pthread_mutex_unlock(&state.mutex);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields)
{
    struct buf *line = log_line_begin(level, message);
    for (const struct log_field *field = fields; field->name; field++) {
        buf_add_literal(line, ",\"");
        buf_add_text(line, field->name);
        buf_add_literal(line, "\":");
        switch (field->type) {
        case LOG_FIELD_STR: escape_json(line, field->text); break;
        case LOG_FIELD_INT: buf_add_i64(line, field->number); break;
        case LOG_FIELD_BOOL: buf_add_text(line, field->number ? "true" : "false"); break;
        }
    }
    log_line_end();
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&state.dropped, memory_order_relaxed);
}
