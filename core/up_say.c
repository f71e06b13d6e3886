/* Lines for people: what `wakegate up` does, and the end of a log when a part of it has failed. */
#include "core/up_say.h"

#include "core/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHOWN_BYTES = 8192, SHOWN_LINES = 20, LOG_BYTES = 64 * 1024 * 1024 };

void up_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    flockfile(stderr);
    fputs("wakegate up: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
}

int up_log_open(const char *path, int64_t *from)
{
    struct stat found;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor < 0 || fstat(descriptor, &found)) {
        int error = errno;
        up_say("can't write %s: %s", path, strerror(error));
        if (descriptor >= 0)
            close(descriptor);
        return -error;
    }
    *from = found.st_size;
    if (*from > LOG_BYTES && ftruncate(descriptor, 0) == 0)
        *from = 0;
    return descriptor;
}

/* Without all but the last SHOWN_LINES lines. */
static struct str last_lines(struct str text)
{
    size_t at = text.size;
    for (int lines = 0; at > 0; at--)
        if (text.at[at - 1] == '\n' && at < text.size && ++lines == SHOWN_LINES)
            break;
    return str_of(text.at + at, text.size - at);
}

void up_show_log(const char *path, int64_t from)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    off_t size = lseek(descriptor, 0, SEEK_END);
    if (size - from > SHOWN_BYTES)
        from = size - SHOWN_BYTES;
    char *text = mem_alloc(SHOWN_BYTES);
    ssize_t got = pread(descriptor, text, SHOWN_BYTES, from);
    close(descriptor);
    if (got > 0) {
        struct str shown = last_lines(str_of(text, (size_t)got));
        fprintf(stderr, "%.*s%s", STR_ARG(shown), shown.at[shown.size - 1] == '\n' ? "" : "\n");
    }
    free(text);
}

int up_run(const char *what, const char *log, const struct child_options *options, struct buf *output)
{
    struct child_options own = *options;
    int64_t from;
    int descriptor = up_log_open(log, &from);
    if (descriptor < 0)
        return descriptor;
    own.output = descriptor;
    own.errors = descriptor;
    own.death_signal = SIGKILL;
    int status = 0;
    int result = child_run(&own, output, CLOCK_NEVER, &status);
    close(descriptor);
    if (result == -ECANCELED || (result == 0 && status == 0))
        return result;
    char text[CHILD_STATUS_SIZE];
    up_say("can't %s: %s", what, result ? strerror(-result) : child_status_text(text, status));
    up_show_log(log, from);
    return result ? result : -EIO;
}
