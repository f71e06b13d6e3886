#ifndef CORE_BASE_LOG_H
#define CORE_BASE_LOG_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The log: one JSON object a line on stderr. Lines are gathered per thread and written by a thread of the
 * log's own, so that a slow reader of the log never stops a loop; what cannot be kept is dropped and counted.
 * Values are escaped; callers never pass a secret.
 *
 *     LOG(INFO, "pod started", LOG_TEXT("instance", id), LOG_INT("pid", pid));
 */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *name; /* NULL ends a list */
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_BOOL } type;
    struct str text;
    int64_t number;
};

#define LOG_STR(name_, value_) ((struct log_field){.name = (name_), .type = LOG_FIELD_STR, .text = (value_)})
#define LOG_TEXT(name_, value_) LOG_STR(name_, str_from(value_))
#define LOG_INT(name_, value_)                                                                               \
    ((struct log_field){.name = (name_), .type = LOG_FIELD_INT, .number = (int64_t)(value_)})
#define LOG_BOOL(name_, value_)                                                                              \
    ((struct log_field){.name = (name_), .type = LOG_FIELD_BOOL, .number = (value_)})
/* The text of a negative errno value. */
#define LOG_ERRNO(code_) LOG_TEXT("error", log_errno(code_))

#define LOG(level_, message_, ...)                                                                           \
    do {                                                                                                     \
        if (log_enabled(LOG_##level_))                                                                       \
            log_write(LOG_##level_, (message_), (const struct log_field[]){__VA_ARGS__, {.name = NULL}});    \
    } while (0)

/* Starts the writing thread. `program` is named on each line. */
void log_open(const char *program, enum log_level least);
/* Writes out what is gathered and stops the thread. */
void log_close(void);
/* Writes out what is gathered, from the calling thread; for the moment before an exec or exit. */
void log_flush(void);

bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *message, const struct log_field *fields);
const char *log_errno(int code);

/* For the request line, which is written for every request: begin gives the line's buffer with
 * {"time":…,"level":"info","program":…,"msg":"request" in it; the caller adds fields of its own, each with its
 * leading comma, and ends it. No other call of the log's may stand in between. */
struct buf *log_line_begin(enum log_level level, const char *message);
void log_line_end(void);

/* Lines dropped since the start. */
uint64_t log_dropped(void);

#endif
