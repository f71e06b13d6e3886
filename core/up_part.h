#ifndef CORE_UP_PART_H
#define CORE_UP_PART_H

#include "core/base/arena.h"
#include "core/run/child.h"
#include "core/run/fiber.h"

#include <stdbool.h>
#include <sys/socket.h>

/*
 * A part of `wakegate up`: a program that runs for as long as it does. A fiber starts it, waits until it is of
 * use, and starts it again, after a pause, when it ends.
 */
struct part;

struct part_kind {
    /* Fills the command (memory from the arena) for every start; may do what has to be done before and wait.
     * 0 or an error, about which it has said a line. */
    int (*prepare)(struct part *part, struct arena *arena, struct child_options *options);
    /* Waits until the started program is of use, for as long as it has not ended: 0, -ESRCH when it has,
     * -ETIMEDOUT or -ECANCELED. NULL: at once. */
    int (*wait_ready)(struct part *part);
    int death_signal; /* what it gets when `up` is killed */
    int stop_signal;
};

struct part {
    const struct part_kind *kind;
    const char *name;
    const char *log;  /* path; NULL: our stderr */
    void *context;    /* of its kind */
    uint64_t stop_ms; /* the time it has for its end before it is killed */
    struct child *child;
    struct fiber *fiber;
    struct wait started; /* of use for the first time, or failed */
    struct wait ended;
    bool was_of_use;
    int64_t log_from; /* where the log of this start begins */
};

/* Begins to start it; the fields above `child` are set, the others zero. Does not wait. */
void part_begin(struct part *part);

/* Waits until it is of use for the first time: 0, or an error about which it has said why. */
int part_wait_started(struct part *part) MUST_USE;

/* True while its program runs. */
bool part_lives(const struct part *part);

/* Begins to stop it for good; harmless on one that was never begun, and a second time. */
void part_cancel(struct part *part);

/* The same, and waits until it has ended, whether the fiber is cancelled or not. */
void part_stop(struct part *part);

/* Stops it for good, at once: also when a part_stop is under way. Does not wait. */
void part_kill(struct part *part);

/*
 * Asks a server until it answers as expected: connects to `address`, sends `question` and compares the first
 * bytes of the answer; any other answer is asked anew. For wait_ready.
 */
int part_ask(struct part *part, const struct sockaddr *address, socklen_t address_size, struct str question,
             struct str expected, uint64_t deadline_ns) MUST_USE;

#endif
