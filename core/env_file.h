#ifndef CORE_ENV_FILE_H
#define CORE_ENV_FILE_H

#include "core/base/str.h"

/*
 * A file of NAME=value lines that only its owner can read: read whole, changed line by line, so that what
 * somebody else wrote in it stays, and written anew in one step (rename), so that a crash leaves the old or the
 * new one.
 */
struct env_file {
    const char *path; /* the caller's */
    struct buf text;
    bool changed;
};

/* Reads the file; one that is not there is empty. 0 or a negative errno. */
int env_file_open(struct env_file *file, const char *path) MUST_USE;

/* The value of the last line with this name, until the next set; STR_NONE without one. */
struct str env_file_get(const struct env_file *file, const char *name);

/* Replaces the value in its line, or adds a line at the end. `value` has no line break. */
void env_file_set(struct env_file *file, const char *name, struct str value);

/* Writes it (mode 0600) if something was changed. 0 or a negative errno; the file that was there stays then. */
int env_file_save(struct env_file *file) MUST_USE;

/* Wipes and frees the text. */
void env_file_close(struct env_file *file);

#endif
