#ifndef CORE_RUN_CHILD_H
#define CORE_RUN_CHILD_H

#include "core/base/str.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Child processes, from fibers. A child leads a session of its own, so that a terminal's Ctrl-C does not reach
 * it; it inherits no descriptor but the three standard ones, no signal mask and no ignored signal.
 */
struct child;

struct child_user {
    uid_t uid;
    gid_t gid; /* its only group */
};

struct child_options {
    const char *program;           /* its path; NULL: argv[0] */
    const char *const *argv;       /* NULL-terminated */
    const char *const *variables;  /* NAME=value, NULL-terminated: put over our environment; may be NULL */
    const struct child_user *user; /* NULL: ours */
    int output;                    /* descriptors that stay the caller's; -1: /dev/null */
    int errors;
    /* Sent to the child when the thread that started it ends, however it ends; 0: none. A program that is
     * set-uid loses it. */
    int death_signal;
};

/*
 * Starts a child; from a loop's thread. Standard input is /dev/null. Blocks for the moment until the program is
 * loaded, so that an error of that is known: -ENOENT, -EACCES and the like, or -EAGAIN without resources.
 */
int child_start(const struct child_options *options, struct child **child) MUST_USE;

/* Waits until it has ended; at most one fiber at a time. 0 and the status as waitpid gives it (NULL: not
 * wanted), or -ETIMEDOUT, -ECANCELED. */
int child_wait(struct child *child, const char *what, uint64_t deadline_ns, int *status) MUST_USE;

bool child_ended(const struct child *child);
pid_t child_pid(const struct child *child);

/* Harmless once it has ended. */
void child_signal(struct child *child, int number);

/* Sends `number`, and SIGKILL when that has not ended it within `grace_ms`. Waits until it has ended, whether the
 * fiber is cancelled or not. Returns its status. */
int child_stop(struct child *child, int number, uint64_t grace_ms);

/* The child must have ended. NULL is fine. */
void child_free(struct child *child);

/*
 * Runs a program to its end, with what it writes to its standard output added to `output` unless that is NULL
 * (options->output is not used then). Waits; on -ETIMEDOUT and -ECANCELED the child has been killed. 0 and the
 * status, or an error of child_start or child_wait.
 */
int child_run(const struct child_options *options, struct buf *output, uint64_t deadline_ns, int *status)
    MUST_USE;

/* "exit status 3" or "signal 9 (Killed)". Returns `out`. */
enum { CHILD_STATUS_SIZE = 64 };
const char *child_status_text(char out[CHILD_STATUS_SIZE], int status);

/* Looks for a program of this name in PATH and then where system programs are; false when there is none. */
bool child_find_program(const char *name, char *path, size_t path_size);

#endif
