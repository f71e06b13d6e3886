#ifndef CORE_RUN_SIGNAL_H
#define CORE_RUN_SIGNAL_H

#include "core/run/loop.h"

/* Signals as callbacks on a loop. */
struct signal_watch {
    uv_signal_t handle;
    void (*run)(void *arg);
    void *arg;
};

/* The watch must live until loop_run has returned after signal_close. It does not keep the loop running. */
void signal_open(struct loop *loop, struct signal_watch *watch, int number, void (*run)(void *arg),
                 void *arg);
void signal_close(struct signal_watch *watch);

/* Every signal as a new process expects it: not ignored, not caught, not blocked. For the moment between fork and
 * exec; async-signal-safe. */
void signal_reset_all(void);

#endif
