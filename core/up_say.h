#ifndef CORE_UP_SAY_H
#define CORE_UP_SAY_H

#include "core/base/str.h"
#include "core/run/child.h"

#include <stdint.h>

/* What `wakegate up` tells the person who started it, as plain lines on stderr, and the logs of its parts. */

/* One line, with the program's name before it. */
void up_say(const char *format, ...) PRINTF_LIKE(1, 2);

/*
 * Opens a log to be appended to; one that has grown very long is begun anew. Sets *from to where what is written
 * from now on begins. A descriptor, or a negative error about which a line was said.
 */
int up_log_open(const char *path, int64_t *from) MUST_USE;

/* Shows the last lines that a log got after its first `from` bytes. */
void up_show_log(const char *path, int64_t from);

/*
 * Runs a program to its end. Its standard output goes to `output`, or with its errors to the log when that is NULL.
 * Waits. 0; else, but for -ECANCELED, it was said that we can't do `what`, and the program's lines were shown.
 */
int up_run(const char *what, const char *log, const struct child_options *options, struct buf *output)
    MUST_USE;

#endif
